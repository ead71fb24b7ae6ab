"""Distances, frame preprocessing and metric networks against the reference evaluator's numbers."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from soundreel.metrics.audioclip import AudioCLIPAudio, AudioCLIPFeatures
from soundreel.metrics.frechet import frechet_distance
from soundreel.metrics.i3d import I3D
from soundreel.metrics.kernel import kernel_distance
from soundreel.metrics.reference_evaluator import reference_frechet_distance, reference_video_input

NETWORK_TOLERANCE = 5e-5
# The tower takes decibels of bins that cancel almost to zero: the same network rerun in single
# precision differs by 5e-5 with another thread count and by 2e-4 without oneDNN.
TOWER_TOLERANCE = 3e-4


def load(parity_folder, name):
    path = parity_folder("mm_diffusion") / name
    if not path.is_file():
        pytest.skip(f"{name} is not in this set")
    return load_file(path) if path.suffix == ".safetensors" else json.loads(path.read_text())


def cases(tensors, suffix):
    return sorted(k.removesuffix(suffix) for k in tensors if k.endswith(suffix))


def assert_close(got, expected, tolerance):
    scale = float(expected.abs().max())
    assert got.shape == expected.shape
    error = float((got.double() - expected.double()).abs().max()) / scale
    assert error <= tolerance, f"relative error {error:.2e}"


def formula(shape, index, salt):
    """Hash of the element number, uniform in [-1, 1]; see the README of the reference data."""
    with np.errstate(over="ignore"):
        x = np.arange(math.prod(shape), dtype=np.uint32) * np.uint32(2654435761)
        x += np.uint32(((index + 1) * 2246822519 + salt * 3266489917) % 2**32)
        x ^= x >> np.uint32(15)
        x *= np.uint32(2246822519)
        x ^= x >> np.uint32(13)
        x *= np.uint32(3266489917)
        x ^= x >> np.uint32(16)
    values = x.astype(np.float64) / 2**32 * 2 - 1
    return torch.from_numpy(values).reshape(shape)


def formula_value(name, u):
    if u.ndim > 1:
        return u * math.sqrt(6.0 / (u.numel() / u.shape[0]))
    if name.endswith("running_mean"):
        return 0.1 * u
    if name.endswith("running_var"):
        return 1 + 0.5 * u
    if name.endswith("weight"):
        return 1 + 0.2 * u
    return 0.1 * u


def formula_state(network, meta):
    expected = {name: tuple(shape) for name, shape in meta["tensors"].items()}
    own = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    assert own == expected
    state = {}
    for j, (name, shape) in enumerate(sorted(expected.items())):
        old = network.state_dict()[name]
        if old.dtype == torch.int64:
            state[name] = torch.zeros_like(old)
        elif old.numel():
            state[name] = formula_value(name, formula(shape, j, meta["salt"])).float()
        else:
            state[name] = old
    return state


def formula_input(meta):
    values = formula(meta["input_shape"], meta["input_index"], meta["salt"])
    return (values * meta["input_scale"]).float()


def test_frechet_distance_equals_the_reference_in_both_precisions(parity_folder):
    tensors = load(parity_folder, "metrics.safetensors")
    names = cases(tensors, "/frechet_float64")
    assert names
    for name in names:
        real, fake = tensors[f"{name}/real"], tensors[f"{name}/fake"]
        expected = float(tensors[f"{name}/frechet_float64"])
        assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-7)
        quirky = reference_frechet_distance(real.double(), fake.double())
        assert quirky == pytest.approx(expected, rel=1e-9)
        single = reference_frechet_distance(real, fake)
        assert single == pytest.approx(float(tensors[f"{name}/frechet_float32"]), rel=1e-4)


def test_kernel_distance_equals_the_reference(parity_folder):
    tensors = load(parity_folder, "metrics.safetensors")
    for name in cases(tensors, "/polynomial_mmd"):
        got = kernel_distance(tensors[f"{name}/real"], tensors[f"{name}/fake"])
        assert got == pytest.approx(float(tensors[f"{name}/polynomial_mmd"]), rel=5e-6)


def test_video_metric_preprocessing_equals_the_reference(parity_folder):
    tensors = load(parity_folder, "metrics.safetensors")
    names = cases(tensors, "_in")
    assert names
    for name in names:
        outputs = [k for k in tensors if k.startswith(f"{name}_out_res")]
        for output in outputs:
            resolution = int(output.rsplit("res", 1)[1])
            frames = tensors[f"{name}_in"]
            got = reference_video_input(frames, resolution)
            # Interpolation weights are as exact as float32 positions within the picture.
            largest = max(frames.shape[-2:])
            assert_close(got, tensors[output], torch.finfo(torch.float32).eps * largest)


def test_i3d_equals_the_reference_with_formula_weights(parity_folder):
    expected = load(parity_folder, "i3d_formula.safetensors")
    meta = load(parity_folder, "i3d_formula.json")
    with torch.device("meta"):
        network = I3D()
    network = network.to_empty(device="cpu").eval()
    network.load_state_dict(formula_state(network, meta))
    assert sum(p.numel() for p in network.parameters()) == meta["parameters"]
    with torch.no_grad():
        logits = network(formula_input(meta))
    assert_close(logits, expected["logits"], NETWORK_TOLERANCE)


@pytest.fixture(scope="module")
def audioclip_case(parity_folder):
    expected = load(parity_folder, "audioclip_audio_formula.safetensors")
    meta = load(parity_folder, "audioclip_audio_formula.json")
    network = AudioCLIPAudio()
    state = formula_state(network, meta)
    salt = meta["salt"]
    index = {name: j for j, name in enumerate(sorted(meta["tensors"]))}
    for name in ("fbsp.m", "fbsp.fb", "fbsp.fc"):
        u = formula(meta["tensors"][name], index[name], salt)
        state[name] = {
            "fbsp.m": 0.5 + 0.4 * u,
            "fbsp.fb": 1 + 0.2 * u,
            "fbsp.fc": torch.arange(len(u)) + 0.1 * u,
        }[name].float()
    for name in state:
        if name.endswith("bn3.weight"):
            state[name] = (0.2 * state[name].double()).float()
    state["window"] = expected["window"]
    return state, formula_input(meta)[:, 0], expected, meta


def test_audioclip_window_is_blackman_harris(audioclip_case):
    _, _, expected, _ = audioclip_case
    assert_close(AudioCLIPAudio().window, expected["window"], 1e-6)


def test_audioclip_audio_tower_equals_the_reference_in_both_modes(audioclip_case):
    state, waveform, expected, meta = audioclip_case
    network = AudioCLIPAudio()
    network.load_state_dict(state)
    assert sum(p.numel() for p in network.parameters()) == meta["parameters"]
    with torch.no_grad():
        log_power = network.log_power(waveform, reference_scaling=True).flatten()
        got = network.eval()(waveform, reference_scaling=True)
        trained = network.train()(waveform, reference_scaling=True)
    assert log_power.numel() == math.prod(meta["log_power_shape"])
    probe = expected["log_power_probe4096"]
    index = torch.linspace(0, log_power.numel() - 1, probe.numel(), dtype=torch.float64).round()
    assert_close(log_power[index.long()], probe, NETWORK_TOLERANCE)
    assert_close(got, expected["out_eval"], TOWER_TOLERANCE)
    assert_close(trained, expected["out_train_mode"], TOWER_TOLERANCE)


def test_audioclip_extractor_with_quirks_gives_the_reference_features(audioclip_case, tmp_path):
    state, waveform, expected, _ = audioclip_case
    path = tmp_path / "tower.safetensors"
    save_file({f"audio.{k}": v.contiguous() for k, v in state.items()}, path)
    extractor = AudioCLIPFeatures(path, reference_quirks=True)
    assert extractor.name == "audioclip-reference-quirks"
    assert len(extractor.weights_sha256) == 64
    assert_close(extractor(waveform), expected["out_train_mode"], TOWER_TOLERANCE)
