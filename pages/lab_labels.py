"""Few labels, a view of the Lab page: how far each way of learning comes with 0 to all labels a class, what it costs, what to use.

Draws the latest stored label-efficiency study, and the default that a study made of its task's recipe.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from fmcore.lab import defaults
from fmcore.lab.studies import Study
from fmcore.nouns import FMError
from fmcore.tasks import TASKS
from pages import figures, lab_charts, lab_methods, lab_study, ui

JOB = "label_study"
NOTHING = (
    "No label study yet",
    "Learns the task again and again with few labels: from scratch, frozen, LoRA, full, contrastive, and from descriptions alone.",
)


def draw(desk: Any) -> None:
    """The whole view."""
    study = lab_study.frame(desk, kind="labels", job=JOB, nothing=NOTHING, params=lambda task: {"task": task})
    lab_methods.links("frozen", "lora", "setfit", "zero_shot", place="labels")
    if study is None:
        return
    points = study.table("points")
    with st.container(border=True), ui.guarded():
        _curves(study, points)
    left, right = ui.split(1, 1)
    with left, ui.guarded():
        _advice(study)
    with right, ui.guarded():
        _default(desk, study)
    with st.container(border=True), ui.guarded():
        _costs(study, points)


def _curves(study: Study, points: pd.DataFrame) -> None:
    n, seeds = (int(points[column].max()) if len(points) else 0 for column in ("n_test", "n_seeds"))
    lab_study.heading(study, "Accuracy by labels", f"the same {n:,} test rows and the same drawn labels for all, {seeds} seeds")
    if points.empty:
        st.markdown("No cell of this study was finished.")
        return
    st.markdown(ui.esc(study.content.get("sentence", "")))
    methods = list(dict.fromkeys(points["method"]))
    titles = dict(zip(points["method"], points["title"], strict=True))
    chosen = st.pills(
        "Methods", methods, selection_mode="multi", default=methods, key=f"labels_methods_{study.id}", format_func=titles.get,
        label_visibility="collapsed",
    )  # fmt: skip
    shown = points[points["method"].isin(chosen or methods)]
    told = "; ".join(f"{r.title}, {lab_charts.shots_told(int(r.shots))} labels: {figures.points(r.mean)}" for r in shown.itertuples())
    fig = lab_charts.label_curves(shown, methods=[method for method in methods if method in (chosen or methods)])
    ui.show(fig, "labels_curves", f"Accuracy against labels a class. {told}.")
    ui.note("Bands: 95 % intervals over seeds and test rows together. Each step to the right doubles the labels; a method may end early.")
    lab_study.details(study)


def _advice(study: Study) -> None:
    ui.card("What to use", "the cheapest of those not shown to be worse than the best")
    rows = study.content.get("advice", [])
    if not rows:
        st.markdown("Too few cells to advise.")
        return
    shots = [row["shots"] for row in rows]
    chosen = st.segmented_control(
        "Labels a class", shots, default=shots[len(shots) // 2], required=True, key=f"labels_advice_{study.id}",
        format_func=lambda n: lab_charts.shots_told(int(n)),
    )  # fmt: skip
    st.markdown(ui.esc(next(row["sentence"] for row in rows if row["shots"] == chosen)))


def _default(desk: Any, study: Study) -> None:
    """How the task is trained where nobody says."""
    ui.card("The task's default", "what recipe “auto” of a training run means")
    st.markdown(ui.esc(defaults.told(desk.store, study.task)))
    found = defaults.chosen(desk.store, study.task)
    if found is None:
        ui.note("Only a study that was asked to adopt its winner changes this.")
        return
    ui.note(f"Chosen by {ui.esc(found.by)} {ui.fresh(found.at)}, from study {ui.esc(found.study_id)}.")
    if st.button("Back to the usual recipe", key="labels_reset", icon=":material/undo:", help=f"That of {TASKS[study.task].title}."):
        try:
            defaults.reset(desk.store, study.task, by=ui.who())
        except FMError as error:
            ui.refusal(error)
        else:
            st.rerun()


def _costs(study: Study, points: pd.DataFrame) -> None:
    ui.card("What it costs", "mean of the seeds, on the machine of the study")
    table = pd.DataFrame([
        {
            "Method": row.title, "Labels a class": lab_charts.shots_told(int(row.shots)), "Accuracy, %": 100 * row.mean,
            "95 % interval": f"{100 * row.low:.1f}{figures.DASH}{100 * row.high:.1f}", "Seeds": int(row.n_seeds),
            "Trainable parameters": row.trainable, "Seconds": row.seconds, "Peak memory, MB": row.rss_mb,
        }
        for row in points.itertuples()
    ])  # fmt: skip
    number = st.column_config.NumberColumn
    st.dataframe(
        table, hide_index=True, row_height=34, height=min(38 + 34 * max(1, len(table)), 420), key="labels_costs",
        alt="Accuracy, trainable parameters, seconds and memory of every method and number of labels",
        column_config={
            "Accuracy, %": number(format="%.1f"), "Trainable parameters": number(format="localized"), "Seconds": number(format="%.1f"),
            "Peak memory, MB": number(format="%,.0f"),
        },
    )  # fmt: skip
    ui.download("Download CSV", table, "label-study.csv", key="labels_csv", type="tertiary")
