"""Teach a new intent live: a name and a few examples in, what it changed out. A view of the Intent page.

What is taught lives in this browser session only: the live version and everybody else's answers stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from fmcore.nouns import FMError, ModelVersion
from fmcore.text import MAX_CHARS, clean
from fmcore.training import teach
from pages import answers, figures, ui

TASK = "intent"
EXAMPLE_NAME = "gift_card"
EXAMPLES = """Where do I enter the code of my gift card?
my gift card says it was already used
How much is left on a gift card I got for Christmas
can I pay part of it with a gift card
the gift card you sold me does not work"""
ROWS = {
    "accuracy": "Known intents, accuracy",
    "oos.recall": "Out-of-scope recall",
    "oos.in_scope_accuracy": "Accuracy after scope decision",
}


def draw(desk: Any, version: ModelVersion) -> None:
    """The form, then what the newest lesson did, and a box to try it."""
    lessons = _lessons(version)
    _form(desk, version, lessons)
    if not lessons:
        return
    taught = lessons[-1]
    _summary(taught, lessons)
    left, right = ui.split(2, 1)
    with left, ui.guarded():
        _before_after(taught.report)
    with right, ui.guarded():
        _neighbours(taught.report)
    left, right = ui.split(1, 1)
    with left, ui.guarded():
        _landing(taught.report)
    with right, ui.guarded():
        _try(taught)


def _lessons(version: ModelVersion) -> list[teach.Taught]:
    """This session's lessons on top of a version, oldest first."""
    return st.session_state.setdefault("intent_lessons", {}).setdefault(version.version, [])


def _form(desk: Any, version: ModelVersion, lessons: list[teach.Taught]) -> None:
    with st.container(border=True):
        known = len(desk.registry.labels(version)) + len(lessons)
        ui.card("Teach a new intent", f"on top of {ui.esc(version.version)} · {known} intents known · in this browser session only")
        with st.form("teach", border=False):
            left, right = ui.split(1, 2, border=False)
            name = left.text_input("Name of the intent", key="teach_name", max_chars=teach.NAME_LIMIT, placeholder=EXAMPLE_NAME)
            examples = right.text_area(
                "Examples, one a line (five varied ones work well)",
                key="teach_examples",
                height=150,
                max_chars=MAX_CHARS,
                placeholder=EXAMPLES,
            )
            with left.container(horizontal=True):
                sent = st.form_submit_button("Teach", type="primary", icon=":material/school:")
                st.form_submit_button("Fill in an example", type="tertiary", on_click=_fill_in)
        if sent:
            _learn(desk, version, lessons, name, examples)


def _fill_in() -> None:
    st.session_state.update(teach_name=EXAMPLE_NAME, teach_examples=EXAMPLES)


def _learn(desk: Any, version: ModelVersion, lessons: list[teach.Taught], name: str, examples: str) -> None:
    """One lesson: on the version as served, or on what this session taught it before."""
    try:
        with (
            st.spinner("Fitting the head again and measuring on held-out rows"),
            desk.engine.classifier(TASK, version=version.version) as served,
        ):
            before = lessons[-1].classifier if lessons else served
            lessons.append(teach.teach(before, name or "", (examples or "").splitlines()))
    except FMError as error:
        ui.refusal(error)


