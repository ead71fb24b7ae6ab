"""The features behind a named distribution metric: which network, which weights, which distance.

A metric's name is `distance/extractor`. The official names (`fvd/i3d`, `kvd/i3d`, `fad/audioclip`,
`fad/vggish`) exist only for those who have the official weights; without them a name is refused,
never silently replaced. `fad/yamnet` and `kvd/efficientnet-lite0` are stand-ins under their own
names, whose weights come with the package.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from soundreel.metrics.audioclip import AudioCLIPFeatures
from soundreel.metrics.efficientnet_lite0 import EfficientNetLite0Features
from soundreel.metrics.i3d import I3DFeatures
from soundreel.metrics.vggish import VGGishFeatures
from soundreel.metrics.weights import MetricWeightsError
from soundreel.metrics.yamnet import YAMNetFeatures

Modality = Literal["video", "audio"]
CPU = torch.device("cpu")


@runtime_checkable
class Extractor(Protocol):
    """A network with its weights: frames `batch frame channel height width`, or mono sound `batch
    sample` at `sample_rate`, to features `row dim`.

    Frames are uint8 of any size, or as the extractor's own `prepare` (`PreparesFrames`) made them.
    """

    name: str
    modality: str
    sample_rate: int
    weights_sha256: str

    def __call__(self, clips: Tensor, /) -> Float[Tensor, "row dim"]: ...


@runtime_checkable
class PreparesFrames(Protocol):
    """A video extractor that reduces pictures to the size it sees, one by one, as they come."""

    def prepare(
        self, images: UInt8[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image 3 size size"]: ...


class NetworkExtractor(Extractor, Protocol):
    """An extractor whose network can be moved to another device."""

    @property
    def network(self) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricDefinition:
    """Definition of a metric.

    `factor` multiplies the distance (the published audio distance is given times 10,000).
    """

    name: str
    distance: Literal["frechet", "kernel"]
    extractor: str
    modality: Modality
    factor: float = 1.0


def _audioclip_reference(path: str | Path) -> AudioCLIPFeatures:
    return AudioCLIPFeatures(path, reference_quirks=True)


EXTRACTORS: dict[str, Callable[[str | Path], NetworkExtractor]] = {
    "i3d": I3DFeatures,
    "audioclip": AudioCLIPFeatures,
    "audioclip-reference-quirks": _audioclip_reference,
    "vggish": VGGishFeatures,
    "yamnet": YAMNetFeatures,
    "efficientnet-lite0": EfficientNetLite0Features,
}

PACKAGED = Path(__file__).parents[1] / "assets" / "metrics"
PACKAGED_WEIGHTS = {
    "yamnet": PACKAGED / "yamnet.safetensors",
    "efficientnet-lite0": PACKAGED / "efficientnet_lite0.safetensors",
}
"""Files that `benchmarks/pack_metric_weights.py` made; NOTICE.md says from what."""

METRICS: dict[str, MetricDefinition] = {
    metric.name: metric
    for metric in (
        MetricDefinition(name="fvd/i3d", distance="frechet", extractor="i3d", modality="video"),
        MetricDefinition(name="kvd/i3d", distance="kernel", extractor="i3d", modality="video"),
        MetricDefinition(
            name="fad/audioclip",
            distance="frechet",
            extractor="audioclip",
            modality="audio",
            factor=10_000.0,
        ),
        MetricDefinition(
            name="fad/audioclip-reference-quirks",
            distance="frechet",
            extractor="audioclip-reference-quirks",
            modality="audio",
            factor=10_000.0,
        ),
        MetricDefinition(
            name="fad/vggish", distance="frechet", extractor="vggish", modality="audio"
        ),
        MetricDefinition(
            name="fad/yamnet", distance="frechet", extractor="yamnet", modality="audio"
        ),
        MetricDefinition(
            name="kvd/efficientnet-lite0",
            distance="kernel",
            extractor="efficientnet-lite0",
            modality="video",
        ),
    )
}


def build_extractors(
    metrics: Sequence[str],
    weights: Mapping[str, Path],
    device: torch.device = CPU,
) -> list[Extractor]:
    """Return the extractors of named metrics, each once.

    Args:
        weights: files of extractors' weights, by the extractor's name; they go before those that
            come with the package.
        device: where the networks lie and take their clips.

    Raises:
        MetricWeightsError: a metric is unknown or its weights were not given, or weights were given
            that none of the metrics uses.
    """
    for metric in metrics:
        if metric not in METRICS:
            there = ", ".join(sorted(METRICS))
            raise MetricWeightsError(f"no metric {metric!r}; there are {there}")
    names = list(dict.fromkeys(METRICS[metric].extractor for metric in metrics))
    unused = sorted(set(weights) - set(names))
    if unused:
        raise MetricWeightsError(
            f"--weights {unused[0]}: no metric that was asked for uses them; these do: "
            f"{', '.join(names) or 'none'}"
        )
    files = PACKAGED_WEIGHTS | dict(weights)
    for metric in metrics:
        name = METRICS[metric].extractor
        if name not in files:
            raise MetricWeightsError(
                f"{metric} needs the official weights of {name}, and none were given: pass "
                f"--weights {name} FILE, or ask for another metric"
            )
    extractors = [EXTRACTORS[name](files[name]) for name in names]
    for extractor in extractors:
        extractor.network.to(device)
    return list(extractors)
