"""Run by two processes: trains a small network whole and divided, and writes what differs."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.lora import LoRAConfig, add_lora
from soundreel.files import FileError
from soundreel.nn.layout import run
from soundreel.training.loop import TrainConfig, fit
from soundreel.training.objectives import TrainingLoss
from soundreel.training.parallel import Parallel, start_parallel
from soundreel.training.sharding import gathered, local, shard
from soundreel.training.state import list_checkpoints, load_training_state, save_training_state
from soundreel.training.trainee import make_trainee
from soundreel.types import AV

OUT = Path(sys.argv[1])
TOGETHER, ALONE = start_parallel(torch.device("cpu")), Parallel()


@dataclass(frozen=True)
class Batch:
    av: AV
    label: torch.Tensor
    sample_index: int


class Network(nn.Module):
    """Blocks in a list, weights that do not halve, a buffer, and a method beside `forward`."""

    forward_methods = ("scaled",)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.blocks = nn.ModuleList([nn.Linear(width, width) for _ in range(3)])
        self.last = nn.Linear(width, 4)
        self.gain = nn.Parameter(torch.ones(1))
        self.register_buffer("shift", torch.full((4,), 0.1))
        self.recompute = False

    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x + self.shift

    def forward(self, x: torch.Tensor) -> AV:
        x = self.first(self.scaled(x))
        for block in self.blocks:
            x = run(block, torch.tanh(x), recompute=self.recompute)
        return AV(None, self.last(x))


def objective(network, batch, noise):
    x = batch.av["audio"][:, 0]
    made = network(x)["audio"]
    errors = (made - x.flip(-1) - noise(AV(None, x))["audio"]).square().mean(dim=1)
    return TrainingLoss(errors.mean(), {"mse": (errors.detach().mean(), len(errors))})


def batches(parallel, micro, start=0):
    first = start + parallel.rank * micro
    while True:
        numbers = torch.arange(first, first + micro)
        x = torch.stack([torch.sin(n * torch.arange(1.0, 5.0)) for n in numbers])
        yield Batch(AV(None, x[:, None]), numbers, first)
        first += micro * parallel.world_size


def trainee(case, parallel, width=8):
    torch.manual_seed(0)
    network = Network(width)
    if case == "frozen":
        network.first.requires_grad_(False)
        network.blocks[1].requires_grad_(False)
    if case == "lora":
        add_lora(network, LoRAConfig(rank=2))
    network.recompute = case == "recomputed"
    sharded = parallel.world_size > 1
    if sharded:
        shard(network, torch.device("cpu"))
    return make_trainee(
        "toy", network, objective, learning_rate=1e-2, ema_decay=0.5, sharded=sharded
    )


def config(micro=2, **changes):
    settings = {"total_samples": 48, "global_batch_size": 8, "micro_batch_size": micro}
    settings |= {"learning_rate": 1e-2, "ema_decay": 0.5, "log_every": 8, "save_every": 1000}
    return TrainConfig(precision="float32", **{**settings, **changes})


def train(case, parallel, folder, source=None, **changes):
    """Return the trainee, and the lines of its log; `source` is a checkpoint to go on from."""
    own, lines, settings = trainee(case, parallel), [], config(**changes)
    start = load_training_state(source, [own]) if source else 0
    fit(
        [own],
        batches(parallel, settings.micro_batch_size, start),
        settings,
        checkpoints=folder if parallel is TOGETHER else folder / str(TOGETHER.rank),
        samples_seen=start,
        trackers=[lines.append],
        parallel=parallel,
    )
    return own, lines


def state(own, keep=True):
    moments = own.optimizer.state
    tensors = {**own.ema.state_dict(), **{f"now.{k}": v for k, v in own.network.named_parameters()}}
    for name, p in own.network.named_parameters():
        tensors |= {f"{name}|{slot}": value for slot, value in moments.get(p, {}).items()}
    return gathered(tensors, keep=keep)


def difference(one, other):
    """Return the largest difference, relative to the tensor's largest number."""
    assert one.keys() == other.keys()
    return max(
        float((one[k] - other[k]).abs().max()) / max(float(one[k].abs().max()), 1e-3) for k in one
    )


def compared(case, **changes):
    one, lines = train(case, ALONE, OUT / f"{case}-one", **changes)
    two, shared = train(case, TOGETHER, OUT / f"{case}-two", **changes)
    found = {"weights": difference(state(one), state(two))}
    if TOGETHER.is_main:  # which logs
        found["steps"] = len(lines)
        for name, key in (("loss", "toy/mse"), ("norm", "toy/grad_norm")):
            pairs = zip(lines, shared, strict=True)
            found[name] = max(abs(a[key] - b[key]) / abs(a[key]) for a, b in pairs)
    return found


