"""Scenes of water: drops into a pond, rain on a pavement, waves on a beach."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from soundreel.data.scenes.canvas import Array, Canvas, Colour, rgb
from soundreel.data.scenes.palette import hsv, mix, scaled
from soundreel.data.scenes.scene import PRE_ROLL_S, DiscreteScene, Event, Setting, event_times
from soundreel.data.scenes.sound import Sound, Wave, smooth_curve


@dataclass(kw_only=True)
class WaterDrops(DiscreteScene):
    """Drops that fall into a pond: large drops plop low, small ones plip high."""

    sizes: list[float]
    water: Colour
    splash: Array  # per splash droplet: direction, speed

    @classmethod
    def plan(cls, rng: np.random.Generator, setting: Setting) -> "WaterDrops":
        times = event_times(rng, setting.duration_s, rng.uniform(0.38, 0.7), 0.2)
        sizes = [rng.uniform(0.35, 1.0) for _ in times]
        events = [
            Event(
                kind="drop",
                time_s=time,
                x=rng.uniform(-0.72, 0.72) * setting.half_width,
                y=rng.uniform(0.56, 0.84),
                strength=size,
                pitch_hz=float(620 * (1.0 / size) ** 1.1),
            )
            for time, size in zip(times, sizes, strict=True)
        ]
        spread = np.stack([rng.uniform(0, 2 * np.pi, 14), rng.uniform(0.4, 1.0, 14)], 1)
        return cls(
            events=events,
            parameters={"num_drops": sum(e.time_s >= 0 for e in events)},
            sizes=sizes,
            water=hsv(rng.uniform(0.46, 0.64), rng.uniform(0.55, 0.85), rng.uniform(0.45, 0.65)),
            splash=spread.astype(np.float32),
        )

    def background(self, canvas: Canvas) -> None:
        light = mix(self.water, (1.0, 1.0, 1.0), 0.62)
        canvas.gradient(
            (0, scaled(light, 0.9)),
            (0.36, light),
            (0.42, scaled(self.water, 1.25)),
            (1, scaled(self.water, 0.45)),
        )
        canvas.below(
            lambda x: 0.37 + 0.03 * np.sin(7 * x + 1) + 0.02 * np.sin(17 * x),
            scaled(mix(self.water, (0.1, 0.25, 0.12), 0.6), 0.9),
            scaled(self.water, 0.4),
        )
        canvas.below(
            lambda x: np.full_like(x, 0.42), scaled(self.water, 1.35), scaled(self.water, 0.5)
        )

    def paint(self, canvas: Canvas, time_s: float) -> None:
        pale = mix(self.water, (1.0, 1.0, 1.0), 0.75)
        for event, size in zip(self.events, self.sizes, strict=True):
            age = time_s - event.time_s
            depth = 0.45 + 0.75 * (event.y - 0.5)  # nearer is larger
            if -0.35 < age < 0:
                y = event.y - 1.3 * -age - 2.2 * age * age
                canvas.sphere(event.x, y, 0.022 + 0.02 * size, pale, 1.25)
            if 0 <= age < 1.4:
                for lag in (0.0, 0.11, 0.22):
                    wave = age - lag
                    if wave > 0:
                        reach = depth * (0.05 + 0.36 * wave)
                        fade = size * max(0.0, 1 - wave / 1.15) ** 1.5
                        canvas.ring(event.x, event.y, reach, 0.32 * reach, 0.009, pale, 0.9 * fade)
            if 0 <= age < 0.3:
                spread = depth * (0.05 + 0.07 * size)
                fade = (1 - age / 0.3) ** 1.5
                canvas.ellipse(event.x, event.y, spread, 0.35 * spread, (1, 1, 1), fade, 0.02)
                canvas.glow(event.x, event.y, 0.07 + 0.07 * size, pale, 0.5 * fade)
                travel = self.splash[:, 1] * (age + 0.03) * 0.55 * depth
                x = event.x + np.cos(self.splash[:, 0]) * travel
                rise = 1.15 * self.splash[:, 1] * size * (age + 0.03) - 3.6 * age * age
                canvas.particles(x, event.y - rise, 0.011, pale, 1.4 * (1 - age / 0.3))

    def sound(self, sound: Sound) -> None:
        for event in self.events:
            pitch, level = event.pitch_hz, event.strength
            sound.burst(event.time_s, 0.004, (1500, 6000), 0.07 * level)
            sound.bubble(event.time_s + 0.004, pitch, 2.2, 0.045, 0.55 * level)
            sound.bubble(event.time_s + 0.012, 1.7 * pitch, 1.6, 0.022, 0.18 * level)
        sound.room(0.35, 0.4)


@dataclass(kw_only=True)
class ContinuousScene:
    """Base of scenes whose sight and sound follow one curve."""

    level: Callable[[Wave], Wave]
    events: list[Event] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)

    def activity(self, time_s: Wave) -> Wave:
        return np.clip(self.level(time_s), 0, 1)

    def activity_of(self, sound: Sound) -> Wave:
        """Return activity at every sample, from a grid of 200 points a second."""
        grid = np.arange(0, len(sound.wave) / sound.sample_rate + 0.01, 0.005)
        return np.interp(sound.time, grid, self.activity(grid))

    def level_at(self, time_s: float) -> float:
        """Return activity at one moment."""
        return float(self.activity(np.array([time_s]))[0])


@dataclass(kw_only=True)
class Rain(ContinuousScene):
    """Rain whose strength comes and goes: more streaks and rings, louder rush."""

    streaks: Array  # per streak: x, phase, speed, threshold
    rings: Array  # per ring: x, y, phase, threshold
    roofs: Array
    slant: float
    tone: Colour

    NUM_STREAKS = 150
    NUM_RINGS = 36

    @classmethod
    def plan(cls, rng: np.random.Generator, setting: Setting) -> "Rain":
        wide = setting.half_width + 0.15
        count, rings = cls.NUM_STREAKS, cls.NUM_RINGS
        return cls(
            level=smooth_curve(rng, rng.uniform(0.7, 1.5), 0.03, 1.0),
            parameters={},
            streaks=np.stack(
                [
                    rng.uniform(-wide, wide, count),
                    rng.uniform(0, 1, count),
                    rng.uniform(2.2, 3.4, count),
                    rng.uniform(0, 1, count),
                ],
                1,
            ).astype(np.float32),
            rings=np.stack(
                [
                    rng.uniform(-wide, wide, rings),
                    rng.uniform(0.74, 0.98, rings),
                    rng.uniform(0, 1, rings),
                    rng.uniform(0, 1, rings),
                ],
                1,
            ).astype(np.float32),
            roofs=rng.uniform(0.3, 0.58, 8).astype(np.float32),
            slant=rng.uniform(-0.16, 0.16),
            tone=hsv(rng.uniform(0.52, 0.7), rng.uniform(0.15, 0.45), rng.uniform(0.4, 0.6)),
        )

    def background(self, canvas: Canvas) -> None:
        canvas.gradient(
            (0, scaled(self.tone, 0.75)), (0.7, scaled(self.tone, 1.15)), (1, self.tone)
        )
        dark = scaled(self.tone, 0.5)
        roofs = self.roofs

        def skyline(x: Array) -> Array:
            return roofs[np.floor(x / 0.19).astype(int) % len(roofs)]

        canvas.below(skyline, dark, scaled(dark, 0.8))
        for k in range(-8, 9):
            top = float(roofs[k % len(roofs)])
            for row in range(3):
                lit = (k * 5 + row * 3) % 4 == 0
                colour = (0.95, 0.8, 0.45) if lit else scaled(dark, 1.25)
                canvas.box(0.19 * k + 0.06, top + 0.06 + 0.09 * row, 0.02, 0.026, colour)
                canvas.box(0.19 * k + 0.13, top + 0.06 + 0.09 * row, 0.02, 0.026, scaled(dark, 1.2))
        canvas.below(
            lambda x: np.full_like(x, 0.7), scaled(self.tone, 0.75), scaled(self.tone, 0.4)
        )

    def paint(self, canvas: Canvas, time_s: float) -> None:
        level = self.level_at(time_s)
        pale = mix(self.tone, (0.9, 0.95, 1.0), 0.8)
        canvas.pixels *= 1 - 0.25 * level
        x, phase, speed, threshold = self.streaks.T
        falling = threshold < level
        y = ((phase + speed * time_s / 1.25) % 1.0) * 1.25 - 0.2
        steps = np.linspace(0, 1, 7)[:, None]
        length = 0.05 * speed[falling] / 2.5
        ys = (y[falling] + steps * length).ravel()
        xs = (x[falling] + self.slant * (y[falling] + steps * length)).ravel()
        canvas.particles(xs, ys, 0.005, pale, 0.6)
        for rx, ry, start, needed in self.rings[self.rings[:, 3] < level]:
            age = (time_s * 2.2 + start) % 1.0
            reach = 0.012 + 0.05 * age
            canvas.ring(
                rx, ry, reach, 0.35 * reach, 0.005, pale, (1 - age) * min(1.0, 3 * (level - needed))
            )

    def sound(self, sound: Sound) -> None:
        level = self.activity_of(sound)
        sound.texture(level**1.6, (700, 5200), 0.13)
        sound.texture(level**1.6, (180, 600), 0.05)
        duration = len(sound.wave) / sound.sample_rate
        for _ in range(int(60 * duration)):
            time, size = sound.rng.uniform(0, duration), sound.rng.uniform(0.2, 1)
            if sound.rng.uniform() < self.level_at(time):
                sound.bubble(time, 900 + 2600 * (1 - size), 1.4, 0.008, 0.07 * size)


@dataclass(kw_only=True)
class Waves(ContinuousScene):
    """Waves that run up a beach: the foam's reach and the rush follow one curve."""

    sky: Colour
    foam_phase: Array
    sun_x: float

    @classmethod
    def plan(cls, rng: np.random.Generator, setting: Setting) -> "Waves":
        period = rng.uniform(0.95, 1.9)
        crests = [-PRE_ROLL_S - rng.uniform(0, period)]
        while crests[-1] < setting.duration_s + period:
            crests.append(crests[-1] + period * rng.uniform(0.82, 1.18))
        heights = rng.uniform(0.55, 1.0, len(crests))

        def level(time_s: Wave) -> Wave:
            total = np.zeros_like(time_s)
            for crest, height in zip(crests, heights, strict=True):
                age = (time_s - crest) / period
                rise = np.exp(-((age / 0.14) ** 2)) * (age < 0)
                fall = np.exp(-((np.maximum(age, 0) / 0.42) ** 1.5)) * (age >= 0)
                total = np.maximum(total, height * (rise + fall))
            return total

        events = [
            Event(kind="break", time_s=float(t), y=0.62, strength=float(h))
            for t, h in zip(crests, heights, strict=True)
            if t < setting.duration_s
        ]
        return cls(
            level=level,
            events=events,
            parameters={"period_s": period},
            sky=hsv(
                rng.choice([0.55, 0.58, 0.06, 0.93]), rng.uniform(0.3, 0.6), rng.uniform(0.8, 1)
            ),
            foam_phase=rng.uniform(0, 2 * np.pi, 6).astype(np.float32),
            sun_x=rng.uniform(-0.6, 0.6) * setting.half_width,
        )

    def background(self, canvas: Canvas) -> None:
        canvas.gradient(
            (0, scaled(self.sky, 0.85)), (0.33, mix(self.sky, (1, 0.95, 0.85), 0.6)), (1, self.sky)
        )
        canvas.glow(self.sun_x, 0.24, 0.11, (1.0, 0.8, 0.45), 0.4)
        canvas.disc(self.sun_x, 0.24, 0.055, (1.0, 0.96, 0.85))
        canvas.below(lambda x: np.full_like(x, 0.35), (0.1, 0.36, 0.5), (0.05, 0.5, 0.55))
        canvas.below(lambda x: 0.62 + 0.03 * x, (0.78, 0.68, 0.48), (0.9, 0.8, 0.6))

    def paint(self, canvas: Canvas, time_s: float) -> None:
        level = self.level_at(time_s)
        phase = self.foam_phase
        for k, y in enumerate((0.4, 0.45, 0.51)):
            swell = 0.008 * (k + 1) * (0.4 + level)

            def crest(x: Array, k: int = k, y: float = y, swell: float = swell) -> Array:
                return y + swell * np.sin((9 - 2 * k) * x + 3.1 * time_s + phase[k])

            shade = mix((0.1, 0.36, 0.5), (0.12, 0.62, 0.64), (k + 1) / 3)
            canvas.below(crest, scaled(shade, 1.22), shade)
        canvas.below(lambda x: 0.6 + 0.03 * x, (0.62, 0.53, 0.38), (0.9, 0.8, 0.6))
        reach = 0.57 + 0.3 * level

        def edge(x: Array) -> Array:
            ripple = 0.022 * np.sin(11 * x + phase[3] + time_s) + 0.012 * np.sin(23 * x + phase[4])
            return reach + ripple * (0.4 + level)

        water = (0.22, 0.62, 0.66)
        cover = np.clip((edge(canvas.xs)[None] - canvas.ys[:, None]) / canvas.pixel + 0.5, 0, 1)
        cover *= np.clip((canvas.ys[:, None] - 0.55) / canvas.pixel, 0, 1)
        canvas.pixels += (rgb(water) - canvas.pixels) * (0.8 * cover)[..., None]
        foam = np.exp(-(((edge(canvas.xs)[None] - canvas.ys[:, None] - 0.012) / 0.022) ** 2))
        grain = 0.75 + 0.25 * np.sin(61 * canvas.xs[None] + 37 * canvas.ys[:, None] + phase[5])
        foam = np.clip((0.35 + 0.9 * level) * foam * grain, 0, 1)
        canvas.pixels += (1 - canvas.pixels) * foam[..., None]

    def sound(self, sound: Sound) -> None:
        level = self.activity_of(sound)
        sound.texture(level**1.5, (250, 1800), 0.16)
        sound.texture(level**2.5, (1500, 6500), 0.1)
        sound.texture(0.15 + 0.3 * level, (60, 220), 0.08)
