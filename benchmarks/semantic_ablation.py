"""Does the signal decoder use the other modality's semantic tokens?

    python benchmarks/semantic_ablation.py MODEL DATA [--split test] [--num-steps 10]

Decodes clips from their own latents with the other modality's semantic tokens, their own and those
of another clip, from the same noise, and compares both with the truth: once with everything told,
and once with the decoded modality's own latent withheld, as training does with some of the clips
("condition dropping"), when the tokens are all that is known of the clip. A decoder that ignores
them gives equal numbers; the paired difference and its standard error say whether it does. Every
clip is paired with --shifts others, far from it in the list. Prints two Markdown tables: PSNR of
decoded pictures, of each clip's first window; and the mean squared error, in first-stage latents,
of the estimate that the chain's noisiest step makes from noise alone, of all windows, --stride
apart. Standard errors are over clips.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from soundreel.data.dataset import PreparedDataset
from soundreel.diffusion.ddim import ddim
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.process import noise_level, to_x0
from soundreel.diffusion.schedules import respace
from soundreel.metrics.image_quality import psnr_db
from soundreel.systems import load
from soundreel.systems.mm_ldm.decoding import guided_denoiser, starting_noise
from soundreel.systems.mm_ldm.first_stage import clip_images
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.systems.mm_ldm.signal_decoder import DecoderCondition
from soundreel.types import AV

Scores = dict[str, Tensor]
"""By name, a number for each window."""


def what_is_told(
    pipeline: MMLDMPipeline, latent: AV, semantic: AV, withheld: str
) -> tuple[DecoderCondition, Tensor, AV]:
    """Condition, frame index, and noise of the images to decode.

    Args:
        withheld: the modality whose own latent and prompt the decoder is not told, or "".
    """
    model, num_frames = pipeline.autoencoder, pipeline.clip.num_frames
    noise = PerSampleNoise(range(latent.batch_size))
    xt = starting_noise(model, latent.batch_size, num_frames, noise, pipeline.settings.decoding)
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
    return condition, index, xt


@torch.no_grad()
def decoded_quality(
    pipeline: MMLDMPipeline,
    images: AV,
    latent: AV,
    semantic: AV,
    withheld: str,
    *,
    num_steps: int,
) -> Scores:
    """PSNR of the decoded frames and mel images that are asked for."""
    condition, index, xt = what_is_told(pipeline, latent, semantic, withheld)
    settings, model = pipeline.settings, pipeline.autoencoder
    signals = ddim(
        guided_denoiser(model, condition, index, settings.decoding),
        xt,
        respace(settings.diffusion.build(), f"compvis{num_steps}"),
        prediction_type=model.config.prediction_type,
        clip_x0=False,
    )
    scores = {}
    if signals.video is not None:
        frames = pipeline.first_stage.decode_frames(signals["video"]).clamp(-1, 1)
        per_frame = psnr_db(frames.flatten(0, 1), images["video"].flatten(0, 1))
        scores["frames"] = per_frame.unflatten(0, frames.shape[:2]).mean(dim=1)
    if signals.audio is not None:
        mel = pipeline.first_stage.decode(signals["audio"]).clamp(-1, 1)
        scores["mel image"] = psnr_db(mel, images["audio"])
    return scores


@torch.no_grad()
def estimate_error(
    pipeline: MMLDMPipeline, images: AV, latent: AV, semantic: AV, withheld: str
) -> Scores:
    """Squared error of the clean first-stage latents that noise alone is taken for."""
    condition, index, xt = what_is_told(pipeline, latent, semantic, withheld)
    schedule, model = pipeline.settings.diffusion.build(), pipeline.autoencoder
    last = torch.full((latent.batch_size,), len(schedule) - 1, device=latent.device)
    output = model.decoder(xt, AV(last[:, None].expand_as(index), last), condition)
    level = noise_level(schedule, last)
    estimate = to_x0(output.map(Tensor.float), xt, level, model.config.prediction_type)
    scores = {}
    if estimate.video is not None:
        truth = pipeline.first_stage.encode_frames(images["video"])
        scores["frames"] = (estimate["video"] - truth).square().mean(dim=(1, 2, 3, 4))
    if estimate.audio is not None:
        truth = pipeline.first_stage.encode(images["audio"])
        scores["mel image"] = (estimate["audio"] - truth).square().mean(dim=(1, 2, 3))
    return scores


def table(
    title: str,
    pipeline: MMLDMPipeline,
    windows: PreparedDataset,
    arguments: argparse.Namespace,
    judge: Callable[[MMLDMPipeline, AV, AV, AV, str], Scores],
) -> None:
    """Print a row for each picture and for what is told."""
    samples = [windows[i] for i in range(len(windows))]
    clips = AV.cat([sample.av.map(lambda x: x[None]) for sample in samples])
    parts = [
        slice(first, first + arguments.batch_size)
        for first in range(0, len(samples), arguments.batch_size)
    ]
    latents = AV.cat([pipeline.stats.restore(pipeline.encode_av(clips.rows(p))) for p in parts])
    semantics = pipeline.autoencoder.semantics(latents)
    # From a quarter of the list on, so that no partner is a window of the same clip.
    far = range(
        len(samples) // 4, len(samples) // 4 * 3, max(1, len(samples) // 2 // arguments.shifts)
    )
    shifts = [0, *list(far)[: arguments.shifts]]
    rows: dict[tuple[str, int], list[Tensor]] = {}
    for part in parts:
        images = clip_images(clips.rows(part), pipeline.settings.mel_image).to(pipeline.device)
        for withheld in ("", "video", "audio"):
            for shift in shifts:
                tokens = semantics.map(lambda x, by=shift: x.roll(by, dims=0)).rows(part)
                scores = judge(pipeline, images, latents.rows(part), tokens, withheld)
                for what, values in scores.items():
                    told = f"{what}, own latent withheld" if withheld else what
                    rows.setdefault((told, shift), []).append(values.cpu())
    keys = [sample.key for sample in samples]
    print(f"\n{len(samples)} windows of {len(set(keys))} clips, {len(shifts) - 1} others each\n")
    print(f"| {title} | own tokens | another clip's | difference | standard error |")
    print("| --- | --- | --- | --- | --- |")
    for what in dict.fromkeys(name for name, _ in rows):
        right = torch.cat(rows[what, 0])
        wrong = torch.stack([torch.cat(rows[what, shift]) for shift in shifts[1:]]).mean(dim=0)
        gain = per_clip(right - wrong, keys)
        error = float(gain.std() / len(gain) ** 0.5)
        means = f"{right.mean():.4f} | {wrong.mean():.4f} | {gain.mean():+.4f}"
        print(f"| {what} | {means} | {error:.4f} |")


def per_clip(values: Tensor, keys: list[str]) -> Tensor:
    """Means over the windows of each clip."""
    groups: dict[str, list[Tensor]] = {}
    for key, value in zip(keys, values, strict=True):
        groups.setdefault(key, []).append(value)
    return torch.stack([torch.stack(group).mean() for group in groups.values()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--num-steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--shifts", type=int, default=3)
    parser.add_argument("--stride", type=int, default=2)
    arguments = parser.parse_args()
    pipeline = load(arguments.model)

    def windows(stride: int) -> PreparedDataset:
        return PreparedDataset(
            arguments.data, spec=pipeline.clip, split=arguments.split, stride=stride
        )

    def after_all_steps(
        model: MMLDMPipeline, images: AV, latent: AV, semantic: AV, withheld: str
    ) -> Scores:
        steps = arguments.num_steps
        return decoded_quality(model, images, latent, semantic, withheld, num_steps=steps)

    table(
        "error of the first estimate",
        pipeline,
        windows(arguments.stride),
        arguments,
        estimate_error,
    )
    table("PSNR (dB)", pipeline, windows(10**6), arguments, after_all_steps)


if __name__ == "__main__":
    main()
