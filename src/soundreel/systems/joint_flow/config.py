"""Configuration of a training run of joint_flow: sizes, losses and training of every stage."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from soundreel.config import DataConfig, PreviewConfig
from soundreel.device import PRECISIONS
from soundreel.errors import SoundreelError
from soundreel.protocols import option
from soundreel.systems.joint_flow.audio_codec import AudioCodecConfig
from soundreel.systems.joint_flow.audio_objective import AudioLossConfig
from soundreel.systems.joint_flow.flow_objective import FlowLossConfig
from soundreel.systems.joint_flow.lapped import HOP
from soundreel.systems.joint_flow.transformer import JointTransformerConfig, TransformerSizes
from soundreel.systems.joint_flow.video_decoder import VideoDecoderConfig
from soundreel.systems.joint_flow.video_encoder import VideoEncoderConfig
from soundreel.systems.joint_flow.video_objective import VideoLossConfig
from soundreel.training.loop import TrainConfig
from soundreel.types import ClipSpec

SYSTEM = "joint-flow"


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoStage:
    """The video codec: its linear part is fitted, its decoder trained.

    Attributes:
        encoder: sizes of the linear part; those of the frames must be the clip's.
        fit_clips: windows that the linear part is fitted to, spread evenly over the data set.
        fit_patch_stride: of their patches every so manyth is used.
        num_groups: groups of latents in a training window of the decoder.
    """

    encoder: VideoEncoderConfig = field(
        default_factory=lambda: VideoEncoderConfig(motion_weight=2.0)
    )
    decoder: VideoDecoderConfig = field(default_factory=VideoDecoderConfig)
    loss: VideoLossConfig = field(default_factory=VideoLossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    fit_clips: int = 1500
    fit_patch_stride: int = 17
    num_groups: int = 4

    def __post_init__(self) -> None:
        if self.num_groups < 2 or self.fit_clips < 1 or self.fit_patch_stride < 1:
            raise SoundreelError("needs num_groups >= 2, fit_clips >= 1 and fit_patch_stride >= 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioStage:
    """The audio codec.

    Attributes:
        codec: its sizes; one latent must cover one video frame.
        num_frames: video frames in a training window.
        train_encoder: False leaves the encoder as it is in the model that training starts from, so
            that its transformer still fits.
    """

    codec: AudioCodecConfig = field(default_factory=AudioCodecConfig)
    loss: AudioLossConfig = field(default_factory=AudioLossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    num_frames: int = 16
    train_encoder: bool = True

    def __post_init__(self) -> None:
        if self.train.lora.rank and not self.train_encoder:
            raise SoundreelError(
                "audio.train_encoder must be True where audio.train.lora.rank is not 0: adapters"
                " change the encoder too"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerStage:
    """The joint transformer.

    Attributes:
        watch_clips: training clips of the watch, spread evenly, which is taken with each preview.
    """

    sizes: TransformerSizes = field(default_factory=TransformerSizes)
    loss: FlowLossConfig = field(default_factory=FlowLossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    watch_clips: int = 96


@dataclass(frozen=True, kw_only=True, slots=True)
class JointFlowOptions:
    """Options of `JointFlowPipeline.generate` besides the request itself."""

    num_steps: int = option(
        16, "Sampling steps; more is slower and closer to the model.", low=1, high=100
    )
    guidance_scale: float = option(
        1.5, "How strongly the class is followed; 1 is as trained.", low=0, high=8
    )
    sync_scale: float = option(
        2.0,
        "How strongly pictures and sound follow each other; 1 is as trained.",
        low=0,
        high=8,
    )
    shift: float = option(
        1.5, "Above 1, more of the steps are spent where there is much noise.", low=0.1, high=10
    )
    sound_lead: float = option(
        0.0,
        "How far sound is made ahead of pictures, as a share of its steps; 0 makes both at once.",
        low=0,
        high=1,
    )
    detail_noise: float = option(
        1.0,
        "Deviation of the noise that the detail of pictures starts from; less is calmer.",
        low=0.1,
        high=1,
    )
    layout_noise: float = option(
        1.0,
        "Deviation of the noise that changes of light and colour start from; less is calmer.",
        low=0.1,
        high=1,
    )
    precision: str = option(
        "auto",
        "Precision of the networks; auto measures which one is faster.",
        choices=PRECISIONS,
        on_page=False,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class JointFlowConfig:
    """A training run of all stages.

    Attributes:
        clip: what is generated; its frames are a multiple of four. Training windows are one hop of
            four frames longer at either end, for the windows of the lapped transform.
        data: the transformer learns from every window once, and once more mirrored where
            `flip_probability` is not 0.
    """

    system: Literal["joint-flow"] = SYSTEM
    clip: ClipSpec = field(
        default_factory=lambda: ClipSpec(
            num_frames=32, height=128, width=128, frame_rate=Fraction(16)
        )
    )
    video: VideoStage = field(default_factory=VideoStage)
    audio: AudioStage = field(default_factory=AudioStage)
    transformer: TransformerStage = field(default_factory=TransformerStage)
    sampling: JointFlowOptions = field(default_factory=JointFlowOptions)
    data: DataConfig = field(default_factory=lambda: DataConfig(stride=4, flip_probability=0.5))
    preview: PreviewConfig = field(default_factory=PreviewConfig)

    def __post_init__(self) -> None:
        clip, codec = self.clip, self.audio.codec
        if clip.num_frames % HOP:
            raise SoundreelError(
                f"clip.num_frames must be a multiple of {HOP}, got {clip.num_frames}"
            )
        if clip.num_channels != 1:
            raise SoundreelError(f"clip.num_channels must be 1, got {clip.num_channels}")
        if (self.video.encoder.height, self.video.encoder.width) != (clip.height, clip.width):
            raise SoundreelError(
                f"video.encoder is for {self.video.encoder.height}x{self.video.encoder.width}"
                f" pixels, the clip has {clip.height}x{clip.width}"
            )
        if codec.sample_rate != clip.sample_rate:
            raise SoundreelError(
                f"audio.codec.sample_rate {codec.sample_rate} must equal clip.sample_rate"
                f" {clip.sample_rate}"
            )
        if codec.samples_per_latent * clip.frame_rate != clip.sample_rate:
            raise SoundreelError(
                f"audio.codec.samples_per_latent must be the samples of a frame,"
                f" {float(clip.sample_rate / clip.frame_rate):g}, got {codec.samples_per_latent}"
            )

    @property
    def num_groups(self) -> int:
        """Return groups of latents whose windows cover a clip."""
        return self.clip.num_frames // HOP + 1

    def transformer_config(self, num_classes: int) -> JointTransformerConfig:
        """Return what the transformer is built from, for data of so many classes."""
        encoder = self.video.encoder
        return JointTransformerConfig(
            video_tokens=encoder.num_tokens,
            audio_tokens=HOP,
            video_dim=encoder.token_dim,
            audio_dim=self.audio.codec.latent_dim,
            group_s=float(HOP / self.clip.frame_rate),
            num_classes=num_classes,
            sizes=self.transformer.sizes,
        )
