"""Error of every sampler on Gaussian data, whose exact denoiser is known: a Markdown table.

    python benchmarks/sampler_oracle.py

Video data are N(0.3, 0.5^2), audio data N(-0.1, 0.2^2), on the linear schedule of 1000 steps. The
starting noise is standardised, so that what is left is the sampler's own error.
"""

import torch

from soundreel.diffusion.denoiser import Denoiser
from soundreel.diffusion.dpm_adaptive import StepControl, dpm_solver_adaptive
from soundreel.diffusion.dpm_solver import dpm_solver_multistep, dpm_solver_singlestep
from soundreel.diffusion.dpm_update import Evaluation
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.process import noise_level
from soundreel.diffusion.samplers import SAMPLERS, sample
from soundreel.diffusion.schedules import linear_schedule
from soundreel.diffusion.unipc import unipc
from soundreel.types import AV

MEAN, STD = AV(torch.tensor(0.3), torch.tensor(-0.1)), AV(torch.tensor(0.5), torch.tensor(0.2))
STEPS = (10, 20, 50, 200)
NUM_ELEMENTS = 100_000
SCHEDULE = linear_schedule()


class Oracle:
    """The exact denoiser; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, xt: AV, timestep: torch.Tensor) -> AV:
        self.calls += 1
        level = noise_level(SCHEDULE, timestep[:1])
        alpha, sigma = level.alpha.item(), level.sigma.item()
        return xt.map(
            lambda x, mean, std: sigma * (x - alpha * mean) / (alpha**2 * std**2 + sigma**2),
            MEAN,
            STD,
        )


def start() -> AV:
    noise = PerSampleNoise([0])(AV(torch.empty(1, NUM_ELEMENTS), torch.empty(1, NUM_ELEMENTS)))
    return noise.map(lambda x: (x - x.mean()) / x.std())


def cell(samples: AV) -> str:
    """Error of the standard deviation, video / audio, in percent of it."""
    errors = samples.map(lambda x, std: 100 * (x.std() / std - 1), STD)
    return " / ".join(f"{float(error):+.1f}" for error in errors.tensors)


def mean_error(samples: AV) -> float:
    errors = samples.map(lambda x, mean, std: 100 * (x.mean() - mean).abs() / std, MEAN, STD)
    return max(float(error) for error in errors.tensors)


def main() -> None:
    print("| sampler | " + " | ".join(f"{n} steps" for n in STEPS) + " | largest mean error |")
    print("| --- " * (len(STEPS) + 2) + "|")
    for name in SAMPLERS:
        if "adaptive" in name or name == "dpm-solver++-official":
            continue

        def by_name(oracle: Denoiser, num_steps: int, name: str = name) -> AV:
            return sample(
                oracle,
                start(),
                SCHEDULE,
                noise=PerSampleNoise([1]),
                sampler=name,
                num_steps=num_steps,
                clip_x0=False,
            )

        row(f"`{name}`", by_name)
    for order in (2, 3):
        for spacing in ("log_snr", "uniform", "quadratic"):
            if (order, spacing) != (2, "log_snr"):
                row(f"multistep, order {order}, x0, {spacing}", multistep(order, spacing))
    row("UniPC, order 3", multistep(3, "log_snr", unipc))
    row("single-step, order 3, x0, log_snr", singlestep)
    print("\n| adaptive, order 2 | evaluations | error | mean error |\n| --- | --- | --- | --- |")
    for tolerance in (1.0, 0.2, 0.05, 0.01):
        adaptive(tolerance)


def row(title: str, run) -> None:  # noqa: ANN001
    found = [run(Oracle(), num_steps) for num_steps in STEPS]
    worst = max(mean_error(samples) for samples in found)
    print(f"| {title} | " + " | ".join(cell(samples) for samples in found) + f" | {worst:.1f} |")


def multistep(order: int, spacing: str, solver=dpm_solver_multistep):  # noqa: ANN001, ANN201
    return lambda oracle, num_steps: solver(
        oracle,
        start(),
        SCHEDULE,
        num_steps=num_steps,
        order=order,
        spacing=spacing,  # pyrefly: ignore
        evaluation=Evaluation(form="x0"),
    )


def singlestep(oracle: Denoiser, num_steps: int) -> AV:
    return dpm_solver_singlestep(
        oracle, start(), SCHEDULE, num_steps=num_steps, evaluation=Evaluation(form="x0")
    )


def adaptive(tolerance: float) -> None:
    control = StepControl(
        absolute_tolerance=0.0078 * tolerance, relative_tolerance=0.05 * tolerance
    )
    oracle = Oracle()
    samples = dpm_solver_adaptive(
        oracle, start(), SCHEDULE, control=control, evaluation=Evaluation(form="x0")
    )
    title = "published tolerances" if tolerance == 1 else f"times {tolerance}"
    print(f"| {title} | {oracle.calls} | {cell(samples)} | {mean_error(samples):.1f} |")


if __name__ == "__main__":
    main()
