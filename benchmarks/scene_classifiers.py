"""Which kind of scene a clip shows, and which it sounds like: two small networks.

Neither sees the other's modality. The picture's network gets four frames and where the picture
changes in the first, middle and last third of the clip; the sound's gets a log mel spectrogram.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from scene_clips import Advance, rendered_windows, resampled, spec_to_json
from torch import Tensor, nn
from torch.nn import functional

from soundreel.audio.mel import MelConfig, log_mel
from soundreel.cli.clip_sources import clip_items
from soundreel.clip import Clip
from soundreel.data.manifest import DATASET_FILE
from soundreel.data.scenes.render import KINDS
from soundreel.types import ClipSpec

NUM_FRAMES = 4
NUM_THIRDS = 3
SIZE = 32
NUM_MELS = 64
HOP_LENGTH = 512
WIDTHS = (32, 64, 96, 128)

SEED = 77  # of the renders and of the training
NUM_CLIPS = 2200
MAX_DURATION_S = 10.0
NUM_EPOCHS = 8
BATCH_SIZE = 64
LEARNING_RATE = 2e-3


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the networks see of many clips; half precision to save memory."""

    picture: Float[Tensor, "clip channel height width"]
    sound: Float[Tensor, "clip 1 mel time"]


def picture_input(clip: Clip) -> Float[Tensor, "channel height width"]:
    """Frames in [-1, 1], then the mean absolute change of brightness in each third."""
    if clip.frames is None:
        raise ValueError("a clip without pictures has no class by them")
    frames = torch.from_numpy(clip.frames).movedim(-1, 1).float() / 127.5 - 1
    small = functional.adaptive_avg_pool2d(frames, SIZE)
    chosen = torch.linspace(0, len(small) - 1, NUM_FRAMES).round().long()
    change = small.mean(dim=1).diff(dim=0).abs()
    edges = torch.linspace(0, len(change), NUM_THIRDS + 1).round().long().tolist()
    thirds = torch.stack([change[a:b].mean(dim=0) for a, b in pairwise(edges)])
    return torch.cat([small[chosen].flatten(0, 1), 4 * thirds]).half()


def sound_input(clip: Clip) -> Float[Tensor, "1 mel time"]:
    """Log mel magnitudes, roughly of zero mean and unit size."""
    if clip.waveform is None:
        raise ValueError("a clip without sound has no class by it")
    config = MelConfig(
        filterbank_sample_rate=clip.sample_rate,
        hop_length=HOP_LENGTH,
        num_mels=NUM_MELS,
        max_hz=clip.sample_rate / 2,
    )
    mono = torch.from_numpy(clip.waveform.mean(axis=0, keepdims=True))
    return ((log_mel(mono, config) + 6) / 3).half()


def inputs_of(clips: Iterable[Clip]) -> Inputs:
    pairs = [(picture_input(clip), sound_input(clip)) for clip in clips]
    pictures, sounds = zip(*pairs, strict=True)
    return Inputs(torch.stack(pictures), torch.stack(sounds))


def _network(num_channels: int, num_kinds: int) -> nn.Sequential:
    """Four strided convolutions, and a linear layer on their mean over positions."""
    layers: list[nn.Module] = []
    for before, after in pairwise((num_channels, *WIDTHS)):
        convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
    head = [
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(WIDTHS[-1], num_kinds),
    ]
    return nn.Sequential(*layers, *head)


