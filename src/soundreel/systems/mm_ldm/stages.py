"""The stages of an MM-LDM run: what each one loads, trains, shows and leaves behind."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from soundreel.checkpoints.perceptual_weights import load_perceptual_loss
from soundreel.checkpoints.store import load_component
from soundreel.data.dataset import PreparedDataset
from soundreel.data.latent_axes import PerceptualAxes
from soundreel.data.latents import LatentDataset
from soundreel.nn.layout import to_channels_last
from soundreel.systems.mm_ldm.adversarial_loss import AutoencoderGame
from soundreel.systems.mm_ldm.autoencoder import AutoencoderConfig, MultiModalAutoencoder
from soundreel.systems.mm_ldm.autoencoder_loss import AutoencoderLossConfig
from soundreel.systems.mm_ldm.caching import RunLatents
from soundreel.systems.mm_ldm.conditions import (
    RunCaptions,
    check_classes,
    framing_of,
    load_vocoder,
    preview_wishes,
    states_of_clips,
)
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.discriminator import Discriminator
from soundreel.systems.mm_ldm.first_stage_loss import FirstStageGame, freeze_encoder
from soundreel.systems.mm_ldm.folder import save_mm_ldm
from soundreel.systems.mm_ldm.generator import Generator, GeneratorConfig
from soundreel.systems.mm_ldm.generator_loss import mm_ldm_generator_objective
from soundreel.systems.mm_ldm.import_stable_diffusion import load_kl_vae, load_unet
from soundreel.systems.mm_ldm.kl_vae import KLVAE, KLVAEConfig
from soundreel.systems.mm_ldm.parts import (
    CONTEXT_MAPS,
    decoder_phase_parts,
    open_parts,
    semantic_shares,
)
from soundreel.systems.mm_ldm.patch_discriminator import PatchDiscriminator
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.systems.mm_ldm.previews import Previews
from soundreel.systems.mm_ldm.settings import FirstStageNetwork, MMLDMSettings
from soundreel.systems.mm_ldm.stage_tools import StageTools, Trained, unit_scale
from soundreel.systems.mm_ldm.taef2 import TAEF2
from soundreel.training.loop import TrainConfig
from soundreel.training.meters import Tracker


class StageRunner:
    """Runs single stages; each finds what it needs in the folders of those before it."""

    def __init__(
        self, config: MMLDMConfig, data: Path, out: Path, trackers: Callable[[], list[Tracker]]
    ) -> None:
        self._config = config
        self._data = data
        self._out = out
        self._tools = StageTools(out, config.data.num_workers, trackers)
        self._windows = PreparedDataset(
            data,
            spec=config.clip,
            split=config.data.split,
            stride=config.data.stride,
            flip_probability=config.data.flip_probability,
            cache=config.data.cache,
        )
        check_classes(config, self._windows.info)
        self._latents = RunLatents(config, out, self._tools, self._windows)
        self._vocoder = load_vocoder(config)
        self._captions = RunCaptions(config, data) if config.text.folder else None
        self._previews = Previews(config, data)

    def is_finished(self, stage: str) -> bool:
        """Whether a stage has left its network, or needs no training."""
        if stage == "first_stage" and not self._config.first_stage.is_trained:
            return True
        return (self._out / stage / "component" / "model_index.json").is_file()

    def run(self, stage: str) -> bool:
        """Train one stage to its end; False if it was told to stop before."""
        return getattr(self, f"_run_{stage}")()

    def _run_first_stage(self) -> bool:
        run = self._config.first_stage
        train = run.train

        def build() -> KLVAE:
            return KLVAE(run.model)

        model = self._tools.seeded(build, train)
        if run.weights:
            load_kl_vae(model, Path(run.weights))
            if run.loss.freeze_encoder:
                freeze_encoder(model)
        perceptual = None
        if run.perceptual_weights:
            perceptual = load_perceptual_loss(run.perceptual_weights).to(self._tools.device)
        adversary = None
        if run.adversary:
            adversary = self._tools.seeded(lambda: PatchDiscriminator(run.discriminator), train)
        game = FirstStageGame(
            self._config.mel_image, run.loss, perceptual=perceptual, discriminator=adversary
        )
        player = self._tools.player("first_stage", model, game.autoencoder_objective, train)
        players = [player]
        if adversary is not None:
            objective = game.discriminator_objective
            players.append(
                self._tools.player("discriminator", adversary, objective, train, ema=False)
            )
        trained = Trained(player, build)

        def preview(samples: int) -> None:
            network = trained.averaged()
            self._previews.first_stage(network, self._out / "first_stage", samples)

        if not self._tools.fit(
            "first_stage", players, self._tools.loader(self._windows), train, preview
        ):
            return False
        network = trained.averaged()
        scale = unit_scale(network, self._windows, self._config.mel_image)
        self._tools.leave("first_stage", network, replace(run.model, latent_scale=scale))
        return True

    def _run_autoencoder(self) -> bool:
        run = self._config.autoencoder
        model = self._tools.seeded(lambda: MultiModalAutoencoder(run.model), run.train)
        if run.unet_weights:
            load_unet(model.decoder, Path(run.unet_weights))
        return self._train_autoencoder(
            "autoencoder", model, run.train, run.loss, self._semantic_shares(model)
        )

    def _run_adversarial(self) -> bool:
        run = self._config.adversarial
        model = self._autoencoder("autoencoder")
        open_parts(model, [model])
        adversary = self._tools.seeded(lambda: Discriminator(run.discriminator), run.train)
        loss, shares = self._config.autoencoder.loss, self._semantic_shares(model)
        return self._train_autoencoder("adversarial", model, run.train, loss, shares, adversary)

    def _run_decoder(self) -> bool:
        run = self._config.decoder
        model = self._autoencoder(self._autoencoder_stages()[-2])
        latents = None
        if run.on_axes:
            first_stage = self.first_stage()
            latents = self._latents.perceptual(
                first_stage, model, self._pipeline(first_stage, model).encode_av
            )
        open_parts(model, decoder_phase_parts(model, on_axes=run.on_axes))
        shares = self._semantic_shares(model)
        shares |= dict.fromkeys(CONTEXT_MAPS, run.context_rate_factor)
        return self._train_autoencoder(
            "decoder", model, run.train, run.loss, shares, latents=latents
        )

    def _semantic_shares(self, model: MultiModalAutoencoder) -> dict[str, float]:
        return semantic_shares(model, self._config.autoencoder.semantic_rate_share)

    def _train_autoencoder(
        self,
        stage: str,
        model: MultiModalAutoencoder,
        train: TrainConfig,
        loss: AutoencoderLossConfig,
        rate_shares: dict[str, float],
        adversary: Discriminator | None = None,
        latents: LatentDataset | None = None,
    ) -> bool:
        run = self._config.autoencoder
        through = None
        if latents is not None:
            axes = latents.stats.to(self._tools.device)
            assert isinstance(axes, PerceptualAxes)  # the configuration has been checked
            through = axes.project
        first_stage = self.first_stage()
        source, data = self._latents.source(first_stage)
        game = AutoencoderGame(
            source,
            first_stage,
            self._config.diffusion.build(),
            loss,
            discriminator=adversary,
            adversarial=self._config.adversarial.loss,
            through=through,
        )
        player = self._tools.player(
            "autoencoder", model, game.autoencoder_objective, train, rate_shares=rate_shares
        )
        players = [player]
        if adversary is not None:
            objective = game.discriminator_objective
            players.append(
                self._tools.player("discriminator", adversary, objective, train, ema=False)
            )
        trained = Trained(player, lambda: MultiModalAutoencoder(run.model))

        def preview(samples: int) -> None:
            network = trained.averaged()
            pipeline = self._pipeline(first_stage, network, latents=latents)
            self._previews.autoencoder(pipeline, self._out / stage, samples)

        if not self._tools.fit(stage, players, self._tools.loader(data), train, preview):
            return False
        self._tools.leave(stage, trained.averaged(), run.model)
        return True

    def _run_generator(self) -> bool:
        run = self._config.generator
        first_stage, autoencoder = self.first_stage(), self.autoencoder()
        latents = self._latents.perceptual(
            first_stage, autoencoder, self._pipeline(first_stage, autoencoder).encode_av
        )
        model = self._tools.seeded(lambda: Generator(run.model), run.train)
        schedule = self._config.diffusion.build()
        states = None
        if self._captions is not None:
            states = self._captions.states(self._out / "captions", self._tools.device)
        text = None if states is None else states_of_clips(states)
        scaling = latents.stats.to(self._tools.device)
        objective = mm_ldm_generator_objective(
            schedule,
            run.loss,
            standardize=scaling.standardize,  # whole batches: one clip at a time takes longer
            colour=scaling.noise,
            text=text,
        )
        wishes = preview_wishes(self._config, states, self._windows.info)
        player = self._tools.player("generator", model, objective, run.train)
        trained = Trained(player, lambda: Generator(run.model))

        def preview(samples: int) -> None:
            network = trained.averaged()
            pipeline = self._pipeline(first_stage, autoencoder, network, latents)
            self._previews.generator(pipeline, self._out / "generator", samples, wishes)

        if not self._tools.fit(
            "generator", [player], self._tools.loader(self._latents.raw()), run.train, preview
        ):
            return False
        self._tools.leave("generator", trained.averaged(), run.model)
        return True

    def save_model(self) -> None:
        """Write `model/` from the finished stages."""
        first_stage, autoencoder = self.first_stage(), self.autoencoder()
        generator, _ = load_component(
            self._out / "generator" / "component", "network", Generator, GeneratorConfig
        )
        latents = self._latents.scaled()
        pipeline = self._pipeline(
            first_stage, autoencoder, generator.to(self._tools.device), latents
        )
        save_mm_ldm(pipeline, self._out / "model")

    def first_stage(self) -> FirstStageNetwork:
        """The finished first stage, frozen."""
        run = self._config.first_stage
        if run.kind == "taef2":
            folder = Path(run.weights)
            network = TAEF2.from_files(
                folder / "taef2_encoder.safetensors", folder / "taef2_decoder.safetensors"
            )
        elif run.is_trained:
            component = self._out / "first_stage" / "component"
            network, _ = load_component(component, "network", KLVAE, KLVAEConfig)
        else:
            network = KLVAE(run.model)
            load_kl_vae(network, Path(run.weights))
        return to_channels_last(network.eval().requires_grad_(False)).to(self._tools.device)

    def autoencoder(self) -> MultiModalAutoencoder:
        """The finished autoencoder of the last phase that was run, frozen."""
        return self._autoencoder(self._autoencoder_stages()[-1]).requires_grad_(False)

    def _autoencoder_stages(self) -> list[str]:
        """The phases of stage 2 that this run has, in order."""
        config = self._config
        later = {"adversarial": config.adversarial.enabled, "decoder": config.decoder.enabled}
        return ["autoencoder", *(name for name, enabled in later.items() if enabled)]

    def _autoencoder(self, stage: str) -> MultiModalAutoencoder:
        component = self._out / stage / "component"
        network, _ = load_component(component, "network", MultiModalAutoencoder, AutoencoderConfig)
        return to_channels_last(network.eval()).to(self._tools.device)

    def _pipeline(
        self,
        first_stage: FirstStageNetwork,
        autoencoder: MultiModalAutoencoder,
        generator: Generator | None = None,
        latents: LatentDataset | None = None,
    ) -> MMLDMPipeline:
        config = self._config
        return MMLDMPipeline(
            clip=config.clip,
            first_stage=first_stage,
            autoencoder=autoencoder,
            generator=generator,
            stats=None if latents is None else latents.stats.to(self._tools.device),
            vocoder=None if self._vocoder is None else self._vocoder.to(self._tools.device),
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
