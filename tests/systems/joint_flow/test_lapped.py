import pytest
import torch

from soundreel.systems.joint_flow.lapped import (
    enlarged,
    lapped,
    lapped_basis,
    overlap_frames,
    reduced,
    with_margins,
)


def noise(frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, frames, 3, 6, 4, generator=generator)


def test_frames_under_two_windows_come_back():
    frames = noise(24)
    coefficients = lapped(frames)
    assert coefficients.shape == (2, 5, 4, 3, 6, 4)
    assert torch.allclose(overlap_frames(coefficients), frames[:, 4:-4], atol=1e-6)


@pytest.mark.parametrize("count", [1, 4, 7, 16])
def test_with_margins_every_frame_comes_back(count):
    frames = noise(count)
    back = overlap_frames(lapped(with_margins(frames)))
    assert torch.allclose(back[:, :count], frames, atol=1e-6)


def test_the_basis_is_orthonormal_within_a_window_and_across_neighbours():
    basis = lapped_basis().double()
    assert torch.allclose(basis @ basis.T, torch.eye(4, dtype=torch.float64), atol=1e-6)
    across = basis[:, 4:] @ basis[:, :4].T
    assert torch.allclose(across, torch.zeros_like(across), atol=1e-6)


def test_a_still_scene_has_the_same_coefficients_in_every_group():
    still = noise(1).expand(-1, 16, -1, -1, -1)
    coefficients = lapped(still)
    assert torch.equal(coefficients, coefficients[:, :1].expand_as(coefficients))


def test_energy_is_kept():
    frames = noise(40)
    frames[:, :8] = frames[:, -8:] = 0  # the ends, which lie under one window only
    energy = lapped(frames).square().sum()
    assert float(energy) == pytest.approx(float(frames.square().sum()), rel=1e-5)


@pytest.mark.parametrize("count", [0, 4, 10])
def test_other_counts_of_frames_are_refused(count):
    with pytest.raises(ValueError, match="8, 12, 16"):
        lapped(torch.zeros(1, count, 3, 2, 2))


def test_reducing_an_enlarged_constant_gives_it_back():
    cells = torch.full((1, 2, 4, 3, 2, 2), 0.3)
    assert torch.allclose(reduced(enlarged(cells, 4), 4), cells, atol=1e-6)
