import pytest
import torch

from soundreel.device import autocast
from soundreel.systems.joint_flow.lapped import lapped
from soundreel.systems.joint_flow.streaming import VideoStream
from soundreel.systems.joint_flow.video_decoder import VideoDecoder, VideoDecoderConfig
from soundreel.systems.joint_flow.video_encoder import (
    VideoEncoder,
    VideoEncoderConfig,
    mixed,
    patches,
    pictures,
    streamed_covariance,
)

SMALL = VideoDecoderConfig(widths=(16, 12, 8), depths=(1, 1, 1))


def trained_like(encoder, seed=0):
    """A decoder whose every part contributes."""
    torch.manual_seed(seed)
    decoder = VideoDecoder(SMALL, encoder).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return decoder


def test_streamed_covariance_is_that_of_all_rows():
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).double() + 3
    mean, covariance = streamed_covariance(rows.split(7))
    assert torch.allclose(mean, rows.mean(0))
    assert torch.allclose(covariance, torch.cov(rows.T, correction=0))


def test_patches_and_pictures_are_inverse():
    images = torch.randn(2, 3, 4, 3, 8, 16)
    cut = patches(images, 4)
    assert cut.shape == (2, 3, 2, 4, 192)
    assert torch.equal(pictures(cut, 4), images)


def test_latents_have_the_stated_shape_deviation_and_no_correlation(small_encoder, smooth_frames):
    frames = smooth_frames(24, 16, 32, seed=9)
    latents = small_encoder.encode(frames)
    assert latents.shape == (24, 3, 5, 16)
    fitted = torch.cat([small_encoder.encode(smooth_frames(8, 16, 32, seed)) for seed in range(3)])
    layout = fitted[:, :, -1].flatten(0, 1)
    wanted = small_encoder.get_buffer("layout_deviation")
    assert torch.allclose(layout.std(0, correction=0), wanted, rtol=1e-2)
    cosines = torch.corrcoef(layout.T).fill_diagonal_(0)
    assert cosines.abs().max() < 0.01


