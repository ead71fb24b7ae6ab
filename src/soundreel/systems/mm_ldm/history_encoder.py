"""MM-LDM for long video: each clip of a sequence is generated in the knowledge of the one before.

A second, shallower transformer reads, per modality, the previous clip's clean latent beside the
noisy one. After each of its blocks a linear map (zero at the start) gives a tap, which is added to
the output of the generator's block of the same number. Both transformers also see the previous
latents as context tokens:

    [prompt ; previous video latent ; previous audio latent]

A previous latent of zeros means that there is none, so one network serves four tasks: generation
(both zero), prediction (both given), and continuation of one modality.

Source: Sun et al. 2024 (arXiv 2410.01594), appendix on long video.
"""

from dataclasses import dataclass, field, replace

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor, nn

from soundreel.diffusion.denoiser import Prediction
from soundreel.errors import SoundreelError
from soundreel.nn.embeddings import zero_parameters
from soundreel.nn.layout import run
from soundreel.systems.mm_ldm.generator import (
    Generator,
    GeneratorConfig,
    TransformerTrunk,
    linear,
)
from soundreel.training.parallel import unwrapped
from soundreel.types import AV

NO_LATENTS = AV(None, None)


@dataclass(frozen=True, kw_only=True)
class LongGeneratorConfig:
    """Sizes of both networks; the defaults are the published ones.

    Attributes:
        history_depth: blocks of the history encoder, at most those of the generator.
        overlap: frames that a window shares with the one before it; 0 as published.
    """

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    history_depth: int = 14
    overlap: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.history_depth <= self.generator.depth:
            raise SoundreelError(
                f"history_depth must be between 1 and the generator's depth "
                f"{self.generator.depth}, got {self.history_depth}"
            )

    @property
    def history(self) -> GeneratorConfig:
        """Return the history encoder's own sizes: it has no classes, and no outputs but its
        taps."""
        return replace(
            self.generator, depth=self.history_depth, num_classes=0, learned_variance=False
        )


class HistoryEncoder(TransformerTrunk):
    """Taps for the generator's blocks from the previous and the noisy latents.

    Source:
        MM-LDM's condition encoder (361,964,224 parameters as published, of which its two output
        heads are never used and are left out here).
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config, channel_factor=2, has_condition=False)
        self.taps = nn.ModuleList(
            zero_parameters(nn.Linear(config.width, config.width, bias=False))
            for _ in range(config.depth)
        )

    def forward(
        self,
        xt: AV,
        previous: AV,
        timestep: Num[Tensor, " batch"],
        context: Float[Tensor, "batch token context_dim"],
    ) -> list[Float[Tensor, "batch all_tokens dim"]]:
        """Return one tap per block, over the whole sequence."""
        time = self.embed_time(timestep)
        both = previous.map(lambda clean, noisy: torch.cat([clean, noisy], dim=1), xt)
        x = self.embed_tokens(both, NO_LATENTS, context)
        bias, taps = self.attention_bias(context.shape[1]), []
        for block, tap in zip(self.blocks, self.taps, strict=True):
            x = run(block, x, time, bias, recompute=self.recompute)
            taps.append(tap(x))
        return taps


class LongGenerator(nn.Module):
    """Generator and history encoder: the network that stage 3 trains for long video.

    `generator` may be initialised from a trained joint generator; the taps start silent, so that it
    then begins where that one ended.
    """

    def __init__(self, config: LongGeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = Generator(config.generator)
        self.history_encoder = HistoryEncoder(config.history)
        latents, dim = config.generator.latents, config.generator.context_dim
        self.video_to_context = linear(latents.video_channels, dim)
        self.audio_to_context = linear(latents.audio_channels, dim)

    def forward(
        self,
        xt: AV,
        timestep: Num[Tensor, " batch"],
        *,
        previous: AV,
        condition: AV = NO_LATENTS,
        context_kept: Bool[Tensor, " batch"] | None = None,
        text: Float[Tensor, "batch token context_dim"] | None = None,
        label: Int[Tensor, " batch"] | None = None,
    ) -> Prediction:
        """Predict the model output for the noisy latents of the next clip.

        Args:
            previous: clean latents of the clip before; rows of zeros where there is none.
            condition, context_kept, text, label: as in `Generator`.
        """
        kept = torch.ones_like(timestep, dtype=torch.bool) if context_kept is None else context_kept
        tokens = self.history_tokens(previous)
        context = torch.cat([self.generator.context(kept, text), tokens], dim=1)
        return self.generator(
            xt,
            timestep,
            condition=condition,
            context_kept=kept,
            text=text,
            label=label,
            history_tokens=tokens,
            taps=self.history_encoder(xt, previous, timestep, context),
        )

    def history_tokens(self, previous: AV) -> Float[Tensor, "batch token context_dim"]:
        """Return one context token per position of the previous latents, video first."""
        video, audio = (
            rearrange(previous[name], "b c h w -> b (h w) c") for name in ("video", "audio")
        )
        return torch.cat([self.video_to_context(video), self.audio_to_context(audio)], dim=1)


def generator_of(network: nn.Module) -> Generator:
    """Return the generator, out of what wraps it for several processes or for long video."""
    inner = unwrapped(network)
    inner = inner.generator if isinstance(inner, LongGenerator) else inner
    assert isinstance(inner, Generator), "this objective trains a Generator"
    return inner
