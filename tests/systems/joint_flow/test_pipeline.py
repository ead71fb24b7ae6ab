from dataclasses import replace
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
import torch

from soundreel.checkpoints.store import read_model
from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.film import join_clips
from soundreel.systems.joint_flow import presets
from soundreel.systems.joint_flow.audio_codec import AudioCodec
from soundreel.systems.joint_flow.config import JointFlowOptions
from soundreel.systems.joint_flow.given import GivenPictures
from soundreel.systems.joint_flow.pipeline import JointFlowPipeline, JointFlowSettings
from soundreel.systems.joint_flow.transformer import JointTransformer
from soundreel.systems.joint_flow.video_decoder import VideoDecoder

RATE, HZ = Fraction(10), 16_000


@pytest.fixture(scope="module")
def pipeline(small_encoder):
    """All parts of the tiny preset, with weights at random."""
    torch.manual_seed(0)
    config = presets.tiny()
    video = VideoDecoder(config.video.decoder, small_encoder)
    audio = AudioCodec(config.audio.codec)
    transformer = JointTransformer(config.transformer_config(num_classes=2))
    for network in (video, audio, transformer):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    transformer.get_buffer("audio_mean").fill_(0.3)
    settings = JointFlowSettings(
        class_names=("rain", "fire"), sampling=JointFlowOptions(num_steps=2), samples_seen=7
    )
    return JointFlowPipeline(video, audio, transformer, config.clip, settings)


def clip(frames, size=32, seed=0, rate=RATE):
    random = np.random.default_rng(seed)
    length = int(frames * HZ / rate)
    return Clip(
        random.integers(0, 256, (frames, size, size, 3), dtype=np.uint8),
        random.normal(0, 0.1, (1, length)).astype(np.float32),
        rate,
        HZ,
    )


def same(one, other):
    return np.array_equal(one.frames, other.frames) and np.array_equal(one.waveform, other.waveform)


def test_a_clip_has_the_models_length_rates_and_both_modalities(pipeline):
    first, second = pipeline.generate(count=2, seed=3)
    assert first.frames.shape == (8, 32, 32, 3)
    assert first.waveform.shape == (1, 8 * 1600)
    assert not np.array_equal(first.frames, second.frames)
    assert (first.frame_rate, first.sample_rate) == (RATE, HZ)


def test_a_seed_gives_the_same_clip_again_and_a_label_another(pipeline):
    clips = [pipeline.generate(seed=4, label=label)[0] for label in (None, None, "fire", 1)]
    assert same(clips[0], clips[1])
    assert same(clips[2], clips[3])
    assert not np.array_equal(clips[0].frames, clips[2].frames)


@pytest.mark.parametrize("seconds", [0.5, 1.3, 3.1])
def test_a_clip_may_have_any_length(pipeline, seconds):
    (made,) = pipeline.generate(duration_s=seconds)
    assert made.num_frames == round(seconds * 10)
    assert made.num_samples == made.num_frames * 1600


def test_sound_for_a_video_keeps_its_frames_size_rate_and_length(pipeline):
    source = clip(20, size=48, rate=Fraction(25))
    (made,) = pipeline.generate(video=source)
    assert np.array_equal(made.frames, source.frames)
    assert made.frame_rate == 25
    assert made.num_samples == 0.8 * HZ
    (other,) = pipeline.generate(video=replace(source, frames=255 - source.frames))
    assert not np.array_equal(made.waveform, other.waveform)


def test_pictures_for_a_sound_keep_it(pipeline):
    source = replace(clip(23), frames=None)
    (made,) = pipeline.generate(audio=source)
    assert made.num_frames == 23
    assert np.array_equal(made.waveform, source.waveform)


def test_a_clip_is_the_same_in_a_batch_of_1_and_of_3_but_for_rounding(pipeline):
    together = pipeline.generate(count=3, seed=5, batch_size=3)
    alone = pipeline.generate(count=3, seed=5, batch_size=1)
    for one, other in zip(together, alone, strict=True):
        assert np.abs(one.frames.astype(int) - other.frames).max() <= 1
        assert np.abs(one.waveform - other.waveform).max() <= 1e-4
    assert np.abs(together[0].waveform - together[1].waveform).max() > 1e-3


def test_going_on_begins_with_the_clip_and_depends_on_it(pipeline):
    first, second = clip(12, seed=1), clip(12, seed=2)
    longer, other = (pipeline.generate(after=past, duration_s=3)[0] for past in (first, second))
    assert longer.num_frames == 30
    assert np.array_equal(longer.frames[:12], first.frames)
    assert np.array_equal(longer.waveform[:, : 12 * 1600], first.waveform)
    assert not np.array_equal(longer.frames[12:], other.frames[12:])


@pytest.fixture(scope="module")
def wide(pipeline):
    """The same with windows of seven groups, which have place for a gap."""
    spec = replace(pipeline.clip, num_frames=24)
    parts = (pipeline.video, pipeline.audio, pipeline.transformer)
    return JointFlowPipeline(*parts, spec, pipeline.settings)


@pytest.mark.parametrize("frames", [8, 7, 5])
def test_a_gap_between_two_clips_is_filled_from_both(pipeline, wide, frames):
    before, after = clip(13, seed=1), clip(12, seed=2)
    with pytest.raises(SoundreelError, match="fills up to 0 s"):
        pipeline.fill(before, after, 0.4)  # a window of three groups has no place
    made = wide.fill(before, after, frames / 10)
    assert (made.num_frames, made.num_samples) == (frames, frames * 1600)
    for other in ((before, clip(12, seed=5)), (clip(13, seed=5), after)):
        assert not np.array_equal(made.frames, wide.fill(*other, frames / 10).frames)
    film = join_clips(wide.stream(between=(before, after), duration_s=frames / 10))
    assert np.array_equal(film.frames, np.concatenate([before.frames, made.frames, after.frames]))
    assert film.num_samples == (13 + frames + 12) * 1600
    assert same(wide.generate(between=(before, after), duration_s=frames / 10)[0], film)


