"""Error of MM-LDM generators on clips that none was trained on, as a share of the target's.

    python benchmarks/fine_tune.py default FULL/model default+LORA/generator/adapter --data PREPARED

A model is a folder, with `+ADAPTER` where one is to be merged into it. Each clip's first window is
noised to evenly spaced steps, with the same noise for every model; 1 is the error of answering
nothing. Errors are means over clips, with their standard error.
"""

import argparse
import json
from pathlib import Path

import torch

import soundreel
from soundreel.data.dataset import PreparedDataset
from soundreel.device import autocast
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.process import noise_level, training_target
from soundreel.systems.mm_ldm.generator_loss import conditional_loss, draw
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.types import AV

BATCH_SIZE = 16


def test_latents(pipeline: MMLDMPipeline, options: argparse.Namespace) -> AV:
    """Return standardised latents of the first window of each clip of the split."""
    samples = PreparedDataset(options.data, spec=pipeline.clip, split=options.split, stride=10**6)
    parts = []
    for start in range(0, len(samples), BATCH_SIZE):
        rows = [samples[n].av for n in range(start, min(start + BATCH_SIZE, len(samples)))]
        parts.append(pipeline.encode_av(rows[0].map(lambda *x: torch.stack(x), *rows[1:])))
    return AV.cat(parts)


@torch.no_grad()
def errors(pipeline: MMLDMPipeline, latents: AV, num_times: int) -> dict[str, list[float]]:
    """Return mean and standard error over clips, by modality and over both."""
    network, settings = pipeline.generator, pipeline.settings
    schedule = settings.diffusion.build()
    assert network is not None
    sums = {name: torch.zeros(2, latents.batch_size) for name in latents.present}
    for number in range(num_times):
        for rows in torch.arange(latents.batch_size).split(BATCH_SIZE):
            part = latents.map(lambda x, rows=rows: x[rows])
            draws = draw(part, schedule, PerSampleNoise([1000 * number + int(r) for r in rows]))
            draws.timestep.fill_(int((number + 0.5) / num_times * len(schedule)))
            draws = type(draws)(draws.timestep, draws.uniforms, pipeline.stats.noise(draws.noise))
            kinds = network.config.num_classes
            result = conditional_loss(
                network,
                part,
                draws,
                schedule,
                condition=part.map(torch.zeros_like),
                context_kept=torch.ones(len(rows), dtype=torch.bool),
                prediction_type=settings.diffusion.prediction_type,
                label=torch.full((len(rows),), kinds) if kinds else None,
            )
            level, form = noise_level(schedule, draws.timestep), settings.diffusion.prediction_type
            target = training_target(part, draws.noise, level, form)
            for name, (error, whole) in sums.items():
                error[rows] += result.terms[f"mse_{name}"]
                whole[rows] += target[name].square().flatten(1).mean(dim=1)
    shares = {name: error / whole for name, (error, whole) in sums.items()}
    return {k: [float(x.mean()), float(x.std() / len(x) ** 0.5)] for k, x in shares.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--times", type=int, default=8, help="steps at which errors are taken")
    options = parser.parse_args()
    latents = None
    for name in options.models:
        model, _, adapter = name.partition("+")
        pipeline = soundreel.load(model, adapter=adapter or None)
        assert isinstance(pipeline, MMLDMPipeline)
        with autocast(pipeline.device, "auto"):
            # Fine-tuning the generator leaves the autoencoder as it is.
            latents = test_latents(pipeline, options) if latents is None else latents
            print(json.dumps({name: errors(pipeline, latents, options.times)}), flush=True)


if __name__ == "__main__":
    main()
