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
DERIVED = {
    "alphas_cumprod_next": lambda a: torch.cat([a[1:], a.new_zeros(1)]),
    "log_one_minus_alphas_cumprod": lambda a: (1 - a).log(),
    "sqrt_recip_alphas_cumprod": lambda a: a.rsqrt(),
    "sqrt_recipm1_alphas_cumprod": lambda a: (1 / a - 1).sqrt(),
}
"""Tables that nothing here keeps, as functions of `alpha_bar`."""


def find(folder, name):
    if not (folder / name).exists():
        pytest.skip(f"no {name} in {folder}")
    return folder / name


def table(schedule, name):
    if name in DERIVED:
        return DERIVED[name](schedule.alpha_bar)
    return getattr(schedule, OUR_NAME.get(name, name))


def schedule_named(prefix):
    """`linear1000_ddim25`: kind, length, and after an underscore the spacing."""
    kind, length, _, spacing = re.fullmatch(r"([a-z]+)(\d+)(_(.+))?", prefix).groups()
    schedule = SCHEDULES[kind](int(length))
    return respace(schedule, spacing.replace("_", ",")) if spacing else schedule


def test_every_table_of_every_schedule_matches_in_float64(parity_folder):
    tables = load_file(find(parity_folder("mm_diffusion"), "diffusion_tables.safetensors"))
    assert tables
    for key, wanted in tables.items():
        prefix, name = key.split("/")
        got = table(schedule_named(prefix), name)
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
    found = [key for key in tables if key.startswith("schedule/")]
    assert found
    for key in found:
        name = key.removeprefix("schedule/")
        wanted = tables[key]
        got = table(schedule, name).float()
        if name == "posterior_log_variance_clipped":
            # Entry 0 is the logarithm of 1e-20 there and of the value at 1 here.
            got, wanted = got[1:], wanted[1:]
        assert (got - wanted).abs().max() <= 1e-6 * torch.max(wanted.abs()), key
