"""The figures of an explanation: the strongest words, all words in reading order, deletion and insertion curves.

Draws what an Explanation and a Trust hold; never computes a value. Sign is shown by side, by colour and in words, never by colour alone.
"""

from __future__ import annotations

import plotly.graph_objects as go

from fmcore.nouns import Curve, Explanation, Trust
from pages import figures, ui

STRONGEST = 8
IN_READING_ORDER = 400
"""Pieces that the strip of all words draws."""


def sides(target: str) -> tuple[str, str]:
    """What a word below zero and one above it do to the target's score, in words."""
    if target == "net":
        return "towards negative", "towards positive"
    name = figures.label(target)
    return f"against {name}", f"for {name}"


def strongest(explanation: Explanation, n: int = STRONGEST) -> list[tuple[str, float]]:
    """The n words that move the score most, strongest first; words that move nothing are left out."""
    pairs = [(token, value) for token, value in zip(explanation.tokens, explanation.values, strict=True) if abs(value) > 5e-4]
    return sorted(pairs, key=lambda pair: -abs(pair[1]))[:n]


def word_bars(explanation: Explanation) -> go.Figure:
    """The strongest words as bars: sign by side of zero, glyph and colour, each with its number."""
    t = ui.tokens()
    top = strongest(explanation)
    against, towards = sides(explanation.target)
    rows = [str(i) for i in range(len(top))]
    names = [figures.chart_text(" ".join(token.split())) for token, _ in top]
    values = [value for _, value in top]
    said = [f"{ui.signed(value, 3)} {figures.chart_text(towards if value > 0 else against)}" for value in values]
    fig = go.Figure(
        go.Bar(
            y=rows, x=values, orientation="h", width=0.6, cliponaxis=False, textposition="outside", textfont={"size": 12},
            marker={"color": [t["up"] if value > 0 else t["down"] for value in values], "line_width": 0},
            text=[ui.signed(value) for value in values], customdata=list(zip(names, said, strict=True)),
            hovertemplate="<b>%{customdata[0]}</b>  %{customdata[1]}<extra></extra>",
        )
    )  # fmt: skip
    ui.desk(fig, 30 * len(top) + 52, hovermode="closest")
    reach = max((abs(value) for value in values), default=1.0) * 1.4
    low, high = (-reach if min(values, default=0.0) < 0 else -reach * 0.25), (reach if max(values, default=0.0) > 0 else reach * 0.25)
    fig.update_xaxes(range=[low, high], showticklabels=False, ticks="")
    short = [figures.chart_text(f"▼ {against}"), figures.chart_text(f"{towards} ▲")]
    for x, words, anchor in ((0, short[0], "right"), (0, short[1], "left")):
        shown = (values and min(values) < 0) if anchor == "right" else (values and max(values) > 0)
        if shown:
            fig.add_annotation(
                x=x, xref="x", y=0, yref="paper", yanchor="top", yshift=-6, xanchor=anchor, xshift=-8 if anchor == "right" else 8,
                text=words, showarrow=False, font_size=12,
            )  # fmt: skip
    fig.update_layout(margin={"l": 8, "r": 8, "t": 4, "b": 28, "pad": 6})
    fig.update_yaxes(autorange="reversed", showgrid=False, tickvals=rows, ticktext=names, nticks=20, tickfont={"size": 13})
    fig.add_vline(x=0, line={"color": ui.NEUTRAL, "width": 1})
    return fig


def in_words(explanation: Explanation) -> str:
    """The strongest words as a sentence, for readers who do not see the bars."""
    against, towards = sides(explanation.target)
    told = [f"{token} {ui.signed(value)} ({towards if value > 0 else against})" for token, value in strongest(explanation)]
    return f"Strongest words: {'; '.join(told)}." if told else "No word moves the score."


def reading_strip(explanation: Explanation) -> go.Figure:
    """Every word in reading order as a thin bar above or below zero; the pointer tells the word and its number."""
    t = ui.tokens()
    against, towards = sides(explanation.target)
    pairs = list(zip(explanation.tokens, explanation.values, strict=True))[:IN_READING_ORDER]
    names = [figures.chart_text(" ".join(token.split())) for token, _ in pairs]
    said = [
        f"{ui.signed(value, 4)} {figures.chart_text(towards if value > 0 else against)}" if abs(value) > 5e-5 else "moves nothing"
        for _, value in pairs
    ]
    fig = go.Figure(
        go.Bar(
            x=list(range(1, len(pairs) + 1)), y=[value for _, value in pairs], customdata=list(zip(names, said, strict=True)),
            marker={"color": [t["up"] if value > 0 else t["down"] for _, value in pairs], "line_width": 0},
            hovertemplate="word %{x}: <b>%{customdata[0]}</b>  %{customdata[1]}<extra></extra>",
        )
    )  # fmt: skip
    ui.desk(fig, "strip", hovermode="x", bargap=0.25, margin={"l": 8, "r": 8, "t": 6, "b": 6, "pad": 2})
    fig.update_xaxes(visible=False, range=[0.4, len(pairs) + 0.6])
    fig.update_yaxes(visible=False)
    fig.add_hline(y=0, line={"color": ui.NEUTRAL, "width": 1})
    return fig


