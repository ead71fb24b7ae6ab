"""`soundreel study create|serve|results`: a human study of clips, from folders to numbers."""

import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Union

import tyro

from soundreel.cli.main import write
from soundreel.errors import SoundreelError
from soundreel.request import check_seed
from soundreel.study.design import ANSWER_FILE, CONSENT, Study, StudyClip, load_study
from soundreel.study.protocol import Test

if TYPE_CHECKING:
    from soundreel.study.sources import ClipFormat, FormatWish, SourceClip

SYSTEM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,59}")
REAL = "real"


@dataclass(frozen=True, kw_only=True)
class CreateArguments:
    """Make a study of folders of clips: all encoded alike, under random names."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The folder to make."""
    system: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = ()
    """NAME=FOLDER, one or more: the clips of each system, a folder of videos or a prepared data
    set."""
    real: Path | None = None
    """Real clips; they are judged like a system, under the name real."""
    tests: tuple[Test, ...] = ("turing", "mos")
    """In the order raters meet them."""
    clips_per_system: int = 20
    """Draw so many clips of each system."""
    mos_trials: int = 20
    """Clips each rater scores, of all systems together."""
    turing_trials: int = 20
    """Clips each rater votes on, of all systems together."""
    noise_checks: int = 1
    """Attention checks: clips of pure noise in the MOS test."""
    instructed_checks: int = 1
    """Attention checks: in each test, clips at which the page tells what to answer."""
    allowed_failures: int = 0
    """Raters who fail more attention checks are left out of the results."""
    max_raters: int = 1000
    """Take no more raters."""
    size: tuple[int, int] | None = None
    """Height and width of every clip; by default those of the largest, up to 480 pixels."""
    frame_rate: str | None = None
    """Frames per second of every clip; by default the highest."""
    sample_rate: int | None = None
    """Samples per second of every clip; by default the highest."""
    num_channels: int = 1
    """Sound channels of every clip: 1 or 2."""
    duration_s: float | None = None
    """Length of every clip; shorter ones are left out. By default that of the shortest."""
    min_duration_s: float = 1.0
    """Without --duration-s: leave out clips that are shorter."""
    title: str = "Videos with sound"
    """Heading of the page. Raters see it: name no system."""
    consent: Path | None = None
    """Text file with what raters consent to; there is a text for a start."""
    seed: int = 0
    """Seed of the drawn clips and of every rater's order."""


@dataclass(frozen=True, kw_only=True)
class ServeArguments:
    """Serve a study's web page until Ctrl-C. Answers are kept whatever happens."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The study."""
    host: str = "127.0.0.1"
    """Address to listen on; by default only this machine reaches it."""
    port: int = 8765
    """0 takes a free one."""
    allowed_host: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A name under which browsers reach the server, such as that of a proxy; may be repeated.
    Addresses and localhost are always allowed, requests for other names refused."""


@dataclass(frozen=True, kw_only=True)
class ResultsArguments:
    """Opinion scores, pass rates and agreement of the answers so far."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The study; it may be being served."""
    csv: Path | None = None
    """Write every answer there."""
    seed: int = 0
    """Seed of the bootstrap intervals."""
    num_resamples: int = 2000
    """Resamples of the bootstrap."""


Arguments = Union[  # noqa: UP007 (operands of | must be types)
    Annotated[CreateArguments, tyro.conf.subcommand("create", prefix_name=False)],
    Annotated[ServeArguments, tyro.conf.subcommand("serve", prefix_name=False)],
    Annotated[ResultsArguments, tyro.conf.subcommand("results", prefix_name=False)],
]


def study(arguments: Annotated[Arguments, tyro.conf.arg(name="")]) -> int:
    """Let people judge clips: opinion scores and the Turing test of MM-Diffusion."""
    if isinstance(arguments, CreateArguments):
        _create(arguments)
    elif isinstance(arguments, ServeArguments):
        _serve(arguments)
    else:
        _results(arguments)
    return 0


def _create(arguments: CreateArguments) -> None:
    # Heavy, and only needed here.
    from soundreel.cli.study_tables import print_created
    from soundreel.progress import progress_bar
    from soundreel.study.create import check_folder, write_study
    from soundreel.study.sources import (
        choose_format,
        draw_clips,
        shape_differences,
        telling_differences,
    )

    check_seed(arguments.seed)
    check_folder(arguments.folder)
    folders, wish, consent = _systems(arguments), _wish(arguments), _consent(arguments)
    sources = {system: _source_clips(folder) for system, folder in folders.items()}
    drawn, left_out = draw_clips(sources, arguments.clips_per_system, arguments.seed, wish)
    chosen = choose_format(drawn, wish)
    num_noise = arguments.noise_checks if "mos" in arguments.tests else 0

    def made_of(clips: tuple[StudyClip, ...]) -> Study:
        return _study(arguments, consent, chosen, clips)

    made_of(())  # so that wrong numbers are refused before the work
    with progress_bar("clips") as advance:
        made = write_study(arguments.folder, made_of, drawn, chosen, num_noise, advance)
    print_created(arguments.folder, made, left_out)
    for note in telling_differences(drawn, chosen) + shape_differences(drawn, chosen):
        write(f"note: {note}", error=True)


