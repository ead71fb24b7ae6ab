"""`soundreel generate --upscale MODEL`: clips enlarged from what the base model made, unrounded."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from soundreel.clip import Clip
from soundreel.device import resolve_precision
from soundreel.errors import SoundreelError
from soundreel.protocols import Pipeline, Progress, Upscaler, with_options
from soundreel.systems import load_upscaler

PREFIX = "upscale_"
"""Prefix of the flags for a super-resolution model's options."""


@dataclass(frozen=True, kw_only=True)
class Upscaling:
    """A super-resolution model with the options that it is to be used with."""

    upscaler: Upscaler
    options: dict[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        """Return every option in use."""
        chosen = asdict(with_options(self.upscaler.options, self.options))
        device = getattr(self.upscaler, "device", None)
        if "precision" in chosen and device is not None:
            chosen["precision"] = resolve_precision(device, chosen["precision"])
        return chosen

    def clip(self, clip: Clip, seed: int, progress: Progress | None = None) -> Clip:
        """Return a clip with larger frames; one without frames stays as it is."""
        if clip.frames is None:
            return clip
        return self.upscaler.upscale_clip(clip, seed=seed, progress=progress, **self.options)

    def clips(
        self, pipeline: Pipeline, progress: Progress, request: dict[str, Any]
    ) -> Iterator[Clip]:
        """Yield the clips that `pipeline.generate(**request)` makes, enlarged one by one.

        Frames go from network to network as floats. A pipeline that has none to give (`signals`)
        hands its finished clips on.
        """
        seed = request["seed"]
        if not hasattr(pipeline, "signals"):
            for index, clip in enumerate(pipeline.generate(**request)):
                yield self.clip(clip, seed + index, progress)
            return
        index = 0
        for av in pipeline.signals(**request):
            rates = (pipeline.clip.frame_rate, pipeline.clip.sample_rate)
            for row, small in enumerate(Clip.from_av(av, *rates)):
                large = self.upscaler.upscale_frames(
                    av["video"][row].float(), seed=seed + index, progress=progress, **self.options
                )
                yield replace(small, frames=large)
                index += 1


def load_upscaling(
    name_or_path: str | None, options: dict[str, Any], device: str | None
) -> Upscaling | None:
    """Return the model that `--upscale` names with its options; None where there is none.

    Raises:
        SoundreelError: an option is out of range, or none is to be used.
        CheckpointError: there is no such model.
    """
    if name_or_path is None:
        if options:
            flags = ", ".join(f"--{(PREFIX + name).replace('_', '-')}" for name in options)
            raise SoundreelError(f"{flags}: of --upscale; give a super-resolution model")
        return None
    upscaler = load_upscaler(name_or_path, device=device)
    with_options(upscaler.options, options)
    return Upscaling(upscaler=upscaler, options=options)
