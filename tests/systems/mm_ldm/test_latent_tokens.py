"""Tokens of frames: what changes within a clip, and when."""

from dataclasses import replace

import pytest
import torch

from soundreel.diffusion.noise import PerSampleNoise
from soundreel.nn.waves import cosine_waves
from soundreel.systems.mm_ldm.generator import Generator, GeneratorConfig
from soundreel.systems.mm_ldm.history_encoder import HistoryEncoder, LongGeneratorConfig
from soundreel.systems.mm_ldm.latent_tokens import (
    FrameEmbedding,
    FrameHead,
    position_table,
    time_bias,
    token_times,
)
from soundreel.types import AV, LatentSpec

FRAMES = 4
LATENTS = LatentSpec(video_channels=2 * FRAMES, video_size=4, audio_channels=3, audio_size=8)
CONFIG = GeneratorConfig(
    latents=LATENTS,
    video_patch_size=2,
    width=32,
    depth=1,
    num_heads=4,
    context_dim=8,
    num_context_tokens=3,
    frame_tokens=FRAMES,
    audio_token_rows=2,
)


def awake(network: torch.nn.Module) -> torch.nn.Module:
    """Without zeros, which would hide every path."""
    generator = torch.Generator().manual_seed(2)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def latents(batch: int) -> AV:
    like = AV(torch.empty(batch, *LATENTS.video_shape), torch.empty(batch, *LATENTS.audio_shape))
    return PerSampleNoise(range(batch))(like)


def video_of(frames: torch.Tensor) -> torch.Tensor:
    """z_v as orthonormal cosine coefficients of `batch frame channel height width`."""
    mean = frames.mean(dim=1, keepdim=True) * FRAMES**0.5
    changes = torch.einsum("tk,btchw->bkchw", cosine_waves(FRAMES), frames)
    return torch.cat([mean, changes], dim=1).flatten(1, 2)


def test_waves_are_all_that_a_constant_is_not():
    waves = cosine_waves(16)
    assert waves.shape == (16, 15)
    assert torch.allclose(waves.T @ waves, torch.eye(15), atol=1e-6)
    assert float(waves.sum(dim=0).abs().max()) < 1e-5


@torch.no_grad()
def test_a_change_in_one_frame_reaches_that_frames_token_most():
    embedding = awake(FrameEmbedding(CONFIG, factor=1, has_condition=True))
    frames = torch.zeros(1, FRAMES, 2, 4, 4)
    still = embedding(video_of(frames), None)
    assert still.shape == (1, 1 + 2 * 2 + FRAMES, 32)  # start token, patches, frames
    frames[:, 2] = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    moved = (embedding(video_of(frames), None) - still)[0, -FRAMES:].norm(dim=1)
    # What is left of an impulse without its mean: 3/4 in its own frame, 1/4 in each other.
    assert torch.allclose(moved / moved[2], torch.tensor([1 / 3, 1 / 3, 1, 1 / 3]), atol=1e-3)


