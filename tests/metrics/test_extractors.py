"""Networks behind the distribution metrics: weights, names, and what they recognise."""

import csv
import pickle
import zipfile
from pathlib import Path

import av
import pytest
import torch
from safetensors.torch import save_file

from soundreel.metrics.audioclip import AudioCLIPAudio, AudioCLIPFeatures
from soundreel.metrics.efficientnet_lite0 import EfficientNetLite0, EfficientNetLite0Features
from soundreel.metrics.extractors import METRICS, PACKAGED_WEIGHTS, build_extractors
from soundreel.metrics.i3d import I3D, I3DFeatures
from soundreel.metrics.padding import pad_same
from soundreel.metrics.vggish import VGGish, VGGishFeatures, log_mel_examples, mel_matrix
from soundreel.metrics.weights import MetricWeightsError, file_sha256, load_weights
from soundreel.metrics.yamnet import YAMNet, YAMNetFeatures


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def yamnet(weights_folder):
    return YAMNetFeatures(weights_folder / "audio" / "yamnet.safetensors")


def test_yamnet_front_end_is_the_published_one(yamnet):
    hz = torch.linspace(0, 8000, 257, dtype=torch.float64)
    mel = 1127 * torch.log1p(hz / 700)
    edges = torch.linspace(
        float(mel.new_tensor(125 / 700).log1p() * 1127),
        float(mel.new_tensor(7500 / 700).log1p() * 1127),
        66,
        dtype=torch.float64,
    )
    triangles = (1 - (mel[None] - edges[1:-1, None]).abs() / (edges[1] - edges[0])).clamp(min=0)
    triangles[:, 0] = 0
    stored = yamnet.network.frontend["mel"].weight.double()
    assert float((stored - triangles).abs().max()) < 1e-4


def test_yamnet_hears_a_siren_like_sweep_and_silence(weights_folder):
    network = YAMNet()
    load_weights(network, weights_folder / "audio" / "yamnet.safetensors", "YAMNet")
    path = weights_folder / "audio" / "yamnet_class_map.csv"
    with path.open() as file:
        names = [row["display_name"] for row in csv.DictReader(file)]
    silence = network.scores(network.embeddings(torch.zeros(1, 32_000)))[0].mean(dim=0)
    assert names[int(silence.argmax())] == "Silence"
    time = torch.arange(32_000, dtype=torch.float64) / 16_000
    tone = (0.3 * torch.sin(2 * torch.pi * 1000 * time)).float()[None]
    heard = network.scores(network.embeddings(tone))[0].mean(dim=0)
    top = {names[int(k)] for k in heard.topk(5).indices}
    assert top & {"Sine wave", "Beep, bleep", "Tuning fork", "Dial tone", "Busy signal"}, top


def test_yamnet_features_do_not_depend_on_the_batch(yamnet):
    clips = 0.1 * noise(3, 20_000)
    together = yamnet(clips)
    alone = torch.cat([yamnet(clip[None]) for clip in clips])
    assert together.shape == (3, 1024)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_too_short_sound_says_how_much_is_needed(yamnet):
    with pytest.raises(ValueError, match="15600 samples"):
        yamnet(torch.zeros(1, 8000))
    with pytest.raises(ValueError, match="15600 samples"):
        log_mel_examples(torch.zeros(1, 8000))


def test_efficientnet_sees_water_poured_into_a_beaker(weights_folder, clips_folder):
    path = weights_folder / "image" / "efficientnet_lite0.safetensors"
    extractor = EfficientNetLite0Features(path)
    with av.open(clips_folder / "sound_of_water" / "example_video.mp4") as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    frames = torch.from_numpy(frame).permute(2, 0, 1)[None, None].repeat(1, 2, 1, 1, 1)
    features = extractor(frames)
    assert features.shape == (1, 2560)
    assert float(features[:, 1280:].abs().max()) == 0  # a frozen clip does not change
    beaker = 438  # ImageNet class
    network = EfficientNetLite0()
    load_weights(network, path, "EfficientNet-Lite0")
    assert int(network._fc(features[:, :1280]).argmax()) == beaker
    with pytest.raises(ValueError, match="without its classifier"):
        extractor.network(torch.zeros(1, 3, 224, 224))


