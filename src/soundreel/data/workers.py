"""Many sources at once: worker processes that a broken file cannot stop.

A file that makes a worker crash (a decoder's fault, or out of memory) breaks the whole pool and
leaves open which file it was. Then the sources under way are tried again one at a time, each in a
process of its own, and the one that crashes again is left out.
"""

import logging
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from soundreel.data.convert import Conversion, convert
from soundreel.data.journal import Skip
from soundreel.data.options import PrepareOptions
from soundreel.data.pool import worker_pool
from soundreel.data.scan import Source
from soundreel.errors import SoundreelError

UNFORESEEN = "unforeseen"
AHEAD = 3
"""Sources per worker that may be under way or waiting to be stored."""

log = logging.getLogger(__name__)


def convert_all(
    sources: Sequence[Source], options: PrepareOptions, spool: Path, num_workers: int
) -> Generator[Conversion, None, None]:
    """Return what came of each source, in their order.

    Args:
        spool: folder for clips that are not in a shard yet; made if absent.
        num_workers: processes; 0 converts in this one.
    """
    spool.mkdir(parents=True, exist_ok=True)
    if num_workers == 0:
        yield from (_convert_safely(source, options, spool) for source in sources)
        return
    waiting = deque(sources)
    while waiting:
        unfinished = yield from _convert_in_pool(waiting, options, spool, num_workers)
        while unfinished:
            yield from _convert_one_by_one(unfinished, options, spool)


def _convert_in_pool(
    waiting: deque[Source], options: PrepareOptions, spool: Path, num_workers: int
) -> Generator[Conversion, None, deque[Source]]:
    """Yield results until all is done or the pool breaks; returns what was under way then."""
    under_way: deque[tuple[Source, Future[Conversion]]] = deque()
    with worker_pool(num_workers) as pool:
        try:
            while waiting or under_way:
                while waiting and len(under_way) < AHEAD * num_workers:
                    future = pool.submit(_convert_safely, waiting[0], options, spool)
                    under_way.append((waiting.popleft(), future))
                result = under_way[0][1].result()
                under_way.popleft()
                yield result
        except BrokenProcessPool:
            log.warning("a worker crashed; trying its sources one at a time")
            return deque(source for source, _ in under_way)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return deque()


def _convert_one_by_one(
    waiting: deque[Source], options: PrepareOptions, spool: Path
) -> Iterator[Conversion]:
    """Yield results of a single worker, up to and including the source that makes it crash."""
    with worker_pool(1) as pool:
        while waiting:
            source = waiting.popleft()
            try:
                yield pool.submit(_convert_safely, source, options, spool).result()
            except BrokenProcessPool:
                yield Conversion(skipped=(Skip(reason="crashes the decoder"),))
                return


def _convert_safely(source: Source, options: PrepareOptions, spool: Path) -> Conversion:
    """Convert a source; leave it out with a reason if that fails.

    A defect of ours costs its source only, for such jobs take hours: its traceback is logged, and
    its reason begins with `UNFORESEEN`. An OSError ends the run: those of the source come as
    MediaError, so it is the destination's, a full disk for example.
    """
    try:
        return convert(source, options, spool)
    except SoundreelError as error:
        return Conversion(skipped=(Skip(reason=" ".join(str(error).split())),))
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, ValueError) as error:
        log.warning("%s: unforeseen error", source.name, exc_info=True)
        reason = " ".join(f"{UNFORESEEN} {type(error).__name__}: {error}".split())
        return Conversion(skipped=(Skip(reason=reason),))
