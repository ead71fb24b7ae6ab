"""A disk that fills up while weights are written: one line, and everything as it was before."""

from pathlib import Path

from torch import nn

from soundreel.checkpoints.store import (
    ModelIndex,
    read_model,
    save_component,
    save_model_index,
    writing_folder,
)
from soundreel.types import ClipSpec

PACK = """
import resource, sys
from soundreel.cli.main import run
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(run(["pack", *sys.argv[1:]]))
"""
SAVE = """
import resource, sys
from pathlib import Path
from torch import nn
from soundreel.training.state import save_training_state
from soundreel.training.trainee import make_trainee
def nothing(network, batch, noise): ...
folder = Path(sys.argv[1])
trainee = make_trainee("net", nn.Linear(100, 100), nothing, learning_rate=0.1)
save_training_state(folder, [trainee], 8, 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save_training_state(folder, [trainee], 16, 1)
except OSError as error:
    print(error)
"""


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_pack_ends_with_one_line_and_leaves_what_was_there(python, tmp_path):
    with writing_folder(tmp_path / "model") as temporary:
        save_component(temporary, "net", nn.Linear(300, 300), ClipSpec())
        save_model_index(temporary, ModelIndex(system="mm-ldm", components={"net": "linear"}))
    with writing_folder(tmp_path / "packed") as temporary:
        save_component(temporary, "net", nn.Linear(2, 2), ClipSpec())
        save_model_index(temporary, ModelIndex(system="mm-ldm", components={"net": "linear"}))
    before = names(tmp_path)
    ended = python("-c", PACK, tmp_path / "model", tmp_path / "packed")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "model.safetensors: cannot be written" in ended.stderr
    assert names(tmp_path) == before
    assert read_model(tmp_path / "packed").components["net"].state()["weight"].shape == (2, 2)


def test_training_that_cannot_save_keeps_its_last_checkpoint(python, tmp_path):
    ended = python("-c", SAVE, tmp_path / "checkpoints")
    assert ended.returncode == 0, ended.stderr
    assert "net.safetensors: cannot be written" in ended.stdout
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000008"]
