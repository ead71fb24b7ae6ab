"""joint_flow from noise to clips: every task by one vector of noise levels."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import (
    ModelFolder,
    ModelIndex,
    save_component,
    save_model_index,
    writing_folder,
)
from soundreel.clip import Clip, Seconds
from soundreel.config_io import config_from_json, config_to_json
from soundreel.errors import SoundreelError
from soundreel.protocols import Progress, with_options
from soundreel.request import check_counts, find_label
from soundreel.systems.joint_flow.audio_codec import AudioCodec, AudioCodecConfig
from soundreel.systems.joint_flow.config import SYSTEM, JointFlowOptions
from soundreel.systems.joint_flow.film import FilmDecoder, clips_of, latents_of
from soundreel.systems.joint_flow.film_maker import FilmMaker
from soundreel.systems.joint_flow.film_request import ending, read_film, with_source
from soundreel.systems.joint_flow.lapped import HOP
from soundreel.systems.joint_flow.transformer import (
    JointTransformer,
    JointTransformerConfig,
)
from soundreel.systems.joint_flow.video_decoder import VideoCodecConfig, VideoDecoder
from soundreel.types import AV, ClipSpec

KIND = "joint-transformer"
COMPONENTS = {"video_codec": "lapped-codec", "audio_codec": "spectral-codec", "transformer": KIND}
"""Name of each network in a model folder -> its kind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JointFlowSettings:
    """Settings that a model folder holds beside its networks.

    Attributes:
        class_names: in the order of their labels.
        sampling: what `generate` uses unless told otherwise.
        samples_seen: training clips behind the transformer.
    """

    class_names: tuple[str, ...] = ()
    sampling: JointFlowOptions = field(default_factory=JointFlowOptions)
    samples_seen: int = 0


