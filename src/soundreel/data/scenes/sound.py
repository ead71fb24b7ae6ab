"""Sounds of the rendered scenes: decaying modes, bubbles, bursts and textures of filtered noise.

A sound starts at an exact time between samples. Amplitudes are relative to full scale 1.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Wave = npt.NDArray[np.float64]
Number = float | int | np.floating
TAIL = 7.0  # time constants after which a decay has ended (-61 dB)


class Sound:
    """A waveform in the making: `num_samples` samples from time 0 on."""

    def __init__(self, num_samples: int, sample_rate: int, rng: np.random.Generator) -> None:
        self.sample_rate, self.rng = sample_rate, rng
        self.wave: Wave = np.zeros(num_samples)

    @property
    def time(self) -> Wave:
        return np.arange(len(self.wave)) / self.sample_rate

    def modes(
        self,
        start_s: Number,
        frequencies_hz: Sequence[Number],
        decays_s: Sequence[Number],
        amplitudes: Sequence[Number],
    ) -> None:
        """Add a struck body: sines that die away, from `start_s` on."""
        for frequency, decay, amplitude in zip(frequencies_hz, decays_s, amplitudes, strict=True):
            if frequency > 0.45 * self.sample_rate:
                continue
            span, age = self._span(start_s, TAIL * decay)
            attack = -np.expm1(-age / 0.0004)
            self.wave[span] += (
                amplitude * attack * np.exp(-age / decay) * np.sin(2 * np.pi * frequency * age)
            )

    def bubble(
        self,
        start_s: Number,
        frequency_hz: Number,
        rise: Number,
        decay_s: Number,
        amplitude: Number,
    ) -> None:
        """Add a drop's tone: its pitch climbs by the factor 1 + `rise` while it dies away."""
        span, age = self._span(start_s, TAIL * decay_s)
        climb = rise * age / (TAIL * decay_s)
        phase = 2 * np.pi * frequency_hz * age * (1 + climb)
        self.wave[span] += (
            amplitude * -np.expm1(-age / 0.001) * np.exp(-age / decay_s) * np.sin(phase)
        )

    def burst(
        self,
        start_s: Number,
        decay_s: Number,
        band_hz: tuple[Number, Number],
        amplitude: Number,
        attack_s: Number = 0.001,
    ) -> None:
        """Add noise within a band that starts at once and dies away."""
        span, age = self._span(start_s, TAIL * decay_s)
        if len(age):
            envelope = -np.expm1(-age / attack_s) * np.exp(-age / decay_s)
            self.wave[span] += amplitude * envelope * self.noise(len(age), band_hz)

    def texture(self, envelope: Wave, band_hz: tuple[Number, Number], amplitude: Number) -> None:
        """Add lasting noise within a band, its loudness given for every sample."""
        self.wave += amplitude * envelope * self.noise(len(self.wave), band_hz)

    def tone(self, frequency_hz: Wave, harmonics: Sequence[Number], envelope: Wave) -> None:
        """Add a harmonic tone whose frequency and loudness are given for every sample."""
        phase = 2 * np.pi * np.cumsum(frequency_hz) / self.sample_rate
        for k, amplitude in enumerate(harmonics, start=1):
            audible = k * frequency_hz < 0.45 * self.sample_rate
            self.wave += amplitude * envelope * audible * np.sin(k * phase)

    def noise(self, count: int, band_hz: tuple[Number, Number]) -> Wave:
        """Return noise of standard deviation 1, its band limited by 12 dB per octave."""
        low, high = band_hz
        size = 1 << max(count - 1, 1).bit_length()  # a length that transforms quickly
        spectrum = np.fft.rfft(self.rng.standard_normal(size))
        hz = np.fft.rfftfreq(size, 1 / self.sample_rate)
        rise = (hz / low) ** 2
        weight = rise / np.sqrt(1 + rise**2) / np.sqrt(1 + (hz / high) ** 4)
        wave = np.fft.irfft(spectrum * weight, size)[:count]
        return wave / max(float(np.sqrt(np.mean(weight**2))), 1e-6)

    def room(self, decay_s: Number, level: Number) -> None:
        """Add the echo of a room: the dry sound stays as it is, so onsets keep their times."""
        count = max(1, int(3 * decay_s * self.sample_rate))
        age = np.arange(count) / self.sample_rate
        tail = self.noise(count, (150.0, 3500.0)) * np.exp(-age / decay_s) * (age > 0.004)
        tail *= level / max(float(np.sqrt(np.sum(tail**2))), 1e-9)
        size = 1 << (len(self.wave) + count - 1).bit_length()
        echo = np.fft.irfft(np.fft.rfft(self.wave, size) * np.fft.rfft(tail, size), size)
        self.wave = self.wave + echo[: len(self.wave)]

    def _span(self, start_s: Number, length_s: Number) -> tuple[slice, Wave]:
        """Return the samples of [start, start + length) and their ages in seconds."""
        first = max(0, int(np.ceil(start_s * self.sample_rate)))
        last = min(len(self.wave), int((start_s + length_s) * self.sample_rate) + 1)
        age = np.arange(first, max(first, last)) / self.sample_rate - start_s
        return slice(first, max(first, last)), age


def smooth_curve(
    rng: np.random.Generator, period_s: Number, low: Number, high: Number
) -> Callable[[Wave], Wave]:
    """Return a wandering curve between two levels that turns about once every `period_s`.

    The same curve whatever the times it is asked at.
    """
    rates = rng.uniform(0.5, 1.3, 4) / period_s
    phases = rng.uniform(0, 2 * np.pi, 4)
    weights = np.array([1.0, 0.8, 0.5, 0.35])

    def curve(time_s: Wave) -> Wave:
        angle = 2 * np.pi * rates * time_s[:, None] + phases
        level = (np.sin(angle) * weights).sum(axis=-1) / 1.6
        return low + (high - low) * (0.5 + 0.5 * np.tanh(1.4 * level))

    return curve
