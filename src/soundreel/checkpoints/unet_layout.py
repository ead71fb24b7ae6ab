"""Read the layout of a U-Net off the names and shapes of its official parameters.

Both of MM-Diffusion's networks list encoder stages as `input_blocks.I.J` and decoder stages as
`output_blocks.I.J`; a residual block is recognised by its `emb_layers`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from soundreel.checkpoints.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class UNetLayout:
    """Layout of a U-Net, as its shapes tell it.

    Args:
        level_stages: for each level the names of its encoder stages, without the resampling one.
        channel_mult: output channels of each level in units of `width`.
    """

    width: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    scale_shift_norm: bool
    level_stages: tuple[tuple[str, ...], ...]

    def factors_with(self, state: Mapping[str, Tensor], suffix: str) -> tuple[int, ...]:
        """Return downsampling factors of the levels whose first stage has a parameter of that
        ending."""
        return tuple(
            2**level
            for level, stages in enumerate(self.level_stages)
            if any(key.startswith(f"{stages[0]}.") and key.endswith(suffix) for key in state)
        )

    def mult_at(self, factor: int) -> int:
        """Return entry of `channel_mult` for the level with a downsampling factor."""
        return self.channel_mult[factor.bit_length() - 1]


def unet_layout(state: Mapping[str, Tensor], width: int, out_norm: str, where: str) -> UNetLayout:
    """Infer the layout.

    Args:
        width: channels of the first convolution's unit, read off the time embedding.
        out_norm: name of the second norm's weight within a residual block; its length is the
            block's output channels.

    Raises:
        CheckpointError: the names or shapes are not those of such a U-Net.
    """
    encoder = _residual_blocks(state, "input_blocks")
    decoder = _residual_blocks(state, "output_blocks")
    if not encoder or not decoder:
        raise CheckpointError(f"{where}: no residual blocks among the tensors; not a U-Net")
    # Only the last decoder stage of each level but the outermost has a second block: it enlarges.
    num_levels = 1 + sum(len(blocks) - 1 for blocks in decoder.values())
    per_level, rest = divmod(len(decoder), num_levels)
    if rest or len(encoder) != len(decoder) - 1 or per_level < 2:
        raise CheckpointError(
            f"{where}: {len(encoder)} encoder and {len(decoder)} decoder stages do not make "
            f"{num_levels} equal levels; tensors are missing, or it resamples outside its "
            "residual blocks"
        )
    # Stage 0 is the stem, and each level ends in the stage that halves the size.
    stages = [f"input_blocks.{index}" for index in sorted(encoder)]
    level_stages = tuple(
        tuple(stages[level * per_level : (level + 1) * per_level - 1])
        for level in range(num_levels)
    )
    channels = [
        _tensor(state, f"{names[0]}.0.{out_norm}", where).shape[0] for names in level_stages
    ]
    if any(count % width for count in channels):
        raise CheckpointError(f"{where}: level widths {channels} are no multiples of {width}")
    projection = _tensor(state, f"{stages[0]}.0.emb_layers.1.weight", where)
    return UNetLayout(
        width=width,
        channel_mult=tuple(count // width for count in channels),
        num_res_blocks=per_level - 1,
        scale_shift_norm=projection.shape[0] == 2 * channels[0],
        level_stages=level_stages,
    )


def _tensor(state: Mapping[str, Tensor], key: str, where: str) -> Tensor:
    if key not in state:
        raise CheckpointError(f"{where}: missing tensor {key}")
    return state[key]


def _residual_blocks(state: Mapping[str, Tensor], side: str) -> dict[int, list[int]]:
    """Return stage number -> places of its residual blocks."""
    pattern = re.compile(rf"{side}\.(\d+)\.(\d+)\.emb_layers\.1\.weight")
    blocks: dict[int, list[int]] = {}
    for key in state:
        match = pattern.fullmatch(key)
        if match:
            blocks.setdefault(int(match[1]), []).append(int(match[2]))
    return blocks
