"""Encode a film piece by piece into fragments, in constant memory: to a file or to a player.

What a muxer writes for a piece is handed over in one go, so that what has arrived plays up to the
border of a piece, whatever happens then.
"""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from jaxtyping import Float32, UInt8

from soundreel.media.full_scale import clipped
from soundreel.media.tracks import (
    MP4,
    AudioTrack,
    Format,
    VideoTrack,
    playable,
)


class Fragments:
    """Encoder of pieces; all have the tracks, sizes and channels of the first.

    Args:
        sink: takes the bytes of a piece.
        name: file that errors and warnings name.
        frame_rate, sample_rate: of the pieces.
        enlarge: write each pixel as a block of so many rows and columns (MP4).
    """

    def __init__(
        self,
        sink: Callable[[bytes], object],
        kind: Format,
        frame_rate: Fraction,
        sample_rate: int,
        *,
        name: Path,
        enlarge: int = 1,
    ) -> None:
        self._kind, self._name, self._enlarge = kind, name, enlarge
        self._frame_rate, self._sample_rate = frame_rate, sample_rate
        self._file = _WholePieces(sink)
        self._container: OutputContainer | None = None
        self._video: VideoTrack | None = None
        self._audio: AudioTrack | None = None

    @property
    def has_video(self) -> bool:
        return self._video is not None

    @property
    def has_audio(self) -> bool:
        return self._audio is not None

    @property
    def num_samples(self) -> int:
        """Number of samples that were written."""
        return 0 if self._audio is None else self._audio.count

    def write(
        self,
        frames: UInt8[np.ndarray, "frame height width 3"] | None,
        waveform: Float32[np.ndarray, "channel sample"] | None,
    ) -> None:
        """Append a piece; the first one opens the tracks."""
        if self._kind is MP4:
            if frames is not None:
                frames = np.stack([playable(frame, self._enlarge) for frame in frames])
            waveform = None if waveform is None else clipped(waveform, self._name)
        if self._container is None:
            self._open(frames, waveform)
        container = self._container
        assert container is not None, "the tracks are open"
        if frames is not None and self._video is not None:
            for number, picture in enumerate(frames):
                container.mux(self._video.encode(picture, is_key=number == 0))
        if waveform is not None and self._audio is not None:
            container.mux(self._audio.encode(waveform))
        self._file.hand_over()

    def _open(
        self,
        frames: UInt8[np.ndarray, "frame height width 3"] | None,
        waveform: Float32[np.ndarray, "channel sample"] | None,
    ) -> None:
        options = {}
        if self._kind is MP4:
            options = {"movflags": "frag_keyframe+delay_moov+default_base_moof"}
            options |= {"movie_timescale": str(self._sample_rate), "flush_packets": "1"}
            if frames is None:
                options["frag_duration"] = "1000000"
        container = av.open(self._file, "w", format=self._kind.container, options=options)
        container.flags |= av.container.Flags.bitexact.value
        if frames is not None:
            shape, rate = frames.shape[1:], self._frame_rate
            # Key frames are set where pieces begin and nowhere else, and little is looked ahead.
            options = (
                {"x264-params": "scenecut=0:keyint=infinite:rc-lookahead=8"}
                if self._kind is MP4
                else {}
            )
            self._video = VideoTrack(container, self._kind, shape, rate, **options)
        if waveform is not None:
            self._audio = AudioTrack(container, self._kind, waveform, self._sample_rate)
        self._container = container

    def finish(self) -> None:
        """Hand over what the encoders still hold; nothing is written after it."""
        if self._container is None:
            return
        for track in (self._video, self._audio):
            if track is not None:
                self._container.mux(track.finish())
        self._container.close()
        self._file.hand_over()


def live_mp4(
    pieces: Iterable[tuple[np.ndarray | None, np.ndarray | None]],
    *,
    frame_rate: Fraction,
    sample_rate: int,
) -> Iterator[bytes]:
    """Yield an MP4 that plays while it arrives: the bytes of each piece, then its end.

    Args:
        pieces: frames and waveform of each, as for `Fragments.write`.
    """
    ready: list[bytes] = []
    fragments = Fragments(ready.append, MP4, frame_rate, sample_rate, name=Path("live.mp4"))
    for frames, waveform in pieces:
        fragments.write(frames, waveform)
        if ready:
            yield b"".join(ready)
            ready.clear()
    fragments.finish()
    yield b"".join(ready)


class _WholePieces:
    """A file that gets what a muxer writes, and hands it over in one go for each piece."""

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self._pending: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pending.append(bytes(data))
        return len(data)

    def hand_over(self) -> None:
        if self._pending:
            self._sink(b"".join(self._pending))
            self._pending.clear()
