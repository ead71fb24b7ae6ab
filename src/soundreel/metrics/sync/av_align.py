"""AV-Align as published, in its dialects: overlap of sound onsets and flow peaks.

For comparison with other papers only. Its defects are kept: it rewards busy sound, knows no chance
level, and a peak within one frame either way counts, so that the tolerance depends on the frame
rate. The dialects give different numbers for the same clips and are never to be mixed.

Source: Yariv et al. 2023 (TempoTokens), section 4.3, and the evaluators derived from its code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float

from soundreel.audio.mel import MelConfig, mel_filterbank
from soundreel.media.resample import resample_waveform
from soundreel.metrics.sync.flow import mean_flow
from soundreel.metrics.sync.signals import Frames, Waveform, check_measurable

SAMPLE_RATE = 22_050
FFT_SIZE = 2048
HOP_LENGTH = 512
NUM_MELS = 128
RANGE_DB = 80.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """How one family of evaluators counts.

    Attributes:
        reuses_peaks: one flow peak may match several onsets, as in the first release.
        min_flow_px: flow peaks below this many pixels do not count.
    """

    reuses_peaks: bool
    min_flow_px: float = 0.0


DIALECTS = {
    "av-align/first-release": Dialect(reuses_peaks=True),
    "av-align/single-use": Dialect(reuses_peaks=False),
    "av-align/min-flow": Dialect(reuses_peaks=True, min_flow_px=0.1),
    "av-align/single-use-min-flow": Dialect(reuses_peaks=False, min_flow_px=0.1),
}


def av_align(
    frames: Frames, frame_rate: Fraction, waveform: Waveform, sample_rate: int, dialect: str
) -> float:
    """AV-Align of one clip, 0 to 1; nan where there are neither onsets nor peaks.

    Raises:
        ValueError: no such dialect.
        SyncError: a clip too short or of too low rates.
    """
    if dialect not in DIALECTS:
        raise ValueError(f"no dialect {dialect!r}; there are {', '.join(DIALECTS)}")
    check_measurable(len(frames), frame_rate, waveform.shape[1], sample_rate)
    rules = DIALECTS[dialect]
    peaks = flow_peaks(mean_flow(frames), frame_rate, rules.min_flow_px)
    return overlap(published_onsets(waveform, sample_rate), peaks, frame_rate, rules.reuses_peaks)


def flow_peaks(
    flow: Float[np.ndarray, " frame"], frame_rate: Fraction, min_flow_px: float = 0.0
) -> list[float]:
    """Times of strict local maxima, ends excluded."""
    return [
        float(k / frame_rate)
        for k in range(1, len(flow) - 1)
        if flow[k - 1] < flow[k] > flow[k + 1] and flow[k] > min_flow_px
    ]


def overlap(
    onsets_s: Sequence[float],
    peaks_s: Sequence[float],
    frame_rate: Fraction,
    reuses_peaks: bool,
) -> float:
    """Matched onsets over the union; a match lies strictly within one frame of a peak."""
    tolerance = 1 / float(frame_rate)
    free = list(peaks_s)
    matched = 0
    for onset in onsets_s:
        near = [peak for peak in free if peak - tolerance < onset < peak + tolerance]
        if near:
            matched += 1
            if not reuses_peaks:
                free.remove(near[0])
    union = len(onsets_s) + len(peaks_s) - matched
    return matched / union if union else float("nan")


def published_onsets(waveform: Waveform, sample_rate: int) -> list[float]:
    """Onset times by the settings that the published evaluators leave at their library's defaults.

    22.05 kHz, 128 mel bands in dB (80 dB range), mean rise per hop of 512; peaks that are the
    largest of the last 2 hops and 0.07 (of the clip's range) above the mean of the 9 around.
    """
    mono = waveform.mean(axis=0, keepdims=True)
    count = round(mono.shape[1] * SAMPLE_RATE / sample_rate)
    if sample_rate != SAMPLE_RATE:
        mono = resample_waveform(
            mono, native_rate=sample_rate, sample_rate=SAMPLE_RATE, num_samples=count
        )
    return [k * HOP_LENGTH / SAMPLE_RATE for k in pick_peaks(onset_strength(mono[0]))]


def onset_strength(mono: Float[np.ndarray, " sample"]) -> Float[np.ndarray, " time"]:
    """Mean rise in dB over mel bands from one hop to the next, of sound at 22.05 kHz."""
    bank = mel_filterbank(
        MelConfig(
            filterbank_sample_rate=SAMPLE_RATE,
            fft_size=FFT_SIZE,
            hop_length=HOP_LENGTH,
            num_mels=NUM_MELS,
            min_hz=0.0,
            max_hz=SAMPLE_RATE / 2,
        )
    ).numpy()
    padded = np.pad(mono, FFT_SIZE // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT_SIZE) / FFT_SIZE)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE)[::HOP_LENGTH] * window
    power = (np.abs(np.fft.rfft(frames, axis=1)) ** 2) @ bank.T
    level_db = 10 * np.log10(np.maximum(power, 1e-10))
    level_db = np.maximum(level_db, level_db.max() - RANGE_DB)
    rise = np.maximum(np.diff(level_db, axis=0), 0).mean(axis=1)
    delay = 1 + FFT_SIZE // (2 * HOP_LENGTH)  # the lag, and the window's centre
    return np.pad(rise, (delay, 0))[: len(level_db)]


def pick_peaks(strength: Float[np.ndarray, " time"]) -> list[int]:
    """Indices of onsets in an onset strength curve."""
    span = float(np.ptp(strength))
    if span == 0:
        return []
    curve = (strength - strength.min()) / span
    found: list[int] = []
    for k, value in enumerate(curve):
        is_top = value == curve[max(0, k - 1) : k + 1].max()
        mean = curve[max(0, k - 4) : k + 5].mean()
        if is_top and value >= mean + 0.07 and (not found or k > found[-1] + 1):
            found.append(k)
    return found
