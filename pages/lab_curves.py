"""Figures of a pretraining: loss, masked accuracy against the unigram baseline, the probe, pace and memory, cost, and several in one chart.

Draws what fmcore.lab.monitor gives; a figure that was not measured says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from fmcore import clock
from fmcore.lab import monitor
from fmcore.lab.monitor import Watched
from fmcore.run_facts import RunFacts
from pages import figures, lab_drawing, live, ui
from pages.lab_drawing import Curve

COMPARED = {
    "probe_accuracy": ("Probe accuracy", "%", "sentiment, by a linear head on the frozen checkpoint, % right", 100),
    "masked_accuracy": ("Masked accuracy", "%", "hidden words of held-back text, % right", 100),
    "loss": ("Loss", "nats", "nats a hidden piece while learning", 1),
}
"""Figure -> title, unit, what it is, factor."""
MOST_COMPARED = 5


def kind(about: Mapping[str, Any]) -> str:
    """The objective and where it started from. Plain text."""
    start = "from scratch" if about.get("start") == "scratch" else f"continued from {about.get('base') or 'the base model'}"
    return f"{str(about.get('objective', '?')).upper()} {start}"


def corpus(about: Mapping[str, Any]) -> str:
    """The corpus by name. Plain text."""
    named = about.get("corpus") or "the finance texts here"
    return named if isinstance(named, str) else ", ".join(map(str, named))


def title(watched: Watched) -> str:
    """A run or a base in a line, for a picker. Plain text."""
    words = kind(watched.about)
    if watched.base is not None:
        return f"{watched.base.name}: {words}, {ui.local(watched.base.made_at)}"
    state = live.STATES.get(watched.run.state, (watched.run.state,))[0]
    return f"{state}: {words}, asked for {ui.local(watched.run.requested_at)}"


def _short(watched: Watched) -> str:
    """Its name and where it started from, for the end of a line. Plain text."""
    name = watched.base.name if watched.base is not None else f"run {watched.run.id[-8:]}"
    start = "scratch" if watched.about.get("start") == "scratch" else "continued"
    return f"{ui.short(name, 24)}, {start}"


def of(curves: pd.DataFrame, name: str) -> pd.DataFrame:
    """One curve's points by step; of two at one step the later one, since a resumed run tells it again."""
    rows = curves[curves["name"] == name] if len(curves) else curves
    return rows.drop_duplicates("step", keep="last").sort_values("step")


def headline(curves: pd.DataFrame, *, at_work: bool) -> None:
    """Four figures: the newest of each, against where it began."""
    masked, unigram = of(curves, "masked_accuracy"), of(curves, "unigram_accuracy")
    none = "not yet" if at_work else figures.NONE
    with st.grid(4, min_column_width=190, gap="small"):
        _kpi("Masked accuracy", masked, 100, none=none, vs=_times(masked, unigram))
        _kpi("Probe accuracy, sentiment", of(curves, "probe_accuracy"), 100, none=none, good="none")
        _kpi("Loss, nats", of(curves, "loss"), 1, none=none, good="down")
        speed = of(curves, "tokens_per_s")
        ui.kpi("Tokens a second", f"{speed['value'].iloc[-1]:,.0f}" if len(speed) else none, vs="newest" if len(speed) else "")


def _kpi(label: str, rows: pd.DataFrame, factor: float, *, none: str, vs: str = "since the first", good: str = "up") -> None:
    if not len(rows):
        ui.kpi(label, none)
        return
    value, change = factor * rows["value"].iloc[-1], factor * (rows["value"].iloc[-1] - rows["value"].iloc[0])
    digits, unit = (1, f"{figures.NBSP}%") if factor > 1 else (2, "")
    shown = f"{value:.{digits}f}{unit}"
    if len(rows) < 2:
        ui.kpi(label, shown, vs="first checkpoint")
        return
    ui.kpi(label, shown, change, digits=digits, vs=vs, good=good, chart_data=(factor * rows["value"]).tolist())


def _times(masked: pd.DataFrame, unigram: pd.DataFrame) -> str:
    """How many times the baseline the newest masked accuracy is."""
    if not len(masked) or not len(unigram) or not unigram["value"].iloc[-1]:
        return "since the first"
    return f"{masked['value'].iloc[-1] / unigram['value'].iloc[-1]:.1f} times unigram"


