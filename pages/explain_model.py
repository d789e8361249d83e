"""The whole model: the words that matter for each label, what it mixes up and why, and where it is weak. A view of the Explain page.

Draws the newest overview that the job `explain` stored of a version, and asks for a new one; never computes it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from fmcore.explain import overview
from fmcore.explain.slices import CONFIDENCE
from fmcore.nouns import FMError
from pages import figures, live, ui

JOB = "explain"
NONE_SURE = "none beyond chance yet: more texts would tell"
N_WORDS = 14
N_CONFUSIONS = 12
MOST_SLICES = 8
"""Slices of one kind that are drawn, the weakest first."""


def draw(desk: Any, task: str, version: str) -> None:
    """The overview of one version, or how to come by it."""
    found = overview.latest(desk.store, task, version)
    run = _at_work(desk, task, version)
    if run is not None:
        _progress(desk, task, version, run.id)
    if found is None:
        if run is None:
            _nothing(desk, task, version)
        return
    _how(desk, task, version, found, waiting=run is not None)
    left, right = ui.split(1, 1)
    with left, ui.guarded():
        _words(found)
    with right, ui.guarded():
        _slices(found)
    with st.container(border=True), ui.guarded():
        _confusions(found)


# ---------------------------------------------------------------- computing it


def _at_work(desk: Any, task: str, version: str) -> Any:
    """The run that computes this overview or waits to, None where there is none."""
    return next((run for run in desk.runs.active() if run.job == JOB and _is_of(desk, run, task, version)), None)


def _is_of(desk: Any, run: Any, task: str, version: str) -> bool:
    """Whether a run looks at this version; without a name it looks at the live one."""
    champion = desk.registry.champion(task)
    return run.params.get("task") == task and (run.params.get("version") or (champion and champion.version)) == version


@st.fragment(run_every=2.0)
def _progress(desk: Any, task: str, version: str, run_id: str) -> None:
    """The run as it is this moment; the view is drawn anew when it ends."""
    run = desk.runs.get(run_id)
    if run.is_over:
        st.rerun()
    with st.container(border=True):
        ui.card("The model is being looked at", "this view fills by itself")
        live.strip(run, desk.runs.metrics(run.id))
        ahead = [other.job for other in live.at_work(desk) if other.state == "running" and other.id != run.id]
        if run.state == "queued" and ahead:
            ui.note(f"At work before it: {ui.esc(', '.join(ahead))}.")


def _nothing(desk: Any, task: str, version: str) -> None:
    last = next((run for run in desk.runs.history(job=JOB, limit=20) if _is_of(desk, run, task, version)), None)
    words = "Computing it explains held-out rows of the data set and adds them up by word, confusion and slice: some minutes."
    if last is not None and last.error:
        words = f"The last try ended early: {ui.short(last.error, 200)}"
    with ui.empty("This version was not looked at as a whole yet", words, icon=":material/query_stats:"):
        _button(desk, task, version, "Compute", kind="primary")


def _button(desk: Any, task: str, version: str, label: str, *, kind: str, disabled: bool = False) -> None:
    if st.button(label, key="explain_compute", type=kind, icon=":material/play_arrow:", disabled=disabled):
        try:
            desk.runs.request(JOB, {"task": task, "version": version})
        except FMError as error:
            ui.refusal(error)
            return
        st.rerun()


def _how(desk: Any, task: str, version: str, found: Any, *, waiting: bool) -> None:
    """How it was computed, and the button that does it again."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        mark = f"{ui.synthetic_mark()} " if found.synthetic else ""
        facts = [
            f"{found.n_rows:,} held-out rows of {found.dataset}", f"{found.n_texts:,} of them explained",
            f"method {found.method}, {found.budget} model calls a text, {found.n_calls:,} in all", f"computed {ui.fresh(found.made_at)}",
        ]  # fmt: skip
        st.markdown(f"{mark}:small[:gray[{ui.esc(' · '.join(facts))}]]", width="content")
        _button(desk, task, version, "Compute again", kind="tertiary", disabled=waiting)
    with st.expander("How it was computed", icon=":material/info:"):
        for sentence in found.notes:
            st.markdown(f":small[{ui.esc(sentence)}]")