class JointFlowPipeline:
    """The networks of joint_flow, ready to encode, decode and generate.

    Args:
        video: decoder with the linear codec it was trained on.
        clip: sizes and rates; its frames are a multiple of four.
    """

    def __init__(
        self,
        video: VideoDecoder,
        audio: AudioCodec,
        transformer: JointTransformer,
        clip: ClipSpec,
        settings: JointFlowSettings | None = None,
    ) -> None:
        self.video, self.audio = video.eval(), audio.eval()
        self.transformer = transformer.eval()
        self.clip = clip
        self.settings = JointFlowSettings() if settings is None else settings

    @classmethod
    def load(cls, model: ModelFolder) -> "JointFlowPipeline":
        """Build a pipeline from a model folder.

        Raises:
            CheckpointError: the folder is incomplete, damaged or of another system.
        """
        missing = [name for name in COMPONENTS if name not in model.components]
        if missing or model.index.clip is None:
            raise CheckpointError(f"{model.path}: lacks {', '.join(missing) or 'the clip'}")
        parts = model.components
        video, _ = parts["video_codec"].build(VideoCodecConfig.build, VideoCodecConfig)
        audio, _ = parts["audio_codec"].build(AudioCodec, AudioCodecConfig)
        transformer, _ = parts["transformer"].build(JointTransformer, JointTransformerConfig)
        settings = config_from_json(
            JointFlowSettings,
            model.index.settings,
            f"{model.path}: settings",
            error=CheckpointError,
        )
        return cls(video, audio, transformer, model.index.clip, settings)

    def save(self, folder: Path) -> None:
        """Write a model folder, whole or not at all."""
        video = VideoCodecConfig(encoder=self.video.linear.config, decoder=self.video.config)
        with writing_folder(folder) as target:
            save_component(target, "video_codec", self.video, video)
            save_component(target, "audio_codec", self.audio, self.audio.config)
            save_component(target, "transformer", self.transformer, self.transformer.config)
            index = ModelIndex(
                system=SYSTEM,
                components=COMPONENTS,
                clip=self.clip,
                settings=config_to_json(self.settings),
            )
            save_model_index(target, index)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return names of the classes that `label` may ask for."""
        return self.settings.class_names

    @property
    def conditions(self) -> frozenset[str]:
        """Return what can be given to `generate`."""
        label = ("label",) if self.class_names else ()
        return frozenset(("video", "audio", "after", *label))

    @property
    def options(self) -> JointFlowOptions:
        """Return the model's own sampling defaults."""
        return self.settings.sampling

    @property
    def device(self) -> torch.device:
        return self.transformer.get_buffer("audio_mean").device

    def to(self, device: torch.device | str) -> "JointFlowPipeline":
        """Move the networks; returns the pipeline itself."""
        for network in (self.video, self.audio, self.transformer):
            network.to(device)
        return self

    @torch.no_grad()
    def encode(self, clip: Clip) -> AV:
        """Return a clip's codec latents, with a batch of one; a modality it lacks is absent.

        Group g lies around the beginning of hop g, so there is one group more than hops of four
        frames. Frames are cut to the centre of the model's shape.
        """
        return latents_of(clip, self.clip, self.video.linear, self.audio)

    @torch.no_grad()
    def decode(self, latents: AV, *, seed: int = 0) -> list[Clip]:
        """Return the clips of codec latents; a modality that is absent is left out.

        Args:
            seed: of the audio decoder's noise; clip i has that of `seed + i`.
        """
        seeds = range(seed, seed + latents.batch_size)
        decoder = FilmDecoder(self.video, self.audio, seeds)
        pieces = [decoder.push(latents), decoder.finish(latents.present)]
        return clips_of([piece for piece in pieces if piece is not None], self.clip)

    @torch.no_grad()
    def generate(
        self,
        *,
        count: int = 1,
        seed: int = 0,
        video: Clip | str | Path | None = None,
        audio: Clip | str | Path | None = None,
        label: int | str | None = None,
        after: Clip | str | Path | None = None,
        duration_s: Seconds | None = None,
        batch_size: int = 4,
        progress: Progress | None = None,
        **options: Any,
    ) -> list[Clip]:
        """Return clips with sound; sound for a video or pictures for a sound; or a clip's sequel.

        Clip i depends on `seed + i` alone, not on `count` or `batch_size`.

        Args:
            video: a clip that keeps its frames, rate and length, and gets sound.
            audio: a clip that keeps its sound, and gets frames.
            label: number or name of a class; None leaves it open.
            after: a clip that what is made begins with and goes on from.
            duration_s: length of the result; that of what is given, or the model's own.
            options: fields of `JointFlowOptions`; those left out or None are the model's own.

        Raises:
            SoundreelError: what is asked for does not fit together, or is out of range.
        """
        check_counts(count, seed, batch_size)
        sampling = self._sampling(label, options)
        film = read_film(self.clip, self.encode, video, audio, after, duration_s)
        if film.num_frames is None:
            film = replace(film, num_frames=self.clip.num_frames)
        steps = film.num_windows(self._maker.window) * sampling[1].num_steps
        firsts = range(0, count, batch_size)
        clips: list[Clip] = []
        for number, first in enumerate(firsts):
            seeds = range(seed + first, seed + min(first + batch_size, count))

            def callback(done: int, number: int = number) -> None:
                if progress is not None:
                    progress(number * steps + done, len(firsts) * steps)

            clips += clips_of(list(self._maker.film(film, seeds, *sampling, callback)), self.clip)
        return [with_source(clip, film.source) for clip in clips]

    @torch.no_grad()
    def stream(
        self,
        *,
        seed: int = 0,
        video: Clip | str | Path | None = None,
        audio: Clip | str | Path | None = None,
        label: int | str | None = None,
        after: Clip | str | Path | None = None,
        duration_s: Seconds | None = None,
        **options: Any,
    ) -> Iterator[Clip]:
        """Make a film piece by piece, with constant memory; without a duration, for ever.

        The pieces follow each other without a gap. A film that lasts longer begins like a shorter
        one, bit for bit, up to the last half second of the shorter.

        Args:
            after: a clip to go on from; its own frames and sound are not repeated.

        Raises:
            SoundreelError: see `generate`.
        """
        check_counts(1, seed, 1)
        sampling = self._sampling(label, options)
        film = read_film(self.clip, self.encode, video, audio, after, duration_s)
        for piece in self._maker.film(film, range(seed, seed + 1), *sampling):
            yield clips_of([piece], self.clip)[0]

    @torch.no_grad()
    def fill(
        self,
        before: Clip,
        after: Clip,
        duration_s: Seconds,
        *,
        seed: int = 0,
        label: int | str | None = None,
        **options: Any,
    ) -> Clip:
        """Return what lies between two clips, in whole hops of four frames.

        Raises:
            SoundreelError: the gap is empty or longer than a window has place for.
        """
        sampling = self._sampling(label, options)
        hops = round(Fraction(duration_s) * self.clip.frame_rate / HOP)
        longest = self._maker.window - 3
        if not 1 <= hops <= longest:
            raise SoundreelError(
                f"a gap of {float(duration_s):g} s; this model fills up to"
                f" {float(longest * HOP / self.clip.frame_rate):g} s"
            )
        room = longest + 2 - hops  # groups of the window that are known
        first = ending(before, self.clip, self.encode, room // 2)
        last = self.encode(after).map(lambda x: x[:, 1 : 1 + room - room // 2])
        latents = self._maker.fill(first, last, hops + 1, seed, *sampling)
        (whole,) = self.decode(latents, seed=seed)
        start = first["video"].shape[1] * HOP / self.clip.frame_rate
        return whole.cut(start, hops * HOP / self.clip.frame_rate)

    def _sampling(
        self, label: int | str | None, options: dict[str, Any]
    ) -> tuple[int, JointFlowOptions]:
        """Return the number of a class or of any, and the options with those asked for."""
        chosen = with_options(self.options, options, self.conditions)
        number = find_label(label, self.class_names)
        return self.transformer.config.num_classes if number is None else number, chosen

    @property
    def _maker(self) -> FilmMaker:
        return FilmMaker(self.video, self.audio, self.transformer, self.clip)
