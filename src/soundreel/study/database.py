"""The file of answers: its tables, how it is opened, and whether it was damaged since."""

import sqlite3
from pathlib import Path
from zlib import crc32

from soundreel.errors import SoundreelError
from soundreel.study.assignment import INSTRUCTED, NOISE
from soundreel.study.protocol import QUESTIONS

UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""Errors of SQLite for files that are damaged or no databases."""

SCHEMA = """
CREATE TABLE raters (
    id INTEGER PRIMARY KEY,
    token_sha256 TEXT NOT NULL UNIQUE,
    consented_at REAL NOT NULL,
    checksum INTEGER
);
CREATE TABLE trials (
    id TEXT PRIMARY KEY,
    rater INTEGER NOT NULL REFERENCES raters (id),
    position INTEGER NOT NULL,
    test TEXT NOT NULL,
    clip TEXT NOT NULL,
    check_kind TEXT NOT NULL,
    expected INTEGER NOT NULL,
    shown_at REAL,
    answered_at REAL,
    num_plays INTEGER,
    checksum INTEGER,
    UNIQUE (rater, position)
);
CREATE TABLE answers (
    trial TEXT NOT NULL REFERENCES trials (id),
    question TEXT NOT NULL,
    value INTEGER NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (trial, question)
) WITHOUT ROWID;
"""
COLUMNS = {
    "raters": "id, token_sha256, consented_at",
    "trials": "id, rater, position, test, clip, check_kind, expected, shown_at, answered_at,"
    " num_plays",
    "answers": "trial, question, value",
}
"""Columns of each table that the checksum of a row is of; rows of older releases have none."""
BUSY_TIMEOUT_S = 20.0
KEYS = [question.key for questions in QUESTIONS.values() for question in questions]
CHECKS = {
    "a table of raters": "SELECT 1 FROM raters WHERE typeof(id) != 'integer'"
    " OR typeof(token_sha256) != 'text' OR typeof(consented_at) != 'real'",
    "a table of trials": "SELECT 1 FROM trials WHERE typeof(id) != 'text'"
    " OR typeof(rater) != 'integer' OR typeof(position) != 'integer'"
    f" OR test NOT IN ({', '.join(map(repr, QUESTIONS))}) OR typeof(clip) != 'text'"
    f" OR check_kind NOT IN ('', '{NOISE}', '{INSTRUCTED}') OR typeof(expected) != 'integer'"
    " OR typeof(shown_at) NOT IN ('real', 'null') OR typeof(answered_at) NOT IN ('real', 'null')"
    " OR typeof(num_plays) NOT IN ('integer', 'null')"
    " OR (answered_at IS NOT NULL AND (shown_at IS NULL OR num_plays IS NULL))",
    "a table of answers": "SELECT 1 FROM answers WHERE typeof(trial) != 'text'"
    f" OR question NOT IN ({', '.join(repr(key) for key in KEYS)})"
    " OR typeof(value) != 'integer' OR value NOT BETWEEN 1 AND 5",
}
"""Conditions that hold for no sound row of each table; SQLite itself lets any value into any
column."""
CHANGED = {
    f"a row of {table} does not match its checksum": f"SELECT 1 FROM {table}"
    f" WHERE checksum IS NOT NULL AND checksum != crc32({columns})"
    for table, columns in COLUMNS.items()
}


def check_undamaged(db: sqlite3.Connection, path: Path) -> None:
    """Raise `SoundreelError` if the file or one of its rows is damaged; the file is closed then."""
    try:
        problem = _damage(db)
    except UNREADABLE as error:
        problem = str(error)
    if problem:
        db.close()
        raise SoundreelError(
            f"{path} is damaged ({problem}); put back a copy, or rescue it with "
            "`sqlite3 FILE .recover`"
        )


def seal(db: sqlite3.Connection, table: str, where: str, *values: object) -> None:
    """Write the checksums of the rows that a condition chooses; last in a transaction."""
    db.execute(f"UPDATE {table} SET checksum = crc32({COLUMNS[table]}) WHERE {where}", values)


def _checksum(*values: object) -> int:
    """Return the CRC-32 of a row's values."""
    return crc32(repr(values).encode())


def _damage(db: sqlite3.Connection) -> str:
    """Say what is wrong with the file or with a row; an empty text if nothing is."""
    (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        return " ".join(str(found).split())
    for name, query in CHECKS.items():
        if db.execute(f"{query} LIMIT 1").fetchone() is not None:
            return f"{name} holds what cannot be there"
    for problem, query in CHANGED.items():
        if db.execute(f"{query} LIMIT 1").fetchone() is not None:
            return problem
    texts = "SELECT token_sha256 FROM raters UNION ALL SELECT id || clip FROM trials"
    for _ in db.execute(f"{texts} UNION ALL SELECT trial FROM answers"):
        pass  # text that is not UTF-8 raises an error
    return ""


def connect(path: Path) -> sqlite3.Connection:
    """Open a file so that what is committed is on disk, and several threads may use it."""
    db = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            db.execute(f"PRAGMA {pragma}")
        db.create_function("crc32", -1, _checksum, deterministic=True)
        for table in COLUMNS:  # of older releases
            names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            if names and "checksum" not in names:
                db.execute(f"ALTER TABLE {table} ADD COLUMN checksum INTEGER")
    except UNREADABLE:
        db.close()
        raise
    return db
