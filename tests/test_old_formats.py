"""What older releases wrote keeps loading: `old_formats/` was made before the formats changed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import soundreel
from soundreel.checkpoints.store import read_model
from soundreel.config_io import ConfigError, load_json
from soundreel.data.dataset import PreparedDataset
from soundreel.data.latents import LatentDataset
from soundreel.data.manifest import DatasetInfo
from soundreel.errors import SoundreelError
from soundreel.systems.mm_diffusion.config import MMDiffusionConfig
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.super_resolution.config import SuperResolutionRunConfig
from soundreel.systems.super_resolution.pipeline import SuperResolutionPipeline, UpscaleConfig
from soundreel.training.run_folder import check_out
from soundreel.training.state import list_checkpoints, load_training_state
from soundreel.training.trainee import make_trainee

OLD = Path(__file__).parent / "old_formats"
EXPECTED = json.loads((OLD / "expected.json").read_text())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mm-diffusion-tiny", MMDiffusionConfig),
        ("mm-diffusion-sr-small", SuperResolutionRunConfig),
        ("mm-ldm-tiny", MMLDMConfig),
    ],
)
def test_an_old_run_may_go_on(name, kind, tmp_path):
    shutil.copy(OLD / f"run-{name}.json", tmp_path / "config.json")
    config = load_json(kind, tmp_path / "config.json")
    check_out(config, tmp_path, resume=True)
    values = json.loads((OLD / f"run-{name}.json").read_text())
    assert config.data.stride == values["data"]["stride"]


def test_an_old_run_with_removed_options_is_refused_in_one_line_that_names_them(tmp_path):
    shutil.copy(OLD / "run-mm-ldm-scenes.json", tmp_path / "config.json")
    with pytest.raises(ConfigError) as caught:
        load_json(MMLDMConfig, tmp_path / "config.json")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'config.json'}: decoder is an option that was removed")
    assert "generator.activity is an option that was removed: 0.0 is still read, 2.0" in message
    assert "sampling.second_pass is an option that was removed: 'none' is still" in message
    assert message.endswith("needs an earlier release")
    assert "\n" not in message


def test_an_old_mm_diffusion_model_generates_the_same_clip():
    clip = soundreel.load(OLD / "mm_diffusion_model", device="cpu").generate(seed=3)[0]
    expected = EXPECTED["mm_diffusion_model"]
    assert clip.frames.mean() == pytest.approx(expected["frames"], abs=0.5)
    assert np.sqrt((clip.waveform**2).mean()) == pytest.approx(expected["rms"], rel=1e-2)


def test_an_old_super_resolution_model_makes_the_same_frames():
    pipeline = SuperResolutionPipeline.load(read_model(OLD / "super_resolution_model"))
    low_res = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    frames = pipeline.upscale_video(low_res, config=UpscaleConfig(num_steps=2))
    assert float(frames.mean()) == pytest.approx(
        EXPECTED["super_resolution_model"]["mean"], abs=1e-3
    )


def fill(shape: list[int], dtype: str) -> torch.Tensor:
    return torch.full(shape, 0.01) if dtype == "F32" else torch.zeros(shape, dtype=torch.int64)


def old_mm_ldm_model(folder: Path) -> Path:
    """The fixture has the names and shapes of the tensors, not 10 MB of random numbers."""
    shutil.copytree(OLD / "mm_ldm_model", folder)
    for path in folder.glob("*/tensors.json"):
        tensors = json.loads(path.read_text())
        state = {name: fill(shape, dtype) for name, (dtype, *shape) in tensors.items()}
        save_file(state, path.with_name("model.safetensors"))
        path.unlink()
    return folder


def test_an_old_mm_ldm_model_takes_all_its_tensors(tmp_path):
    pipe = soundreel.load(old_mm_ldm_model(tmp_path / "model"), device="cpu")
    assert float(pipe.generator.state_dict()["prompt"].mean()) == pytest.approx(0.01)
    clip = pipe.generate(num_steps=2)[0]
    assert clip.frames.shape == (4, 32, 32, 3)


def test_an_old_mm_ldm_model_with_a_second_pass_is_refused_in_one_line(tmp_path):
    path = old_mm_ldm_model(tmp_path / "model") / "model_index.json"
    path.write_text(path.read_text().replace('"second_pass": "none"', '"second_pass": "video"'))
    with pytest.raises(SoundreelError) as caught:
        soundreel.load(tmp_path / "model", device="cpu")
    message = str(caught.value)
    assert "second_pass is an option that was removed: 'none' is still read, 'video'" in message
    assert "\n" not in message


def test_an_old_data_set_is_read():
    info = DatasetInfo.load(OLD / "data_set")
    assert (info.classes, info.counts["clips"]) == (("a", "b"), 2)
    dataset = PreparedDataset(OLD / "data_set", spec=info.spec(4))
    sample = dataset[0]
    assert sample.key.startswith("a-")
    assert sample.av["video"].shape == (4, 3, 16, 16)


def test_an_old_latent_cache_is_read():
    latents = LatentDataset(OLD / "latent_cache", standardize=False)
    assert len(latents) == 7
    difference = latents[6].av["video"] - latents[0].av["video"]
    torch.testing.assert_close(difference, 6 * (latents[1].av["video"] - latents[0].av["video"]))


def no_objective(network, batch, noise):
    raise AssertionError("nothing is trained here")


def test_training_goes_on_from_an_old_checkpoint():
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    trainee = make_trainee("net", network, no_objective, learning_rate=0.1, ema_decay=0.9)
    (checkpoint,) = list_checkpoints(OLD / "checkpoints")
    assert load_training_state(checkpoint, [trainee]) == 8
    moments = trainee.optimizer.state_dict()["state"]
    assert [moments[n]["exp_avg"].shape for n in range(4)] == [
        p.shape for p in network.parameters()
    ]
    assert all(int(moments[n]["step"]) == 2 for n in range(4))
