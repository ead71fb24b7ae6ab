import copy

import pytest
import torch
from torch.nn import functional

from soundreel.audio.stft import stft
from soundreel.device import autocast
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.systems.joint_flow.audio_codec import (
    AudioCodecConfig,
    overlap_add,
    scaled_log_mel,
)
from soundreel.systems.joint_flow.audio_objective import (
    AudioLossConfig,
    audio_codec_objective,
    column_ripple,
    spectral_distance,
    spectral_features,
)
from soundreel.systems.joint_flow.streaming import AudioStream, receptive_latents
from soundreel.types import AV


def sound(seconds=1, seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(batch, 16_000 * seconds, generator=generator)


def test_the_inverse_transform_of_a_spectrum_is_the_sound_away_from_the_ends():
    wave = sound()
    spectrum = stft(wave, fft_size=1000, hop_length=250).transpose(1, 2)
    back = overlap_add(spectrum, 250)
    assert back.shape == wave.shape
    assert torch.allclose(back[:, 500:-500], wave[:, 500:-500], atol=1e-6)


def test_one_latent_for_each_thousand_samples(small_codec):
    latents = small_codec.encode(sound())
    assert latents.shape == (2, 16, 6)
    noise = torch.randn(2, *small_codec.noise_shape(16))
    assert small_codec.decode(latents, noise).shape == (2, 16_000)
    with pytest.raises(ValueError, match="multiple of 1000 samples"):
        small_codec.encode(torch.zeros(1, 1500))


def test_silence_is_constant_and_finite_on_the_way_in(small_codec):
    features = scaled_log_mel(torch.zeros(1, 4000), small_codec.config.mel)
    assert torch.equal(features, features[:, :1, :1].expand_as(features))
    latents = small_codec.encode(torch.zeros(1, 32_000))
    assert torch.allclose(latents[:, 8:24], latents[:, 15:16].expand(-1, 16, -1), atol=1e-6)
    assert latents.isfinite().all()


def test_magnitudes_below_the_gate_decode_to_exact_silence(small_codec):
    with torch.no_grad():
        small_codec.decoder.head.weight.zero_()
        small_codec.decoder.gains.weight.zero_()
        noise = torch.randn(1, *small_codec.noise_shape(8))
        for loud in (small_codec.decoder.head.bias[:501], small_codec.decoder.gains.bias):
            small_codec.decoder.head.bias[:501] = -5.0  # exp(-5) is below the gate
            small_codec.decoder.gains.bias.fill_(-5.0)
            quiet = small_codec.decode(torch.zeros(1, 8, 6), noise)
            assert torch.equal(quiet, torch.zeros_like(quiet))
            loud.fill_(-4.0)
            assert small_codec.decode(torch.zeros(1, 8, 6), noise).abs().max() > 0


def test_noise_is_white_within_the_bands_whatever_the_columns_rate(small_codec):
    """The filtered noise alone: as loud at every place within a hop."""
    decoder = copy.deepcopy(small_codec.decoder)
    for parameter in decoder.parameters():
        torch.nn.init.zeros_(parameter)
    size = decoder.config.fft_size // 2 + 1
    torch.nn.init.constant_(decoder.head.bias[:size], -9.0)  # no tone
    torch.nn.init.constant_(decoder.gains.bias, 0.0)
    noise = torch.randn(8, 250, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sound = decoder(torch.zeros(8, 64, 6), noise)[:, 1000:-1000]
    power = sound.reshape(8, -1, 250).square().mean((0, 1))
    assert float(power.std() / power.mean()) < 0.08  # its standard error is 0.03


def test_the_envelope_falls_silent_within_less_than_a_hop(small_codec):
    """Though a window of the spectra is four hops long."""
    decoder = copy.deepcopy(small_codec.decoder)
    noise = torch.randn(1, 250, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        decoder.gains.bias.fill_(0.0)
        decoder.envelope.bias[5:] = -9.0  # 78 dB down in the second half of each hop
        sound = decoder(torch.zeros(1, 16, 6), noise)
    power = sound.reshape(-1, 250).square().mean(0)
    loud, quiet = power[15:110], power[140:235]
    assert 10 * (loud.mean() / quiet.mean()).log10() == pytest.approx(78.2, abs=1.0)
    assert 10 * (loud.min() / quiet.max()).log10() > 70


def test_the_decoders_noise_is_heard(small_codec):
    latents = small_codec.encode(sound())
    first, second = (torch.randn(2, *small_codec.noise_shape(16)) for _ in range(2))
    assert not torch.equal(small_codec.decode(latents, first), small_codec.decode(latents, second))
    assert torch.equal(small_codec.decode(latents, first), small_codec.decode(latents, first))


@torch.no_grad()
def test_a_sample_depends_on_the_latents_within_the_receptive_field_only(small_codec):
    reach = receptive_latents(small_codec.config)
    latents, noise = torch.randn(1, 40, 6), torch.randn(1, *small_codec.noise_shape(40))
    changed = latents.clone()
    changed[:, 20] += 1
    difference = small_codec.decode(changed, noise) - small_codec.decode(latents, noise)
    differs = difference[0].unflatten(0, (40, 1000)).abs().amax(1) > 1e-6
    assert differs[20]
    assert not differs[: 20 - reach].any()
    assert not differs[21 + reach :].any()


@torch.no_grad()
def test_a_stream_of_any_pieces_is_the_same_bit_for_bit(small_codec):
    latents, noise = torch.randn(1, 13, 4, 6), torch.randn(1, 13, 250, 16)

    def streamed(sizes):
        stream = AudioStream(small_codec, 4)
        pieces = zip(latents.split(sizes, dim=1), noise.split(sizes, dim=1), strict=True)
        parts = [stream.push(*piece) for piece in pieces]
        return torch.cat([p for p in [*parts, stream.finish()] if p is not None], dim=1)

    whole = streamed([13])
    assert whole.shape == (1, 13 * 4000)
    assert torch.equal(streamed([1] * 13), whole)
    assert torch.equal(streamed([5, 1, 7]), whole)
    direct = small_codec.decode(latents.flatten(1, 2), noise.transpose(1, 2).flatten(2))
    inner = slice(4 * 4000, 9 * 4000)  # away from the ends, which are padded otherwise
    assert torch.allclose(whole[:, inner], direct[:, inner], atol=1e-5)


def test_the_distance_is_small_for_the_same_sound_and_larger_the_louder_the_change():
    wave, config = sound(), AudioLossConfig()
    features = [spectral_features(scale * wave, config, 16_000) for scale in (1.0, 1.1, 2.0)]
    same, near, far = (float(spectral_distance(features[0], f)) for f in features)
    assert same < 0.003 < near < far


def test_a_steady_tone_is_nearer_to_steady_ones_than_one_that_flickers():
    """In energy distance, though in every column both are equally loud on average."""
    config = AudioLossConfig(windows=(512,))
    random = torch.Generator().manual_seed(0)
    tone = 0.02 * torch.sin(2 * torch.pi * 880 * torch.arange(4000) / 16_000)

    def steady():
        return tone * torch.randn(1000, 1, generator=random).exp()

    def flickering():
        steps = torch.randn(1000, 1, 9, generator=random)
        smooth = functional.interpolate(steps, 4000, mode="linear")[:, 0]
        return tone * (smooth / smooth.std(0)).exp()

    def features(waves):
        return spectral_features(waves, config, 16_000)

    real, steady_ones, flickering_ones = (
        (features(make()), features(make())) for make in (steady, steady, flickering)
    )

    def energy(made):
        return 2 * spectral_distance(real[0], made[0]) - spectral_distance(made[0], made[1])

    of_itself = spectral_distance(real[0], real[1])
    near, far = float(energy(steady_ones) - of_itself), float(energy(flickering_ones) - of_itself)
    assert abs(near) < 0.05
    assert far > 0.19  # 0.15 without the changes from column to column


def test_bands_in_incomplete_groups_count():
    config = AudioLossConfig(windows=(256,), num_mels=41)
    loud, quiet = (spectral_features(k * sound(), config, 16_000) for k in (1.0, 0.1))
    changed = [quiet[0].clone()]
    changed[0][:, 40] = loud[0][:, 40]
    assert spectral_distance(quiet, changed) > 0.01


def test_mixed_precision_leaves_spectra_exact():
    config, mel = AudioLossConfig(windows=(256,)), AudioCodecConfig().mel
    exact = scaled_log_mel(sound(), mel), spectral_features(sound(), config, 16_000)[0]
    with autocast(torch.device("cpu"), "bfloat16"):
        assert torch.equal(scaled_log_mel(sound(), mel), exact[0])
        assert torch.equal(spectral_features(sound(), config, 16_000)[0], exact[1])


def test_repulsion_rewards_decodings_that_differ(small_codec, batch_of):
    """The loss falls with its weight, by the distance between the two decodings."""
    batch = batch_of(AV(None, sound()[:, None]))
    losses = {}
    for repulsion in (0.0, 0.95):
        config = AudioLossConfig(repulsion=repulsion, windows=(256, 512))
        result = audio_codec_objective(config)(small_codec, batch, PerSampleNoise([1, 2]))
        losses[repulsion] = float(result.loss.detach())
    apart = float(result.means["between_decodings"][0])
    assert losses[0.0] - losses[0.95] == pytest.approx(0.95 * apart, rel=1e-4)


def test_the_loss_trains_every_parameter(small_codec, batch_of):
    batch = batch_of(AV(None, sound()[:, None]))
    config = AudioLossConfig(windows=(256, 512))
    audio_codec_objective(config)(small_codec, batch, PerSampleNoise([1, 2])).loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in small_codec.parameters())


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="multiple of hop_length"):
        AudioCodecConfig(hop_length=300)
    with pytest.raises(ValueError, match="even multiple"):
        AudioCodecConfig(fft_size=1250)


def test_ripple_is_half_the_depth_of_what_changes_at_the_columns_rate():
    noise = torch.randn(4, 64_000, generator=torch.Generator().manual_seed(0))
    turn = 2 * torch.pi * torch.arange(64_000) / 250
    rippled = noise * (1 + 0.3 * turn.cos()).sqrt()
    assert column_ripple(noise, 250).abs().max() < 0.03  # by chance
    found = column_ripple(0.01 * rippled, 250)
    assert torch.allclose(found[:, 0].mean().real, torch.tensor(0.15), atol=0.02)
    assert found[:, 1].mean().abs() < 0.03
