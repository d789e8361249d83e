"""Figures of the Lab's studies: differences with their intervals, curves over labels, accuracy against speed.

Draws a study's tables; computes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages import figures, heat, ui

Row = Mapping[str, Any]
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")


def differences(rows: Sequence[Row], *, unit: str = "points of accuracy", factor: float = 100.0) -> go.Figure:
    """A dot with its interval for each row's difference `over`, a line at zero: right of it helps. Rows without one are left out."""
    t = ui.tokens()
    kept = [row for row in rows if row.get("over") is not None]
    fig = go.Figure()
    fig.add_vline(x=0, line={"color": t["flat"], "width": 1.5, "dash": "dot"})
    for place, row in enumerate(kept):
        color = side_color(row["over_low"], row["over_high"])
        ends = [factor * row["over_low"], factor * row["over_high"]]
        fig.add_scatter(x=ends, y=[place, place], mode="lines", line={"color": ui.rgba(color, 0.5), "width": 4}, hoverinfo="skip")
        fig.add_scatter(
            x=[factor * row["over"]], y=[place], mode="markers", marker={"size": 10, "color": color},
            hovertemplate=f"{figures.chart_text(row['title'])}: <b>{ui.signed(factor * row['over'], 1)}</b> {unit}<extra></extra>",
        )  # fmt: skip
        words = f"<b>{ui.signed(factor * row['over'], 1)}</b>  {side(row['over_low'], row['over_high'])}"
        fig.add_annotation(x=1, xref="paper", y=place, text=words, showarrow=False, xanchor="left", xshift=10, font={"size": 12})
    ui.desk(fig, 30 * len(kept) + 56, hovermode="closest", showlegend=False, margin={"l": 8, "r": 160, "t": 8, "b": 8, "pad": 6})
    names = [figures.chart_text(row["title"]) for row in kept]
    fig.update_yaxes(range=[len(kept) - 0.4, -0.6], showgrid=False, tickvals=list(range(len(kept))), ticktext=names, nticks=len(kept) + 1)
    return fig.update_xaxes(title_text=f"{unit}, against the first row of the table", showgrid=True, nticks=6)


def side(low: float, high: float) -> str:
    """What an interval says, in words."""
    return "helps" if low > 0 else "harms" if high < 0 else "not shown"


def side_color(low: float, high: float) -> str:
    t = ui.tokens()
    return t["up"] if low > 0 else t["down"] if high < 0 else t["flat"]


# ---------------------------------------------------------------- curves over labels


def place_of(shots: int, most: int) -> float:
    """Where a number of examples stands on the axis: 0, then powers of two, "all" (-1) one step beyond the most."""

    if shots == 0:
        return -1.0
    return math.log2(most) + 1.0 if shots < 0 else math.log2(shots)


def label_curves(points: pd.DataFrame, *, methods: Sequence[str]) -> go.Figure:
    """Accuracy against examples a class, a line a method with its 95 % band; colour, dash and symbol all tell them apart."""
    t = ui.tokens()
    most = max((int(s) for s in points["shots"] if s > 0), default=1)
    fig = go.Figure()
    for number, method in enumerate(methods):
        rows = points[points["method"] == method].assign(x=lambda f: [place_of(int(s), most) for s in f["shots"]]).sort_values("x")
        color = t["cat"][number % len(t["cat"])]
        title = figures.chart_text(str(rows["title"].iloc[0]))
        if len(rows) > 1:
            x, y = [*rows["x"], *rows["x"][::-1]], [*(100 * rows["high"]), *(100 * rows["low"][::-1])]
            band = {"mode": "lines", "fill": "toself", "fillcolor": ui.rgba(color, 0.10), "line": {"width": 0}}
            fig.add_scatter(x=x, y=y, hoverinfo="skip", showlegend=False, **band)
        fig.add_scatter(
            x=rows["x"], y=100 * rows["mean"], name=title, mode="lines+markers" if len(rows) > 1 else "markers",
            line={"color": color, "width": 2, "dash": DASHES[number % len(DASHES)]},
            marker={"size": 8 if len(rows) > 1 else 11, "color": color, "symbol": SYMBOLS[number % len(SYMBOLS)]},
            customdata=[[f"{100 * low:.1f}", f"{100 * high:.1f}"] for low, high in zip(rows["low"], rows["high"], strict=True)],
            hovertemplate=f"{title}: <b>%{{y:.1f}} %</b> (%{{customdata[0]}} to %{{customdata[1]}})<extra></extra>",
        )  # fmt: skip
    ui.desk(fig, 400, hovermode="closest", margin={"l": 8, "r": 12, "t": 30, "b": 8})
    seen = sorted({int(s) for s in points["shots"]}, key=lambda s: place_of(s, most))
    fig.update_xaxes(
        title_text="labelled examples a class", tickvals=[place_of(s, most) for s in seen], ticktext=[shots_told(s) for s in seen],
        nticks=len(seen) + 1,
    )  # fmt: skip
    return fig.update_yaxes(title_text="accuracy, %", showgrid=True)


