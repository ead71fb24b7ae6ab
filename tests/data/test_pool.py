"""Worker processes: threads, signals, and the end of their parent."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from soundreel.data.pool import worker_pool


def test_a_worker_computes_in_one_thread():
    with worker_pool(1) as pool:
        product, threads = pool.submit(_product_and_threads).result()
    assert product == 64.0
    assert threads
    assert set(threads) == {1}


def test_a_worker_dies_at_ctrl_c():
    with worker_pool(1) as pool:
        assert pool.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_DFL


KILLED_PARENT = """
import os, time
from soundreel.data.pool import worker_pool
if __name__ == "__main__":
    with worker_pool(2) as pool:
        pids = set()
        while len(pids) < 2:
            pids |= {future.result() for future in [pool.submit(os.getpid) for _ in range(8)]}
        busy = pool.submit(time.sleep, 600)
        while not busy.running():
            time.sleep(0.01)
        print(*pids, flush=True)
        time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_workers_end_with_a_parent_that_was_killed(tmp_path, wait_until_gone):
    """Whether they wait for work, as one of them does, or are at it."""
    script = tmp_path / "script.py"
    script.write_text(KILLED_PARENT)
    command = [sys.executable, script]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        workers = [int(number) for number in process.stdout.readline().split()]
        assert all(Path(f"/proc/{pid}").exists() for pid in workers)
        process.kill()
    assert len(workers) == 2
    wait_until_gone(workers, within_s=20)


def _product_and_threads() -> tuple[float, list[int]]:
    ones = np.ones((64, 64), np.float32)
    return float((ones @ ones)[0, 0]), [found["num_threads"] for found in threadpool_info()]
