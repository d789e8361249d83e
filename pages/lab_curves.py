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
from pages import figures, live, ui

COMPARED = {
    "probe_accuracy": ("Probe accuracy", "sentiment, by a head on the frozen checkpoint, %", 100),
    "masked_accuracy": ("Masked accuracy", "share of hidden words right in held-back text, %", 100),
    "loss": ("Loss", "nats", 1),
}
"""Figure -> title, unit, factor."""
MOST_COMPARED = 5


def kind(about: Mapping[str, Any]) -> str:
    """The objective and where it started from. Plain text."""
    start = "from scratch" if about.get("start") == "scratch" else f"continued from {about.get('base') or 'the base model'}"
    return f"{str(about.get('objective', '?')).upper()} {start}"


def corpus(about: Mapping[str, Any]) -> str:
    """The corpus by name. Plain text."""
    named = about.get("corpus") or about.get("corpora") or "unknown"
    return named if isinstance(named, str) else ", ".join(map(str, named))


def title(watched: Watched) -> str:
    """A run or a base in a line, for a picker. Plain text."""
    words = kind(watched.about)
    if watched.base is not None:
        return f"{watched.base.name}: {words}, {ui.local(watched.base.made_at)}"
    state = live.STATES.get(watched.run.state, (watched.run.state,))[0]
    return f"{state}: {words}, asked for {ui.local(watched.run.requested_at)}"


def of(curves: pd.DataFrame, name: str) -> pd.DataFrame:
    """One curve's points by step; of two at one step the later one, since a resumed run tells it again."""
    rows = curves[curves["name"] == name] if len(curves) else curves
    return rows.drop_duplicates("step", keep="last").sort_values("step")


def headline(curves: pd.DataFrame) -> None:
    """Four figures: the newest of each, against where it began."""
    masked, unigram = of(curves, "masked_accuracy"), of(curves, "unigram_accuracy")
    with st.grid(4, min_column_width=190, gap="small"):
        _kpi("Masked accuracy", masked, 100, "%", vs=_times(masked, unigram))
        _kpi("Probe accuracy, sentiment", of(curves, "probe_accuracy"), 100, "%", vs="at the first checkpoint")
        _kpi("Loss, nats", of(curves, "loss"), 1, "", good="down", vs="at the first point")
        speed = of(curves, "tokens_per_s")
        ui.kpi("Tokens a second", f"{speed['value'].iloc[-1]:,.0f}" if len(speed) else figures.NONE, vs="newest")


def _kpi(label: str, rows: pd.DataFrame, factor: float, unit: str, *, vs: str, good: str = "up") -> None:
    if not len(rows):
        ui.kpi(label, figures.NONE)
        return
    value, change = factor * rows["value"].iloc[-1], factor * (rows["value"].iloc[-1] - rows["value"].iloc[0])
    digits = 1 if factor > 1 else 2
    shown = f"{value:.{digits}f}{figures.NBSP}{unit}".strip()
    if len(rows) < 2:
        ui.kpi(label, shown, vs="first checkpoint")
        return
    ui.kpi(label, shown, change, digits=digits, vs=vs, good=good, chart_data=(factor * rows["value"]).tolist())


def _times(masked: pd.DataFrame, unigram: pd.DataFrame) -> str:
    """How many times the baseline the newest masked accuracy is."""
    if not len(masked) or not len(unigram) or not unigram["value"].iloc[-1]:
        return "at the first checkpoint"
    return f"now {masked['value'].iloc[-1] / unigram['value'].iloc[-1]:.1f} times the unigram baseline"


# ---------------------------------------------------------------- curves


def accuracy(curves: pd.DataFrame) -> None:
    """Masked accuracy with its baseline, and the probe."""
    ui.card("What it has learnt", "held-back text, % right, by training step")
    t, fig, told = ui.tokens(), go.Figure(), []
    for name, words, color in (("masked_accuracy", "masked words", t["cat"][0]), ("probe_accuracy", "probe: sentiment", t["cat"][1])):
        rows = of(curves, name)
        if len(rows):
            _line(fig, rows["step"], 100 * rows["value"], words, color, unit="%")
            told.append(f"{words} {100 * rows['value'].iloc[-1]:.1f} %")
    if not told:
        st.markdown("Comes with the first checkpoint.")
        return
    baseline = of(curves, "unigram_accuracy")
    if len(baseline):
        y = 100 * baseline["value"].iloc[-1]
        fig.add_hline(y=y, line={"color": ui.NEUTRAL, "width": 1.5, "dash": "dot"})
        words = f"always the most frequent word: {y:.1f} %"
        fig.add_annotation(xref="paper", x=0, y=y, text=words, showarrow=False, xanchor="left", yshift=9, font={"size": 12})
        told.append(f"baseline {y:.1f} %")
    _steps(fig, curves)
    fig.update_yaxes(rangemode="tozero")
    ui.show(fig, "lab-accuracy", f"Accuracy by training step. Newest: {'; '.join(told)}.")
    ui.note("Probe: a linear head on the frozen checkpoint, the same labelled rows each time.")


def loss(curves: pd.DataFrame) -> None:
    """The training loss."""
    ui.card("Loss", "nats a masked token, mean since the last point")
    rows = of(curves, "loss")
    if len(rows) < 2:
        st.markdown("Curves come after a few training steps.")
        return
    fig = go.Figure()
    _line(fig, rows["step"], rows["value"], "training", ui.tokens()["accent"], unit="nats", mode="lines")
    held = of(curves, "val_loss")
    if len(held):
        _line(fig, held["step"], held["value"], "held back", ui.tokens()["cat"][1], unit="nats")
    _steps(fig, curves)
    ends = f"{rows['value'].iloc[0]:.2f} to {rows['value'].iloc[-1]:.2f}"
    ui.show(fig, "lab-loss", f"Loss from {ends} nats over {int(rows['step'].max()):,} steps.")


