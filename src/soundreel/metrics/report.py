"""One self-contained HTML file that shows an evaluation: numbers, players, timelines,
neighbours.
"""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from soundreel.clip import Clip
from soundreel.files import write_text
from soundreel.media.contact_sheet import contact_sheet
from soundreel.media.data_uri import frame_uri, image_uri
from soundreel.metrics.evaluation import Evaluation, SyncReport
from soundreel.metrics.frechet import Estimate
from soundreel.metrics.measure import Skipped
from soundreel.metrics.memorisation import Memorisation, Neighbour
from soundreel.metrics.sync.score import Sync
from soundreel.metrics.timeline import STYLE as TIMELINE_STYLE
from soundreel.metrics.timeline import timeline_svg

STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881}
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.5rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line)}
td.n,th.n{text-align:right}.note{color:GrayText;margin:.3rem 0}
.clips{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:1rem}
figure{margin:0;padding:.6rem;background:var(--soft);border-radius:.5rem}
video{width:100%;border-radius:.3rem;image-rendering:pixelated}
figcaption{font-size:.9rem;overflow-wrap:anywhere}svg{width:100%;height:auto;display:block}
img{max-width:100%}pre{overflow-x:auto;background:var(--soft);padding:.8rem;border-radius:.5rem}
.warning{border-left:.25rem solid #c2410c;padding-left:.6rem}
.wide{overflow-x:auto}.wide+.clips{margin-top:1rem}
@media(max-width:40rem){table{min-width:38rem}}
.player a{font-size:.9rem}.pair{display:grid;grid-template-columns:1fr 1fr;gap:.4rem}
"""


@dataclass(frozen=True, kw_only=True)
class ShownClip:
    """A clip as the report shows it; its pictures and sound are no longer held.

    Attributes:
        player, timeline, sheet: HTML; the timeline is empty where there is none.
    """

    name: str
    player: str
    timeline: str
    sheet: str

    @classmethod
    def of(cls, name: str, clip: Clip) -> "ShownClip":
        """Make what the report shows of a clip."""
        return cls(
            name=name,
            player=player(clip, name),
            timeline=timeline_svg(clip),
            sheet=_sheet(clip, name),
        )


@dataclass(frozen=True, kw_only=True)
class ShownPair:
    """A generated clip in the report beside the stretch of a known clip that is nearest to it."""

    neighbour: Neighbour
    generated: ShownClip
    known: ShownClip


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The clips that are played in the report; a few of each kind, with the sync of each."""

    real: Sequence[tuple[ShownClip, Sync | None]] = ()
    generated: Sequence[tuple[ShownClip, Sync | None]] = ()
    by_picture: Sequence[ShownPair] = ()
    by_sound: Sequence[ShownPair] = ()


def write_report(path: Path, evaluation: Evaluation, shown: Shown) -> None:
    """Write the report; it appears only when complete."""
    write_text(path, report_html(evaluation, shown))


def report_html(evaluation: Evaluation, shown: Shown) -> str:
    """Write the whole page as HTML."""
    copies = evaluation.copies
    generated, real = (_set_name(evaluation, name) for name in ("generated", "real"))
    title = f"Evaluation of {generated} against {real}"
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>{escape(title)}</title><style>{STYLE}{TIMELINE_STYLE}</style>",
        "</head><body>",
        f"<h1>{escape(title)}</h1>",
        f"<p>{evaluation.num_generated} generated clips, {evaluation.num_real} real ones.</p>",
        *(f"<p class='warning'>{escape(warning)}</p>" for warning in evaluation.warnings),
        _distances(evaluation),
        _sync_tables(evaluation),
        _clips(f"Generated clips: {generated}", shown.generated),
        _clips(f"Real clips: {real}", shown.real),
        _sheets(f"Contact sheets of {generated}", shown.generated),
        _sheets(f"Contact sheets of {real}", shown.real),
        _copies(copies.known, "picture", copies.picture),
        _pairs(shown.by_picture),
        _copies(copies.known, "sound", copies.sound),
        _pairs(shown.by_sound),
        _skipped(evaluation),
        "<h2>Provenance</h2><pre>",
        escape(json.dumps(evaluation.provenance, indent=1, sort_keys=True)),
        "</pre></body></html>\n",
    ]
    return "\n".join(parts)


def _set_name(evaluation: Evaluation, side: str) -> str:
    """Return what a set is called: its folder's name where that is known."""
    about = evaluation.provenance.get(side)
    name = about.get("name") if isinstance(about, dict) else None
    return str(name or f"{side} clips")


def _distances(evaluation: Evaluation) -> str:
    rows = []
    for metric in evaluation.metrics:
        rows.append(_row(metric.name, "all", *_cells(metric.overall)))
        rows += [_row("", label, *_cells(e)) for label, e in metric.by_class.items()]
    level = f"{evaluation.metrics[0].overall.level:.0%}" if evaluation.metrics else ""
    return _table(
        "Distances",
        ("metric", "class", "value", f"{level} interval", "generated / real"),
        rows,
        "Smaller is better. The name says which features: only figures of one name, one clip "
        "length and equal counts can be compared.",
    )


def _cells(estimate: Estimate) -> tuple[str, str, str]:
    return (
        f"{estimate.value:.4g}",
        f"{estimate.low:.4g} to {estimate.high:.4g}",
        f"{estimate.num_fake} / {estimate.num_real}",
    )


