"""Teach the renderer a new kind of scene: a traffic light that beeps when it changes.

python examples/add_a_scene.py OUT [COUNT]        (COUNT clips, by default 2)
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soundreel import Clip
from soundreel.data.scenes.canvas import Canvas
from soundreel.data.scenes.render import KINDS, RenderOptions, render_clip
from soundreel.data.scenes.scene import DiscreteScene, Event, Setting, event_times
from soundreel.data.scenes.sound import Sound

LAMPS = ((0.9, 0.15, 0.1), (0.95, 0.75, 0.1), (0.15, 0.85, 0.3))


@dataclass(kw_only=True)
class TrafficLight(DiscreteScene):
    """Red, amber, green; a higher beep for each lamp further down."""

    @classmethod
    def plan(cls, rng: np.random.Generator, setting: Setting) -> "TrafficLight":
        times = event_times(rng, setting.duration_s, mean_gap_s=0.5, min_gap_s=0.3)
        pitches = 440.0 * 2.0 ** (np.arange(len(times)) % 3 / 3)
        pairs = zip(times, pitches.tolist(), strict=True)
        return cls(events=[Event(kind="change", time_s=t, pitch_hz=p) for t, p in pairs])

    def background(self, canvas: Canvas) -> None:
        canvas.gradient((0, (0.45, 0.6, 0.8)), (1, (0.75, 0.8, 0.85)))
        canvas.box(0, 0.5, 0.16, 0.42, (0.12, 0.12, 0.14))

    def paint(self, canvas: Canvas, time_s: float) -> None:
        changes = sum(event.time_s <= time_s for event in self.events)
        for row, (red, green, blue) in enumerate(LAMPS):
            light = 1.0 if (changes - 1) % 3 == row else 0.2
            canvas.disc(0, 0.24 + 0.26 * row, 0.1, (light * red, light * green, light * blue))

    def sound(self, sound: Sound) -> None:
        for event in self.events:
            sound.modes(event.time_s, [event.pitch_hz], [0.08], [0.8])


def main(out: Path, count: int) -> None:
    KINDS["traffic_light"] = TrafficLight.plan
    options = RenderOptions(kinds=("traffic_light",), height=128, width=128)
    out.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        made = render_clip(options, seed=0, index=index)
        clip = Clip(made.frames, made.waveform, options.frame_rate, options.sample_rate)
        clip.save(out / f"{index}.mp4")
        print(index, " ".join(f"{event.time_s:.2f}" for event in made.events))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2)
