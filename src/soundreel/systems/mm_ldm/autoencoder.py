"""MM-LDM's multi-modal autoencoder: encoders, projectors, heads and the shared signal decoder.

It works on first-stage latents. Video has the axes `batch frame channel height width`, the mel
image `batch channel height width`; z_v and z_a are `batch channel height width`.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from soundreel.diffusion.process import PredictionType
from soundreel.errors import SoundreelError
from soundreel.nn.gaussian import DiagonalGaussian
from soundreel.systems.mm_ldm.perceptual_encoders import (
    AudioEncoder,
    AudioEncoderConfig,
    PerceptualEncoderConfig,
    VideoEncoder,
    VideoEncoderConfig,
)
from soundreel.systems.mm_ldm.semantic import (
    ClassHead,
    Contrast,
    ContrastiveHead,
    Projector,
    ProjectorConfig,
)
from soundreel.systems.mm_ldm.signal_decoder import (
    DecoderCondition,
    SignalDecoder,
    SignalDecoderConfig,
)
from soundreel.types import AV, LatentSpec


def _audio_projector() -> ProjectorConfig:
    return ProjectorConfig(channel_mult=(1, 2, 4), num_res_blocks=4, attention_factors=(1, 2, 4))


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """The parts and how they are used; the defaults are MM-LDM's for Landscape.

    Args:
        num_frames: frames per clip.
        key_frames: which of them the video encoder sees.
        num_prompt_tokens: length of the learned tokens that tell the modalities apart.
        contrastive_dim: width of the contrastive features.
        prediction_type: what the signal decoder estimates.
    """

    video_encoder: VideoEncoderConfig = field(default_factory=VideoEncoderConfig)
    audio_encoder: AudioEncoderConfig = field(default_factory=AudioEncoderConfig)
    video_projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    audio_projector: ProjectorConfig = field(default_factory=_audio_projector)
    decoder: SignalDecoderConfig = field(default_factory=SignalDecoderConfig)
    num_frames: int = 16
    key_frames: tuple[int, ...] = (0, 5, 10, 15)
    num_prompt_tokens: int = 77
    contrastive_dim: int = 256
    prediction_type: PredictionType = "epsilon"

    def __post_init__(self) -> None:
        if not all(0 <= index < self.num_frames for index in self.key_frames):
            raise SoundreelError(
                f"key_frames {self.key_frames} must lie in [0, {self.num_frames}), the clip"
            )
        stacked = self.video_encoder.stacked_frames
        if stacked not in (0, len(self.key_frames)):
            raise SoundreelError(
                f"video_encoder.stacked_frames {stacked} must be 0 or the number of key frames; "
                f"there are {len(self.key_frames)} key frames"
            )
        _check_parts("video", self.video_encoder, self.video_projector, self.decoder)
        _check_parts("audio", self.audio_encoder, self.audio_projector, self.decoder)

    @property
    def latents(self) -> LatentSpec:
        """Return the shapes of z_v and z_a, which follow from the encoders and nothing else."""
        return LatentSpec(
            video_channels=self.video_encoder.latent_channels,
            video_size=self.video_encoder.latent_size,
            audio_channels=self.audio_encoder.latent_channels,
            audio_size=self.audio_encoder.latent_size,
            audio_width=self.audio_encoder.latent_width,
        )


def _check_parts(
    name: str,
    encoder: PerceptualEncoderConfig,
    projector: ProjectorConfig,
    decoder: SignalDecoderConfig,
) -> None:
    if encoder.linear_shortcut != decoder.linear_shortcut:
        raise SoundreelError(
            f"{name}_encoder.linear_shortcut and decoder.linear_shortcut are two ends of one path; "
            "set them alike"
        )
    if projector.semantic_dim != decoder.context_dim:
        raise SoundreelError(
            f"{name}_projector.semantic_dim {projector.semantic_dim} must equal "
            f"decoder.context_dim {decoder.context_dim}"
        )
    features = list(zip(encoder.feature_channels, encoder.feature_factors, strict=True))
    if features != decoder.feature_blocks:
        raise SoundreelError(
            f"the {name} encoder's features {features} do not fit the decoder's blocks "
            f"{decoder.feature_blocks}; set feature_channels and feature_factors from them"
        )


@dataclass(frozen=True, slots=True)
class Posteriors:
    """The two encoders' distributions."""

    video: DiagonalGaussian
    audio: DiagonalGaussian

    @property
    def mean(self) -> AV:
        return AV(self.video.mean, self.audio.mean)

    def sample(self, noise: AV) -> AV:
        """Return latents drawn with the given standard normal noise."""
        return AV(self.video.sample(noise["video"]), self.audio.sample(noise["audio"]))

    def kl(self) -> AV:
        """Return `batch` KL divergences from N(0, 1), summed over the latents' elements."""
        return AV(self.video.kl(), self.audio.kl())


