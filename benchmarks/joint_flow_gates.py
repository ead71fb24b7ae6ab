"""What the codecs of a joint_flow model keep of held-out renders, and artefacts of its samples.

    python benchmarks/joint_flow_gates.py MODEL --out OUT [--generated 110]

Prints Markdown; OUT keeps renders, classifiers and samples as `scene_quality.py` does and may be
the same folder. All intervals are 95 % percentile bootstrap intervals over clips.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scene_classifiers import open_classifiers
from scene_clips import SceneClip, claim, generated, held_out
from scene_quality import plain
from scene_statistics import EVENT_KINDS, agreement, compare_sync, event_rows, mean_interval
from scene_tables import Numbers, percent, text

from soundreel.cli.clip_sources import model_sha256
from soundreel.clip import Clip
from soundreel.files import write_text
from soundreel.progress import progress_bar
from soundreel.systems import load
from soundreel.systems.joint_flow.pipeline import JointFlowPipeline
from soundreel.types import AV

TOKEN = 32
"""Pixels of a token of the transformer along each side."""
BLOCK = 16
"""Pixels of the blocks whose change tells whether anything moves there."""
STILL_SHARE = 0.25
"""Share of a clip's blocks, those that change least, that count as still."""
COLUMN_HZ = 64.0
"""Columns of the audio codec's spectra a second, where a lattice would show."""
NOISE_KINDS = ("rain", "fire", "waves")
HOP, WINDOW = 40, 160
"""Samples of the envelopes whose modulation is looked at: 400 Hz."""


@dataclass(frozen=True)
class Artefact:
    """A number of one clip that a codec or generator may raise."""

    title: str
    column: int
    kinds: tuple[str, ...] = ()


ARTEFACTS = (
    Artefact("steps across token borders / inside", 0),
    Artefact("change where nothing moves, levels of 255", 1),
    Artefact("spectral flatness of rain, fire, waves, dB", 2, NOISE_KINDS),
    Artefact("modulation at 64 Hz of rain, fire, waves / beside it", 3, NOISE_KINDS),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a model folder of joint_flow")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", help="of the samples' folder and the numbers' file")
    parser.add_argument("--train-data", type=Path, help="data of the classifiers; else renders")
    parser.add_argument("--count", type=int, default=220, help="held-out renders")
    parser.add_argument("--generated", type=int, default=0, help="samples; 0: the codecs alone")
    parser.add_argument("--seed", type=int, default=0, help="of samples, noise and intervals")
    parser.add_argument("--reference-seed", type=int, default=1000, help="of the renders")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pipeline = load(options.model)
    if not isinstance(pipeline, JointFlowPipeline):
        raise ValueError(f"{options.model} is no model of joint_flow")
    options.out.mkdir(parents=True, exist_ok=True)
    folder, seed = options.out / f"renders-{options.reference_seed}", options.reference_seed
    with progress_bar("renders") as advance:
        real = held_out(folder, pipeline.clip, options.count, seed, advance)
    sets = {"renders": real} | through_codecs(pipeline, real, options.seed)
    name = options.name or Path(options.model).resolve().parent.name
    if options.generated:
        samples = options.out / name
        claim(samples, {"model_sha256": model_sha256(Path(options.model)), "seed": options.seed})
        with progress_bar("generating") as advance:
            sets["generated"] = generated(
                pipeline, samples, options.generated, options.seed, 8, {}, advance
            )
    with progress_bar("classifiers") as advance:
        classifiers = open_classifiers(options.out, options.train_data, pipeline.clip, advance)
    rng = np.random.default_rng(options.seed)
    print(f"## {name}: {len(real)} held-out renders\n")
    found = {what: classifiers.classes([c.clip for c in own]) for what, own in sets.items()}
    numbers = {"codecs": codec_table(sets, found, rng), "artefacts": artefact_table(sets, rng)}
    path = options.out / f"{name}-gates.json"
    write_text(path, json.dumps(plain(numbers), indent=1) + "\n")


@torch.no_grad()
def through_codecs(
    pipeline: JointFlowPipeline, real: Sequence[SceneClip], seed: int
) -> dict[str, list[SceneClip]]:
    """The renders after the linear video codec, the decoder, the audio codec, and both."""
    sets: dict[str, list[SceneClip]] = {}
    for index, item in enumerate(real):
        latents = pipeline.encode(item.clip)
        (both,) = pipeline.decode(latents, seed=seed + index)
        frames = pipeline.video.linear.decode(latents["video"])
        (linear,) = Clip.from_av(AV(frames, None), item.clip.frame_rate, item.clip.sample_rate)
        sound, pictures = item.clip.waveform, both.frames
        for what, clip in (
            ("linear video codec, true sound", replace(item.clip, frames=linear.frames)),
            ("video decoder, true sound", replace(item.clip, frames=pictures)),
            ("true pictures, audio codec", replace(item.clip, waveform=both.waveform)),
            ("video decoder, audio codec", both),
        ):
            if clip.waveform.shape != sound.shape or clip.frames.shape != item.clip.frames.shape:
                raise ValueError(f"{item.name} changed its length on the way through the codecs")
            sets.setdefault(what, []).append(replace(item, clip=clip))
    return sets


