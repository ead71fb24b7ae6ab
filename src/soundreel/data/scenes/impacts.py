"""Scenes of struck things: bouncing balls, a hammer on an anvil."""

from dataclasses import dataclass, field

import numpy as np

from soundreel.data.scenes.canvas import Array, Canvas, Colour
from soundreel.data.scenes.palette import hsv, mix, room_colours, scaled
from soundreel.data.scenes.scene import (
    PRE_ROLL_S,
    DiscreteScene,
    Event,
    Setting,
    event_times,
)
from soundreel.data.scenes.sound import Sound


@dataclass(kw_only=True)
class Ball:
    """One ball: its size and colour, and when and how fast it hits the floor."""

    radius: float
    colour: Colour
    start_x: float
    speed_x: float
    times: list[float] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)  # upward, after each impact

    @property
    def pitch_hz(self) -> float:
        """Return the pitch; a ball twice as large sounds 1.3 octaves lower."""
        return float(310.0 * (0.09 / self.radius) ** 1.3)


@dataclass(kw_only=True)
class BouncingBalls(DiscreteScene):
    """Balls on a floor: pitch follows size, loudness follows the speed of the impact."""

    balls: list[Ball]
    floor: float
    gravity: float
    half_width: float
    colours: tuple[Colour, Colour, Colour]

    @classmethod
    def plan(cls, rng: np.random.Generator, setting: Setting) -> "BouncingBalls":
        gravity = rng.uniform(3.2, 5.2)
        floor = rng.uniform(0.8, 0.88)
        balls, events = [], []
        for _ in range(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15])):
            ball = Ball(
                radius=rng.uniform(0.06, 0.14),
                colour=hsv(rng.uniform(), rng.uniform(0.65, 0.95), rng.uniform(0.8, 1.0)),
                start_x=rng.uniform(-0.7, 0.7) * setting.half_width,
                speed_x=rng.choice([-1, 1]) * rng.uniform(0.03, 0.3),
            )
            top_speed = np.sqrt(2 * gravity * (floor - 2 * ball.radius - 0.03))
            time, speed = -PRE_ROLL_S - rng.uniform(0, 0.6), top_speed * rng.uniform(0.6, 1)
            restitution = rng.uniform(0.8, 0.93)
            while time < setting.duration_s + 1:
                ball.times.append(time)
                ball.speeds.append(float(speed))
                time += 2 * speed / gravity
                speed *= restitution
                if speed < 0.42 * top_speed:  # thrown up anew
                    speed = top_speed * rng.uniform(0.75, 1)
            balls.append(ball)
            for time, speed in zip(ball.times, ball.speeds, strict=True):
                events.append(
                    Event(
                        kind="bounce",
                        time_s=float(time),
                        x=_reflect(
                            ball.start_x + ball.speed_x * time, setting.half_width - ball.radius
                        ),
                        y=floor,
                        strength=float(np.clip(speed / top_speed, 0, 1)) ** 1.3,
                        pitch_hz=ball.pitch_hz,
                    )
                )
        return cls(
            events=sorted(events, key=lambda e: e.time_s),
            parameters={"num_balls": len(balls), "gravity": gravity},
            balls=balls,
            floor=floor,
            gravity=gravity,
            half_width=setting.half_width,
            colours=room_colours(rng),
        )

    def background(self, canvas: Canvas) -> None:
        wall, low, ground = self.colours
        canvas.gradient((0, wall), (self.floor - 0.05, low), (1, low))
        canvas.below(
            lambda x: np.full_like(x, self.floor - 0.03), scaled(ground, 1.15), scaled(ground, 0.8)
        )

    def paint(self, canvas: Canvas, time_s: float) -> None:
        heights = []
        for ball in self.balls:
            k = max(0, int(np.searchsorted(ball.times, time_s, side="right")) - 1)
            age = time_s - ball.times[k]
            speed = ball.speeds[k]
            heights.append((max(0.0, speed * age - self.gravity / 2 * age * age), age, speed))
        for ball, (height, age, speed) in zip(self.balls, heights, strict=True):
            x = _reflect(ball.start_x + ball.speed_x * time_s, self.half_width - ball.radius)
            shade = 0.5 * np.exp(-3 * height)
            width = ball.radius * (1 + 0.7 * height)
            canvas.ellipse(x, self.floor, width, 0.3 * width, (0.05, 0.05, 0.08), shade, 0.02)
            if age < 0.22:
                spread, fade = ball.radius * (1.5 + 7 * age), (1 - age / 0.22) * min(1, speed / 2)
                canvas.ellipse(x, self.floor, spread, 0.3 * spread, (1, 1, 0.9), 0.35 * fade, 0.03)
                canvas.ring(x, self.floor, spread, 0.3 * spread, 0.014, (1, 1, 0.95), 0.9 * fade)
            squash = 1 - 0.35 * np.exp(-age / 0.03) * min(1.0, speed / 2.5)
            canvas.sphere(
                x, self.floor - height - ball.radius * squash, ball.radius, ball.colour, squash
            )

    def sound(self, sound: Sound) -> None:
        for event in self.events:
            pitch, level = event.pitch_hz, event.strength
            sound.modes(
                event.time_s,
                [pitch, 2.32 * pitch, 4.25 * pitch],
                [0.11, 0.05, 0.025],
                [0.5 * level, 0.22 * level, 0.1 * level],
            )
            sound.burst(event.time_s, 0.006, (900, 5000), 0.16 * level)
        sound.room(0.16, 0.35)


