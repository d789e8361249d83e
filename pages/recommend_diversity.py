"""The diversity slider, and the measured price of diversity: accuracy against it, with the chosen place on the line.

Draws the frontier that was measured when the version was made; measures nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages import ui


def chosen() -> float:
    """The slider's place, 0 (as scored) to 1."""
    return st.session_state.get("recommend_diversity", 0) / 100


def draw(desk: Any) -> None:
    """The slider, and where its place stands between accuracy and diversity."""
    ui.card("Diversity", "how unlike each other the items are")
    st.slider(
        "Diversity", 0, 100, 0, 5, key="recommend_diversity", format="%d %%", bind="query-params", label_visibility="collapsed",
        help="0 %: the model's own order. 100 %: as different from each other as can be.",
    )  # fmt: skip
    frame = _measured(desk, desk.recommend.info()["version"])
    if not len(frame):
        ui.note("Accuracy against diversity was not measured for this version.")
        return
    fig, words = frontier(frame, chosen())
    ui.show(fig, "recommend-frontier", words)
    n = int(frame["n"].max())
    ui.note(f"NDCG@10 against how unlike the items are, on {n:,} held-out people; band: 95 % interval. The ring is where you are.")


@st.cache_data(show_spinner=False, max_entries=4)
def _measured(_desk: Any, version: str) -> pd.DataFrame:
    """The measured frontier of the version that serves; it never changes."""
    return _desk.recommend.frontier()


def frontier(frame: pd.DataFrame, at: float) -> tuple[go.Figure, str]:
    """(figure, in words) of measured accuracy over measured diversity, with the chosen place between the nearest measured ones."""
    t = ui.tokens()
    rows = frame.sort_values("diversity")
    x, y = (np.interp(at, rows["diversity"], rows[name]) for name in ("ild", "ndcg"))
    fig = go.Figure()
    order = rows.sort_values("ild")
    fig.add_scatter(x=order["ild"], y=order["ndcg_high"], line_width=0, mode="lines", hoverinfo="skip")
    fig.add_scatter(
        x=order["ild"],
        y=order["ndcg_low"],
        line_width=0,
        mode="lines",
        fill="tonexty",
        fillcolor=ui.rgba(t["accent"], 0.14),
        hoverinfo="skip",
    )
    fig.add_scatter(
        x=rows["ild"], y=rows["ndcg"], mode="lines+markers", line={"color": t["accent"], "width": 2}, marker={"size": 6},
        customdata=100 * rows["diversity"], hovertemplate="slider %{customdata:.0f} %: NDCG@10 %{y:.3f}, diversity %{x:.2f}<extra></extra>",
    )  # fmt: skip
    fig.add_scatter(
        x=[x], y=[y], mode="markers", hoverinfo="skip", cliponaxis=False,
        marker={"size": 13, "color": t["bg"], "line": {"width": 3, "color": t["accent"]}},
    )  # fmt: skip
    ui.desk(fig, "small", hovermode="closest", showlegend=False)
    fig.update_xaxes(title_text="diversity (0 to 1)", nticks=4)
    fig.update_yaxes(title_text="NDCG@10", nticks=4, rangemode="tozero")
    return fig, f"At {100 * at:.0f} % the list has NDCG@10 {y:.3f} and diversity {x:.2f}."
