"""Networks of every system divided among two processes, against one that has them whole.

Each step is of 8 clips in batches of two: four in one process, two in each of two. Compared are the
losses of all steps, relative to their size, also of runs that go on from half way with another
number of processes, the gradients' norms, and the averaged weights, absolute; also the share of
weights, moments and average that the first process holds.
"""

import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("sharded_networks.py")
BLOCKS = {
    "unet": 15,
    "autoencoder": 32,
    "generator": 2,
    "long": 4,
    "transformer": 2,
}
"""How many of a network's blocks are put together one at a time."""
OTHERS = ("unet recomputed", "generator recomputed", "autoencoder whole", "transformer muon")
"""With `checkpoint_activations`; with one batch in each process; by Muon."""


@pytest.fixture
def trained(python, tmp_path):
    def call(steps, cases):
        done = python(SCRIPT, tmp_path, steps, *cases, processes=2)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        return json.loads((tmp_path / "seen.json").read_text())

    return call


def check(seen):
    for case, found in seen.items():
        assert found["blocks"] == BLOCKS[case.partition(" ")[0]], case
        for name in ("loss", "2 on 1", "1 on 2"):
            assert found[name] <= 1e-5, (case, name)
        assert found["norm"] <= 1e-4, case
        assert found["weights"] <= 2e-3, case
        assert 0.5 <= found["held"] <= 0.53, case  # the first process has the rest of odd axes


def test_two_processes_lose_what_one_loses_and_go_on_for_each_other(trained):
    check(trained(2, ["transformer"]))


@pytest.mark.slow
def test_twenty_steps(trained):
    """Every network; prints the table of the documentation with `-s`.

    The autoencoder's contrastive loss is over the clips of both processes, with one batch each and
    once from features of a pass before.
    """
    cases = [*BLOCKS, *OTHERS]
    seen = trained(20, cases)
    for case, found in seen.items():
        numbers = " | ".join(
            f"{found[name]:.1e}" for name in ("loss", "2 on 1", "1 on 2", "norm", "weights")
        )
        print(f"| {case} | {numbers} | {found['held']:.3f} |")
    check(seen)