@torch.no_grad()
def test_a_picture_that_does_not_change_reaches_the_patches_alone():
    embedding = awake(FrameEmbedding(CONFIG, factor=1, has_condition=True))
    frame = torch.randn(1, 1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    first, other = (
        embedding(video_of(x.expand(1, FRAMES, 2, 4, 4)), None) for x in (frame, -frame)
    )
    assert torch.allclose(first[0, -FRAMES:], other[0, -FRAMES:], atol=1e-5)
    assert not torch.allclose(first[0, 1:-FRAMES], other[0, 1:-FRAMES], atol=1e-2)


@torch.no_grad()
def test_a_frames_token_moves_that_frame_most_and_never_the_mean():
    head = awake(FrameHead(CONFIG))
    tokens = torch.randn(1, 4 + FRAMES, 32, generator=torch.Generator().manual_seed(0))
    time, other = torch.zeros(1, 32), tokens.clone()
    other[0, 4 + 1] *= -1
    moved = (head(tokens, time) - head(other, time)).unflatten(1, (FRAMES, 2))
    assert float(moved[:, 0].abs().max()) == 0
    frames = torch.einsum("tk,bkchw->btchw", cosine_waves(FRAMES), moved[:, 1:])
    size = frames.flatten(2).norm(dim=2)[0]
    assert torch.allclose(size / size[1], torch.tensor([1 / 3, 1, 1 / 3, 1 / 3]), atol=1e-3)


@torch.no_grad()
def test_a_token_of_sound_is_a_piece_of_one_column():
    network = awake(Generator(CONFIG))
    embed = network.transformer.embed["audio"]
    audio = latents(1)["audio"]
    other = audio.clone()
    other[:, :, 5, 3] += 1  # row 5 of 8 is in the second half
    moved = (embed(audio, None) - embed(other, None))[0].norm(dim=1)
    assert len(moved) == 1 + 2 * 8
    assert moved.nonzero().flatten().tolist() == [1 + 8 + 3]


def test_frames_and_columns_of_one_time_have_one_position():
    embedding = FrameEmbedding(CONFIG, factor=1, has_condition=True)
    table = embedding.position_table[0]
    assert table.shape == (FRAMES, 32)
    # Four frames beside eight columns: frame 1 lies between columns 2 and 3.
    middle = position_table(32, torch.tensor([0]), torch.tensor([2.5]))
    assert torch.allclose(table[1], middle[0, 0], atol=1e-6)


@torch.no_grad()
def test_generator_of_frames_is_silent_at_first_and_sees_what_is_given():
    torch.manual_seed(0)
    fresh = Generator(CONFIG)
    xt, timestep = latents(2), torch.tensor([3, 900])
    output = fresh(xt, timestep).mean_output
    assert output["video"].shape == xt["video"].shape
    assert all(not x.any() for x in output.tensors)
    network = awake(fresh)
    base = network(xt, timestep).mean_output
    for given, made in (("video", "audio"), ("audio", "video")):
        condition = AV(None, None).replace(given, torch.ones_like(xt[given]))
        changed = network(xt, timestep, condition=condition).mean_output
        assert not torch.allclose(changed[made], base[made], atol=1e-4)
    row = network(xt.rows(slice(1, 2)), timestep[1:]).mean_output
    assert torch.allclose(row["video"], base["video"][1:], atol=1e-5)


@torch.no_grad()
def test_history_of_frames_fits_the_generators_blocks():
    config = LongGeneratorConfig(generator=CONFIG, history_depth=1)
    torch.manual_seed(0)
    encoder = awake(HistoryEncoder(config.history))
    xt, context = latents(2), torch.zeros(2, 3, 8)
    timestep = torch.tensor([3, 900])
    taps = encoder(xt, xt.map(torch.zeros_like), timestep, context)
    assert taps[0].shape == (2, 3 + 1 + 16 + 1 + 4 + FRAMES, 32)
    other = encoder(xt, xt.map(torch.ones_like), timestep, context)
    assert not torch.allclose(taps[0], other[0], atol=1e-3)


def test_time_biased_heads_look_at_their_own_time_first():
    times = token_times(CONFIG)
    assert times["video"].isnan().sum() == 1 + 4  # start token and patches of the mean
    assert times["video"][-FRAMES:].tolist() == [0.5, 2.5, 4.5, 6.5]
    assert times["audio"][1:].tolist() == [*range(8), *range(8)]
    every = torch.cat([times["audio"], times["video"]])
    bias = time_bias(every, num_heads=4, time_biased_heads=2)
    assert bias.shape == (4, len(every), len(every))
    frame = -FRAMES + 1  # at 2.5
    first = bias[0, frame]
    assert first[1:9].tolist() == [-10, -6, -2, -2, -6, -10, -14, -18]  # columns of z_a
    assert first[-FRAMES:].tolist() == [-8, 0, -8, -16]
    assert first[0] == first[17] == -4, "tokens of the whole clip count as a column away"
    assert torch.equal(bias[1], bias[0] / 2)
    assert not bias[2:].any()
    assert not bias[:, 0].any(), "tokens of the whole clip look everywhere"


def changes_by_frame(seed: int, time_biased_heads: int) -> torch.Tensor:
    """How much each frame changes with a sound in the third, in a network that learned nothing."""
    torch.manual_seed(seed)
    network = awake(Generator(replace(CONFIG, time_biased_heads=time_biased_heads)))
    for block in network.transformer.blocks:  # what they see, not how they like it
        block.attention.qkv.weight.data[:64] = 0
        block.attention.qkv.bias.data[:64] = 0
    xt, timestep = latents(1), torch.tensor([500])
    base = network(xt, timestep).mean_output["video"]
    audio = xt["audio"].clone()
    audio[:, :, :, 4:6] += 3.0  # columns 4 and 5 of 8: the third of four frames
    moved = network(xt.replace("audio", audio), timestep).mean_output["video"] - base
    changes = torch.einsum(
        "tk,bke->bte", cosine_waves(FRAMES), moved.unflatten(1, (4, 2))[:, 1:].flatten(2)
    )
    return changes.norm(dim=2)[0]


@torch.no_grad()
@pytest.mark.parametrize(("time_biased_heads", "least", "most"), [(4, 1.7, 2.4), (0, 0.7, 1.3)])
def test_a_sound_moves_the_frames_of_its_time_most(time_biased_heads, least, most):
    # One network alone says little: its weights are chance.
    size = torch.stack([changes_by_frame(seed, time_biased_heads) for seed in range(16)]).mean(
        dim=0
    )
    assert least < float(size[2]) / max(size[[0, 1, 3]].tolist()) < most


@torch.no_grad()
def test_the_context_is_seen_by_time_biased_heads_too():
    network = awake(Generator(replace(CONFIG, time_biased_heads=4)))
    xt, timestep = latents(2), torch.tensor([3, 900])
    base = network(xt, timestep).mean_output
    kept = torch.tensor([True, False])
    dropped = network(xt, timestep, context_kept=kept).mean_output
    assert torch.allclose(base["video"][0], dropped["video"][0], atol=1e-5)
    assert not torch.allclose(base["video"][1], dropped["video"][1], atol=1e-3)


def test_nothing_is_made_on_another_device_than_the_networks():
    config = replace(CONFIG, time_biased_heads=4)
    network = Generator(config).to("meta")
    xt = latents(2).map(lambda x: x.to("meta"))
    output = network(xt, torch.tensor([3, 900], device="meta")).mean_output
    assert all(x.device.type == "meta" for x in output.tensors)
    bias = time_bias(token_times(config)["video"].to("meta"), 4, 4)
    assert bias.device.type == "meta"


def test_frames_have_no_learned_table_where_none_is_wanted():
    network = Generator(replace(CONFIG, modality_embedding=False))
    learned = {name.rpartition(".")[2] for name in network.state_dict()}
    assert not learned & {"modality_embedding", "frame_embedding"}
    assert network(latents(1), torch.tensor([3])).mean_output["video"].shape[1] == 2 * FRAMES


def test_wrong_settings_are_named():
    with pytest.raises(
        ValueError, match="8 channels of z_v are not divisible among frame_tokens=3"
    ):
        replace(CONFIG, frame_tokens=3)
    with pytest.raises(ValueError, match="frame_tokens is 0 or at least 2, got 1"):
        replace(CONFIG, frame_tokens=1)
    with pytest.raises(ValueError, match="audio_token_rows divides z_a's 8 rows, got 3"):
        replace(CONFIG, audio_token_rows=3)
    with pytest.raises(ValueError, match="time_biased_heads lies within 0 and 4 heads, got 5"):
        replace(CONFIG, time_biased_heads=5)
    with pytest.raises(ValueError, match="set frame_tokens and audio_token_rows"):
        replace(CONFIG, time_biased_heads=2, audio_token_rows=0)
    with pytest.raises(ValueError, match="learned_variance"):
        replace(CONFIG, learned_variance=True)
