"""What `bench.py` measures: a table's cases, and the rows that each of them gives."""

import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import av
import numpy as np
import torch
from batch_and_threads import magnitudes
from bench_networks import NETWORKS, clip_parts
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from training_speed import PRESETS, stage_times, training_data

import soundreel
from soundreel.clip import Clip
from soundreel.device import faster_precision
from soundreel.media.framing import Framing
from soundreel.metrics.extractors import METRICS, PACKAGED_WEIGHTS, build_extractors
from soundreel.nn.layout import recompute_activations
from soundreel.systems.mm_diffusion.blocks import CrossModalAttention
from soundreel.types import AV

MANY_STEPS = 1000
EXAMPLES = Path(__file__).parents[1] / "examples" / "clips"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case of a table; what does not apply keeps its default."""

    table: str
    name: str
    work: str = "forward"
    precision: str = "float32"
    compiled: bool = False
    repeats: int = 3
    model: str = ""


class Table(NamedTuple):
    """How the cases of a table are listed (quickly or all), and how one is measured."""

    cases: Callable[[bool], Iterator[Case]]
    measure: Callable[[Case], list[list]]


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median of several runs, after one that is not counted where there are several."""
    times = []
    for _ in range(repeats + (repeats > 1)):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[-repeats:])


def flop_of(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def rates(dtype: torch.dtype) -> tuple[float, float]:
    """Return GFLOP/s of a square matrix product and of a 3x3 convolution."""
    a, b = torch.randn(2, 2048, 2048).to(dtype)
    image = torch.randn(4, 256, 32, 32).contiguous(memory_format=torch.channels_last).to(dtype)
    kernel = torch.randn(256, 256, 3, 3).to(dtype)
    product = 2 * 2048**3 / seconds(lambda: a @ b, 3)
    convolution = (
        2 * 9 * 4 * 32**2 * 256**2 / seconds(lambda: functional.conv2d(image, kernel, padding=1), 3)
    )
    return product / 1e9, convolution / 1e9


def network_cases(quick: bool) -> Iterator[Case]:
    """List the networks; in bfloat16 only where that is faster, for elsewhere it takes hours."""
    fast = faster_precision(torch.device("cpu"))[0]
    precisions = dict.fromkeys(("float32", fast))
    for name, network in NETWORKS.items():
        if quick and not network.is_small:
            continue
        works = ("forward", "step") if network.is_small else ("forward", "step, recomputed")
        for work in works if network.trains else works[:1]:
            for precision in precisions:
                may_compile = network.is_small and network.compiles
                for compiled in (False, True) if may_compile else (False,):
                    yield Case(
                        table="networks",
                        name=name,
                        work=work,
                        precision=precision,
                        compiled=compiled,
                        repeats=1 if quick else 3,
                    )


def measure_network(case: Case) -> list[list]:
    dtype = getattr(torch, case.precision)
    network, call = NETWORKS[case.name].build("cpu")
    if "recomputed" in case.work:
        recompute_activations(network)
    if case.compiled:
        network.compile()
    is_step = case.work.startswith("step")
    network.train(is_step)

    def once() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            if not is_step:
                with torch.inference_mode():
                    call()
                return
            outputs = call()
        torch.stack([y.float().square().mean() for y in outputs]).sum().backward()
        network.zero_grad(set_to_none=True)

    before = rates(dtype)
    if case.compiled:
        once()
    spent = seconds(once, case.repeats)
    peak, after = peak_gb(), rates(dtype)
    flop = count_network(case, is_step)
    product, convolution = ((x + y) / 2 for x, y in zip(before, after, strict=True))
    rate = flop / spent / 1e9
    compiled = "yes" if case.compiled else "no"
    shares = [f"{rate / product:.0%}", f"{rate / convolution:.0%}"]
    numbers = [f"{spent:.3f}", f"{flop / 1e12:.4f}", f"{rate:.0f}", *shares, f"{peak:.2f}"]
    return [[case.name, case.work, case.precision, compiled, *numbers]]


def count_network(case: Case, is_step: bool) -> int:
    """Count one run's multiplications and additions from shapes alone."""
    network, call = NETWORKS[case.name].build("meta")
    network.train(is_step)

    def once() -> None:
        outputs = call()
        if is_step:
            torch.stack([y.float().square().mean() for y in outputs]).sum().backward()

    with patch("torch.autocast", lambda *_, **__: nullcontext()):  # which does not know "meta"
        return flop_of(once)


def attention_cases(_quick: bool) -> Iterator[Case]:
    yield Case(table="attention", name="window of 4 of 16 frames, 16x16 pixels, 384 channels")


@torch.inference_mode()
def measure_attention(case: Case) -> list[list]:
    torch.manual_seed(0)
    block = CrossModalAttention(384, 4, 6, 32)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.05)
    x = AV(torch.randn(1, 16, 16, 16, 384), torch.randn(1, 1600, 384))
    loop, ours = (lambda: loop_attention(block, x, 3)), (lambda: block(x, 3))
    slow, fast = seconds(loop, 5), seconds(ours, 5)
    difference = (loop() - ours()).map(lambda t: t.abs().max())
    largest = max(float(t) for t in difference.tensors)
    return [
        ["loop over frames", f"{slow:.4f}", "1.0", "-"],
        [f"ours, {case.name}", f"{fast:.4f}", f"{slow / fast:.1f}", f"{largest:.1e}"],
    ]


