"""Rendered scenes on the device, as `train_default_model` trains on them."""

import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from default_model_run import Run
from torch import Tensor

from soundreel.data.scenes.arrays import SceneArrays, render_arrays
from soundreel.data.scenes.render import KINDS, RenderOptions
from soundreel.data.scenes.sizes import options_for
from soundreel.systems.mm_ldm.first_stage import clip_images
from soundreel.types import AV

RENDER_CHUNK = 4 * len(KINDS)  # clips a process renders before it hands them over


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """Rendered clips on the device.

    Attributes:
        video: uint8 `clip frame 3 height width`.
        mel: sounds as mel images, float32 `clip 3 size size` in [-1, 1].
        label: `clip`.
    """

    video: Tensor
    mel: Tensor
    label: Tensor

    def __len__(self) -> int:
        return len(self.label)


def render(run: Run, seed: int, limit: int, held_out: int, workers: int) -> tuple[Scenes, Scenes]:
    """Scenes to train on, and scenes of another seed to judge by."""
    spec, deadline = run.config.clip, run.clock.deadline("rendering")
    options = options_for(spec)
    started = time.monotonic()
    # So few that starting processes would take longer.
    apart = to_scenes(run, rendered_parts(options, seed + 1, held_out, math.inf, 0))
    clips = to_scenes(run, rendered_parts(options, seed, limit, deadline, workers))
    seconds = time.monotonic() - started
    run.note(
        "rendering",
        {
            "clips": len(clips),
            "held_out": len(apart),
            "seconds": seconds,
            "clips_per_s": (len(clips) + len(apart)) / seconds,
        },
    )
    return clips, apart


def rendered_parts(
    options: RenderOptions, seed: int, limit: int, deadline: float, workers: int
) -> Iterator[SceneArrays]:
    """Clips 0, 1, 2, ... of a series, in parts, until `limit` or the deadline; at least a part."""
    starts = range(0, limit, RENDER_CHUNK)
    parts = (range(start, min(start + RENDER_CHUNK, limit)) for start in starts)
    if not workers:
        for index, part in enumerate(parts):
            if index and time.monotonic() > deadline:
                return
            yield render_arrays(options, seed, part)
        return
    # Forked processes would share locks with the threads of this one.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = deque(
            pool.submit(render_arrays, options, seed, part)
            for _, part in zip(range(2 * workers), parts, strict=False)
        )
        while waiting:
            yield waiting.popleft().result()
            part = next(parts, None)
            if part is not None and time.monotonic() < deadline:
                waiting.append(pool.submit(render_arrays, options, seed, part))


@torch.no_grad()
def to_scenes(run: Run, parts: Iterator[SceneArrays]) -> Scenes:
    """Move rendered clips to the device as they come, sounds as mel images."""
    video, mel, label = [], [], []
    for part in parts:
        video.append(torch.from_numpy(part.video).movedim(-1, 2).to(run.device))
        sound = AV(None, torch.from_numpy(part.audio).to(run.device))
        mel.append(clip_images(sound, run.config.mel_image)["audio"])
        label.append(torch.from_numpy(part.label).to(run.device))
    return Scenes(video=torch.cat(video), mel=torch.cat(mel), label=torch.cat(label))


def pixels(frames: Tensor) -> Tensor:
    """Bytes to [-1, 1], as `soundreel.media.pixels.frames_to_video` does."""
    return frames.float() / 127.5 - 1
