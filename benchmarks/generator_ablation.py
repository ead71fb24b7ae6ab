"""How much an MM-LDM's generator makes of the other modality: errors with the own and a wrong one.

    python benchmarks/generator_ablation.py MODEL --out OUT [--count 198]

MODEL is of rendered scenes. The latents of held-out renders are noised, and the generator estimates
what was added to their pictures, with their own clean sound given, with that of another clip of the
same class, and with none; and the other way round. Prints Markdown: squared errors as shares of the
target's, for the mean over the frames and for what changes (the coefficients of z_v after the
first), with the paired difference between wrong and own and its standard error. OUT keeps the
renders.
"""

import argparse
from pathlib import Path

import torch
from scene_clips import class_names, encoded, held_out
from torch import Tensor

from soundreel.diffusion.noise import PerSampleNoise
from soundreel.progress import progress_bar
from soundreel.systems import load
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.types import AV

STEPS = (500, 700, 850, 999)
NOTHING = AV(None, None)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=198, help="clips, of all kinds alike")
    parser.add_argument("--seed", type=int, default=1002, help="of the renders")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pipeline = load(options.model)
    assert isinstance(pipeline, MMLDMPipeline), "this benchmark is of MM-LDM"
    kinds = class_names(pipeline)
    with progress_bar("renders") as advance:
        folder = options.out / f"renders-{options.seed}"
        clips = held_out(folder, pipeline.clip, options.count, options.seed, advance)
    label = torch.tensor([kinds.index(clip.label) for clip in clips])
    other = partners(label)
    clean = encoded(pipeline, AV.cat([clip.clip.to_av(pipeline.clip) for clip in clips]))
    noise = pipeline.stats.noise(PerSampleNoise(range(clean.batch_size))(clean))
    print(f"{clean.batch_size} clips.\n")
    print("| what | step | nothing given | own given | another's | another's - own |")
    print("| --- | --- | --- | --- | --- | --- |")
    for made, given in (("video", "audio"), ("audio", "video")):
        for step in STEPS:
            conditions = (
                NOTHING,
                NOTHING.replace(given, clean[given]),
                NOTHING.replace(given, clean[given][other]),
            )
            errors = [estimate(pipeline, clean, noise, step, c, label, made) for c in conditions]
            for part in errors[0]:
                none, own, wrong = (error[part] for error in errors)
                gap = wrong - own
                print(
                    f"| {part} | {step} | {none.mean():.4f} | {own.mean():.4f} | "
                    f"{wrong.mean():.4f} | {gap.mean():.4f} +- "
                    f"{gap.std() / len(gap) ** 0.5:.4f} |",
                    flush=True,
                )


def partners(label: Tensor) -> Tensor:
    """For every clip another one of its class."""
    other = torch.empty_like(label)
    for kind in label.unique():
        own = (label == kind).nonzero().flatten()
        if len(own) < 2:
            raise SystemExit(f"one clip of class {int(kind)} has no partner; give a larger --count")
        other[own] = own.roll(1)
    return other


def estimate(
    pipeline: MMLDMPipeline,
    clean: AV,
    noise: AV,
    step: int,
    condition: AV,
    label: Tensor,
    made: str,
) -> dict[str, Tensor]:
    """Errors of every clip as shares of the mean target's."""
    generator = pipeline.generator
    assert generator is not None, "this model has no generator"
    diffusion = pipeline.settings.diffusion
    assert diffusion.prediction_type == "v", "written for a generator that estimates v"
    kept = float(diffusion.build().alpha_bar[step])
    signal, strength = kept**0.5, (1 - kept) ** 0.5
    xt = clean.map(lambda x, e: signal * x + strength * e, noise)
    target = signal * noise[made] - strength * clean[made]
    found = generator(
        xt,
        torch.full((clean.batch_size,), step),
        condition=condition,
        label=label if generator.config.num_classes else None,
    )
    error, size = (x.square() for x in (found.mean_output[made] - target, target))
    if made == "audio":
        return {"sound": error.flatten(1).sum(1) / size.flatten(1).sum(1).mean()}
    first = pipeline.autoencoder.config.video_encoder.image_channels
    parts = {"mean picture": slice(0, first), "movement": slice(first, None)}
    return {
        name: error[:, part].flatten(1).sum(1) / size[:, part].flatten(1).sum(1).mean()
        for name, part in parts.items()
    }


if __name__ == "__main__":
    main()
