"""Properties of the joint transformer that no reference tensor shows."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from soundreel.diffusion.noise import PerSampleNoise
from soundreel.systems.mm_ldm.generator import Generator, GeneratorConfig
from soundreel.types import AV, LatentSpec

LATENTS = LatentSpec(video_channels=3, video_size=4, audio_channels=2, audio_size=2)


def make(seed=0, *, awake=True, **options):
    config = GeneratorConfig(
        latents=LATENTS,
        width=32,
        depth=2,
        num_heads=4,
        context_dim=8,
        num_context_tokens=3,
        **options,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Generator(config)
        if awake:  # layers that start at zero would hide every path
            for parameter in network.parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)
    return network.eval()


def latents(batch, seed=1):
    noise = PerSampleNoise(range(seed, seed + batch))
    return noise(
        AV(torch.empty(batch, *LATENTS.video_shape), torch.empty(batch, *LATENTS.audio_shape))
    )


def close(a, b):
    return all(torch.allclose(x, y, atol=1e-5) for x, y in zip(a.tensors, b.tensors, strict=True))


def test_fresh_generator_answers_zero():
    output = make(awake=False)(latents(2), torch.tensor([3, 900])).mean_output
    assert all(not x.any() for x in output.tensors)


@torch.no_grad()
def test_a_row_does_not_depend_on_the_batch_it_is_in():
    network, xt, timestep = make(), latents(3), torch.tensor([3, 500, 900])
    together = network(xt, timestep).mean_output
    for i in range(3):
        row = slice(i, i + 1)
        assert close(network(xt.rows(row), timestep[row]).mean_output, together.rows(row))


@torch.no_grad()
def test_attention_is_one_fused_kernel():
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # any other is an error
        make()(latents(2), torch.tensor([3, 900]))


@torch.no_grad()
def test_a_known_audio_latent_changes_the_video_output_and_the_reverse():
    network, xt, timestep = make(), latents(2), torch.tensor([3, 900])
    base = network(xt, timestep).mean_output
    known = latents(2, seed=7)
    with_audio = network(xt, timestep, condition=AV(None, known.audio)).mean_output
    with_video = network(xt, timestep, condition=AV(known.video, None)).mean_output
    assert not torch.allclose(with_audio["video"], base["video"])
    assert not torch.allclose(with_video["audio"], base["audio"])


@torch.no_grad()
def test_an_absent_condition_is_the_zero_latent():
    network, xt, timestep = make(), latents(2), torch.tensor([3, 900])
    zeros = xt.map(torch.zeros_like)
    absent = network(xt, timestep).mean_output
    assert close(network(xt, timestep, condition=zeros).mean_output, absent)


@torch.no_grad()
def test_dropped_context_ignores_prompt_text_and_class():
    network, xt, timestep = make(num_classes=2), latents(2), torch.tensor([3, 900])
    label = torch.tensor([0, 1])
    kept, dropped = torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    text = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    nothing = network(xt, timestep, context_kept=dropped, label=label).mean_output
    with_text = network(xt, timestep, context_kept=dropped, label=label, text=text).mean_output
    other_class = network(xt, timestep, context_kept=dropped, label=1 - label).mean_output
    assert close(nothing, with_text)
    assert close(nothing, other_class)
    assert not close(nothing, network(xt, timestep, context_kept=kept, label=label).mean_output)


@torch.no_grad()
def test_text_states_of_any_length_take_the_place_of_the_prompt():
    network, xt, timestep = make(), latents(2), torch.tensor([3, 900])
    text = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(0))
    with_text = network(xt, timestep, text=text).mean_output
    assert not close(with_text, network(xt, timestep).mean_output)
    prompt = network.prompt[None].expand(2, -1, -1)
    same = network(xt, timestep, text=prompt).mean_output
    assert close(same, network(xt, timestep).mean_output)


@torch.no_grad()
def test_class_changes_the_output():
    network, xt, timestep = make(num_classes=2), latents(1), torch.tensor([500])
    zero = network(xt, timestep, label=torch.tensor([0])).mean_output
    one = network(xt, timestep, label=torch.tensor([1])).mean_output
    assert not close(zero, one)


def test_labels_and_classes_must_agree():
    with pytest.raises(ValueError, match="2 classes, got no labels"):
        make(num_classes=2)(latents(1), torch.tensor([0]))
    with pytest.raises(ValueError, match="0 classes, got labels"):
        make()(latents(1), torch.tensor([0]), label=torch.tensor([0]))


@torch.no_grad()
def test_first_published_version_has_no_learned_position_table():
    names = [name for name, _ in make(modality_embedding=False).named_parameters()]
    assert not any("modality_embedding" in name for name in names)


@torch.no_grad()
def test_learned_variance_is_split_from_the_mean():
    prediction = make(learned_variance=True)(latents(2), torch.tensor([3, 900]))
    assert prediction.variance_output is not None
    for part in (prediction.mean_output, prediction.variance_output):
        assert part["video"].shape == (2, *LATENTS.video_shape)
        assert part["audio"].shape == (2, *LATENTS.audio_shape)


def test_every_weight_but_the_unused_gets_a_gradient():
    network = make(num_classes=2)
    output = network(latents(2), torch.tensor([3, 900]), label=torch.tensor([0, 1])).mean_output
    sum(x.square().sum() for x in output.tensors).backward()
    assert not [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not p.grad.any()
        if "condition_patch.weight" not in name
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 30}, "width must be a multiple"),
        ({"latents": LATENTS, "video_patch_size": 3}, "not a multiple of video_patch_size"),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GeneratorConfig(**options)
