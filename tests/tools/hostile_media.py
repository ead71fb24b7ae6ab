"""Builders of small media files that are broken, odd or lie about themselves.

`HOSTILE` maps a file name to the function that writes it; `build_hostile_folder` writes them all.
The fixture `hostile_media` gives this module to tests.
"""

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FRAME_RATE = 10
SAMPLE_RATE = 16_000
THREE_HOURS_S = 3 * 3600


def picture(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A gradient with a bright square that moves right by 4 pixels a frame; top left corner red."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:] = np.linspace(30, 120, width).astype(np.uint8)[None, :, None]
    left = 4 * index % max(1, width - 8)
    image[height // 2 : height // 2 + 8, left : left + 8] = 250
    image[: height // 4, : width // 4] = (220, 30, 30)
    return image


def tone(num_samples: int, sample_rate: int = SAMPLE_RATE, num_channels: int = 1) -> np.ndarray:
    """440 Hz at half scale in every channel."""
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(num_samples) / sample_rate)
    return np.repeat(wave.astype(np.float32)[None], num_channels, axis=0)


def write(
    path: Path,
    *,
    pictures: Sequence[np.ndarray] = (),
    picture_times_ms: Sequence[int] | None = None,
    sound: np.ndarray | None = None,
    sound_start_ms: int = 0,
    sample_rate: int = SAMPLE_RATE,
    layout: str = "mono",
    rotation: int = 0,
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    options: dict[str, str] | None = None,
) -> Path:
    """Mux pictures shown at given times (default: ten a second) and sound that begins at a time."""
    times = picture_times_ms or [round(1000 * k / FRAME_RATE) for k in range(len(pictures))]
    with av.open(str(path), "w", options=options or {}) as container:
        if len(pictures):
            video = container.add_stream(video_codec, rate=FRAME_RATE)
            video.height, video.width = pictures[0].shape[:2]
            video.pix_fmt = "bgr0" if video_codec == "ffv1" else "yuv420p"
            video.codec_context.time_base = Fraction(1, 1000)
            if rotation:
                video.set_display_rotation(rotation)
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=sample_rate, layout=layout)
        if len(pictures):
            for image, time in zip(pictures, times, strict=True):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 1000)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if sound is not None:
            packed = np.ascontiguousarray(sound.T).reshape(1, -1)
            block = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
            block.sample_rate, block.time_base = sample_rate, Fraction(1, sample_rate)
            block.pts = sound_start_ms * sample_rate // 1000
            container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


