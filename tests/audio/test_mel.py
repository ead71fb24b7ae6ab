"""Slaney's mel scale and filterbank, and the layout of spectrogram columns."""

import math

import pytest
import torch

from soundreel.audio.mel import MelConfig, hz_to_mel, log_mel, mel_filterbank, mel_to_hz
from soundreel.audio.stft import stft_magnitude


def test_mel_scale_has_slaneys_fixed_points_and_an_inverse():
    hz = torch.tensor([0.0, 200.0, 1000.0, 6400.0, 11_025.0], dtype=torch.float64)
    mel = hz_to_mel(hz)
    assert mel[:4].tolist() == pytest.approx([0, 3, 15, 42])
    assert torch.allclose(mel_to_hz(mel), hz, rtol=1e-12, atol=1e-9)


def test_every_triangle_has_unit_area_in_hz():
    config = MelConfig(fft_size=8192, hop_length=2048)
    area = mel_filterbank(config).sum(dim=1) * config.filterbank_sample_rate / config.fft_size
    assert torch.allclose(area, torch.ones(80), atol=2e-2)


def test_tone_lands_in_its_band():
    config = MelConfig()
    time_s = torch.arange(22_016) / config.filterbank_sample_rate
    centre_hz = mel_to_hz(
        torch.linspace(0, float(hz_to_mel(torch.tensor([8000.0]).double())), 82).double()
    )[1:-1]
    for band in (10, 40, 75):
        tone = torch.sin(2 * math.pi * centre_hz[band] * time_s).float()[None]
        assert int(log_mel(tone, config)[0].mean(dim=1).argmax()) == band


def test_columns_are_whole_hops_and_centred_on_them():
    click = torch.zeros(1, 256 * 20)
    click[0, 256 * 7 + 128] = 1.0
    magnitude = stft_magnitude(click)
    assert magnitude.shape == (1, 513, 20)
    assert int(magnitude[0].sum(dim=0).argmax()) == 7


def test_too_short_sound_is_refused():
    with pytest.raises(ValueError, match="384 samples are too few"):
        stft_magnitude(torch.zeros(1, 384))


def test_spectrogram_used_first_without_gradients_serves_training_later():
    config = MelConfig(num_mels=41, fft_size=512, hop_length=128)  # used nowhere else
    with torch.inference_mode():
        log_mel(torch.zeros(1, 2048), config)
    waveform = torch.rand(1, 2048, generator=torch.Generator().manual_seed(0)).requires_grad_()
    log_mel(waveform, config).sum().backward()
    assert bool(waveform.grad.any())


def test_tables_are_kept_on_the_cpu_whatever_the_default_device():
    config = MelConfig(num_mels=39, fft_size=512, hop_length=128)  # used nowhere else
    with torch.device("meta"):
        assert mel_filterbank(config).device.type == "cpu"
