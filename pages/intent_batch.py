"""Many messages at once: a CSV in, the same rows with intents out. A view of the Intent page.

The file and its answers live in this session only. Reading and writing CSV is `fmcore.data.uploads`; this draws.
"""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
import streamlit as st

from fmcore import clock
from fmcore.data import catalogue, uploads
from fmcore.evaluation import metrics
from fmcore.nouns import FMError, ModelVersion, Prediction
from fmcore.text import clean
from pages import figures, ui, why

TASK = "intent"
CHUNK = 128
PREVIEW = 200


def draw(desk: Any, version: ModelVersion) -> None:
    """Upload, classify with progress, look, download."""
    with st.container(border=True):
        ui.card("Classify a file", f"CSV with a column text; up to {uploads.MAX_ROWS:,} rows and {uploads.MAX_BYTES / 1e6:.0f} MB")
        file = st.file_uploader(
            "CSV file",
            type=["csv", "tsv", "txt"],
            key="intent_file",
            max_upload_size=int(uploads.MAX_BYTES / 1e6),
            label_visibility="collapsed",
        )
        if file is None:
            ui.note("Columns text or message are read; a column label adds a score. Comma, semicolon or tab; UTF-8, UTF-16 or Latin-1.")
            _sample(version)
            st.session_state.pop("intent_batch", None)
            return
        try:
            rows = uploads.read_messages(file.getvalue())
        except FMError as error:
            ui.refusal(error)
            return
        texts = [clean(value)[0].strip() for value in rows["text"]]
        n_blank = sum(not text for text in texts)
        blank = f" · {n_blank:,} empty, left out" if n_blank else ""
        st.markdown(
            f"**{len(rows):,} rows** · {len(texts) - n_blank:,} to classify{blank} · read as {ui.esc(rows.attrs.get('encoding', 'text'))}"
        )
        key = (file.file_id, version.version)
        if st.button(
            f"Classify {len(texts) - n_blank:,} messages", type="primary", icon=":material/play_arrow:", disabled=n_blank == len(texts)
        ):
            try:
                st.session_state["intent_batch"] = {"key": key, **_classify(desk, version, texts)}
                st.session_state.pop("intent_row", None)
            except FMError as error:
                ui.refusal(error)
                return
    done = st.session_state.get("intent_batch")
    if done and done["key"] == key:
        _results(rows, done, version)
        _why(desk, texts, done["answers"])


def _sample(version: ModelVersion) -> None:
    """A file to try: held-out rows of the model's own data set."""
    try:
        test = catalogue.load(version.dataset).test
    except FMError:
        return  # the data set is not on this machine: there is nothing to offer, and nothing wrong with the page
    ui.download("A file to try", test.sample(min(60, len(test)), random_state=0), "messages.csv", key="intent_sample", type="tertiary")


def _classify(desk: Any, version: ModelVersion, texts: list[str]) -> dict:
    """Every non-empty text through the engine, a chunk at a time, with a progress bar."""
    wanted = [i for i, text in enumerate(texts) if text]
    answers: dict[int, Prediction] = {}
    bar = st.progress(0.0, text="Loading the model")
    began = time.perf_counter()
    for start in range(0, len(wanted), CHUNK):
        part = wanted[start : start + CHUNK]
        found = desk.engine.predict(TASK, [texts[i] for i in part], version=version.version)
        answers.update(zip(part, found, strict=True))
        elapsed_s = time.perf_counter() - began
        left_s = elapsed_s * (len(wanted) - len(answers)) / len(answers)
        bar.progress(len(answers) / len(wanted), text=f"{len(answers):,} of {len(wanted):,} messages · {clock.duration(left_s)} left")
    bar.empty()
    return {"answers": answers, "took_s": time.perf_counter() - began}


