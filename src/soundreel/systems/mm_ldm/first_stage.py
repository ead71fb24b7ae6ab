"""From clips to the images MM-LDM's first stage encodes."""

import torch

from soundreel.audio.mel_image import MelImageConfig, encode_mel_image
from soundreel.systems.mm_ldm.perceptual_encoders import AudioEncoderConfig
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


def mel_pairs(
    mel: MelImageConfig, clip: ClipSpec, encoder: AudioEncoderConfig, factor: int
) -> list[tuple[str, object, str, object]]:
    """Return what must agree with a mel image, in words and values, two and two.

    Args:
        factor: pixels of the image per position of its first-stage latent.
    """
    shape = tuple(factor * side for side in encoder.image_shape)
    pairs: list[tuple[str, object, str, object]] = [
        ("mel_image's height and width", mel.image_shape, "the audio encoder's", shape),
        ("mel_image.num_samples", mel.num_samples, "the clip's", clip.num_samples),
        ("mel_image.sample_rate", mel.sample_rate, "the clip's", clip.sample_rate),
    ]
    if mel.image_size:
        pairs.append(("mel_image.image_size", mel.image_size, "clip.height", clip.height))
    return pairs
