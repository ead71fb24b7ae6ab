"""From a seed and an index to a clip with its truth.

Everything random about clip `index` comes from `(seed, index)`, and nothing in it from sizes or
rates: the same scene can be had at 64 and at 256 pixels, at 10 and at 25 frames a second.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from soundreel.data.pool import worker_pool
from soundreel.data.scenes.canvas import Array, Canvas, rgb
from soundreel.data.scenes.distraction import Drifter, offscreen_events, offscreen_sound
from soundreel.data.scenes.impacts import BouncingBalls, Hammer
from soundreel.data.scenes.instruments import Bells, Metronome
from soundreel.data.scenes.machines import Engine, Fire
from soundreel.data.scenes.scene import Event, Scene, Setting
from soundreel.data.scenes.sky import Fireworks, Lightning
from soundreel.data.scenes.sound import Sound
from soundreel.data.scenes.water import Rain, WaterDrops, Waves
from soundreel.errors import SoundreelError

Plan = Callable[[np.random.Generator, Setting], Scene]

KINDS: dict[str, Plan] = {
    "bouncing_balls": BouncingBalls.plan,
    "bells": Bells.plan,
    "water_drops": WaterDrops.plan,
    "fireworks": Fireworks.plan,
    "metronome": Metronome.plan,
    "hammer": Hammer.plan,
    "lightning": Lightning.plan,
    "rain": Rain.plan,
    "fire": Fire.plan,
    "waves": Waves.plan,
    "engine": Engine.plan,
}
DISCRETE_KINDS = (
    "bouncing_balls",
    "bells",
    "water_drops",
    "fireworks",
    "metronome",
    "hammer",
    "lightning",
)
ACTIVITY_HZ = 100
PEAK = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderOptions:
    """Sizes, rates and difficulties of rendered clips.

    Attributes:
        num_frames, height, width, frame_rate, sample_rate: as in `soundreel.types.ClipSpec`.
        kinds: scenes to draw from; clip `index` shows `kinds[index % len(kinds)]`.
        camera_shake: amplitude of a shaking camera, in picture heights (0.02 is a lot).
        num_distractors: things that drift through the picture without a sound.
        num_offscreen_sounds: sounds without anything to see.
        colour: "full", or "grey" for pictures without colour.
        thunder_delay_s: delay of all thunder; drawn for each scene where None.
    """

    num_frames: int = 16
    height: int = 64
    width: int = 64
    frame_rate: Fraction = Fraction(10)
    sample_rate: int = 16_000
    kinds: tuple[str, ...] = tuple(KINDS)
    camera_shake: float = 0.0
    num_distractors: int = 0
    num_offscreen_sounds: int = 0
    colour: Literal["full", "grey"] = "full"
    thunder_delay_s: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame_rate", Fraction(self.frame_rate))
        for name in ("num_frames", "height", "width", "frame_rate", "sample_rate"):
            if getattr(self, name) <= 0:
                raise SoundreelError(f"{name} must be positive, got {getattr(self, name)}")
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise SoundreelError(
                f"no scenes called {', '.join(unknown) or '(none given)'}; "
                f"there are {', '.join(KINDS)}"
            )
        if not 0 <= self.camera_shake <= 0.2:
            raise SoundreelError(
                f"camera_shake is a share of the picture's height, 0 to 0.2, "
                f"got {self.camera_shake}"
            )
        if min(self.num_distractors, self.num_offscreen_sounds) < 0:
            raise SoundreelError("num_distractors and num_offscreen_sounds cannot be negative")
        if self.thunder_delay_s is not None and not 0 <= self.thunder_delay_s < self.duration_s:
            raise SoundreelError(
                f"thunder_delay_s must lie within the clip's {self.duration_s} s, "
                f"got {self.thunder_delay_s}"
            )

    @property
    def duration_s(self) -> float:
        return float(self.num_frames / self.frame_rate)

    @property
    def num_samples(self) -> int:
        """Return floor(num_frames * sample_rate / frame_rate), in integers."""
        return (self.num_frames * self.sample_rate * self.frame_rate.denominator) // (
            self.frame_rate.numerator
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON knows them; the frame rate as a string such as "30000/1001"."""
        values: dict[str, Any] = asdict(self)
        return values | {"frame_rate": str(self.frame_rate), "kinds": list(self.kinds)}


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedClip:
    """A clip and what is true about it.

    Attributes:
        frames: uint8 `frame height width 3`; frame k shows the scene as it is at k / frame_rate.
        waveform: float32 `1 sample`, within [-0.9, 0.9].
        kind: the scene, `label` its number in the order of `KINDS`.
        events: those within the clip, in the order of time.
        activity: how much happens, 0 to 1, 100 times a second.
        parameters: what was drawn for this scene.
    """

    frames: npt.NDArray[np.uint8]
    waveform: npt.NDArray[np.float32]
    kind: str
    label: int
    seed: int
    index: int
    events: list[Event]
    activity: npt.NDArray[np.float32]
    parameters: dict[str, Any]
    options: RenderOptions

    def truth(self) -> dict[str, Any]:
        """Return everything but pictures and sound, ready for JSON."""
        return {
            "kind": self.kind,
            "label": self.label,
            "seed": self.seed,
            "index": self.index,
            "duration_s": self.options.duration_s,
            "events": [event.to_json() for event in self.events],
            "activity_hz": ACTIVITY_HZ,
            "activity": [round(float(a), 4) for a in self.activity],
            "parameters": self.parameters,
            "options": self.options.to_json(),
        }


