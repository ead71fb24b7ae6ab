"""The stage of the Coupled U-Net: what it trains, shows and leaves."""

from pathlib import Path
from typing import Unpack

from soundreel.data.dataset import training_windows
from soundreel.protocols import Stage, TrainWords
from soundreel.systems.mm_diffusion.config import MMDiffusionConfig
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNet
from soundreel.systems.mm_diffusion.objective import mm_diffusion_objective
from soundreel.systems.mm_diffusion.pipeline import MMDiffusionPipeline, MMDiffusionSettings
from soundreel.training.epochs import in_samples
from soundreel.training.previews import save_preview
from soundreel.training.run import Run, StageWork
from soundreel.training.stages import Recipe, train_stages

STAGE = "unet"


def stages_of(config: MMDiffusionConfig) -> tuple[Stage, ...]:
    """Return the single stage, whose folder is that of the run; 1 sample stands for epochs."""
    return (Stage(name=STAGE, total_samples=config.train.total_samples or 1, component=STAGE),)


def train_mm_diffusion(
    config: MMDiffusionConfig, data: Path, out: Path, **how: Unpack[TrainWords]
) -> bool:
    """Train, log, preview; leave `out/model`, a folder that `soundreel.load` opens.

    Returns:
        Whether `train.total_samples` were seen; False if it was told to stop.

    Raises:
        ConfigError, FolderInUseError: see `train_stages`.
        DataError, ValueError: the data set does not fit the configuration.
    """
    config = in_samples(config, len(training_windows(data, config.clip, config.data)))
    return train_stages(
        config,
        out,
        system="mm-diffusion",
        all_stages=stages_of(config),
        train_configs={STAGE: config.train},
        recipe=lambda run: MMDiffusionRecipe(config, data, run),
        **how,
    )


class MMDiffusionRecipe(Recipe):
    """Trains the Coupled U-Net on the windows of a prepared data set."""

    def __init__(self, config: MMDiffusionConfig, data: Path, run: Run) -> None:
        self._config = config
        self._run = run
        self._windows = training_windows(data, config.clip, config.data)

    def begin(self, stage: str) -> StageWork[CoupledUNet]:
        """Return the network, its objective and its previews."""
        config = self._config
        network = self._run.seeded(self._build, config.train, component=STAGE, channels_last=False)
        objective = mm_diffusion_objective(
            config.diffusion.build().to(self._run.device),
            prediction_type=config.diffusion.prediction_type,
            variance="learned_range" if config.unet.learned_variance else "fixed_large",
        )
        return StageWork(
            trainees=[self._run.trainee(stage, network, objective, config.train)],
            build=self._build,
            data=self._windows,
            train=config.train,
            preview=self._preview,
            finish=self._finish,
        )

    def _build(self) -> CoupledUNet:
        return CoupledUNet(self._config.unet)

    def _preview(self, network: CoupledUNet, samples: int) -> None:
        preview = self._config.preview
        clips = self._pipeline(network, samples).generate(
            count=preview.count, seed=self._config.train.seed, num_steps=preview.num_steps
        )
        save_preview(clips, self._run.out / "previews", samples)

    def _finish(self, network: CoupledUNet, samples: int) -> None:
        self._pipeline(network, samples).save(self._run.out / "model")

    def _pipeline(self, network: CoupledUNet, samples: int) -> MMDiffusionPipeline:
        settings = MMDiffusionSettings(diffusion=self._config.diffusion, samples_seen=samples)
        return MMDiffusionPipeline(network, self._config.clip, settings)
