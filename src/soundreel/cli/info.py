"""`soundreel info PATH`: what a model, run, data set, study or media file holds."""

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from soundreel.checkpoints.adapter import ADAPTER_CONFIG, Adapter
from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import (
    INDEX_FILE,
    ModelIndex,
    read_model,
)
from soundreel.cli.main import write
from soundreel.cli.training_display import clock_text
from soundreel.cli.verify import verify_all
from soundreel.config_io import load_json
from soundreel.data.describe import describe
from soundreel.data.manifest import DATASET_FILE
from soundreel.data.remote import data_folder
from soundreel.errors import SoundreelError
from soundreel.json_yaml import read_checked_json
from soundreel.media.probe import MediaInfo, probe
from soundreel.study.design import STUDY_FILE, load_study
from soundreel.systems import system
from soundreel.training.state import list_checkpoints
from soundreel.training.trackers import read_log

RUN_CONFIG = "config.json"
RUN_LOG = "log.jsonl"


def info(
    place: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")],
    *,
    verify: bool = False,
) -> None:
    """Describe a model folder, a run folder, a prepared data set, a study or a media file.

    Args:
        place: for example RUN/model, RUN, the folder that `soundreel prepare` made or its URL, or a
            clip.
        verify: read everything in the folder and compare it with its checksums.
    """
    path = data_folder(place)
    lines = _describe(path)
    if verify:
        lines["verified"] = verify_all(path)
    show(lines)


def show(lines: dict[str, str]) -> None:
    """Write a table on a terminal, `name: value` lines elsewhere."""
    if not sys.stdout.isatty():
        for name, value in lines.items():
            write(f"{name}: {value}")
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in lines.items():
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)


def _describe(path: Path) -> dict[str, str]:
    if not path.exists():
        raise SoundreelError(f"{path}: no such file or folder")
    if path.is_file():
        return describe_media(probe(path))
    if (path / INDEX_FILE).is_file():
        return describe_model(path)
    if (path / ADAPTER_CONFIG).is_file():
        return describe_adapter(path)
    if (path / DATASET_FILE).is_file():
        return describe(path)
    if (path / STUDY_FILE).is_file():
        return describe_study(path)
    if (path / RUN_CONFIG).is_file():
        return describe_run(path)
    raise SoundreelError(
        f"{path}: neither a model ({INDEX_FILE}), a prepared data set ({DATASET_FILE}), a study"
        f" ({STUDY_FILE}) nor a run ({RUN_CONFIG}) is in this folder"
    )


def describe_study(folder: Path) -> dict[str, str]:
    """Describe a human study.

    Raises:
        SoundreelError: it is incomplete or damaged.
    """
    study = load_study(folder)
    return {
        "study": study.title,
        "tests": ", ".join(study.tests),
        "clips": ", ".join(f"{name} {count}" for name, count in study.num_clips().items()),
        "format": f"{study.width}x{study.height} at {study.frame_rate} per second, "
        f"{study.sample_rate} Hz, {study.duration_s:g} s",
    }


def describe_adapter(path: Path) -> dict[str, str]:
    """Describe a LoRA adapter.

    Raises:
        CheckpointError: it is damaged.
    """
    adapter = Adapter.read(path)
    count = sum(a.numel() + b.numel() for a, b in adapter.products.values())
    return {
        "adapter": f"LoRA of rank {adapter.rank}, scale {adapter.alpha / adapter.rank:g}",
        "adapts": f"{len(adapter.products)} weights of {adapter.component or 'a network'}",
        "parameters": f"{count:,}",
        "trained on": adapter.model or "unknown",
    }


def describe_model(folder: Path) -> dict[str, str]:
    """Return clips, settings, and each network with its size and configuration.

    Raises:
        CheckpointError: the folder is incomplete or damaged.
    """
    model = read_model(folder)
    index = model.index
    lines = {"model": str(folder), "system": index.system, **_clip_lines(index)}
    for name, component in model.components.items():
        parameters = sum(math.prod(shape) for shape in component.shapes().values())
        size = f"{component.weights.stat().st_size / 2**20:.1f} MiB"
        lines[name] = f"{index.components[name]}, {parameters:,} parameters, {size}"
        lines |= _flat(component.config, f"{name}.")
    return lines | _flat(index.settings, "")