def _systems(arguments: CreateArguments) -> dict[str, Path]:
    """Return the folders by name of the system."""
    folders: dict[str, Path] = {}
    for text in (text for group in arguments.system for text in group):
        name, _, folder = text.partition("=")
        if not SYSTEM_NAME.fullmatch(name) or not folder:
            raise SoundreelError(f"--system is NAME=FOLDER, such as ours=out/ours, got {text!r}")
        if name in folders or name == REAL:
            raise SoundreelError(f"--system {name}: that name is taken")
        folders[name] = Path(folder)
    if arguments.real is not None:
        folders[REAL] = arguments.real
    if not folders:
        raise SoundreelError("give at least one --system NAME=FOLDER, or --real FOLDER")
    return folders


def _wish(arguments: CreateArguments) -> "FormatWish":
    from soundreel.cli.render import parse_frame_rate
    from soundreel.study.sources import FormatWish

    if arguments.clips_per_system < 1:
        raise SoundreelError(
            f"--clips-per-system must be at least 1, got {arguments.clips_per_system}"
        )
    for flag, seconds in (
        ("--duration-s", arguments.duration_s),
        ("--min-duration-s", arguments.min_duration_s),
    ):
        if seconds is not None and not 0 < seconds < math.inf:
            raise SoundreelError(f"{flag} must be positive, got {seconds}")
    if arguments.size is not None and min(arguments.size) < 1:
        raise SoundreelError(f"--size must be positive, got {arguments.size}")
    if arguments.sample_rate is not None and arguments.sample_rate < 1:
        raise SoundreelError(f"--sample-rate must be positive, got {arguments.sample_rate}")
    if arguments.num_channels not in (1, 2):
        raise SoundreelError(f"--num-channels is 1 or 2, got {arguments.num_channels}")
    duration_s = arguments.duration_s
    return FormatWish(
        size=arguments.size,
        frame_rate=None if arguments.frame_rate is None else parse_frame_rate(arguments.frame_rate),
        sample_rate=arguments.sample_rate,
        num_channels=arguments.num_channels,
        # By way of the text, so that 1.6 is 8/5 and not a little more.
        duration=None if duration_s is None else Fraction(str(duration_s)),
        min_duration=Fraction(str(arguments.min_duration_s)),
    )


def _consent(arguments: CreateArguments) -> str:
    if arguments.consent is None:
        return CONSENT
    try:
        return arguments.consent.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise SoundreelError(f"--consent {arguments.consent}: no text in UTF-8") from error


def _source_clips(folder: Path) -> "list[SourceClip]":
    """Find the clips of a folder of videos, or of a prepared data set."""
    from soundreel.checkpoints.store import INDEX_FILE
    from soundreel.cli.clip_sources import Item, MediaFile, PreparedClip, clip_items
    from soundreel.study.sources import SourceClip

    if (folder / INDEX_FILE).is_file():
        raise SoundreelError(
            f"{folder} is a model; write its clips with `soundreel generate` first"
        )

    def opener(item: Item) -> Callable[[], Path | BytesIO]:
        if isinstance(item, PreparedClip):
            return lambda: BytesIO(item.reader.read(item.record))
        assert isinstance(item, MediaFile)
        return lambda: item.path

    return [SourceClip(item.name, opener(item)) for item in clip_items(folder, "", None, 0)]


def _study(
    arguments: CreateArguments, consent: str, chosen: "ClipFormat", clips: tuple[StudyClip, ...]
) -> Study:
    return Study(
        title=arguments.title,
        consent=consent,
        seed=arguments.seed,
        tests=arguments.tests,
        mos_trials=arguments.mos_trials,
        turing_trials=arguments.turing_trials,
        noise_checks=arguments.noise_checks,
        instructed_checks=arguments.instructed_checks,
        allowed_failures=arguments.allowed_failures,
        max_raters=arguments.max_raters,
        duration_s=float(chosen.duration),
        height=chosen.height,
        width=chosen.width,
        frame_rate=str(chosen.frame_rate),
        sample_rate=chosen.sample_rate,
        num_channels=chosen.num_channels,
        clips=clips,
    )


def _serve(arguments: ServeArguments) -> None:
    from soundreel.study.server import StudyServer, allow_many_connections

    allow_many_connections()
    server = StudyServer(arguments.folder, arguments.host, arguments.port, arguments.allowed_host)
    num_raters = len(server.service.store.progress())
    write(f"{server.url} ({num_raters} raters so far); stop with Ctrl-C")
    if arguments.host not in ("127.0.0.1", "::1", "localhost"):
        write("note: open to the network, without encryption; see docs/study.md", error=True)
    sys.stdout.flush()  # whoever reads the address from a pipe is waiting for it
    try:
        server.serve_forever()
    finally:
        server.server_close()


def _results(arguments: ResultsArguments) -> None:
    from soundreel.cli.study_tables import print_results
    from soundreel.media.encode import complete_file
    from soundreel.study.export import answers_csv
    from soundreel.study.results import compute_results
    from soundreel.study.store import Store

    if arguments.num_resamples < 100:
        raise SoundreelError(f"--num-resamples must be at least 100, got {arguments.num_resamples}")
    if arguments.csv is not None and not arguments.csv.parent.is_dir():
        raise SoundreelError(f"--csv {arguments.csv}: there is no folder {arguments.csv.parent}")
    check_seed(arguments.seed)
    made = load_study(arguments.folder)
    store = Store(arguments.folder / ANSWER_FILE)
    try:
        # Progress first: whoever answers in between is at most counted as slower.
        progress, trials = store.progress(), store.answered_trials()
    finally:
        store.close()
    results = compute_results(made, trials, progress, arguments.seed, arguments.num_resamples)
    print_results(made, results)
    if arguments.csv is not None:
        with complete_file(arguments.csv) as target:
            target.write_text(answers_csv(made, trials), encoding="utf-8")
        write(f"answers: {arguments.csv}")
