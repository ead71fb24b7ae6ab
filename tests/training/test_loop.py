import json
import math
import os
import signal
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from soundreel.training.ema import EMA
from soundreel.training.loop import TrainConfig, fit
from soundreel.training.non_finite import NonFiniteLossError
from soundreel.training.objectives import TrainingLoss
from soundreel.training.state import list_checkpoints, load_training_state
from soundreel.training.trackers import JsonLines, read_log
from soundreel.training.trainee import make_trainee
from soundreel.types import AV


@dataclass(frozen=True)
class ToyBatch:
    av: AV
    label: torch.Tensor
    sample_index: int


def toy_batches(size, start=0):
    """Endless batches whose content depends on the sample's number alone."""
    while True:
        numbers = torch.arange(start, start + size)
        x = torch.stack([torch.sin(n * torch.arange(1.0, 5.0)) for n in numbers])
        yield ToyBatch(AV(x[:, None, None, None], x[:, None]), numbers, start)
        start += size


def toy_trainee(ema_decay=0.9):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 4))

    def objective(network, batch, noise):
        x = batch.av["audio"][:, 0]
        target = x.flip(-1) + 0.01 * noise(AV(None, x))["audio"]
        errors = (network(x) - target).square().mean(dim=1)
        return TrainingLoss(errors.mean(), {"mse": (float(errors.detach().mean()), len(errors))})

    return make_trainee("toy", network, objective, learning_rate=1e-2, ema_decay=ema_decay)


def toy_config(**changes):
    settings = {
        "total_samples": 64,
        "global_batch_size": 8,
        "micro_batch_size": 4,
        "learning_rate": 1e-2,
        "log_every": 8,
        "save_every": 64,
        "precision": "float32",
    }
    return TrainConfig(**{**settings, **changes})


def run(config, folder, trainee, start=0, **options):
    batches = toy_batches(config.micro_batch_size, start)
    return fit(
        [trainee],
        batches,
        config,
        checkpoints=folder / "checkpoints",
        samples_seen=start,
        **options,
    )


def state_of(trainee):
    tensors = {**trainee.network.state_dict()}
    tensors |= {f"ema.{k}": v for k, v in trainee.ema.state_dict().items()}
    for index, slots in trainee.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{slot}": torch.as_tensor(v) for slot, v in slots.items()}
    return tensors


def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path):
    whole = toy_trainee()
    run(toy_config(), tmp_path / "whole", whole, trackers=[JsonLines(tmp_path / "whole.jsonl")])

    first = toy_trainee()
    half = toy_config(total_samples=32)
    run(half, tmp_path / "parts", first, trackers=[JsonLines(tmp_path / "parts.jsonl")])
    second = toy_trainee()
    newest = list_checkpoints(tmp_path / "parts" / "checkpoints")[-1]
    seen = load_training_state(newest, [second])
    assert seen == 32
    log = JsonLines(tmp_path / "parts.jsonl", seen)
    run(toy_config(), tmp_path / "parts", second, start=seen, trackers=[log])

    expected, got = state_of(whole), state_of(second)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    curves = [
        [(line["samples"], line["toy/mse"]) for line in read_log(tmp_path / f"{name}.jsonl")]
        for name in ("whole", "parts")
    ]
    assert len(curves[0]) == 8
    assert curves[0] == curves[1]


def test_the_loss_falls(tmp_path):
    config = toy_config(total_samples=4000, save_every=4000, log_every=200)
    run(config, tmp_path, toy_trainee(), trackers=[JsonLines(tmp_path / "log.jsonl")])
    losses = [line["toy/mse"] for line in read_log(tmp_path / "log.jsonl")]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_optimizer_steps_in_the_precision_of_the_run(tmp_path, monkeypatch, precision):
    trainee, seen = toy_trainee(), set()
    step = trainee.optimizer.step
    product = torch.ones(2, 2)

    def watched():
        seen.add((product @ product).dtype)
        step()

    monkeypatch.setattr(trainee.optimizer, "step", watched)
    run(toy_config(precision=precision), tmp_path, trainee)
    assert seen == {getattr(torch, precision)}


def test_accumulated_gradients_equal_one_large_batch(tmp_path):
    states = []
    for micro in (2, 8):
        trainee = toy_trainee()
        trainee.network[1].p = 0.0  # dropout masks belong to a micro-batch
        run(toy_config(micro_batch_size=micro), tmp_path / str(micro), trainee)
        states.append(trainee.network.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-4, atol=1e-6)


