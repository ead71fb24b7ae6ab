"""Every trajectory on the closed-form joint and image models of the reference data."""

import json
from math import floor

import pytest
import torch
from einops import rearrange, repeat
from safetensors.torch import load_file

from soundreel.diffusion.ddim import ddim
from soundreel.diffusion.ddpm import ddpm
from soundreel.diffusion.denoiser import Prediction
from soundreel.diffusion.dpm_adaptive import StepControl, dpm_solver_adaptive
from soundreel.diffusion.dpm_solver import dpm_solver_multistep, dpm_solver_singlestep
from soundreel.diffusion.dpm_update import Evaluation
from soundreel.diffusion.noise import ReplayNoise
from soundreel.diffusion.schedules import linear_schedule, respace
from soundreel.types import AV

SPACING = {"logSNR": "log_snr", "time_uniform": "uniform", "time_quadratic": "quadratic"}
TOLERANCE = 1e-5
SEEDS = 5


@pytest.fixture(scope="module")
def reference(parity_folder):
    folder = parity_folder("mm_diffusion")
    for name in ("samplers_toy.safetensors", "samplers_toy.json"):
        if not (folder / name).exists():
            pytest.skip(f"no {name} in {folder}")
    settings = json.loads((folder / "samplers_toy.json").read_text())
    return load_file(folder / "samplers_toy.safetensors"), settings


