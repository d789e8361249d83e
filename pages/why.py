"""Why: an explanation as a person reads it. A plain sentence, the words in reading order, the strongest ones, whether to trust it.

The one component for every page that asks why. A question and its answer stay in the visitor's session: never in an address, a shared
cache or the log. Words come from texts that anybody may have written: they are shown as text, whatever they look like.
Computes nothing; asks desk.explain and draws what comes back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from fmcore.explain.answering import Answer
from fmcore.explain.asking import Question
from fmcore.explain.faithfulness import YARDSTICK
from fmcore.nouns import Explanation, FMError, Trust
from fmcore.text import clean
from pages import explain_charts as charts
from pages import figures, ui

POLL_S = 0.4
AT_ONCE_S = 0.35
"""How long a page waits for an answer before it shows progress instead: what is in the store is there by then."""
MOST_HELD = 40
"""Questions that a session remembers; the oldest answered ones go first."""
SHOWN_CHARS = 1_500
"""Characters of the words in reading order that are drawn until somebody asks for all."""
MOST_UNREAD = 300
"""Characters that are shown, in grey, of what the model did not read."""
PLAIN_BELOW, GLYPH_ABOVE, BOLD_ABOVE = 0.20, 0.33, 0.66
"""Shares of the strongest word's value: plainer words have no tint, stronger ones a glyph, the strongest are bold."""
ROUNDED = 0.01
"""Smallest difference between the score of a text asked alone and among others that is said."""
EXACT = 1e-3
"""Largest gap between the values' sum and the score that is not worth a warning."""

VERDICTS = {
    "trust": ("Trust it", "green", ":material/verified:"),
    "with care": ("With care", "orange", ":material/balance:"),
    "do not": ("Do not trust it", "red", ":material/block:"),
}
"""Trust.verdict -> words, badge colour, icon."""

METHODS = {
    "fast": "Fast surrogate",
    "exact": "Exact Shapley",
    "shap": "SHAP",
    "lime": "LIME",
    "gradients": "Integrated gradients",
    "occlusion": "Occlusion",
}
"""Method -> how it is called."""


_MINUS = re.compile(r"(?<!\w)-(?=\d)")


@dataclass
class _Held:
    """A question of this session and what became of it: a ticket, or the refusal to give one."""

    question: Question
    ticket: Any = None
    refused: FMError | None = None


# ---------------------------------------------------------------- the component


def draw(
    desk: Any,
    task: str,
    text: str,
    *,
    version: str | None = None,
    key: str,
    target: str | None = None,
    parts: Sequence[str] = ("explanation", "trust"),
    compact: bool = False,
) -> None:
    """Ask why `task`'s model said what it says of `text`, and draw the answer or how far it is. compact: sentence, words, verdict only.

    target: a label, "net" (P(positive) - P(negative)), or None for the model's own answer. In a dialog, keep the dialog open by a flag in
    the session: the page runs once more when the answer is there.
    """
    question = Question(task=task, text=clean(text)[0], version=version, target=target, parts=tuple(parts))
    answer = answered(desk, question, key=key)
    if answer is None:
        return
    sentence(answer)
    chips(desk, answer)
    words(answer.explanation, question.text, key=key, legend=not compact)
    if compact:
        return
    strongest(answer.explanation, key=key)
    if answer.trust is not None:
        with st.expander("Can you trust this?", icon=":material/rule:"):
            checks(answer.trust)
    elif why_not := answer.missing.get("trust"):
        ui.note(f"It could not be checked: {ui.esc(why_not)}")
    numbers(answer.explanation, key=key)
    facts(answer)
    if st.button("Open on Explain", key=f"{key}-open", type="tertiary", icon=":material/troubleshoot:"):
        open_page(task, text, version)


def open_page(task: str, text: str, version: str | None = None) -> None:
    """Go to the Explain page with this text; it travels in the session, never in the address. Not for callbacks."""
    st.session_state.update(explain_task=task, explain_text=text, explain_asked=clean(text)[0], explain_view="One text")
    if version is None:
        st.session_state.pop("explain_version", None)
    else:
        st.session_state["explain_version"] = version
    st.switch_page("explain.py")


# ---------------------------------------------------------------- asking


