"""The super-resolution stage: what it trains, shows and leaves."""

import json
from pathlib import Path
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from soundreel.checkpoints.store import ModelIndex, save_model_index, save_state, writing_folder
from soundreel.data.dataset import PreparedDataset, training_windows
from soundreel.data.manifest import DatasetInfo
from soundreel.diffusion.schedules import linear_schedule
from soundreel.errors import SoundreelError
from soundreel.media.encode import write_mkv
from soundreel.media.pixels import video_to_frames
from soundreel.metrics.image_quality import psnr_db
from soundreel.protocols import Stage, TrainWords
from soundreel.systems.super_resolution.config import SuperResolutionRunConfig
from soundreel.systems.super_resolution.degradation import image_pairs, reduce_images
from soundreel.systems.super_resolution.network import SuperResolutionUNet
from soundreel.systems.super_resolution.objective import SuperResolutionObjective
from soundreel.systems.super_resolution.pipeline import (
    COMPONENT,
    SuperResolutionPipeline,
    UpscaleConfig,
)
from soundreel.training.epochs import in_samples
from soundreel.training.run import Run, StageWork
from soundreel.training.stages import Recipe, train_stages


def stages_of(config: SuperResolutionRunConfig) -> tuple[Stage, ...]:
    """Return the single stage, whose folder is that of the run; 1 sample stands for epochs."""
    return (
        Stage(name=COMPONENT, total_samples=config.train.total_samples or 1, component=COMPONENT),
    )


def train_super_resolution(
    config: SuperResolutionRunConfig, data: Path, out: Path, **how: Unpack[TrainWords]
) -> bool:
    """Train, log, preview; leave `out/model`, a folder for `soundreel upscale`.

    Args:
        data: folder made by `soundreel prepare`, with frames of the network's size.

    Returns:
        Whether `train.total_samples` frames were seen; False if it was told to stop.

    Raises:
        ConfigError, FolderInUseError: see `train_stages`.
        DataError, ValueError: the data set does not fit the configuration.
    """
    config = in_samples(config, len(_frames(config, data, config.data.split)))
    return train_stages(
        config,
        out,
        system="mm-diffusion",
        all_stages=stages_of(config),
        train_configs={COMPONENT: config.train},
        recipe=lambda run: SuperResolutionRecipe(config, data, run),
        **how,
    )


class SuperResolutionRecipe(Recipe):
    """Trains the super-resolution network on the frames of a prepared data set."""

    def __init__(self, config: SuperResolutionRunConfig, data: Path, run: Run) -> None:
        self._config = config
        self._data = data
        self._run = run
        self._frames = _frames(config, data, config.data.split)

    def begin(self, stage: str) -> StageWork[SuperResolutionUNet]:
        """Return the network, its objective and its previews."""
        config = self._config
        network = self._run.seeded(
            self._build, config.train, component=COMPONENT, channels_last=False
        )
        objective = SuperResolutionObjective(
            linear_schedule().to(self._run.device),
            prediction_type=config.network.prediction_type,
            residual_scale=config.network.residual_scale,
            learned_variance=config.network.learned_variance,
        )
        return StageWork(
            trainees=[self._run.trainee(stage, network, objective, config.train)],
            build=self._build,
            data=self._frames,
            train=config.train,
            adapt=lambda batches: image_pairs(batches, config.degradation, seed=config.train.seed),
            preview=self._preview,
            finish=self._finish,
        )

    def _build(self) -> SuperResolutionUNet:
        return SuperResolutionUNet(self._config.network)

    def _preview(self, network: SuperResolutionUNet, samples: int) -> None:
        frames = _held_out_frames(self._config, self._data)
        save_preview(network, frames, self._config, samples, self._run.out / "previews")

    def _finish(self, network: SuperResolutionUNet, samples: int) -> None:
        save_model(network, self._config, samples, self._run.out / "model")


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
    network: SuperResolutionUNet, config: SuperResolutionRunConfig, samples_seen: int, folder: Path
) -> None:
    """Write a network as a model folder."""
    with writing_folder(folder) as temporary:
        save_state(temporary, COMPONENT, network.state_dict(), config.network)
        index = ModelIndex(
            system="mm-diffusion",
            components={COMPONENT: "super-resolution"},
            settings={"samples_seen": samples_seen},
        )
        save_model_index(temporary, index)


def _frames(config: SuperResolutionRunConfig, data: Path, split: str) -> PreparedDataset:
    spec = DatasetInfo.load(data).spec(1)
    size = config.network.size
    if (spec.height, spec.width) != (size, size):
        raise SoundreelError(
            f"{data} has frames of {spec.height}x{spec.width}, the network learns to make "
            f"{size}x{size}; prepare the data set at that size"
        )
    return training_windows(data, spec, config.data, split=split)


def _held_out_frames(config: SuperResolutionRunConfig, data: Path) -> Tensor:
    """Return frames spread over the validation split, or over the training split if there is
    none."""
    has_valid = DatasetInfo.load(data).counts.get("split/valid", 0) > 0
    dataset = _frames(config, data, "valid" if has_valid else config.data.split)
    places = torch.linspace(0, len(dataset) - 1, config.preview.count).long().tolist()
    return torch.cat([dataset[place].av["video"] for place in places])
