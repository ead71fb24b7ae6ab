"""The reference data loader's frames and clip choice, reproduced by named functions."""

import json

import pytest
import torch
from safetensors.torch import load_file

from soundreel.metrics.reference_evaluator import (
    reference_clips,
    reference_fit_audio,
    reference_resize_and_pad,
)


def test_frames_equal_the_reference_loader_with_and_without_antialiasing(parity_folder):
    path = parity_folder("mm_diffusion") / "data_video.safetensors"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in this set")
    tensors = load_file(path)
    names = sorted(k.removesuffix("/in") for k in tensors if k.endswith("/in"))
    assert names
    for name in names:
        for key, options in {
            "legacy_no_antialias": {"antialias": False},
            "antialias": {"antialias": True},
            "legacy_flipped": {"antialias": False, "mirror": True},
        }.items():
            expected = tensors[f"{name}/{key}"]
            height, width = expected.shape[-2:]
            got = reference_resize_and_pad(tensors[f"{name}/in"], height, width, **options)
            assert torch.equal(got, expected), (name, key)


def test_clip_choice_equals_the_reference_loader(parity_folder):
    path = parity_folder("mm_diffusion") / "data_clip_selection.json"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in this set")
    data = json.loads(path.read_text())
    assert data["cases"]
    for case in data["cases"]:
        clips = reference_clips(
            case["frames"], case["fps"], data["clip_length"], data["stride"], data["target_fps"]
        )
        assert len(clips) == case["num_clips"], case["fps"]
        for expected in case["clips"]:
            clip = clips[expected["clip"]]
            assert list(clip.source_frames) == expected["source_frames"]
            assert clip.audio_start_s == pytest.approx(expected["audio_start_s"], abs=1e-6)
            assert clip.audio_end_s == pytest.approx(expected["audio_end_s"], abs=1e-6)


def test_reference_sound_is_the_first_channel_filled_with_zeros():
    waveform = torch.stack([torch.ones(5), torch.zeros(5)])
    assert reference_fit_audio(waveform, 7).tolist() == [[1, 1, 1, 1, 1, 0, 0]]
    assert reference_fit_audio(waveform, 3).tolist() == [[1, 1, 1]]
