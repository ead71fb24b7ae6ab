"""Long video of a trained model: use of the past, borders of windows, drift over a minute.

    python benchmarks/long_video.py past MODEL --data PREPARED [--clips 110]
    python benchmarks/long_video.py seams MODEL --out OUT [--films 10 --seed 0 --duration 20]
    python benchmarks/long_video.py drift MODEL --out OUT [--films 11 --duration 60 --plot FILE]

`past` (of an MM-LDM) compares the loss of a window given the latents of the window before it with
that given another clip's of the same class; `seams` compares borders with the middle of windows,
for faded and for butt-joined windows and for real film: whole test clips of `--data`, else rendered
films; `drift` follows films window by window, with `--classifiers FOLDER` their class too. OUT
keeps the windows of each seed's film, the same for every measurement; what is there is not made
again. Films of joint_flow, which come as a stream, are made anew and need no OUT.
"""

import argparse
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from film_borders import resampled_mean, seams
from film_windows import clock_of, made_films, seeds_of
from scene_classifiers import SceneClassifiers, open_classifiers

import soundreel
from soundreel.clip import Clip
from soundreel.data.dataset import PreparedDataset
from soundreel.device import autocast
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.films import Films
from soundreel.systems.mm_ldm.generator_loss import conditional_loss, draw
from soundreel.systems.mm_ldm.long_loss import TASKS, known_history
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.types import AV

NUM_RESAMPLES = 2000
COLUMNS = ("brightness", "sharpness", "loudness_db", "seen", "heard")


def past(pipeline: MMLDMPipeline, options: argparse.Namespace) -> dict[str, object]:
    """Loss given the own past, another clip's of the same class, and none, by task and modality."""
    windows, labels, keys = test_latents(pipeline, options.data, options.clips)
    rows = [n for n in range(len(keys) - 1) if keys[n] == keys[n + 1]]
    before = windows.map(lambda x: x[rows])
    now = windows.map(lambda x: x[[row + 1 for row in rows]])
    label, names = labels[rows], [keys[row] for row in rows]
    other = before.map(lambda x: x[strangers(names, label.tolist())])
    found: dict[str, object] = {"pairs": len(rows), "clips": len(set(names))}
    nothing = losses(pipeline, now, label, before.map(torch.zeros_like), options.times)
    for number, task in enumerate(TASKS[1:], start=1):
        chosen = torch.full((len(rows),), number)
        own = losses(pipeline, now, label, known_history(before, chosen), options.times)
        anothers = losses(pipeline, now, label, known_history(other, chosen), options.times)
        found[task] = {
            name: {
                "own": own[name].mean().item(),
                "none": nothing[name].mean().item(),
                "another's": anothers[name].mean().item(),
                "gap": relative_gap(own[name], anothers[name], names),
                "gap of none": relative_gap(own[name], nothing[name], names),
            }
            for name in now.present
        }
    return found


def test_latents(
    pipeline: MMLDMPipeline, data: Path, num_clips: int
) -> tuple[AV, torch.Tensor, list[str]]:
    """Standardised latents of the test clips' windows one hop apart, their classes and clips."""
    assert pipeline.long_generator is not None
    hop = clock_of(pipeline).hop
    samples = PreparedDataset(data, spec=pipeline.clip, split="test", stride=hop)
    encoded, labels, keys = [], [], []
    for index in range(len(samples)):
        sample = samples[index]
        if sample.key not in keys and len(set(keys)) == num_clips:
            break
        encoded.append(pipeline.encode_av(sample.av.map(lambda x: x[None])))
        labels.append(sample.label)
        keys.append(sample.key)
    label = torch.tensor(labels)
    none = pipeline.long_generator.config.generator.num_classes
    return AV.cat(encoded), torch.where(label < 0, none, label), keys


def strangers(names: list[str], labels: list[int]) -> list[int]:
    """For each pair one of another clip, of the same class where there is one."""
    found = []
    for row, (name, label) in enumerate(zip(names, labels, strict=True)):
        rest = [n for n in range(len(names)) if names[n] != name]
        alike = [n for n in rest if labels[n] == label] or rest
        found.append(alike[row % len(alike)])
    return found


@torch.no_grad()
def losses(
    pipeline: MMLDMPipeline, latents: AV, label: torch.Tensor, previous: AV, num_times: int
) -> dict[str, torch.Tensor]:
    """Mean over times, the same noise whatever is known; for each pair, by modality."""
    network = pipeline.long_generator
    assert network is not None
    config, schedule = network.config.generator, pipeline.settings.diffusion.build()
    sums = {name: torch.zeros(len(label)) for name in latents.present}
    for number in range(num_times):
        for rows in torch.arange(len(label)).split(32):
            part, before = (av.map(lambda x, rows=rows: x[rows]) for av in (latents, previous))
            draws = draw(part, schedule, PerSampleNoise([1000 * number + int(r) for r in rows]))
            middle = (number + 0.5) / num_times * len(schedule)
            draws.timestep.fill_(int(middle))
            draws = type(draws)(draws.timestep, draws.uniforms, pipeline.stats.noise(draws.noise))
            result = conditional_loss(
                network,
                part,
                draws,
                schedule,
                condition=part.map(torch.zeros_like),
                context_kept=torch.ones(len(rows), dtype=torch.bool),
                prediction_type=pipeline.settings.diffusion.prediction_type,
                learned_variance=config.learned_variance,
                label=label[rows] if config.num_classes else None,
                previous=before,
            )
            for name in sums:
                sums[name][rows] += result.terms[f"mse_{name}"] / num_times
    return sums


