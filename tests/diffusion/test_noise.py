import pytest
import torch

from soundreel.diffusion.noise import PerSampleNoise, ReplayNoise
from soundreel.types import AV


def template(batch, dtype=torch.float32):
    return AV(torch.empty(batch, 2, 3, 4, 4, dtype=dtype), torch.empty(batch, 1, 32, dtype=dtype))


def test_a_sample_gets_the_same_noise_in_every_batch():
    alone, together = PerSampleNoise([7]), PerSampleNoise([3, 7, 5])
    for _ in range(3):
        one, three = alone(template(1)), together(template(3))
        assert torch.equal(one.video[0], three.video[1])
        assert torch.equal(one.audio[0], three.audio[1])
        assert not torch.equal(three.video[0], three.video[2])


def test_calls_and_modalities_get_independent_noise():
    noise = PerSampleNoise([0])
    first, second = noise(template(1)), noise(template(1))
    assert not torch.equal(first.video, second.video)
    assert not torch.equal(first.video.flatten()[:32], first.audio.flatten())


def test_noise_is_standard_normal():
    noise = PerSampleNoise([1, 2])(AV(torch.empty(2, 100_000), None)).video
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.std()) == pytest.approx(1, abs=0.01)


def test_precision_does_not_change_the_draws():
    single = PerSampleNoise([4])(template(1))
    double = PerSampleNoise([4])(template(1, torch.float64))
    assert double.video.dtype == torch.float64
    assert torch.equal(double.video, single.video.double())


def test_absent_modalities_stay_absent():
    images = PerSampleNoise([0, 1])(AV(torch.empty(2, 3, 4, 4), None))
    assert images.present == ("video",)


def test_the_number_of_seeds_must_be_the_batch_size():
    with pytest.raises(ValueError, match="2 seeds, but the batch has 3"):
        PerSampleNoise([0, 1])(template(3))
    with pytest.raises(ValueError, match="got none"):
        PerSampleNoise([])


def test_recorded_noise_is_replayed_in_order_and_then_runs_out():
    recorded = [PerSampleNoise([seed])(template(1)) for seed in (1, 2)]
    replay = ReplayNoise(recorded)
    assert torch.equal(replay(template(1)).audio, recorded[0].audio)
    assert torch.equal(replay(template(1)).audio, recorded[1].audio)
    with pytest.raises(ValueError, match="no recorded noise is left"):
        replay(template(1))


def test_recorded_noise_must_have_the_shapes_asked_for():
    with pytest.raises(ValueError, match="shapes"):
        ReplayNoise([PerSampleNoise([1])(template(1))])(AV(torch.empty(1, 5), None))
