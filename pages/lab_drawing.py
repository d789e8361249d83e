"""What the views of the Lab page draw alike: bars of shares, a ring on a curve, a button that draws lots anew.

Owns their look; never a figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from pages import figures, ui


def shares(names: Sequence[str], values: Sequence[float], *, key: str, words: str, best: int | None = None) -> None:
    """Horizontal bars of shares in [0, 1], each with its number; `best` is drawn in full colour, the rest paler."""
    t = ui.tokens()
    rows = [str(i) for i in range(len(names))]
    colors = [t["accent"] if best is None or i == best else ui.rgba(t["accent"], 0.38) for i in range(len(names))]
    text = [figures.chart_text(figures.probability(value)) for value in values]
    fig = go.Figure(
        go.Bar(
            y=rows, x=[100 * value for value in values], orientation="h", width=0.6, marker={"color": colors, "line_width": 0}, text=text,
            textposition="outside", textfont={"size": 12, "color": t["muted"]}, cliponaxis=False, hoverinfo="skip",
        )
    )  # fmt: skip
    ui.desk(fig, 32 * len(names) + 44, hovermode="closest", margin={"l": 8, "r": 48, "t": 8, "b": 8})
    fig.update_xaxes(range=[0, 100], tickvals=[0, 50, 100], ticktext=["0%", "50%", "100%"])
    fig.update_yaxes(autorange="reversed", showgrid=False, tickvals=rows, ticktext=[figures.chart_text(n) for n in names], nticks=20)
    ui.show(fig, key, words)


def again(name: str) -> int:
    """A button that draws lots anew; returns the number of the draw."""
    key = f"draw-{name}"
    st.session_state.setdefault(key, 1)
    st.button("Draw again", key=f"again-{name}", icon=":material/casino:", on_click=_next, args=(key,))
    return st.session_state[key]


def _next(key: str) -> None:
    st.session_state[key] += 1


def line(fig: go.Figure, x: Any, y: Any, *, context: bool = False, mode: str = "lines") -> go.Figure:
    """Add a curve: the one that matters in full colour, or one for context, grey and dotted."""
    t = ui.tokens()
    look = {"color": t["flat"], "width": 1.5, "dash": "dot"} if context else {"color": t["accent"], "width": 2}
    return fig.add_scatter(x=x, y=y, mode=mode, line=look, hoverinfo="skip")


@dataclass(frozen=True)
class Curve:
    """A line of a chart, with what stands at its end. words are plain; a context line is grey and dotted."""

    x: Sequence[float]
    y: Sequence[float]
    words: str
    color: str = ""
    context: bool = False
    dots: bool = False


def curves(drawn: Sequence[Curve], *, height: int | str = "medium", unit: str, digits: int = 1, zero: bool = False) -> go.Figure:
    """Lines named at their ends with the newest value; names that would lie on one another are pushed apart. zero: the axis begins at 0."""
    t = ui.tokens()
    fig = go.Figure()
    for one in drawn:
        color = t["flat"] if one.context else one.color or t["accent"]
        fig.add_scatter(
            x=list(one.x), y=list(one.y), mode="lines+markers" if one.dots else "lines", marker={"size": 6, "color": color},
            line={"color": color, "width": 1.5 if one.context else 2, "dash": "dot" if one.context else "solid"},
            hovertemplate=f"{figures.chart_text(one.words)}: <b>%{{y:,.{max(digits, 2) if digits else 0}f}}</b> {unit}<extra></extra>",
        )  # fmt: skip
    labels = [f"{one.y[-1]:,.{digits}f} {one.words}" for one in drawn]
    ui.desk(fig, height, showlegend=False, margin={"l": 8, "r": 34 + 7 * max(map(len, labels)), "t": 12, "b": 8})
    seen = [value for one in drawn for value in one.y]
    low, high = (0.0 if zero else min(seen)), max(seen)
    room = 0.08 * (high - low) or abs(high) * 0.1 or 1.0
    low = low if zero else low - room
    fig.update_yaxes(range=[low, high + room], nticks=5)
    line_height = 17 * (high + room - low) / max(60, fig.layout.height - 50)
    ordered = sorted(drawn, key=lambda one: -one.y[-1])
    for one, at in zip(ordered, _apart([one.y[-1] for one in ordered], line_height, low), strict=True):
        color = t["flat"] if one.context else one.color or t["accent"]
        glyph = "┅" if one.context else "━"
        words = f'<span style="color:{color}">{glyph}</span> <b>{one.y[-1]:,.{digits}f}</b> {figures.chart_text(one.words)}'
        fig.add_annotation(x=1, xref="paper", y=at, text=words, showarrow=False, xanchor="left", xshift=6, font={"size": 12})
    return fig


def _apart(heights: Sequence[float], least: float, floor: float) -> list[float]:
    """Heights in falling order, moved so that no two are nearer than `least` and none lies under the floor."""
    at: list[float] = []
    for height in heights:
        at.append(min(height, at[-1] - least) if at else height)
    lowest = floor + least / 2
    for i in range(len(at) - 1, -1, -1):
        at[i] = max(at[i], lowest)
        lowest = at[i] + least
    return at


def place(fig: go.Figure, x: float, y: float, words: str, *, where: str = "top center") -> None:
    """A ring on the curve where the slider is, with its number."""
    t = ui.tokens()
    marker = {"size": 12, "color": t["bg"], "line": {"width": 3, "color": t["accent"]}}
    fig.add_scatter(
        x=[x], y=[y], mode="markers+text", marker=marker, text=[f"<b>{words}</b>"], textposition=where, cliponaxis=False,
        hoverinfo="skip", textfont={"size": 12, "color": t["muted"]},
    )  # fmt: skip
