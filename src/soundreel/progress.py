"""A progress bar for anything that counts steps; silent where standard error is neither a terminal
nor a notebook."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(title: str) -> Generator[Callable[[int, int], None]]:
    """Yield `advance(done, total)`."""
    console = Console(stderr=True)
    is_seen = console.is_terminal or console.is_jupyter
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not is_seen) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
