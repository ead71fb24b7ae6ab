"""Long video's training: tasks, history, pairs of windows, where it starts."""

from dataclasses import replace

import pytest
import torch

from soundreel.data.dataset import Sample
from soundreel.data.latent_pairs import LatentPairs
from soundreel.data.latents import LatentDataset, cache_latents
from soundreel.data.manifest import DataError
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.schedules import scaled_linear_schedule
from soundreel.systems.mm_ldm.generator import Generator, GeneratorConfig
from soundreel.systems.mm_ldm.generator_loss import GeneratorObjective
from soundreel.systems.mm_ldm.history_encoder import (
    HistoryEncoder,
    LongGenerator,
    LongGeneratorConfig,
)
from soundreel.systems.mm_ldm.long_loss import (
    TASKS,
    draw_tasks,
    known_history,
    mm_ldm_long_objective,
)
from soundreel.systems.mm_ldm.long_presets import (
    long,
    long_landscape,
    long_scenes,
    long_small,
    long_tiny,
)
from soundreel.types import AV, LatentSpec

LATENTS = LatentSpec(video_channels=3, video_size=4, audio_channels=2, audio_size=2)
CONFIG = LongGeneratorConfig(
    generator=GeneratorConfig(
        latents=LATENTS, width=32, depth=3, num_heads=4, context_dim=8, num_context_tokens=2
    ),
    history_depth=2,
)
SCHEDULE = scaled_linear_schedule(100)


class Windows:
    """Windows whose latents tell clip and start frame."""

    def __init__(self, starts=range(0, 12, 2), clips=3):
        self.places = [(clip, start) for clip in range(clips) for start in starts]

    def __len__(self):
        return len(self.places)

    def __getitem__(self, index):
        clip, start = self.places[index]
        generator = torch.Generator().manual_seed(index)
        video = torch.randn(LATENTS.video_shape, generator=generator)
        audio = torch.randn(LATENTS.audio_shape, generator=generator)
        video[0, 0, 0] = 100 * clip + start
        return Sample(av=AV(video, audio), label=clip, key=f"clip-{clip}", start_frame=start)


def pairs(folder, distance=4, **options):
    made = cache_latents(
        lambda av: av, Windows(**options), folder, latents=LATENTS, fingerprint="x", shard_rows=5
    )
    return LatentPairs(type(made)(folder, standardize=False), distance)


def batch_of(dataset, size=4):
    samples = [dataset[i] for i in range(size)]
    av = samples[0].av.map(lambda *rows: torch.stack(rows), *(s.av for s in samples[1:]))
    return Batch(av, torch.tensor([s.label for s in samples]))


class Batch:
    def __init__(self, av, label, sample_index=0):
        self.av, self.label, self.sample_index = av, label, sample_index


def make(*, awake=False):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LongGenerator(CONFIG)
        if awake:
            for parameter in network.parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)
    return network.eval()


def test_pairs_are_of_one_clip_and_so_many_frames_apart(tmp_path):
    dataset = pairs(tmp_path)
    assert len(dataset) == 3 * 4
    for sample in (dataset[i] for i in range(len(dataset))):
        earlier, later = sample.av["video"][:, 0, 0, 0].tolist()
        assert later - earlier == 4
        assert sample.start_frame == earlier % 100
        assert sample.key == f"clip-{int(earlier // 100)}"
    with pytest.raises(DataError, match="two windows 14 frames apart"):
        pairs(tmp_path, 14)


def test_tasks_are_drawn_uniformly_and_do_not_depend_on_the_batch():
    tasks = draw_tasks(PerSampleNoise(range(4_000)))
    counts = torch.bincount(tasks, minlength=4)
    assert len(TASKS) == len(counts) == 4
    assert ((counts - 1_000).abs() < 4 * (4_000 * 0.25 * 0.75) ** 0.5).all()
    assert torch.equal(draw_tasks(PerSampleNoise([17])), tasks[17:18])


def test_each_task_knows_what_it_should():
    ones = AV(torch.ones(4, *LATENTS.video_shape), torch.ones(4, *LATENTS.audio_shape))
    known = known_history(ones, torch.arange(4))
    assert known["video"][:, 0, 0, 0].tolist() == [0, 1, 0, 1]
    assert known["audio"][:, 0, 0, 0].tolist() == [0, 1, 1, 0]
    kept = torch.tensor([True, False, True, False])
    dropped = known_history(ones, torch.arange(4), kept)
    assert dropped["video"][:, 0, 0, 0].tolist() == [0, 0, 0, 0]
    assert dropped["audio"][:, 0, 0, 0].tolist() == [0, 0, 1, 0]


@torch.no_grad()
def test_the_loss_is_logged_per_task_and_adds_up(tmp_path):
    never_given = GeneratorObjective(audio_condition=0.0, video_condition=0.0)
    objective = mm_ldm_long_objective(SCHEDULE, never_given)
    batch = batch_of(pairs(tmp_path), 12)
    noise = PerSampleNoise(range(12))
    result = objective(make(awake=True), batch, noise)
    tasks = draw_tasks(PerSampleNoise(range(12)))
    for term in ("mse_video", "mse_audio"):
        parts = [
            result.means[f"{term}/{name}"] for n, name in enumerate(TASKS) if (tasks == n).any()
        ]
        assert sum(int(count) for _, count in parts) == 12
        mean = sum(float(value * count) for value, count in parts) / 12
        assert float(result.means[term][0]) == pytest.approx(mean, rel=1e-5)


