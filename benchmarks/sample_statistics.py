"""What generated clips look and sound like, in numbers, beside held-out real ones.

    python benchmarks/sample_statistics.py MODEL DATA [--count 32] [--sheet SHEET.png]

Each row is a mean over clips with the standard error. `sound follows motion` is the correlation,
within a clip, of frame-to-frame change and loudness; its chance level is that of shuffled pairs.
"""

import argparse
from pathlib import Path

import numpy as np

from soundreel.clip import Clip
from soundreel.data.dataset import PreparedDataset
from soundreel.media.contact_sheet import write_contact_sheet
from soundreel.systems import load
from soundreel.types import AV


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--caption", default="")
    arguments = parser.parse_args()
    pipeline = load(arguments.model)
    dataset = PreparedDataset(arguments.data, spec=pipeline.clip, split="test", stride=10**6)
    count = min(arguments.count, len(dataset))
    av = AV.cat([dataset[i].av.map(lambda x: x[None]) for i in range(count)])
    real = Clip.from_av(av, pipeline.clip.frame_rate, pipeline.clip.sample_rate)
    made = pipeline.generate(count=count, seed=0, batch_size=8)
    print("| | held-out clips | generated clips |\n| --- | --- | --- |")
    for name, measure in MEASURES.items():
        cells = [summary([measure(clip) for clip in clips]) for clips in (real, made)]
        print(f"| {name} | {cells[0]} | {cells[1]} |")
    for name, pairs in (("sound follows motion", 0), ("the same, shuffled pairs", 1)):
        cells = [summary(follows(clips, pairs)) for clips in (real, made)]
        print(f"| {name} | {cells[0]} | {cells[1]} |")
    print(f"\n{count} clips each")
    if arguments.sheet:
        clips = [*made[:4], *real[:2]]
        titles = [f"generated, seed {i}" for i in range(4)] + ["held-out clip"] * 2
        write_contact_sheet(
            arguments.sheet,
            clips,
            titles=titles,
            caption=arguments.caption,
            num_columns=2,
            width=900,
        )


def motion(clip: Clip) -> np.ndarray:
    """Mean change of a pixel from each frame to the next, 0..255."""
    return np.abs(np.diff(clip.frames.astype(np.float32), axis=0)).mean(axis=(1, 2, 3))


def loudness_db(clip: Clip) -> np.ndarray:
    """Loudness of each frame's stretch of sound."""
    frames = clip.waveform.mean(axis=0)
    per_frame = len(frames) // len(clip.frames)
    blocks = frames[: per_frame * len(clip.frames)].reshape(-1, per_frame)
    return 10 * np.log10((blocks**2).mean(axis=1) + 1e-8)


def spectrum_share(clip: Clip, low_hz: float, high_hz: float) -> float:
    """Share of the sound's energy between two frequencies."""
    power = np.abs(np.fft.rfft(clip.waveform.mean(axis=0))) ** 2
    hz = np.fft.rfftfreq(clip.waveform.shape[1], 1 / clip.sample_rate)
    return float(power[(hz >= low_hz) & (hz < high_hz)].sum() / (power.sum() + 1e-12))


def follows(clips: list[Clip], offset: int) -> list[float]:
    """Correlation of motion with the loudness of the same clip, or of one `offset` later."""
    values = []
    for index, clip in enumerate(clips):
        sound = loudness_db(clips[(index + offset) % len(clips)])[1:]
        values.append(float(np.corrcoef(motion(clip), sound)[0, 1]))
    return values


def summary(values: list[float]) -> str:
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.3g} +- {error:.2g}"


MEASURES = {
    "brightness, 0-255": lambda clip: float(clip.frames.mean()),
    "contrast within a frame": lambda clip: float(clip.frames.std(axis=(1, 2, 3)).mean()),
    "change from frame to frame": lambda clip: float(motion(clip).mean()),
    "loudness, dB": lambda clip: float(loudness_db(clip).mean()),
    "loudness range within a clip, dB": lambda clip: float(np.ptp(loudness_db(clip))),
    "energy below 80 Hz": lambda clip: spectrum_share(clip, 0, 80),
    "energy 80 Hz - 1 kHz": lambda clip: spectrum_share(clip, 80, 1000),
    "energy 1 - 4 kHz": lambda clip: spectrum_share(clip, 1000, 4000),
    "energy above 4 kHz": lambda clip: spectrum_share(clip, 4000, 8000),
}


if __name__ == "__main__":
    main()