def test_the_average_follows_its_formula(tmp_path):
    trainee = toy_trainee(ema_decay=0.75)
    expected = {name: p.detach().clone() for name, p in trainee.network.named_parameters()}

    class Check:
        def __call__(self, numbers):
            for name, p in trainee.network.named_parameters():
                expected[name] = 0.75 * expected[name] + 0.25 * p.detach()

    run(toy_config(), tmp_path, trainee, trackers=[Check()])
    for name, value in expected.items():
        torch.testing.assert_close(trainee.ema.averages[name], value)


def test_a_broken_loss_stops_before_the_step_and_says_where(tmp_path):
    trainee = toy_trainee()
    before = {k: v.clone() for k, v in trainee.network.state_dict().items()}

    def poisoned():
        for batch in toy_batches(4):
            if batch.sample_index == 4:
                x = batch.av["audio"] * math.nan
                batch = ToyBatch(AV(x[:, None], x), batch.label, batch.sample_index)
            yield batch

    with pytest.raises(NonFiniteLossError, match=r"samples 4\.\.7.*the batch is NOT finite"):
        fit([trainee], poisoned(), toy_config(), checkpoints=tmp_path / "checkpoints")
    after = trainee.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_broken_gradient_stops_before_the_step(tmp_path):
    trainee = toy_trainee()

    def objective(network, batch, noise):
        zero = (network[0].weight - network[0].weight.detach()).sum()
        return TrainingLoss(zero.sqrt(), {})  # 0, but its slope is infinite

    broken = make_trainee("toy", trainee.network, objective, learning_rate=1e-2)
    before = {k: v.clone() for k, v in trainee.network.state_dict().items()}
    with pytest.raises(NonFiniteLossError, match="gradient's norm"):
        run(toy_config(), tmp_path, broken)
    after = trainee.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_returns(tmp_path, number):
    trainee = toy_trainee()

    def stop_at_24(numbers):
        if numbers["samples"] == 24:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    assert run(toy_config(), tmp_path, trainee, trackers=[stop_at_24]) == 24
    assert signal.getsignal(number) == handler
    newest = list_checkpoints(tmp_path / "checkpoints")[-1]
    other = toy_trainee()
    assert load_training_state(newest, [other]) == 24
    assert all(torch.equal(state_of(trainee)[k], v) for k, v in state_of(other).items())


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    run(toy_config(keep_checkpoints=2, save_every=16), tmp_path, toy_trainee())
    assert [p.name for p in list_checkpoints(tmp_path / "checkpoints")] == [
        "000000048",
        "000000064",
    ]


def test_a_half_written_checkpoint_is_not_one(tmp_path):
    run(toy_config(), tmp_path, toy_trainee())
    (tmp_path / "checkpoints" / ".writing-000000099").mkdir()
    (tmp_path / "checkpoints" / "000000099").mkdir()  # no state.json: it is written last
    assert list_checkpoints(tmp_path / "checkpoints")[-1].name == "000000064"


def test_previews_come_at_their_samples_and_do_not_count_as_training_time(tmp_path):
    seen = []
    run(toy_config(preview_every=24), tmp_path, toy_trainee(), preview=seen.append)
    assert seen == [24, 48]


def test_warmup_raises_the_learning_rate_linearly(tmp_path):
    log = JsonLines(tmp_path / "log.jsonl")
    run(toy_config(warmup_samples=32), tmp_path, toy_trainee(), trackers=[log])
    rates = [line["learning_rate"] for line in read_log(tmp_path / "log.jsonl")]
    expected = [1e-2 * (seen + 1) / 32 for seen in (0, 8, 16, 24)] + [1e-2] * 4
    assert rates == pytest.approx(expected, rel=1e-4)


def test_the_rate_falls_to_nothing_over_the_last_samples(tmp_path):
    log = JsonLines(tmp_path / "log.jsonl")
    run(toy_config(decay_samples=32), tmp_path, toy_trainee(), trackers=[log])
    rates = [line["learning_rate"] for line in read_log(tmp_path / "log.jsonl")]
    assert rates == pytest.approx([0.01] * 5 + [0.0075, 0.005, 0.0025])
    with pytest.raises(ValueError, match="decay_samples must not be negative"):
        toy_config(decay_samples=-1)


def test_training_leaves_the_global_generator_alone(tmp_path):
    trainee = toy_trainee()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    run(toy_config(), tmp_path, trainee)
    assert torch.equal(torch.rand(2), expected)


