"""Making films: sampled groups, decoded as they come."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.film_clock import only
from soundreel.films import FilmInputs
from soundreel.systems.joint_flow.audio_codec import AudioCodec
from soundreel.systems.joint_flow.config import JointFlowOptions
from soundreel.systems.joint_flow.film import (
    FilmDecoder,
    clips_of,
    first_frames,
    latents_of,
    num_frames_of,
)
from soundreel.systems.joint_flow.film_request import Film, ending, whole_frames
from soundreel.systems.joint_flow.given import GivenPictures, GivenSound
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

    def encode(self, clip: Clip) -> AV:
        """Return a clip's codec latents, see `latents_of`."""
        return latents_of(clip, self.clip, self.video.linear, self.audio)

    @torch.no_grad()
    def pieces(
        self, inputs: FilmInputs, seed: int, label: int, options: JointFlowOptions
    ) -> Iterator[Clip]:
        """Yield the pieces of a film, what it goes on from and what is given among them.

        Raises:
            SoundreelError: a clip is too short, or not shorter than the film; see `fill` for gaps.
        """
        if inputs.between is not None and inputs.num_frames is not None:
            before, after = inputs.between
            made = self.fill(before, after, inputs.num_frames, seed, label, options)
            yield from (before, made, after)
            return
        given, film = None, Film(inputs.num_frames)
        if inputs.pictures is not None:
            given = GivenPictures(inputs.pictures, self.video.linear)
            film = Film(inputs.num_frames, given, wanted=("audio",))
        elif inputs.sound is not None:
            given = GivenSound(inputs.sound, self.audio, self.clip)
            film = Film(inputs.num_frames, given, wanted=("video",))
        elif inputs.after is not None:
            past = only(inputs.after, inputs.modality)
            film = self._sequel(past, inputs.num_frames)
            yield past
        for piece in self.film(film, range(seed, seed + 1), label, options):
            (clip,) = clips_of([piece], self.clip)
            yield clip if given is None else given.beside(clip)

    def _sequel(self, past: Clip, num_frames: int | None) -> Film:
        """Return what is to be made after a clip of the model's size and rates."""
        length = whole_frames(past, self.clip)
        made = None if num_frames is None else num_frames - length
        if made is not None and made < 1:
            raise SoundreelError(
                f"the film is to last {float((num_frames or 0) / self.clip.frame_rate):g} s, but"
                f" the clip that it begins with lasts {past.duration_s:g} s; ask for a longer film"
            )
        latents = ending(past, self.clip, self.encode, self.window // 2)
        return Film(made, past=latents, wanted=latents.present)

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
        past = self._rows(film.past, len(seeds)) if film.past.present else None
        skip = 0 if past is None else past.tensors[0].shape[1] * HOP
        decoder = FilmDecoder(self.video, self.audio, seeds, skip, precision=options.precision)
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
            given=self._given(film, len(seeds)),
            callback=lambda *_: None if callback is None else callback(next(steps)),
        )
        left = film.num_frames
        for piece in _decoded(decoder, map(self.transformer.restored, groups), film):
            whole = piece if left is None else first_frames(piece, left, self.clip)
            frames = num_frames_of(whole, self.clip)
            if frames:
                yield whole
            left = None if left is None else left - frames

    @torch.no_grad()
    def fill(
        self,
        before: Clip,
        after: Clip,
        num_frames: int,
        seed: int,
        label: int,
        options: JointFlowOptions,
    ) -> Clip:
        """Return what lies between two clips of the model's size and rates, unrounded.

        Raises:
            SoundreelError: the gap is longer than a window has place for, or a clip is too short.
        """
        hops, longest = -(-num_frames // HOP), self.window - 3
        if hops > longest:
            raise SoundreelError(
                f"a gap of {float(num_frames / self.clip.frame_rate):g} s; this model fills up to"
                f" {float(longest * HOP / self.clip.frame_rate):g} s"
            )
        room = longest + 2 - hops  # groups of the window that are known
        first = ending(before, self.clip, self.encode, room // 2)
        # The clip after it begins within a hop: its first frames are made as well, and left out.
        over = hops * HOP - num_frames
        wanted = over + (room - room // 2 + 1) * HOP
        length = min(whole_frames(after, self.clip), wanted) - over
        if length < 2 * HOP:
            raise SoundreelError(
                f"the clip after the gap lasts {after.duration_s:g} s; at least"
                f" {float((2 * HOP + over) / self.clip.frame_rate):g} s are needed"
            )
        rate = self.clip.frame_rate
        last = self.encode(after.cut(over / rate, length / rate)).map(
            lambda x: x[:, 1 : length // HOP]
        )
        latents = self._filled(first, last, hops + 1, seed, label, options)
        skip = first["video"].shape[1] * HOP
        decoder = FilmDecoder(self.video, self.audio, [seed], skip, precision=options.precision)
        pieces = [decoder.push(latents), decoder.finish(latents.present)]
        (whole,) = clips_of([piece for piece in pieces if piece is not None], self.clip)
        return whole.cut(0, num_frames / rate)

    def _filled(
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

    def _given(self, film: Film, batch: int) -> Callable[[int], AV] | None:
        """Return what tells the next scaled groups of what is given; None for nothing."""
        if film.given is None:
            return None
        groups, modality = film.given.begin(), film.given.modality
        return lambda length: self._rows(AV(None, None).replace(modality, groups(length)), batch)

    def _rows(self, latents: AV, batch: int) -> AV:
        """Return scaled latents repeated over a batch."""
        return self.transformer.scaled(latents.map(lambda x: x.expand(batch, *x.shape[1:])))

    def _labels(self, label: int, batch: int) -> Tensor:
        return torch.full((batch,), label, device=self.transformer.get_buffer("audio_mean").device)


def _decoded(decoder: FilmDecoder, groups: Iterator[AV], film: Film) -> Iterator[AV]:
    """Decode the groups that a film needs, all there are for one without an end."""
    needed = film.num_groups
    for latents in groups:
        kept = AV(*(latents[m][:, :needed] if m in film.wanted else None for m in MODALITIES))
        piece = decoder.push(kept)
        if piece is not None:
            yield piece
        if needed is not None:
            needed = max(0, needed - latents.tensors[0].shape[1])
            if not needed:
                rest = decoder.finish(film.wanted)
                if rest is not None:
                    yield rest
                return