def loop_attention(block: CrossModalAttention, x: AV, shift: int) -> AV:
    """Return the same as the block's forward, frame by frame as the reference does it."""
    video, audio = x["video"], x["audio"]
    frames, segment = video.shape[1], audio.shape[1] // video.shape[1]
    v_query, v_key, v_value = block.video_qkv(block.video_norm(video)).chunk(3, dim=-1)
    a_query, a_key, a_value = block.audio_qkv(block.audio_norm(audio)).chunk(3, dim=-1)
    seen, heard = torch.empty_like(video), torch.empty_like(audio)
    for frame in range(frames):
        window = [(frame + shift + r) % frames for r in range(block.window)]
        samples = torch.cat([torch.arange(i * segment, (i + 1) * segment) for i in window])
        query = v_query[:, frame].flatten(1, 2)
        out = softmax_attention(query, a_key[:, samples], a_value[:, samples], block.num_heads)
        seen[:, frame] = out.reshape(video[:, frame].shape)
        own = slice(frame * segment, (frame + 1) * segment)
        key, value = v_key[:, window].flatten(1, 3), v_value[:, window].flatten(1, 3)
        heard[:, own] = softmax_attention(a_query[:, own], key, value, block.num_heads)
    return AV(video + block.video_out(seen), audio + block.audio_out(heard))


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    q, k, v = (t.unflatten(-1, (num_heads, -1)).transpose(1, 2) for t in (query, key, value))
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def clip_cases(quick: bool) -> Iterator[Case]:
    yield Case(table="clip", name="small", repeats=1 if quick else 3)
    yield Case(table="clip", name="published", work="count")


@torch.inference_mode()
def measure_clip(case: Case) -> list[list]:
    counts_only = case.work == "count"
    rows, total, spent = [], 0.0, 0.0
    for part in clip_parts(case.name, "meta" if counts_only else "cpu"):
        flop = flop_of(part.call)
        each = 0.0 if counts_only else seconds(part.call, case.repeats)
        total, spent = total + flop * part.calls, spent + each * part.calls
        time_text = "-" if counts_only else f"{each * part.calls:.2f}"
        cells = [f"{flop / 1e9:.2f}", f"{flop * part.calls / 1e12:.3f}", time_text]
        rows.append([f"{case.name}: {part.name}", part.calls, *cells])
    last = "-" if counts_only else f"{spent:.2f}"
    return [*rows, [f"{case.name}: all", "", "", f"{total / 1e12:.3f}", last]]


