"""Two drawers over a list: why an item is on it, and what would change without one item of the past.

Draws what the service measured: contributions with their check by removal, and the list that a shorter past gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from fmcore.nouns import FMError
from pages import figures, recommend_list, ui

STRONGEST = 8
WIDTH = 620
EXPLAINED = 3
"""Items that leave a list of which it is told why."""


def drawers(desk: Any, ask: Any, answer: Any, *, on_forget: Callable[[str, str], None]) -> None:
    """The drawer that was asked for, if any."""
    opened = st.session_state.get("recommend_open")
    if not opened:
        return
    kind, item, title = opened
    heading = ui.esc(ui.short(title, 80))
    if kind == "why":
        st.dialog(heading, position="right", width=WIDTH, icon=":material/troubleshoot:", on_dismiss=close)(_why)(desk, ask, item)
    else:
        st.dialog(heading, position="right", width=WIDTH, icon=":material/difference:", on_dismiss=close)(_without)(
            desk, ask, answer, item, title, on_forget
        )


def close() -> None:
    """The drawer was closed."""
    st.session_state.pop("recommend_open", None)


# ---------------------------------------------------------------- why it is there


def _why(desk: Any, ask: Any, item: str) -> None:
    with ui.guarded():
        try:
            why = desk.recommend.why(ask, item)
        except FMError as error:
            ui.refusal(error)
            return
        st.markdown(ui.esc(why.sentence))
        if not why.contributions:
            ui.note("There is no past to name a cause from.")
            return
        strongest = sorted(why.contributions, key=lambda part: -abs(part.value))[:STRONGEST]
        strongest = [part for part in strongest if part.value]
        if strongest:
            ui.show(bars(strongest), "recommend-why-bars", _in_words(strongest))
            ui.note("▲ raises the score · ▼ lowers it · Shapley values: what each item adds, averaged over the orders it could come in.")
        else:
            st.markdown("No item of the past moves this score.")
        n_named = sum(part.value > 0 for part in why.contributions)
        n_held = sum(part.is_cause for part in why.contributions)
        if n_named:
            icon, color = (":material/check_circle:", "green") if n_held == n_named else (":material/error:", "orange")
            chip = ui.chip(f"{n_held} of {n_named} causes hold", color, icon)
            st.markdown(f"{chip} :small[checked by taking each away alone and asking the model again]")
        st.dataframe(
            table(why.contributions), hide_index=True, row_height=34, key="recommend-why-table", alt="What each item of the past adds",
            column_config={
                "Adds": st.column_config.NumberColumn(format="%+.3f", width="small"),
                "Without it": st.column_config.NumberColumn("Change without it", format="%+.3f", width="small"),
            },
        )  # fmt: skip
        model = recommend_list.model_title(desk.recommend.shelf(why.version), why.model)
        ui.note(f"{ui.esc(model)}, version {ui.esc(why.version)} · score {why.score:.3g}, comparable within this list only.")


def table(contributions: Sequence[Any]) -> pd.DataFrame:
    """Every item of the past that was looked at, strongest first: item, what it adds, how the score moves without it."""
    ranked = sorted(contributions, key=lambda part: -abs(part.value))
    return pd.DataFrame(
        {
            "You met": [ui.short(part.title, 80) for part in ranked],
            "Adds": [p.value for p in ranked],
            "Without it": [-p.drop for p in ranked],
        }
    )


def bars(strongest: Sequence[Any]) -> go.Figure:
    """What the strongest items add: sign by side of zero, colour and number."""
    t = ui.tokens()
    rows = [str(i) for i in range(len(strongest))]
    names = [figures.chart_text(ui.short(part.title, 34)) for part in strongest]
    values = [part.value for part in strongest]
    fig = go.Figure(
        go.Bar(
            y=rows, x=values, orientation="h", width=0.6, cliponaxis=False, textposition="outside", textfont={"size": 12},
            marker={"color": [t["up"] if value > 0 else t["down"] for value in values], "line_width": 0},
            text=[ui.signed(value) for value in values], customdata=names, hovertemplate="%{customdata}: <b>%{x:+.3f}</b><extra></extra>",
        )
    )  # fmt: skip
    ui.desk(fig, 30 * len(strongest) + 24, hovermode="closest", margin={"l": 8, "r": 8, "t": 4, "b": 4, "pad": 6})
    reach = max(abs(value) for value in values)
    low, high = (max(1.3 * side, 0.25 * reach) for side in (-min(values), max(values)))  # room for the numbers on either side
    fig.update_xaxes(range=[-low, high], showticklabels=False, ticks="")
    fig.update_yaxes(autorange="reversed", showgrid=False, tickvals=rows, ticktext=names, nticks=20, tickfont={"size": 13})
    fig.add_vline(x=0, line={"color": ui.NEUTRAL, "width": 1})
    return fig


def _in_words(strongest: Sequence[Any]) -> str:
    told = [f"{ui.short(part.title, 60)} {ui.signed(part.value)}" for part in strongest]
    return f"What the items of the past add to the score: {'; '.join(told)}."


# ---------------------------------------------------------------- what would change without it


def _without(desk: Any, ask: Any, answer: Any, item: str, title: str, on_forget: Callable[[str, str], None]) -> None:
    with ui.guarded():
        try:
            then = desk.recommend.without(ask, item)
        except FMError as error:
            ui.refusal(error)
            return
        gone, come = recommend_list.beside(answer, then)
        names = recommend_list.titles(answer, then)
        st.markdown(_sentence(title, [names[i] for i in gone], [names[i] for i in come], answer, then))
        if then.fallback and not answer.fallback:
            st.markdown(f"{ui.chip('Fallback: popularity', 'orange', ':material/alt_route:')} :small[{ui.esc(then.fallback)}]")
        with st.container(gap=None):
            for line in _reasons(desk, ask, item, gone, names):
                st.markdown(f":small[{line}]")
        left, right = st.columns(2, gap="small")
        with left:
            st.markdown("**Now**")
            _short_list(answer, {i: ui.chip("leaves", "orange", ":material/logout:") for i in gone})
        with right:
            st.markdown("**Without it**")
            moved = recommend_list.moves([found.item for found in then.items], [found.item for found in answer.items])
            _short_list(then, {i: recommend_list.move_chip(move) for i, move in moved.items()})
        ui.note("Nothing is changed yet. What is removed can be put back at any time.")
        if st.button("Remove this from my history", type="primary", icon=":material/close:", key="recommend_forget"):
            on_forget(item, title)
            st.rerun()


def _sentence(title: str, gone: Sequence[str], come: Sequence[str], answer: Any, then: Any) -> str:
    """What the list loses and gains, in a sentence of markdown."""
    name = f"**{ui.esc(ui.short(title, 60))}**"
    if not gone and not come:
        same = [found.item for found in answer.items] == [found.item for found in then.items]
        return f"Without {name} the list {'stays exactly as it is' if same else 'keeps its items, in another order'}."
    parts = [f"{recommend_list.listed(gone)} would leave" if gone else "", f"{recommend_list.listed(come)} would enter" if come else ""]
    return f"Without {name}, {' and '.join(part for part in parts if part)}."


def _reasons(desk: Any, ask: Any, item: str, gone: Sequence[str], names: dict[str, str]) -> list[str]:
    """For the first items that leave: how much of their score this one item of the past carries, as measured by taking it away."""
    lines = []
    for leaving in gone[:EXPLAINED]:
        part = next((part for part in desk.recommend.why(ask, leaving).contributions if part.item == item), None)
        name = ui.esc(ui.short(names[leaving], 60))
        if part is None:
            lines.append(f"{name}: the item is too far back for its own part to be measured.")
        elif part.drop > 0:
            lines.append(f"{name} leaves because its score falls by {part.drop:.2f} without it.")
        else:
            lines.append(f"{name} leaves although its own score does not fall: others pass it.")
    return lines


def _short_list(answer: Any, chips: dict[str, str]) -> None:
    with st.container(gap="xsmall"):
        for place, found in enumerate(answer.items, start=1):
            st.markdown(f":small[:gray[{place}] {ui.esc(ui.short(found.title, 46))} {chips.get(found.item, '')}]")
