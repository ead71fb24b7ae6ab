from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soundreel.data.latent_axes import (
    LatentAxesConfig,
    PerceptualAxes,
    latent_moments,
    leading_axes,
)
from soundreel.device import autocast
from soundreel.nn.waves import cosine_waves
from soundreel.types import AV, LatentSpec

LATENTS = LatentSpec(video_channels=3, video_size=2, audio_channels=2, audio_size=2)
CONFIG = LatentAxesConfig(latents=LATENTS, num_axes=12, whitening=0.5)


def steep_latents(count: int = 400) -> AV:
    """Latents whose elements' spread runs from 10 to 0.01, turned so that no element is an axis."""
    generator = torch.Generator().manual_seed(0)

    def make(shape):
        size = shape[0] * shape[1] * shape[2]
        turn, _ = torch.linalg.qr(torch.randn(size, size, generator=generator))
        spread = torch.logspace(1, -2, size)
        rows = torch.randn(count, size, generator=generator) * spread @ turn
        return (rows + 2).reshape(count, *shape)

    return AV(make(LATENTS.video_shape), make(LATENTS.audio_shape))


def variances(latents: AV, name: str) -> torch.Tensor:
    """Along the principal axes, largest first."""
    return torch.linalg.eigvalsh(torch.cov(latents[name].flatten(1).double().T)).flip(0)


def measured(latents: AV, **changes) -> PerceptualAxes:
    return PerceptualAxes.measured(replace(CONFIG, **changes), latent_moments([latents]))


def test_moments_do_not_depend_on_the_batches():
    latents = steep_latents()
    parts = latent_moments([latents.rows(slice(0, 7)), latents.rows(slice(7, 400))])
    whole = latent_moments([latents])
    assert all(torch.allclose(parts[name], whole[name], atol=1e-9) for name in whole)
    rows = latents["audio"].flatten(1).double()
    assert torch.allclose(whole["audio_covariance"], torch.cov(rows.T, correction=0), atol=1e-9)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_evening_is_the_power_that_is_taken_from_the_variances(whitening):
    latents = steep_latents()
    scaled = measured(latents, whitening=whitening).standardize(latents)
    before, after = variances(latents, "video"), variances(scaled, "video")
    slope = torch.diff(after.log())[:6] / torch.diff(before.log())[:6]
    assert torch.allclose(slope, torch.full_like(slope, 1 - whitening), atol=2e-2)
    assert torch.allclose(after.sum() / 12, torch.ones((), dtype=after.dtype), atol=1e-2)


def test_restoring_undoes_standardising_within_the_kept_axes():
    latents = steep_latents()
    axes = measured(latents)
    back = axes.restore(axes.standardize(latents))
    assert torch.allclose(back["video"], latents["video"], atol=1e-3)
    assert torch.allclose(back["audio"], latents["audio"], atol=1e-3)
    fewer = measured(latents, num_axes=5)
    lost = latents["video"] - fewer.restore(fewer.standardize(latents))["video"]
    share = lost.square().mean() / latents["video"].var(dim=0).mean()
    rest = variances(latents, "video")
    assert share == pytest.approx(float(rest[5:].sum() / rest.sum()), rel=0.05)


def test_mixed_precision_does_not_reach_the_axes():
    latents = steep_latents()
    axes = measured(latents)
    with autocast(torch.device("cpu"), "bfloat16"):
        scaled = axes.standardize(latents)["video"]
    assert torch.equal(scaled, axes.standardize(latents)["video"])


def test_one_modality_alone_is_scaled_as_with_the_other():
    latents = steep_latents()
    axes = measured(latents)
    alone = axes.standardize(AV(None, latents.audio))
    assert alone.video is None
    assert torch.equal(alone["audio"], axes.standardize(latents)["audio"])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.floats(0, 1))
def test_standardised_latents_stay_as_they_are_when_scaled_back_and_forth(num_axes, whitening):
    latents = steep_latents(60)
    axes = measured(latents, num_axes=num_axes, whitening=whitening)
    scaled = axes.standardize(latents)
    again = axes.standardize(axes.restore(scaled))
    assert torch.allclose(again["video"], scaled["video"], atol=1e-2)


def test_axes_along_which_nothing_changes_are_not_stretched():
    latents = steep_latents()
    latents.video[:, 0] = 1.0
    scaled = measured(latents, whitening=1.0).standardize(latents)
    assert bool(torch.isfinite(scaled["video"]).all())
    other = latents["video"] + 1e-5
    moved = measured(latents, whitening=1.0).standardize(AV(other, None))["video"]
    assert float((moved - scaled["video"]).abs().max()) < 0.1


def test_projecting_keeps_what_lies_along_the_axes_and_nothing_else():
    latents = steep_latents()
    axes = measured(latents, num_axes=5)
    once = axes.project(latents)
    assert torch.allclose(axes.project(once)["video"], once["video"], atol=1e-4)
    again, wanted = axes.standardize(once)["video"], axes.standardize(latents)["video"]
    assert torch.allclose(again, wanted, atol=1e-4)
    rest = (latents["video"] - once["video"]).flatten(1)
    along = rest @ axes.get_buffer("video_axes").T
    assert float(along.abs().max()) < 1e-3 * float(rest.abs().max())


FRAMES = 8
MOVING = LatentAxesConfig(
    latents=LatentSpec(video_channels=2 * FRAMES, video_size=2, audio_channels=2, audio_size=2),
    num_axes=8,
    num_frames=FRAMES,
    movement_axes=2,
)