# ---------------------------------------------------------------- words


def _words(found: Any) -> None:
    """The words that push a label up or down, with how sure that is."""
    labels = sorted(found.words["label"].unique())
    ui.card("Words that matter", "mean effect on the label's score, in points · 95 % interval · n: texts · pale: may be chance")
    if not labels:
        st.markdown(f"No word stands in the {found.support} texts of a label that it takes to say something of it.")
        return
    surest = str(found.words.groupby("label")["sure"].sum().idxmax())
    label = st.selectbox(
        "Label", labels, index=labels.index(surest), key="explain_label", format_func=figures.label, label_visibility="collapsed"
    )
    rows = strongest(found.words, label)
    told = "; ".join(f"{r.word} {figures.signed_points(r.mean)}, n {r.n}" for r in rows.itertuples(index=False))
    ui.show(words_chart(rows), "explain_words", f"Words that matter for {figures.label(label)}: {told}.")
    glance = at_a_glance(found.words)
    st.dataframe(
        glance, hide_index=True, row_height=34, height=min(36 + 34 * len(glance), 420), alt="The surest words of every label",
        column_config={"Words": st.column_config.TextColumn("Words beyond chance, points", width="large")},
    )  # fmt: skip
    with st.expander("All words in numbers", icon=":material/table_rows:"):
        table = found.words[found.words["label"] == label].drop(columns="label")
        shown = table.assign(**{name: 100 * table[name] for name in ("mean", "low", "high")})
        st.dataframe(
            shown, hide_index=True, row_height=34, height=260, alt=f"Every word of {figures.label(label)} with mean effect, interval and n",
            column_config={
                "word": "Word", "n": "n", "mean": st.column_config.NumberColumn("Mean, points", format="%+.1f"),
                "low": st.column_config.NumberColumn("Low", format="%+.1f"), "high": st.column_config.NumberColumn("High", format="%+.1f"),
                "sure": st.column_config.CheckboxColumn("Beyond chance"),
            },
        )  # fmt: skip
        ui.download("All labels as CSV", found.words, "words.csv", key="explain_words_csv", type="tertiary")


def strongest(words: pd.DataFrame, label: str) -> pd.DataFrame:
    """The surest words of a label, largest rise first."""
    return words[words["label"] == label].head(N_WORDS).sort_values("mean", ascending=False)


def at_a_glance(words: pd.DataFrame) -> pd.DataFrame:
    """Columns Label, Words: the sure words of each label on one line; labels with the most of them first."""
    rows = []
    for label, group in words.groupby("label"):
        sure = group[group["sure"]]
        said = driving(list(zip(sure["word"], sure["mean"], strict=True))) if len(sure) else NONE_SURE
        rows.append((len(sure), figures.label(str(label)), said))
    rows.sort(key=lambda row: (-row[0], row[1]))
    return pd.DataFrame([row[1:] for row in rows], columns=["Label", "Words"])


