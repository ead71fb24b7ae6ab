"""`soundreel app [MODEL]`: a web page on this machine that generates, enlarges and measures."""

import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro

from soundreel.cli.main import write
from soundreel.errors import SoundreelError

PREFIX = "soundreel-app-"
"""Name of the folder of a page's uploads and results; the number of its process follows."""


@dataclass(frozen=True, kw_only=True)
class AppArguments:
    """Serve a web page with a model: clips, sounds, pictures, upscaling, sync."""

    model: Annotated[str | None, tyro.conf.Positional] = None
    """A model folder, or owner/name on the Hub. Default: the model that comes with Soundreel."""
    upscaler: str | None = None
    """A super-resolution model, a folder or owner/name on the Hub; adds the tab that enlarges."""
    device: str | None = None
    """Device to compute on: cpu, cuda, cuda:1 ... Default: CUDA where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] | None = None
    """Precision of the networks. Default: the model's own."""
    host: str = "127.0.0.1"
    """Address to listen at. The default is reached from this machine alone."""
    port: int = 7860
    """Port to listen at."""
    upload_mb: float = 64.0
    """Largest upload in megabytes."""
    upload_s: float = 60.0
    """Longest upload, part of one, or film, in seconds."""
    stored_mb: float = 2_000.0
    """Uploads and results that are kept at a time, in megabytes."""
    examples: Path | None = None
    """Folder of videos and sounds offered as examples. Default: new scenes for models of rendered
    scenes, none for others."""


def app(arguments: Annotated[AppArguments, tyro.conf.arg(name="")]) -> int:
    """Serve a web page on this machine."""
    if find_spec("gradio") is None:
        raise SoundreelError("the web page needs Gradio: pip install 'soundreel[app]'")
    if arguments.examples is not None and not arguments.examples.is_dir():
        raise SoundreelError(f"--examples {arguments.examples}: no such folder")
    # Everything that visitors upload or get lies in one folder that goes with the server.
    sweep()
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        _serve(arguments, Path(folder))
    return 0


def sweep() -> None:
    """Delete what pages that were killed have left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        process = folder.name.removeprefix(PREFIX).partition("-")[0]
        if process.isdecimal() and not _is_alive(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _leave(*_: object) -> None:
    """End as after Ctrl-C, so that uploads are deleted."""
    sys.exit(0)


def _serve(arguments: AppArguments, folder: Path) -> None:
    from soundreel.app.examples import examples_in, rendered_examples
    from soundreel.app.live import LiveFilms
    from soundreel.app.page import build_page
    from soundreel.app.server import serve
    from soundreel.app.uploads import Limits
    from soundreel.app.workshop import Workshop
    from soundreel.systems import load, load_upscaler

    device, upscaler = arguments.device, arguments.upscaler
    limits = Limits(
        upload_mb=arguments.upload_mb,
        duration_s=arguments.upload_s,
        stored_mb=arguments.stored_mb,
    )
    pipeline = load(arguments.model, device=device)
    workshop = Workshop(
        pipeline,
        folder,
        upscaler=None if upscaler is None else load_upscaler(upscaler, device=device),
        precision=arguments.precision,
        limits=limits,
    )
    if arguments.examples is not None:
        examples = examples_in(arguments.examples)
    else:
        scenes = folder / "examples"
        examples = rendered_examples(pipeline.class_names, pipeline.clip, scenes)
    title = Path(arguments.model).name if arguments.model else "the default model"
    live = LiveFilms()
    page = build_page(workshop, title=title, examples=examples, live=live)
    write(f"http://{arguments.host}:{arguments.port}  (Ctrl-C stops)")
    serve(
        page,
        host=arguments.host,
        port=arguments.port,
        limits=limits,
        folder=folder,
        live=live,
        quiet=True,
    )