def test_a_log_cut_off_by_a_crash_is_mended_on_resuming(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = [json.dumps({"samples": float(n), "loss": 1.0}) for n in (8, 16, 24)]
    path.write_text("\n".join(lines) + '\n{"samples": 3')
    JsonLines(path, samples_seen=16)({"samples": 24.0, "loss": 0.5})
    assert read_log(path) == [
        {"samples": 8.0, "loss": 1.0},
        {"samples": 16.0, "loss": 1.0},
        {"samples": 24.0, "loss": 0.5},
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"micro_batch_size": 3}, "multiple of micro_batch_size 3"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"precision": "float16"}, "precision is one of auto, float32, bfloat16"),
        ({"ema_decay": 1.0}, "ema_decay"),
    ],
)
def test_impossible_settings_are_refused_by_name(changes, words):
    with pytest.raises(ValueError, match=words):
        toy_config(**changes)


def test_parts_can_learn_at_a_share_of_the_learning_rate(tmp_path):
    """With a share of one in 10^9 a part stays where it was, and the others learn."""
    torch.manual_seed(0)
    whole = toy_trainee()
    slow = make_trainee(
        "toy", whole.network, whole.objective, learning_rate=1e-2, rate_shares={"2": 1e-9}
    )
    before = {name: value.clone() for name, value in slow.network.state_dict().items()}
    run(toy_config(), tmp_path, slow)
    moved = {
        name: float((value - before[name]).abs().max())
        for name, value in slow.network.state_dict().items()
    }
    assert moved["2.weight"] < 1e-6
    assert moved["0.weight"] > 1e-3


def test_parts_with_rates_of_their_own_resume_exactly(tmp_path):
    """AdamW counts parameters by group, the network by module; a checkpoint says whose is whose."""

    def with_shares():
        whole = toy_trainee()
        return make_trainee(
            "toy",
            whole.network,
            whole.objective,
            learning_rate=1e-2,
            ema_decay=0.9,
            rate_shares={"0": 0.1},
        )

    whole, first, second = with_shares(), with_shares(), with_shares()
    run(toy_config(), tmp_path / "whole", whole)
    run(toy_config(total_samples=32), tmp_path / "parts", first)
    newest = list_checkpoints(tmp_path / "parts" / "checkpoints")[-1]
    stored = load_file(newest / "toy.optimizer.safetensors")
    for name, parameter in first.network.named_parameters():
        assert stored[f"{name}|exp_avg"].shape == parameter.shape
        assert torch.equal(stored[f"{name}|exp_avg"], first.optimizer.state[parameter]["exp_avg"])
    run(toy_config(), tmp_path / "parts", second, start=load_training_state(newest, [second]))
    expected, got = state_of(whole), state_of(second)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_checkpoints_of_the_first_format_are_read_as_they_were_written(tmp_path):
    """They named the optimizer's numbers in the order of the modules, whatever its groups."""
    whole = toy_trainee()
    options = {"learning_rate": 1e-2, "ema_decay": 0.9, "rate_shares": {"0": 0.1}}
    first = make_trainee("toy", whole.network, whole.objective, **options)
    run(toy_config(total_samples=32), tmp_path, first)
    newest = list_checkpoints(tmp_path / "checkpoints")[-1]
    names = [name for name, _ in first.network.named_parameters()]
    state = first.optimizer.state_dict()["state"]
    old = {f"{names[n]}|{k}": torch.as_tensor(v) for n in state for k, v in state[n].items()}
    save_file(old, newest / "toy.optimizer.safetensors")
    (newest / "state.json").write_text('{"samples_seen": 32}')
    second = make_trainee("toy", toy_trainee().network, whole.objective, **options)
    assert load_training_state(newest, [second]) == 32
    assert all(torch.equal(state_of(first)[k], v) for k, v in state_of(second).items())


