"""The figures of an explanation: the strongest words, all words in reading order, deletion and insertion curves.

Draws what an Explanation and a Trust hold; never computes a value. Sign is shown by side, by colour and in words, never by colour alone.
"""

from __future__ import annotations

import plotly.graph_objects as go

from fmcore.nouns import Curve, Explanation, Trust
from pages import figures, ui

STRONGEST = 8
LABEL = 24
"""Characters of a bar's label."""
PLOT_PX = 235
"""Height of the curves' plot without its axis."""
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
    names = [figures.chart_text(_short(token)) for token, _ in top]
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
    reach = max((abs(value) for value in values), default=1.0)
    # room for numbers and names on either side
    low, high = (max(1.5 * side, 0.7 * reach) for side in (-min(values, default=0.0), max(values, default=0.0)))
    fig.update_xaxes(range=[-low, high], showticklabels=False, ticks="")
    for words, anchor, shift in _under_bars(explanation.target):
        fig.add_annotation(
            x=0, y=0, yref="paper", yanchor="top", yshift=-6, xanchor=anchor, xshift=shift, text=words, showarrow=False, font_size=12
        )
    fig.update_layout(margin={"l": 8, "r": 8, "t": 4, "b": 28, "pad": 6})
    fig.update_yaxes(autorange="reversed", showgrid=False, tickvals=rows, ticktext=names, nticks=20, tickfont={"size": 13})
    fig.add_vline(x=0, line={"color": ui.NEUTRAL, "width": 1})
    return fig


def _short(token: str) -> str:
    """A word, or the beginning of a run of words, in a label's width."""
    line = " ".join(token.split())
    return line if len(line) <= LABEL else line[: LABEL - 1].rstrip() + "…"


def _under_bars(target: str) -> tuple[tuple[str, str, int], ...]:
    """What each side of zero is called under the bars, short: the label itself stands above them."""
    below, above = ("negative", "positive") if target == "net" else ("against it", "for it")
    return (f"▼ {below}", "right", -8), (f"{above} ▲", "left", 8)


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


def curves(trust: Trust) -> go.Figure:
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
    seen = [0.0, *(score for _, curve, _, _ in drawn for score in (*curve.scores, *curve.random))]
    low, high = min(seen), next(top for top in (0.1, 0.25, 0.5, 1.0) if max(seen) <= top * 1.001 or top == 1.0)
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
    """Names at the right end of the lines, in the page's own text colour behind a piece of the line, pushed apart where two would lie
    on one another."""
    ends = []  # (height, words, lines of text)
    for name, curve, color, better in drawn:
        line = f'<span style="color:{color}">{{}}</span>'
        ends.append((curve.scores[-1], f"{line.format('━')} <b>{name}</b> area {_real(curve.area)}<br>{better}", 2))
        ends.append((curve.random[-1], f"{line.format('┅')} random order {_real(curve.random_area)}", 1))
    # every deletion ends where its random orders end: ends of one height are told with the explanation's own first
    ends.sort(key=lambda end: (-round(end[0], 2), -end[2]))
    line_height = 17 * (high - low) / PLOT_PX
    at: list[float] = []
    for height, _, n in ends:
        at.append(min(height, at[-1] - line_height * (ends[len(at) - 1][2] + n) / 2) if at else height)
    floor = low
    for i in range(len(ends) - 1, -1, -1):
        at[i] = max(at[i], floor + line_height * ends[i][2] / 2)
        floor = at[i] + line_height * ends[i][2] / 2
    for y, (_, words, _) in zip(at, ends, strict=True):
        fig.add_annotation(x=1, xref="paper", xshift=8, y=y, text=words, showarrow=False, xanchor="left", align="left", font_size=12)


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
