"""MM-Diffusion from noise to clips: joint generation, sound for a video, pictures for a sound."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from soundreel.checkpoints.store import (
    ModelIndex,
    load_component,
    load_model_index,
    save_component,
    save_model_index,
    writing_folder,
)
from soundreel.clip import Clip
from soundreel.config_io import config_from_json, config_to_json
from soundreel.diffusion.config import DiffusionConfig
from soundreel.diffusion.denoiser import Denoiser, Guide, Prediction
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.samplers import sample
from soundreel.diffusion.zero_shot import gradient_guide, replacement_guide
from soundreel.errors import SoundreelError
from soundreel.systems.mm_diffusion.coupled_unet import (
    CoupledUNet,
    CoupledUNetConfig,
    split_variance,
)
from soundreel.types import AV, ClipSpec

SYSTEM = "mm-diffusion"
COMPONENT = "unet"
KIND = "coupled-unet"

DEFAULT_GUIDANCE_WEIGHT = 2.0

Progress = Callable[[int, int], None]
"""`progress(done, total)` after each sampling step of each batch. Raise in it to stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MMDiffusionSettings:
    """What a model folder says about its use.

    Attributes:
        diffusion: the process the network was trained with.
        sampler, num_steps: what `generate` uses unless told otherwise.
        samples_seen: training clips behind the weights; 0 if unknown.
    """

    diffusion: DiffusionConfig = DiffusionConfig()
    sampler: str = "dpm-solver++"
    num_steps: int = 20
    samples_seen: int = 0