def flashing_latents(count: int = 2000) -> AV:
    """Clips of one picture each, and a flash of one of two kinds in a single frame."""
    generator = torch.Generator().manual_seed(0)
    elements = 2 * 2 * 2
    frames = 3 * torch.randn(count, 1, elements, generator=generator).repeat(1, FRAMES, 1)
    flashes = torch.eye(2, elements)[torch.randint(2, (count,), generator=generator)]
    when = torch.randint(FRAMES, (count,), generator=generator)
    frames[torch.arange(count), when] += flashes
    mean = frames.mean(dim=1, keepdim=True)
    changes = torch.einsum("tk,bte->bke", cosine_waves(FRAMES), frames)
    video = torch.cat([mean, changes], dim=1).reshape(count, 2 * FRAMES, 2, 2)
    return AV(video, torch.randn(count, 2, 2, 2, generator=generator))


def test_axes_of_movement_lose_nothing_in_time():
    latents = flashing_latents()
    moments = latent_moments([latents])
    own = PerceptualAxes.measured(MOVING, moments)
    # As many numbers a clip: 8 of the mean and 2 for each of 7 coefficients.
    whole = PerceptualAxes.measured(replace(MOVING, num_frames=1, movement_axes=0), moments)
    assert own.get_buffer("movement_axes").shape == (2, 8)

    def lost(axes):
        changes = (latents["video"] - axes.project(latents)["video"])[:, 2:]
        return float(changes.square().sum() / latents["video"][:, 2:].square().sum())

    assert lost(own) < 1e-6
    assert lost(whole) > 0.4


def test_the_mean_picture_counts_as_much_as_all_changes():
    latents = flashing_latents()
    axes = PerceptualAxes.measured(MOVING, latent_moments([latents]))
    generator = torch.Generator().manual_seed(1)
    white = latents.map(lambda x: torch.randn(x.shape, generator=generator))
    for made in (axes.standardize(latents), axes.noise(white), axes.noise(white, signal_share=0.3)):
        spread = made["video"].var(dim=0)
        assert float(spread[:2].sum()) == pytest.approx(float(spread[2:].sum()), rel=0.05)
        assert float(spread.mean()) == pytest.approx(1.0, rel=0.05)
    back = axes.restore(axes.standardize(latents))
    assert torch.allclose(back["video"], latents["video"], atol=1e-3)
    noise = axes.noise(white)["video"][:, 2:].unflatten(1, (FRAMES - 1, 2)).flatten(2)
    outside = noise - noise @ torch.eye(2, 8).T @ torch.eye(2, 8)
    assert float(outside.abs().max()) < 1e-4


def test_axes_of_movement_need_coefficients_over_time():
    with pytest.raises(ValueError, match="belong together, got 8 and 0"):
        replace(MOVING, movement_axes=0)
    with pytest.raises(ValueError, match="belong together, got 1 and 2"):
        replace(MOVING, num_frames=1)
    with pytest.raises(ValueError, match="16 channels of z_v are not divisible among num_frames=5"):
        replace(MOVING, num_frames=5)


def test_leading_axes_are_those_of_a_full_decomposition():
    generator = torch.Generator().manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(300, 300, generator=generator).double())
    variance = torch.logspace(2, -4, 300, dtype=torch.float64)
    covariance = (turn * variance) @ turn.T
    state = torch.get_rng_state()
    found, directions = leading_axes(covariance, 20)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.allclose(found, variance[:20], rtol=1e-6)
    agreement = (directions * turn[:, :20]).sum(dim=0).abs()
    assert torch.allclose(agreement, torch.ones_like(agreement), atol=1e-6)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="num_axes must be positive, got 0"):
        replace(CONFIG, num_axes=0)
    with pytest.raises(ValueError, match=r"whitening lies within \[0, 1\], got 2"):
        replace(CONFIG, whitening=2.0)
    with pytest.raises(ValueError, match="at least two"):
        latent_moments([steep_latents(1)])


def test_noise_is_equally_strong_along_the_kept_axes_and_absent_elsewhere():
    axes = measured(steep_latents(), num_axes=5)
    generator = torch.Generator().manual_seed(3)
    white = AV(
        torch.randn(4000, *LATENTS.video_shape, generator=generator),
        torch.randn(4000, *LATENTS.audio_shape, generator=generator),
    )
    noise = axes.noise(white)
    for name in ("video", "audio"):
        spread = variances(noise, name)
        elements = len(spread)
        wanted = torch.tensor(elements / 5, dtype=spread.dtype)
        assert torch.allclose(spread[:5], wanted.expand(5), rtol=0.1)
        assert float(spread[5:].max()) < 1e-6
        assert float(noise[name].var()) == pytest.approx(1.0, rel=0.05)
    assert axes.noise(white.replace("video", None)).video is None


def test_all_axes_leave_white_noise_as_it_is():
    axes = measured(steep_latents())
    white = AV(torch.randn(3, *LATENTS.video_shape), torch.randn(3, *LATENTS.audio_shape))
    assert torch.allclose(axes.noise(white)["video"], white["video"], atol=1e-5)


def test_the_end_of_a_chain_has_the_spread_of_latents_and_noise_together():
    latents = steep_latents(4000)
    axes = measured(latents, num_axes=5)
    generator = torch.Generator().manual_seed(3)
    shape = (4000, *LATENTS.video_shape)
    white, other = (AV(torch.randn(shape, generator=generator), None) for _ in range(2))
    share, scaled = 0.05, axes.standardize(latents)["video"]
    ends = 0.95**0.5 * axes.noise(white)["video"] + 0.05**0.5 * scaled
    made = axes.noise(other, signal_share=share)["video"]
    wanted, found = (variances(AV(x, None), "video")[:5] for x in (ends, made))
    assert torch.allclose(found, wanted, rtol=0.1)
    assert float(wanted[0]) > 1.05 * float(wanted[-1])
