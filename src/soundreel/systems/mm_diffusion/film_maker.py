"""Films of MM-Diffusion, which was trained on single windows: the overlap with the last is given.

A window's first frames and the sound beneath them are those that the window before ended with; the
rest is sampled around them, as a missing modality is (`soundreel.diffusion.zero_shot`). By the
published rule of guidance, which knows whole modalities alone, windows share nothing.
"""

from typing import TYPE_CHECKING

import torch

from soundreel.clip import Clip
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.zero_shot import partial_guide
from soundreel.film_clock import FilmClock, Modality
from soundreel.types import AV, ClipSpec
from soundreel.unrounded import UnroundedClip

if TYPE_CHECKING:
    from soundreel.systems.mm_diffusion.pipeline import MMDiffusionOptions, MMDiffusionPipeline

OVERLAP_SHARE = 4
"""Part of a window that it shares with the one before."""


class OverlapFilmMaker:
    """Makes windows around the end of the one before; `soundreel.film.FilmMaker` says how.

    Args:
        modality: what of the past is given to the next window.
    """

    def __init__(
        self, pipeline: "MMDiffusionPipeline", options: "MMDiffusionOptions", modality: Modality
    ) -> None:
        self._pipeline = pipeline
        self._options = options
        self._kept = ("video", "audio") if modality == "both" else (modality,)
        self._is_official = options.guidance_rule == "official"

    @property
    def clip(self) -> ClipSpec:
        return self._pipeline.clip

    @property
    def overlap(self) -> int:
        return 0 if self._is_official else self.clip.num_frames // OVERLAP_SHARE

    def begin(self, past: Clip | None) -> AV:
        """Return the frames and the sound that the next window begins with."""
        if past is None:
            return AV(None, None)
        return self._end_of(past.to_av(self.clip).to(self._pipeline.device))

    def window(self, state: AV, given: Clip | None, seed: int) -> tuple[Clip, AV]:
        """Sample one window; its last frames and their sound are the next state."""
        pipeline, noise = self._pipeline, PerSampleNoise([seed])
        xt = noise(pipeline.template(1))
        if self._is_official and given is not None:
            whole = given.to_av(self.clip).to(pipeline.device)
            with torch.no_grad():
                av = pipeline.sample_given(whole, xt, noise, self._options)
            return self._clip_of(av), AV(None, None)
        signal, known = xt.map(torch.zeros_like), xt.map(torch.zeros_like)
        for name in state.present:
            length = state[name].shape[_axis(name)]
            signal[name].narrow(_axis(name), 0, length).copy_(state[name])
            known[name].narrow(_axis(name), 0, length).fill_(1)
        if given is not None:
            whole = given.to_av(self.clip).to(pipeline.device)
            for name in whole.present:
                signal = signal.replace(name, whole[name])
                known = known.replace(name, torch.ones_like(whole[name]))
        guide = None
        if given is not None or state.present:
            weight = self._options.guidance_weight
            guide = partial_guide(signal, known, xt, weight=weight)
        with torch.no_grad():
            av = pipeline.sample(xt, noise, self._options, guide=guide)
        av = known.map(lambda mask, a, b: torch.where(mask.bool(), a, b), signal, av)
        made = AV(None, None)
        for name in self._kept:
            made = made.replace(name, av[name])
        return self._clip_of(av), self._end_of(made)

    def _clip_of(self, av: AV) -> Clip:
        rates = (self.clip.frame_rate, self.clip.sample_rate)
        (clip,) = UnroundedClip.from_av(av, *rates)
        return clip

    def _end_of(self, av: AV) -> AV:
        """Return the part of a window that the next one shares."""
        clock = FilmClock(self.clip, self.overlap)
        starts = {"video": clock.hop, "audio": clock.sample(clock.hop)}
        lengths = {"video": self.overlap, "audio": clock.sample(self.overlap)}
        for name in av.present:
            end = av[name].narrow(_axis(name), starts[name], lengths[name])
            av = av.replace(name, end)
        return av


def _axis(modality: str) -> int:
    """Return the axis of time in `batch frame channel height width` or `batch channel sample`."""
    return 1 if modality == "video" else 2
