"""Python processes that start where PyTorch and Soundreel are imported already.

A new interpreter computes for two to four seconds before the first line of a command runs. Those
here are forks of one that has this behind it. Otherwise they are what `subprocess.run` gives: with
a directory, an environment, an input, an output and an end of their own.
"""

import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from multiprocessing import connection, get_context
from pathlib import Path

import torch

PATIENCE_S = 3600

context = get_context("forkserver")
context.set_forkserver_preload(
    [
        "torch._dynamo",  # what PyTorch's optimizers import at their first step
        "tyro",
        "soundreel.cli.train",
        "soundreel.cli.generate",
        *(f"soundreel.systems.{name}.system" for name in ("mm_diffusion", "mm_ldm", "joint_flow")),
    ]
)


def python(
    *words: object,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    input: str = "",  # noqa: A002  # as in `subprocess.run`
    processes: int = 1,
) -> subprocess.CompletedProcess[str]:
    """Run `"-c", code, ...`, `"-m", module, ...` or a file to its end.

    Of several processes each has the variables that `torchrun` would set, and the first that fails
    ends the others. `env` lies over the environment of the tests.
    """
    given = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("in", "out", "err")]
        files[0].write_text(input)
        started = [
            context.Process(
                target=become,
                args=(given, cwd or Path.cwd(), os.environ | (env or {}) | own, files),
            )
            for own in ranks(processes)
        ]
        for process in started:
            process.start()
        while running := [process for process in started if process.exitcode is None]:
            connection.wait([process.sentinel for process in running])
            if any(process.exitcode for process in started):
                for process in running:
                    process.terminate()
        code = next((process.exitcode for process in started if process.exitcode), 0)
        out, err = (path.read_text() if path.exists() else "" for path in files[1:])
    return subprocess.CompletedProcess(given, code, out, err)


def become(words: list[str], folder: Path, variables: dict[str, str], files: list[Path]) -> None:
    """Do in this process what a new one would that was started with these words."""
    for number, path in enumerate(files):
        how = os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY
        os.dup2(os.open(path, how), number)
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing has closed the old one
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    signal.alarm(PATIENCE_S)
    if "OMP_NUM_THREADS" in variables:  # OpenMP has read that of the process forked from
        torch.set_num_threads(int(variables["OMP_NUM_THREADS"]))
    sys.path.insert(0, "")
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    elif words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")


def ranks(count: int) -> list[dict[str, str]]:
    """Return by process what `torchrun` sets; nothing for one alone."""
    if count == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    return [
        {k: str(v) for k, v in {**group, "RANK": n, "LOCAL_RANK": n}.items()}
        | {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        for n in range(count)
    ]
