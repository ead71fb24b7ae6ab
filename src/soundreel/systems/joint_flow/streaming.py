"""Decoders that are fed latents piece by piece, with constant memory.

The networks are always called on the same shapes, at the same places of the clip, so that a clip
comes out the same bit for bit in whatever pieces its latents arrive.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from soundreel.systems.joint_flow.audio_codec import AudioCodec, AudioCodecConfig
from soundreel.systems.joint_flow.lapped import overlap_frames
from soundreel.systems.joint_flow.video_decoder import NEIGHBOURS, VideoDecoder

AUDIO_GROUPS = 2
"""Groups of sound decoded at once."""


class VideoStream:
    """Decode video latents group by group; the state is two latents and half a window.

    Frames come out one group late: those between two groups need the latents of the group after.
    """

    def __init__(self, decoder: VideoDecoder) -> None:
        self._decoder = decoder
        self._latents: list[Tensor] = []  # the newest groups, `batch token dim`
        self._coefficients: Tensor | None = None

    def push(
        self, latents: Float[Tensor, "batch group token dim"]
    ) -> Float[Tensor, "batch frame 3 height width"] | None:
        """Return the frames that these latents complete; None if there are none yet."""
        pieces = [p for group in latents.unbind(dim=1) for p in self._next(group)]
        return torch.cat(pieces, dim=1) if pieces else None

    def finish(self) -> Float[Tensor, "batch frame 3 height width"] | None:
        """Return the frames before the last group, which becomes its own neighbour."""
        if not self._latents:
            return None
        pieces = list(self._next(self._latents[-1]))
        self._latents, self._coefficients = [], None
        return torch.cat(pieces, dim=1) if pieces else None

    def _next(self, group: Float[Tensor, "batch token dim"]) -> Iterator[Tensor]:
        if not self._latents:
            self._latents = [group]  # the first group is its own neighbour before
        self._latents = [*self._latents, group][-NEIGHBOURS:]
        if len(self._latents) < NEIGHBOURS:
            return
        window = torch.stack(self._latents, dim=1)
        before, self._coefficients = self._coefficients, self._decoder.coefficients(window)
        if before is not None:
            yield overlap_frames(torch.cat([before, self._coefficients], dim=1))


class AudioStream:
    """Decode audio latents a few groups at a time, with all the context that the decoder sees.

    Sound comes out `context` groups late. Before the first group and after the last one stand
    repetitions of them.
    """

    def __init__(self, codec: AudioCodec, latents_per_group: int) -> None:
        self._codec = codec
        self._context = -(-receptive_latents(codec.config) // latents_per_group)
        self._samples = latents_per_group * codec.config.samples_per_latent
        self._window: list[tuple[Tensor, Tensor]] = []  # latents and noise of a group
        self._owed = 0  # groups that came in and have not gone out

    def push(
        self,
        latents: Float[Tensor, "batch group token dim"],
        noise: Float[Tensor, "batch group channel column"],
    ) -> Float[Tensor, "batch sample"] | None:
        """Return the sound that these groups complete; None if there is none yet."""
        pieces = []
        for group in zip(latents.unbind(dim=1), noise.unbind(dim=1), strict=True):
            if not self._window:
                self._window = [group] * self._context
            self._owed += 1
            pieces += self._next(group)
        return torch.cat(pieces, dim=1) if pieces else None

    def finish(self) -> Float[Tensor, "batch sample"] | None:
        """Return the rest of the sound."""
        pieces, wanted = [], self._owed * self._samples
        while self._owed > 0:
            pieces += self._next(self._window[-1])
        self._window, self._owed = [], 0
        return torch.cat(pieces, dim=1)[:, :wanted] if pieces else None

    def _next(self, group: tuple[Tensor, Tensor]) -> Iterator[Tensor]:
        self._window.append(group)
        if len(self._window) < 2 * self._context + AUDIO_GROUPS:
            return
        latents = torch.cat([one for one, _ in self._window], dim=1)
        noise = torch.cat([one for _, one in self._window], dim=2)
        sound = self._codec.decode(latents, noise)
        start = self._context * self._samples
        yield sound[:, start : start + AUDIO_GROUPS * self._samples]
        self._window = self._window[AUDIO_GROUPS:]
        self._owed -= AUDIO_GROUPS


def receptive_latents(config: AudioCodecConfig) -> int:
    """Return how many latents on each side a sample of decoded sound depends on."""
    coarse, fine = config.decoder_depth
    half_window = config.fft_size // (2 * config.hop_length)
    columns = 3 * fine + half_window
    return 1 + 3 * coarse + -(-columns // config.columns_per_latent)
