"""Lab: why pretraining pays and what it costs. Methods explained, masked words filled in, pretraining watched.

Owns the frame: the view, which lives in the address.
"""

from __future__ import annotations

import importlib

import streamlit as st

from fmcore import runtime
from pages import ui

VIEWS = {
    "Learn": "lab_methods", "Fill the mask": "lab_playground", "Pretraining": "lab_pretraining", "Labels": "lab_labels",
    "What helps": "lab_ablation", "Efficiency": "lab_board", "Runs": "lab_runs",
}  # fmt: skip
"""View -> the module of pages/ that draws it: draw(desk). A new view is an entry here."""


def page() -> None:
    """The whole page: the switch, then the chosen view."""
    desk = runtime.current()
    if desk is None:
        ui.no_server()
        return
    with ui.header("Lab", "Watch a model learn, then make it small and fast"):
        first = None if "lab_view" in st.session_state else next(iter(VIEWS))  # a button of a view may have set another one
        view = st.segmented_control(
            "View", list(VIEWS), key="lab_view", default=first, required=True, bind="query-params", label_visibility="collapsed"
        )
    with ui.guarded():
        importlib.import_module(f"pages.{VIEWS.get(view, 'lab_methods')}").draw(desk)


if __name__ == "__main__":
    page()
