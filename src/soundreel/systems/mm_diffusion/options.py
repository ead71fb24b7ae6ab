"""Options of MM-Diffusion's sampling, and settings that a model folder holds."""

from dataclasses import dataclass

from soundreel.device import PRECISIONS
from soundreel.diffusion.config import DiffusionConfig
from soundreel.diffusion.samplers import SAMPLERS
from soundreel.protocols import option


@dataclass(frozen=True, kw_only=True, slots=True)
class MMDiffusionOptions:
    """Options of `MMDiffusionPipeline.generate` besides the request itself."""

    num_steps: int = option(
        20, "Sampling steps; more is slower and closer to the model.", low=1, high=100
    )
    sampler: str = option("dpm-solver++", "Numerical method of sampling.", choices=tuple(SAMPLERS))
    guidance_weight: float = option(
        2.0,
        "How strongly the given modality steers the other, by the rule reconstruction; 0 is"
        " replacement alone, at half the cost.",
        low=0,
        high=8,
        given_only=True,
    )
    guidance_rule: str = option(
        "reconstruction",
        "Rule of the gradient by which the given modality steers the other; official is"
        " MM-Diffusion's published one, for the sampler ddpm.",
        choices=("reconstruction", "official"),
        given_only=True,
    )
    official_scale: float = option(
        3.0,
        "Gradient scale of the rule official, as the published scripts count it; 0 is replacement.",
        low=0,
        high=8,
        given_only=True,
    )
    precision: str = option(
        "auto",
        "Precision of the network; auto measures which one is faster.",
        choices=PRECISIONS,
        on_page=False,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class MMDiffusionSettings:
    """Settings that a model folder holds beside its networks.

    Attributes:
        diffusion: the process the network was trained with.
        sampler, num_steps: what `generate` uses unless told otherwise.
        samples_seen: training clips behind the weights; 0 if unknown.
    """

    diffusion: DiffusionConfig = DiffusionConfig()
    sampler: str = "dpm-solver++"
    num_steps: int = 20
    samples_seen: int = 0