def answered(desk: Any, question: Question, *, key: str, doing: str = "Asking the model") -> Answer | None:
    """The answer of this session to a question, asked once; None while it is worked on, or refused, or stopped, which is drawn instead.

    One question a key: another one under the same key takes its place, and the former is no longer waited for.
    """
    held = _held(desk, question, key)
    state = "failed" if held.refused else held.ticket.state
    if state == "done":
        return held.ticket.answer
    if state == "failed":
        ui.failure(held.refused or held.ticket.error)
        _again(key)
    elif state == "cancelled":
        ui.note("Stopped before it was done. Nothing was stored.")
        _again(key)
    else:
        st.fragment(_progress, run_every=POLL_S)(key, doing)
    return None


def _held(desk: Any, question: Question, key: str) -> _Held:
    """What the session holds under this key; asks where that is another question or nothing."""
    everything: dict[str, _Held] = st.session_state.setdefault("why_held", {})
    held = everything.get(key)
    if held is not None and held.question == question:
        return held
    if held is not None and held.ticket is not None:
        held.ticket.cancel()
    held = _Held(question)
    try:
        held.ticket = desk.explain.ask(question, who=ui.who())
        held.ticket.wait(AT_ONCE_S)
    except FMError as error:
        held.refused = error
    everything.pop(key, None)
    everything[key] = held
    for old in list(everything)[: max(0, len(everything) - MOST_HELD)]:
        del everything[old]
    return held


def _again(key: str) -> None:
    st.button("Try again", key=f"{key}-again", icon=":material/refresh:", on_click=forget, args=(key,))


def forget(key: str) -> None:
    """Ask anew at the next run."""
    st.session_state.get("why_held", {}).pop(key, None)


def _cancel(key: str) -> None:
    held = st.session_state.get("why_held", {}).get(key)
    if held is not None and held.ticket is not None:
        held.ticket.cancel()


def _progress(key: str, doing: str) -> None:
    """How far a question is, with a way out. The page is drawn anew, without this, when it is over."""
    held = st.session_state.get("why_held", {}).get(key)
    if held is None or held.ticket is None or held.ticket.state not in ("waiting", "working"):
        st.rerun()
    held.ticket.seen()
    with st.container(horizontal=True, vertical_alignment="center", gap="small", wrap=False):
        if held.ticket.state == "waiting":
            place = held.ticket.place
            said = f"Waiting in line, {place - 1} before this one" if place > 1 else "Next in line"
        else:
            said = held.ticket.message or doing
        st.progress(min(1.0, max(0.0, held.ticket.progress)), text=ui.esc(said[:1].upper() + said[1:]))
        st.button("Cancel", key=f"{key}-cancel", icon=":material/close:", on_click=_cancel, args=(key,))


# ---------------------------------------------------------------- the sentence and the chips


def sentence(answer: Answer) -> None:
    """The plain sentence, first."""
    if answer.sentence:
        st.markdown(told(answer.sentence))


def answer_chip(explanation: Explanation) -> str:
    """What is explained, with its score."""
    if explanation.target == "net":
        return ui.score_chip(ui.sign_of(explanation.score), explanation.score)
    return ui.chip(f"{figures.label(explanation.target)} {figures.probability(explanation.score)}", "blue")


def verdict_chip(trust: Trust) -> str:
    """The verdict in words."""
    return ui.chip(*VERDICTS[trust.verdict])


def chips(desk: Any, answer: Answer) -> None:
    """Answer, verdict, and the mark of a model that learnt from demo data, on one line."""
    shown = [answer_chip(answer.explanation)]
    if answer.trust is not None:
        shown.append(verdict_chip(answer.trust))
    shown.append(mark(desk, answer.explanation.task, answer.explanation.version))
    st.markdown(" ".join(part for part in shown if part))


def mark(desk: Any, task: str, version: str) -> str:
    """The demo data's mark for a version that learnt from it, else ""."""
    return ui.synthetic_mark() if desk.registry.facts(desk.registry.get(task, version)).get("synthetic") else ""


# ---------------------------------------------------------------- the words


