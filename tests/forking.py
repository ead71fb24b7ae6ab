"""Python processes that start where PyTorch and Soundreel are imported already.

A new interpreter computes for two to four seconds before the first line of a command runs. Those
here are forks of one that has this behind it. Otherwise they are what `subprocess.run` gives: with
a directory, an environment, an input, an output and an end of their own.
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path

PRELOADED = ("torch._dynamo", "soundreel.cli.train", "soundreel.cli.generate", "tyro")
"""The first is what PyTorch's optimizers import at their first step."""

PATIENCE_S = 600


class Python:
    """Call it as `python("-c", code, *arguments)`, `python("-m", module, ...)` or with a file."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        command = [sys.executable, __file__]
        self._parent = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(
        self,
        *words: object,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        input: str = "",  # noqa: A002  # as in `subprocess.run`
        processes: int = 1,
    ) -> subprocess.CompletedProcess[str]:
        """Run a process to its end, or several with the variables that `torchrun` would set.

        `env` lies over the environment of the tests.
        """
        self._count += 1
        files = [self._folder / f"{self._count}.{name}" for name in ("in", "out", "err")]
        files[0].write_text(input)
        asked = {
            "words": [str(word) for word in words],
            "folder": str(cwd or Path.cwd()),
            "variables": {**os.environ, **(env or {})},
            "files": [str(path) for path in files],
            "processes": processes,
        }
        print(json.dumps(asked), file=self._parent.stdin, flush=True)
        code = int(self._parent.stdout.readline())
        out, err = (path.read_text() for path in files[1:])
        return subprocess.CompletedProcess(asked["words"], code, out, err)

    def close(self) -> None:
        """End the process that the others are forks of."""
        self._parent.stdin.close()
        self._parent.wait()
        self._parent.stdout.close()


def become(words: list[str], folder: str, variables: dict[str, str], files: list[str]) -> None:
    """Do in this process what a new one would that was started with these words."""
    for number, path in enumerate(files):
        how = os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY
        os.dup2(os.open(path, how), number)
    sys.stdin = os.fdopen(0, closefd=False)  # the old one has a buffer of its own
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    signal.alarm(PATIENCE_S)
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
    sys.exit()


def main() -> None:
    """Fork for every line of the input, and answer with the code that the forks ended with."""
    del sys.path[0]  # this folder
    for name in PRELOADED:
        import_module(name)
    systems = import_module("soundreel.systems")
    for name in systems.preset_names():
        systems.preset(name)
    for line in sys.stdin:
        asked = json.loads(line)
        variables = ranks(asked.pop("processes"))
        children = set()
        for own in variables:
            child = os.fork()
            if not child:
                asked["variables"] |= own
                become(**asked)
            children.add(child)
        print(end_of(children), flush=True)


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
        | {"MASTER_ADDR": "127.0.0.1"}
        for n in range(count)
    ]


def end_of(children: set[int]) -> int:
    """Wait for processes; return the first code that is not 0, which ends the others."""
    code = 0
    while children:
        child, status = os.wait()
        children.discard(child)
        if not code:
            code = os.waitstatus_to_exitcode(status)
            if code:
                for other in children:
                    os.kill(other, signal.SIGTERM)
    return code


if __name__ == "__main__":
    main()
