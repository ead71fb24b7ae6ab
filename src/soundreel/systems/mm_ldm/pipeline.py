"""MM-LDM from clip to latents and back, and from noise to clips.

    clip -> frames and mel image -> first-stage latents -> perceptual latents z_v, z_a  (encode)
    noise -> joint generator -> z_v, z_a                                                (generate)
    z_v, z_a -> signal decoder -> first-stage latents -> frames, mel image -> clip      (decode)

A known modality keeps its true latent in decoding and its true signal in the clip that comes out.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from soundreel.audio.griffin_lim import log_mel_to_waveform
from soundreel.audio.mel_image import decode_mel_image, fit_length
from soundreel.checkpoints.text_encoder import TextEncoder, load_text_encoder
from soundreel.clip import Clip
from soundreel.data.latents import LatentScaling, PerceptualStats
from soundreel.device import autocast
from soundreel.diffusion.noise import NoiseSource, PerSampleNoise
from soundreel.errors import SoundreelError
from soundreel.familiar import familiar
from soundreel.film_clock import Modality
from soundreel.films import FILM_WORDS, Films
from soundreel.protocols import Progress, with_options
from soundreel.request import check_counts, find_label, read_given
from soundreel.systems.mm_ldm.autoencoder import MultiModalAutoencoder
from soundreel.systems.mm_ldm.decoding import DecodingConfig, decode, starting_noise
from soundreel.systems.mm_ldm.film_maker import LatentFilmMaker, window_overlap
from soundreel.systems.mm_ldm.first_stage import clip_images
from soundreel.systems.mm_ldm.generator import Generator
from soundreel.systems.mm_ldm.history_encoder import LongGenerator
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.sampling import sample_latents
from soundreel.systems.mm_ldm.settings import (
    MMLDMOptions,
    MMLDMSettings,
    Request,
    check_parts,
    class_names,
    fit_clip,
    known_signal,
    step_counter,
)
from soundreel.systems.mm_ldm.vocoder import Vocoder
from soundreel.types import AV, ClipSpec


class MMLDMPipeline(Films):
    """The networks of MM-LDM, ready to encode, decode and generate.

    Args:
        generator: None for a pipeline that only encodes and decodes; one for long video can go on
            from a clip.
        stats: of the latents the generator was trained on; identity before they are measured.
        vocoder: None synthesises sound by Griffin-Lim.
        text_encoder: reads captions; by default loaded at the first one, from the folder that the
            settings name.

    Raises:
        SoundreelError: two parts do not fit each other.
    """

    def __init__(
        self,
        *,
        clip: ClipSpec,
        first_stage: KLVAE,
        autoencoder: MultiModalAutoencoder,
        generator: Generator | LongGenerator | None = None,
        stats: LatentScaling | None = None,
        vocoder: Vocoder | None = None,
        settings: MMLDMSettings | None = None,
        text_encoder: TextEncoder | None = None,
    ) -> None:
        self.clip = clip
        self.first_stage = first_stage
        self.autoencoder = autoencoder
        self.long_generator = generator if isinstance(generator, LongGenerator) else None
        self.generator = generator.generator if isinstance(generator, LongGenerator) else generator
        self.stats = stats or PerceptualStats(autoencoder.config.latents)
        self.vocoder = vocoder
        self.settings = MMLDMSettings() if settings is None else settings
        self.text_encoder = text_encoder
        check_parts(clip, first_stage, autoencoder, self.generator, vocoder, self.settings)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return names of the classes that `label` may ask for; none without classes."""
        return class_names(self.settings, self.generator, self.autoencoder)

    @property
    def conditions(self) -> frozenset[str]:
        """Return what can be given to `generate`."""
        learned = {
            "label": bool(self.class_names),
            "text": bool(self.settings.text.sha256),
            "after": self.long_generator is not None,
        }
        return frozenset(("video", "audio", *(name for name in learned if learned[name])))

    @property
    def options(self) -> MMLDMOptions | None:
        """Return the model's own sampling defaults; None without a generator."""
        return None if self.generator is None else MMLDMOptions.of(self.settings)

    @property
    def device(self) -> torch.device:
        return self.autoencoder.video_prompt.device

    def to(self, device: torch.device | str) -> "MMLDMPipeline":
        """Move every network; returns the pipeline itself."""
        generator = self.long_generator or self.generator
        parts = (self.first_stage, self.autoencoder, generator, self.stats, self.vocoder)
        for module in parts:
            if module is not None:
                module.to(device)
        return self

    def save(self, folder: Path) -> None:
        """Write a model folder, whole or not at all."""
        from soundreel.systems.mm_ldm.folder import save_mm_ldm  # which builds pipelines, too

        save_mm_ldm(self, folder)

    def encode(self, clip: Clip) -> AV:
        """Return latents of the clip's first window as the generator sees them, a batch of one.

        Raises:
            SoundreelError: the clip is shorter than a window.
        """
        return self.encode_av(self.fit(clip).to_av(self.clip))

    def fit(self, clip: Clip) -> Clip:
        """Return a clip at the model's rates, size and channels, framed as in training."""
        return fit_clip(clip, self.clip, self.settings.framing)

    @torch.no_grad()
    def encode_av(self, av: AV, *, precision: str | None = None) -> AV:
        """Return posterior means of pixels and waveforms, standardised; either may be absent.

        Args:
            av: video `batch frame channel height width`, audio `batch 1 sample`, in [-1, 1].
            precision: of the networks; None is the model's own.
        """
        latents = AV(None, None)
        with self._autocast(precision):
            if av.video is not None:
                key_frames = self.autoencoder.select_key_frames(av.video).to(self.device)
                images = self.first_stage.encode_frames(key_frames, chunk=self.settings.image_chunk)
                latents = latents.replace("video", self.autoencoder.video_encoder(images).mean)
            if av.audio is not None:
                picture = clip_images(AV(None, av.audio), self.settings.mel_image)["audio"]
                image = self.first_stage.encode(picture.to(self.device))
                latents = latents.replace("audio", self.autoencoder.audio_encoder(image).mean)
        return self.stats.standardize(latents)

    @torch.no_grad()
    def decode_av(
        self,
        latents: AV,
        noise: NoiseSource,
        *,
        wanted: Sequence[str] = ("video", "audio"),
        decoding: DecodingConfig | None = None,
        label: Int[Tensor, " batch"] | None = None,
        callback: Callable[[], None] | None = None,
        precision: str | None = None,
    ) -> AV:
        """Return pixels and waveforms of standardised latents, on the CPU.

        Args:
            latents: both modalities; each one's decoding looks at the other's.
            noise: of the signal decoder, one source per batch.
            wanted: modalities to decode.
            label: class numbers; predicted from the latents if they are not given.
            callback: called after each step of each chunk of frames.
            precision: of the networks; None is the model's own.
        """
        decoding = self.settings.decoding if decoding is None else decoding
        xt = starting_noise(
            self.autoencoder, latents.batch_size, self.clip.num_frames, noise, decoding
        )
        for modality in ("video", "audio"):
            if modality not in wanted:
                xt = xt.replace(modality, None)
        with self._autocast(precision):
            signals = decode(
                self.autoencoder,
                self.stats.restore(latents),
                xt,
                self.settings.diffusion.build(),
                decoding,
                label=label,
                callback=None if callback is None else lambda *_: callback(),
            )
            video = audio = None
            if signals.video is not None:
                chunk = self.settings.image_chunk
                video = self.first_stage.decode_frames(signals.video, chunk=chunk)
                video = video.float().clamp(-1, 1).cpu()
            if signals.audio is not None:
                audio = self.first_stage.decode(signals.audio).float()
        # Outside of mixed precision: quiet parts of a spectrogram need all bits.
        return AV(video, None if audio is None else self._to_waveform(audio))

    def decode(self, latents: AV, *, seed: int = 0) -> list[Clip]:
        """Return clips of standardised latents of both modalities; row i is decoded with `seed
        + i`."""
        noise = PerSampleNoise(range(seed, seed + latents.batch_size))
        return self._clips(self.decode_av(latents, noise))

    def reconstruct(self, clip: Clip, *, seed: int = 0) -> Clip:
        """Send the clip's first window through encoder and decoder.

        Raises:
            SoundreelError: the clip lacks a modality, or is shorter than a window.
        """
        latents = self.encode(clip)
        if len(latents.present) < 2:
            raise SoundreelError(f"reconstruction needs frames and sound, got {latents.present}")
        return self.decode(latents, seed=seed)[0]

    @familiar
    def generate(
        self,
        *,
        count: int = 1,
        seed: int = 0,
        video: Clip | str | Path | None = None,
        audio: Clip | str | Path | None = None,
        label: int | str | None = None,
        text: str | Float[Tensor, "token context_dim"] | None = None,
        batch_size: int = 4,
        progress: Progress | None = None,
        **options: Any,
    ) -> list[Clip]:
        """Return clips with sound; or sound for a silent clip, or pictures for a sound; or films.

        Clip i depends on `seed + i` alone, not on `count` or `batch_size`.

        Args:
            video: a clip whose frames are kept and given sound.
            audio: a clip whose sound is kept and given frames.
            label: name or number of a class; None makes anything.
            text: a caption, or a text encoder's token states, in place of the learned prompt.
                A generator that was trained with captions makes anything without one.
            batch_size: clips that are sampled at once.
            options: fields of `MMLDMOptions`; those left out or None are the model's own.
                `duration_s` and the other `FILM_WORDS` ask for films, see `Films.stream`.

        Raises:
            SoundreelError: both modalities are given, a setting is out of range, or a caption for a
                generator that was trained without.
            CheckpointError: the text encoder cannot be loaded.
        """
        check_counts(count, seed, batch_size)
        asked: dict[str, Any] = {"count": count, "seed": seed, "progress": progress, **options}
        asked |= {"video": video, "audio": audio, "label": label, "text": text}
        if FILM_WORDS & options.keys():
            return self.films(**asked)
        return [c for av in self.signals(batch_size=batch_size, **asked) for c in self._clips(av)]

    def signals(
        self, *, count: int, seed: int, batch_size: int, progress: Progress | None, **asked: Any
    ) -> Iterator[AV]:
        """Yield the batches that `generate` makes clips of, as floats."""
        given = read_given(asked.pop("video", None), asked.pop("audio", None), self.clip)
        request = self.request(asked.pop("label", None), asked.pop("text", None), asked)
        signal = known_signal(given, self.clip, self.settings.framing)
        known = self.encode_av(signal, precision=request.precision)
        request = replace(request, known=known, signal=signal)
        starts = range(seed, seed + count, batch_size)
        steps = request.num_steps(self.settings.diffusion.build(), self.clip.num_frames)
        advance = step_counter(len(starts) * steps, progress)
        for start in starts:
            yield self._batch(request, range(start, min(start + batch_size, seed + count)), advance)

    def film_maker(self, *, modality: Modality, is_given: bool, **request: Any) -> LatentFilmMaker:
        """Return what makes the windows of a film, see `Films`."""
        asked = self.request(request.pop("label", None), request.pop("text", None), request)
        overlap = window_overlap(self.long_generator, self.clip, is_given=is_given)
        return LatentFilmMaker(self, asked, modality, overlap)

    def request(
        self,
        label: int | str | None,
        text: str | Float[Tensor, "token context_dim"] | None,
        options: dict[str, Any],
    ) -> Request:
        """Return what is asked for, nothing given."""
        chosen, settings = with_options(self.options, options, self.conditions), self.settings
        return Request(
            known=AV(None, None),
            signal=AV(None, None),
            label=find_label(label, self.class_names),
            text=self._token_states(text, chosen.text_encoder),
            sampling=chosen.sampling(settings.sampling),
            decoding=chosen.decoding(settings.decoding),
            precision=chosen.precision,
        )

    def _batch(self, request: Request, seeds: Sequence[int], advance: Callable[[], None]) -> AV:
        """Return pixels and waveform for each seed."""
        noise, batch_size = PerSampleNoise(seeds), len(seeds)
        label = None
        if request.label is not None:
            label = torch.full((batch_size,), request.label, device=self.device)
        av = self.decode_av(
            self.sample(request, noise, label, callback=advance),
            noise,
            wanted=request.wanted,
            decoding=request.decoding,
            label=label,
            callback=advance,
            precision=request.precision,
        )
        for name in request.signal.present:
            av = av.replace(name, torch.cat(batch_size * [request.signal[name]]))
        return av

    def sample(
        self,
        request: Request,
        noise: PerSampleNoise,
        label: Int[Tensor, " batch"] | None,
        *,
        previous: AV | None = None,
        callback: Callable[[], None] | None = None,
    ) -> AV:
        """Return standardised latents, one clip for each generator of the noise.

        Args:
            previous: latents of the windows before, for a generator for long video.
            callback: called after each step.
        """
        assert self.generator is not None  # or there would be no request
        batch_size, shapes = len(noise.generators), self.generator.config.latents
        template = AV(
            torch.empty(batch_size, *shapes.video_shape, device=self.device),
            torch.empty(batch_size, *shapes.audio_shape, device=self.device),
        )
        schedule = self.settings.diffusion.build()
        with self._autocast(request.precision):
            return sample_latents(
                self.long_generator or self.generator,
                self.stats.noise(noise(template), signal_share=float(schedule.alpha_bar[-1])),
                schedule,
                request.sampling,
                prediction_type=self.settings.diffusion.prediction_type,
                condition=request.known.map(lambda x: x.expand(batch_size, -1, -1, -1)),
                label=label,
                text=request.text,
                previous=previous,
                callback=None if callback is None else lambda *_: callback(),
            )

    def _token_states(
        self, text: str | Float[Tensor, "token context_dim"] | None, folder: str | None
    ) -> Float[Tensor, "token context_dim"] | None:
        """Return states for the generator; None is its learned prompt, and zeros are no caption."""
        config = self.settings.text
        if text is None and config.sha256 and self.generator is not None:
            width = self.generator.config.context_dim
            return torch.zeros(config.num_tokens, width, device=self.device)
        if not isinstance(text, str):
            return text
        if not config.sha256:
            raise SoundreelError("this model was trained without captions; leave the text out")
        if folder is not None:
            self.text_encoder = load_text_encoder(replace(config, folder=folder))
        elif self.text_encoder is None:
            self.text_encoder = load_text_encoder(config)
        return self.text_encoder.to(self.device)([text])[0]

    def _to_waveform(self, image: Float[Tensor, "batch 3 height width"]) -> Tensor:
        """Convert a mel image to `batch 1 sample`, on the CPU."""
        log_mel = decode_mel_image(image, self.settings.mel_image)
        if self.vocoder is None:
            waveform = log_mel_to_waveform(log_mel, self.settings.mel_image.mel)
        else:
            waveform = self.vocoder(log_mel)[:, 0]
        return fit_length(waveform.cpu(), self.clip.num_samples)[:, None]

    def _clips(self, av: AV) -> list[Clip]:
        return Clip.from_av(av, self.clip.frame_rate, self.clip.sample_rate)

    def _autocast(self, precision: str | None) -> torch.autocast:
        return autocast(self.device, precision or self.settings.precision)