def _sync_tables(evaluation: Evaluation) -> str:
    rows = []
    for name, report in (
        ("generated", evaluation.sync_generated),
        ("real", evaluation.sync_real),
    ):
        rows += _sync_rows(name, report)
    return _table(
        "Sync of sound and picture",
        ("set", "class", "score", "in sync", "mean |offset| (s)", "median offset (s)", "clips"),
        rows,
        "Score: standard deviations above chance (0 is chance). In sync: share with p at most "
        "0.05. A positive offset is sound that comes late.",
    )


def _sync_rows(name: str, report: SyncReport) -> list[str]:
    if report.overall is None:
        return [_row(name, "all", "not measured: clips too short", "", "", "", report.unmeasured)]
    return [
        _row(
            name,
            label,
            f"{s.mean_score:.2f}",
            f"{s.share_in_sync:.0%}",
            _number(s.mean_absolute_offset_s),
            _number(s.median_offset_s),
            s.num_clips,
        )
        for label, s in {"all": report.overall, **report.by_class}.items()
    ]


def _number(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.3f}"


def _clips(title: str, shown: Sequence[tuple[ShownClip, Sync | None]]) -> str:
    if not shown:
        return ""
    figures = []
    for item, sync in shown:
        note = ""
        if sync is not None:
            offset = "no offset" if sync.offset_s is None else f"{sync.offset_s:+.2f} s"
            note = f"score {sync.score:.1f}, p {sync.p_value:.2f}, {offset}"
        figures.append(
            f"<figure>{item.player}{item.timeline}"
            f"<figcaption>{escape(item.name)}<br>{note}</figcaption></figure>"
        )
    return (
        f"<h2>{escape(title)}</h2><p>Below each: what starts in the picture and in the sound; "
        "upright lines are events.</p>"
        f"<div class='clips'>{''.join(figures)}</div>"
    )


def _pairs(shown: Sequence[ShownPair]) -> str:
    figures = [
        f"<figure><div class='pair'>{pair.generated.player}{pair.known.player}</div>"
        f"<figcaption>{escape(pair.neighbour.generated)}, and {escape(_place(pair.neighbour))}: "
        f"distance {pair.neighbour.distance:.2f}</figcaption></figure>"
        for pair in shown
    ]
    return f"<div class='clips'>{''.join(figures)}</div>" if figures else ""


def _place(neighbour: Neighbour) -> str:
    """Return the name of a known clip, and from when on, where that is not its start."""
    later = f" from {neighbour.start_s:.1f} s" if neighbour.start_s else ""
    return f"{neighbour.known}{later}"


def player(clip: Clip, name: str) -> str:
    """Return a player with the clip and its first picture in it, and a link that saves the clip."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        within = None if clip.waveform is None else np.clip(clip.waveform, -1, 1)
        replace(clip, waveform=within).save(path)  # else a warning would name this file
        data = base64.b64encode(path.read_bytes()).decode()
    poster = ""
    if clip.frames is not None:
        poster = f" poster='{frame_uri(clip.frames[0])}'"
    file = f"{Path(name).stem or 'clip'}.mp4"
    return (
        f"<div class='player'><video controls loop playsinline preload='none'{poster}"
        f" aria-label='{escape(name, quote=True)}' src='data:video/mp4;base64,{data}'></video>"
        f'<a download="{escape(file, quote=True)}" href="#"'
        ' onclick="this.href=this.previousElementSibling.src">Download</a></div>'
    )


def _sheet(clip: Clip, name: str) -> str:
    image = contact_sheet(clip, titles=[name], width=1100)
    return (
        f"<div class='wide'><img class='sheet' loading='lazy' width='{image.width}'"
        f" height='{image.height}' alt='frames over the spectrogram: {escape(name, quote=True)}'"
        f" src='{image_uri(image)}'></div>"
    )


def _sheets(title: str, shown: Sequence[tuple[ShownClip, Sync | None]]) -> str:
    if not shown:
        return ""
    return f"<h2>{escape(title)}</h2>{''.join(item.sheet for item, _ in shown)}"


def _copies(known: str, modality: str, copies: Memorisation) -> str:
    rows = [_row(n.generated, _place(n), f"{n.distance:.2f}") for n in copies.neighbours[:10]]
    unit = "another real one" if known == "real" else "its nearest training clip"
    return _table(
        f"Nearest {known} clips by {modality}",
        ("generated", f"nearest {known} clip", "distance"),
        rows,
        f"Distance 1 is the median between a real clip and {unit}; 0 is a copy. Median of the "
        f"generated clips {copies.median_distance:.2f}; nearer than 99 % of the real clips are: "
        f"{copies.share_suspicious:.0%}.",
    )


def _skipped(evaluation: Evaluation) -> str:
    sets: tuple[tuple[str, Sequence[Skipped]], ...] = (
        ("generated", evaluation.skipped_generated),
        ("real", evaluation.skipped_real),
        ("training", evaluation.copies.skipped),
    )
    rows = [_row(name, item.name, item.reason) for name, items in sets for item in items]
    if not rows:
        return "<h2>Left out</h2><p>None.</p>"
    return _table("Left out", ("set", "clip", "why"), rows, "")


def _table(title: str, heads: Sequence[str], rows: Sequence[str], note: str) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in heads)
    # Outside of the box that scrolls on a phone, where a caption would be cut off.
    above = f"<p class='note'>{escape(note)}</p>" if note else ""
    return (
        f"<h2>{escape(title)}</h2>{above}<div class='wide'><table>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(*cells: object) -> str:
    return "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"
