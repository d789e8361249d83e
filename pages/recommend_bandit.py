"""The live learner: what the bandit believes of each group of items, and how every show and every click moves it.

Draws the beliefs that the service derives from the stored events; learns nothing itself.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from fmcore.nouns import FMError
from pages import figures, ui

TRAILS = 4
"""Groups whose trail is drawn in colour: those that the events moved furthest."""
NAME = 30
"""Characters of a group's name in a chart."""

TOLD = {
    "thompson": "Thompson sampling draws, for every place on the list, one guess per group from what it believes, and takes the group with "
    "the highest guess. Groups it knows little of have wide intervals, so it tries them now and then: it explores, and the list is not "
    "always the one that looks best.",
    "linucb": "LinUCB gives every group the benefit of the doubt: its estimate plus a margin that shrinks as the group is shown, for a "
    "linear model of the group and the recommender's score. Groups it knows little of have a wide margin, so it tries them first: it "
    "explores, and the list is not always the one that looks best.",
}
"""Learner -> what it does, in two sentences."""


def draw(desk: Any, learner: str) -> None:
    """The card: what it does, the beliefs, their trail, and what logged clicks say of it."""
    ui.card("What the bandit believes", "chance that somebody likes an item of a group when it is shown")
    st.markdown(f":small[{ui.esc(TOLD[learner])}]")
    try:
        beliefs = desk.recommend.beliefs()
    except FMError as error:
        ui.refusal(error)
        return
    frame = beliefs.frame
    if len(frame) < 2:
        st.markdown("This version has one group of items only, so there is nothing to choose between: the list is the model's own.")
        return
    n_shown, n_liked = int(frame["n_shown"].sum()), int(frame["n_liked"].sum())
    st.markdown(
        f":small[**{n_shown:,}** shown, **{n_liked:,}** liked, over {len(frame)} groups and everybody who used it here. {moved(frame)}]"
    )
    left, right = ui.split(1, 1, border=False)
    with left:
        ui.show(intervals(frame), "bandit-beliefs", in_words(frame))
        ui.note("Dot: expected chance · thick line: 95 % interval · ring: before the last event. Right: liked of shown.")
    with right:
        if any(len(trail) for trail in frame["trail"]):
            ui.show(trails(frame), "bandit-trail", f"How the expected chance of each group moved: {moved(frame)}")
            ui.note("Expected chance after each show and each like, in their order; the groups that moved most are named.")
        else:
            ui.note("The trail begins with the first list that the bandit shows.")
    _estimate(desk, learner)


def group_names(desk: Any, items: Iterable[str]) -> dict[str, str]:
    """Item -> the name of its group."""
    now = desk.recommend.current()
    return {item: now.groups.names[now.groups.of[now.numbers[item]]] for item in items if item in now.numbers}


def _previous(trail: Any, mean: float) -> float:
    """A group's expected chance before its last event; the present one where nothing happened."""
    return float(trail[-2][1]) if len(trail) > 1 else mean


def moved(frame: pd.DataFrame) -> str:
    """Which group the last event moved, and how far, as a sentence. Markdown; "" before the first event."""
    latest: tuple[dt.datetime, int] | None = None
    for place, trail in enumerate(frame["trail"]):
        if len(trail) > 1 and (latest is None or trail[-1][0] >= latest[0]):
            latest = (trail[-1][0], place)
    if latest is None:
        return ""
    row = frame.iloc[latest[1]]
    before = _previous(row["trail"], row["mean"])
    step = 100 * (row["trail"][-1][1] - before)
    glyph = "▲" if step > 0 else "▼" if step < 0 else "●"
    return (
        f"Last move: {glyph} ‘{ui.esc(ui.short(row['name'], NAME))}’, {ui.signed(step, 1)} points to {figures.points(row['trail'][-1][1])}."
    )


