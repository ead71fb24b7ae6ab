"""Scenes of fire and machinery: a crackling camp fire, and an engine whose pitch follows its
wheel.
"""

from dataclasses import dataclass

import numpy as np

from soundreel.data.scenes.canvas import Array, Canvas, Colour
from soundreel.data.scenes.palette import hsv, scaled
from soundreel.data.scenes.scene import Event, Setting, event_times
from soundreel.data.scenes.sound import Sound, Wave, smooth_curve
from soundreel.data.scenes.water import ContinuousScene


@dataclass(kw_only=True)
class Fire(ContinuousScene):
    """A fire at night: flames and hiss follow one flicker, sparks fly at every crackle."""

    tongues: Array  # per flame particle: x, phase, rate, size
    sparks: Array
    ground: Colour

    NUM_TONGUES = 130

    @classmethod
    def plan(cls, rng: np.random.Generator, setting: Setting) -> "Fire":
        count = cls.NUM_TONGUES
        slow = smooth_curve(rng, rng.uniform(0.6, 1.0), 0.2, 1.0)
        times = event_times(rng, setting.duration_s, rng.uniform(0.3, 0.55), 0.1)
        events = [
            Event(
                kind="crackle",
                time_s=time,
                x=rng.uniform(-0.12, 0.12),
                y=0.74,
                strength=rng.uniform(0.35, 1.0),
                pitch_hz=rng.uniform(900, 2600),
            )
            for time in times
        ]
        return cls(
            level=slow,
            events=events,
            tongues=np.stack(
                [
                    rng.normal(0, 0.085, count),
                    rng.uniform(0, 1, count),
                    rng.uniform(1.1, 2.2, count),
                    rng.uniform(0.6, 1.1, count),
                ],
                1,
            ).astype(np.float32),
            sparks=np.stack([rng.uniform(-2.6, -0.55, 12), rng.uniform(0.5, 1.3, 12)], 1).astype(
                np.float32
            ),
            ground=hsv(rng.uniform(0.05, 0.3), rng.uniform(0.3, 0.6), rng.uniform(0.1, 0.18)),
        )

    def background(self, canvas: Canvas) -> None:
        canvas.gradient((0, (0.02, 0.03, 0.08)), (0.75, (0.09, 0.06, 0.1)), (1, (0.05, 0.04, 0.05)))
        canvas.below(lambda x: 0.76 + 0.01 * np.sin(8 * x), scaled(self.ground, 1.6), self.ground)

    def paint(self, canvas: Canvas, time_s: float) -> None:
        level = self.level_at(time_s)
        canvas.glow(0, 0.74, 0.5, (1.0, 0.42, 0.12), 0.2 + 0.42 * level)
        canvas.ellipse(0, 0.86, 0.34, 0.06, (0.6, 0.28, 0.1), 0.2 + 0.5 * level, 0.12)
        for side in (-1, 1):
            canvas.segment((-0.2 * side, 0.86), (0.17 * side, 0.8), 0.03, (0.23, 0.13, 0.09))
            canvas.segment((-0.2 * side, 0.85), (0.17 * side, 0.79), 0.008, (0.45, 0.2, 0.08))
        x, phase, rate, size = self.tongues.T
        age = (phase + rate * time_s) % 1.0
        height = (0.16 + 0.44 * level) * size
        sway = 0.03 * np.sin(7 * time_s + 9 * phase) * age
        xs = x * (1 - 0.75 * age) + sway
        ys = 0.82 - height * age
        heat = (1 - age) ** 1.2 * (0.35 + 0.65 * level)
        colour = np.stack([np.ones_like(age), 0.62 - 0.42 * age, 0.2 * (1 - age) ** 2], 1)
        canvas.particles(xs, ys, 0.05, colour, 0.30 * heat)
        canvas.particles(0.6 * xs, 0.84 - 0.55 * height * age, 0.032, (1.0, 0.75, 0.35), 0.2 * heat)
        for event in self.events:
            since = time_s - event.time_s
            if 0 <= since < 0.6:
                fade = event.strength * (1 - since / 0.6)
                travel = self.sparks[:, 1] * since * 0.9
                sx = event.x + np.cos(self.sparks[:, 0]) * travel
                sy = event.y + np.sin(self.sparks[:, 0]) * travel + 0.5 * since * since
                canvas.particles(sx, sy, 0.011, (1.0, 0.7, 0.3), 2.2 * fade)
                flash = event.strength * np.exp(-since / 0.07)
                canvas.glow(event.x, event.y, 0.12, (1.0, 0.75, 0.4), 0.9 * flash)

    def sound(self, sound: Sound) -> None:
        level = self.activity_of(sound)
        sound.texture(level**1.5, (90, 500), 0.1)
        sound.texture(level**1.5, (1200, 5000), 0.02)
        for event in self.events:
            sound.burst(event.time_s, 0.005, (800, 6500), 0.55 * event.strength)
            sound.modes(event.time_s, [event.pitch_hz], [0.012], [0.3 * event.strength])


