"""Pictures and sound encoded as they are read: the latents of the whole, in whatever pieces."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from soundreel.clip import Clip
from soundreel.systems.joint_flow.film import latents_of
from soundreel.systems.joint_flow.given import GivenPictures, GivenSound, encoder_reach
from soundreel.types import ClipSpec

SPEC = ClipSpec(num_frames=8, height=32, width=32, frame_rate=Fraction(16), sample_rate=16_000)


def latents(given, counts):
    groups = given.begin()
    return torch.cat([groups(count) for count in counts], dim=1)


@torch.no_grad()
def test_pictures_in_pieces_are_the_whole(small_encoder, small_codec):
    frames = np.random.default_rng(0).integers(0, 256, (22, 32, 32, 3), np.uint8)
    whole = latents_of(Clip(frames, None, SPEC.frame_rate), SPEC, small_encoder, small_codec).video
    for counts in ((7,), (3, 1, 3), (1, 2, 2, 2)):
        made = latents(GivenPictures(iter(frames), small_encoder), counts)
        assert torch.allclose(made, whole, atol=1e-4)
    still = latents(GivenPictures(iter(frames), small_encoder), (7, 2))
    assert torch.allclose(still[:, 7], still[:, 8], atol=1e-5), "the last picture stands"
    with pytest.raises(ValueError, match="no picture"):
        latents(GivenPictures(iter([]), small_encoder), (3,))


@torch.no_grad()
def test_sound_in_pieces_is_the_whole(small_encoder, small_codec):
    sound = 0.1 * np.random.default_rng(0).normal(size=(1, 80_000)).astype(np.float32)
    clip = Clip(None, sound, SPEC.frame_rate, SPEC.sample_rate)
    whole = latents_of(clip, SPEC, small_encoder, small_codec).audio
    reach = encoder_reach(small_codec.config)
    edge = -(-reach // 4) + 1  # before and after its waveform a network sees zeros of its own
    for counts in ((21,), (5, 5, 1, 10), (1, 3, 17)):
        blocks = np.array_split(sound, 9, axis=1)
        made = latents(GivenSound(iter(blocks), small_codec, SPEC), counts)
        assert torch.allclose(made[:, edge:-edge], whole[:, edge : 21 - edge], atol=1e-4)


@torch.no_grad()
def test_a_latent_depends_on_no_sound_beyond_its_reach(small_codec):
    reach, size = encoder_reach(small_codec.config), small_codec.config.samples_per_latent
    sound = torch.zeros(1, (2 * reach + 3) * size)
    changed = sound.clone()
    middle = reach + 1
    changed[:, : (middle - reach) * size] = 1
    changed[:, (middle + reach + 1) * size :] = 1
    first, second = small_codec.encode(sound), small_codec.encode(changed)
    assert torch.allclose(first[:, middle], second[:, middle], atol=1e-5)
    assert not torch.allclose(first[:, 0], second[:, 0], atol=1e-3)
