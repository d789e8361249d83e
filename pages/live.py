"""One run as it is this moment: state, progress, time left, device, memory, curves. Drawn wherever a run is watched.

Owns the words and colours of run states; never starts, stops or waits for anything.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from fmcore import clock
from fmcore.lab.label_methods import METHODS
from fmcore.nouns import Run
from fmcore.recommend.agents import AGENTS
from fmcore.tasks import RECOMMEND
from pages import figures, ui

STATES = {
    "queued": ("Waiting", "gray", ":material/schedule:"),
    "running": ("Running", "blue", ":material/autorenew:"),
    "succeeded": ("Done", "green", ":material/check_circle:"),
    "failed": ("Failed", "red", ":material/error:"),
    "crashed": ("Crashed", "red", ":material/power_off:"),
    "timed_out": ("Timed out", "orange", ":material/timer_off:"),
    "cancelled": ("Cancelled", "gray", ":material/block:"),
    "interrupted": ("Interrupted", "orange", ":material/pause_circle:"),
}

CURVES = {
    "loss": ("Training loss", "nats an example, mean since the last point", ".3f", 1),
    "val_loss": ("Validation loss", "nats an example", ".3f", 1),
    "val_accuracy": ("Validation accuracy", "share of held-back messages right, %", ".1f", 100),
    "val_ndcg": ("Validation NDCG@10", "what people met next, among all items", ".3f", 1),
    "accuracy": ("Accuracy", "share of messages right, %", ".1f", 100),
    "masked_accuracy": ("Masked accuracy", "share of hidden words right in held-back text, %", ".1f", 100),
    "probe_accuracy": ("Probe accuracy", "sentiment, by a head on the frozen checkpoint, %", ".1f", 100),
    **{f"return_{a.name}": (a.title, "likes a visit, one seed after another", ".2f", 1) for a in AGENTS.values() if a.learns},
    **{f"{m.name}_accuracy": (m.title, "share right, %, by labels a class instead of steps", ".1f", 100) for m in METHODS.values()},
    "examples_per_s": ("Speed", "examples a second", ".0f", 1),
    "tokens_per_s": ("Speed", "tokens a second", ",.0f", 1),
    "rss_mb": ("Memory", "resident memory of the run, MB", ".0f", 1),
    "gpu_mb": ("GPU memory", "allocated on the GPU, MB", ".0f", 1),
    "unigram_accuracy": ("Unigram baseline", "share of hidden words right by always saying the most frequent one, %", ".1f", 100),
    "lr": ("Learning rate", "of the first layer group", ".2e", 1),
}
"""metric name -> (panel title, unit in words, number format, factor); an unknown metric gets a panel under its own name."""

RETURNS = tuple(name for name in CURVES if name.startswith("return_"))
"""Curves of agents that learn by trying."""
BY_LABELS = tuple(f"{name}_accuracy" for name in METHODS)
"""Curves of the label study."""
MAIN = (
    "loss", "val_loss", "val_accuracy", "val_ndcg", "accuracy", "masked_accuracy", "probe_accuracy", *RETURNS, *BY_LABELS,
    "examples_per_s", "tokens_per_s",
)  # fmt: skip
"""The curves that are always drawn; the rest is there on request."""

GAUGES = (
    ("rss_mb", "MB of memory", "database"),
    ("gpu_mb", "MB on the GPU", "developer_board"),
    ("examples_per_s", "examples/s", "speed"),
    ("tokens_per_s", "tokens/s", "speed"),
)
"""metric name, unit, icon of the chips."""

HIGHER_IS_BETTER = ("accuracy", "f1", "ndcg")


TRIGGERS = {
    "manual": "a person",
    "cli": "the command line",
    "api": "the API",
    "schedule": "its schedule",
    "retry": "a retry",
    "resume": "a resume",
}


def at_work(desk: Any) -> list[Run]:
    """What runs or waits and is worth a look: routine runs come every minute and are left out."""
    return [run for run in desk.runs.active() if not getattr(desk.jobs.get(run.job), "routine", False)]


def training(desk: Any, task: str) -> list[Run]:
    """Runs that train a model of this task and are not over."""
    if task == RECOMMEND.name:
        return [run for run in desk.runs.active() if run.job == RECOMMEND.name]
    return [run for run in desk.runs.active() if run.job == "finetune" and run.params.get("task") == task]


def started_by(run: Run) -> str:
    """What asked for a run, in words; a trigger without words of its own is given as it is."""
    return TRIGGERS.get(run.trigger, run.trigger)


def state_chip(state: str) -> str:
    """A badge with the state's word, colour and icon."""
    word, color, icon = STATES.get(state, (state, "gray", ":material/help:"))
    return ui.chip(word, color, icon)


def took(run: Run) -> str:
    """How long a run took, or has taken so far; "not started" before it began."""
    if run.started_at is None:
        return "not started"
    return clock.duration(((run.finished_at or clock.now()) - run.started_at).total_seconds())


def left(run: Run) -> str:
    """Time left in words, from the pace so far; "" while there is nothing to go by."""
    if run.state != "running" or run.started_at is None or run.progress < 0.03:
        return ""
    elapsed_s = (clock.now() - run.started_at).total_seconds()
    return clock.duration(elapsed_s * (1 - run.progress) / run.progress)


def latest(metrics: pd.DataFrame, name: str) -> float | None:
    """The newest value of a metric, None when the run never reported it."""
    rows = metrics[metrics["name"] == name] if len(metrics) else metrics
    return float(rows["value"].iloc[-1]) if len(rows) else None


