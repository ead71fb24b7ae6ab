"""The generator's objective: draws, conditions, masked losses, and that it learns."""

from dataclasses import dataclass

import pytest
import torch

from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.schedules import scaled_linear_schedule
from soundreel.systems.mm_ldm.generator import Generator, GeneratorConfig
from soundreel.systems.mm_ldm.generator_loss import (
    ConditionMasks,
    GeneratorObjective,
    class_dropped,
    condition_masks,
    draw,
    generator_loss,
    known_latents,
    mm_ldm_generator_objective,
)
from soundreel.types import AV, LatentSpec

LATENTS = LatentSpec(video_channels=2, video_size=4, audio_channels=3, audio_size=2)
SCHEDULE = scaled_linear_schedule(100)


def make_latents(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return AV(
        torch.randn(batch, *LATENTS.video_shape, generator=generator),
        torch.randn(batch, *LATENTS.audio_shape, generator=generator),
    )


def make_network(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Generator(
            GeneratorConfig(
                latents=LATENTS,
                width=32,
                depth=2,
                num_heads=4,
                context_dim=8,
                num_context_tokens=2,
                **options,
            )
        )


def test_a_clips_draws_do_not_depend_on_its_batch():
    latents = make_latents(3)
    together = draw(latents, SCHEDULE, PerSampleNoise([5, 6, 7]))
    alone = draw(latents.rows(slice(1, 2)), SCHEDULE, PerSampleNoise([6]))
    assert together.timestep[1] == alone.timestep[0]
    assert torch.equal(together.uniforms[1], alone.uniforms[0])
    assert torch.equal(together.noise["video"][1], alone.noise["video"][0])
    assert torch.equal(together.noise["audio"][1], alone.noise["audio"][0])


def test_one_generator_per_clip_is_demanded():
    with pytest.raises(ValueError, match="has 1 seeds, but the batch has 3"):
        draw(make_latents(3), SCHEDULE, PerSampleNoise([0]))


def test_shares_of_conditions_are_as_configured_and_never_both():
    uniforms = torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0))
    masks = condition_masks(uniforms, GeneratorObjective())
    assert float(masks.context_kept.float().mean()) == pytest.approx(0.9, abs=0.005)
    # given: context kept (0.9), this one drawn (0.05), the other not (0.95)
    for given in (masks.audio_given, masks.video_given):
        assert float(given.float().mean()) == pytest.approx(0.9 * 0.05 * 0.95, abs=0.003)
        assert not bool((given & ~masks.context_kept).any())
    assert not bool((masks.audio_given & masks.video_given).any())


def test_half_of_the_clips_given_a_modality_are_not_told_their_class():
    objective = GeneratorObjective(known_class_drop=0.5)
    uniforms = torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0))
    masks = condition_masks(uniforms, objective)
    dropped = class_dropped(uniforms, masks, objective)
    given = masks.audio_given | masks.video_given
    assert not bool((dropped & ~given).any())
    for one in (masks.audio_given, masks.video_given):
        assert float(dropped[one].float().mean()) == pytest.approx(0.5, abs=0.02)


def test_the_loss_of_a_dropped_class_is_that_of_no_class():
    latents = make_latents(4)
    draws = draw(latents, SCHEDULE, PerSampleNoise(range(4)))
    known = {"context_drop": 0.0, "audio_condition": 1.0, "video_condition": 0.0}
    torch.manual_seed(1)
    network = make_network(num_classes=3)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)

    def loss(label, **more):
        objective = GeneratorObjective(**known, **more)
        return generator_loss(network, latents, draws, SCHEDULE, objective, label=label).loss

    label, none = torch.tensor([0, 1, 2, 0]), torch.full((4,), 3)
    assert torch.equal(loss(label, known_class_drop=1.0), loss(none))
    assert not torch.allclose(loss(label), loss(none))


def test_conditions_are_clean_latents_where_given_and_zero_elsewhere():
    latents = make_latents(2)
    yes_no, no_yes = torch.tensor([True, False]), torch.tensor([False, True])
    condition = known_latents(latents, ConditionMasks(yes_no, yes_no, no_yes))
    assert torch.equal(condition["audio"][0], latents["audio"][0])
    assert torch.equal(condition["video"][1], latents["video"][1])
    assert not bool(condition["audio"][1].any())
    assert not bool(condition["video"][0].any())


def test_untrained_loss_is_the_noise_power_and_weight_zero_leaves_the_known_out():
    latents = make_latents(4)
    draws = draw(latents, SCHEDULE, PerSampleNoise(range(4)))
    always_audio = GeneratorObjective(
        context_drop=0.0, audio_condition=1.0, video_condition=0.0, known_loss_weight=0.0
    )
    losses = generator_loss(make_network(), latents, draws, SCHEDULE, always_audio)
    assert not bool(losses.terms["mse_audio"].any())
    power = draws.noise["video"].square().flatten(1).mean(dim=1)
    assert torch.allclose(losses.terms["mse_video"], power)
    assert torch.allclose(losses.loss, power)


def test_learned_variance_adds_the_bound():
    latents = make_latents(2)
    draws = draw(latents, SCHEDULE, PerSampleNoise([0, 1]))
    network = make_network(learned_variance=True)
    losses = generator_loss(network, latents, draws, SCHEDULE, GeneratorObjective())
    assert set(losses.terms) == {"mse_video", "mse_audio", "vb_video", "vb_audio"}


