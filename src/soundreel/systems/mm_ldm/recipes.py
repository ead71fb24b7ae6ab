"""Public data sets prepared as MM-LDM trains on them."""

from dataclasses import replace

from soundreel.data.options import AIST, LANDSCAPE, PrepareOptions, Recipe

RECIPES = {
    "landscape-mm-ldm": Recipe(
        summary="Landscape for MM-LDM: 256x256 with black bars, 44.1 kHz.",
        options=replace(LANDSCAPE, height=256, width=256, sample_rate=44_100, crop="letterbox"),
    ),
    "aist-mm-ldm": Recipe(
        summary="AIST++ for MM-LDM: 256x256, 44.1 kHz.",
        options=replace(AIST, height=256, width=256, sample_rate=44_100),
    ),
    "audioset-mm-ldm": Recipe(
        summary="AudioSet for MM-LDM: a tenth of it, 256x256 with black bars, 4 frames per second.",
        options=PrepareOptions(
            subset="10%",
            silence_db=-60.0,
            height=256,
            width=256,
            sample_rate=44_100,
            crop="letterbox",
            frame_rate="4",
            min_duration_s=4.0,
        ),
    ),
}
"""Landscape keeps its whole picture; AIST++ is cut to the centre square as for MM-Diffusion. A
tenth of AudioSet is used, whatever its quality, in windows of 4 s (MM-LDM, appendix 1.5)."""
