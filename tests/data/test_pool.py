"""Worker processes: threads and signals."""

import signal

import numpy as np
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


def _product_and_threads() -> tuple[float, list[int]]:
    ones = np.ones((64, 64), np.float32)
    return float((ones @ ones)[0, 0]), [found["num_threads"] for found in threadpool_info()]