def render_clip(options: RenderOptions, seed: int, index: int) -> RenderedClip:
    """Clip number `index` of the endless series that `seed` stands for."""
    kind = options.kinds[index % len(options.kinds)]
    sources = np.random.SeedSequence([seed, index]).spawn(4)
    plan_rng, sound_rng, extra_rng, shake_rng = (np.random.default_rng(s) for s in sources)
    setting = Setting(
        duration_s=options.duration_s,
        half_width=options.width / options.height / 2,
        thunder_delay_s=options.thunder_delay_s,
    )
    scene = KINDS[kind](plan_rng, setting)
    drifters = [Drifter.plan(extra_rng, setting) for _ in range(options.num_distractors)]
    hidden = offscreen_events(extra_rng, setting, options.num_offscreen_sounds)
    sound = Sound(options.num_samples, options.sample_rate, sound_rng)
    scene.sound(sound)
    offscreen_sound(sound, hidden)
    wave = sound.wave * min(1.0, PEAK / max(float(np.abs(sound.wave).max()), 1e-9))
    grid = np.arange(int(np.ceil(options.duration_s * ACTIVITY_HZ))) / ACTIVITY_HZ
    events = sorted([*scene.events, *hidden], key=lambda event: event.time_s)
    return RenderedClip(
        frames=_paint(options, scene, drifters, shake_rng),
        waveform=wave.astype(np.float32)[None],
        kind=kind,
        label=list(KINDS).index(kind),
        seed=seed,
        index=index,
        events=[event for event in events if 0 <= event.time_s < options.duration_s],
        activity=scene.activity(grid).astype(np.float32),
        parameters=scene.parameters,
        options=options,
    )


def render_clips(
    options: RenderOptions, seed: int, indices: Sequence[int], num_workers: int = 0
) -> Iterator[RenderedClip]:
    """Return clips in the order of `indices`, rendered by so many processes (0: in this one)."""
    if num_workers == 0:
        for index in indices:
            yield render_clip(options, seed, index)
        return
    with worker_pool(num_workers) as pool:
        remaining = iter(indices)
        waiting = [
            pool.submit(render_clip, options, seed, index)
            for index in islice(remaining, 4 * num_workers)
        ]
        while waiting:
            clip = waiting.pop(0).result()
            waiting += [
                pool.submit(render_clip, options, seed, index) for index in islice(remaining, 1)
            ]
            yield clip


def _paint(
    options: RenderOptions, scene: Scene, drifters: list[Drifter], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Paint all frames. A shaking camera looks at a part of a background with a margin."""
    height, width = options.height, options.width
    rates, phases = rng.uniform(2.0, 5.5, (2, 2)), rng.uniform(0, 2 * np.pi, (2, 2))
    margin = int(np.ceil(options.camera_shake * height)) + 1 if options.camera_shake else 0
    wide = Canvas(height + 2 * margin, width + 2 * margin)
    if margin:  # the same units as the picture, with a border around it
        wide.pixel = 1 / height
        wide.xs = ((np.arange(wide.width) + 0.5 - wide.width / 2) / height).astype(np.float32)
        wide.ys = ((np.arange(wide.height) + 0.5 - margin) / height).astype(np.float32)
    scene.background(wide)
    frames = np.empty((options.num_frames, height, width, 3), np.uint8)
    for k in range(options.num_frames):
        time = float(k / options.frame_rate)
        angle = 2 * np.pi * rates * time + phases
        offset = options.camera_shake * np.sin(angle).mean(axis=1)
        background = _crop(wide.pixels, margin, offset * height) if margin else wide.pixels
        canvas = Canvas(height, width, background, (float(offset[0]), float(offset[1])))
        scene.paint(canvas, time)
        for drifter in drifters:
            drifter.paint(canvas, time)
        if options.colour == "grey":
            grey = canvas.pixels @ rgb((0.299, 0.587, 0.114))
            canvas.pixels = np.repeat(grey[..., None], 3, axis=2)
        frames[k] = canvas.to_uint8()
    return frames


def _crop(picture: Array, margin: int, shift_px: npt.NDArray[np.float64]) -> Array:
    """Return the middle of a picture, moved by a part of a pixel (bilinear)."""
    height, width = picture.shape[0] - 2 * margin, picture.shape[1] - 2 * margin
    left, top = margin + shift_px
    row, column = int(np.floor(top)), int(np.floor(left))
    down, right = np.float32(top - row), np.float32(left - column)
    part = picture[row : row + height + 1, column : column + width + 1]
    part = part[:-1] * (1 - down) + part[1:] * down
    return np.asarray(part[:, :-1] * (1 - right) + part[:, 1:] * right, np.float32)
