"""How good the model of `train_default_model` is, in numbers and pictures; and its bundle."""

import struct
import tarfile
import time
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from default_model_run import Run
from default_model_scenes import Scenes, pixels
from default_model_stages import generator_objective
from safetensors.torch import load_file, save
from torch import Tensor

from soundreel.audio.mel_image import encode_mel_image
from soundreel.clip import Clip
from soundreel.data.scenes.render import KINDS
from soundreel.diffusion.noise import PerSampleNoise, derived_seed
from soundreel.metrics.image_quality import psnr_db
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.decoding import decode, starting_noise
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.types import AV

PART_BYTES = 15 * 2**20


@torch.no_grad()
def judge_reconstruction(run: Run, pipeline: MMLDMPipeline, apart: Scenes, latents: AV) -> None:
    """PSNR of held-out frames and mel images after stage 1, and after stages 1 and 2."""
    network1, network2 = pipeline.first_stage, pipeline.autoencoder
    frames = pixels(apart.video)
    real = {"frame_psnr_db": frames.flatten(0, 1), "mel_image_psnr_db": apart.mel}
    made = AV(
        network1.decode_frames(network1.encode_frames(frames)),
        network1.decode(network1.encode(apart.mel)),
    )
    noise = PerSampleNoise(range(len(apart)))
    decoding = run.config.decoding
    start = starting_noise(network2, len(apart), run.config.clip.num_frames, noise, decoding)
    signals = decode(network2, latents, start, run.config.diffusion.build(), decoding)
    again = AV(network1.decode_frames(signals["video"]), network1.decode(signals["audio"]))
    for stage, images in (("first_stage", made), ("autoencoder", again)):
        both = (images["video"].flatten(0, 1), images["audio"])
        run.note(
            stage,
            {
                name: float(psnr_db(image.float().clamp(-1, 1), wanted).mean())
                for (name, wanted), image in zip(real.items(), both, strict=True)
            },
        )


@torch.no_grad()
def judge_generator(
    run: Run, pipeline: MMLDMPipeline, trained_on: tuple[AV, Tensor], apart: tuple[AV, Tensor]
) -> None:
    """The generator's loss on held-out clips and on as many trained ones, with equal draws."""
    assert pipeline.generator is not None
    numbers = {}
    for name, (latents, labels) in (("trained", trained_on), ("held_out", apart)):
        count = min(latents.batch_size, apart[0].batch_size)
        loss = generator_objective(run, pipeline.generator, latents, labels, pipeline.stats)
        draws = torch.Generator(run.device).manual_seed(derived_seed(0, 2))
        rows = torch.arange(count, device=run.device)
        terms = [loss(rows, draws)[1] for _ in range(20)]
        for key in terms[0]:
            numbers[f"{key}_{name}"] = float(torch.stack([t[key] for t in terms]).mean())
    run.note("generator", numbers)


@torch.no_grad()
def told_classes(pipeline: MMLDMPipeline, latents: AV) -> Tensor:
    """The classes that stage 2's class head sees in perceptual latents (not standardised)."""
    network = pipeline.autoencoder
    assert network.class_head is not None
    return network.class_head.predict(network.semantics(latents))[0]


def generate(run: Run, pipeline: MMLDMPipeline, per_class: int) -> None:
    """Clips of every class as arrays and as one picture, and whether one sees their classes."""
    started = time.monotonic()
    clips = [
        clip
        for label in range(len(KINDS))
        for clip in pipeline.generate(
            label=label, count=per_class, seed=label * per_class, batch_size=per_class
        )
    ]
    seconds = time.monotonic() - started
    labels = torch.arange(len(KINDS)).repeat_interleave(per_class)
    np.savez_compressed(
        run.out / "samples.npz",
        video=np.stack([clip.frames for clip in clips if clip.frames is not None]),
        audio=np.stack([clip.waveform for clip in clips if clip.waveform is not None]),
        label=labels.numpy(),
    )
    write_png(run.out / "sheet.png", sheet(clips, run.config, num_columns=min(per_class, 2)))
    pairs = AV.cat([clip.to_av(run.config.clip) for clip in clips])
    latents = pipeline.stats.restore(pipeline.encode_av(pairs))
    right = (told_classes(pipeline, latents).cpu() == labels).float().mean()
    run.note("generated", {"clips": len(clips), "seconds": seconds, "class_seen": float(right)})


def sheet(clips: Sequence[Clip], config: MMLDMConfig, num_columns: int) -> np.ndarray:
    """A row of every other frame and the mel image for each clip."""
    cells = []
    for clip in clips:
        assert clip.frames is not None
        assert clip.waveform is not None
        mel = encode_mel_image(
            torch.from_numpy(clip.waveform).mean(0, keepdim=True), config.mel_image
        )
        upright = ((mel[0] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).flip(0).numpy()
        cells.append(np.concatenate([*clip.frames[::2], upright], axis=1))
    rows = [
        np.concatenate(cells[first : first + num_columns], axis=1)
        for first in range(0, len(cells), num_columns)
    ]
    return np.concatenate([row for row in rows if row.shape == rows[0].shape])


def write_png(path: Path, picture: np.ndarray) -> None:
    """An RGB picture, `height width 3`, as PNG."""
    height, width, _ = picture.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    lines = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines.tobytes(), 6))
        + chunk(b"IEND", b"")
    )


def bundle(out: Path) -> None:
    """Model in half precision, logs and report as one archive, cut into parts for small doors."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
        for path in sorted(out.rglob("*")):
            inside = path.relative_to(out)
            is_wanted = inside.parts[0] == "model" or path.name in (
                "config.json",
                "report.json",
                "log.jsonl",
                "sheet.png",
            )
            if not path.is_file() or not is_wanted or "component" in inside.parts:
                continue
            content = path.read_bytes()
            # The statistics are few, and all the generator's latents pass through them.
            if path.suffix == ".safetensors" and "latent_stats" not in inside.parts:
                content = save({name: _half(value) for name, value in load_file(path).items()})
            entry = tarfile.TarInfo(str(inside))
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    folder = out / "bundle"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("part-*"):
        old.unlink()
    content = buffer.getvalue()
    for index, first in enumerate(range(0, len(content), PART_BYTES)):
        (folder / f"part-{index:02d}").write_bytes(content[first : first + PART_BYTES])


def _half(value: Tensor) -> Tensor:
    return value.half() if value.dtype == torch.float32 else value
