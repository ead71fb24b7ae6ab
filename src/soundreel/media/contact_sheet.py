"""Draw a clip as one picture: its frames over its sound, on one clock.

Every frame stands with its left edge at the time from which it is shown; waveform and mel
spectrogram below use the same axis, so that what is seen at an instant lies above what is heard.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from soundreel.errors import SoundreelError
from soundreel.media.encode import complete_file
from soundreel.media.spectrogram import MelPicture, mel_picture

INK, FAINT, PAPER, PANEL = (34, 34, 38), (130, 130, 138), (255, 255, 255), (243, 243, 246)
WAVE = (74, 60, 130)
MARGIN, GUTTER, GAP = 16, 52, 6
FRAME_HEIGHT, MAX_FRAME_HEIGHT, MIN_FRAME_WIDTH = 112, 190, 64
WAVE_HEIGHT, MEL_HEIGHT, AXIS_HEIGHT = 40, 150, 24
TITLE_SIZE, TEXT_SIZE = 18, 13
TICK_STEPS_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
MIN_TICK_PIXELS = 70
FREQUENCIES_HZ = (125, 250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000)


@runtime_checkable
class Shown(Protocol):
    """Names what a sheet needs of a clip; `Clip`, which builds on this package, has it."""

    @property
    def frames(self) -> UInt8[np.ndarray, "frame height width 3"] | None: ...

    @property
    def waveform(self) -> Float32[np.ndarray, "channel sample"] | None: ...

    @property
    def frame_rate(self) -> Fraction: ...

    @property
    def sample_rate(self) -> int: ...

    @property
    def duration_s(self) -> float: ...


def contact_sheet(
    clips: Shown | Sequence[Shown],
    *,
    titles: Sequence[str] = (),
    caption: str = "",
    num_columns: int = 1,
    width: int = 1400,
) -> Image.Image:
    """Draw one clip, or several in a grid.

    Args:
        titles: one a clip, or none.
        caption: a line under everything, for example the source and its licence.
        num_columns: of the grid.
        width: of a column in pixels.

    Raises:
        SoundreelError: if there is no clip, or the number of titles is another than that of clips.
    """
    clips = list(clips) if isinstance(clips, Sequence) else [clips]
    if not clips or (titles and len(titles) != len(clips)) or num_columns < 1:
        raise SoundreelError(
            f"a sheet needs clips, one title each or none, and a column, got {len(clips)} clips, "
            f"{len(titles)} titles, {num_columns} columns"
        )
    blocks = [
        _block(clip, titles[index] if titles else "", width) for index, clip in enumerate(clips)
    ]
    rows = [blocks[at : at + num_columns] for at in range(0, len(blocks), num_columns)]
    heights = [max(block.height for block in row) for row in rows]
    footer = TEXT_SIZE + 2 * GAP if caption else 0
    columns = min(num_columns, len(blocks))
    sheet = Image.new("RGB", (columns * width, sum(heights) + footer + MARGIN), PAPER)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, block in enumerate(row):
            sheet.paste(block, (column * width, top))
        top += height
    if caption:
        draw = ImageDraw.Draw(sheet)
        draw.text((MARGIN, top + GAP), caption, fill=FAINT, font=_font(TEXT_SIZE))
    return sheet


def write_contact_sheet(
    path: str | Path,
    clips: Shown | Sequence[Shown],
    *,
    titles: Sequence[str] = (),
    caption: str = "",
    num_columns: int = 1,
    width: int = 1400,
) -> None:
    """Write `contact_sheet` as a PNG file; it appears only when complete.

    Raises:
        MediaError: if the file cannot be written.
    """
    sheet = contact_sheet(
        clips, titles=titles, caption=caption, num_columns=num_columns, width=width
    )
    with complete_file(path) as target:
        sheet.save(target, format="PNG")


def _block(clip: Shown, title: str, width: int) -> Image.Image:
    """Draw title, frames, waveform, spectrogram and clock of one clip."""
    left, span = MARGIN + GUTTER, width - 2 * MARGIN - GUTTER
    strip = None if clip.frames is None else _frame_strip(clip.frames, span)
    block = Image.new("RGB", (width, _block_height(clip, title, strip)), PAPER)
    draw = ImageDraw.Draw(block)
    top = MARGIN
    if title:
        facts, small = _facts(clip), _font(TEXT_SIZE)
        room = span - 2 * GAP - draw.textlength(facts, small)
        draw.text((left, top), _cut(draw, title, room), fill=INK, font=_font(TITLE_SIZE))
        draw.text((width - MARGIN, top + 4), facts, fill=FAINT, font=small, anchor="ra")
        top += TITLE_SIZE + 2 * GAP
    panels_top = top
    if strip is not None:
        block.paste(strip, (left, top))
        top += strip.height + GAP
    if clip.waveform is not None:
        mono = clip.waveform.mean(axis=0)
        block.paste(_wave_panel(mono, span), (left, top))
        peak_db = round(20 * np.log10(max(float(np.abs(mono).max()), 1e-6)))
        _label(draw, (left, top + WAVE_HEIGHT // 2), f"{peak_db} dB")
        top += WAVE_HEIGHT + GAP
        mel = mel_picture(mono, clip.sample_rate, height=MEL_HEIGHT, width=span)
        block.paste(Image.fromarray(mel.pixels), (left, top))
        _frequency_labels(draw, mel, left, top)
        top += MEL_HEIGHT
    _clock(draw, clip.duration_s, (left, panels_top, left + span, top))
    return block


def _cut(draw: ImageDraw.ImageDraw, title: str, room: float) -> str:
    """Return a title that is at most `room` pixels wide, its end left out if need be."""
    shown = title
    while title and draw.textlength(shown, _font(TITLE_SIZE)) > room:
        title = title[:-1]
        shown = f"{title}..."
    return shown


def _block_height(clip: Shown, title: str, strip: Image.Image | None) -> int:
    height = MARGIN + (TITLE_SIZE + 2 * GAP if title else 0) + AXIS_HEIGHT
    if strip is not None:
        height += strip.height + GAP
    if clip.waveform is not None:
        height += WAVE_HEIGHT + GAP + MEL_HEIGHT
    return height


def _facts(clip: Shown) -> str:
    facts = [f"{clip.duration_s:.2f} s"]
    if clip.frames is not None:
        _, height, width, _ = clip.frames.shape
        facts.append(f"{width} x {height}, {float(clip.frame_rate):.4g} frames/s")
    facts.append("silent" if clip.waveform is None else f"{clip.sample_rate / 1000:g} kHz")
    return "  |  ".join(facts)


def _frame_strip(frames: UInt8[np.ndarray, "frame height width 3"], span: int) -> Image.Image:
    """Put frames side by side, each as wide as the time to the next one shown."""
    count, height, width, _ = frames.shape
    shown = max(1, round(span / (FRAME_HEIGHT * width / height)))
    if count <= shown or span / count >= MIN_FRAME_WIDTH:
        shown = count
    edges = [round(index * span / shown) for index in range(shown + 1)]
    row_height = min(MAX_FRAME_HEIGHT, max(1, round(span / shown * height / width)))
    strip = Image.new("RGB", (span, row_height), PANEL)
    for index in range(shown):
        frame = Image.fromarray(frames[index * count // shown])
        slot = edges[index + 1] - edges[index]
        # Where few frames fill a long axis, each keeps its shape at the left of its time.
        drawn = min(slot, max(1, round(row_height * width / height)))
        strip.paste(_scaled(frame, drawn, row_height), (edges[index], 0))
        if index:
            strip.paste(PAPER, (edges[index], 0, edges[index] + 1, row_height))
    return strip


def _scaled(frame: Image.Image, width: int, height: int) -> Image.Image:
    """Shrink smoothly; enlarge so that the pixels of a tiny frame are seen, not smeared."""
    factor = min(width // frame.width, height // frame.height)
    if factor >= 2:
        size = ((factor + 1) * frame.width, (factor + 1) * frame.height)
        return frame.resize(size, Image.Resampling.NEAREST).resize(
            (width, height), Image.Resampling.BOX
        )
    return frame.resize((width, height), Image.Resampling.LANCZOS)


def _wave_panel(mono: Float[np.ndarray, " sample"], span: int) -> Image.Image:
    """Draw the envelope, scaled to its own peak, at two rows a pixel for a smooth outline."""
    panel = Image.new("RGB", (span, 2 * WAVE_HEIGHT), PANEL)
    draw = ImageDraw.Draw(panel)
    peak = max(float(np.abs(mono).max()), 1e-4)
    edges = np.linspace(0, len(mono), span + 1).astype(int)
    draw.line((0, WAVE_HEIGHT, span, WAVE_HEIGHT), fill=(205, 205, 214), width=2)
    for column in range(span):
        part = mono[edges[column] : max(edges[column + 1], edges[column] + 1)]
        high, low = (WAVE_HEIGHT * (1 - 0.92 * value / peak) for value in (part.max(), part.min()))
        draw.line((column, high, column, low), fill=WAVE)
    return panel.resize((span, WAVE_HEIGHT), Image.Resampling.BOX)


def _frequency_labels(draw: ImageDraw.ImageDraw, mel: MelPicture, left: int, top: int) -> None:
    last = None
    for hz in FREQUENCIES_HZ:
        row = mel.row_of(hz)
        if row is None or not 6 <= row <= MEL_HEIGHT - 6 or (last is not None and last - row < 22):
            continue
        _label(draw, (left, top + row), f"{hz / 1000:g} kHz")
        draw.line((left - 3, top + row, left - 1, top + row), fill=FAINT)
        last = row


def _clock(draw: ImageDraw.ImageDraw, duration_s: float, panels: tuple[int, int, int, int]) -> None:
    """Draw ticks under the panels and dotted lines through them, at round seconds."""
    left, top, right, bottom = panels
    pixels_per_s = (right - left) / duration_s
    step = next((s for s in TICK_STEPS_S if s * pixels_per_s >= MIN_TICK_PIXELS), TICK_STEPS_S[-1])
    for index in range(int(duration_s / step + 1e-9) + 1):
        x = min(left + round(index * step * pixels_per_s), right - 1)
        draw.line((x, bottom, x, bottom + 4), fill=INK)
        for y in range(top, bottom, 8):
            draw.line((x, y, x, y + 1), fill=FAINT)
        anchor = "ra" if x > right - 30 and index else "ma"
        text = f"{index * step:g} s"
        draw.text((x, bottom + 6), text, fill=INK, font=_font(TEXT_SIZE), anchor=anchor)


def _label(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str) -> None:
    """Write text left of a panel, at half height of a row."""
    draw.text((at[0] - 6, at[1]), text, fill=FAINT, font=_font(TEXT_SIZE - 1), anchor="rm")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
