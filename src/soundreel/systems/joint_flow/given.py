"""Codec latents of what is given of a film: whole, or as pictures or sound are read."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from math import ceil
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.film_clock import Picture, Sound
from soundreel.systems.joint_flow.audio_codec import AudioCodec, AudioCodecConfig
from soundreel.systems.joint_flow.lapped import HOP
from soundreel.systems.joint_flow.video_encoder import VideoEncoder
from soundreel.types import AV, ClipSpec

Groups = Callable[[int], Float[Tensor, "batch group token dim"]]
"""Return the codec latents of so many further groups."""


@runtime_checkable
class Given(Protocol):
    """One modality of a film that is known from its first new group on."""

    @property
    def modality(self) -> str: ...

    def begin(self) -> Groups:
        """Return the groups from the first one on; what ends goes on with its last group."""
        ...


class GivenLatents:
    """Latents that are known whole.

    Args:
        latents: of one modality, a batch of one.
    """

    def __init__(self, latents: AV) -> None:
        (self.modality,) = latents.present
        self._latents = latents[self.modality]

    def begin(self) -> Groups:
        position = 0

        def groups(count: int) -> Tensor:
            nonlocal position
            rows = torch.arange(position, position + count, device=self._latents.device)
            position += count
            return self._latents[:, rows.clamp(max=self._latents.shape[1] - 1)]

        return groups


class GivenPictures:
    """Pictures that are encoded as they are read; group g lies under hops g - 1 and g.

    Before the first picture it stands still, and after the last one likewise. Pictures are kept
    until `beside` takes them.
    """

    modality = "video"

    def __init__(self, pictures: Iterator[Picture], encoder: VideoEncoder) -> None:
        self._pictures, self._encoder = pictures, encoder
        self._kept: list[Picture] = []
        self._hop: Tensor | None = None  # the last one, `frame channel height width`

    def begin(self) -> Groups:
        return self._groups

    def _groups(self, count: int) -> Tensor:
        frames = list(islice(self._pictures, HOP * count))
        self._kept += frames
        if self._hop is None and not frames:
            raise SoundreelError("what is given as video has no picture")
        device = self._encoder.get_buffer("layout_mean").device
        parts = []
        if frames:
            stacked = torch.from_numpy(np.stack(frames)).to(device).permute(0, 3, 1, 2)
            parts = [stacked / 127.5 - 1]
        first = parts[0][:1].expand(HOP, -1, -1, -1) if self._hop is None else self._hop
        parts = [first, *parts]
        missing = HOP * count - len(frames)
        whole = torch.cat([*parts, parts[-1][-1:].expand(missing, -1, -1, -1)])
        self._hop = whole[-HOP:]
        return self._encoder.encode(whole[None])

    def beside(self, made: Clip) -> Clip:
        """Return made sound with the pictures of the same time.

        Args:
            made: the next piece of the film; it lasts whole frames of the model.
        """
        count = int(made.duration * made.frame_rate)
        frames, self._kept = self._kept[:count], self._kept[count:]
        return Clip(np.stack(frames), made.waveform, made.frame_rate, made.sample_rate)


class GivenSound:
    """Sound that is encoded as it is read, with all the context that the encoder sees.

    Before it and after it is silence. Sound is kept until `beside` takes it.
    """

    modality = "audio"

    def __init__(self, blocks: Iterator[Sound], codec: AudioCodec, spec: ClipSpec) -> None:
        self._blocks, self._codec = blocks, codec
        self._samples = codec.config.samples_per_latent
        self._context = encoder_reach(codec.config)
        # Sound that is not encoded yet, from half a hop and the context before the next group on.
        before = (HOP // 2 + self._context) * self._samples
        self._sound = np.zeros((spec.num_channels, before), np.float32)
        self._kept = self._sound[:, :0]

    def begin(self) -> Groups:
        return self._groups

    def _groups(self, count: int) -> Tensor:
        length = (HOP * count + 2 * self._context) * self._samples
        self._read(length - self._sound.shape[1])
        device = next(self._codec.parameters()).device
        mono = torch.from_numpy(self._sound[:, :length]).to(device).mean(0, keepdim=True)
        latents = self._codec.encode(mono)[:, self._context : -self._context]
        self._sound = self._sound[:, HOP * count * self._samples :]
        return rearrange(latents, "b (group token) dim -> b group token dim", token=HOP)

    def _read(self, missing: int) -> None:
        """Read so many samples more, silence where the sound has ended."""
        parts = []
        while missing > 0 and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            missing -= block.shape[1]
        self._kept = np.concatenate([self._kept, *parts], axis=1)
        silence = np.zeros((len(self._sound), max(0, missing)), np.float32)
        self._sound = np.concatenate([self._sound, *parts, silence], axis=1)

    def beside(self, made: Clip) -> Clip:
        """Return made pictures with the sound of the same time.

        Args:
            made: the next piece of the film.
        """
        count = made.num_frames * self._samples
        sound, self._kept = self._kept[:, :count], self._kept[:, count:]
        silence = ((0, 0), (0, count - sound.shape[1]))
        return replace(made, waveform=np.pad(sound, silence))


def encoder_reach(config: AudioCodecConfig) -> int:
    """Return how many latents of sound on each side of its own a latent depends on."""
    fine, coarse = config.encoder_depth
    columns = 1 + 3 * fine + config.fft_size // (2 * config.hop_length)
    return 3 * coarse + ceil(columns / config.columns_per_latent)
