"""What each stage of an MM-LDM keeps of clips it was not trained on, and what it makes of noise.

    python benchmarks/mm_ldm_on_clips.py MODEL DATA --out DIR [--split test] [--count 32]

Prints Markdown: PSNR of frames and of mel images, the error of the log mel spectrogram, and the
share of the movement that is explained (of the variance of a clip's pixels about their mean over
time), after the first stage alone, after the whole autoencoder, and with only those axes of z kept
that the generator sees, as means over clips with standard errors; then seconds per generated clip.
Writes contact sheets: reconstructions beside the truth, joint samples, pictures for held-out sounds
and sounds for held-out videos.
"""

import argparse
import time
from pathlib import Path

import torch

from soundreel.audio.mel_image import decode_mel_image
from soundreel.clip import Clip
from soundreel.data.dataset import PreparedDataset
from soundreel.data.latents import PerceptualStats
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.media.contact_sheet import write_contact_sheet
from soundreel.metrics.image_quality import psnr_db
from soundreel.systems import load
from soundreel.systems.mm_ldm.decoding import decode, starting_noise
from soundreel.systems.mm_ldm.first_stage import clip_images
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.types import AV

Rows = dict[str, list[torch.Tensor]]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--caption", default="")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pipeline = load(options.model)
    dataset = PreparedDataset(options.data, spec=pipeline.clip, split=options.split, stride=10**6)
    count = min(options.count, len(dataset))
    rows: Rows = {}
    stats = pipeline.stats
    pipeline.stats = PerceptualStats(pipeline.autoencoder.config.latents)  # z as it is
    for first in range(0, count, options.batch_size):
        chosen = range(first, min(first + options.batch_size, count))
        clips = AV.cat([dataset[i].av.map(lambda x: x[None]) for i in chosen])
        first_stage_quality(pipeline, clips, rows)
        latent = pipeline.encode_av(clips)
        autoencoder_quality(pipeline, clips, latent, "whole autoencoder", rows)
        seen = stats.restore(stats.standardize(latent))
        autoencoder_quality(pipeline, clips, seen, "on the generator's axes", rows)
    pipeline.stats = stats
    print(f"{count} clips of split {options.split}\n")
    names = ("frames", "mel image", "log mel", "movement")
    print(
        "| | frames, PSNR | mel image, PSNR | log mel, mean error (nepers) | movement explained |"
    )
    print("| --- | --- | --- | --- | --- |")
    for stage in ("first stage alone", "whole autoencoder", "on the generator's axes"):
        cells = [summary(rows[f"{stage}/{what}"]) for what in names]
        print(f"| {stage} | {' | '.join(cells)} |")
    options.out.mkdir(parents=True, exist_ok=True)
    av = AV.cat([dataset[i].av.map(lambda x: x[None]) for i in range(min(4, count))])
    real = Clip.from_av(av, pipeline.clip.frame_rate, pipeline.clip.sample_rate)
    draw_sheets(pipeline, real, options.out, options.caption)


def first_stage_quality(pipeline: MMLDMPipeline, clips: AV, rows: Rows) -> None:
    images = clip_images(clips, pipeline.settings.mel_image).to(pipeline.device)
    network = pipeline.first_stage
    frames = network.decode_frames(network.encode_frames(images["video"]))
    mel = network.decode(network.encode(images["audio"]))
    add(pipeline, rows, "first stage alone", images, AV(frames, mel))


def autoencoder_quality(
    pipeline: MMLDMPipeline, clips: AV, latent: AV, stage: str, rows: Rows
) -> None:
    settings, model = pipeline.settings, pipeline.autoencoder
    images = clip_images(clips, settings.mel_image).to(pipeline.device)
    noise = PerSampleNoise(range(latent.batch_size))
    xt = starting_noise(
        model, latent.batch_size, pipeline.clip.num_frames, noise, settings.decoding
    )
    signals = decode(model, latent, xt, settings.diffusion.build(), settings.decoding)
    frames = pipeline.first_stage.decode_frames(signals["video"])
    mel = pipeline.first_stage.decode(signals["audio"])
    add(pipeline, rows, stage, images, AV(frames, mel))


def add(pipeline: MMLDMPipeline, rows: Rows, stage: str, truth: AV, made: AV) -> None:
    """Note the quality of each clip."""
    made = made.map(lambda x: x.float().clamp(-1, 1))
    per_frame = psnr_db(made["video"].flatten(0, 1), truth["video"].flatten(0, 1))
    log_mels = [decode_mel_image(x["audio"], pipeline.settings.mel_image) for x in (made, truth)]
    values = {
        "frames": per_frame.unflatten(0, made["video"].shape[:2]).mean(dim=1),
        "mel image": psnr_db(made["audio"], truth["audio"]),
        "log mel": (log_mels[0] - log_mels[1]).abs().mean(dim=(1, 2)),
        "movement": movement_explained(made["video"], truth["video"]),
    }
    for name, value in values.items():
        rows.setdefault(f"{stage}/{name}", []).append(value.cpu())


def movement_explained(made: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Per clip, 1 where all of what changes over time is given back, 0 where it is as if still."""
    made, truth = (video - video.mean(dim=1, keepdim=True) for video in (made, truth))
    return 1 - (made - truth).square().flatten(1).sum(1) / truth.square().flatten(1).sum(1)


def summary(values: list[torch.Tensor]) -> str:
    row = torch.cat(values)
    return f"{row.mean():.2f} +- {row.std() / len(row) ** 0.5:.2f}"


def draw_sheets(pipeline: MMLDMPipeline, real: list[Clip], out: Path, caption: str) -> None:
    """Write the four contact sheets, and print how long sampling took."""
    again = [pipeline.reconstruct(clip, seed=index) for index, clip in enumerate(real)]
    sheet(out / "reconstructions.png", pairs(real, again), ["held-out clip", "decoded"], caption)
    timed: dict[str, float] = {}

    def made(name: str, count: int, **known: Clip) -> list[Clip]:
        start = time.perf_counter()
        clips = pipeline.generate(count=count, batch_size=count, **known)
        timed.setdefault(name, (time.perf_counter() - start) / count)
        return clips

    joint = made("joint, four at once", 4)
    sheet(out / "joint.png", joint, [f"generated, seed {i}" for i in range(4)], caption)
    made("joint, one", 1)
    pictures = [made("pictures for a sound", 1, audio=clip)[0] for clip in real]
    sheet(
        out / "audio-to-video.png",
        pairs(real, pictures),
        ["held-out clip", "pictures generated for its sound"],
        caption,
    )
    sounds = [made("sound for a video", 1, video=clip)[0] for clip in real]
    sheet(
        out / "video-to-audio.png",
        pairs(real, sounds),
        ["held-out clip", "sound generated for its pictures"],
        caption,
    )
    print("\n| sampling | s per clip |\n| --- | --- |")
    for name, seconds in timed.items():
        print(f"| {name} | {seconds:.2f} |")


def pairs(left: list[Clip], right: list[Clip]) -> list[Clip]:
    return [clip for both in zip(left, right, strict=True) for clip in both]


def sheet(path: Path, clips: list[Clip], titles: list[str], caption: str) -> None:
    titles = [titles[i % len(titles)] for i in range(len(clips))]
    write_contact_sheet(path, clips, titles=titles, caption=caption, num_columns=2, width=900)


if __name__ == "__main__":
    main()