def word_marks(pairs: Iterable[tuple[str, float]], *, gaps: Iterable[str] | None = None, top: float | None = None) -> str:
    """Words in reading order as markdown; strength by tint, bold and glyph, sign by glyph and tint: ▲ raises the score, ▼ lowers it.

    gaps[i] stands before word i, a blank where it is not given. top: the value that counts as strongest, the largest here where it is
    not given. Tints are rgba, so the same string reads on both themes.
    """
    pairs = list(pairs)
    t = ui.tokens()
    top = max((abs(value) for _, value in pairs), default=0.0) if top is None else top
    marked = []
    for (word, value), gap in zip(pairs, gaps if gaps is not None else [""] + [" "] * len(pairs), strict=False):
        strength = min(1.0, abs(value) / top) if top > 1e-9 else 0.0
        if strength < PLAIN_BELOW:
            marked.append(gap + ui.esc(word))
            continue
        glyph = ("▲" if value > 0 else "▼") if strength > GLYPH_ABOVE else ""
        inner = f"**{ui.esc(word)}**" if strength > BOLD_ABOVE else ui.esc(word)
        tint = ui.rgba(t["up"] if value > 0 else t["down"], round(0.10 + 0.38 * strength, 2))
        marked.append(f'{gap}:color[{glyph}{inner}]{{background="{tint}"}}')
    return "".join(marked)


def gaps_of(spans: Sequence[tuple[int, int]], text: str) -> Iterator[str]:
    """What stands before each word in the text: nothing, a blank, or a new line as markdown writes it."""
    end = 0
    for i, (start, stop) in enumerate(spans):
        between = text[end:start]
        yield "" if i == 0 or not between else "  \n" if "\n" in between else " "
        end = stop


def words(explanation: Explanation, text: str, *, key: str, legend: bool = True) -> None:
    """The text with its words marked; of a long one the beginning, until all of it is asked for. `text`: cleaned, as it was asked."""
    if not explanation.tokens:
        ui.note("The text has no words: what you see is the model's answer to an empty text.")
        return
    n_chars = explanation.spans[-1][1] - explanation.spans[0][0]
    whole = n_chars <= SHOWN_CHARS or st.session_state.get(f"{key}-all", False)
    tokens, values, spans = explanation.tokens, explanation.values, explanation.spans
    if not whole:
        n = max(1, sum(stop - spans[0][0] <= SHOWN_CHARS for _, stop in spans))
        tokens, values, spans = (*tokens[: n - 1], tokens[n - 1][:SHOWN_CHARS]), values[:n], spans[:n]
    top = max((abs(value) for value in explanation.values), default=0.0)
    marked = word_marks(zip(tokens, values, strict=True), gaps=gaps_of(spans, text), top=top)
    rest = text[explanation.spans[-1][1] :].strip() if whole and explanation.n_unread else ""
    unread = f" :gray[{ui.esc(ui.short(rest, MOST_UNREAD))}]" if rest else ""
    st.markdown(f"{marked}{unread}" if whole else f"{marked} …")
    if n_chars > SHOWN_CHARS:
        st.toggle(f"Show all {n_chars:,} characters", key=f"{key}-all")
    if legend:
        against, towards = charts.sides(explanation.target)
        ui.note(f"▲ {ui.esc(towards)} · ▼ {ui.esc(against)} · the stronger the tint, the more the word moves the score")
    _limits(explanation)


def _limits(explanation: Explanation) -> None:
    """What the words do not say: runs instead of words, and what the model never read."""
    if _in_runs(explanation):
        ui.note(f"A long text: neighbouring words stand together, as {len(explanation.tokens)} pieces. A larger budget tells more apart.")
    if explanation.n_unread:
        ui.note(f"The model does not read the last {explanation.n_unread:,} characters; they move nothing.")


def _in_runs(explanation: Explanation) -> bool:
    return any(c.isspace() for token in explanation.tokens for c in token)


def strongest(explanation: Explanation, *, key: str) -> None:
    """The strongest words as bars."""
    if charts.strongest(explanation):
        ui.show(charts.word_bars(explanation), f"{key}-bars", charts.in_words(explanation))
    else:
        ui.note("No word moves the score.")


