"""MM-LDM pipelines as model folders."""

from pathlib import Path
from typing import Any

from torch import nn

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import (
    ModelIndex,
    load_component,
    load_model_index,
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
from soundreel.systems.mm_ldm.kl_vae import KLVAE, KLVAEConfig
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.systems.mm_ldm.settings import MMLDMSettings
from soundreel.systems.mm_ldm.taef2 import TAEF2, TAEF2Config
from soundreel.systems.mm_ldm.vocoder import Vocoder, VocoderConfig
from soundreel.types import LatentSpec

SYSTEM = "mm-ldm"
FIRST_STAGES: dict[str, tuple[type, type]] = {
    "kl-vae": (KLVAE, KLVAEConfig),
    "taef2": (TAEF2, TAEF2Config),
}
KINDS = {
    "autoencoder": "mm-ldm-autoencoder",
    "generator": "mm-ldm-generator",
    "vocoder": "hifi-gan",
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
    if pipeline.generator is not None:
        parts["generator"] = (pipeline.generator, pipeline.generator.config)
    if pipeline.vocoder is not None:
        parts["vocoder"] = (pipeline.vocoder, pipeline.vocoder.config)
    kinds = {
        **KINDS,
        "first_stage": _kind(pipeline.first_stage, FIRST_STAGES),
        "latent_stats": _kind(pipeline.stats, SCALINGS),
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


def load_mm_ldm(folder: Path) -> MMLDMPipeline:
    """The pipeline of a model folder, its networks in evaluation mode on the CPU.

    Raises:
        CheckpointError: no MM-LDM model there, a damaged one, or parts that do not fit.
    """
    folder = Path(folder)
    index = load_model_index(folder)
    missing = {"first_stage", "autoencoder", "latent_stats"} - set(index.components)
    if index.system != SYSTEM or index.clip is None or missing:
        raise CheckpointError(
            f"{folder}: not a complete MM-LDM model (system {index.system!r}, "
            f"components {', '.join(index.components)})"
        )
    first_stage = _load_kind(folder, index, "first_stage", FIRST_STAGES)
    autoencoder, _ = load_component(folder, "autoencoder", MultiModalAutoencoder, AutoencoderConfig)
    stats = _load_kind(folder, index, "latent_stats", SCALINGS)
    generator = vocoder = None
    if "generator" in index.components:
        generator, _ = load_component(folder, "generator", Generator, GeneratorConfig)
    if "vocoder" in index.components:
        vocoder, _ = load_component(folder, "vocoder", Vocoder, VocoderConfig)
    settings = config_from_json(
        MMLDMSettings,
        {**config_to_json(MMLDMSettings()), **index.settings},
        f"{folder}: settings",
    )
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
        raise CheckpointError(f"{folder}: {error}") from None


def load_scaling(folder: Path) -> LatentScaling:
    """Return how a model folder standardises latents.

    Raises:
        CheckpointError: the folder does not say it, or is damaged.
    """
    return _load_kind(folder, load_model_index(folder), "latent_stats", SCALINGS)


def _kind(part: nn.Module, kinds: dict[str, tuple[type, type]]) -> str:
    return next(kind for kind, (network, _) in kinds.items() if type(part) is network)


def _load_kind(
    folder: Path, index: ModelIndex, name: str, kinds: dict[str, tuple[type, type]]
) -> Any:
    kind = index.components[name]
    if kind not in kinds:
        raise CheckpointError(f"{folder}: {name} is of kind {kind!r}, known are {', '.join(kinds)}")
    return load_component(folder, name, *kinds[kind])[0]
