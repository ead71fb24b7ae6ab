"""Waveform to mel picture to square image, frame letterboxing and window bounds: `mel_image`."""

import json
import re
from fractions import Fraction

import pytest
import torch
from safetensors.torch import load_file

from soundreel.audio.mel import MelConfig
from soundreel.audio.mel_image import (
    MelImageConfig,
    encode_mel_image,
    log_mel_to_picture,
    waveform_to_log_mel,
)
from soundreel.media.letterbox import letterbox
from soundreel.types import frame_to_sample


@pytest.fixture
def reference(parity_folder):
    folder = parity_folder("mm_ldm")
    if not (folder / "mel_image.safetensors").is_file():
        pytest.skip(f"mel_image.safetensors is not in {folder}")
    return json.loads((folder / "mel_image.json").read_text()), load_file(
        folder / "mel_image.safetensors"
    )


@pytest.fixture
def config(reference):
    c = reference[0]["config"]
    assert c["win"] == c["n_fft"], "the codec's window is as long as its transform"
    return MelImageConfig(
        sample_rate=c["file_sample_rate"],
        num_samples=c["clip_length"],
        image_size=c["image_size"],
        mel=MelConfig(
            filterbank_sample_rate=c["filterbank_sample_rate"],
            fft_size=c["n_fft"],
            hop_length=c["hop"],
            num_mels=c["n_mels"],
            min_hz=float(c["fmin"]),
            max_hz=float(c["fmax"]),
        ),
    )


def cases(tensors, suffix):
    names = [k.removeprefix("in/").removesuffix(suffix) for k in tensors if k.endswith(suffix)]
    assert names, f"no tensors in/*{suffix}"
    return names


def test_log_mel_picture_and_image_equal_the_reference(reference, config):
    _, tensors = reference
    for name in cases(tensors, "/waveform"):
        waveform = tensors[f"in/{name}/waveform"][None].float() / 32768
        log_mel = waveform_to_log_mel(waveform, config)
        assert log_mel.shape[1:] == tensors[f"out/{name}/mel_log"].shape
        assert float((log_mel[0] - tensors[f"out/{name}/mel_log"]).abs().max()) <= 5e-4
        picture = log_mel_to_picture(log_mel, config)[0].int()
        off = (picture - tensors[f"out/{name}/picture_u8"].int()).abs()
        assert int(off.max()) <= 1
        assert float((off > 0).float().mean()) <= 1e-3
        width, height = tensors[f"out/{name}/raw_picture_width_height"].tolist()
        assert (height, width) == (config.mel.num_mels, config.num_columns)
        image = encode_mel_image(waveform, config)[0]
        assert torch.equal(image[0], image[1])
        assert torch.equal(image[0], image[2])
        worst = (image[0] - tensors[f"out/{name}/audio_image"]).abs().max()
        # One level of the picture may sit on a rounding edge and spread over its neighbours.
        assert float(worst) <= (1e-6 if int(off.max()) == 0 else 2 / 127.5)


def test_picture_of_the_reference_log_mel_is_bit_equal(reference, config):
    _, tensors = reference
    for name in cases(tensors, "/waveform"):
        picture = log_mel_to_picture(tensors[f"out/{name}/mel_log"][None], config)
        assert torch.equal(picture[0], tensors[f"out/{name}/picture_u8"])


def test_windows_own_the_published_samples_up_to_its_float_rounding(reference, config):
    """The release multiplies float seconds; ours are integers, and every window is equally long."""
    sidecar, tensors = reference
    meaning = sidecar["tensors"]["out/window_sample_bounds"]["meaning"]
    first, second, frame_rate = map(
        int, re.search(r"frame (\d+),(\d+),.* (\d+) fps", meaning).groups()
    )
    num_frames = Fraction(config.num_samples * frame_rate, config.sample_rate)
    assert num_frames.denominator == 1
    for i, published in enumerate(tensors["out/window_sample_bounds"].tolist()):
        start = first + i * (second - first)
        ours = [
            frame_to_sample(frame, frame_rate, config.sample_rate)
            for frame in (start, start + int(num_frames))
        ]
        assert ours[1] - ours[0] == config.num_samples
        assert max(abs(a - b) for a, b in zip(ours, published, strict=True)) <= 1


def test_letterboxed_frames_equal_the_reference(reference):
    _, tensors = reference
    for name in cases(tensors, "/frame_u8"):
        frame = tensors[f"in/{name}/frame_u8"].permute(2, 0, 1)
        for flip, source in ((0, frame), (1, frame.flip(-1))):
            expected = tensors[f"out/{name}/loaded_flip{flip}"]
            got = letterbox(source, expected.shape[-1]).float() / 127.5 - 1
            assert float((got - expected).abs().max()) <= 1e-6
