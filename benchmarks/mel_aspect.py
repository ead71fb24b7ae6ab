"""What a mel image of its own aspect keeps, beside the square one: image, first stage, vocoder.

    python benchmarks/mel_aspect.py CLIPS DATA VOCODER RUN_SQUARE RUN_NATIVE

CLIPS holds `esc10_audio/rain` and `esc10_audio/fire_crackling`, DATA is the prepared data set of
both runs, whose split `test` has the classes faces (speech) and scenes (rendered rain and fire),
VOCODER a HiFi-GAN generator. Each RUN has a finished first stage. Prints Markdown: mean absolute
differences of natural-log mel magnitudes to the original's, of the image alone, after the first
stage, and of the sound that the vocoder makes of either; with standard errors over the clips.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from soundreel.audio.mel_image import (
    MelImageConfig,
    decode_mel_image,
    encode_mel_image,
    fit_length,
    waveform_to_log_mel,
)
from soundreel.checkpoints.store import load_component
from soundreel.config_io import load_json
from soundreel.data.dataset import PreparedDataset
from soundreel.data.manifest import DatasetInfo
from soundreel.media.decode import read_audio
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.import_hifigan import import_hifigan
from soundreel.systems.mm_ldm.kl_vae import KLVAE, KLVAEConfig
from soundreel.systems.mm_ldm.vocoder import Vocoder

KINDS = {"rain, recorded": "rain", "fire, recorded": "fire_crackling"}
COLUMNS = ("image alone", "first stage", "vocoder after the image", "vocoder after the first stage")


def sounds(clips: Path, data: Path, config: MMLDMConfig) -> dict[str, Tensor]:
    """Return held-out sounds by kind, `clip sample`."""
    spec, found = config.clip, {}
    dataset = PreparedDataset(data, spec=spec, split="test", stride=10**6)
    classes = DatasetInfo.load(data).classes
    for label, name in enumerate(classes):
        rows = [dataset[i] for i in range(len(dataset)) if int(dataset[i].label) == label]
        found[f"{name}, held out"] = torch.cat([row.av["audio"] for row in rows])
    for name, folder in KINDS.items():
        files = sorted((clips / "esc10_audio" / folder).glob("*.ogg"))
        limits = {"sample_rate": spec.sample_rate, "num_samples": spec.num_samples}
        heard = [read_audio(file, num_channels=1, **limits) for file in files]
        found[name] = torch.cat([torch.from_numpy(sound) for sound in heard])
    return found


def errors(sound: Tensor, mel: MelImageConfig, network: KLVAE, vocoder: Vocoder) -> Tensor:
    """Return the differences of every clip, `clip column`."""
    truth, image = waveform_to_log_mel(sound, mel), encode_mel_image(sound, mel)
    shown = [decode_mel_image(x, mel) for x in (image, network.decode(network.encode(image)))]
    spoken = [
        waveform_to_log_mel(fit_length(vocoder(x)[:, 0], mel.num_samples), mel) for x in shown
    ]
    return torch.stack([(x - truth).abs().mean(dim=(1, 2)) for x in (*shown, *spoken)], dim=1)


@torch.inference_mode()
def main(clips: Path, data: Path, vocoder_file: Path, runs: list[Path]) -> None:
    vocoder = import_hifigan(vocoder_file)
    print(f"| sound | clips | mel image | {' | '.join(COLUMNS)} |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    rows: dict[str, list[str]] = {}
    for run in runs:
        config = load_json(MMLDMConfig, run / "config.json")
        component = run / "first_stage" / "component"
        network, _ = load_component(component, "network", KLVAE, KLVAEConfig)
        height, width = config.mel_image.image_shape
        for kind, sound in sounds(clips, data, config).items():
            found = errors(sound, config.mel_image, network.eval(), vocoder)
            spread = found.std(dim=0) / len(found) ** 0.5
            cells = [f"{m:.3f} +- {s:.3f}" for m, s in zip(found.mean(0), spread, strict=True)]
            line = f"| {kind} | {len(found)} | {height}x{width} | {' | '.join(cells)} |"
            rows.setdefault(kind, []).append(line)
    print("\n".join(line for lines in rows.values() for line in lines))


if __name__ == "__main__":
    first, second, third, *rest = map(Path, sys.argv[1:])
    main(first, second, third, rest)
