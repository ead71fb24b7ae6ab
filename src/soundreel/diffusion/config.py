"""Configuration of a noise process."""

from dataclasses import dataclass
from typing import Literal

from soundreel.diffusion.schedules import SCHEDULES, Schedule


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionConfig:
    """The noise process.

    Attributes:
        schedule: "linear" (MM-Diffusion), "scaled-linear" (MM-LDM) or "cosine".
        prediction_type: what the network estimates.
    """

    schedule: Literal["linear", "scaled-linear", "cosine"] = "linear"
    num_train_timesteps: int = 1000
    prediction_type: Literal["epsilon", "x0", "v"] = "epsilon"

    def build(self) -> Schedule:
        """Return the tables of this process."""
        return SCHEDULES[self.schedule](self.num_train_timesteps)
