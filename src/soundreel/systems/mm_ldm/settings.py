"""Settings of an MM-LDM pipeline beside its networks, and whether its parts fit together."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from soundreel.audio.mel import MelConfig
from soundreel.audio.mel_image import MelImageConfig
from soundreel.checkpoints.text_encoder import TextConfig
from soundreel.clip import Clip
from soundreel.device import PRECISIONS
from soundreel.diffusion.config import DiffusionConfig
from soundreel.diffusion.schedules import Schedule
from soundreel.media.letterbox import letterbox
from soundreel.protocols import Progress, option
from soundreel.request import Given
from soundreel.systems.mm_ldm.autoencoder import MultiModalAutoencoder
from soundreel.systems.mm_ldm.decoding import DecodingConfig
from soundreel.systems.mm_ldm.first_stage import check_fit
from soundreel.systems.mm_ldm.generator import Generator
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.sampling import SamplingConfig
from soundreel.systems.mm_ldm.solver import LATENT_SAMPLERS, LatentSampler, evaluations
from soundreel.systems.mm_ldm.vocoder import Vocoder, VocoderConfig
from soundreel.types import AV, ClipSpec

Steps = TypeVar("Steps", SamplingConfig, DecodingConfig)
Scales = float | tuple[float, float]
"""One guidance scale, or one for video and one for audio; 1 turns guidance off."""


def _published_diffusion() -> DiffusionConfig:
    return DiffusionConfig(schedule="scaled-linear")


@dataclass(frozen=True, kw_only=True)
class MMLDMSettings:
    """Settings beside the networks' own configurations; the defaults are the published ones.

    Attributes:
        diffusion: the noise process; its `prediction_type` is the generator's.
        sampling, decoding: defaults of the generator and of the signal decoder.
        framing: how clips of another shape are fitted: cut at the sides, or with black around.
        class_names: in the order of the labels.
        text: the text encoder whose states the generator was trained with.
        image_chunk: images that go through the first stage at once; bounds memory.
        precision: "auto" is the faster of "float32" and "bfloat16" (automatic mixed precision).
    """

    mel_image: MelImageConfig = field(default_factory=MelImageConfig)
    diffusion: DiffusionConfig = field(default_factory=_published_diffusion)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    framing: Literal["center", "letterbox"] = "center"
    class_names: tuple[str, ...] = ()
    text: TextConfig = field(default_factory=TextConfig)
    image_chunk: int = 16
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


@dataclass(frozen=True, kw_only=True)
class MMLDMOptions:
    """Options of `MMLDMPipeline.generate` besides the request itself.

    A guidance scale is one number for both modalities, or one for video and one for audio.
    """

    num_steps: int = option(
        50, "Sampling steps; more is slower and closer to the model.", low=1, high=100
    )
    sampler: LatentSampler = option(
        "ddim", "Sampler; dpm-solver++ and unipc need fewer steps.", choices=LATENT_SAMPLERS
    )
    guidance_scale: Scales = option(
        9.0, "Classifier-free guidance scale; 1 turns guidance off.", low=0, high=10
    )
    decoder_num_steps: int = option(50, "Steps of the signal decoder.", low=1, high=100)
    decoder_sampler: LatentSampler = option(
        "ddim", "Sampler of the signal decoder.", choices=LATENT_SAMPLERS
    )
    decoder_guidance_scale: Scales = option(
        2.5, "Guidance scale of the signal decoder; 1 turns guidance off.", low=0, high=10
    )
    precision: str = option(
        "auto",
        "Precision of the networks; auto measures which one is faster.",
        choices=PRECISIONS,
        on_page=False,
    )

    text_encoder: str | None = option(
        None, "Folder of the text encoder; where it was in training.", on_page=False
    )

    @classmethod
    def of(cls, settings: MMLDMSettings) -> "MMLDMOptions":
        """Return a model's own defaults."""
        return cls(
            num_steps=settings.sampling.num_steps,
            sampler=settings.sampling.sampler,
            guidance_scale=_scales(settings.sampling),
            decoder_num_steps=settings.decoding.num_steps,
            decoder_sampler=settings.decoding.sampler,
            decoder_guidance_scale=_scales(settings.decoding),
            precision=settings.precision,
        )

    def sampling(self, own: SamplingConfig) -> SamplingConfig:
        """Return a model's own sampling with what is asked for."""
        return _replaced(own, self.num_steps, self.sampler, self.guidance_scale)

    def decoding(self, own: DecodingConfig) -> DecodingConfig:
        """Return a model's own decoding with what is asked for."""
        return _replaced(
            own, self.decoder_num_steps, self.decoder_sampler, self.decoder_guidance_scale
        )


def _scales(config: SamplingConfig | DecodingConfig) -> Scales:
    video, audio = config.video_guidance_scale, config.audio_guidance_scale
    return video if video == audio else (video, audio)


