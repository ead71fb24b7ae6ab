"""Borders between the windows of films, against places within windows and against real film."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
from film_windows import clock_of, is_joined, made_windows, seeds_of, streamed_films

from soundreel.clip import Clip
from soundreel.data.dataset import PreparedDataset
from soundreel.data.scenes.render import render_clip
from soundreel.data.scenes.sizes import options_for
from soundreel.film import Join, join_clips, join_windows
from soundreel.film_clock import FilmClock
from soundreel.films import Films
from soundreel.media.seam import FADE_S, best_place
from soundreel.systems.joint_flow.lapped import HOP

RENDER_SEED = 97
NUM_RESAMPLES = 2000
SIDE_MS = 100


@dataclass(frozen=True)
class Borders:
    """Where windows of a film meet.

    Attributes:
        frames: first frame that both sides have made.
        length: frames from there on that are looked at.
        joins: sample where the sound of each is joined.
    """

    frames: list[int]
    length: int
    joins: list[int]


def joined_film_sets(
    pipeline: Films, options: argparse.Namespace
) -> dict[str, Iterator[tuple[Clip, Borders]]]:
    """Faded films, butt-joined ones of the same windows, and real ones with the same borders."""
    clock = clock_of(pipeline)
    num_frames = clock.num_frames(options.duration)

    def borders(film: Clip, joins: list[int] | None = None) -> Borders:
        starts = [clock.start(number) for number in range(1, clock.num_windows(film.num_frames))]
        if joins is None:
            ends = [clock.sample(start + clock.overlap) for start in starts]
            joins = [end for end in ends if end < film.num_samples]
        return Borders(starts, max(clock.overlap, 1), joins)

    def made(join: Join) -> Iterator[tuple[Clip, Borders]]:
        for windows in made_windows(pipeline, options):
            film = join_clips(join_windows(windows, clock, num_frames=num_frames, join=join))
            yield film, borders(film, fades(windows, clock) if join == "fade" else None)

    def real() -> Iterator[tuple[Clip, Borders]]:
        for film in real_films(clock, options):
            yield film, borders(film)

    return {"fade": made("fade"), "butt": made("butt"), "real": real()}


def fades(windows: list[Clip], clock: FilmClock) -> list[int]:
    """Return the sample where each window's fade of sound begins."""
    found = []
    for number, (before, after) in enumerate(pairwise(windows), start=1):
        start = clock.start(number)
        first, length = clock.sample(start), clock.sample(start + clock.overlap)
        length -= first
        place, _ = best_place(
            before.waveform[:, -length:],
            after.waveform[:, :length],
            round(FADE_S * clock.clip.sample_rate),
        )
        found.append(first + place)
    return found


def streamed_film_sets(
    pipeline: Films, options: argparse.Namespace
) -> dict[str, Iterator[tuple[Clip, Borders]]]:
    """Films of joint_flow, whose windows are sampled around half of the one before and lap."""
    first, window = pipeline.clip.num_frames, pipeline.clip.num_frames // HOP + 1
    further = HOP * (window - window // 2)

    def with_borders(films: Iterator[Clip]) -> Iterator[tuple[Clip, Borders]]:
        for film in films:
            starts = list(range(first, film.num_frames, further))
            joins = [film.num_samples * start // film.num_frames for start in starts]
            yield film, Borders(starts, HOP, joins)

    real = real_films(FilmClock(pipeline.clip), options)
    return {"own": with_borders(streamed_films(pipeline, options)), "real": with_borders(real)}


def real_films(clock: FilmClock, options: argparse.Namespace) -> Iterator[Clip]:
    spec = clock.clip
    if options.data is not None:
        yield from whole_clips(options.data, clock)
        return
    wanted = options_for(spec, num_frames=int(options.duration * spec.frame_rate))
    for index in seeds_of(options):
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
        hop = clock.hop / spec.frame_rate
        yield join_clips([*(clip.cut(0, hop) for clip in clips[:-1]), clips[-1]])


def seams(pipeline: Films, options: argparse.Namespace) -> dict[str, object]:
    """Return how borders differ from places within windows."""
    found: dict[str, object] = {"films": options.films, "duration_s": options.duration}
    film_sets = joined_film_sets if is_joined(pipeline) else streamed_film_sets
    sets = film_sets(pipeline, options)
    for name, films in sets.items():
        rows = np.array([row for film in films if (row := border_row(*film)) is not None])
        for column, measure in enumerate(("click_db", "loudest_db", "frame_change_ratio")):
            border, inside = rows[:, column].T
            found[f"{name}, {measure}"] = {
                "films": len(rows),
                "border": resampled_mean(border),
                "inside": resampled_mean(inside),
                "difference": resampled_mean(border - inside),
            }
    return found


def border_row(film: Clip, borders: Borders) -> np.ndarray | None:
    """Return clicks, the loudest millisecond and the change of frames at borders and elsewhere.

    Clicks: see `clicks`, at joins and every tenth of a second of the rest. The two others are at
    borders and midway between them, against the mean of three places between borders.

    Returns:
        Rows for the three, each with the mean over the film's borders and over those other places.
        None where it has no border.
    """
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

    rows, within = [], []
    for first, second in pairwise(borders.frames):
        inside = [at(first + (second - first) * part // 4) for part in (1, 2, 3)]
        rows.append((at(first), inside[1], np.mean(inside, axis=0)))
        begin, end = (int(1000 * n // film.frame_rate) for n in (first + borders.length, second))
        within += range(begin + SIDE_MS, end - SIDE_MS, SIDE_MS)
    if not rows:
        return None
    border, inner, middle = np.array(rows).transpose(1, 2, 0)
    places = [[join // block for join in borders.joins], within]
    click = [np.mean([clicks(peaks, place) for place in found]) for found in places]
    loudest = [(x[0] - middle[0]).mean() for x in (border, inner)]
    floor = 0.02  # grey levels of 255: stills differ by rounding
    ratios = [x[1].mean() / max(middle[1].mean(), floor) for x in (border, inner)]
    return np.array([click, loudest, ratios])


def clicks(peaks: np.ndarray, place: int) -> float:
    """Return how far a join's loudest millisecond is above that of a tenth of a second before and
    after it, in dB; below 0 where nothing clicks.

    Args:
        peaks: high-passed energy of each millisecond.
        place: millisecond where the join begins.
    """
    begin, end = max(place - 1, 1), place + round(1000 * FADE_S) + 1
    around = max(peaks[max(begin - SIDE_MS, 0) : begin].max(), peaks[end : end + SIDE_MS].max())
    return 10 * np.log10((peaks[begin:end].max() + 1e-12) / (around + 1e-12))


def resampled_mean(values: np.ndarray) -> list[float]:
    """Mean and 95 % interval over films."""
    drawn = np.random.default_rng(0).choice(values, (NUM_RESAMPLES, len(values))).mean(axis=1)
    return [float(np.mean(values)), *np.quantile(drawn, (0.025, 0.975)).tolist()]
