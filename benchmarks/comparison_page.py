"""One HTML file with clips of several sources side by side.

    python benchmarks/comparison_page.py docs/comparison.html \\
        --table "Rendered scenes" renders=FOLDER MM-LDM=FOLDER ... \\
        --table "A talking face" held-out=DATA MM-LDM=FOLDER ...

A source is a folder of clips, or a data set, of which clips kept for testing are shown. Clips in
folders named after their kinds, as `soundreel render` and `scene_quality.py` write them, have a row
for each kind that all sources know, with the first clip of each; others stand as they come,
`--rows` of them. Each is shown over the spectrogram of its sound.
"""

import argparse
from html import escape
from itertools import islice
from pathlib import Path

from soundreel.cli.clip_sources import clip_items
from soundreel.clip import Clip
from soundreel.files import write_text
from soundreel.media.contact_sheet import contact_sheet
from soundreel.media.data_uri import image_uri
from soundreel.metrics.report import player

STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}th,td{padding:.4rem;vertical-align:top;text-align:left}
video{width:12rem;max-width:100%;image-rendering:pixelated}.player a{display:block}
img{width:100%;max-width:22rem;display:block;margin-top:.3rem}
@media(max-width:50rem){tr{display:flex;flex-direction:column}thead{display:none}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument(
        "--table", nargs="+", action="append", required=True, metavar="TITLE NAME=SOURCE"
    )
    parser.add_argument("--rows", type=int, default=4, help="of a table without kinds; default 4")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each clip; default 2")
    parser.add_argument("--about", default="", help="a sentence below the title")
    options = parser.parse_args()
    tables = [table(title, sources, options) for title, *sources in options.table]
    write_text(
        options.page,
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Clips side by side</title><style>{STYLE}</style></head><body>"
        f"<h1>Clips side by side</h1><p>{escape(options.about)}</p>{''.join(tables)}"
        "</body></html>\n",
    )
    print(f"{options.page}: {options.page.stat().st_size / 2**20:.1f} MiB")


def table(title: str, sources: list[str], options: argparse.Namespace) -> str:
    columns = {}
    for source in sources:
        name, _, folder = source.rpartition("=")
        columns[name] = first_clips(Path(folder), options.rows, options.seconds)
    rows = [
        kind for kind in next(iter(columns.values())) if all(kind in c for c in columns.values())
    ]
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(row(kind, columns) for kind in rows)
    print(f"{title}: {len(rows)} rows")
    return (
        f"<h2>{escape(title)}</h2><table><thead><tr><th></th>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def first_clips(source: Path, count: int, seconds: float) -> dict[str, Clip]:
    """Return the first clip of each kind, or the first `count` by number where there are none."""
    items = clip_items(source, "test", None, 0)
    if items[0].label:
        first = {item.label: item for item in reversed(items)}
        chosen = {kind: first[kind] for kind in sorted(first)}
    else:
        chosen = {str(n): item for n, item in enumerate(islice(items, count), 1)}
    return {name: item.load(seconds) for name, item in chosen.items()}


def row(kind: str, columns: dict[str, dict[str, Clip]]) -> str:
    cells = [f"<th>{escape(kind.replace('_', ' '))}</th>"]
    for name, clips in columns.items():
        sheet = contact_sheet(clips[kind], width=480)
        picture = (
            f'<img alt="{escape(name)}: frames, spectrogram" src="{image_uri(sheet, "JPEG")}">'
        )
        cells.append(f"<td>{player(clips[kind], f'{name} {kind}')}{picture}</td>")
    return f"<tr>{''.join(cells)}</tr>"


if __name__ == "__main__":
    main()
