"""Films for measurements: the windows of many at once, kept in a folder and made once."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from soundreel.clip import Clip
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.film import Join, join_clips, join_windows, window_seed
from soundreel.film_clock import FilmClock
from soundreel.films import Films
from soundreel.systems.mm_diffusion.pipeline import MMDiffusionPipeline
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.types import AV


def is_joined(pipeline: Films) -> bool:
    """Tell whether films are joined from windows; those of joint_flow come as a stream."""
    return isinstance(pipeline, MMLDMPipeline | MMDiffusionPipeline)


def streamed_films(pipeline: Films, options: argparse.Namespace) -> Iterator[Clip]:
    """Yield films of joint_flow from nothing, the classes in turn."""
    names = () if options.no_classes else getattr(pipeline, "class_names", ())
    for seed in seeds_of(options):
        request = {"label": names[seed % len(names)]} if names else {}
        yield join_clips(pipeline.stream(seed=seed, duration_s=options.duration, **request))


def made_films(pipeline: Films, options: argparse.Namespace, join: Join) -> Iterator[Clip]:
    """Yield films from nothing, the classes in turn, of either kind."""
    if not is_joined(pipeline):
        yield from streamed_films(pipeline, options)
        return
    clock = clock_of(pipeline)
    num_frames = clock.num_frames(options.duration)
    for windows in made_windows(pipeline, options):
        yield join_clips(join_windows(windows, clock, num_frames=num_frames, join=join))


def made_windows(pipeline: Films, options: argparse.Namespace) -> Iterator[list[Clip]]:
    """Yield the windows of each of those films."""
    clock = clock_of(pipeline)
    count = clock.num_windows(clock.num_frames(options.duration))
    make_windows(pipeline, count, options)
    for film in seeds_of(options):
        yield [
            Clip(
                stored["frames"].numpy(),
                stored["waveform"].numpy(),
                pipeline.clip.frame_rate,
                pipeline.clip.sample_rate,
            )
            for stored in (load_file(kept(options, film, number)) for number in range(count))
        ]


def seeds_of(options: argparse.Namespace) -> range:
    """Return the seeds of the films; a film's class follows from its own."""
    return range(options.seed, options.seed + options.films)


def kept(options: argparse.Namespace, film: int, window: int) -> Path:
    return options.out / f"film-{film:02d}" / f"window-{window:03d}.safetensors"


def make_windows(pipeline: Films, count: int, options: argparse.Namespace) -> None:
    """Make the first windows of all films that OUT does not have, and keep them there."""
    for number in range(count):
        lacking = [x for x in seeds_of(options) if not kept(options, x, number).exists()]
        if not lacking:
            continue
        states = [AV(None, None)] * len(lacking)
        if number:
            stored = [load_file(kept(options, film, number - 1)) for film in lacking]
            states = [AV(x["video"], x["audio"]) for x in stored]
        make = latent_windows if isinstance(pipeline, MMLDMPipeline) else single_windows
        made = make(pipeline, lacking, number, states, options)
        for film, (window, state) in zip(lacking, made, strict=True):
            kept(options, film, number).parent.mkdir(parents=True, exist_ok=True)
            tensors = {"video": state["video"], "audio": state["audio"]}
            tensors |= {
                "frames": torch.from_numpy(window.frames),
                "waveform": torch.from_numpy(window.waveform),
            }
            save_file({k: x.contiguous() for k, x in tensors.items()}, kept(options, film, number))


def latent_windows(
    pipeline: MMLDMPipeline,
    films: list[int],
    number: int,
    states: list[AV],
    options: argparse.Namespace,
) -> list[tuple[Clip, AV]]:
    """Windows of several films at once, as `LatentFilmMaker` makes those of one."""
    names = ("precision", "num_steps", "sampler")
    asked = {name: given for name in names if (given := getattr(options, name))}
    request = pipeline.request(None, None, asked)
    noise = PerSampleNoise([window_seed(film, number) for film in films])
    num_classes = 0 if options.no_classes else len(pipeline.class_names)
    label = torch.tensor([film % num_classes for film in films]) if num_classes else None
    latents = pipeline.sample(request, noise, label, previous=AV.cat(states))
    av = pipeline.decode_av(
        latents, noise, decoding=request.decoding, label=label, precision=request.precision
    )
    clips = Clip.from_av(av, pipeline.clip.frame_rate, pipeline.clip.sample_rate)
    return [(clip, latents.map(lambda x, n=n: x[n : n + 1])) for n, clip in enumerate(clips)]


def single_windows(
    pipeline: Films, films: list[int], number: int, states: list[AV], options: argparse.Namespace
) -> list[tuple[Clip, AV]]:
    maker = pipeline.film_maker(modality="both", is_given=False)
    return [
        maker.window(state, None, window_seed(film, number))
        for film, state in zip(films, states, strict=True)
    ]


def clock_of(pipeline: Films) -> FilmClock:
    maker = pipeline.film_maker(modality="both", is_given=False)
    return FilmClock(pipeline.clip, maker.overlap)
