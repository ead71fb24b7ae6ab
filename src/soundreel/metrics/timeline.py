"""Draw as an SVG what starts when in the picture and in the sound of one clip."""

import numpy as np
from jaxtyping import Float

from soundreel.clip import Clip
from soundreel.metrics.sync.signals import (
    HOP_S,
    Curves,
    motion_curves,
    motion_peaks_of,
    onsets_of,
    sound_curves,
)

STYLE = ".see{stroke:#0a7d6c}.hear{stroke:#c2410c}.event{opacity:.45}.axis{fill:#888;stroke:none}"
MAX_TICKS = 8
TICK_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


def timeline_svg(clip: Clip, width: int = 320, height: int = 120) -> str:
    """Draw a clip's curves; return an empty text where a modality is absent or too short."""
    if clip.frames is None or clip.waveform is None or clip.num_frames < 3:
        return ""
    curves = Curves(
        motion=motion_curves(clip.frames),
        sound=sound_curves(clip.waveform, clip.sample_rate),
        frame_rate=clip.frame_rate,
    )
    return curves_svg(curves, width, height)


def curves_svg(curves: Curves, width: int = 320, height: int = 120) -> str:
    """Draw the flux of the picture (above) and of the sound (below) over time as an SVG.

    Events are upright lines. Lines take their colours from `STYLE`.
    """
    scale = width / curves.duration_s
    letter = 0.085 * height
    lane = (height - 1.6 * letter) / 2  # its name is above its curve
    seen, heard = curves.motion.flux, curves.sound.flux
    seen_s = (np.arange(len(seen)) + 0.5) / float(curves.frame_rate)
    heard_s = np.arange(len(heard)) * HOP_S
    lanes = (
        ("see", "picture", seen, seen_s, motion_peaks_of(curves.motion, curves.frame_rate)),
        ("hear", "sound", heard, heard_s, onsets_of(curves.sound)),
    )
    parts = []
    for number, (kind, name, curve, times_s, events_s) in enumerate(lanes):
        top = number * lane
        base = top + 1.2 * letter
        parts += [_upright(kind, t * scale, base, top + lane - 1) for t in events_s]
        points = _points(curve, times_s * scale, base, lane - 1.2 * letter - 2)
        parts.append(f"<polyline class='{kind}' fill='none' stroke-width='1.5' points='{points}'/>")
        parts.append(_text(2.0, top + letter, letter, name, "start"))
    parts += _axis(curves.duration_s, scale, height, letter)
    title = "what starts in the picture (above) and in the sound (below), over time"
    return (
        f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='{title}'>"
        f"<title>{title}</title>{''.join(parts)}</svg>"
    )


def standalone(svg: str) -> str:
    """Return the same as an SVG file of its own: with its namespace and colours."""
    return svg.replace("<svg ", "<svg xmlns='http://www.w3.org/2000/svg' ", 1).replace(
        "<title>", f"<style>{STYLE}</style><title>", 1
    )


def _points(
    curve: Float[np.ndarray, " point"], x: Float[np.ndarray, " point"], top: float, height: float
) -> str:
    peak = max(float(curve.max()), 1e-9)
    return " ".join(
        f"{a:.1f},{top + height - height * value / peak:.1f}"
        for a, value in zip(x, curve, strict=True)
    )


def _upright(kind: str, x: float, top: float, bottom: float) -> str:
    return (
        f"<line class='{kind} event' stroke-width='3' x1='{x:.1f}' x2='{x:.1f}' "
        f"y1='{top:.1f}' y2='{bottom:.1f}'/>"
    )


def _axis(duration_s: float, scale: float, height: int, letter: float) -> list[str]:
    """Write the seconds below the curves; the last tick carries the unit."""
    fitting = (step for step in TICK_STEPS_S if duration_s / step <= MAX_TICKS)
    step = next(fitting, duration_s / MAX_TICKS)
    ticks = np.arange(step, duration_s + 1e-9, step)
    parts = []
    for number, tick in enumerate(ticks, start=1):
        name = f"{tick:g}" if number < len(ticks) else f"{tick:g} s"
        is_at_edge = tick * scale > 0.95 * duration_s * scale
        anchor = "end" if is_at_edge else "middle"
        parts.append(_text(tick * scale, height - 0.3 * letter, letter, name, anchor))
    return parts


def _text(x: float, y: float, size: float, text: str, anchor: str) -> str:
    return (
        f"<text class='axis' x='{x:.1f}' y='{y:.1f}' font-size='{size:.1f}' "
        f"font-family='sans-serif' text-anchor='{anchor}'>{text}</text>"
    )