# ---------------------------------------------------------------- curves


def masked(curves: pd.DataFrame) -> None:
    """Masked accuracy with its baseline, and the pairs' accuracy where the objective has them."""
    ui.card("Masked accuracy", "hidden pieces of held-back text, % right")
    t, unigram = ui.tokens(), of(curves, "unigram_accuracy")
    drawn = [
        Curve(rows["step"].tolist(), (100 * rows["value"]).tolist(), words, t["cat"][i], dots=True)
        for i, (name, words) in enumerate((("masked_accuracy", "this model"), ("pair_accuracy", "sentence pairs")))
        if len(rows := of(curves, name))
    ]
    if not drawn:
        st.markdown("Comes with the first checkpoint of an objective that hides words.")
        return
    if len(unigram):
        level = 100 * unigram["value"].iloc[-1]
        drawn.append(Curve([0, int(curves["step"].max())], [level, level], "unigram", context=True))
    fig = _over_steps(lab_drawing.curves(drawn, unit="%", zero=True), curves)
    told = "; ".join(f"{one.words} {one.y[-1]:.1f} %" for one in drawn)
    ui.show(fig, "lab-masked", f"Masked accuracy by training step. Newest: {told}.")
    ui.note("Unigram: always saying the most frequent piece, the best that ignores the text.")


def probe(curves: pd.DataFrame) -> None:
    """What the frozen checkpoint knows of sentiment."""
    ui.card("Sentiment probe", "a linear head on the frozen checkpoint, % right")
    rows = of(curves, "probe_accuracy")
    if not len(rows):
        st.markdown("Comes with the first checkpoint.")
        return
    drawn = [Curve(rows["step"].tolist(), (100 * rows["value"]).tolist(), "probe", ui.tokens()["cat"][1], dots=True)]
    fig = _over_steps(lab_drawing.curves(drawn, unit="%"), curves)
    ends = f"{100 * rows['value'].iloc[0]:.1f} to {100 * rows['value'].iloc[-1]:.1f} %"
    ui.show(fig, "lab-probe", f"Probe accuracy by training step, from {ends}.")
    ui.note("The same few hundred labelled rows each time, so a few points up or down are chance.")


def loss(curves: pd.DataFrame) -> None:
    """The training loss, and the loss on held-back text where it was measured."""
    ui.card("Loss", "nats a hidden piece, mean since the last point")
    rows, held = of(curves, "loss"), of(curves, "val_loss")
    if len(rows) < 2:
        st.markdown("Curves come after a few training steps.")
        return
    drawn = [Curve(rows["step"].tolist(), rows["value"].tolist(), "training")]
    if len(held):
        drawn.append(Curve(held["step"].tolist(), held["value"].tolist(), "held back", ui.tokens()["cat"][1], dots=True))
    fig = _over_steps(lab_drawing.curves(drawn, unit="nats", digits=2), curves)
    ends = f"{rows['value'].iloc[0]:.2f} to {rows['value'].iloc[-1]:.2f}"
    ui.show(fig, "lab-loss", f"Loss from {ends} nats over {int(rows['step'].max()):,} steps.")


def pace(curves: pd.DataFrame, *, at_work: bool) -> None:
    """Tokens a second and memory, a small chart each."""
    ui.card("Pace and memory", "by training step, from zero")
    shown = {name: rows for name in ("tokens_per_s", "rss_mb", "gpu_mb") if len(rows := of(curves, name)) > 1}
    if not shown:
        st.markdown("Comes after a few training steps." if at_work else "A run tells these while it works; of this one they were not kept.")
        return
    words = {"tokens_per_s": "tokens/s", "rss_mb": "MB of memory", "gpu_mb": "MB on the GPU"}
    with st.grid(len(shown), min_column_width=290, gap="medium") as grid:
        for name, rows in shown.items():
            color = ui.tokens()["accent" if name == "tokens_per_s" else "flat"]
            drawn = [Curve(rows["step"].tolist(), rows["value"].tolist(), words[name], color)]
            fig = _over_steps(lab_drawing.curves(drawn, height=140, unit=words[name], digits=0, zero=True), curves)
            fig.update_yaxes(nticks=3, tickformat=",")
            with grid.cell():
                ui.show(fig, f"lab-{name}", f"{words[name]} by training step, newest {rows['value'].iloc[-1]:,.0f}.")


