"""Configuration of an MM-LDM run: three networks, trained one after another."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from soundreel.audio.mel_image import MelImageConfig
from soundreel.checkpoints.text_encoder import TextConfig
from soundreel.config import DataConfig
from soundreel.data.latent_axes import LatentAxesConfig
from soundreel.diffusion.config import DiffusionConfig
from soundreel.errors import SoundreelError
from soundreel.film_clock import FilmClock
from soundreel.systems.mm_ldm.autoencoder import AutoencoderConfig
from soundreel.systems.mm_ldm.autoencoder_loss import AutoencoderLossConfig
from soundreel.systems.mm_ldm.decoding import DecodingConfig
from soundreel.systems.mm_ldm.discriminator import DiscriminatorConfig
from soundreel.systems.mm_ldm.first_stage import check_fit
from soundreel.systems.mm_ldm.first_stage_loss import FirstStageLossConfig
from soundreel.systems.mm_ldm.generator_config import GeneratorConfig
from soundreel.systems.mm_ldm.generator_run import GeneratorRun, LongRun
from soundreel.systems.mm_ldm.history_encoder import LongGeneratorConfig
from soundreel.systems.mm_ldm.kl_vae import KLVAEConfig
from soundreel.systems.mm_ldm.patch_discriminator import PatchDiscriminatorConfig
from soundreel.systems.mm_ldm.sampling import SamplingConfig
from soundreel.training.loop import TrainConfig
from soundreel.types import ClipSpec

STAGES = ("first_stage", "autoencoder", "adversarial", "generator", "long")


@dataclass(frozen=True, kw_only=True)
class FirstStageRun:
    """Stage 1, the image autoencoder.

    Attributes:
        weights: a Stable Diffusion first stage to load, empty to start anew.
        finetune: train on after loading `weights`; without weights it is always trained.
        perceptual_weights: file (or folder of two files) of LPIPS on VGG-16 or AlexNet, or of
            ST-LPIPS; empty leaves the perceptual term out.
        adversary: train against a patch discriminator.
    """

    removed: ClassVar[Mapping[str, Any]] = {"kind": "kl-vae"}

    model: KLVAEConfig = field(default_factory=KLVAEConfig)
    weights: str = ""
    finetune: bool = False
    perceptual_weights: str = ""
    adversary: bool = True
    discriminator: PatchDiscriminatorConfig = field(default_factory=PatchDiscriminatorConfig)
    loss: FirstStageLossConfig = field(default_factory=FirstStageLossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.weights and self.model.linear_shortcut:
            raise SoundreelError(
                "first_stage.weights are of networks without a linear shortcut: set "
                "first_stage.model.linear_shortcut=False"
            )

    @property
    def is_trained(self) -> bool:
        return self.finetune or not self.weights


@dataclass(frozen=True, kw_only=True)
class AutoencoderRun:
    """Stage 2 without adversary.

    Attributes:
        unet_weights: Stable Diffusion v1 U-Net to start the signal decoder from; empty for none.
        cache_first_stage: encode every frame once and train on the cached posteriors; needs
            data without flips.
        semantic_rate_share: share of the learning rate that projectors, class head and contrastive
            head learn at. At rates of 4e-4 and above the contrastive features collapse to one
            point, from which they do not return.
    """

    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    unet_weights: str = ""
    cache_first_stage: bool = False
    semantic_rate_share: float = 1.0
    loss: AutoencoderLossConfig = field(default_factory=AutoencoderLossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if not 0 < self.semantic_rate_share <= 1:
            raise SoundreelError(
                f"semantic_rate_share is a share within (0, 1], got {self.semantic_rate_share}"
            )


@dataclass(frozen=True, kw_only=True)
class AdversarialRun:
    """Stage 2's second phase, which goes on from the first one's end.

    Attributes:
        enabled: False leaves the phase out.
    """

    removed: ClassVar[Mapping[str, Any]] = {
        "loss": {"generator_loss": "hinge", "mismatched": False}
    }

    enabled: bool = True
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass(frozen=True, kw_only=True)
class LDMPreviewConfig:
    """Previews during training, on clips not trained on where the data set has some.

    Attributes:
        count: clips per preview.
    """

    count: int = 4


@dataclass(frozen=True, kw_only=True)
class MMLDMConfig:
    """A run of all stages of MM-LDM; see `train_mm_ldm`.

    Attributes:
        diffusion: the noise process of decoder and generator; its `prediction_type` is the
            generator's, `autoencoder.model.prediction_type` the decoder's.
        decoding, sampling: settings the finished model starts with.
        text: text encoder whose token states of the clips' captions take the place of the
            generator's learned prompt.
        class_labels: a generator without classes or captions takes those of the data set.
        captions: CSV file with the columns `source` and `caption`; empty takes the class names.
        vocoder: HiFi-GAN file or folder that the finished model makes its sound with; empty is
            Griffin-Lim. It is not trained and may change at any time.
    """

    removed: ClassVar[Mapping[str, Any]] = {"decoder": {"enabled": False}}

    system: Literal["mm-ldm"] = "mm-ldm"
    clip: ClipSpec = field(default_factory=ClipSpec)
    mel_image: MelImageConfig = field(default_factory=MelImageConfig)
    first_stage: FirstStageRun = field(default_factory=FirstStageRun)
    autoencoder: AutoencoderRun = field(default_factory=AutoencoderRun)
    adversarial: AdversarialRun = field(default_factory=AdversarialRun)
    generator: GeneratorRun = field(default_factory=GeneratorRun)
    long: LongRun = field(default_factory=LongRun)
    diffusion: DiffusionConfig = field(
        default_factory=lambda: DiffusionConfig(schedule="scaled-linear")
    )
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    class_labels: bool = False
    text: TextConfig = field(default_factory=TextConfig)
    captions: str = ""
    vocoder: str = ""
    data: DataConfig = field(default_factory=DataConfig)
    preview: LDMPreviewConfig = field(default_factory=LDMPreviewConfig)

    def __post_init__(self) -> None:
        wanted, size = self.diffusion.prediction_type, self.clip.height
        own, shown = self.generator.loss.prediction_type, self.adversarial.discriminator.image_size
        more = (
            ("generator.loss.prediction_type", own, "diffusion.prediction_type", wanted),
            ("adversarial.discriminator.image_size", shown, "clip.height", size),
        )
        first_stage, autoencoder = self.first_stage.model, self.autoencoder.model
        check_fit(self.clip, self.mel_image, first_stage, autoencoder, more)
        per_frame = self.generator.movement_axes or self.generator.model.frame_tokens
        if per_frame and not self._holds_every_frame(self.generator.model.frame_tokens):
            raise SoundreelError(
                "generator.movement_axes and generator.model.frame_tokens need a z_v of all cosine "
                "coefficients over time: set autoencoder.model.video_encoder.stacked_frames to the "
                "number of key frames (frame_tokens too), its latent_channels to that many times "
                "its image_channels"
            )
        _ = self.generator_model, self.latent_axes  # wrong sizes stop here, not in the last stage
        if self.adversarial.enabled and not self.mel_image.image_size:
            raise SoundreelError("a mel image of its own aspect: set adversarial.enabled to False")
        if self.captions and not self.text.folder:
            raise SoundreelError("captions need a text encoder to read them: set text.folder too")
        if self.autoencoder.cache_first_stage and self.data.flip_probability:
            raise SoundreelError(
                "autoencoder.cache_first_stage encodes every frame once: set "
                "data.flip_probability=0, or do not cache"
            )
        if self.long.enabled:
            self._check_long()

    def _check_long(self) -> None:
        """Raise `ValueError` where windows cannot follow each other."""
        _ = self.long_generator  # wrong sizes stop here, not in the last stage
        distance = FilmClock(self.clip, self.long.overlap).hop
        stride = self.data.stride
        if stride == "random" or distance % stride:
            raise SoundreelError(
                f"long needs windows {distance} frames apart: set data.stride to a divisor of "
                f"that, or change long.overlap; data.stride is {stride}"
            )

    @property
    def generator_model(self) -> GeneratorConfig:
        """Return the sizes of the generator of the autoencoder's latents."""
        return GeneratorConfig.of(self.generator.model, self.autoencoder.model.latents)

    @property
    def long_generator(self) -> LongGeneratorConfig:
        """Return the sizes of the network that the phase `long` trains."""
        return LongGeneratorConfig(
            generator=self.generator_model,
            history_depth=self.long.history_depth,
            overlap=self.long.overlap,
        )

    @property
    def latent_axes(self) -> LatentAxesConfig | None:
        """Return how the generator's latents are scaled; None is per channel."""
        run, latents = self.generator, self.autoencoder.model.latents
        if not run.num_axes:
            return None
        return LatentAxesConfig(
            latents=latents,
            num_axes=run.num_axes,
            whitening=run.whitening,
            num_frames=self.autoencoder.model.video_encoder.stacked_frames
            if run.movement_axes
            else 1,
            movement_axes=run.movement_axes,
        )

    def _holds_every_frame(self, frame_tokens: int) -> bool:
        """Return whether z_v is all cosine coefficients of its key frames."""
        encoder = self.autoencoder.model.video_encoder
        count = encoder.stacked_frames
        return (
            count > 1
            and encoder.latent_channels == count * encoder.image_channels
            and frame_tokens in (0, count)
        )
