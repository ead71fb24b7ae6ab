"""Distractions that make a scene harder: silent things to see, and sounds of things that cannot be
seen."""

from dataclasses import dataclass

import numpy as np

from soundreel.data.scenes.canvas import Canvas, Colour
from soundreel.data.scenes.palette import hsv, scaled
from soundreel.data.scenes.scene import Event, Setting
from soundreel.data.scenes.sound import Sound


@dataclass(frozen=True, kw_only=True)
class Drifter:
    """A balloon that floats through the picture, without a sound."""

    start_x: float
    speed_x: float
    y: float
    radius: float
    bob_hz: float
    colour: Colour
    span: float

    @classmethod
    def plan(cls, rng: np.random.Generator, setting: Setting) -> "Drifter":
        return cls(
            start_x=rng.uniform(-1, 1) * setting.half_width,
            speed_x=rng.choice([-1, 1]) * rng.uniform(0.12, 0.4),
            y=rng.uniform(0.2, 0.55),
            radius=rng.uniform(0.035, 0.07),
            bob_hz=rng.uniform(0.4, 1.1),
            colour=hsv(rng.uniform(), rng.uniform(0.5, 0.9), rng.uniform(0.7, 1.0)),
            span=2 * setting.half_width + 0.3,
        )

    def paint(self, canvas: Canvas, time_s: float) -> None:
        x = (self.start_x + self.speed_x * time_s + self.span / 2) % self.span - self.span / 2
        y = self.y + 0.05 * np.sin(2 * np.pi * self.bob_hz * time_s)
        foot = (x - 0.02 * np.sin(4 * time_s), y + 2.6 * self.radius)
        canvas.segment((x, y + self.radius), foot, 0.003, scaled(self.colour, 0.5))
        canvas.sphere(x, y, self.radius, self.colour, 1.12)


def offscreen_events(rng: np.random.Generator, setting: Setting, count: int) -> list[Event]:
    """Return knocks and chirps from outside the picture."""
    events = []
    for _ in range(count):
        is_knock = rng.uniform() < 0.5
        events.append(
            Event(
                kind="offscreen_knock" if is_knock else "offscreen_chirp",
                time_s=rng.uniform(0, 0.9) * setting.duration_s,
                strength=rng.uniform(0.5, 1.0),
                pitch_hz=rng.uniform(150, 320) if is_knock else rng.uniform(2200, 3400),
                is_visible=False,
            )
        )
    return events


def offscreen_sound(sound: Sound, events: list[Event]) -> None:
    """Add the sounds of `offscreen_events`."""
    for event in events:
        pitch, level = event.pitch_hz, event.strength
        if event.kind == "offscreen_knock":
            sound.modes(
                event.time_s, [pitch, 2.1 * pitch], [0.05, 0.03], [0.4 * level, 0.2 * level]
            )
            sound.burst(event.time_s, 0.004, (800, 4000), 0.12 * level)
        else:
            for lag in (0.0, 0.075, 0.15):
                sound.bubble(event.time_s + lag, pitch, 1.5, 0.014, 0.3 * level)
