"""Conditions of an MM-LDM run beside its clips: captions, classes, framing; and its vocoder."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from soundreel.checkpoints.text_encoder import load_text_encoder, text_encoder_sha256
from soundreel.config_io import ConfigError, load_json
from soundreel.data.captions import CaptionStates, class_captions, read_captions
from soundreel.data.loader import Batch
from soundreel.data.manifest import CAPTIONS_FILE, DatasetInfo
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.generator_loss import TextSource
from soundreel.systems.mm_ldm.import_hifigan import import_hifigan
from soundreel.systems.mm_ldm.settings import vocoder_mismatches
from soundreel.systems.mm_ldm.vocoder import Vocoder
from soundreel.training.objectives import TrainingBatch

logger = logging.getLogger(__name__)


def with_text_encoder_hash(config: MMLDMConfig) -> MMLDMConfig:
    """Return the configuration that also says which text encoder lies in the folder it names.

    Raises:
        CheckpointError: there is no text encoder.
    """
    if not config.text.folder or config.text.sha256:
        return config
    sha256 = text_encoder_sha256(config.text.folder)
    return replace(config, text=replace(config.text, sha256=sha256))


def with_data_classes(config: MMLDMConfig, data: Path, out: Path) -> MMLDMConfig:
    """Return the configuration whose generator knows the classes of the data set, if asked for.

    A run that is under way keeps the number of classes that it was begun with.

    Raises:
        ConfigError, DataError: the run's configuration or the data set cannot be read.
    """
    begun = out / "config.json"
    before = load_json(MMLDMConfig, begun) if begun.is_file() else None
    if before is not None and not before.class_labels:
        config = replace(config, class_labels=False)
    run = config.generator
    if not config.class_labels or config.text.folder or run.model.num_classes:
        return config
    if before is not None:
        count = before.generator.model.num_classes
    else:
        names = DatasetInfo.load(data).classes
        count = len(names)
        if names:
            logger.info(
                "the generator learns the data set's classes: %s; --no-class-labels: without",
                ", ".join(names[:8]) + (f" and {count - 8} more" if count > 8 else ""),
            )
    return replace(config, generator=replace(run, model=replace(run.model, num_classes=count)))


class RunCaptions:
    """The captions of a run's clips and the text encoder that reads them.

    Raises:
        CheckpointError: no readable text encoder, or another one than the run began with.
        ConfigError: its states do not fit the generator.
        DataError: there are no captions.
    """

    def __init__(self, config: MMLDMConfig, data: Path) -> None:
        self._text = config.text
        prepared = data / CAPTIONS_FILE
        if config.captions or prepared.is_file():
            self._captions = read_captions(Path(config.captions or prepared), data)
        else:
            self._captions = class_captions(data)
        self._encoder = load_text_encoder(config.text)
        width = config.generator.model.context_dim
        if self._encoder.dim != width:
            raise ConfigError(
                f"{config.text.folder}: its states have {self._encoder.dim} numbers a token, the "
                f"generator takes {width}; set generator.model.context_dim={self._encoder.dim}"
            )

    def states(self, folder: Path, device: torch.device) -> CaptionStates:
        """Return token states, read from `folder` if they have been computed there before."""
        fingerprint = f"{self._text.sha256} {self._text.num_tokens}"
        states = CaptionStates(
            self._captions, self._encoder.to(device), folder, fingerprint=fingerprint
        )
        self._encoder.to("cpu")  # the generator needs the room
        return states


def states_of_clips(states: CaptionStates) -> TextSource:
    """Return the captions of a batch's clips, found by the clips' keys."""

    def of(batch: TrainingBatch) -> Float[Tensor, "batch token context_dim"]:
        assert isinstance(batch, Batch), "only the loader's batches have keys"
        return states.of(batch.keys)

    return of


def preview_requests(
    config: MMLDMConfig, states: CaptionStates | None, info: DatasetInfo
) -> list[tuple[str, dict[str, Any]]]:
    """Return what previews ask a conditional generator for: titles, and options of `generate`."""
    num_classes = config.generator.model.num_classes
    if states is None and not num_classes:
        return []
    requests: list[tuple[str, dict[str, Any]]] = []
    for index in range(config.preview.count):
        title, options = [], {}
        if num_classes:
            label = index % num_classes
            named = label < len(info.classes)
            title.append(info.classes[label] if named else f"class {label}")
            options["label"] = label
        if states is not None:
            caption = states.distinct[index % len(states.distinct)]
            title.append(caption)
            options["text"] = states.of_caption(caption)
        requests.append((", ".join(title), options))
    return requests


def check_classes(config: MMLDMConfig, info: DatasetInfo) -> None:
    """Raise `ConfigError` where a network knows fewer classes than the data set has."""
    for name, num_classes in (
        ("autoencoder.model.decoder.num_classes", config.autoencoder.model.decoder.num_classes),
        ("generator.model.num_classes", config.generator.model.num_classes),
    ):
        if 0 < num_classes < len(info.classes):
            raise ConfigError(
                f"{name} is {num_classes}, but the data set has {len(info.classes)} classes; "
                f"set it to {len(info.classes)}, or to 0 for none"
            )


def check_sharding(config: MMLDMConfig) -> None:
    """Raise `ConfigError` where a divided network would have to weigh an adversary by gradients."""
    stage = config.first_stage
    if stage.is_trained and stage.adversary and stage.train.sharding:
        raise ConfigError(
            "first_stage.adversary is weighed by gradients at one layer, which no process of a "
            "divided network has: set first_stage.train.sharding or first_stage.adversary to False"
        )


def framing_of(info: DatasetInfo) -> Literal["center", "letterbox"]:
    """Return how the model fits clips it is given: as those it has learnt from were fitted."""
    return "letterbox" if info.options.get("crop") == "letterbox" else "center"


def load_vocoder(config: MMLDMConfig) -> Vocoder | None:
    """Return the vocoder the configuration names; None without one.

    Raises:
        CheckpointError: it cannot be read.
        ConfigError: it was made for other spectrograms than the run's.
    """
    if not config.vocoder:
        return None
    vocoder = import_hifigan(Path(config.vocoder))
    wrong = vocoder_mismatches(vocoder.config, config.mel_image.mel)
    if wrong:
        raise ConfigError(
            f"{config.vocoder}: made for other spectrograms ({'; '.join(wrong)}); set "
            "mel_image.mel alike before training, or leave the vocoder out"
        )
    return vocoder
