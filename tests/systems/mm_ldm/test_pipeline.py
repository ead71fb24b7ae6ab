"""The whole of MM-LDM at toy size: clip to latents and back, noise to clips, folders."""

from dataclasses import replace
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
import torch

from soundreel.app.workshop import Workshop
from soundreel.audio.mel import MelConfig
from soundreel.audio.mel_image import MelImageConfig
from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import read_model
from soundreel.checkpoints.text_encoder import (
    TextConfig,
    load_text_encoder,
    text_encoder_sha256,
)
from soundreel.cli.main import run
from soundreel.clip import Clip
from soundreel.data.latent_axes import LatentAxesConfig, PerceptualAxes, latent_moments
from soundreel.data.latents import PerceptualStats
from soundreel.errors import SoundreelError
from soundreel.film import join_clips
from soundreel.systems.mm_ldm.autoencoder import AutoencoderConfig, MultiModalAutoencoder
from soundreel.systems.mm_ldm.decoding import DecodingConfig
from soundreel.systems.mm_ldm.folder import load_mm_ldm, save_mm_ldm
from soundreel.systems.mm_ldm.generator import Generator, GeneratorConfig
from soundreel.systems.mm_ldm.history_encoder import LongGenerator, LongGeneratorConfig
from soundreel.systems.mm_ldm.kl_vae import KLVAE, KLVAEConfig
from soundreel.systems.mm_ldm.perceptual_encoders import AudioEncoderConfig, VideoEncoderConfig
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.systems.mm_ldm.sampling import SamplingConfig, sample_latents
from soundreel.systems.mm_ldm.semantic import ProjectorConfig
from soundreel.systems.mm_ldm.settings import MMLDMSettings, check_parts
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoderConfig
from soundreel.systems.mm_ldm.vocoder import Vocoder, VocoderConfig
from soundreel.types import AV, ClipSpec

SPEC = ClipSpec(num_frames=4, height=32, width=32, frame_rate=Fraction(10), sample_rate=8000)


def autoencoder_config(num_classes):
    decoder = SignalDecoderConfig(
        image_channels=3,
        image_size=8,
        width=32,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_factors=(2,),
        num_heads=2,
        context_dim=16,
        num_classes=num_classes,
    )
    channels, factors = zip(*decoder.feature_blocks, strict=True)
    encoder = VideoEncoderConfig(
        image_channels=3,
        image_size=8,
        latent_channels=4,
        width=32,
        num_res_blocks=1,
        head_width=16,
        attention_factors=(2,),
        feature_channels=channels,
        feature_factors=factors,
    )
    projector = ProjectorConfig(
        semantic_dim=16,
        width=32,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_factors=(),
    )
    return AutoencoderConfig(
        video_encoder=encoder,
        audio_encoder=AudioEncoderConfig.like(encoder),
        video_projector=projector,
        audio_projector=projector,
        decoder=decoder,
        num_frames=SPEC.num_frames,
        key_frames=(0, 3),
        num_prompt_tokens=2,
        contrastive_dim=8,
    )


