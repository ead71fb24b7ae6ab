"""Sheets put every frame over its own sound."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from soundreel.clip import Clip
from soundreel.media.contact_sheet import (
    GUTTER,
    MARGIN,
    MEL_HEIGHT,
    contact_sheet,
    write_contact_sheet,
)
from soundreel.media.spectrogram import MAGMA, magma, mel_picture

SPAN = 1400 - 2 * MARGIN - GUTTER


def flash_clip(at, num_frames=16):
    """Dark and silent but for one white frame and 20 ms of noise at its beginning."""
    frames = np.zeros((num_frames, 32, 32, 3), np.uint8)
    frames[at] = 255
    waveform = np.zeros((1, num_frames * 1600), np.float32)
    waveform[0, at * 1600 : at * 1600 + 320] = np.random.default_rng(0).uniform(-1, 1, 320)
    return Clip(frames, waveform, Fraction(10), 16_000)


@pytest.mark.parametrize("at", [3, 8, 13])
def test_a_flash_stands_over_its_sound(at):
    sheet = np.asarray(contact_sheet(flash_clip(at), width=1400)).astype(int)
    left = MARGIN + GUTTER
    strip = sheet[MARGIN + 20, left : left + SPAN].sum(axis=1)
    bright = np.flatnonzero(np.minimum(strip[:-4], strip[4:]) > 700)  # not the lines between
    begin = at / 16 * SPAN
    assert abs(bright.min() - begin) <= 1
    mel_rows = slice(-MEL_HEIGHT - 40 - 40, -60)
    mel = sheet[mel_rows, left : left + SPAN].sum(axis=2).mean(axis=0)
    loud = np.flatnonzero(mel > 0.5 * mel.max())
    # 20 ms of sound, widened by the 32 ms window to both sides of where it begins.
    assert begin - 0.02 / 1.6 * SPAN < loud.min() < begin < loud.max() < begin + 0.04 / 1.6 * SPAN


def test_a_title_that_is_too_long_ends_before_the_facts():
    short, fitting, long = (
        np.asarray(contact_sheet(flash_clip(2), titles=[words], width=900))[:MARGIN + 20]
        for words in ("rain", "rain " * 8, "rain " * 80)
    )  # fmt: skip
    facts = slice(650, None)
    np.testing.assert_array_equal(long[:, facts], short[:, facts])
    assert (long != fitting).any()


def test_any_kind_of_clip_gets_a_sheet(tmp_path):
    clip = flash_clip(2)
    kinds = {
        "both": clip,
        "silent": Clip(clip.frames, None, Fraction(10)),
        "sound": Clip(None, clip.waveform),
        "one frame": Clip(clip.frames[:1], clip.waveform[:, :1600], Fraction(10), 16_000),
        "tiny": Clip(clip.frames[:, :1, :1], clip.waveform, Fraction(10), 16_000),
        "stereo": Clip(None, np.repeat(clip.waveform, 2, axis=0)),
        "a moment": Clip(None, clip.waveform[:, :10]),
        "many frames": Clip(np.repeat(clip.frames, 40, axis=0), None, Fraction(25)),
    }
    heights = {name: contact_sheet(kind, width=600).height for name, kind in kinds.items()}
    assert heights["both"] > heights["sound"] > heights["silent"]
    path = tmp_path / "grid.png"
    write_contact_sheet(
        path, list(kinds.values()), titles=list(kinds), caption="all kinds", num_columns=2
    )
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width == 2800
    assert [file.name for file in tmp_path.iterdir()] == ["grid.png"]


def test_a_tone_shows_at_the_row_of_its_frequency():
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    mel = mel_picture(tone.astype(np.float32), 16_000, height=150, width=300)
    rows = mel.pixels[:, 150].astype(int).sum(axis=1)
    assert abs(int(rows.argmax()) - mel.row_of(1000)) <= 3
    assert mel.row_of(9000) is None


def test_silence_is_dark():
    mel = mel_picture(np.zeros(16_000, np.float32), 16_000, height=50, width=100)
    assert np.array_equal(np.unique(mel.pixels.reshape(-1, 3), axis=0), [MAGMA[0]])


def test_the_colours_are_those_of_magma():
    matplotlib = pytest.importorskip("matplotlib")
    brightness = np.linspace(0, 1, 256, dtype=np.float32)[None]
    expected = 255 * matplotlib.colormaps["magma"](brightness)[..., :3]
    assert np.abs(magma(brightness) - expected).max() < 12


def test_titles_must_fit_the_clips():
    with pytest.raises(ValueError, match="2 clips, 1 titles"):
        contact_sheet([flash_clip(0), flash_clip(1)], titles=["one"])
    with pytest.raises(ValueError, match="0 clips"):
        contact_sheet([])
