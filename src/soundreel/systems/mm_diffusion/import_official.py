"""Official MM-Diffusion checkpoints to model folders.

Reads `Landscape.pt`, `AIST++.pt`, their `*_SR.pt`, and guided diffusion's 64-to-256 upsampler. The
architecture follows from names and shapes as far as they tell; what they do not tell (head counts,
window lengths, the clip's length and rates) is taken from `ImportOptions`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from soundreel.checkpoints.component import check_state
from soundreel.checkpoints.errors import CheckpointError, listed
from soundreel.checkpoints.import_torch import read_tensors
from soundreel.checkpoints.store import (
    ModelIndex,
    save_model_index,
    save_state,
    writing_folder,
)
from soundreel.checkpoints.unet_layout import unet_layout
from soundreel.errors import SoundreelError
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNet, CoupledUNetConfig
from soundreel.systems.mm_diffusion.official_keys import from_official
from soundreel.systems.super_resolution.network import (
    SuperResolutionConfig,
    SuperResolutionUNet,
)
from soundreel.types import ClipSpec

BASE, SUPER_RESOLUTION = "unet", "super_resolution"
KINDS = {BASE: "coupled-unet", SUPER_RESOLUTION: "super-resolution"}
# Guided diffusion's upsampler is class-conditional; MM-Diffusion's has no classes.
IGNORED = ("label_emb.weight",)


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Settings that the shapes in a checkpoint do not tell; the defaults are those of the
    published files.

    Args:
        clip: sizes and rates of the base model's clips.
        num_heads: self-attention heads, of both networks.
        cross_head_width: channels per head in cross-modal attention; 0 uses `num_heads` heads.
        cross_attention_windows: frames per window at each level with cross-modal attention; needed
            only for networks without the middle cross-modal block, whose windows are not 1, 4, 8.
        low_res_size, size: pixels of the super-resolution network's small and large images.
    """

    clip: ClipSpec = field(default_factory=ClipSpec)
    num_heads: int = 4
    cross_head_width: int = 64
    cross_attention_windows: tuple[int, ...] = ()
    low_res_size: int = 64
    size: int = 256


@dataclass(frozen=True, kw_only=True)
class ImportedComponent:
    """Outcome of one file: `num_tensors` were stored, `ignored` were left out on purpose."""

    path: Path
    name: str
    config: CoupledUNetConfig | SuperResolutionConfig
    num_tensors: int
    num_parameters: int
    ignored: tuple[str, ...]


def import_mm_diffusion(
    files: Sequence[Path], target: Path, options: ImportOptions | None = None
) -> list[ImportedComponent]:
    """Write a model folder from a base checkpoint, a super-resolution checkpoint, or both.

    Raises:
        CheckpointError: a file is missing, damaged, unsafe, of another architecture, or there are
            two of a kind. Nothing is written then.
    """
    options = options or ImportOptions()
    imported: dict[str, ImportedComponent] = {}
    with writing_folder(target) as folder:
        for path in files:
            state = read_tensors(path)
            ignored = tuple(key for key in IGNORED if key in state)
            state = {key: value for key, value in state.items() if key not in ignored}
            name, config, state = recognise(state, options, str(path))
            if name in imported:
                raise CheckpointError(
                    f"{path}: {imported[name].path} is a {KINDS[name]} network already; "
                    "a model folder holds one of each"
                )
            save_state(folder, name, state, config)
            imported[name] = ImportedComponent(
                path=Path(path),
                name=name,
                config=config,
                num_tensors=len(state),
                num_parameters=sum(value.numel() for value in state.values()),
                ignored=ignored,
            )
        if not imported:
            raise CheckpointError("no checkpoint given; name at least one file")
        index = ModelIndex(
            system="mm-diffusion",
            components={name: KINDS[name] for name in imported},
            clip=options.clip if BASE in imported else None,
        )
        save_model_index(folder, index)
    return list(imported.values())


