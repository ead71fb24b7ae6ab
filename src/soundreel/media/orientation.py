"""Tell the eight ways in which a stored picture is turned or mirrored to be upright."""

import enum

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type


class Orientation(enum.Enum):
    """One of the eight symmetries of a rectangle, by what makes the stored picture upright.

    The value is the linear part (a, b, c, d) of FFmpeg's display matrix, which takes the stored
    point (x, y), y downwards, to (a x + c y, b x + d y) (libavutil/display.h).
    """

    UPRIGHT = (1, 0, 0, 1)
    TURNED_90 = (0, -1, 1, 0)
    TURNED_180 = (-1, 0, 0, -1)
    TURNED_270 = (0, 1, -1, 0)
    MIRRORED = (-1, 0, 0, 1)
    MIRRORED_TURNED_90 = (0, 1, 1, 0)
    MIRRORED_TURNED_180 = (1, 0, 0, -1)
    MIRRORED_TURNED_270 = (0, -1, -1, 0)

    @property
    def rotation(self) -> int:
        """Return degrees counter-clockwise of the turn, after the mirroring where there is one."""
        return list(Orientation).index(self) % 4 * 90

    @property
    def is_mirrored(self) -> bool:
        """Return whether left and right are exchanged before the turn."""
        a, b, c, d = self.value
        return a * d - b * c < 0

    @property
    def swaps_sides(self) -> bool:
        """Return whether the upright picture is as wide as the stored one is high."""
        return self.value[0] == 0

    @property
    def filters(self) -> tuple[tuple[str, str | None], ...]:
        """Return filters of libavfilter, with their arguments, that make the picture upright."""
        return _FILTERS[self]


_FILTERS: dict[Orientation, tuple[tuple[str, str | None], ...]] = {
    Orientation.UPRIGHT: (),
    Orientation.TURNED_90: (("transpose", "cclock"),),
    Orientation.TURNED_180: (("hflip", None), ("vflip", None)),
    Orientation.TURNED_270: (("transpose", "clock"),),
    Orientation.MIRRORED: (("hflip", None),),
    Orientation.MIRRORED_TURNED_90: (("transpose", "cclock_flip"),),
    Orientation.MIRRORED_TURNED_180: (("vflip", None),),
    Orientation.MIRRORED_TURNED_270: (("transpose", "clock_flip"),),
}


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Return the orientation that a picture's display matrix is nearest to; upright without one."""
    # Not `frame.side_data`: picture and side data would hold each other, and pictures of 3 MB would
    # pile up until the garbage collector comes.
    side_data = SideDataContainer(frame)  # pyrefly: ignore
    if Type.DISPLAYMATRIX not in side_data:
        return Orientation.UPRIGHT
    content = bytes(side_data[Type.DISPLAYMATRIX])
    a, b, _, c, d, *_ = np.frombuffer(content[:36], np.int32).tolist()
    return max(Orientation, key=lambda one: float(np.dot(one.value, (a, b, c, d))))
