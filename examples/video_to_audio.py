"""Give a silent video a sound: a few takes of it, to choose from by ear.

    python examples/video_to_audio.py MODEL VIDEO OUT [TAKES]

MODEL is any model folder, owner/name on the Hub, or "default". A joint_flow sounds all of VIDEO,
other systems as many of its first seconds as they make. Each take has a sound of its own.
"""

import sys
from pathlib import Path

import numpy as np

import soundreel
from soundreel.media.contact_sheet import write_contact_sheet


def main(model: str, video: Path, out: Path, takes: int) -> None:
    pipe = soundreel.load(model)
    clip = soundreel.Clip.load(video)
    sounded = pipe.generate(video=clip, count=takes, seed=0)
    out.mkdir(parents=True, exist_ok=True)
    for take, result in enumerate(sounded):
        result.save(out / f"take-{take}.mp4")
        level_db = 10 * np.log10(float((result.waveform**2).mean()) + 1e-12)
        print(f"take {take}: {result.duration_s:.2f} s, {level_db:.0f} dB")
    write_contact_sheet(out / "takes.png", sounded, titles=[f"take {n}" for n in range(takes)])


if __name__ == "__main__":
    takes = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), takes)
