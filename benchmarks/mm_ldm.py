"""What one MM-LDM clip costs, part by part: FLOP, seconds, weights, peak memory.

    python benchmarks/mm_ldm.py [small|landscape] [--threads 2] [--paper] [--precision bfloat16]

`--paper` counts FLOP on shapes alone, without weights in memory or time measured: it works for the
published sizes on any machine. Networks have random weights: values do not change the time. The
matrix product measured in the same run says how fast the machine was at that moment.
"""

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from soundreel.audio.griffin_lim import log_mel_to_waveform
from soundreel.nn.layout import to_channels_last
from soundreel.systems.mm_ldm.autoencoder import MultiModalAutoencoder
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.decoding import guided_denoiser
from soundreel.systems.mm_ldm.generator import Generator
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.presets import landscape
from soundreel.systems.mm_ldm.small_presets import small
from soundreel.systems.mm_ldm.vocoder import Vocoder, VocoderConfig
from soundreel.types import AV

PRESETS = {"small": small, "landscape": landscape}


@dataclass(frozen=True)
class Part:
    """One network call and how often a clip needs it."""

    name: str
    calls: int
    call: Callable[[], object]


def build(config: MMLDMConfig, device: str) -> dict[str, nn.Module]:
    mels, hop = config.mel_image.mel.num_mels, config.mel_image.mel.hop_length
    networks = {}
    with torch.device(device):
        networks["generator"] = Generator(config.generator_model)
        networks["autoencoder"] = MultiModalAutoencoder(config.autoencoder.model)
        networks["first stage"] = KLVAE(config.first_stage.model)
        if (mels, hop) == (80, 256):
            networks["vocoder"] = Vocoder(VocoderConfig())
    return {name: to_channels_last(network.eval()) for name, network in networks.items()}


def parts(config: MMLDMConfig, networks: dict[str, nn.Module], device: str) -> list[Part]:
    """Calls of a joint generation with the preset's steps and guidance."""
    with torch.device(device):
        spec = config.autoencoder.model.latents
        latent = AV(torch.randn(1, *spec.video_shape), torch.randn(1, *spec.audio_shape))
        model = config.autoencoder.model
        encoder = model.video_encoder
        image = (encoder.image_channels, encoder.image_size, encoder.image_size)
        signals = AV(torch.randn(1, model.num_frames, *image), torch.randn(1, *image))
        index = torch.linspace(0, 1, model.num_frames)[None]
        timestep = torch.full((1,), 500)
        mel = torch.randn(1, config.mel_image.mel.num_mels, config.mel_image.num_columns)
    autoencoder, first_stage = networks["autoencoder"], networks["first stage"]
    sampling, decoding = config.sampling, config.decoding
    label = timestep.new_zeros(1) if model.decoder.num_classes else None
    condition = autoencoder.condition(latent, index, label=label)
    plain = type(decoding)(video_guidance_scale=1.0, audio_guidance_scale=1.0)
    decoder = guided_denoiser(autoencoder, condition, index, plain)
    is_guided = [
        (c.video_guidance_scale, c.audio_guidance_scale) != (1.0, 1.0) for c in (sampling, decoding)
    ]
    listed = [
        Part(
            "generator",
            sampling.num_steps * (1 + is_guided[0]),
            lambda: networks["generator"](latent, timestep),
        ),
        Part(
            "condition", 1 + is_guided[1], lambda: autoencoder.condition(latent, index, label=label)
        ),
        Part(
            "signal decoder",
            decoding.num_steps * (1 + is_guided[1]),
            lambda: decoder(signals, timestep),
        ),
        Part("first stage, frames", 1, lambda: first_stage.decode_frames(signals["video"])),
        Part("first stage, sound", 1, lambda: first_stage.decode(signals["audio"])),
    ]
    if "vocoder" in networks:
        listed.append(Part("vocoder", 1, lambda: networks["vocoder"](mel)))
    if device != "meta":
        mels = config.mel_image.mel
        listed.append(Part("Griffin-Lim instead", 1, lambda: log_mel_to_waveform(mel, mels)))
    return listed


def seconds(call: Callable[[], object], repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", nargs="?", default="small", choices=PRESETS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--paper", action="store_true", help="FLOP only, from shapes")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = PRESETS[options.preset]()
    device = "meta" if options.paper else "cpu"
    networks = build(config, device)
    for name, network in networks.items():
        count = sum(p.numel() for p in network.parameters())
        print(f"{name}: {count:,} parameters, {count * 4 / 2**30:.2f} GiB in float32")
    print("\n| part | calls a clip | GFLOP a call | TFLOP a clip | s a call | s a clip |")
    print("| --- | --- | --- | --- | --- | --- |")
    total_flop = total_s = 0.0
    with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bfloat16"):
        for part in parts(config, networks, device):
            with FlopCounterMode(display=False) as counter:
                part.call()
            flop = counter.get_total_flops()
            spent = 0.0 if options.paper else seconds(part.call, options.repeats)
            if part.name != "Griffin-Lim instead":
                total_flop += flop * part.calls
                total_s += spent * part.calls
            times = "- | -" if options.paper else f"{spent:.3f} | {spent * part.calls:.2f}"
            print(
                f"| {part.name} | {part.calls} | {flop / 1e9:.2f} | "
                f"{flop * part.calls / 1e12:.3f} | {times} |"
            )
    time_text = "-" if options.paper else f"{total_s:.2f}"
    print(f"| all | | | {total_flop / 1e12:.3f} | | {time_text} |")
    if not options.paper:
        a, b = torch.randn(2, 2048, 2048)
        rate = 2 * 2048**3 / seconds(lambda: a @ b, 5) / 1e9
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"\npeak memory {peak:.2f} GiB; matrix product at {rate:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
