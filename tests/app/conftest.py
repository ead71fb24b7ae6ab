"""A workshop with small untrained networks, and something to upload."""

import gc
import itertools
import os
from fractions import Fraction

import numpy as np
import pytest

from soundreel.app.uploads import Limits
from soundreel.app.workshop import Workshop
from soundreel.clip import Clip
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNet, CoupledUNetConfig
from soundreel.systems.mm_diffusion.pipeline import MMDiffusionPipeline
from soundreel.systems.super_resolution.network import (
    SuperResolutionConfig,
    SuperResolutionUNet,
)
from soundreel.systems.super_resolution.pipeline import SuperResolutionPipeline
from soundreel.types import ClipSpec

UPSCALER = SuperResolutionConfig(
    low_res_size=8, size=16, width=16, channel_mult=(1, 1), num_res_blocks=1,
    attention_factors=(), num_groups=8, num_heads=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def pipeline():
    config = CoupledUNetConfig(
        num_frames=4,
        width=8,
        channel_mult=(1, 2),
        num_res_blocks=1,
        video_attention_factors=(2,),
        cross_attention_factors=(2,),
        cross_attention_windows=(2,),
        num_heads=1,
        cross_head_width=0,
        num_groups=8,
    )
    return MMDiffusionPipeline(CoupledUNet(config), ClipSpec(num_frames=4, height=16, width=16))


@pytest.fixture
def workshop(pipeline, tmp_path):
    upscaler = SuperResolutionPipeline(SuperResolutionUNet(UPSCALER).eval())
    limits = Limits(upload_mb=1.0, duration_s=4.0)
    return Workshop(pipeline, tmp_path, upscaler=upscaler, limits=limits)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Two seconds of a square that jumps aside with a click, at odd times."""
    frames = np.full((50, 32, 32, 3), 30, np.uint8)
    wave = np.zeros((1, 32_000), np.float32)
    starts = [0, 4, 13, 19, 30, 35, 44, 50]
    for number, (start, end) in enumerate(itertools.pairwise(starts)):
        left = 2 if number % 2 else 16
        frames[start:end, 8:24, left : left + 14] = 220
        if number:
            click = 0.5 * np.sin(np.arange(800) / 3) * np.exp(-np.arange(800) / 150)
            wave[0, start * 640 : start * 640 + 800] = click
    path = tmp_path_factory.mktemp("uploads") / "video.mp4"
    Clip(frames, wave, Fraction(25), 16_000).save(path)
    return str(path)


@pytest.fixture
def address(workshop, tmp_path, monkeypatch):
    """The page, served on loopback, with one megabyte as the largest upload."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    pytest.importorskip("gradio", reason="needs pip install 'soundreel[app]'")
    from soundreel.app.examples import Examples
    from soundreel.app.live import LiveFilms
    from soundreel.app.page import build_page
    from soundreel.app.server import serve

    live = LiveFilms()
    page = build_page(workshop, title="a test", examples=Examples(), live=live)
    serve(
        page,
        host="127.0.0.1",
        port=7960 + os.getpid() % 30,
        limits=workshop.limits,
        folder=tmp_path,
        live=live,
        prevent_thread_lock=True,
        quiet=True,
    )
    yield page.local_url
    page.close()
    gc.collect()  # what Gradio leaves open is to be found here, where its warnings are ignored
