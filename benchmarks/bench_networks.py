"""The networks that `bench.py` measures with inputs of one clip; the parts of an MM-LDM clip."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from soundreel.audio.griffin_lim import log_mel_to_waveform
from soundreel.nn.layout import to_channels_last
from soundreel.systems.joint_flow import presets as joint_flow
from soundreel.systems.joint_flow.transformer import JointTransformer
from soundreel.systems.mm_diffusion import presets as mm_diffusion
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNet
from soundreel.systems.mm_ldm import presets as mm_ldm
from soundreel.systems.mm_ldm import small_presets as mm_ldm_small
from soundreel.systems.mm_ldm.autoencoder import MultiModalAutoencoder
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.decoding import DecodingConfig, guided_denoiser
from soundreel.systems.mm_ldm.generator import Generator
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.vocoder import Vocoder, VocoderConfig
from soundreel.systems.super_resolution import presets as super_resolution
from soundreel.systems.super_resolution.network import SuperResolutionUNet
from soundreel.types import AV

Call = Callable[[], list[Tensor]]


@dataclass(frozen=True)
class Network:
    """A network and a call with one clip's inputs, on a device ("meta" computes nothing).

    Attributes:
        trains: whether its training step is measured, too.
        compiles: whether a compiled one is measured, too, where it is small.
    """

    build: Callable[[str], tuple[nn.Module, Call]]
    is_small: bool
    trains: bool = True
    compiles: bool = True


def _coupled_unet(preset: Callable) -> Callable[[str], tuple[nn.Module, Call]]:
    def build(device: str) -> tuple[nn.Module, Call]:
        config = preset()
        with torch.device(device):
            network = CoupledUNet(config.unet)
            x = AV(
                torch.randn(1, *config.clip.video_shape), torch.randn(1, *config.clip.audio_shape)
            )
            timestep = torch.tensor([500])
        return network, lambda: list(network(x, timestep).tensors)

    return build


def _super_resolution(preset: Callable) -> Callable[[str], tuple[nn.Module, Call]]:
    def build(device: str) -> tuple[nn.Module, Call]:
        config = preset().network
        with torch.device(device):
            network = SuperResolutionUNet(config)
            noisy = torch.randn(1, 3, config.size, config.size)
            low_res = torch.randn(1, 3, config.low_res_size, config.low_res_size)
            timestep = torch.tensor([500])
        return network, lambda: [network(noisy, low_res, timestep)]

    return build


def _generator(preset: Callable) -> Callable[[str], tuple[nn.Module, Call]]:
    def build(device: str) -> tuple[nn.Module, Call]:
        config = preset()
        network = mm_ldm_networks(config, device)["generator"]
        latent, _, timestep = _mm_ldm_inputs(config, device)
        return network, lambda: list(network(latent, timestep).mean_output.tensors)

    return build


def _signal_decoder(preset: Callable) -> Callable[[str], tuple[nn.Module, Call]]:
    def build(device: str) -> tuple[nn.Module, Call]:
        config = preset()
        network = mm_ldm_networks(config, device)["autoencoder"]
        denoise = _plain_decoder(network, config, device)
        _, signals, timestep = _mm_ldm_inputs(config, device)
        return network.decoder, lambda: list(denoise(signals, timestep).tensors)

    return build


def _joint_transformer(preset: Callable) -> Callable[[str], tuple[nn.Module, Call]]:
    def build(device: str) -> tuple[nn.Module, Call]:
        config, groups = preset().transformer_config(num_classes=11), preset().num_groups
        with torch.device(device):
            network = JointTransformer(config)
            video = torch.randn(1, groups, config.video_tokens, config.video_dim)
            audio = torch.randn(1, groups, config.audio_tokens, config.audio_dim)
            level, label = AV(*(torch.full((1, groups), 0.5),) * 2), torch.tensor([0])
        return network, lambda: list(network(AV(video, audio), level, label).tensors)

    return build


NETWORKS = {
    "Coupled U-Net, published": Network(_coupled_unet(mm_diffusion.landscape), is_small=False),
    "Coupled U-Net, small": Network(
        _coupled_unet(mm_diffusion.small), is_small=True, compiles=False
    ),
    "super-resolution, published": Network(
        _super_resolution(super_resolution.super_resolution), is_small=False
    ),
    "super-resolution, small": Network(_super_resolution(super_resolution.small), is_small=True),
    "MM-LDM generator, published": Network(_generator(mm_ldm.landscape), False, trains=False),
    "MM-LDM generator, small": Network(_generator(mm_ldm_small.small), is_small=True),
    "MM-LDM signal decoder, published": Network(
        _signal_decoder(mm_ldm.landscape), is_small=False, trains=False
    ),
    "MM-LDM signal decoder, small": Network(
        _signal_decoder(mm_ldm_small.small), True, trains=False
    ),
    "joint_flow transformer, large": Network(_joint_transformer(joint_flow.large), False),
    "joint_flow transformer, scenes": Network(_joint_transformer(joint_flow.scenes), is_small=True),
}


class Part(NamedTuple):
    """One network call and how often a clip needs it."""

    name: str
    calls: int
    call: Callable[[], object]


def mm_ldm_networks(config: MMLDMConfig, device: str) -> dict[str, nn.Module]:
    """Return MM-LDM's networks with random weights, which do not change the time."""
    mels = config.mel_image.mel
    with torch.device(device):
        networks: dict[str, nn.Module] = {
            "generator": Generator(config.generator_model),
            "autoencoder": MultiModalAutoencoder(config.autoencoder.model),
            "first stage": KLVAE(config.first_stage.model),
        }
        if (mels.num_mels, mels.hop_length) == (80, 256):
            networks["vocoder"] = Vocoder(VocoderConfig())
    return {name: to_channels_last(network.eval()) for name, network in networks.items()}