def held_bytes():
    own, _ = train("plain", TOGETHER, OUT / "bytes", total_samples=8)
    moments = [v for s in own.optimizer.state.values() for k, v in s.items() if k != "step"]
    weights = [p.detach() for p in own.network.parameters()]
    tensors = [*weights, *moments, *own.ema.averages.values()]
    count = {"whole": sum(t.nbytes for t in tensors), "weights": sum(t.nbytes for t in weights)}
    return {**count, "share": sum(local(t).nbytes for t in tensors)}


def reductions(micro):
    name = "reduce_scatter_single"
    if not hasattr(dist, name):
        name = "reduce_scatter_tensor"  # before torch 2.13
    calls, reduce = [], getattr(dist, name)
    setattr(dist, name, lambda *args, **options: calls.append(1) or reduce(*args, **options))
    train("plain", TOGETHER, OUT / f"calls-{micro}", micro=micro, total_samples=8)
    setattr(dist, name, reduce)
    return len(calls)


def resumed():
    whole, _ = train("clipped", TOGETHER, OUT / "clipped-whole", max_grad_norm=0.5)
    expected, found = state(whole), {}
    for before, after in ((TOGETHER, TOGETHER), (TOGETHER, ALONE), (ALONE, TOGETHER)):
        name = f"{before.world_size} on {after.world_size}"
        folder = OUT / f"before-{name}"
        source = (folder if before is TOGETHER else folder / "0") / "000000024"
        train("clipped", before, folder, total_samples=24, max_grad_norm=0.5)
        TOGETHER.barrier()
        own, _ = train("clipped", after, OUT / f"after-{name}", source, max_grad_norm=0.5)
        found[name] = difference(expected, state(own))
    return found


def failed_save():
    own, folder = trainee("plain", TOGETHER), OUT / "failed"
    save, found = dcp.save, {}

    def fail(*args, storage_writer, **options):
        if TOGETHER.rank == 1:
            storage_writer.write_data = full
        save(*args, storage_writer=storage_writer, **options)

    def full(*args):
        raise OSError("disk full")

    dcp.save = fail
    try:
        save_training_state(folder, [own], 8, 2, is_main=TOGETHER.is_main)
    except FileError as error:
        found["error"] = str(error)
    dcp.save = save
    TOGETHER.barrier()
    found["checkpoints"] = [p.name for p in list_checkpoints(folder)]
    found["left"] = [p.name for p in folder.iterdir() if p.is_dir()]
    TOGETHER.barrier()
    save_training_state(folder, [own], 8, 2, is_main=TOGETHER.is_main)
    save_training_state(folder, [own], 8, 2, is_main=TOGETHER.is_main)  # is there: nobody waits
    TOGETHER.barrier()
    return {**found, "after": [p.name for p in list_checkpoints(folder)]}


def refused(checkpoint, own):
    try:
        load_training_state(checkpoint, [own])
    except CheckpointError as error:
        return str(error)
    return ""


def errors():
    own = trainee("plain", TOGETHER)
    checkpoint = save_training_state(OUT / "damage", [own], 8, 2, is_main=TOGETHER.is_main)
    TOGETHER.barrier()
    found = {"other": refused(checkpoint, trainee("plain", TOGETHER, width=6))}
    TOGETHER.barrier()
    if TOGETHER.is_main:
        path = checkpoint / "shard-00002-model-00001-of-00001.safetensors"
        content = bytearray(path.read_bytes())
        content[20] ^= 0xFF
        path.write_bytes(content)
    TOGETHER.barrier()
    found["damaged"] = refused(checkpoint, own)
    TOGETHER.barrier()
    if TOGETHER.is_main:
        values = {"samples_seen": 8, "format_version": 3}
        (checkpoint / "state.json").write_text(json.dumps(values))
    TOGETHER.barrier()
    found["unchecked"] = refused(checkpoint, own)
    return found


def gathered_once():
    one, two = trainee("plain", ALONE), trainee("plain", TOGETHER)
    whole, kept = (
        one.network.state_dict(),
        gathered(two.network.state_dict(), keep=TOGETHER.is_main),
    )
    worst = difference(whole, kept) if kept else 0.0
    return {"names": len(whole), "kept": len(kept), "difference": worst}


found = {
    "plain": compared("plain"),
    "clipped": compared("clipped", max_grad_norm=0.5),
    "frozen": compared("frozen"),
    "lora": compared("lora"),
    "recomputed": compared("recomputed"),
    "bytes": held_bytes(),
    "reductions": {"4": reductions(1), "1": reductions(4)},
    "resumed": resumed(),
    "failed": failed_save(),
    "gathered": gathered_once(),
    **errors(),
}
(OUT / f"{TOGETHER.rank}.json").write_text(json.dumps(found))
TOGETHER.finish()
