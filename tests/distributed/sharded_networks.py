"""Run by two processes: trains small networks of every system whole and divided among both.

Usage: sharded_networks.py OUT STEPS CASE...; writes to OUT what differs, as JSON.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from soundreel.nn.layout import recompute_activations
from soundreel.systems.joint_flow import presets
from soundreel.systems.joint_flow.flow_objective import flow_objective
from soundreel.systems.joint_flow.transformer import JointTransformer
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNet, CoupledUNetConfig
from soundreel.systems.mm_diffusion.objective import mm_diffusion_objective
from soundreel.systems.mm_ldm.adversarial_loss import AutoencoderObjectives
from soundreel.systems.mm_ldm.autoencoder import MultiModalAutoencoder
from soundreel.systems.mm_ldm.generator import Generator
from soundreel.systems.mm_ldm.generator_loss import mm_ldm_generator_objective
from soundreel.systems.mm_ldm.generator_run import LongRun
from soundreel.systems.mm_ldm.history_encoder import LongGenerator
from soundreel.systems.mm_ldm.long_loss import mm_ldm_long_objective
from soundreel.systems.mm_ldm.signals import Signals, pick_frames
from soundreel.systems.mm_ldm.tiny_preset import tiny
from soundreel.training.loop import TrainConfig, fit
from soundreel.training.parallel import Parallel, start_parallel
from soundreel.training.sharding import gathered, local, shard
from soundreel.training.state import load_training_state
from soundreel.training.trainee import Trainee, make_trainee
from soundreel.types import AV

OUT, STEPS = Path(sys.argv[1]), int(sys.argv[2])
HALF = STEPS // 2
CPU = torch.device("cpu")
TOGETHER, ALONE = start_parallel(CPU), Parallel()
LDM, FLOW = tiny(), presets.tiny()
LDM = replace(LDM, long=LongRun(enabled=True, history_depth=1, overlap=4, train=LDM.long.train))


@dataclass(frozen=True)
class Batch:
    av: AV
    label: torch.Tensor
    sample_index: int


class Latents:
    """Takes batches for latents of the first stage."""

    def signals(self, batch, key_frames, frames, noise):
        video = batch.av["video"]
        targets = AV(pick_frames(video, frames), batch.av["audio"])
        return Signals(key_frames=video[:, list(key_frames)], targets=targets)

    def images(self, batch, frames):
        raise AssertionError("there is no adversary")


def unet() -> tuple[nn.Module, Any, tuple[int, ...], tuple[int, ...]]:
    config = CoupledUNetConfig(
        num_frames=4,
        width=8,
        channel_mult=(1, 2),
        num_res_blocks=1,
        video_attention_factors=(2,),
        cross_attention_factors=(2,),
        cross_attention_windows=(2,),
        num_heads=1,
        cross_head_width=0,
        num_groups=8,
    )
    objective = mm_diffusion_objective(LDM.diffusion.build())
    return CoupledUNet(config), objective, (4, 3, 16, 16), (1, 1600)


def autoencoder():
    config = LDM.autoencoder.model
    config = replace(config, decoder=replace(config.decoder, num_classes=2))
    schedule, loss = LDM.diffusion.build(), LDM.autoencoder.loss
    objectives = AutoencoderObjectives(Latents(), None, schedule, loss)  # pyrefly: ignore
    image = (config.decoder.image_channels, 8, 8)
    objective = objectives.autoencoder_objective
    return MultiModalAutoencoder(config), objective, (config.num_frames, *image), image


def generator():
    config = replace(LDM.generator_model, num_classes=2)
    objective = mm_ldm_generator_objective(LDM.diffusion.build(), LDM.generator.loss)
    latents = config.latents
    return Generator(config), objective, latents.video_shape, latents.audio_shape


def long():
    config, latents = LDM.long_generator, LDM.generator_model.latents
    objective = mm_ldm_long_objective(LDM.diffusion.build(), LDM.generator.loss)
    shapes = (2, *latents.video_shape), (2, *latents.audio_shape)
    return LongGenerator(config), objective, *shapes


def transformer():
    config = FLOW.transformer_config(2)
    objective = flow_objective(FLOW.transformer.loss)
    shapes = [
        (2, config.video_tokens, config.video_dim),
        (2, config.audio_tokens, config.audio_dim),
    ]
    return JointTransformer(config), objective, *shapes


BUILD = {f.__name__: f for f in (unet, autoencoder, generator, long, transformer)}


def trainee(case, parallel) -> tuple[Trainee, Any]:
    """Return what is trained, and the shapes of a clip's video and sound."""
    name, _, option = case.partition(" ")
    torch.manual_seed(0)
    network, objective, *shapes = BUILD[name]()
    if option == "recomputed":
        assert recompute_activations(network)
    sharded = parallel.world_size > 1
    if sharded:
        shard(network, CPU)
    return (
        make_trainee(
            name,
            network,
            objective,
            learning_rate=1e-4,
            ema_decay=0.5,
            muon=option == "muon",
            sharded=sharded,
        ),
        shapes,
    )


