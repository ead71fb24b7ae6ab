"""Classes of a transformer that starts from an earlier model's (`train --init`)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from soundreel.checkpoints.errors import CheckpointError, listed
from soundreel.checkpoints.store import read_model
from soundreel.config_io import config_from_json
from soundreel.systems.joint_flow.pipeline import JointFlowSettings
from soundreel.training.init import InitialModel

logger = logging.getLogger(__name__)

BY_CLASS = ("classes.weight", "_class_mean", "_class_deviation")
"""Endings of the names of tensors with a row for each class, and a last one for any."""


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Classes of a run's transformer.

    Attributes:
        names: in the order of their labels.
        labels: label of each class of the data set; -1 for any.
        known: those of the model that the run starts from.
    """

    names: tuple[str, ...]
    labels: Sequence[int]
    known: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: tuple[str, ...], init: InitialModel | None, *, stays: bool) -> "Classes":
        """Return the data set's classes; where those of `init` are to stay, the model's.

        An adapter holds no classes, so that its model's stay.

        Raises:
            CheckpointError: the model is damaged.
        """
        known: tuple[str, ...] = ()
        if init is not None and init.has("transformer"):
            index, where = read_model(init.path).index, f"{init.path}: settings"
            settings = config_from_json(
                JointFlowSettings, index.settings, where, error=CheckpointError
            )
            known = settings.class_names
        unknown = [name for name in names if name not in known]
        if unknown and known:
            what = "are trained" if stays else "start"
            logger.info("classes that the model does not know %s as any: %s", what, listed(unknown))
        if stays:
            return cls(names=known, labels=labels_among(names, known), known=known)
        return cls(names=names, labels=range(len(names)), known=known)

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the model's weights for these classes.

        A class that the model knows by that name starts from its rows, another from those of any.
        """
        if not all(len(v) == len(self.known) + 1 for k, v in state.items() if k.endswith(BY_CLASS)):
            return state
        rows = [*labels_among(self.names, self.known), -1]
        return {k: v[rows] if k.endswith(BY_CLASS) else v for k, v in state.items()}


def labels_among(names: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return the number of each name among those that are known; -1, for any, where it is not."""
    return [known.index(name) if name in known else -1 for name in names]
