"""A study as it is stored in `study.json`: what is shown to whom, and which clip is whose."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError

from soundreel.errors import SoundreelError
from soundreel.json_yaml import read_checked_json, write_checked_json
from soundreel.study.protocol import Test

FORMAT_VERSION = 1
STUDY_FILE, CLIP_FOLDER, ANSWER_FILE = "study.json", "clips", "answers.sqlite"

CONSENT = """\
You will watch short videos with sound and say what you think of them. Some are recordings, some \
were made by a computer program. There are no right answers: we want your impression.

Taking part is voluntary. You may stop at any time by closing the page, and go on later with your \
personal link. We store your answers, when you gave them, and how often you played each video. We \
do not ask for your name and do not store your network address.

Some questions only check that answers are given with attention. Some videos contain noise: please \
start with a low volume."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyClip:
    """A clip of the study.

    Attributes:
        id: random; its file is `clips/ID.mp4`. Raters do not see it.
        system: who made it; "" for noise made for the attention checks.
        name: of the file it was made from.
        sha256: of the blind file.
    """

    id: str
    system: str
    name: str
    sha256: str

    def __post_init__(self) -> None:
        if not self.id.isalnum():  # it becomes a file name
            raise SoundreelError(f"a clip's id is made of letters and digits, got {self.id!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """Everything that was decided before the first rater came.

    Attributes:
        tests: in the order raters meet them.
        mos_trials, turing_trials: clips each rater sees in each test, attention checks aside.
        noise_checks: clips of pure noise in the MOS test, where 1 or 2 is expected for both
            qualities.
        instructed_checks: in each test, clips at which the page tells what to answer.
        allowed_failures: a rater who fails more checks is left out of the results.
        max_raters: the server takes no more.
        duration_s, height, width, frame_rate, sample_rate, num_channels: of every clip.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    format_version: int = FORMAT_VERSION
    title: str = "Videos with sound"
    consent: str = CONSENT
    seed: int = 0
    tests: tuple[Test, ...] = ("turing", "mos")
    mos_trials: int = 20
    turing_trials: int = 20
    noise_checks: int = 1
    instructed_checks: int = 1
    allowed_failures: int = 0
    max_raters: int = 1000
    duration_s: float
    height: int
    width: int
    frame_rate: str
    sample_rate: int
    num_channels: int
    clips: tuple[StudyClip, ...]

    def __post_init__(self) -> None:
        if not self.tests or len(set(self.tests)) != len(self.tests):
            raise SoundreelError("a study has the test turing, mos, or each of them once")
        if not self.title.strip() or not self.consent.strip():
            raise SoundreelError("the title and the consent text must not be empty")
        for name in ("mos_trials", "turing_trials", "max_raters"):
            if getattr(self, name) < 1:
                raise SoundreelError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("noise_checks", "instructed_checks", "allowed_failures"):
            if getattr(self, name) < 0:
                raise SoundreelError(f"{name} must not be negative, got {getattr(self, name)}")

    @property
    def systems(self) -> tuple[str, ...]:
        """Return the systems in the order they were given."""
        return tuple(dict.fromkeys(clip.system for clip in self.clips if clip.system))

    @property
    def noise(self) -> tuple[StudyClip, ...]:
        return tuple(clip for clip in self.clips if not clip.system)

    def num_trials(self, test: Test) -> int:
        """Return how many clips of systems a rater sees in a test: no more than there are."""
        wanted = self.mos_trials if test == "mos" else self.turing_trials
        return min(wanted, sum(1 for clip in self.clips if clip.system))

    def num_clips(self) -> dict[str, int]:
        """Count the clips of each system."""
        return dict(Counter(clip.system for clip in self.clips if clip.system))


def save_study(folder: Path, study: Study) -> None:
    """Write `study.json`."""
    write_checked_json(folder / STUDY_FILE, asdict(study))


def load_study(folder: Path) -> Study:
    """Read a study; raise `SoundreelError` if the folder holds none that is whole."""
    path = folder / STUDY_FILE
    if not path.is_file():
        raise SoundreelError(
            f"{folder} is no study (no {STUDY_FILE}); make one with `study create`"
        )
    try:
        study = TypeAdapter(Study).validate_python(read_checked_json(path, SoundreelError))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SoundreelError(f"{path}: {where}: {first['msg']}") from error
    if study.format_version != FORMAT_VERSION:
        raise SoundreelError(
            f"{path}: format version {study.format_version}, this version of soundreel reads "
            f"{FORMAT_VERSION}"
        )
    missing = [c.id for c in study.clips if not clip_path(folder, c.id).is_file()]
    if missing:
        raise SoundreelError(
            f"{folder}: {len(missing)} clips are missing, such as {missing[0]}.mp4"
        )
    return study


def clip_path(folder: Path, clip_id: str) -> Path:
    """Return the file of a clip whose id comes from `study.json`, never from a request."""
    return folder / CLIP_FOLDER / f"{clip_id}.mp4"