@pytest.mark.parametrize("options", [{}, {"num_classes": 2}])
def test_a_few_steps_on_one_batch_lower_the_loss(options):
    network, latents = make_network(**options), make_latents(8)
    label = torch.arange(8) % 2 if options else None
    objective = GeneratorObjective(prediction_type="v")
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    history = []
    for step in range(40):
        draws = draw(latents, SCHEDULE, PerSampleNoise(range(8 * (step % 2), 8 * (step % 2) + 8)))
        loss = generator_loss(network, latents, draws, SCHEDULE, objective, label=label).loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert sum(history[-4:]) < 0.7 * sum(history[:4])


@dataclass
class Batch:
    av: AV
    label: torch.Tensor
    sample_index: int = 0


@pytest.mark.parametrize("kind", ["plain", "classes", "text", "both"])
def test_the_loops_objective_is_the_mean_loss_of_the_clips_own_draws(kind):
    has_classes, has_text = kind in ("classes", "both"), kind in ("text", "both")
    network = make_network(num_classes=2 if has_classes else 0)
    batch = Batch(make_latents(3), torch.tensor([0, 1, 1]))
    text = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    objective = mm_ldm_generator_objective(
        SCHEDULE, GeneratorObjective(), text=(lambda b: text[b.label]) if has_text else None
    )
    result = objective(network, batch, PerSampleNoise([3, 4, 5]))
    draws = draw(batch.av, SCHEDULE, PerSampleNoise([3, 4, 5]))
    expected = generator_loss(
        network,
        batch.av,
        draws,
        SCHEDULE,
        GeneratorObjective(),
        label=batch.label if has_classes else None,
        text=text[batch.label] if has_text else None,
    )
    assert float(result.loss.detach()) == float(expected.loss.mean().detach())
    assert result.means["mse_video"][1] == 3


def test_the_loops_objective_standardises_latents_before_all_else():
    network = make_network()
    for parameter in network.parameters():  # at the start the output is nothing, whatever comes in
        parameter.data += 0.1 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(1)
        )
    batch = Batch(make_latents(3), torch.tensor([0, 1, 1]))
    scaled = Batch(batch.av.map(lambda x: 3 * x - 1), batch.label)
    losses = [
        mm_ldm_generator_objective(SCHEDULE, GeneratorObjective(), standardize=function)(
            network, given, PerSampleNoise([3, 4, 5])
        ).loss
        for given, function in (
            (scaled, None),
            (batch, lambda av: av.map(lambda x: 3 * x - 1)),
            (batch, None),
        )
    ]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[1], losses[2])


def trained_rows(objective, label, *, num_classes=2, text=None):
    """Rows of the class table that a step teaches, the gradient of the prompt, and the means."""
    network = make_network(num_classes=num_classes)
    for parameter in network.parameters():  # at the start nothing hears the class
        parameter.data += 0.1 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(1)
        )
    batch = Batch(make_latents(len(label)), torch.tensor(label))
    loss = mm_ldm_generator_objective(SCHEDULE, objective, text=text)
    loss(network, batch, PerSampleNoise(range(len(label)))).loss.backward()
    rows = network.transformer.class_embedding.weight.grad.any(dim=1).nonzero().flatten().tolist()
    return rows, network.prompt.grad


def test_a_clip_without_a_class_teaches_the_row_that_stands_for_none():
    kept = GeneratorObjective(context_drop=0.0)
    assert trained_rows(kept, [0, 0])[0] == [0]
    assert trained_rows(kept, [0, -1])[0] == [0, 2]


def test_a_dropped_context_teaches_neither_class_nor_prompt():
    rows, prompt = trained_rows(GeneratorObjective(context_drop=1.0), [0, 1])
    assert rows == [2]
    assert not prompt.any()
    rows, prompt = trained_rows(GeneratorObjective(context_drop=0.0), [0, 1])
    assert rows == [0, 1]
    assert prompt.any()


def test_captions_take_the_place_of_the_prompt_in_training():
    def text(batch):
        return torch.ones(len(batch.label), 5, 8)

    _, prompt = trained_rows(GeneratorObjective(context_drop=0.0), [0, 1], text=text)
    assert prompt is None


@pytest.mark.parametrize("size", [1, 3])
def test_single_clips_odd_batches_and_constant_latents_give_finite_losses(size):
    """Silence and black frames become latents without any variation."""
    network = make_network()
    latents = make_latents(size).map(torch.zeros_like)
    objective = mm_ldm_generator_objective(SCHEDULE, GeneratorObjective())
    batch = Batch(latents, torch.full((size,), -1))
    result = objective(network, batch, PerSampleNoise(range(size)))
    result.loss.backward()
    assert result.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_shares_outside_zero_to_one_are_refused():
    with pytest.raises(ValueError, match="context_drop is a share"):
        GeneratorObjective(context_drop=10.0)


def test_noise_is_coloured_as_asked():
    """A new network estimates no noise, which is right where it is all taken away."""
    network, batch = make_network(), Batch(make_latents(3), torch.full((3,), -1))
    objective = GeneratorObjective()
    plain, silent = (
        mm_ldm_generator_objective(SCHEDULE, objective, colour=colour)(
            network, batch, PerSampleNoise(range(3))
        ).loss.item()
        for colour in (None, lambda noise: noise.map(torch.zeros_like))
    )
    assert plain > 1
    assert silent == 0
