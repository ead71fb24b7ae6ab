"""Long video of a trained model: use of the past, borders of windows, drift over a minute.

    python benchmarks/long_video.py past MODEL --data PREPARED [--clips 110]
    python benchmarks/long_video.py seams MODEL --out OUT [--films 10 --duration 20 --data PREPARED]
    python benchmarks/long_video.py drift MODEL --out OUT [--films 11 --duration 60]

`past` (of an MM-LDM) compares the loss of a window given the latents of the window before it with
that given another clip's of the same class; `seams` compares borders with the middle of windows,
for faded and for butt-joined windows and for real film: whole test clips of `--data`, else rendered
films; `drift` follows films window by window, with `--classifiers FOLDER` their class too. OUT
keeps the windows of film i, the same for every measurement; what is there is not made again.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, groupby, pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scene_classifiers import open_classifiers

import soundreel
from soundreel.clip import Clip
from soundreel.data.dataset import PreparedDataset
from soundreel.data.scenes.render import render_clip
from soundreel.data.scenes.sizes import options_for
from soundreel.device import autocast
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.film import Join, join_clips, join_windows, window_seed
from soundreel.film_clock import FilmClock
from soundreel.films import Films
from soundreel.systems.joint_flow.lapped import HOP
from soundreel.systems.mm_diffusion.pipeline import MMDiffusionPipeline
from soundreel.systems.mm_ldm.generator_loss import conditional_loss, draw
from soundreel.systems.mm_ldm.long_loss import TASKS, known_history
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.types import AV

RENDER_SEED = 97
NUM_RESAMPLES = 2000


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


def made_films(pipeline: Films, options: argparse.Namespace, join: Join) -> Iterator[Clip]:
    """Films from nothing, the classes in turn."""
    clock = clock_of(pipeline)
    num_frames = clock.num_frames(options.duration)
    for seed in range(options.films):
        windows = made_windows(pipeline, seed, clock.num_windows(num_frames), options)
        yield join_clips(join_windows(windows, clock, num_frames=num_frames, join=join))


def made_windows(
    pipeline: Films, seed: int, count: int, options: argparse.Namespace
) -> Iterator[Clip]:
    """The first windows of a film; those that OUT does not have are made and kept there."""
    names = getattr(pipeline, "class_names", ())
    request = {"label": names[seed % len(names)]} if names else {}
    if options.precision:
        request["precision"] = options.precision
    maker = pipeline.film_maker(modality="both", is_given=False, **request)
    spec, state = pipeline.clip, maker.begin(None)
    for number in range(count):
        kept = options.out / f"film-{seed:02d}" / f"window-{number:03d}.safetensors"
        if kept.exists():
            stored = load_file(kept)
            frames, sound = stored["frames"].numpy(), stored["waveform"].numpy()
            window = Clip(frames, sound, spec.frame_rate, spec.sample_rate)
            state = AV(stored["video"], stored["audio"])
        else:
            window, state = maker.window(state, None, window_seed(seed, number))
            kept.parent.mkdir(parents=True, exist_ok=True)
            tensors = {"video": state["video"], "audio": state["audio"]}
            tensors |= {
                "frames": torch.from_numpy(window.frames),
                "waveform": torch.from_numpy(window.waveform),
            }
            save_file({name: x.contiguous() for name, x in tensors.items()}, kept)
        yield window


def clock_of(pipeline: Films) -> FilmClock:
    maker = pipeline.film_maker(modality="both", is_given=False)
    return FilmClock(pipeline.clip, maker.overlap)


@dataclass(frozen=True)
class Borders:
    """Where windows of a film meet.

    Attributes:
        frames: first frame that both sides have made.
        length: frames from there on that are looked at.
    """

    frames: list[int]
    length: int


def joined_film_sets(
    pipeline: Films, options: argparse.Namespace
) -> dict[str, Iterator[tuple[Clip, Borders]]]:
    """Faded films, butt-joined ones of the same windows, and real ones with the same borders."""
    clock = clock_of(pipeline)

    def with_borders(films: Iterator[Clip]) -> Iterator[tuple[Clip, Borders]]:
        for film in films:
            count = clock.num_windows(film.num_frames)
            starts = [clock.start(number) for number in range(1, count)]
            yield film, Borders(starts, max(clock.overlap, 1))

    return {
        "fade": with_borders(made_films(pipeline, options, "fade")),
        "butt": with_borders(made_films(pipeline, options, "butt")),
        "real": with_borders(real_films(clock, options)),
    }


def streamed_film_sets(
    pipeline: Films, options: argparse.Namespace
) -> dict[str, Iterator[tuple[Clip, Borders]]]:
    """Films of a system whose windows need no joining; a piece is what a window adds."""
    names = getattr(pipeline, "class_names", ())
    places: list[int] = []

    def films() -> Iterator[tuple[Clip, Borders]]:
        for seed in range(options.films):
            request = {"label": names[seed % len(names)]} if names else {}
            stream = pipeline.stream(seed=seed, duration_s=options.duration, **request)
            pieces = list(stream)
            places[:] = accumulate(piece.num_frames for piece in pieces[:-1])
            yield join_clips(pieces), Borders(list(places), HOP)

    def real() -> Iterator[tuple[Clip, Borders]]:
        for film in real_films(FilmClock(pipeline.clip), options):
            yield film, Borders([place for place in places if place < film.num_frames], HOP)

    return {"own": films(), "real": real()}


def real_films(clock: FilmClock, options: argparse.Namespace) -> Iterator[Clip]:
    spec = clock.clip
    if options.data is not None:
        yield from whole_clips(options.data, clock)
        return
    wanted = options_for(spec, num_frames=int(options.duration * spec.frame_rate))
    for index in range(options.films):
        made = render_clip(wanted, RENDER_SEED, index)
        yield Clip(made.frames, made.waveform, spec.frame_rate, spec.sample_rate)


def whole_clips(data: Path, clock: FilmClock) -> Iterator[Clip]:
    """Test clips of a prepared data set in their whole length."""
    spec = clock.clip
    samples = PreparedDataset(data, spec=spec, split="test", stride=clock.hop)
    windows = (samples[index] for index in range(len(samples)))
    for _, parts in groupby(windows, key=lambda sample: sample.key):
        clips = [
            Clip.from_av(part.av.map(lambda x: x[None]), spec.frame_rate, spec.sample_rate)[0]
            for part in parts
        ]
        num_frames = clock.start(len(clips) - 1) + spec.num_frames
        yield join_clips(join_windows(clips, clock, num_frames=num_frames, join="butt"))


def seams(pipeline: Films, options: argparse.Namespace) -> dict[str, object]:
    """How borders differ from places within windows, and two such places from each other."""
    found: dict[str, object] = {"films": options.films, "duration_s": options.duration}
    is_joined = isinstance(pipeline, MMLDMPipeline | MMDiffusionPipeline)
    sets = (joined_film_sets if is_joined else streamed_film_sets)(pipeline, options)
    for name, films in sets.items():
        rows = np.array([row for film in films if (row := border_row(*film)) is not None])
        for column, measure in enumerate(("click_db", "frame_change_ratio")):
            border, inside = rows[:, column].T
            found[f"{name}, {measure}"] = {
                "films": len(rows),
                "border": resampled_mean(border),
                "inside": resampled_mean(inside),
                "difference": resampled_mean(border - inside),
            }
    return found


def border_row(film: Clip, borders: Borders) -> np.ndarray | None:
    """Click energy in dB and frame change, at borders and midway between them, both against the
    mean of three places between borders; the mean over a film. None where it has no border."""
    assert film.frames is not None
    assert film.waveform is not None
    frames, sound = film.frames.astype(np.float32), film.waveform[0].astype(np.float64)
    change = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    energy = np.diff(sound, n=2) ** 2
    block = film.sample_rate // 1000
    peaks = energy[: len(energy) // block * block].reshape(-1, block).mean(axis=1)

    def at(first: int) -> tuple[float, float]:
        """Loudest millisecond in dB, and mean change, of a place as long as an overlap."""
        length = borders.length + 1
        begin, end = (1000 * n // film.frame_rate for n in (first - 1, first - 1 + length))
        loud = 10 * np.log10(peaks[int(begin) : int(end)].max() + 1e-12)
        return loud, change[first - 1 : first - 1 + length].mean()

    rows = []
    for first, second in pairwise(borders.frames):
        inside = [at(first + (second - first) * part // 4) for part in (1, 2, 3)]
        rows.append((at(first), inside[1], np.mean(inside, axis=0)))
    if not rows:
        return None
    border, inner, middle = np.array(rows).transpose(1, 2, 0)
    clicks = [(x[0] - middle[0]).mean() for x in (border, inner)]
    floor = 0.02  # grey levels of 255: stills differ by rounding
    ratios = [x[1].mean() / max(middle[1].mean(), floor) for x in (border, inner)]
    return np.array([clicks, ratios])


def resampled_mean(values: np.ndarray) -> list[float]:
    """Mean and 95 % interval over films."""
    drawn = np.random.default_rng(0).choice(values, (NUM_RESAMPLES, len(values))).mean(axis=1)
    return [float(np.mean(values)), *np.quantile(drawn, (0.025, 0.975)).tolist()]


def drift(pipeline: MMLDMPipeline, options: argparse.Namespace) -> list[dict[str, object]]:
    """Brightness, sharpness, loudness and the classifiers' agreement by window number."""
    spec, names = pipeline.clip, pipeline.class_names
    judges = None
    if options.classifiers is not None:
        judges = open_classifiers(options.classifiers, None, spec, lambda done, total: None)
    by_window: dict[int, list[list[float]]] = {}
    for seed, film in enumerate(made_films(pipeline, options, "fade")):
        for number in range(film.num_frames // spec.num_frames):
            start = number * spec.num_frames / Fraction(spec.frame_rate)
            window = film.cut(start, spec.duration)
            row = looks(window)
            if judges is not None:
                seen, heard = judges.classes([window])
                wanted = names[seed % len(names)]
                row += [float(seen[0] == wanted), float(heard[0] == wanted)]
            by_window.setdefault(number, []).append(row)
    columns = ["brightness", "sharpness", "loudness_db", "seen", "heard"]
    return [
        {
            "window": number,
            **dict(zip(columns, np.mean(rows, axis=0).round(3).tolist(), strict=False)),
        }
        for number, rows in sorted(by_window.items())
    ]


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
    parser.add_argument("--duration", type=int, default=20)
    parser.add_argument("--classifiers", type=Path)
    options = parser.parse_args()
    pipeline = soundreel.load(options.model)
    measure = {"past": past, "seams": seams, "drift": drift}[options.what]
    precision = options.precision or "auto" if options.what == "past" else "float32"
    with autocast(pipeline.device, precision):
        print(json.dumps(measure(pipeline, options), indent=1))


if __name__ == "__main__":
    main()
