"""What a training step of `mm-ldm-small` costs at 64 and at 128 pixels, stage by stage.

    python benchmarks/mm_ldm_resolution.py [--threads 1]

The same networks on latents of 8x8 and 16x16 positions, the preset's batches, forward and backward;
random images, which cost what real ones do. The last column says how many clips each stage would
see if two hours of this machine were divided as the run of docs/results.md was.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from soundreel.systems.mm_ldm.autoencoder import AutoencoderInputs, MultiModalAutoencoder
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.generator import Generator
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.small_presets import small
from soundreel.types import AV

MINUTES = {"first stage": 20, "autoencoder": 57, "generator": 70}
"""Of that run; the autoencoder's with its decoder phase and the latents made after it."""


def at_size(config: MMLDMConfig, pixels: int) -> MMLDMConfig:
    """The preset with frames and mel images of so many pixels a side."""
    positions = pixels // config.first_stage.model.factor
    model = config.autoencoder.model
    changed: dict[str, Any] = {
        "decoder": replace(model.decoder, image_size=positions),
    }
    for name in ("video_encoder", "audio_encoder"):
        changed[name] = replace(getattr(model, name), image_size=positions)
    model = replace(model, **changed)
    return replace(
        config,
        clip=replace(config.clip, height=pixels, width=pixels),
        mel_image=replace(config.mel_image, image_size=pixels),
        adversarial=replace(
            config.adversarial,
            discriminator=replace(config.adversarial.discriminator, image_size=pixels),
        ),
        autoencoder=replace(config.autoencoder, model=model),
    )


def steps_of(config: MMLDMConfig) -> dict[str, tuple[int, Callable[[], torch.Tensor]]]:
    """By stage, clips a step and a function that gives a loss."""
    model, first = config.autoencoder.model, config.first_stage
    network1, network2 = KLVAE(first.model), MultiModalAutoencoder(model)
    network3, latents = Generator(config.generator_model), model.latents
    count1, count2, count3 = (
        stage.train.micro_batch_size for stage in (first, config.autoencoder, config.generator)
    )
    pixels, channels = config.clip.height, first.model.latent_channels
    images = torch.randn(count1 * (first.loss.num_frames + 1), 3, pixels, pixels)
    positions = model.video_encoder.image_size
    shape, frames = (channels, positions, positions), config.autoencoder.loss.num_target_frames
    noise = torch.randn(len(images), *shape)
    xt = AV(torch.randn(count2, frames, *shape), torch.randn(count2, *shape))
    inputs = AutoencoderInputs(
        key_frames=torch.randn(count2, len(model.key_frames), *shape),
        audio_image=torch.randn(count2, *shape),
        xt=xt,
        timestep=AV(torch.full((count2, frames), 500), torch.full((count2,), 500)),
        frame_index=torch.linspace(0, 0.9, frames).expand(count2, -1),
    )
    drawn = AV(torch.randn(count3, *latents.video_shape), torch.randn(count3, *latents.audio_shape))

    def autoencoder() -> torch.Tensor:
        made = network2(inputs).prediction
        return made["video"].float().square().mean() + made["audio"].float().square().mean()

    def generator() -> torch.Tensor:
        made = network3(drawn, torch.full((count3,), 500)).mean_output
        return made["video"].float().square().mean() + made["audio"].float().square().mean()

    return {
        "first stage": (count1, lambda: network1(images, noise)[0].float().square().mean()),
        "autoencoder": (count2, autoencoder),
        "generator": (count3, generator),
    }


def seconds(loss: Callable[[], torch.Tensor], precision: str, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            total = loss()
        total.backward()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found: dict[str, dict[int, float]] = {name: {} for name in MINUTES}
    for pixels in (64, 128):
        config = at_size(small(), pixels)
        stages = (config.first_stage, config.autoencoder, config.generator)
        for stage, (name, (clips, loss)) in zip(stages, steps_of(config).items(), strict=True):
            found[name][pixels] = clips / seconds(loss, stage.train.precision, options.repeats)
    print("| stage | clips/s, 64 pixels | 128 pixels | ratio | clips in 2 h, 128 |")
    print("| --- | --- | --- | --- | --- |")
    for name, rate in found.items():
        share = MINUTES[name] / sum(MINUTES.values())
        clips = f"{rate[128] * 7200 * share:,.0f}"
        ratio = f"{rate[64] / rate[128]:.1f}"
        print(f"| {name} | {rate[64]:.1f} | {rate[128]:.1f} | {ratio} | {clips} |")


if __name__ == "__main__":
    main()
