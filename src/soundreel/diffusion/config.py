"""Configuration of a noise process."""

from dataclasses import dataclass
from typing import Literal

from soundreel.diffusion.schedules import Schedule, linear_schedule, scaled_linear_schedule


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionConfig:
    """The noise process.

    Attributes:
        schedule: "linear" (MM-Diffusion) or "scaled-linear" (MM-LDM).
        prediction_type: what the network estimates.
    """

    schedule: Literal["linear", "scaled-linear"] = "linear"
    num_train_timesteps: int = 1000
    prediction_type: Literal["epsilon", "x0", "v"] = "epsilon"

    def build(self) -> Schedule:
        """Return the tables of this process."""
        if self.schedule == "linear":
            return linear_schedule(self.num_train_timesteps)
        return scaled_linear_schedule(self.num_train_timesteps)
