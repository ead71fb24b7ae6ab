"""The exponential updates that DPM-Solver and DPM-Solver++ are made of.

Both solve the probability-flow equation in lambda = log(alpha / sigma). One takes the noise
estimate for smooth in lambda ("epsilon" form), the other the clean estimate ("x0" form, called ++).
With h = lambda_t - lambda_s and

    a = alpha, b = sigma, k = +h  in the epsilon form,
    a = sigma, b = alpha, k = -h  in the x0 form,

both read x_t = (a_t / a_s) x_s - b_t (psi_1(k) m + psi_2(k) D1 + psi_3(k) D2), where m is the
network's answer at s, D1 and D2 are scaled differences of its answers, and
psi_1(k) = e^k - 1, psi_2(k) = psi_1(k) / k - 1, psi_3(k) = psi_2(k) / k - 1/2 and so on.

Source: Lu et al. 2022a (DPM-Solver), algorithms 1 and 2 and appendix D; Lu et al. 2022b
(DPM-Solver++), algorithms 1 and 2.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from soundreel.diffusion.denoiser import Denoiser, Guide, as_prediction, estimate_x0
from soundreel.diffusion.process import PredictionType, per_sample, to_epsilon
from soundreel.diffusion.vp_time import VPTime
from soundreel.types import AV

Time = Float[Tensor, " batch"]

Thresholding = Literal["none", "static", "dynamic"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The solver's use of the network.

    Args:
        form: which estimate the solver takes for smooth: `"epsilon"` (DPM-Solver) or `"x0"`
            (DPM-Solver++).
        thresholding: limit clean estimates to [-1, 1] by clipping (`"static"`) or by dividing each
            sample by its 0.995 quantile where that exceeds 1 (`"dynamic"`); x0 form only.
        official_times: cut off the steps that the network is given, as MM-Diffusion's solver does
            (see `VPTime`), instead of rounding them.
        prediction_type: what the network estimates.
    """

    form: Literal["epsilon", "x0"] = "epsilon"
    thresholding: Thresholding = "none"
    official_times: bool = False
    prediction_type: PredictionType = "epsilon"

    def __post_init__(self) -> None:
        if self.form not in ("epsilon", "x0"):
            raise ValueError(f"form is 'epsilon' or 'x0', got {self.form!r}")
        if self.thresholding not in ("none", "static", "dynamic"):
            raise ValueError(
                f"thresholding is 'none', 'static' or 'dynamic', got {self.thresholding!r}"
            )
        if self.form == "epsilon" and self.thresholding != "none":
            raise ValueError("thresholding works on clean estimates: use form='x0'")


