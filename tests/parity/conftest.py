"""Reading the reference tensors, and the networks built from them."""

import json
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file

from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNet, CoupledUNetConfig
from soundreel.systems.mm_diffusion.official_keys import from_official
from soundreel.systems.mm_ldm.autoencoder import MultiModalAutoencoder
from soundreel.systems.mm_ldm.official_configs import autoencoder_config
from soundreel.systems.mm_ldm.official_keys import (
    AUDIO_ENCODER,
    CLASS_HEAD,
    CONTRASTIVE_HEAD,
    PROJECTOR,
    VIDEO_ENCODER,
    load_official,
    signal_decoder_rules,
)


class Reference:
    """One file of reference tensors with its sidecar."""

    def __init__(self, folder, name):
        for suffix in ("safetensors", "json"):
            if not (folder / f"{name}.{suffix}").is_file():
                pytest.skip(f"{name}.{suffix} is not in {folder}")
        self.sidecar = json.loads((folder / f"{name}.json").read_text())
        self.config = self.sidecar["config"]
        self.tensors = load_file(folder / f"{name}.safetensors")

    def __getitem__(self, key):
        return self.tensors[key]

    def numbered(self, prefix):
        """Tensors `<prefix>00`, `<prefix>01`, ... in order."""
        return [self.tensors[key] for key in sorted(self.tensors) if key.startswith(prefix)]

    def weights(self, part="param"):
        return {
            key.removeprefix(f"{part}/"): value
            for key, value in self.tensors.items()
            if key.startswith(f"{part}/")
        }

    def check(self, got, key, mark=1e-5):
        """Fail unless the tensor agrees, relative to max(1, largest reference value)."""
        expected = self.tensors[key]
        assert got.shape == expected.shape, f"{key}: {got.shape} against {expected.shape}"
        scale = max(1.0, float(expected.abs().max()))
        error = float((got.double() - expected.double()).abs().max()) / scale
        assert error <= mark, f"{key}: off by {error:.2e}, mark {mark:.0e}"


@pytest.fixture(scope="session")
def mm_ldm_reference(parity_folder) -> Callable[[str], Reference]:
    return lambda name: Reference(parity_folder("mm_ldm"), name)


@pytest.fixture(scope="session")
def mm_ldm_full_keys(parity_folder) -> Callable[[str], dict]:
    """Configuration, parameter count and shapes of a module at full size."""

    def read(name):
        path = parity_folder("mm_ldm") / "full_config_keys" / f"{name}.json"
        if not path.is_file():
            pytest.skip(f"{path.name} is not in {path.parent}")
        return json.loads(path.read_text())

    return read


@pytest.fixture(scope="session")
def reference_autoencoder(mm_ldm_reference) -> Callable[[Reference, int], MultiModalAutoencoder]:
    """The autoencoder with the reference weights of its parts and the prompts of one file."""

    def build(reference, num_key_frames):
        prompts = reference["in/prompt_video"], reference["in/prompt_audio"]
        config = autoencoder_config(
            reference.config,
            num_frames=num_key_frames,
            key_frames=tuple(range(num_key_frames)),
            num_prompt_tokens=len(prompts[0]),
        )
        model = MultiModalAutoencoder(config).eval()
        semantic = mm_ldm_reference("semantic")
        parts = [
            (model.video_encoder, mm_ldm_reference("video_encoder").weights(), VIDEO_ENCODER),
            (model.audio_encoder, mm_ldm_reference("audio_encoder").weights(), AUDIO_ENCODER),
            (model.video_projector, semantic.weights("param_video_projector"), PROJECTOR),
            (model.audio_projector, semantic.weights("param_audio_projector"), PROJECTOR),
            (model.class_head, semantic.weights("param_classify_head"), CLASS_HEAD),
            (model.contrastive_head, semantic.weights("param_contrastive_head"), CONTRASTIVE_HEAD),
            (
                model.decoder,
                mm_ldm_reference("signal_decoder").weights(),
                signal_decoder_rules(config.decoder),
            ),
        ]
        for module, weights, rules in parts:
            load_official(module, weights, rules)
        with torch.no_grad():
            model.video_prompt.copy_(prompts[0])
            model.audio_prompt.copy_(prompts[1])
        return model

    return build


def _coupled_unet_config(flags):
    """`CoupledUNetConfig` from the flags of the official code."""

    def numbers(text):
        return tuple(int(n) for n in text.split(",") if int(n) > 0)

    frames, video_channels, *_ = flags["video_size"]
    return CoupledUNetConfig(
        num_frames=frames,
        video_channels=video_channels,
        audio_channels=flags["audio_size"][0],
        width=flags["num_channels"],
        channel_mult=numbers(flags["channel_mult"]),
        num_res_blocks=flags["num_res_blocks"],
        video_attention_factors=numbers(flags["video_attention_resolutions"]),
        audio_attention_factors=numbers(flags["audio_attention_resolutions"]),
        cross_attention_factors=numbers(flags["cross_attention_resolutions"]),
        cross_attention_windows=numbers(flags["cross_attention_windows"]),
        shift_windows=flags["cross_attention_shift"],
        middle_cross_attention=flags["cross_attention_windows"] == "1,4,8",
        num_heads=flags["num_heads"],
        cross_head_width=max(0, flags["num_head_channels"]),
        scale_shift_norm=flags["use_scale_shift_norm"],
        learned_variance=flags["learn_sigma"],
        dropout=flags["dropout"],
    )


@pytest.fixture(scope="session")
def reference_coupled_unet(parity_folder) -> Callable[[str], CoupledUNet]:
    """`reference_coupled_unet("unet_main")`: the tiny network with its reference weights."""

    def build(name):
        folder = parity_folder("mm_diffusion")
        for suffix in ("json", "weights.safetensors"):
            if not (folder / f"{name}.{suffix}").is_file():
                pytest.skip(f"{name}.{suffix} is not in {folder}")
        flags = json.loads((folder / f"{name}.json").read_text())["flags"]
        network = CoupledUNet(_coupled_unet_config(flags)).eval()
        network.load_state_dict(from_official(load_file(folder / f"{name}.weights.safetensors")))
        return network

    return build
