"""Official-style checkpoints with random weights: read, named in errors, refused, written back."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import (
    ModelIndex,
    load_component,
    load_model_index,
    save_component,
    save_model_index,
)
from soundreel.diffusion.config import DiffusionConfig
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNet, CoupledUNetConfig
from soundreel.systems.mm_diffusion.export_official import export_mm_diffusion
from soundreel.systems.mm_diffusion.import_official import ImportOptions, import_mm_diffusion
from soundreel.systems.mm_diffusion.official_keys import to_official
from soundreel.systems.mm_diffusion.pipeline import MMDiffusionPipeline, MMDiffusionSettings
from soundreel.systems.super_resolution.network import (
    SuperResolutionConfig,
    SuperResolutionUNet,
)
from soundreel.types import ClipSpec

BASE = CoupledUNetConfig(width=32, channel_mult=(1, 1, 2, 2), num_res_blocks=1, cross_head_width=16)
UPSAMPLER = SuperResolutionConfig(
    low_res_size=8, size=32, width=32, channel_mult=(1, 2, 2), attention_factors=(4,), num_heads=2
)
OPTIONS = ImportOptions(cross_head_width=16)
SMALL_IMAGES = ImportOptions(num_heads=2, low_res_size=8, size=32)


def randomised(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network.eval()


def save(state, path):
    torch.save(dict(state), path)
    return path


@pytest.fixture(scope="module")
def base():
    return randomised(CoupledUNet(BASE))


@pytest.fixture(scope="module")
def upsampler():
    return randomised(SuperResolutionUNet(UPSAMPLER))


def assert_equal(got, expected):
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(got[key], value), key


@pytest.mark.parametrize(
    "config",
    [
        BASE,
        replace(
            BASE,
            channel_mult=(1, 2, 3),
            num_res_blocks=2,
            video_attention_factors=(4,),
            audio_attention_factors=(4,),
            cross_attention_factors=(2, 4),
            cross_attention_windows=(2, 8),
            middle_cross_attention=False,
            scale_shift_norm=False,
            learned_variance=True,
            video_conv="3d",
        ),
    ],
)
def test_a_base_checkpoint_becomes_the_network_it_came_from(tmp_path, config):
    network = randomised(CoupledUNet(config))
    path = save(to_official(network.state_dict()), tmp_path / "Landscape.pt")
    options = replace(OPTIONS, cross_attention_windows=config.cross_attention_windows)
    (report,) = import_mm_diffusion([path], tmp_path / "model", options)
    loaded, loaded_config = load_component(
        tmp_path / "model", "unet", CoupledUNet, CoupledUNetConfig
    )
    assert loaded_config == config
    assert_equal(loaded.state_dict(), network.state_dict())
    assert report.num_tensors == len(network.state_dict())
    assert report.num_parameters == sum(p.numel() for p in network.parameters())
    index = load_model_index(tmp_path / "model")
    assert index.components == {"unet": "coupled-unet"}
    assert index.clip == ClipSpec()


def test_the_stem_stays_factored_where_the_blocks_are_not():
    """As in the official code, whose stem ignores `video_type`."""
    names = to_official(CoupledUNet(replace(BASE, video_conv="3d")).state_dict())
    stem = sorted(name for name in names if name.startswith("input_blocks.0.0.video_conv."))
    assert [name.rpartition("video_conv.")[2] for name in stem] == [
        "video_conv_spatial.bias",
        "video_conv_spatial.weight",
        "video_conv_temporal.bias",
        "video_conv_temporal.weight",
    ]
    block = [name for name in names if name.startswith("input_blocks.1.0.video_in_layers.2.")]
    assert all(name.endswith(("video_conv.weight", "video_conv.bias")) for name in block)
    assert names["input_blocks.1.0.video_in_layers.2.video_conv.weight"].dim() == 5


def test_base_and_upsampler_share_a_folder_and_class_labels_are_left_out(tmp_path, base, upsampler):
    official = upsampler.state_dict() | {"label_emb.weight": torch.zeros(10, 128)}
    files = [
        save(to_official(base.state_dict()), tmp_path / "AIST++.pt"),
        save(official, tmp_path / "64_256_upsampler.pt"),
    ]
    options = replace(OPTIONS, low_res_size=8, size=32)
    reports = import_mm_diffusion(files, tmp_path / "model", options)
    assert [report.name for report in reports] == ["unet", "super_resolution"]
    assert reports[1].ignored == ("label_emb.weight",)
    loaded, config = load_component(
        tmp_path / "model", "super_resolution", SuperResolutionUNet, SuperResolutionConfig
    )
    # The number of heads does not show in any shape.
    assert config == replace(UPSAMPLER, num_heads=4)
    assert_equal(loaded.state_dict(), upsampler.state_dict())


def test_half_precision_checkpoints_are_stored_in_float32(tmp_path, upsampler):
    half = {key: value.half() for key, value in upsampler.state_dict().items()}
    import_mm_diffusion([save(half, tmp_path / "sr.pt")], tmp_path / "model", SMALL_IMAGES)
    loaded, config = load_component(
        tmp_path / "model", "super_resolution", SuperResolutionUNet, SuperResolutionConfig
    )
    assert config == UPSAMPLER
    assert_equal(loaded.state_dict(), {key: value.float() for key, value in half.items()})


@pytest.mark.parametrize("name", ["base", "upsampler"])
def test_export_gives_the_official_tensors_back(tmp_path, request, name):
    network = request.getfixturevalue(name)
    official = to_official(network.state_dict()) if name == "base" else network.state_dict()
    path = save(official, tmp_path / "in.pt")
    options = OPTIONS if name == "base" else SMALL_IMAGES
    import_mm_diffusion([path], tmp_path / "model", options)
    (written,) = export_mm_diffusion(tmp_path / "model", tmp_path / "out")
    assert_equal(torch.load(written, weights_only=True), dict(official))


def test_what_the_original_code_would_misread_is_not_exported(tmp_path, base, upsampler):
    velocities = replace(UPSAMPLER, prediction_type="v")
    save_component(tmp_path / "sr", "super_resolution", upsampler, velocities)
    index = ModelIndex(system="mm-diffusion", components={"super_resolution": "super-resolution"})
    save_model_index(tmp_path / "sr", index)
    settings = MMDiffusionSettings(diffusion=DiffusionConfig(prediction_type="x0"))
    MMDiffusionPipeline(base, ClipSpec(), settings).save(tmp_path / "base")
    for folder, estimated in (("sr", "'v'"), ("base", "'x0'")):
        with pytest.raises(CheckpointError, match=f"estimates {estimated}"):
            export_mm_diffusion(tmp_path / folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def run_failing(tmp_path, path, options=OPTIONS):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError) as error:
        import_mm_diffusion([path], tmp_path / "model", options)
    assert sorted(tmp_path.iterdir()) == before, "something was left behind"
    assert str(path) in str(error.value)
    return str(error.value)


def test_surplus_keys_are_named(tmp_path, base):
    state = to_official(base.state_dict()) | {
        f"classifier.{i}.weight": torch.zeros(2) for i in range(20)
    }
    message = run_failing(tmp_path, save(state, tmp_path / "extra.pt"))
    assert "20 surplus: classifier.0.weight, " in message
    assert "and 12 more" in message


@pytest.mark.parametrize(
    "key",
    [
        "time_embed.0.weight",
        "input_blocks.0.0.audio_conv.audio_conv.weight",
        "input_blocks.1.0.video_in_layers.0.GroupNorm.weight",
        "output_blocks.3.1.v_qkv.bias",
        "video_out.2.video_conv.bias",
    ],
)
def test_a_missing_key_is_named(tmp_path, base, key):
    state = to_official(base.state_dict())
    del state[key]
    message = run_failing(tmp_path, save(state, tmp_path / "less.pt"))
    assert "missing" in message
    # After renaming, our name of the tensor is what the network lacks.
    assert key in message or key.rpartition(".")[2] in message


def test_another_shape_is_named(tmp_path, upsampler):
    state = dict(upsampler.state_dict()) | {"out.2.bias": torch.zeros(5)}
    message = run_failing(tmp_path, save(state, tmp_path / "shape.pt"), SMALL_IMAGES)
    assert "out.2.bias is (5,), not (6,)" in message


def test_unknown_windows_and_head_widths_are_asked_for(tmp_path, base):
    state = to_official(base.state_dict())
    path = save(state, tmp_path / "base.pt")
    assert "give the cross_head_width" in run_failing(tmp_path, path, ImportOptions())
    config = replace(BASE, middle_cross_attention=False)
    state = to_official(CoupledUNet(config).state_dict())
    assert "give cross_attention_windows" in run_failing(
        tmp_path, save(state, tmp_path / "windows.pt")
    )


def test_two_files_of_a_kind_are_refused(tmp_path, upsampler):
    files = [save(upsampler.state_dict(), tmp_path / f"{i}.pt") for i in range(2)]
    with pytest.raises(CheckpointError, match=r"1\.pt: .*0\.pt is a super-resolution network"):
        import_mm_diffusion(files, tmp_path / "model", SMALL_IMAGES)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, upsampler, kept):
    path = save(upsampler.state_dict(), tmp_path / "whole.pt")
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    message = run_failing(tmp_path, path, SMALL_IMAGES)
    assert "truncated" in message or "damaged" in message


def test_damaged_bytes_are_refused_whatever_they_are(tmp_path, upsampler):
    path = save({"w": torch.zeros(3)}, tmp_path / "small.pt")
    torch.save({"w": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        place = int(torch.randint(len(content), (), generator=generator))
        value = int(torch.randint(256, (), generator=generator))
        path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
        with pytest.raises(CheckpointError):
            import_mm_diffusion([path], tmp_path / "model")


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "code was run"))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path, upsampler, legacy):
    trace, path = tmp_path / "trace", tmp_path / "bad.pt"
    state = dict(upsampler.state_dict()) | {"out.2.bias": Malicious(trace)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    message = run_failing(tmp_path, path, SMALL_IMAGES)
    assert "refused" in message
    assert "weights_only=False" not in message, "torch's advice would run the code"
    assert not trace.exists()
    # The test would prove nothing if the pickle were harmless.
    torch.load(path, weights_only=False)
    assert trace.read_text() == "code was run"


def test_a_plain_pickle_and_a_training_state_are_refused(tmp_path):
    path = tmp_path / "opt.pt"
    path.write_bytes(pickle.dumps({"a": {1, 2}}, protocol=2))
    run_failing(tmp_path, path)
    torch.save({"step": 7, "lr": 0.1}, path)
    assert "2 entries are no tensors: step, lr" in run_failing(tmp_path, path)
    torch.save({"w": torch.zeros(3)}, path)
    assert "neither MM-Diffusion's base network nor its upsampler" in run_failing(tmp_path, path)


def test_a_folder_and_an_absent_file_are_named(tmp_path):
    assert "no such file" in run_failing(tmp_path, tmp_path / "absent.pt")
