"""`soundreel join DEST PART...`: parts of a preparation in, one data set out."""

from pathlib import Path
from typing import Annotated

import tyro

from soundreel.cli.main import write
from soundreel.data.describe import describe
from soundreel.data.join import join_parts
from soundreel.progress import progress_bar


def join(
    dest: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DEST")],
    parts: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PART")],
    *,
    overwrite: bool = False,
) -> int:
    """Join the parts made by `soundreel prepare --part` to the data set that one run makes.

    Run it again to continue after an interruption. The parts are left as they are.

    Args:
        dest: folder of the data set; made if absent.
        parts: folders of all the parts, in any order.
        overwrite: delete the data set that DEST holds.
    """
    with progress_bar("joining") as advance:
        join_parts(parts, dest, overwrite=overwrite, progress=advance)
    for name, value in describe(dest).items():
        write(f"{name}: {value}")
    return 0
