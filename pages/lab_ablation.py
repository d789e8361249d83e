"""What helps, a view of the Lab page: regularisers one by one against the plain recipe, and what adapting the base to a domain gave.

Draws the latest stored studies of the two kinds; a difference is said to help only where its whole interval lies above zero.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from fmcore.lab.studies import Study
from pages import figures, lab_charts, lab_methods, lab_study, ui

VIEWS = ("Regularisation", "Domain adaptation")
ABLATION = (
    "No ablation yet",
    "Trains the task with and without each regulariser and augmentation, on the same rows and seeds, and says which help.",
)
ADAPTATION = (
    "No adaptation study yet",
    "Adapts the base model to finance text by continued pretraining and by contrast, and says which of them helps with few labels.",
)


def draw(desk: Any) -> None:
    """The whole view."""
    view = st.segmented_control("Study", VIEWS, default=VIEWS[0], required=True, key="ablation_view", label_visibility="collapsed")
    if view == VIEWS[1]:
        study = lab_study.frame(desk, kind="adaptation", job="adaptation", nothing=ADAPTATION, params=lambda task: {"task": task})
        lab_methods.links("mlm", "simcse", "tsdae", "polarity", place="adaptation")
        if study is not None:
            with st.container(border=True), ui.guarded():
                _table(study, "What adapting gave", "frozen encoder and a linear head, the same drawn labels for all")
        return
    study = lab_study.frame(desk, kind="ablation", job="ablation", nothing=ABLATION, params=lambda task: {"task": task})
    lab_methods.links("weight_decay", "dropout", "label_smoothing", "r_drop", "augmentation", place="ablation")
    if study is None:
        return
    with st.container(border=True), ui.guarded():
        _table(study, "One regulariser at a time", "the same rows and seeds for all")
    with st.container(border=True), ui.guarded():
        _preserved(study)


def _table(study: Study, title: str, words: str) -> None:
    """Chart of differences beside the table."""
    rows = study.content.get("rows", [])
    seeds, n = (max((int(row.get(key) or 0) for row in rows), default=0) for key in ("n_seeds", "n_test"))
    lab_study.heading(study, title, f"{words} · {seeds} seeds, {n:,} test rows")
    if not rows:
        st.markdown("Nothing was finished.")
        return
    st.markdown(ui.esc(study.content.get("sentence", "")))
    left, right = ui.split(1, 1, border=False)
    with left:
        told = "; ".join(f"{row['title']} {figures.signed_points(row['over'])}" for row in rows if row.get("over") is not None)
        ui.show(lab_charts.differences(rows), f"differences_{study.id}", f"Differences in accuracy to {rows[0]['title']}. {told}.")
        ui.note(f"Against {ui.esc(rows[0]['title'])} on the same rows and seeds, paired; bars: 95 % intervals over seeds and rows.")
    with right:
        table = pd.DataFrame([
            {
                "What": row["title"], "Accuracy, %": 100 * row["mean"],
                "95 % interval": f"{100 * row['low']:.1f}{figures.DASH}{100 * row['high']:.1f}",
                "Verdict": _verdict(row), "Seconds": row.get("seconds"),
            }
            for row in rows
        ])  # fmt: skip
        number = st.column_config.NumberColumn
        st.dataframe(
            table, hide_index=True, row_height=34, height=38 + 34 * len(table), key=f"table_{study.id}", alt=f"{title}: every row",
            column_config={"Accuracy, %": number(format="%.1f"), "Seconds": number(format="%.1f", help="Training, mean of the seeds.")},
        )  # fmt: skip
        ui.download("Download CSV", table, f"{study.kind}.csv", key=f"csv_{study.id}", type="tertiary")
    lab_study.details(study)


def _verdict(row: dict[str, Any]) -> str:
    """A row's verdict in words: the study's own, else what the interval says."""
    if row.get("verdict"):
        return str(row["verdict"])
    return "the yardstick" if row.get("over") is None else lab_charts.side(row["over_low"], row["over_high"])


def _preserved(study: Study) -> None:
    """Whether augmented texts keep their label, with examples."""
    ui.card("Do augmented texts keep their label?", "asked of a model that did not learn from the row")
    rows = study.content.get("augmentations", [])
    if not rows:
        st.markdown("No augmentation was tried.")
        return
    for row in rows:
        share = f"{figures.points(row['kept_share'])} ({100 * row['low']:.1f}{figures.DASH}{100 * row['high']:.1f}), n = {row['n']:,}"
        with st.expander(f"{ui.esc(row.get('title', row['name']))}: {share} kept", icon=":material/spellcheck:"):
            if row.get("refused"):
                st.markdown(ui.esc(row["refused"]))
            examples = pd.DataFrame(row.get("examples", []))
            if examples.empty:
                st.markdown("No examples were stored.")
            else:
                st.table(examples.map(lambda value: ui.esc(value)), border="horizontal", hide_index=True)
