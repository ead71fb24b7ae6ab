"""Cut a piece of any video, bring it to a model's rates, and see it over its sound.

python examples/look_at_a_clip.py VIDEO OUT.png [START_S] [DURATION_S]
"""

import sys
from fractions import Fraction
from pathlib import Path

from soundreel import Clip, ClipSpec
from soundreel.media.contact_sheet import write_contact_sheet


def main(video: Path, picture: Path, start_s: Fraction, duration_s: Fraction) -> None:
    clip = Clip.load(video, start=start_s, duration=duration_s)
    print(f"{clip.num_frames} frames, {clip.num_samples} samples, {clip.duration_s:.3f} s")
    write_contact_sheet(picture, clip, titles=[video.name])

    # What a model would be given: exact rates, values in [-1, 1], a batch of one.
    spec = ClipSpec(num_frames=int(clip.duration * 10), height=64, width=64)
    fitted = clip.resample(
        frame_rate=spec.frame_rate, sample_rate=spec.sample_rate, size=(64, 64), num_channels=1
    )
    av = fitted.to_av(spec)
    print(f"video {tuple(av['video'].shape)}, audio {tuple(av['audio'].shape)}")


if __name__ == "__main__":
    start = Fraction(sys.argv[3]) if len(sys.argv) > 3 else Fraction(0)
    duration = Fraction(sys.argv[4]) if len(sys.argv) > 4 else Fraction("1.6")
    main(Path(sys.argv[1]), Path(sys.argv[2]), start, duration)