def _replaced(
    config: Steps, num_steps: int, sampler: LatentSampler, guidance_scale: Scales
) -> Steps:
    both = isinstance(guidance_scale, tuple)
    video, audio = guidance_scale if both else (float(guidance_scale),) * 2
    return replace(
        config,
        num_steps=num_steps,
        sampler=sampler,
        video_guidance_scale=video,
        audio_guidance_scale=audio,
    )


@dataclass(frozen=True, kw_only=True)
class Request:
    """Request of one call of `generate`.

    Attributes:
        known: standardised latents of a given modality, with a batch of one.
        signal: its pixels or waveform, as they go into the result.
    """

    known: AV
    signal: AV
    label: int | None
    text: Float[Tensor, "token context_dim"] | None
    sampling: SamplingConfig
    decoding: DecodingConfig
    precision: str

    @property
    def wanted(self) -> list[str]:
        """Return modalities that are to be decoded."""
        return [name for name in ("video", "audio") if name not in self.known.present]

    def num_steps(self, chain: Schedule, num_frames: int) -> int:
        """Count steps of generator and signal decoder for one batch of clips."""
        drawn, decoded = (
            evaluations(chain, config.sampler, config.num_steps)
            for config in (self.sampling, self.decoding)
        )
        frames = num_frames if "video" in self.wanted else 1
        return drawn + -(-frames // self.decoding.frame_chunk) * decoded


def step_counter(total: int, progress: Progress | None) -> Callable[[], None]:
    """Return something to call after each step, whoever takes it."""
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return advance


def fit_clip(clip: Clip, spec: ClipSpec, framing: Literal["center", "letterbox"]) -> Clip:
    """Return the clip at the model's rates and size, mono where the model is.

    Raises:
        SoundreelError: the clip is shorter than one frame.
    """
    if framing == "letterbox" and clip.frames is not None:
        frames = torch.from_numpy(clip.frames).movedim(-1, 1)
        boxed = letterbox(frames, spec.height).movedim(1, -1).contiguous()
        clip = replace(clip, frames=boxed.numpy())
    return clip.resample(
        frame_rate=spec.frame_rate,
        sample_rate=spec.sample_rate,
        size=(spec.height, spec.width),
        num_channels=None if clip.waveform is None else spec.num_channels,
    )


def known_signal(
    given: Given | None, spec: ClipSpec, framing: Literal["center", "letterbox"]
) -> AV:
    """Return pixels or waveform of the given modality, with a batch of one.

    Raises:
        SoundreelError: the clip is shorter than a window.
    """
    if given is None:
        return AV(None, None)
    fitted = fit_clip(given.clip, spec, framing).to_av(spec)
    return AV(None, None).replace(given.modality, fitted[given.modality])


def class_names(
    settings: MMLDMSettings, generator: Generator | None, autoencoder: MultiModalAutoencoder
) -> tuple[str, ...]:
    """Return the names of the classes that the networks know, in the order of their labels."""
    own = 0 if generator is None else generator.config.num_classes
    count = max(own, autoencoder.config.decoder.num_classes)
    unnamed = range(len(settings.class_names), count)
    return (*settings.class_names[:count], *(f"class {label}" for label in unnamed))


def check_parts(
    clip: ClipSpec,
    first_stage: KLVAE,
    autoencoder: MultiModalAutoencoder,
    generator: Generator | None,
    vocoder: Vocoder | None,
    settings: MMLDMSettings,
) -> None:
    """Raise `SoundreelError` with both values where two parts do not fit."""
    config, mel, more = autoencoder.config, settings.mel_image, []
    if generator is not None:
        latents = generator.config.latents
        more.append(("generator.latents", latents, "the autoencoder's", config.latents))
    wrong = [] if vocoder is None else vocoder_mismatches(vocoder.config, mel.mel)
    check_fit(clip, mel, first_stage.config, config, more, wrong)


def vocoder_mismatches(vocoder: VocoderConfig, mel: MelConfig) -> list[str]:
    """Return where a vocoder was made for other spectrograms than these, in words.

    The clip's own sample rate may differ from the vocoder's: a column is a hop of samples for both,
    so what the vocoder makes is right when it is played at the clip's rate.
    """
    pairs = (
        ("num_mels", vocoder.num_mels, mel.num_mels),
        ("hop_length", vocoder.hop_length, mel.hop_length),
        ("sample_rate", vocoder.sample_rate, mel.filterbank_sample_rate),
        ("fft_size", vocoder.fft_size, mel.fft_size),
        ("min_hz", vocoder.min_hz, mel.min_hz),
        ("max_hz", vocoder.max_hz, mel.max_hz),
    )
    return [f"vocoder.{name} is {a}, the mel image's is {b}" for name, a, b in pairs if a != b]
