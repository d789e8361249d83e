"""The figures of the Alerts page: ninety days at a glance, the exact split of an excess as a waterfall, the points that fired, a backtest.

Draws data frames and splits of fmcore.sentiment; never asks for one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pages import figures, ui
from pages import sentiment_charts as charts

SEVERITIES = ("high", "medium", "low")


def strip(fired: pd.DataFrame, *, days: int, today: dt.date) -> go.Figure:
    """Alerts a UTC day, stacked by severity, the most severe at the foot. fired: columns at (aware), severity."""
    t = ui.tokens()
    every = pd.date_range(today - dt.timedelta(days=days - 1), periods=days, freq="D")
    day = fired["at"].dt.tz_convert("UTC").dt.tz_localize(None).dt.normalize()
    fig = go.Figure()
    for severity in SEVERITIES:
        counts = day[fired["severity"] == severity].value_counts().reindex(every, fill_value=0)
        name = ui.SEVERITY[severity][0]
        fig.add_bar(
            x=every, y=counts.to_numpy(), name=name, marker={"color": t["severity"][severity], "line_width": 0},
            hovertemplate=f"{name}: <b>%{{y}}</b><extra></extra>",
        )  # fmt: skip
    ui.desk(fig, 150, barmode="stack", bargap=0.3, legend={"x": 1, "xanchor": "right", "traceorder": "normal"})
    first, last = pd.Timestamp(every[0], tz="UTC"), pd.Timestamp(every[-1], tz="UTC")
    half = pd.Timedelta(hours=12)
    charts.time_axis(fig, first - half, last + half, dt.UTC, hoverformat="%a %d %b")
    highest = int(day.value_counts().max()) if len(day) else 1
    fig.update_yaxes(dtick=-(-highest // 3), range=[0, 1.08 * highest], tickformat=",d")
    return fig


def strip_words(fired: pd.DataFrame, days: int) -> str:
    """The strip in words."""
    counts = fired["severity"].value_counts()
    told = ", ".join(f"{counts.get(severity, 0)} {severity}" for severity in SEVERITIES)
    return f"Alerts a day over {days} days: {told}."


def waterfall(parts: Sequence[Mapping[str, Any]], *, expected: float, value: float, of_index: bool) -> go.Figure:
    """From what was expected to what came, part by part. Vermilion is more bad news, teal less; the sign stands at each bar."""
    t = ui.tokens()
    sizes = [float(part["part"]) for part in parts]
    ends = expected + np.cumsum(sizes)
    begins = np.concatenate([[expected], ends[:-1]])
    worse = [(s < 0) if of_index else (s > 0) for s in sizes]
    names = ["Expected", *(figures.chart_text(str(part.get("label") or part["name"])) for part in parts), "<b>What came</b>"]
    bases = [0.0, *begins.tolist(), 0.0]
    lengths = [expected, *sizes, value]
    colors = [t["flat"], *(t["down"] if bad else t["up"] for bad in worse), t["total"]]
    digits = 2 if of_index else 1
    texts = [_plain(expected, digits, of_index), *(f"{'▲' if s > 0 else '▼' if s < 0 else ''} {ui.signed(s, digits)}" for s in sizes),
             f"<b>{_plain(value, digits, of_index)}</b>"]  # fmt: skip
    rows = [str(i) for i in range(len(names))]
    fig = go.Figure(
        go.Bar(
            y=rows, x=lengths, base=bases, orientation="h", width=0.62, marker={"color": colors, "line_width": 0},
            customdata=[[name, words] for name, words in zip(names, texts, strict=True)],
            hovertemplate="%{customdata[0]}: <b>%{customdata[1]}</b><extra></extra>",
        )
    )  # fmt: skip
    tips = [max(base, base + length) for base, length in zip(bases, lengths, strict=True)]
    for row, tip, words in zip(rows, tips, texts, strict=True):
        fig.add_annotation(x=tip, y=row, text=words, showarrow=False, xanchor="left", xshift=6, font={"size": 12, "color": t["muted"]})
    for i, end in enumerate([expected, *ends[:-1].tolist()]):
        fig.add_shape(type="line", x0=end, x1=end, y0=i + 0.31, y1=i + 0.69, line={"color": ui.NEUTRAL, "width": 1})
    ui.desk(fig, 30 * len(rows) + 44, hovermode="closest", showlegend=False, margin={"l": 8, "r": 16, "t": 4, "b": 8})
    low, high = min(0.0, *bases, *tips), max(0.0, *tips)
    fig.update_xaxes(range=[low - 0.02 * (high - low), high + 0.16 * (high - low)], nticks=6, showgrid=True)
    fig.update_yaxes(autorange="reversed", showgrid=False, tickvals=rows, ticktext=names, nticks=len(rows) + 1)
    fig.add_vline(x=0, line={"color": ui.NEUTRAL, "width": 1})
    return fig


def _plain(value: float, digits: int, of_index: bool) -> str:
    return ui.signed(value, digits) if of_index else f"{value:.{digits}f}"


def history(
    series: pd.DataFrame,
    points: pd.DataFrame,
    *,
    bucket: str,
    zone: dt.tzinfo,
    of_index: bool,
    starts_at: dt.datetime,
    ends_at: dt.datetime,
) -> go.Figure:
    """What an alert is about, before and while it stood: negative stories a bucket, or the index; the buckets that fired as diamonds.

    series: columns of index.series. points: columns bucket_at (naive UTC), value, expected. The tint is the time it stood open.
    """
    t = ui.tokens()
    x = charts.positions(series["bucket"])
    names = charts.told(series["bucket"], charts.SPAN[bucket], zone)
    fig = go.Figure()
    if of_index:
        y = series["index"].where(series["enough"].astype(bool)).to_numpy(dtype=float)
        fig.add_scatter(
            x=x, y=y, mode="lines+markers", line={"color": t["accent"], "width": 2}, marker={"size": 4}, customdata=names,
            hovertemplate="%{customdata}<br>index <b>%{y:+.2f}</b><extra></extra>",
        )  # fmt: skip
    else:
        y = series["n_negative"].to_numpy(dtype=float)
        facts = list(zip(names, series["n_stories"], strict=True))
        fig.add_bar(
            x=x, y=y, marker={"color": ui.rgba(t["accent"], 0.75), "line_width": 0}, customdata=facts,
            hovertemplate="%{customdata[0]}<br><b>%{y}</b> negative of %{customdata[1]} stories<extra></extra>",
        )  # fmt: skip
    _fired(fig, points, x, y, t, of_index)
    ui.desk(fig, 200, hovermode="x unified", showlegend=False, margin={"l": 8, "r": 8, "t": 14, "b": 8})
    end = series["bucket"].iloc[-1] + pd.Timedelta(seconds=charts.SPAN[bucket])
    half = pd.Timedelta(seconds=0 if of_index else charts.SPAN[bucket] / 2)
    charts.time_axis(fig, series["bucket"].iloc[0] - half, end, zone, unifiedhovertitle={"text": "\u200b"})
    fig.add_vrect(
        x0=pd.Timestamp(starts_at).tz_convert("UTC").tz_localize(None), x1=pd.Timestamp(ends_at).tz_convert("UTC").tz_localize(None),
        fillcolor=ui.rgba(t["alert"], 0.08), line_width=0, layer="below",
    )  # fmt: skip
    if of_index:
        known = np.concatenate([y[~np.isnan(y)], points["value"].to_numpy(dtype=float), [0.0]])
        low, high = known.min() - 0.05, known.max() + 0.05
        fig.update_yaxes(range=[low, high])
        charts.score_ticks(fig, low, high)
        fig.add_hline(y=0, line={"color": ui.NEUTRAL, "width": 1})
    else:
        fig.update_yaxes(rangemode="tozero", nticks=4)
    return fig


def _fired(fig: go.Figure, points: pd.DataFrame, x: np.ndarray, y: np.ndarray, t: Mapping[str, Any], of_index: bool) -> None:
    """A diamond on each bucket that was out of the ordinary."""
    at = points["bucket_at"].to_numpy(dtype="datetime64[us]")
    where = np.searchsorted(x.astype("datetime64[us]"), at, side="right") - 1
    inside = (where >= 0) & (where < len(x))
    if not inside.any():
        return
    # a count stands on its bar; an index was judged over a longer window than a bucket, so it stands where it was
    across = at[inside] if of_index else x[where[inside]]
    height = points.loc[inside, "value"].to_numpy() if of_index else y[where[inside]]
    unit = "index" if of_index else "in the window"
    facts = [
        [f"{v:.2f}" if of_index else f"{v:.0f}", f"{e:.2f}" if of_index else f"{e:.1f}"]
        for v, e in points.loc[inside, ["value", "expected"]].to_numpy()
    ]
    fig.add_scatter(
        x=across, y=height, mode="markers", customdata=facts, cliponaxis=False,
        marker={"symbol": "diamond", "size": 10, "color": t["alert"], "line": {"color": t["bg"], "width": 1.5}},
        hovertemplate=f"fired: %{{customdata[0]}} {unit}, %{{customdata[1]}} expected<extra></extra>",
    )  # fmt: skip


def trade_off(tests: Sequence[Any], chosen: float) -> go.Figure:
    """Alerts a week against the share of labelled events found, one point a sensitivity, the chosen one a diamond."""
    t = ui.tokens()
    found = [len(test.hits) / (n or 1) for test in tests for n in [len(test.hits) + len(test.misses)]]
    labelled = any(test.hits or test.misses for test in tests)
    x = [f"{test.rule.sensitivity:.2f}" for test in tests]
    here = [test.rule.sensitivity == chosen for test in tests]
    fig = go.Figure()
    fig.add_bar(
        x=x, y=[test.per_week for test in tests],
        marker={"color": [ui.rgba(t["accent"], 0.9 if is_it else 0.35) for is_it in here], "line_width": 0},
        text=[f"{test.per_week:.1f}" for test in tests], textposition="outside", cliponaxis=False,
        hovertemplate="sensitivity %{x}: <b>%{y:.1f}</b> alerts a week<extra></extra>",
    )  # fmt: skip
    if labelled:
        fig.add_scatter(
            x=x, y=[100 * share for share in found], yaxis="y2", mode="lines+markers", line={"color": t["total"], "width": 1.5},
            marker={"size": [11 if is_it else 7 for is_it in here], "symbol": ["diamond" if is_it else "circle" for is_it in here]},
            hovertemplate="%{y:.0f} % of the labelled events found<extra></extra>",
        )  # fmt: skip
    ui.desk(fig, 220, showlegend=False, margin={"l": 8, "r": 8, "t": 20, "b": 8})
    fig.update_xaxes(type="category", title_text="sensitivity")
    fig.update_yaxes(rangemode="tozero", nticks=4, title_text="alerts a week")
    fig.update_layout(
        yaxis={"range": [0, 1.25 * max([test.per_week for test in tests] + [0.5])]},
        yaxis2={"overlaying": "y", "side": "right", "range": [0, 125], "tickvals": [0, 50, 100], "ticktext": ["0 %", "50 %", "100 %"],
                "showgrid": False, "title": {"text": "events found" if labelled else ""}, "visible": labelled},
    )  # fmt: skip
    return fig


def trade_off_words(tests: Sequence[Any]) -> str:
    """The chart in words."""
    return "; ".join(f"sensitivity {test.rule.sensitivity:.2f}: {test.sentence}" for test in tests)