def test_same_padding_gives_the_size_rounded_up():
    for size in range(1, 12):
        x = torch.zeros(1, 1, size)
        for kernel, stride in ((3, 2), (2, 2), (7, 2), (3, 1)):
            padded = pad_same(x, (kernel,), (stride,)).shape[-1]
            assert (padded - kernel) // stride + 1 == -(-size // stride)


def test_i3d_refuses_clips_that_its_last_pooling_cannot_hold():
    with torch.device("meta"):
        network = I3D()
    with pytest.raises(ValueError, match="at least 9 frames"):
        network(torch.zeros(1, 3, 8, 224, 224))


def test_vggish_matches_the_published_sizes(tmp_path):
    with torch.device("meta"):
        network = VGGish()
    assert sum(p.numel() for p in network.parameters()) == 72_141_184
    assert mel_matrix().shape == (257, 64)
    assert log_mel_examples(torch.zeros(2, 30_000)).shape == (2, 1, 96, 64)
    two_seconds_and_a_window = 15_360 * 2 + 240
    assert log_mel_examples(torch.zeros(1, two_seconds_and_a_window)).shape[1] == 2


STAND_INS = ("fad/yamnet", "kvd/efficientnet-lite0")


@pytest.mark.parametrize("metric", sorted(set(METRICS) - set(STAND_INS)))
def test_no_official_metric_is_computed_without_the_official_weights(metric):
    with pytest.raises(MetricWeightsError, match=f"{metric} needs the official weights"):
        build_extractors([metric], {})


@pytest.mark.parametrize("metric", STAND_INS)
def test_stand_ins_bring_weights_of_known_content(metric):
    extractor = build_extractors([metric, metric], {})[0]
    assert extractor.name == METRICS[metric].extractor
    assert extractor.weights_sha256 == PACKAGED_SHA256[extractor.name]
    assert PACKAGED_WEIGHTS[extractor.name].stat().st_size < 7_500_000


PACKAGED_SHA256 = {
    "yamnet": "995d690b3692427e631ea30227b18d7e107cfef02757d636fbf71d42b9fe32c8",
    "efficientnet-lite0": "d47c382cf10ed76c243080a2f573669a28902f697e342b376b88f45c422df679",
}


def test_packing_hardly_changes_the_features(weights_folder):
    sound, frames = 0.1 * noise(2, 20_000), (40 * noise(1, 3, 3, 64, 64) + 128).clamp(0, 255)
    for kind, path, clips, tolerance in (
        (YAMNetFeatures, "audio/yamnet.safetensors", sound, 2e-3),
        (EfficientNetLite0Features, "image/efficientnet_lite0.safetensors", frames.byte(), 0),
    ):
        given = kind(weights_folder / path)(clips)
        packed = kind(PACKAGED_WEIGHTS[kind.name])(clips)
        assert float((given - packed).norm() / given.norm()) <= tolerance


def test_the_wheel_holds_the_weights_and_their_licence(tmp_path):
    wheel = pytest.importorskip("hatchling.builders.wheel")
    root = Path(__file__).resolve().parents[2]
    (path,) = wheel.WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(path).namelist())
    for file in PACKAGED_WEIGHTS.values():
        assert f"soundreel/assets/metrics/{file.name}" in names
    assert "soundreel/assets/metrics/LICENSE-Apache-2.0.txt" in names


def test_official_names_refuse_the_weights_of_a_stand_in(weights_folder):
    stand_in = weights_folder / "audio" / "yamnet.safetensors"
    with pytest.raises(MetricWeightsError, match="not the weights of VGGish"):
        build_extractors(["fad/vggish"], {"vggish": stand_in})
    with pytest.raises(MetricWeightsError, match="no metric 'fvd'"):
        build_extractors(["fvd"], {})
    with pytest.raises(MetricWeightsError, match="--weights i3d: no metric"):
        build_extractors(["fad/yamnet"], {"i3d": stand_in})


def random_state(network, prefix=""):
    """Tensors of the network's shapes; so large ones are mostly zeros, written fast."""
    return {prefix + name: torch.zeros_like(value) for name, value in network.state_dict().items()}


