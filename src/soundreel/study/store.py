"""Raters, their trials and their answers, in one SQLite file that survives being killed.

An answer is acknowledged only after its transaction is committed in write-ahead mode with
`synchronous=FULL`: SQLite has then flushed it to disk.
"""

import hashlib
import secrets
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from soundreel.errors import SoundreelError
from soundreel.study.assignment import AnsweredTrial, Trial, assign_trials
from soundreel.study.database import SCHEMA, UNREADABLE, check_undamaged, connect, seal
from soundreel.study.design import Study
from soundreel.study.protocol import Test, check_answers


class RefusedError(Exception):
    """A request that cannot be met; `status` is the HTTP status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownTrial:
    """The trial a rater is at; `id` is random and tells nothing about the clip.

    Attributes:
        position: counted from 0, of `total` trials.
    """

    id: str
    position: int
    total: int
    trial: Trial


class Store:
    """The open file. One connection for all threads, one transaction at a time."""

    def __init__(self, path: Path) -> None:
        """Open a store and look through all of it.

        Raises:
            SoundreelError: there is no such file, it is no store, or it is damaged.
        """
        if not path.is_file():
            raise SoundreelError(f"{path}: the study's answers are not there")
        self._lock = threading.Lock()
        try:
            self._db = connect(path)
        except UNREADABLE as error:
            raise SoundreelError(f"{path}: no store of answers ({error})") from error
        check_undamaged(self._db, path)

    def close(self) -> None:
        self._db.close()

    def add_rater(self, study: Study, now: float) -> str:
        """Give a new rater, who has consented, trials and a token.

        Args:
            now: seconds since the epoch, here and below.

        Raises:
            RefusedError: the study has all its raters.
        """
        token = secrets.token_urlsafe(18)
        with self._transaction() as db:
            (count,) = db.execute("SELECT count(*) FROM raters").fetchone()
            if count >= study.max_raters:
                raise RefusedError(403, "This study takes no more participants. Thank you!")
            # Not the count: raters may have withdrawn.
            (last,) = db.execute(
                "SELECT max(id) FROM (SELECT id FROM raters UNION ALL SELECT rater FROM trials)"
            ).fetchone()
            rater = (last or 0) + 1
            seen = Counter[tuple[Test, str]]()
            for test, clip, times in db.execute(
                "SELECT test, clip, count(*) FROM trials WHERE check_kind = '' GROUP BY test, clip"
            ):
                seen[test, clip] = times
            db.execute(
                "INSERT INTO raters (id, token_sha256, consented_at) VALUES (?, ?, ?)",
                (rater, _digest(token), now),
            )
            seal(db, "raters", "id = ?", rater)
            db.executemany(
                "INSERT INTO trials (id, rater, position, test, clip, check_kind, expected)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (secrets.token_urlsafe(12), rater, k, t.test, t.clip, t.check, t.expected)
                    for k, t in enumerate(assign_trials(study, rater, seen))
                ],
            )
            seal(db, "trials", "rater = ?", rater)
        return token

    def find_rater(self, token: str) -> int:
        """Return the number of a rater. Raises: RefusedError if nobody has this token."""
        with self._lock:
            row = self._db.execute(
                "SELECT id FROM raters WHERE token_sha256 = ?", (_digest(token),)
            ).fetchone()
        if row is None:
            raise RefusedError(404, "This link belongs to no participant of this study.")
        return row[0]

    def current_trial(self, rater: int, now: float) -> ShownTrial | None:
        """Return the first trial without an answer, noting when it was first shown; or None."""
        with self._transaction() as db:
            current = _current(db, rater)
            if current is None:
                return None
            db.execute(
                "UPDATE trials SET shown_at = ? WHERE id = ? AND shown_at IS NULL",
                (now, current.id),
            )
            seal(db, "trials", "id = ?", current.id)
            (total,) = db.execute(
                "SELECT count(*) FROM trials WHERE rater = ?", (rater,)
            ).fetchone()
        return ShownTrial(
            id=current.id, position=current.position, total=total, trial=current.trial
        )

    def answer(
        self,
        study: Study,
        rater: int,
        trial_id: str,
        values: dict[str, int],
        num_plays: int,
        now: float,
    ) -> None:
        """Keep the answers to the rater's current trial; when this returns they are on disk.

        The same answers again are taken as a repeated request, and change nothing.

        Raises:
            SoundreelError: the answers do not fit the test.
            RefusedError: it is another trial's turn, or the clip cannot have been watched yet.
        """
        with self._transaction() as db:
            current = _current(db, rater)
            if current is None or current.id != trial_id:
                if _stored(db, rater, trial_id) == values:
                    return
                raise RefusedError(409, "This video has been answered already.")
            check_answers(current.trial.test, values)
            if current.shown_at is None or 0 <= now - current.shown_at < study.duration_s:
                raise RefusedError(409, "Please watch the video to its end first.")
            db.executemany(
                "INSERT INTO answers (trial, question, value) VALUES (?, ?, ?)",
                [(trial_id, question, value) for question, value in values.items()],
            )
            db.execute(
                "UPDATE trials SET answered_at = ?, num_plays = ? WHERE id = ?",
                (now, num_plays, trial_id),
            )
            seal(db, "answers", "trial = ?", trial_id)
            seal(db, "trials", "id = ?", trial_id)

    def clip_of(self, trial_id: str) -> str:
        """Return the id of the clip a trial shows; raise RefusedError if there is no such trial."""
        with self._lock:
            row = self._db.execute("SELECT clip FROM trials WHERE id = ?", (trial_id,)).fetchone()
        if row is None:
            raise RefusedError(404, "There is no such video.")
        return row[0]

    def progress(self) -> dict[int, tuple[int, int]]:
        """Return, by rater, the number of answered trials, and of all."""
        with self._lock:
            rows = self._db.execute(
                "SELECT rater, count(answered_at), count(*) FROM trials GROUP BY rater"
            ).fetchall()
        return {rater: (answered, total) for rater, answered, total in rows}

    def answered_trials(self) -> list[AnsweredTrial]:
        """Return all of them, by rater and position."""
        with self._lock:
            values: dict[str, dict[str, int]] = {}
            for trial_id, question, value in self._db.execute(
                "SELECT trial, question, value FROM answers"
            ):
                values.setdefault(trial_id, {})[question] = value
            rows = self._db.execute(
                "SELECT id, rater, position, test, clip, check_kind, expected,"
                " answered_at - shown_at, num_plays"
                " FROM trials WHERE answered_at IS NOT NULL ORDER BY rater, position"
            ).fetchall()
        return [
            AnsweredTrial(
                rater=row[1],
                position=row[2],
                trial=_trial(row[3:7]),
                values=values[row[0]],
                elapsed_s=row[7],
                num_plays=row[8],
            )
            for row in rows
            if row[0] in values  # else the answers were withdrawn
        ]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Do all or nothing; committed to disk when the block ends well."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")


def create_store(path: Path) -> None:
    """Make an empty store in a new file."""
    db = connect(path)
    db.executescript(SCHEMA)
    db.close()


def _digest(token: str) -> str:
    """Return what is stored of a token: nobody can answer for a rater by reading the file."""
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Current:
    """A rater's first trial without an answer."""

    id: str
    position: int
    trial: Trial
    shown_at: float | None


def _current(db: sqlite3.Connection, rater: int) -> _Current | None:
    row = db.execute(
        "SELECT id, position, test, clip, check_kind, expected, shown_at FROM trials"
        " WHERE rater = ? AND answered_at IS NULL ORDER BY position LIMIT 1",
        (rater,),
    ).fetchone()
    return None if row is None else _Current(row[0], row[1], _trial(row[2:6]), row[6])


def _stored(db: sqlite3.Connection, rater: int, trial_id: str) -> Mapping[str, int]:
    return dict(
        db.execute(
            "SELECT question, value FROM answers JOIN trials ON trials.id = trial"
            " WHERE trial = ? AND rater = ?",
            (trial_id, rater),
        ).fetchall()
    )


def _trial(columns: tuple) -> Trial:
    test, clip, check, expected = columns
    return Trial(test=test, clip=clip, check=check, expected=expected)
