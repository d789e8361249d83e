"""Telling: what an explanation found, in one to three plain sentences, made from its numbers and from nothing else.

Owns the wording. Never asks a model, never rounds twice, and returns plain text: words of the explained text come from outside, so that
they are shortened and lose their control characters here, and a page escapes them like any other text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from fmcore.explain.faithfulness import ADDITIVE
from fmcore.nouns import Curve, Edit, Explanation, Flip, Neighbour, Trust

MAX_WORD = 40
"""Characters of a word or a run of words that are quoted."""
MAX_LABEL = 60
NOTHING = 0.005
"""A value below this rounds to 0.00, and is not spoken of."""
BESIDE = 0.25
"""The second strongest word is named when it has at least this share of the strongest one's value, one against it when it has that too."""
NET = "net"
_EDGES = ".,;:!?\"'()[]{}‘’“”«»…。，！？、；："
_JOINERS = "\u200c\u200d"
_OPENINGS = {"trust": "Trust it", "with care": "Take it with care", "do not": "Do not trust it"}


def sentence(explanation: Explanation, *, trust: Trust | None = None) -> str:
    """What the model answered, which words spoke for and against it, and with `trust` whether to believe that."""
    parts = [_answer(explanation), _words(explanation)]
    if trust is not None:
        parts.append(verdict(trust))
    elif explanation.tokens and explanation.additivity_error > ADDITIVE:
        parts.append(f"The words' values miss the score by {explanation.additivity_error:.3f}.")
    return " ".join(part for part in parts if part)


def verdict(trust: Trust) -> str:
    """The verdict and what made it: the first check that failed, or how much faster the score falls than by chance."""
    failed = [said for _, passed, said in trust.checks if not passed]
    opening = _OPENINGS[trust.verdict]
    if not failed:
        return f"{opening}: all {len(trust.checks)} checks pass{_fall(trust.deletion)}."
    more = f" ({len(failed)} of {len(trust.checks)} checks fail.)" if len(failed) > 1 else ""
    return f"{opening}: {_inside(failed[0])}{more}"


def flip(flip: Flip) -> str:
    """"Without ‘not’ it would be negative, 71 %." for the edits of a flip."""
    gone = [quoted(e.old) for e in flip.edits if not e.new]
    swapped = [e for e in flip.edits if e.new]
    parts = [f"without {_listed(gone)}"] if gone else []
    parts += [_swap(e) for e in swapped]
    changed = " and ".join(parts) if len(parts) < 3 else ", ".join(parts[:-1]) + " and " + parts[-1]
    after = f"it would be {name(flip.label)}, {percent(flip.score)}"
    before = f"now it is {name(flip.old_label)}, {percent(flip.old_score)}"
    return f"{changed[:1].upper()}{changed[1:]} {after}; {before}." if changed else f"{after[:1].upper()}{after[1:]}; {before}."


def neighbours(found: Sequence[Neighbour]) -> str:
    """How many of the nearest known examples support the model's answer, and the nearest on either side."""
    if not found:
        return "No example that the model learnt from is at hand."
    for_it = sorted((n for n in found if n.supports), key=lambda n: -n.similarity)
    against = sorted((n for n in found if not n.supports), key=lambda n: -n.similarity)
    if len(found) == 1:
        does = "supports" if for_it else "contradicts"
        return f"The nearest known example (likeness {number(found[0].similarity)}) is {name(found[0].label)}, which {does} the answer."
    head = f"Of the {len(found)} nearest known examples"
    if not against:
        return f"{head} all support the answer, the nearest with a likeness of {number(for_it[0].similarity)}."
    other = f"the nearest {name(against[0].label)} at {number(against[0].similarity)}"
    if not for_it:
        return f"{head} none supports the answer: {other}."
    n_for, n_against = _counted(len(for_it), "support"), _counted(len(against), "contradict")
    return f"{head} {n_for} the answer, the nearest at {number(for_it[0].similarity)}, and {n_against} it, {other}."


def compared(first: Explanation, second: Explanation) -> str:
    """What two versions' explanations of one text differ in: the answers, and the words whose values differ most."""
    one, two = _cleaned(first.version), _cleaned(second.version)
    if first.label == second.label and first.target == second.target:
        answers = f"Both read this as {name(first.label)}: {_scored(first)} in {one}, {_scored(second)} in {two}."
    else:
        answers = f"{one} reads this as {name(first.label)} ({_scored(first)}), {two} as {name(second.label)} ({_scored(second)})."
    if not first.tokens or not second.tokens:
        return f"{answers} There are no words to compare."
    if first.target != second.target or first.tokens != second.tokens:
        return f"{answers} {one} leans most on {_strongest(first)}, {two} on {_strongest(second)}."
    change = np.subtract(second.values, first.values)
    largest = [int(i) for i in np.argsort(-np.abs(change), kind="stable")[:2] if abs(change[i]) >= NOTHING]
    if not largest:
        return f"{answers} No word's value differs by {2 * NOTHING:.2f} or more."
    told = _listed([f"{_token(first, i)} (from {signed(first.values[i])} to {signed(second.values[i])})" for i in largest])
    return f"{answers} What changed most is the value of {told}."


