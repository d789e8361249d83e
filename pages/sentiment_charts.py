"""The figures of the news room: the index with its band, heat, price and alerts; topic against time; time axes in the viewer's zone.

Draws data frames of fmcore.sentiment; never asks for one. Positions are UTC, words are in the viewer's zone: no hour is twice or missing.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pages import figures, ui

SPAN = {"5min": 300, "15min": 900, "1h": 3600, "6h": 21_600, "1d": 86_400}
"""Bucket -> seconds."""

PLAIN = {"showscale": False, "hoverongaps": False, "xgap": 0, "ygap": 2}


# ---------------------------------------------------------------- time


def positions(moments: pd.Series) -> np.ndarray:
    """Aware moments as naive UTC: where they stand on a time axis."""
    return pd.DatetimeIndex(moments).tz_convert("UTC").tz_localize(None).to_numpy()


def told(moments: pd.Series, bucket_s: int, zone: dt.tzinfo) -> list[str]:
    """What each bucket is called: "Mon 23 Nov, UTC day", and below a day in the viewer's zone: "Mon 23 Nov 14:00–15:00 CET"."""
    starts = pd.DatetimeIndex(moments).tz_convert(dt.UTC if bucket_s >= 86_400 else zone)
    if bucket_s >= 86_400:
        return [f"{m:%a} {m.day} {m:%b}, UTC day" for m in starts]
    ends = pd.DatetimeIndex(moments + pd.Timedelta(seconds=bucket_s)).tz_convert(zone)
    return [f"{a:%a} {a.day} {a:%b %H:%M}–{b:%H:%M} {a:%Z}" for a, b in zip(starts, ends, strict=True)]