def batches(parallel, micro, start, shapes, *, has_unlabelled):
    """Yield a process's batches; of every three clips one may have no label."""
    first = start + parallel.rank * micro
    while True:
        rows = []
        for number in range(first, first + micro):
            random = torch.Generator().manual_seed(number)
            rows.append([torch.randn(shape, generator=random).clamp(-1, 1) for shape in shapes])
        av = AV(*(torch.stack(parts) for parts in zip(*rows, strict=True)))
        label = torch.arange(first, first + micro) % 3 - 1
        yield Batch(av, label if has_unlabelled else label.clamp(min=0), first)
        first += micro * parallel.world_size


def train(case, parallel, folder, source=None):
    """Return the trainee, and the lines of its log; `source` is a checkpoint to go on from."""
    own, shapes = trainee(case, parallel)
    start, lines = load_training_state(source, [own]) if source else 0, []
    micro = 4 if parallel is TOGETHER and case.endswith("whole") else 2
    config = TrainConfig(
        total_samples=8 * STEPS,
        global_batch_size=8,
        micro_batch_size=micro,
        learning_rate=1e-4,
        ema_decay=0.5,
        max_grad_norm=1.0,
        log_every=8,
        save_every=8 * HALF,
        precision="float32",
    )
    fit(
        [own],
        batches(parallel, micro, start, shapes, has_unlabelled=not case.startswith("autoencoder")),
        config,
        checkpoints=OUT / folder,
        samples_seen=start,
        trackers=[lines.append],
        parallel=parallel,
    )
    return own, [{k: v for k, v in line.items() if "/" in k} for line in lines]


def difference(lines, others, *, of_norm=False):
    """Return the largest one of losses, relative to their size, or of the gradients' norms."""
    assert len(lines) == len(others) > 0
    worst = 0.0
    for line, other in zip(lines, others, strict=True):
        assert line.keys() == other.keys()
        for key, value in line.items():
            if key.endswith("grad_norm") == of_norm:
                worst = max(worst, abs(other[key] - value) / max(abs(value), 1e-3))
    return worst


def held(own):
    """Return the share of weights, moments and average that this process holds, in bytes."""
    moments = [v for s in own.optimizer.state.values() for k, v in s.items() if k != "step"]
    weights = [p.detach() for p in own.network.parameters()]
    tensors = [*weights, *moments, *own.ema.averages.values()]
    return sum(local(t).nbytes for t in tensors) / sum(t.nbytes for t in tensors)


def compared(case):
    place, half = case.replace(" ", "-"), f"{8 * HALF:09d}"
    two, shared = train(case, TOGETHER, f"{place}-two")
    averages = gathered(two.ema.state_dict(), keep=TOGETHER.is_main)
    found = {}
    if TOGETHER.is_main:
        one, lines = train(case, ALONE, f"{place}-one")
        own = one.ema.state_dict()
        found["held"] = held(two)
        assert held(one) == 1.0
        network = BUILD[case.partition(" ")[0]]()[0]
        network.load_state_dict(averages)  # as an ordinary one, under the names it always has
        found["loss"] = difference(lines, shared)
        found["norm"] = difference(lines, shared, of_norm=True)
        found["weights"] = max(float((own[k] - averages[k]).abs().max()) for k in own)
        _, later = train(case, ALONE, f"{place}-to-one", OUT / f"{place}-two" / half)
        found["2 on 1"] = difference(lines[HALF:], later)
        found["blocks"] = len([m for m in two.network.modules() if isinstance(m, FSDPModule)]) - 1
    TOGETHER.barrier()
    _, later = train(case, TOGETHER, f"{place}-to-two", OUT / f"{place}-one" / half)
    if TOGETHER.is_main:
        found["1 on 2"] = difference(lines[HALF:], later)
    return found


seen = {case: compared(case) for case in sys.argv[3:]}
if TOGETHER.is_main:
    (OUT / "seen.json").write_text(json.dumps(seen))
TOGETHER.finish()