def curves(trust: Trust, target: str) -> go.Figure:
    """Deletion and insertion, each with a random order of the same words dotted in its hue; names and areas at the line ends."""
    t = ui.tokens()
    fig = go.Figure()
    drawn = [(name, curve, t["cat"][i], better) for i, (name, curve, better) in enumerate(
        (("Deletion", trust.deletion, "lower is better"), ("Insertion", trust.insertion, "higher is better"))
    ) if curve is not None]  # fmt: skip
    for name, curve, color, _ in drawn:
        shares = [100 * share for share in curve.shares]
        for scores, kind, dash in ((curve.random, f"{name}, random order", "dot"), (curve.scores, name, "solid")):
            fig.add_scatter(
                x=shares, y=list(scores), mode="lines", name=kind, showlegend=False,
                line={"color": color, "width": 2 if dash == "solid" else 1.5, "dash": dash},
                hovertemplate=f"{kind}: <b>%{{y:.2f}}</b><extra></extra>",
            )  # fmt: skip
    low = min([0.0, *(s for _, c, _, _ in drawn for s in (*c.scores, *c.random))])
    high = max([1.0 if target != "net" else 0.2, *(s for _, c, _, _ in drawn for s in (*c.scores, *c.random))])
    low = min(low, -0.2) if target == "net" else low
    ui.desk(fig, 300, margin={"l": 8, "r": 150, "t": 10, "b": 8, "pad": 4})
    room = (high - low) * 0.06
    fig.update_yaxes(range=[low - room, high + room], nticks=5)
    fig.update_xaxes(
        range=[0, 100], tickvals=[0, 25, 50, 75, 100], ticktext=["0%", "25%", "50%", "75%", "100%"], title_text="share of the words",
        hoverformat=".0f", ticksuffix=" %",
    )  # fmt: skip
    _line_ends(fig, drawn, low - room, high + room)
    return fig


def _line_ends(fig: go.Figure, drawn: list[tuple[str, Curve, str, str]], low: float, high: float) -> None:
    """Names at the right end of the lines, pushed apart where two would lie on one another."""
    ends = []
    for name, curve, color, better in drawn:
        ends.append((curve.scores[-1], f"<b>{name}</b> area {_real(curve.area)}<br>{better}", color, 2))
        ends.append((curve.random[-1], f"random order {_real(curve.random_area)}", None, 1))
    span = (high - low) / 250  # a pixel of the plot, about
    # every deletion ends where every insertion begins: ends of one height are told from top to bottom in this order
    ends.sort(key=lambda end: (-round(end[0], 3), end[3] == 1))
    at = [value for value, *_ in ends]
    for i in range(1, len(ends)):
        need = (8.5 * ends[i - 1][3] + 8.5 * ends[i][3] + 2) * span
        at[i] = min(at[i], at[i - 1] - need)
    below = max(0.0, (low + 8.5 * ends[-1][3] * span) - at[-1]) if ends else 0.0
    if below:
        at[-1] += below
        for i in range(len(ends) - 2, -1, -1):
            at[i] = max(at[i], at[i + 1] + (8.5 * ends[i + 1][3] + 8.5 * ends[i][3] + 2) * span)
    for y, (_, words, color, _) in zip(at, ends, strict=True):
        font = {"size": 12, "color": color} if color else {"size": 12}
        fig.add_annotation(x=1, xref="paper", xshift=8, y=y, text=words, showarrow=False, xanchor="left", align="left", font=font)


def curves_in_words(trust: Trust) -> str:
    """The two curves as a sentence."""
    parts = [
        f"{name}: area {_real(curve.area)}, random orders {_real(curve.random_area)} ({_real(curve.low)} to {_real(curve.high)})"
        for name, curve in (("Deletion", trust.deletion), ("Insertion", trust.insertion))
        if curve is not None
    ]
    return ". ".join(parts) + "."


def _real(value: float) -> str:
    return f"{'−' if round(value, 2) < 0 else ''}{abs(value):.2f}"