def sampler_cases(_quick: bool) -> Iterator[Case]:
    yield Case(table="samplers", name="samplers")


@torch.inference_mode()
def measure_sampler(case: Case) -> list[list]:
    """Return a row for each sampler and number of steps of any model that generates."""
    pipeline = soundreel.load(case.model or None)
    asked: dict[str, Any] = {"label": 0} if pipeline.class_names else {}

    def sampled(num_steps: int, sampler: dict[str, str]) -> AV:
        how = {"num_steps": num_steps, "precision": "float32", **sampler, **asked}
        (batch,) = pipeline.signals(count=2, seed=0, batch_size=2, progress=None, **how)
        return batch.replace("audio", magnitudes(batch["audio"].flatten(1)))

    names = {entry.name: entry.metadata["choices"] for entry in fields(pipeline.options)}
    rows = []
    for name in names.get("sampler") or ("its own",):
        sampler = {"sampler": name} if "sampler" in names else {}
        truth = sampled(MANY_STEPS, sampler)
        flop = {n: flop_of(lambda n=n, s=sampler: sampled(n, s)) for n in (4, 8)}
        for num_steps in (4, 8, 20, 50):
            start = time.perf_counter()
            got = sampled(num_steps, sampler)
            spent = time.perf_counter() - start
            total = flop[4] + (num_steps - 4) * (flop[8] - flop[4]) / 4
            distance = got.map(
                lambda x, wanted: float((x - wanted).norm() / wanted.norm()),
                truth,
            )
            text = " / ".join(f"{value:.3f}" for value in (distance.video, distance.audio))
            cells = [f"{spent:.2f}", f"{total / 1e12:.4f}", f"{peak_gb():.2f}", text]
            rows.append([name, num_steps, *cells])
    return rows


def media_cases(quick: bool) -> Iterator[Case]:
    for size in ("64x64",) if quick else ("64x64", "1280x720", "1920x1080"):
        for source in ("film", "grain"):
            yield Case(table="media", name=f"{source} {size}", repeats=3)


def measure_media(case: Case) -> list[list]:
    source, size = case.name.split()
    width, height = (int(side) for side in size.split("x"))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        clip = (film_clip if source == "film" else grain_clip)(width, height)
        clip.save(path)
        spent = {
            "prepare's way": cpu_seconds(lambda: load_small(path), case.repeats),
            "naive PyAV": cpu_seconds(lambda: load_naively(path), case.repeats),
            "naive PyAV, every picture to RGB": cpu_seconds(
                lambda: load_naively(path, every=True), case.repeats
            ),
        }
        stored = Path(folder) / "stored.mkv"
        load_small(path).save(stored)
        lossless = cpu_seconds(lambda: load_small(stored), case.repeats)
        megabits = 8 * path.stat().st_size / clip.duration_s / 1e6
    name, naive = f"{source}, {size} at {megabits:.1f} Mbit/s", spent["naive PyAV"]
    rows = [
        [f"{name}, {way}", f"{1000 * s / clip.duration_s:.1f}", f"{naive / s:.2f}"]
        for way, s in spent.items()
    ]
    return [
        *rows,
        [f"{name}, stored losslessly", f"{1000 * lossless / clip.duration_s:.1f}", "-"],
    ]


def film_clip(width: int, height: int) -> Clip:
    """Return three and a half seconds of an animated film, 24 frames a second, enlarged."""
    clip = Clip.load(EXAMPLES / "film" / "film-1.mp4")
    frames = [
        functional.interpolate(
            torch.from_numpy(frame).movedim(-1, 0)[None].float(), (height, width), mode="bicubic"
        )
        for frame in clip.frames
    ]
    bytes_of = [f[0].movedim(0, -1).round().clamp(0, 255).byte().numpy() for f in frames]
    return replace(clip, frames=np.stack(bytes_of))


