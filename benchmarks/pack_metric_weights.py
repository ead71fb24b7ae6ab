"""Make the metric weights that come with the package, and measure what packing changes.

python benchmarks/pack_metric_weights.py YAMNET EFFICIENTNET OUT [--compare REF GEN --clips 40]

YAMNET and EFFICIENTNET are the safetensors files named in NOTICE.md; classifiers are left out.
YAMNet's 1x1 convolutions, nearly all of its weights, become 8-bit integers with a scale for each
output channel: they came from such integers, so that only rounding to float16 is undone.
EfficientNet's stay in float16: 8 bits would move its features by 3 to 5 %.
"""

import argparse
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from soundreel.cli.clip_sources import clip_items
from soundreel.metrics.efficientnet_lite0 import EfficientNetLite0Features
from soundreel.metrics.extractors import Extractor
from soundreel.metrics.frechet import frechet_distance
from soundreel.metrics.kernel import kernel_distance
from soundreel.metrics.measure import measure_set
from soundreel.metrics.weights import SCALE
from soundreel.metrics.yamnet import YAMNetFeatures

CLASSIFIERS = ("classifier.", "_fc.")


def pack(source: Path, target: Path, has_8_bits: bool) -> None:
    packed = {}
    with safe_open(source, "pt") as file:
        metadata = file.metadata() or {}
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            tensor = file.get_tensor(name)
            if name.startswith(CLASSIFIERS):
                continue
            if has_8_bits and tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
                packed[name + SCALE], tensor = quantise(tensor.float())
            packed[name] = tensor.contiguous()
    kind = "without classifier" + ", 1x1 convolutions in 8 bits" * has_8_bits
    save_file(packed, target, metadata=metadata | {"packed": kind})
    target.chmod(0o644)
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB, was {source.stat().st_size / 1e6:.2f}")


def quantise(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and 8-bit integers; given the integers, the scales are those of least squares."""
    rows = weight.flatten(1).double()
    levels = (rows / rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) * 127).round()
    scale = (rows * levels).sum(dim=1) / levels.square().sum(dim=1).clamp(min=1)
    return scale.float(), levels.to(torch.int8).reshape(weight.shape)


def compare(
    pair: list[Extractor], distance: Callable[..., float], folders: list[Path], count: int
) -> None:
    """One metric with the given and with the packed weights."""
    given, packed = pair
    sets = []
    for extractor in (given, packed):
        sets.append(
            [
                measure_set(
                    clip_items(folder, "", count, 0),
                    [extractor],
                    1.6,
                    Fraction(10),
                    lambda *_: None,
                ).features[extractor.name]
                for folder in folders
            ]
        )
    values = [distance(*found) for found in sets]
    error = (sets[0][0] - sets[1][0]).norm() / sets[0][0].norm()
    print(f"{given.name}: given {values[0]:.6g}, packed {values[1]:.6g}, features {error:.2e}")
    print(f"  the same clips, given against packed: {distance(sets[0][0], sets[1][0]):.3g}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("yamnet", type=Path)
    parser.add_argument("efficientnet", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--compare", type=Path, nargs=2, default=())
    parser.add_argument("--clips", type=int, default=40)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for kind, source, distance in (
        (YAMNetFeatures, args.yamnet, frechet_distance),
        (EfficientNetLite0Features, args.efficientnet, kernel_distance),
    ):
        pack(source, args.out / source.name, kind is YAMNetFeatures)
        if args.compare:
            pair = [kind(source), kind(args.out / source.name)]
            compare(pair, distance, list(args.compare), args.clips)


if __name__ == "__main__":
    main()
