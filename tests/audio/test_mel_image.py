"""The mel picture: grey scale, silence, other sizes and rates, and the way back."""

import math

import pytest
import torch

from soundreel.audio.mel import MelConfig
from soundreel.audio.mel_image import (
    MelImageConfig,
    decode_mel_image,
    encode_mel_image,
    fit_length,
    log_mel_to_picture,
    waveform_to_log_mel,
)

SMALL = MelImageConfig(
    sample_rate=16_000,
    num_samples=25_600,
    image_size=64,
    mel=MelConfig(filterbank_sample_rate=16_000, num_mels=64, max_hz=8000.0),
)


def tone(config, frequency_hz, amplitude=0.5):
    time_s = torch.arange(config.num_samples) / config.sample_rate
    return amplitude * torch.sin(2 * math.pi * frequency_hz * time_s)[None]


@pytest.mark.parametrize("config", [MelImageConfig(), SMALL])
def test_image_is_square_grey_and_within_range(config):
    image = encode_mel_image(tone(config, 440), config)
    assert image.shape == (1, 3, config.image_size, config.image_size)
    assert torch.equal(image[:, 0], image[:, 2])
    assert float(image.min()) >= -1
    assert float(image.max()) <= 1


def test_silence_is_black_and_comes_back_as_the_lowest_grey():
    image = encode_mel_image(torch.zeros(1, SMALL.num_samples), SMALL)
    assert bool((image == -1).all())
    silent = decode_mel_image(image, SMALL)
    # Black is -80 dB: what was below comes back there.
    assert torch.allclose(silent, torch.tensor(math.log(1e-4)), atol=1e-5)


def test_short_sound_is_padded_with_silence_and_long_sound_is_refused():
    waveform = tone(SMALL, 440)
    half = waveform[:, : SMALL.num_samples // 2]
    silent_half = torch.cat([half, torch.zeros_like(half)], dim=1)
    assert torch.equal(encode_mel_image(half, SMALL), encode_mel_image(silent_half, SMALL))
    with pytest.raises(ValueError, match="25601 samples, a clip 25600"):
        encode_mel_image(torch.zeros(1, 25_601), SMALL)


def test_a_high_tone_is_in_a_higher_row_than_a_low_one():
    low, high = (
        encode_mel_image(tone(SMALL, frequency), SMALL)[0, 0].mean(dim=1).argmax()
        for frequency in (300, 3000)
    )
    assert low < high


def test_band_edges_scale_with_the_sample_rate_but_not_with_the_filterbanks():
    """A tone of f Hz at 44.1 kHz looks like f / 2 Hz at 22.05 kHz: the two rates are apart."""
    nominal = MelImageConfig(sample_rate=22_050, num_samples=35_280)
    doubled = MelImageConfig(sample_rate=44_100, num_samples=35_280)
    assert torch.allclose(
        encode_mel_image(tone(nominal, 1000), nominal),
        encode_mel_image(tone(doubled, 2000), doubled),
    )


def test_way_back_restores_the_log_mel_of_a_real_shape():
    generator = torch.Generator().manual_seed(0)
    noise = 0.3 * torch.randn(1, SMALL.num_samples, generator=generator)
    swell = torch.linspace(0, 1, SMALL.num_samples)
    waveform = tone(SMALL, 700) * swell + noise * (1 - swell)
    config = MelImageConfig(
        sample_rate=SMALL.sample_rate, num_samples=SMALL.num_samples, mel=SMALL.mel, image_size=256
    )
    log_mel = waveform_to_log_mel(waveform, config).clamp(min=math.log(1e-4))
    error = (decode_mel_image(encode_mel_image(waveform, config), config) - log_mel).abs()
    level = 100 / 255 * math.log(10) / 20  # one grey level in nepers
    assert float(error.mean()) < 1.5 * level


def test_grey_levels_follow_the_decibel_scale():
    for decibel, grey in ((-200, 0), (-80, 0), (-30, 127), (20, 255), (60, 255)):
        log_magnitude = torch.full((1, 1, 1), decibel * math.log(10) / 20)
        assert int(log_mel_to_picture(log_magnitude, MelImageConfig())) in (
            grey,
            grey + 1,
            grey - 1,
        )


def test_overshooting_images_stay_within_the_scale():
    image = 3 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    log_mel = decode_mel_image(image, SMALL)
    assert float(log_mel.max()) <= 20 * math.log(10) / 20 + 1e-5
    assert float(log_mel.min()) >= -80 * math.log(10) / 20 - 1e-5


def test_fit_length_cuts_or_pads_the_end():
    waveform = torch.ones(1, 5)
    assert fit_length(waveform, 3).shape == (1, 3)
    assert fit_length(waveform, 7)[0].tolist() == [1, 1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": -1}, "image_size is 0 or positive"),
        ({"min_db": 20.0}, "min_db must be below"),
        ({"num_samples": 100}, "at least one hop"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MelImageConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_hz": 12_000.0}, "half of filterbank_sample_rate"),
        ({"hop_length": 255}, "even number"),
        ({"num_mels": 0}, "must be positive"),
    ],
)
def test_impossible_mel_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MelConfig(**options)
