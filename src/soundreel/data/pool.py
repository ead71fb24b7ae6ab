"""Worker processes for many independent pieces of work."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread

import numpy as np
from threadpoolctl import threadpool_limits


def worker_pool(num_workers: int) -> ProcessPoolExecutor:
    """Return worker processes that compute in one thread each and die at Ctrl-C, without a word."""
    return ProcessPoolExecutor(
        num_workers, mp_context=get_context("spawn"), initializer=_begin_worker
    )


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, which reports it; take one thread, for each core has a worker.

    NumPy's threads wait by spinning: those of two workers on two cores take six sevenths of the
    time from each other.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Thread(target=_end_with_parent, daemon=True).start()
    np.ones(1)  # its libraries must be loaded for their threads to be limited
    threadpool_limits(limits=1)


def _end_with_parent() -> None:
    """End the process when its parent has, however that came: a killed one tells nobody."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
