"""Token states of captions, from a CLIP or T5 text encoder in a local folder.

They take the place of the generator's learned prompt. The folder is one that `transformers` wrote:
configuration, safetensors and tokenizer. Nothing is downloaded, and no code of the folder is run.
"""

import hashlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

from soundreel.checkpoints.errors import CheckpointError, listed
from soundreel.errors import SoundreelError

NETWORKS = {"clip": "CLIPTextModel", "clip_text_model": "CLIPTextModel", "t5": "T5EncoderModel"}
"""Class of `transformers` for each `model_type` that can be read."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "spiece.model")
FILES_READ = ("*.json", "*.txt", "*.model", "*.safetensors")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text encoder of a generator; none by default.

    Attributes:
        folder: of a CLIP or T5 text encoder with its tokenizer, or `text_encoder` beside
            `tokenizer` as in Stable Diffusion's folders; empty leaves the learned prompt.
        sha256: of the files in it. A run fills it in; another encoder is then refused.
        num_tokens: captions are cut or padded to this length.
    """

    folder: str = ""
    sha256: str = ""
    num_tokens: int = 77

    def __post_init__(self) -> None:
        if self.num_tokens < 1:
            raise SoundreelError(f"num_tokens must be positive, got {self.num_tokens}")


class TextEncoder:
    """Captions in, token states out; frozen.

    Args:
        network: a `CLIPTextModel` or `T5EncoderModel`.
        tokenizer: of the same folder.
        hides_padding: the network does not see padding, and its states there become zero. T5 is
            trained so. CLIP pads with its end token and is used with all of its states, as in
            Stable Diffusion.
    """

    def __init__(
        self, network: nn.Module, tokenizer: Any, *, num_tokens: int, hides_padding: bool
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._num_tokens = num_tokens
        self._hides_padding = hides_padding

    @property
    def dim(self) -> int:
        """Return width of a token's state."""
        config: Any = self.network.config
        return int(config.hidden_size)

    def to(self, device: torch.device | str) -> "TextEncoder":
        """Move the network; returns the encoder itself."""
        self.network.to(device)
        return self

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> Float[Tensor, "caption token dim"]:
        """Return states of every caption's tokens, float32; words beyond the last token are cut
        off."""
        tokens = self._tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=self._num_tokens,
            return_attention_mask=True,
            return_tensors="pt",
        )
        device = next(self.network.parameters()).device
        ids, mask = tokens["input_ids"].to(device), tokens["attention_mask"].to(device)
        if not self._hides_padding:
            return self.network(input_ids=ids).last_hidden_state.float()
        states = self.network(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        return states * mask[:, :, None]


def load_text_encoder(config: TextConfig) -> TextEncoder:
    """Return the text encoder of a local folder, on the CPU.

    Raises:
        CheckpointError: `transformers` is absent, or the folder holds no such encoder, one that is
            incomplete, or another one than `config.sha256` names.
    """
    if config.sha256 and text_encoder_sha256(config.folder) != config.sha256:
        raise CheckpointError(
            f"{config.folder}: another text encoder than the model was trained with (its files "
            "have another SHA-256); give the folder of that one"
        )
    folder = _checked_folder(config.folder)
    transformers = _transformers()
    try:
        with _quiet(transformers):
            found = transformers.AutoConfig.from_pretrained(folder, **_LOCAL)
            if found.model_type not in NETWORKS:
                raise CheckpointError(
                    f"{folder}: a {found.model_type!r} model; give one of {', '.join(NETWORKS)}"
                )
            network, report = getattr(transformers, NETWORKS[found.model_type]).from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                _tokenizer_folder(folder), **_LOCAL
            )
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise CheckpointError(f"{folder}: not a readable text encoder ({reason})") from None
    if report["missing_keys"]:
        names = listed(sorted(report["missing_keys"]), 3)
        raise CheckpointError(f"{folder}: the weights lack {names}")
    longest = getattr(network.config, "max_position_embeddings", config.num_tokens)
    if config.num_tokens > longest:
        raise CheckpointError(
            f"{folder}: reads at most {longest} tokens, num_tokens is {config.num_tokens}"
        )
    hides_padding = found.model_type == "t5"
    return TextEncoder(
        network, tokenizer, num_tokens=config.num_tokens, hides_padding=hides_padding
    )


def text_encoder_sha256(folder: str | Path) -> str:
    """Return one number for all files that `load_text_encoder` reads.

    Raises:
        CheckpointError: there is no such folder.
    """
    folder = _checked_folder(folder)
    digest = hashlib.sha256()
    for place in dict.fromkeys((folder, _tokenizer_folder(folder))):
        for path in sorted({path for pattern in FILES_READ for path in place.glob(pattern)}):
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


_LOCAL = {"local_files_only": True, "trust_remote_code": False}


def _checked_folder(folder: str | Path) -> Path:
    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: no text encoder here (config.json is missing); give the folder of a CLIP "
            "or T5 model as transformers saves it"
        )
    return path


def _tokenizer_folder(folder: Path) -> Path:
    if any((folder / name).is_file() for name in TOKENIZER_FILES):
        return folder
    return folder.parent / "tokenizer"


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError:
        raise CheckpointError(
            "reading captions needs the package transformers; "
            "install it with: pip install 'soundreel[text]'"
        ) from None
    return transformers


@contextmanager
def _quiet(transformers: ModuleType) -> Generator[None]:
    """Silence the library's bars and its report of the image half of a CLIP model."""
    logging = transformers.utils.logging
    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