@dataclass(kw_only=True)
class Hammer(DiscreteScene):
    """A hammer on an anvil: sparks fly at every blow."""

    blows: list[tuple[float, float]]
    sparks: Array  # per spark: direction, speed
    warmth: float

    @classmethod
    def plan(cls, rng: np.random.Generator, setting: Setting) -> "Hammer":
        pitch = rng.uniform(700, 1300)
        times = event_times(rng, setting.duration_s, rng.uniform(0.5, 0.85), 0.36)
        blows = [(time, rng.uniform(0.5, 1.0)) for time in times]
        events = [
            Event(kind="blow", time_s=t, x=0.02, y=0.6, strength=s, pitch_hz=pitch)
            for t, s in blows
        ]
        directions = rng.uniform(np.pi * 1.05, np.pi * 1.95, 48)
        return cls(
            events=events,
            parameters={"pitch_hz": pitch},
            blows=blows,
            sparks=np.stack([directions, rng.uniform(0.5, 2.2, 48)], 1).astype(np.float32),
            warmth=rng.uniform(0, 1),
        )

    def background(self, canvas: Canvas) -> None:
        warm = mix((0.16, 0.1, 0.09), (0.08, 0.1, 0.16), self.warmth)
        canvas.gradient((0, scaled(warm, 0.7)), (0.8, scaled(warm, 1.9)), (1, warm))
        canvas.below(lambda x: np.full_like(x, 0.9), scaled(warm, 1.3), scaled(warm, 0.5))
        canvas.glow(-0.42, 0.75, 0.32, (1.0, 0.4, 0.1), 0.55)
        steel = (0.42, 0.44, 0.5)
        canvas.solid(0.02, 0.68, 0.24, lambda v: 0.42 + 0.45 * np.abs(v - 0.35), steel)
        canvas.box(0.02, 0.66, 0.2, 0.045, steel, rounding=0.012)
        canvas.segment((-0.16, 0.645), (-0.27, 0.625), 0.02, steel)
        canvas.box(0.02, 0.622, 0.2, 0.008, (0.72, 0.74, 0.8))
        canvas.segment((-0.06, 0.605), (0.16, 0.605), 0.013, (1.0, 0.5, 0.12))
        canvas.glow(0.05, 0.6, 0.12, (1.0, 0.4, 0.1), 0.5)

    def paint(self, canvas: Canvas, time_s: float) -> None:
        lift = 1.0
        for when, _ in self.blows:
            age = time_s - when
            if -0.16 < age <= 0:
                lift = min(lift, (-age / 0.16) ** 0.7)
            elif 0 < age < 0.34:
                lift = min(lift, float(np.clip(age / 0.34, 0, 1)) ** 0.8)
        pivot = np.array([0.52, 0.62])
        angle = 0.06 + 1.0 * lift
        along = np.array([-np.cos(angle), -np.sin(angle)])
        head = pivot + 0.46 * along
        for when, strength in self.blows:
            age = time_s - when
            if 0 <= age < 0.45:
                fade = (1 - age / 0.45) * strength
                canvas.glow(
                    0.04, 0.6, 0.13, (1.0, 0.75, 0.35), 2.2 * strength * np.exp(-age / 0.06)
                )
                travel = self.sparks[:, 1] * (age + 0.012)
                x = 0.04 + np.cos(self.sparks[:, 0]) * travel
                y = 0.6 + np.sin(self.sparks[:, 0]) * travel * 0.8 + 1.6 * age * age
                canvas.particles(x, y, 0.012, (1.0, 0.72, 0.3), 2.2 * fade)
        canvas.segment(tuple(pivot), tuple(head), 0.022, (0.46, 0.3, 0.18))
        canvas.box(head[0], head[1], 0.055, 0.09, (0.5, 0.52, 0.58), float(angle) - 0.06, 0.012)

    def sound(self, sound: Sound) -> None:
        ratios = np.array([1.0, 1.73, 2.76, 3.9, 5.4])
        for event in self.events:
            sound.modes(
                event.time_s,
                (ratios * event.pitch_hz).tolist(),
                [0.22, 0.18, 0.12, 0.09, 0.06],
                (event.strength * np.array([0.2, 0.24, 0.2, 0.13, 0.08])).tolist(),
            )
            sound.burst(event.time_s, 0.012, (300, 6000), 0.25 * event.strength)
        sound.room(0.25, 0.3)


def _reflect(x: float, limit: float) -> float:
    """Fold a straight path between walls at -limit and limit."""
    span = 4 * limit
    folded = (x + limit) % span
    return float(folded - limit if folded < 2 * limit else 3 * limit - folded)
