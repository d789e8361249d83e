"""A recommended list as a person reads it: a row an item, its share of the top score, its because, and what moved since the last list.

Draws what the service answered; never asks and never counts again. Titles and texts come from anybody: they are shown as text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import streamlit as st

from fmcore.recommend.current import POPULARITY
from fmcore.recommend.recommender import REASONS_FROM
from pages import figures, ui

BAR = 10
"""Marks of a full bar."""
SIDE = 190
"""Pixels of a row's right side: its buttons, and the bar under them."""
TRACK = "rgba(128,138,152,.35)"
TEXT_CHARS = 74
NEW = "new"

ACTIONS = (("click", "Open"), ("like", "Like"), ("skip", "Skip"))
"""Kind of event, the word on its button: what a person can do with an item of the list."""


def moves(now: Sequence[str], before: Sequence[str] | None) -> dict[str, int | str]:
    """Item -> how many places it rose (below 0: fell) since `before`, or NEW; nothing where there is no list before."""
    if before is None:
        return {}
    was = {item: place for place, item in enumerate(before)}
    return {item: was[item] - place if item in was else NEW for place, item in enumerate(now)}


def move_chip(move: int | str | None) -> str:
    """A move as markdown, told by a glyph and a number as well as by colour; "" for none."""
    if move == NEW:
        return ui.chip("new", "blue", ":material/fiber_manual_record:")
    if not move:
        return ""
    word = f"▲\u00a0{move}" if move > 0 else f"▼\u00a0{-move}"
    return f":small[:gray[{word}]]"


def change(now: Sequence[str], before: Sequence[str] | None, titles: Mapping[str, str], *, besides: str = "") -> str:
    """What is different from the list before, in a sentence: "2 new, 3 moved; gone: A, B"; "" where there was none. Plain text.

    besides: an item of which it is clear that it left.
    """
    if before is None:
        return ""
    found = moves(now, before)
    n_new = sum(move == NEW for move in found.values())
    n_moved = sum(move != NEW and move != 0 for move in found.values())
    gone = [ui.short(titles.get(item, item), 40) for item in before if item not in found and item != besides]
    if not (n_new or n_moved or gone):
        return "the list stays as it was"
    parts = [f"{n_new} new" if n_new else "", f"{n_moved} moved" if n_moved else ""]
    left = f"gone: {', '.join(gone[:3])}{f' and {len(gone) - 3} more' if len(gone) > 3 else ''}" if gone else ""
    return "; ".join(part for part in (", ".join(p for p in parts if p), left) if part)


def shares(scores: Sequence[float]) -> list[float | None]:
    """Each score as a share of the highest one; None where shares make no sense (nothing above zero, or the score below it)."""
    top = max(scores, default=0.0)
    return [score / top if top > 0 and score >= 0 else None for score in scores]


def bar(share: float | None, score: float) -> str:
    """A quiet bar with its words as markdown: "━━━━──── 72 % of the top"."""
    if share is None:
        return f":small[:gray[score {ui.signed(score)}]]"
    n = max(1, round(BAR * share))
    words = "top score" if share >= 0.9995 else f"{figures.probability(share)} of the top"
    rest = f':color[{"━" * (BAR - n)}]{{foreground="{TRACK}"}}' if n < BAR else ""
    return f":small[:blue[{'━' * n}]{rest} :gray[{words}]]"


def because(found: Any, answer: Any, *, sentence: bool) -> str:
    """Why an item is on the list, in one line of markdown. A cause is named only where the score was measured to fall without it."""
    if found.because is not None:
        title = ui.esc(ui.short(found.because.title, 44))
        return f"because you met **{title}** :gray[·\u00a0{carries(found.score, found.because.drop)}]"
    if answer.fallback or answer.model == POPULARITY:
        return ":gray[because many people met it]"
    if not answer.n_history:
        return ":gray[because of your sentence]" if sentence else ":gray[no past yet: nothing to name as a cause]"
    looked = f"the last {REASONS_FROM} items" if answer.n_history > REASONS_FROM else "your past"
    return f":gray[no single cause: the score does not fall without any one of {looked}]"


