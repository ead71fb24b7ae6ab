"""The perceptual distance on real frames, against the values its weights came with."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.perceptual_weights import load_perceptual_loss
from soundreel.clip import Clip


@pytest.fixture(scope="module")
def distance(weights_folder):
    path = weights_folder / "perceptual" / "stlpips_alex.safetensors"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in {path.parent}")
    return load_perceptual_loss(path)


@pytest.fixture(scope="module")
def frames(clips_folder):
    """Two neighbouring 128x128 frames of a talking head, in [-1, 1]."""
    paths = sorted((clips_folder / "grid_s1_face").glob("*.mp4"))
    if not paths:
        pytest.skip(f"no talking-head clips in {clips_folder}")
    pixels = torch.from_numpy(Clip.load(paths[0]).frames[:2]).movedim(-1, 1)
    return pixels.float() / 127.5 - 1


@torch.no_grad()
def test_distances_of_known_changes_are_those_of_the_published_network(distance, frames):
    """Published with the weights: next frame 0.0003, shift 0.003, noise 0.42, 8x smaller 0.36."""
    first, second = frames[:1], frames[1:]
    noise = 0.2 * torch.randn(first.shape, generator=torch.Generator().manual_seed(0))
    small = functional.interpolate(first, scale_factor=1 / 8, mode="area")
    blurred = functional.interpolate(small, size=first.shape[-2:], mode="bilinear")
    changes = {
        "next frame": (second, 0.0, 0.003),
        "shift": (first.roll(1, dims=-1), 0.0005, 0.02),
        "noise": ((first + noise).clamp(-1, 1), 0.2, 0.8),
        "smaller": (blurred, 0.2, 0.6),
    }
    for name, (changed, low, high) in changes.items():
        value = float(distance(changed, first))
        assert low <= value <= high, f"{name}: {value}"
    assert float(distance(first, first)) == 0.0


def test_its_gradient_reaches_the_image_and_no_weight(distance, frames):
    image = frames[:1].clone().requires_grad_()
    distance(image, frames[1:]).sum().backward()
    assert image.grad.abs().sum() > 0
    assert all(p.grad is None for p in distance.parameters())


def test_small_images_and_other_files_are_refused(distance, tmp_path):
    with pytest.raises(ValueError, match="too small"):
        distance(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))
    with pytest.raises(CheckpointError, match="no such file"):
        load_perceptual_loss(tmp_path / "absent.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, other)
    with pytest.raises(CheckpointError, match="not the weights of a perceptual"):
        load_perceptual_loss(other)
