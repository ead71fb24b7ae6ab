"""Scenes of the night sky: fireworks, and lightning with its thunder."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from soundreel.data.scenes.canvas import Array, Canvas, Colour, rgb
from soundreel.data.scenes.palette import hsv, mix, scaled
from soundreel.data.scenes.scene import DiscreteScene, Event, Setting, event_times
from soundreel.data.scenes.sound import Sound
from soundreel.errors import SoundreelError

SHORTEST_LIGHTNING_S = 0.2  # for the bolt, and a thunder that is heard apart from it


@dataclass(kw_only=True)
class Fireworks(DiscreteScene):
    """Rockets that climb and burst: the boom comes with the burst, louder for larger ones."""

    hues: list[float]
    stars: Array  # per spark of a burst: unit direction x, y, and speed
    sky: Colour
    skyline: Array

    CLIMB_S = 0.55

    @classmethod
    def plan(cls, rng: np.random.Generator, setting: Setting) -> "Fireworks":
        times = event_times(rng, setting.duration_s, rng.uniform(0.5, 0.9), 0.28)
        events = [
            Event(
                kind="burst",
                time_s=time,
                x=rng.uniform(-0.7, 0.7) * setting.half_width,
                y=rng.uniform(0.2, 0.46),
                strength=rng.uniform(0.5, 1.0),
                pitch_hz=rng.uniform(55, 95),
            )
            for time in times
        ]
        angle = rng.uniform(0, 2 * np.pi, 90)
        flat = np.sqrt(rng.uniform(0, 1, 90))
        stars = np.stack([np.cos(angle) * flat, np.sin(angle) * flat], 1)
        return cls(
            events=events,
            parameters={"num_bursts": sum(e.time_s >= 0 for e in events)},
            hues=[rng.uniform() for _ in events],
            stars=stars.astype(np.float32),
            sky=hsv(rng.uniform(0.6, 0.78), rng.uniform(0.6, 0.9), rng.uniform(0.16, 0.3)),
            skyline=rng.uniform(0.8, 0.95, 40).astype(np.float32),
        )

    def background(self, canvas: Canvas) -> None:
        canvas.gradient((0, scaled(self.sky, 0.35)), (0.9, scaled(self.sky, 1.5)), (1, self.sky))
        canvas.below(
            lambda x: self.skyline[np.floor(x / 0.07).astype(int) % 40],
            (0.03, 0.03, 0.06),
            (0.01, 0.01, 0.03),
        )

    def paint(self, canvas: Canvas, time_s: float) -> None:
        for event, hue in zip(self.events, self.hues, strict=True):
            age = time_s - event.time_s
            if -self.CLIMB_S < age < 0:
                left = -age / self.CLIMB_S
                y = event.y + (0.95 - event.y) * left**1.5
                trail = np.linspace(0, 1, 12)
                canvas.particles(
                    np.full(12, event.x), y + 0.12 * trail, 0.009, (1.0, 0.8, 0.5), 1 - trail
                )
            if 0 <= age < 1.5:
                size = 0.16 + 0.2 * event.strength
                travel = size * -np.expm1(-3.2 * age) * 1.05
                x = event.x + self.stars[:, 0] * travel
                y = event.y + self.stars[:, 1] * travel + 0.13 * age * age
                fade = max(0.0, 1 - age / 1.5) ** 1.3
                twinkle = 0.7 + 0.3 * np.sin(30 * age + 7 * np.arange(len(x)))
                colour = mix(hsv(hue, 0.75, 1.0), (1, 1, 1), 0.6 * np.exp(-age / 0.12))
                canvas.particles(x, y, 0.012, colour, 1.9 * fade * twinkle)
                canvas.particles(
                    event.x + (x - event.x) * 0.86,
                    event.y + (y - event.y) * 0.86,
                    0.01,
                    scaled(colour, 0.55),
                    fade * twinkle,
                )
                flash = event.strength * np.exp(-age / 0.09)
                canvas.glow(event.x, event.y, 0.2 + 0.2 * event.strength, colour, 1.1 * flash)
                canvas.pixels += 0.1 * flash * rgb(colour)

    def sound(self, sound: Sound) -> None:
        for event in self.events:
            start, level = event.time_s, event.strength
            sound.burst(start, 0.13, (45, 420), 0.5 * level)
            sound.burst(start, 0.02, (400, 4000), 0.28 * level)
            sound.modes(start, [event.pitch_hz], [0.16], [0.45 * level])
            for _ in range(int(26 * level)):
                lag = 0.1 + sound.rng.exponential(0.28)
                sound.burst(start + lag, 0.004, (2500, 7000), 0.09 * level * np.exp(-lag))
            sound.burst(start - self.CLIMB_S, 0.2, (900, 2600), 0.018, attack_s=0.15)
        sound.room(0.5, 0.4)


@dataclass(kw_only=True)
class Lightning(DiscreteScene):
    """Lightning over hills, and its thunder after one chosen delay (as of one distance)."""

    bolts: list[Array]
    delay_s: float
    hills: Array
    tone: Colour

    @classmethod
    def plan(cls, rng: np.random.Generator, setting: Setting) -> "Lightning":
        delay = setting.thunder_delay_s
        if delay is None:
            if setting.duration_s < SHORTEST_LIGHTNING_S:
                raise SoundreelError(
                    f"lightning and its thunder need clips of {SHORTEST_LIGHTNING_S} s or more, got"
                    f" {setting.duration_s:g} s; make them longer, or choose other kinds"
                )
            delay = rng.uniform(0.05, min(0.6, 0.3 * setting.duration_s))
        times = event_times(rng, setting.duration_s - delay, rng.uniform(0.7, 1.2), 0.5)
        events, bolts = [], []
        for time in times:
            x, strength = rng.uniform(-0.65, 0.65) * setting.half_width, rng.uniform(0.55, 1.0)
            bolts.append(_bolt(rng, x))
            events.append(
                Event(kind="flash", time_s=time, x=x, y=0.4, strength=strength, is_audible=False)
            )
            events.append(
                Event(
                    kind="thunder",
                    time_s=time + delay,
                    x=x,
                    y=0.4,
                    strength=strength,
                    pitch_hz=70.0,
                    is_visible=False,
                )
            )
        return cls(
            events=sorted(events, key=lambda e: e.time_s),
            parameters={"thunder_delay_s": delay},
            bolts=bolts,
            delay_s=delay,
            hills=rng.uniform(0, 2 * np.pi, 4).astype(np.float32),
            tone=hsv(rng.uniform(0.58, 0.78), rng.uniform(0.35, 0.65), rng.uniform(0.22, 0.34)),
        )

    def background(self, canvas: Canvas) -> None:
        canvas.gradient((0, scaled(self.tone, 0.5)), (0.75, scaled(self.tone, 1.7)), (1, self.tone))
        for k, (x, y) in enumerate(((-0.5, 0.12), (-0.15, 0.06), (0.2, 0.13), (0.55, 0.07))):
            shade = scaled(self.tone, 0.62 + 0.1 * (k % 2))
            canvas.ellipse(x, y, 0.32, 0.1, shade, 0.85, 0.08)
            canvas.ellipse(x + 0.17, y + 0.05, 0.2, 0.07, scaled(shade, 0.85), 0.8, 0.07)

    def paint(self, canvas: Canvas, time_s: float) -> None:
        flashes = [e for e in self.events if e.kind == "flash"]
        for event, bolt in zip(flashes, self.bolts, strict=True):
            age = time_s - event.time_s
            if not 0 <= age < 0.5:
                continue
            flicker = 0.75 + 0.25 * np.cos(2 * np.pi * 11 * age)
            light = event.strength * np.exp(-age / 0.13) * flicker
            canvas.pixels += 0.55 * light * rgb((0.75, 0.8, 1.0))
            canvas.glow(event.x, 0.12, 0.35, (0.75, 0.78, 1.0), 0.9 * light)
            if age < 0.32:
                for (x0, y0, width), (x1, y1, _) in pairwise(bolt):
                    if width > 0:
                        canvas.segment((x0, y0), (x1, y1), width, (1, 1, 1), min(1.0, 1.6 * light))
        first, second, third, fourth = self.hills
        canvas.below(
            lambda x: 0.78 + 0.05 * np.sin(4 * x + first) + 0.02 * np.sin(11 * x + second),
            scaled(self.tone, 0.4),
            scaled(self.tone, 0.2),
        )
        canvas.below(
            lambda x: 0.88 + 0.04 * np.sin(5 * x + third) + 0.012 * np.sin(19 * x + fourth),
            scaled(self.tone, 0.22),
            scaled(self.tone, 0.1),
        )

    def sound(self, sound: Sound) -> None:
        for event in self.events:
            if event.kind == "thunder":
                start, level = event.time_s, event.strength
                near = np.exp(-2.5 * self.delay_s)  # far thunder has lost its crack
                sound.burst(start, 0.035, (500, 4500), 0.5 * level * near)
                sound.burst(start, 0.18, (50, 500), 0.6 * level, attack_s=0.004)
                for lag in (0.12, 0.21, 0.37, 0.55):
                    jitter = sound.rng.uniform(0, 0.06)
                    sound.burst(start + lag + jitter, 0.22, (40, 240), 0.24 * level, attack_s=0.05)
        wind = 0.5 + 0.5 * np.sin(2 * np.pi * 0.23 * sound.time + float(self.hills[0]))
        sound.texture(0.3 + 0.7 * wind, (150, 900), 0.012)
        sound.room(0.45, 0.35)


def _bolt(rng: np.random.Generator, x: float) -> Array:
    """Return a jagged path with branches as rows of x, y, half width; width 0 lifts the pen."""
    rows: list[tuple[float, float, float]] = []
    ys = np.linspace(0.08, 0.8, 11)
    path = x + np.cumsum(rng.normal(0, 0.035, 11))
    rows += [(float(a), float(b), 0.0085) for a, b in zip(path, ys, strict=True)]
    for k in rng.choice(np.arange(3, 8), 2, replace=False):
        rows[-1] = (*rows[-1][:2], 0.0)
        side = rng.choice([-1, 1])
        a, b = float(path[k]), float(ys[k])
        for step in range(4):
            rows.append((a, b, 0.005 if step < 3 else 0.0))
            a += float(side * rng.uniform(0.02, 0.07))
            b += float(rng.uniform(0.03, 0.06))
    return np.asarray(rows, np.float32)