def strip(run: Run, metrics: pd.DataFrame) -> None:
    """The chips row and the progress bar."""
    chips = [state_chip(run.state)]
    if run.device:
        chips.append(ui.chip(run.device, icon=":material/memory:"))
    for name, unit, icon in GAUGES:
        value = latest(metrics, name)
        if value is not None:
            chips.append(ui.chip(f"{value:,.0f} {unit}", icon=f":material/{icon}:"))
    if run.attempt > 1:
        chips.append(ui.chip(f"attempt {run.attempt}", "orange", ":material/replay:"))
    st.markdown(" ".join(chips))
    if run.state == "running":
        remaining = left(run)
        eta = f" · **{remaining} left**" if remaining and "left" not in run.message else ""
        st.progress(min(1.0, max(0.0, run.progress)), text=f"{ui.esc(run.message) or 'Starting'}{eta} · {100 * run.progress:.0f} %")
        beat = f"last sign of life {clock.ago(run.beat_at)}" if run.beat_at else "no sign of life yet"
        st.markdown(f":small[:gray[Started {clock.ago(run.started_at)} · {beat}]]")
    elif run.state == "queued":
        st.progress(0.0, text=f"Waiting for its turn since {clock.ago(run.requested_at)}")
    else:
        done = f"Finished {clock.ago(run.finished_at)} after {took(run)}"
        st.markdown(f":small[:gray[{done}{' · ' + ui.esc(run.message) if run.message else ''}]]")
        if run.error:
            st.error(ui.esc(run.error[-600:]), icon=":material/error:")


def curves(metrics: pd.DataFrame, *, key: str, everything: bool = False) -> None:
    """Small multiples against the training step, all over the same steps; the ring is the best, else the newest point."""
    seen = set(metrics["name"]) if len(metrics) else set()
    names = [n for n in CURVES if n in seen and n in MAIN] + sorted(seen - set(CURVES))
    rest = [n for n in CURVES if n in seen and n not in MAIN]
    if not len(metrics) or metrics["name"].value_counts().max() < 2:
        ui.note("No curves: this run measured nothing more than once." if everything else "Curves come after a few training steps.")
        return
    _multiples(metrics, names, key)
    if everything and rest:
        with st.expander(f"More curves ({len(rest)})", icon=":material/monitoring:"):
            _multiples(metrics, rest, f"{key}-more")


def _multiples(metrics: pd.DataFrame, names: list[str], key: str) -> None:
    titles = [CURVES.get(name, (name, "", ".3f", 1)) for name in names]
    n_columns = min(3, len(names))
    n_rows = -(-len(names) // n_columns)
    shown = [figures.chart_text(title) for title, *_ in titles]
    fig = make_subplots(n_rows, n_columns, subplot_titles=shown, horizontal_spacing=0.07, vertical_spacing=0.32 / n_rows)
    for i, (name, (_, _, fmt, factor)) in enumerate(zip(names, titles, strict=True)):
        _panel(fig, metrics[metrics["name"] == name], name, fmt, factor, 1 + i // n_columns, 1 + i % n_columns)
    ui.desk(fig, 60 + 170 * n_rows, hovermode="closest", showlegend=False, margin=dict(l=8, r=24, t=34, b=8))
    last_step = int(metrics["step"].max())
    fig.update_xaxes(range=[0, max(1, last_step) * 1.04], nticks=5)
    fig.update_annotations(selector=dict(yanchor="bottom"), font_size=13)
    newest = [f"{title} {latest(metrics, name) * factor:{fmt}}" for name, (title, _, fmt, factor) in zip(names, titles, strict=True)]
    ui.show(fig, key, f"Curves against the training step, up to step {last_step}. Newest values: {'; '.join(newest)}.")
    of_unit: dict[str, list[str]] = {}
    for title, unit, *_ in titles:
        of_unit.setdefault(unit, []).append(title)
    units = " · ".join(f"{ui.esc(', '.join(shown))}: {ui.esc(unit)}" for unit, shown in of_unit.items() if unit)
    ui.note(f"Across: training step, the same in every panel. Ring: best, else newest point. {units}")


def _panel(fig: go.Figure, rows: pd.DataFrame, name: str, fmt: str, factor: float, row: int, column: int) -> None:
    """One metric's line with its ring and the number there."""
    t = ui.tokens()
    rows = rows.sort_values("step")
    y = (rows["value"] * factor).to_numpy()
    color = t["accent"] if name.endswith((*HIGHER_IS_BETTER, "loss")) or name in RETURNS else t["flat"]
    at = int(y.argmax()) if name.endswith(HIGHER_IS_BETTER) else int(y.argmin()) if name.endswith("loss") else len(y) - 1
    fig.add_scatter(
        x=rows["step"],
        y=y,
        mode="lines" if len(rows) > 1 else "markers",
        line=dict(color=color, width=2),
        row=row,
        col=column,
        hovertemplate=f"step %{{x}}: <b>%{{y:{fmt}}}</b><extra></extra>",
    )
    fig.add_scatter(
        x=[rows["step"].iloc[at]],
        y=[y[at]],
        mode="markers+text",
        text=[f"<b>{y[at]:{fmt}}</b>"],
        cliponaxis=False,
        hoverinfo="skip",
        textposition=("bottom" if name.endswith("loss") else "top") + (" left" if at > len(y) / 2 else " right"),
        marker=dict(symbol="circle-open", size=9, color=color, line_width=2),
        textfont=dict(size=12, color=t["muted"]),
        row=row,
        col=column,
    )
    low, high = float(y.min()), float(y.max())
    pad = (high - low) * 0.25 or abs(high) * 0.1 or 1.0
    fig.update_yaxes(range=[low - pad, high + pad], nticks=4, row=row, col=column)
