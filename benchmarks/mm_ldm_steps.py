"""What fewer steps of MM-LDM's two chains change: two tables and a picture of both.

    python benchmarks/mm_ldm_steps.py [MODEL] --out DIR [--clips 3] [--part generator decoder]

`generator`: distance of the latents of four clips to those of 120 steps of DPM-Solver++ of order 3,
relative to their length, with the model's own guidance and no second pass. `decoder`: rendered
scenes of a seed that no training used, encoded and decoded: PSNR of frames and error of the log mel
spectrogram against the truth, of every fourth frame (they are decoded one by one, so these are what
the whole clip's would be). Evaluations of the network are counted, twice a step under guidance.
The picture needs the extra `plots`. MODEL is one of rendered scenes with classes.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from scene_clips import rendered_windows

from soundreel.audio.mel_image import decode_mel_image
from soundreel.diffusion.dpm_solver import dpm_solver_multistep
from soundreel.diffusion.dpm_update import Evaluation
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.unipc import unipc
from soundreel.metrics.image_quality import psnr_db
from soundreel.systems import load
from soundreel.systems.mm_ldm import sampling
from soundreel.systems.mm_ldm.decoding import decode, starting_noise
from soundreel.systems.mm_ldm.first_stage import clip_images
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.systems.mm_ldm.solver import evaluations
from soundreel.types import AV

SEED = 1000
FRAME_STRIDE = 4
REFERENCE_STEPS = 120
LABELS = (0, 3, 5, 8)
Method = Callable[..., AV]
GENERATORS: dict[str, tuple[Method | None, int]] = {
    "unipc": (unipc, 2),
    "dpm-solver++": (dpm_solver_multistep, 2),
    "UniPC order 3": (unipc, 3),
    "multistep order 3": (dpm_solver_multistep, 3),
    "ddim": (None, 1),
}
# (sampler, steps, guidance); the first one is the published decoder's.
DECODERS = (
    ("ddim", 50, 2.5),
    ("ddim", 50, 1.0),
    ("ddim", 10, 1.0),
    *((sampler, steps, 1.0) for steps in (1, 2, 3, 4) for sampler in ("dpm-solver++", "unipc")),
    *(("unipc", steps, 2.5) for steps in (4, 8)),
)
Row = tuple[str, int, tuple[float, float]]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="default")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=3, help="of the decoder")
    parser.add_argument("--part", nargs="+", default=["generator", "decoder"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pipeline = load(options.model)
    options.out.mkdir(parents=True, exist_ok=True)
    tables = {
        "generator": ("video latents", "audio latents", generator_rows),
        "decoder": ("frames, PSNR in dB", "log mel, mean error in nepers", decoder_rows),
    }
    for part in options.part:
        *titles, rows = tables[part]
        print(f"| {part} | evaluations | {' | '.join(titles)} |\n| --- | --- | --- | --- |")
        done: list[Row] = []
        for row in rows(pipeline, options.clips):
            done.append(row)
            print(f"| {row[0]} | {row[1]} | {row[2][0]:.4f} | {row[2][1]:.4f} |", flush=True)
        draw(options.out / f"steps-{part}.png", done, titles)


def generator_rows(pipeline: MMLDMPipeline, _count: int) -> Iterator[Row]:
    shapes, count = pipeline.generator.config.latents, len(LABELS)
    template = AV(torch.empty(count, *shapes.video_shape), torch.empty(count, *shapes.audio_shape))
    diffusion, schedule = pipeline.settings.diffusion, pipeline.settings.diffusion.build()
    xt = pipeline.stats.noise(
        PerSampleNoise(range(count))(template), signal_share=float(schedule.alpha_bar[-1])
    )
    config = replace(pipeline.settings.sampling, second_pass="none")
    published = sampling.solve

    def latents(method: Method | None, order: int, num_steps: int) -> AV:
        sampling.solve = published if method is None else multistep(method, order, num_steps)
        made = sampling.sample_latents(
            pipeline.generator,
            xt,
            schedule,
            replace(config, sampler="ddim", num_steps=num_steps),
            prediction_type=diffusion.prediction_type,
            label=torch.tensor(LABELS),
        )
        sampling.solve = published
        return made

    def multistep(method: Method, order: int, num_steps: int) -> Method:
        evaluation = Evaluation(form="x0", prediction_type=diffusion.prediction_type)
        return lambda denoiser, xt, schedule, **_: method(
            denoiser, xt, schedule, num_steps=num_steps, order=order, evaluation=evaluation
        )

    wanted = latents(dpm_solver_multistep, 3, REFERENCE_STEPS)
    for num_steps in (4, 8, 10, 12, 20, 50):
        for name, (method, order) in GENERATORS.items():
            if (name == "ddim") != (num_steps == 50):
                continue
            far = latents(method, order, num_steps).map(
                lambda a, b: ((a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).mean(),
                wanted,
            )
            yield f"{name}, {num_steps}", 2 * num_steps, (float(far["video"]), float(far["audio"]))


def decoder_rows(pipeline: MMLDMPipeline, count: int) -> Iterator[Row]:
    settings, model = pipeline.settings, pipeline.autoencoder
    windows = list(rendered_windows(pipeline.clip, SEED, [4 * i for i in range(count)]))
    clips = AV.cat([window.clip.to_av(pipeline.clip) for window in windows])
    truth, schedule = clip_images(clips, settings.mel_image), settings.diffusion.build()
    keys, shown = model.select_key_frames(clips["video"]), clips["video"][:, ::FRAME_STRIDE]
    first = pipeline.first_stage
    latent = model.encode(
        AV(first.encode_frames(keys, chunk=settings.image_chunk), first.encode(truth["audio"]))
    ).mean
    label = torch.tensor([pipeline.class_names.index(window.label) for window in windows])
    mel = decode_mel_image(truth["audio"], settings.mel_image)
    for sampler, num_steps, scale in DECODERS:
        config = replace(
            settings.decoding,
            sampler=sampler,
            num_steps=num_steps,
            video_guidance_scale=scale,
            audio_guidance_scale=scale,
        )
        noise = PerSampleNoise(range(count))
        xt = starting_noise(model, count, shown.shape[1], noise, config)
        made = decode(model, latent, xt, schedule, config, label=label)
        frames = first.decode_frames(made["video"], chunk=settings.image_chunk).clamp(-1, 1)
        image = first.decode(made["audio"]).float().clamp(-1, 1)
        psnr = psnr_db(frames.flatten(0, 1), shown.flatten(0, 1)).mean()
        error = (decode_mel_image(image, settings.mel_image) - mel).abs().mean()
        calls = evaluations(schedule, sampler, num_steps) * (1 if scale == 1 else 2)
        name = f"{sampler}, {num_steps}" + ("" if scale == 1 else f", guidance {scale}")
        yield name, calls, (float(psnr), float(error))


def draw(path: Path, rows: list[Row], titles: list[str]) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    for index, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        kinds: dict[str, list[tuple[int, float]]] = {}
        for name, calls, values in rows:
            label = name.split(",")[0] + (", guided" if "guidance" in name else "")
            kinds.setdefault(label, []).append((calls, values[index]))
        for label, points in kinds.items():
            axis.plot(*zip(*sorted(points), strict=True), "o-", label=label, ms=4)
        axis.set(xscale="log", xlabel="evaluations", title=title)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
