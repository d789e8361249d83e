"""What the model learnt from, a part of the Explain page: known examples near the text, how unlike them all it is, and "I disagree".

Draws what desk.explain finds among the training rows. A text is stored only when somebody sends it for review, and the form says so.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import streamlit as st

from fmcore.data.catalogue import OOS
from fmcore.explain import reviews, telling
from fmcore.explain.answering import Answer
from fmcore.explain.asking import Question
from fmcore.nouns import FMError, Neighbour
from pages import figures, ui, why

MAX_NOTE = 1_000


def draw(desk: Any, question: Question, answer: Answer) -> None:
    """Known examples on the left, the way to disagree on the right."""
    left, right = ui.split(2, 1)
    with left, ui.guarded():
        _examples(desk, question, answer)
    with right, ui.guarded():
        _disagree(desk, question, answer)


def _examples(desk: Any, question: Question, answer: Answer) -> None:
    ui.card("Known examples near it", "rows the model learnt from · likeness is the cosine of their meanings, 1 is the same")
    found = why.answered(desk, dataclasses.replace(question, target=None, parts=("neighbours",)), key="explain-near")
    if found is not None and found.neighbours is None:
        st.markdown(f"They could not be found. {ui.esc(found.missing.get('neighbours', ''))}")
    elif found is not None:
        st.markdown(ui.esc(telling.neighbours(found.neighbours)))
        for row in found.neighbours:
            _row(row)
    _novelty(answer)


def _row(row: Neighbour) -> None:
    """One example: whether it supports, how alike, its label and its text."""
    with st.container(horizontal=True, vertical_alignment="top", gap="small", wrap=False):
        with st.container(width=122):
            if row.supports:
                st.markdown(ui.chip("Supports", "blue", ":material/check:"))
            else:
                st.markdown(ui.chip("Contradicts", "orange", ":material/close:"))
        told = f"likeness {row.similarity:.2f} · {figures.label(row.label)}".replace("-", "−")
        st.markdown(f"{ui.esc(ui.short(row.text, 220))}  \n:small[:gray[{ui.esc(told)}]]", width="stretch")


def _novelty(answer: Answer) -> None:
    """How unlike everything it learnt from the text is, against where the model stops answering."""
    st.markdown(f"**How unlike them all is it?** {ui.esc(answer.prediction.reason.replace(' -', ' −'))}")


def _disagree(desk: Any, question: Question, answer: Answer) -> None:
    """A label that would be right, and why; sends the text itself to the review queue."""
    ui.card("I disagree")
    prediction = answer.prediction
    sent = st.session_state.setdefault("explain_sent", set())
    this = (question.task, prediction.version, question.text)
    if this in sent:
        st.markdown(f"{ui.chip('Sent for review', 'green', ':material/check_circle:')} Thank you. It is listed under Review queue.")
        return
    if not question.text:
        st.markdown("There is no text to send.")
        return
    st.markdown(f"The model says **{ui.esc(figures.label(prediction.label))}**. What would be right?")
    with st.form("explain_disagree", border=False):
        others = [name for name in prediction.scores if name != prediction.label]
        suggested = st.selectbox("Right label", [*others, OOS], key="explain_suggested", format_func=_named)
        said = st.text_area("Why (optional)", key="explain_note", max_chars=MAX_NOTE, height=80)
        ui.note(f"Sending stores **the text itself**, your choice and your name ({ui.esc(ui.who())}) for a person to review.")
        if st.form_submit_button("Store and send for review", icon=":material/flag:"):
            try:
                reviews.send(
                    desk.store, task=question.task, version=prediction.version, text=question.text, predicted=prediction.label,
                    score=prediction.score, suggested=suggested, note=said.strip(), who=ui.who(),
                )  # fmt: skip
            except FMError as error:
                ui.refusal(error)
            else:
                sent.add(this)
                st.rerun()


def _named(label: str) -> str:
    return "none of them (out of scope)" if label == OOS else figures.label(label)
