"""What would change the answer, a part of the Explain page: the fewest edits that flip the label, and a box to edit and compare.

Draws flips that the model itself has confirmed, and two predictions side by side. Texts stay in the session.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

import streamlit as st

from fmcore.explain import telling
from fmcore.explain.answering import Answer
from fmcore.explain.asking import Question
from fmcore.explain.words import split
from fmcore.nouns import Flip, FMError, Prediction
from fmcore.text import clean
from pages import answers, figures, ui, why

TOP = 5
MOST_SHOWN = 120
"""Words of an edited text that are drawn; the changed ones are always among them."""
AROUND = 12
"""Words kept on either side of a change in a long text."""

Part = tuple[str, str]
"""("same", "gone" or "new", word with what stands before it)."""


# ---------------------------------------------------------------- flips


def flips(desk: Any, question: Question, answer: Answer) -> None:
    """The fewest word edits that give another label, searched for on request."""
    this = (question.task, answer.explanation.version, question.text)
    with st.container(border=True):
        ui.card("What would change the answer?", "the fewest words to delete or swap, each confirmed by the model")
        if not answer.explanation.tokens:
            st.markdown("There is no word to change.")
            return
        if st.session_state.get("explain_flips") != this:
            st.button(
                "Search for the fewest edits", key="explain-flips-start", icon=":material/swap_horiz:",
                on_click=lambda: st.session_state.update(explain_flips=this),
            )  # fmt: skip
            return
        found = why.answered(desk, dataclasses.replace(question, parts=("flips",)), key="explain-flips")
        if found is not None:
            _found(found, question.text)


def _found(answer: Answer, text: str) -> None:
    """Each flip with its text, and what was tried; why there is none, where there is none."""
    if answer.flips is None:
        st.markdown(f"The search could not be made. {ui.esc(answer.missing.get('flips', ''))}")
        return
    if not answer.flips:
        st.markdown("**No small edit was found that gives another label.** The answer does not hang on a few words.")
    for flip in answer.flips:
        with st.container(border=True, gap="xsmall"):
            _flip(flip, text)
    swapped = any(edit.new for flip in answer.flips for edit in flip.edits)
    ui.note(ui.esc(answer.tried) + (" Texts with other words need not mean the same: they test the model." if swapped else ""))


def _flip(flip: Flip, text: str) -> None:
    before = f"{figures.label(flip.old_label)} {figures.probability(flip.old_score)}"
    after = f"{figures.label(flip.label)} {figures.probability(flip.score)}"
    verified = ui.chip("Verified", "green", ":material/check_circle:")
    st.markdown(f"{ui.chip(before, 'gray')} :material/arrow_forward: {ui.chip(after, 'blue')} {verified}")
    st.markdown(marked(changed(text, flip)))
    ui.note(ui.esc(telling.flip(flip)))


def changed(text: str, flip: Flip) -> list[Part]:
    """The words of the text with a flip's edits in their places: gone ones stay, the new ones follow them."""
    edits = {edit.place: edit for edit in flip.edits}
    parts: list[Part] = []
    words, end = split(text), 0
    for place, ((start, stop), token) in enumerate(zip(words.spans, words.tokens, strict=True)):
        gap = " " if text[end:start] and parts else ""
        edit = edits.get(place)
        parts.append(("same" if edit is None else "gone", gap + token))
        if edit is not None and edit.new:
            parts.append(("new", " " + edit.new))
        end = stop
    return parts


def difference(before: str, after: str) -> list[Part]:
    """The words of two texts, as one: those that stayed, those that went and those that came."""
    old, new = _with_gaps(before), _with_gaps(after)
    plain_old, plain_new = [word.strip() for word in old], [word.strip() for word in new]
    parts: list[Part] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, plain_old, plain_new, autojunk=False).get_opcodes():
        if kind == "equal":
            parts += [("same", word) for word in new[c:d]]
        else:
            parts += [("gone", word) for word in old[a:b]] + [("new", word) for word in new[c:d]]
    return parts


