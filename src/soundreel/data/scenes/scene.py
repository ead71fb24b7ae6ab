"""Base of scenes: a plan drawn at random once, painted at any time and sounded at any rate.

Nothing in a plan depends on picture size, frame rate or sample rate, so that one (seed, index) is
one scene at every setting. Times are in seconds on the clip's clock, positions in picture heights
(see `canvas`).
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from soundreel.data.scenes.canvas import Canvas
from soundreel.data.scenes.sound import Sound, Wave

PRE_ROLL_S = 1.5  # scenes run before the clip starts, so that clips do not begin from silence


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happens at one moment.

    Attributes:
        kind: word for what happens, e.g. "bounce", "flash", "thunder".
        time_s: when, on the clip's clock.
        x: position to the right of the middle, in picture heights.
        y: position below the top edge, in picture heights.
        strength: 0 to 1; loudness and size of what is seen follow it.
        pitch_hz: main frequency of its sound, 0 where it has none.
        is_visible: whether it can be seen (off-screen sounds and thunder cannot).
        is_audible: whether it can be heard (a lightning flash and distractors cannot).
    """

    kind: str
    time_s: float
    x: float = 0.0
    y: float = 0.0
    strength: float = 1.0
    pitch_hz: float = 0.0
    is_visible: bool = True
    is_audible: bool = True

    def to_json(self) -> dict[str, Any]:
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Inputs of a plan: the clip's length, the picture's shape, and what was asked for."""

    duration_s: float
    half_width: float
    thunder_delay_s: float | None = None


@runtime_checkable
class Scene(Protocol):
    """A planned scene of one kind."""

    events: list[Event]
    parameters: dict[str, Any]

    def background(self, canvas: Canvas) -> None:
        """Paint what does not move."""
        ...

    def paint(self, canvas: Canvas, time_s: float) -> None:
        """Paint what moves, as it is at one moment."""
        ...

    def sound(self, sound: Sound) -> None:
        """Add the scene's sounds."""
        ...

    def activity(self, time_s: Wave) -> Wave:
        """Return how much happens, 0 to 1, at every time: what is seen and heard follow it."""
        ...


@dataclass(kw_only=True)
class DiscreteScene:
    """Base of scenes made of events: activity is a train of short decays after them."""

    events: list[Event] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)

    def activity(self, time_s: Wave) -> Wave:
        level = np.zeros_like(time_s)
        for event in self.events:
            age = time_s - event.time_s
            decay = np.exp(-np.maximum(age, 0) / 0.08)  # of a minute before it would overflow
            level = np.maximum(level, event.strength * decay * (age >= 0))
        return level


def event_times(
    rng: np.random.Generator, duration_s: float, mean_gap_s: float, min_gap_s: float
) -> list[float]:
    """Return irregular times from before the clip to its end, at least `min_gap_s` apart.

    At least one lies within the clip, away from its edges where it is long enough.
    """
    times = [-PRE_ROLL_S + rng.uniform(0, mean_gap_s)]
    while times[-1] < duration_s:
        times.append(times[-1] + min_gap_s + rng.exponential(max(mean_gap_s - min_gap_s, 1e-3)))
    times.pop()
    margin = min(0.15, 0.1 * duration_s)
    if not any(margin <= t <= duration_s - 2 * margin for t in times):
        extra = rng.uniform(margin, duration_s - 2 * margin)
        times = [t for t in times if abs(t - extra) >= min_gap_s]
        times = sorted([*times, extra])
    return times


def since(times: list[float], time_s: float) -> list[float]:
    """Return ages of the events that have happened, newest first."""
    return [time_s - t for t in reversed(times) if t <= time_s]