def words_chart(rows: pd.DataFrame) -> go.Figure:
    """Bars from zero with their intervals; the sign is the side of zero, a glyph and the colour; n stands at the right."""
    t = ui.tokens()
    at = [str(i) for i in range(len(rows))]
    mean, low, high = (100 * rows[name].to_numpy(dtype=float) for name in ("mean", "low", "high"))
    names = [f"{'▲' if v > 0 else '▼'} {figures.chart_text(w)}" for w, v in zip(rows["word"], mean, strict=True)]
    colors = [ui.rgba(t["up"] if v > 0 else t["down"], 1.0 if sure else 0.4) for v, sure in zip(mean, rows["sure"], strict=True)]
    fig = go.Figure(
        go.Bar(
            y=at, x=mean, orientation="h", width=0.6, marker={"color": colors, "line_width": 0},
            error_x={"type": "data", "symmetric": False, "array": high - mean, "arrayminus": mean - low, "color": t["muted"], "width": 3},
            customdata=np.c_[low, high, rows["n"].to_numpy()],
            hovertemplate="<b>%{x:+.1f}</b> points (%{customdata[0]:+.1f} to %{customdata[1]:+.1f}), n = %{customdata[2]}<extra></extra>",
        )
    )  # fmt: skip
    for row, n in zip(at, rows["n"], strict=True):
        fig.add_annotation(x=1, xref="paper", y=row, text=f"n {n:,}", showarrow=False, xanchor="left", xshift=6, font={"size": 12})
    ui.desk(fig, 25 * len(rows) + 44, hovermode="closest", margin={"l": 8, "r": 52, "t": 8, "b": 8})
    fig.update_yaxes(autorange="reversed", showgrid=False, tickvals=at, ticktext=names, nticks=len(at) + 1)
    fig.add_vline(x=0, line={"color": ui.NEUTRAL, "width": 1})
    reach = float(np.abs(np.r_[low, high, mean, 0.1]).max())
    some = mean.min() < 0 < mean.max()
    ends = [-1.08 * reach if mean.min() < 0 or some else -0.12 * reach, 1.08 * reach if mean.max() > 0 or some else 0.12 * reach]
    return fig.update_xaxes(range=ends, nticks=5, showgrid=True)


# ---------------------------------------------------------------- slices


def _slices(found: Any) -> None:
    """Where it is weak: accuracy by slice, and the weakest named."""
    ui.card("Where it is weak", "accuracy by slice, % · 95 % interval · ring: the model's mean confidence · dotted: all rows")
    if not len(found.slices):
        st.markdown("There were too few rows to slice.")
        return
    overall = found.n_right / found.n_rows
    st.markdown(ui.esc(weakest(found.slices, overall)))
    rows = shown_slices(found.slices)
    told = "; ".join(f"{r.by} {r.slice} {figures.points(r.accuracy)}, n {r.n}" for r in rows.itertuples(index=False))
    ui.show(slices_chart(rows, overall), "explain_slices", f"Accuracy by slice, {figures.points(overall)} over all rows: {told}.")
    if len(rows) < len(found.slices):
        ui.note(f"Of each kind the {MOST_SLICES} weakest; {len(found.slices) - len(rows):,} more were measured.")


def weakest(slices: pd.DataFrame, overall: float) -> str:
    """The lowest slice that is weak beyond chance, in a sentence, or that there is none. By confidence every model is weak somewhere."""
    weak = slices[slices["weak"] & (slices["by"] != CONFIDENCE)].sort_values("accuracy")
    if not len(weak):
        return f"No slice is weak beyond chance; over all rows {figures.points(overall)} are right."
    worst = weak.iloc[0]
    more = f" {len(weak) - 1} more {'is' if len(weak) == 2 else 'are'} weak beyond chance." if len(weak) > 1 else ""
    span = f"{figures.points(worst['low'])} to {figures.points(worst['high'])}, n = {int(worst['n']):,}"
    name = f"{worst['by']} {figures.label(str(worst['slice']))}"
    return f"Weakest: {name}, {figures.points(worst['accuracy'])} right ({span}), against {figures.points(overall)} over all rows.{more}"


def shown_slices(slices: pd.DataFrame) -> pd.DataFrame:
    """Of each kind the weakest, kinds in the order of their slices' number: the few large cuts before the many small ones."""
    kept = slices.sort_values("accuracy").groupby("by", sort=False).head(MOST_SLICES)
    n_of_kind = slices["by"].value_counts()
    return kept.assign(kind=kept["by"].map(n_of_kind)).sort_values(["kind", "by", "accuracy"]).drop(columns="kind")


