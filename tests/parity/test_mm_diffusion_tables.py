"""Schedules and the choice of kept steps, against the reference tables."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from soundreel.diffusion.schedules import SCHEDULES, respace, space_timesteps

OUR_NAME = {
    "alphas_cumprod": "alpha_bar",
    "alphas_cumprod_prev": "alpha_bar_prev",
    "sqrt_alphas_cumprod": "sqrt_alpha_bar",
    "sqrt_one_minus_alphas_cumprod": "sqrt_one_minus_alpha_bar",
}
NOT_KEPT = {
    "alphas_cumprod_next",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
}
"""Tables that nothing here reads: each is a function of `alpha_bar`."""


def find(folder, name):
    if not (folder / name).exists():
        pytest.skip(f"no {name} in {folder}")
    return folder / name


def schedule_named(prefix):
    """`linear1000_ddim25`: kind, length, and after an underscore the spacing."""
    kind, length, _, spacing = re.fullmatch(r"([a-z]+)(\d+)(_(.+))?", prefix).groups()
    schedule = SCHEDULES[kind](int(length))
    return respace(schedule, spacing.replace("_", ",")) if spacing else schedule


def test_every_table_of_every_schedule_matches_in_float64(parity_folder):
    tables = load_file(find(parity_folder("mm_diffusion"), "diffusion_tables.safetensors"))
    tables = {key: x for key, x in tables.items() if key.split("/")[1] not in NOT_KEPT}
    assert tables
    for key, wanted in tables.items():
        prefix, name = key.split("/")
        got = getattr(schedule_named(prefix), OUR_NAME.get(name, name))
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), key
        assert (got - wanted).abs().max() <= 1e-12 * wanted.abs().max(), key


def test_kept_steps_match_or_are_refused(parity_folder):
    path = find(parity_folder("mm_diffusion"), "timestep_respacing.json")
    cases = json.loads(path.read_text())
    assert cases
    for case, wanted in cases.items():
        num_timesteps, spacing = case.split("|")
        if wanted == "ValueError":
            with pytest.raises(ValueError, match="timesteps"):
                space_timesteps(int(num_timesteps), spacing)
        else:
            assert space_timesteps(int(num_timesteps), spacing) == wanted, case


def test_scaled_linear_schedule_matches_mm_ldm(parity_folder):
    folder = parity_folder("mm_ldm")
    tables = load_file(find(folder, "ddim.safetensors"))
    config = json.loads(find(folder, "ddim.json").read_text())["config"]
    schedule = SCHEDULES["scaled-linear"](
        config["num_train_timesteps"], config["linear_start"], config["linear_end"]
    )
    names = [key.removeprefix("schedule/") for key in tables if key.startswith("schedule/")]
    names = [name for name in names if name not in NOT_KEPT]
    assert names
    for name in names:
        wanted = tables[f"schedule/{name}"]
        got = getattr(schedule, OUR_NAME.get(name, name)).float()
        if name == "posterior_log_variance_clipped":
            # Entry 0 is the logarithm of 1e-20 there and of the value at 1 here.
            got, wanted = got[1:], wanted[1:]
        assert (got - wanted).abs().max() <= 1e-6 * torch.max(wanted.abs()), name
