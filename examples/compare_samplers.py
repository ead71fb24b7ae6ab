"""How close do samplers come, where the right answer is known?

    python examples/compare_samplers.py [NUM_STEPS]

For data from a normal distribution the best possible denoiser is a formula. What a sampler makes
with it should have the data's mean and standard deviation; the difference is the sampler's own
error. Samplers are functions of a denoiser, so a formula will do in place of a network.
"""

import sys

import torch
from torch import Tensor

from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.samplers import SAMPLERS, sample
from soundreel.diffusion.schedules import linear_schedule
from soundreel.types import AV

MEAN, STD = 0.3, 0.2


def main(num_steps: int) -> None:
    schedule = linear_schedule(1000)

    def denoiser(xt: AV, timestep: Tensor) -> AV:
        alpha_bar = schedule.alpha_bar[timestep].float()

        def noise_in(x: Tensor) -> Tensor:
            a = alpha_bar.reshape(-1, *(1 for _ in x.shape[1:]))
            return (1 - a).sqrt() * (x - a.sqrt() * MEAN) / (a * STD**2 + 1 - a)

        return xt.map(noise_in)

    print(f"{'sampler':<24} mean   std    (data: {MEAN:.3f}  {STD:.3f}; {num_steps} steps)")
    for name in SAMPLERS:
        noise = PerSampleNoise(range(4))
        start = noise(AV(torch.empty(4, 2, 3, 16, 16), torch.empty(4, 1, 2000)))
        result = sample(denoiser, start, schedule, noise=noise, sampler=name, num_steps=num_steps)
        values = torch.cat([x.flatten() for x in result.tensors])
        print(f"{name:<24} {values.mean():.3f}  {values.std():.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
