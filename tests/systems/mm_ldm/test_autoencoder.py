"""The multi-modal autoencoder as a whole, at a small size."""

from dataclasses import replace

import pytest
import torch

from soundreel.device import autocast
from soundreel.systems.mm_ldm.autoencoder import MultiModalAutoencoder
from soundreel.systems.mm_ldm.perceptual_encoders import VideoEncoder
from soundreel.types import AV


def outputs_of(model, inputs):
    with torch.no_grad():
        return model(inputs)


@pytest.mark.parametrize("batch", [1, 3])
def test_single_clips_and_odd_batches_keep_the_batch_axis(
    make_config, make_model, make_inputs, batch
):
    config = make_config()
    inputs = make_inputs(config, batch=batch)
    outputs = outputs_of(make_model(config), inputs)
    assert outputs.prediction["video"].shape == inputs.xt["video"].shape
    assert outputs.prediction["audio"].shape == inputs.xt["audio"].shape
    assert outputs.class_logits.shape == (batch, 3)
    assert outputs.contrastive_loss.isfinite()


def test_a_clip_does_not_depend_on_its_batch(make_config, make_model, make_inputs):
    config = make_config()
    model, inputs = make_model(config), make_inputs(config, batch=2)
    alone = replace(
        inputs,
        key_frames=inputs.key_frames[:1],
        audio_image=inputs.audio_image[:1],
        xt=inputs.xt.rows(slice(1)),
        timestep=inputs.timestep.rows(slice(1)),
        frame_index=inputs.frame_index[:1],
        label=inputs.label[:1],
    )
    together, single = outputs_of(model, inputs).prediction, outputs_of(model, alone).prediction
    for modality in ("video", "audio"):
        # Numbers of size 1, of which rounding leaves up to 4e-5; another clip changes all of it.
        torch.testing.assert_close(together[modality][:1], single[modality], atol=5e-4, rtol=0)


def test_semantics_send_no_gradient_to_the_latents(make_config, make_model):
    model = make_model(make_config())
    latent = AV(torch.randn(1, 6, 4, 4, requires_grad=True), torch.randn(1, 6, 4, 4))
    semantic = model.semantics(latent)
    semantic["video"].sum().backward()
    assert latent["video"].grad is None
    assert model.video_projector.out.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("guide", ["other semantics", "own latent", "label", "frame index"])
def test_every_guide_changes_the_prediction(make_config, make_model, make_inputs, guide):
    """Audio attends to s_v, video to s_a; each also sees its own z, the class and its index."""
    config = make_config()
    model, inputs = make_model(config), make_inputs(config)
    with torch.no_grad():
        latent = model.encode(AV(inputs.key_frames, inputs.audio_image)).mean
        told = model.condition(latent, inputs.frame_index, label=inputs.label)
        if guide == "other semantics":
            other = replace(
                told, semantic=AV(told.semantic["video"], told.semantic["audio"].flip(0))
            )
        elif guide == "own latent":
            other = replace(told, latent=AV(told.latent["video"].flip(0), told.latent["audio"]))
        elif guide == "label":
            other = replace(told, label=told.label.flip(0))
        else:
            shifted = inputs.frame_index.flip(1)
            other = model.condition(latent, shifted, label=inputs.label)
        before = model.decoder(inputs.xt, inputs.timestep, told)
        after = model.decoder(inputs.xt, inputs.timestep, other)
    assert float((before["video"] - after["video"]).abs().max()) > 1e-3
    if guide != "label":
        torch.testing.assert_close(before["audio"], after["audio"], atol=1e-5, rtol=1e-4)


def test_one_modality_can_be_decoded_alone(make_config, make_model, make_inputs):
    config = make_config()
    model, inputs = make_model(config), make_inputs(config)
    with torch.no_grad():
        latent = model.encode(AV(inputs.key_frames, inputs.audio_image)).mean
        told = model.condition(latent, inputs.frame_index, label=inputs.label)
        both = model.decoder(inputs.xt, inputs.timestep, told)
        for modality, features in (("video", "audio_features"), ("audio", "video_features")):
            part = AV(None, None).replace(modality, inputs.xt[modality])
            step = AV(None, None).replace(modality, inputs.timestep[modality])
            alone = model.decoder(part, step, replace(told, **{features: None}))
            assert alone.present == (modality,)
            torch.testing.assert_close(alone[modality], both[modality], atol=1e-5, rtol=1e-4)