def relative_gap(own: torch.Tensor, other: torch.Tensor, names: list[str]) -> list[float]:
    """(other - own) / own of the means, and its standard error over clips."""
    clips = sorted(set(names))
    sums = np.array(
        [
            [float(x[[n for n, name in enumerate(names) if name == clip]].sum()) for clip in clips]
            for x in (own, other)
        ]
    )
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(clips), size=(NUM_RESAMPLES, len(clips)))
    resampled = sums[:, drawn].sum(axis=2)
    gap = sums[1].sum() / sums[0].sum() - 1
    return [float(gap), float((resampled[1] / resampled[0] - 1).std())]


def drift(pipeline: Films, options: argparse.Namespace) -> dict[str, object]:
    """Brightness, sharpness, loudness and the classifiers' agreement: of parts of the films, their
    trend over a whole film by a straight line, and of held-out clips of `--data`."""
    names, judges = pipeline.class_names, None
    if options.classifiers is not None:
        judges = open_classifiers(
            options.classifiers, options.data, pipeline.clip, lambda done, total: None
        )
    films = np.array(
        [
            [
                window_row(window, names[seed % len(names)], judges)
                for window in windows_of(film, pipeline.clip.duration)
            ]
            for seed, film in zip(
                seeds_of(options), made_films(pipeline, options, "fade"), strict=True
            )
        ]
    )
    length = films.shape[1]
    place = np.arange(length) / (length - 1) - 0.5
    trend = np.einsum("fwc,w->fc", films, place) / (place**2).sum()
    found: dict[str, object] = {"films": len(films), "windows": length}
    parts = {
        f"windows {part[0]} to {part[-1]}": films[:, part].mean(axis=1)
        for part in np.array_split(np.arange(length), options.parts)
    }
    for name, rows in {**parts, "trend over a film": trend}.items():
        found[name] = by_column(rows)
    if options.data is not None:
        samples = PreparedDataset(options.data, spec=pipeline.clip, split="test", stride=10**6)
        held_out = []
        for index in range(len(samples)):
            sample = samples[index]
            rates = pipeline.clip.frame_rate, pipeline.clip.sample_rate
            (clip,) = Clip.from_av(sample.av.map(lambda x: x[None]), *rates)
            held_out.append(window_row(clip, names[sample.label], judges))
        found["held-out clips"] = by_column(np.array(held_out))
    if options.plot is not None:
        plot_drift(list(parts.values()), options)
    return found


def plot_drift(parts: list[np.ndarray], options: argparse.Namespace) -> None:
    """Draw each measure over the time of the films: a thin line a film, a thick one their mean."""
    minutes = (np.arange(len(parts)) + 0.5) * options.duration / len(parts) / 60
    films = np.stack(parts, axis=1)
    figure, all_axes = plt.subplots(1, films.shape[2], figsize=(3 * films.shape[2], 2.6))
    for axes, name, rows in zip(all_axes, COLUMNS, films.transpose(2, 0, 1), strict=False):
        axes.plot(minutes, rows.T, color="0.7", linewidth=1)
        axes.plot(minutes, rows.mean(axis=0), color="black")
        axes.set(title=name, xlabel="minutes")
    figure.tight_layout()
    figure.savefig(options.plot, dpi=80)


def windows_of(film: Clip, duration: Fraction) -> Iterator[Clip]:
    """Parts of a film as long as a window, side by side."""
    for number in range(int(film.duration / duration)):
        yield film.cut(number * duration, duration)


def by_column(rows: np.ndarray) -> dict[str, list[float]]:
    return {x: resampled_mean(row) for x, row in zip(COLUMNS, rows.T, strict=False)}


def window_row(window: Clip, kind: str, judges: SceneClassifiers | None) -> list[float]:
    """What a window looks and sounds like, and whether it is seen and heard to be of its kind."""
    if judges is None:
        return looks(window)
    seen, heard = judges.classes([window])
    return [*looks(window), float(seen[0] == kind), float(heard[0] == kind)]


def looks(window: Clip) -> list[float]:
    """Mean grey level, mean absolute Laplacian, and loudness in dB below full scale."""
    assert window.frames is not None
    assert window.waveform is not None
    grey = window.frames.astype(np.float32).mean(axis=-1)
    middle = grey[:, 1:-1, 1:-1]
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    loudness = 10 * np.log10(float((window.waveform.astype(np.float64) ** 2).mean()) + 1e-10)
    return [float(grey.mean()), float(np.abs(4 * middle - around).mean()), loudness]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("past", "seams", "drift"))
    parser.add_argument("model")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--precision", default="", help="other than the model's own")
    parser.add_argument("--clips", type=int, default=110, help="test clips of `past`")
    parser.add_argument("--times", type=int, default=8, help="diffusion times of `past`")
    parser.add_argument("--films", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the first film")
    parser.add_argument("--duration", type=int, default=20)
    parser.add_argument("--num-steps", type=int, default=0, help="other than the model's own")
    parser.add_argument("--sampler", default="", help="other than the model's own")
    parser.add_argument("--no-classes", action="store_true", help="films of no class")
    parser.add_argument("--classifiers", type=Path)
    parser.add_argument("--parts", type=int, default=6, help="of a film, to follow its drift by")
    parser.add_argument("--plot", type=Path, help="picture of the drift")
    options = parser.parse_args()
    pipeline = soundreel.load(options.model)
    measure = {"past": past, "seams": seams, "drift": drift}[options.what]
    precision = options.precision or "auto" if options.what == "past" else "float32"
    with autocast(pipeline.device, precision):
        print(json.dumps(measure(pipeline, options), indent=1))


if __name__ == "__main__":
    main()
