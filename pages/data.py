"""Data: the data sets, what each may be used for, where it is; fetch one, look inside, and bring your own. And the sources of news.

Draws what the catalogue says; the sources are data_sources.py's part, interactions data_interactions.py's. A fetch is a run like any
other: asked for here, done by the runner, watched here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from fmcore import clock, runtime
from fmcore.config import settings
from fmcore.data import catalogue, uploads
from fmcore.data.sources import Sources
from fmcore.nouns import Dataset, FMError, Run
from pages import data_interactions, data_sources, live, ui

STATES = {
    "built in": ("Built in", "gray", ":material/inventory_2:"),
    "local": ("In your data folder", "green", ":material/folder:"),
    "downloaded": ("Downloaded", "green", ":material/download_done:"),
    "missing": ("Not here", "gray", ":material/cloud_off:"),
}
COMMERCIAL = {
    "yes": ("Commercial use allowed", "gray", ":material/check:"),
    "no": ("No commercial use", "orange", ":material/block:"),
    "unclear": ("Commercial use unclear", "orange", ":material/help:"),
}
VIEWS = ("Data sets", "Sources")
SAMPLE = 8
"""Rows shown of a data set or an upload: enough to see what it is."""


def page() -> None:
    """The whole page; a fetch in progress redraws itself every two seconds."""
    desk = runtime.current()
    if desk is None:
        ui.no_server()
        return
    sets = catalogue.datasets()
    here = [d for d in sets if d.state != "missing"]
    held = Sources(desk.store)
    known = f"{len(sets)} data sets known, {len(here)} on this machine"
    with ui.header("Data", f"{known} · {data_sources.words(held.all(), held.healths())}"):
        view = st.segmented_control(
            "View", VIEWS, key="data_view", default=VIEWS[0], required=True, bind="query-params", label_visibility="collapsed"
        )
    if view == "Sources":
        data_sources.draw(desk)
        return
    _fetching(desk, tuple((run.id, run.state) for run in _fetch_runs(desk)))
    _catalogue(desk, sets)
    _look_inside([d for d in here if d.use in ("classify", "recommend")])
    left, right = ui.split(1, 1)
    with left:
        _connect()
    with right:
        _check_upload()


# ---------------------------------------------------------------- catalogue


def _catalogue(desk: Any, sets: list[Dataset]) -> None:
    """One card a data set, of one height, stacking on a narrow page."""
    active = {run.params.get("dataset") for run in _fetch_runs(desk)}
    with st.grid(3, min_column_width=290, gap="small", border=True) as grid:
        for entry in sets:
            with grid.cell():
                _entry(desk, entry, busy=entry.name in active)


def _entry(desk: Any, entry: Dataset, *, busy: bool) -> None:
    ui.card(ui.esc(entry.title))
    word, color, icon = STATES[entry.state]
    chips = [ui.chip(word, color, icon)]
    if entry.synthetic:
        chips.append(ui.synthetic_mark())
    chips.append(ui.chip(entry.licence, icon=":material/license:"))
    chips.append(ui.chip(*COMMERCIAL[entry.commercial_use]))
    st.markdown(" ".join(chips))
    st.markdown(ui.esc(entry.summary))
    facts = [
        f"Holds: {ui.esc(catalogue.USES[entry.use])}",
        f"Size: {ui.esc(entry.size)}",
        f"Columns: {ui.esc(entry.columns)}",
        f"Source: {ui.esc(entry.source)}",
    ]
    if entry.state in ("local", "downloaded") and entry.path:
        facts.append(f"Read from: {ui.esc(entry.path)}")
    ui.note("  \n".join(facts))
    if entry.state == "missing" and entry.name not in catalogue.DOWNLOADABLE:
        ui.note(ui.esc(catalogue.how_to_get(entry.name)))
    elif entry.state == "missing" and not busy and "fetch" in desk.jobs:
        words = "Downloads it from its source; resumes after a break."
        if st.button("Fetch", key=f"fetch-{entry.name}", icon=":material/download:", help=words):
            _fetch(desk, entry.name)
        _last_failure(desk, entry.name)


def _fetch(desk: Any, name: str) -> None:
    try:
        desk.runs.request("fetch", {"dataset": name})
    except FMError as error:
        ui.refusal(error)
        return
    st.rerun()


def _last_failure(desk: Any, name: str) -> None:
    """Why the newest fetch of this set did not succeed, where it stays visible."""
    last = next((run for run in desk.runs.history(job="fetch", limit=20) if run.params.get("dataset") == name), None)
    if last is not None and last.is_over and last.state != "succeeded":
        ended = f"{live.STATES[last.state][0].lower()} {clock.ago(last.finished_at)}"
        why = ui.esc(ui.short(last.error or last.message, 300))
        st.error(f"**The last fetch {ended}.** {why}", icon=":material/cloud_off:")


def _fetch_runs(desk: Any) -> list[Run]:
    return [run for run in desk.runs.active() if run.job == "fetch"]


@st.fragment(run_every=2.0)
def _fetching(desk: Any, drawn: tuple[tuple[str, str], ...]) -> None:
    """Fetches at work, each with its progress and a way to stop it. When that list changes, the page is drawn again."""
    active = _fetch_runs(desk)
    if tuple((run.id, run.state) for run in active) != drawn:
        st.rerun()
    for run in active:
        with st.container(border=True):
            name = run.params.get("dataset", "")
            ui.card(f"Fetching {ui.esc(name)}", f"run {ui.esc(run.id)} · started by {ui.esc(run.trigger)}")
            live.strip(run, desk.runs.metrics(run.id))
            if st.button("Cancel", key=f"cancel-{run.id}", icon=":material/stop_circle:"):
                with ui.guarded():
                    desk.runs.cancel(run.id, by=ui.who())


# ---------------------------------------------------------------- look inside


@st.cache_data(max_entries=4, show_spinner="Reading the rows")
def _read(name: str, _where: str, _changed_at: float) -> catalogue.LabelledData:
    return catalogue.load(name)


def _loaded(entry: Dataset) -> catalogue.LabelledData:
    """The rows of a set, read once for all visitors until its folder changes. They are public or built in, never a visitor's."""
    changed_at = entry.path.stat().st_mtime if entry.path and entry.path.exists() else 0.0
    return _read(entry.name, str(entry.path), changed_at)