def pace(curves: pd.DataFrame) -> None:
    """Tokens a second and memory, each on its own axis of one chart's width."""
    ui.card("Pace and memory", "tokens a second; resident memory of the run, MB")
    shown = {name: rows for name in ("tokens_per_s", "rss_mb") if len(rows := of(curves, name)) > 1}
    if not shown:
        st.markdown("Comes after a few training steps.")
        return
    t = ui.tokens()
    for name, rows in shown.items():
        words, color = ("tokens/s", t["accent"]) if name == "tokens_per_s" else ("MB", t["flat"])
        fig = go.Figure()
        _line(fig, rows["step"], rows["value"], words, color, unit=words, mode="lines", digits=0)
        _steps(fig, curves, height=128)
        fig.update_yaxes(rangemode="tozero", nticks=3, tickformat=",")
        ui.show(fig, f"lab-{name}", f"{words} by training step, newest {rows['value'].iloc[-1]:,.0f}.")


def _line(fig: go.Figure, x: Any, y: Any, words: str, color: str, *, unit: str, mode: str = "lines+markers", digits: int = 1) -> None:
    """A curve named at its end."""
    fig.add_scatter(
        x=x, y=y, mode=mode, name=words, line={"color": color, "width": 2}, marker={"size": 6},
        hovertemplate=f"{words}: <b>%{{y:,.{max(digits, 2)}f}}</b> {unit}<extra></extra>",
    )  # fmt: skip
    end = f"<b>{y.iloc[-1]:,.{digits}f}</b> {words}"
    fig.add_annotation(x=x.iloc[-1], y=y.iloc[-1], text=end, showarrow=False, xanchor="right", yshift=12, font={"size": 12, "color": color})


def _steps(fig: go.Figure, curves: pd.DataFrame, *, height: int | str = "medium") -> None:
    ui.desk(fig, height, showlegend=False, margin={"l": 8, "r": 16, "t": 18, "b": 8})
    fig.update_xaxes(range=[0, max(1, int(curves["step"].max())) * 1.03], nticks=6, tickformat=",", hoverformat=",")


# ---------------------------------------------------------------- cost


def cost(watched: Watched, curves: pd.DataFrame, facts: RunFacts | None) -> None:
    """What the run used: time, tokens, device, memory, energy. What nobody could measure is said to be unknown."""
    ui.card("What it cost")
    st.table(pd.DataFrame(costs(watched, curves, facts), columns=["", "Value"]).set_index(""), border="horizontal", hide_header=True)


def costs(watched: Watched, curves: pd.DataFrame, facts: RunFacts | None) -> list[tuple[str, str]]:
    """(what, how much in words) lines; words are markdown."""
    about, run = watched.about, watched.run
    seconds = (facts and facts.seconds) or about.get("seconds")
    ended = clock.duration(float(seconds)) if seconds else "unknown"
    time = f"{live.took(run)} so far" if watched.at_work else ended
    tokens = about.get("n_tokens") or live.latest(curves, "tokens")
    memory = (facts and facts.peak_rss_mb) or (of(curves, "rss_mb")["value"].max() if len(of(curves, "rss_mb")) else None)
    device = (facts and facts.device) or about.get("device") or (run.device if run else "")
    energy = f"{facts.energy_j:,.0f} J" if facts and facts.energy_j is not None else "unknown"
    why = f" ({facts.energy_note})" if facts and facts.energy_note else ""
    return [
        ("Time", ui.esc(time)),
        ("Tokens seen", f"{tokens:,.0f}" if tokens else "unknown"),
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
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        figure = st.segmented_control(
            "Figure", list(COMPARED), default="probe_accuracy", required=True, key="lab_figure", format_func=lambda n: COMPARED[n][0],
            label_visibility="collapsed",
        )  # fmt: skip
        chosen = st.multiselect(
            "Compared", keys, default=keys[:MOST_COMPARED], max_selections=MOST_COMPARED, key="lab_compared",
            format_func=lambda k: title(there[k]), label_visibility="collapsed", placeholder="Pick runs and bases",
        )  # fmt: skip
    name, unit, factor = COMPARED[figure]
    fig, told = go.Figure(), []
    for i, key in enumerate(chosen):
        rows = of(monitor.curves(desk.runs, there[key]), figure)
        if len(rows):
            words = figures.chart_text(ui.short(title(there[key]).split(",")[0], 36))
            _line(fig, rows["step"], factor * rows["value"], words, ui.tokens()["cat"][i], unit=unit.split(",")[0])
            told.append(f"{words} {factor * rows['value'].iloc[-1]:.2f}")
    if not told:
        st.markdown(f"None of those has measured {name.lower()}.")
        return
    ui.desk(fig, "medium", showlegend=False, margin={"l": 8, "r": 16, "t": 18, "b": 8})
    fig.update_xaxes(title_text="training step", tickformat=",", rangemode="tozero")
    fig.update_yaxes(title_text=unit)
    ui.show(fig, "lab-compared", f"{name} by training step. Newest: {'; '.join(told)}.")
    if figure != "probe_accuracy":
        ui.note(
            "Across different vocabularies this is no fair race: a model from scratch names pieces of its own, often shorter and easier. "
            "The probe asks all of them the same question."
        )