def grain_clip(width: int, height: int) -> Clip:
    """Return two seconds of drifting waves with grain, 30 frames a second, and a tone."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:height, :width].astype(np.float32)
    grain = rng.normal(0, 4, (height, width, 3))
    frames = np.stack(
        [
            np.clip(
                128
                + 80 * np.sin(row / 37 + t / 5)[..., None] * np.cos(column / 53 - t / 7)[..., None]
                + np.roll(grain, 3 * t, axis=1),
                0,
                255,
            ).astype(np.uint8)
            for t in range(60)
        ]
    )
    wave = np.sin(np.arange(88_200) * 0.05).astype(np.float32)[None]
    return Clip(frames=frames, waveform=wave, frame_rate=Fraction(30), sample_rate=44_100)


def load_small(path: Path) -> Clip:
    """Load a clip as a data set is prepared."""
    framing = Framing.center_square(64)
    return Clip.load(path, frame_rate=10, sample_rate=16_000, num_channels=1, framing=framing)


def load_naively(path: Path, *, every: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Decode with PyAV, convert wanted frames (or all) to RGB at full size, shrink them."""
    small, samples = [], []
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1  # as ours
        resampler = av.AudioResampler(format="flt", layout="mono", rate=16_000)
        for frame in container.decode():
            if isinstance(frame, av.AudioFrame):
                samples += [part.to_ndarray() for part in resampler.resample(frame)]
                continue
            is_wanted = len(small) <= frame.time * 10 + 1e-6
            if not (is_wanted or every):
                continue
            rgb = frame.to_ndarray(format="rgb24")
            if is_wanted:
                image = torch.from_numpy(rgb).movedim(-1, 0)[None]
                side = min(image.shape[2:])
                top, left = ((size - side) // 2 for size in image.shape[2:])
                square = image[:, :, top : top + side, left : left + side].float()
                small.append(functional.interpolate(square, (64, 64), mode="area").numpy())
    return np.concatenate(small), np.concatenate(samples, axis=1)


def cpu_seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median CPU time of this process, which other programs disturb less."""
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def training_cases(quick: bool) -> Iterator[Case]:
    for name in PRESETS["overhead"][: 1 if quick else None]:
        yield Case(table="training", name=name)


def measure_training(case: Case) -> list[list]:
    with TemporaryDirectory() as folder:
        data = training_data(Path(folder), case.name)
        return stage_times(case.name, data, Path(folder) / "run", steps=6)


def metrics_cases(_quick: bool) -> Iterator[Case]:
    for metric in METRICS.values():
        if metric.extractor in PACKAGED_WEIGHTS:
            yield Case(table="metrics", name=metric.name)


@torch.inference_mode()
def measure_metrics(case: Case) -> list[list]:
    (extractor,) = build_extractors([case.name], {})
    torch.manual_seed(0)
    if extractor.modality == "video":
        clips = torch.randint(256, (16, 16, 3, 64, 64), dtype=torch.uint8)
    else:
        clips = 0.1 * torch.randn(16, round(1.6 * extractor.sample_rate))
    before, _ = rates(torch.float32)
    spent = seconds(lambda: extractor(clips), 5)
    after, _ = rates(torch.float32)
    flop = flop_of(lambda: extractor(clips))
    rate = flop / spent / 1e9
    share = rate / ((before + after) / 2)
    return [[case.name, f"{16 / spent:.1f}", f"{flop / 16e9:.2f}", f"{rate:.0f}", f"{share:.0%}"]]


CASES = {
    "networks": Table(network_cases, measure_network),
    "attention": Table(attention_cases, measure_attention),
    "clip": Table(clip_cases, measure_clip),
    "samplers": Table(sampler_cases, measure_sampler),
    "training": Table(training_cases, measure_training),
    "media": Table(media_cases, measure_media),
    "metrics": Table(metrics_cases, measure_metrics),
}
