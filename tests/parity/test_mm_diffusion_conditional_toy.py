"""Zero-shot conditional sampling on the closed-form joint model: both directions, every method."""

import json

import pytest
import torch
from einops import rearrange, repeat
from safetensors.torch import load_file

from soundreel.diffusion.noise import ReplayNoise
from soundreel.diffusion.schedules import linear_schedule, respace
from soundreel.diffusion.zero_shot import HALF_PRECISION_FACTOR, official_weight, zero_shot_ddpm
from soundreel.types import AV


@pytest.fixture(scope="module")
def reference(parity_folder):
    folder = parity_folder("mm_diffusion")
    names = ("conditional_toy.safetensors", "conditional_toy.json", "samplers_toy.json")
    for name in names:
        if not (folder / name).exists():
            pytest.skip(f"no {name} in {folder}")
    data = load_file(folder / names[0])
    settings, toy = (json.loads((folder / name).read_text()) for name in names[1:])
    return data, settings, toy["toy_parameters"]


class JointToy:
    """The closed-form joint model; records the first timestep of each call."""

    def __init__(self, toy):
        self.toy = toy
        self.alpha_bar = linear_schedule().alpha_bar
        self.times = []

    def __call__(self, xt, timestep):
        self.times.append(int(timestep[0]))
        video, audio, toy = xt.video, xt.audio, self.toy
        alpha_bar = self.alpha_bar[timestep].to(video.dtype)
        a, s = (x.sqrt().reshape(-1, 1, 1) for x in (alpha_bar, 1 - alpha_bar))
        step = timestep.to(video.dtype)[:, None]
        frames = video.shape[1]
        mean_a = rearrange(audio, "b c (f n) -> b f (c n)", f=frames).mean(-1)
        mean_v = rearrange(video, "b f c h w -> b f (c h w)").mean(-1)
        swing_v = torch.sin(mean_a + 0.01 * step)
        swing_a = repeat(mean_v, "b f -> b 1 (f n)", n=audio.shape[-1] // frames)
        swing_a = torch.sin(2 * swing_a - 0.02 * step[:, None])
        flat = rearrange(video, "b f c h w -> b f (c h w)")
        noise_v = s * (flat - a * toy["mv"]) / (a**2 * toy["sv"] ** 2 + s**2)
        noise_v = noise_v + toy["c"] * a * swing_v[..., None]
        noise_a = s * (audio - a * toy["ma"]) / (a**2 * toy["sa"] ** 2 + s**2)
        return AV(noise_v.reshape(video.shape), noise_a + toy["c"] * a * swing_a)


def pair(data, name):
    return AV(data[f"{name}.video"], data[f"{name}.audio"])


def stack(data, name):
    video, audio = data[f"{name}.video"], data[f"{name}.audio"]
    return [AV(v, a) for v, a in zip(video, audio, strict=True)]


def test_both_methods_follow_the_reference_in_both_directions(reference):
    data, settings, toy_parameters = reference
    assert settings
    start, clean = pair(data, "x_T"), pair(data, "given")
    for entry, setting in settings.items():
        name = entry.split("2")[0]
        given = AV(None, None).replace(name, clean[name])
        assert setting["loss_multiplier"] in (1, HALF_PRECISION_FACTOR)
        weight = official_weight(
            setting["classifier_scale"],
            batch_size=start.batch_size,
            num_elements=clean[name][0].numel(),
            half_precision=setting["loss_multiplier"] != 1,
        )
        toy, states = JointToy(toy_parameters), []
        zero_shot_ddpm(
            toy,
            start,
            respace(linear_schedule(), setting["steps"]),
            given=given,
            noise=ReplayNoise(stack(data, f"{entry}/step_noise")),
            weight=weight,
            callback=lambda step, num_steps, xt, states=states: states.append(xt),
        )
        assert toy.times == setting["model_times"]
        for got, wanted in zip(states, stack(data, f"{entry}/x_after_step"), strict=True):
            for modality in wanted.present:
                difference = (got[modality] - wanted[modality]).abs().max()
                assert difference <= 1e-5 * wanted[modality].abs().max(), (entry, modality)
