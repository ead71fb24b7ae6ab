"""How much of a sound survives the way to a spectrogram or mel picture and back, on real clips.

    python benchmarks/audio_round_trip.py CLIPS VOCODER

CLIPS holds `grid_s1`, `esc10_audio/rain` and `esc10_audio/fire_crackling`; VOCODER is a HiFi-GAN
generator. Prints Markdown. Log-mel L1 is the mean absolute difference of natural-log mel
magnitudes, spectral convergence the Frobenius norm of the difference of magnitude spectra over
that of the original's.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch

from soundreel.audio.griffin_lim import log_mel_to_waveform
from soundreel.audio.mel import MelConfig
from soundreel.audio.mel_image import (
    MelImageConfig,
    decode_mel_image,
    encode_mel_image,
    fit_length,
    waveform_to_log_mel,
)
from soundreel.audio.stft import stft_magnitude
from soundreel.media.decode import read_audio
from soundreel.systems.mm_ldm.import_hifigan import import_hifigan

DURATION_S = 1.6
CLIPS_PER_KIND = 10
KINDS = {"speech": "grid_s1", "rain": "esc10_audio/rain", "fire": "esc10_audio/fire_crackling"}
CODECS = {
    "log mel, 22.05 kHz, no picture": (22_050, None),
    "256 px picture, 44.1 kHz (published)": (44_100, 256),
    "128 px picture, 22.05 kHz": (22_050, 128),
    "64 px picture, 16 kHz": (16_000, 64),
}


def load(folder: Path, sample_rate: int) -> list[torch.Tensor]:
    """The first seconds of the first files, in the order of their names."""
    files = [f for f in sorted(folder.iterdir()) if f.suffix in (".mpg", ".ogg")]
    num_samples = round(DURATION_S * sample_rate)
    return [
        torch.from_numpy(
            read_audio(file, sample_rate=sample_rate, num_samples=num_samples, num_channels=1)
        )
        for file in files[:CLIPS_PER_KIND]
    ]


def through_codec(waveform: torch.Tensor, config: MelImageConfig, *, picture: bool) -> torch.Tensor:
    if not picture:
        return waveform_to_log_mel(waveform, config)
    return decode_mel_image(encode_mel_image(waveform, config), config)


def errors(
    waveform: torch.Tensor, log_mel: torch.Tensor, config: MelImageConfig, synthesise: Callable
) -> tuple[float, float]:
    result = fit_length(synthesise(log_mel), waveform.shape[1])
    mel_error = waveform_to_log_mel(result, config) - waveform_to_log_mel(waveform, config)
    original, copy = stft_magnitude(waveform), stft_magnitude(result)
    return float(mel_error.abs().mean()), float((copy - original).norm() / original.norm())


@torch.inference_mode()
def main(clips: Path, vocoder_file: Path) -> None:
    vocoder = import_hifigan(vocoder_file)
    mel = MelConfig()
    syntheses = {
        "Griffin-Lim": lambda log_mel: log_mel_to_waveform(log_mel, mel),
        "HiFi-GAN": lambda log_mel: vocoder(log_mel)[:, 0],
    }
    print("| codec | sound | clips | picture alone | Griffin-Lim | HiFi-GAN |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (sample_rate, image_size) in CODECS.items():
        config = MelImageConfig(
            sample_rate=sample_rate,
            num_samples=round(DURATION_S * sample_rate),
            image_size=image_size or 256,
            mel=mel,
        )
        for kind, folder in KINDS.items():
            waveforms = load(clips / folder, sample_rate)
            alone, table = [], {key: [] for key in syntheses}
            for waveform in waveforms:
                log_mel = through_codec(waveform, config, picture=image_size is not None)
                original = waveform_to_log_mel(waveform, config)
                alone.append(float((log_mel - original).abs().mean()))
                for key, synthesise in syntheses.items():
                    table[key].append(errors(waveform, log_mel, config, synthesise))
            means = [torch.tensor(table[key]).mean(dim=0).tolist() for key in syntheses]
            cells = " | ".join(f"{l1:.3f} / {convergence:.2f}" for l1, convergence in means)
            picture = f"{sum(alone) / len(alone):.3f}"
            print(f"| {name} | {kind} | {len(waveforms)} | {picture} | {cells} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
