"""Two processes under torchrun against one: the same clips, gradients and weights."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from soundreel.training.loop import TrainConfig
from soundreel.training.state import list_checkpoints

SCRIPT = """
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from soundreel.training.loop import TrainConfig, fit
from soundreel.training.objectives import TrainingLoss
from soundreel.training.parallel import start_parallel
from soundreel.training.trainee import make_trainee
from soundreel.types import AV


@dataclass(frozen=True)
class Batch:
    av: AV
    label: torch.Tensor
    sample_index: int


def objective(network, batch, noise):
    x = batch.av["audio"][:, 0]
    errors = (network(x) - x.flip(-1) - noise(AV(None, x))["audio"]).square().mean(dim=1)
    return TrainingLoss(errors.mean(), {"mse": (float(errors.detach().mean()), len(errors))})


parallel = start_parallel(torch.device("cpu"))
config = TrainConfig(total_samples=int(sys.argv[2]), global_batch_size=8, micro_batch_size=2,
                     max_grad_norm=1.0, learning_rate=1e-2, ema_decay=0.5, log_every=8,
                     save_every=64, precision="float32")


def batches():
    first = parallel.rank * 2
    while True:
        numbers = torch.arange(first, first + 2)
        x = torch.stack([torch.sin(n * torch.arange(1.0, 5.0)) for n in numbers])
        yield Batch(AV(None, x[:, None]), numbers, first)
        first += 2 * parallel.world_size


torch.manual_seed(0)
network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))
trainee = make_trainee("toy", network, objective, learning_rate=1e-2, ema_decay=0.5)


def stop(numbers):
    if config.total_samples > 24 and numbers["samples"] == 16:
        import os, signal
        os.kill(os.getpid(), signal.SIGTERM)  # in the main process alone


seen = fit([trainee], batches(), config, checkpoints=Path(sys.argv[1]), parallel=parallel,
           trackers=[stop] * parallel.is_main)
parallel.finish()
assert not dist.is_initialized(), "a group that is never left can abort the process as it ends"
assert seen == 24, seen  # all agree to stop within the next step
"""


def run(folder, processes, total_samples):
    script = folder / "script.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable, str(script)]
    if processes > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        launcher = [*torchrun, f"--nproc-per-node={processes}", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = folder / f"checkpoints-{processes}"
    command = [*launcher, str(out), str(total_samples)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    newest = list_checkpoints(out)[-1]
    return {p.name: load_file(p) for p in Path(newest).glob("*.safetensors")}


def test_two_processes_learn_what_one_learns_and_stop_together(tmp_path):
    one = run(tmp_path, 1, 24)
    two = run(tmp_path, 2, 32)
    assert one.keys() == two.keys()
    for name, tensors in one.items():
        for key, value in tensors.items():
            torch.testing.assert_close(two[name][key], value, rtol=1e-4, atol=1e-6)


def test_a_batch_that_does_not_divide_among_the_processes_is_refused():
    config = TrainConfig(global_batch_size=8, micro_batch_size=4)
    assert config.grad_accum_steps(2) == 1
    with pytest.raises(ValueError, match="times 3 processes"):
        config.grad_accum_steps(3)