def numbers(explanation: Explanation, *, key: str) -> None:
    """Every word with its exact number, to read and to take away."""
    if not explanation.tokens:
        return
    with st.expander("Exact numbers", icon=":material/table_rows:"):
        table = frame(explanation)
        number = st.column_config.NumberColumn
        shown = {
            "adds": number(f"adds to {_scored(explanation)}", format="%+.4f"), "share": number("share of all movement", format="%.1f %%"),
        }  # fmt: skip
        st.dataframe(table, hide_index=True, column_config=shown, key=f"{key}-table", height=min(35 * len(table) + 38, 320))
        total = float(np.sum(explanation.values))
        st.markdown(
            f":small[Without any word {ui.signed(explanation.base_value, 4)}, words together {ui.signed(total, 4)}, "
            f"whole text {ui.signed(explanation.score, 4)}; gap {explanation.additivity_error:.4f}.]"
        )
        ui.download("Download CSV", table, f"why-{explanation.task}.csv", key=f"{key}-csv")


def _scored(explanation: Explanation) -> str:
    return "P(positive) − P(negative)" if explanation.target == "net" else f"P({figures.label(explanation.target)})"


def frame(explanation: Explanation) -> pd.DataFrame:
    """Words in reading order: place, word, adds (to the target's score), side in words, share of all movement in %."""
    values = np.array(explanation.values, dtype=float)
    against, towards = charts.sides(explanation.target)
    moved = float(np.abs(values).sum())
    return pd.DataFrame(
        {
            "place": range(1, len(values) + 1),
            "word": list(explanation.tokens),
            "adds": values,
            "side": [towards if value > 0 else against if value < 0 else "neither" for value in values],
            "share": 100 * np.abs(values) / moved if moved > 0 else 0.0,
        }
    )


# ---------------------------------------------------------------- trust and facts


def checks(trust: Trust) -> None:
    """The checks behind the verdict, each with its numbers; passed or not by icon, word and colour."""
    for name, passed, said in trust.checks:
        with st.container(horizontal=True, vertical_alignment="top", gap="small", wrap=False):
            with st.container(width=116):
                icon = ":material/check_circle:" if passed else ":material/error:"
                st.markdown(ui.chip(name.capitalize() if passed else f"Not {name.lower()}", "green" if passed else "orange", icon))
            st.markdown(f":small[{told(said)}]", width="stretch")


def told(sentence: str) -> str:
    """A sentence with numbers as markdown: escaped, with real minuses."""
    return ui.esc(_MINUS.sub("−", sentence))


def agreement(values: Mapping[str, float]) -> pd.DataFrame:
    """Rank correlation with other methods, the likest first: method, Spearman."""
    ranked = sorted(values.items(), key=lambda pair: -pair[1])
    names = ["The check's own Shapley values" if name == YARDSTICK else METHODS.get(name, name) for name, _ in ranked]
    return pd.DataFrame({"Method": names, "Rank correlation": [ui.signed(value) for _, value in ranked]})


def facts(answer: Answer) -> None:
    """Where the answer comes from: method, calls, gap, words, version, time, and whether the store had it."""
    explanation, trust = answer.explanation, answer.trust
    piece = "piece" if _in_runs(explanation) else "word"
    n_words = f"{len(explanation.tokens):,} {piece}{'' if len(explanation.tokens) == 1 else 's'}"
    asked = f"{explanation.n_calls:,} texts asked of the model" + (f" and {trust.n_calls:,} to check" if trust is not None else "")
    took = f"{1000 * explanation.seconds:,.0f} ms" if explanation.seconds < 1 else f"{explanation.seconds:.1f} s"
    source = f"{'from the store, made' if explanation.stored else f'took {took},'} {ui.fresh(explanation.made_at)}"
    parts = [METHODS.get(explanation.method, explanation.method), n_words, asked, f"version {explanation.version}", source]
    ui.note(" · ".join(ui.esc(part) for part in parts))
    if explanation.additivity_error > EXACT:
        ui.note(
            f":orange[:material/warning: The values miss the score by {explanation.additivity_error:.3f}.] "
            f"{ui.esc(METHODS.get(explanation.method, explanation.method))} does not have to add up."
        )
    alone = answer.prediction.scores.get(explanation.target)
    if alone is not None and abs(alone - explanation.score) >= ROUNDED:
        here = figures.probability(explanation.score)
        ui.note(
            f"Asked alone, the text gets {ui.esc(figures.probability(alone))}, here among others {ui.esc(here)}: "
            "the served encoder counts in 8 bits, and rounds by what is asked together."
        )
