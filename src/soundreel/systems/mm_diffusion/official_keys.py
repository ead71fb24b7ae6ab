"""Our parameter names of the Coupled U-Net against those of official MM-Diffusion checkpoints.

Only names and trailing axes of length 1 differ (the official files store pointwise layers as
convolutions), so both directions are exact.
"""

import re
from collections.abc import Mapping

from torch import Tensor

# As regular expressions: our name, official name, trailing axes of length 1 in the official weight
# on the part of the key between the block prefix and ".weight" / ".bias".
_LAYERS: tuple[tuple[str, str, int], ...] = (
    ("video_norm_in", "video_in_layers.0.GroupNorm", 0),
    ("video_conv_in.spatial", "video_in_layers.2.video_conv_spatial", 0),
    ("video_conv_in.temporal", "video_in_layers.2.video_conv_temporal", 0),
    ("video_conv_in.full", "video_in_layers.2.video_conv", 0),
    ("audio_norm_in", "audio_in_layers.0.GroupNorm", 0),
    ("audio_conv_in", "audio_in_layers.2.audio_conv", 0),
    ("embedding", "emb_layers.1", 0),
    ("video_norm_out", "video_out_layers.0.GroupNorm", 0),
    ("video_out", "video_out_layers.3.video_conv", 3),
    ("audio_norm_out", "audio_out_layers.0.GroupNorm", 0),
    ("audio_out", "audio_out_layers.3.audio_conv", 1),
    ("video_skip", "video_skip_connection.video_conv", 3),
    ("audio_skip", "audio_skip_connection.audio_conv", 1),
    *(
        (f"{kind}_attention.{ours}", f"{kind}_attention_block.{official}", axes)
        for kind in ("spatial", "temporal", "audio")
        for ours, official, axes in (
            ("norm", "norm.GroupNorm", 0),
            ("qkv", "qkv", 1),
            ("out", "proj_out", 1),
        )
    ),
)
_CROSS: tuple[tuple[str, str, int], ...] = (
    ("video_norm", "v_norm.GroupNorm", 0),
    ("audio_norm", "a_norm.GroupNorm", 0),
    ("video_qkv", "v_qkv", 1),
    ("audio_qkv", "a_qkv", 1),
    ("video_out", "video_proj_out.video_conv", 3),
    ("audio_out", "audio_proj_out.audio_conv", 1),
)
_STEM: tuple[tuple[str, str, int], ...] = (
    ("video.spatial", "video_conv.video_conv_spatial", 0),
    ("video.temporal", "video_conv.video_conv_temporal", 0),
    ("audio", "audio_conv.audio_conv", 0),
)
_HEADS: tuple[tuple[str, str, int], ...] = (
    ("audio_head_norm", "audio_out.0.GroupNorm", 0),
    ("audio_head", "audio_out.2.audio_conv", 0),
    ("video_head_norm", "video_out.0.GroupNorm", 0),
    ("video_head.full", "video_out.2.video_conv", 0),
)
_BLOCK = re.compile(r"((?:input_blocks\.\d+|output_blocks\.\d+|middle_blocks)\.\d+)\.(.+)")


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return official names and shapes for a `CoupledUNet` state dict."""
    official = {}
    for key, tensor in state.items():
        name, _, kind = key.rpartition(".")
        new_name, axes = _translate(
            name, official_side=False, cross=_is_cross(key, state, "video_qkv")
        )
        if kind == "weight":
            tensor = tensor.reshape(*tensor.shape, *(1 for _ in range(axes)))
        official[f"{new_name}.{kind}"] = tensor
    return official


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our names and shapes for an official state dict.

    Names that no layer of a Coupled U-Net has are passed through unchanged, so that loading the
    result reports them as surplus instead of dropping them in silence.
    """
    ours = {}
    for key, tensor in state.items():
        name, _, kind = key.rpartition(".")
        new_name, axes = _translate(name, official_side=True, cross=_is_cross(key, state, "v_qkv"))
        if kind == "weight" and axes and tensor.shape[-axes:] == (1,) * axes:
            tensor = tensor.reshape(tensor.shape[:-axes])
        ours[f"{new_name}.{kind}"] = tensor
    return ours


def _is_cross(key: str, state: Mapping[str, Tensor], marker: str) -> bool:
    """Return whether a key belongs to a cross-modal block, which also holds the joint qkv layer."""
    match = _BLOCK.match(key)
    return match is not None and f"{match[1]}.{marker}.weight" in state


def _translate(name: str, *, official_side: bool, cross: bool) -> tuple[str, int]:
    prefix, layer, table = "", name, _HEADS
    match = _BLOCK.match(name)
    if match is not None:
        prefix, layer = f"{match[1]}.", match[2]
        table = _STEM if match[1] == "input_blocks.0.0" else _CROSS if cross else _LAYERS
    for ours, official, axes in table:
        source, target = (official, ours) if official_side else (ours, official)
        if layer == source:
            return prefix + target, axes
    return name, 0
