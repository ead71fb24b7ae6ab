"""Low-rank adapters: what learns, what is merged, and files that `peft` reads and writes."""

import copy
import json

import pytest
import torch
from torch import nn

from soundreel.checkpoints.adapter import Adapter, save_lora, with_adapter
from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.lora import (
    LoRAConfig,
    adapted,
    add_lora,
    merge_lora,
)
from soundreel.checkpoints.store import ModelIndex, read_model, save_component, save_model_index
from soundreel.cli.main import run
from soundreel.errors import SoundreelError

ALL = LoRAConfig(rank=2, alpha=6.0, targets="all")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 8, 1), nn.Flatten(), nn.Linear(32, 5)]
    return nn.Sequential(*layers)


def trained(config: LoRAConfig = ALL) -> nn.Sequential:
    model = network()
    add_lora(model, config, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(2))
    return model


def save(model, folder, config=ALL):
    save_lora(model, model.state_dict(), config, folder, component="net", model="base")


X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(3))


def test_nothing_changes_until_the_products_learn_and_only_they_do():
    model = network()
    model[0].requires_grad_(False)
    expected = model(X)
    add_lora(model, LoRAConfig(rank=2, targets="all"))
    assert adapted(model) == ["2", "4"]  # what was frozen stays so
    assert torch.equal(model(X), expected)
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(learning) == 4
    assert all(".lora_" in name for name in learning)
    linear = network()
    add_lora(linear, LoRAConfig(rank=2))
    assert adapted(linear) == ["2", "4"]  # maps and convolutions of width 1


def test_rank_0_leaves_the_network_whole():
    model = network()
    add_lora(model, LoRAConfig())
    assert adapted(model) == []
    assert all(p.requires_grad for p in model.parameters())


def test_merged_weights_are_the_sum():
    model = trained()
    expected, state = model(X), model.state_dict()
    b, a = (state[f"4.parametrizations.weight.0.lora_{part}"] for part in "BA")
    merge_lora(model)
    assert model.state_dict().keys() == network().state_dict().keys()
    assert torch.allclose(model(X), expected, atol=1e-5)
    by_hand = network()[4].weight + 3 * b @ a
    assert torch.allclose(model[4].weight, by_hand, atol=1e-6)


def test_peft_reads_what_is_written_and_the_other_way_round(tmp_path):
    peft = pytest.importorskip("peft")
    model = trained()
    save(model, tmp_path / "ours")
    theirs = peft.PeftModel.from_pretrained(network(), tmp_path / "ours")
    assert torch.allclose(theirs(X), model(X), atol=1e-5)
    theirs.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    plain = network()
    Adapter.read(tmp_path / "theirs").merge_into(plain)
    assert torch.allclose(plain(X), model(X), atol=1e-5)
    assert torch.allclose(theirs.merge_and_unload()(X), model(X), atol=1e-5)


def test_info_describes_an_adapter(tmp_path, capsys):
    save(trained(), tmp_path / "adapter")
    assert run(["info", str(tmp_path / "adapter")]) == 0
    out = capsys.readouterr().out
    assert "LoRA of rank 2, scale 3" in out
    assert "3 weights of net" in out
    assert f"parameters: {2 * (27 + 4 + 4 + 8 + 32 + 5)}" in out


def test_what_does_not_fit_is_refused(tmp_path):
    folder = tmp_path / "adapter"
    with pytest.raises(CheckpointError, match="no adapter here"):
        Adapter.read(tmp_path)
    save(trained(), folder)
    with pytest.raises(CheckpointError, match=r"1 surplus: 4\.weight"):
        Adapter.read(folder).merge_into(network()[:4])
    other = copy.deepcopy(network())
    other[4] = nn.Linear(32, 6)
    with pytest.raises(CheckpointError, match=r"of another shape: 4\.weight"):
        Adapter.read(folder).merge_into(other)
    path = folder / "adapter_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"lora_alpha": 4}))
    with pytest.raises(CheckpointError, match="the adapter is damaged since it was written"):
        Adapter.read(folder)
    for change, message in (
        ({"r": 3}, "no two matrices of rank 3"),
        ({"r": "2"}, "must be numbers"),
        ({"use_dora": True}, "only plain LoRA is read"),
        ({"peft_type": "IA3"}, "describes no LoRA"),
    ):
        path.write_text(json.dumps(values | change))
        with pytest.raises(CheckpointError, match=message):
            Adapter.read(folder)
    path.write_text(json.dumps(values))
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(
        weights.read_bytes().replace(b"base_model.model.0.", b"base_model.iodel.0.")
    )
    with pytest.raises(CheckpointError, match="holds other tensors than the matrices of LoRA"):
        Adapter.read(folder)
    weights.write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        Adapter.read(folder)
    for wrong in ({"rank": -1}, {"alpha": 2.0}):
        with pytest.raises(SoundreelError, match=r"lora\."):
            LoRAConfig(**wrong)
    with pytest.raises(SoundreelError, match="no such weight to adapt"):
        add_lora(nn.Sequential(nn.Conv2d(3, 4, 3)), LoRAConfig(rank=2))


@pytest.mark.parametrize("names", [("net",), ("net", "other")])
def test_an_adapter_without_a_name_is_that_of_the_only_network(names, tmp_path):
    model = trained()
    save_lora(model, model.state_dict(), ALL, tmp_path / "adapter", component="", model="base")
    for name in names:
        save_component(tmp_path / "model", name, network(), ALL)
    index = ModelIndex(system="toy", components=dict.fromkeys(names, "toy"))
    save_model_index(tmp_path / "model", index)
    stored = read_model(tmp_path / "model")
    if len(names) == 1:
        part = with_adapter(stored, tmp_path / "adapter").component("net")
        built, _ = part.build(lambda config: network(), LoRAConfig)
        torch.testing.assert_close(built(X), model(X))
    else:
        with pytest.raises(CheckpointError, match="does not name its network among net, other"):
            with_adapter(stored, tmp_path / "adapter")
