"""A small network that learns which sound belongs to which picture, and when.

Two temporal convolution stacks turn the block changes of the picture and the band powers of the
sound into one embedding a frame. They are trained so that the embeddings of a clip agree at their
own time and with their own clip, and not at other times or with other clips (van den Oord et al.
2018, the InfoNCE loss). Trained on the training set of a model, it judges clips of that kind only.

Axis letters: b batch, c channel, t time in frames, d dim, l lag.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.metrics.sync.signals import (
    HOP_S,
    Frames,
    Waveform,
    band_levels,
    block_levels,
    check_measurable,
)

Rows = Float[Tensor, "b _channel t"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ContrastiveConfig:
    """Size of the network and of its training.

    Attributes:
        width: channels of the hidden layers; dim: of an embedding.
        temperature: of the softmax over candidates.
        max_lag: frames by which sound is shifted, both ways, to give wrong times.
        num_steps, batch_size, learning_rate: of AdamW.
    """

    width: int = 64
    dim: int = 32
    temperature: float = 0.1
    max_lag: int = 8
    num_steps: int = 300
    batch_size: int = 16
    learning_rate: float = 2e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class PairFeatures:
    """What the network sees of one clip: `channel frame` of the picture and of the sound."""

    picture: Float[Tensor, "64 frame"]
    sound: Float[Tensor, "48 frame"]


def pair_features(
    frames: Frames, frame_rate: Fraction, waveform: Waveform, sample_rate: int
) -> PairFeatures:
    """Block changes of the picture; level and rise of 24 bands of the sound in the same intervals.

    Raises:
        SyncError: a clip too short or of too low rates.
    """
    check_measurable(len(frames), frame_rate, waveform.shape[1], sample_rate)
    picture = block_levels(frames)
    level = band_levels(waveform, sample_rate)
    rise = np.maximum(np.diff(level, axis=0, prepend=level[:1]), 0)
    edges = np.round(np.arange(len(picture) + 1) / float(frame_rate) / HOP_S).astype(int)
    edges = np.minimum(edges, len(level) - 1)
    counts = np.maximum(np.diff(edges), 1)[:, None]
    sound = [np.add.reduceat(curve, edges[:-1], axis=0)[: len(picture)] for curve in (level, rise)]
    rows = np.concatenate([sound[0] / counts, sound[1]], axis=1)
    return PairFeatures(picture=_rows(picture), sound=_rows(rows))


class ContrastiveSync(nn.Module):
    """Both encoders; outputs are unit vectors, one a frame."""

    def __init__(self, config: ContrastiveConfig) -> None:
        super().__init__()
        self.config = config
        self.picture = _encoder(64, config)
        self.sound = _encoder(48, config)

    def forward(
        self, picture: Float[Tensor, "b c_picture t"], sound: Float[Tensor, "b c_sound t"]
    ) -> tuple[Float[Tensor, "b d t"], Float[Tensor, "b d t"]]:
        return (
            functional.normalize(self.picture(picture), dim=1),
            functional.normalize(self.sound(sound), dim=1),
        )

    @torch.no_grad()
    def agreement(self, clips: Sequence[PairFeatures]) -> Float[Tensor, "n n"]:
        """Mean agreement of every picture (row) with every sound (column), -1 to 1."""
        seen, heard = self(*_batch(clips))
        return torch.einsum("adt,bdt->ab", seen, heard) / seen.shape[2]

    @torch.no_grad()
    def offset_curve(self, clips: Sequence[PairFeatures]) -> Float[Tensor, "n l"]:
        """Agreement of each picture with its own sound taken -max_lag to max_lag frames later."""
        seen, heard = self(*_batch(clips))
        return _lagged(seen, heard, self.config.max_lag)


def fit(
    clips: Sequence[PairFeatures], config: ContrastiveConfig, generator: torch.Generator
) -> ContrastiveSync:
    """Train on clips of one length.

    Each step asks two questions of every clip in a batch: which of the sounds is yours, and which
    of the lags is right?

    Args:
        generator: draws the weights and the batches; the same seed gives the same network.

    Raises:
        ValueError: fewer clips than a batch.
    """
    if len(clips) < config.batch_size:
        raise ValueError(f"training needs at least {config.batch_size} clips, got {len(clips)}")
    network = ContrastiveSync(config)
    for name, parameter in network.named_parameters():
        if name.endswith("weight"):
            fan_in = parameter[0].numel()
            nn.init.normal_(parameter, std=fan_in**-0.5, generator=generator)
        else:
            nn.init.zeros_(parameter)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=0.01)
    for _ in range(config.num_steps):
        chosen = torch.randperm(len(clips), generator=generator)[: config.batch_size].tolist()
        seen, heard = network(*_batch([clips[k] for k in chosen]))
        between = torch.einsum("adt,bdt->ab", seen, heard) / seen.shape[2]
        own = torch.arange(len(chosen))
        right = torch.full_like(own, config.max_lag)
        within = _lagged(seen, heard, config.max_lag)
        loss = functional.cross_entropy(between / config.temperature, own)
        loss = loss + functional.cross_entropy(within / config.temperature, right)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def retrieval_accuracy(agreement: Float[Tensor, "n n"]) -> float:
    """Share of pictures whose own sound agrees best with them; chance is 1 / n."""
    return float((agreement.argmax(dim=1) == torch.arange(len(agreement))).double().mean())


def _lagged(
    seen: Float[Tensor, "b d t"], heard: Float[Tensor, "b d t"], max_lag: int
) -> Float[Tensor, "b l"]:
    length = seen.shape[2]
    columns = []
    for lag in range(-max_lag, max_lag + 1):
        picture = seen[:, :, max(0, -lag) : length - max(0, lag)]
        sound = heard[:, :, max(0, lag) : length - max(0, -lag)]
        columns.append((picture * sound).sum(dim=1).mean(dim=1))
    return torch.stack(columns, dim=1)


def _encoder(in_channels: int, config: ContrastiveConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(in_channels, config.width, 5, padding=2),
        nn.GELU(),
        nn.Conv1d(config.width, config.width, 5, padding=2),
        nn.GELU(),
        nn.Conv1d(config.width, config.dim, 1),
    )


def _batch(clips: Sequence[PairFeatures]) -> tuple[Rows, Rows]:
    return (torch.stack([c.picture for c in clips]), torch.stack([c.sound for c in clips]))


def _rows(values: Float[np.ndarray, "frame channel"]) -> Float[Tensor, "channel frame"]:
    """Channels first, each clip scaled to zero mean and unit deviation over all channels."""
    scaled = (values - values.mean()) / max(float(values.std()), 1e-6)
    return torch.from_numpy(np.ascontiguousarray(scaled.T)).float()