def test_weighting_motion_is_undone_and_leaves_a_still_picture():
    frames = torch.rand(1, 12, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    moving, still = lapped(frames), lapped(frames[:, :1].expand(-1, 8, -1, -1, -1))
    torch.testing.assert_close(mixed(still, 3.0), still)
    torch.testing.assert_close(mixed(mixed(moving, 3.0), 1 / 3), moving)
    change = moving - mixed(moving, 0.0)  # what is not of a still picture
    torch.testing.assert_close(mixed(moving, 3.0), moving + 2 * change)


def test_a_weight_on_motion_keeps_more_of_it(smooth_frames):
    batches = [smooth_frames(8, 16, 32, seed) for seed in range(3)]
    frames, errors = smooth_frames(4, 16, 32, seed=9), []
    for weight in (1.0, 4.0):
        config = VideoEncoderConfig(
            height=32, width=32, patch_size=8, layout_cell=4, detail_dim=4, motion_weight=weight
        )
        encoder = VideoEncoder(config)
        encoder.fit(lambda: iter(batches))
        error = encoder.decode(encoder.encode(frames)) - frames[:, 4:-4]
        errors.append((float(error.diff(dim=1).square().mean()), float(error.square().mean())))
    assert errors[1][0] < errors[0][0]
    assert errors[1][1] > errors[0][1]
    with pytest.raises(ValueError, match="motion_weight must be positive"):
        VideoEncoderConfig(motion_weight=0.0)


def test_deviations_of_detail_have_geometric_mean_one(small_encoder):
    detail = small_encoder.get_buffer("detail_deviation")
    assert float(detail.log().mean()) == pytest.approx(0, abs=1e-5)


def test_decoding_is_nearer_the_more_components_there_are(smooth_frames):
    batches = [smooth_frames(8, 16, 32, seed) for seed in range(3)]
    frames, errors = smooth_frames(4, 16, 32, seed=9), []
    for dim in (2, 4, 16):
        config = VideoEncoderConfig(
            height=32, width=32, patch_size=8, layout_cell=4, detail_dim=dim
        )
        encoder = VideoEncoder(config)
        encoder.fit(lambda: iter(batches))
        error = encoder.decode(encoder.encode(frames)) - frames[:, 4:-4]
        errors.append(float(error.square().mean()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.5 * float(frames.var())


def test_what_the_layout_holds_is_the_large_parts(small_encoder):
    """A picture of one colour is the layout's alone: its detail is that of the mean picture."""
    flat = torch.full((1, 8, 3, 32, 32), 0.5)
    lighter = small_encoder.encode(flat + 0.1) - small_encoder.encode(flat)
    assert lighter[:, :, -1].abs().max() > 5 * lighter[:, :, :-1].abs().max()


def test_an_encoder_without_enough_to_fit_says_so():
    config = VideoEncoderConfig(height=32, width=32, patch_size=8, layout_cell=4, detail_dim=4)
    with pytest.raises(ValueError, match="fewer than 16 directions"):
        VideoEncoder(config).fit(lambda: iter([torch.zeros(2, 8, 3, 32, 32)]))
    with pytest.raises(ValueError, match="at least two samples"):
        VideoEncoder(config).fit(lambda: iter([]))


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="twice patch_size"):
        VideoEncoderConfig(height=72)


def test_an_untrained_decoder_is_the_linear_codec(small_encoder, smooth_frames):
    latents = small_encoder.encode(smooth_frames(2, 24, 32, seed=5))
    decoder = VideoDecoder(SMALL, small_encoder)
    linear = small_encoder.decode(latents)
    torch.testing.assert_close(decoder(latents), linear, atol=1e-6, rtol=1e-5)


def test_mixed_precision_leaves_the_linear_codec_exact(small_encoder, smooth_frames):
    latents = small_encoder.encode(smooth_frames(2, 24, 32, seed=5))
    decoder, linear = VideoDecoder(SMALL, small_encoder), small_encoder.decode(latents)
    with autocast(torch.device("cpu"), "bfloat16"):
        torch.testing.assert_close(decoder(latents), linear, atol=1e-6, rtol=1e-5)


def test_the_decoder_sees_both_neighbours_and_no_more(small_encoder, smooth_frames):
    decoder = trained_like(small_encoder)
    latents = small_encoder.encode(smooth_frames(1, 32, 32, seed=6))  # seven groups
    before = decoder.coefficients(latents)
    assert before.shape == (1, 5, 4, 3, 32, 32)
    changed = latents.clone()
    changed[:, 3, 0] += 1
    differs = (decoder.coefficients(changed) != before).flatten(2).any(2)[0].tolist()
    assert differs == [False, True, True, True, False]  # groups 1 to 5


@torch.no_grad()
def test_a_stream_of_any_pieces_is_the_same_bit_for_bit(small_encoder, smooth_frames):
    decoder = trained_like(small_encoder)
    latents = small_encoder.encode(smooth_frames(1, 32, 32, seed=7))

    def streamed(sizes):
        stream = VideoStream(decoder)
        parts = [stream.push(piece) for piece in latents.split(sizes, dim=1)]
        return torch.cat([p for p in [*parts, stream.finish()] if p is not None], dim=1)

    whole = streamed([7])
    assert torch.equal(streamed([1, 1, 1, 1, 1, 1, 1]), whole)
    assert torch.equal(streamed([2, 4, 1]), whole)
    assert torch.allclose(whole, decoder(latents), atol=1e-4)
    # A longer film begins like a shorter one, up to the groups whose neighbour is missing.
    stream = VideoStream(decoder)
    assert torch.equal(stream.push(latents[:, :5]), whole[:, :12])


def test_the_fitted_codec_is_in_the_decoders_state(small_encoder, smooth_frames):
    decoder = VideoDecoder(SMALL, VideoEncoder(small_encoder.config))
    decoder.load_state_dict(trained_like(small_encoder).state_dict())
    frames = smooth_frames(1, 12, 32)
    assert torch.equal(decoder.linear.encode(frames), small_encoder.encode(frames))
    assert lapped(frames).shape[1] == 2
