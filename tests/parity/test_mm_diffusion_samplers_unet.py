"""Short trajectories of the tiny coupled network, against the reference."""

import pytest
from safetensors.torch import load_file

from soundreel.diffusion.ddim import ddim
from soundreel.diffusion.dpm_solver import dpm_solver_singlestep
from soundreel.diffusion.dpm_update import Evaluation
from soundreel.diffusion.noise import ReplayNoise
from soundreel.diffusion.schedules import linear_schedule, respace
from soundreel.diffusion.zero_shot import official_weight, zero_shot_ddpm
from soundreel.types import AV

TOLERANCE = 1e-3
OFFICIAL_GUIDANCE_SCALE = 2000.0


@pytest.fixture(scope="module")
def reference(parity_folder):
    path = parity_folder("mm_diffusion") / "samplers_unet.safetensors"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in {path.parent}")
    return load_file(path)


def pair(data, name):
    if f"{name}.video" not in data:
        pytest.skip(f"{name} is not in this set")
    return AV(data[f"{name}.video"], data[f"{name}.audio"])


def stack(data, name):
    video, audio = data[f"{name}.video"], data[f"{name}.audio"]
    return [AV(v, a) for v, a in zip(video, audio, strict=True)]


def assert_close(got, wanted):
    for modality in wanted.present:
        error = (got[modality] - wanted[modality]).abs().max() / wanted[modality].abs().max()
        assert error <= TOLERANCE, f"{modality}: relative error {error:.1e}"


def test_ddim_follows_the_reference_step_by_step(reference, reference_coupled_unet):
    data, network = reference, reference_coupled_unet("unet_main")
    entries = sorted({k.split("/")[0] for k in data if k.startswith("ddim")})
    assert entries
    for entry in entries:
        spacing, _, option = entry.partition("_")
        states = []
        ddim(
            network,
            pair(data, f"{spacing}/x_T"),
            respace(linear_schedule(), spacing),
            clip_x0=option != "noclip",
            callback=lambda step, num_steps, xt, states=states: states.append(xt),
        )
        for got, wanted in zip(states, stack(data, f"{entry}/x_after_step"), strict=True):
            assert_close(got, wanted)


def test_dpm_solver_ends_where_the_reference_does(reference, reference_coupled_unet):
    data, network = reference, reference_coupled_unet("unet_main")
    entries = sorted({k.split("/")[0] for k in data if k.startswith("dpm_singlestep")})
    if not entries:
        pytest.skip("dpm_singlestep* is not in this set")
    start = next(k.split("/")[0] for k in data if k.endswith("/x_T.video"))
    for entry in entries:
        order, num_steps = entry.removeprefix("dpm_singlestep").split("_")
        final = dpm_solver_singlestep(
            network,
            pair(data, f"{start}/x_T"),
            linear_schedule(),
            num_steps=int(num_steps),
            order=int(order),
            evaluation=Evaluation(official_times=True),
        )
        assert_close(final, pair(data, f"{entry}/final"))


@pytest.mark.parametrize("direction", ["audio2video", "video2audio"])
def test_gradient_guidance_follows_the_reference_step_by_step(
    reference, reference_coupled_unet, direction
):
    data, network = reference, reference_coupled_unet("unet_main")
    if f"guided.{direction}/x_after_step.video" not in data:
        pytest.skip(f"guided.{direction} is not in this set")
    name = direction.split("2")[0]
    given = AV(None, None).replace(name, pair(data, "guided/given")[name])
    noises = stack(data, f"guided.{direction}/step_noise")
    start = next(k.split("/")[0] for k in data if k.endswith("/x_T.video"))
    states = []
    zero_shot_ddpm(
        network,
        pair(data, f"{start}/x_T"),
        respace(linear_schedule(), len(noises)),
        given=given,
        noise=ReplayNoise(noises),
        weight=official_weight(
            OFFICIAL_GUIDANCE_SCALE,
            batch_size=given.batch_size,
            num_elements=given[name][0].numel(),
            half_precision=False,
        ),
        callback=lambda step, num_steps, xt: states.append(xt),
    )
    for got, wanted in zip(states, stack(data, f"guided.{direction}/x_after_step"), strict=True):
        assert_close(got, wanted)
