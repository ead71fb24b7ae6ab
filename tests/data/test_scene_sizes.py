from fractions import Fraction

import pytest

from soundreel.data.scenes.render import render_clip
from soundreel.data.scenes.sizes import options_for
from soundreel.types import ClipSpec

SPEC = ClipSpec(num_frames=6, height=24, width=40, frame_rate=Fraction(25), sample_rate=8_000)


def test_renders_have_the_sizes_and_rates_of_the_clips():
    clip = render_clip(options_for(SPEC, kinds=("rain",)), 1, 0)
    assert clip.frames.shape == (6, 24, 40, 3)
    assert clip.waveform.shape == (1, 6 * 8_000 // 25)
    assert clip.kind == "rain"


def test_others_take_the_place_of_the_clips_sizes():
    options = options_for(SPEC, num_frames=9)
    assert (options.num_frames, options.width) == (9, 40)
    with pytest.raises(ValueError, match="no scenes called snow"):
        options_for(SPEC, kinds=("snow",))