def describe_run(folder: Path) -> dict[str, str]:
    """Return how far a run is, stage by stage, its first and last losses, and where its results
    are.

    Raises:
        CheckpointError: its configuration is damaged.
    """
    path = folder / RUN_CONFIG
    stored = read_checked_json(path, CheckpointError)
    if not isinstance(stored, dict) or "system" not in stored:
        raise CheckpointError(f"{path}: holds no configuration of a run")
    own = system(str(stored["system"]))
    settings = load_json(own.config_type, path, error=CheckpointError)
    lines = {"run": str(folder), "system": own.name}
    for stage in own.stages(settings):
        if stage.total_samples:
            prefix = f"{stage.name} " if stage.folder else ""
            lines |= _progress(folder / stage.folder, stage.total_samples, prefix)
    model = folder / "model"
    lines["model"] = str(model) if (model / INDEX_FILE).is_file() else "none yet"
    return lines


def _progress(folder: Path, total: int, prefix: str) -> dict[str, str]:
    """Return one stage of a run."""
    checkpoints = list_checkpoints(folder / "checkpoints")
    log = read_log(folder / RUN_LOG)
    seen = max([int(line["samples"]) for line in log] + [int(c.name) for c in checkpoints] + [0])
    state = ", finished" if seen >= total else "" if seen else ", no log line yet"
    if not folder.is_dir():
        state = ", not begun"
    lines = {f"{prefix}samples seen": f"{seen:,} of {total:,}{state}"}
    if log:
        for name in log[-1]:
            if "/" in name and name[-3:-1] != "_q":
                first = f"{log[0].get(name, math.nan):.4f} at first, " if len(log) > 1 else ""
                lines[f"{prefix}{name}"] = f"{first}{log[-1][name]:.4f} now"
        lines[f"{prefix}speed"] = f"{log[-1].get('samples_per_s', math.nan):.2f} samples per second"
        if seen < total and math.isfinite(left_s := log[-1].get("time_left_s", math.nan)):
            lines[f"{prefix}time left"] = f"{clock_text(left_s)}, as of the last log line"
    if checkpoints:
        lines[f"{prefix}checkpoints"] = ", ".join(c.name for c in checkpoints)
    previews = sorted((folder / "previews").glob("*.png"))
    if previews:
        lines[f"{prefix}last preview"] = str(previews[-1])
    return lines


def describe_media(media: MediaInfo) -> dict[str, str]:
    """Describe the tracks that are read, as header and first picture tell, and list the others."""
    lines = {"file": media.path}
    if media.duration is not None:
        lines["duration"] = f"{float(media.duration):.3f} s"
    lines["picture"] = _picture(media) if media.has_video else "none"
    lines["sound"] = "none"
    if media.has_audio:
        plural = "s" if media.num_channels > 1 else ""
        lines["sound"] = (
            f"{media.sample_rate} Hz, {media.num_channels} channel{plural}, {media.audio_codec}"
        )
    if media.has_video and media.audio_start:
        lead = float(media.audio_start)
        lines["sound begins"] = f"{abs(lead):.3f} s {'after' if lead > 0 else 'before'} picture"
    for kind in ("video", "audio"):
        tracks = [track for track in media.tracks if track.kind == kind]
        for track in tracks if len(tracks) > 1 else ():
            named = (track.codec, track.language, track.title, "read" if track.is_read else "")
            lines[f"{kind} track {track.number}"] = ", ".join(filter(None, named))
    return lines


def _picture(media: MediaInfo) -> str:
    rate = "unknown" if media.frame_rate is None else f"{float(media.frame_rate):.6g}"
    text = f"{media.width}x{media.height} at {rate} frames per second, {media.video_codec}"
    stored = (media.stored_width, media.stored_height)
    if stored != (media.width, media.height):
        text += f", stored as {stored[0]}x{stored[1]}"
    text += ", mirrored" if media.is_mirrored else ""
    return text + (f", turned by {media.rotation} degrees" if media.rotation else "")


def _clip_lines(index: ModelIndex) -> dict[str, str]:
    clip = index.clip
    if clip is None:
        return {}
    return {
        "clip": f"{clip.num_frames} frames of {clip.width}x{clip.height} at {clip.frame_rate} per"
        f" second; {clip.num_samples} samples at {clip.sample_rate} Hz; {clip.duration_s:g} s"
    }


def _flat(values: dict[str, Any], prefix: str) -> dict[str, str]:
    """Return nested settings as dotted names."""
    lines = {}
    for name, value in values.items():
        if isinstance(value, dict):
            lines |= _flat(value, f"{prefix}{name}.")
        else:
            is_list = isinstance(value, list)
            lines[f"{prefix}{name}"] = ", ".join(map(str, value)) if is_list else str(value)
    return lines