def intervals(frame: pd.DataFrame) -> go.Figure:
    """A row a group, most promising on top: interval, expected chance, where it was before the last event, liked of shown."""
    t = ui.tokens()
    rows = frame.sort_values("mean", ascending=False).reset_index(drop=True)
    fig = go.Figure()
    for place, row in rows.iterrows():
        fig.add_scatter(
            x=[100 * row["low"], 100 * row["high"]], y=[place, place], mode="lines", hoverinfo="skip",
            line={"color": ui.rgba(t["accent"], 0.30), "width": 9},
        )  # fmt: skip
    before = [100 * _previous(trail, mean) for trail, mean in zip(rows["trail"], rows["mean"], strict=True)]
    fig.add_scatter(
        x=before, y=list(range(len(rows))), mode="markers", hoverinfo="skip",
        marker={"size": 10, "color": "rgba(0,0,0,0)", "line": {"width": 1.5, "color": t["muted"]}},
    )  # fmt: skip
    counts = [f"{int(row.n_liked):,} of {int(row.n_shown):,}" for row in rows.itertuples()]
    names = [figures.chart_text(ui.short(name, NAME)) for name in rows["name"]]
    fig.add_scatter(
        x=100 * rows["mean"], y=list(range(len(rows))), mode="markers", marker={"size": 9, "color": t["accent"]},
        customdata=list(zip(names, 100 * rows["low"], 100 * rows["high"], counts, strict=True)),
        hovertemplate="<b>%{customdata[0]}</b>: %{x:.1f} % (%{customdata[1]:.1f} to %{customdata[2]:.1f}), %{customdata[3]}<extra></extra>",
    )  # fmt: skip
    for place, words in enumerate(counts):
        fig.add_annotation(x=1, xref="paper", y=place, text=words, xanchor="left", xshift=8, showarrow=False, font={"size": 12})
    ui.desk(fig, 27 * len(rows) + 52, hovermode="closest", showlegend=False, margin={"l": 8, "r": 76, "t": 8, "b": 8, "pad": 6})
    fig.update_xaxes(range=[0, min(100.0, 104 * float(rows["high"].max()))], ticksuffix=" %", nticks=5)
    fig.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=names, range=[len(rows) - 0.4, -0.6], showgrid=False, nticks=len(rows) + 1,
        tickfont={"size": 12},
    )  # fmt: skip
    return fig


def in_words(frame: pd.DataFrame) -> str:
    """The beliefs as a sentence, for readers who do not see the chart."""
    rows = frame.sort_values("mean", ascending=False)
    told = [
        f"{row.name_}: {100 * row.mean:.0f} % ({100 * row.low:.0f} to {100 * row.high:.0f}), liked {row.n_liked} of {row.n_shown}"
        for row in rows.rename(columns={"name": "name_"}).itertuples()
    ]
    return f"Beliefs, most promising first: {'; '.join(told)}."


def trails(frame: pd.DataFrame) -> go.Figure:
    """Expected chance of every group over all events in their order; the furthest moved in colour, named at the right end."""
    t = ui.tokens()
    order = {at: place for place, at in enumerate(sorted({at for trail in frame["trail"] for at, _ in trail}), start=1)}
    far = frame.assign(reach=[max((abs(mean - trail[0][1]) for _, mean in trail), default=0.0) for trail in frame["trail"]])
    named = set(far.sort_values("reach", ascending=False)["arm"].head(TRAILS))
    fig = go.Figure()
    ends: list[tuple[float, str, str]] = []
    for place, row in enumerate(far.sort_values("reach").itertuples()):
        if not row.trail:
            continue
        color = t["cat"][place % len(t["cat"])] if row.arm in named else ui.rgba(t["flat"], 0.45)
        x, y = [order[at] for at, _ in row.trail], [100 * mean for _, mean in row.trail]
        name = figures.chart_text(ui.short(row.name, NAME))
        fig.add_scatter(
            x=[*x, len(order)], y=[*y, y[-1]], mode="lines", line={"color": color, "width": 2 if row.arm in named else 1, "shape": "hv"},
            hovertemplate=f"{name}: <b>%{{y:.1f}} %</b><extra></extra>",
        )  # fmt: skip
        if row.arm in named:
            ends.append((y[-1], name, color))
    top = max((100 * mean for trail in frame["trail"] for _, mean in trail), default=1.0)
    _names_at_the_end(fig, ends, len(order), top=top)
    ui.desk(fig, 27 * len(frame) + 52, hovermode="closest", showlegend=False, margin={"l": 8, "r": 190, "t": 8, "b": 8, "pad": 4})
    fig.update_xaxes(title_text="lists and likes, in their order", range=[0, max(2, len(order)) * 1.01], nticks=6)
    fig.update_yaxes(ticksuffix=" %", nticks=5, rangemode="tozero")
    return fig


def _names_at_the_end(fig: go.Figure, ends: list[tuple[float, str, str]], x: int, *, top: float) -> None:
    """Names beside the ends of their lines, moved apart where they would stand on each other."""
    least, last = 0.06 * top, None
    for y, name, color in sorted(ends):
        shown = y if last is None else max(y, last + least)
        fig.add_annotation(
            x=x, y=shown, text=f"<b>{name}</b>", xanchor="left", xshift=8, showarrow=False, font={"size": 12, "color": color}
        )
        last = shown


def _estimate(desk: Any, learner: str) -> None:
    """The service's off-policy line, where there are enough logged answers for one."""
    found = desk.recommend.live_estimate(learner)
    if found:
        st.markdown(f":small[{ui.esc(found['sentence'])}]")
