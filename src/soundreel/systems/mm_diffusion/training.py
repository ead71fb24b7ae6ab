"""A training run of the Coupled U-Net, from a prepared data set to a model folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from soundreel.clip import Clip
from soundreel.config_io import save_json
from soundreel.data.dataset import PreparedDataset
from soundreel.data.loader import Batch, Loader
from soundreel.diffusion.noise import derived_seed
from soundreel.media.contact_sheet import write_contact_sheet
from soundreel.media.encode import AAC_RATES
from soundreel.systems.mm_diffusion.config import MMDiffusionConfig
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNet
from soundreel.systems.mm_diffusion.objective import mm_diffusion_objective
from soundreel.systems.mm_diffusion.pipeline import MMDiffusionPipeline, MMDiffusionSettings
from soundreel.training.loop import fit
from soundreel.training.meters import Tracker
from soundreel.training.parallel import start_parallel
from soundreel.training.player import Player, make_player
from soundreel.training.run_folder import check_out, machine_restored, prepare_machine
from soundreel.training.state import list_checkpoints, load_training_state
from soundreel.training.trackers import JsonLines


@machine_restored()
def train_mm_diffusion(
    config: MMDiffusionConfig,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    trackers: Callable[[], list[Tracker]] = list,
) -> int:
    """Train, log, preview; leave `out/model`, a folder that `soundreel.load` opens.

    `out` gets `config.json`, `log.jsonl`, `checkpoints/`, `previews/` and, at the end or when told
    to stop, `model/` with the averaged weights. Under `torchrun` every process takes its part of
    each batch.

    Args:
        data: folder made by `soundreel prepare`.
        resume: go on from the newest checkpoint in `out`. The configuration must be the same but
            for `train.total_samples`, threads, and how often it logs, saves and previews.
        trackers: makes further receivers of the logged numbers, once the run is known to start.

    Returns:
        Clips seen; less than `train.total_samples` if it was told to stop.

    Raises:
        ConfigError: `out` holds a run already, or one with another configuration.
        DataError, ValueError: the data set does not fit the configuration.
    """
    check_out(config, out, resume=resume)
    dataset = PreparedDataset(
        data,
        spec=config.clip,
        split=config.data.split,
        stride=config.data.stride,
        flip_probability=config.data.flip_probability,
        cache=config.data.cache,
    )
    prepare_machine(config.train.num_threads)
    parallel = start_parallel()
    player = build_player(config)
    newest = list_checkpoints(out / "checkpoints")[-1:]
    samples_seen = load_training_state(newest[0], [player]) if newest else 0
    loader = Loader(
        dataset,
        global_batch_size=config.train.micro_batch_size * parallel.world_size,
        seed=config.train.seed,
        start_sample=samples_seen,
        rank=parallel.rank,
        world_size=parallel.world_size,
        num_workers=config.data.num_workers,
    )
    loggers: list[Tracker] = []
    if parallel.is_main:
        out.mkdir(parents=True, exist_ok=True)
        save_json(config, out / "config.json")
        loggers = [JsonLines(out / "log.jsonl", samples_seen), *trackers()]

    def preview(samples: int) -> None:
        pipeline = averaged_pipeline(config, player, samples)
        clips = pipeline.generate(
            count=config.preview.count, seed=config.train.seed, num_steps=config.preview.num_steps
        )
        save_preview(clips, out / "previews", samples)

    samples_seen = fit(
        [player],
        map(_to(player.device), loader),
        config.train,
        checkpoints=out / "checkpoints",
        samples_seen=samples_seen,
        trackers=loggers,
        preview=preview,
        parallel=parallel,
    )
    if parallel.is_main:
        averaged_pipeline(config, player, samples_seen).save(out / "model")
    parallel.finish()
    return samples_seen


def build_player(config: MMDiffusionConfig) -> Player:
    """The network with seeded initial weights, on CUDA if there is one, and its optimizer."""
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(config.train.seed))
        unet = CoupledUNet(config.unet)
    unet.checkpoint_activations = config.train.checkpoint_activations
    unet.to("cuda" if torch.cuda.is_available() else "cpu")
    return make_player(
        "unet",
        unet,
        mm_diffusion_objective(
            config.diffusion.build(),
            prediction_type=config.diffusion.prediction_type,
            variance="learned_range" if config.unet.learned_variance else "fixed_large",
        ),
        learning_rate=config.train.learning_rate,
        weight_decay=config.train.weight_decay,
        ema_decay=config.train.ema_decay,
    )


def averaged_pipeline(
    config: MMDiffusionConfig, player: Player, samples_seen: int
) -> MMDiffusionPipeline:
    """A pipeline on a copy of the network with the averaged weights, if an average is kept."""
    unet = CoupledUNet(config.unet).to(player.device)
    unet.load_state_dict((player.network if player.ema is None else player.ema).state_dict())
    settings = MMDiffusionSettings(diffusion=config.diffusion, samples_seen=samples_seen)
    return MMDiffusionPipeline(unet, config.clip, settings)


def save_preview(clips: list[Clip], folder: Path, samples_seen: int) -> None:
    """Clips as MP4 files (Matroska at a sample rate that MP4 lacks) and one contact sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, clip in enumerate(clips):
        suffix = ".mp4" if clip.sample_rate in AAC_RATES else ".mkv"
        clip.save(folder / f"{samples_seen:09d}-{index}{suffix}")
    titles = [f"{samples_seen} training clips, sample {index}" for index in range(len(clips))]
    write_contact_sheet(folder / f"{samples_seen:09d}.png", clips, titles=titles)


def _to(device: torch.device) -> Callable[[Batch], Batch]:
    return lambda batch: replace(
        batch, av=batch.av.to(device, non_blocking=True), label=batch.label.to(device)
    )
