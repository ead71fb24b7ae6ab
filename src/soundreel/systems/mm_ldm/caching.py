"""The latents of an MM-LDM run: cached first-stage posteriors, and perceptual latents."""

from collections.abc import Callable
from functools import partial

from torch import nn

from soundreel.checkpoints.fingerprint import fingerprint
from soundreel.config_io import config_to_json
from soundreel.data.dataset import PreparedDataset
from soundreel.data.latents import LatentDataset, Windows, cache_latents
from soundreel.data.loader import Drawable
from soundreel.systems.mm_ldm.autoencoder import MultiModalAutoencoder
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.signals import (
    CachedSource,
    PixelSource,
    SignalSource,
    first_stage_moments,
    latents_of_moments,
    moments_spec,
)
from soundreel.training.run import Run
from soundreel.types import AV


class RunLatents:
    """Makes what a stage learns from, once, in the folder of the run.

    Args:
        windows: clips to train on.
    """

    def __init__(self, config: MMLDMConfig, run: Run, windows: PreparedDataset) -> None:
        self._config = config
        self._out = run.out
        self._run = run
        self._windows = windows

    def source(self, first_stage: KLVAE) -> tuple[SignalSource, Drawable]:
        """Return where the latents of stage 2 come from, and the data set to iterate over."""
        model = self._config.autoencoder.model
        if not self._config.autoencoder.cache_first_stage:
            encoders = (model.video_encoder, model.audio_encoder)
            shapes = [(encoder.image_channels, *encoder.image_shape) for encoder in encoders]
            return PixelSource(first_stage, self._config.mel_image, *shapes), self._windows
        return CachedSource(first_stage), self._moments(first_stage)

    def _moments(self, first_stage: KLVAE) -> LatentDataset:
        clip, mel = self._config.clip, self._config.mel_image
        spec = moments_spec(first_stage, clip.num_frames, clip.height, mel.image_shape)
        folder = self._out / "moments"
        cache_latents(
            self._run.on_device(
                lambda av: first_stage_moments(av, first_stage, self._config.mel_image)
            ),
            self._windows,
            folder,
            latents=spec,
            fingerprint=self._fingerprint(first_stage),
            batch_size=14,
            callback=self._run.raise_if_stopped,
            rank=self._run.parallel.rank,
            world_size=self._run.parallel.world_size,
            barrier=self._run.parallel.barrier,
        )
        return LatentDataset(folder, standardize=False)

    def perceptual(
        self,
        first_stage: KLVAE,
        autoencoder: MultiModalAutoencoder,
        encode: Callable[[AV], AV],
    ) -> LatentDataset:
        """Return z_v and z_a of every window, as the generator sees them.

        Args:
            encode: from pixels, where no first-stage latents are cached.
        """
        windows: Windows = self._windows
        if self._config.autoencoder.cache_first_stage:
            windows = self._moments(first_stage)
            encode = partial(latents_of_moments, first_stage=first_stage, autoencoder=autoencoder)
        cache_latents(
            self._run.on_device(encode),
            windows,
            self._out / "latents",
            latents=autoencoder.config.latents,
            fingerprint=self._fingerprint(
                first_stage, autoencoder.video_encoder, autoencoder.audio_encoder
            ),
            callback=self._run.raise_if_stopped,
            rank=self._run.parallel.rank,
            world_size=self._run.parallel.world_size,
            barrier=self._run.parallel.barrier,
        )
        with self._run.parallel.main_first():  # which measures the axes
            return self.scaled()

    def scaled(self) -> LatentDataset:
        """Return the cached ones."""
        return LatentDataset(self._out / "latents", axes=self._config.latent_axes)

    def raw(self) -> LatentDataset:
        """Return the cached ones as they are."""
        return LatentDataset(self._out / "latents", standardize=False)

    def _fingerprint(self, *networks: nn.Module) -> str:
        about = {
            "data": self._windows.info.origin,
            "windows": len(self._windows),
            "mel_image": config_to_json(self._config.mel_image),
        }
        return fingerprint(networks, about)
