"""Lab: why pretraining pays and what it costs. Methods explained, masked words filled in, pretraining watched.

Owns the frame: the view, which lives in the address.
"""

from __future__ import annotations

import importlib

import streamlit as st

from fmcore import runtime
from pages import ui

VIEWS = {
    "Learn": ("lab_methods", "What each method does, its loss, what it costs and when it fails"),
}
"""View -> (the module of pages/ that draws it: draw(desk), one line on it). A new view is a line here."""


def page() -> None:
    """The whole page: the switch, then the chosen view."""
    desk = runtime.current()
    if desk is None:
        ui.no_server()
        return
    place = st.container()
    view = st.segmented_control(
        "View", list(VIEWS), key="lab_view", default=next(iter(VIEWS)), required=True, bind="query-params", label_visibility="collapsed"
    )
    module, words = VIEWS.get(view, next(iter(VIEWS.values())))
    with place:
        ui.header("Lab", words)
    with ui.guarded():
        importlib.import_module(f"pages.{module}").draw(desk)


if __name__ == "__main__":
    page()
