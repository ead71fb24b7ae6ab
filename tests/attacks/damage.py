"""What disks, networks and editors do to a file."""

import random


def damage(content: bytes, rng: random.Random) -> bytes:
    """A bit changed, or a piece missing, doubled, overwritten, or cut off."""
    first, second = sorted(rng.choices(range(len(content) + 1), k=2))
    kind = rng.randrange(5)
    if kind == 0:
        place = rng.randrange(len(content))
        flipped = content[place] ^ (1 << rng.randrange(8))
        return content[:place] + bytes([flipped]) + content[place + 1 :]
    piece = {1: b"", 2: 2 * content[first:second], 3: rng.randbytes(second - first)}
    return content[:first] if kind == 4 else content[:first] + piece[kind] + content[second:]