def _summary(taught: teach.Taught, lessons: list[teach.Taught]) -> None:
    report = taught.report
    with st.container(border=True, horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        words = f"taught from {report['n_examples']} examples in {report['seconds']['total']:.1f} s · not saved, not live"
        with st.container(width="content"):
            ui.card(ui.esc(figures.label(report["label"])), words, ui.chip("Session only", "violet", ":material/school:"))
        st.button("Undo", key="teach_undo", icon=":material/undo:", on_click=lessons.pop)


def _before_after(report: Mapping[str, Any]) -> None:
    """What it did to everything that was known, on the same held-out rows, with intervals."""
    ui.card("Before and after", "the same held-out rows · 95 % bootstrap intervals · %")
    sides = {"before": (report["before"], report["oos_before"]), "after": (report["after"], report["oos_after"])}
    found = {side: {"accuracy": known, "oos": outside} for side, (known, outside) in sides.items()}
    rows = [(name, title) for name, title in ROWS.items() if all(figures.at(found[side], name) for side in found)]
    if not rows:
        st.markdown("This version stores no held-out rows, so nothing can be measured.")
        return
    told = "; ".join(
        f"{title} {figures.full(figures.at(found['before'], n))} before, {figures.full(figures.at(found['after'], n))} after"
        for n, title in rows
    )
    ui.show(_chart(found, rows), "teach_chart", f"{told}.")
    change = report["difference"]
    if change:
        low, high = figures.signed_points(change["low"]), figures.signed_points(change["high"])
        sure = "no change beyond noise" if change["low"] <= 0 <= change["high"] else "a change beyond noise"
        n = f"paired, n = {change['n']:,}"
        st.markdown(f"Known intents: **{figures.signed_points(change['value'])}** of accuracy ({low} to {high}, {n}): {sure}.")


def _chart(found: Mapping[str, Mapping], rows: list[tuple[str, str]]) -> go.Figure:
    """Two dots a figure with their intervals: grey before, accent after."""
    t = ui.tokens()
    fig = go.Figure()
    for side, color, shift in (("before", t["flat"], -0.15), ("after", t["accent"], 0.15)):
        at = [i + shift for i in range(len(rows))]
        shown = [figures.at(found[side], name) for name, _ in rows]
        for y, f in zip(at, shown, strict=True):
            x = [100 * f["low"], 100 * f["high"]]
            fig.add_scatter(x=x, y=[y, y], mode="lines", line=dict(color=ui.rgba(color, 0.55), width=3), hoverinfo="skip", showlegend=False)
        fig.add_scatter(
            x=[100 * f["value"] for f in shown],
            y=at,
            mode="markers",
            name=side,
            marker=dict(size=10, color=color, symbol="circle" if side == "after" else "circle-open", line_width=2),
            customdata=[figures.full(f) for f in shown],
            hovertemplate=f"{side}: %{{customdata}}<extra></extra>",
        )
    ends = [100 * figures.at(found[side], name)[end] for side in found for name, _ in rows for end in ("low", "high")]
    ui.desk(fig, 62 * len(rows) + 70, hovermode="closest", margin=dict(l=8, r=16, t=28, b=8))
    fig.update_yaxes(autorange="reversed", showgrid=False, tickvals=list(range(len(rows))), ticktext=[title for _, title in rows])
    return fig.update_xaxes(showgrid=True, nticks=6, ticksuffix=" %", range=[min(ends) - 1, max(ends) + 1])


def _neighbours(report: Mapping[str, Any]) -> None:
    """Whose held-out messages the new intent now claims."""
    lost = report["lost"]
    n = report["before"]["n"] if report["before"] else 0
    ui.card("Its neighbours", "held-out messages of known intents")
    if not lost:
        st.markdown(f"None of {n:,} held-out messages moved to the new intent.")
        return
    st.markdown(f"**{sum(row['n'] for row in lost)} of {n:,}** now go to the new intent. They belong to:")
    shown = lost[:8]
    names = [figures.label(row["label"]) for row in shown]
    fig = ui.bars(names, [row["n"] for row in shown], unit="messages")
    ui.show(
        fig, "teach_lost", "Messages taken from: " + "; ".join(f"{name}, {row['n']}" for name, row in zip(names, shown, strict=True)) + "."
    )


def _landing(report: Mapping[str, Any]) -> None:
    """Where each example goes when it is left out of the lesson."""
    rows = report["landing"]
    ui.card("Where the examples land", f"{report['n_landed']} of {len(rows)} find the new intent when left out")
    table = pd.DataFrame(
        {
            "Example": [row["text"] for row in rows],
            "Lands in": [figures.label(row["predicted"]) for row in rows],
            "Agreement": [row["score"] for row in rows],
        }
    )
    st.dataframe(
        table,
        hide_index=True,
        row_height=34,
        key="teach_landing",
        alt="Each example with the intent of its nearest rows when it is left out",
        column_config={
            "Example": st.column_config.TextColumn(width="medium"),
            "Agreement": st.column_config.ProgressColumn(format="%.2f", min_value=0, max_value=1, color="blue"),
        },
    )
    if report["n_landed"] < len(rows):
        ui.note(
            "Examples that land elsewhere look like that intent to the encoder: vary the wording, or ask whether it is one intent or two."
        )


def _try(taught: teach.Taught) -> None:
    """A message to the taught head, in this session."""
    ui.card("Try it", "answered by the taught head, in this session")
    message = clean(st.text_input("Message", key="teach_try", placeholder="Write one that was not an example"))[0]
    if not message.strip():
        return
    prediction = taught.classifier.predict([message])[0]
    ranked = list(prediction.scores.items())[:4]
    st.markdown(f"{ui.chip(*answers.verdict(prediction))} **{ui.esc(figures.label(prediction.label))}**")
    told = "; ".join(f"{figures.label(name)} {figures.probability(score)}" for name, score in ranked)
    ui.show(answers.bars(ranked, 0, None), "teach_bars", f"Probability of the likeliest intents: {told}.")
