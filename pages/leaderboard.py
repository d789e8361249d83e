"""The leaderboard of a version of recommenders: every model's figures with intervals, by slice, who serves and why, and who was left out.

Draws the rows that a version stores; measures nothing and chooses nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from fmcore.evaluation.ranking import COLD_HISTORY, HOT_HISTORY
from fmcore.recommend.offers import MODELS
from pages import figures, heat, ui
from pages.ranking_figures import BY_SLICE, MEASURES, Measure

Row = Mapping[str, Any]

SLICES = {
    "history cold": ("Short past", f"under {COLD_HISTORY}"),
    "history warm": ("Middle past", f"{COLD_HISTORY} to {HOT_HISTORY - 1}"),
    "history hot": ("Long past", f"{HOT_HISTORY}, more"),
    "item cold": ("New item", "never met"),
    "item warm": ("Plain item", "some met"),
    "item hot": ("Hit item", "top fifth"),
}
"""Slice of a leaderboard -> its name, what belongs to it: cold, warm and hot pasts, then cold, warm and hot items."""
GAP = 0.35
"""Of a column, between slices of people and slices of items."""


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Popularity first, then by NDCG@10, the best on top; what was not measured last."""

    def place(row: Row) -> tuple[bool, float]:
        found = row.get("ndcg")
        return row["model"] != "popularity", -found["value"] if figures.is_figure(found) else 1.0

    return sorted(rows, key=place)


def title_of(name: str) -> str:
    """A model's title by its name; the name itself where no such model is known any more."""
    return MODELS[name].title if name in MODELS else name


def board(facts: Mapping[str, Any], *, measured_at: dt.datetime) -> str:
    """The card with the chart of one figure beside the table of all; returns the chosen figure's name."""
    rows = ranked(facts.get("leaderboard") or ())
    with st.container(border=True):
        ui.card("Leaderboard", protocol(facts, measured_at), ui.synthetic_mark() if facts.get("synthetic") else "")
        if not rows:
            st.markdown("No model of this version was measured.")
            return next(iter(MEASURES))
        chosen = st.segmented_control(
            "Figure", list(MEASURES), format_func=lambda name: MEASURES[name].title, default=next(iter(MEASURES)), required=True,
            key="figure", bind="query-params", label_visibility="collapsed",
        ) or next(iter(MEASURES))  # fmt: skip
        measure = MEASURES[chosen]
        st.markdown(f"**{measure.title}** :small[{measure.words}]")
        left, right = ui.split(1, 2, border=False)
        with left:
            told = "; ".join(f"{row['title']} {measure.full(row.get(chosen))}" for row in rows)
            ui.show(forest(rows, measure, serving=facts["serving"]), "leaderboard", f"{measure.title} with 95 % intervals: {told}.")
            ui.note("Dot and line: value and 95 % bootstrap interval over people · dotted: popularity")
        with right:
            _table(rows, serving=facts["serving"])
            _all_of_it(rows, facts)
    return chosen


def protocol(facts: Mapping[str, Any], measured_at: dt.datetime) -> str:
    """How it was measured, on one line of markdown."""
    n, n_items = facts.get("n"), facts.get("n_items")
    on = f"the last item of {n:,} people, ranked among all {n_items:,} items" if n and n_items else "held-out items, full ranking"
    return f"{ui.esc(facts.get('dataset', ''))} · {on} · leave one out by time · measured {ui.fresh(measured_at)}"


