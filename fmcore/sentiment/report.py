"""The sentiment page as one HTML file: what was on the screen, readable anywhere, with where each number comes from.

The same inputs give the same bytes. Everything from outside is escaped (Jinja2 autoescape); a link is http or https with its host shown;
the file asks nothing of any network (its own content policy forbids it). Never asks the store: it is given what was drawn.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmcore import text

if TYPE_CHECKING:
    import pandas as pd

TEMPLATE = Path(__file__).with_name("report.html")
WIDTH, HEIGHT = 940, 240
MAX_BUCKETS, MAX_STORIES = 400, 200
"""Rows a report holds at most; the newest."""


@dataclass(frozen=True)
class Figure:
    """A headline figure: what it is, its value, and against what."""

    label: str
    value: str
    versus: str


@dataclass(frozen=True)
class View:
    """What was on the screen, in words: window, filters, bucket, zone (an IANA name), models (task, version), when it was made."""

    title: str
    window: str
    filters: str
    bucket: str
    zone: str
    headline: Sequence[Figure]
    models: str
    generated_at: str
    synthetic: bool = False


def html(view: View, *, series: pd.DataFrame, stories: pd.DataFrame, movers: pd.DataFrame, zone: dt.tzinfo) -> str:
    """The report. series: columns of index.series; stories: of index.stories; movers: key, now, before, change, n_stories."""
    from jinja2 import Environment

    page = Environment(autoescape=True, trim_blocks=False).from_string(TEMPLATE.read_text(encoding="utf-8"))
    return page.render(
        view=view,
        chart=_chart(series),
        buckets=list(_buckets(series.tail(MAX_BUCKETS), zone)),
        movers=list(_movers(movers)),
        stories=list(_stories(stories.head(MAX_STORIES), zone)),
    )


def _signed(value: float) -> str:
    shown = round(value, 2)
    return f"{'+' if shown > 0 else '−' if shown < 0 else '±'}{abs(shown):.2f}"


def _at(moment: Any, zone: dt.tzinfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"


def _buckets(series: pd.DataFrame, zone: dt.tzinfo) -> Iterator[Mapping[str, Any]]:
    for row in series[series["n_stories"] > 0].itertuples():
        yield {
            "at": _at(row.bucket, zone),
            "index": _signed(row.index) if row.enough else "not enough news",
            "band": f"{_signed(row.low)} to {_signed(row.high)}" if row.enough else "",
            "n_stories": f"{row.n_stories:,}", "n_negative": f"{row.n_negative:,}", "n_articles": f"{row.n_articles:,}",
        }  # fmt: skip


def _movers(movers: pd.DataFrame) -> Iterator[Mapping[str, Any]]:
    for row in movers.itertuples(index=False):
        glyph, side = ("▲", "up") if row.change > 0 else ("▼", "down") if row.change < 0 else ("", "")
        yield {
            "key": row.key, "now": _signed(row.now), "before": _signed(row.before), "change": f"{glyph} {_signed(row.change)}".strip(),
            "side": side, "n": f"{row.n_stories:,}",
        }  # fmt: skip


def _stories(stories: pd.DataFrame, zone: dt.tzinfo) -> Iterator[Mapping[str, Any]]:
    for row in stories.itertuples(index=False):
        href, host = text.web_address(row.url) or ("", "")
        glyph, side = {"positive": ("▲", "up"), "negative": ("▼", "down")}.get(row.sentiment, ("●", ""))
        yield {
            "at": _at(row.published_at, zone), "title": row.title, "href": href, "host": host, "source": row.source,
            "score": f"{glyph} {_signed(row.net)}", "side": side, "copies": f"{max(0, int(row.n_articles) - 1):,}",
        }  # fmt: skip


# ---------------------------------------------------------------- the chart, as numbers in an SVG


def _chart(series: pd.DataFrame) -> Mapping[str, Any] | None:
    """Coordinates of the index and its band, cut where the news is not enough; None without a single point."""
    rows = [
        (i, float(v), float(a), float(b))
        for i, (v, a, b, ok) in enumerate(zip(series["index"], series["low"], series["high"], series["enough"], strict=True))
        if ok and all(map(math.isfinite, (v, a, b)))
    ]
    if not rows:
        return None
    top, foot = max(0.0, *(row[3] for row in rows)), min(0.0, *(row[2] for row in rows))
    across = max(1, len(series) - 1)

    def x(i: int) -> str:
        return f"{WIDTH * i / across:.1f}"

    def y(value: float) -> str:
        return f"{4 + (HEIGHT - 8) * (top - value) / ((top - foot) or 1.0):.1f}"

    runs = list(_runs(rows))
    long = [run for run in runs if len(run) > 1]
    return {
        "width": WIDTH, "height": HEIGHT, "zero": y(0.0), "top": _signed(top), "foot": _signed(foot),
        "lines": [" ".join(f"{x(i)},{y(v)}" for i, v, _, _ in run) for run in long],
        "bands": [" ".join([f"{x(i)},{y(b)}" for i, _, _, b in run] + [f"{x(i)},{y(a)}" for i, _, a, _ in reversed(run)]) for run in long],
        "dots": [(x(run[0][0]), y(run[0][1])) for run in runs if len(run) == 1],
    }  # fmt: skip


def _runs(rows: Sequence[tuple[int, float, float, float]]) -> Iterator[list[tuple[int, float, float, float]]]:
    """Neighbouring buckets together; a gap in the news ends a run."""
    run: list[tuple[int, float, float, float]] = []
    for row in rows:
        if run and row[0] != run[-1][0] + 1:
            yield run
            run = []
        run.append(row)
    yield run
