"""Scenes of things that ring and tick: hung bells, a metronome."""

from dataclasses import dataclass

import numpy as np

from soundreel.data.scenes.canvas import Array, Canvas, Colour
from soundreel.data.scenes.palette import hsv, mix, room_colours, scaled
from soundreel.data.scenes.scene import PRE_ROLL_S, DiscreteScene, Event, Setting, event_times
from soundreel.data.scenes.sound import Sound

PENTATONIC = (0, 2, 4, 7, 9, 12, 14, 16)


@dataclass(kw_only=True)
class Bells(DiscreteScene):
    """Bells on a beam, struck by small hammers; the largest has the lowest pitch."""

    xs: list[float]
    lengths: list[float]
    strikes: list[list[tuple[float, float]]]  # time and strength, by bell
    metal: Colour
    colours: tuple[Colour, Colour, Colour]

    @classmethod
    def plan(cls, rng: np.random.Generator, setting: Setting) -> "Bells":
        room = setting.half_width * 1.8
        count = int(rng.integers(2, 4)) + int(room / 0.9 > 1.5)
        xs = [room * ((k + 0.5) / count - 0.5) for k in range(count)]
        low = rng.uniform(380, 620)
        steps = [PENTATONIC[k] for k in range(count)]
        pitches = [low * 2 ** (s / 12) for s in steps]
        lengths = [min(0.42, 0.95 * room / count) * (low / p) ** 0.6 for p in pitches]
        strikes: list[list[tuple[float, float]]] = [[] for _ in xs]
        events = []
        for time in event_times(rng, setting.duration_s, rng.uniform(0.4, 0.75), 0.22):
            k = int(rng.integers(count))
            strength = rng.uniform(0.45, 1.0)
            strikes[k].append((time, strength))
            events.append(
                Event(
                    kind="strike",
                    time_s=time,
                    x=xs[k] - 0.3 * lengths[k],
                    y=0.5 + 0.45 * lengths[k],
                    strength=strength,
                    pitch_hz=pitches[k],
                )
            )
        hue = rng.choice([0.09, 0.11, 0.13, 0.58])
        return cls(
            events=events,
            parameters={"num_bells": count, "pitches_hz": [round(p, 1) for p in pitches]},
            xs=xs,
            lengths=lengths,
            strikes=strikes,
            metal=hsv(float(hue), rng.uniform(0.35, 0.75), rng.uniform(0.85, 1.0)),
            colours=room_colours(rng),
        )

    def background(self, canvas: Canvas) -> None:
        wall, low, floor = self.colours
        canvas.gradient((0, scaled(wall, 0.8)), (0.5, scaled(wall, 0.62)), (1, scaled(low, 0.4)))
        wood = mix(floor, (0.35, 0.2, 0.1), 0.7)
        canvas.box(0, 0.13, 3, 0.035, wood)
        canvas.box(0, 0.108, 3, 0.008, scaled(wood, 1.5))

    def paint(self, canvas: Canvas, time_s: float) -> None:
        for x, length, strikes in zip(self.xs, self.lengths, self.strikes, strict=True):
            swing, light, reach = 0.0, 0.0, 0.0
            for when, strength in strikes:
                age = time_s - when
                if 0 <= age < 3:
                    swing += 0.2 * strength * np.exp(-age / 0.5) * np.sin(2 * np.pi * 1.8 * age)
                    light += strength * np.exp(-age / 0.16)
                if age < 0:
                    reach = max(reach, float(np.exp(age / 0.05)))
                else:
                    reach = max(reach, float(np.exp(-age / 0.07)))
            top = 0.5 - 0.55 * length
            bottom = top + length
            if light > 0.02:
                canvas.glow(x, bottom - 0.4 * length, 0.75 * length, self.metal, 0.8 * light)
            canvas.segment((x, 0.13), (x, top + 0.01), 0.008, (0.16, 0.12, 0.1))
            bright = scaled(self.metal, 0.8 + 0.45 * min(1.0, light))
            canvas.disc(
                x + 0.9 * length * -np.sin(swing),
                bottom + 0.01,
                0.09 * length,
                scaled(self.metal, 0.45),
            )
            canvas.solid(x, top, length, _bell_outline, bright, float(swing))
            rod = bottom + 0.05 * length + (1 - reach) * 0.12
            canvas.segment(
                (x - 0.3 * length, rod), (x - 0.3 * length, 1.1), 0.012, (0.3, 0.2, 0.13)
            )
            canvas.sphere(x - 0.3 * length, rod, 0.03, (0.75, 0.25, 0.2))

    def sound(self, sound: Sound) -> None:
        ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.51, 3.01, 4.17])
        levels = np.array([0.16, 0.5, 0.22, 0.12, 0.3, 0.1, 0.09, 0.05])
        for event in self.events:
            pitch = event.pitch_hz
            decays = 0.9 * (500 / pitch) ** 0.4 / ratios**0.8
            sound.modes(
                event.time_s,
                (ratios * pitch).tolist(),
                decays.tolist(),
                (0.55 * event.strength * levels).tolist(),
            )
            sound.burst(event.time_s, 0.005, (2000, 7000), 0.12 * event.strength)
        sound.room(0.3, 0.3)


