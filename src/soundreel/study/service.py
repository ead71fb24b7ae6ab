"""Actions and views of the study's web page, apart from HTTP. Nothing here names a system or a
file."""

import time
from pathlib import Path
from typing import Any

from soundreel.errors import SoundreelError
from soundreel.metrics.weights import file_sha256
from soundreel.study.assignment import INSTRUCTED
from soundreel.study.design import ANSWER_FILE, clip_path, load_study
from soundreel.study.protocol import QUESTIONS
from soundreel.study.store import RefusedError, Store

MAX_PLAYS = 10_000


class StudyService:
    """An open study."""

    def __init__(self, folder: Path) -> None:
        """Open a study, and compare every clip with the hash that was written when it was made.

        Raises:
            SoundreelError: the folder holds no complete study, or a clip was changed.
        """
        self.folder = folder
        self.study = load_study(folder)
        for clip in self.study.clips:
            path = clip_path(folder, clip.id)
            if file_sha256(path) != clip.sha256:
                raise SoundreelError(f"{path} was changed since the study was made; put it back")
        self.store = Store(folder / ANSWER_FILE)

    def close(self) -> None:
        self.store.close()

    def describe(self) -> dict[str, Any]:
        """Return what everybody may know before taking part."""
        study = self.study
        return {
            "title": study.title,
            "consent": study.consent,
            "duration_s": study.duration_s,
            "aspect": study.width / study.height,
            "tests": [
                {
                    "test": test,
                    "questions": [
                        {
                            "key": q.key,
                            "title": q.title,
                            "prompt": q.prompt,
                            "scale": q.descriptions,
                        }
                        for q in QUESTIONS[test]
                    ],
                }
                for test in study.tests
            ],
        }

    def start(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a new rater's token; raise RefusedError without consent, or if all is full."""
        if body != {"consent": True}:
            raise RefusedError(400, "Taking part needs consent.")
        return {"token": self.store.add_rater(self.study, time.time())}

    def state(self, token: str) -> dict[str, Any]:
        """Return where a rater is; raise RefusedError if nobody has this token."""
        rater = self.store.find_rater(token)
        shown = self.store.current_trial(rater, time.time())
        if shown is None:
            return {"finished": True}
        asked = shown.trial.expected if shown.trial.check == INSTRUCTED else None
        return {
            "finished": False,
            "trial": shown.id,
            "position": shown.position,
            "total": shown.total,
            "test": shown.trial.test,
            "asked": asked,
        }

    def answer(self, token: str, body: dict[str, Any]) -> dict[str, Any]:
        """Keep an answer; returns the new state once it is on disk.

        Raises:
            RefusedError: the request is malformed, or out of turn.
        """
        rater = self.store.find_rater(token)
        trial_id, values, num_plays = (body.get(k) for k in ("trial", "answers", "num_plays"))
        if (
            set(body) != {"trial", "answers", "num_plays"}
            or type(trial_id) is not str
            or type(values) is not dict
            or any(type(value) is not int for value in values.values())
            or type(num_plays) is not int
            or not 1 <= num_plays <= MAX_PLAYS
        ):
            raise RefusedError(400, "An answer has a trial, whole-number answers and num_plays.")
        try:
            self.store.answer(self.study, rater, trial_id, values, num_plays, time.time())
        except SoundreelError as error:
            raise RefusedError(400, str(error)) from error
        return self.state(token)

    def clip_file(self, trial_id: str) -> Path:
        """Return the file of a trial's clip; raise RefusedError if there is no such trial."""
        return clip_path(self.folder, self.store.clip_of(trial_id))
