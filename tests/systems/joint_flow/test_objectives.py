import numpy as np
import pytest
import torch

from soundreel.diffusion.noise import PerSampleNoise
from soundreel.metrics.sync.signals import MOTION_FLOOR, block_changes
from soundreel.systems.joint_flow.flow_objective import (
    EDGE,
    FlowLossConfig,
    draw_levels,
    error_weights,
    flow_errors,
    flow_objective,
)
from soundreel.systems.joint_flow.transformer import (
    JointTransformer,
    JointTransformerConfig,
    TransformerSizes,
)
from soundreel.systems.joint_flow.video_decoder import VideoDecoder, VideoDecoderConfig
from soundreel.systems.joint_flow.video_objective import (
    VideoLossConfig,
    log_changes,
    picture_loss,
    video_decoder_objective,
)
from soundreel.systems.joint_flow.watch import partners, watch
from soundreel.types import AV

SMALL = JointTransformerConfig(
    video_tokens=5,
    video_dim=16,
    audio_dim=6,
    num_classes=2,
    sizes=TransformerSizes(width=32, depth=1, hidden=64, num_heads=2),
)


def latents(count, groups=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return AV(
        torch.randn(count, groups, 5, 16, generator=generator),
        torch.randn(count, groups, 4, 6, generator=generator),
    )


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    return JointTransformer(SMALL)


def drawn(config, count=2000, groups=6):
    generator = torch.Generator().manual_seed(0)
    pairs = [draw_levels(generator, groups, config) for _ in range(count)]
    video, audio = (torch.stack(levels) for levels in zip(*pairs, strict=True))
    return video, audio


def test_levels_come_in_the_four_kinds_and_their_shares():
    video, audio = drawn(FlowLossConfig())
    constant = (video == video[:, :1]).all(1) & (audio == audio[:, :1]).all(1)
    same = (video == audio).all(1)
    clean = constant & ~same & (torch.minimum(video, audio)[:, 0] < 0.1)
    assert float((constant & same).float().mean()) == pytest.approx(0.25, abs=0.04)
    assert float((~constant).float().mean()) == pytest.approx(0.15, abs=0.03)
    assert 0.31 < float(clean.float().mean()) < 0.46  # and some that are clean by chance
    assert video.min() >= EDGE
    assert audio.max() <= 1 - EDGE


def test_a_nearly_clean_past_is_followed_by_one_level_for_the_rest():
    video, audio = drawn(FlowLossConfig(together=0.0, apart=0.0, one_clean=0.0), count=300)
    assert torch.equal(video, audio)
    changes = (video.diff(dim=1) != 0).sum(1)
    assert changes.max() == 1
    assert video[:, 0].max() <= 0.25
    assert {int(n) for n in (video == video[:, :1]).sum(1).unique()} >= {1, 2, 3, 4, 5}


def test_pictures_are_drawn_at_higher_levels_than_sound():
    config = FlowLossConfig(together=0.0, apart=1.0, one_clean=0.0, audio_times=(0.0, 1.0))
    video, audio = drawn(config)
    assert float(video.median()) > float(audio.median()) + 0.08


def test_shares_beyond_one_are_refused():
    with pytest.raises(ValueError, match="at most 1"):
        FlowLossConfig(together=0.9, apart=0.2)


@torch.no_grad()
def test_an_untrained_network_has_the_loss_of_the_best_linear_velocity():
    """Its answer is zero, so the velocity is the linear part alone, and the error 1."""
    torch.manual_seed(0)
    network = JointTransformer(SMALL)
    network.get_buffer("video_class_deviation").fill_(3.0)
    network.get_buffer("audio_class_mean")[0] = 2.0
    x0 = latents(400)
    x0 = AV(3.0 * x0.video, x0.audio + 2.0)
    level = AV(*(torch.rand(400, 4) for _ in range(2)))
    errors = flow_errors(
        network, x0, latents(400, seed=1), level, torch.zeros(400, dtype=torch.long)
    )
    assert float(errors.video.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(errors.audio.mean()) == pytest.approx(1.0, abs=0.02)


def test_the_flow_loss_trains_every_parameter_and_counts_no_clean_groups(transformer, batch_of):
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    objective = flow_objective(FlowLossConfig(class_drop=0.5))
    objective(transformer, batch_of(latents(8)), PerSampleNoise(range(8))).loss.backward()
    for name, parameter in transformer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    nothing = FlowLossConfig(min_level=1.0)
    result = flow_objective(nothing)(transformer, batch_of(latents(2)), PerSampleNoise([0, 1]))
    assert float(result.loss.detach()) == 0


def test_the_layout_and_what_is_large_weigh_more_and_weights_have_mean_one(transformer):
    flat = error_weights(transformer, 4.0)
    assert flat.video.mean(1).tolist() == pytest.approx([5 / 8] * 4 + [5 / 2])
    assert bool((flat.audio == 1).all())
    transformer.get_buffer("video_class_deviation")[-1, :, 0] = 3.0  # the other fifteen have 1
    weight = error_weights(transformer, 1.0).video
    assert weight[:, 0].tolist() == pytest.approx([3 * 16 / 18] * 5)
    assert float(weight.mean()) == pytest.approx(1.0)


def test_a_clips_loss_does_not_depend_on_the_batch(transformer):
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x0, level = latents(3), AV(*(torch.full((3, 4), 0.5) for _ in range(2)))
    label = torch.zeros(3, dtype=torch.long)
    whole = flow_errors(transformer, x0, latents(3, seed=1), level, label)
    alone = flow_errors(
        transformer,
        x0.rows(slice(1, 2)),
        latents(3, seed=1).rows(slice(1, 2)),
        level.rows(slice(1, 2)),
        label[:1],
    )
    assert torch.allclose(whole.video[1], alone.video[0], atol=1e-5)


def test_partners_are_the_next_clip_of_the_class():
    assert partners(torch.tensor([0, 1, 0, 2, 0, 1])).tolist() == [2, 5, 4, -1, 0, 1]


@pytest.mark.parametrize("steady", [False, True])
def test_the_watch_sees_what_is_learned_and_nothing_before(steady, batch_of):
    """Loudness and brightness are one number: of each moment anew, or one for the whole clip."""
    torch.manual_seed(0)
    network = JointTransformer(SMALL)

    def clips(count, seed):
        generator = torch.Generator().manual_seed(seed)
        loudness = torch.randn(count, 1 if steady else 2, 1, 1, generator=generator)
        return AV(loudness.expand(count, 2, 5, 16), loudness.expand(count, 2, 4, 6))

    held_out, label = clips(32, 99), torch.zeros(32, dtype=torch.long)
    before = watch(network, held_out, label)
    assert before["audio"].mean == before["video"].mean == before["past"].mean == 0
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    shares = FlowLossConfig(together=0.0, apart=0.0, one_clean=0.0 if steady else 1.0)
    objective = flow_objective(shares)
    for step in range(60):
        loss = objective(network, batch_of(clips(16, step)), PerSampleNoise(range(step, step + 16)))
        optimizer.zero_grad()
        loss.loss.backward()
        optimizer.step()
    after = watch(network, held_out, label)
    learned = after["past" if steady else "audio"]
    assert learned.mean > (3 if steady else 5) * learned.error > 0
    if not steady:  # nothing of a past that says nothing
        assert abs(after["past"].mean) < 3 * after["past"].error
    with pytest.raises(ValueError, match="two clips of a class"):
        watch(network, held_out.rows(slice(0, 2)), torch.tensor([0, 1]))


def test_the_video_decoder_learns_what_the_linear_codec_leaves_out(
    small_encoder, smooth_frames, batch_of
):
    torch.manual_seed(0)
    config = VideoDecoderConfig(widths=(16, 12, 8), depths=(1, 1, 1))
    decoder = VideoDecoder(config, small_encoder)
    objective = video_decoder_objective(VideoLossConfig())
    batch = batch_of(AV(smooth_frames(4, 16, 32, seed=3), None))
    optimizer, losses = torch.optim.AdamW(decoder.parameters(), 3e-3), []
    for _ in range(30):
        result = objective(decoder, batch, PerSampleNoise(range(4)))
        losses.append(float(result.loss.detach()))
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
    assert losses[-1] < 0.97 * losses[0]
    assert result.means["psnr_db"][0] > 15


def test_the_picture_loss_counts_motion_and_edges():
    config = VideoLossConfig(squared=0.0, starts=0.0)
    flicker = torch.tensor([1.0, -1.0, 1.0]).view(1, 3, 1, 1, 1).expand(1, 3, 3, 4, 4)
    constant, black = torch.ones(1, 3, 3, 4, 4), torch.zeros(1, 3, 3, 4, 4)
    assert float(picture_loss(constant, black, config, 2)) == pytest.approx(1.0)
    assert float(picture_loss(flicker, black, config, 2)) == pytest.approx(1.0 + 0.5 * 2.0)


def test_a_step_at_a_border_of_patches_costs_more_than_one_inside():
    config = VideoLossConfig(squared=0.0, starts=0.0)
    black = torch.zeros(1, 2, 3, 8, 8)
    inside, at_border = black.clone(), black.clone()
    inside[..., 2:6], at_border[..., 4:] = 1.0, 1.0  # half of the picture each
    costs = [float(picture_loss(x, black, config, 4)) for x in (inside, at_border)]
    # Two of seven steps across lie inside; the only one at a border is one of one.
    assert costs[0] == pytest.approx(0.5 + config.edges * 2 / 7)
    assert costs[1] == pytest.approx(0.5 + config.edges / 7 + config.borders)


def test_starts_are_the_changes_that_the_sync_metric_sees():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (4, 16, 16, 3), generator=generator).byte()
    blocks = np.log(block_changes(frames.numpy()) + MOTION_FLOOR)
    video = frames.permute(0, 3, 1, 2).float()[None] / 127.5 - 1
    assert np.allclose(log_changes(video).flatten(2)[0].numpy(), blocks, atol=1e-3)


def test_movement_where_nothing_moves_costs_more_than_where_something_does():
    config = VideoLossConfig(squared=0.0, motion=0.0, edges=0.0, borders=0.0)
    still, moving = torch.zeros(1, 2, 3, 8, 8), torch.zeros(1, 2, 3, 8, 8)
    moving[:, 1] = 0.5
    error = torch.zeros(1, 2, 3, 8, 8)
    error[:, 1] = 0.05
    smeared, stronger = (float(picture_loss(x + error, x, config, 4)) for x in (still, moving))
    assert smeared - stronger == pytest.approx(
        config.starts * np.log(0.035 / 0.01 / (0.285 / 0.26)), rel=1e-3
    )