def _over_steps(fig: go.Figure, curves: pd.DataFrame) -> go.Figure:
    return fig.update_xaxes(range=[0, max(1, int(curves["step"].max())) * 1.02], nticks=6, tickformat=",", hoverformat=",")


# ---------------------------------------------------------------- cost


def cost(watched: Watched, curves: pd.DataFrame, facts: RunFacts | None, *, tokens: float | None) -> None:
    """What the run used: time, tokens, device, memory, energy. What nobody could measure is said to be unknown."""
    ui.card("What it cost")
    lines = costs(watched, curves, facts, tokens=tokens)
    st.table(pd.DataFrame(lines, columns=["", "Value"]).set_index(""), border="horizontal", hide_header=True)


def costs(watched: Watched, curves: pd.DataFrame, facts: RunFacts | None, *, tokens: float | None) -> list[tuple[str, str]]:
    """(what, how much in words) lines; words are markdown."""
    about, run = watched.about, watched.run
    seconds = (facts and facts.seconds) or about.get("seconds")
    ended = clock.duration(float(seconds)) if seconds else "unknown"
    time = f"{live.took(run)} so far" if watched.at_work else ended
    seen = about.get("n_tokens") or tokens
    memory = (facts and facts.peak_rss_mb) or (of(curves, "rss_mb")["value"].max() if len(of(curves, "rss_mb")) else None)
    device = (facts and facts.device) or about.get("device") or (run.device if run else "")
    energy = f"{facts.energy_j:,.0f} J" if facts and facts.energy_j is not None else "unknown"
    why = f" ({facts.energy_note})" if facts and facts.energy_note else ""
    return [
        ("Time", ui.esc(time)),
        ("Tokens seen", f"{seen:,.0f}" + (" at the last checkpoint" if watched.at_work else "") if seen else "unknown"),
        ("Device", ui.esc(device or "unknown")),
        ("Peak memory", f"{memory:,.0f} MB" if memory else "unknown"),
        ("Energy", ui.esc(energy + why)),
        ("Corpus", ui.esc(corpus(about))),
    ]


# ---------------------------------------------------------------- several in one chart


def compared(desk: Any, there: Mapping[str, Watched]) -> None:
    """Bases and runs in one chart, by what they have read: scratch against continued is the usual question."""
    ui.card("Scratch against continued", "several in one chart, by training step")
    keys = list(there)
    with st.container(gap="small"):
        figure = st.segmented_control(
            "Figure", list(COMPARED), default="probe_accuracy", required=True, key="lab_figure", format_func=lambda n: COMPARED[n][0],
            label_visibility="collapsed",
        )  # fmt: skip
        chosen = st.multiselect(
            "Compared", keys, default=keys[:MOST_COMPARED], max_selections=MOST_COMPARED, key="lab_compared",
            format_func=lambda k: title(there[k]), label_visibility="collapsed", placeholder="Pick runs and bases",
        )  # fmt: skip
    name, unit, words, factor = COMPARED[figure]
    drawn = []
    for i, key in enumerate(chosen):
        rows = of(monitor.curves(desk.runs, there[key]), figure)
        if len(rows):
            color = ui.tokens()["cat"][i]
            drawn.append(Curve(rows["step"].tolist(), (factor * rows["value"]).tolist(), _short(there[key]), color, dots=len(rows) < 40))
    if not drawn:
        st.markdown(f"None of those has measured {name.lower()}.")
        return
    fig = lab_drawing.curves(drawn, unit=unit, digits=1 if factor > 1 else 2)
    fig.update_xaxes(title_text="training step", tickformat=",", rangemode="tozero")
    told = "; ".join(f"{one.words} {one.y[-1]:.2f}" for one in drawn)
    ui.show(fig, "lab-compared", f"{name} by training step. Newest: {told}.")
    ui.note(f"{name}: {words}.")
    if figure != "probe_accuracy":
        ui.note(
            "Across different vocabularies this is no fair race: a model from scratch names pieces of its own, often shorter and easier. "
            "The probe asks all of them the same question."
        )
