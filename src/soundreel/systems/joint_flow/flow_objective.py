"""Training the joint transformer: which parts of a clip are how noisy, and the flow's loss."""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from soundreel.device import send
from soundreel.diffusion.flow import (
    correlated_noise,
    interpolate,
    linear_velocity,
    logit_normal,
    remainder,
)
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.errors import SoundreelError
from soundreel.systems.joint_flow.transformer import JointTransformer
from soundreel.training.objectives import Objective, TrainingBatch, TrainingLoss
from soundreel.training.parallel import unwrapped
from soundreel.types import AV

EDGE = 1e-3
"""Levels are kept this far from 0 and 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowLossConfig:
    """Settings of the joint transformer's loss.

    Attributes:
        together, apart, one_clean: shares of clips with one level for everything, with one for each
            modality, and with one modality nearly clean; in the rest the past is nearly clean.
        clean_level: highest level of a nearly clean modality.
        past_level: highest level of a nearly clean past.
        video_times, audio_times: mean and deviation of the logit of the levels.
        uniform_share: of levels drawn evenly instead.
        min_level: no loss where the level is lower, for there is nothing left to learn.
        layout_weight: of a layout token's error; that of a detail token is 1.
        class_drop: share of clips whose class is not told.
    """

    together: float = 0.25
    apart: float = 0.25
    one_clean: float = 0.35
    clean_level: float = 0.1
    past_level: float = 0.25
    video_times: tuple[float, float] = (1.2, 1.5)
    audio_times: tuple[float, float] = (0.3, 1.2)
    uniform_share: float = 0.1
    min_level: float = 0.08
    layout_weight: float = 6.0
    class_drop: float = 0.1

    def __post_init__(self) -> None:
        shares = (self.together, self.apart, self.one_clean)
        if min(shares) < 0 or sum(shares) > 1:
            raise SoundreelError(
                f"together, apart and one_clean are shares that add up to at most 1, got {shares}"
            )
        for name in ("uniform_share", "class_drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise SoundreelError(f"{name} is a share within [0, 1], got {getattr(self, name)}")


def flow_objective(config: FlowLossConfig) -> Objective:
    """Return the loss of `JointTransformer` on batches of latents as the codecs give them.

    Everything random about a clip comes from its own generator, in this order: its levels, whether
    its class is told, its noise.
    """

    def objective(network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise) -> TrainingLoss:
        transformer = cast(JointTransformer, unwrapped(network))
        x0 = transformer.scaled(batch.av)
        num_groups = x0["video"].shape[1]
        rows = [draw_levels(g, num_groups, config) for g in noise.generators]
        level = AV(*(send(torch.stack(parts), x0.device) for parts in zip(*rows, strict=True)))
        dropped = torch.stack([torch.rand((), generator=g) for g in noise.generators])
        none = transformer.config.num_classes
        label = torch.where((dropped < config.class_drop) | (batch.label < 0), none, batch.label)
        errors = flow_errors(network, x0, noise(x0), level, send(label, x0.device))
        weight = error_weights(transformer, config.layout_weight)
        losses = {}
        for modality in x0.present:
            counted = (level[modality] > config.min_level).float()
            per_group = (errors[modality] * weight[modality]).mean((2, 3)) * counted
            losses[modality] = per_group.sum() / counted.sum().clamp(min=1)
        means = {m: (loss.detach(), len(label)) for m, loss in losses.items()}
        return TrainingLoss(losses["video"] + losses["audio"], means)

    return objective


def flow_errors(
    network: nn.Module, x0: AV, white: AV, level: AV, label: Int[Tensor, " batch"]
) -> AV:
    """Return the squared error of the network's velocity, `batch group token dim` each.

    It is in units of the best linear velocity's error where the class is not known. A network that
    answers zero has the best linear velocity of the class, hence an error of 1 or less on average.

    Args:
        white: standard normal noise.
    """
    transformer = cast(JointTransformer, unwrapped(network))
    prior = transformer.prior(label)
    noise = correlated_noise(white, transformer.correlation)
    centred = x0 - prior.mean
    xt = interpolate(centred, noise, level)
    linear = linear_velocity(level, prior.deviation)
    unknown = linear_velocity(level, transformer.deviation)
    answer = network(xt * linear.input_scale, level, label)
    wanted = remainder(noise - centred, xt, linear)
    return ((answer - wanted) * linear.error / unknown.error).map(torch.square)


def error_weights(transformer: JointTransformer, layout_weight: float) -> AV:
    """Return the weight of the error of every number of a group, `token dim` each; their mean is 1.

    Within a token it grows with the number's deviation: what is large in a picture is seen first,
    but there are few such numbers.
    """

    def of(deviation: Float[Tensor, "token dim"]) -> Float[Tensor, "token dim"]:
        return deviation / deviation.mean(-1, keepdim=True)

    weight = transformer.deviation.map(of)
    layout = weight["video"].clone()
    layout[-1] *= layout_weight
    return weight.replace("video", layout / layout.mean())


def draw_levels(
    generator: torch.Generator, num_groups: int, config: FlowLossConfig
) -> tuple[Float[Tensor, " group"], Float[Tensor, " group"]]:
    """Draw the noise levels of one clip's pictures and sound."""
    kind, which, low, split = torch.rand(4, generator=generator).tolist()
    video, audio = (
        float(_level(generator, times, config))
        for times in (config.video_times, config.audio_times)
    )
    first, second = config.together, config.together + config.apart
    if kind < first or kind >= second + config.one_clean:
        # One level for both: as it is drawn for the one or for the other.
        video = audio = video if which < 0.5 else audio
    elif kind >= second:
        if which < 0.5:
            video = low * config.clean_level
        else:
            audio = low * config.clean_level
    levels = [torch.full((num_groups,), level) for level in (video, audio)]
    if kind >= second + config.one_clean and num_groups > 1:
        past = 1 + int(split * (num_groups - 1))
        for level in levels:
            level[:past] = low * config.past_level
    return levels[0].clamp(EDGE, 1 - EDGE), levels[1].clamp(EDGE, 1 - EDGE)


def _level(
    generator: torch.Generator, times: tuple[float, float], config: FlowLossConfig
) -> Float[Tensor, ""]:
    normal = torch.randn((), generator=generator)
    uniform, chance = torch.rand(2, generator=generator)
    return logit_normal(
        normal,
        uniform,
        chance,
        mean=times[0],
        deviation=times[1],
        uniform_share=config.uniform_share,
    )
