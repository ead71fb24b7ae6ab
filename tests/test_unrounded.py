"""Clips before rounding: what is kept, what is rounded, and that nothing is changed in place."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.film import film
from soundreel.media.pixels import frames_to_video
from soundreel.types import AV, ClipSpec
from soundreel.unrounded import UnroundedClip, rounded

RATES = (Fraction(10), 8_000)


def values(frames=8, seed=0):
    """Values of a model, some beyond [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, frames, 3, 4, 4, generator=generator)


def test_values_come_back_and_round_to_the_bytes_of_a_clip():
    av = AV(values(), torch.zeros(1, 1, 6400))
    (exact,), (clip,) = UnroundedClip.from_av(av, *RATES), Clip.from_av(av, *RATES)
    assert isinstance(exact.cut(0, 0.5), UnroundedClip)
    before = exact.frames.copy()
    assert torch.allclose(frames_to_video(exact.frames), values()[0], atol=1e-6)
    assert (exact.frames == before).all()
    assert type(exact.rounded()) is Clip
    assert (exact.rounded().frames == clip.frames).all()
    assert (exact.rounded().waveform == clip.waveform).all()
    assert list(rounded([clip])) == [clip]


def test_a_clip_of_people_is_of_bytes():
    with pytest.raises((SoundreelError, TypeCheckError)):
        Clip(UnroundedClip.from_av(AV(values(), None), *RATES)[0].frames, None)


class Maker:
    clip = ClipSpec(num_frames=8, height=4, width=4, frame_rate=Fraction(10), sample_rate=8_000)
    overlap = 2

    def begin(self, past):
        return 0

    def window(self, state, given, seed):
        (window,) = UnroundedClip.from_av(AV(values(seed=state), None), *RATES)
        return window, state + 1


@pytest.mark.parametrize("join", ["fade", "butt"])
def test_films_are_joined_unrounded(join):
    """Rounding each window first would move faded frames by up to two levels."""
    (first,) = UnroundedClip.from_av(AV(values(), None), *RATES)
    pieces = list(film(Maker(), num_frames=12, join=join))
    assert all(isinstance(piece, UnroundedClip) for piece in pieces)
    assert (pieces[0].frames == first.frames[:6]).all()
    faded = pieces[1].frames
    assert faded.shape == (6, 4, 4, 3)
    assert (faded != np.rint(faded)).mean() > 0.9
    assert faded.max() > 255 > 0 > faded.min()


def test_a_clip_of_bytes_goes_on_unrounded():
    given = Clip(np.full((8, 4, 4, 3), 100, np.uint8), None, *RATES)
    pieces = list(film(Maker(), num_frames=20, after=given, modality="video"))
    assert pieces[0].frames.dtype == np.uint8
    assert (pieces[0].frames == given.frames).all()
    assert all(piece.frames.dtype == np.float32 for piece in pieces[1:])
