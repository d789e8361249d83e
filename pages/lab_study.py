"""What the Lab's studies have in common on the page: which one is looked at, the run that makes the next one, and the way to start it.

Owns the frame around a study; what is in it is drawn by its own view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from fmcore.lab import studies
from fmcore.lab.studies import Study
from fmcore.nouns import FMError, Run
from fmcore.tasks import TASKS
from pages import live, ui

POLL_S = 2.0


def frame(desk: Any, *, kind: str, job: str, nothing: tuple[str, str], params: Callable[[str], Mapping[str, Any]]) -> Study | None:
    """The toolbar and what runs now; the chosen study, or None, when the empty state was drawn.

    nothing: title and words of the empty state. params: a task -> the parameters that the start button asks for.
    """
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        task = st.selectbox("Task", list(TASKS), key=f"{kind}_task", bind="query-params", width=210, format_func=_title)
        found = studies.listed(desk.store, kind=kind, task=task)
        study = _picked(found, kind)
        run = next((run for run in desk.runs.active() if run.job == job), None)
        if found:
            _start(desk, job, params(task), label="Measure again", kind="secondary", waiting=run is not None)
        st.page_link("training.py", label="All settings", icon=":material/tune:", query_params={"job": job})
    if run is not None:
        st.fragment(progress, run_every=POLL_S)(desk, run.id)
    if study is None and run is None:
        _nothing(desk, job, nothing, params(task))
    return study


def heading(study: Study, title: str, words: str = "") -> None:
    """A card's heading with what the study was made on, and how old it is."""
    said = f"{ui.esc(study.dataset)} · {words + ' · ' if words else ''}measured {ui.fresh(study.made_at)}"
    ui.card(title, said, ui.synthetic_mark() if study.content.get("synthetic") else "")


def _title(task: str) -> str:
    return TASKS[task].title


def details(study: Study) -> None:
    """What was left out and how it was measured, folded away."""
    left_out, notes = dict(study.content.get("left_out") or {}), list(study.content.get("notes") or [])
    if not left_out and not notes:
        return
    with st.expander("How it was measured, and what was left out", icon=":material/rule:"):
        lines = [*map(ui.esc, notes), *(f"{ui.esc(name)}: {ui.esc(why)}" for name, why in left_out.items())]
        st.markdown("\n".join(f"- {line}" for line in lines))


def _picked(found: list[Study], kind: str) -> Study | None:
    if not found:
        return None
    named = {study.id: study for study in found}
    told = {study.id: f"{study.dataset}, {ui.local(study.made_at)} ({study.run_id[-8:]})" for study in found}
    chosen = st.selectbox("Study", list(named), key=f"{kind}_study", width=330, format_func=told.get)
    return named.get(chosen, found[0])


def _start(desk: Any, job: str, params: Mapping[str, Any], *, label: str, kind: str, waiting: bool) -> None:
    if st.button(label, key=f"start-{job}", type=kind, icon=":material/play_arrow:", disabled=waiting, help=desk.jobs[job].summary):
        try:
            desk.runs.request(job, params)
        except FMError as error:
            ui.refusal(error)
            return
        st.rerun()


def _nothing(desk: Any, job: str, nothing: tuple[str, str], params: Mapping[str, Any]) -> None:
    title, words = nothing
    last: Run | None = next(iter(desk.runs.history(job=job, limit=1)), None)
    if last is not None and last.error:
        words = f"The last try ended early: {ui.short(last.error, 200)}"
    with ui.empty(title, words, icon=":material/biotech:", height=260):
        _start(desk, job, params, label="Start", kind="primary", waiting=False)


def progress(desk: Any, run_id: str) -> None:
    """The run as it is this moment; the view is drawn anew when it ends."""
    run = desk.runs.get(run_id)
    if run.is_over:
        st.rerun()
    metrics = desk.runs.metrics(run.id)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            with st.container(width="content"):
                ui.card(desk.jobs[run.job].title, "this view fills by itself")
            if st.button("Cancel", key=f"cancel-{run.job}", icon=":material/stop_circle:"):
                try:
                    desk.runs.cancel(run.id, by=ui.who())
                except FMError as error:
                    ui.refusal(error)
        live.strip(run, metrics)
        if run.state == "running":
            live.curves(metrics, key=f"live-{run.job}")
