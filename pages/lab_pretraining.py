"""Pretraining, a view of the Lab page: a run as it learns, or a base on the shelf; curves, the words behind fixed masks, and the cost.

Owns the frame, what can be watched and how a run is asked for, stopped and gone on with. The figures are lab_curves.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from fmcore.lab import monitor
from fmcore.lab.monitor import JOB, Watched
from fmcore.nouns import FMError
from pages import lab_curves, lab_fills, lab_methods, live, ui

LESSONS = {"mlm": "mlm", "nsp": "nsp", "sop": "sop", "simcse": "simcse", "tsdae": "tsdae", "polarity": "polarity"}
"""Objective -> its lesson."""


def draw(desk: Any) -> None:
    """The whole view."""
    there = {watched.key: watched for watched in monitor.watchable(desk.runs, desk.store.home)}
    if said := st.session_state.pop("lab_refused", ""):
        st.error(ui.esc(said), icon=":material/error:")
    if not there:
        nothing_yet(desk, place="pretraining")
        lab_methods.links("mlm", "simcse", place="pretraining")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute", gap="small"):
        titles = {key: lab_curves.title(watched) for key, watched in there.items()}
        if st.session_state.get("lab_watch") not in there:
            asked = st.query_params.get("lab_watch", "")
            st.session_state["lab_watch"] = asked if asked in there else next(iter(there))
        key = st.selectbox("Watch", list(there), key="lab_watch", format_func=titles.__getitem__, width=520)
        st.query_params["lab_watch"] = key
        ways(desk, place="top", primary=False)
    watched = there[key]
    _one(desk, watched)
    with ui.guarded(), st.container(border=True):
        lab_curves.compared(desk, there)
    objective = str(watched.about.get("objective", "mlm"))
    lab_methods.links(*dict.fromkeys((LESSONS.get(objective, "mlm"), "mlm")), place="pretraining")


def nothing_yet(desk: Any, *, place: str) -> None:
    """No checkpoint at all: what to do, or what is on its way."""
    working = [run for run in desk.runs.active() if run.job == JOB]
    if working:
        words = "Its first checkpoint comes within a minute or two."
        with ui.empty("The first base is being pretrained", words, icon=":material/hourglass_top:"):
            st.button("Watch it", type="primary", icon=":material/monitoring:", key=f"watch-{place}", on_click=_watch)
        return
    words = "Start one: a small model learns from scratch, and you can watch the words that it puts behind masks."
    with ui.empty("Nothing was pretrained yet", words, icon=":material/neurology:"):
        ways(desk, place=place, primary=True)


def ways(desk: Any, *, place: str, primary: bool) -> None:
    """A small run at a click, or the job's whole form."""
    if JOB not in desk.jobs:
        st.markdown("This desk has no job that pretrains.")
        return
    kind = "primary" if primary else "secondary"
    with st.container(horizontal=True, vertical_alignment="center", width="content", gap="small"):
        st.button("Start a small run", type=kind, icon=":material/play_arrow:", key=f"small-{place}", on_click=_start)
        st.page_link("training.py", label="Choose the settings", icon=":material/tune:", query_params={"job": JOB})


def _watch() -> None:
    st.session_state["lab_view"] = "Pretraining"


def _start() -> None:
    """Ask for a small run and watch it; a refusal is said at the next drawing."""
    from fmcore import runtime

    desk = runtime.current()
    try:
        if desk is not None:
            run = desk.runs.request(JOB, monitor.small_run())
            st.session_state.update(lab_view="Pretraining", lab_watch=f"run:{run.id}")
    except FMError as error:
        st.session_state["lab_refused"] = str(error)


# ---------------------------------------------------------------- one run or base


def _one(desk: Any, watched: Watched) -> None:
    """A run at work draws itself anew every two seconds; what is over is drawn once."""
    every = 2.0 if watched.at_work else None
    st.fragment(run_every=every)(_closely)(desk, watched.key, watched.run.state if watched.run else "")


def _closely(desk: Any, key: str, drawn: str) -> None:
    with ui.guarded():
        there = {one.key: one for one in monitor.watchable(desk.runs, desk.store.home)}
        watched = there.get(key)
        if watched is None or (watched.run.state if watched.run else "") != drawn:
            st.rerun()  # it ended, or it began, or it went onto the shelf
        curves = monitor.curves(desk.runs, watched)
        _head(desk, watched, curves)
        lab_curves.headline(curves, at_work=watched.at_work)
        left, right = ui.split(1, 1)
        with left, ui.guarded():
            lab_curves.masked(curves)
        with right, ui.guarded():
            lab_curves.probe(curves)
        with st.container(border=True), ui.guarded():
            lab_fills.draw(monitor.fills(desk.runs, watched), watched)
        left, right = ui.split(1, 1)
        with left, ui.guarded():
            lab_curves.loss(curves)
        with right, ui.guarded():
            facts, tokens = monitor.facts(desk.runs, watched), monitor.tokens(desk.runs, watched)
            lab_curves.cost(watched, curves, facts, tokens=tokens)
        with st.container(border=True), ui.guarded():
            lab_curves.pace(curves, at_work=watched.at_work)


def _head(desk: Any, watched: Watched, curves: Any) -> None:
    """State and progress, with what can be done: cancel a run at work, resume one that ended early."""
    run = watched.run
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            with st.container(width="content"):
                synthetic = bool(watched.about.get("synthetic"))
                ui.card(ui.esc(_name(watched)), ui.esc(_settings(watched.about)), ui.synthetic_mark() if synthetic else "")
            if watched.at_work and st.button("Cancel", key=f"lab-cancel-{run.id}", icon=":material/stop_circle:"):
                _do(lambda: desk.runs.cancel(run.id, by=ui.who()), "Cancel asked for.")
            ended_early = run is not None and run.is_over and run.state != "succeeded"
            if ended_early and st.button("Resume", key=f"lab-resume-{run.id}", icon=":material/resume:"):
                _do(lambda: desk.runs.resume(run.id, by=ui.who()), "A new run goes on from the last checkpoint.")
                st.rerun()
            keeps = monitor.can_keep(desk.runs, watched)
            if keeps and st.button("Keep its last good checkpoint", key=f"lab-keep-{run.id}", icon=":material/save:"):
                _do(lambda: desk.runs.request(JOB, {"keep": run.id}), "The checkpoint goes onto the shelf.")
                st.rerun()
        if run is not None:
            live.strip(run, curves)
        else:
            ui.note(f"Made {ui.fresh(watched.base.made_at)}; the run that made it is not on this desk.")


def _do(action: Any, said: str) -> None:
    """Carry out what a click asked for; a refusal becomes a sentence."""
    try:
        action()
    except FMError as error:
        ui.refusal(error)
        return
    st.toast(said, icon=":material/check:")


def _name(watched: Watched) -> str:
    return f"Base {watched.base.name}" if watched.base is not None else f"Run {watched.run.id}"


def _settings(about: Mapping[str, Any]) -> str:
    """What tells runs apart: objective, start, size, corpus. Plain text."""
    size = f"size {about['size']}" if about.get("size") and about.get("start") == "scratch" else ""
    return " · ".join(part for part in (lab_curves.kind(about), size, f"corpus {lab_curves.corpus(about)}") if part)
