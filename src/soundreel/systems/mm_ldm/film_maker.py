"""Films of MM-LDM: each window's latents are sampled in the knowledge of the window before.

Source: Sun et al. 2024 (arXiv 2410.01594), appendix on long video.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from soundreel.clip import Clip
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.errors import SoundreelError
from soundreel.film_clock import Modality
from soundreel.systems.mm_ldm.history_encoder import LongGenerator
from soundreel.systems.mm_ldm.settings import Request
from soundreel.types import AV, ClipSpec
from soundreel.unrounded import UnroundedClip

if TYPE_CHECKING:
    from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline

NOTHING = AV(None, None)
ALONE_OVERLAP = 8
"""Part of a window that it shares with the next where a generator knows no history."""


def window_overlap(generator: LongGenerator | None, clip: ClipSpec, *, is_given: bool) -> int:
    """Return how many frames neighbouring windows share.

    Args:
        generator: None for one that knows no history: it makes each window alone.
        is_given: the windows' pictures or sound are known.

    Raises:
        SoundreelError: each window would be made alone, for nothing.
    """
    if generator is not None:
        return generator.config.overlap
    if is_given:
        return clip.num_frames // ALONE_OVERLAP
    raise SoundreelError(
        "this model makes single windows; for films, train one of the presets for long video "
        "(mm-ldm-long-scenes, mm-ldm-long-small)"
    )


class LatentFilmMaker:
    """Makes windows from the latents of the one before; `soundreel.film.FilmMaker` says how.

    A generator that knows no history makes each window alone, for pictures or sound that are given.

    Args:
        request: what every window is asked for; its known modality is each window's own.
        modality: what of the past is known to the next window, and what is decoded.
    """

    def __init__(
        self, pipeline: "MMLDMPipeline", request: Request, modality: Modality, overlap: int
    ) -> None:
        self._pipeline = pipeline
        self._request = request
        self._kept = ("video", "audio") if modality == "both" else (modality,)
        self._overlap = overlap

    @property
    def clip(self) -> ClipSpec:
        return self._pipeline.clip

    @property
    def overlap(self) -> int:
        return self._overlap

    def begin(self, past: Clip | None) -> AV:
        """Return the standardised latents of what is known of the window before."""
        if past is None:
            return NOTHING
        return self._pipeline.encode_av(past.to_av(self.clip), precision=self._request.precision)

    def window(self, state: AV, given: Clip | None, seed: int) -> tuple[Clip, AV]:
        """Sample and decode one window; its latents are the next state."""
        pipeline, signal = self._pipeline, NOTHING if given is None else given.to_av(self.clip)
        request = replace(
            self._request,
            signal=signal,
            known=pipeline.encode_av(signal, precision=self._request.precision),
        )
        noise, label = PerSampleNoise([seed]), None
        if request.label is not None:
            label = torch.full((1,), request.label, device=pipeline.device)
        latents = pipeline.sample(request, noise, label, previous=state)
        av = pipeline.decode_av(
            latents,
            noise,
            wanted=[name for name in request.wanted if name in self._kept],
            decoding=request.decoding,
            label=label,
            precision=request.precision,
        )
        for name in signal.present:
            av = av.replace(name, signal[name])
        (clip,) = UnroundedClip.from_av(av, self.clip.frame_rate, self.clip.sample_rate)
        known = NOTHING
        for name in self._kept:
            known = known.replace(name, latents[name])
        return clip, known
