"""Show a folder of clips as one page: players, contact sheets and words, in one plain HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from soundreel.errors import SoundreelError
from soundreel.media.encode import complete_file

PAGE_NAME = "index.html"
STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem}p{margin:.3rem 0}.note{color:GrayText}
main{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(34rem,100%),1fr));gap:1.2rem}
figure{margin:0;padding:.8rem;background:#8881;border-radius:.5rem}
figcaption b{font-size:1.1rem}
.clip{display:flex;gap:.8rem;align-items:flex-start;margin-top:.6rem;flex-wrap:wrap}
video{width:12rem;max-width:100%;border-radius:.3rem;image-rendering:pixelated}
.sheet{flex:1 1 16rem;min-width:0}img{width:100%;border-radius:.3rem;display:block}
@media(max-width:40rem){
.clip>*{flex:0 0 100%}video{width:100%}.sheet{overflow-x:auto}img{width:42rem}
}
"""
"""On a phone a clip fills the screen's width, and its sheet scrolls at a size that can be read."""


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One clip of a gallery.

    Attributes:
        title: what it is.
        note: what of it was given, what was made, and from what.
        video: name of its file in the gallery's folder.
        sheet: name of its contact sheet there.
        poster: address of a picture that stands for it until it plays; "" for none.
    """

    title: str
    note: str
    video: str
    sheet: str
    poster: str = ""


def write_gallery(
    folder: Path, exhibits: Sequence[Exhibit], *, title: str, about: str = ""
) -> Path:
    """Write `index.html` beside the clips it shows; return its path.

    The page loads nothing from elsewhere, and the folder can be moved as a whole.

    Raises:
        SoundreelError: there is nothing to show, or a file that an exhibit names is missing.
    """
    if not exhibits:
        raise SoundreelError("a gallery needs at least one clip")
    missing = [
        name for one in exhibits for name in (one.video, one.sheet) if not (folder / name).is_file()
    ]
    if missing:
        raise SoundreelError(f"{folder}: the gallery's {', '.join(missing)} are not there")
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<h1>{escape(title)}</h1><p class="note">{escape(about)}</p>'
        f"<main>{''.join(map(_figure, exhibits))}</main></body></html>\n"
    )
    path = folder / PAGE_NAME
    with complete_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _figure(exhibit: Exhibit) -> str:
    title, video, sheet = escape(exhibit.title), quote(exhibit.video), quote(exhibit.sheet)
    poster = f' poster="{escape(exhibit.poster)}"' if exhibit.poster else ""
    return (
        f"<figure><figcaption><b>{title}</b>"
        f'<p class="note">{escape(exhibit.note)}</p></figcaption><div class="clip">'
        f'<div><video src="{video}" controls loop playsinline{poster}'
        f' aria-label="{title}"></video>'
        f'<p><a download href="{video}">Download</a></p></div>'
        f'<a class="sheet" href="{sheet}">'
        f'<img src="{sheet}" alt="Frames over the spectrogram: {title}"></a></div></figure>'
    )
