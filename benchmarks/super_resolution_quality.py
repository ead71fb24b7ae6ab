"""Quality of a super-resolution model against bicubic enlargement, on frames it was not trained on.

    python benchmarks/super_resolution_quality.py MODEL DATA --perceptual WEIGHTS --out DIR

DATA is a prepared data set at the model's large size; its split `test` is measured. Every clip
gives a few frames, reduced without further damage and enlarged with one noise. Prints PSNR and the
perceptual distance per number of steps, with 95 % intervals from resampling clips (not frames:
those of a clip are alike), and writes a picture: small, bicubic, model, truth from left to right.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from soundreel.checkpoints.perceptual_weights import load_perceptual_loss
from soundreel.checkpoints.store import read_model
from soundreel.data.dataset import PreparedDataset
from soundreel.data.manifest import DatasetInfo
from soundreel.media.pixels import video_to_frames
from soundreel.metrics.image_quality import psnr_db
from soundreel.nn.perceptual_loss import PerceptualLoss
from soundreel.systems.super_resolution.degradation import DegradationConfig, reduce_images
from soundreel.systems.super_resolution.pipeline import SuperResolutionPipeline, UpscaleConfig


def interval(values: np.ndarray, seed: int = 0, draws: int = 2000) -> str:
    """Mean over clips with its bootstrap interval; `values` is `clip frame`."""
    clips = values.mean(axis=1)
    chosen = np.random.default_rng(seed).integers(len(clips), size=(draws, len(clips)))
    low, high = np.quantile(clips[chosen].mean(axis=1), (0.025, 0.975))
    return f"{clips.mean():.4g} ({low:.4g} to {high:.4g})"


def held_out_frames(data: Path, split: str, num_clips: int, num_frames: int) -> Tensor:
    """`clip frame 3 height width`, the frames spread over each clip."""
    info = DatasetInfo.load(data)
    dataset = PreparedDataset(data, spec=info.spec(1), split=split)
    places: dict[str, list[int]] = {}
    end = 0
    for record in dataset.records:
        spread = np.linspace(end, end + record.num_frames - 1, num_frames)
        places[record.key] = [round(place) for place in spread]
        end += record.num_frames
    chosen = list(places.values())[:num_clips]
    return torch.stack([torch.cat([dataset[i].av["video"] for i in row]) for row in chosen])


def evaluate(name: str, images: Tensor, truth: Tensor, distance: PerceptualLoss, note: str) -> None:
    """Print one row; both tensors are `clip frame 3 height width`."""
    rows, shape = (images.flatten(0, 1), truth.flatten(0, 1)), truth.shape[:2]
    quality = psnr_db(*rows).reshape(shape).numpy()
    parts = zip(rows[0].split(8), rows[1].split(8), strict=True)
    perceptual = torch.cat([distance(*part) for part in parts]).reshape(shape).numpy()
    print(f"| {name} | {interval(quality)} | {interval(perceptual)} | {note} |", flush=True)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--perceptual", type=Path, required=True, help="stlpips_alex.safetensors")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--frames", type=int, default=3, help="per clip")
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 3, 5, 10, 25])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    pipeline = SuperResolutionPipeline.load(read_model(options.model))
    distance = load_perceptual_loss(options.perceptual)
    truth = held_out_frames(options.data, options.split, options.clips, options.frames)
    degradation = DegradationConfig(low_res_size=pipeline.network.config.low_res_size)
    low_res = reduce_images(truth.flatten(0, 1), degradation).unflatten(0, truth.shape[:2])
    size = truth.shape[-2:]

    def enlarged(mode: str) -> Tensor:
        images = functional.interpolate(low_res.flatten(0, 1), size, mode=mode)
        return images.clamp(-1, 1).unflatten(0, truth.shape[:2])

    print(f"{truth.shape[0]} clips of split {options.split}, {truth.shape[1]} frames each")
    print("| method | PSNR in dB (95 %) | perceptual distance (95 %) | s per frame |")
    print("| --- | --- | --- | --- |")
    evaluate("bicubic", enlarged("bicubic"), truth, distance, "")
    evaluate("bilinear", enlarged("bilinear"), truth, distance, "")
    columns = [enlarged("nearest-exact"), enlarged("bicubic")]
    for num_steps in options.steps:
        start = time.perf_counter()
        config = UpscaleConfig(num_steps=num_steps)
        clips = [
            pipeline.upscale_video(clip, seed=index, config=config)
            for index, clip in enumerate(low_res)
        ]
        seconds = (time.perf_counter() - start) / truth.shape[0] / truth.shape[1]
        images = torch.stack(clips)
        evaluate(f"DDIM, {num_steps} steps", images, truth, distance, f"{seconds:.2f}")
        columns.append(images)
    columns.append(truth)
    chosen = range(0, len(truth), max(1, len(truth) // 5))
    rows = [torch.cat([column[i, 0] for column in columns], dim=2) for i in chosen]
    picture = video_to_frames(torch.cat(rows, dim=1)[None])[0]
    options.out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(options.out / "super_resolution.png")


if __name__ == "__main__":
    main()
