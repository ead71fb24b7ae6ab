"""Does the signal decoder use the other modality's semantic tokens?

    python benchmarks/semantic_ablation.py MODEL DATA [--split test] [--num-steps 10]

Decodes clips from their own latents with the other modality's semantic tokens, their own and those
of another clip, from the same noise, and compares both with the truth: once with everything told,
and once with the decoded modality's own latent withheld, as training does with a tenth of the clips
("condition dropping"), when the tokens are all that is known of the clip. A decoder that ignores
them gives equal numbers; the paired difference and its standard error say whether it does. Every
clip is paired with every other one at a distance of 1 to --shifts in the list. Prints Markdown.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from soundreel.data.dataset import PreparedDataset
from soundreel.diffusion.ddim import ddim
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.schedules import respace
from soundreel.metrics.image_quality import psnr_db
from soundreel.models.mm_ldm.decoding import guided_denoiser, starting_noise
from soundreel.models.mm_ldm.first_stage import clip_images
from soundreel.pipelines.load import load
from soundreel.pipelines.mm_ldm import MMLDMPipeline
from soundreel.types import AV


@torch.no_grad()
def decoded(pipeline: MMLDMPipeline, latent: AV, semantic: AV, num_steps: int, withheld: str) -> AV:
    """First-stage latents from perceptual latents and semantic tokens.

    Args:
        withheld: the modality whose own latent and prompt the decoder is not told, or "".
    """
    settings, model = pipeline.settings, pipeline.autoencoder
    decoding = replace(settings.decoding, num_steps=num_steps)
    noise = PerSampleNoise(range(latent.batch_size))
    num_frames = pipeline.clip.num_frames
    xt = starting_noise(model, latent.batch_size, num_frames, noise, decoding)
    index = torch.arange(num_frames, device=latent.device) / num_frames
    index = index.expand(latent.batch_size, -1)
    if withheld:
        nothing = model.null_latent(latent.batch_size)
        latent = latent.replace(withheld, nothing[withheld])
        xt = AV(*(xt[name] if name == withheld else None for name in ("video", "audio")))
    condition = model.condition(latent, index, semantic=semantic)
    if withheld:
        prompt = condition.prompt.replace(withheld, 0.0 * condition.prompt[withheld])
        condition = replace(condition, prompt=prompt)
    return ddim(
        guided_denoiser(model, condition, index, decoding),
        xt,
        respace(settings.diffusion.build(), f"compvis{num_steps}"),
        prediction_type=model.config.prediction_type,
        clip_x0=False,
    )


@torch.no_grad()
def quality(pipeline: MMLDMPipeline, images: AV, signals: AV) -> dict[str, torch.Tensor]:
    """PSNR per clip of the decoded frames and mel images that are there."""
    values = {}
    if signals.video is not None:
        frames = pipeline.first_stage.decode_frames(signals["video"]).clamp(-1, 1)
        per_frame = psnr_db(frames.flatten(0, 1), images["video"].flatten(0, 1))
        values["frames"] = per_frame.unflatten(0, frames.shape[:2]).mean(dim=1)
    if signals.audio is not None:
        mel = pipeline.first_stage.decode(signals["audio"]).clamp(-1, 1)
        values["mel image"] = psnr_db(mel, images["audio"])
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--num-steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--shifts", type=int, default=3)
    arguments = parser.parse_args()
    pipeline = load(arguments.model)
    # Only the first window of each clip, so that neighbours are other clips.
    dataset = PreparedDataset(
        arguments.data, spec=pipeline.clip, split=arguments.split, stride=10**6
    )
    rows: dict[tuple[str, str], list[torch.Tensor]] = {}
    clips = AV.cat([dataset[i].av.map(lambda x: x[None]) for i in range(len(dataset))])
    latents = pipeline.stats.restore(pipeline.encode_av(clips))
    semantics = pipeline.autoencoder.semantics(latents)
    for first in range(0, len(dataset), arguments.batch_size):
        part = slice(first, first + arguments.batch_size)
        images = clip_images(clips.rows(part), pipeline.settings.mel_image).to(pipeline.device)
        for withheld in ("", "video", "audio"):
            for shift in range(arguments.shifts + 1):
                tokens = semantics.map(lambda x, by=shift: x.roll(by, dims=0)).rows(part)
                signals = decoded(
                    pipeline, latents.rows(part), tokens, arguments.num_steps, withheld
                )
                for what, values in quality(pipeline, images, signals).items():
                    told = f"{what}, own latent withheld" if withheld else what
                    rows.setdefault((told, str(shift)), []).append(values.cpu())
    print(f"{len(dataset)} clips of split {arguments.split}, {arguments.num_steps} steps\n")
    print("| PSNR (dB) | own tokens | another clip's | difference | standard error |")
    print("| --- | --- | --- | --- | --- |")
    for what in dict.fromkeys(name for name, _ in rows):
        right = torch.cat(rows[what, "0"])
        wrong = torch.stack(
            [torch.cat(rows[what, str(shift)]) for shift in range(1, arguments.shifts + 1)]
        ).mean(dim=0)
        gain = right - wrong
        error = float(gain.std() / len(gain) ** 0.5)
        means = f"{right.mean():.3f} | {wrong.mean():.3f} | {gain.mean():+.4f}"
        print(f"| {what} | {means} | {error:.4f} |")


if __name__ == "__main__":
    main()
