"""Explain: why a model said so, and whether to believe it. One text, two models, the whole model, and what people disagreed with.

Owns the frame: task, version and view, which live in the address. A text never does: it stays in the visitor's session.
"""

from __future__ import annotations

import importlib
from typing import Any

import streamlit as st

from fmcore import clock, runtime
from fmcore.nouns import ModelVersion
from fmcore.tasks import TASKS
from pages import figures, ui

VIEWS = {"One text": "explain_text", "Two models": "explain_two", "Whole model": "explain_model", "Review queue": "explain_reviews"}
"""View -> the module of pages/ that draws it: draw(desk, task, version), version a name in the registry."""
FOLLOW = "live version"


def page() -> None:
    """The whole page: pickers, then the chosen view; an empty state where the task has no version yet."""
    desk = runtime.current()
    if desk is None:
        ui.no_server()
        return
    place = st.container()
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", gap="small"):
        view = st.segmented_control(
            "View", list(VIEWS), key="explain_view", default=next(iter(VIEWS)), required=True, bind="query-params",
            label_visibility="collapsed",
        )  # fmt: skip
        task, version = _pickers(desk)
    with place:
        ui.header("Explain", _about(desk, version))
    if version is None:
        _no_model(task)
        return
    module = VIEWS.get(view, next(iter(VIEWS.values())))
    importlib.import_module(f"pages.{module}").draw(desk, task, version.version)


def _pickers(desk: Any) -> tuple[str, ModelVersion | None]:
    """The task, and the version that is explained (None where there is none). An unknown name in the address falls back."""
    with st.container(horizontal=True, vertical_alignment="center", width="content", gap="small"):
        first = next((i for i, name in enumerate(TASKS) if desk.registry.champion(name)), 0)
        task = st.selectbox(
            "Task", list(TASKS), index=first, key="explain_task", bind="query-params", on_change=_other_task,
            label_visibility="collapsed", width=150,
        )  # fmt: skip
        versions = {v.version: v for v in desk.registry.versions(task)}
        champion = desk.registry.champion(task)
        if not versions:
            return task, None
        names = [FOLLOW, *versions] if champion else list(versions)
        name = st.selectbox("Version", names, key="explain_version", bind="query-params", label_visibility="collapsed", width=240)
    return task, versions.get(name, champion or next(iter(versions.values())))


def _other_task() -> None:
    """Another task has other versions."""
    st.session_state.pop("explain_version", None)


def _about(desk: Any, version: ModelVersion | None) -> str:
    """The line under the title: which version, on which data, how good, how fresh."""
    if version is None:
        return "Why a model said so, and whether to believe it"
    state = "Live" if version.stage == "champion" else "Not live"
    data = f"data set {ui.esc(version.dataset)}" + (" (synthetic)" if desk.registry.facts(version).get("synthetic") else "")
    accuracy = figures.full(figures.at(version.metrics, "accuracy"))
    return " · ".join([f"{state}: {ui.esc(version.version)}", data, f"accuracy {accuracy}", f"trained {clock.ago(version.created_at)}"])


def _no_model(task: str) -> None:
    """Nothing to explain yet, and where a model comes from."""
    words = "Train one on the Training page; then any of its answers can be asked why."
    with ui.empty(f"No model for {TASKS[task].title} yet", words, icon=":material/model_training:"):
        st.page_link("training.py", label="Open Training", icon=":material/play_arrow:")


if __name__ == "__main__":
    page()
