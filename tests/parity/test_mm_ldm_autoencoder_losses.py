"""One pass of the whole autoencoder against the reference tensors `autoencoder_losses`."""

import pytest
import torch
from einops import rearrange

from soundreel.diffusion.schedules import scaled_linear_schedule
from soundreel.systems.mm_ldm.autoencoder import AutoencoderInputs
from soundreel.systems.mm_ldm.autoencoder_loss import (
    AutoencoderLossConfig,
    add_noise_per_image,
    autoencoder_loss,
)
from soundreel.types import AV


@pytest.fixture
def reference(mm_ldm_reference):
    return mm_ldm_reference("autoencoder_losses")


@torch.no_grad()
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_losses_and_estimates_agree(reference, reference_autoencoder, mode):
    """Training draws latents and tells the true class. Evaluation takes the means, tells the class
    it predicts, and leaves the KL divergence out of the total.
    """
    model = reference_autoencoder(reference, reference["in/key_frames"].shape[2])
    batch = len(reference["in/x0_audio"])

    def pair(video, audio):
        return AV(reference[video].unflatten(0, (batch, -1)), reference[audio])

    schedule = scaled_linear_schedule()
    x0, noise = pair("in/x0_video", "in/x0_audio"), pair("in/noise_video", "in/noise_audio")
    timestep = pair("in/t_video", "in/t_audio")
    latent_noise = AV(reference["in/posterior_noise_video"], reference["in/posterior_noise_audio"])
    inputs = AutoencoderInputs(
        key_frames=rearrange(reference["in/key_frames"], "b c f h w -> b f c h w"),
        audio_image=reference["in/audio_cond_image"],
        xt=add_noise_per_image(x0, noise, timestep, schedule),
        timestep=timestep,
        frame_index=reference["in/frame_index"],
        posterior_noise=latent_noise if mode == "train" else None,
        label=reference["in/class_ids"] if mode == "train" else None,
    )
    outputs = model(inputs)
    weights = reference.config["loss_weights"]
    loss = autoencoder_loss(
        outputs,
        inputs,
        x0,
        noise,
        reference["in/class_ids"],
        schedule,
        AutoencoderLossConfig(
            kl_weight=weights["kl_loss_weight"] if mode == "train" else 0.0,
            class_weight=weights["classify_loss_weight"],
            contrastive_weight=weights["contrastive_loss_weight"],
        ),
        "epsilon",
    )
    for modality in ("video", "audio"):
        for name, value in (("eps", outputs.prediction), ("x0", loss.x0)):
            shape = reference[f"out/{mode}_{name}_{modality}"].shape
            reference.check(value[modality].reshape(shape), f"out/{mode}_{name}_{modality}")
    reference.check(loss.total, f"out/{mode}_total", mark=2e-5)
    for name, value in loss.terms.items():
        if f"out/{mode}_{name}" in reference.tensors:
            reference.check(value, f"out/{mode}_{name}", mark=2e-5)
    assert len(loss.terms) == 6