def official_files():
    """Official layout of each network's file: its tensors, and what else the file holds."""
    return {
        "i3d": (I3DFeatures, random_state(I3D())),
        "audioclip": (
            AudioCLIPFeatures,
            random_state(AudioCLIPAudio(), "audio.")
            | {"visual.conv1.weight": torch.zeros(2), "logit_scale_ai": torch.zeros(())},
        ),
    }


@pytest.mark.parametrize("name", ["i3d", "audioclip"])
def test_official_weights_load_from_pytorch_files(tmp_path, name):
    kind, state = official_files()[name]
    path = tmp_path / "official.pt"
    torch.save(state, path)
    assert kind(path).weights_sha256 == file_sha256(path)
    torch.save({"state_dict": state}, path)
    kind(path)

    first = sorted(state)[0]
    torch.save({k: v for k, v in state.items() if k != first}, path)
    absent = first.removeprefix("audio.")
    with pytest.raises(MetricWeightsError, match=rf"1 tensors absent \({absent}\), 0 unknown"):
        kind(path)
    torch.save(state | {"text_model.bias": torch.zeros(1)}, path)
    with pytest.raises(MetricWeightsError, match=r"0 tensors absent, 1 unknown \(text_model.bias"):
        kind(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(MetricWeightsError, match="truncated"):
        kind(path)


def test_vggish_file_may_hold_the_whitening_that_is_not_used(tmp_path, monkeypatch):
    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embeddings = torch.nn.Linear(2, 2)

    monkeypatch.setattr("soundreel.metrics.vggish.VGGish", Small)
    path = tmp_path / "vggish.pth"
    torch.save(Small().state_dict() | {"pproc.pca_means": torch.zeros(2)}, path)
    assert VGGishFeatures(path).weights_sha256 == file_sha256(path)
    torch.save(Small().state_dict() | {"pca": torch.zeros(2)}, path)
    with pytest.raises(MetricWeightsError, match=r"1 unknown \(pca\)"):
        VGGishFeatures(path)


class Malicious:
    def __reduce__(self):
        return (print, ("code of a weight file ran",))


def test_a_weight_file_with_code_is_refused_and_not_run(tmp_path, capsys):
    path = tmp_path / "i3d.pt"
    torch.save({"conv": Malicious()}, path)
    with pytest.raises(MetricWeightsError, match="refused"):
        build_extractors(["fvd/i3d"], {"i3d": path})
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(MetricWeightsError, match=r"refused|no weight file"):
        build_extractors(["fvd/i3d"], {"i3d": path})
    assert "ran" not in capsys.readouterr().out


def test_weights_are_recorded_by_hash_and_checked_by_name_and_shape(tmp_path):
    network = YAMNet()
    state = {k: v.clone() for k, v in network.state_dict().items()}
    path = tmp_path / "net.safetensors"
    save_file(state, path)
    assert load_weights(YAMNet(), path, "YAMNet") == file_sha256(path)
    state["layer2.pointwise.bias"] = torch.zeros(3)
    save_file(state, path)
    with pytest.raises(MetricWeightsError, match=r"layer2.pointwise.bias has shape \(3,\)"):
        load_weights(YAMNet(), path, "YAMNet")
    path.write_bytes(b"not a tensor file")
    with pytest.raises(MetricWeightsError, match=r"no weight file.*the weights of YAMNet"):
        load_weights(YAMNet(), path, "YAMNet")
    with pytest.raises(MetricWeightsError, match="no such file"):
        load_weights(YAMNet(), tmp_path / "absent.safetensors", "YAMNet")


def test_integers_are_multiplied_by_the_scales_of_their_channels(tmp_path):
    path = tmp_path / "net.safetensors"
    weight = torch.tensor([[-127, 1], [5, 127]], dtype=torch.int8)
    state = {"weight": weight, "weight.scale": torch.tensor([0.5, 2.0]), "bias": torch.zeros(2)}
    save_file(state, path)
    network = torch.nn.Linear(2, 2)
    load_weights(network, path, "a line")
    assert network.weight.tolist() == [[-63.5, 0.5], [10.0, 254.0]]
