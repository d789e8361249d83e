"""How an answer is drawn: its likeliest intents, the verdict on its scope, the set that holds the truth. One place for every view.

Draws a `Prediction`; never makes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from fmcore.nouns import Prediction
from pages import figures, ui


def verdict(prediction: Prediction) -> tuple[str, str, str]:
    """(word, badge colour, icon). A close call is in scope, but its answer set holds more than one intent."""
    if not prediction.in_scope:
        return "Out of scope", "orange", ":material/help:"
    if len(prediction.candidates) != 1:
        return "Close call", "yellow", ":material/balance:"
    return "In scope", "green", ":material/check_circle:"


def bars(ranked: Sequence[tuple[str, float]], series: int, least: float | None) -> go.Figure:
    """The likeliest intents, winner in full colour, the rest at 38 %; the same 0 to 100 % range for every model. The dotted
    line is the least probability at which an intent enters the answer set."""
    t = ui.tokens()
    color = t["cat"][series]
    rows = [str(i) for i in range(len(ranked))]
    scores = [100 * score for _, score in ranked]
    names = [figures.chart_text(figures.label(name)) for name, _ in ranked]
    shown = [figures.chart_text(figures.probability(score)) for _, score in ranked]
    fig = go.Figure(
        go.Bar(
            y=rows,
            x=scores,
            orientation="h",
            width=0.6,
            cliponaxis=False,
            textposition="outside",
            marker=dict(color=[color if i == 0 else ui.rgba(color, 0.38) for i in range(len(ranked))], line_width=0),
            text=[f"<b>{s}</b>" if i == 0 else s for i, s in enumerate(shown)],
            textfont=dict(size=13, color=t["muted"]),
            customdata=names,
            hovertemplate="%{customdata}: %{x:.1f} %<extra></extra>",
        )
    )
    ui.desk(fig, 38 * len(ranked) + 44, hovermode="closest", margin=dict(l=8, r=44, t=8, b=8))
    fig.update_xaxes(range=[0, 100], tickvals=[0, 50, 100], ticktext=["0%", "50%", "100%"])
    fig.update_yaxes(autorange="reversed", showgrid=False, tickvals=rows, nticks=20, tickfont=dict(size=13), ticktext=names)
    if least is not None:
        fig.add_vline(x=100 * least, line=dict(color=ui.NEUTRAL, width=1.5, dash="dot"))
    return fig


def answer_set(metrics: Mapping[str, Any], prediction: Prediction) -> str:
    """The conformal set in words, with the coverage that was promised and the one that was measured."""
    names = [f"**{ui.esc(figures.label(name))}**" for name in prediction.candidates[:6]]
    rest = len(prediction.candidates) - len(names)
    promised = figures.points(prediction.coverage, 0)
    measured = figures.at(metrics, "coverage.measured")
    held = f"measured {figures.points(measured['value'])} on {measured['n']:,} held-out messages" if measured else "not measured"
    if not names:
        return f"No intent is sure enough for the {promised} answer set ({held})."
    if len(names) == 1:
        return f"If in scope, it is {names[0]}: a set of one with {promised} coverage ({held})."
    listed = ", ".join(names[:-1]) + (f", {names[-1]} and {rest} more" if rest else f" or {names[-1]}")
    return f"If in scope, it is one of these {len(prediction.candidates)} with {promised} coverage ({held}): {listed}."


def gauge(prediction: Prediction) -> go.Figure:
    """Where the message stands between in scope (left) and out of scope; the threshold is always the middle."""
    t = ui.tokens()
    at, middle = prediction.novelty, prediction.threshold
    half = max(3.0, abs(at - middle))
    fig = go.Figure()
    for span, alpha in (([middle - half, middle], 0.35), ([middle, middle + half], 0.75)):
        fig.add_scatter(x=span, y=[0, 0], mode="lines", line=dict(color=ui.rgba(t["flat"], alpha), width=8), hoverinfo="skip")
    marker = dict(size=13, color=t["accent"], line=dict(width=2, color=t["bg"]))
    fig.add_scatter(x=[at], y=[0], mode="markers", marker=marker, hovertemplate="novelty %{x:.2f} sd<extra></extra>", cliponaxis=False)
    ui.desk(fig, 100, hovermode="closest", showlegend=False, margin=dict(l=12, r=12, t=22, b=28))
    fig.update_xaxes(range=[middle - 1.08 * half, middle + 1.08 * half], tickvals=[middle], ticktext=[f"threshold {_real(middle)} sd"])
    fig.update_yaxes(visible=False, range=[-1, 1])
    fig.add_vline(x=middle, line=dict(color=ui.NEUTRAL, width=1.5, dash="dot"))
    for x, words in ((middle - half / 2, "in scope"), (middle + half / 2, "out of scope")):
        fig.add_annotation(x=x, y=0.9, text=words, showarrow=False, font_size=12)
    return fig


def _real(value: float) -> str:
    return f"{'−' if value < 0 else ''}{abs(value):.1f}"
