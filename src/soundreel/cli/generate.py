"""`soundreel generate [MODEL] --out DIR`: clips and a contact sheet from a trained model."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from soundreel import __version__
from soundreel.cli.main import write
from soundreel.cli.options import given_flags, with_flags
from soundreel.cli.output import SHEET, check_folder, clear_earlier, write_provenance
from soundreel.cli.upscaling import PREFIX, Upscaling, load_upscaling
from soundreel.clip import Clip
from soundreel.device import resolve_precision
from soundreel.errors import SoundreelError
from soundreel.film_file import FilmRequest, check_film, write_film
from soundreel.films import Films
from soundreel.media.contact_sheet import write_contact_sheet
from soundreel.progress import progress_bars
from soundreel.protocols import Pipeline, Progress, with_options
from soundreel.request import check_counts, find_label
from soundreel.systems import all_systems, load

EARLIER = ("clip-[0-9]*.mp4", "clip-[0-9]*.mkv", "clip-[0-9]*.json", SHEET)


@dataclass(frozen=True, kw_only=True)
class GenerateArguments:
    """Make clips with sound and write them as MP4 files with a contact sheet.

    Each clip is written when it is made, with a JSON file that says how.
    """

    model: Annotated[str | None, tyro.conf.Positional] = None
    """A model folder, for example RUN/model, or owner/name on the Hub. Default: the model that
    comes with Soundreel."""
    adapter: Path | None = None
    """Folder of a LoRA adapter that was trained on the model, such as RUN/adapter."""
    out: Path
    """Folder for the clips; made if absent."""
    count: int = 4
    """Number of clips."""
    seed: int = 0
    """Clip i is that of seed + i, whatever the count or batch size."""
    video: Path | None = None
    """A video that gets a new sound track of its length; its own picture is kept."""
    audio: Path | None = None
    """A sound, or a video with one, that is kept and gets pictures of its length."""
    after: Path | None = None
    """A video that the film begins with and goes on from; needs --duration."""
    between: tuple[Path, Path] | None = None
    """Two videos; --duration seconds are made between them, and the three are one film."""
    duration: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Length of each film, what it goes on from included; with --between, of the gap. Default: one
    window of the model, or as long as --video or --audio."""
    start: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 0.0
    """Time in --video or --audio at which the film begins."""
    modality: Literal["both", "audio", "video"] = "both"
    """The part of --after that goes on."""
    join: Literal["fade", "butt"] | None = None
    """Join of a film's windows: faded where both made the same stretch (the default), or set side
    by side. For models whose windows are joined."""
    model_size: bool = False
    """Write the pictures of --video and the sound of --audio as the model sees them."""
    label: Annotated[str | None, tyro.conf.arg(name="class", aliases=["--label"])] = None
    """Class by its name or number, for models trained with classes."""
    text: str | None = None
    """Caption, for models trained with captions."""
    batch_size: int = 4
    """Clips sampled at once; more needs more memory."""
    upscale: str | None = None
    """A super-resolution model, a folder or owner/name on the Hub, that makes frames larger."""
    enlarge: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Write each pixel as a block of N x N in the MP4 files, for players that blur small ones."""
    lossless: bool = False
    """Write Matroska files (FFV1, PCM) that hold exactly what the model made."""
    overwrite: bool = False
    """Replace the clips that an earlier run left in --out."""
    device: str | None = None
    """Device to compute on: cpu, cuda, cuda:1 ... Default: CUDA where there is one."""


def generate(words: list[str]) -> int:
    """Make clips with sound from a trained model."""
    base, larger = ([s.options for s in all_systems() if s.upscales == kind] for kind in (0, 1))
    arguments = tyro.cli(
        with_flags(with_flags(GenerateArguments, base), larger, prefix=PREFIX),
        args=words,
        prog="soundreel generate",
        use_underscores=False,
    )
    check_counts(arguments.count, arguments.seed, arguments.batch_size)
    check_folder(arguments.out)
    pipeline = load(arguments.model, adapter=arguments.adapter, device=arguments.device)
    request = _request(arguments, pipeline)
    film = _film_request(arguments, request)
    films = check_film(film, pipeline) if film.is_asked else None
    if films is None:
        request |= film.whole
    asked = given_flags(arguments, PREFIX)
    upscaling = load_upscaling(arguments.upscale, asked, arguments.device)
    job = _Job(
        arguments=arguments,
        pipeline=pipeline,
        request=request,
        upscaling=upscaling,
        films=films,
        film=film,
    )
    clear_earlier(arguments.out, EARLIER, overwrite=arguments.overwrite)
    made: list[Clip] = []
    try:
        with progress_bars() as add:
            for clip in job.run(add):
                made.append(clip)
    finally:  # after Ctrl-C, too, the clips that are finished stay, with their sheet
        if made:
            names = [_name(arguments.seed + index) for index in range(len(made))]
            write_contact_sheet(arguments.out / SHEET, made, titles=names)
    sheet = arguments.out / SHEET
    write(f"{len(made)} clips in {arguments.out}, contact sheet {sheet}")
    return 0


@dataclass(frozen=True, kw_only=True)
class _Job:
    """Hold what is asked for, checked, and the models that make it."""

    arguments: GenerateArguments
    pipeline: Pipeline
    request: dict[str, Any]
    upscaling: Upscaling | None
    films: Films | None
    film: FilmRequest

    def run(self, add: Callable[[str], Progress]) -> Iterator[Clip]:
        """Write clip after clip, and yield each (of a film: its first piece) when it is there."""
        sampling = add("sampling")
        enlarging = sampling if self.upscaling is None else add("enlarging")
        if self.films is None:
            for index, clip in enumerate(self._clips(sampling, enlarging)):
                facts, path = self._begin(self.arguments.seed + index)
                clip.save(path, comment=_comment(facts), enlarge=self.arguments.enlarge)
                write_provenance(path.with_suffix(".json"), facts)
                yield clip
            return
        larger = None
        if self.upscaling is not None:
            larger = partial(self.upscaling.clip, progress=enlarging)
        for seed in range(self.arguments.seed, self.arguments.seed + self.arguments.count):
            facts, path = self._begin(seed)
            clip = write_film(
                self.film,
                self.films,
                path,
                seed=seed,
                enlarge=self.arguments.enlarge,
                larger=larger,
                advance=sampling,
                comment=_comment(facts),
            )
            write_provenance(path.with_suffix(".json"), facts)
            yield clip

    def _clips(self, sampling: Progress, enlarging: Progress) -> Iterator[Clip]:
        """Yield each clip when its batch is sampled and, where asked for, it is enlarged."""
        arguments = self.arguments
        starts = range(0, arguments.count, arguments.batch_size)
        for number, first in enumerate(starts):

            def step(done: int, total: int, number: int = number) -> None:
                sampling(number * total + done, len(starts) * total)

            request = self.request | {
                "count": min(arguments.batch_size, arguments.count - first),
                "seed": arguments.seed + first,
                "batch_size": arguments.batch_size,
                "progress": step,
            }
            if self.upscaling is None:
                yield from self.pipeline.generate(**request)
            else:
                yield from self.upscaling.clips(self.pipeline, enlarging, request)

    def _begin(self, seed: int) -> tuple[dict[str, Any], Path]:
        """Return how a clip is made, and its file, in a folder that is there."""
        out = self.arguments.out
        out.mkdir(parents=True, exist_ok=True)
        suffix = ".mkv" if self.arguments.lossless else ".mp4"
        return self._provenance(seed), out / f"{_name(seed)}{suffix}"

    def _provenance(self, seed: int) -> dict[str, Any]:
        arguments, pipeline, request = self.arguments, self.pipeline, self.request
        options = with_options(pipeline.options, given_flags(arguments))
        chosen = asdict(options)
        if "precision" in chosen:
            chosen["precision"] = resolve_precision(pipeline.device, chosen["precision"])
        names, label = pipeline.class_names, request.get("label")
        given = {"video": arguments.video, "audio": arguments.audio, "after": arguments.after}
        facts = {
            "soundreel": __version__,
            "torch": torch.__version__,
            "model": Path(arguments.model).name if arguments.model else "default",
            "adapter": arguments.adapter and arguments.adapter.name,
            "seed": seed,
            "class": None if label is None else names[label],
            "text": arguments.text,
            **{name: None if path is None else path.name for name, path in given.items()},
            "between": arguments.between and [path.name for path in arguments.between],
            "duration_s": arguments.duration,
            "start_s": arguments.start or None,
            "modality": None if arguments.after is None else arguments.modality,
            "join": arguments.join,
            "options": chosen,
            "device": str(pipeline.device),
            "upscaled_by": Path(arguments.upscale).name if arguments.upscale else None,
            "upscale_options": self.upscaling and self.upscaling.facts,
        }
        return {name: value for name, value in facts.items() if value is not None}


def _request(arguments: GenerateArguments, pipeline: Pipeline) -> dict[str, Any]:
    """Return what the command line says, as arguments of the pipeline's `generate`.

    Raises:
        SoundreelError: a flag or value that this model does not have.
        MediaError: the given file cannot be read.
    """
    options = given_flags(arguments)
    with_options(pipeline.options, options, pipeline.conditions)
    request: dict[str, Any] = dict(options)
    if arguments.label is not None:
        request["label"] = find_label(arguments.label, pipeline.class_names)
    if arguments.text is not None:
        if "text" not in pipeline.conditions:
            raise SoundreelError("this model was trained without captions; leave --text out")
        request["text"] = arguments.text
    return request


def _film_request(arguments: GenerateArguments, options: dict[str, Any]) -> FilmRequest:
    if arguments.enlarge < 1 or (arguments.enlarge > 1 and arguments.lossless):
        raise SoundreelError(
            f"--enlarge is a whole number from 1, for MP4 files, got {arguments.enlarge}"
            + (" with --lossless" if arguments.lossless else "")
        )
    duration = None if arguments.duration is None else Fraction(arguments.duration)
    if arguments.start and arguments.video is None and arguments.audio is None:
        raise SoundreelError("--start is a place in --video or --audio; give one of them")
    film = FilmRequest(
        video=arguments.video,
        audio=arguments.audio,
        after=arguments.after,
        between=arguments.between,
        duration=duration and duration.limit_denominator(1_000_000),
        start=Fraction(arguments.start).limit_denominator(1_000_000),
        modality=arguments.modality,
        join=arguments.join,
        is_model_size=arguments.model_size,
        options=options,
    )
    given = {name: getattr(film, name) for name in ("video", "audio", "after", "between")}
    flags = [f"--{name}" for name, source in given.items() if source is not None]
    if len(flags) > 1:
        raise SoundreelError(f"{' and '.join(flags)} exclude each other; give one of them")
    if film.is_model_size and film.video is None and film.audio is None:
        raise SoundreelError("--model-size is of --video or --audio; give one of them")
    is_copied = film.video is not None and not film.is_model_size
    if is_copied and (arguments.upscale is not None or arguments.enlarge != 1):
        raise SoundreelError(
            "the picture of --video is kept as it is; --upscale and --enlarge need --model-size"
        )
    if not film.is_asked and (film.modality != "both" or film.join is not None):
        raise SoundreelError("--modality and --join are of films; ask for one (--duration)")
    return film


def _name(seed: int) -> str:
    return f"clip-{seed:04d}"


def _comment(facts: dict[str, Any]) -> str:
    return json.dumps(facts, separators=(",", ":"))
