"""Tests of Muon beside AdamW."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import _muon

from soundreel.training.muon import (
    ITERATIONS,
    MIN_NORM,
    POLYNOMIAL,
    block_matrices,
    orthogonalized,
)
from soundreel.training.state import load_training_state, save_training_state
from soundreel.training.trainee import make_trainee


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.blocks = nn.ModuleList([nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 6)])
        self.last = nn.Linear(6, 2)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = torch.relu(block(x))
        return self.last(x)


def trainee(**settings):
    torch.manual_seed(0)
    return make_trainee("n", Network(), lambda *_: None, learning_rate=1e-2, muon=True, **settings)


def step(of, seed):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
    of.optimizer.zero_grad()
    of.network(x).square().mean().backward()
    of.optimizer.step()


def test_muon_takes_the_matrices_of_blocks_and_nothing_else():
    network = Network()
    assert block_matrices(network) == {network.blocks[0].weight, network.blocks[2].weight}


@settings(deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 99))
def test_singular_values_come_near_one(rows, columns, seed):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    left, before, right = torch.linalg.svd(matrix, full_matrices=False)
    after = left.T @ orthogonalized(matrix) @ right.T
    assert orthogonalized(matrix).dtype == torch.float32
    kept = before > 0.02 * before.square().sum().sqrt()  # smaller ones need more iterations
    torch.testing.assert_close(after, torch.diag(after.diag()), rtol=0, atol=1e-3)
    assert after.diag()[kept].min() > 0.5
    assert after.diag().max() < 1.3


def test_a_step_is_that_of_torchs_muon_and_of_its_adamw(monkeypatch):
    # Torch's rounds to bfloat16: how near that is, the next test says.
    monkeypatch.setattr(_muon, "_zeropower_via_newtonschulz", lambda x, *_: orthogonalized(x))
    ours, theirs = trainee(weight_decay=0.1), trainee(weight_decay=0.1).network
    matrices = [theirs.blocks[0].weight, theirs.blocks[2].weight]
    others = [p for p in theirs.parameters() if all(p is not m for m in matrices)]
    optimizers = [
        torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=1e-2, weight_decay=0.1),
    ]
    for seed in range(3):
        step(ours, seed)
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
        theirs.zero_grad()
        theirs(x).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(ours.network.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (16, 16)])
def test_a_matrix_is_orthogonalized_as_torchs_muon_does_it(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    rounded = _muon._zeropower_via_newtonschulz(matrix, POLYNOMIAL, ITERATIONS, MIN_NORM)
    assert (rounded - orthogonalized(matrix)).norm() < 0.05 * rounded.norm()
    assert (_muon.DEFAULT_A, _muon.DEFAULT_B, _muon.DEFAULT_C) == POLYNOMIAL
    assert (_muon.DEFAULT_NS_STEPS, _muon.EPS) == (ITERATIONS, MIN_NORM)


def test_products_are_taken_in_the_precision_of_the_run():
    matrix = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    exact = orthogonalized(matrix)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = orthogonalized(matrix)
    assert (exact.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
    assert 0 < (rounded - exact).norm() < 0.05 * exact.norm()


def test_the_learning_rate_of_every_group_counts():
    of = trainee()
    before = [p.detach().clone() for p in of.network.parameters()]
    for group in of.optimizer.param_groups:
        group["lr"] = 0.0
    step(of, 0)
    assert all(map(torch.equal, before, of.network.parameters()))


@pytest.mark.parametrize("shares", [{}, {"blocks": 0.5}])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, shares):
    whole, part = trainee(rate_shares=shares), trainee(rate_shares=shares)
    for seed in range(4):
        step(whole, seed)
    for seed in range(2):
        step(part, seed)
    save_training_state(tmp_path, [part], 2, 1)
    resumed = trainee(rate_shares=shares)
    assert load_training_state(tmp_path / "000000002", [resumed]) == 2
    for seed in range(2, 4):
        step(resumed, seed)
    for one, other in zip(whole.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(one, other)
