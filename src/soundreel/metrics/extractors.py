"""The features behind a named distribution metric: which network, which weights, which distance.

A metric's name is `distance/extractor`. The official names (`fvd/i3d`, `kvd/i3d`, `fad/audioclip`,
`fad/vggish`) exist only for those who have the official weights; without them a name is refused,
never silently replaced. `fad/yamnet` and `kvd/efficientnet-lite0` are stand-ins under their own
names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from soundreel.metrics.audioclip import AudioCLIPFeatures
from soundreel.metrics.efficientnet_lite0 import EfficientNetLite0Features
from soundreel.metrics.i3d import I3DFeatures
from soundreel.metrics.vggish import VGGishFeatures
from soundreel.metrics.weights import MetricWeightsError
from soundreel.metrics.yamnet import YAMNetFeatures

Modality = Literal["video", "audio"]


@runtime_checkable
class Extractor(Protocol):
    """A network with its weights: uint8 frames `batch frame channel height width`, or mono sound
    `batch sample` at `sample_rate`, to features `row dim`."""

    name: str
    modality: str
    sample_rate: int
    weights_sha256: str

    def __call__(self, clips: Tensor, /) -> Float[Tensor, "row dim"]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricDefinition:
    """What a metric's name stands for.

    `factor` multiplies the distance (the published audio distance is given times 10,000).
    """

    name: str
    distance: Literal["frechet", "kernel"]
    extractor: str
    modality: Modality
    factor: float = 1.0


def _audioclip_reference(path: str | Path) -> AudioCLIPFeatures:
    return AudioCLIPFeatures(path, reference_quirks=True)


EXTRACTORS: dict[str, Callable[[str | Path], Extractor]] = {
    "i3d": I3DFeatures,
    "audioclip": AudioCLIPFeatures,
    "audioclip-reference-quirks": _audioclip_reference,
    "vggish": VGGishFeatures,
    "yamnet": YAMNetFeatures,
    "efficientnet-lite0": EfficientNetLite0Features,
}

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


def build_extractor(metric: str, weights: Mapping[str, Path]) -> Extractor:
    """The extractor of a named metric.

    Args:
        weights: file of each extractor's weights, by the extractor's name.

    Raises:
        MetricWeightsError: unknown metric, or its weights were not given.
    """
    if metric not in METRICS:
        raise MetricWeightsError(f"no metric {metric!r}; there are {', '.join(sorted(METRICS))}")
    name = METRICS[metric].extractor
    if name not in weights:
        raise MetricWeightsError(
            f"{metric} needs the weights of {name}, and none were given: pass "
            f"--weights {name} FILE.safetensors, or ask for another metric"
        )
    return EXTRACTORS[name](weights[name])
