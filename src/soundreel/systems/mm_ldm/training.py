"""A run of all stages of MM-LDM, from a prepared data set to a model folder.

    OUT/config.json
    OUT/first_stage/   stage 1: log.jsonl checkpoints/ previews/, component/ (averaged weights)
    OUT/moments/       posteriors of all frames and mel images, if they are cached
    OUT/autoencoder/   as first_stage: stage 2 without adversary
    OUT/adversarial/   stage 2 with it
    OUT/latents/       perceptual latents of all windows, and their statistics
    OUT/captions/      token states of all captions, if there is a text encoder
    OUT/generator/     stage 3
    OUT/long/          stage 3's second phase, for long video
    OUT/model/         everything, for `soundreel.load`

A stage is finished when its `component` folder exists; finished stages are not trained again.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from soundreel.config_io import ConfigError
from soundreel.data.dataset import training_windows
from soundreel.protocols import Stage, TrainWords
from soundreel.systems.mm_ldm.conditions import with_data_classes, with_text_encoder_hash
from soundreel.systems.mm_ldm.config import STAGES, MMLDMConfig
from soundreel.systems.mm_ldm.folder import SYSTEM
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoderConfig
from soundreel.systems.mm_ldm.stages import MMLDMRecipe
from soundreel.training.epochs import in_samples
from soundreel.training.stages import train_stages

logger = logging.getLogger(__name__)

COMPONENTS = {
    "first_stage": "first_stage",
    "autoencoder": "autoencoder",
    "adversarial": "autoencoder",
    "generator": "generator",
    "long": "generator",
}
"""Network in a model folder that each stage trains."""


def stages_of(config: MMLDMConfig) -> tuple[Stage, ...]:
    """Return all stages in order; those that the configuration leaves out have no samples."""
    trained = {
        "first_stage": config.first_stage.is_trained,
        "adversarial": config.adversarial.enabled,
        "long": config.long.enabled,
    }
    return tuple(
        Stage(
            name=name,
            # Epochs are counted once the data set is known; until then 1 stands for them.
            total_samples=(getattr(config, name).train.total_samples or 1)
            * trained.get(name, True),
            folder=name,
            component=COMPONENTS[name],
        )
        for name in STAGES
    )


def check_frozen_encoder(config: MMLDMConfig, stages: Sequence[str]) -> None:
    """Raise `ConfigError` where the first stage's encoder is to stay as it is, but is new."""
    first = config.first_stage
    is_new = first.is_trained and not first.weights
    if first.loss.freeze_encoder and is_new and (not stages or "first_stage" in stages):
        raise ConfigError(
            "first_stage.loss.freeze_encoder keeps the encoder of a trained first stage: set "
            "first_stage.weights to one (Stable Diffusion's, as published), start from a model "
            "with --init, or set it to False"
        )


def tell_what_starts_from_noise(config: MMLDMConfig, stages: Sequence[str]) -> None:
    """Warn where networks of the published sizes are to be trained without the published start."""
    first, decoder = config.first_stage, config.autoencoder.model.decoder
    lacking = {
        "first_stage": "" if first.weights or not first.is_trained else "first_stage.weights",
        "autoencoder": "" if config.autoencoder.unet_weights else "autoencoder.unet_weights",
    }
    wanted = [key for stage, key in lacking.items() if key and (not stages or stage in stages)]
    if wanted and decoder.width == SignalDecoderConfig().width:
        logger.warning(
            "training starts from noise; the published start is Stable Diffusion v1: give %s, or a "
            "model with --init",
            " and ".join(wanted),
        )


def train_mm_ldm(config: MMLDMConfig, data: Path, out: Path, **how: Unpack[TrainWords]) -> bool:
    """Train the stages in order, each from the one before; leave `out/model`.

    Args:
        data: folder made by `soundreel prepare`.

    Returns:
        Whether all that was asked for is finished; False if the run was told to stop.

    Raises:
        ConfigError: an encoder that is to stay as it is was never trained; see `train_stages`.
        FolderInUseError: another process trains in `out`.
        CheckpointError: weights, text encoder or vocoder that are named cannot be read.
        SoundreelError: the data set does not fit the configuration.
    """
    stages = how.get("stages", ())
    if not (how.get("resume") or how.get("init")):
        check_frozen_encoder(config, stages)
        tell_what_starts_from_noise(config, stages)
    config = with_data_classes(with_text_encoder_hash(config), data, out)
    config = in_samples(config, len(training_windows(data, config.clip, config.data)))
    return train_stages(
        config,
        out,
        system=SYSTEM,
        all_stages=stages_of(config),
        train_configs={name: getattr(config, name).train for name in STAGES},
        recipe=lambda run: MMLDMRecipe(config, data, run),
        **how,
    )
