"""Text encoders of local folders: tiny ones with random weights, built on the spot."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.text_encoder import TextConfig, load_text_encoder, text_encoder_sha256


def config(folder, **changes):
    return TextConfig(folder=str(folder), **{"num_tokens": 6, **changes})


@pytest.mark.parametrize("kind", ["clip", "t5"])
def test_captions_become_token_states_of_a_fixed_length(text_encoders, kind):
    encoder = load_text_encoder(config(text_encoders / kind))
    states = encoder(["a dog", "fire", "a dog a dog a dog a dog"])
    assert states.shape == (3, 6, encoder.dim) == (3, 6, 8)
    assert states.dtype == torch.float32
    assert not torch.allclose(states[0], states[1])
    assert torch.allclose(states[1:2], encoder(["fire"]), atol=1e-6)
    assert not any(p.requires_grad for p in encoder.network.parameters())


def test_states_of_clip_are_those_of_all_its_tokens(text_encoders):
    from transformers import CLIPTextModel

    network = CLIPTextModel.from_pretrained(text_encoders / "clip")
    ids = torch.tensor([[2, 4, 5, 1, 1, 1]])  # start, "a dog", end, and the end again as padding
    with torch.no_grad():
        expected = network(input_ids=ids).last_hidden_state
    states = load_text_encoder(config(text_encoders / "clip"))(["a dog"])
    assert torch.allclose(states, expected, atol=1e-6)


def test_t5_does_not_see_its_padding_and_leaves_it_zero(text_encoders):
    short, long = (
        load_text_encoder(config(text_encoders / "t5", num_tokens=n))(["a dog"]) for n in (3, 20)
    )
    assert torch.allclose(short, long[:, :3], atol=1e-6)
    assert not long[:, 3:].any()


def test_a_stable_diffusion_folder_keeps_the_tokenizer_beside_the_encoder(text_encoders, tmp_path):
    for path in (text_encoders / "clip").iterdir():
        part = "tokenizer" if path.name.startswith("tokenizer") else "text_encoder"
        (tmp_path / part).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / part / path.name)
    whole = load_text_encoder(config(text_encoders / "clip"))
    parted = load_text_encoder(config(tmp_path / "text_encoder"))
    assert torch.equal(whole(["sea"]), parted(["sea"]))


def test_another_encoder_than_the_hash_names_is_refused(text_encoders, tmp_path):
    sha256 = text_encoder_sha256(text_encoders / "clip")
    moved = shutil.copytree(text_encoders / "clip", tmp_path / "moved")
    (moved / "README.md").write_text("a note changes nothing")
    named = config(moved, sha256=sha256)
    assert load_text_encoder(named).dim == 8
    state = load_file(moved / "model.safetensors")
    first = next(iter(state))
    save_file(state | {first: state[first] + 1}, moved / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="another text encoder"):
        load_text_encoder(named)


def test_folders_that_are_no_text_encoders_give_one_line(text_encoders, tmp_path):
    with pytest.raises(CheckpointError, match=r"no text encoder here \(config.json is missing\)"):
        load_text_encoder(config(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="a 'bert' model; give one of clip"):
        load_text_encoder(config(other))
    (other / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not a readable text encoder") as caught:
        load_text_encoder(config(other))
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="reads at most 6 tokens, num_tokens is 77"):
        load_text_encoder(TextConfig(folder=str(text_encoders / "clip")))
    with pytest.raises(ValueError, match="num_tokens must be positive"):
        TextConfig(num_tokens=0)


def test_pickled_and_incomplete_weights_are_refused(text_encoders, tmp_path):
    folder = shutil.copytree(text_encoders / "t5", tmp_path / "t5")
    state = load_file(folder / "model.safetensors")
    state.pop("encoder.final_layer_norm.weight")
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack encoder\.final_layer_norm\.weight"):
        load_text_encoder(config(folder))
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="not a readable text encoder"):
        load_text_encoder(config(folder))


def test_without_transformers_the_message_names_the_extra(text_encoders, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(CheckpointError, match=r"pip install 'soundreel\[text\]'"):
        load_text_encoder(config(text_encoders / "clip"))


def test_loading_prints_nothing_and_leaves_the_librarys_logging_alone(text_encoders, capfd):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_text_encoder(replace(config(text_encoders / "clip"), sha256=""))
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