@torch.no_grad()
def test_a_modality_that_is_given_counts_for_no_task(tmp_path):
    always_given = GeneratorObjective(
        context_drop=0.0, audio_condition=1.0, video_condition=0.0, known_loss_weight=0.0
    )
    objective = mm_ldm_long_objective(SCHEDULE, always_given)
    result = objective(make(awake=True), batch_of(pairs(tmp_path), 12), PerSampleNoise(range(12)))
    counts = {name: int(count) for name, (_, count) in result.means.items()}
    assert [counts[f"mse_audio/{name}"] for name in TASKS] == [0, 0, 0, 0]
    assert sum(counts[f"mse_video/{name}"] for name in TASKS) == 12


@torch.no_grad()
def test_only_tasks_with_a_history_see_the_earlier_window(tmp_path):
    objective = mm_ldm_long_objective(SCHEDULE, GeneratorObjective(context_drop=0.5))
    batch = batch_of(pairs(tmp_path), 12)
    other = AV(batch.av["video"].clone(), batch.av["audio"].clone())
    other["video"][:, 0] += 1
    other["audio"][:, 0] -= 1

    def losses(av):
        network = make(awake=True)
        return [
            float(
                objective(
                    network,
                    Batch(av.rows(slice(n, n + 1)), batch.label[n : n + 1]),
                    PerSampleNoise([n]),
                ).loss
            )
            for n in range(12)
        ]

    changed = [a != b for a, b in zip(losses(batch.av), losses(other), strict=True)]
    tasks = draw_tasks(PerSampleNoise(range(12))).tolist()
    assert not any(c for c, task in zip(changed, tasks, strict=True) if TASKS[task] == "generation")
    assert any(changed)
    # Context, and history with it, is dropped in about half of them.
    assert not all(c for c, task in zip(changed, tasks, strict=True) if TASKS[task] != "generation")


@torch.no_grad()
def test_it_begins_where_the_trained_generator_ended():
    network = make()
    trained = Generator(CONFIG.generator)
    for parameter in trained.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    network.generator.load_state_dict(trained.state_dict())
    # Taps are silent at the start; context tokens of the history are new, and change little.
    xt = AV(torch.randn(2, *LATENTS.video_shape), torch.randn(2, *LATENTS.audio_shape))
    timestep = torch.tensor([3, 60])
    tokens = network.history_tokens(xt)
    output = network(xt, timestep, previous=xt).mean_output
    expected = trained(xt, timestep, history_tokens=tokens).mean_output
    for name in ("video", "audio"):
        assert torch.equal(output[name], expected[name])


def test_no_clip_of_a_standardised_set_is_near_the_zero_that_stands_for_none(tmp_path):
    cache_latents(lambda av: av, Windows(), tmp_path, latents=LATENTS, fingerprint="x")
    dataset = LatentDataset(tmp_path)
    for name in ("video", "audio"):
        elements = dataset[0].av[name].numel()
        norms = torch.stack([dataset[i].av[name].norm() for i in range(len(dataset))])
        assert float(norms.square().mean()) == pytest.approx(elements, rel=0.05)
        assert float(norms.min()) > 0.3 * elements**0.5


def test_sizes_of_the_published_networks():
    config = long().long_generator
    with torch.device("meta"):
        network = LongGenerator(config)

    def count(module):
        return sum(p.numel() for p in module.parameters())

    def tables(module):
        return sum(b.numel() for name, b in module.named_buffers() if "position_table" in name)

    width, channels = config.generator.width, 32
    heads = 2 * ((width * channels + channels) + (width * 2 * width + 2 * width))
    assert isinstance(network.history_encoder, HistoryEncoder)
    encoder = count(network.history_encoder) + tables(network.history_encoder)
    assert encoder + heads == 361_964_224
    maps = count(network.video_to_context) + count(network.audio_to_context)
    assert maps == 26_112
    assert network.generator.prompt.numel() == 59_136
    transformer = network.generator.transformer
    assert count(transformer) + tables(transformer) == 678_022_304


def test_presets():
    published = long()
    assert (published.long.train.total_samples, published.long.train.epochs) == (0, 40)
    assert (published.long.train.global_batch_size, published.long.train.learning_rate) == (
        96,
        1e-5,
    )
    assert (published.long.history_depth, published.long.overlap) == (14, 0)
    assert long_landscape().long == published.long
    assert published.sampling.history_guidance
    assert long_landscape().autoencoder.model.decoder.num_classes == 9
    for preset in (long_small(), long_scenes(), long_tiny()):
        assert preset.long.enabled
        assert not preset.sampling.history_guidance
        assert LongGenerator(preset.long_generator).config.overlap == preset.long.overlap
    with pytest.raises(ValueError, match=r"data\.stride"):
        replace(published, data=replace(published.data, stride=3))
    with pytest.raises(ValueError, match="overlap by 0 to 8 frames"):
        replace(published, long=replace(published.long, overlap=9))