def _results(rows: pd.DataFrame, done: dict, version: ModelVersion) -> None:
    answers: dict[int, Prediction] = done["answers"]
    table = _table(rows, answers)
    n_outside = sum(not p.in_scope for p in answers.values())
    n_unsure = sum(p.in_scope and len(p.candidates) != 1 for p in answers.values())
    n_cut = sum(p.truncated for p in answers.values())
    with st.grid(4, min_column_width=190, gap="small"):
        ui.kpi(
            "Classified",
            f"{len(answers):,}",
            words=f"{len(answers) / max(done['took_s'], 1e-9):,.0f} a second",
            vs=f"in {clock.duration(done['took_s'])}",
        )
        ui.kpi("Out of scope", f"{n_outside:,}", words=figures.points(n_outside / len(answers)), vs="of the classified")
        ui.kpi("Close calls", f"{n_unsure:,}", words=figures.points(n_unsure / len(answers)), vs="answer set not of one intent")
        ui.kpi(
            "Left out",
            f"{len(rows) - len(answers):,}",
            words="empty rows",
            vs=f"{n_cut:,} read only in part (long)" if n_cut else "none cut",
        )
    if "label" in rows.columns:
        _score(rows, answers)
    with st.container(border=True):
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            with st.container(width="content"):
                ui.card("Answers", f"first {min(PREVIEW, len(table)):,} of {len(table):,} rows · {ui.esc(version.version)}")
            ui.download("Download CSV", table, "intents.csv", key="intent_download", type="primary")
        shown = table.head(PREVIEW)
        st.dataframe(
            pd.concat([pd.Series(["Why?" if label is not None else None for label in shown["label"]], name=""), shown], axis=1),
            hide_index=True,
            row_height=34,
            key="intent_table",
            placeholder="",
            alt="Messages with their predicted intent and scope",
            column_config={
                "text": st.column_config.TextColumn("text", width="large"),
                "score": st.column_config.ProgressColumn("score", format="%.2f", min_value=0, max_value=1, color="blue"),
                "": st.column_config.ButtonColumn("", key="intent_why_row", type="tertiary", on_click=_ask_why),
            },
        )


def _ask_why() -> None:
    st.session_state["intent_row"] = st.session_state["intent_why_row"]["row"]


def _why(desk: Any, texts: list[str], found: dict[int, Prediction]) -> None:
    """Why the model said so of the row that was chosen."""
    row = st.session_state.get("intent_row")
    if row not in found:
        return
    with st.container(border=True), ui.guarded():
        ui.card("Why?", f"row {row + 1:,}: {ui.esc(figures.label(found[row].label))}")
        why.draw(desk, TASK, texts[row], version=found[row].version, key="intent-row")


def _table(rows: pd.DataFrame, answers: dict[int, Prediction]) -> pd.DataFrame:
    """The rows as they came, in order, with what the model says; an empty row keeps empty answers."""
    found = [answers.get(i) for i in range(len(rows))]
    return pd.DataFrame(
        {
            "text": rows["text"].tolist(),
            "label": [p.label if p else None for p in found],
            "score": [round(p.score, 4) if p else None for p in found],
            "in_scope": [p.in_scope if p else None for p in found],
            "answer_set": ["; ".join(p.candidates) if p else None for p in found],
            "novelty": [round(p.novelty, 3) if p else None for p in found],
            "version": [p.version if p else None for p in found],
        }
    )


def _score(rows: pd.DataFrame, answers: dict[int, Prediction]) -> None:
    """How right the answers are, where the file brought labels."""
    kept = sorted(answers)
    found = metrics.evaluate_predictions([rows["label"].iloc[i] for i in kept], [answers[i] for i in kept])
    measured = [(name, figures.at(found, name)) for name in figures.NAMES if figures.at(found, name)]
    with st.container(border=True):
        ui.card("Against your labels", "95 % bootstrap intervals; the label oos marks out-of-scope rows")
        if not measured:
            st.markdown("No row could be scored.")
            return
        lines = [
            {"Figure": figures.NAMES[name], "Value": figures.value(f, name), "95 % interval": figures.span(f, name), "n": f"{f['n']:,}"}
            for name, f in measured
        ]
        st.table(pd.DataFrame(lines).set_index("Figure"), border="horizontal")
