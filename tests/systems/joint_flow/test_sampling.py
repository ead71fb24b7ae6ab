from dataclasses import replace
from itertools import islice

import pytest
import torch

from soundreel.diffusion.flow import step_levels
from soundreel.systems.joint_flow.config import JointFlowOptions
from soundreel.systems.joint_flow.sampling import (
    GroupNoise,
    fill_groups,
    film_groups,
    levels_of_steps,
    sample_groups,
)
from soundreel.systems.joint_flow.transformer import (
    JointTransformer,
    JointTransformerConfig,
    TransformerSizes,
)
from soundreel.types import AV

OPTIONS = JointFlowOptions(num_steps=3, guidance_scale=1.0, sync_scale=1.0)
SMALL = JointTransformerConfig(
    video_tokens=5,
    video_dim=16,
    audio_dim=6,
    num_classes=2,
    sizes=TransformerSizes(width=16, depth=1, hidden=64, num_heads=2),
)
ANY = torch.tensor([2])


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    network = JointTransformer(SMALL).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    for modality in ("video", "audio"):
        network.get_buffer(f"{modality}_correlation").fill_(0.7)
    return network


def groups(count, seed=0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    return AV(
        torch.randn(batch, count, 5, 16, generator=generator),
        torch.randn(batch, count, 4, 6, generator=generator),
    )


def film(network, count, seed=0, **options):
    """So many windows of six groups, in one piece."""
    pieces = list(islice(film_groups(network, [seed], ANY, OPTIONS, window=6, **options), count))
    return AV(*(torch.cat([piece[m] for piece in pieces], dim=1) for m in ("video", "audio")))


def test_noise_in_pieces_is_the_whole_and_a_clips_own(transformer):
    whole = GroupNoise([3, 4], transformer).next(7)
    pieces = GroupNoise([4], transformer)
    parts = [pieces.next(2), pieces.next(1), pieces.next(4)]
    assert torch.equal(torch.cat([p.video for p in parts], dim=1)[0], whole.video[1])
    assert torch.equal(torch.cat([p.audio for p in parts], dim=1)[0], whole.audio[1])


@pytest.mark.parametrize("guidance", [1.0, 0.0])
def test_an_untrained_model_makes_clips_of_the_classes_means_and_deviations(guidance):
    """The best linear flow turns noise into s times that noise; without guidance, of any class."""
    network = JointTransformer(SMALL)
    network.get_buffer("video_class_deviation")[0] = 2.0
    network.get_buffer("video_class_mean")[0] = 5.0
    network.get_buffer("video_class_deviation")[-1] = 4.0
    network.get_buffer("video_class_mean")[-1] = 1.0
    noise = groups(4)
    level = noise.map(lambda x: torch.ones(x.shape[:2]))
    options = replace(OPTIONS, num_steps=1 if guidance else 100, guidance_scale=guidance)
    label = torch.zeros(len(noise.video), dtype=torch.long)
    made = sample_groups(network, noise, level, noise, label, options)
    wanted = 2.0 * noise.video + 5.0 if guidance else 4.0 * noise.video + 1.0
    assert torch.allclose(made.video, wanted, rtol=0.02, atol=0.02)
    assert torch.allclose(made.audio, noise.audio, rtol=0.02, atol=0.02)


def test_calmer_noise_is_for_new_pictures_alone():
    network, noise = JointTransformer(SMALL), groups(4)
    network.get_buffer("video_correlation")[-1, :2] = 0.99
    level = noise.map(lambda x: torch.ones(x.shape[:2]))
    level.video[:, :2] = 0.05
    options = replace(OPTIONS, num_steps=2, detail_noise=0.5, layout_noise=0.75)
    made = sample_groups(network, noise.map(torch.zeros_like), level, noise, ANY.expand(4), options)
    assert torch.allclose(made.video[:, 2:, :-1], 0.5 * noise.video[:, 2:, :-1], atol=1e-5)
    changing = made.video[:, 2:, -1, 2:]
    assert torch.allclose(changing, 0.75 * noise.video[:, 2:, -1, 2:], atol=1e-5)
    left = 0.99 ** (3.0 / SMALL.group_s)
    wanted = (left + 0.75 * (1 - left)) * noise.video[:, 2:, -1, :2]
    assert torch.allclose(made.video[:, 2:, -1, :2], wanted, atol=1e-5)
    assert torch.allclose(made.audio, noise.audio, atol=1e-5)
    assert float(made.video[:, :2].abs().max()) == 0  # what is given comes back


def test_sound_is_made_ahead_of_pictures_where_both_are_made():
    options = replace(OPTIONS, num_steps=6, sound_lead=0.5)
    levels = levels_of_steps(["video", "audio"], options)
    assert levels["video"] == pytest.approx([1, 1, 1, *step_levels(4, 1.5)[1:-1], 0], abs=1e-6)
    assert levels["audio"] == pytest.approx([*step_levels(4, 1.5), 0, 0], abs=1e-6)
    together = levels_of_steps(["video", "audio"], replace(options, sound_lead=0.0))
    assert together["video"] == together["audio"]
    for one in ("video", "audio"):  # all steps are for what is made
        assert levels_of_steps([one], options)[one] == together[one]


@pytest.mark.parametrize("given", ["video", "audio"])
def test_what_is_given_comes_back_and_steers_the_other(transformer, given):
    other = "audio" if given == "video" else "video"
    results = []
    for seed in (1, 2):
        signal = AV(None, None).replace(given, groups(10, seed)[given])
        rows = iter(signal[given].split(1, dim=1))

        def following(count, rows=rows):
            return AV(None, None).replace(given, torch.cat([next(rows) for _ in range(count)], 1))

        made = film(transformer, 2, given=following)
        assert torch.equal(made[given], signal[given][:, : made[given].shape[1]])
        results.append(made[other])
    assert (results[0] - results[1]).abs().max() > 1e-3


def test_a_longer_film_begins_like_a_shorter_one(transformer):
    short, long = film(transformer, 1), film(transformer, 4)
    assert long.video.shape[1] == 6 + 3 * 3
    assert torch.equal(long.video[:, :6], short.video)
    assert torch.equal(long.audio[:, :6], short.audio)
    assert not torch.equal(film(transformer, 1, seed=1).video, short.video)


def test_the_past_steers_what_follows(transformer):
    results = [film(transformer, 1, past=groups(5, seed)) for seed in (1, 2)]
    assert results[0].video.shape[1] == 3  # half of a window is history
    assert (results[0].video - results[1].video).abs().max() > 1e-3
    assert (results[0].audio - results[1].audio).abs().max() > 1e-3


@pytest.mark.parametrize("known", ["video", "audio"])
def test_the_past_of_one_modality_steers_both(transformer, known):
    def made(seed):
        return film(transformer, 2, past=AV(None, None).replace(known, groups(5, seed)[known]))

    results = [made(seed) for seed in (1, 2)]
    assert [x.shape[1] for x in results[0].tensors] == [6, 6]  # two of six, half of it history
    for modality in ("video", "audio"):
        assert (results[0][modality] - results[1][modality]).abs().max() > 1e-4
    assert torch.equal(results[0].video, made(1).video)


def test_a_gap_is_filled_between_what_is_known(transformer):
    known = groups(6)
    made = fill_groups(
        transformer,
        [0],
        ANY,
        OPTIONS,
        known=known,
        missing={"video": range(2, 4), "audio": range(3, 5)},
    )
    kept = {"video": [0, 1, 4, 5], "audio": [0, 1, 2, 5]}
    for modality, rows in kept.items():
        same = (made[modality] == known[modality]).flatten(2).all(2)[0]
        assert same.nonzero().flatten().tolist() == rows
    # The end of the window matters for the middle.
    changed = known.map(torch.clone)
    changed.video[:, 5] += 1
    again = fill_groups(
        transformer,
        [0],
        ANY,
        OPTIONS,
        known=changed,
        missing={"video": range(2, 4), "audio": range(3, 5)},
    )
    assert (again.video[:, 2:4] - made.video[:, 2:4]).abs().max() > 1e-4


def test_guidance_moves_away_from_any_class(transformer):
    noise = groups(4)
    level = noise.map(lambda x: torch.ones(x.shape[:2]))

    def made(scale, label):
        options = replace(OPTIONS, guidance_scale=scale)
        return sample_groups(transformer, noise, level, noise, torch.tensor([label]), options).video

    assert torch.equal(made(3.0, 2), made(1.0, 2))  # any class has nothing to be guided by
    first, second = (made(scale, 0) for scale in (1.0, 2.0))
    assert (first - second).abs().max() > 1e-3
    assert torch.allclose(made(0.0, 0), made(1.0, 2), atol=1e-4)


@pytest.mark.parametrize("given", ["video", "audio"])
def test_sync_moves_what_is_made_away_from_what_noise_in_place_of_the_other_gives(
    transformer, given
):
    """Linear in the scale in the one step that it takes part in; 1 is no guidance at all."""
    noise, known = groups(4), groups(4, seed=1)
    level = AV(*(torch.ones(1, 4) for _ in range(2))).replace(given, torch.full((1, 4), 0.03))
    other = "audio" if given == "video" else "video"

    def made(scale):
        # Levels 1, 0.6 and 0: only the second step begins within `SYNC_LEVELS`.
        options = replace(OPTIONS, num_steps=2, shift=1.5, sync_scale=scale)
        return sample_groups(transformer, known, level, noise, ANY, options)

    told, more, most = (made(scale) for scale in (1.0, 2.0, 3.0))
    assert torch.equal(more[given], known[given])
    assert (more[other] - told[other]).abs().max() > 1e-3
    twice = told[other] + 2 * (more[other] - told[other])
    assert torch.allclose(most[other], twice, atol=1e-4)


def test_sync_changes_nothing_where_neither_modality_hears_of_the_other(transformer):
    """Then what noise in place of the other gives is the answer itself."""
    for block in transformer.blocks:
        for project in block.out.values():
            torch.nn.init.zeros_(project.weight)
    for embed in transformer.level_in.values():
        torch.nn.init.zeros_(embed.last.weight)
    noise = groups(4)
    level = noise.map(lambda x: torch.ones(x.shape[:2]))

    def made(scale):
        options = replace(OPTIONS, num_steps=4, sync_scale=scale)
        return sample_groups(transformer, noise, level, noise, ANY, options)

    for one, other in zip(made(1.0), made(3.0), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_between_two_kinds_of_guidance_a_step_takes_few_answers(transformer):
    """Levels 1, 0.75, 0.5, 0.25: by class, twice towards each other, alone."""
    rows, forward = [], transformer.forward

    def counted(xt, level, label):
        rows.append(len(label))
        return forward(xt, level, label)

    transformer.forward = counted
    noise = groups(4)
    level = noise.map(lambda x: torch.ones(x.shape[:2]))
    options = replace(OPTIONS, num_steps=4, shift=1.0, guidance_scale=1.5, sync_scale=2.0)
    sample_groups(transformer, noise, level, noise, torch.tensor([0]), options)
    assert rows == [2, 3, 3, 1]
    rows.clear()
    level = level.replace("audio", torch.full((1, 4), 0.03))
    sample_groups(transformer, noise, level, noise, torch.tensor([0]), options)
    assert rows == [2, 2, 2, 1]
    rows.clear()
    alone = replace(options, sync_scale=1.0)
    sample_groups(transformer, noise, level, noise, torch.tensor([0]), alone)
    assert rows == [2, 2, 2, 2]


def test_what_is_led_away_from_sees_noise_in_place_of_the_other_and_its_own_as_it_is(transformer):
    seen, forward = [], transformer.forward

    def noted(xt, level, label):
        seen.append((xt, level))
        return forward(xt, level, label)

    transformer.forward = noted
    noise, known = groups(4), groups(4, seed=1)
    level = AV(torch.ones(1, 4), torch.full((1, 4), 0.03))
    options = replace(OPTIONS, num_steps=2, shift=1.5, sync_scale=2.0)
    sample_groups(transformer, known, level, noise, ANY, options)
    xt, at = seen[1]
    assert torch.equal(xt.video[1], xt.video[0])
    assert torch.equal(at.video[1], at.video[0])
    assert torch.equal(xt.audio[1], noise.audio[0])
    assert not torch.allclose(xt.audio[0], noise.audio[0], atol=0.1)
    assert torch.allclose(at.audio, torch.tensor([[0.03], [0.999]]).expand(2, 4))
