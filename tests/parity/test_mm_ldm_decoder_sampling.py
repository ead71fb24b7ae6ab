"""Guided decoding of a clip, step by step, against the reference tensors `decoder_sampling`."""

import pytest
import torch

from soundreel.diffusion.schedules import respace, scaled_linear_schedule
from soundreel.systems.mm_ldm.decoding import DecodingConfig, decode
from soundreel.types import AV


@pytest.fixture
def reference(mm_ldm_reference):
    return mm_ldm_reference("decoder_sampling")


@pytest.fixture
def model(reference, reference_autoencoder, mm_ldm_reference):
    num_keys = mm_ldm_reference("video_encoder")["in/key_frames"].shape[2]
    return reference_autoencoder(reference, num_keys)


@torch.no_grad()
def test_latents_of_nothing_agree(reference, model):
    """A nearly flat input is badly conditioned, hence the wide mark."""
    null = model.null_latent(len(reference["in/video_latent"]))
    for modality in ("video", "audio"):
        expected = reference[f"out/null_{modality}_latent"]
        assert float((null[modality] - expected).abs().max()) <= 5e-4


def test_every_step_agrees(reference, model):
    config = reference.config
    schedule = scaled_linear_schedule(
        config["num_train_timesteps"], config["linear_start"], config["linear_end"]
    )
    kept = respace(schedule, f"compvis{config['ddim_steps']}")
    assert list(reversed(kept.timestep_map.tolist())) == reference.sidecar["timesteps_in_order"]
    latent = AV(reference["in/video_latent"], reference["in/audio_latent"])
    batch = latent.batch_size
    xt = AV(reference["in/xT_video"].unflatten(0, (batch, -1)), reference["in/xT_audio"])
    states = []
    final = decode(
        model,
        latent,
        xt,
        schedule,
        DecodingConfig(
            num_steps=config["ddim_steps"],
            video_guidance_scale=config["guidance_video"],
            audio_guidance_scale=config["guidance_audio"],
            frame_chunk=config["frames"],
        ),
        callback=lambda step, total, state: states.append(state),
    )
    assert len(states) == len(kept)
    for step, state in enumerate(states, start=1):
        reference.check(state["video"].flatten(0, 1), f"out/step{step}/video", mark=1e-4)
        reference.check(state["audio"], f"out/step{step}/audio", mark=1e-4)
    assert torch.equal(final["video"], states[-1]["video"])
