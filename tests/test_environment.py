"""Nothing may pull the CUDA builds into a CPU environment, or packages that break beside them.

The versions of `constraints.txt` must fit what every extra asks for, and what that pulls in.
"""

import tomllib
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed() -> set[str]:
    return {name.lower().replace("_", "-") for d in distributions() if (name := d.name)}


def test_no_package_of_the_torch_family_got_in(installed):
    assert not installed & {"torchvision", "torchaudio"}


def test_no_cuda_package_got_in(installed):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, where they belong")
    cuda = {name for name in installed if name.startswith("nvidia-") or name == "triton"}
    assert not cuda, "install with -c constraints.txt and the CPU build of torch"


def pins() -> dict[str, str]:
    """Return the versions of `constraints.txt` by name."""
    lines = (ROOT / "constraints.txt").read_text().split()
    return {canonicalize_name(name): version for name, version in (x.split("==") for x in lines)}


def wanted(extra: str) -> list[str]:
    """Return the requirements of the package with one of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"][extra]]


def conflicts(requirements: list[str], pinned: dict[str, str]) -> tuple[list[str], set[str]]:
    """Follow requirements through the installed packages, each at its pinned version if it has one.

    Returns:
        Those that the versions do not meet, and the names of all packages that were followed.
    """
    todo = [("soundreel", "", Requirement(line)) for line in requirements]
    found: list[str] = []
    followed: dict[str, set[str]] = {}
    while todo:
        parent, extra, requirement = todo.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            package = distribution(name)
        except PackageNotFoundError:
            found.append(f"{parent} wants {requirement}, which is not installed")
            continue
        version = pinned.get(name, package.version)
        if not requirement.specifier.contains(version, prereleases=True):
            found.append(
                f"{parent} wants {requirement}, constraints.txt or the rest gives {version}"
            )
        for part in {"", *requirement.extras} - followed.get(name, set()):
            followed.setdefault(name, set()).add(part)
            todo += [(name, part, Requirement(line)) for line in package.requires or ()]
    return found, set(followed)


@pytest.mark.parametrize("extra", ["app", "dev"])
def test_an_extra_and_the_constraints_fit_together(extra):
    if extra == "app":
        pytest.importorskip("gradio", reason="needs pip install 'soundreel[app]'")
    found, followed = conflicts(wanted(extra), pins())
    assert found == []
    assert {"gradio", "pydantic", "pillow", "numpy", "starlette", "torch"} <= followed


@pytest.mark.parametrize(
    ("wrong", "parent"),
    [
        ({"gradio": "5.0"}, "soundreel"),
        ({"numpy": "0.9"}, "gradio"),
        ({"pydantic": "1.9"}, "gradio"),
    ],
)
def test_a_version_that_does_not_fit_is_found(wrong, parent):
    pytest.importorskip("gradio", reason="needs pip install 'soundreel[app]'")
    (name,) = wrong
    found, _ = conflicts(wanted("app"), pins() | wrong)
    assert any(line.startswith(f"{parent} wants {name}") for line in found)
