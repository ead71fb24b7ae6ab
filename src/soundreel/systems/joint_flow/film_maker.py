"""Making films: sampled groups, decoded as they come."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from soundreel.systems.joint_flow.audio_codec import AudioCodec
from soundreel.systems.joint_flow.config import JointFlowOptions
from soundreel.systems.joint_flow.film import FilmDecoder, first_frames, num_frames_of
from soundreel.systems.joint_flow.film_request import Film
from soundreel.systems.joint_flow.lapped import HOP
from soundreel.systems.joint_flow.sampling import fill_groups, film_groups
from soundreel.systems.joint_flow.transformer import MODALITIES, JointTransformer
from soundreel.systems.joint_flow.video_decoder import VideoDecoder
from soundreel.types import AV, ClipSpec


@dataclass(frozen=True)
class FilmMaker:
    """The networks, and the sizes and rates of what they make."""

    video: VideoDecoder
    audio: AudioCodec
    transformer: JointTransformer
    clip: ClipSpec

    @property
    def window(self) -> int:
        """Return groups that are sampled at once."""
        return self.clip.num_frames // HOP + 1

    def film(
        self,
        film: Film,
        seeds: range,
        label: int,
        options: JointFlowOptions,
        callback: Callable[[int], None] | None = None,
    ) -> Iterator[AV]:
        """Yield decoded pieces of what is made; a modality that is given is not among them.

        Args:
            seeds: one for each clip.
            callback: called with the sampling steps done.
        """
        past, given = (self._rows(latents, len(seeds)) for latents in (film.past, film.given))
        skip = 0 if past is None else past["video"].shape[1] * HOP
        decoder = FilmDecoder(self.video, self.audio, seeds, skip)
        if past is not None:
            decoder.push(self.transformer.restored(past))
        steps = count(1)
        groups = film_groups(
            self.transformer,
            seeds,
            self._labels(label, len(seeds)),
            options,
            window=self.window,
            past=past,
            given=given,
            callback=lambda *_: None if callback is None else callback(next(steps)),
        )
        wanted = [m for m in MODALITIES if m not in film.given.present]
        left = film.num_frames
        for piece in _decoded(decoder, map(self.transformer.restored, groups), film, wanted):
            whole = piece if left is None else first_frames(piece, left, self.clip)
            frames = num_frames_of(whole, self.clip)
            if frames:
                yield whole
            left = None if left is None else left - frames

    def fill(
        self,
        before: AV,
        after: AV,
        num_groups: int,
        seed: int,
        label: int,
        options: JointFlowOptions,
    ) -> AV:
        """Return codec latents of what is known and so many groups made in between."""
        gap = before.map(lambda x: x.new_zeros(1, num_groups, *x.shape[2:]))
        known = before.map(lambda *x: torch.cat(x, dim=1), gap, after)
        first = before["video"].shape[1]
        missing = range(first, first + num_groups)
        made = fill_groups(
            self.transformer,
            [seed],
            self._labels(label, 1),
            options,
            known=self.transformer.scaled(known),
            missing=dict.fromkeys(MODALITIES, missing),
        )
        return self.transformer.restored(made)

    def _rows(self, latents: AV, batch: int) -> AV | None:
        """Return scaled latents repeated over a batch; None for none."""
        if not latents.present:
            return None
        return self.transformer.scaled(latents.map(lambda x: x.expand(batch, *x.shape[1:])))

    def _labels(self, label: int, batch: int) -> Tensor:
        return torch.full((batch,), label, device=self.transformer.get_buffer("audio_mean").device)


def _decoded(
    decoder: FilmDecoder, groups: Iterator[AV], film: Film, wanted: Sequence[str]
) -> Iterator[AV]:
    """Decode the groups that a film needs, all there are for one without an end."""
    needed = film.num_groups
    for latents in groups:
        kept = AV(*(latents[m][:, :needed] if m in wanted else None for m in MODALITIES))
        piece = decoder.push(kept)
        if piece is not None:
            yield piece
        if needed is not None:
            needed = max(0, needed - latents.tensors[0].shape[1])
            if not needed:
                rest = decoder.finish(wanted)
                if rest is not None:
                    yield rest
                return