def _with_gaps(text: str) -> list[str]:
    words, end, found = split(text), 0, []
    for (start, stop), token in zip(words.spans, words.tokens, strict=True):
        found.append((" " if text[end:start] and found else "") + token)
        end = stop
    return found


def marked(parts: Sequence[Part]) -> str:
    """Changed words as markdown: gone ones struck through with a minus, new ones bold with a plus. In a long text, words far from any
    change are left out."""
    near = {i + d for i, (kind, _) in enumerate(parts) if kind != "same" for d in range(-AROUND, AROUND + 1)}
    all_of_it = len(parts) <= MOST_SHOWN
    shown, left_out = [], False
    for i, (kind, word) in enumerate(parts):
        if not all_of_it and i not in near:
            if not left_out:
                shown.append(" …")
            left_out = True
            continue
        left_out = False
        gap = " " if word.startswith(" ") else ""
        bare = ui.esc(word)
        shown.append(gap + {"same": bare, "gone": f":gray-background[− ~~{bare}~~]", "new": f":blue-background[+ **{bare}**]"}[kind])
    return "".join(shown).strip()


# ---------------------------------------------------------------- edit and compare


def compare(desk: Any, question: Question, answer: Answer) -> None:
    """A box with the text to change; both predictions side by side, and what changed."""
    if st.session_state.get("explain_edit_of") != question.text:
        st.session_state.update(explain_edit_of=question.text, explain_edit=question.text, explain_edited=None)
    with st.container(border=True):
        ui.card("Edit and compare", "change the text as you like: both answers side by side")
        with st.form("explain_edit_form", border=False):
            st.text_area("Edited text", key="explain_edit", height=76, label_visibility="collapsed", persist_state="session")
            st.form_submit_button("Compare", icon=":material/compare_arrows:", on_click=_edited)
        edited = st.session_state.get("explain_edited")
        if edited is None:
            return
        if edited == question.text:
            st.markdown("The text is the same. Change a word, then compare.")
            return
        try:
            after = desk.engine.predict(question.task, [edited], version=answer.explanation.version)[0]
        except FMError as error:
            ui.refusal(error)
            return
        _side_by_side(question.text, edited, answer.prediction, after)


def _edited() -> None:
    st.session_state["explain_edited"] = clean(st.session_state.get("explain_edit", ""))[0].strip()


def _side_by_side(text: str, edited: str, before: Prediction, after: Prediction) -> None:
    if before.label != after.label:
        verdict = ui.chip("Another answer", "orange", ":material/swap_horiz:")
        told = f"From **{ui.esc(figures.label(before.label))}** to **{ui.esc(figures.label(after.label))}**."
    else:
        verdict = ui.chip("The same answer", "gray", ":material/check:")
        moved = figures.signed_points(after.score - before.score)
        told = f"**{ui.esc(figures.label(after.label))}** moves by {ui.esc(moved)}."
    st.markdown(f"{verdict} {told}")
    st.markdown(marked(difference(text, edited)) or "No words.")
    names = list(dict.fromkeys([*list(before.scores)[:TOP], *list(after.scores)[:TOP]]))[: TOP + 2]
    ranked = [(name, before.scores.get(name, 0.0), after.scores.get(name, 0.0)) for name in names]
    for cell, heading, prediction in zip(ui.split(1, 1, border=False), ("Before", "After"), (before, after), strict=True):
        with cell:
            st.markdown(f"**{heading}** {ui.chip(*answers.verdict(prediction))}")
            rows = sorted(((name, a if prediction is before else b) for name, a, b in ranked), key=lambda row: -row[1])[:TOP]
            told = "; ".join(f"{figures.label(name)} {figures.probability(score)}" for name, score in rows)
            ui.show(answers.bars(rows, 0 if prediction is before else 1, None), f"explain-{heading}", f"{heading}: {told}.")
    ui.note("Changes: " + ui.esc("; ".join(f"{figures.label(name)} {figures.signed_points(b - a)}" for name, a, b in ranked)))