def forest(rows: Sequence[Row], measure: Measure, *, serving: str) -> go.Figure:
    """A dot with its interval for each model, in the order given; the serving one in the accent, popularity's value as a line."""
    t = ui.tokens()
    kept = [(place, row, row[measure.name]) for place, row in enumerate(rows) if figures.is_figure(row.get(measure.name))]
    fig = go.Figure()
    for place, row, found in kept:
        color = t["accent"] if row["model"] == serving else t["flat"]
        ends = [measure.factor * (found["value"] if found.get(end) is None else found[end]) for end in ("low", "high")]
        fig.add_scatter(x=ends, y=[place, place], mode="lines", line={"color": ui.rgba(color, 0.5), "width": 4}, hoverinfo="skip")
    names = [figures.chart_text(row["title"]) for row in rows]
    fig.add_scatter(
        x=[measure.factor * found["value"] for *_, found in kept], y=[place for place, *_ in kept], mode="markers",
        marker={"size": 10, "color": [t["accent"] if row["model"] == serving else t["flat"] for _, row, _ in kept]},
        customdata=[[names[place], measure.full(found)] for place, _, found in kept],
        hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]}<extra></extra>",
    )  # fmt: skip
    for place, row in enumerate(rows):
        words = measure.number(row[measure.name]["value"]) if figures.is_figure(row.get(measure.name)) else "none"
        words = f"<b>{words}</b>" if row["model"] == serving else words
        fig.add_annotation(x=1, xref="paper", y=place, text=words, showarrow=False, xanchor="right", xshift=48, font={"size": 12})
    shown = [f"<b>{name}</b>" if row["model"] == serving else name for name, row in zip(names, rows, strict=True)]
    ui.desk(fig, 32 * len(rows) + 64, hovermode="closest", showlegend=False, margin={"l": 8, "r": 54, "t": 8, "b": 8, "pad": 6})
    fig.update_yaxes(range=[len(rows) - 0.4, -0.6], showgrid=False, tickvals=list(range(len(rows))), ticktext=shown, nticks=len(rows) + 1)
    if measure.signed:
        fig.add_vline(x=0, line={"color": ui.NEUTRAL, "width": 1})
    if kept and rows[0]["model"] == "popularity" and kept[0][0] == 0:
        fig.add_vline(x=measure.factor * kept[0][2]["value"], line={"color": t["flat"], "width": 1.5, "dash": "dot"})
    return fig.update_xaxes(
        title_text=f"{measure.title}{f', {measure.unit}' if measure.unit else ''}", showgrid=True, nticks=5,
        range=_reach([found for *_, found in kept], measure),
    )  # fmt: skip


def _reach(found: Sequence[Mapping[str, Any]], measure: Measure) -> list[float]:
    """The ends of the axis, a little beyond all intervals."""
    ends = [measure.factor * one[end] for one in found for end in ("low", "value", "high") if one.get(end) is not None]
    ends = [*ends, 0.0] if measure.from_zero else ends
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    pad = 0.05 * (high - low) or 0.1
    return [low if measure.from_zero and not measure.signed else low - pad, high + pad]


def _table(rows: Sequence[Row], *, serving: str) -> None:
    table = [
        {"Model": row["title"] + (" (serves)" if row["model"] == serving else "")}
        | {name: measure.factor * row[name]["value"] if figures.is_figure(row.get(name)) else None for name, measure in MEASURES.items()}
        | {"seconds": row.get("fit_seconds", row.get("seconds"))}
        for row in rows
    ]
    columns = {
        name: st.column_config.NumberColumn(measure.short or measure.title, format=measure.printf, help=measure.words, width=measure.width)
        for name, measure in MEASURES.items()
    }
    st.dataframe(
        pd.DataFrame(table), hide_index=True, row_height=32, height=38 + 32 * len(rows), key="leaderboard_table",
        alt="Every model's figures; popularity first, then by NDCG@10",
        column_config={
            "Model": st.column_config.TextColumn(width=142), **columns,
            "seconds": st.column_config.NumberColumn("Fit, s", format="%.1f", width=56, help="Seconds of the first fit on this machine."),
        },
    )  # fmt: skip