def shots_told(shots: int) -> str:
    """A number of examples as the axis and tables say it."""
    return "none" if shots == 0 else "all" if shots < 0 else f"{shots:,}"


# ---------------------------------------------------------------- the board


def pareto(rows: Sequence[Row], *, reference: str, choice: str) -> go.Figure:
    """Accuracy against texts a second (log), with intervals; the front as a line, the reference grey, the chosen one ringed."""
    t = ui.tokens()
    fig = go.Figure()
    front = sorted((row for row in rows if row["on_front"]), key=lambda row: row["texts_per_s"])
    if len(front) > 1:
        fig.add_scatter(
            x=[row["texts_per_s"] for row in front], y=[100 * row["accuracy"] for row in front], mode="lines", hoverinfo="skip",
            line={"color": ui.rgba(t["accent"], 0.45), "width": 2, "shape": "vh"},
        )  # fmt: skip
    for place, row in enumerate(sorted(rows, key=lambda row: row["texts_per_s"])):
        color = t["flat"] if row["version"] == reference else t["accent"] if row["on_front"] else t["muted"]
        chosen = row["version"] == choice
        name = figures.chart_text(row["title"])
        fig.add_scatter(
            x=[row["texts_per_s"]], y=[100 * row["accuracy"]], mode="markers+text",
            marker={"size": 14, "color": t["bg"], "line": {"width": 3, "color": color}} if chosen else {"size": 10, "color": color},
            error_y={"type": "data", "symmetric": False, "array": [100 * (row["high"] - row["accuracy"])], "color": ui.rgba(color, 0.45),
                     "arrayminus": [100 * (row["accuracy"] - row["low"])], "thickness": 2, "width": 0},
            text=[f"<b>{name}</b>" if chosen else name], textposition="top center" if place % 2 else "bottom center",
            cliponaxis=False, textfont={"size": 12, "color": t["muted"]},
            hovertemplate=f"<b>{name}</b><br>%{{y:.1f}} % right, %{{x:,.0f}} texts/s<extra></extra>",
        )  # fmt: skip
    ui.desk(fig, 400, hovermode="closest", showlegend=False, margin={"l": 8, "r": 40, "t": 24, "b": 8})
    low, high = (end(row["texts_per_s"] for row in rows) for end in (min, max))
    ticks = [n * 10**power for power in range(7) for n in (1, 2, 5) if low / 2 <= n * 10**power <= 2 * high]
    reach = [math.log10(low) - 0.15, math.log10(high) + 0.15]
    words = [f"{tick:,}" for tick in ticks]
    fig.update_xaxes(
        type="log", title_text="texts a second (log scale)", showgrid=True, tickvals=ticks, ticktext=words, nticks=20, range=reach
    )
    return fig.update_yaxes(title_text="accuracy on held-out rows, %", showgrid=True)


def slice_heat(rows: Sequence[Row], parts: Sequence[str], *, n: Mapping[str, int]) -> go.Figure:
    """Accuracy of each version on each slice, %; darker is better. None is left blank. n: the rows of a slice."""
    z = [[100 * row["slices"][part] if part in row["slices"] else None for part in parts] for row in rows]
    told = [[f"{row['title']}, {part}: {'' if v is None else f'{v:.1f} %'}" for part, v in zip(parts, line, strict=True)]
            for row, line in zip(rows, z, strict=True)]  # fmt: skip
    text = [["" if value is None else f"{value:.1f}" for value in line] for line in z]
    fig = go.Figure()
    heat.add(fig, x=list(range(len(parts))), z=z, text=text, top=100.0, told=told)
    ui.desk(fig, 32 * len(rows) + 84, hovermode="closest", showlegend=False)
    names = [figures.chart_text(row["title"]) for row in rows]
    at = list(range(len(rows)))
    fig.update_yaxes(range=[len(rows) - 0.5, -0.5], showgrid=False, tickvals=at, ticktext=names, nticks=len(rows) + 1)
    heads = [f"{figures.chart_text(part.split(': ', 1)[-1])}<br>n {n.get(part, 0):,}" for part in parts]
    return fig.update_xaxes(
        side="top", ticks="", tickangle=0, range=[-0.5, len(parts) - 0.5], tickvals=list(range(len(parts))), ticktext=heads,
    )  # fmt: skip
