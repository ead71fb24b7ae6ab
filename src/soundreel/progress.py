"""Progress bars for anything that counts steps; silent where standard error is neither a terminal
nor a notebook."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int, int], None]
"""`advance(done, total)`."""


@contextmanager
def progress_bars() -> Generator[Callable[[str], Advance]]:
    """Yield what adds a bar of a title below those that are there."""
    console = Console(stderr=True)
    is_seen = console.is_terminal or console.is_jupyter
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not is_seen) as bars:

        def add(title: str) -> Advance:
            task = bars.add_task(escape(title), total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield add


@contextmanager
def progress_bar(title: str) -> Generator[Advance]:
    """Yield `advance(done, total)` of a single bar."""
    with progress_bars() as add:
        yield add(title)
