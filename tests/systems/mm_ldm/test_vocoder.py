"""HiFi-GAN: the published weights load, weight norm folds exactly, real sound comes out."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from soundreel.checkpoints.errors import CheckpointError
from soundreel.systems.mm_ldm.import_hifigan import import_hifigan
from soundreel.systems.mm_ldm.vocoder import (
    Vocoder,
    VocoderConfig,
    fold_weight_norm,
    vocoder_from_state,
)

SMALL = VocoderConfig(num_mels=6, width=16, upsample_rates=(4, 2), upsample_kernel_sizes=(8, 4))


def random_mel(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def published(weights_folder):
    path = weights_folder / "vocoder" / "hifigan_universal_22k.safetensors"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    return path


def with_weight_norm(network, spelling):
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            spelling(module)
            for name, parameter in module.named_parameters():
                if name.endswith(("weight_g", "original0")):
                    parameter.data *= 1.7  # so that folding must not return the direction alone
    return network


def test_published_v1_has_its_size_and_loads(published):
    network = vocoder_from_state(load_file(published))
    assert network.config.hop_length == 256
    assert sum(p.numel() for p in network.parameters()) == 13_926_017
    assert not network.training


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("spelling", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_folded_weights_give_the_same_waveform_as_weight_norm(spelling):
    network = with_weight_norm(Vocoder(SMALL), spelling)
    plain = vocoder_from_state(network.state_dict(), SMALL)
    mel = random_mel(2, 6, 9)
    with torch.no_grad():
        expected, got = network(mel), plain(mel)
    assert got.shape == (2, 1, 9 * 8)
    assert torch.allclose(got, expected, atol=1e-6)


def test_weights_without_weight_norm_pass_unchanged():
    state = Vocoder(SMALL).state_dict()
    folded = fold_weight_norm(state)
    assert folded.keys() == state.keys()
    assert all(torch.equal(folded[key], state[key]) for key in state)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_training_checkpoint_and_its_config_file_are_imported(tmp_path):
    network = with_weight_norm(Vocoder(SMALL), nn.utils.weight_norm)
    torch.save({"generator": network.state_dict()}, tmp_path / "g_02500000")
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "resblock": "1",
                "num_mels": 6,
                "upsample_rates": [4, 2],
                "upsample_kernel_sizes": [8, 4],
                "upsample_initial_channel": 16,
                "resblock_kernel_sizes": [3, 7, 11],
                "resblock_dilation_sizes": [[1, 3, 5]] * 3,
            }
        )
    )
    imported = import_hifigan(tmp_path / "g_02500000")
    assert imported.config == SMALL
    mel = random_mel(1, 6, 9)
    with torch.no_grad():
        assert torch.allclose(imported(mel), network(mel), atol=1e-6)


def test_bad_files_give_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        import_hifigan(tmp_path / "absent")
    (tmp_path / "noise").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="damaged"):
        import_hifigan(tmp_path / "noise")
    torch.save({"mpd": {}, "steps": 3}, tmp_path / "do_02500000")
    with pytest.raises(CheckpointError, match="entries are no tensors"):
        import_hifigan(tmp_path / "do_02500000")
    save_file({"conv_pre.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not a HiFi-GAN generator") as caught:
        import_hifigan(tmp_path / "other.safetensors")
    assert "\n" not in str(caught.value)


def test_impossible_configurations_are_refused():
    with pytest.raises(ValueError, match="equally long"):
        VocoderConfig(upsample_rates=(8, 8))
    with pytest.raises(ValueError, match="multiple of 16"):
        VocoderConfig(width=100)