# --- the parts of a sentence


def _answer(e: Explanation) -> str:
    unread = f", without reading the last {e.n_unread:,} characters" if e.n_unread else ""
    if not e.tokens:
        return f"There are no words to explain: the model reads a text without words as {name(e.label)}, {_scored(e)}."
    said = f"The model reads this as {name(e.label)}"
    if e.target == e.label:
        return f"{said}, {percent(e.score)} sure{unread}."
    if e.target == NET:
        return f"{said}, with a net score (positive less negative) of {signed(e.score)}{unread}."
    return f"{said}{unread}; for {name(e.target)}, which is explained here, it gives {percent(e.score)}."


def _words(e: Explanation) -> str:
    """The words that spoke for and against the target, or that none did."""
    if not e.tokens:
        return ""
    target = "a higher score" if e.target == NET else "it" if e.target == e.label else name(e.target)
    if len(e.tokens) == 1:
        return f"{_token(e, 0)} is its only word and adds {signed(e.values[0])} to the {number(e.base_value)} of a text without words."
    values = np.asarray(e.values, dtype=np.float64)
    if np.abs(values).max() < NOTHING:
        return f"No word moves that by {2 * NOTHING:.2f} or more; without any word it is {number(e.base_value)}."
    least = max(NOTHING, BESIDE * float(np.abs(values).max()))
    order = np.argsort(-values, kind="stable")
    up = [int(i) for i in order[:2] if values[i] >= least]
    down = [int(i) for i in order[::-1][: 1 if up else 2] if values[i] <= -least]
    parts = []
    if up:
        speak = "speaks" if len(up) == 1 else "speak"
        parts.append(f"{_listed([_token(e, i) for i in up])} {speak} for {target} most ({_listed([signed(values[i]) for i in up])})")
    if down:
        speak = "speaks" if len(down) == 1 else "speak"
        whom = "it" if up else target
        parts.append(f"{_listed([_token(e, i) for i in down])} {speak} against {whom} ({_listed([signed(values[i]) for i in down])})")
    return "; ".join(parts) + "."


def _strongest(e: Explanation) -> str:
    at = int(np.argmax(np.abs(e.values)))
    return f"{_token(e, at)} ({signed(e.values[at])})"


def _token(e: Explanation, place: int) -> str:
    """A word in quotation marks; with its number where the text has it more than once."""
    shown = quoted(e.tokens[place])
    twice = sum(quoted(t) == shown for t in e.tokens) > 1
    return f"{shown} (word {place + 1})" if twice else shown


def _fall(deletion: Curve | None) -> str:
    if deletion is None:
        return ""
    first, random = number(deletion.area), number(deletion.random_area)
    return f"; as words go the score averages {first} with the strongest first, {random} in random order"


def _swap(e: Edit) -> str:
    return f"with {quoted(e.new)} for {quoted(e.old)}"


def _scored(e: Explanation) -> str:
    return f"net {signed(e.score)}" if e.target == NET else percent(e.score)


def _counted(n: int, verb: str) -> str:
    return f"{n} {verb}{'s' if n == 1 else ''}"


def _inside(said: str) -> str:
    """A sentence after a colon: its first letter small."""
    return said[:1].lower() + said[1:]


def _listed(parts: Sequence[str]) -> str:
    """"a", "a and b", "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


# --- numbers and words


def percent(share: float) -> str:
    """A probability as whole per cent; never 100 % or 0 % for what is not quite."""
    if 0.995 <= share < 1:
        return "more than 99 %"
    return "less than 1 %" if 0 < share < 0.005 else f"{share * 100:.0f} %"


def signed(value: float) -> str:
    """Two digits with a sign; 0.00 for what rounds to it."""
    return f"{value:+.2f}".replace("-", "−") if abs(value) >= NOTHING else "0.00"


def number(value: float) -> str:
    """Two digits, a sign only where it is negative."""
    return f"{value:.2f}".replace("-", "−") if abs(value) >= NOTHING else "0.00"


def name(label: str) -> str:
    """A label as people say it."""
    return _cleaned(label.replace("_", " "), limit=MAX_LABEL) or "no label"


def quoted(word: str) -> str:
    """A word of the text in quotation marks: without control characters and the punctuation around it, shortened."""
    cleaned = _cleaned(word, limit=10 * MAX_WORD)
    bare = cleaned.strip(_EDGES + " ") or cleaned
    return f"‘{bare if len(bare) <= MAX_WORD else bare[: MAX_WORD - 1].rstrip() + '…'}’"


def _cleaned(text: str, *, limit: int = MAX_LABEL) -> str:
    """One line without control and format characters (a right-to-left mark would turn the sentence around); joiners stay, which emoji
    and Persian need."""
    shown = (c for c in text if unicodedata.category(c) != "Cf" or c in _JOINERS)
    line = " ".join("".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in shown).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"