def recognise(
    state: Mapping[str, Tensor], options: ImportOptions, where: str
) -> tuple[str, CoupledUNetConfig | SuperResolutionConfig, dict[str, Tensor]]:
    """Return which network an official state dict belongs to, its configuration, and our state
    dict.

    Raises:
        CheckpointError: neither network, or tensors missing or left over.
    """
    try:
        if any(key.startswith("middle_blocks.") for key in state):
            config = coupled_unet_config(state, options, where)
            return BASE, config, _fitted(CoupledUNet, config, from_official(state), where)
        if any(key.startswith("middle_block.") for key in state):
            config = super_resolution_config(state, options, where)
            return SUPER_RESOLUTION, config, _fitted(SuperResolutionUNet, config, state, where)
    except KeyError as error:
        raise CheckpointError(f"{where}: missing tensor {error.args[0]}") from error
    except IndexError as error:
        raise CheckpointError(f"{where}: a tensor has too few axes for its name") from error
    except CheckpointError:
        raise
    except SoundreelError as error:
        raise CheckpointError(f"{where}: {error}") from error
    raise CheckpointError(
        f"{where}: neither MM-Diffusion's base network nor its upsampler; its tensors are "
        f"{listed(list(state), 4)}"
    )


def coupled_unet_config(
    state: Mapping[str, Tensor], options: ImportOptions, where: str
) -> CoupledUNetConfig:
    """Return the base network's configuration from official names and shapes."""
    width = state["time_embed.0.weight"].shape[1]
    layout = unet_layout(state, width, "video_out_layers.0.GroupNorm.weight", where)
    audio_channels = state["input_blocks.0.0.audio_conv.audio_conv.weight"].shape[1]
    video_channels = state["input_blocks.0.0.video_conv.video_conv_spatial.weight"].shape[1]
    is_factored = "input_blocks.1.0.video_in_layers.2.video_conv_spatial.weight" in state
    cross_factors = layout.factors_with(state, ".v_qkv.weight")
    middle_cross = "middle_blocks.1.v_qkv.weight" in state
    narrowest = min((width * layout.mult_at(factor) for factor in cross_factors), default=0)
    if cross_factors and narrowest < options.cross_head_width:
        raise CheckpointError(
            f"{where}: cross-modal blocks of {narrowest} channels hold no head of "
            f"{options.cross_head_width} channels; give the cross_head_width it was trained with"
        )
    return CoupledUNetConfig(
        num_frames=options.clip.num_frames,
        video_channels=video_channels,
        audio_channels=audio_channels,
        width=width,
        channel_mult=layout.channel_mult,
        num_res_blocks=layout.num_res_blocks,
        video_attention_factors=layout.factors_with(state, ".spatial_attention_block.qkv.weight"),
        audio_attention_factors=layout.factors_with(state, ".audio_attention_block.qkv.weight"),
        cross_attention_factors=cross_factors,
        cross_attention_windows=_windows(len(cross_factors), middle_cross, options, where),
        middle_cross_attention=middle_cross,
        num_heads=options.num_heads,
        cross_head_width=options.cross_head_width,
        scale_shift_norm=layout.scale_shift_norm,
        learned_variance=state["audio_out.2.audio_conv.weight"].shape[0] == 2 * audio_channels,
        video_conv="2d+1d" if is_factored else "3d",
    )


def super_resolution_config(
    state: Mapping[str, Tensor], options: ImportOptions, where: str
) -> SuperResolutionConfig:
    """Return the upsampler's configuration from official names and shapes."""
    width = state["time_embed.0.weight"].shape[1]
    layout = unet_layout(state, width, "out_layers.0.weight", where)
    image_channels = state["input_blocks.0.0.weight"].shape[1] // 2
    return SuperResolutionConfig(
        low_res_size=options.low_res_size,
        size=options.size,
        image_channels=image_channels,
        width=width,
        channel_mult=layout.channel_mult,
        num_res_blocks=layout.num_res_blocks,
        attention_factors=layout.factors_with(state, ".1.qkv.weight"),
        num_heads=options.num_heads,
        scale_shift_norm=layout.scale_shift_norm,
        learned_variance=state["out.2.weight"].shape[0] == 2 * image_channels,
    )


def _windows(count: int, middle_cross: bool, options: ImportOptions, where: str) -> tuple[int, ...]:
    """Return the cross-modal windows; the published middle block tells whether they are 1, 4, 8."""
    if options.cross_attention_windows:
        return options.cross_attention_windows
    if middle_cross:
        return (1, 4, 8)
    if count == 0:
        return ()
    raise CheckpointError(
        f"{where}: the window lengths of its {count} cross-modal levels cannot be read off its "
        "tensors; give cross_attention_windows"
    )


def _fitted(
    network: type[nn.Module],
    config: CoupledUNetConfig | SuperResolutionConfig,
    state: Mapping[str, Tensor],
    where: str,
) -> dict[str, Tensor]:
    """Return the state in float32 and the network's order, after checking that it fits exactly."""
    with torch.device("meta"):
        own = network(config).state_dict()
    check_state(own, state, where)
    return {key: state[key].float() for key in own}
