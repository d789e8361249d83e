"""Recommend: what comes next for somebody, and because of what; the models beside each other; the agents that learn by trying.

Owns the frame: the view, which lives in the address, and the states of a desk without a recommender.
"""

from __future__ import annotations

import importlib
from typing import Any

import streamlit as st

from fmcore import runtime
from fmcore.nouns import FMError
from fmcore.tasks import RECOMMEND
from pages import live, recommend_live, ui

VIEWS = {"For one person": "recommend_live", "Models": "recommend_models", "Learning agents": "recommend_agents"}
"""View -> the module of pages/ that draws it: draw(desk)."""


def page() -> None:
    """The whole page: an empty state that waits for a first version, or the chosen view."""
    desk = runtime.current()
    if desk is None:
        ui.no_server()
        return
    if desk.registry.champion(RECOMMEND.name) is None:
        _no_version(desk)
        return
    try:
        with st.skeleton(height=420):  # the first visit after a start or a promotion loads the version
            desk.recommend.shelf()
    except FMError as error:
        _refused(error)
        return
    with ui.header("Recommend", recommend_live.facts(desk)):
        view = st.segmented_control(
            "View", list(VIEWS), key="recommend_view", default=next(iter(VIEWS)), required=True, bind="query-params",
            label_visibility="collapsed",
        )  # fmt: skip
    if warning := desk.recommend.info()["warning"]:
        st.warning(ui.esc(warning), icon=":material/warning:")
    importlib.import_module(f"pages.{VIEWS.get(view, 'recommend_live')}").draw(desk)


def _refused(error: FMError) -> None:
    """No version can be loaded: why, and where another one comes from."""
    ui.header("Recommend", "No version answers")
    ui.refusal(error)
    with st.container(horizontal=True, gap="small"):
        st.page_link("models.py", label="Open Models", icon=":material/deployed_code:")
        st.page_link("training.py", label="Open Training", icon=":material/model_training:")


@st.fragment(run_every=2.0)
def _no_version(desk: Any) -> None:
    """Nothing is live yet: the first run's progress, and the page opens by itself when it ends."""
    if desk.registry.champion(RECOMMEND.name) is not None:
        st.rerun()
    ui.header("Recommend", "No recommender is live yet")
    active = [run for run in desk.runs.active() if run.job == RECOMMEND.name]
    if active:
        with st.container(border=True):
            ui.card("The first recommender is being made", "this page opens by itself when it is live")
            live.strip(active[0], desk.runs.metrics(active[0].id))
        return
    n_versions = len(desk.registry.versions(RECOMMEND.name))
    if n_versions:
        words = f"{n_versions} made, none promoted. Promote one on the Models page."
        with ui.empty("No version is live", words, icon=":material/verified:"):
            st.page_link("models.py", label="Open Models", icon=":material/deployed_code:")
        return
    last = next(iter(desk.runs.history(job=RECOMMEND.name, limit=1)), None)
    words = f"Fit the models on {RECOMMEND.default_dataset}, a catalogue written for this desk: a minute or two on two cores."
    if last and last.error:
        words = f"The last run ended early: {ui.short(last.error, 200)}"
    with ui.empty("No recommender yet", words, icon=":material/recommend:"):
        st.button("Start the run", type="primary", icon=":material/play_arrow:", on_click=_start)
    if said := st.session_state.pop("recommend_start_refused", ""):
        st.error(ui.esc(said), icon=":material/error:")


def _start() -> None:
    """Ask for a first version; a refusal is said at the next drawing."""
    desk = runtime.current()
    try:
        if desk is not None:
            desk.runs.request(RECOMMEND.name, {"dataset": RECOMMEND.default_dataset})
    except FMError as error:
        st.session_state["recommend_start_refused"] = str(error)


if __name__ == "__main__":
    page()
