"""Long video: the generator's loss when the clip before is known, in part or not at all.

Each pair of consecutive windows is trained on one of four tasks, drawn uniformly: generation
(nothing of the earlier window is known), prediction (all of it), audio continuation (its sound
alone) and video continuation (its pictures alone). What is not known is the zero latent of the
standardised space. That is also the latent of the mean clip; but a standardised latent has unit
variance, so that the clips of a data set lie about the square root of its number of elements away
from zero, and none near it.

Where the context is dropped for guidance, the history is dropped too: the null branch of sampling
has neither.

Source: Sun et al. 2024 (arXiv 2410.01594), appendix on long video. The release draws one task per
batch and never generation; the appendix, which is followed here, draws all four.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from soundreel.device import send
from soundreel.diffusion.losses import LossTerms
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.schedules import Schedule
from soundreel.systems.mm_ldm.generator_loss import (
    ConditionMasks,
    GeneratorDraws,
    GeneratorObjective,
    TextSource,
    condition_masks,
    generator_step,
)
from soundreel.training.objectives import (
    Mean,
    Objective,
    TrainingBatch,
    TrainingLoss,
    log_means,
)
from soundreel.types import AV

TASKS = ("generation", "prediction", "audio_continuation", "video_continuation")
KNOWN = {
    "video": (False, True, False, True),
    "audio": (False, True, True, False),
}
"""Per modality: does the task know the earlier window's latent."""


def draw_tasks(noise: PerSampleNoise) -> Int[Tensor, " batch"]:
    """Draw one of `TASKS` for each sample, uniformly, from the sample's own generator."""
    return torch.stack([torch.randint(len(TASKS), (), generator=g) for g in noise.generators])


def known_history(
    previous: AV, task: Int[Tensor, " batch"], kept: Bool[Tensor, " batch"] | None = None
) -> AV:
    """Return the earlier window's latents where the task knows them, zeros elsewhere.

    Args:
        previous: standardised latents of the earlier window.
        task: number among `TASKS`.
        kept: False in a row makes both zero.
    """
    for name in previous.present:
        known = send(torch.tensor(KNOWN[name]), task.device)[task]
        known = (known if kept is None else known & kept).to(previous[name])
        shape = (-1, *(1 for _ in previous[name].shape[1:]))
        previous = previous.replace(name, previous[name] * known.reshape(shape))
    return previous


def mm_ldm_long_objective(
    schedule: Schedule,
    objective: GeneratorObjective,
    *,
    standardize: Callable[[AV], AV] | None = None,
    colour: Callable[[AV], AV] | None = None,
    text: TextSource | None = None,
) -> Objective:
    """Return the objective for the training loop; batches hold pairs of perceptual latents.

    Args: as for `mm_ldm_generator_objective`. The network is a `LongGenerator`.
    """

    def loss(network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise) -> TrainingLoss:
        previous, latents = (batch.av.map(lambda x, n=n: x[:, n]) for n in (0, 1))
        if standardize is not None:
            previous, latents = standardize(previous), standardize(latents)
        task = send(draw_tasks(noise), latents.device)

        def history(draws: GeneratorDraws) -> AV:
            kept = condition_masks(draws.uniforms, objective).context_kept
            return known_history(previous, task, kept)

        losses, draws = generator_step(
            network,
            batch,
            latents,
            noise,
            schedule,
            objective,
            colour=colour,
            text=text,
            history=history,
        )
        means = log_means(losses.terms, draws.timestep, len(schedule))
        masks = condition_masks(draws.uniforms, objective)
        return TrainingLoss(losses.loss.mean(), {**means, **task_means(losses, task, masks)})

    return loss


def task_means(
    losses: LossTerms, task: Int[Tensor, " batch"], masks: ConditionMasks
) -> dict[str, Mean]:
    """Return the mean of each term over the samples of each task, with their number.

    Samples that are given the clean latent of a term's own modality are left out: their loss says
    nothing of the task, and may be weighted with 0.
    """
    means: dict[str, Mean] = {}
    for number, name in enumerate(TASKS):
        for term, values in losses.terms.items():
            rows = (task == number) & ~masks.given(term.rpartition("_")[2])
            count = rows.float().sum()
            mean = (values.detach().float() * rows).sum() / count.clamp(min=1)
            means[f"{term}/{name}"] = (mean, count)
    return means
