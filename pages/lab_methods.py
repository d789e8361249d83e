"""Learn, a view of the Lab page: each method in two minutes, with its loss, a worked example, and what this desk measured of it.

Owns how a lesson is found and laid out. The texts are lessons.toml's, the examples lab_toys.py's, the figures a study's.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from fmcore.lab import studies
from pages import figures, lab_toys, lessons, ui
from pages.lessons import Lesson

STUDIES = {"labels": "points", "ablation": "rows", "board": "rows", "adaptation": "rows"}
"""Kind of study -> its table with a row a method."""
KEYS = ("method", "name", "variant")
"""Columns in which such a row may name its method."""
USUAL_SHOTS = 16
"""Of a method's points by number of labels, the one nearest to this is quoted."""


def draw(desk: Any) -> None:
    """The whole view."""
    lesson = _chosen()
    if lesson is None:
        return
    st.header(lesson.title, anchor=False)
    st.markdown(lesson.sentence)
    told, toy = ui.split(1, 1)
    with told:
        st.markdown(lesson.how)
        st.latex(lesson.latex)
        ui.note(lesson.symbols)
    with toy, ui.guarded():
        lab_toys.draw(lesson)
    with st.grid(3, min_column_width=290, gap="small", border=True) as grid:
        for title, words in (("What it is for", lesson.purpose), ("What it costs", lesson.costs), ("When it fails", lesson.fails)):
            with grid.cell():
                st.markdown(f"**{title}**")
                st.markdown(words)
    with ui.guarded():
        _measured(desk, lesson)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", gap="small"):
        st.markdown(f":small[:gray[{lesson.reference}]]", width="content")
        _onward(lesson)


def links(*keys: str, place: str) -> None:
    """Buttons in a row that open lessons; for other views of the Lab page. place keeps their keys apart. Not inside a fragment."""
    with st.container(horizontal=True, gap="small"):
        for key in keys:
            lesson = lessons.lessons()[key]
            words = f"How it works: {lesson.short}"
            st.button(words, key=f"lesson-{place}-{key}", type="tertiary", icon=":material/school:", on_click=_open, args=(key,))


def _open(key: str) -> None:
    """Show a lesson, wherever the visitor is on the page."""
    st.session_state["lab_view"] = "Learn"
    st.session_state["lab_find"] = ""
    st.session_state["lab_group"] = lessons.lessons()[key].group
    st.session_state["lab_method"] = key


def _chosen() -> Lesson | None:
    """The lesson by search, else by group; an unknown name in the address gives the first one. None where a search finds nothing."""
    known, asked = lessons.lessons(), st.session_state.get("lab_method") or st.query_params.get("lab_method", "")
    if "lab_group" not in st.session_state:
        st.session_state["lab_group"] = known[asked].group if asked in known else lessons.groups()[0]
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", gap="small"):
        group = st.segmented_control(
            "Group", lessons.groups(), key="lab_group", required=True, label_visibility="collapsed", on_change=_first
        )  # fmt: skip
        query = st.text_input(
            "Find a method", key="lab_find", placeholder="Find: few labels, speed, LoRA ...", max_chars=80, icon=":material/search:",
            label_visibility="collapsed", width=280,
        )  # fmt: skip
    there = lessons.found(query) if query.strip() else lessons.of_group(group)
    if not there:
        with ui.empty("No method speaks of that", "Try another word, or pick a group above.", icon=":material/search_off:"):
            st.button("Clear the search", on_click=lambda: st.session_state.update(lab_find=""))
        return None
    names = {lesson.key: lesson for lesson in there}
    if st.session_state.get("lab_method") not in names:
        st.session_state["lab_method"] = asked if asked in names else there[0].key
    key = st.pills(
        "Method", list(names), key="lab_method", required=True, format_func=lambda k: names[k].short, label_visibility="collapsed"
    )  # fmt: skip
    st.query_params["lab_method"] = key  # a bound widget would write the words on the button there, which no link can know
    return names.get(key, there[0])


def _first() -> None:
    """Another group begins with its first lesson, and a search is over."""
    st.session_state["lab_find"] = ""
    st.session_state["lab_method"] = lessons.of_group(st.session_state["lab_group"])[0].key


def _onward(lesson: Lesson) -> None:
    """The lesson before and the one after, across groups."""
    keys = list(lessons.lessons())
    at = keys.index(lesson.key)
    with st.container(horizontal=True, width="content", gap="small"):
        for key, words, icon in ((keys[at - 1], "Before", "arrow_back"), (keys[(at + 1) % len(keys)], "Next", "arrow_forward")):
            title = f"{words}: {lessons.lessons()[key].short}"
            st.button(title, key=f"onward-{words}", icon=f":material/{icon}:", type="tertiary", on_click=_open, args=(key,))


# ---------------------------------------------------------------- what this desk found


def _measured(desk: Any, lesson: Lesson) -> None:
    """What the newest study of this desk says of the method; nothing where none looked at it."""
    if not lesson.studied:
        return
    kind, name = lesson.studied
    for study in studies.listed(desk.store, kind=kind, limit=6):
        rows = [row for row in study.content.get(STUDIES[kind], []) if any(row.get(key) == name for key in KEYS)]
        if rows:
            row = min(rows, key=lambda row: abs(row.get("shots", USUAL_SHOTS) - USUAL_SHOTS))
            where = f"{ui.esc(study.task)}, data set {ui.esc(study.dataset)}, {ui.fresh(study.made_at)}"
            ui.note(f"**Measured on this desk.** {_row(kind, row)}: {where}.")
            return


def _row(kind: str, row: Any) -> str:
    """A study's row in a few words."""
    title = ui.esc(row.get("title", row.get("name", "")))
    if kind == "labels":
        shots = row["shots"]
        labels = "without labels" if shots == 0 else "with all labels" if shots < 0 else f"with {shots} labels a class"
        return f"{title} {labels}: {figures.points(row['mean'])} right ({_between(row)})"
    if kind == "board":
        return f"{title}: {figures.points(row['accuracy'])} right ({_between(row)}), {row['texts_per_s']:,.0f} texts a second"
    return f"{title}: {figures.points(row['mean'])} right ({_between(row)})"


def _between(row: Any) -> str:
    return f"{100 * row['low']:.1f}{figures.DASH}{100 * row['high']:.1f}{figures.NBSP}%"
