import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from soundreel.device import autocast
from soundreel.systems.joint_flow.transformer import (
    Clock,
    HeadNorm,
    JointTransformer,
    JointTransformerConfig,
    TransformerSizes,
    clock_of,
    rotated,
)
from soundreel.types import AV

SMALL = JointTransformerConfig(
    video_tokens=5,
    video_dim=16,
    audio_dim=6,
    num_classes=3,
    sizes=TransformerSizes(width=32, depth=2, hidden=64, num_heads=4),
)


def inputs(batch=2, groups=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xt = AV(
        torch.randn(batch, groups, 5, 16, generator=generator),
        torch.randn(batch, groups, 4, 6, generator=generator),
    )
    level = AV(*(torch.rand(batch, groups, generator=generator) for _ in range(2)))
    return xt, level, torch.randint(4, (batch,), generator=generator)


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = JointTransformer(SMALL).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def test_a_new_network_answers_zero():
    torch.manual_seed(0)
    answer = JointTransformer(SMALL)(*inputs())
    assert answer.video.shape == (2, 4, 5, 16)
    assert answer.audio.shape == (2, 4, 4, 6)
    assert answer.video.abs().max() == answer.audio.abs().max() == 0


@pytest.mark.parametrize("given", ["video", "audio"])
def test_each_modality_and_its_level_reach_the_other(network, given):
    other = "audio" if given == "video" else "video"
    xt, level, label = inputs()
    before = network(xt, level, label)[other]
    moved = network(xt.replace(given, xt[given] + 1), level, label)[other]
    cleaner = network(xt, level.replace(given, 0.5 * level[given]), label)[other]
    assert (moved - before).abs().max() > 1e-3
    assert (cleaner - before).abs().max() > 1e-3


def test_the_level_of_a_group_modulates_that_group_alone_before_attention(network):
    _, level, label = inputs()
    changed = level.map(torch.clone)
    changed.video[:, 1] = 0.9
    one, other = (network._modulation(x, label)["audio"] for x in (level, changed))
    differs = (one != other).flatten(2).any(2)[0].tolist()
    assert differs == [False, True, False, False]


@torch.no_grad()
def test_attention_of_sampling_is_one_fused_kernel(network):
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # any other is an error
        network(*inputs())


def test_classes_change_the_answer(network):
    xt, level, _ = inputs()
    answers = [network(xt, level, torch.full((2,), k)).video for k in (0, 3)]
    assert (answers[0] - answers[1]).abs().max() > 1e-3


def test_a_row_does_not_depend_on_its_batch(network):
    xt, level, label = inputs(batch=3)
    alone = network(xt.rows(slice(1, 2)), level.rows(slice(1, 2)), label[1:2])
    together = network(xt, level, label)
    assert torch.allclose(alone.video[0], together.video[1], atol=1e-5)


def test_rotated_scores_depend_on_the_difference_of_the_times_alone():
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, 1, 8, generator=generator) for _ in range(2))

    def score(query_time, key_time):
        clocks = [clock_of(torch.tensor([t]), SMALL.sizes, query) for t in (query_time, key_time)]
        return float((rotated(query, clocks[0]) * rotated(key, clocks[1])).sum())

    assert score(0.5, 0.25) == pytest.approx(score(3.5, 3.25), abs=1e-5)
    assert abs(score(0.5, 0.25) - score(0.5, 0.0)) > 1e-3


def test_half_of_the_heads_prefer_the_same_moment(network):
    clock = network._clock(3, torch.zeros(1))
    assert isinstance(clock, Clock)
    assert clock.bias[0, :2].abs().max() == 0
    # From the layout of group 0 (time 0) to that of group 2 (0.5 s), 16 and 8 a second.
    assert clock.bias[0, 2:, 4, 14].tolist() == pytest.approx([-8.0, -4.0])
    # The four sounds of a group lie around its middle.
    assert clock.bias[0, 2, 4, 15:19].tolist() == pytest.approx(
        [-16 * 0.09375, -16 * 0.03125, -16 * 0.03125, -16 * 0.09375]
    )


def test_widths_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="divide into num_heads"):
        TransformerSizes(width=250)
    with pytest.raises(ValueError, match="even"):
        TransformerSizes(width=240, num_heads=5)


@pytest.mark.filterwarnings("error")
def test_norms_of_heads_are_rms_norm_and_keep_the_precision():
    norm, other = HeadNorm(8), torch.nn.RMSNorm(8, eps=1e-6)
    weight, x = torch.rand(8), torch.randn(3, 8)
    norm.load_state_dict({"weight": weight})
    other.load_state_dict({"weight": weight})
    torch.testing.assert_close(norm(x), other(x))
    with autocast(torch.device("cpu"), "bfloat16"):
        assert norm(x.bfloat16()).dtype == torch.bfloat16