class MMDiffusionPipeline:
    """The Coupled U-Net, ready to generate.

    Args:
        unet: the network; its output may include a learned variance.
        clip: sizes and rates of the clips it was trained on.
    """

    def __init__(
        self, unet: CoupledUNet, clip: ClipSpec, settings: MMDiffusionSettings | None = None
    ) -> None:
        self.unet = unet.eval()
        self.clip = clip
        self.settings = MMDiffusionSettings() if settings is None else settings

    @classmethod
    def load(cls, folder: Path) -> "MMDiffusionPipeline":
        """Open a model folder.

        Raises:
            CheckpointError: the folder is incomplete, damaged or of another system.
        """
        index = load_model_index(folder)
        unet, _ = load_component(folder, COMPONENT, CoupledUNet, CoupledUNetConfig)
        defaults = config_to_json(MMDiffusionSettings())
        where = f"{folder / 'model_index.json'}: settings"
        settings = config_from_json(MMDiffusionSettings, {**defaults, **index.settings}, where)
        return cls(unet, index.clip or ClipSpec(), settings)

    def save(self, folder: Path) -> None:
        """Write a model folder, whole or not at all."""
        with writing_folder(folder) as target:
            save_component(target, COMPONENT, self.unet, self.unet.config)
            index = ModelIndex(
                system=SYSTEM,
                components={COMPONENT: KIND},
                clip=self.clip,
                settings=config_to_json(self.settings),
            )
            save_model_index(target, index)

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    def to(self, device: torch.device | str) -> "MMDiffusionPipeline":
        """Move the network; returns the pipeline itself."""
        self.unet.to(device)
        return self

    def encode(self, clip: Clip) -> AV:
        """The clip's first window as the network sees it, with a batch of one.

        A modality that the clip lacks is absent. Frames are cut to the centre square.

        Raises:
            SoundreelError: the clip is shorter than a window.
        """
        return self._fitted(clip).to_av(self.clip)

    def decode(self, av: AV) -> list[Clip]:
        """Clips of pixels and waveforms in [-1, 1]; values beyond are limited."""
        return Clip.from_av(
            av.map(lambda x: x.float().cpu()), self.clip.frame_rate, self.clip.sample_rate
        )

    @torch.no_grad()
    def generate(
        self,
        *,
        count: int = 1,
        seed: int = 0,
        video: Clip | None = None,
        audio: Clip | None = None,
        guidance_weight: float = DEFAULT_GUIDANCE_WEIGHT,
        sampler: str | None = None,
        num_steps: int | None = None,
        batch_size: int = 4,
        progress: Progress | None = None,
    ) -> list[Clip]:
        """Clips with sound; or sound for a silent clip, or pictures for a sound.

        Clip i depends on `seed + i` alone, not on `count` or `batch_size`.

        Args:
            video: a clip whose frames are kept and given sound.
            audio: a clip whose sound is kept and given frames.
            guidance_weight: how strongly the given modality steers the other, see
                `soundreel.diffusion.zero_shot`; 0 is replacement alone, at half the cost.
            sampler: a name from `soundreel.diffusion.samplers.SAMPLERS`.
            num_steps: evaluations of the network.
            batch_size: clips that are sampled at once.

        Raises:
            SoundreelError: both modalities are given, the one asked for is not in the clip, or a
                setting is out of range.

        Source:
            Ruan et al. 2023, section 3.4 (zero-shot transfer to conditional generation).
        """
        if count < 1 or batch_size < 1:
            raise SoundreelError(f"count and batch_size start at 1, got {count} and {batch_size}")
        if guidance_weight < 0:
            raise SoundreelError(f"guidance_weight starts at 0, got {guidance_weight}")
        given = self._given(video, audio)
        num_batches = -(-count // batch_size)
        clips: list[Clip] = []
        for number, first in enumerate(range(0, count, batch_size)):
            noise = PerSampleNoise(range(seed + first, seed + min(first + batch_size, count)))
            xt = noise(self._template(len(noise.generators)))
            known = given.map(lambda x, xt=xt: x.expand(xt.batch_size, *x.shape[1:]))

            def callback(step: int, num_steps: int | None, xt: AV, number: int = number) -> None:
                if progress is not None and num_steps is not None:
                    progress(number * num_steps + step, num_batches * num_steps)

            av = sample(
                self.denoiser(),
                xt,
                self.settings.diffusion.build(),
                noise=noise,
                sampler=sampler or self.settings.sampler,
                num_steps=num_steps or self.settings.num_steps,
                prediction_type=self.settings.diffusion.prediction_type,
                guide=_guide(known, xt, guidance_weight),
                callback=callback,
            )
            for name in known.present:
                av = av.replace(name, known[name])
            clips += self.decode(av)
        return clips

    def _given(self, video: Clip | None, audio: Clip | None) -> AV:
        """The given modality as a batch of one; both absent for joint generation."""
        if video is not None and audio is not None:
            raise SoundreelError("both modalities are given; leave one out")
        clip = video if video is not None else audio
        if clip is None:
            return AV(None, None)
        name = "audio" if video is None else "video"
        if (clip.waveform if name == "audio" else clip.frames) is None:
            raise SoundreelError(f"the clip given as {name} has none")
        return AV(None, None).replace(name, self.encode(clip)[name].to(self.device))

    def denoiser(self) -> Denoiser:
        """The network as samplers call it, for one sampling run.

        The window shifts come from a stream of their own that starts anew with each run and does
        not depend on the seed: so a clip is the same whatever batch it is drawn in.
        """
        generator = torch.Generator().manual_seed(0)

        def denoise(xt: AV, timestep: Tensor) -> AV | Prediction:
            output = self.unet(xt, timestep, self.unet.draw_window_shifts(generator))
            if not self.unet.config.learned_variance:
                return output
            return Prediction(*split_variance(output))

        return denoise

    def _template(self, batch_size: int) -> AV:
        return AV(
            torch.empty(batch_size, *self.clip.video_shape, device=self.device),
            torch.empty(batch_size, *self.clip.audio_shape, device=self.device),
        )

    def _fitted(self, clip: Clip) -> Clip:
        return clip.resample(
            frame_rate=self.clip.frame_rate,
            sample_rate=self.clip.sample_rate,
            size=(self.clip.height, self.clip.width),
            num_channels=None if clip.waveform is None else self.clip.num_channels,
        )


def _guide(known: AV, noise: AV, weight: float) -> Guide | None:
    if not known.present:
        return None
    if weight == 0:
        return replacement_guide(known, noise)
    return gradient_guide(known, noise, weight=weight)
