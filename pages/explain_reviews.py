"""The review queue: answers that somebody disagreed with, and what was made of each. A view of the Explain page.

Draws fmcore.explain.reviews and settles under the name of who asks. A text stands here because somebody sent it; it stays text.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from fmcore.explain import reviews
from fmcore.nouns import FMError
from pages import figures, ui, why

STATES = {
    "agreed": ("Agreed", "green", ":material/check_circle:"),
    "declined": ("Declined", "gray", ":material/block:"),
}
"""settled state -> word, badge colour, icon."""
AT_ONCE = 10
MOST = 500
MAX_REASON_CHARS = 300


def draw(desk: Any, task: str, version: str) -> None:
    """Open items with what to do about them, then the settled ones. All versions of the task: a queue is nobody's private list."""
    waiting = reviews.listed(desk.store, task=task, limit=MOST)
    with st.container(border=True):
        ui.card("To be reviewed", f"{len(waiting):,} open · agree: the model was wrong; decline: it was right" if waiting else "")
        if not waiting:
            st.markdown("Nothing waits for a review.")
            ui.note("“I disagree” under an explanation sends the answer here, with the text and what you would have said.")
    n_shown = AT_ONCE * (1 + st.session_state.get("reviews_more", 0))
    for review in waiting[:n_shown]:
        with st.container(border=True, gap="xsmall"), ui.guarded():
            _item(desk, review)
    if len(waiting) > n_shown:
        label = f"Show more ({len(waiting) - n_shown:,})"
        st.button(label, key="reviews_show_more", type="tertiary", icon=":material/expand_more:", on_click=_more)
    _settled(desk, task)


def _more() -> None:
    st.session_state["reviews_more"] = st.session_state.get("reviews_more", 0) + 1


def _item(desk: Any, review: Any) -> None:
    """One disagreement: the text, both answers, who sent it and why, and the two buttons."""
    said = f"{figures.label(review.predicted)} {figures.probability(review.score)}"
    rather = ui.chip(figures.label(review.suggested), "orange", ":material/edit:") if review.suggested else ui.chip("no suggestion")
    st.markdown(f"Model: {ui.chip(said, 'blue', ':material/smart_toy:')} Suggested: {rather}")
    opened = st.session_state.setdefault("reviews_opened", set())
    with st.container(horizontal=True, vertical_alignment="center", gap="small", wrap=False):
        st.markdown(ui.esc(ui.short(review.text, 600)), width="stretch")
        icon = ":material/expand_less:" if review.id in opened else ":material/expand_more:"
        st.button("Why?", key=f"why-{review.id}", type="tertiary", icon=icon, on_click=_toggle, args=(review.id,))
    note = f" · “{ui.esc(review.note)}”" if review.note else ""
    ui.note(f"{ui.esc(review.who)}, {ui.esc(ui.local(review.at))} · {ui.esc(review.version)}{note}")
    with st.form(f"settle-{review.id}", border=False, clear_on_submit=True), st.container(horizontal=True, vertical_alignment="bottom"):
        reason = st.text_input("Reason", key=f"reason-{review.id}", max_chars=MAX_REASON_CHARS, placeholder="for the record, in a sentence")
        agreed = st.form_submit_button("Agree", key=f"agree-{review.id}", icon=":material/check:")
        declined = st.form_submit_button("Decline", key=f"decline-{review.id}", icon=":material/close:")
    if agreed or declined:
        _settle(desk, review.id, "agreed" if agreed else "declined", reason)
    if review.id in opened:
        why.draw(desk, review.task, review.text, version=review.version, key=f"review-{review.id}", compact=True)


def _toggle(review_id: str) -> None:
    st.session_state.setdefault("reviews_opened", set()).symmetric_difference_update({review_id})


def _settle(desk: Any, review_id: str, state: str, reason: str) -> None:
    if not reason.strip():
        st.error("Say why in a sentence: it is kept with the decision.", icon=":material/error:")
        return
    try:
        reviews.settle(desk.store, review_id, state=state, who=ui.who(), note=reason.strip())
    except FMError as error:
        ui.refusal(error)
        return
    st.toast(f"{STATES[state][0]}.", icon=STATES[state][2])
    st.rerun()


def _settled(desk: Any, task: str) -> None:
    """What was decided, newest first."""
    found = [review for review in reviews.listed(desk.store, state=None, task=task, limit=MOST) if review.state in STATES]
    if not found:
        return
    rows = [
        {
            "When": ui.local(r.at), "Decision": [STATES[r.state][0]], "Text": ui.short(r.text, 300),
            "Model said": figures.label(r.predicted), "Suggested": figures.label(r.suggested) if r.suggested else "", "By": r.who,
            "Reason": r.note, "Version": r.version,
        }
        for r in found
    ]  # fmt: skip
    words, colors = [s[0] for s in STATES.values()], [s[1] for s in STATES.values()]
    with st.container(border=True):
        ui.card("Settled", f"{len(rows):,} · newest first · times in {ui.esc(ui.zone())}")
        st.dataframe(
            pd.DataFrame(rows), hide_index=True, row_height=34, key="reviews_settled", alt="Settled reviews: decision, person, reason",
            column_config={
                "Decision": st.column_config.MultiselectColumn(options=words, color=colors),
                "Text": st.column_config.TextColumn(width="medium"), "Reason": st.column_config.TextColumn(width="medium"),
            },
        )  # fmt: skip
