"""Read prepared data sets that lie behind a URL.

The lists of a data set are copied to the local cache once. Of its shards only the clips that are
drawn are read, each by its range of bytes, so that the order of clips is that of a local data set.
What a server sends is not trusted: sizes are limited, names are plain, and every byte is compared
with the checksums of the data set before it is used.

`http` and `https` need nothing else; the other kinds are read by fsspec and its plug-ins.
"""

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from soundreel.data.clip_cache import cache_folder
from soundreel.data.manifest import (
    CAPTIONS_FILE,
    DATASET_FILE,
    INDEX_FILE,
    MANIFEST_FILE,
    SKIPPED_FILE,
    DataError,
    DatasetInfo,
)
from soundreel.errors import SoundreelError
from soundreel.files import file_checksum, writing_folder
from soundreel.json_yaml import MAX_JSON_BYTES, read_checked_json, write_checked_json
from soundreel.locks import FolderInUseError

URL_FILE = "url.json"
"""File by which a folder of the cache is known as the lists of a remote data set."""
OBJECT_STORES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
"""Other kinds of URLs than http and https, and the package that fsspec needs to read them."""
MAX_LIST_BYTES = 16 * 2**30
MAX_CLIP_BYTES = 2**30
BLOCK_BYTES = 8 * 2**20
TIMEOUT_S = 60.0
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Pauses before the attempts that follow a failed one."""

Result = TypeVar("Result")


def data_folder(place: str) -> Path:
    """Return the folder of a prepared data set.

    Args:
        place: a local folder, which is returned as it is; or the URL of one, whose lists are copied
            to the cache. A data set that has changed is copied anew, beside the old one.

    Raises:
        DataError: the URL is of an unknown kind, cannot be read, or holds no data set.
    """
    if "://" not in place:
        return Path(place)
    url = checked_url(place)
    about = _fetched(f"{url}/{DATASET_FILE}", MAX_JSON_BYTES)
    key = hashlib.sha256(url.encode() + b"\n" + about).hexdigest()[:32]
    folder = cache_folder() / "data" / key
    while not (folder / URL_FILE).is_file():
        try:
            with writing_folder(folder, marker=URL_FILE) as temporary:
                _copy_lists(url, about, temporary)
        except FolderInUseError:  # another process of the same run
            time.sleep(0.2)
    return folder


def remote_url(root: Path) -> str:
    """Return the URL of the shards of a folder that `data_folder` made; "" for any other."""
    is_copy = root.resolve().parent == cache_folder() / "data"
    if not is_copy or not (root / URL_FILE).is_file():
        return ""
    content = read_checked_json(root / URL_FILE, DataError)
    return checked_url(str(content.get("url")) if isinstance(content, dict) else "")


def checked_url(text: str) -> str:
    """Return a URL without a slash at its end.

    Raises:
        DataError: it is of an unknown kind, or holds more than a place.
    """
    url = text.rstrip("/")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise DataError(f"{text!r} is no URL") from None
    kinds = ("http", "https", *OBJECT_STORES)
    if parts.scheme not in kinds or not parts.netloc or not re.fullmatch(r"[!-~]+", url):
        raise DataError(f"{text!r}: a data set is a folder or a URL of {', '.join(kinds)}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise DataError(f"{parts.scheme}://...: the URL of a data set has no name, password or '?'")
    return url


def shard_range(url: str, shard: str, start: int, count: int) -> bytes:
    """Return bytes of a shard of the data set at a URL.

    Raises:
        DataError: they cannot be read, are fewer or too many, or the shard has no plain name.
    """
    if not re.fullmatch(r"shards/[A-Za-z0-9_-]+\.tar", shard) or count > MAX_CLIP_BYTES:
        raise DataError(f"{url}: the manifest names {count} bytes of {shard[:80]!r}")
    return _read(f"{url}/{shard}", start, count)


def _copy_lists(url: str, about: bytes, folder: Path) -> None:
    """Copy the manifest and what belongs to it, and compare them with their checksums."""
    (folder / DATASET_FILE).write_bytes(about)
    try:
        info = DatasetInfo.load(folder)
    except DataError as error:
        raise DataError(str(error).replace(str(folder), url)) from None
    checksums = {MANIFEST_FILE: info.manifest_checksum}
    for name in (INDEX_FILE, CAPTIONS_FILE, SKIPPED_FILE):
        if name in info.checksums:
            checksums[name] = info.checksums[name]
    for name, expected in checksums.items():
        _download(f"{url}/{name}", folder / name)
        if expected not in ("", found := file_checksum(folder / name)):
            raise DataError(f"{url}/{name}: damaged (its checksum is {found}, not {expected})")
    write_checked_json(folder / URL_FILE, {"url": url})


def _download(url: str, path: Path) -> None:
    size = _size(url, MAX_LIST_BYTES)
    with path.open("wb") as file:
        for start in range(0, size, BLOCK_BYTES):
            file.write(_read(url, start, min(BLOCK_BYTES, size - start)))


def _fetched(url: str, limit: int) -> bytes:
    return _read(url, 0, _size(url, limit))


def _size(url: str, limit: int) -> int:
    size = _retried(url, lambda: _http_size(url) if _is_http(url) else _object_size(url))
    if not 0 <= size <= limit:
        raise DataError(f"{url} has {size} bytes; at most {limit} are read")
    return size


def _read(url: str, start: int, count: int) -> bytes:
    if count == 0:
        return b""
    read = _http_range if _is_http(url) else _object_range
    content = _retried(url, lambda: read(url, start, count))
    if len(content) != count:
        raise DataError(f"{url} ends before byte {start + count}, or sends more than it is asked")
    return content


def _retried(url: str, attempt: Callable[[], Result]) -> Result:
    """Return what an attempt gives, repeated after pauses while the fault may be a passing one.

    Raises:
        DataError: it fails for good.
    """
    pauses = iter(PAUSES_S)
    while True:
        try:
            return attempt()
        except (OSError, http.client.HTTPException) as error:
            pause_s = next(pauses, None)
            is_final = isinstance(error, FileNotFoundError | PermissionError)
            if isinstance(error, urllib.error.HTTPError):
                error.close()
                is_final = 400 <= error.code < 500 and error.code not in (408, 429)
            if pause_s is None or is_final:
                why = " ".join((str(error) or type(error).__name__).split())
                raise DataError(f"{url} cannot be read: {why[:300]}") from error
            time.sleep(pause_s)


def _is_http(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https")


@cache
def _opener() -> urllib.request.OpenerDirector:
    """Return what opens http and https, and nothing else that a redirection may name."""
    opener = urllib.request.OpenerDirector()
    for kind in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(kind())
    return opener


def _http(url: str, method: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    headers = {"User-Agent": "soundreel", "Accept-Encoding": "identity", **headers}
    request = urllib.request.Request(url, headers=headers, method=method)
    answer = _opener().open(request, timeout=TIMEOUT_S)
    assert isinstance(answer, http.client.HTTPResponse)
    return answer


def _http_size(url: str) -> int:
    with _http(url, "HEAD", {}) as answer:
        length = answer.headers.get("Content-Length", "")
    if not re.fullmatch(r"\d{1,18}", length):
        raise DataError(f"{url}: the server does not tell the file's length")
    return int(length)


def _http_range(url: str, start: int, count: int) -> bytes:
    with _http(url, "GET", {"Range": f"bytes={start}-{start + count - 1}"}) as answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            raise DataError(f"{url}: the server sends no part of a file (no HTTP ranges)")
        return answer.read(count + 1)


@cache
def _file_system(scheme: str, process: int) -> Any:
    """Return a new file system of fsspec's for each process: those of a parent cannot be used."""
    del process
    try:
        import fsspec

        return fsspec.filesystem(scheme, skip_instance_cache=True)
    except ImportError:
        package = OBJECT_STORES[scheme]
        raise DataError(
            f"{scheme}:// needs the packages fsspec and {package}: `pip install {package}`"
        ) from None


def _object_size(url: str) -> int:
    return int(_of_store(url, lambda store: store.size(url)) or 0)


def _object_range(url: str, start: int, count: int) -> bytes:
    return _of_store(url, lambda store: store.cat_file(url, start=start, end=start + count))


def _of_store(url: str, ask: Callable[[Any], Result]) -> Result:
    try:
        return ask(_file_system(urlsplit(url).scheme, os.getpid()))
    except (OSError, SoundreelError):
        raise
    except Exception as error:  # each plug-in has classes of its own
        raise OSError(f"{type(error).__name__}: {error}") from error