class Solver:
    """The denoiser of one run, and the exponential updates that all methods are made of."""

    def __init__(
        self,
        denoiser: Denoiser,
        time: VPTime,
        evaluation: Evaluation,
        guide: Guide | None,
    ) -> None:
        self.denoiser = denoiser
        self.time = time
        self.evaluation = evaluation
        self.guide = guide

    def evaluate(self, xt: AV, time: Time) -> AV:
        """Return the noise or clean estimate at a time, whichever form is solved for."""
        evaluation = self.evaluation
        level = self.time.level(time)
        timestep = self.time.network_timestep(time)
        if evaluation.form == "epsilon" and self.guide is None:
            # Not by way of x0, which would cost precision where there is little noise.
            output = as_prediction(self.denoiser(xt, timestep)).mean_output
            return to_epsilon(output, xt, level, evaluation.prediction_type)
        x0 = estimate_x0(
            self.denoiser, xt, timestep, level, evaluation.prediction_type, self.guide
        ).mean_output
        if evaluation.form == "epsilon":
            return to_epsilon(x0, xt, level, "x0")
        if evaluation.thresholding == "static":
            return x0.map(lambda x: x.clamp(-1, 1))
        if evaluation.thresholding == "dynamic":
            return x0.map(dynamic_threshold)
        return x0

    def update(self, xt: AV, start: Time, end: Time, answers: list[tuple[Time, AV]]) -> AV:
        """Return (a_t / a_s) x_s - b_t times the sum of weighted answers."""
        if self.evaluation.form == "epsilon":
            ratio = (self.time.log_alpha(end) - self.time.log_alpha(start)).exp()
            factor = self.time.level(end).sigma
        else:
            here, there = self.time.level(start), self.time.level(end)
            ratio, factor = there.sigma / here.sigma, there.alpha
        result = scaled(xt, ratio)
        for weight, answer in answers:
            result = result - scaled(answer, factor * weight)
        return result

    def first_order(self, xt: AV, start: Time, end: Time, m: AV) -> AV:
        return self.update(xt, start, end, [(psi_1(self.step(start, end)), m)])

    def step(self, start: Time, end: Time) -> Time:
        """Return k, the signed step in lambda."""
        h = self.time.half_log_snr(end) - self.time.half_log_snr(start)
        return h if self.evaluation.form == "epsilon" else -h

    def share(self, start: Time, time: Time, end: Time) -> Time:
        """Return where a time lies, as a share of the way from `start` to `end` in lambda."""
        low, middle, high = (self.time.half_log_snr(t) for t in (start, time, end))
        return (middle - low) / (high - low)

    def between(self, start: Time, end: Time, share: Time) -> Time:
        """Return the time at a share of the way from `start` to `end` in lambda."""
        low, high = self.time.half_log_snr(start), self.time.half_log_snr(end)
        return self.time.time_of(low + share * (high - low))

    def part_way(self, xt: AV, start: Time, end: Time, m: AV, share: Time) -> tuple[AV, Time]:
        """Return first-order update to a share of the way in lambda, and the time there."""
        time = self.between(start, end, share)
        weight = psi_1(share * self.step(start, end))
        return self.update(xt, start, time, [(weight, m)]), time

    def second_order(self, xt: AV, start: Time, end: Time, m: AV, m1: AV, share: Time) -> AV:
        """Update of order 2, with `m1` taken at `share` of the way in lambda.

        A negative share is an answer from before `start`: that is the multistep method. The
        published update weights the difference by psi_1 / (2 share), not psi_2 / share; the two
        agree to the order of the method.
        """
        weight = psi_1(self.step(start, end))
        return self.update(xt, start, end, [(weight, m), (weight * 0.5 / share, m1 - m)])

    def third_order(
        self, xt: AV, start: Time, end: Time, answers: list[AV], shares: list[Time]
    ) -> AV:
        """Update with order 3 in a single step, which evaluates the network once more on the way.

        It has order 3 if the second share is 2/3, as on grids even in log-SNR.

        Args:
            answers: m at the start and m1 at the first intermediate time.
            shares: where the two intermediate times lie, as shares of the way in lambda.
        """
        (m, m1), (share1, share2) = answers, shares
        step = self.step(start, end)
        middle = self.between(start, end, share2)
        inner = share2 * step
        on_the_way = self.update(
            xt, start, middle, [(psi_1(inner), m), (share2 / share1 * psi_2(inner), m1 - m)]
        )
        m2 = self.evaluate(on_the_way, middle)
        return self.update(xt, start, end, [(psi_1(step), m), (psi_2(step) / share2, m2 - m)])

    def polynomial(
        self, xt: AV, start: Time, end: Time, answers: list[AV], shares: list[Time]
    ) -> AV:
        """Update with the polynomial through up to four answers, integrated exactly.

        Its order is the number of answers. With three from `start` and before it is the multistep
        update of order 3; with one taken at `end` it is a corrector (see `unipc`).

        Args:
            answers: m at `start` first.
            shares: where the answers lie, as shares of the way in lambda: 0 first, negative before
                `start`, 1 at `end`.

        Deviation:
            The published update of DPM-Solver++'s multistep order 3 halves its last term, and
            thereby has order 2.
        """
        k = self.step(start, end)
        psis = (psi_1(k), psi_2(k), 2 * psi_3(k), 6 * psi_4(k))[: len(answers)]
        powers = torch.stack([torch.stack(shares) ** n for n in range(len(answers))])
        weights = torch.linalg.solve(powers.movedim(2, 0), torch.stack(psis, dim=1))
        return self.update(xt, start, end, list(zip(weights.unbind(dim=1), answers, strict=True)))


def psi_1(k: Time) -> Time:
    return torch.expm1(k)


def psi_2(k: Time) -> Time:
    """Return 0 where k is 0, a step of no length."""
    return torch.where(k == 0, 0.0, psi_1(k) / k - 1.0)


def psi_3(k: Time) -> Time:
    return torch.where(k == 0, 0.0, psi_2(k) / k - 0.5)


def psi_4(k: Time) -> Time:
    return torch.where(k == 0, 0.0, psi_3(k) / k - 1 / 6)


def scaled(pair: AV, factor: Time) -> AV:
    """Multiply each sample by its own number."""
    return pair.map(lambda x: per_sample(factor, x) * x)


def dynamic_threshold(x0: Tensor, quantile: float = 0.995, limit: float = 1.0) -> Tensor:
    """Limit each sample to its own quantile of absolute values, and scale it to at most `limit`.

    Source:
        Saharia et al. 2022 (Imagen), section 2.3.
    """
    flat = x0.abs().flatten(start_dim=1).float()
    bound = torch.stack([torch.quantile(sample, quantile) for sample in flat]).clamp(min=limit)
    bound = per_sample(bound, x0)
    return torch.minimum(torch.maximum(x0, -bound), bound) * (limit / bound)
