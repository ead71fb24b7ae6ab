"""joint_flow from noise to clips: every task by one vector of noise levels."""

from collections.abc import Iterator
from dataclasses import dataclass, field
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
from soundreel.familiar import familiar
from soundreel.film import Join
from soundreel.film_clock import FilmClock, Modality
from soundreel.films import FILM_WORDS, FilmInputs, Films
from soundreel.protocols import Progress, with_options
from soundreel.request import check_counts, find_label
from soundreel.systems.joint_flow.audio_codec import AudioCodec, AudioCodecConfig
from soundreel.systems.joint_flow.config import SYSTEM, JointFlowOptions
from soundreel.systems.joint_flow.film import FilmDecoder, clips_of, joined
from soundreel.systems.joint_flow.film_maker import FilmMaker
from soundreel.systems.joint_flow.film_request import Film, read_film, with_source
from soundreel.systems.joint_flow.transformer import (
    JointTransformer,
    JointTransformerConfig,
)
from soundreel.systems.joint_flow.video_decoder import VideoCodecConfig, VideoDecoder
from soundreel.types import AV, ClipSpec
from soundreel.unrounded import rounded

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


class JointFlowPipeline(Films):
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
        return frozenset(("video", "audio", "after", "between", *label))

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
        return self._maker.encode(clip)

    def fit(self, clip: Clip) -> Clip:
        """Return a clip at the model's rates and channels, cut to the centre of its shape."""
        return clip.resample(
            frame_rate=self.clip.frame_rate,
            sample_rate=self.clip.sample_rate,
            size=None if clip.frames is None else (self.clip.height, self.clip.width),
            num_channels=None if clip.waveform is None else self.clip.num_channels,
        )

    @torch.no_grad()
    def decode(self, latents: AV, *, seed: int = 0) -> list[Clip]:
        """Return the clips of codec latents; a modality that is absent is left out.

        Args:
            seed: of the audio decoder's noise; clip i has that of `seed + i`.
        """
        seeds = range(seed, seed + latents.batch_size)
        decoder = FilmDecoder(self.video, self.audio, seeds, precision=self.options.precision)
        pieces = [decoder.push(latents), decoder.finish(latents.present)]
        return list(rounded(clips_of([piece for piece in pieces if piece is not None], self.clip)))

    @familiar
    @torch.no_grad()
    def generate(
        self,
        *,
        count: int = 1,
        seed: int = 0,
        video: Clip | str | Path | None = None,
        audio: Clip | str | Path | None = None,
        label: int | str | None = None,
        duration_s: Seconds | None = None,
        batch_size: int = 4,
        progress: Progress | None = None,
        **options: Any,
    ) -> list[Clip]:
        """Return clips with sound; sound for a video or pictures for a sound; or films.

        Clip i depends on `seed + i` alone, not on `count` or `batch_size`.

        Args:
            video: a clip that keeps its frames, rate and length, and gets sound.
            audio: a clip that keeps its sound, and gets frames.
            label: number or name of a class; None leaves it open.
            duration_s: length of the result; that of what is given, or the model's own.
            options: fields of `JointFlowOptions`; those left out or None are the model's own.
                `after`, `between` and the other `FILM_WORDS` ask for films, see `Films.stream`.

        Raises:
            SoundreelError: what is asked for does not fit together, or is out of range.
        """
        check_counts(count, seed, batch_size)
        if FILM_WORDS & options.keys():
            given = {"video": video, "audio": audio, "label": label, "duration_s": duration_s}
            return self.films(count=count, seed=seed, progress=progress, **given, **options)
        sampling = self._sampling(label, options)
        film, source = read_film(self.clip, self.encode, video, audio, duration_s)
        batches = self._batches(film, sampling, range(seed, seed + count), batch_size, progress)
        rates = (self.clip.frame_rate, self.clip.sample_rate)
        return [with_source(clip, source) for av in batches for clip in Clip.from_av(av, *rates)]

    def signals(
        self, *, count: int, seed: int, batch_size: int, progress: Progress | None, **request: Any
    ) -> Iterator[AV]:
        """Yield the batches that `generate` makes clips of from nothing, as floats."""
        sampling = self._sampling(request.pop("label", None), request)
        seeds = range(seed, seed + count)
        film, _ = read_film(self.clip, self.encode, None, None, None)
        return self._batches(film, sampling, seeds, batch_size, progress)

    @torch.no_grad()
    def _batches(
        self,
        film: Film,
        sampling: tuple[int, JointFlowOptions],
        all_seeds: range,
        batch_size: int,
        progress: Progress | None,
    ) -> Iterator[AV]:
        """Yield pixels and waveforms of a whole film, one for each seed."""
        steps = film.num_windows(self._maker.window) * sampling[1].num_steps
        firsts = range(0, len(all_seeds), batch_size)
        for number, first in enumerate(firsts):
            seeds = all_seeds[first : first + batch_size]

            def callback(done: int, number: int = number) -> None:
                if progress is not None:
                    progress(number * steps + done, len(firsts) * steps)

            yield joined(list(self._maker.film(film, seeds, *sampling, callback)))

    def check_film(
        self, *, modality: Modality, is_given: bool, join: Join | None, **request: Any
    ) -> None:
        """Raise `SoundreelError` where the request is none of this model's."""
        del modality, is_given
        if join is not None:
            raise SoundreelError("this model makes films without borders; leave join out")
        self._sampling(request.pop("label", None), request)

    def make_film(self, inputs: FilmInputs, *, seed: int, **request: Any) -> Iterator[Clip]:
        """Return the pieces of a film, in constant memory, see `Films.stream`.

        A film that lasts longer begins like a shorter one, bit for bit, up to the last half second
        of the shorter.
        """
        sampling = self._sampling(request.pop("label", None), request)
        return self._maker.pieces(inputs, seed, *sampling)

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
        """Return what lies between two clips; `stream(between=...)` returns it with them.

        Raises:
            SoundreelError: the gap is empty or longer than a window has place for, or a clip is too
                short.
        """
        num_frames = FilmClock(self.clip).num_frames(duration_s)
        sampling = self._sampling(label, options)
        made = self._maker.fill(self.fit(before), self.fit(after), num_frames, seed, *sampling)
        return next(rounded([made]))

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