def test_a_dropped_condition_equals_an_empty_one(make_config, make_model, make_inputs):
    """Dropping video zeroes its encoder input and its prompt, and nothing of the sound."""
    config = make_config()
    model, inputs = make_model(config), make_inputs(config)
    nothing = torch.zeros(2, dtype=torch.bool)
    dropped = outputs_of(model, replace(inputs, keep=AV(nothing, ~nothing)))
    with torch.no_grad():
        model.video_prompt.zero_()
    empty = outputs_of(model, replace(inputs, key_frames=torch.zeros_like(inputs.key_frames)))
    kept = outputs_of(model, inputs)
    for modality in ("video", "audio"):
        torch.testing.assert_close(dropped.prediction[modality], empty.prediction[modality])
    assert torch.equal(dropped.posteriors.audio.mean, kept.posteriors.audio.mean)
    assert not torch.allclose(dropped.posteriors.video.mean, kept.posteriors.video.mean)


def test_without_classes_there_is_no_class_token(make_config, make_model, make_inputs):
    config = make_config(num_classes=0)
    model, inputs = make_model(config), make_inputs(config)
    outputs = outputs_of(model, inputs)
    assert outputs.class_logits is None
    assert model.class_head is None
    told = model.condition(outputs.latent, inputs.frame_index)
    with_classes = make_model(make_config())
    labelled = with_classes.condition(outputs.latent, inputs.frame_index)
    assert (
        with_classes.decoder.context(("video",), labelled).shape[1]
        == model.decoder.context(("video",), told).shape[1] + 1
    )


@pytest.mark.parametrize("kind", ["pooled", "flattened"])
def test_latent_embedding_is_pooled_or_flattened(make_config, make_model, kind):
    """Pooling cannot see where in the latent a value stands; flattening can."""
    model = make_model(make_config(latent_embedding=kind))
    latent = AV(torch.randn(1, 6, 4, 4), torch.randn(1, 6, 4, 4))
    moved = latent.map(lambda x: x.flip(-1))
    with torch.no_grad():
        source, step = torch.zeros(1, dtype=torch.long), torch.tensor([5])
        told = model.condition(latent, torch.zeros(1, 1))
        here = model.decoder.embedding(step, source, ("video",), told)
        there = model.decoder.embedding(step, source, ("video",), replace(told, latent=moved))
    assert torch.allclose(here, there, atol=1e-5) == (kind == "pooled")


def test_index_scale_makes_the_frame_index_audible(make_config, make_model):
    """Unscaled sinusoids of an index in [0, 1) hardly move; 1000 spreads them."""
    config = make_config()
    latent = torch.randn(1, 6, 4, 4)
    spread = []
    for scale in (1.0, 1000.0):
        encoder = replace(config.video_encoder, index_scale=scale)
        model = make_model(replace(config, video_encoder=encoder))
        with torch.no_grad():
            features = model.video_encoder.features(latent, torch.tensor([[0.0, 0.25]]))[-1]
        spread.append(float((features[0] - features[1]).std() / features.std()))
    assert spread[1] > 2 * spread[0]


def test_gated_frames_meet_differently_weighted_channels_from_the_start(make_config):
    """Features of two frames differ by about their own size; an added index hardly tells them."""
    config = make_config()
    latent, index = torch.randn(1, 6, 4, 4), torch.tensor([[0.0, 0.5]])
    spread = []
    for channels in (0, 24):
        encoder = replace(config.video_encoder, index_scale=1000.0, index_gate_channels=channels)
        torch.manual_seed(0)
        model = MultiModalAutoencoder(replace(config, video_encoder=encoder))
        block = model.video_encoder.pyramid.blocks[-1]
        torch.nn.init.eye_(block.out.weight[:, :, 0, 0].detach())
        with torch.no_grad():
            one, other = model.video_encoder.features(latent, index)[-1]
        spread.append(float((one - other).std() / one.std()))
    assert spread[0] < 0.2
    assert spread[1] > 0.5


