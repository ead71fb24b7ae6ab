"""MM-LDM's joint, guided DDIM on a closed-form predictor: every stored step of every run."""

import json

import pytest
import torch
from safetensors.torch import load_file

from soundreel.diffusion.ddim import ddim
from soundreel.diffusion.guidance import classifier_free
from soundreel.diffusion.noise import ReplayNoise
from soundreel.diffusion.process import noise_level, q_sample, to_x0
from soundreel.diffusion.schedules import respace, scaled_linear_schedule
from soundreel.types import AV


@pytest.fixture(scope="module")
def reference(parity_folder):
    folder = parity_folder("mm_ldm")
    for name in ("ddim.safetensors", "ddim.json"):
        if not (folder / name).exists():
            pytest.skip(f"no {name} in {folder}")
    data = load_file(folder / "ddim.safetensors")
    config = json.loads((folder / "ddim.json").read_text())["config"]
    schedule = scaled_linear_schedule(
        config["num_train_timesteps"], config["linear_start"], config["linear_end"]
    )
    return data, config, schedule


def pair(data, name):
    return AV(data[f"{name}/video"], data[f"{name}/audio"])


def predictor(context, condition):
    m = context.mean(dim=(1, 2)).reshape(-1, 1, 1, 1)

    def denoiser(xt, timestep):
        s = (timestep / 1000).reshape(-1, 1, 1, 1).float()
        mean_a, mean_v = (x.mean(dim=(1, 2, 3), keepdim=True) for x in (xt.audio, xt.video))
        audio = torch.tanh(0.7 * xt.audio + 0.3 * mean_v + m - 0.2 * s)
        video = torch.tanh(0.6 * xt.video - 0.4 * mean_a + 0.5 * m + 0.3 * s)
        return AV(video + 0.1 * condition.video, audio + 0.1 * condition.audio)

    return denoiser


def guided_predictor(data, config, guided, mode):
    context, start = data["in/context"], AV(data["in/xT_video"], data["in/xT_audio"])
    condition = start.map(torch.zeros_like)
    if mode == "a2v":
        condition = condition.replace("audio", data["in/cond_audio"])
    elif mode == "v2a":
        condition = condition.replace("video", data["in/cond_video"])
    if not guided:
        return predictor(context, condition)

    def branches(xt, timestep, kept):
        both = torch.cat([context, context]) * kept[:, None, None]
        return predictor(both, condition.map(lambda x: torch.cat([x, x])))(xt, timestep)

    return classifier_free(
        branches,
        video_scale=config["guidance_video"],
        audio_scale=config["guidance_audio"],
    )


def assert_close(got, wanted):
    for modality in wanted.present:
        scale = max(1.0, float(wanted[modality].abs().max()))
        assert (got[modality] - wanted[modality]).abs().max() <= 1e-5 * scale, modality


def test_kept_steps_and_noise_levels_match(reference):
    data, config, schedule = reference
    for run, (num_steps, _, _, _) in config["runs"].items():
        kept = respace(schedule, f"compvis{num_steps}")
        assert kept.timestep_map.tolist() == data[f"out/{run}/ddim_timesteps"].tolist()
        assert torch.allclose(kept.alpha_bar.float(), data[f"out/{run}/alphas"], rtol=1e-6)
        assert torch.allclose(
            kept.alpha_bar_prev.float(), data[f"out/{run}/alphas_prev"], rtol=1e-6
        )


def test_every_stored_step_of_every_run_matches(reference):
    data, config, schedule = reference
    start = AV(data["in/xT_video"], data["in/xT_audio"])
    for run, (num_steps, eta, guided, mode) in config["runs"].items():
        kept = respace(schedule, f"compvis{num_steps}")
        states, estimates = [], []

        def keep_estimate(estimate, xt, level, estimates=estimates):
            estimates.append(estimate(xt))
            return estimates[-1]

        noises = [pair(data, f"in/{run}/noise{k + 1}") for k in range(len(kept))] if eta else []
        ddim(
            guided_predictor(data, config, guided, mode),
            start,
            kept,
            noise=ReplayNoise(noises),
            eta=eta,
            clip_x0=False,
            guide=keep_estimate,
            callback=lambda step, num_steps, xt, states=states: states.append(xt),
        )
        assert len(states) == len(kept)
        stored = [n for n in range(len(kept)) if f"out/{run}/step{n + 1}/video" in data]
        assert len(kept) - 1 in stored
        for number in stored:
            assert_close(states[number], pair(data, f"out/{run}/step{number + 1}"))
        assert_close(estimates[-1].mean_output, pair(data, f"out/{run}/final_x0"))


def test_forward_noising_and_its_inverse_match(reference):
    data, _, schedule = reference
    timestep = data["in/q_t"]
    clean, noise = AV(data["in/xT_video"], None), AV(data["in/q_noise"], None)
    noisy = q_sample(clean, timestep, noise, schedule)
    assert_close(noisy, AV(data["out/q_sample"], None))
    estimate = to_x0(noise, noisy, noise_level(schedule, timestep), "epsilon")
    assert_close(estimate, AV(data["out/predict_x0"], None))