@dataclass(kw_only=True)
class Metronome(DiscreteScene):
    """A metronome: every crossing of the middle ticks, every first of a bar rings."""

    beat_s: float
    phase_s: float
    swing: float
    wood: Colour
    colours: tuple[Colour, Colour, Colour]

    @classmethod
    def plan(cls, rng: np.random.Generator, setting: Setting) -> "Metronome":
        beat = rng.uniform(0.3, 0.62)
        phase = rng.uniform(0, beat)
        bar = int(rng.integers(2, 5))
        pitch = rng.uniform(1300, 2300)
        first = int(np.floor((-PRE_ROLL_S - phase) / beat))
        events = []
        for k in range(first, int((setting.duration_s - phase) / beat) + 2):
            time = phase + k * beat
            strength = 1.0 if k % bar == 0 else 0.6
            if time < setting.duration_s:
                events.append(
                    Event(
                        kind="tick",
                        time_s=time,
                        y=0.35,
                        strength=strength,
                        pitch_hz=pitch * (1.5 if k % bar == 0 else 1.0),
                    )
                )
        return cls(
            events=events,
            parameters={"beats_per_minute": 60 / beat, "beats_per_bar": bar},
            beat_s=beat,
            phase_s=phase,
            swing=rng.uniform(0.4, 0.62),
            wood=hsv(rng.uniform(0.03, 0.1), rng.uniform(0.55, 0.8), rng.uniform(0.45, 0.7)),
            colours=room_colours(rng),
        )

    def background(self, canvas: Canvas) -> None:
        wall, low, floor = self.colours
        canvas.gradient((0, wall), (0.8, low), (1, low))
        canvas.below(lambda x: np.full_like(x, 0.84), scaled(floor, 1.1), scaled(floor, 0.7))
        canvas.ellipse(0, 0.92, 0.36, 0.05, (0.05, 0.04, 0.04), 0.4, 0.04)
        canvas.solid(0, 0.2, 0.72, lambda v: 0.12 + 0.3 * v, self.wood)
        canvas.solid(0, 0.26, 0.5, lambda v: 0.09 + 0.3 * v, scaled(self.wood, 0.45))
        canvas.box(0, 0.84, 0.23, 0.035, scaled(self.wood, 1.3), rounding=0.01)

    def paint(self, canvas: Canvas, time_s: float) -> None:
        angle = self.swing * np.sin(np.pi * (time_s - self.phase_s) / self.beat_s)
        along = np.array([np.sin(angle), -np.cos(angle)])
        pivot = np.array([0.0, 0.8])
        tip, bob = pivot + 0.68 * along, pivot + 0.46 * along
        canvas.segment(tuple(pivot), tuple(tip), 0.011, (0.86, 0.87, 0.9))
        canvas.box(bob[0], bob[1], 0.055, 0.045, (0.95, 0.78, 0.3), float(angle), 0.012)
        for event in self.events:
            age = time_s - event.time_s
            if 0 <= age < 0.2:
                fade = event.strength * (1 - age / 0.2)
                colour = (1.0, 0.35, 0.2) if event.strength == 1 else (1.0, 0.85, 0.4)
                canvas.glow(0, 0.14, 0.07, colour, 1.3 * fade)
                canvas.disc(0, 0.14, 0.03, colour, fade)

    def sound(self, sound: Sound) -> None:
        for event in self.events:
            level = event.strength
            sound.modes(
                event.time_s,
                [event.pitch_hz, 1.62 * event.pitch_hz, 0.41 * event.pitch_hz],
                [0.022, 0.012, 0.03],
                [0.5 * level, 0.25 * level, 0.3 * level],
            )
            sound.burst(event.time_s, 0.003, (2500, 7000), 0.14 * level)
        sound.room(0.12, 0.3)


def _bell_outline(share: Array) -> Array:
    """Return half width of a bell from its crown (0) to its rim (1), in bell lengths."""
    dome = np.sqrt(np.clip(share / 0.22, 0, 1)) * 0.26
    flare = 0.07 * share + 0.17 * np.clip((share - 0.55) / 0.45, 0, 1) ** 2.2
    return dome + flare
