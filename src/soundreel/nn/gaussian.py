"""The diagonal Gaussian that an encoder predicts over its latent."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class DiagonalGaussian:
    """Mean and log-variance; `from_parameters` clamps the latter to [-30, 20]."""

    mean: Float[Tensor, "batch *shape"]
    logvar: Float[Tensor, "batch *shape"]

    @classmethod
    def from_parameters(
        cls, mean: Float[Tensor, "batch *shape"], logvar: Float[Tensor, "batch *shape"]
    ) -> "DiagonalGaussian":
        """Build in float32 whatever the network ran in; bfloat16 log-variances are too coarse."""
        return cls(mean.float(), logvar.float().clamp(-30.0, 20.0))

    def sample(self, noise: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch *shape"]:
        """Return mean + std * noise, for standard normal noise drawn by the caller."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Float[Tensor, " batch"]:
        """Return KL divergence from N(0, 1) in nats, summed over the latent's elements.

        Source:
            Kingma and Welling 2014, appendix B.
        """
        terms = self.mean.square() + self.logvar.exp() - 1.0 - self.logvar
        return 0.5 * terms.flatten(1).sum(dim=1)