def make_pipeline(*, num_classes=2, vocoder=True, **settings):
    """Random weights everywhere, so that no path is silent."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = autoencoder_config(num_classes)
        autoencoder = MultiModalAutoencoder(config)
        generator = Generator(
            GeneratorConfig(
                latents=config.latents,
                width=32,
                depth=2,
                num_heads=4,
                context_dim=8,
                num_context_tokens=2,
                num_classes=num_classes,
            )
        )
        stats = PerceptualStats(config.latents)
        for buffer in stats.buffers():
            buffer.copy_(0.5 + torch.rand_like(buffer))
        first_stage = KLVAE(
            KLVAEConfig(latent_channels=3, width=32, channel_mult=(1, 1, 2), num_res_blocks=1)
        )
        for module, strength in ((autoencoder, 0.05), (generator, 0.3)):
            for parameter in module.parameters():
                parameter.data += strength * torch.randn_like(parameter)
        parts = {
            "clip": SPEC,
            "first_stage": first_stage.eval(),
            "autoencoder": autoencoder.eval(),
            "generator": generator.eval(),
            "stats": stats,
            "vocoder": Vocoder(
                VocoderConfig(
                    num_mels=16,
                    width=16,
                    upsample_rates=(8, 4),
                    upsample_kernel_sizes=(16, 8),
                    sample_rate=8000,
                    fft_size=128,
                    max_hz=4000.0,
                )
            ).eval()
            if vocoder
            else None,
        }
    defaults = {
        "mel_image": MelImageConfig(
            sample_rate=SPEC.sample_rate,
            num_samples=SPEC.num_samples,
            image_size=32,
            mel=MelConfig(
                filterbank_sample_rate=8000, fft_size=128, hop_length=32, num_mels=16, max_hz=4000.0
            ),
        ),
        "sampling": SamplingConfig(num_steps=3, video_guidance_scale=2.0, audio_guidance_scale=1.5),
        "decoding": DecodingConfig(num_steps=2),
    }
    return MMLDMPipeline(**parts, settings=MMLDMSettings(**defaults | settings))


@pytest.fixture(scope="module")
def pipeline():
    return make_pipeline()


def make_clip(*, num_frames=4, size=32, frame_rate=10, sample_rate=8000, seed=0):
    rng = np.random.default_rng(seed)
    num_samples = num_frames * sample_rate // frame_rate
    return Clip(
        rng.integers(0, 256, (num_frames, size, size, 3), dtype=np.uint8),
        (0.3 * rng.standard_normal((1, num_samples))).clip(-1, 1).astype(np.float32),
        Fraction(frame_rate),
        sample_rate,
    )


def same(a, b, tolerance=1e-4):
    """Equal up to what batching changes in float32 sums."""
    frames = np.abs(a.frames.astype(int) - b.frames.astype(int)).max()
    return bool(frames <= 1 and np.abs(a.waveform - b.waveform).max() <= tolerance)


def test_joint_generation_gives_clips_of_the_models_size(pipeline):
    clips = pipeline.generate(count=3, seed=1, batch_size=2)
    assert len(clips) == 3
    for clip in clips:
        assert clip.frames.shape == (4, 32, 32, 3)
        assert clip.waveform.shape == (1, SPEC.num_samples)
        assert (clip.frame_rate, clip.sample_rate) == (10, 8000)
    assert not same(clips[0], clips[1])


def test_a_clip_depends_on_its_seed_alone(pipeline):
    together = pipeline.generate(count=3, seed=5, batch_size=3)
    assert same(pipeline.generate(count=1, seed=6)[0], together[1])
    assert same(pipeline.generate(count=2, seed=6, batch_size=1)[1], together[2])


def test_known_sound_and_its_latent_are_kept(pipeline):
    clip = make_clip()
    results = pipeline.generate(audio=clip, count=2)
    for result in results:
        assert np.array_equal(result.waveform, clip.waveform)
    assert not np.array_equal(results[0].frames, results[1].frames)
    other = pipeline.generate(audio=make_clip(seed=9), count=1)[0]
    assert not np.array_equal(other.frames, results[0].frames)


def test_known_frames_are_kept(pipeline):
    clip = make_clip()
    result = pipeline.generate(video=clip)[0]
    assert np.array_equal(result.frames, clip.frames)
    assert not np.array_equal(result.waveform, clip.waveform)


def test_decoding_uses_the_true_latent_of_the_known_modality(pipeline, monkeypatch):
    seen = []
    decode_av = pipeline.decode_av

    def record(latents, *args, **options):
        seen.append(latents)
        return decode_av(latents, *args, **options)

    monkeypatch.setattr(pipeline, "decode_av", record)
    clip = make_clip()
    pipeline.generate(audio=clip, count=2)
    true = pipeline.encode(clip)
    assert torch.equal(seen[0]["audio"], true["audio"].expand(2, -1, -1, -1))
    assert not torch.allclose(seen[0]["video"], true["video"].expand(2, -1, -1, -1))


def test_encoding_is_standardised_and_needs_only_what_is_there(pipeline):
    clip = make_clip()
    both = pipeline.encode(clip)
    silent = pipeline.encode(replace(clip, waveform=None))
    assert silent.present == ("video",)
    assert torch.equal(silent["video"], both["video"])
    raw = pipeline.stats.restore(both)
    assert torch.allclose(pipeline.stats.standardize(raw)["audio"], both["audio"], atol=1e-5)
    assert not torch.allclose(raw["video"], both["video"])


def test_clips_of_other_rates_sizes_and_lengths_are_fitted(pipeline):
    big = make_clip(num_frames=30, size=50, frame_rate=25, sample_rate=16_000)
    result = pipeline.generate(video=big)[0]
    assert result.frames.shape == (4, 32, 32, 3)
    assert pipeline.encode(big)["audio"].shape == (1, 4, 4, 4)


def test_letterboxed_and_centred_clips_differ():
    wide = Clip(
        np.full((4, 32, 64, 3), 200, dtype=np.uint8),
        np.zeros((1, SPEC.num_samples), dtype=np.float32),
        Fraction(10),
        8000,
    )
    boxed = make_pipeline(framing="letterbox").generate(video=wide)[0].frames
    centred = make_pipeline().generate(video=wide)[0].frames
    assert boxed[:, :8].max() == 0
    assert boxed[:, 8:24].min() == 200
    assert centred.min() == 200


def test_silent_sound_and_black_frames_give_a_result(pipeline):
    black = replace(make_clip(), frames=np.zeros((4, 32, 32, 3), dtype=np.uint8))
    silent = replace(make_clip(), waveform=np.zeros((1, SPEC.num_samples), dtype=np.float32))
    assert pipeline.generate(video=black)[0].waveform.any()
    assert pipeline.generate(audio=silent)[0].frames.any()


@pytest.mark.parametrize("num_frames", [1, 3])
def test_a_clip_shorter_than_a_window_is_one_clear_error(pipeline, num_frames):
    with pytest.raises(ValueError, match=f"clip has frames {num_frames}, the model takes 4"):
        pipeline.generate(video=make_clip(num_frames=num_frames))


def test_reconstruction_goes_through_both_modalities(pipeline):
    result = pipeline.reconstruct(make_clip())
    assert result.frames.shape == (4, 32, 32, 3)
    assert result.waveform.shape == (1, SPEC.num_samples)
    assert same(result, pipeline.decode(pipeline.encode(make_clip()))[0], 0.0)
    with pytest.raises(ValueError, match="needs frames and sound"):
        pipeline.reconstruct(replace(make_clip(), frames=None))


def test_frames_decoded_in_chunks_are_the_same(pipeline):
    whole = pipeline.generate(seed=3)[0]
    decoding = replace(pipeline.settings.decoding, frame_chunk=3)
    chunked = make_pipeline(decoding=decoding, image_chunk=1).generate(seed=3)[0]
    assert same(whole, chunked)


def test_steps_guidance_and_class_change_the_result(pipeline):
    base = pipeline.generate(seed=3)[0]
    for options in (
        {"num_steps": 5},
        {"guidance_scale": 6.0},
        {"guidance_scale": (2.0, 6.0)},
        {"decoder_num_steps": 4},
        {"decoder_guidance_scale": 6.0},
        {"label": 1},
    ):
        assert not same(pipeline.generate(seed=3, **options)[0], base), options


def test_text_takes_the_place_of_the_prompt(pipeline):
    text = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert not same(pipeline.generate(text=text)[0], pipeline.generate()[0])


def test_progress_reaches_its_total(pipeline):
    steps = []
    pipeline.generate(
        count=3, batch_size=2, audio=make_clip(), progress=lambda *step: steps.append(step)
    )
    assert steps[-1][0] == steps[-1][1] == len(steps)


def test_without_a_vocoder_sound_comes_from_griffin_lim(pipeline):
    clip = make_pipeline(vocoder=False).generate()[0]
    assert clip.waveform.shape == (1, SPEC.num_samples)
    other = pipeline.generate()[0]
    assert np.array_equal(clip.frames, other.frames)
    assert not np.allclose(clip.waveform, other.waveform, atol=1e-2)


def test_mixed_precision_stays_close():
    low = make_pipeline(precision="bfloat16").generate(seed=3)[0]
    full = make_pipeline().generate(seed=3)[0]
    assert np.abs(low.frames.astype(int) - full.frames.astype(int)).mean() < 8


def test_a_saved_pipeline_loads_back_equal(tmp_path, pipeline):
    for original in (pipeline, make_pipeline(vocoder=False, class_names=("a", "b"))):
        save_mm_ldm(original, tmp_path / "model")
        loaded = load_mm_ldm(read_model(tmp_path / "model"))
        assert loaded.settings == original.settings
        assert loaded.clip == original.clip
        assert same(loaded.generate(seed=2)[0], original.generate(seed=2)[0], 0.0)


def test_principal_axes_are_saved_with_the_pipeline(tmp_path):
    original = make_pipeline()
    latents = original.autoencoder.config.latents
    generator = torch.Generator().manual_seed(0)
    some = AV(
        *(
            torch.randn(30, *shape, generator=generator)
            for shape in (latents.video_shape, latents.audio_shape)
        )
    )
    config = LatentAxesConfig(latents=latents, num_axes=20)
    original.stats = PerceptualAxes.measured(config, latent_moments([some]))
    save_mm_ldm(original, tmp_path / "model")
    loaded = load_mm_ldm(read_model(tmp_path / "model"))
    assert loaded.stats.config == config
    assert same(loaded.generate(seed=2)[0], original.generate(seed=2)[0], 0.0)
    assert not same(loaded.generate(seed=2)[0], make_pipeline().generate(seed=2)[0])


def test_sampling_starts_with_the_share_of_signal_that_the_chain_ends_with(monkeypatch):
    pipeline = make_pipeline()
    shares = []

    def noise(self, white, signal_share=0.0):
        shares.append(signal_share)
        return white

    monkeypatch.setattr(type(pipeline.stats), "noise", noise)
    pipeline.generate(seed=0)
    last = float(pipeline.settings.diffusion.build().alpha_bar[-1])
    assert shares == [pytest.approx(last)]
    assert last > 1e-5


def test_a_pipeline_without_generator_encodes_and_decodes(tmp_path, pipeline):
    without = MMLDMPipeline(
        clip=SPEC,
        first_stage=pipeline.first_stage,
        autoencoder=pipeline.autoencoder,
        settings=pipeline.settings,
    )
    save_mm_ldm(without, tmp_path / "model")
    loaded = load_mm_ldm(read_model(tmp_path / "model"))
    assert loaded.reconstruct(make_clip()).frames.shape == (4, 32, 32, 3)
    with pytest.raises(ValueError, match="only encodes and decodes"):
        loaded.generate()


def test_an_incomplete_folder_is_one_clear_error(tmp_path, pipeline):
    save_mm_ldm(pipeline, tmp_path / "model")
    (tmp_path / "model" / "autoencoder" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="file not found"):
        load_mm_ldm(read_model(tmp_path / "model"))


def test_both_modalities_or_a_modality_that_is_absent_are_refused(pipeline):
    clip = make_clip()
    with pytest.raises(ValueError, match="video and audio are both given"):
        pipeline.generate(video=clip, audio=clip)
    with pytest.raises(ValueError, match="given as audio has none"):
        pipeline.generate(audio=replace(clip, waveform=None))
    with pytest.raises(ValueError, match="label 2 is not among this model's 2 classes"):
        pipeline.generate(label=2)
    with pytest.raises(ValueError, match="count and batch_size start at 1"):
        pipeline.generate(count=0)


def test_parts_that_do_not_fit_are_named(pipeline):
    wrong = replace(SPEC, sample_rate=16_000)
    with pytest.raises(ValueError, match=r"sample_rate is 8000, the clip's is 16000"):
        check_parts(
            wrong,
            pipeline.first_stage,
            pipeline.autoencoder,
            pipeline.generator,
            None,
            pipeline.settings,
        )


def caption_settings(text_encoders, kind="clip"):
    folder = text_encoders / kind
    return TextConfig(folder=str(folder), sha256=text_encoder_sha256(folder), num_tokens=6)


@pytest.mark.parametrize("kind", ["clip", "t5"])
def test_another_caption_gives_another_clip(text_encoders, kind):
    pipe = make_pipeline(text=caption_settings(text_encoders, kind))
    dog, fire = (pipe.generate(text=text)[0] for text in ("a dog", "fire"))
    assert not same(dog, fire)
    assert same(dog, pipe.generate(text="a dog")[0], 0.0)
    unconditional = pipe.generate()[0]
    assert not same(dog, unconditional)
    assert same(pipe.generate(guidance_scale=5.0)[0], unconditional), "no caption is no condition"
    assert not same(pipe.generate(text="a dog", guidance_scale=5.0)[0], dog)


def test_captions_work_beside_classes_and_known_signals(text_encoders):
    pipe = make_pipeline(text=caption_settings(text_encoders))
    clip = make_clip()
    dog, fire = (pipe.generate(text=text, label=1, video=clip)[0] for text in ("a dog", "fire"))
    assert np.array_equal(dog.frames, clip.frames)
    assert not np.allclose(dog.waveform, fire.waveform)


def test_a_saved_pipeline_remembers_its_text_encoder(tmp_path, text_encoders):
    original = make_pipeline(text=caption_settings(text_encoders))
    save_mm_ldm(original, tmp_path / "model")
    loaded = load_mm_ldm(read_model(tmp_path / "model"))
    assert same(loaded.generate(text="sea")[0], original.generate(text="sea")[0], 0.0)
    moved = replace(original.settings.text, folder=str(tmp_path / "moved"))
    loaded.settings = replace(loaded.settings, text=moved)
    loaded.text_encoder = None
    with pytest.raises(CheckpointError, match="no text encoder here"):
        loaded.generate(text="sea")
    loaded.text_encoder = load_text_encoder(original.settings.text)
    assert loaded.generate(text="sea")


def test_a_caption_for_a_model_without_captions_is_refused(pipeline):
    with pytest.raises(ValueError, match="trained without captions"):
        pipeline.generate(text="a dog")


def test_the_class_reaches_generator_and_decoder_and_only_one_half_of_guidance(
    pipeline, monkeypatch
):
    heard = {"generator": [], "decoder": []}
    generator, decoder = pipeline.generator.transformer, pipeline.autoencoder.decoder

    def hear_generator(xt, timestep, context, condition, label, taps):
        prompts = context.flatten(1).any(dim=1).tolist()
        heard["generator"] += zip(label.tolist(), prompts, strict=True)
        return type(generator).forward(generator, xt, timestep, context, condition, label, taps)

    def hear_decoder(xt, timestep, condition):
        heard["decoder"].append((condition.label.tolist(), bool(condition.prompt["video"].any())))
        return type(decoder).forward(decoder, xt, timestep, condition)

    monkeypatch.setattr(generator, "forward", hear_generator)
    monkeypatch.setattr(decoder, "forward", hear_decoder)
    pipeline.generate(label=1)
    assert set(heard["generator"]) == {(1, True), (2, False)}, (
        "the null branch: no class, no prompt"
    )
    assert ([1], True) in heard["decoder"]
    null = [label for label, prompt in heard["decoder"] if not prompt]
    assert null, "the decoder's null branch has no prompt"


@pytest.mark.parametrize("part", ["generator", "autoencoder"])
def test_a_class_changes_the_clip_through_either_network_alone(part):
    pipe = make_pipeline()
    other = "autoencoder" if part == "generator" else "generator"
    with torch.no_grad():
        if other == "generator":
            pipe.generator.transformer.class_embedding.weight.zero_()
        else:
            pipe.autoencoder.decoder.class_embed.weight.zero_()
    zero, one = (pipe.generate(label=label)[0] for label in (0, 1))
    assert not same(zero, one)


def test_a_vocoder_for_other_spectrograms_is_refused(pipeline):
    right = pipeline.vocoder.config
    for name, value in (("sample_rate", 22_050), ("max_hz", 2000.0), ("fft_size", 256)):
        vocoder = Vocoder(replace(right, **{name: value}))
        with pytest.raises(ValueError, match=f"vocoder.{name} is {value}, the mel image's is"):
            MMLDMPipeline(
                clip=SPEC,
                first_stage=pipeline.first_stage,
                autoencoder=pipeline.autoencoder,
                vocoder=vocoder,
                settings=pipeline.settings,
            )


@pytest.mark.parametrize("count", [1, 3])
def test_silence_and_black_work_in_single_and_odd_batches(pipeline, count):
    black = replace(make_clip(), frames=np.zeros((4, 32, 32, 3), dtype=np.uint8))
    silent = replace(make_clip(), waveform=np.zeros((1, SPEC.num_samples), dtype=np.float32))
    for given in ({}, {"video": black}, {"audio": silent}):
        clips = pipeline.generate(count=count, batch_size=3, **given)
        assert len(clips) == count
        assert all(np.isfinite(clip.waveform).all() for clip in clips)


def test_sound_shorter_than_a_window_is_one_clear_error(pipeline):
    with pytest.raises(ValueError, match="the model takes"):
        pipeline.generate(audio=make_clip(num_frames=2))


@pytest.fixture(scope="module")
def long_pipeline():
    """As `pipeline`, with a generator for long video whose windows share a frame."""
    base = make_pipeline(class_names=("dog", "fire"))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LongGeneratorConfig(generator=base.generator.config, history_depth=1, overlap=1)
        network = LongGenerator(config)
        for parameter in network.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    network.generator.load_state_dict(base.generator.state_dict())
    return MMLDMPipeline(
        clip=base.clip,
        first_stage=base.first_stage,
        autoencoder=base.autoencoder,
        generator=network.eval(),
        stats=base.stats,
        vocoder=base.vocoder,
        settings=base.settings,
    )


def test_a_film_has_its_length_and_begins_like_a_shorter_one(long_pipeline):
    assert "after" in long_pipeline.conditions
    (film,) = long_pipeline.generate(seed=3, duration_s=1.1, label=1)
    assert (film.num_frames, film.num_samples) == (11, 8_800)
    (shorter,) = long_pipeline.generate(seed=3, duration_s=0.5, label=1)
    assert np.array_equal(film.frames[:5], shorter.frames)
    assert np.array_equal(film.waveform[:, :4_000], shorter.waveform)
    pieces = list(islice(long_pipeline.stream(seed=3, label=1), 2))
    assert np.array_equal(np.concatenate([p.frames for p in pieces]), film.frames[:6])
    (other,) = long_pipeline.generate(seed=3, duration_s=0.5, label=0)
    assert not np.array_equal(other.frames, shorter.frames)


def test_command_and_page_make_the_film_of_a_class(long_pipeline, tmp_path):
    asked = {"seed": 3, "duration_s": 0.7, "num_steps": 2}
    own, other = (long_pipeline.generate(label=name, **asked)[0] for name in ("fire", "dog"))
    assert not np.array_equal(own.frames, other.frames)
    long_pipeline.save(tmp_path / "model")
    words = ["generate", str(tmp_path / "model"), "--class", "fire", "--seed", "3", "--count", "1"]
    words += ["--duration", "0.7", "--num-steps", "2", "--lossless", "--out", str(tmp_path / "out")]
    assert run(words) == 0
    film = Clip.load(tmp_path / "out" / "clip-0003.mkv")
    assert np.array_equal(film.frames, own.frames)
    shown = Workshop(long_pipeline, tmp_path).film("anna", label="fire", **asked)
    assert shown.about.startswith("class fire, seed 3")
    own.save(tmp_path / "own.mp4")  # the page's film is MP4, which changes noise
    frames = Clip.load(shown.clip).frames.astype(float)
    same, far = (
        np.abs(frames - x).mean() for x in (Clip.load(tmp_path / "own.mp4").frames, other.frames)
    )
    assert same < far / 4


def test_a_film_is_joined_and_guided_as_asked(long_pipeline):
    def film(**asked):
        return long_pipeline.generate(seed=3, duration_s=0.7, label=1, **asked)[0]

    faded, butt = film(), film(join="butt")
    changed = np.flatnonzero((faded.frames != butt.frames).any(axis=(1, 2, 3)))
    assert changed.size  # windows of four frames that share one begin at 0, 3 and 6
    assert changed.min() >= 2, "the first window is the same up to its end"
    assert not np.array_equal(faded.waveform, butt.waveform)
    both = film(join="butt", guidance_scale=(2.0, 1.5))
    assert np.array_equal(both.waveform, butt.waveform), "these are the model's own scales"
    for other in ((2.0, 4.0), (4.0, 1.5)):
        assert not np.array_equal(film(join="butt", guidance_scale=other).waveform, both.waveform)


@pytest.mark.parametrize("modality", ["both", "audio", "video"])
def test_what_goes_on_depends_on_the_past_that_is_known(long_pipeline, modality):
    clip, other = make_clip(num_frames=6), make_clip(num_frames=6, seed=9)

    def film(after):
        return long_pipeline.generate(after=after, duration_s=1.2, modality=modality, seed=2)[0]

    made = film(clip)
    if modality != "audio":
        assert np.array_equal(made.frames[:6], clip.frames)
        assert made.num_frames == 12
    if modality != "video":
        assert np.array_equal(made.waveform[:, : clip.num_samples], clip.waveform)
        assert made.num_samples == 9_600
    assert (made.frames is None, made.waveform is None) == (
        modality == "audio",
        modality == "video",
    )
    # What is not to go on is not looked at: another past of it changes nothing.
    if modality == "both":
        return
    unknown = {"audio": "frames", "video": "waveform"}[modality]
    changed = film(replace(clip, **{unknown: getattr(other, unknown)}))
    known = {"audio": "waveform", "video": "frames"}[modality]
    assert np.array_equal(getattr(changed, known), getattr(made, known))
    different = film(replace(clip, **{known: getattr(other, known)}))
    rest = slice(6, None) if modality == "video" else (slice(None), slice(4_800, None))
    assert not np.array_equal(getattr(different, known)[rest], getattr(made, known)[rest])


def test_films_for_given_pictures_and_sound_last_as_long(long_pipeline, pipeline):
    clip = make_clip(num_frames=9)
    for model in (long_pipeline, pipeline):  # without a history each window is made alone
        heard = join_clips(model.stream(video=clip))
        assert np.array_equal(heard.frames, clip.frames)
        assert heard.num_samples == clip.num_samples
        seen = join_clips(model.stream(audio=clip, start_s=0.2, duration_s=0.5))
        assert np.array_equal(seen.waveform, clip.waveform[:, 1_600:5_600])
        assert seen.num_frames == 5


def test_sound_for_later_pictures_goes_on_from_the_earlier_sound(long_pipeline, pipeline):
    """Pictures of the first window alone change; that is heard in the third."""
    clip = make_clip(num_frames=9)
    frames = clip.frames.copy()
    frames[:3] = 255 - frames[:3]
    for model, goes_on in ((long_pipeline, True), (pipeline, False)):
        one, other = (
            join_clips(model.stream(video=given)).waveform[:, 4_800:]
            for given in (clip, replace(clip, frames=frames))
        )
        assert np.array_equal(one, other) != goes_on


def test_a_film_model_folder_opens_as_it_was(long_pipeline, tmp_path):
    save_mm_ldm(long_pipeline, tmp_path / "model")
    opened = load_mm_ldm(read_model(tmp_path / "model"))
    assert opened.long_generator.config == long_pipeline.long_generator.config
    for name, value in long_pipeline.long_generator.state_dict().items():
        assert torch.equal(opened.long_generator.state_dict()[name], value)
    assert same(opened.generate(seed=4)[0], long_pipeline.generate(seed=4)[0])


def test_films_that_cannot_be_made_are_refused(long_pipeline, pipeline):
    with pytest.raises(SoundreelError, match="train one of the presets for long video"):
        pipeline.generate(duration_s=2)
    with pytest.raises(SoundreelError, match="one of after, between, video and audio"):
        long_pipeline.stream(video=make_clip(), after=make_clip())
    with pytest.raises(SoundreelError, match="give the clip"):
        long_pipeline.stream(modality="audio", duration_s=2)
    with pytest.raises(SoundreelError, match="needs a length"):
        long_pipeline.generate(after=make_clip())
    with pytest.raises(SoundreelError, match="not within it"):
        long_pipeline.stream(video=make_clip(), start_s=0.3, duration_s=0.2)


@torch.no_grad()
def test_the_null_branch_of_a_film_has_no_prompt_and_a_history_where_that_is_not_guided(
    long_pipeline,
):
    network = long_pipeline.long_generator
    latents = AV(torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 4))
    noise = AV(torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 4))
    schedule = long_pipeline.settings.diffusion.build()

    def sampled(scale, previous, **settings):
        config = SamplingConfig(
            num_steps=2, video_guidance_scale=scale, audio_guidance_scale=scale, **settings
        )
        return sample_latents(network, noise, schedule, config, previous=previous)

    # Scale 0 follows the null branch alone: the history has no effect on it.
    assert torch.equal(sampled(0.0, latents)["video"], sampled(0.0, None)["video"])
    assert not torch.allclose(sampled(1.0, latents)["video"], sampled(1.0, None)["video"])
    known = sampled(0.0, latents, history_guidance=False)["video"]
    assert not torch.allclose(known, sampled(0.0, None)["video"])
    assert not torch.allclose(known, sampled(1.0, latents)["video"])  # the prompt is left out
