"""How well zero-shot conditions work with an exact joint denoiser: a Markdown table.

    python benchmarks/zero_shot_oracle.py

Pairs of one pixel N(0.3, 0.5^2) and one sound sample N(-0.1, 0.2^2) with correlation 0.9. A cell is
the slope of the generated modality against the given one divided by the true slope, and in brackets
its standard deviation divided by the true one.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.process import noise_level, to_epsilon
from soundreel.diffusion.samplers import sample
from soundreel.diffusion.schedules import linear_schedule, respace
from soundreel.diffusion.zero_shot import gradient_guide, replacement_guide, zero_shot_ddpm
from soundreel.types import AV

MEAN, STD, CORRELATION = torch.tensor([0.3, -0.1]), torch.tensor([0.5, 0.2]), 0.9
COVARIANCE = torch.tensor([[1.0, CORRELATION], [CORRELATION, 1.0]]) * STD[:, None] * STD
NUM_PAIRS, NUM_STEPS, NUM_ANCESTRAL_STEPS = 20_000, 20, 100
WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0)
SCHEDULE = linear_schedule()


def joint_denoiser(xt: AV, timestep: Int[Tensor, " batch"]) -> AV:
    level = noise_level(SCHEDULE, timestep)
    alpha, sigma = level.alpha.item(), level.sigma.item()
    gain = alpha * COVARIANCE @ torch.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * torch.eye(2))
    centred = torch.stack(xt.tensors) - alpha * MEAN[:, None, None]
    video, audio = MEAN[:, None, None] + torch.einsum("ij,jbn->ibn", gain, centred)
    return to_epsilon(AV(video, audio), xt, level, "x0")


def generate(sampler: str, given: AV, weight: float) -> AV:
    noise = PerSampleNoise([7])
    start = noise(AV(torch.empty(1, NUM_PAIRS), torch.empty(1, NUM_PAIRS)))
    if sampler == "zero_shot_ddpm":
        short = respace(SCHEDULE, NUM_ANCESTRAL_STEPS)
        return zero_shot_ddpm(
            joint_denoiser, start, short, given=given, noise=noise, weight=weight, clip_x0=False
        )
    guide = gradient_guide(given, start, weight=weight)
    return sample(
        joint_denoiser,
        start,
        SCHEDULE,
        noise=noise,
        sampler=sampler,
        num_steps=NUM_STEPS,
        guide=guide if weight else replacement_guide(given, start),
        clip_x0=False,
    )


def cell(sampler: str, given_index: int, weight: float) -> str:
    names = ("video", "audio")
    name, other_index = names[given_index], 1 - given_index
    signal = torch.randn(1, NUM_PAIRS, generator=torch.Generator().manual_seed(5))
    signal = MEAN[given_index] + STD[given_index] * signal
    samples = generate(sampler, AV(None, None).replace(name, signal), weight)
    x = signal - MEAN[given_index]
    y = samples[names[other_index]] - MEAN[other_index]
    slope = (x * y).mean() / (x * x).mean()
    true_slope = CORRELATION * STD[other_index] / STD[given_index]
    return f"{float(slope / true_slope):.2f} ({float(y.std() / STD[other_index]):.2f})"


def main() -> None:
    weights = [f"weight {w:g}" if w else "replacement" for w in WEIGHTS]
    print("| given | sampler | " + " | ".join(weights) + " |")
    print("| --- " * (2 + len(WEIGHTS)) + "|")
    for index, name in enumerate(("video", "audio")):
        for sampler in ("dpm-solver++", "ddim", "ddpm", "zero_shot_ddpm"):
            cells = " | ".join(cell(sampler, index, weight) for weight in WEIGHTS)
            print(f"| {name} | `{sampler}` | {cells} |")


if __name__ == "__main__":
    main()
