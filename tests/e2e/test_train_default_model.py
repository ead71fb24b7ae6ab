"""The script that trains the default model, on the tiny preset and with the core packages alone."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import soundreel
from soundreel.data.scenes.render import KINDS
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "train_default_model.py"
CORE = ("torch", "numpy", "einops", "jaxtyping", "safetensors")

# Hidden packages are not found, as if they were not installed: some are asked for only to see
# whether they are there.
WITHOUT = """
import runpy, sys
hidden, script = set(sys.argv[1].split(",")), sys.argv[2]
class Hiding:
    def __init__(self, finder):
        self._finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            return None
        return self._finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self._finder, name)
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
try:
    import av
except ModuleNotFoundError:
    sys.path.insert(0, script.rpartition("/")[0])
    sys.argv = sys.argv[2:]
    runpy.run_path(script, run_name="__main__")
else:
    sys.exit("nothing is hidden")
"""


def with_needs(names: tuple[str, ...]) -> set[str]:
    """Distributions and all that they require without extras."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        try:
            lines = requires(name) or []
        except ImportError:  # needed on other systems only
            continue
        waiting += [re.split(r"[^\w.-]", line)[0] for line in lines if "extra ==" not in line]
    return found


def hidden_packages() -> list[str]:
    """Everything installed that is neither ours nor needed by the core packages."""
    kept = with_needs(CORE) | {"soundreel"}
    return sorted(
        package
        for package, owners in packages_distributions().items()
        if not any(owner.lower().replace("_", "-") in kept for owner in owners)
    )


def train(out: Path) -> list[str]:
    """Lines that the script printed."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", WITHOUT, ",".join(hidden_packages()), str(SCRIPT)),
            *("--out", str(out), "--tiny", "--workers", "0", "--bundle"),
            *("--generator-samples", "80", "--generator-batch", "16"),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout.splitlines()


def test_nothing_but_the_core_is_left_over():
    hidden = set(hidden_packages())
    assert {"av", "tyro", "PIL", "pydantic", "yaml", "pytest"} <= hidden
    assert not {*CORE, "sympy", "wadler_lindig", "soundreel"} & hidden


@pytest.mark.slow
def test_a_run_leaves_a_model_that_generates(tmp_path):
    out = tmp_path / "run"
    train(out)

    pipeline = soundreel.load(out / "model", device="cpu")
    assert isinstance(pipeline, MMLDMPipeline)
    assert pipeline.settings.class_names == tuple(KINDS)
    (clip,) = pipeline.generate(label=3, num_steps=2, decoder_num_steps=2)
    assert clip.frames is not None
    assert clip.waveform is not None
    assert clip.frames.shape == (8, 32, 32, 3)
    assert clip.waveform.shape == (1, 12_800)

    report = json.loads((out / "report.json").read_text())
    assert report["generator"]["steps"] == 5
    for stage in ("first_stage", "autoencoder"):
        assert report[stage]["samples"] == 64
        assert np.isfinite(
            [report[stage]["frame_psnr_db"], report[stage]["mel_image_psnr_db"]]
        ).all()
    config = json.loads((out / "config.json").read_text())
    assert config["generator"]["train"]["total_samples"] == 80

    samples = np.load(out / "samples.npz")
    assert samples["video"].shape == (len(KINDS), 8, 32, 32, 3)
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.size == (5 * 32, len(KINDS) * 32)  # every other frame, and the sound
        assert (np.asarray(sheet)[:32, :32] == samples["video"][0, 0]).all()

    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    parts = sorted((out / "bundle").iterdir())
    subprocess.run(
        ["tar", "xz", "-C", str(unpacked)],
        input=b"".join(p.read_bytes() for p in parts),
        check=True,
    )
    soundreel.load(unpacked / "model", device="cpu")

    lines = train(out)  # again: nothing is left to train
    assert not any("learning_rate" in line for line in lines)
    assert json.loads((out / "config.json").read_text()) == config
