"""`soundreel COMMAND ...`: finds the command, runs it, turns errors into one line and exit code 2.

Nothing heavy is imported before a command is known, so that `soundreel --help` answers at once.
"""

import logging
import os
import sys
from importlib import import_module

from soundreel.errors import SoundreelError

COMMANDS = {
    "demo": "show on one page what a model can do",
    "generate": "make clips with sound from a trained model",
    "prepare": "turn a folder of videos into a checked data set",
    "join": "make one data set of parts that were prepared apart",
    "train": "train a model on a prepared data set",
    "info": "describe a model, a run, a data set or a clip",
    "upscale": "enlarge clips with a super-resolution model",
    "import": "turn official checkpoints into a model folder",
    "export": "write a model folder back as an official checkpoint",
    "pack": "copy a model folder at a quarter of its size",
    "render": "render scenes with sound and exact event times",
    "sync": "measure how well a video's sound fits its picture",
    "evaluate": "compare generated clips with real ones",
    "app": "serve a web page that generates, enlarges and measures",
    "study": "let people judge clips: opinion scores and a Turing test",
}

OWN_PARSERS = ("train", "generate", "upscale", "import")
"""Commands whose flags depend on what the systems declare."""


def main() -> None:
    """Run the `soundreel` command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        write(_help())
        return 0
    if arguments[0] == "--version":
        from soundreel import __version__

        write(f"soundreel {__version__}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        return fail(f"unknown command {name!r}; one of: {', '.join(COMMANDS)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[_Stderr()])
    for library in ("jaxtyping", "httpx"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        return _run_command(name, arguments[1:])
    except KeyboardInterrupt:
        write("stopped", error=True)
        return 130
    except SystemExit as stop:  # tyro has printed what is wrong
        return stop.code if isinstance(stop.code, int) else 2
    except (SoundreelError, OSError) as error:  # any other is a defect: Python shows where
        if os.environ.get("SOUNDREEL_DEBUG"):
            raise
        return fail(str(error))
    except (MemoryError, RuntimeError) as error:
        if not _ran_out_of_memory(error) or os.environ.get("SOUNDREEL_DEBUG"):
            raise
        return fail("out of memory; take smaller batches, smaller pictures or a shorter part")


def _ran_out_of_memory(error: Exception) -> bool:
    """Tell whether Python, or PyTorch on any device, could not get the memory it asked for."""
    is_of_device = type(error).__name__ == "OutOfMemoryError"
    return isinstance(error, MemoryError) or is_of_device or "can't allocate memory" in str(error)


def _run_command(name: str, arguments: list[str]) -> int:
    # `import` is a keyword, so its module and function end in an underscore.
    attribute = f"{name}_" if name == "import" else name
    command = getattr(import_module(f"soundreel.cli.{attribute}"), attribute)
    if name in OWN_PARSERS:
        return command(arguments) or 0
    import tyro

    return tyro.cli(command, args=arguments, prog=f"soundreel {name}", use_underscores=False) or 0


class _Stderr(logging.Handler):
    """Writes to what `sys.stderr` is at the moment: a live line there is moved out of the way."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")


def fail(message: str) -> int:
    """Write an error as one line; the exit code of a command that failed."""
    write(f"soundreel: {' '.join(message.split())}", error=True)
    return 2


def write(text: str, *, error: bool = False) -> None:
    """Write a line for the user; of file names in it, bytes that are not UTF-8 as \\xHH."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    (sys.stderr if error else sys.stdout).write(text + "\n")


def _help() -> str:
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: soundreel COMMAND [options]",
            "",
            "Train, sample and evaluate models that generate video and its sound together.",
            "",
            *lines,
            "",
            "soundreel COMMAND --help explains one command. Errors end with exit code 2.",
        ]
    )
