"""What the views of the Lab page draw alike: bars of shares, a ring on a curve, a button that draws lots anew.

Owns their look; never a figure.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def place(fig: go.Figure, x: float, y: float, words: str, *, where: str = "top center") -> None:
    """A ring on the curve where the slider is, with its number."""
    t = ui.tokens()
    marker = {"size": 12, "color": t["bg"], "line": {"width": 3, "color": t["accent"]}}
    fig.add_scatter(
        x=[x], y=[y], mode="markers+text", marker=marker, text=[f"<b>{words}</b>"], textposition=where, cliponaxis=False,
        hoverinfo="skip", textfont={"size": 12, "color": t["muted"]},
    )  # fmt: skip
