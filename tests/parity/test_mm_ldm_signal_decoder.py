"""The shared signal decoder against the reference tensors `signal_decoder`."""

from dataclasses import replace

import pytest
import torch
from published_mm_ldm import latent_spec, load_official, signal_decoder_config

from soundreel.systems.mm_ldm.official_keys import key_table, signal_decoder_rules, to_official
from soundreel.systems.mm_ldm.signal_decoder import DecoderCondition, SignalDecoder
from soundreel.types import AV


@pytest.fixture
def reference(mm_ldm_reference):
    return mm_ldm_reference("signal_decoder")


@pytest.fixture
def model(reference):
    config = signal_decoder_config(reference.config)
    model = SignalDecoder(config, latent_spec(reference.config)).eval()
    load_official(model, reference.weights(), signal_decoder_rules(config))
    return model


@pytest.fixture
def middle(model):
    """Outputs of the middle block, collected as the model runs."""
    outputs = []
    model.middle.register_forward_hook(lambda *call: outputs.append(call[-1]))
    return outputs


@pytest.fixture
def audio_case(reference):
    condition = DecoderCondition(
        prompt=AV(None, reference["in/context_audio"]),
        label=reference["in/class_ids"],
        semantic=AV(reference["in/z_video"], reference["in/z_audio"]),
        latent=AV(reference["in/video_latent"], reference["in/audio_latent"]),
        video_features=None,
        audio_features=reference.numbered("in/feature_audio"),
    )
    xt = AV(None, reference["in/x_audio"])
    return xt, AV(None, reference["in/timesteps_audio"]), condition


@pytest.fixture
def video_case(reference, audio_case):
    """Every frame as a clip of its own, since the stored prompts differ from frame to frame."""
    frames = len(reference["in/x_video"]) // len(reference["in/x_audio"])
    told = audio_case[2]
    condition = DecoderCondition(
        prompt=AV(reference["in/context_video"], None),
        label=told.label.repeat_interleave(frames),
        semantic=told.semantic.map(lambda x: x.repeat_interleave(frames, dim=0)),
        latent=told.latent.map(lambda x: x.repeat_interleave(frames, dim=0)),
        video_features=reference.numbered("in/feature_video"),
        audio_features=None,
    )
    xt = AV(reference["in/x_video"][:, None], None)
    return xt, AV(reference["in/timesteps_video"][:, None], None), condition


@torch.no_grad()
def test_audio_rows_agree_with_embedding_context_and_middle(reference, model, audio_case, middle):
    xt, timestep, condition = audio_case
    rows = xt.batch_size
    reference.check(model(xt, timestep, condition)["audio"], "out/audio")
    source = torch.arange(rows)
    embedding = model.embedding(timestep["audio"], source, ("audio",), condition)
    context = model.context(("audio",), condition)
    for got, key in ((embedding, "embedding"), (context, "context"), (middle[0], "middle_block")):
        reference.tensors[f"audio/{key}"] = reference[f"mid/{key}"][:rows]
        reference.check(got, f"audio/{key}")


@torch.no_grad()
def test_video_rows_agree_with_embedding_context_and_middle(reference, model, video_case, middle):
    xt, timestep, condition = video_case
    rows = len(reference["in/x_audio"])
    reference.check(model(xt, timestep, condition)["video"][:, 0], "out/video")
    source = torch.arange(xt.batch_size)
    embedding = model.embedding(timestep["video"].flatten(), source, ("video",), condition)
    context = model.context(("video",), condition)
    for got, key in ((embedding, "embedding"), (context, "context"), (middle[0], "middle_block")):
        reference.tensors[f"video/{key}"] = reference[f"mid/{key}"][rows:]
        reference.check(got, f"video/{key}")


@torch.no_grad()
def test_rows_without_residual_features_agree(reference, model, audio_case, video_case):
    xt, timestep, condition = audio_case
    bare = replace(condition, audio_features=None)
    reference.check(model(xt, timestep, bare)["audio"], "out/no_residual/audio")
    xt, timestep, condition = video_case
    bare = replace(condition, video_features=None)
    reference.check(model(xt, timestep, bare)["video"][:, 0], "out/no_residual/video")


@pytest.mark.parametrize("name", ["landscape", "aist"])
def test_full_size_has_the_published_parameters(mm_ldm_full_keys, name):
    full = mm_ldm_full_keys(f"signal_decoder_{name}")
    config = signal_decoder_config(full["config"])
    blocks = zip(full["config"]["block_channels"], full["config"]["block_downsample"], strict=True)
    assert config.feature_blocks == list(blocks)
    with torch.device("meta"):
        model = SignalDecoder(config, latent_spec(full["config"]))
    rules = signal_decoder_rules(config)
    assert sum(p.numel() for p in model.parameters()) == full["parameters"]
    assert set(key_table(model, rules).values()) == set(full["shapes"])
    exported = to_official(model, rules, full["shapes"])
    assert {key: list(value.shape) for key, value in exported.items()} == full["shapes"]
