"""MM-Diffusion from noise to clips: joint generation, sound for a video, pictures for a sound."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import (
    INDEX_FILE,
    ModelFolder,
    ModelIndex,
    save_component,
    save_model_index,
    writing_folder,
)
from soundreel.clip import Clip
from soundreel.config_io import config_from_json, config_to_json
from soundreel.device import autocast
from soundreel.diffusion.denoiser import Callback, Denoiser, Guide, Prediction
from soundreel.diffusion.noise import NoiseSource, PerSampleNoise
from soundreel.diffusion.samplers import sample
from soundreel.familiar import familiar
from soundreel.film_clock import Modality
from soundreel.films import FILM_WORDS, Films
from soundreel.protocols import Progress, with_options
from soundreel.request import Given, check_counts, read_given
from soundreel.systems.mm_diffusion.coupled_unet import (
    CoupledUNet,
    CoupledUNetConfig,
    split_variance,
)
from soundreel.systems.mm_diffusion.film_maker import OverlapFilmMaker
from soundreel.systems.mm_diffusion.given import check_rule, sample_official, whole_guide
from soundreel.systems.mm_diffusion.options import MMDiffusionOptions, MMDiffusionSettings
from soundreel.types import AV, ClipSpec

SYSTEM = "mm-diffusion"
COMPONENT = "unet"
KIND = "coupled-unet"


class MMDiffusionPipeline(Films):
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
    def load(cls, model: ModelFolder) -> "MMDiffusionPipeline":
        """Build the pipeline of a model folder, on the CPU.

        Raises:
            CheckpointError: the folder is incomplete, damaged or of another system.
        """
        index = model.index
        unet, _ = model.component(COMPONENT).build(CoupledUNet, CoupledUNetConfig)
        where = f"{model.path / INDEX_FILE}: settings"
        settings = config_from_json(
            MMDiffusionSettings, index.settings, where, error=CheckpointError
        )
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
    def class_names(self) -> tuple[str, ...]:
        """Return no names: the model has no classes."""
        return ()

    @property
    def conditions(self) -> frozenset[str]:
        """Return what can be given to `generate`."""
        return frozenset(("video", "audio", "after"))

    @property
    def options(self) -> MMDiffusionOptions:
        """Return the model's own sampling defaults."""
        return MMDiffusionOptions(num_steps=self.settings.num_steps, sampler=self.settings.sampler)

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    def to(self, device: torch.device | str) -> "MMDiffusionPipeline":
        """Move the network; returns the pipeline itself."""
        self.unet.to(device)
        return self

    def encode(self, clip: Clip) -> AV:
        """Return the clip's first window as the network sees it, with a batch of one.

        A modality that the clip lacks is absent. Frames are cut to the centre square.

        Raises:
            SoundreelError: the clip is shorter than a window.
        """
        return self.fit(clip).to_av(self.clip)

    def decode(self, av: AV, *, seed: int = 0) -> list[Clip]:
        """Return clips of pixels and waveforms in [-1, 1]; values beyond are limited.

        Args:
            seed: without effect: nothing is drawn.
        """
        return Clip.from_av(
            av.map(lambda x: x.float().cpu()), self.clip.frame_rate, self.clip.sample_rate
        )

    @familiar
    @torch.no_grad()
    def generate(
        self,
        *,
        count: int = 1,
        seed: int = 0,
        video: Clip | str | Path | None = None,
        audio: Clip | str | Path | None = None,
        batch_size: int = 4,
        progress: Progress | None = None,
        **options: Any,
    ) -> list[Clip]:
        """Return clips with sound; or sound for a silent clip, or pictures for a sound; or films.

        Clip i depends on `seed + i` alone, not on `count` or `batch_size`.

        Args:
            video: a clip whose frames are kept and given sound.
            audio: a clip whose sound is kept and given frames.
            batch_size: clips that are sampled at once.
            options: fields of `MMDiffusionOptions`; those left out or None are the model's own.
                `duration_s` and the other `FILM_WORDS` ask for films, see `Films.stream`.

        Raises:
            SoundreelError: both modalities are given, the one asked for is not in the clip, or a
                setting is out of range.

        Source:
            Ruan et al. 2023, section 3.4 (zero-shot transfer to conditional generation).
        """
        check_counts(count, seed, batch_size)
        asked: dict[str, Any] = {"count": count, "seed": seed, "progress": progress}
        asked |= {"video": video, "audio": audio, **options}
        if FILM_WORDS & options.keys():
            return self.films(**asked)
        batches = self.signals(batch_size=batch_size, **asked)
        return [clip for av in batches for clip in self.decode(av)]

    @torch.no_grad()
    def signals(
        self, *, count: int, seed: int, batch_size: int, progress: Progress | None, **request: Any
    ) -> Iterator[AV]:
        """Yield the batches that `generate` makes clips of: the network's own values, unlimited."""
        video, audio = request.pop("video", None), request.pop("audio", None)
        chosen = with_options(self.options, request, self.conditions)
        check_rule(chosen, self.options, is_given=video is not None or audio is not None)
        given = self._known(read_given(video, audio, self.clip))
        num_batches = -(-count // batch_size)
        for number, first in enumerate(range(0, count, batch_size)):
            noise = PerSampleNoise(range(seed + first, seed + min(first + batch_size, count)))
            xt = noise(self.template(len(noise.generators)))
            known = given.map(lambda x, xt=xt: x.expand(xt.batch_size, *x.shape[1:]))

            def callback(step: int, num_steps: int | None, xt: AV, number: int = number) -> None:
                if progress is not None and num_steps is not None:
                    progress(number * num_steps + step, num_batches * num_steps)

            yield self.sample_given(known, xt, noise, chosen, callback=callback)

    def sample_given(
        self,
        given: AV,
        xt: AV,
        noise: NoiseSource,
        options: MMDiffusionOptions,
        *,
        callback: Callback | None = None,
    ) -> AV:
        """Return pixels and waveforms in [-1, 1] from the noise `xt`, around a given modality.

        Args:
            given: one modality in [-1, 1], which stays as it is, or none.
        """
        if given.present and options.guidance_rule == "official":
            diffusion = self.settings.diffusion
            with autocast(self.device, options.precision):
                av = sample_official(
                    self.denoiser(), given, xt, noise, options, diffusion, callback
                )
        else:
            guide = whole_guide(given, xt, options.guidance_weight)
            av = self.sample(xt, noise, options, guide=guide, callback=callback)
        for name in given.present:
            av = av.replace(name, given[name])
        return av

    def sample(
        self,
        xt: AV,
        noise: NoiseSource,
        options: MMDiffusionOptions,
        *,
        guide: Guide | None = None,
        callback: Callback | None = None,
    ) -> AV:
        """Return pixels and waveforms in [-1, 1] from the noise `xt`."""
        with autocast(self.device, options.precision):
            return sample(
                self.denoiser(),
                xt,
                self.settings.diffusion.build(),
                noise=noise,
                sampler=options.sampler,
                num_steps=options.num_steps,
                prediction_type=self.settings.diffusion.prediction_type,
                guide=guide,
                callback=callback,
            )

    def film_maker(self, *, modality: Modality, is_given: bool, **request: Any) -> OverlapFilmMaker:
        """Return what makes the windows of a film, see `Films`."""
        chosen = with_options(self.options, request, self.conditions)
        check_rule(chosen, self.options, is_given=is_given)
        return OverlapFilmMaker(self, chosen, modality)

    def _known(self, given: Given | None) -> AV:
        """Return the given modality as a batch of one; both absent for joint generation."""
        if given is None:
            return AV(None, None)
        encoded = self.encode(given.clip)[given.modality]
        return AV(None, None).replace(given.modality, encoded.to(self.device))

    def denoiser(self) -> Denoiser:
        """Return the network as samplers call it, for one sampling run.

        The window shifts come from a stream of their own that starts anew with each run and does
        not depend on the seed: so a clip is the same whatever batch it is drawn in.
        """
        generator = torch.Generator().manual_seed(0)

        def denoise(xt: AV, timestep: Tensor) -> AV | Prediction:
            shifts = self.unet.draw_window_shifts(generator)
            output = self.unet(xt, timestep, shifts).map(Tensor.float)  # of bfloat16 too
            if not self.unet.config.learned_variance:
                return output
            return Prediction(*split_variance(output))

        return denoise

    def template(self, batch_size: int) -> AV:
        """Return tensors of the shapes of a batch of clips, their values undefined."""
        return AV(
            torch.empty(batch_size, *self.clip.video_shape, device=self.device),
            torch.empty(batch_size, *self.clip.audio_shape, device=self.device),
        )

    def fit(self, clip: Clip) -> Clip:
        """Return a clip at the model's rates and channels, cut to the centre square."""
        return clip.resample(
            frame_rate=self.clip.frame_rate,
            sample_rate=self.clip.sample_rate,
            size=(self.clip.height, self.clip.width),
            num_channels=None if clip.waveform is None else self.clip.num_channels,
        )
