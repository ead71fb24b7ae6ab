"""Make clips with a trained model and look at them on one page.

    python examples/generate.py MODEL OUT [COUNT]

MODEL is a folder such as RUN/model, or owner/name on the Hub.
"""

import sys
from pathlib import Path

import soundreel
from soundreel.media.contact_sheet import write_contact_sheet


def main(model: str, out: Path, count: int) -> None:
    pipe = soundreel.load(model)
    clips = pipe.generate(count=count, seed=0)
    out.mkdir(parents=True, exist_ok=True)
    for index, clip in enumerate(clips):
        clip.save(out / f"{index}.mp4")  # to look at
        clip.save(out / f"{index}.mkv")  # exactly what the model made
        loudness = float((clip.waveform**2).mean() ** 0.5)
        print(f"{index}: {clip.duration_s:.2f} s, sound at {loudness:.3f} of full scale")
    write_contact_sheet(out / "all.png", clips, titles=[f"seed {n}" for n in range(count)])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 4)
