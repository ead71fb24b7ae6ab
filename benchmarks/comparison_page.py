"""One HTML file with clips of several sources side by side, a row for each kind.

    python benchmarks/comparison_page.py docs/comparison.html renders=FOLDER MM-LDM=FOLDER ...

A folder holds clips in folders named after their kinds, as `soundreel render` and
`scene_quality.py` write them; the first of each kind is shown over the spectrogram of its sound.
"""

import argparse
from html import escape
from pathlib import Path

from soundreel.cli.clip_sources import media_files
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
    parser.add_argument("sources", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--about", default="", help="a sentence below the title")
    options = parser.parse_args()
    columns = {}
    for source in options.sources:
        name, _, folder = source.rpartition("=")
        columns[name] = first_of_each_kind(Path(folder))
    kinds = sorted(set.intersection(*(set(clips) for clips in columns.values())))
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    rows = "".join(row(kind, columns) for kind in kinds)
    write_text(
        options.page,
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Clips side by side</title><style>{STYLE}</style></head><body>"
        f"<h1>Clips side by side</h1><p>{escape(options.about)}</p>"
        f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>"
        "</body></html>\n",
    )
    print(f"{options.page}: {len(kinds)} kinds, {options.page.stat().st_size / 2**20:.1f} MiB")


def first_of_each_kind(folder: Path) -> dict[str, Clip]:
    found: dict[str, Clip] = {}
    for item in media_files(folder):
        if item.label not in found:
            found[item.label] = Clip.load(item.path)
    return found


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
