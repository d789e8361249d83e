"""Fill the mask, a view of the Lab page: one text with words hidden, and what several checkpoints put there, side by side.

Draws what fmcore.lab.playground answers. The text stays in the visitor's session: it is neither stored nor put into the address.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from fmcore import text as texts
from fmcore.lab import playground
from fmcore.lab.playground import MASK, Choice, Side
from fmcore.models.fill_mask import Filled
from fmcore.nouns import FMError
from pages import figures, lab_drawing, lab_methods, lab_pretraining, ui

EXAMPLES = {
    "Outlook": ("The company expects its net sales to grow in the fourth quarter.", ("grow",)),
    "Profit warning": ("Shares fell nine percent after the company issued a profit warning.", ("fell", "profit")),
    "Dividend": ("The board proposes a dividend of 0.40 euros per share.", ("dividend",)),
    "Message to a bank": ("My new card has not arrived yet, and I need it for my trip abroad.", ("card", "arrived")),
}
"""Name -> a text written for this page, and the words of it that are hidden at first."""
SHOWN = 5
ASKED = 100
"""Words that are asked for, so that the place of a hidden word can be told; SHOWN of them are drawn."""
MOST_WORDS = 60
CLOSELY = 3
"""Masks that are drawn all at once; of more, one is picked."""


def draw(desk: Any) -> None:
    """The whole view."""
    home = desk.store.home
    there = playground.choices(home)
    if not there:
        lab_pretraining.nothing_yet(desk, place="playground")
        lab_methods.links("mlm", place="playground")
        return
    if all(choice.key == playground.SERVES_EXPLANATIONS for choice in there):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown("Only the model behind explanations can be asked. Pretrain a base, and its checkpoints show how words are learnt.")
            lab_pretraining.ways(desk, place="playground", primary=True)
    with st.container(border=True):
        ui.card("Text", f"kept in your session only; click a word to hide it, or write {ui.esc(MASK)} yourself")
        text, spans = _text()
        keys = _checkpoints(there)
    asked = playground.hidden(text, spans)
    if not keys:
        st.markdown("Pick at least one checkpoint.")
        return
    try:
        with st.skeleton(height=320):
            sides = playground.side_by_side(home, asked, keys, ASKED)
    except FMError as error:
        st.info(f"**{ui.esc(error.message)}** {ui.esc(error.hint)}", icon=":material/lightbulb:")
        return
    _answers(asked, sides, _truths(text, asked, spans))
    lab_methods.links("mlm", place="playground")


# ---------------------------------------------------------------- what is asked


def _text() -> tuple[str, list[tuple[int, int]]]:
    """(the text, where the hidden words stand in it)."""
    if "lab_text" not in st.session_state:  # the first visit, or back from another view, which lets go of this one's widgets
        kept = st.session_state.get("lab_text_kept")
        st.session_state.update({"lab_text": kept["text"], kept["key"]: kept["chosen"]} if kept else {})
    if "lab_text" not in st.session_state:
        _example(next(iter(EXAMPLES)))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        for name in EXAMPLES:
            st.button(name, key=f"example-{name}", type="tertiary", icon=":material/format_quote:", on_click=_example, args=(name,))
    st.text_area("Text", key="lab_text", height=84, max_chars=texts.MAX_CHARS, label_visibility="collapsed", placeholder="Write a sentence")
    text = texts.clean(st.session_state["lab_text"])[0]
    places = playground.maskable(text, most=MOST_WORDS)
    if not places:
        return text, []
    key = f"lab_hide_{texts.text_hash(text)}"  # another text has other words
    chosen = st.pills(
        "Hidden words", list(range(len(places))), selection_mode="multi", key=key, label_visibility="collapsed",
        format_func=lambda i: ui.esc(ui.short(text[slice(*places[i])], 40)),
    )  # fmt: skip
    if len(places) == MOST_WORDS:
        ui.note(f"The first {MOST_WORDS} words can be clicked; further on, write {ui.esc(MASK)} into the text.")
    st.session_state["lab_text_kept"] = {"text": st.session_state["lab_text"], "key": key, "chosen": list(chosen)}
    return text, [places[i] for i in chosen]


def _example(name: str) -> None:
    """Put an example into the box, its words hidden."""
    text, words = EXAMPLES[name]
    places = playground.maskable(text, most=MOST_WORDS)
    st.session_state["lab_text"] = text
    st.session_state[f"lab_hide_{texts.text_hash(text)}"] = [i for i, (a, b) in enumerate(places) if text[a:b] in words]


def _checkpoints(there: list[Choice]) -> list[str]:
    """Keys of the checkpoints that are asked."""
    titles = {choice.key: choice.title for choice in there}
    kept = [key for key in st.session_state.get("lab_sides", playground.usual(there)) if key in titles]
    st.session_state["lab_sides"] = kept
    return st.multiselect(
        f"Checkpoints side by side, {playground.MOST_SIDES} at most", list(titles), key="lab_sides", max_selections=playground.MOST_SIDES,
        format_func=titles.__getitem__, placeholder="Pick a checkpoint",
    )  # fmt: skip


def _truths(text: str, asked: str, spans: list[tuple[int, int]]) -> list[str]:
    """The hidden word behind each mask of what is asked, "" for a mask that was written by hand."""
    at = sorted([(start, text[start:end]) for start, end in spans] + [(i, "") for i in _masks(text)])
    return [word for _, word in at] if len(at) == asked.count(MASK) else []


def _masks(text: str) -> list[int]:
    return [i for i in range(len(text)) if text.startswith(MASK, i)]


# ---------------------------------------------------------------- what is answered


def _answers(asked: str, sides: list[Side], truths: list[str]) -> None:
    with st.container(border=True):
        ui.card("Side by side", "the likeliest word in each place; the stronger the tint, the surer the checkpoint")
        with st.grid(len(sides), min_column_width=_column(sides), gap="medium") as grid:
            for side in sides:
                with grid.cell():
                    _sentence(asked, side)
    n = asked.count(MASK)
    shown = list(range(n))
    if n > CLOSELY:
        picked = st.pills("Mask", shown, default=0, required=True, key=f"lab_mask_{n}", format_func=lambda i: f"Mask {i + 1}")
        shown = [picked]
    for place in shown:
        with st.container(border=True):
            truth = truths[place] if place < len(truths) else ""
            ui.card(f"Mask {place + 1}", f"hidden: **{ui.esc(truth)}**" if truth else "probability over the whole vocabulary, %")
            with st.grid(len(sides), min_column_width=_column(sides), gap="medium") as grid:
                for i, side in enumerate(sides):
                    with grid.cell():
                        _mask(side, place, truth, key=f"mask-{place}-{i}")
    if shown:
        ui.note(
            "Entropy: how undecided a checkpoint is, in bits, and among how many equally likely words that would be the same. "
            "A word that the tokenizer cuts into pieces can never be named whole."
        )


def _column(sides: list[Side]) -> int:
    """Least width of a column, px: three stay in one row on a narrow page, four become two and two."""
    return 140 if len(sides) == 3 else 230


def _sentence(asked: str, side: Side) -> None:
    """The text with the first word put into each mask."""
    chips = [ui.synthetic_mark()] if side.choice.synthetic else []
    st.markdown(" ".join([f"**{ui.esc(side.choice.title)}**", *chips]))
    if side.error is not None:
        ui.refusal(side.error)
        return
    t = ui.tokens()
    pieces = playground.parts(ui.short(asked, 600))
    said = [ui.esc(pieces[0])]
    for i, piece in enumerate(pieces[1:]):
        if i < len(side.filled):
            filled = side.filled[i]
            tint = ui.rgba(t["accent"], round(0.10 + 0.38 * filled.probabilities[0], 2))
            said.append(f':color[**{ui.esc(filled.words[0])}**]{{background="{tint}"}}')
        else:
            said.append(ui.chip("not read", "orange"))
        said.append(ui.esc(piece))
    st.markdown(" ".join(said))
    if side.note:
        ui.note(ui.esc(side.note))


def _mask(side: Side, place: int, truth: str, *, key: str) -> None:
    """One checkpoint's words for one mask, as bars, its entropy, and where the hidden word stands."""
    ui.note(ui.esc(side.choice.title))
    if side.error is not None:
        st.markdown("No answer.")
        return
    if place >= len(side.filled):
        st.markdown("This mask lies beyond what the checkpoint reads.")
        return
    filled = side.filled[place]
    found = playground.rank(filled, truth) if truth else None
    best = 0 if not truth else found[0] - 1 if found else -1  # a hidden word beyond those drawn leaves all of them pale
    words, shares = filled.words[:SHOWN], filled.probabilities[:SHOWN]
    told = "; ".join(f"{word} {figures.probability(p)}" for word, p in zip(words, shares, strict=True))
    lab_drawing.shares(words, shares, key=key, best=best, words=f"{side.choice.title}: {told}.")
    st.markdown(f":small[{_entropy(filled)}{_place(found, truth)}]")


def _entropy(filled: Filled) -> str:
    same = 2**filled.entropy
    as_many = f"{same:,.0f}" if same >= 10 else f"{same:.1f}"
    return f"Entropy **{filled.entropy:.1f} bits**, as undecided as among {as_many} words."


def _place(found: tuple[int, float] | None, truth: str) -> str:
    if not truth:
        return ""
    if found is None:
        return f" **{ui.esc(truth)}** is not among its first {ASKED}."
    place, probability = found
    more = "" if place <= SHOWN else f", {'1 in ' + format(1 / probability, ',.0f')}"
    return f" **{ui.esc(truth)}** comes {_ordinal(place)}{more}."


def _ordinal(n: int) -> str:
    """1st, 2nd, 3rd, 4th."""
    ending = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"