def _mm_ldm_inputs(config: MMLDMConfig, device: str) -> tuple[AV, AV, Tensor]:
    """Return perceptual latents, first-stage latents and a timestep."""
    model = config.autoencoder.model
    spec = model.latents
    encoder = model.video_encoder
    image = (encoder.image_channels, encoder.image_size, encoder.image_size)
    with torch.device(device):
        latent = AV(torch.randn(1, *spec.video_shape), torch.randn(1, *spec.audio_shape))
        signals = AV(torch.randn(1, model.num_frames, *image), torch.randn(1, *image))
        return latent, signals, torch.full((1,), 500)


def _plain_decoder(network: nn.Module, config: MMLDMConfig, device: str) -> Callable:
    """Return the signal decoder without guidance, its condition computed."""
    latent, _, timestep = _mm_ldm_inputs(config, device)
    index = torch.linspace(0, 1, config.autoencoder.model.num_frames, device=device)[None]
    label = timestep.new_zeros(1) if config.autoencoder.model.decoder.num_classes else None
    condition = network.condition(latent, index, label=label)
    plain = DecodingConfig(video_guidance_scale=1.0, audio_guidance_scale=1.0)
    return guided_denoiser(network, condition, index, plain)


def clip_parts(size: str, device: str) -> list[Part]:
    """Return the calls of a joint generation with the preset's steps and guidance."""
    config = mm_ldm.landscape() if size == "published" else mm_ldm_small.small()
    networks = mm_ldm_networks(config, device)
    latent, signals, timestep = _mm_ldm_inputs(config, device)
    model, mels = config.autoencoder.model, config.mel_image
    index = torch.linspace(0, 1, model.num_frames, device=device)[None]
    label = timestep.new_zeros(1) if model.decoder.num_classes else None
    autoencoder, first_stage = networks["autoencoder"], networks["first stage"]
    denoise = _plain_decoder(autoencoder, config, device)
    sampling, decoding = config.sampling, config.decoding
    guided = [
        1 + ((each.video_guidance_scale, each.audio_guidance_scale) != (1.0, 1.0))
        for each in (sampling, decoding)
    ]
    mel = torch.randn(1, mels.mel.num_mels, mels.num_columns, device=device)
    parts = [
        Part(
            "generator",
            sampling.num_steps * guided[0],
            lambda: networks["generator"](latent, timestep),
        ),
        Part("condition", guided[1], lambda: autoencoder.condition(latent, index, label=label)),
        Part("signal decoder", decoding.num_steps * guided[1], lambda: denoise(signals, timestep)),
        Part("first stage, frames", 1, lambda: first_stage.decode_frames(signals["video"])),
        Part("first stage, sound", 1, lambda: first_stage.decode(signals["audio"])),
    ]
    if "vocoder" in networks:
        return [*parts, Part("vocoder", 1, lambda: networks["vocoder"](mel))]
    return [*parts, Part("Griffin-Lim", 1, lambda: log_mel_to_waveform(mel, mels.mel))]