def _look_inside(here: list[Dataset]) -> None:
    with st.container(border=True):
        ui.card("Look inside", "rows as the models see them: cleaned, split, duplicates between parts removed")
        names = {entry.name: entry for entry in here}
        chosen = st.segmented_control(
            "Data set", list(names), default="demo", required=True, format_func=lambda n: names[n].title, key="set", bind="query-params",
            label_visibility="collapsed",
        )  # fmt: skip
        entry = names.get(chosen) or here[0]
        with ui.guarded():
            if entry.use == "recommend":
                data_interactions.draw(entry)
                return
            data = _loaded(entry)
            _splits(data)
            _classes(data)
            _rows(data)


def _splits(data: catalogue.LabelledData) -> None:
    rows = []
    for part in catalogue.PARTS:
        labels = getattr(data, part)["label"]
        outside = int((labels == catalogue.OOS).sum())
        n_classes = labels[labels != catalogue.OOS].nunique()
        rows.append({"Part": part.capitalize(), "Messages in scope": len(labels) - outside, "Out of scope": outside, "Labels": n_classes})
    with st.container(horizontal=True, vertical_alignment="top", gap="medium"):
        with st.container(width=460):
            counted = {name: st.column_config.NumberColumn(format="localized") for name in rows[0] if name != "Part"}
            table = pd.DataFrame(rows)
            st.dataframe(table, hide_index=True, row_height=34, column_config=counted, alt="Messages in each part of the split")
        with st.container(width=420, gap="xsmall"):
            if data.synthetic:
                st.markdown(ui.synthetic_mark() + " Written for this demo; no real customer wrote any of it.")
            st.markdown(f"{ui.esc(data.split_note)}")
            whose = "fixed by the publisher" if data.test_is_publishers else "cut from the training rows"
            ui.note(f"Test rows {whose} · split sha256 `{data.split_hash[:16]}`")


def _classes(data: catalogue.LabelledData) -> None:
    counts = data.train["label"].value_counts()
    st.markdown(f"**Training texts per label** :small[:gray[{len(counts)} labels, most first; point at a bar for its name]]")
    ui.show(class_chart(counts), f"classes-{data.name}", class_words(counts))


