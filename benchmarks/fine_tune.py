"""Error of joint_flow's transformers on clips that none was trained on.

    python benchmarks/fine_tune.py default RUN/model default+RUN/transformer/adapter --data FOLDER

A model is a folder, with `+ADAPTER` where one is to be merged into it. Each clip's first window is
noised to evenly spaced levels, both modalities alike and with the same draws for every model, and
its clean latents are estimated in one step, of any class. Errors are shares of the latents'
variance over the clips: 1 is the error of answering with their mean. Means over levels and clips,
with the standard error over clips.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

import soundreel
from soundreel.config import DataConfig
from soundreel.data.dataset import training_windows
from soundreel.device import autocast
from soundreel.diffusion.flow import correlated_noise, interpolate, linear_velocity
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.systems.joint_flow.lapped import HOP
from soundreel.systems.joint_flow.latents import encode_inner
from soundreel.systems.joint_flow.pipeline import JointFlowPipeline
from soundreel.systems.joint_flow.transformer import JointTransformer
from soundreel.types import AV

BATCH_SIZE = 8


@torch.no_grad()
def test_latents(pipeline: JointFlowPipeline, data: Path, split: str) -> AV:
    """Return the codecs' latents of the first window of each clip of the split."""
    clip = pipeline.clip
    spec = type(clip)(
        num_frames=clip.num_frames + 2 * HOP,
        height=clip.height,
        width=clip.width,
        frame_rate=clip.frame_rate,
        sample_rate=clip.sample_rate,
    )
    samples = training_windows(data, spec, DataConfig(stride=10**6), split=split)
    parts = []
    for start in range(0, len(samples), BATCH_SIZE):
        rows = [samples[n].av for n in range(start, min(start + BATCH_SIZE, len(samples)))]
        av = rows[0].map(lambda *x: torch.stack(x), *rows[1:])
        parts.append(encode_inner(av, pipeline.video.linear, pipeline.audio))
    return AV.cat(parts)


def estimate(network: JointTransformer, x0: AV, level: float, white: AV) -> AV:
    """Return the network's estimate of scaled latents that are noised to one level."""
    label = torch.full((x0.batch_size,), network.config.num_classes)
    prior = network.prior(label)
    levels = x0.map(lambda x: torch.full(x.shape[:2], level))
    xt = interpolate(x0 - prior.mean, correlated_noise(white, network.correlation), levels)
    linear = linear_velocity(levels, prior.deviation)
    answer = network(xt * linear.input_scale, levels, label).map(Tensor.float)
    return prior.mean + xt - (linear.slope * xt + linear.error * answer) * level


@torch.no_grad()
def errors(network: JointTransformer, latents: AV, num_levels: int) -> dict[str, list[float]]:
    """Return mean and standard error over clips, by modality."""
    sums = {name: torch.zeros(latents.batch_size) for name in latents.present}
    for number in range(num_levels):
        level = (number + 0.5) / num_levels
        for rows in torch.arange(latents.batch_size).split(BATCH_SIZE):
            part = latents.map(lambda x, rows=rows: x[rows])
            white = PerSampleNoise([1000 * number + int(row) for row in rows])(part)
            made = network.restored(estimate(network, network.scaled(part), level, white))
            for name, error in sums.items():
                error[rows] += (made[name] - part[name]).square().flatten(1).mean(1) / num_levels
    whole = {name: latents[name].var(dim=0, correction=0).mean() for name in latents.present}
    shares = {name: error / whole[name] for name, error in sums.items()}
    return {k: [float(x.mean()), float(x.std() / len(x) ** 0.5)] for k, x in shares.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--levels", type=int, default=8, help="levels at which errors are taken")
    options = parser.parse_args()
    latents = None
    for name in options.models:
        model, _, adapter = name.partition("+")
        pipeline = soundreel.load(model, adapter=adapter or None)
        assert isinstance(pipeline, JointFlowPipeline)
        # Fine-tuning the transformer leaves the codecs as they are.
        latents = latents or test_latents(pipeline, options.data, options.split)
        with autocast(pipeline.device, "auto"):
            found = errors(pipeline.transformer, latents, options.levels)
        print(json.dumps({name: found}), flush=True)


if __name__ == "__main__":
    main()