def test_a_stream_goes_on_for_ever_in_pieces_that_are_the_whole(pipeline):
    pieces = list(islice(pipeline.stream(seed=5), 4))
    assert all(piece.num_samples == piece.num_frames * 1600 for piece in pieces)
    again = list(pipeline.stream(seed=5, duration_s=2))
    whole = np.concatenate([piece.frames for piece in again])
    assert len(whole) == 20
    endless = np.concatenate([piece.frames for piece in pieces])
    shared = min(len(endless), 20 - 5)  # the last half second of a film that ends knows no sequel
    assert np.array_equal(endless[:shared], whole[:shared])
    (clip_,) = pipeline.generate(seed=5, duration_s=2)
    assert np.array_equal(clip_.frames, whole)
    assert np.array_equal(clip_.waveform, np.concatenate([p.waveform for p in again], axis=1))


@pytest.mark.parametrize("modality", ["both", "audio", "video"])
def test_a_film_goes_on_with_what_is_asked_for_alone(pipeline, modality):
    past, other = clip(14, seed=1), clip(14, seed=2)
    unseen = {"both": past, "audio": replace(past, frames=other.frames)}
    unseen["video"] = replace(past, waveform=other.waveform)

    def made(source):
        return list(pipeline.stream(after=source, duration_s=3, modality=modality))

    pieces = made(past)
    kept = [name for name in ("frames", "waveform") if getattr(pieces[0], name) is not None]
    assert (
        kept
        == {"both": ["frames", "waveform"], "audio": ["waveform"], "video": ["frames"]}[modality]
    )
    for name in kept:
        assert np.array_equal(getattr(pieces[0], name), getattr(past, name))
    film = join_clips(pieces)
    assert film.duration == 3
    same_film = join_clips(made(unseen[modality]))
    other_film = join_clips(made(other))
    for name in kept:
        assert np.array_equal(getattr(film, name), getattr(same_film, name))
        assert not np.array_equal(getattr(film, name)[-8:], getattr(other_film, name)[-8:])


def test_a_film_of_given_pictures_or_sound_holds_them(pipeline):
    source = clip(27)
    heard = join_clips(pipeline.stream(video=source, start_s=0.3, duration_s=2.1))
    assert np.array_equal(heard.frames, source.frames[3:24])
    assert heard.num_samples == 21 * 1600
    other = replace(source, frames=255 - source.frames)
    other = join_clips(pipeline.stream(video=other, start_s=0.3, duration_s=2.1))
    assert not np.array_equal(heard.waveform, other.waveform)
    seen = join_clips(pipeline.stream(audio=source))
    assert seen.num_frames == 27
    assert np.array_equal(seen.waveform, source.waveform)


def test_a_film_needs_as_much_memory_when_it_is_long(pipeline, monkeypatch):
    """What is held of the given pictures, and the latents known at a time, do not grow."""
    held, encode = [], GivenPictures._groups

    def watched(self, count):
        result = encode(self, count)
        held.append((len(self._kept), result.shape[1]))
        return result

    monkeypatch.setattr(GivenPictures, "_groups", watched)
    for piece in pipeline.stream(video=clip(200)):
        assert piece.num_frames <= 24
    assert len(held) > 20
    assert max(held[len(held) // 2 :]) <= max(held[: len(held) // 2])


def test_real_clips_go_through_the_codecs_frame_by_frame(pipeline):
    source = clip(14)
    latents = pipeline.encode(source)
    assert latents.video.shape == (1, 5, 5, 16)
    assert latents.audio.shape == (1, 5, 4, 8)
    (back,) = pipeline.decode(latents)
    assert back.num_frames == 16  # whole hops
    only = pipeline.encode(replace(source, frames=None))
    assert only.video is None
    assert torch.allclose(only.audio, latents.audio)


def test_a_folder_brings_the_pipeline_back(pipeline, tmp_path):
    pipeline.save(tmp_path / "model")
    loaded = JointFlowPipeline.load(read_model(tmp_path / "model"))
    assert loaded.settings == pipeline.settings
    assert loaded.clip == pipeline.clip
    assert same(loaded.generate(seed=1)[0], pipeline.generate(seed=1)[0])


def test_progress_counts_every_step_of_every_batch(pipeline):
    seen = []
    pipeline.generate(
        count=3, batch_size=2, duration_s=2, progress=lambda done, total: seen.append((done, total))
    )
    assert [done for done, _ in seen] == list(range(1, seen[-1][0] + 1))
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"video": clip(8), "audio": clip(8)}, "exclude each other"),
        ({"video": replace(clip(8), frames=None)}, "given as video has none"),
        ({"audio": replace(clip(8), waveform=None)}, "given as audio has none"),
        ({"after": replace(clip(8), waveform=None), "duration_s": 2}, "has no audio"),
        ({"after": clip(8)}, "needs a length"),
        ({"duration_s": 2, "join": "fade"}, "without borders; leave join out"),
        ({"between": (clip(8), clip(8))}, "needs a length"),
        ({"after": clip(4), "duration_s": 2}, "at least 0.8 s"),
        ({"after": clip(12), "duration_s": 1}, "ask for a longer film"),
        ({"duration_s": 0.01}, "holds no frame"),
        ({"label": "snow"}, "rain, fire"),
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"steps": 3}, "unknown option steps"),
    ],
)
def test_requests_that_cannot_be_met_are_named(pipeline, request_, message):
    with pytest.raises(SoundreelError, match=message):
        pipeline.generate(**request_)