def class_chart(counts: pd.Series) -> go.Figure:
    """Every class as one bar, most first; the first and the last are named, the rest on hover."""
    t = ui.tokens()
    names = [str(name).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for name in counts.index]
    values = counts.to_numpy()
    fig = go.Figure(
        go.Bar(x=list(range(1, len(values) + 1)), y=values, customdata=names, marker={"color": t["accent"], "line_width": 0},
               hovertemplate="%{customdata}: <b>%{y:,}</b> messages<extra></extra>")
    )  # fmt: skip
    ui.desk(fig, "small", hovermode="closest", bargap=0.4, margin={"l": 8, "r": 8, "t": 24, "b": 8})
    label = {"showarrow": False, "yanchor": "bottom", "font_size": 12, "yshift": 2}
    if len(values) and values[0] != values[-1]:
        fig.add_annotation(x=0.5, y=values[0], text=f"most: {names[0]} {values[0]:,}", xanchor="left", **label)
        above = values[-max(1, len(values) // 3)]  # higher than every bar that the words stand over
        fig.add_annotation(x=len(values) + 0.5, y=above, text=f"fewest: {names[-1]} {values[-1]:,}", xanchor="right", **label)
    elif len(values):
        fig.add_annotation(x=0.5, y=values[0], text=f"{values[0]:,} each", xanchor="left", **label)
    fig.update_xaxes(range=[0.4, len(values) + 0.6], showticklabels=False, ticks="")
    fig.update_yaxes(rangemode="tozero", nticks=4)
    return fig


def class_words(counts: pd.Series) -> str:
    """The chart in words."""
    if counts.empty:
        return "No training texts."
    most, fewest = (f"{counts.index[i]} with {counts.iloc[i]}" for i in (0, -1))
    return f"{len(counts)} labels; most texts: {most}; fewest: {fewest}."


def _rows(data: catalogue.LabelledData) -> None:
    key = f"part-{data.name}"
    part = st.segmented_control("Rows of", catalogue.PARTS, default="train", required=True, format_func=str.capitalize, key=key)
    frame = getattr(data, part)
    st.dataframe(_sample(frame), hide_index=True, row_height=34, alt=f"{SAMPLE} rows of the part {part}")
    with st.container(horizontal=True, vertical_alignment="center"):
        ui.download("Download this part as CSV", frame, f"{data.name}-{part}.csv", key=f"csv-{data.name}-{part}")
        ui.note(f"{len(frame):,} rows; a text that a spreadsheet would run as a formula gets a leading '")


def _sample(frame: pd.DataFrame) -> pd.DataFrame:
    """A few rows spread evenly over the table: tables sorted by class would show one class only."""
    step = max(1, len(frame) // SAMPLE)
    shown = frame.iloc[::step].head(SAMPLE)
    return shown[["label", "text"]].rename(columns={"text": "Message", "label": "Label"})


# ---------------------------------------------------------------- your own


def _connect() -> None:
    ui.card("Connect your own data")
    folder = settings().data_dir
    where = f"`FM_DATA_DIR` is {ui.esc(folder)}." if folder else "`FM_DATA_DIR` is not set."
    st.markdown(
        "**A CSV file** needs two columns, text and label; rows with the label oos count as out of scope and are never trained on. "
        "A third column, source, lets the Explain page say where a model is weak. Put it on this machine and start a run with its path:"
    )
    st.code("python -m jobs run finetune --set dataset=/path/to/messages.csv", language="bash")
    st.markdown(
        "**A log for recommendations** is a CSV file with the columns user, item and timestamp (seconds, milliseconds or ISO 8601) and, if "
        "there is one, rating. What the items are is read from a file beside it, shop-items.csv for shop.csv: item, title, text."
    )
    st.code("python -m jobs run recommend --set dataset=/path/to/shop.csv", language="bash")
    st.markdown(f"**A folder of public data sets**, one sub-folder each in the publisher's own format, is read from `FM_DATA_DIR`. {where}")
    st.code("\n".join(["FM_DATA_DIR/", *(f"  {file}" for file in catalogue.expected_files())]), language=None)


def _check_upload() -> None:
    """Reads an uploaded file and says whether a model could learn from it. Nothing of it is kept."""
    ui.card("Check a CSV file", "read in memory, not kept")
    file = st.file_uploader("CSV file with the columns text and label", type=["csv", "tsv"], key="check")
    if file is None:
        ui.note(f"Up to {uploads.MAX_BYTES / 1e6:.0f} MB and {uploads.MAX_ROWS:,} rows; comma, semicolon or tab; UTF-8, UTF-16 or Latin-1.")
        return
    try:
        frame = uploads.read_messages(file.getvalue(), need_label=True)
    except FMError as error:
        ui.refusal(error)
        return
    st.markdown(" ".join(ui.chip(words, color, icon) for words, color, icon in verdict(frame)))
    ui.note(f"Encoding {ui.esc(frame.attrs['encoding'])} · file {ui.esc(Path(file.name).name)}")
    st.dataframe(_sample(frame), hide_index=True, row_height=34, alt="Rows of the uploaded file")


def verdict(frame: pd.DataFrame) -> list[tuple[str, str, str]]:
    """What a labelled table holds and what speaks against learning from it, as (words, colour, icon)."""
    inside = frame[(frame["label"].str.casefold() != catalogue.OOS) & (frame["label"].str.strip() != "")]
    counts = inside["label"].value_counts()
    n_blank = int((frame["text"].str.strip() == "").sum())
    n_unlabelled = int((frame["label"].str.strip() == "").sum())
    n_outside = len(frame) - len(inside) - n_unlabelled
    found = [(f"{len(frame):,} rows", "gray", ":material/table_rows:"), (f"{len(counts)} labels", "gray", ":material/label:")]
    if n_outside:
        found.append((f"{n_outside:,} out of scope", "gray", ":material/do_not_disturb:"))
    small = counts[counts < 3]
    problems = [
        (len(counts) < 2, "Fewer than 2 labels"),
        (len(small) > 0, f"{len(small)} labels with fewer than 3 texts"),
        (n_blank > 0, f"{n_blank} rows without text"),
        (n_unlabelled > 0, f"{n_unlabelled} rows without label"),
    ]
    bad = [(words, "orange", ":material/warning:") for is_so, words in problems if is_so]
    return found + (bad or [("A model can learn from this", "green", ":material/check_circle:")])


if __name__ == "__main__":
    page()