def good(path: Path, num_frames: int = 20, **settings: object) -> Path:
    """Pictures and sound of equal length, two seconds."""
    sound = tone(num_frames * SAMPLE_RATE // FRAME_RATE)
    return write(path, pictures=[picture(k) for k in range(num_frames)], sound=sound, **settings)


def zero_byte(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def text_named_as_video(path: Path) -> Path:
    path.write_text("This is a shopping list: bread, butter, batteries.\n" * 20)
    return path


def truncated_before_index(path: Path) -> Path:
    """MP4 whose index lay at the end and is gone: nothing can be decoded."""
    good(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def truncated_after_index(path: Path) -> Path:
    """MP4 with its index at the front and the last third of the data missing."""
    good(path, options={"movflags": "+faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return path


def damaged_middle(path: Path) -> Path:
    """Matroska with a stretch of its data overwritten."""
    good(path)
    data = bytearray(path.read_bytes())
    begin, end = len(data) * 4 // 10, len(data) * 5 // 10
    data[begin:end] = np.random.default_rng(0).bytes(end - begin)
    path.write_bytes(bytes(data))
    return path


def no_audio(path: Path) -> Path:
    return write(path, pictures=[picture(k) for k in range(20)])


def no_video(path: Path) -> Path:
    return write(path, sound=tone(2 * SAMPLE_RATE))


def variable_rate(path: Path) -> Path:
    """Frame k is shown from 0, 40, 200, 240, 400, 440, ... ms on: 40 and 160 ms in turn."""
    times = [200 * (k // 2) + 40 * (k % 2) for k in range(20)]
    sound = tone(2 * SAMPLE_RATE)
    return write(
        path,
        pictures=[picture(k) for k in range(20)],
        picture_times_ms=times,
        sound=sound,
    )


def rotated(path: Path) -> Path:
    """Stored 64 wide and 48 high; the flag says to turn it by 90 degrees counter-clockwise."""
    return good(path, rotation=90)


def one_frame(path: Path) -> Path:
    return write(path, pictures=[picture(0)], sound=tone(SAMPLE_RATE // FRAME_RATE))


def audio_starts_late(path: Path) -> Path:
    """The sound begins half a second after the picture."""
    return write(
        path,
        pictures=[picture(k) for k in range(20)],
        sound=tone(3 * SAMPLE_RATE // 2),
        sound_start_ms=500,
    )


def video_starts_late(path: Path) -> Path:
    """The picture begins 300 ms after the sound."""
    return write(
        path,
        pictures=[picture(k) for k in range(20)],
        picture_times_ms=[300 + 100 * k for k in range(20)],
        sound=tone(23 * SAMPLE_RATE // 10),
    )


def audio_ends_early(path: Path) -> Path:
    """Two seconds of picture, one second of sound."""
    return write(path, pictures=[picture(k) for k in range(20)], sound=tone(SAMPLE_RATE))


def surround(path: Path) -> Path:
    """5.1 channels at 48 kHz."""
    return write(
        path,
        pictures=[picture(k) for k in range(20)],
        sound=tone(2 * 48_000, 48_000, 6),
        sample_rate=48_000,
        layout="5.1",
        audio_codec="flac" if path.suffix == ".mkv" else "aac",
    )


def low_sample_rate(path: Path) -> Path:
    sound = tone(2 * 8000, 8000)
    return write(path, pictures=[picture(k) for k in range(20)], sound=sound, sample_rate=8000)


def high_sample_rate(path: Path) -> Path:
    sound = tone(2 * 96_000, 96_000, 2)
    return write(
        path,
        pictures=[picture(k) for k in range(20)],
        sound=sound,
        sample_rate=96_000,
        layout="stereo",
    )


def odd_size(path: Path) -> Path:
    """Matroska with pictures of 37 x 53 pixels, lossless."""
    return write(
        path,
        pictures=[picture(k, height=53, width=37) for k in range(20)],
        sound=tone(2 * SAMPLE_RATE),
        video_codec="ffv1",
        audio_codec="pcm_s16le",
    )


def three_hour_silent_header(path: Path) -> Path:
    """Matroska whose header claims three hours; it holds 0.4 s of black and silence."""
    black = [np.zeros((48, 64, 3), np.uint8)] * 4
    write(path, pictures=black, sound=np.zeros((1, 4 * SAMPLE_RATE // FRAME_RATE), np.float32))
    data = path.read_bytes()
    at = data.index(b"\x44\x89\x88") + 3  # the element Duration, a float of 8 bytes
    path.write_bytes(data[:at] + struct.pack(">d", THREE_HOURS_S * 1000.0) + data[at + 8 :])
    return path


def three_hour_empty_wav(path: Path) -> Path:
    """WAV header that claims three hours of samples; none follows."""
    num_bytes = THREE_HOURS_S * SAMPLE_RATE * 2
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", num_bytes + 36, b"WAVE", b"fmt ", 16, 1, 1,
                       SAMPLE_RATE, SAMPLE_RATE * 2, 2, 16)  # fmt: skip
    path.write_bytes(head + struct.pack("<4sI", b"data", num_bytes))
    return path


def three_hour_jump(path: Path) -> Path:
    """Two frames three hours apart."""
    times = [0, THREE_HOURS_S * 1000]
    return write(path, pictures=[picture(0), picture(1)], picture_times_ms=times)


HOSTILE: dict[str, Callable[[Path], Path]] = {
    "zero_byte.mp4": zero_byte,
    "text_named_as_video.mp4": text_named_as_video,
    "truncated_before_index.mp4": truncated_before_index,
    "truncated_after_index.mp4": truncated_after_index,
    "damaged_middle.mkv": damaged_middle,
    "no_audio.mp4": no_audio,
    "no_video.m4a": no_video,
    "variable_rate.mp4": variable_rate,
    "rotated.mp4": rotated,
    "one_frame.mp4": one_frame,
    "audio_starts_late.mp4": audio_starts_late,
    "video_starts_late.mkv": video_starts_late,
    "audio_ends_early.mp4": audio_ends_early,
    "surround.mkv": surround,
    "low_sample_rate.mp4": low_sample_rate,
    "high_sample_rate.mp4": high_sample_rate,
    "odd_size.mkv": odd_size,
    "three_hour_silent_header.mkv": three_hour_silent_header,
    "three_hour_empty.wav": three_hour_empty_wav,
    "three_hour_jump.mkv": three_hour_jump,
}

UNREADABLE = ("zero_byte.mp4", "text_named_as_video.mp4", "truncated_before_index.mp4")
"""Files that no part can be read of."""


def build_hostile_folder(folder: Path) -> dict[str, Path]:
    """Write every file of `HOSTILE` into a folder; returns the paths by name."""
    folder.mkdir(parents=True, exist_ok=True)
    return {name: build(folder / name) for name, build in HOSTILE.items()}