def time_axis(fig: go.Figure, start: dt.datetime, end: dt.datetime, zone: dt.tzinfo, *, few: bool = False, **axis: Any) -> None:
    """Ticks at whole hours, days, weeks or months of the viewer's zone, from start to end and not a month further."""
    hours = (end - start).total_seconds() / 3600
    freq, words = next(
        (freq, words)
        for limit, freq, words in (
            (9, "1h", "%H:%M"), (40, "6h", "%H:%M"), (24 * 9, "1D", "%a {day}"), (24 * 20, "2D", "{day} %b"),
            (24 * 75, "7D", "{day} %b"), (24 * 200, "MS", "%b"), (1e9, "3MS", "%b %Y"),
        )
        if hours <= limit
    )  # fmt: skip
    first = pd.Timestamp(start).tz_convert(zone).floor("h") if hours <= 9 else pd.Timestamp(start).tz_convert(zone).normalize()
    ticks = [tick for tick in pd.date_range(first, pd.Timestamp(end).tz_convert(zone), freq=freq) if tick >= pd.Timestamp(start)]
    if few and len(ticks) > 5:
        ticks = ticks[:: -(-len(ticks) // 5)]
    fig.update_xaxes(
        range=[_naive(start), _naive(end)], tickvals=[_naive(tick) for tick in ticks],
        ticktext=[_date_where_it_changes(tick, words, i, ticks) for i, tick in enumerate(ticks)], **axis,
    )  # fmt: skip


def _date_where_it_changes(tick: pd.Timestamp, words: str, i: int, ticks: list[pd.Timestamp]) -> str:
    text = tick.strftime(words.replace("{day}", str(tick.day)))
    new_day = "%H" in words and (i == 0 or tick.date() != ticks[i - 1].date())
    return f"{text}<br>{tick.day} {tick:%b}" if new_day else text


def _naive(moment: dt.datetime) -> dt.datetime:
    return pd.Timestamp(moment).tz_convert("UTC").tz_localize(None).to_pydatetime()


# ---------------------------------------------------------------- the index


def index_chart(
    series: pd.DataFrame, *, bucket: str, zone: dt.tzinfo, alerts: pd.DataFrame | None = None, prices: pd.DataFrame | None = None
) -> go.Figure:
    """The index with its 95 % band, how many stories and articles stand behind it, the price where there is one, and alerts.

    series: the columns of index.series. alerts: columns at (aware), words. prices: columns priced_at (aware), close.
    """
    t = ui.tokens()
    fig = go.Figure()
    x = positions(series["bucket"])
    y, low, high = (series[name].where(series["enough"].astype(bool)).to_numpy(dtype=float) for name in ("index", "low", "high"))
    _band(fig, x, low, high, t)
    _line(fig, series, x, y, low, high, told(series["bucket"], SPAN[bucket], zone), t)
    floor = _score_range(low, high, y)
    _too_little(fig, series, x, floor[0], t)
    if alerts is not None and len(alerts):
        _alerts(fig, alerts, x, y, t)
    _heat(fig, series, x, t)
    with_price = prices is not None and len(prices) > 0
    if with_price:
        _price(fig, prices, t)
    ui.desk(fig, "large", showlegend=False, hoversubplots="axis", clickmode="event+select", margin={"l": 8, "r": 48, "t": 22, "b": 8})
    end = series["bucket"].iloc[-1] + pd.Timedelta(seconds=SPAN[bucket])
    zone = dt.UTC if SPAN[bucket] >= 86_400 else zone
    time_axis(fig, series["bucket"].iloc[0], end, zone, anchor="y2", unifiedhovertitle={"text": "\u200b"})
    middle = [0.40, 1] if with_price else [0.20, 1]
    fig.update_layout(
        yaxis={"domain": middle, "range": floor},
        yaxis2={"domain": [0, 0.12], "anchor": "x", "showgrid": False, "tickvals": ["Stories", "Articles"], "autorange": "reversed"},
    )
    score_ticks(fig, *floor)
    if with_price:
        fig.update_layout(yaxis3={"domain": [0.18, 0.34], "anchor": "x", "nticks": 3, "tickfont": {"size": 12, "color": t["muted"]}})
    fig.add_shape(type="line", x0=0, x1=1, xref="x domain", y0=0, y1=0, line={"color": ui.NEUTRAL, "width": 1})
    return fig


def _band(fig: go.Figure, x: np.ndarray, low: np.ndarray, high: np.ndarray, t: dict[str, Any]) -> None:
    """One filled run of the band a stretch of buckets with enough news: a gap in the news is a gap in the band."""
    for run in stretches(~np.isnan(low)):
        if len(run) == 1:
            continue
        around = np.concatenate([x[run], x[run][::-1]])
        fig.add_scatter(
            x=around, y=np.concatenate([high[run], low[run][::-1]]), fill="toself", mode="none",
            fillcolor=ui.rgba(t["accent"], 0.16), hoverinfo="skip",
        )  # fmt: skip


def stretches(there: np.ndarray) -> list[np.ndarray]:
    """The positions of each unbroken run of True."""
    at = np.flatnonzero(there)
    return np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if len(at) else []


def _line(
    fig: go.Figure, series: pd.DataFrame, x: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray, names: list[str], t: dict
) -> None:
    ends = [f" ({ui.signed(a)} to {ui.signed(b)})" if a == a else "" for a, b in zip(low, high, strict=True)]
    said = [_cell_words(v) + around for v, around in zip(y, ends, strict=True)]
    facts = [
        [name, words, f"{n:,}", f"{bad:,}"]
        for name, words, n, bad in zip(names, said, series["n_stories"], series["n_negative"], strict=True)
    ]
    alone = [run[0] for run in stretches(~np.isnan(y)) if len(run) == 1]
    size = np.full(len(y), 5 if len(y) <= 120 else 3)
    size[alone] = 7
    fig.add_scatter(
        x=x, y=y, mode="lines+markers", line={"color": t["accent"], "width": 2},
        marker={"size": size, "color": t["accent"], "line_width": 0},
        customdata=facts, connectgaps=False, name="index", unselected={"marker": {"opacity": 1}},
        selected={"marker": {"color": t["alert"]}},
        hovertemplate="%{customdata[0]}<br><b>%{customdata[1]}</b><br>%{customdata[2]} stories, %{customdata[3]} negative<extra></extra>",
    )  # fmt: skip
    last = int(np.flatnonzero(~np.isnan(y))[-1]) if (~np.isnan(y)).any() else None
    if last is not None:
        fig.add_annotation(
            x=x[last], y=y[last], text=f"<b>{ui.signed(float(y[last]))}</b>", showarrow=False, xanchor="left", xshift=12,
            font={"size": 13, "color": t["accent"]},
        )  # fmt: skip


def _too_little(fig: go.Figure, series: pd.DataFrame, x: np.ndarray, floor: float, t: dict[str, Any]) -> None:
    """A short grey tick at the foot of the chart for each bucket with some news, but not enough for a point."""
    thin = ~series["enough"].astype(bool).to_numpy() & (series["n_stories"].to_numpy() > 0)
    if thin.any():
        marker = {"symbol": "line-ns", "size": 8, "line": {"color": t["flat"], "width": 1.5}}
        fig.add_scatter(x=x[thin], y=np.full(thin.sum(), floor), mode="markers", marker=marker, hoverinfo="skip", cliponaxis=False,
                        unselected={"marker": {"opacity": 1}})  # fmt: skip


def _alerts(fig: go.Figure, alerts: pd.DataFrame, x: np.ndarray, y: np.ndarray, t: dict[str, Any]) -> None:
    """Magenta diamonds on the line where the alerts began, the newest with its words beside it."""
    at = positions(alerts["at"])
    known = ~np.isnan(y)
    height = np.interp(_seconds(at), _seconds(x[known]), y[known]) if known.any() else np.zeros(len(at))
    words = [figures.chart_text(w) for w in alerts["words"]]
    fig.add_scatter(
        x=at, y=height, mode="markers", customdata=words, name="alert", cliponaxis=False,
        marker={"symbol": "diamond", "size": 11, "color": t["alert"], "line": {"color": t["bg"], "width": 1.5}},
        unselected={"marker": {"opacity": 1}}, hovertemplate="Alert: %{customdata}<extra></extra>",
    )  # fmt: skip
    newest = int(np.argmax(at))
    late = len(x) > 1 and (at[newest] - x[0]) > 0.6 * (x[-1] - x[0])
    fig.add_shape(
        type="line", x0=at[newest], x1=at[newest], y0=height[newest], y1=1, yref="y", line={"color": ui.rgba(t["alert"], 0.5), "width": 1},
    )  # fmt: skip
    fig.add_annotation(
        x=at[newest], y=1, yref="y domain", text=words[newest], showarrow=False, yanchor="bottom", xanchor="right" if late else "left",
        font={"size": 12, "color": t["alert"]},
    )  # fmt: skip


def _seconds(at: np.ndarray) -> np.ndarray:
    return at.astype("datetime64[s]").astype(float)


def _heat(fig: go.Figure, series: pd.DataFrame, x: np.ndarray, t: dict[str, Any]) -> None:
    """Two rows of heat under the index: stories, which count for sentiment, and articles, which count for heat."""
    counts = np.array([series["n_stories"], series["n_articles"]], dtype=float)
    top = counts.max(axis=1, keepdims=True)
    fig.add_heatmap(
        x=x, y=["Stories", "Articles"], z=counts / np.where(top > 0, top, 1), customdata=counts, yaxis="y2", colorscale=t["seqscale"],
        zmin=0, zmax=1, hovertemplate="%{y}: %{customdata:,}<extra></extra>", **PLAIN,
    )  # fmt: skip


def _price(fig: go.Figure, prices: pd.DataFrame, t: dict[str, Any]) -> None:
    fig.add_scatter(
        x=positions(prices["priced_at"]), y=prices["close"], mode="lines", line={"color": t["total"], "width": 1.5}, yaxis="y3",
        name="price", hovertemplate="Price: <b>%{y:,.2f}</b><extra></extra>",
    )  # fmt: skip


def _score_range(*parts: np.ndarray) -> list[float]:
    """A symmetric enough range that holds the band, zero, and some air; never wider than [-1, 1]."""
    values = np.concatenate(parts)
    values = values[~np.isnan(values)]
    low, high = (min(values.min(), 0.0), max(values.max(), 0.0)) if len(values) else (-0.5, 0.5)
    air = max(0.05, 0.08 * (high - low))
    return [max(-1.05, low - air), min(1.05, high + air)]


def score_ticks(fig: go.Figure, low: float, high: float, **axis: Any) -> None:
    """Signed ticks with a real minus on the first y axis: +0.2, 0, −0.2."""
    step = next((s for s in (0.05, 0.1, 0.2, 0.5) if (high - low) / s <= 6), 0.5)
    values = np.round(np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step, 6)
    digits = 2 if step < 0.1 else 1
    texts = ["0" if abs(v) < 1e-9 else ui.signed(float(v), digits) for v in values]
    fig.update_layout(yaxis={"tickvals": values, "ticktext": texts, **axis})


# ---------------------------------------------------------------- heat map


def heat_chart(
    heat: pd.DataFrame, *, bucket: str, zone: dt.tzinfo, start: dt.datetime | None = None, end: dt.datetime | None = None
) -> go.Figure:
    """Net score by key and time; a cell with too little news is blank. heat: the columns of index.heat, in the order of keys to draw.

    Heat maps cannot be clicked, so an unseen square stands on each cell; its customdata is (key, bucket as ISO text).
    """
    t = ui.tokens()
    span = pd.Timedelta(seconds=SPAN[bucket])
    first, last = pd.Timestamp(start or heat["bucket"].min()), pd.Timestamp(end) - pd.Timedelta(seconds=1) if end else heat["bucket"].max()
    every = pd.date_range(first.floor(span), last, freq=span, name="bucket")
    keys = list(dict.fromkeys(heat["key"]))
    shown = {key: figures.chart_text(key) for key in keys}
    wide = heat.pivot(index="key", columns="bucket", values="index").reindex(index=keys, columns=every)
    stories = heat.pivot(index="key", columns="bucket", values="n_stories").reindex(index=keys, columns=every)
    buckets = pd.Series(wide.columns)
    plot, below = max(96, 34 * len(keys)), 52 if SPAN[bucket] < 86_400 else 36  # px: the cells, and what the ticks take under them
    limit = _limit(wide.to_numpy(dtype=float))
    x = positions(buckets)
    labels = [shown[key] for key in keys]
    fig = go.Figure(
        go.Heatmap(
            x=x, y=labels, z=wide.to_numpy(dtype=float), colorscale=t["signedscale"], zmid=0, zmin=-limit, zmax=limit, xgap=1.5, ygap=1.5,
            hoverinfo="skip", hoverongaps=False,
            colorbar={
                "orientation": "h", "y": -below / plot, "yanchor": "top", "len": 0.55, "x": 1, "xanchor": "right", "thickness": 8,
                "outlinewidth": 0, "tickvals": [-limit, 0, limit], "ticktext": [f"−{limit:.1f} ▼", "0", f"▲ +{limit:.1f}"],
                "tickfont": {"size": 12, "color": t["muted"]},
            },
        )
    )  # fmt: skip
    when = told(buckets, SPAN[bucket], zone)
    cells = [
        (x[j], labels[i], [keys[i], buckets[j].isoformat(), when[j], _cell_words(wide.iat[i, j]), f"{stories.iat[i, j]:,.0f}"])
        for i in range(len(keys)) for j in range(len(x)) if stories.iat[i, j] > 0
    ]  # fmt: skip
    fig.add_scatter(
        x=[c[0] for c in cells], y=[c[1] for c in cells], customdata=[c[2] for c in cells], mode="markers", name="cell",
        marker={"symbol": "square", "size": 14, "opacity": 0}, unselected={"marker": {"opacity": 0}},
        hovertemplate="%{y}, %{customdata[2]}<br><b>%{customdata[3]}</b><br>%{customdata[4]} stories<extra></extra>",
    )  # fmt: skip
    ui.desk(fig, plot + below + 56, hovermode="closest", clickmode="event+select", showlegend=False)
    fig.update_yaxes(autorange="reversed", showgrid=False, dtick=1)
    zone = dt.UTC if SPAN[bucket] >= 86_400 else zone
    # a heat map's cells are centred on their position
    time_axis(fig, buckets.iloc[0] - span / 2, buckets.iloc[-1] + span / 2, zone, few=True)
    return fig


def _limit(values: np.ndarray) -> float:
    """The end of the colour scale: what all but the strongest cells stay within, at least 0.2, in steps of 0.1."""
    known = np.abs(values[~np.isnan(values)])
    return float(np.clip(np.ceil(10 * np.quantile(known, 0.98)) / 10, 0.2, 1.0)) if len(known) else 1.0


def _cell_words(value: float) -> str:
    return "not enough news" if np.isnan(value) else ui.signed(float(value))