class JointToy:
    """The closed-form joint model; records the first timestep of each call."""

    def __init__(self, settings):
        self.toy = settings["toy_parameters"]
        self.alpha_bar = linear_schedule().alpha_bar
        self.times = []

    def __call__(self, xt, timestep):
        self.times.append(int(timestep[0]))
        video, audio, toy = xt.video, xt.audio, self.toy
        abar = self.alpha_bar[timestep].to(video.dtype)
        a5, s5 = (x.sqrt().reshape(-1, 1, 1, 1, 1) for x in (abar, 1 - abar))
        a3, s3 = a5[..., 0, 0], s5[..., 0, 0]
        step = timestep.to(video.dtype)
        frames = video.shape[1]
        mean_a = rearrange(audio, "b c (f n) -> b f (c n)", f=frames).mean(-1)
        mean_v = video.mean(dim=(2, 3, 4))
        swing_v = torch.sin(mean_a + 0.01 * step[:, None])
        swing_a = repeat(mean_v, "b f -> b 1 (f n)", n=audio.shape[-1] // frames)
        swing_a = torch.sin(2 * swing_a - 0.02 * step[:, None, None])
        return AV(
            s5 * (video - a5 * toy["mv"]) / (a5**2 * toy["sv"] ** 2 + s5**2)
            + toy["c"] * a5 * swing_v[:, :, None, None, None],
            s3 * (audio - a3 * toy["ma"]) / (a3**2 * toy["sa"] ** 2 + s3**2)
            + toy["c"] * a3 * swing_a,
        )


class ImageToy:
    """The closed-form image-stage model with a learned variance."""

    def __init__(self, low_res):
        self.up = repeat(low_res, "b c h w -> b c (h 2) (w 2)")
        self.alpha_bar = linear_schedule().alpha_bar
        self.times = []

    def __call__(self, xt, timestep):
        self.times.append(int(timestep[0]))
        x = xt.video
        abar = self.alpha_bar[timestep].to(x.dtype).reshape(-1, 1, 1, 1)
        a, s = abar.sqrt(), (1 - abar).sqrt()
        noise = s * (x - a * self.up) / (0.04 * a**2 + s**2) + 0.05 * a * torch.sin(3 * x)
        return Prediction(AV(noise, None), AV(torch.cos(2 * x + self.up), None))


def pair(data, name):
    return AV(data[f"{name}.video"], data[f"{name}.audio"])


def stack(data, name):
    video, audio = data[f"{name}.video"], data[f"{name}.audio"]
    return [AV(v, a) for v, a in zip(video, audio, strict=True)]


def assert_close(got, wanted, tolerance=TOLERANCE):
    for modality in wanted.present:
        difference = (got[modality] - wanted[modality]).abs().max()
        assert difference <= tolerance * wanted[modality].abs().max(), modality


class AgainstFloat64:
    """One setting of a solver in float64, and how far float32 rounding scatters it.

    Long steps and the last few times amplify rounding by as much as ten thousand (sigma^2 is
    1 - 0.9999 there), and each processor rounds `exp` and `log` in its own way. So the reference
    and our float32 are both held against float64, each as near as rounding lets them be.
    """

    def __init__(self, trajectories, solve, start, steps=None):
        self.float32 = trajectories(lambda: solve(start), steps=steps)
        start = start.to(torch.float64)
        self.exact, *self.rounded = [
            trajectories(lambda: solve(start), exact=True, steps=steps, seed=seed)
            for seed in (None, *range(SEEDS))
        ]

    def check_steps(self, asked):
        """Fail where float64 asks for another step, unless rounding decides between the two."""
        for position, (step, exact) in enumerate(zip(asked, self.exact.steps, strict=True)):
            reach = 2 * max(abs(run.steps[position] - exact) for run in self.rounded)
            assert reach < 0.5
            assert floor(exact - reach) <= step <= floor(exact + reach), position

    def check(self, final, largest_scatter):
        for name in final.present:
            wanted = self.exact.final[name]
            peak = wanted.abs().max()
            scatter = max((run.final[name] - wanted).abs().max() for run in self.rounded)
            assert scatter <= largest_scatter * peak, f"{name} scatters by {scatter / peak:.1e}"
            error = (final[name] - wanted).abs().max()
            assert error <= TOLERANCE * peak + 2 * scatter, f"{name} is off by {error / peak:.1e}"


class Recorder:
    def __init__(self):
        self.states = []

    def __call__(self, step, num_steps, xt):
        assert step == len(self.states) + 1
        self.states.append(xt)


def names(data, prefix, part=None):
    found = sorted({key.split("/")[0] for key in data if key.startswith(prefix)})
    return [
        n
        for n in found
        if "/" not in n and (part is None or any(key.startswith(f"{n}/{part}") for key in data))
    ]


def skip_if_none(entries, what):
    if not entries:
        pytest.skip(f"no {what} in this set")


def test_ancestral_sampling_follows_the_reference_step_by_step(reference):
    data, settings = reference
    entries = names(data, "ddpm_")
    skip_if_none(entries, "ddpm_*")
    for entry in entries:
        steps = len(settings["model_times"][entry])
        toy, record = JointToy(settings), Recorder()
        ddpm(
            toy,
            pair(data, f"{entry}/x_T"),
            respace(linear_schedule(), steps),
            noise=ReplayNoise(stack(data, f"{entry}/step_noise")),
            clip_x0="noclip" not in entry,
            callback=record,
        )
        assert toy.times == settings["model_times"][entry]
        for got, wanted in zip(record.states, stack(data, f"{entry}/x_after_step"), strict=True):
            assert_close(got, wanted)


def test_ddim_follows_the_reference_step_by_step(reference):
    data, settings = reference
    entries = names(data, "ddim_", "x_after_step")
    skip_if_none(entries, "ddim_*")
    for entry in entries:
        toy, record = JointToy(settings), Recorder()
        spacing = entry.removeprefix("ddim_")
        ddim(
            toy,
            pair(data, f"{entry}/x_T"),
            respace(linear_schedule(), spacing),
            callback=record,
        )
        assert toy.times == settings["model_times"][entry]
        for got, wanted in zip(record.states, stack(data, f"{entry}/x_after_step"), strict=True):
            assert_close(got, wanted)


def test_stochastic_ddim_ends_where_the_reference_does(reference):
    data, settings = reference
    entries = [n for n in names(data, "ddim_") if "_eta" in n]
    skip_if_none(entries, "ddim_*_eta*")
    for entry in entries:
        spacing, eta = entry.removeprefix("ddim_").split("_eta")
        got = ddim(
            JointToy(settings),
            pair(data, f"{entry}/x_T"),
            respace(linear_schedule(), spacing),
            noise=ReplayNoise(stack(data, f"{entry}/step_noise")),
            eta=float(eta),
        )
        assert_close(got, pair(data, f"{entry}/final"))


def is_adaptive(settings, entry):
    return settings["dpm_settings"][entry.removeprefix("dpm.")]["method"] == "adaptive"


def run_dpm(toy, xt, setting):
    evaluation = Evaluation(
        form="x0" if setting["predict_x0"] else "epsilon",
        thresholding="dynamic" if setting["thresholding"] else "none",
        official_times=True,
    )
    if setting["method"] == "adaptive":
        return dpm_solver_adaptive(
            toy,
            xt,
            linear_schedule(),
            order=setting["order"],
            control=StepControl(shared=True),
            evaluation=evaluation,
        )
    solve = {"singlestep": dpm_solver_singlestep, "multistep": dpm_solver_multistep}
    return solve[setting["method"]](
        toy,
        xt,
        linear_schedule(),
        num_steps=setting["steps"],
        order=setting["order"],
        spacing=SPACING[setting["skip_type"]],
        evaluation=evaluation,
    )


def test_dpm_solver_ends_where_the_reference_does_and_asks_at_its_times(reference, trajectories):
    data, settings = reference
    entries = [n for n in names(data, "dpm.") if not is_adaptive(settings, n)]
    skip_if_none(entries, "dpm.* with given steps")
    for entry in entries:
        setting = settings["dpm_settings"][entry.removeprefix("dpm.")]
        steps, start = settings["model_times"][entry], pair(data, "dpm/x_T")
        toy = JointToy(settings)
        run_dpm(toy, start, setting)
        assert len(toy.times) == len(steps) == setting["nfe"] == setting["steps"]

        def solve(start, setting=setting):
            return run_dpm(JointToy(settings), start, setting)

        float64 = AgainstFloat64(trajectories, solve, start, steps)
        float64.check_steps(toy.times)
        float64.check_steps(steps)
        float64.check(float64.float32.final, 5e-3)
        end = "corrected" if f"{entry}/corrected.video" in data else "final"
        float64.check(pair(data, f"{entry}/{end}"), 5e-3)


def test_adaptive_dpm_solver_ends_where_the_reference_does(reference, trajectories):
    """The first step is so short that its error estimate, and so all later steps, feel rounding.

    A rejected step keeps its first evaluation here, while the reference repeats it.
    """
    data, settings = reference
    entries = [n for n in names(data, "dpm.") if is_adaptive(settings, n)]
    skip_if_none(entries, "adaptive dpm.*")
    for entry in entries:
        setting = settings["dpm_settings"][entry.removeprefix("dpm.")]
        toy, start = JointToy(settings), pair(data, "dpm/x_T")
        run_dpm(toy, start, setting)
        steps = settings["model_times"][entry]

        def solve(start, setting=setting):
            return run_dpm(JointToy(settings), start, setting)

        float64 = AgainstFloat64(trajectories, solve, start)
        first_attempt = setting["order"]
        assert toy.times[:first_attempt] == steps[:first_attempt]
        counts = [len(set(map(floor, run.steps))) for run in (float64.exact, *float64.rounded)]
        for asked in (toy.times, steps):
            assert min(counts) - 2 <= len(set(asked)) <= max(counts) + 2
        assert len(toy.times) <= len(steps) + setting["order"]
        float64.check(float64.float32.final, 1e-2)
        float64.check(pair(data, f"{entry}/final"), 1e-2)


def test_corrected_results_differ_from_the_defective_ones(reference):
    data, settings = reference
    entries = names(data, "dpm.defect_")
    skip_if_none(entries, "dpm.defect_*")
    for entry in entries:
        setting = settings["dpm_settings"][entry.removeprefix("dpm.")]
        got = run_dpm(JointToy(settings), pair(data, "dpm/x_T"), setting)
        official = data[f"{entry}/official.audio"]
        assert (got.audio - official).abs().max() > 100 * TOLERANCE * official.abs().max()


def test_continuous_schedule_and_grids_match(reference, official_times, random_rounding):
    data, _ = reference

    def tables(time):
        at = data["dpm/schedule.t"].to(time.dtype)
        found = {
            "dpm/schedule.log_alpha": time.log_alpha(at),
            "dpm/schedule.sigma": time.level(at).sigma,
            "dpm/schedule.lambda": time.half_log_snr(at),
            "dpm/schedule.inverse_of_lambda": time.time_of(
                data["dpm/schedule.lambda"].to(time.dtype)
            ),
        }
        for key in data:
            if key.startswith("dpm/time_grid_"):
                kind, _, count = key.removeprefix("dpm/time_grid_").rpartition("_")
                found[key] = time.grid(SPACING[kind], int(count), time.last, time.first)
        return found

    ours = tables(official_times(exact=False))
    exact, rounded = official_times(), []
    for seed in range(SEEDS):
        with random_rounding(seed):
            rounded.append(tables(exact))
    for key, wanted in tables(exact).items():
        scatter = max((table[key] - wanted).abs().max() for table in rounded)
        peak = wanted.abs().max()
        # The last times have sigma^2 = 1 - 0.9999, of which float32 keeps three digits.
        assert scatter <= 3e-4 * peak, key
        for found in (ours[key], data[key]):
            assert (found - wanted).abs().max() <= 1e-6 * peak + 2 * scatter, key


def test_image_stage_sampling_matches(reference, trajectories):
    data, settings = reference
    if "sr/x_T" not in data:
        pytest.skip("no sr/* in this set")
    start = AV(data["sr/x_T"], None)
    for entry in names(data, "sr."):
        toy, record = ImageToy(data["sr/low_res"]), Recorder()
        if entry.startswith("sr.script_ddim"):
            spacing = entry.removeprefix("sr.script_")
            estimates = []

            def keep_estimate(estimate, xt, level, estimates=estimates):
                found = estimate(xt)
                # x_t is known to float32 precision, which dividing by alpha makes coarser.
                precision = max(TOLERANCE, 1e-6 / float(level.alpha[0]))
                estimates.append((found.mean_output.video.clamp(-1, 1), precision))
                return found

            schedule = respace(linear_schedule(), spacing)
            ddim(toy, start, schedule, guide=keep_estimate, callback=record)
            wanted_estimates = data[f"{entry}/pred_x0"]
            for (got, precision), wanted in zip(estimates, wanted_estimates, strict=True):
                assert_close(AV(got, None), AV(wanted, None), precision)
        elif entry.startswith("sr.ddpm"):
            noise = data[f"{entry}/step_noise"]
            ddpm(
                toy,
                AV(data[f"{entry}/x_T"], None),
                respace(linear_schedule(), len(noise)),
                noise=ReplayNoise([AV(n, None) for n in noise]),
                callback=record,
            )
        else:
            kind, _, rest = entry.removeprefix("sr.").partition("_multistep")
            order, steps = rest.split("_")
            setting = {"predict_x0": kind == "dpmpp", "thresholding": False, "order": int(order)}
            setting |= {"method": "multistep", "steps": int(steps), "skip_type": "time_uniform"}
            steps = settings["model_times"][entry]
            run_dpm(toy, start, setting)

            def solve(start, setting=setting):
                return run_dpm(ImageToy(data["sr/low_res"]), start, setting)

            float64 = AgainstFloat64(trajectories, solve, start, steps)
            float64.check_steps(toy.times)
            float64.check_steps(steps)
            float64.check(float64.float32.final, 1e-3)
            float64.check(AV(data[f"{entry}/final"], None), 1e-3)
        if record.states and entry in settings["model_times"]:
            assert toy.times == settings["model_times"][entry]
        if record.states:
            states = data[f"{entry}/x_after_step"]
            for got, wanted in zip(record.states, states, strict=True):
                assert_close(got, AV(wanted, None))
