"""Sizes of MM-LDM's generator, and what a token of it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from soundreel.errors import SoundreelError
from soundreel.types import LatentSpec


@dataclass(frozen=True, kw_only=True)
class GeneratorSizes:
    """Sizes of the generator save its latents'; the defaults are the published ones
    (678 M parameters).

    Attributes:
        frame_tokens: 0 as published: tokens are patches of z_v. Otherwise the number of cosine
            coefficients over time that z_v holds: tokens are patches of coefficient 0, and one per
            frame for what changes, so that the network sees times and not frequencies.
        audio_token_rows: 0 as published: tokens are squares of z_a. Otherwise pieces into which
            each of its columns is cut, so that a token is of one time.
        time_biased_heads: 0 as published. Otherwise the heads of every block whose logits fall with
            the distance in time between two tokens (ALiBi, Press et al. 2022), so that it need not
            be learned which sound belongs to which frame. Needs `frame_tokens` and
            `audio_token_rows`.
        modality_embedding: learned table per token position beside the fixed sinusoids.
        learned_variance: twice the output channels, the second half for the variance.
        context_dim: width of the prompt, or of the text encoder's token states.
        num_classes: 0 for none; otherwise a class embedding is added to the time embedding.
    """

    old_keys: ClassVar[Mapping[str, str | None]] = {
        "moment_heads": "time_biased_heads",
        "latents": None,  # the autoencoder says it
    }
    removed: ClassVar[Mapping[str, Any]] = {"modalities": ["video", "audio"]}

    video_patch_size: int = 1
    audio_patch_size: int = 1
    frame_tokens: int = 0
    audio_token_rows: int = 0
    time_biased_heads: int = 0
    width: int = 1152
    depth: int = 28
    num_heads: int = 16
    mlp_ratio: float = 4.0
    context_dim: int = 768
    num_context_tokens: int = 77
    num_classes: int = 0
    modality_embedding: bool = True
    learned_variance: bool = False

    def __post_init__(self) -> None:
        if self.width % self.num_heads or self.width % 4:
            raise SoundreelError(
                f"width must be a multiple of 4 and of {self.num_heads} heads, got {self.width}"
            )
        if self.frame_tokens == 1 or self.frame_tokens < 0:
            raise SoundreelError(f"frame_tokens is 0 or at least 2, got {self.frame_tokens}")
        if self.frame_tokens and self.learned_variance:
            raise SoundreelError(
                "frame_tokens have no head for a learned_variance; choose one of both"
            )
        if not 0 <= self.time_biased_heads <= self.num_heads:
            raise SoundreelError(
                f"time_biased_heads lies within 0 and {self.num_heads} heads, got "
                f"{self.time_biased_heads}"
            )
        if self.time_biased_heads and not (self.frame_tokens and self.audio_token_rows):
            raise SoundreelError(
                "time_biased_heads need tokens of single times: set frame_tokens and "
                "audio_token_rows"
            )


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(GeneratorSizes):
    """Sizes of the generator of latents of certain shapes."""

    old_keys: ClassVar[Mapping[str, str | None]] = {"moment_heads": "time_biased_heads"}

    latents: LatentSpec = field(default_factory=LatentSpec)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("video", "audio"):
            sides = self.latent_sides(name)
            if any(side % self.patch_size(name) for side in sides):
                raise SoundreelError(
                    f"a side of {name} latents of {sides[0]} by {sides[1]} is not a multiple of "
                    f"{name}_patch_size {self.patch_size(name)}"
                )
        if self.frame_tokens and self.latents.video_channels % self.frame_tokens:
            raise SoundreelError(
                f"{self.latents.video_channels} channels of z_v are not divisible among "
                f"frame_tokens={self.frame_tokens} coefficients"
            )
        rows = self.audio_token_rows
        if rows < 0 or (rows and self.latents.audio_size % rows):
            raise SoundreelError(
                f"audio_token_rows divides z_a's {self.latents.audio_size} rows, got {rows}"
            )

    @classmethod
    def of(cls, sizes: GeneratorSizes, latents: LatentSpec) -> "GeneratorConfig":
        """Return the sizes with the shapes of the latents that an autoencoder makes."""
        own = {field.name: getattr(sizes, field.name) for field in fields(GeneratorSizes)}
        return cls(**own, latents=latents)

    def latent_sides(self, modality: str) -> tuple[int, int]:
        """Return height and width of a latent."""
        shape = self.latents.video_shape if modality == "video" else self.latents.audio_shape
        return shape[1], shape[2]

    def latent_channels(self, modality: str) -> int:
        return self.latents.video_channels if modality == "video" else self.latents.audio_channels

    def patch_size(self, modality: str) -> int:
        return self.video_patch_size if modality == "video" else self.audio_patch_size

    def patch_shape(self, modality: str) -> tuple[int, int]:
        """Return height and width of the piece of a latent that is one token."""
        if modality == "audio" and self.audio_token_rows:
            return self.latents.audio_size // self.audio_token_rows, 1
        return self.patch_size(modality), self.patch_size(modality)

    def grid(self, modality: str) -> tuple[int, int]:
        """Return rows and columns of patches."""
        (height, width), sides = self.patch_shape(modality), self.latent_sides(modality)
        return sides[0] // height, sides[1] // width

    def num_tokens(self, modality: str) -> int:
        rows, columns = self.grid(modality)
        return rows * columns + (self.frame_tokens if modality == "video" else 0)
