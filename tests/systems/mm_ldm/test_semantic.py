"""Heads on single clips, and the contrastive loss over several processes."""

import pytest
import torch
from torch import distributed
from torch.multiprocessing import spawn

from soundreel.systems.mm_ldm.semantic import ClassHead, ContrastiveHead
from soundreel.types import AV

DIM, CLIPS = 16, 4


def grids(count):
    generator = torch.Generator().manual_seed(0)
    return AV(*(torch.randn(count, DIM, 2, 2, generator=generator) for _ in range(2)))


def make_head():
    torch.manual_seed(0)
    return ContrastiveHead(DIM, 8)


@pytest.mark.parametrize("batch", [1, 2])
def test_heads_keep_the_batch_axis_of_single_clips(batch):
    head = ClassHead(DIM, 5)
    label, confidence = head.predict(grids(batch))
    assert head(grids(batch)).shape == (batch, 5)
    assert label.shape == confidence.shape == (batch,)
    assert make_head()(grids(batch))["video"].shape == (batch, 8)


def test_one_clip_has_nothing_to_contrast():
    assert float(make_head().loss(grids(1)).detach()) == 0.0


def test_matching_pairs_have_the_lower_loss():
    torch.manual_seed(0)
    head = make_head()
    features = torch.nn.functional.normalize(torch.randn(CLIPS, 8), dim=1)
    right, wrong = AV(features, features), AV(features, features.roll(1, dims=0))
    with torch.no_grad():
        matching = float(head.info_nce(right, right, first_row=0))
        mismatched = float(head.info_nce(wrong, wrong, first_row=0))
    assert matching < mismatched


def _worker(rank, world_size, folder):
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    head = make_head()
    part = CLIPS // world_size
    own = grids(CLIPS).rows(slice(rank * part, (rank + 1) * part)).map(lambda x: x.requires_grad_())
    loss = head.loss(own)
    loss.backward()
    gradients = {name: p.grad for name, p in head.named_parameters()}
    for gradient in gradients.values():  # what data-parallel training does
        distributed.all_reduce(gradient)
        gradient /= world_size
    torch.save(
        {"loss": loss.detach(), "input": own["video"].grad, "parameters": gradients},
        f"{folder}/{rank}.pt",
    )
    distributed.destroy_process_group()


def test_two_processes_give_the_gradients_of_one(tmp_path):
    """Rows of other processes keep their gradient, so splitting the batch changes nothing."""
    whole = grids(CLIPS).map(lambda x: x.requires_grad_())
    head = make_head()
    loss = head.loss(whole)
    loss.backward()
    spawn(_worker, args=(2, str(tmp_path)), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    torch.testing.assert_close(sum(p["loss"] for p in parts) / 2, loss.detach())
    together = torch.cat([p["input"] for p in parts]) / 2
    torch.testing.assert_close(together, whole["video"].grad, atol=1e-6, rtol=1e-4)
    for name, parameter in head.named_parameters():
        torch.testing.assert_close(
            parts[0]["parameters"][name], parameter.grad, atol=1e-6, rtol=1e-4, msg=name
        )
