"""Griffin-Lim: exact inverse, non-negative magnitudes, sound that fits the mel."""

import math

import pytest
import torch
from scipy import optimize

from soundreel.audio.griffin_lim import (
    griffin_lim,
    inverse_stft,
    log_mel_to_waveform,
    mel_to_magnitude,
)
from soundreel.audio.mel import MelConfig, log_mel, mel_filterbank
from soundreel.audio.stft import stft, stft_magnitude

CONFIG = MelConfig()


def chirp_and_noise(num_columns=60):
    generator = torch.Generator().manual_seed(0)
    time_s = torch.arange(256 * num_columns) / 22_050
    chirp = 0.4 * torch.sin(2 * math.pi * (300 + 1500 * time_s) * time_s)
    return (chirp + 0.05 * torch.randn(time_s.shape, generator=generator))[None]


@pytest.mark.parametrize(("fft_size", "hop_length"), [(1024, 256), (512, 128), (64, 16)])
def test_inverse_stft_undoes_stft(fft_size, hop_length):
    waveform = chirp_and_noise(64)[:, : hop_length * 40]
    spectrum = stft(waveform, fft_size=fft_size, hop_length=hop_length)
    back = inverse_stft(spectrum, hop_length=hop_length)
    assert back.shape == waveform.shape
    assert torch.allclose(back, waveform, atol=1e-5)


def test_magnitudes_are_non_negative_and_fit_the_mel_where_a_pseudo_inverse_is_negative():
    target = log_mel(chirp_and_noise(), CONFIG)
    filterbank = mel_filterbank(CONFIG)
    assert float((torch.linalg.pinv(filterbank) @ target.exp()).min()) < -1e-3
    magnitude = mel_to_magnitude(target, CONFIG)
    assert float(magnitude.min()) >= 0
    fitted = (filterbank @ magnitude).clamp(min=CONFIG.floor).log()
    assert float((fitted - target).abs().mean()) < 1e-3


def test_non_negative_least_squares_is_as_good_as_scipys():
    config = MelConfig(fft_size=256, hop_length=64, num_mels=20)
    filterbank = mel_filterbank(config).double().numpy()
    generator = torch.Generator().manual_seed(0)
    target = 3 * torch.randn(1, 20, 3, generator=generator)  # jagged: no exact fit exists
    ours = mel_to_magnitude(target, config, num_iterations=2000)[0].double().numpy()
    for column in range(3):
        wanted = target[0, :, column].exp().double().numpy()
        _, best = optimize.nnls(filterbank, wanted)
        reached = float(((filterbank @ ours[:, column] - wanted) ** 2).sum() ** 0.5)
        assert reached <= best * 1.001 + 1e-4 * float((wanted**2).sum() ** 0.5)


def test_waveform_has_the_given_magnitudes_and_momentum_helps():
    waveform = chirp_and_noise()
    magnitude = stft_magnitude(waveform)

    def error(momentum):
        got = stft_magnitude(griffin_lim(magnitude, hop_length=256, momentum=momentum))
        return float((got - magnitude).norm() / magnitude.norm())

    assert error(0.99) < error(0.0) < 0.25


def test_log_mel_comes_back_within_a_tenth_of_a_neper():
    target = log_mel(chirp_and_noise(), CONFIG)
    waveform = log_mel_to_waveform(target, CONFIG)
    assert waveform.shape == (1, 256 * target.shape[2])
    assert float((log_mel(waveform, CONFIG) - target).abs().mean()) < 0.1


def test_silence_gives_near_silence():
    silent = torch.full((1, 80, 20), math.log(CONFIG.floor))
    assert float(log_mel_to_waveform(silent, CONFIG).abs().max()) < 1e-3


def test_a_row_does_not_depend_on_the_batch_it_is_in():
    waveform = chirp_and_noise()
    target = log_mel(torch.cat([waveform, waveform.flip(-1)]), CONFIG)
    together = log_mel_to_waveform(target, CONFIG, num_iterations=5)
    alone = log_mel_to_waveform(target[1:], CONFIG, num_iterations=5)
    assert torch.allclose(together[1:], alone, atol=1e-4)
