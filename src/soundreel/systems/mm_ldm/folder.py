"""MM-LDM pipelines as model folders."""

from pathlib import Path
from typing import Any

from torch import nn

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import (
    ModelFolder,
    ModelIndex,
    save_component,
    save_model_index,
    writing_folder,
)
from soundreel.config_io import config_from_json, config_to_json
from soundreel.data.latent_axes import LatentAxesConfig, PerceptualAxes
from soundreel.data.latents import LatentScaling, PerceptualStats
from soundreel.errors import SoundreelError
from soundreel.systems.mm_ldm.autoencoder import AutoencoderConfig, MultiModalAutoencoder
from soundreel.systems.mm_ldm.generator import Generator, GeneratorConfig
from soundreel.systems.mm_ldm.history_encoder import LongGenerator, LongGeneratorConfig
from soundreel.systems.mm_ldm.kl_vae import KLVAE, KLVAEConfig
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.systems.mm_ldm.settings import MMLDMSettings
from soundreel.systems.mm_ldm.vocoder import Vocoder, VocoderConfig
from soundreel.types import LatentSpec

SYSTEM = "mm-ldm"
KINDS = {
    "first_stage": "kl-vae",
    "autoencoder": "mm-ldm-autoencoder",
    "vocoder": "hifi-gan",
}
FIRST_STAGES: dict[str, tuple[type, type]] = {KINDS["first_stage"]: (KLVAE, KLVAEConfig)}
LONG_GENERATOR = "mm-ldm-long-generator"
GENERATORS: dict[str, tuple[type, type]] = {
    "mm-ldm-generator": (Generator, GeneratorConfig),
    LONG_GENERATOR: (LongGenerator, LongGeneratorConfig),
}
SCALINGS: dict[str, tuple[type, type]] = {
    "perceptual-stats": (PerceptualStats, LatentSpec),
    "perceptual-axes": (PerceptualAxes, LatentAxesConfig),
}


def save_mm_ldm(pipeline: MMLDMPipeline, folder: Path) -> None:
    """Write all parts that the pipeline has; the folder appears only when complete.

    Raises:
        CheckpointError: there is something else at `folder`.
    """
    parts: dict[str, tuple[nn.Module, Any]] = {
        "first_stage": (pipeline.first_stage, pipeline.first_stage.config),
        "autoencoder": (pipeline.autoencoder, pipeline.autoencoder.config),
        "latent_stats": (pipeline.stats, pipeline.stats.config),
    }
    generator = pipeline.long_generator or pipeline.generator
    if generator is not None:
        parts["generator"] = (generator, generator.config)
    if pipeline.vocoder is not None:
        parts["vocoder"] = (pipeline.vocoder, pipeline.vocoder.config)
    kinds = {
        **KINDS,
        "latent_stats": _kind(pipeline.stats, SCALINGS),
        "generator": "" if generator is None else _kind(generator, GENERATORS),
    }
    index = ModelIndex(
        system=SYSTEM,
        components={name: kinds[name] for name in parts},
        clip=pipeline.clip,
        settings=config_to_json(pipeline.settings),
    )
    with writing_folder(Path(folder)) as temporary:
        for name, (module, config) in parts.items():
            save_component(temporary, name, module, config)
        save_model_index(temporary, index)


def load_mm_ldm(model: ModelFolder) -> MMLDMPipeline:
    """Return the pipeline of a model folder, its networks in evaluation mode on the CPU.

    Raises:
        CheckpointError: no MM-LDM model there, a damaged one, or parts that do not fit.
    """
    index = model.index
    missing = {"first_stage", "autoencoder", "latent_stats"} - set(index.components)
    if index.system != SYSTEM or index.clip is None or missing:
        raise CheckpointError(
            f"{model.path}: not a complete MM-LDM model (system {index.system!r}, "
            f"components {', '.join(index.components)})"
        )
    part = model.component
    first_stage = load_first_stage(model)
    autoencoder, _ = part("autoencoder").build(MultiModalAutoencoder, AutoencoderConfig)
    stats = load_scaling(model)
    generator = vocoder = None
    if "generator" in index.components:
        generator = _load_kind(model, "generator", GENERATORS)
    if "vocoder" in index.components:
        vocoder, _ = part("vocoder").build(Vocoder, VocoderConfig)
    where = f"{model.path}: settings"
    settings = config_from_json(MMLDMSettings, index.settings, where, error=CheckpointError)
    try:
        return MMLDMPipeline(
            clip=index.clip,
            first_stage=first_stage,
            autoencoder=autoencoder,
            generator=generator,
            stats=stats,
            vocoder=vocoder,
            settings=settings,
        )
    except SoundreelError as error:
        raise CheckpointError(f"{model.path}: {error}") from None


def load_first_stage(model: ModelFolder) -> KLVAE:
    """Return the KL-VAE of a model, in evaluation mode on the CPU.

    Raises:
        CheckpointError: the folder has none, or a damaged one.
    """
    return _load_kind(model, "first_stage", FIRST_STAGES)


def load_scaling(model: ModelFolder) -> LatentScaling:
    """Return how a model standardises latents.

    Raises:
        CheckpointError: the folder does not say it, or is damaged.
    """
    return _load_kind(model, "latent_stats", SCALINGS)


def _kind(part: nn.Module, kinds: dict[str, tuple[type, type]]) -> str:
    return next(kind for kind, (network, _) in kinds.items() if type(part) is network)


def _load_kind(model: ModelFolder, name: str, kinds: dict[str, tuple[type, type]]) -> Any:
    part, kind = model.component(name), model.index.components[name]
    if kind not in kinds:
        known = ", ".join(kinds)
        raise CheckpointError(f"{model.path}: {name} is of kind {kind!r}, known are {known}")
    return part.build(*kinds[kind])[0]
