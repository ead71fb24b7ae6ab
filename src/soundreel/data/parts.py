"""A share of a large preparation: which sources one machine of several takes."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from soundreel.data.scan import Source
from soundreel.errors import SoundreelError

PART, LISTING = "part", "listing"
"""Fields of the header of a part's journal: which one of how many, and the hash of all sources."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Part `number` (from 1) of `count`: the sources whose name's hash leaves that remainder.

    Raises:
        SoundreelError: there is no such part.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise SoundreelError(f"there is no part {self}; parts are numbered from 1 on")

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Return the part that "2/5" names.

        Raises:
            SoundreelError: it names none.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if not match:
            raise SoundreelError(f"a part is written as 2/5, the second of five; got {text!r}")
        return cls(number=int(match[1]), count=int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, name: str) -> bool:
        """Return whether a source belongs to this part; every source does to just one."""
        digest = hashlib.sha256(name.encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    def about(self, sources: Iterable[Source], splits: Mapping[str, str]) -> dict[str, str]:
        """Return what the journal says of a part: which it is, and the hash of all sources.

        Parts fit together if they were made from the same list, with the same splits.
        """
        listing = hashlib.sha256()
        for one in sources:
            fields = (one.name, one.group, splits[one.group], one.label, one.caption, one.problem)
            listing.update(json.dumps(fields).encode() + b"\n")
        return {PART: str(self), LISTING: listing.hexdigest()}
