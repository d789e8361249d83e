"""Runs, a view of the Lab page: runs side by side with only what differs, against a pinned baseline; and where a model comes from.

Draws what comparing_runs reads from stored rows.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from fmcore import clock, comparing_runs
from fmcore.comparing_runs import Comparison, Measured, Node
from fmcore.nouns import FMError, Run
from pages import figures, lab_charts, live, ui

LATEST = 300
"""Finished runs that can be picked."""
MOST = 6
"""Runs beside each other: beyond, neither table nor colours can be read."""
ICONS = {"data": "database", "base": "foundation", "run": "play_circle", "version": "deployed_code", "champion": "verified"}
_HASH = re.compile(r"[0-9a-f]{16,}")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00$")
KINDS = {"data": "Data set", "base": "Base model", "run": "Run", "version": "Version", "champion": "Served"}


def draw(desk: Any) -> None:
    """The whole view."""
    runs = [run for run in desk.runs.history(limit=LATEST) if desk.jobs[run.job].kind == "heavy"] if desk.jobs else []
    if not runs:
        with ui.empty("No run to look at yet", "Training, pretraining and the studies each leave one.", icon=":material/compare_arrows:"):
            st.page_link("training.py", label="Open Training", icon=":material/play_arrow:")
        return
    with st.container(border=True), ui.guarded():
        _beside(desk, runs)
    with st.container(border=True), ui.guarded():
        _descent(desk, runs)


# ---------------------------------------------------------------- side by side


def _beside(desk: Any, runs: list[Run]) -> None:
    ui.card("Runs side by side", "only what differs is shown")
    jobs = [name for name, _ in Counter(run.job for run in runs).most_common()]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        job = st.selectbox("Job", jobs, key="runs_job", format_func=lambda name: desk.jobs[name].title, width=280)
        there = {run.id: run for run in runs if run.job == job}
        chosen = st.multiselect(
            f"Runs, {MOST} at most", list(there), default=list(there)[:2], max_selections=MOST, key=f"runs_of_{job}", width=640,
            format_func=lambda one: _named(there[one]),
        )  # fmt: skip
    if not chosen:
        st.markdown("Pick two runs or more.")
        return
    try:
        compared = comparing_runs.compare(desk.store, chosen)
    except FMError as error:
        st.markdown(f"{ui.esc(error.message)} {ui.esc(error.hint)}")
        return
    _baseline(desk, compared)
    names = {run.run_id: f"{place}. {run.run_id}" for place, run in enumerate(compared.runs, start=1)}
    left, right = ui.split(1, 1, border=False)
    with left:
        _parameters(compared, names)
    with right:
        _figures(compared, names)
    _curves(compared, names)


def _named(run: Run) -> str:
    """A run as it is picked: when, on what, how it ended; with the end of its id, for two alike would be one choice."""
    what = " ".join(str(run.params[key]) for key in ("task", "dataset", "recipe", "objective", "method") if run.params.get(key))
    return ", ".join(part for part in (ui.local(run.requested_at), what, live.STATES[run.state][0].lower(), run.id[-8:]) if part)


def _baseline(desk: Any, compared: Comparison) -> None:
    """Which run the others are told against, and the pin."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        mark = ui.chip("pinned", "blue", ":material/keep:") if compared.pinned else ui.chip("the first one picked")
        st.markdown(f"Baseline **{ui.esc(compared.baseline)}** {mark}", width="content")
        if compared.pinned:
            if st.button("Unpin", key="runs_unpin", type="tertiary", icon=":material/keep_off:"):
                comparing_runs.unpin(desk.store, compared.baseline, by=ui.who())
                st.rerun()
        elif st.button("Pin as baseline", key="runs_pin", type="tertiary", icon=":material/keep:", help="For this job and task."):
            comparing_runs.pin(desk.store, compared.baseline, by=ui.who())
            st.rerun()


def _parameters(compared: Comparison, names: Mapping[str, str]) -> None:
    st.markdown("**Parameters and facts that differ**")
    if not compared.params:
        st.markdown("None: the runs were asked for alike, on the same code, data and machine.")
        return
    table = pd.DataFrame([
        {"What": row.name, **{names[run]: "unknown" if value is None else str(value) for run, value in row.values.items()}}
        for row in compared.params
    ])  # fmt: skip
    st.dataframe(
        table, hide_index=True, row_height=34, height=min(38 + 34 * len(table), 420), key="runs_params", alt="What differs between the runs"
    )
    ui.download("Download CSV", table, "runs-differences.csv", key="runs_params_csv", type="tertiary")


