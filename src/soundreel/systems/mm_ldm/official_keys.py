"""Names of our parameters in the published MM-LDM modules and in Stable Diffusion files.

Each component has an ordered list of rewriting rules that turns one of our parameter names into the
published one; the way back is the inverted table of a concrete module. Some published tensors carry
unit axes where ours are plain matrices (a 1x1 convolution is a linear layer on tokens); values are
reshaped accordingly.
"""

import re
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

from soundreel.errors import SoundreelError
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoderConfig

Rules = Sequence[tuple[str, str]]

RESIDUAL: Rules = (
    (r"\bnorm1\.", "in_layers.0."),
    (r"\bconv1\.", "in_layers.2."),
    (r"\bembed\.", "emb_layers.1."),
    (r"\bnorm2\.", "out_layers.0."),
    (r"\bconv2\.", "out_layers.3."),
    (r"\bskip\.", "skip_connection."),
)

TRANSFORMER: Rules = (
    (r"\.layers\.", ".transformer_blocks."),
    (r"\.self_attention\.", ".attn1."),
    (r"\.cross_attention\.", ".attn2."),
    (r"(attn\d)\.query\.", r"\1.to_q."),
    (r"(attn\d)\.key\.", r"\1.to_k."),
    (r"(attn\d)\.value\.", r"\1.to_v."),
    (r"(attn\d)\.out\.", r"\1.to_out.0."),
    (r"\.feed_forward\.expand\.", ".ff.net.0.proj."),
    (r"\.feed_forward\.contract\.", ".ff.net.2."),
)


def signal_decoder_rules(config: SignalDecoderConfig) -> Rules:
    """Return rules for the shared decoder; without its own conditions they are those of Stable
    Diffusion.

    The position of an upsampling layer in its block depends on whether a transformer precedes it.
    """
    levels = reversed(range(len(config.channel_mult)))
    upsampling = [
        (
            rf"^decoder\.{(order + 1) * (config.num_res_blocks + 1) - 1}\.upsample\.",
            f"output_blocks.{(order + 1) * (config.num_res_blocks + 1) - 1}."
            f"{2 if 2**level in config.attention_factors else 1}.",
        )
        for order, level in enumerate(levels)
    ]
    return (
        (r"^(time_embed)\.first\.", r"\1.0."),
        (r"^(time_embed)\.last\.", r"\1.2."),
        (r"^(\w+)_(content|context)\.first\.", r"\1_\2_embed.0."),
        (r"^(\w+)_(content|context)\.last\.", r"\1_\2_embed.2."),
        (r"^norm_out\.", "out.0."),
        (r"^conv_out\.", "out.2."),
        (r"^encoder\.(\d+)\.conv\.conv\.", r"input_blocks.\1.0.op."),
        (r"^encoder\.(\d+)\.conv\.", r"input_blocks.\1.0."),
        *upsampling,
        (r"^middle\.residual1\.", "middle_block.0."),
        (r"^middle\.transformer\.", "middle_block.1."),
        (r"^middle\.residual2\.", "middle_block.2."),
        (r"^encoder\.(\d+)\.residual\.(norm|conv|embed|skip)", r"input_blocks.\1.0.\2"),
        (r"^encoder\.(\d+)\.transformer\.", r"input_blocks.\1.1."),
        (r"^decoder\.(\d+)\.residual\.(norm|conv|embed|skip)", r"output_blocks.\1.0.\2"),
        (r"^decoder\.(\d+)\.transformer\.", r"output_blocks.\1.1."),
        *((rf"(blocks\.\d+|middle_block)(\.\d+)\.{p[2:]}", rf"\1\2.{r}") for p, r in RESIDUAL),
        *TRANSFORMER,
    )


KL_VAE_COMPVIS: Rules = (
    (r"^to_moments\.", "quant_conv."),
    (r"^from_latent\.", "post_quant_conv."),
    (r"^encoder\.levels\.(\d+)\.blocks\.", r"encoder.down.\1.block."),
    (r"^encoder\.levels\.(\d+)\.resample\.", r"encoder.down.\1.downsample."),
    (r"^decoder\.levels\.(\d+)\.blocks\.", r"decoder.up.\1.block."),
    (r"^decoder\.levels\.(\d+)\.resample\.", r"decoder.up.\1.upsample."),
    (r"\.middle\.block(\d)\.", r".mid.block_\1."),
    (r"\.middle\.attention\.norm\.", ".mid.attn_1.norm."),
    (r"\.middle\.attention\.out\.", ".mid.attn_1.proj_out."),
    (r"\.middle\.attention\.(\w)\w+\.", r".mid.attn_1.\1."),
    (r"\.skip\.", ".nin_shortcut."),
)


def official_key(key: str, rules: Rules) -> str:
    """Return the published name of one of our parameters."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def key_table(module: nn.Module, rules: Rules) -> dict[str, str]:
    """Return our name to published name, for every entry of the module's state.

    Raises:
        SoundreelError: if two of our names would share a published one.
    """
    table = {key: official_key(key, rules) for key in module.state_dict()}
    if len(set(table.values())) != len(table):
        raise SoundreelError("two parameters map to one published name; the rules are incomplete")
    return table


def from_official(
    module: nn.Module, state: Mapping[str, Tensor], rules: Rules, skip: Collection[str] = ()
) -> dict[str, Tensor]:
    """Return published tensors under our names and in our shapes, ready for `load_state_dict`.

    Args:
        skip: names of ours that the file is not expected to hold.

    Raises:
        SoundreelError: if a tensor is absent, left over or of another size; the message lists the
            first few names.
    """
    table = {k: v for k, v in key_table(module, rules).items() if k not in skip}
    absent = sorted(set(table.values()) - set(state))
    extra = sorted(set(state) - set(table.values()))
    if absent or extra:
        raise SoundreelError(
            f"the file lacks {len(absent)} tensors ({', '.join(absent[:3])}) and has {len(extra)} "
            f"unknown ones ({', '.join(extra[:3])}); it is of another architecture or size"
        )
    own = module.state_dict()
    for key, published in table.items():
        if _squeezed(own[key]) != _squeezed(state[published]):
            raise SoundreelError(
                f"{published}: shape {tuple(state[published].shape)} does not fit "
                f"{tuple(own[key].shape)}; the configuration is of another size"
            )
    return {key: state[published].reshape(own[key].shape) for key, published in table.items()}


def to_official(
    module: nn.Module, rules: Rules, shapes: Mapping[str, Sequence[int]] | None = None
) -> dict[str, Tensor]:
    """Return the module's state under published names, with unit axes added where `shapes` has
    them."""
    state = module.state_dict()
    published = {theirs: state[ours] for ours, theirs in key_table(module, rules).items()}
    if shapes is None:
        return published
    return {key: value.reshape(tuple(shapes[key])) for key, value in published.items()}


def _squeezed(x: Tensor) -> list[int]:
    return [size for size in x.shape if size != 1]
