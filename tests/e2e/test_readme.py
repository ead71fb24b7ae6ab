"""The README's commands, run as a newcomer would: in order, in one folder, from its text.

Blocks marked `bash` and `python` are run; blocks without a mark need what a test cannot have (the
network, your videos). Training and sampling are shortened, for they take minutes otherwise.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHORTENED = {
    "soundreel prepare": "--workers 1",
    "soundreel train": "--train.total-samples 4 --train.preview-every 4 --preview.num-steps 1"
    " --preview.count 1",
    "soundreel generate": "--num-steps 2",
}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [
        text for kind, text in BLOCK.findall((ROOT / "README.md").read_text()) if kind == language
    ]


def shortened(command: str) -> str:
    for start, flags in SHORTENED.items():
        if command.startswith(start):
            return f"{command} {flags}"
    return command


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a clone as far as the commands care."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def run(command: list[str], folder: Path) -> str:
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def outputs(checkout: Path) -> list[str]:
    """What every shell command of the README printed."""
    commands = [line for block in blocks("bash") for line in block.splitlines() if line]
    assert len(commands) >= 3
    return [run(["bash", "-c", shortened(command)], checkout) for command in commands]


def test_the_quickstart_leaves_clips_and_a_contact_sheet(outputs, checkout):
    made = {path.name for path in (checkout / "out" / "first").iterdir()}
    clips = {f"clip-000{n}.{kind}" for n in range(4) for kind in ("mp4", "json")}
    assert made == clips | {"contact-sheet.png"}
    assert (checkout / "runs" / "first" / "previews" / "000000004.png").is_file()


def test_the_demo_leaves_a_page_of_six_clips(outputs, checkout):
    names = (
        "01-hammer",
        "02-fire",
        "03-bells",
        "04-waves",
        "05-sound-for-a-video",
        "06-pictures-for-a-sound",
    )
    wanted = {f"{name}{end}" for name in names for end in (".mp4", ".png")} | {"index.html"}
    assert {path.name for path in (checkout / "out" / "demo").iterdir()} == wanted
    assert "index.html" in "".join(outputs)


def test_the_commands_print_what_the_readme_says(outputs):
    promised = [line for block in blocks("text") for line in block.splitlines()]
    assert len(promised) >= 4
    assert [line for line in promised if line not in "".join(outputs)] == []


def test_the_python_lines_work(outputs, checkout):
    (script,) = blocks("python")
    shown = run([sys.executable, "-c", script], checkout)
    assert shown.strip() == "(32, 64, 64, 3) (1, 32000)"
    assert (checkout / "fire.mp4").stat().st_size > 1000


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []
