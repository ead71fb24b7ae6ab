"""Tell by its name whether a file may be a video: the one list for all that looks into folders."""

from pathlib import PurePath

NOT_MEDIA = frozenset(
    (
        *(".csv", ".json", ".jsonl", ".log", ".md", ".rst", ".tsv", ".txt", ".yaml", ".yml"),
        *(".ass", ".lrc", ".srt", ".ssa", ".vtt"),
        *(".css", ".htm", ".html", ".js", ".pdf", ".xml"),
        *(".bmp", ".heic", ".ico", ".jpeg", ".jpg", ".png", ".svg", ".tif", ".tiff", ".webp"),
        *(".7z", ".bz2", ".gz", ".rar", ".tar", ".xz", ".zip"),
        *(".ckpt", ".npy", ".npz", ".pkl", ".pt", ".pth", ".safetensors"),
        *(".db", ".ini", ".ipynb", ".py", ".sh", ".sqlite", ".toml"),
        *(".crdownload", ".md5", ".part", ".sha256", ".tmp", ".ytdl"),
    )
)
"""Endings of texts, subtitles, pages, still pictures, archives, arrays, code and unfinished
downloads. Videos have endings without number (FFmpeg reads some hundred kinds), so that what is not
named here is opened, and listed with the reason where it is none."""


def is_media_name(path: PurePath) -> bool:
    """Return whether a file is to be opened as media: not hidden, of no ending that is listed."""
    return not path.name.startswith(".") and path.suffix.lower() not in NOT_MEDIA