class SceneClassifiers(nn.Module):
    """Both networks.

    Args:
        kinds: names of the classes, in the order of the outputs.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        super().__init__()
        self.kinds = tuple(kinds)
        self.picture = _network(3 * NUM_FRAMES + NUM_THIRDS, len(kinds))
        self.sound = _network(1, len(kinds))

    @torch.no_grad()
    def classes(self, clips: Sequence[Clip]) -> tuple[list[str], list[str]]:
        """Kind of each clip by its picture, and by its sound."""
        self.eval()
        seen = inputs_of(clips)
        names = []
        for network, rows in ((self.picture, seen.picture), (self.sound, seen.sound)):
            found = network(rows.float()).argmax(dim=1).tolist()
            names.append([self.kinds[k] for k in found])
        return names[0], names[1]

    def save(self, path: Path, about: dict[str, Any]) -> None:
        save_file(self.state_dict(), path, {"kinds": " ".join(self.kinds), **about})

    @classmethod
    def load(cls, path: Path, about: dict[str, str]) -> "SceneClassifiers":
        """Raises: ValueError if they were trained for other clips or on others."""
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            kinds = metadata.pop("kinds").split()
            if metadata != about:
                raise ValueError(f"{path} was trained with other settings; give another --out")
            model = cls(kinds)
            model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        return model


def train_classifiers(
    inputs: Inputs, labels: Int[Tensor, " clip"], kinds: Sequence[str], generator: torch.Generator
) -> SceneClassifiers:
    """Train both networks; the same generator state gives the same networks.

    Clips are mirrored, made brighter or darker, louder or softer, and a little grain is put over
    both inputs, so that it is the scene that decides and not its exact rendering.
    """
    model = SceneClassifiers(kinds)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=(2 / fan_in) ** 0.5, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for network, rows, disturb in (
        (model.picture, inputs.picture, _disturb_picture),
        (model.sound, inputs.sound, _disturb_sound),
    ):
        num_steps = NUM_EPOCHS * (len(rows) // BATCH_SIZE)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, num_steps)
        network.train()
        for _ in range(NUM_EPOCHS):
            order = torch.randperm(len(rows), generator=generator)
            for chosen in order.split(BATCH_SIZE)[: len(rows) // BATCH_SIZE]:
                output = network(disturb(rows[chosen].float(), generator))
                loss = functional.cross_entropy(output, labels[chosen], label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return model.eval()


def _disturb_picture(rows: Tensor, generator: torch.Generator) -> Tensor:
    batch = (len(rows), 1, 1, 1)
    mirrored = torch.rand(batch, generator=generator) < 0.5
    rows = torch.where(mirrored, rows.flip(-1), rows)
    gain = 1 + 0.2 * torch.randn(batch, generator=generator)
    shift = 0.1 * torch.randn(batch, generator=generator)
    colours = torch.arange(rows.shape[1]) < 3 * NUM_FRAMES  # change knows no shift
    rows = rows * gain + shift * colours[:, None, None]
    return rows + 0.05 * torch.randn(rows.shape, generator=generator)


def _disturb_sound(rows: Tensor, generator: torch.Generator) -> Tensor:
    gain = 0.2 * torch.randn(len(rows), 1, 1, 1, generator=generator)
    return rows + gain + 0.1 * torch.randn(rows.shape, generator=generator)


def open_classifiers(
    out: Path, train_data: Path | None, spec: ClipSpec, advance: Advance
) -> SceneClassifiers:
    """The classifiers that lie in a folder; trained if there are none.

    Args:
        train_data: prepared data set, or folder of clips, with kinds as classes; None renders some.
    """
    path = out / "classifiers.safetensors"
    source = "renders" if train_data is None else train_data.resolve().name
    about = {"trained_on": source, "spec": json.dumps(spec_to_json(spec)), "seed": str(SEED)}
    if not path.is_file():
        kinds = list(KINDS)
        numbers: list[int] = []

        def clips() -> Iterator[Clip]:  # one at a time: all of them would take gigabytes
            for label, clip in _training_clips(train_data, spec, advance):
                numbers.append(kinds.index(label))
                yield clip

        inputs = inputs_of(clips())
        generator = torch.Generator().manual_seed(SEED)
        train_classifiers(inputs, torch.tensor(numbers), kinds, generator).save(path, about)
    return SceneClassifiers.load(path, about)


def _training_clips(
    train_data: Path | None, spec: ClipSpec, advance: Advance
) -> Iterator[tuple[str, Clip]]:
    """Kinds and random windows, of every kind alike."""
    if train_data is None:
        windows = rendered_windows(spec, SEED, range(NUM_CLIPS))
        for done, window in enumerate(windows, start=1):
            yield window.label, window.clip
            advance(done, NUM_CLIPS)
        return
    rng = np.random.default_rng(SEED)
    items = clip_items(
        train_data, "train" if (train_data / DATASET_FILE).is_file() else "", None, 0
    )
    by_kind = {kind: [item for item in items if item.label == kind] for kind in KINDS}
    chosen = [item for own in by_kind.values() for item in own[: NUM_CLIPS // len(KINDS)]]
    for done, item in enumerate(chosen, start=1):
        whole = resampled(item.load(MAX_DURATION_S), spec)
        start = int(rng.integers(whole.num_frames - spec.num_frames + 1))
        yield item.label, whole.cut(start / spec.frame_rate, spec.num_frames / spec.frame_rate)
        advance(done, len(chosen))