def _figures(compared: Comparison, names: Mapping[str, str]) -> None:
    st.markdown("**Figures, and how far from the baseline**")
    if not compared.metrics:
        st.markdown("These runs left no figures.")
        return
    table = pd.DataFrame([
        {"Figure": row.name, **{names[run.run_id]: told(row, run.run_id) for run in compared.runs}} for row in compared.metrics
    ])  # fmt: skip
    st.dataframe(
        table, hide_index=True, row_height=34, height=min(38 + 34 * len(table), 420), key="runs_figures",
        alt="Figures of the runs with their distance to the baseline",
    )  # fmt: skip
    ui.note("In brackets: difference to the baseline, with a 95 % interval where both were measured with one.")
    ui.download("Download CSV", table, "runs-figures.csv", key="runs_figures_csv", type="tertiary")


def told(row: Measured, run_id: str) -> str:
    """A run's figure and its distance to the baseline's in words; "" where it has none."""
    if run_id not in row.values:
        return ""
    value = row.values[run_id]
    number = f"{value['value'] if isinstance(value, Mapping) else value:,.4g}"
    found = row.deltas.get(run_id)
    if found is None:
        return number
    sign = "+" if found.value > 0 else "−" if found.value < 0 else "±"
    around = f", {found.low:.3g} to {found.high:.3g}" if found.low is not None else ""
    return f"{number} ({sign}{abs(found.value):.3g}{around}{', ' + found.verdict if found.verdict else ''})"


def _curves(compared: Comparison, names: Mapping[str, str]) -> None:
    """The runs' curves over each other, a panel a metric."""
    there = [name for name in live.CURVES if name in compared.curves] + sorted(set(compared.curves) - set(live.CURVES))
    there = [name for name in there if len(compared.curves[name]) > 1]
    if not there:
        ui.note("No curves: none of these runs measured anything more than once.")
        return
    chosen = st.pills("Curves", there, default=there[0], key="runs_curve", format_func=_curve_title) or there[0]
    fig = overlaid(compared.curves[chosen], names, title=live.CURVES.get(chosen, (chosen, "", "", 1))[1] or chosen)
    curves = {run: values.dropna() for run, values in compared.curves[chosen].items()}
    ends = "; ".join(f"{names[run]} ends at {values.iloc[-1]:.4g}" for run, values in curves.items() if len(values))
    ui.show(fig, f"runs_curve_{chosen}", f"{_curve_title(chosen)} over the steps. {ends}.")


def _curve_title(name: str) -> str:
    return live.CURVES[name][0] if name in live.CURVES else name


def overlaid(frame: pd.DataFrame, names: Mapping[str, str], *, title: str) -> go.Figure:
    """A line a run over the steps; colour and dash both tell them apart."""
    t = ui.tokens()
    fig = go.Figure()
    for place, (run, values) in enumerate(frame.items()):
        there = values.dropna()
        fig.add_scatter(
            x=there.index, y=there, mode="lines" if len(there) > 1 else "markers", name=figures.chart_text(names.get(str(run), str(run))),
            line={"color": t["cat"][place % len(t["cat"])], "width": 2, "dash": lab_charts.DASHES[place % len(lab_charts.DASHES)]},
        )  # fmt: skip
    ui.desk(fig, 260, margin={"l": 8, "r": 12, "t": 30, "b": 8})
    fig.update_xaxes(title_text="step")
    return fig.update_yaxes(title_text=figures.chart_text(title))


# ---------------------------------------------------------------- descent


def _descent(desk: Any, runs: list[Run]) -> None:
    """Where a version or a run comes from, and what came of it."""
    ui.card("Where it comes from", "data set, base, run, version, and what was made from it")
    versions = [f"{version.task}@{version.version}" for version in desk.registry.versions()]
    asked = st.selectbox("Version or run", [*versions, *(run.id for run in runs)], key="runs_lineage", width=520)
    try:
        tree = comparing_runs.lineage(desk.store, asked)
    except FMError as error:
        ui.refusal(error)
        return
    st.markdown("\n".join(lines(tree)))


def lines(node: Node, depth: int = 0) -> Iterator[str]:
    """The tree as a nested markdown list: icon, kind, title, what is known of it."""
    known = {figures.label(name): _said(value) for name, value in node.detail.items() if value not in (None, "", {}, [])}
    detail = "; ".join(f"{ui.esc(name)} {ui.esc(words)}" for name, words in known.items())
    title = f"**{ui.esc(node.title)}**" if node.asked else ui.esc(node.title)
    kind = f":gray[{KINDS.get(node.kind, node.kind)}]"
    yield f"{'    ' * depth}- :material/{ICONS.get(node.kind, 'circle')}: {kind} {title}{f' :small[:gray[{detail}]]' if detail else ''}"
    for child in node.children:
        yield from lines(child, depth + 1)


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return figures.full(value) if figures.is_figure(value) else ", ".join(f"{name} {_said(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(f"{one['how']} {one['id']}" if isinstance(one, Mapping) and "how" in one else _said(one) for one in value)
    if isinstance(value, str) and _MOMENT.match(value):
        return clock.ago(dt.datetime.fromisoformat(value))
    if isinstance(value, str) and _HASH.fullmatch(value):
        return value[:12]
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
