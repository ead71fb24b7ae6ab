"""Previews of an MM-LDM run while it trains: reconstructions, then samples, with numbers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from soundreel.audio.griffin_lim import log_mel_to_waveform
from soundreel.audio.mel_image import decode_mel_image, fit_length, waveform_to_log_mel
from soundreel.clip import Clip
from soundreel.data.dataset import PreparedDataset
from soundreel.data.manifest import DatasetInfo
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.metrics.image_quality import psnr_db
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.first_stage import clip_images
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.training.previews import save_preview
from soundreel.types import AV


class Previews:
    """Shows held-out clips ("valid", else "test") if the data set has any, else training clips."""

    def __init__(self, config: MMLDMConfig, data: Path) -> None:
        self._config = config
        counts = DatasetInfo.load(data).counts
        held_out = [name for name in ("valid", "test") if counts.get(f"split/{name}", 0)]
        self.split = held_out[0] if held_out else config.data.split
        dataset = PreparedDataset(data, spec=config.clip, split=self.split, stride=1)
        places = torch.linspace(0, len(dataset) - 1, config.preview.count).long().tolist()
        rows = [dataset[place].av.map(lambda x: x[None]) for place in places]
        self._real = AV.cat(rows)

    @torch.no_grad()
    def first_stage(self, network: KLVAE, samples: int, folder: Path) -> None:
        """Send frames and mel images through encoder and decoder, sound by Griffin-Lim."""
        device = next(network.parameters()).device
        images = clip_images(self._real, self._config.mel_image).to(device)
        video = network.decode_frames(network.encode_frames(images["video"])).float().cpu()
        image = network.decode(network.encode(images["audio"])).float().cpu()
        log_mel = decode_mel_image(image, self._config.mel_image)
        sound = log_mel_to_waveform(log_mel, self._config.mel_image.mel)
        audio = fit_length(sound, self._config.clip.num_samples)[:, None]
        made = AV(video.clamp(-1, 1), audio)
        mel_psnr = psnr_db(image, images["audio"].cpu()).mean()
        extra = {"mel_image_psnr_db": float(mel_psnr)}
        self._pairs(made, folder, samples, "reconstruction", extra)

    def autoencoder(self, pipeline: MMLDMPipeline, folder: Path, samples: int) -> None:
        """Send clips through both encoders and the signal decoder."""
        noise = PerSampleNoise(range(self._real.batch_size))
        made = pipeline.decode_av(pipeline.encode_av(self._real), noise)
        self._pairs(made, folder, samples, "reconstruction", {})

    def generator(
        self,
        pipeline: MMLDMPipeline,
        folder: Path,
        samples: int,
        requests: Sequence[tuple[str, dict[str, Any]]],
    ) -> None:
        """Show joint samples, sound for a held-out clip's frames, and frames for its sound.

        Args:
            requests: title and options of `generate` for each sample; none are unconditional ones.
        """
        spec = self._config.clip
        count = self._config.preview.count
        if requests:
            clips = [
                clip
                for seed, (_, options) in enumerate(requests)
                for clip in pipeline.generate(seed=seed, **options)
            ]
        else:
            clips = pipeline.generate(count=count, seed=0)
        titles = [title for title, _ in requests] or [f"sample {index}" for index in range(count)]
        real = self._real.rows(slice(1))
        known = Clip.from_av(real, spec.frame_rate, spec.sample_rate)[0]
        clips += [known, *pipeline.generate(video=known), *pipeline.generate(audio=known)]
        titles += [f"{self.split} clip", "sound generated for it", "frames generated for it"]
        save_preview(clips, folder / "previews", samples, titles)

    def _pairs(
        self, made: AV, folder: Path, samples: int, what: str, extra: dict[str, float]
    ) -> None:
        """Show real clips beside made ones, and how far apart they are as a line of JSON."""
        spec, mel = self._config.clip, self._config.mel_image
        numbers = {
            "samples": float(samples),
            "frame_psnr_db": float(
                psnr_db(made["video"].flatten(0, 1), self._real["video"].flatten(0, 1)).mean()
            ),
            "log_mel_l1": float(
                (
                    waveform_to_log_mel(made["audio"].mean(dim=1), mel)
                    - waveform_to_log_mel(self._real["audio"].mean(dim=1), mel)
                )
                .abs()
                .mean()
            ),
            **extra,
        }
        clips, titles = [], []
        for index in range(self._real.batch_size):
            row = slice(index, index + 1)
            clips += Clip.from_av(self._real.rows(row), spec.frame_rate, spec.sample_rate)
            clips += Clip.from_av(made.rows(row), spec.frame_rate, spec.sample_rate)
            titles += [f"{self.split} clip {index}", f"its {what}"]
        save_preview(clips, folder / "previews", samples, titles)
        with (folder / "previews" / "numbers.jsonl").open("a") as file:
            file.write(json.dumps(numbers) + "\n")
