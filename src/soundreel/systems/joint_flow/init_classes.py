"""Classes of a transformer that starts from an earlier model's (`train --init`)."""

import logging
from collections.abc import Sequence

from torch import Tensor

from soundreel.checkpoints.errors import CheckpointError, listed
from soundreel.checkpoints.store import read_model
from soundreel.config_io import config_from_json
from soundreel.systems.joint_flow.pipeline import JointFlowSettings
from soundreel.training.init import InitialModel

logger = logging.getLogger(__name__)

BY_CLASS = ("classes.weight", "_class_mean", "_class_deviation")
"""Endings of the names of tensors with a row for each class, and a last one for any."""


def class_names_of(init: InitialModel) -> tuple[str, ...]:
    """Return the classes of the model that a run starts from.

    Raises:
        CheckpointError: it is damaged.
    """
    model = read_model(init.path)
    where = f"{model.path}: settings"
    settings = model.index.settings
    return config_from_json(JointFlowSettings, settings, where, error=CheckpointError).class_names


def labels_among(names: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return the number of each name among those that are known; -1, for any, where it is not."""
    return [known.index(name) if name in known else -1 for name in names]


def with_classes(
    state: dict[str, Tensor], names: Sequence[str], known: Sequence[str]
) -> dict[str, Tensor]:
    """Return a transformer's weights for other classes.

    A class that the model knows by that name starts from its rows, another from those of any.

    Args:
        state: weights of a transformer with the classes `known`.
    """
    if not all(len(v) == len(known) + 1 for k, v in state.items() if k.endswith(BY_CLASS)):
        return state
    unknown = [name for name in names if name not in known]
    if unknown:
        logger.info("classes that the model does not know start as any: %s", listed(unknown))
    rows = [*labels_among(names, known), -1]
    return {k: v[rows] if k.endswith(BY_CLASS) else v for k, v in state.items()}
