"""The stages of an MM-LDM run: what each one loads, trains, shows and leaves."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from soundreel.checkpoints.perceptual_weights import load_perceptual_loss
from soundreel.checkpoints.store import load_component, read_model
from soundreel.data.dataset import training_windows
from soundreel.data.latent_pairs import LatentPairs
from soundreel.data.latents import LatentDataset, LatentScaling
from soundreel.film_clock import FilmClock
from soundreel.nn.layout import to_channels_last
from soundreel.systems.mm_ldm.adversarial_loss import AutoencoderObjectives
from soundreel.systems.mm_ldm.autoencoder import AutoencoderConfig, MultiModalAutoencoder
from soundreel.systems.mm_ldm.autoencoder_loss import AutoencoderLossConfig
from soundreel.systems.mm_ldm.caching import RunLatents
from soundreel.systems.mm_ldm.conditions import (
    RunCaptions,
    check_classes,
    check_sharding,
    framing_of,
    load_vocoder,
    preview_requests,
    states_of_clips,
)
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.discriminator import Discriminator
from soundreel.systems.mm_ldm.first_stage_loss import FirstStageObjectives, freeze_encoder
from soundreel.systems.mm_ldm.folder import load_scaling, save_mm_ldm
from soundreel.systems.mm_ldm.generator import Generator, GeneratorConfig
from soundreel.systems.mm_ldm.generator_loss import mm_ldm_generator_objective
from soundreel.systems.mm_ldm.history_encoder import LongGenerator, LongGeneratorConfig
from soundreel.systems.mm_ldm.import_stable_diffusion import load_kl_vae, load_unet
from soundreel.systems.mm_ldm.kl_vae import KLVAE, KLVAEConfig
from soundreel.systems.mm_ldm.long_init import long_generator, of_single_windows
from soundreel.systems.mm_ldm.long_loss import mm_ldm_long_objective
from soundreel.systems.mm_ldm.patch_discriminator import PatchDiscriminator
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.systems.mm_ldm.previews import Previews
from soundreel.systems.mm_ldm.settings import MMLDMSettings
from soundreel.systems.mm_ldm.signals import unit_scale
from soundreel.training.loop import TrainConfig
from soundreel.training.run import Run, StageWork
from soundreel.training.stages import Recipe
from soundreel.training.trainee import Trainee

SEMANTIC_PARTS = ("video_projector", "audio_projector", "class_head", "contrastive_head")
JointModel = TypeVar("JointModel", Generator, LongGenerator)


class MMLDMRecipe(Recipe):
    """Builds single stages; each finds what it needs in the folders of those before it."""

    def __init__(self, config: MMLDMConfig, data: Path, run: Run) -> None:
        self._config = config
        self._run = run
        self._windows = training_windows(data, config.clip, config.data)
        check_classes(config, self._windows.info)
        check_sharding(config)
        self._latents = RunLatents(config, run, self._windows)
        self._vocoder = load_vocoder(config)
        self._captions = RunCaptions(config, data) if config.text.folder else None
        self._previews = Previews(config, data)

    def begin(self, stage: str) -> StageWork[Any]:
        """Return what a stage trains, with the networks of the stages before it."""
        return getattr(self, f"_begin_{stage}")()

    def _begin_first_stage(self) -> StageWork[KLVAE]:
        stage = self._config.first_stage

        def build() -> KLVAE:
            return KLVAE(stage.model)

        model = self._run.seeded(build, stage.train, component="first_stage")
        if stage.weights:
            load_kl_vae(model, Path(stage.weights))
        init = self._run.init
        if stage.loss.freeze_encoder and (stage.weights or (init and init.has("first_stage"))):
            freeze_encoder(model)
        perceptual = adversary = None
        if stage.perceptual_weights:
            perceptual = load_perceptual_loss(stage.perceptual_weights).to(self._run.device)
        if stage.adversary:
            adversary = self._run.seeded(
                lambda: PatchDiscriminator(stage.discriminator), stage.train
            )
        objectives = FirstStageObjectives(
            self._config.mel_image, stage.loss, perceptual=perceptual, discriminator=adversary
        )

        def finish(network: KLVAE, samples: int) -> KLVAEConfig:
            scale = unit_scale(network, self._windows, self._config.mel_image)
            return replace(stage.model, latent_scale=scale)

        return StageWork(
            trainees=self._trainees("first_stage", model, objectives, stage.train, adversary),
            build=build,
            data=self._windows,
            train=stage.train,
            preview=partial(self._previews.first_stage, folder=self._run.out / "first_stage"),
            finish=finish,
        )

    def _trainees(
        self,
        name: str,
        model: nn.Module,
        objectives: FirstStageObjectives | AutoencoderObjectives,
        train: TrainConfig,
        adversary: nn.Module | None,
        rate_shares: Mapping[str, float] | None = None,
    ) -> list[Trainee]:
        trainee = self._run.trainee(
            name, model, objectives.autoencoder_objective, train, rate_shares=rate_shares
        )
        if adversary is None:
            return [trainee]
        objective = objectives.discriminator_objective
        return [trainee, self._run.adversary("discriminator", adversary, objective, train)]

    def _begin_autoencoder(self) -> StageWork[MultiModalAutoencoder]:
        stage = self._config.autoencoder
        model = self._run.seeded(
            lambda: MultiModalAutoencoder(stage.model), stage.train, component="autoencoder"
        )
        if stage.unet_weights:
            load_unet(model.decoder, Path(stage.unet_weights))
        shares = self._semantic_shares(model)
        return self._autoencoder_work("autoencoder", model, stage.train, stage.loss, shares)

    def _begin_adversarial(self) -> StageWork[MultiModalAutoencoder]:
        stage = self._config.adversarial
        model = self._autoencoder("autoencoder")
        adversary = self._run.seeded(lambda: Discriminator(stage.discriminator), stage.train)
        loss, shares = self._config.autoencoder.loss, self._semantic_shares(model)
        return self._autoencoder_work("adversarial", model, stage.train, loss, shares, adversary)

    def _semantic_shares(self, model: MultiModalAutoencoder) -> dict[str, float]:
        share = self._config.autoencoder.semantic_rate_share
        return {name: share for name, _ in model.named_children() if name in SEMANTIC_PARTS}

    def _autoencoder_work(
        self,
        stage: str,
        model: MultiModalAutoencoder,
        train: TrainConfig,
        loss: AutoencoderLossConfig,
        rate_shares: dict[str, float],
        adversary: Discriminator | None = None,
    ) -> StageWork[MultiModalAutoencoder]:
        config = self._config.autoencoder.model
        first_stage = self.first_stage()
        source, data = self._latents.source(first_stage)
        objectives = AutoencoderObjectives(
            source,
            first_stage,
            self._config.diffusion.build().to(self._run.device),
            loss,
            discriminator=adversary,
        )

        def preview(network: MultiModalAutoencoder, samples: int) -> None:
            pipeline = self._pipeline(first_stage, network)
            self._previews.autoencoder(pipeline, self._run.out / stage, samples)

        return StageWork(
            trainees=self._trainees(
                "autoencoder", model, objectives, train, adversary, rate_shares
            ),
            build=lambda: MultiModalAutoencoder(config),
            data=data,
            train=train,
            preview=preview,
            finish=lambda network, samples: config,
        )

    def _begin_generator(self) -> StageWork[Generator]:
        train, config = self._config.generator.train, self._config.generator_model
        model = self._run.seeded(
            lambda: Generator(config), train, component="generator", convert=of_single_windows
        )
        return self._generator_work("generator", model, lambda: Generator(config), train)

    def _begin_long(self) -> StageWork[LongGenerator]:
        stage, config = self._config.long, self._config.long_generator
        model = long_generator(self._run, config, stage.train)
        return self._generator_work("long", model, lambda: LongGenerator(config), stage.train)

    def _generator_work(
        self, stage: str, model: JointModel, build: Callable[[], JointModel], train: TrainConfig
    ) -> StageWork[JointModel]:
        """Return how a network learns on perceptual latents: of windows, or of pairs of them."""
        first_stage, autoencoder = self.first_stage(), self.autoencoder()
        latents = self._latents.perceptual(
            first_stage, autoencoder, self._pipeline(first_stage, autoencoder).encode_av
        )
        states = None
        if self._captions is not None:
            with self._run.parallel.main_first():
                states = self._captions.states(self._run.out / "captions", self._run.device)
        scaling = self._scaling(latents)
        is_long = isinstance(model, LongGenerator)
        make_objective = mm_ldm_long_objective if is_long else mm_ldm_generator_objective
        objective = make_objective(
            self._config.diffusion.build().to(self._run.device),
            self._config.generator.loss,
            standardize=scaling.standardize,  # whole batches: one clip at a time takes longer
            colour=scaling.noise,
            text=None if states is None else states_of_clips(states),
        )
        requests = preview_requests(self._config, states, self._windows.info)
        windows = self._latents.raw()
        clock = FilmClock(self._config.clip, self._config.long.overlap)

        def preview(network: JointModel, samples: int) -> None:
            pipeline = self._pipeline(first_stage, autoencoder, network, latents)
            self._previews.generator(pipeline, self._run.out / stage, samples, requests)

        return StageWork(
            trainees=[self._run.trainee("generator", model, objective, train)],
            build=build,
            data=LatentPairs(windows, clock.hop) if is_long else windows,
            train=train,
            preview=preview,
            finish=lambda network, samples: network.config,
        )

    def save_model(self) -> None:
        """Write `model/` from the finished stages."""
        first_stage, autoencoder = self.first_stage(), self.autoencoder()
        kinds: dict[str, tuple[type, type]] = {
            "generator": (Generator, GeneratorConfig),
            "long": (LongGenerator, LongGeneratorConfig),
        }
        last = "long" if self._config.long.enabled else "generator"
        generator, _ = load_component(self._run.component(last), "network", *kinds[last])
        latents = self._latents.scaled()
        pipeline = self._pipeline(first_stage, autoencoder, generator.to(self._run.device), latents)
        save_mm_ldm(pipeline, self._run.out / "model")

    def first_stage(self) -> KLVAE:
        """Return the finished first stage, frozen."""
        run = self._config.first_stage
        if run.is_trained:
            network, _ = load_component(
                self._run.component("first_stage"), "network", KLVAE, KLVAEConfig
            )
        else:
            network = KLVAE(run.model)
            load_kl_vae(network, Path(run.weights))
        return to_channels_last(network.eval().requires_grad_(False)).to(self._run.device)

    def autoencoder(self) -> MultiModalAutoencoder:
        """Return the finished autoencoder of the last phase that was run, frozen."""
        last = "adversarial" if self._config.adversarial.enabled else "autoencoder"
        return self._autoencoder(last).requires_grad_(False)

    def _autoencoder(self, stage: str) -> MultiModalAutoencoder:
        component = self._run.component(stage)
        network, _ = load_component(component, "network", MultiModalAutoencoder, AutoencoderConfig)
        return to_channels_last(network.eval()).to(self._run.device)

    def _scaling(self, latents: LatentDataset) -> LatentScaling:
        """Return how latents are standardised: as the networks the run starts from have learned."""
        init = self._run.init
        if init is None or not init.has("latent_stats"):
            return latents.stats.to(self._run.device)
        return load_scaling(read_model(init.path)).to(self._run.device)

    def _pipeline(
        self,
        first_stage: KLVAE,
        autoencoder: MultiModalAutoencoder,
        generator: Generator | LongGenerator | None = None,
        latents: LatentDataset | None = None,
    ) -> MMLDMPipeline:
        config = self._config
        return MMLDMPipeline(
            clip=config.clip,
            first_stage=first_stage,
            autoencoder=autoencoder,
            generator=generator,
            stats=None if latents is None else self._scaling(latents),
            vocoder=None if self._vocoder is None else self._vocoder.to(self._run.device),
            settings=MMLDMSettings(
                mel_image=config.mel_image,
                diffusion=config.diffusion,
                sampling=config.sampling,
                decoding=config.decoding,
                framing=framing_of(self._windows.info),
                class_names=tuple(self._windows.info.classes),
                text=config.text,
            ),
        )