def carries(score: float, drop: float) -> str:
    """How much of a score hangs on its cause, as measured without it: a share where the score is above zero, else points."""
    if score <= 0:
        return f"carries\u00a0{drop:.2f}\u00a0points"
    share = drop / score
    return "carries\u00a0all\u00a0of\u00a0it" if share >= 0.995 else f"carries\u00a0{figures.probability(share)}"


def rows(
    answer: Any,
    *,
    key: str,
    before: Sequence[str] | None = None,
    sentence: bool = False,
    act: Callable[[str, str, str], None] | None = None,
    why: Callable[[str, str], None] | None = None,
    groups: Mapping[str, str] | None = None,
) -> None:
    """Every item of an answer. act(kind, item, title) is called by a row's buttons, why(item, title) by its "Why?".

    groups: item -> its group's name, shown where a learner chose by groups.
    """
    moved = moves([found.item for found in answer.items], before)
    parts = shares([found.score for found in answer.items])
    with st.container(gap="small"):
        for place, (found, share) in enumerate(zip(answer.items, parts, strict=True), start=1):
            with st.container(horizontal=True, vertical_alignment="top", gap="small", wrap=False):
                st.markdown(f":gray[{place}]", width=20)
                st.markdown(_told(answer, found, moved.get(found.item), sentence, groups), width="stretch")
                with st.container(gap=None, width=SIDE, horizontal_alignment="right"):
                    with st.container(horizontal=True, horizontal_alignment="right", gap="xsmall", wrap=False):
                        _buttons(found, place, key=key, act=act, why=why)
                    chance = "" if found.probability is None else f"  \n:small[:gray[listed with {figures.probability(found.probability)}]]"
                    st.markdown(bar(share, found.score) + chance, width="content", text_alignment="right")


def _told(answer: Any, found: Any, move: int | str | None, sentence: bool, groups: Mapping[str, str] | None) -> str:
    """Title with its marks, text, and why it is there: three lines of one element, so that a row has few parts to draw anew."""
    group = ui.chip(ui.short(groups[found.item], 30)) if groups and groups.get(found.item) else ""
    title = " ".join(part for part in (f"**{ui.esc(ui.short(found.title, 90))}**", move_chip(move), group) if part)
    reason = because(found, answer, sentence=sentence)
    text = f":small[:gray[{ui.esc(ui.short(found.text, TEXT_CHARS))}]]" if found.text and found.text != found.title else ""
    return "  \n".join(line for line in (title, text, f":small[{reason}]") if line)


def _buttons(
    found: Any, place: int, *, key: str, act: Callable[[str, str, str], None] | None, why: Callable[[str, str], None] | None
) -> None:
    """Keyed by the place, so that a list that is drawn anew keeps its buttons: with the item's key, old and new ones stand side by side
    until the drawing is over."""
    if act is not None:
        for kind, word in ACTIONS:
            told = (kind, found.item, found.title)
            st.button(f":small[{word}]", key=f"{key}-{kind}-{place}", type="tertiary", on_click=act, args=told)
    if why is not None:
        st.button(":small[Why?]", key=f"{key}-why-{place}", type="tertiary", on_click=why, args=(found.item, found.title))


def beside(now: Any, then: Any) -> tuple[list[str], list[str]]:
    """(ids that leave, ids that enter) between two answers, in the order of their lists."""
    here, there = ([found.item for found in answer.items] for answer in (now, then))
    return [item for item in here if item not in set(there)], [item for item in there if item not in set(here)]


def titles(*answers: Any) -> dict[str, str]:
    """Item -> title over all lists given."""
    return {found.item: found.title for answer in answers for found in answer.items}


def listed(names: Iterable[str], limit: int = 4) -> str:
    """Titles as one piece of markdown, escaped: "**A**, **B** and 2 more"."""
    shown = [f"**{ui.esc(ui.short(name, 60))}**" for name in names]
    return ", ".join(shown[:limit]) + (f" and {len(shown) - limit} more" if len(shown) > limit else "")


def model_title(shelf: Any, name: str) -> str:
    """What a model is called; of a mixture the names of its parts. Plain text."""
    return " + ".join(str(getattr(shelf.models.get(part), "title", part)) for part in name.split(" + "))
