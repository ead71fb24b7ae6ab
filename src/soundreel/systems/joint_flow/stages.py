"""The stages of a joint_flow run: what each one loads, trains, shows and leaves.

OUT/video_encoder/component/   the linear video codec, fitted in closed form
OUT/video_codec/               log.jsonl, checkpoints/, component/ (averaged weights)
OUT/audio_codec/               likewise
OUT/latents/                   latents of all windows, mirrored ones too
OUT/transformer/               likewise, with previews/ and watch.jsonl
OUT/model/                     everything, for `soundreel.load`
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from soundreel.checkpoints.fingerprint import fingerprint
from soundreel.checkpoints.store import (
    ModelIndex,
    load_component,
    save_component,
    save_model_index,
    writing_folder,
)
from soundreel.config_io import ConfigError
from soundreel.data.dataset import PreparedDataset, training_windows
from soundreel.protocols import Stage, TrainWords
from soundreel.systems.joint_flow.audio_codec import AudioCodec, AudioCodecConfig
from soundreel.systems.joint_flow.audio_objective import audio_codec_objective
from soundreel.systems.joint_flow.config import SYSTEM, JointFlowConfig
from soundreel.systems.joint_flow.flow_objective import flow_objective
from soundreel.systems.joint_flow.init_classes import Classes
from soundreel.systems.joint_flow.lapped import HOP
from soundreel.systems.joint_flow.latents import CachedLatents, cache_latents, encode_inner, measure
from soundreel.systems.joint_flow.pipeline import JointFlowPipeline, JointFlowSettings
from soundreel.systems.joint_flow.transformer import JointTransformer, JointTransformerConfig
from soundreel.systems.joint_flow.video_decoder import VideoCodecConfig, VideoDecoder
from soundreel.systems.joint_flow.video_encoder import VideoEncoder, VideoEncoderConfig
from soundreel.systems.joint_flow.video_objective import video_decoder_objective
from soundreel.systems.joint_flow.watch import partners, watch
from soundreel.training.epochs import in_samples
from soundreel.training.loop import TrainConfig
from soundreel.training.previews import save_preview
from soundreel.training.run import COMPONENT, Run, StageWork
from soundreel.training.stages import Recipe, train_stages
from soundreel.training.trackers import JsonLines

VIDEO, AUDIO, TRANSFORMER = "video_codec", "audio_codec", "transformer"
FIT_BATCH = 16


def train_configs(config: JointFlowConfig) -> dict[str, TrainConfig]:
    """Return how each stage is trained, in order."""
    return {
        VIDEO: config.video.train,
        AUDIO: config.audio.train,
        TRANSFORMER: config.transformer.train,
    }


def stages_of(config: JointFlowConfig) -> tuple[Stage, ...]:
    """Return all stages in order; 1 sample stands for epochs until the data set is known."""
    return tuple(
        Stage(name=name, total_samples=train.total_samples or 1, folder=name, component=name)
        for name, train in train_configs(config).items()
    )


def train_joint_flow(
    config: JointFlowConfig, data: Path, out: Path, **how: Unpack[TrainWords]
) -> bool:
    """Train the stages in order, each from those before it; leave `out/model`.

    Args:
        data: folder made by `soundreel prepare`, whose clips are at least two hops of four frames
            longer than those to be generated.

    Returns:
        Whether all stages that were asked for are finished; False if it was told to stop.

    Raises:
        ConfigError, FolderInUseError: see `train_stages`.
        DataError, ValueError: the data set does not fit the configuration.
    """
    windows = windows_of(config, data)
    counts = {stage: len(own) for stage, own in windows.items()}
    config = replace(
        config,
        video=in_samples(config.video, counts[VIDEO]),
        audio=in_samples(config.audio, counts[AUDIO]),
        transformer=in_samples(config.transformer, counts[TRANSFORMER]),
    )
    return train_stages(
        config,
        out,
        system=SYSTEM,
        all_stages=stages_of(config),
        train_configs=train_configs(config),
        recipe=lambda run: JointFlowRecipe(config, windows, run),
        **how,
    )


def windows_of(config: JointFlowConfig, data: Path) -> dict[str, PreparedDataset]:
    """Return the windows of the data set that each stage learns from."""
    num_frames = {
        VIDEO: (config.video.num_groups + 1) * HOP,
        AUDIO: config.audio.num_frames,
        TRANSFORMER: config.clip.num_frames + 2 * HOP,
    }
    return {
        stage: training_windows(
            data,
            replace(config.clip, num_frames=count),
            config.data,
            sound_only=stage == AUDIO,
        )
        for stage, count in num_frames.items()
    }


class JointFlowRecipe(Recipe):
    """Builds single stages; each finds what it needs in the folders of those before it."""

    def __init__(
        self, config: JointFlowConfig, windows: Mapping[str, PreparedDataset], run: Run
    ) -> None:
        self._config = config
        self._run = run
        self._windows = windows
        if not config.audio.train_encoder and (run.init is None or not run.init.has(AUDIO)):
            raise ConfigError(
                "audio.train_encoder: set it to True, or name a model with an audio codec by --init"
            )
        names = tuple(self._windows[TRANSFORMER].info.classes)
        self._classes = Classes.of(names, run.init, stays=config.transformer.train.lora.rank > 0)

    def begin(self, stage: str) -> StageWork[Any]:
        """Return what a stage trains, with the networks of the stages before it."""
        return getattr(self, f"_begin_{stage}")()

    def _begin_video_codec(self) -> StageWork[VideoDecoder]:
        stage = self._config.video
        parts = VideoCodecConfig(encoder=stage.encoder, decoder=stage.decoder)
        network = self._run.seeded(parts.build, stage.train, component=VIDEO)
        if self._run.init is None or not self._run.init.has(VIDEO):
            network.linear.load_state_dict(self._fitted_encoder().state_dict())
        objective = video_decoder_objective(stage.loss)
        return StageWork(
            trainees=[self._run.trainee(VIDEO, network, objective, stage.train)],
            build=parts.build,
            data=self._windows[VIDEO],
            train=stage.train,
            finish=lambda network, samples: parts,
        )

    def _fitted_encoder(self) -> VideoEncoder:
        """Return the linear codec, fitted once for the whole run."""
        component = self._run.component("video_encoder")
        with self._run.parallel.main_first():
            if not component.is_dir():
                encoder = VideoEncoder(self._config.video.encoder).to(self._run.device)
                encoder.fit(self._fit_batches, patch_stride=self._config.video.fit_patch_stride)
                with writing_folder(component) as temporary:
                    save_component(temporary, COMPONENT, encoder, encoder.config)
                    index = ModelIndex(system=SYSTEM, components={COMPONENT: "video_encoder"})
                    save_model_index(temporary, index)
        encoder, _ = load_component(component, COMPONENT, VideoEncoder, VideoEncoderConfig)
        return encoder

    def _fit_batches(self) -> Iterator[Tensor]:
        windows = self._windows[TRANSFORMER]
        chosen = spread(len(windows), self._config.video.fit_clips)
        for first in range(0, len(chosen), FIT_BATCH):
            self._run.raise_if_stopped()
            rows = [windows[i].av["video"] for i in chosen[first : first + FIT_BATCH]]
            yield torch.stack(rows).to(self._run.device)

    def _begin_audio_codec(self) -> StageWork[AudioCodec]:
        stage = self._config.audio

        def build() -> AudioCodec:
            return AudioCodec(stage.codec)

        network = self._run.seeded(build, stage.train, component=AUDIO)
        network.encoder.requires_grad_(stage.train_encoder)
        objective = audio_codec_objective(stage.loss)
        return StageWork(
            trainees=[self._run.trainee(AUDIO, network, objective, stage.train)],
            build=build,
            data=self._windows[AUDIO],
            train=stage.train,
            finish=lambda network, samples: stage.codec,
        )

    def _begin_transformer(self) -> StageWork[JointTransformer]:
        stage = self._config.transformer
        built = self._config.transformer_config(len(self._classes.names))
        video, audio = self._codecs()
        latents = self._latents(video, audio)

        def build() -> JointTransformer:
            return JointTransformer(built)

        network = self._run.seeded(
            build,
            stage.train,
            component=TRANSFORMER,
            convert=self._classes.convert,
        )
        if not stage.train.lora.rank:
            measure(network, latents)
        objective = flow_objective(stage.loss)
        return StageWork(
            trainees=[self._run.trainee(TRANSFORMER, network, objective, stage.train)],
            build=build,
            data=latents,
            train=stage.train,
            preview=partial(self._preview, video, audio, latents),
            finish=lambda network, samples: built,
        )

    def _codecs(self) -> tuple[VideoDecoder, AudioCodec]:
        """Return the finished codecs, frozen."""
        video, _ = load_component(
            self._run.component(VIDEO), COMPONENT, VideoCodecConfig.build, VideoCodecConfig
        )
        audio, _ = load_component(
            self._run.component(AUDIO), COMPONENT, AudioCodec, AudioCodecConfig
        )
        device = self._run.device
        return video.requires_grad_(False).to(device), audio.requires_grad_(False).to(device)

    def _latents(self, video: VideoDecoder, audio: AudioCodec) -> CachedLatents:
        """Return the latents of every window, encoded once."""
        windows, folder = self._windows[TRANSFORMER], self._run.out / "latents"
        about = {"data": windows.info.origin, "windows": len(windows)}
        parallel = self._run.parallel
        with torch.no_grad():
            return cache_latents(
                self._run.on_device(partial(encode_inner, encoder=video.linear, codec=audio)),
                windows,
                folder,
                fingerprint=fingerprint((video.linear, audio.encoder), about),
                mirrored=self._config.data.flip_probability > 0,
                callback=self._run.raise_if_stopped,
                rank=parallel.rank,
                world_size=parallel.world_size,
                barrier=parallel.barrier,
            ).labelled(self._classes.labels)

    def _preview(
        self,
        video: VideoDecoder,
        audio: AudioCodec,
        latents: CachedLatents,
        network: JointTransformer,
        samples: int,
    ) -> None:
        """Draw samples, and log whether each modality is learned from the other."""
        folder, preview = self._run.out / TRANSFORMER, self._config.preview
        pipeline = self._pipeline(video, audio, network, samples)
        clips = pipeline.generate(
            count=preview.count,
            seed=self._config.transformer.train.seed,
            num_steps=preview.num_steps,
        )
        save_preview(clips, folder / "previews", samples)
        av, label = latents.rows(spread(len(latents), self._config.transformer.watch_clips))
        if int((partners(label) >= 0).sum()) < 2:
            return
        gaps = watch(network, network.scaled(av.to(self._run.device)), label.to(self._run.device))
        line = {"samples": float(samples)}
        for modality, gap in gaps.items():
            line |= {f"gap/{modality}": gap.mean, f"gap/{modality}_error": gap.error}
        JsonLines(folder / "watch.jsonl", samples - 1)(line)

    def save_model(self) -> None:
        """Write `model/` from the finished stages."""
        network, _ = load_component(
            self._run.component(TRANSFORMER), COMPONENT, JointTransformer, JointTransformerConfig
        )
        samples = self._config.transformer.train.total_samples
        self._pipeline(*self._codecs(), network, samples).save(self._run.out / "model")

    def _pipeline(
        self, video: VideoDecoder, audio: AudioCodec, network: JointTransformer, samples: int
    ) -> JointFlowPipeline:
        settings = JointFlowSettings(
            class_names=self._classes.names, sampling=self._config.sampling, samples_seen=samples
        )
        return JointFlowPipeline(video, audio, network, self._config.clip, settings)


def spread(count: int, wanted: int) -> list[int]:
    """Return up to `wanted` of `count` indices, evenly spread."""
    return torch.linspace(0, count - 1, min(count, wanted)).long().unique().tolist()