def slices_chart(rows: pd.DataFrame, overall: float) -> go.Figure:
    """A dot with its interval for each slice, grouped by kind; what is weak beyond chance is a ▼; a ring where mean confidence stands."""
    t = ui.tokens()
    names, dots = [], []
    for by, group in rows.groupby("by", sort=False):
        names.append(f"<b>{figures.chart_text(str(by).capitalize())}</b>")
        for row in group.itertuples(index=False):
            dots.append((len(names), row))
            names.append(f"{figures.chart_text(figures.label(str(row.slice)))} · n {row.n:,}")
    fig = go.Figure()
    colors = [t["down"] if row.weak else t["accent"] for _, row in dots]
    for (y, row), color in zip(dots, colors, strict=True):
        ends = [100 * row.low, 100 * row.high]
        fig.add_scatter(x=ends, y=[y, y], mode="lines", line={"color": ui.rgba(color, 0.55), "width": 3}, hoverinfo="skip")
    fig.add_scatter(
        x=[100 * row.confidence for _, row in dots], y=[y for y, _ in dots], mode="markers",
        marker={"symbol": "circle-open", "size": 11, "color": t["flat"], "line_width": 2},
        hovertemplate="mean confidence <b>%{x:.1f}</b> %<extra></extra>",
    )  # fmt: skip
    fig.add_scatter(
        x=[100 * row.accuracy for _, row in dots], y=[y for y, _ in dots], mode="markers",
        marker={"size": 9, "color": colors, "symbol": ["triangle-down" if row.weak else "circle" for _, row in dots]},
        customdata=[[100 * row.low, 100 * row.high, row.n] for _, row in dots],
        hovertemplate="accuracy <b>%{x:.1f}</b> % (%{customdata[0]:.1f} to %{customdata[1]:.1f}), n = %{customdata[2]:,}<extra></extra>",
    )  # fmt: skip
    fig.add_vline(x=100 * overall, line={"color": ui.NEUTRAL, "width": 1.5, "dash": "dot"})
    ui.desk(fig, 25 * len(names) + 44, hovermode="closest", showlegend=False, margin={"l": 8, "r": 14, "t": 8, "b": 8})
    at = list(range(len(names)))
    fig.update_yaxes(range=[len(at) - 0.4, -0.6], showgrid=False, tickvals=at, ticktext=names, nticks=len(at) + 1)
    least = float(rows[["low", "confidence"]].min().min())
    return fig.update_xaxes(range=[max(-2.0, 100 * least - 4), 102], showgrid=True, nticks=6)


# ---------------------------------------------------------------- confusions


def _confusions(found: Any) -> None:
    """What it mixes up, with the words that drove the wrong answer."""
    ui.card("Mixed up most", "held-out rows · words: mean effect on the wrong label's score, in points")
    rows = found.confusions
    if not len(rows):
        st.markdown("No row was answered wrongly.")
        return
    shown = rows.nlargest(N_CONFUSIONS, "n")
    table = pd.DataFrame(
        {
            "True label": [figures.answer(v) for v in shown["label"]],
            "Said": [figures.answer(v) for v in shown["predicted"]],
            "Rows": shown["n"].to_numpy(),
            "Words that drove it": [driving(words) for words in shown["words"]],
        }
    )
    most = int(rows["n"].max())
    st.dataframe(
        table, hide_index=True, row_height=34, height=36 + 34 * len(table),
        alt=f"The {len(shown)} most frequent confusions with the words that drove them",
        column_config={
            "Rows": st.column_config.ProgressColumn(format="%d", min_value=0, max_value=most, color="blue", width="small"),
            "Words that drove it": st.column_config.TextColumn(width="large"),
        },
    )  # fmt: skip
    if len(rows) > len(shown):
        ui.note(f"The {len(shown)} most frequent of {len(rows):,} pairs.")


def driving(words: list[tuple[str, float]]) -> str:
    """Words with their effects on one line: "▲ transfer +21.0 · ▼ card −4.1"; plain text."""
    return " · ".join(f"{'▲' if v > 0 else '▼'} {ui.short(w, 40)} {ui.signed(100 * v, 1)}" for w, v in words) or "none stood out"
