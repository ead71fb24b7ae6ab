"""Does sound made for a video follow that video, and a picture made for a sound that sound?

    python benchmarks/zero_shot_on_clips.py MODEL DATA [--count 32] [--weight 2 0] [--split test]

For clips the model was not trained on: sound is generated for each video, and pictures for each
sound. Then the loudness of each sound is correlated, over the frames of a clip, with the motion in
the mouth's part of a picture: that of its own clip, and those of all other clips. Sentences tend to
begin and end alike, so correlation alone proves nothing; its excess over swapped pairs does. Real
pairs show how much there is to find. Intervals (95 %) come from resampling clips.

With `--weight` 0 the given modality is only shown to an MM-Diffusion (replacement); above, the
generated one is moved by the gradient as well. Other systems know no weight.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.signal import butter, sosfiltfilt

from soundreel.clip import Clip
from soundreel.data.dataset import PreparedDataset
from soundreel.systems import load
from soundreel.types import AV

VOICE_HZ = 80  # below it a young model's sound has an offset and hum that no real clip has


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--weight", type=float, nargs="+", default=[2.0, 0.0])
    parser.add_argument("--split", default="test")
    parser.add_argument("--num-steps", type=int)
    parser.add_argument(
        "--mouth",
        type=float,
        nargs=4,
        default=[0.5, 0.9, 0.25, 0.75],
        help="top, bottom, left, right of the mouth's part, as shares of the picture",
    )
    arguments = parser.parse_args()
    pipeline = load(arguments.model)
    dataset = PreparedDataset(
        arguments.data, spec=pipeline.clip, split=arguments.split, stride=10**6
    )
    count = min(arguments.count, len(dataset))
    av = AV.cat([dataset[i].av.map(lambda x: x[None]) for i in range(count)])
    real = Clip.from_av(av, pipeline.clip.frame_rate, pipeline.clip.sample_rate)
    motion = np.stack([mouth_motion(clip, arguments.mouth) for clip in real])
    loudness = np.stack([loudness_db(clip) for clip in real])
    print("| pairs | own clip | other clips | excess (95 %) |\n| --- | --- | --- | --- |")
    row("real", correlations(loudness, motion))
    is_weighed = hasattr(pipeline.options, "guidance_weight")
    for weight in arguments.weight if is_weighed else [None]:
        settings = {"num_steps": arguments.num_steps}
        suffix = ""
        if weight is not None:
            settings["guidance_weight"], suffix = weight, f", weight {weight:g}"
        made = [
            pipeline.generate(seed=index, video=clip, **settings)[0]
            for index, clip in enumerate(real)
        ]
        heard = np.stack([loudness_db(clip) for clip in made])
        row(f"sound for a video{suffix}", correlations(heard, motion))
        made = [
            pipeline.generate(seed=index, audio=clip, **settings)[0]
            for index, clip in enumerate(real)
        ]
        seen = np.stack([mouth_motion(clip, arguments.mouth) for clip in made])
        row(f"pictures for a sound{suffix}", correlations(loudness, seen))
    print(f"\n{count} clips of split {arguments.split}")


def mouth_motion(clip: Clip, box: list[float]) -> np.ndarray:
    """Mean change of a pixel of the box from each frame to the next, 0..255."""
    height, width = clip.frames.shape[1:3]
    top, bottom = (round(share * height) for share in box[:2])
    left, right = (round(share * width) for share in box[2:])
    mouth = clip.frames[:, top:bottom, left:right].astype(np.float32)
    return np.abs(np.diff(mouth, axis=0)).mean(axis=(1, 2, 3))


def loudness_db(clip: Clip) -> np.ndarray:
    """Loudness above 80 Hz of the sound of each frame but the first."""
    high_pass = butter(4, VOICE_HZ, "highpass", fs=clip.sample_rate, output="sos")
    sound = sosfiltfilt(high_pass, clip.waveform.mean(axis=0))
    per_frame = len(sound) // len(clip.frames)
    blocks = sound[: per_frame * len(clip.frames)].reshape(-1, per_frame)
    return 10 * np.log10((blocks**2).mean(axis=1) + 1e-8)[1:]


def correlations(sounds: np.ndarray, motions: np.ndarray) -> np.ndarray:
    """`sound motion`: the correlation over frames of each sound with each motion."""
    rows = [
        (x - x.mean(axis=1, keepdims=True)) / (x.std(axis=1, keepdims=True) + 1e-9)
        for x in (sounds, motions)
    ]
    return rows[0] @ rows[1].T / sounds.shape[1]


def row(name: str, table: np.ndarray, draws: int = 4000) -> None:
    """Print the mean of the diagonal, of the rest, and their difference with its interval."""
    count = len(table)
    own = np.diag(table)
    others = (table.sum(axis=1) - own) / (count - 1)
    excess = own - others
    chosen = np.random.default_rng(0).integers(count, size=(draws, count))
    low, high = np.quantile(excess[chosen].mean(axis=1), (0.025, 0.975))
    print(
        f"| {name} | {own.mean():.3f} | {others.mean():.3f} | "
        f"{excess.mean():.3f} ({low:.3f} to {high:.3f}) |",
        flush=True,
    )


if __name__ == "__main__":
    main()
