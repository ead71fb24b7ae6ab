"""Reading the reference tensors, and the networks built from them."""

import json
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from published_mm_ldm import (
    AUDIO_ENCODER,
    CLASS_HEAD,
    CONTRASTIVE_HEAD,
    PROJECTOR,
    VIDEO_ENCODER,
    autoencoder_config,
    load_official,
)
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from soundreel.diffusion import dpm_adaptive, dpm_solver
from soundreel.diffusion.schedules import linear_schedule
from soundreel.diffusion.vp_time import VPTime
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNet, CoupledUNetConfig
from soundreel.systems.mm_diffusion.official_keys import from_official
from soundreel.systems.mm_ldm.autoencoder import MultiModalAutoencoder
from soundreel.systems.mm_ldm.official_keys import signal_decoder_rules
from soundreel.types import AV


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


ROUNDED_OPERATIONS = """
add sub rsub mul div reciprocal pow sqrt exp expm1 log logaddexp sin cos mean sum linspace
"""


class RandomRounding(TorchDispatchMode):
    """Change every float64 result of arithmetic by up to one float32 unit in the last place.

    Results scatter under it as those of float32 may on any processor, whose elementary functions
    differ in the last bit. Computed in float64 from fixed seeds, the scatter is the same number
    everywhere: it measures how well the problem is conditioned, not how the machine rounds.

    Source:
        Parker 1997 (Monte Carlo arithmetic).
    """

    def __init__(self, seed=None):
        super().__init__()
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)
        self.paused = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if self.generator is None or self.paused:
            return result
        if (
            func.overloadpacket.__name__ not in ROUNDED_OPERATIONS.split()
            or result.dtype != torch.float64
        ):
            return result
        shift = torch.rand(result.shape, dtype=torch.float64, generator=self.generator)
        return result * (1 + torch.finfo(torch.float32).eps * (2 * shift - 1))

    @contextmanager
    def pause(self):
        self.paused = True
        yield
        self.paused = False


class OfficialTimes(VPTime):
    """The times of the official solver; `exact` computes in float64 from the float32 tables."""

    def __init__(self, schedule, device, *, exact=True):
        super().__init__(schedule, device, official=True)
        self.dtype = torch.float64 if exact else torch.float32
        if exact:
            self._knots = self._knots.double()
            self._log_alpha = 0.5 * schedule.alpha_bar.to(device, torch.float32).double().log()


@pytest.fixture
def random_rounding() -> type[RandomRounding]:
    return RandomRounding


@pytest.fixture
def official_times() -> Callable[..., OfficialTimes]:
    """`official_times(exact=False)`: those of the linear schedule as the solver has them."""
    return lambda exact=True: OfficialTimes(linear_schedule(), torch.device("cpu"), exact=exact)


@dataclass(frozen=True)
class Trajectory:
    """The end of one run of a solver, and the steps it asked for before they were made integers."""

    final: AV
    steps: list[float]


@pytest.fixture
def trajectories(monkeypatch) -> Callable[..., Trajectory]:
    """Run DPM-Solver in its own float32, in float64, or in float64 with random float32 rounding.

    `trajectories(solve, exact=True, steps=[999, ...], seed=0)` calls `solve()`. With `exact` the
    schedule is float64. With `steps` the network is given these instead of the solver's own: the
    official solver cuts a time to an integer, so that one last bit decides between two steps.
    """

    def run(solve, *, exact=False, steps=None, seed=None):
        rounding = RandomRounding(seed)
        asked, given = [], iter(steps or [])

        class Times(OfficialTimes):
            def __init__(self, schedule, device, *, official):
                assert official
                with rounding.pause():
                    super().__init__(schedule, device, exact=exact)

            def network_timestep(self, time):
                with rounding.pause():
                    asked.append(float((time[0] - self.first) * self.num_timesteps))
                    own = super().network_timestep(time)
                return own if steps is None else torch.full_like(own, next(given))

        with monkeypatch.context() as patch, rounding:
            for module in (dpm_solver, dpm_adaptive):
                patch.setattr(module, "VPTime", Times)
            return Trajectory(solve(), asked)

    return run