def test_moments_of_channels_last_weights_are_restored_in_their_order(tmp_path):
    """Fused AdamW walks through memory: a moment in another order would move other weights."""

    def trainee():
        torch.manual_seed(0)
        network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

        def objective(network, batch, noise):
            x = batch.av["audio"][:, 0, :1, None, None].expand(-1, 3, 5, 5)
            ramp = torch.arange(75.0).reshape(1, 3, 5, 5)
            loss = (network(x * ramp) - 1).square().mean()
            return TrainingLoss(loss, {"mse": (loss.detach(), len(x))})

        return make_trainee("toy", network, objective, learning_rate=1e-2, ema_decay=0.5)

    whole, first, second = trainee(), trainee(), trainee()
    run(toy_config(), tmp_path / "whole", whole)
    run(toy_config(total_samples=32), tmp_path / "parts", first)
    newest = list_checkpoints(tmp_path / "parts" / "checkpoints")[-1]
    run(toy_config(), tmp_path / "parts", second, start=load_training_state(newest, [second]))
    assert not whole.network.weight.is_contiguous()
    assert all(torch.equal(value, state_of(second)[key]) for key, value in state_of(whole).items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # within torch's compiler
def test_a_compiled_network_learns_the_same_and_keeps_its_names(tmp_path):
    plain, compiled = toy_trainee(), toy_trainee()
    for trainee in (plain, compiled):
        trainee.network[1].p = 0.0
    run(toy_config(), tmp_path / "plain", plain)
    run(toy_config(compile=True), tmp_path / "compiled", compiled)
    expected, got = state_of(plain), state_of(compiled)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-5)


def test_the_last_checkpoint_is_not_written_twice(tmp_path):
    run(toy_config(keep_checkpoints=1), tmp_path, toy_trainee())
    (only,) = list_checkpoints(tmp_path / "checkpoints")
    written = only.stat().st_ino
    other = toy_trainee()
    seen = load_training_state(only, [other])
    run(toy_config(keep_checkpoints=1), tmp_path, other, start=seen)
    assert [p.stat().st_ino for p in list_checkpoints(tmp_path / "checkpoints")] == [written]


def test_a_part_within_a_part_can_learn_at_a_rate_of_its_own():
    network = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)))
    trainee = make_trainee(
        "toy", network, toy_trainee().objective, learning_rate=1e-2, rate_shares={"0.1": 10.0}
    )
    groups = {group["rate_share"]: group["params"] for group in trainee.optimizer.param_groups}
    assert groups[10.0] == [network[0][1].weight, network[0][1].bias]
    assert groups[1.0] == [network[0][0].weight, network[0][0].bias]


def test_a_share_for_a_part_that_is_not_there_is_refused():
    whole = toy_trainee()
    with pytest.raises(ValueError, match="no part named head"):
        make_trainee(
            "toy", whole.network, whole.objective, learning_rate=1e-2, rate_shares={"head": 0.5}
        )


def test_an_average_leaves_out_buffers_that_a_new_network_makes_itself():
    network = torch.nn.BatchNorm1d(2)
    network.register_buffer("table", torch.ones(3), persistent=False)
    state = EMA(network, 0.5).state_dict()
    assert "table" not in state
    assert "running_mean" in state
    torch.nn.BatchNorm1d(2).load_state_dict(state)


def opponents(loss_of_second):
    """Two networks that learn in turn; the second's loss is what the function makes of it."""
    torch.manual_seed(0)
    networks = [nn.Linear(4, 4), nn.Linear(4, 1)]
    shown = {}

    def first(network, batch, noise):
        made = network(batch.av["audio"][:, 0])
        shown[batch.sample_index] = made.detach()
        return TrainingLoss(made.square().mean(), {"made": (made.detach().mean(), len(made))})

    def second(network, batch, noise):
        judged = network(shown.pop(batch.sample_index))
        return TrainingLoss(loss_of_second(judged), {"judged": (judged.detach().mean(), 4)})

    return [
        make_trainee(name, network, objective, learning_rate=1e-2)
        for name, network, objective in zip("ab", networks, (first, second), strict=True)
    ]


def fit_opponents(trainees, folder, **options):
    config = toy_config(total_samples=32)
    fit(trainees, toy_batches(4), config, checkpoints=folder / "checkpoints", **options)


def test_the_numbers_of_two_networks_are_fetched_together_once_a_step(tmp_path, monkeypatch):
    fetched, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda x: fetched.append(x) or tolist(x))
    lines = []
    fit_opponents(opponents(lambda x: x.square().mean()), tmp_path, trackers=[lines.append])
    assert len(fetched) == 32 // 8
    for name in ("a/made", "a/grad_norm", "b/judged", "b/grad_norm"):
        assert math.isfinite(lines[-1][name])
    assert "a/loss" not in lines[-1]


def test_no_network_is_updated_where_the_other_one_breaks(tmp_path):
    trainees = opponents(lambda x: x.mean() * math.nan)
    before = [{k: v.clone() for k, v in t.network.state_dict().items()} for t in trainees]
    with pytest.raises(NonFiniteLossError, match="b: loss is not finite"):
        fit_opponents(trainees, tmp_path)
    for trainee, states in zip(trainees, before, strict=True):
        for name, value in trainee.network.state_dict().items():
            assert torch.equal(value, states[name])
