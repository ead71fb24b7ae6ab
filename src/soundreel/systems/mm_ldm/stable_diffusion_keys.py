"""Names of our parameters in Stable Diffusion v1 files laid out as by diffusers.

The CompVis layout is that of the published MM-LDM modules; see `official_keys`.
"""

from soundreel.systems.mm_ldm.official_keys import TRANSFORMER, Rules
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoderConfig

RESIDUAL: Rules = (
    (r"\.residual\.embed\.", ".residual.time_emb_proj."),
    (r"\.residual\.skip\.", ".residual.conv_shortcut."),
)


def kl_vae_diffusers_rules(num_levels: int) -> Rules:
    """Return rules for a KL-VAE in the layout of diffusers, which counts the decoder's levels
    upwards."""
    ups = [
        (rf"^decoder\.levels\.{level}\.", f"decoder.up_blocks.{num_levels - 1 - level}.")
        for level in range(num_levels)
    ]
    return (
        (r"^to_moments\.", "quant_conv."),
        (r"^from_latent\.", "post_quant_conv."),
        *ups,
        (r"^encoder\.levels\.", "encoder.down_blocks."),
        (r"(down_blocks\.\d+)\.blocks\.", r"\1.resnets."),
        (r"(up_blocks\.\d+)\.blocks\.", r"\1.resnets."),
        (r"(down_blocks\.\d+)\.resample\.", r"\1.downsamplers.0."),
        (r"(up_blocks\.\d+)\.resample\.", r"\1.upsamplers.0."),
        (r"\.middle\.block1\.", ".mid_block.resnets.0."),
        (r"\.middle\.block2\.", ".mid_block.resnets.1."),
        (r"\.middle\.attention\.norm\.", ".mid_block.attentions.0.group_norm."),
        (r"\.middle\.attention\.out\.", ".mid_block.attentions.0.to_out.0."),
        (r"\.middle\.attention\.(\w)\w+\.", r".mid_block.attentions.0.to_\1."),
        (r"\.skip\.", ".conv_shortcut."),
        (r"\.norm_out\.", ".conv_norm_out."),
    )


def unet_diffusers_rules(config: SignalDecoderConfig) -> Rules:
    """Return rules for the part of the signal decoder that is Stable Diffusion's U-Net.

    diffusers numbers blocks per level, the decoder's levels in the order they run.
    """
    num_levels, num_blocks = len(config.channel_mult), config.num_res_blocks
    rules: list[tuple[str, str]] = [
        (r"^encoder\.0\.conv\.", "conv_in."),
        (r"^time_embed\.first\.", "time_embedding.linear_1."),
        (r"^time_embed\.last\.", "time_embedding.linear_2."),
        (r"^norm_out\.", "conv_norm_out."),
        (r"^middle\.residual1\.", "mid_block.resnets.0.residual."),
        (r"^middle\.residual2\.", "mid_block.resnets.1.residual."),
        (r"^middle\.transformer\.", "mid_block.attentions.0."),
    ]
    number = 0
    for level in range(num_levels):
        if level:
            number += 1
            down = f"down_blocks.{level - 1}.downsamplers.0.conv."
            rules.append((rf"^encoder\.{number}\.conv\.conv\.", down))
        for index in range(num_blocks):
            number += 1
            rules += _block_rules(f"encoder.{number}", f"down_blocks.{level}", index)
    for number in range(num_levels * (num_blocks + 1)):
        level, index = divmod(number, num_blocks + 1)
        rules += _block_rules(f"decoder.{number}", f"up_blocks.{level}", index)
        up = f"up_blocks.{level}.upsamplers.0.conv."
        rules.append((rf"^decoder\.{number}\.upsample\.conv\.", up))
    return (*rules, *RESIDUAL, (r"\.residual\.", "."), *TRANSFORMER)


def _block_rules(ours: str, theirs: str, index: int) -> list[tuple[str, str]]:
    block = ours.replace(".", r"\.")
    return [
        (rf"^{block}\.residual\.", f"{theirs}.resnets.{index}.residual."),
        (rf"^{block}\.transformer\.", f"{theirs}.attentions.{index}."),
    ]