@pytest.mark.parametrize("factor", [1, 2])
def test_stacked_key_frames_start_as_cosine_coefficients_over_time(make_config, factor):
    encoder = replace(
        make_config().video_encoder,
        stacked_frames=8,
        latent_channels=12,
        channel_mult=(1, 2)[:factor],
        attention_factors=(1, 2)[:factor],
    )
    model = VideoEncoder(encoder)
    still, place = torch.randn(1, 1, 4, 8, 8), (torch.arange(8.0) + 0.5) / 8
    # Even within each 2x2 block, so that a halved latent shows it as it is.
    still = still[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2)
    wave = torch.cos(torch.pi * 2 * place)[None, :, None, None, None]
    with torch.no_grad():
        posterior = model(still * (1 + wave))
    mean = posterior.mean.unflatten(1, (3, 4))  # b k c h w
    shown = still[:, 0, :, ::factor, ::factor]
    assert torch.allclose(mean[:, 0], shown, atol=1e-5)
    assert torch.allclose(mean[:, 1], torch.zeros_like(shown), atol=1e-5)
    assert torch.allclose(mean[:, 2], 3 * 2 * shown, atol=1e-4)  # gain, sqrt(2 / 8) * 8 / 2
    assert float(posterior.logvar.max()) == -3.0


def test_stacked_frames_let_the_latent_tell_frames_apart(make_config, make_model):
    """Lone frames far from both ends change places; attention alone cannot see that."""
    one_way, other_way = torch.zeros(2, 1, 28, 4, 8, 8)
    one_way[:, [8, 19]] = torch.randn(2, 4, 8, 8)  # no convolution reaches from one to the next
    other_way[:, [19, 8]] = one_way[:, [8, 19]]
    change = []
    for stacked in (0, 28):
        config = make_config(key_frames=tuple(range(28)), num_frames=28)
        encoder = replace(config.video_encoder, stacked_frames=stacked)
        model = make_model(replace(config, video_encoder=encoder))
        with torch.no_grad():
            one, other = (model.video_encoder(clip).mean for clip in (one_way, other_way))
        change.append(float((one - other).std() / one.std()))
    assert change[0] < 1e-4
    assert change[1] > 0.3


def test_a_wrong_number_of_stacked_frames_is_named(make_config, make_model):
    config = make_config()
    with pytest.raises(ValueError, match=r"stacked_frames 3 .* 2 key frames"):
        replace(config, video_encoder=replace(config.video_encoder, stacked_frames=3))
    encoder = replace(config.video_encoder, stacked_frames=2)
    model = make_model(replace(config, video_encoder=encoder))
    with pytest.raises(ValueError, match=r"got 3 key frames, but .* 2"):
        model.video_encoder(torch.zeros(1, 3, 4, 8, 8))


def test_any_number_of_key_frames_can_be_encoded(make_config, make_model, make_inputs):
    config = make_config(key_frames=(0, 1, 2, 3))
    outputs = outputs_of(make_model(config), make_inputs(config))
    assert outputs.latent["video"].shape == (2, 6, 4, 4)


def test_key_frames_of_a_short_clip_lie_at_the_same_shares(make_config, make_model):
    model = make_model(make_config(num_frames=16, key_frames=(0, 5, 10, 15)))
    numbered = torch.arange(9.0).reshape(1, 9, 1, 1, 1)
    assert model.select_key_frames(numbered).flatten().tolist() == [0, 2, 5, 8]


def test_checkpointed_gradients_equal_plain_ones(make_config, make_model, make_inputs):
    gradients = []
    for recompute in (False, True):
        config = make_config(gradient_checkpointing=recompute)
        config = replace(
            config,
            video_encoder=replace(config.video_encoder, gradient_checkpointing=recompute),
            video_projector=replace(config.video_projector, gradient_checkpointing=recompute),
        )
        model = make_model(config)
        outputs = model(make_inputs(config))
        (outputs.prediction["video"].square().mean() + outputs.contrastive_loss).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


def test_bfloat16_autocast_stays_close_to_float32(make_config, make_model, make_inputs):
    config = make_config()
    model, inputs = make_model(config), make_inputs(config)
    exact = outputs_of(model, inputs).prediction
    with autocast(torch.device("cpu"), "bfloat16"):
        rough = outputs_of(model, inputs).prediction
    for modality in ("video", "audio"):
        error = (exact[modality] - rough[modality].float()).std() / exact[modality].std()
        assert float(error) < 0.05


def test_mismatched_parts_are_refused(make_config):
    config = make_config()
    with pytest.raises(ValueError, match="key_frames"):
        replace(config, key_frames=(0, 99))
    with pytest.raises(ValueError, match="features"):
        replace(config, decoder=replace(config.decoder, width=64))
