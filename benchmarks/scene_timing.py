"""What each part of an MM-LDM of rendered scenes keeps of *when* something happens.

    python benchmarks/scene_timing.py MODEL --latents RUN/latents --out OUT [--count 96]

MODEL was trained with a z_v of all cosine coefficients over time; RUN/latents are those of its
training clips. Held-out renders of the kinds with sudden events go through one part of the system,
or are reduced to a few of z_v's axes; what comes out is paired with their own sound (or picture).
Prints the event F1 of these pairs, of those shuffled within a kind, where the F1 lies between
shuffled pairs and the renders' own, and the PSNR of the pictures. Without the signal decoder,
latents become frames by its linear estimate and the first stage's decoder. OUT keeps the renders.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scene_clips import SceneClip, held_out
from scene_statistics import EVENT_KINDS, compare_sync, event_rows
from torch import Tensor

from soundreel.clip import Clip
from soundreel.data.latent_axes import LatentAxesConfig, PerceptualAxes
from soundreel.data.latents import LatentDataset
from soundreel.data.scenes.render import KINDS
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.metrics.image_quality import psnr_db
from soundreel.progress import progress_bar
from soundreel.systems import load
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.types import AV

BATCH_SIZE = 8


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--seed", type=int, default=1002, help="of the renders")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pipeline = load(options.model)
    with progress_bar("renders") as advance:
        count = len(KINDS) * (options.count // len(EVENT_KINDS))
        clips = held_out(
            options.out / f"renders-{options.seed}", pipeline.clip, count, options.seed, advance
        )
    clips = [clip for clip in clips if clip.label in EVENT_KINDS]
    whole = AV.cat([clip.clip.to_av(pipeline.clip) for clip in clips])
    print("| what the pictures passed | F1 | shuffled | share | PSNR |")
    print("| --- | --- | --- | --- | --- |")
    real = by_kind(clips, whole)
    for title, made in passed(pipeline, options.latents, clips, whole):
        found = compare_sync(by_kind(clips, made), real, np.random.default_rng(0))["f1"]
        share = found["share"]
        psnr = psnr_db(made["video"], whole["video"]).mean()
        print(
            f"| {title} | {found['generated'].value:.3f} | {found['shuffled'].value:.3f} | "
            f"{share.value:.2f} ({share.low:.2f} to {share.high:.2f}) | {psnr:.1f} dB |",
            flush=True,
        )


def passed(
    pipeline: MMLDMPipeline, latents: Path, clips: list[SceneClip], whole: AV
) -> Iterator[tuple[str, AV]]:
    """Titles, and the clips with what became of their pictures; in the last row of their sound."""
    video, frames = whole["video"], whole["video"].flatten(0, 1)
    chunks = [pipeline.first_stage.encode(part) for part in frames.split(64)]
    coded = torch.cat(chunks).unflatten(0, video.shape[:2])
    yield "nothing: the renders", whole
    yield "first stage", AV(in_parts(pipeline.first_stage.decode_frames, coded), whole.audio)
    encoder, stats = pipeline.autoencoder.video_encoder, pipeline.stats
    z = stats.restore(encoded(pipeline, whole))
    z = z.replace("video", in_parts(lambda x: encoder(x).mean, coded))
    index = torch.arange(pipeline.clip.num_frames) / pipeline.clip.num_frames

    def put_together(latent: Tensor) -> Tensor:
        estimate = encoder.estimate(latent, index.expand(len(latent), -1))
        assert estimate is not None, "this model's decoder has no linear shortcut"
        return pipeline.first_stage.decode_frames(estimate.unflatten(0, (len(latent), -1)))

    def shown(latent: Tensor) -> AV:
        return AV(in_parts(put_together, latent).clamp(-1, 1), whole.audio)

    yield "z_v, put together linearly", shown(z["video"])
    channels = encoder.config.image_channels
    for kept in (8, 12):
        fewer = z["video"].clone()
        fewer[:, kept * channels :] = 0
        yield f"of it the first {kept} coefficients over time", shown(fewer)
    moments = LatentDataset(latents, standardize=False).moments()
    assert isinstance(stats.config, LatentAxesConfig)
    clip_axes = replace(stats.config, num_frames=1, movement_axes=0)
    for count in (256, 512):
        axes = PerceptualAxes.measured(replace(clip_axes, num_axes=count), moments)
        yield f"of it {count} axes of whole clips", shown(axes.project(z)["video"])
    for count in (16, 64, 256):
        axes = PerceptualAxes.measured(replace(stats.config, movement_axes=count), moments)
        title = f"of it {stats.config.num_axes} axes of the mean, {count} of each frame's changes"
        yield title, shown(axes.project(z)["video"])
    decoded = []
    for first in range(0, len(clips), BATCH_SIZE):
        part = z.rows(slice(first, first + BATCH_SIZE))
        noise = PerSampleNoise(range(first, first + part.batch_size))
        decoded.append(pipeline.decode_av(stats.standardize(part), noise))
    both = AV.cat(decoded)
    kept = stats.config.movement_axes
    yield f"those axes with {kept}, and the signal decoder", AV(both.video, whole.audio)
    yield "the same, and their sound likewise", both


def in_parts(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    return torch.cat([function(part) for part in rows.split(BATCH_SIZE)])


def encoded(pipeline: MMLDMPipeline, av: AV) -> AV:
    """Standardised latents of many clips."""
    starts = range(0, av.batch_size, BATCH_SIZE)
    return AV.cat([pipeline.encode_av(av.rows(slice(n, n + BATCH_SIZE))) for n in starts])


def by_kind(clips: list[SceneClip], av: AV) -> dict[str, np.ndarray]:
    rate, sample_rate = clips[0].clip.frame_rate, clips[0].clip.sample_rate
    made: list[Clip] = Clip.from_av(av, rate, sample_rate)
    return {
        kind: event_rows([one for one, clip in zip(made, clips, strict=True) if clip.label == kind])
        for kind in EVENT_KINDS
    }


if __name__ == "__main__":
    main()
