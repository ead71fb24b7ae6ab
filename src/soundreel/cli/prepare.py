"""`soundreel prepare SRC DEST [RECIPE]`: videos in, checked data set out."""

import os
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from soundreel.data.describe import describe
from soundreel.data.manifest import SKIPPED_FILE
from soundreel.data.options import RECIPES, PrepareOptions, Recipe
from soundreel.data.parts import Part
from soundreel.data.prepare import prepare_dataset
from soundreel.progress import progress_bar
from soundreel.systems import recipes


def _type_of(name: str, recipe: Recipe) -> Any:
    """Return the type of the options, given on the command line on top of a recipe."""
    subcommand = tyro.conf.subcommand(
        name=name, default=recipe.options, description=recipe.summary, prefix_name=False
    )
    return Annotated[PrepareOptions, subcommand]


OptionsOfRecipe: Any = reduce(or_, (_type_of(name, recipe) for name, recipe in recipes().items()))


@tyro.conf.configure(tyro.conf.CascadeSubcommandArgs)
def prepare(
    src: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")],
    dest: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DEST")],
    options: Annotated[OptionsOfRecipe, tyro.conf.arg(name="")] = RECIPES["plain"].options,
    *,
    part: str = "",
    workers: int = os.cpu_count() or 1,
    overwrite: bool = False,
) -> int:
    """Turn a folder or CSV list of videos into a checked data set of short clips.

    Run it again to continue after an interruption or to add new files. DEST/skipped.csv tells what
    was left out, and why.

    Args:
        src: folder of videos (searched recursively), or CSV list with the column path and, if
            wanted, label, caption, start_s, end_s, source; or a list of AudioSet segments.
        dest: folder of the data set; made if absent.
        options: a recipe, whose options can each be changed by a flag.
        part: prepare only one share of the sources, such as 2/5, the second of five; `soundreel
            join` makes one data set of all shares.
        workers: processes that decode; 0 decodes in the main one.
        overwrite: delete the data set that DEST holds.
    """
    with progress_bar("preparing") as advance:
        report = prepare_dataset(
            src,
            dest,
            options,
            part=Part.parse(part) if part else None,
            num_workers=workers,
            overwrite=overwrite,
            progress=advance,
        )
    out = Console(soft_wrap=True, highlight=False)
    if report.num_converted == 0:
        out.print("Nothing to do: everything was prepared before.")
    for name, value in describe(dest).items():
        out.print(f"{name}: {value}", markup=False)
    if report.info.counts["skipped"]:
        out.print(f"Left out, with reasons: {dest / SKIPPED_FILE}", markup=False)
    if report.num_defects:
        out.print(
            f"Left out because of a defect in soundreel: {report.num_defects} sources, see the "
            "tracebacks above; please report it",
            markup=False,
        )
    return 1 if report.num_defects else 0
