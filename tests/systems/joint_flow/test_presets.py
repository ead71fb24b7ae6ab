from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from soundreel.checkpoints.hub import DEFAULT_MODEL
from soundreel.config_io import config_from_json, config_to_json
from soundreel.systems import load
from soundreel.systems.joint_flow import presets
from soundreel.systems.joint_flow.audio_codec import AudioCodec
from soundreel.systems.joint_flow.config import JointFlowConfig
from soundreel.systems.joint_flow.transformer import JointTransformer
from soundreel.systems.joint_flow.video_decoder import VideoDecoder
from soundreel.systems.joint_flow.video_encoder import VideoEncoder
from soundreel.training.init import InitialModel

COUNTS = {
    presets.tiny: (18_804, 94_236, 69_408),
    presets.scenes: (4_009_440, 6_025_992, 9_207_808),
    presets.small: (4_009_440, 6_025_992, 9_207_808),
    presets.medium: (4_009_440, 6_025_992, 21_679_680),
    presets.large: (27_068_864, 46_277_900, 515_921_920),
}
"""Parameters of video decoder, audio codec and transformer (for eleven classes)."""


@pytest.mark.parametrize("preset", COUNTS, ids=lambda preset: preset.__name__)
def test_parameters_of_each_network(preset):
    config = preset()
    with torch.device("meta"):
        networks = (
            VideoDecoder(config.video.decoder, VideoEncoder(config.video.encoder)),
            AudioCodec(config.audio.codec),
            JointTransformer(config.transformer_config(num_classes=11)),
        )
    counts = tuple(sum(p.numel() for p in network.parameters()) for network in networks)
    assert counts == COUNTS[preset]


@pytest.mark.parametrize("preset", COUNTS, ids=lambda preset: preset.__name__)
def test_a_preset_survives_being_written_and_read(preset):
    config = preset()
    assert config_from_json(JointFlowConfig, config_to_json(config), "here") == config


def test_groups_and_tokens_follow_from_the_clip():
    config = presets.scenes()
    assert config.num_groups == 9
    built = config.transformer_config(0)
    assert (built.video_tokens, built.audio_tokens, built.group_s) == (5, 4, 0.25)
    assert presets.large().transformer_config(0).video_tokens == 65


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_frames": 30}, "multiple of 4"),
        ({"height": 128}, "video.encoder is for 64x64"),
        ({"sample_rate": 24_000}, "audio.codec.sample_rate"),
        ({"frame_rate": Fraction(10)}, "samples of a frame, 1600"),
        ({"num_channels": 2}, "num_channels must be 1"),
    ],
)
def test_a_clip_that_the_codecs_do_not_fit_is_refused(change, message):
    base = presets.scenes()
    with pytest.raises(ValueError, match=message):
        replace(base, clip=replace(base.clip, **change))


def test_the_model_that_comes_with_soundreel_is_of_the_preset():
    model, config = InitialModel(DEFAULT_MODEL), presets.scenes()
    assert load(DEFAULT_MODEL).options == config.sampling
    video = VideoDecoder(config.video.decoder, VideoEncoder(config.video.encoder))
    networks = {
        "video_codec": video,
        "audio_codec": AudioCodec(config.audio.codec),
        "transformer": JointTransformer(config.transformer_config(num_classes=11)),
    }
    for name, network in networks.items():
        before = {key: value.clone() for key, value in network.state_dict().items()}
        model.load_into(network, name, is_adapted=True)  # every tensor of it
        after = network.state_dict()
        assert all(torch.isfinite(value).all() for value in after.values())
        assert sum(not torch.equal(before[key], after[key]) for key in before) > 0.9 * len(before)
