"""Decoded pieces of prepared clips, optionally kept in memory."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from soundreel.data.manifest import ClipRecord, DataError, DatasetInfo
from soundreel.data.shards import ShardReader
from soundreel.media.errors import MediaError
from soundreel.media.pixels import frames_to_video
from soundreel.types import AV


@dataclass(frozen=True, slots=True)
class _Decoded:
    frames: UInt8[np.ndarray, "frame height width 3"] | None
    waveform: Float32[np.ndarray, "channel sample"]


class DecodedClips:
    """Cut pieces out of prepared clips.

    Args:
        cache_bytes: whole clips are kept, as bytes and float32 samples, until they take this much;
            of a clip that no longer fits only the frames asked for are decoded, each time. 0 keeps
            none.
        sound_only: leave the pictures out, which take most of the time.
    """

    def __init__(
        self,
        root: Path,
        records: Sequence[ClipRecord],
        info: DatasetInfo,
        *,
        cache_bytes: int,
        sound_only: bool = False,
    ) -> None:
        self._reader = ShardReader(root)
        self._records = records
        self._info = info
        self._budget = cache_bytes
        self._sound_only = sound_only
        self._cache: dict[int, _Decoded] = {}

    def cut(self, clip: int, frames: tuple[int, int], samples: tuple[int, int]) -> AV:
        """Return frames and samples from the first up to, not including, the second number of
        each pair.

        Returns:
            unbatched `frame channel height width`, absent where only sound is read, and `channel
            sample`, float32 in [-1, 1].

        Raises:
            DataError: if the shard is damaged.
        """
        decoded = self._cache.get(clip)
        if decoded is None and (size := self._size(clip)) <= self._budget:
            decoded = self._decode(clip, 0, self._records[clip].num_frames)
            self._budget -= size
            self._cache[clip] = decoded
        if decoded is None:
            decoded = self._decode(clip, *frames)
            frames = (0, frames[1] - frames[0])
        pictures = decoded.frames
        return AV(
            video=None if pictures is None else frames_to_video(pictures[slice(*frames)]),
            audio=torch.from_numpy(decoded.waveform[:, slice(*samples)].copy()),
        )

    def _size(self, clip: int) -> int:
        """Return the bytes that the whole clip takes when decoded."""
        record, info = self._records[clip], self._info
        frames = 0 if self._sound_only else record.num_frames * info.height * info.width * 3
        return frames + 4 * record.num_samples * info.num_channels

    def _decode(self, clip: int, begin: int, end: int) -> _Decoded:
        """Decode frames `begin` to `end`, if they are wanted, and all samples.

        Prepared clips begin at 0 on their container's clock.
        """
        from soundreel.media.decode import read_audio, read_frames  # needs PyAV, latents do not

        record = self._records[clip]
        content = self._reader.read(record)
        try:
            pictures = None
            if not self._sound_only:
                frames = read_frames(
                    io.BytesIO(content),
                    frame_rate=self._info.frame_rate,
                    start=begin / self._info.frame_rate,
                    num_frames=end - begin,
                    zero=Fraction(0),
                )
                pictures = np.stack(list(frames))
            sound = read_audio(
                io.BytesIO(content), sample_rate=self._info.sample_rate, zero=Fraction(0)
            )
            decoded = _Decoded(pictures, sound)
        except MediaError as error:
            raise DataError(
                f"clip {record.key} in {record.shard} is damaged ({error.problem}); prepare again"
            ) from error
        if decoded.waveform.shape[1] != record.num_samples:
            raise DataError(
                f"clip {record.key} in {record.shard} has {decoded.waveform.shape[1]} samples, the "
                f"manifest says {record.num_samples}; prepare again"
            )
        return decoded