def codec_table(
    sets: dict[str, list[SceneClip]],
    found: dict[str, tuple[list[str], list[str]]],
    rng: np.random.Generator,
) -> Numbers:
    """Sharpness, names and events that the codecs keep."""
    real = sets["renders"]
    names, events = found["renders"], rows_by_kind(real)
    print(
        "| through | PSNR, dB | picture's name kept | sound's name kept | event share |"
        " sync score share |\n| --- | --- | --- | --- | --- | --- |"
    )
    numbers: Numbers = {}
    for what, own in sets.items():
        if what in ("renders", "generated"):
            continue
        row: Numbers = {
            side: mean_interval(agreement(names[k], found[what][k]).astype(float), rng)
            for k, side in enumerate(("picture", "sound"))
        }
        sharpness = np.array([psnr_db(a.clip, b.clip) for a, b in zip(real, own, strict=True)])
        row["psnr"] = mean_interval(sharpness, rng) if np.isfinite(sharpness).all() else None
        row |= {
            key: one["share"] for key, one in compare_sync(rows_by_kind(own), events, rng).items()
        }
        numbers[what] = row
        cells = [text(row["psnr"]) if row["psnr"] else "exact"]
        cells += [percent(row["picture"]), percent(row["sound"])]
        print(f"| {what} | {' | '.join([*cells, text(row['f1']), text(row['score'])])} |")
    return numbers


def artefact_table(sets: dict[str, list[SceneClip]], rng: np.random.Generator) -> Numbers:
    """Means of every set's artefacts, to be held against those of the renders."""
    shown = [what for what in sets if "true" not in what]
    values = {what: np.array([artefacts(c.clip) for c in sets[what]]) for what in shown}
    print(f"\n| | {' | '.join(shown)} |\n|{' --- |' * (len(shown) + 1)}")
    numbers: Numbers = {}
    for one in ARTEFACTS:
        row = {}
        for what in shown:
            chosen = [not one.kinds or c.label in one.kinds for c in sets[what]]
            row[what] = mean_interval(values[what][chosen, one.column], rng)
        numbers[one.title] = row
        print(f"| {one.title} | {' | '.join(text(row[what]) for what in shown)} |")
    return numbers


def rows_by_kind(clips: Sequence[SceneClip]) -> dict[str, np.ndarray]:
    return {kind: event_rows([c.clip for c in clips if c.label == kind]) for kind in EVENT_KINDS}


def psnr_db(true: Clip, other: Clip) -> float:
    """Peak signal-to-noise ratio of all frames; infinite where they are equal."""
    error = (true.frames.astype(np.float32) - other.frames) ** 2
    return float(10 * np.log10(255**2 / error.mean())) if error.any() else np.inf


def artefacts(clip: Clip) -> tuple[float, float, float, float]:
    """The numbers of `ARTEFACTS`, in their order."""
    light = clip.frames.astype(np.float32).mean(axis=-1)
    return (
        border_steps(light),
        still_change(light),
        flatness_db(clip.waveform.mean(axis=0)),
        lattice(clip.waveform.mean(axis=0), clip.sample_rate),
    )


def border_steps(light: Float[np.ndarray, "frame height width"]) -> float:
    """Mean step of brightness across the borders of tokens, as a multiple of that elsewhere."""
    across = other = 0.0
    for steps in (
        np.abs(np.diff(light, axis=1)).mean(axis=(0, 2)),
        np.abs(np.diff(light, axis=2)).mean(axis=(0, 1)),
    ):
        border = np.arange(1, len(steps) + 1) % TOKEN == 0
        across, other = across + steps[border].mean(), other + steps[~border].mean()
    return float(across / max(other, 1e-6))


def still_change(light: Float[np.ndarray, "frame height width"]) -> float:
    """Mean change from frame to frame of the blocks' brightness where it changes least."""
    count, height, width = light.shape
    blocks = light.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK).mean(axis=(2, 4))
    change = np.sort(np.abs(np.diff(blocks, axis=0)).mean(axis=0).ravel())
    return float(change[: round(STILL_SHARE * len(change))].mean())


def flatness_db(sound: Float[np.ndarray, " sample"]) -> float:
    """Geometric over arithmetic mean of the mean power spectrum: 0 dB is white, tones lower it."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, 1024)[::256] * np.hanning(1024)
    power = (np.abs(np.fft.rfft(frames)) ** 2).mean(axis=0)[4:-4] + 1e-12
    return float(10 * np.log10(np.exp(np.log(power).mean()) / power.mean()))


def lattice(sound: Float[np.ndarray, " sample"], sample_rate: int) -> float:
    """Modulation of the bands' envelopes at the column rate, as a multiple of that beside it."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP] * np.hanning(WINDOW)
    envelope = np.abs(np.fft.rfft(frames))[:, 1:]  # time, band
    envelope = envelope - envelope.mean(axis=0)
    spectrum = (
        np.abs(np.fft.rfft(envelope * np.hanning(len(envelope))[:, None], axis=0)) ** 2
    ).sum(axis=1)
    hz = np.fft.rfftfreq(len(envelope), HOP / sample_rate)
    at = np.abs(hz - COLUMN_HZ) <= 1.5
    beside = (np.abs(hz - COLUMN_HZ) <= 16) & (np.abs(hz - COLUMN_HZ) > 4)
    return float(spectrum[at].mean() / max(spectrum[beside].mean(), 1e-12))


if __name__ == "__main__":
    main()
