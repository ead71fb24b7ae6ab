from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from soundreel.config_io import config_from_json, config_to_json
from soundreel.data.scenes.render import KINDS
from soundreel.systems import load
from soundreel.systems.joint_flow import presets
from soundreel.systems.joint_flow.audio_codec import AudioCodec
from soundreel.systems.joint_flow.config import JointFlowConfig
from soundreel.systems.joint_flow.transformer import JointTransformer
from soundreel.systems.joint_flow.video_decoder import VideoDecoder
from soundreel.systems.joint_flow.video_encoder import VideoEncoder

COUNTS = {
    presets.tiny: (18_804, 93_906, 69_408),
    presets.scenes: (4_009_440, 6_022_782, 9_210_880),
    presets.small: (4_009_440, 6_022_782, 21_679_680),
    presets.large: (27_068_864, 46_271_490, 515_921_920),
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
    assert (built.video_tokens, built.audio_tokens, built.group_s) == (17, 4, 0.25)
    assert presets.large().transformer_config(0).video_tokens == 65


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_frames": 30}, "multiple of 4"),
        ({"height": 64}, "video.encoder is for 128x128"),
        ({"sample_rate": 24_000}, "audio.codec.sample_rate"),
        ({"frame_rate": Fraction(10)}, "samples of a frame, 1600"),
        ({"num_channels": 2}, "num_channels must be 1"),
    ],
)
def test_a_clip_that_the_codecs_do_not_fit_is_refused(change, message):
    base = presets.scenes()
    with pytest.raises(ValueError, match=message):
        replace(base, clip=replace(base.clip, **change))


def test_the_training_under_way_is_of_the_preset_and_makes_clips():
    pipeline = load(Path(__file__).parents[3] / "training" / "joint-flow-scenes")
    config = presets.scenes()
    assert pipeline.video.linear.config == config.video.encoder
    assert pipeline.video.config == config.video.decoder
    assert pipeline.audio.config == config.audio.codec
    assert pipeline.class_names == tuple(sorted(KINDS))
    assert pipeline.transformer.config == config.transformer_config(len(KINDS))
    clip = pipeline.generate(label="fire", num_steps=2)[0]
    assert clip.frames.std() > 10
    assert 0.001 < abs(clip.waveform).max() <= 1
