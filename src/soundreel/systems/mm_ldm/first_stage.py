"""From clips to the images MM-LDM's first stage encodes, and what fits them."""

from collections.abc import Sequence

import torch

from soundreel.audio.mel_image import MelImageConfig, encode_mel_image
from soundreel.errors import SoundreelError
from soundreel.systems.mm_ldm.autoencoder import AutoencoderConfig
from soundreel.systems.mm_ldm.kl_vae import KLVAEConfig
from soundreel.types import AV, ClipSpec


def clip_images(clips: AV, mel: MelImageConfig) -> AV:
    """Return frames as they are, and the sound as a mel image; channels are averaged.

    Args:
        clips: video `batch frame channel height width`, audio `batch channel sample`; either may
            be absent.

    Returns:
        video unchanged, audio `batch channel height width`, both in [-1, 1].
    """
    if clips.audio is None:
        return clips
    # A spectrogram in bfloat16 would lose its quiet half.
    with torch.autocast(clips.device.type, enabled=False):
        image = encode_mel_image(clips.audio.float().mean(dim=1), mel)
    return AV(clips.video, image.to(clips.device))


def check_fit(
    clip: ClipSpec,
    mel: MelImageConfig,
    first_stage: KLVAEConfig,
    autoencoder: AutoencoderConfig,
    more: Sequence[tuple[str, object, str, object]] = (),
    wrong: Sequence[str] = (),
) -> None:
    """Raise `SoundreelError` with both values where two parts do not fit.

    Args:
        more: further pairs of what must be equal, each with its name.
        wrong: what else is wrong, in words.
    """
    video, audio = autoencoder.video_encoder, autoencoder.audio_encoder
    factor, latent = first_stage.factor, first_stage.latent_channels
    shape = tuple(factor * side for side in audio.image_shape)
    pairs: list[tuple[str, object, str, object]] = [
        ("clip.num_channels", clip.num_channels, "a mel image's", 1),
        ("clip.num_frames", clip.num_frames, "the autoencoder's", autoencoder.num_frames),
        ("clip.height", clip.height, "the video encoder's", factor * video.image_size),
        ("clip.width", clip.width, "the clip's height", clip.height),
        ("mel_image's height and width", mel.image_shape, "the audio encoder's", shape),
        ("mel_image.num_samples", mel.num_samples, "the clip's", clip.num_samples),
        ("mel_image.sample_rate", mel.sample_rate, "the clip's", clip.sample_rate),
        ("first_stage.latent_channels", latent, "the encoders'", video.image_channels),
        *more,
    ]
    if mel.image_size:
        pairs.append(("mel_image.image_size", mel.image_size, "clip.height", clip.height))
    found = [f"{a} is {b}, {c} is {d}" for a, b, c, d in pairs if b != d] + list(wrong)
    if found:
        raise SoundreelError(f"the parts do not fit: {'; '.join(found)}; configure them alike")