def _all_of_it(rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Every interval, what each model had learnt from, and all of it as a file."""
    with st.expander("All intervals, and what each had learnt from", icon=":material/table_rows:"):
        shown = [
            {"Model": row["title"]}
            | {measure.title: measure.full(row.get(name)) for name, measure in MEASURES.items()}
            | {
                "Measured after": str(row.get("measured_after", "")), "Serves after": str(row.get("learnt_from", "")),
                "Popularity answered": f"{row.get('n_fallback', 0):,} people",
            }
            for row in rows
        ]  # fmt: skip
        st.dataframe(
            pd.DataFrame(shown), hide_index=True, row_height=34, alt="Every figure with its 95 % interval and n",
            column_config={
                "Measured after": st.column_config.TextColumn(help="What the model had learnt from when the test was taken."),
                "Serves after": st.column_config.TextColumn(help="What the model that serves has learnt from."),
                "Popularity answered": st.column_config.TextColumn(help="People of whose past the model knew nothing."),
            },
        )  # fmt: skip
    ui.download("Download CSV", as_frame(rows, serving=facts["serving"]), "leaderboard.csv", key="leaderboard_csv", type="tertiary")


def as_frame(rows: Sequence[Row], *, serving: str) -> pd.DataFrame:
    """A row a model: model, title, serves, each figure with _low, _high and _n, each slice's likewise, seconds."""
    told = []
    for row in rows:
        line: dict[str, Any] = {"model": row["model"], "title": row["title"], "serves": row["model"] == serving}
        sliced = {f"{part}_{name}": found.get(name) for part, found in (row.get("slices") or {}).items() for name in BY_SLICE}
        for name, found in {**{name: row.get(name) for name in MEASURES}, **sliced}.items():
            name = name.replace(" ", "_")
            line |= {name: None, f"{name}_low": None, f"{name}_high": None, f"{name}_n": None}
            if figures.is_figure(found):
                line |= {name: found["value"], **{f"{name}_{end}": found.get(end) for end in ("low", "high", "n")}}
        told.append({**line, "fit_seconds": row.get("fit_seconds"), "seconds": row.get("seconds")})
    return pd.DataFrame(told)


# ---------------------------------------------------------------- slices


def slices(facts: Mapping[str, Any], chosen: str) -> None:
    """Card: the figure by how much is known of a person and of the item."""
    rows = [row for row in ranked(facts.get("leaderboard") or ()) if row.get("slices")]
    measure = MEASURES[chosen if chosen in BY_SLICE else "ndcg"]
    ui.card("Where each is strong", f"{measure.title}{f', {measure.unit}' if measure.unit else ''}, by the past and by the item met next")
    if not rows:
        st.markdown("Nothing was measured by slice.")
        return
    fig = by_slice(rows, measure, serving=facts["serving"])
    ui.show(fig, "leaderboard_slices", f"{measure.title} by slice. {slices_told(rows, measure)}")
    rest = "" if chosen in BY_SLICE else f" {MEASURES[chosen].title} is not measured by slice, so this is NDCG@10."
    ui.note(
        "Past: items that somebody had met. Item: how often people had met the one that came next. Bold: best of the column. "
        f"n: people; a slice of few says little, its interval is under the pointer.{rest}"
    )


def by_slice(rows: Sequence[Row], measure: Measure, *, serving: str) -> go.Figure:
    """Models down, slices across, each cell with its number; what has no rows is blank."""
    at = {name: place + (GAP if name.startswith("item") else 0) for place, name in enumerate(SLICES)}
    values = {name: [_in_slice(row, name, measure.name) for row in rows] for name in SLICES}
    top = max((found["value"] for column in values.values() for found in column if found), default=1.0) or 1.0
    fig = go.Figure()
    for kind in ("history", "item"):
        names = [name for name in SLICES if name.startswith(kind)]
        z = [[found["value"] if (found := values[name][place]) else None for name in names] for place in range(len(rows))]
        best = [max((f["value"] for f in values[name] if f), default=None) for name in names]
        text = [
            [
                "" if v is None else f"<b>{measure.number(v)}</b>" if v == b and v > 0 else measure.number(v)
                for v, b in zip(line, best, strict=True)
            ]
            for line in z
        ]
        told = [[measure.full(values[name][place]) for name in names] for place in range(len(rows))]
        heat.add(fig, x=[at[name] for name in names], z=z, text=text, top=top, told=told)
    titles = [figures.chart_text(row["title"]) for row in rows]
    shown = [f"<b>{name}</b>" if row["model"] == serving else name for name, row in zip(titles, rows, strict=True)]
    ui.desk(fig, 30 * len(rows) + 94, hovermode="closest", showlegend=False)
    fig.update_yaxes(range=[len(rows) - 0.5, -0.5], showgrid=False, tickvals=list(range(len(rows))), ticktext=shown, nticks=len(rows) + 1)
    heads = [f"<b>{title.replace(' ', '<br>')}</b><br>{what}<br>n {_n(values[name]):,}" for name, (title, what) in SLICES.items()]
    reach = [-0.5, len(SLICES) - 0.5 + GAP]
    return fig.update_xaxes(side="top", tickvals=list(at.values()), ticktext=heads, ticks="", tickangle=0, range=reach)


def _cell(value: float | None, best: float | None, measure: Measure) -> str:
    """A cell's number, bold for the best of its column; "" for a slice without rows."""
    if value is None:
        return ""
    return f"<b>{measure.number(value)}</b>" if value == best and value > 0 else measure.number(value)


def _in_slice(row: Row, name: str, measure: str) -> Mapping[str, Any] | None:
    found = (row["slices"].get(name) or {}).get(measure)
    return found if figures.is_figure(found) else None


def _n(column: Sequence[Mapping[str, Any] | None]) -> int:
    return max((int(found.get("n") or 0) for found in column if found), default=0)


def slices_told(rows: Sequence[Row], measure: Measure) -> str:
    """The best model of each slice, as sentences."""
    told = []
    for name, (title, what) in SLICES.items():
        found = [(row, figure) for row in rows if (figure := _in_slice(row, name, measure.name))]
        if found:
            best, figure = max(found, key=lambda pair: pair[1]["value"])
            told.append(f"{title} ({what}): best {best['title']}, {measure.full(figure)}.")
    return " ".join(told)


# ---------------------------------------------------------------- who serves


def serving(facts: Mapping[str, Any]) -> None:
    """Card: which model answers, why that one, what it is better by, and what was left out."""
    rows = ranked(facts.get("leaderboard") or ())
    name = str(facts["serving"])
    ui.card("Who answers, and why", chips=ui.chip(title_of(name), "blue", ":material/verified:"))
    st.markdown(
        ":small[It was chosen on **validation**, the item before each person's last: the best NDCG@10 there, or a simpler model within one "
        "standard error of it. The last item, on this board, was looked at once, after that choice.]"
    )
    best = max((row for row in rows if figures.is_figure(row.get("ndcg"))), key=lambda row: row["ndcg"]["value"], default=None)
    if best and best["model"] != name:
        st.markdown(
            f":small[{ui.esc(best['title'])} stands higher on the test. Choosing by the test would make its figures look better than they "
            "are, so that changes nothing.]"
        )
    better = facts.get("better_than_popularity")
    if figures.is_figure(better) and name != "popularity":
        low, high = (ui.signed(better[end], 3) for end in ("low", "high"))
        st.markdown(
            f":small[Over popularity on the same {better['n']:,} people: **{ui.signed(better['value'], 3)}** NDCG@10 ({low} to {high}).]"
        )
    for model, why in (facts.get("left_out") or {}).items():
        title = title_of(model)
        said = why if str(why).startswith(title) else f"{title}: {why}"
        st.markdown(f":small[:gray[:material/block:] **Left out** {ui.esc(said)}]")
    if not facts.get("left_out"):
        ui.note("No model was left out.")
    for said in facts.get("notes") or ():
        ui.note(f":material/info: {ui.esc(said)}")