@dataclass(kw_only=True)
class Engine(ContinuousScene):
    """A piston and its flywheel: pitch and loudness follow the speed of the wheel."""

    angle: Array  # wheel angle in turns, on a grid of GRID_HZ from -1 s on
    slowest: float
    fastest: float
    firings: int
    paint_colour: Colour
    wall: Colour

    GRID_HZ = 500
    GRID_START_S = -1.0

    @classmethod
    def plan(cls, rng: np.random.Generator, setting: Setting) -> "Engine":
        slowest, fastest = rng.uniform(0.35, 0.7), rng.uniform(1.8, 2.6)
        level = smooth_curve(rng, rng.uniform(0.9, 1.7), 0.0, 1.0)
        grid = np.arange(cls.GRID_START_S, setting.duration_s + 1, 1 / cls.GRID_HZ)
        speed = slowest + (fastest - slowest) * np.clip(level(grid), 0, 1)
        firings = int(rng.integers(22, 40))
        return cls(
            level=level,
            parameters={"turns_per_s": [slowest, fastest], "firings_per_turn": firings},
            angle=(np.cumsum(speed) / cls.GRID_HZ + rng.uniform()).astype(np.float64),
            slowest=slowest,
            fastest=fastest,
            firings=firings,
            paint_colour=hsv(rng.uniform(), rng.uniform(0.5, 0.8), rng.uniform(0.55, 0.85)),
            wall=hsv(rng.uniform(), rng.uniform(0.1, 0.3), rng.uniform(0.5, 0.8)),
        )

    def background(self, canvas: Canvas) -> None:
        shadow = scaled(self.wall, 0.7)
        canvas.gradient((0, scaled(self.wall, 1.1)), (0.84, shadow), (1, shadow))
        canvas.below(
            lambda x: np.full_like(x, 0.86), scaled(self.wall, 0.5), scaled(self.wall, 0.3)
        )
        canvas.box(-0.18, 0.84, 0.2, 0.05, scaled(self.paint_colour, 0.55), rounding=0.01)
        canvas.box(0.32, 0.84, 0.13, 0.05, scaled(self.paint_colour, 0.55), rounding=0.01)
        canvas.box(0.34, 0.56, 0.13, 0.11, scaled(self.paint_colour, 0.8), rounding=0.02)
        canvas.box(0.34, 0.49, 0.12, 0.015, self.paint_colour, rounding=0.01)
        canvas.segment((0.34, 0.73), (0.34, 0.82), 0.05, scaled(self.paint_colour, 0.5))
        canvas.box(0.43, 0.36, 0.025, 0.1, (0.3, 0.3, 0.33))

    def paint(self, canvas: Canvas, time_s: float) -> None:
        turns = float(np.interp(time_s, self._grid(), self.angle))
        level = self.level_at(time_s)
        theta = 2 * np.pi * turns
        cx, cy, radius = -0.18, 0.54, 0.27
        canvas.segment((cx, cy), (cx, 0.8), 0.045, scaled(self.paint_colour, 0.5))
        canvas.ring(cx, cy, radius, radius, 0.03, scaled(self.paint_colour, 0.95))
        canvas.ring(cx, cy, radius + 0.02, radius + 0.02, 0.006, scaled(self.paint_colour, 1.3))
        for spoke in range(5):
            way = theta + 2 * np.pi * spoke / 5
            tip = (cx + radius * np.cos(way), cy + radius * np.sin(way))
            colour = (0.95, 0.9, 0.75) if spoke == 0 else scaled(self.paint_colour, 0.75)
            canvas.segment((cx, cy), tip, 0.018, colour)
        pin = (cx + 0.14 * np.cos(theta), cy + 0.14 * np.sin(theta))
        slide = pin[0] + np.sqrt(0.42**2 - (pin[1] - 0.56) ** 2)
        canvas.segment((slide, 0.56), (0.44, 0.56), 0.028, (0.75, 0.77, 0.8))
        canvas.segment(pin, (slide, 0.56), 0.02, (0.82, 0.83, 0.86))
        canvas.disc(*pin, 0.03, (0.25, 0.25, 0.28))
        canvas.disc(cx, cy, 0.045, (0.3, 0.3, 0.33))
        for k in range(6):
            age = (1.6 * time_s * (0.6 + level) + k / 6) % 1.0
            grey = 0.82 - 0.25 * age
            canvas.ellipse(
                0.43 + 0.05 * np.sin(9 * age + k),
                0.25 - 0.26 * age,
                0.03 + 0.07 * age,
                0.03 + 0.06 * age,
                (grey, grey, grey),
                (0.15 + 0.6 * level) * (1 - age),
                0.05,
            )

    def sound(self, sound: Sound) -> None:
        level = self.activity_of(sound)
        turns_per_s = self.slowest + (self.fastest - self.slowest) * level
        firing_hz = self.firings * turns_per_s
        loudness = 0.35 + 0.65 * level
        harmonics = [0.3 / k**0.85 * (1 + 0.7 * np.cos(1.9 * k)) for k in range(1, 19)]
        sound.tone(firing_hz, [0.55 * h for h in harmonics], loudness)
        sound.tone(firing_hz / 2, [0.06, 0.0, 0.05, 0.0, 0.03], loudness)
        pulses = 0.5 + 0.5 * np.sin(2 * np.pi * np.cumsum(firing_hz) / sound.sample_rate)
        sound.texture(loudness * pulses**2, (300, 2500), 0.07)

    def _grid(self) -> Wave:
        return self.GRID_START_S + np.arange(len(self.angle)) / self.GRID_HZ
