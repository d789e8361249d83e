"""Efficiency, a view of the Lab page: every version of a task against speed and size, the slices, and the one to serve.

Draws the latest stored board; the gate's word on a version is asked anew before it may serve.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from fmcore.lab.studies import Study
from fmcore.nouns import FMError
from pages import figures, lab_charts, lab_methods, lab_study, ui

JOB = "board"
COMPRESS = "compress"
NOTHING = ("No board yet", "Measures every version of a task in one run, beside PyTorch fp32: accuracy, texts a second, latency, size.")
METHODS = {
    "int8": "ONNX in 8 bits", "prune": "Prune heads and layers", "distill": "Distil a student of fewer layers", "static": "Static student",
    "cascade": "Cascade: static first, the full model when unsure",
}  # fmt: skip
"""Method of the job compress -> what it makes."""


def draw(desk: Any) -> None:
    """The whole view."""
    study = lab_study.frame(desk, kind="board", job=JOB, nothing=NOTHING, params=lambda task: {"task": task})
    _make(desk)
    lab_methods.links("distillation", "pruning", "quantisation", "static", "cascade", place="board")
    if study is None:
        return
    with st.container(border=True), ui.guarded():
        _chart(study)
    left, right = ui.split(2, 1)
    with left, ui.guarded():
        _table(study)
    with right, ui.guarded():
        _serve(desk, study)
    with st.container(border=True), ui.guarded():
        _slices(study)


def _make(desk: Any) -> None:
    """Make a smaller or faster version: one button a method."""
    task = st.session_state.get("board_task", "intent")
    run = next((run for run in desk.runs.active() if run.job == COMPRESS), None)
    with st.expander("Make a faster version", icon=":material/compress:", expanded=run is not None):
        if run is not None:
            st.fragment(lab_study.progress, run_every=lab_study.POLL_S)(desk, run.id)
            return
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            method = st.selectbox("Method", list(METHODS), format_func=METHODS.get, key="compress_method", width=360)
            if st.button("Make it", key="compress_start", icon=":material/play_arrow:", disabled=desk.registry.champion(task) is None):
                try:
                    desk.runs.request(COMPRESS, {"task": task, "method": method, "promote": "never"})
                except FMError as error:
                    ui.refusal(error)
                else:
                    st.rerun()
            st.page_link("training.py", label="All settings", icon=":material/tune:", query_params={"job": COMPRESS})
        ui.note("From the version that serves. It is measured on the same held-out rows and does not serve by itself; then measure again.")


def _chart(study: Study) -> None:
    rows, content = study.content["rows"], study.content
    machine = content.get("machine", {})
    threads = f"{machine.get('threads', 1)} thread{'' if machine.get('threads', 1) == 1 else 's'}"
    on = f"{content['n']:,} held-out rows · {threads} of {machine.get('cores', '?')} cores"
    lab_study.heading(study, "Accuracy against speed", on)
    st.markdown(ui.esc(content["sentence"]))
    told = "; ".join(f"{row['title']} {figures.points(row['accuracy'])} at {row['texts_per_s']:,.0f} texts/s" for row in rows)
    fig = lab_charts.pareto(rows, reference=content["reference"]["version"], choice=content["choice"])
    ui.show(fig, "board_pareto", f"Accuracy against texts a second. {told}.")
    ui.note(
        "Further up is more often right, further right is faster. Line: the versions that none beats in both. Ring: the board's choice, "
        f"the fastest within {content.get('max_lost', 0.5):g} points. Grey: {ui.esc(content['reference']['title'])}, the yardstick. "
        "Bars: 95 % intervals. " + " ".join(ui.esc(note) for note in content.get("notes", []))
    )


def _table(study: Study) -> None:
    content = study.content
    ui.card("Every version", f"speed: best of {content.get('rounds', 3)} rounds of {content.get('n_timed', 0):,} texts, taking turns")
    rows = sorted(content["rows"], key=lambda row: -row["texts_per_s"])
    table = pd.DataFrame([
        {
            "What": row["title"] + (" (serves)" if row["serving"] else ""), "Accuracy, %": 100 * row["accuracy"],
            "Points lost": row["lost_points"], "95 % interval": f"{ui.signed(row['lost_low'], 1)} to {ui.signed(row['lost_high'], 1)}",
            "Texts/s": row["texts_per_s"], "Times": row["speedup"], "p50, ms": row["p50_ms"], "p95, ms": row["p95_ms"], "MB": row["mb"],
            "Form": row["form"], "Version": row["version"],
        }
        for row in rows
    ])  # fmt: skip
    number = st.column_config.NumberColumn
    st.dataframe(
        table, hide_index=True, row_height=34, height=38 + 34 * len(table), key="board_table",
        alt="Every version with accuracy, loss, speed and size",
        column_config={
            "Accuracy, %": number(format="%.1f"),
            "Points lost": number(format="%.2f", help="Against the yardstick, on the same rows, paired."),
            "Texts/s": number(format="%,.0f"), "Times": number(format="%.1f", help="As fast as the yardstick."),
            "p50, ms": number(format="%.2f", help="One text at a time: half take no longer."),
            "p95, ms": number(format="%.2f", help="One text at a time: 95 % take no longer."), "MB": number(format="%.1f"),
        },
    )  # fmt: skip
    ui.download("Download CSV", table, "board.csv", key="board_csv", type="tertiary")


def _serve(desk: Any, study: Study) -> None:
    """Pick one to serve; the gate speaks first."""
    ui.card("Pick one to serve")
    champion = desk.registry.champion(study.task)
    known = {version.version: version for version in desk.registry.versions(study.task)}
    rows = {row["version"]: row for row in study.content["rows"] if row["version"] in known}
    names = [name for name in rows if champion is None or name != champion.version]
    if not names:
        st.markdown("Only the version that serves was measured. Make a faster one above, then measure again.")
        return
    first = names.index(study.content["choice"]) if study.content["choice"] in names else 0
    told = {name: f"{rows[name]['title']} ({name})" for name in names}
    name = st.selectbox("Version", names, index=first, key=f"board_pick_{study.id}", format_func=told.get)
    verdict = desk.registry.gate(known[name])
    passes = ("The gate passes it", "green", ":material/check_circle:")
    st.markdown(ui.chip(*(passes if verdict["passed"] else ("The gate refuses it", "orange", ":material/block:"))))
    st.markdown(ui.esc(verdict["reason"]))
    reason = st.text_input("Why this one", key="board_reason", max_chars=300, placeholder="Kept with the promotion")
    if st.button("Serve it", key="board_serve", type="primary", icon=":material/rocket_launch:", disabled=not reason.strip()):
        try:
            desk.registry.promote(study.task, name, by=ui.who(), reason=reason)
        except FMError as error:
            ui.refusal(error)
        else:
            st.toast(f"{name} serves now.", icon=":material/check:")
            st.rerun()
    st.page_link("models.py", label="Its model card", icon=":material/description:", query_params={"task": study.task, "model": name})


def _slices(study: Study) -> None:
    """What an average hides: each version on each part of the rows."""
    rows = [row for row in study.content["rows"] if row.get("slices")]
    ui.card("By slice", "accuracy, %: what an average hides")
    if not rows:
        st.markdown("No slice has enough rows.")
        return
    parts = list(rows[0]["slices"])
    by = {}
    for part in parts:
        by.setdefault(part.split(": ", 1)[0], []).append(part)
    chosen = st.segmented_control("Cut by", list(by), default=next(iter(by)), required=True, key="board_cut", label_visibility="collapsed")
    shown = by.get(chosen) or parts
    worst = min(((row, part) for row in rows for part in shown), key=lambda pair: pair[0]["slices"].get(pair[1], 2.0))
    said = f"Weakest: {worst[0]['title']} on {worst[1]}, {figures.points(worst[0]['slices'][worst[1]])}."
    fig = lab_charts.slice_heat(rows, shown, n=study.content.get("slice_n", {}))
    ui.show(fig, f"board_slices_{chosen}", f"Accuracy by {chosen}. {said}")
    ui.note(ui.esc(said))
