"""Every command that a page shows is one that the command line takes, options and values included.

What the commands do is tested elsewhere: the README's and the extending page's are run as they
stand, and so is the path from published weights; the others need somebody's files or hours.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from torch.distributed.run import parse_args as torchrun_arguments

from soundreel.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
COMMAND = re.compile(r"^ *(?:torchrun .*-m )?soundreel ((?:.*\\\n)*.*)", re.MULTILINE)
INLINE = re.compile(r"`soundreel ([^`]+)`")
SCRIPT = re.compile(r"python ((?:benchmarks|examples|docs)/\w+\.py)([^`#\n]*)")
TOY = "toy-tiny"
"""Preset of the system that the page on extending adds; its own test runs its commands."""

SYNOPSES = {
    "PRESET": "mm-diffusion-tiny",
    "--SETTING VALUE ...": "--train.learning-rate 1e-4",
    "FILE...": "FILE",
    "train ... --out": "train mm-ldm-scenes --data DATA --out",
    "...": "--data DATA --out RUN",
}
"""Placeholders of the pages that stand for more than one word or for one of a list."""

MISSPELT = (
    "generate RUN/model --out OUT --cuont 3",
    "generate RUN/model --out OUT --num-steps many",
    "train mm-diffusion-tiny --data D --out O --unet.widht 8",
    "study craete studies/first",
)

PARSE = """
import json, shlex, sys
from functools import wraps
from inspect import isfunction
import tyro
from soundreel.cli.main import run

class Parsed(Exception):
    pass

def only_parse(target, cli=tyro.cli, **how):
    if isfunction(target):
        @wraps(target)
        def stopped(*_, **__):
            raise Parsed
        return cli(stopped, **how)
    cli(target, **how)
    raise Parsed

def is_taken(words):
    try:
        return bool(run(shlex.split(words, comments=True)) and False)
    except Parsed:
        return True

tyro.cli = only_parse
taken = {words: is_taken(words) for words in json.load(sys.stdin)}
print(json.dumps(taken))
"""
"""Stops every command when its own parser has taken the words. Runs in a process of its own,
without the checks of types that tests make: the parser has marks of its own in place of values."""


@pytest.fixture
def parsed(python, tmp_path):
    """`parsed(lines)`: which of them the parser takes, and what it says of the others."""

    def call(lines: list[str]) -> tuple[dict[str, bool], str]:
        done = python("-c", PARSE, cwd=tmp_path, input=json.dumps(lines))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    return call


def commands(page: Path) -> list[str]:
    """Return the commands of a page's blocks, with their placeholders replaced."""
    found = []
    for words in COMMAND.findall(page.read_text()):
        line = words.replace("\\\n", " ")
        for placeholder, meant in SYNOPSES.items():
            line = line.replace(placeholder, meant)
        found.append(re.sub(r"[\[\]]", "", line))
    return found


def test_every_command_of_every_page_is_parsed_and_a_misspelt_one_is_not(parsed, tmp_path):
    settings = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), re.S)
    (tmp_path / "FILE").write_text(settings[1])
    shown = [line for page in PAGES for line in commands(page) if TOY not in line]
    assert len(shown) > 80
    taken, said = parsed([*shown, *MISSPELT])
    assert [line for line in shown if not taken[line]] == [], said
    assert not any(taken[line] for line in MISSPELT)


STUBS = {
    "scontrol": 'echo "$3"; echo another',
    "srun": 'printf "%s\\n" "$@"',
}
"""Programs of SLURM: the hosts of a job, and what would run on each of them."""


def test_the_slurm_example_begins_a_run_and_goes_on_with_it(parsed, tmp_path):
    text = (ROOT / "docs" / "training.md").read_text()
    (script,) = (block for block in re.findall(r"```bash\n(.*?)```", text, re.S) if "srun" in block)
    for name, body in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    about = {"SLURM_JOB_NODELIST": "first", "SLURM_NNODES": "2", "SLURM_JOB_ID": "7"}
    environment = {**os.environ, **about, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def submitted() -> list[str]:
        job = ["bash", "-u", "-c", script]
        done = subprocess.run(
            job, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    begun = submitted()
    (tmp_path / "RUN").mkdir()
    (tmp_path / "RUN" / "config.json").write_text("{}")
    again = submitted()
    assert [word for word in again if word not in begun] == ["--resume"]
    for words in (begun, again):
        launch = torchrun_arguments(words[1:])
        assert words[0] == "torchrun"
        assert (launch.nnodes, launch.nproc_per_node) == ("2", "4")
        assert (launch.rdzv_backend, launch.rdzv_endpoint) == ("c10d", "first:29500")
        assert launch.module
        assert launch.training_script == "soundreel"
        line = " ".join(launch.training_script_args)
        taken, said = parsed([line])
        assert taken[line], said


def test_commands_and_scripts_named_in_sentences_exist():
    for page in PAGES:
        for words in INLINE.findall(page.read_text()):
            name = words.split()[0]
            assert name in COMMANDS or name.startswith("-"), f"{page.name}: soundreel {words}"
        for script, words in SCRIPT.findall(page.read_text()):
            source = (ROOT / script).read_text()
            for flag in re.findall(r"--([\w-]+)", words):
                assert flag.replace("-", "_") in source.replace("-", "_"), f"{page.name}: {script}"
