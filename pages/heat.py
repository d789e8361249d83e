"""Heat tables: a number on each cell, readable on every shade of both themes.

Owns the cells; whoever draws one owns its rows, its heads and its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from pages import ui

Line = Sequence[float | None]


def add(
    fig: go.Figure, *, x: Sequence[float], z: Sequence[Line], text: Sequence[Sequence[str]], top: float, told: Sequence[Sequence[Any]]
) -> None:
    """Cells at the places `x` across and 0, 1, ... down; None is left blank. top: the value of the strongest shade; told: on hover."""
    t = ui.tokens()
    fig.add_heatmap(
        x=list(x), y=list(range(len(z))), z=z, customdata=told, colorscale=t["seqscale"], zmin=0, zmax=top or 1.0, showscale=False,
        xgap=2, ygap=2, hoverongaps=False, hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    cells = [(across, down, value) for down, line in enumerate(z) for across, value in enumerate(line) if value is not None]
    there = [(x[across], down, value, text[down][across]) for across, down, value in cells]
    # Plotly's own choice of text colour is a grey that cannot be read on the middle shades.
    colors = [t["bg"] if value > 0.5 * (top or 1.0) else t["ink"] for _, _, value, _ in there]
    fig.add_scatter(
        x=[across for across, *_ in there], y=[down for _, down, *_ in there], mode="text", text=[words for *_, words in there],
        textfont={"size": 12, "color": colors}, hoverinfo="skip",
    )  # fmt: skip