@dataclass(frozen=True, kw_only=True)
class AutoencoderInputs:
    """One batch, with everything random already drawn.

    Args:
        key_frames: first-stage latents of the key frames.
        audio_image: first-stage latent of the mel image, as the encoder sees it.
        xt: noisy targets, video `batch frame channel height width` for any frames of the clips.
        timestep: step of each image, video `batch frame`, audio `batch`.
        frame_index: position of the target frames in the clip, in [0, 1).
        posterior_noise: with which the latents are drawn; None takes the means.
        keep: per modality whether its condition is kept, `batch`; None keeps all.
        label: class numbers; None for the predicted ones.
        contrast: of the step that the batch is a part of; None for a batch that is the whole step.
    """

    key_frames: Float[Tensor, "batch key channel height width"]
    audio_image: Float[Tensor, "batch channel sound_height sound_width"]
    xt: AV
    timestep: AV
    frame_index: Float[Tensor, "batch frame"]
    posterior_noise: AV | None = None
    keep: AV | None = None
    label: Int[Tensor, " batch"] | None = None
    contrast: Contrast | None = None


@dataclass(frozen=True, kw_only=True)
class AutoencoderOutputs:
    """Outputs of a training pass.

    Args:
        prediction: the signal decoder's output, shaped as `xt`.
        class_logits: None without classes.
        contrastive_loss: InfoNCE over the global batch.
    """

    prediction: AV
    posteriors: Posteriors
    latent: AV
    class_logits: Float[Tensor, "batch class_"] | None
    contrastive_loss: Float[Tensor, ""]


