"""Which of two models makes clips that are more like real ones, and is the difference certain?

    python examples/evaluate_two_models.py REAL FIRST SECOND

REAL, FIRST and SECOND are folders of clips with sound, as `soundreel generate --lossless` or
`soundreel render` writes them; a few dozen each at the least, all of one length. Each distance
comes with the interval that 95 % of redrawn sets fall into. Where the intervals of two models
overlap, no winner is named.
"""

import sys
from fractions import Fraction
from pathlib import Path

from soundreel.cli.clip_sources import clip_items
from soundreel.metrics.evaluation import evaluate_sets
from soundreel.metrics.extractors import build_extractors
from soundreel.metrics.measure import MeasuredSet, measure_set

METRICS = ("fad/yamnet", "kvd/efficientnet-lite0")
DURATION_S, FRAME_RATE = 1.6, Fraction(10)


def main(real: Path, models: list[Path]) -> None:
    extractors = build_extractors(METRICS, {})
    hashes = {extractor.name: extractor.weights_sha256 for extractor in extractors}

    def measure(folder: Path) -> MeasuredSet:
        items = clip_items(folder, split="", max_clips=None, seed=0)
        return measure_set(items, extractors, DURATION_S, FRAME_RATE, lambda done, total: None)

    reference = measure(real)
    results = [
        evaluate_sets(reference, measure(folder), METRICS, hashes, seed=0, provenance={})
        for folder in models
    ]
    for number, metric in enumerate(METRICS):
        estimates = [result.metrics[number].overall for result in results]
        for folder, one in zip(models, estimates, strict=True):
            interval = f"({one.low:.4f} to {one.high:.4f})"
            print(f"{metric:24} {folder.name:12} {one.value:8.4f} {interval}")
        best = min(range(len(models)), key=lambda index: estimates[index].value)
        others = [one for index, one in enumerate(estimates) if index != best]
        certain = all(estimates[best].high < one.low for one in others)
        print(f"{metric:24} {models[best].name if certain else 'no winner'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
