"""The part of a file that an HTTP request asks for (RFC 9110, section 14)."""

import re

_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


class UnsatisfiableRangeError(Exception):
    """The part that is asked for lies beyond the file."""


def requested_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first and last byte, or None for the whole file.

    Players on phones ask for parts and refuse to play without them. Several parts at once, or a
    header that is no range, are answered with the whole file, as the RFC allows.

    Args:
        header: of the request's `Range`.
        size: of the file, in bytes.

    Raises:
        UnsatisfiableRangeError: no byte of the file is within the range.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.group() == "bytes=-":
        return None
    first, last = match.groups()
    if not first:  # the last so many bytes
        if int(last) == 0 or size == 0:
            raise UnsatisfiableRangeError
        return max(0, size - int(last)), size - 1
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise UnsatisfiableRangeError
    return int(first), min(int(last), size - 1) if last else size - 1
