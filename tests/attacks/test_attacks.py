"""A share of the attacks in every run, and all of them in a slow one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
SOURCES = FOLDER.parents[1] / "src"


def run(script, *flags):
    """The rows that a script prints; it fails when it found a fault."""
    done = subprocess.run(
        [sys.executable, FOLDER / script, *flags],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return done.stdout.splitlines()


def test_some_damaged_files_of_every_kind():
    assert len(run("mutations.py", "--count", "75", "--seed", "1")) == 16


def test_commands_killed_a_few_times():
    jobs = ("--jobs", "prepare", "study create")
    assert len(run("kills.py", *jobs, "--random", "1", "--points", "3")) == 4


@pytest.mark.slow
def test_ten_thousand_damaged_files():
    assert len(run("mutations.py")) == 16


@pytest.mark.slow
def test_fifty_kills_of_each_sort():
    assert len(run("kills.py", "--random", "7", "--points", "7")) == 24
