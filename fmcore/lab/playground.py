"""The playground: a text with masks, asked of several checkpoints side by side.

Owns which checkpoints can be asked and how their answers lie beside each other. Keeps no text: what is asked is answered and forgotten.
The forms themselves, cached, are models/bases.py's and models/masked_lm.py's.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmcore import clock
from fmcore import text as texts
from fmcore.explain import words
from fmcore.lab.examples import softmax
from fmcore.models import bases, masked_lm
from fmcore.models.bases import Base
from fmcore.models.fill_mask import MASK, MOST_MASKS, MOST_WORDS, Filled, NothingToFill
from fmcore.nouns import FMError

log = logging.getLogger("fm.lab")

SERVES_EXPLANATIONS = "masked_lm"
"""Key of the model that job masked_lm trained."""
MOST_SIDES = 4
WIDEST = 4000
"""Characters of a text in which words to hide are looked for: far more than any of the models reads."""
Span = tuple[int, int]
_CORE = re.compile(r"\w(?:.*\w)?", re.DOTALL)


class UnknownCheckpoint(FMError):
    """No checkpoint has that key."""


@dataclass(frozen=True)
class Choice:
    """A checkpoint that can be asked. key: NAME@STEP, or SERVES_EXPLANATIONS; last: the step at which the base's training ended."""

    key: str
    name: str
    step: int
    last: int
    objective: str
    start: str
    synthetic: bool
    made_at: dt.datetime

    @property
    def title(self) -> str:
        """Plain words: "finance, step 400 of 1,200"."""
        if self.key == SERVES_EXPLANATIONS:
            return "words for explanations"
        if self.step == 0:
            return f"{self.name}, before training"
        return f"{self.name}, step {self.step:,}" + (f" of {self.last:,}" if self.step < self.last else ", the end")


@dataclass(frozen=True)
class Side:
    """One checkpoint's answer. filled: one a mask that it read, in order; note: what a reader must know of it; error: why it gave none."""

    choice: Choice
    filled: tuple[Filled, ...] = ()
    note: str = ""
    error: FMError | None = None


def choices(home: Path) -> list[Choice]:
    """Every checkpoint that fills masks: bases newest first, each by step, then the model that serves explanations where there is one."""
    found = [_choice(base, step) for base in bases.listed(home) for step in base.steps]
    model = masked_lm.load(home)
    if model is not None:
        made = dt.datetime.fromisoformat(str(model.about.get("made_at", "1970-01-01"))).astimezone(clock.UTC)
        steps = int(model.about.get("steps", 0))
        found.append(Choice(SERVES_EXPLANATIONS, SERVES_EXPLANATIONS, steps, steps, "mlm", "continue", False, made))
    return found


def usual(there: Sequence[Choice]) -> list[str]:
    """Which to show unasked: of the newest base the first checkpoint, one half way and the last; else what there is."""
    if not there:
        return []
    newest = [choice for choice in there if choice.name == there[0].name]
    return list(dict.fromkeys(choice.key for choice in (newest[0], newest[len(newest) // 2], newest[-1])))


def maskable(text: str, *, most: int) -> list[Span]:
    """Where the first `most` words that can be hidden stand, without the punctuation that clings to them; a mask is none of them."""
    found = []
    for start, end in words.split(text[:WIDEST]).spans:
        core = _CORE.search(text[start:end])
        if core is not None and MASK not in text[start:end]:
            found.append((start + core.start(), start + core.end()))
    return found[:most]


def hidden(text: str, spans: Sequence[Span]) -> str:
    """The text with a mask in the place of each span. Spans must not overlap."""
    for start, end in sorted(spans, reverse=True):
        text = f"{text[:start]}{MASK}{text[end:]}"
    return text


def parts(text: str) -> list[str]:
    """What stands between the masks: one part more than there are masks."""
    return text.split(MASK)


def side_by_side(home: Path, text: str, keys: Sequence[str], k: int = 5) -> list[Side]:
    """The text asked of each checkpoint. A checkpoint that cannot answer has its reason in its Side; the others answer all the same.

    Raises NothingToFill without a mask or with more than MOST_MASKS, and UnknownCheckpoint for a key that none has.
    """
    said = texts.clean(text)[0]
    n = said.count(MASK)
    if not 0 < n <= MOST_MASKS:
        there = "There is no mask in the text." if not n else f"There are {n} masks in the text."
        raise NothingToFill(there, f"Hide a word, or write {MASK} where one is missing; at most {MOST_MASKS} at once.")
    known = {choice.key: choice for choice in choices(home)}
    strangers = [key for key in keys if key not in known]
    if strangers:
        raise UnknownCheckpoint(f"There is no checkpoint {strangers[0][:80]!r}.", "It may have been removed; choose another one.")
    return [_side(home, known[key], said, n, min(max(1, k), MOST_WORDS)) for key in keys[:MOST_SIDES]]


def rank(filled: Filled, word: str) -> tuple[int, float] | None:
    """(place from 1, probability) of a word among those of an answer, whatever its case; None where it is not among them."""
    folded = [said.casefold() for said in filled.words]
    if word.casefold() not in folded:
        return None
    at = folded.index(word.casefold())
    return at + 1, filled.probabilities[at]


def _choice(base: Base, step: int) -> Choice:
    facts = base.facts
    return Choice(
        f"{base.name}@{step}", base.name, step, base.steps[-1], str(facts.get("objective", "")), str(facts.get("start", "")),
        bool(facts.get("synthetic")), base.made_at,
    )  # fmt: skip


def _side(home: Path, choice: Choice, text: str, n: int, k: int) -> Side:
    try:
        if choice.key == SERVES_EXPLANATIONS:
            return _explanations(home, choice, text, k)
        form = bases.get(home, choice.name).fill_mask(choice.step)
        filled = tuple(form.fill(text, k))
        unread = n - len(filled)
        reach = f"It reads {form.max_tokens} tokens; {unread} of the {n} masks lie beyond." if unread else ""
        return Side(choice, filled, reach)
    except FMError as error:
        return Side(choice, error=error)
    except Exception:  # a damaged file fails in any of four parsers, and the other checkpoints are to answer all the same
        log.warning("checkpoint %s cannot be asked", choice.key, exc_info=True)
        damaged = UnknownCheckpoint("This checkpoint's files are damaged.", "Pretrain the base again; the log has the detail.")
        return Side(choice, error=damaged)


def _explanations(home: Path, choice: Choice, text: str, k: int) -> Side:
    """The model that proposes words for explanations: probabilities among the whole words it may propose, not the whole vocabulary."""
    model = masked_lm.load(home)
    if model is None:
        raise UnknownCheckpoint("The model of job masked_lm cannot be used.", "Run that job again; the log has the detail.")
    pieces = parts(text)
    rows = [model.around(MASK.join(pieces[: i + 1]), MASK.join(pieces[i + 1 :])) for i in range(len(pieces) - 1)]
    filled = tuple(_filled(i, softmax(scores), model.words, k) for i, scores in enumerate(model.scores(rows)))
    return Side(choice, filled, f"Among the {len(model.words):,} whole words that it may propose.")


def _filled(place: int, shares: np.ndarray, names: Sequence[str], k: int) -> Filled:
    best = np.argsort(-shares, kind="stable")[:k]
    seen = shares[shares > 0]
    entropy = max(0.0, float(-(seen * np.log2(seen)).sum()))
    return Filled(place, tuple(names[i] for i in best), tuple(float(shares[i]) for i in best), entropy)
