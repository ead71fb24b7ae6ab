"""Ways of asking that people know from elsewhere, the same for every pipeline.

Lists give clips one after the other, `progress=True` shows a bar, and two arguments may have the
names that `diffusers` gives them.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.progress import progress_bar
from soundreel.request import check_counts

LISTED = ("label", "text", "video", "audio")
"""Arguments that may be lists."""


def familiar_names(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method of a pipeline take the names that `diffusers` gives two of its arguments.

    `num_inference_steps` is `num_steps`. `generator`, a `torch.Generator`, draws the seed: the same
    state gives the same clips, and the state moves on.
    """

    @wraps(method)
    def named(*args: Any, **asked: Any) -> Any:
        if "num_inference_steps" in asked:
            _exclude(asked, "num_inference_steps", "num_steps")
            asked["num_steps"] = asked.pop("num_inference_steps")
        if asked.get("generator") is not None:
            _exclude(asked, "generator", "seed")
            state = asked["generator"]
            if not isinstance(state, torch.Generator):
                raise SoundreelError(f"generator is one torch.Generator, got {state!r}")
            drawn = torch.randint(2**62, (), generator=state, device=state.device)
            asked["seed"] = int(drawn)
        asked.pop("generator", None)
        return method(*args, **asked)

    return named


def familiar(generate: Callable[..., list[Clip]]) -> Callable[..., list[Clip]]:
    """Let a pipeline's `generate` take lists, `progress=True` and `familiar_names`.

    Lists of `label`, `text`, `video` or `audio` have one length; they give `count` clips for each
    of their entries, with the seeds from `seed` on. `progress=True` shows a bar where standard
    error is a terminal or a notebook.
    """

    @familiar_names
    @wraps(generate)
    def asked_for(*args: Any, **asked: Any) -> list[Clip]:
        progress = asked.get("progress")
        if not isinstance(progress, bool):
            return _each(generate, args, asked)
        if not progress:
            return _each(generate, args, asked | {"progress": None})
        with progress_bar("sampling") as advance:
            return _each(generate, args, asked | {"progress": advance})

    return asked_for


def _each(
    generate: Callable[..., list[Clip]], args: tuple[Any, ...], asked: dict[str, Any]
) -> list[Clip]:
    """Return the clips of each entry of the lists that are given."""
    lists = {n: asked[n] for n in LISTED if isinstance(asked.get(n), list | tuple)}
    if not lists:
        return generate(*args, **asked)
    lengths = sorted({len(entries) for entries in lists.values()})
    if len(lengths) != 1 or not lengths[0]:
        told = " and ".join(f"{len(entries)} of {name}" for name, entries in lists.items())
        raise SoundreelError(f"lists have one length, and are not empty; got {told}")
    count, seed, progress = asked.get("count", 1), asked.get("seed", 0), asked.get("progress")
    check_counts(count * lengths[0], seed, 1)
    clips: list[Clip] = []
    for number, entries in enumerate(zip(*lists.values(), strict=True)):

        def advance(done: int, total: int, number: int = number) -> None:
            if progress is not None:
                progress(number * total + done, lengths[0] * total)

        one = dict(zip(lists, entries, strict=True))
        one |= {"seed": seed + number * count, "progress": advance}
        clips += generate(*args, **asked | one)
    return clips


def _exclude(asked: dict[str, Any], name: str, ours: str) -> None:
    """Raise `SoundreelError` where an argument is given under two names."""
    if asked.get(ours) is not None:
        raise SoundreelError(f"{name} and {ours} say the same; give one of them")
