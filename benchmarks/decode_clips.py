"""How many clips one core reads and writes in a second.

    python benchmarks/decode_clips.py [FOLDER]

FOLDER holds videos; without it the excerpts in `examples/clips` are used. Prints Markdown. Time is
CPU time of this process, so that other programs disturb it less.
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from soundreel.clip import Clip
from soundreel.media.encode import encode_mkv_bytes
from soundreel.media.framing import Framing
from soundreel.media.probe import probe

MAX_FILES = 60
FRAMING = Framing.center_square(64)


def load(source: Path | io.BytesIO) -> Clip:
    """As a data set is prepared: 64 x 64 pixels, 10 frames a second, 16 kHz mono."""
    return Clip.load(source, frame_rate=10, sample_rate=16_000, num_channels=1, framing=FRAMING)


def row(name: str, items: list, work: Callable) -> str:
    work(items[0])
    start = time.process_time()
    for item in items:
        work(item)
    seconds = (time.process_time() - start) / len(items)
    return f"| {name} | {1000 * seconds:.1f} | {1 / seconds:.0f} |"


def main() -> None:
    default = Path(__file__).resolve().parents[1] / "examples" / "clips"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    files = sorted(f for f in folder.rglob("*") if f.suffix in (".mp4", ".mpg", ".webm", ".mkv"))
    files = files[:MAX_FILES]
    clips = [load(file) for file in files]
    stored = [
        encode_mkv_bytes(clip.frames, clip.waveform, clip.frame_rate, clip.sample_rate)
        for clip in clips
    ]
    seconds = sum(clip.duration_s for clip in clips) / len(clips)
    print(f"{len(files)} clips of {folder.name}, {seconds:.1f} s each on average\n")
    print("| one clip | CPU ms | a second |\n| --- | --- | --- |")
    print(row("read its header", files, probe))
    print(row("decode and scale to 64 px, 10 frames/s, 16 kHz", files, load))
    encode = lambda clip: encode_mkv_bytes(clip.frames, clip.waveform, 10, 16_000)  # noqa: E731
    print(row("encode losslessly", clips, encode))
    print(row("decode the lossless clip", stored, lambda data: load(io.BytesIO(data))))
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "clip.mp4"
        print(row("write MP4", clips[:12], lambda clip: clip.save(path)))


if __name__ == "__main__":
    main()
