"""A training run of the super-resolution stage, from a prepared data set to a model folder."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from soundreel.checkpoints.store import ModelIndex, save_model_index, save_state, writing_folder
from soundreel.config_io import save_json
from soundreel.data.dataset import PreparedDataset
from soundreel.data.loader import Loader
from soundreel.data.manifest import DatasetInfo
from soundreel.diffusion.noise import derived_seed
from soundreel.diffusion.schedules import linear_schedule
from soundreel.media.encode import write_mkv
from soundreel.media.pixels import video_to_frames
from soundreel.metrics.image_quality import psnr_db
from soundreel.systems.super_resolution.config import SuperResolutionRunConfig
from soundreel.systems.super_resolution.degradation import ImagePairs, image_pairs, reduce_images
from soundreel.systems.super_resolution.network import SuperResolutionUNet
from soundreel.systems.super_resolution.objective import SuperResolutionObjective
from soundreel.systems.super_resolution.pipeline import (
    COMPONENT,
    SuperResolutionPipeline,
    UpscaleConfig,
)
from soundreel.training.loop import fit
from soundreel.training.meters import Tracker
from soundreel.training.player import Player, make_player
from soundreel.training.run_folder import check_out, machine_restored, prepare_machine
from soundreel.training.state import list_checkpoints, load_training_state
from soundreel.training.trackers import JsonLines


@machine_restored()
def train_super_resolution(
    config: SuperResolutionRunConfig,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    trackers: Callable[[], list[Tracker]] = list,
) -> int:
    """Train, log, preview; leave `out/model`, a folder for `soundreel upscale`.

    Args:
        data: folder made by `soundreel prepare`, with frames of the network's size.
        out: folder of the run: `config.json`, `log.jsonl`, `checkpoints/`, `previews/`, `model/`.
        resume: go on from the newest checkpoint in `out`; the configuration must be the same but
            for `train.total_samples`, logging and previews.
        trackers: makes further receivers of the logged numbers, once the run is known to start.

    Returns:
        Frames seen; less than asked for if it was told to stop.

    Raises:
        ConfigError: `out` already holds a run, or one with another configuration.
        DataError, ValueError: the data set does not fit the configuration.
    """
    check_out(config, out, resume=resume)
    prepare_machine(config.train.num_threads)
    dataset = _frames(config, data, config.data.split)
    player = build_player(config)
    checkpoints = out / "checkpoints"
    newest = list_checkpoints(checkpoints)[-1:]
    samples_seen = load_training_state(newest[0], [player]) if newest else 0
    loader = Loader(
        dataset,
        global_batch_size=config.train.micro_batch_size,
        seed=config.train.seed,
        start_sample=samples_seen,
        num_workers=config.data.num_workers,
    )
    out.mkdir(parents=True, exist_ok=True)
    save_json(config, out / "config.json")

    def preview(samples: int) -> None:
        frames = _held_out_frames(config, data)
        save_preview(averaged_network(player, config), frames, config, samples, out / "previews")

    samples_seen = fit(
        [player],
        map(_to(player.device), image_pairs(loader, config.degradation, seed=config.train.seed)),
        config.train,
        checkpoints=checkpoints,
        samples_seen=samples_seen,
        trackers=[JsonLines(out / "log.jsonl", samples_seen), *trackers()],
        preview=preview,
    )
    save_model(player, config, samples_seen, out / "model")
    return samples_seen


def build_player(config: SuperResolutionRunConfig) -> Player:
    """A seeded new network, on CUDA if there is one, with its objective and optimizer."""
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(config.train.seed))
        network = SuperResolutionUNet(config.network)
    network.recompute = config.train.checkpoint_activations
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    return make_player(
        COMPONENT,
        network,
        SuperResolutionObjective(
            linear_schedule(),
            prediction_type=config.network.prediction_type,
            residual_scale=config.network.residual_scale,
            learned_variance=config.network.learned_variance,
        ),
        learning_rate=config.train.learning_rate,
        weight_decay=config.train.weight_decay,
        ema_decay=config.train.ema_decay,
    )


def averaged_network(player: Player, config: SuperResolutionRunConfig) -> SuperResolutionUNet:
    """A copy with the averaged weights, in evaluation mode."""
    network = SuperResolutionUNet(config.network).to(player.device)
    network.load_state_dict((player.ema or player.network).state_dict())
    return network.eval()


def save_preview(
    network: SuperResolutionUNet,
    frames: Float[Tensor, "frame 3 height width"],
    config: SuperResolutionRunConfig,
    samples: int,
    folder: Path,
) -> None:
    """Enlarge held-out frames; write them side by side, and their PSNR as a line of JSON.

    `SAMPLES.mkv` shows, from left to right, bicubic enlargement, the network's, and the truth.
    """
    low_res = reduce_images(frames, config.degradation)
    bicubic = functional.interpolate(low_res, frames.shape[2:], mode="bicubic").clamp(-1, 1)
    pipeline = SuperResolutionPipeline(network)
    upscaled = pipeline.upscale_video(
        low_res, config=UpscaleConfig(num_steps=config.preview.num_steps)
    )
    folder.mkdir(parents=True, exist_ok=True)
    row = video_to_frames(torch.cat([bicubic, upscaled, frames], dim=3))
    write_mkv(folder / f"{samples:09d}.mkv", list(row), None, 1, 16_000)
    line = {
        "samples": samples,
        "psnr_db": float(psnr_db(upscaled, frames).mean()),
        "bicubic_psnr_db": float(psnr_db(bicubic, frames).mean()),
    }
    with (folder / "psnr.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def save_model(
    player: Player, config: SuperResolutionRunConfig, samples_seen: int, folder: Path
) -> None:
    """Write the averaged weights as a model folder."""
    with writing_folder(folder) as temporary:
        state = (player.ema or player.network).state_dict()
        save_state(temporary, COMPONENT, state, config.network)
        index = ModelIndex(
            system="mm-diffusion",
            components={COMPONENT: "super-resolution"},
            settings={"samples_seen": samples_seen},
        )
        save_model_index(temporary, index)


def _to(device: torch.device) -> Callable[[ImagePairs], ImagePairs]:
    return lambda pairs: replace(
        pairs,
        av=pairs.av.to(device, non_blocking=True),
        low_res=pairs.low_res.to(device, non_blocking=True),
        label=pairs.label.to(device),
    )


def _frames(config: SuperResolutionRunConfig, data: Path, split: str) -> PreparedDataset:
    spec = DatasetInfo.load(data).spec(1)
    size = config.network.size
    if (spec.height, spec.width) != (size, size):
        raise ValueError(
            f"{data} has frames of {spec.height}x{spec.width}, the network learns to make "
            f"{size}x{size}; prepare the data set at that size"
        )
    return PreparedDataset(
        data,
        spec=spec,
        split=split,
        stride=config.data.stride,
        flip_probability=config.data.flip_probability,
        cache=config.data.cache,
    )


def _held_out_frames(config: SuperResolutionRunConfig, data: Path) -> Tensor:
    """Frames spread over the validation split, or over the training split if there is none."""
    has_valid = DatasetInfo.load(data).counts.get("split/valid", 0) > 0
    dataset = _frames(config, data, "valid" if has_valid else config.data.split)
    places = torch.linspace(0, len(dataset) - 1, config.preview.count).long().tolist()
    return torch.cat([dataset[place].av["video"] for place in places])
