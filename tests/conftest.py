"""Where the reference tensors and the real clips lie; tests that need an absent one are skipped."""

import soundreel  # noqa: F401  # isort: skip  # before torch: it says how threads wait

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import damage
import forking
import hostile_media as media_files
import jaxtyping
import numpy as np
import pytest
import shape_checks
import torch

jaxtyping.jaxtyped = shape_checks.checked  # before anything of soundreel is imported

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def _shared(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or ROOT.parent / "shared" / default)


def _seed_everything() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _same_numbers_for_module_fixtures() -> None:
    """Tests run in another order on every machine: none may depend on what others drew."""
    _seed_everything()


@pytest.fixture(autouse=True)
def _same_numbers_for_tests(_same_numbers_for_module_fixtures: None) -> None:
    """As above; what fails on one machine then fails on all."""
    _seed_everything()


@pytest.fixture(autouse=True, scope="session")
def measured_product() -> Iterator[Callable[[str, torch.dtype], float]]:
    """In tests "auto" is float32: no verdict depends on how fast the machine is at that moment.

    Yields the measurement itself.
    """
    from soundreel import device  # not earlier: the shape checks must see every import

    real = device._product_s
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "_product_s", lambda *_: 1.0)
        yield real


@pytest.fixture
def process_as_before() -> Iterator[None]:
    """Fails a test after which tiny numbers become 0, or torch has other threads."""

    def state() -> tuple[bool, int]:
        return float(torch.tensor(1e-39) * 1.0) == 0, torch.get_num_threads()

    before = state()
    assert not before[0]
    yield
    assert state() == before


@pytest.fixture(scope="session")
def parity_folder() -> Callable[[str], Path]:
    """`parity_folder("mm_diffusion")`: folder of reference tensors, from SOUNDREEL_PARITY."""

    def find(system: str) -> Path:
        folder = _shared("SOUNDREEL_PARITY", "parity") / system
        if not folder.is_dir():
            pytest.skip(f"no reference tensors in {folder}; set SOUNDREEL_PARITY")
        return folder

    return find


@pytest.fixture(scope="session")
def clips_folder() -> Path:
    """Folder of real clips, from SOUNDREEL_CLIPS."""
    folder = _shared("SOUNDREEL_CLIPS", "data/clips")
    if not folder.is_dir():
        pytest.skip(f"no clips in {folder}; set SOUNDREEL_CLIPS")
    return folder


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    """Folder of small pretrained weights, from SOUNDREEL_WEIGHTS."""
    folder = _shared("SOUNDREEL_WEIGHTS", "weights")
    if not folder.is_dir():
        pytest.skip(f"no pretrained weights in {folder}; set SOUNDREEL_WEIGHTS")
    return folder


@pytest.fixture(scope="session")
def python() -> Callable[..., Any]:
    """`python("-m", "soundreel", ...)`: what a process of its own ended with and wrote."""
    return forking.python


@pytest.fixture(scope="session")
def damaged() -> Callable[[bytes, random.Random], bytes]:
    """`damaged(content, random)`: what disks, networks and editors do to a file."""
    return damage.damage


@pytest.fixture(scope="session")
def edit_json() -> Callable[..., None]:
    """`edit_json(path, changes)`: what a person changes by hand, who removes the checksum."""

    def edit(path: Path, changes: dict[str, Any]) -> None:
        values = json.loads(path.read_text())
        values.pop("checksum", None)
        path.write_text(json.dumps(values | changes))

    return edit


@pytest.fixture(scope="session")
def hostile_media() -> ModuleType:
    """The module `tests/tools/hostile_media.py`, which builds broken and odd media files."""
    return media_files


@pytest.fixture(scope="session")
def hostile_folder(
    hostile_media: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Every hostile file, written once: paths by file name. Tests must not change them."""
    return hostile_media.build_hostile_folder(tmp_path_factory.mktemp("hostile"))


VOCABULARY = ["<pad>", "</s>", "<s>", "<unk>", "a", "dog", "fire", "sea"]


@pytest.fixture(scope="session")
def text_encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `clip` and `t5`: tiny text encoders with random weights and eight words.

    Their states have 8 numbers a token; CLIP reads up to 6 tokens.
    """
    transformers = pytest.importorskip("transformers")
    import torch

    root = tmp_path_factory.mktemp("text")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = transformers.CLIPTextConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=6,
            bos_token_id=2,
            eos_token_id=1,
            pad_token_id=1,
        )
        t5 = transformers.T5Config(
            vocab_size=len(VOCABULARY), d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2
        )
        transformers.CLIPTextModel(clip).save_pretrained(root / "clip")
        transformers.T5EncoderModel(t5).save_pretrained(root / "t5")
    _tokenizer("<s> $A </s>", pad_token="</s>").save_pretrained(root / "clip")
    _tokenizer("$A </s>", pad_token="<pad>").save_pretrained(root / "t5")
    return root


def _tokenizer(template: str, *, pad_token: str) -> Any:
    """Whole words, between the marks that the encoder expects."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", words["<s>"]), ("</s>", words["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad_token, eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def chromium(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., AbstractContextManager[Any]]:
    """`with chromium(*flags, **options) as context`: a headless browser with a new profile."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium; on Debian: apt-get install chromium")

    @contextmanager
    def opened(*args: str, **options: Any) -> Iterator[Any]:
        with playwright.sync_playwright() as driver:
            context = driver.chromium.launch_persistent_context(
                tmp_path_factory.mktemp("profile"),
                executable_path=program,
                headless=True,
                args=[*CHROMIUM_FLAGS, *args],
                timeout=180_000,
                **options,
            )
            yield context
            context.close()

    return opened