class MultiModalAutoencoder(nn.Module):
    """Encodes clips to perceptual latents and predicts the signals' noise from them.

    Source:
        MM-LDM, section 3 and appendix 1.2.
    """

    forward_methods = ("contrastive_features",)

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        dim, tokens = config.decoder.context_dim, config.num_prompt_tokens
        num_classes = config.decoder.num_classes
        self.video_encoder = VideoEncoder(config.video_encoder)
        self.audio_encoder = AudioEncoder(config.audio_encoder)
        self.video_projector = Projector(config.video_projector, config.latents.video_channels)
        self.audio_projector = Projector(config.audio_projector, config.latents.audio_channels)
        self.class_head = ClassHead(dim, num_classes) if num_classes else None
        self.contrastive_head = ContrastiveHead(dim, config.contrastive_dim)
        self.video_prompt = nn.Parameter(torch.empty(tokens, dim).normal_(std=0.1))
        self.audio_prompt = nn.Parameter(torch.empty(tokens, dim).normal_(std=0.1))
        self.decoder = SignalDecoder(config.decoder, config.latents)

    def forward(self, inputs: AutoencoderInputs) -> AutoencoderOutputs:
        """Run a training pass: encode, draw latents, predict."""
        posteriors, latent = self._encoded(inputs)
        semantic = self.semantics(latent)
        logits = None if self.class_head is None else self.class_head(semantic)
        label = inputs.label
        if label is None and logits is not None:
            label = logits.argmax(dim=1)
        condition = self._condition(latent, semantic, label, inputs.frame_index, inputs.keep)
        return AutoencoderOutputs(
            prediction=self.decoder(inputs.xt, inputs.timestep, condition),
            posteriors=posteriors,
            latent=latent,
            class_logits=logits,
            contrastive_loss=self.contrastive_head.loss(semantic, inputs.contrast),
        )

    def contrastive_features(self, inputs: AutoencoderInputs) -> AV:
        """Return what the contrastive loss of a training pass compares, `batch dim`."""
        return self.contrastive_head(self.semantics(self._encoded(inputs)[1]))

    def _encoded(self, inputs: AutoencoderInputs) -> tuple[Posteriors, AV]:
        """Encode, and draw the latents that heads and decoder see."""
        posteriors = self.encode(_masked(inputs))
        latent = posteriors.mean
        if inputs.posterior_noise is not None:
            latent = posteriors.sample(inputs.posterior_noise)
        return posteriors, latent

    def encode(self, signals: AV) -> Posteriors:
        """Return distributions of z_v and z_a.

        Args:
            signals: first-stage latents of the key frames (video) and of the mel image (audio).
        """
        return Posteriors(
            self.video_encoder(signals["video"]), self.audio_encoder(signals["audio"])
        )

    def select_key_frames(
        self, video: Float[Tensor, "batch frame channel height width"]
    ) -> Float[Tensor, "batch key channel height width"]:
        """Return the frames the video encoder sees; of a shorter clip those at the same shares
        of it."""
        num_frames, whole = video.shape[1], self.config.num_frames
        if num_frames == whole:
            return video[:, list(self.config.key_frames)]
        last = max(whole - 1, 1)
        return video[:, [index * (num_frames - 1) // last for index in self.config.key_frames]]

    def semantics(self, latent: AV) -> AV:
        """Return grids s_v and s_a. No gradient reaches the latents (MM-LDM, appendix 1.4)."""
        latent = latent.detach()
        return AV(self.video_projector(latent["video"]), self.audio_projector(latent["audio"]))

    def condition(
        self,
        latent: AV,
        frame_index: Float[Tensor, "batch frame"],
        *,
        label: Int[Tensor, " batch"] | None = None,
        semantic: AV | None = None,
    ) -> DecoderCondition:
        """Return all that the decoder is told for given perceptual latents.

        Args:
            frame_index: position of the frames to decode, in [0, 1).
            label: class numbers; by default those the class head predicts.
            semantic: semantic grids to use in place of the latents' own.
        """
        own = self.semantics(latent) if semantic is None else semantic
        if label is None and self.class_head is not None:
            label = self.class_head.predict(own)[0]
        return self._condition(latent, own, label, frame_index, None)

    def null_latent(self, batch_size: int) -> AV:
        """Return latents of nothing: the encoders' means for all-zero inputs."""
        video, audio = self.config.video_encoder, self.config.audio_encoder
        like = self.video_prompt.new_zeros
        num_keys = len(self.config.key_frames)
        zeros = AV(
            like(1, num_keys, video.image_channels, video.image_size, video.image_size),
            like(1, audio.image_channels, *audio.image_shape),
        )
        return self.encode(zeros).mean.map(lambda x: x.expand(batch_size, -1, -1, -1))

    def null_condition(self, frame_index: Float[Tensor, "batch frame"]) -> DecoderCondition:
        """Return the condition of classifier-free guidance's other branch.

        Zero prompts, features and latents of nothing; the class is predicted from the latents of
        nothing, as in the release.
        """
        told = self.condition(self.null_latent(len(frame_index)), frame_index)
        return replace(told, prompt=told.prompt * 0.0)

    def _condition(
        self,
        latent: AV,
        semantic: AV,
        label: Int[Tensor, " batch"] | None,
        frame_index: Float[Tensor, "batch frame"],
        keep: AV | None,
    ) -> DecoderCondition:
        shape = (latent.batch_size, -1, -1)
        prompt = AV(self.video_prompt.expand(shape), self.audio_prompt.expand(shape))
        if keep is not None:
            prompt = prompt.map(_zero_dropped, keep)
        return DecoderCondition(
            prompt=prompt,
            label=label,
            semantic=semantic,
            latent=latent,
            video_features=self.video_encoder.features(latent["video"], frame_index),
            audio_features=self.audio_encoder.features(latent["audio"]),
            video_estimate=self.video_encoder.estimate(latent["video"], frame_index),
            audio_estimate=self.audio_encoder.estimate(latent["audio"]),
        )


def _masked(inputs: AutoencoderInputs) -> AV:
    """Return the encoders' inputs, zero where the modality's condition is dropped."""
    signals = AV(inputs.key_frames, inputs.audio_image)
    return signals if inputs.keep is None else signals.map(_zero_dropped, inputs.keep)


def _zero_dropped(
    x: Float[Tensor, "batch *shape"], keep: Bool[Tensor, " batch"]
) -> Float[Tensor, "batch *shape"]:
    return x * keep.to(x).reshape(-1, *(x.dim() - 1) * [1])
