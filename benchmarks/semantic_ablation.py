"""Does the signal decoder use the other modality's semantic tokens?

    python benchmarks/semantic_ablation.py MODEL DATA [--split test] [--num-steps 10]

Decodes clips from their own latents with their own semantic tokens and with those of another clip,
from the same noise, and compares both with the truth. A decoder that ignores them gives equal
numbers; the paired difference and its standard error say whether it does. Prints Markdown.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from soundreel.data.dataset import PreparedDataset
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.metrics.image_quality import psnr_db
from soundreel.models.mm_ldm.decoding import decode, starting_noise
from soundreel.models.mm_ldm.first_stage import clip_images
from soundreel.pipelines.load import load
from soundreel.pipelines.mm_ldm import MMLDMPipeline
from soundreel.types import AV


@torch.no_grad()
def quality(
    pipeline: MMLDMPipeline, images: AV, latent: AV, semantic: AV, num_steps: int
) -> dict[str, torch.Tensor]:
    """PSNR per clip of decoded frames and mel images."""
    settings, model = pipeline.settings, pipeline.autoencoder
    decoding = replace(settings.decoding, num_steps=num_steps)
    noise = PerSampleNoise(range(latent.batch_size))
    xt = starting_noise(model, latent.batch_size, pipeline.clip.num_frames, noise, decoding)
    schedule = settings.diffusion.build()
    signals = decode(model, latent, xt, schedule, decoding, semantic=semantic)
    frames = pipeline.first_stage.decode_frames(signals["video"]).clamp(-1, 1)
    mel = pipeline.first_stage.decode(signals["audio"]).clamp(-1, 1)
    per_frame = psnr_db(frames.flatten(0, 1), images["video"].flatten(0, 1))
    return {
        "frames": per_frame.unflatten(0, frames.shape[:2]).mean(dim=1),
        "mel image": psnr_db(mel, images["audio"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--num-steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    pipeline = load(arguments.model)
    # Only the first window of each clip, so that neighbours are other clips.
    dataset = PreparedDataset(
        arguments.data, spec=pipeline.clip, split=arguments.split, stride=10**6
    )
    rows: dict[str, list[torch.Tensor]] = {}
    for first in range(0, len(dataset) - 1, arguments.batch_size):
        last = min(first + arguments.batch_size, len(dataset))
        clips = AV.cat([dataset[i].av.map(lambda x: x[None]) for i in range(first, last)])
        images = clip_images(clips, pipeline.settings.mel_image).to(pipeline.device)
        latent = pipeline.stats.restore(pipeline.encode_av(clips))
        own = pipeline.autoencoder.semantics(latent)
        for name, semantic in (("own", own), ("other", own.map(lambda x: x.roll(1, dims=0)))):
            made = quality(pipeline, images, latent, semantic, arguments.num_steps)
            for what, values in made.items():
                rows.setdefault(f"{what}/{name}", []).append(values.cpu())
    print(f"{len(dataset)} clips of split {arguments.split}, {arguments.num_steps} steps\n")
    print("| PSNR (dB) | own tokens | another clip's | difference | standard error |")
    print("| --- | --- | --- | --- | --- |")
    for what in ("frames", "mel image"):
        right, wrong = (torch.cat(rows[f"{what}/{name}"]) for name in ("own", "other"))
        gain = right - wrong
        error = float(gain.std() / len(gain) ** 0.5)
        means = f"{right.mean():.2f} | {wrong.mean():.2f} | {gain.mean():+.3f}"
        print(f"| {what} | {means} | {error:.3f} |")


if __name__ == "__main__":
    main()
