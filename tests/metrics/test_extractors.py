"""Networks behind the distribution metrics: weights, names, and what they recognise."""

import csv

import pytest
import torch
from safetensors.torch import save_file

from soundreel.metrics.efficientnet_lite0 import EfficientNetLite0Features
from soundreel.metrics.extractors import METRICS, build_extractor
from soundreel.metrics.i3d import I3D
from soundreel.metrics.padding import pad_same
from soundreel.metrics.vggish import VGGish, log_mel_examples, mel_matrix
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


def test_yamnet_hears_a_siren_like_sweep_and_silence(yamnet, weights_folder):
    path = weights_folder / "audio" / "yamnet_class_map.csv"
    with path.open() as file:
        names = [row["display_name"] for row in csv.DictReader(file)]
    network = yamnet.network
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
    av = pytest.importorskip("av")
    extractor = EfficientNetLite0Features(
        weights_folder / "image" / "efficientnet_lite0.safetensors"
    )
    with av.open(clips_folder / "sound_of_water" / "example_video.mp4") as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    frames = torch.from_numpy(frame).permute(2, 0, 1)[None, None].repeat(1, 2, 1, 1, 1)
    features = extractor(frames)
    assert features.shape == (1, 2560)
    assert float(features[:, 1280:].abs().max()) == 0  # a frozen clip does not change
    beaker = 438  # ImageNet class
    logits = extractor.network._fc(features[:, :1280])
    assert int(logits.argmax()) == beaker


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


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_no_metric_is_computed_without_its_own_weights(metric):
    with pytest.raises(MetricWeightsError, match="--weights"):
        build_extractor(metric, {})


def test_official_names_refuse_the_weights_of_a_stand_in(weights_folder):
    stand_in = weights_folder / "audio" / "yamnet.safetensors"
    with pytest.raises(MetricWeightsError, match="not the weights of VGGish"):
        build_extractor("fad/vggish", {"vggish": stand_in})
    with pytest.raises(MetricWeightsError, match="no metric 'fvd'"):
        build_extractor("fvd", {})


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
    with pytest.raises(MetricWeightsError, match="not a safetensors file"):
        load_weights(YAMNet(), path, "YAMNet")
    with pytest.raises(MetricWeightsError, match="no such file"):
        load_weights(YAMNet(), tmp_path / "absent.safetensors", "YAMNet")
