"""One list: which model answers a past or a sentence, what stands on the list, and because of what. Knows no store and no person.

Owns the fallback (popularity, with the reason in a sentence exactly when it stood in for another model) and how a sentence and a past are
weighed against each other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from fmcore.recommend import diversity, live_bandit
from fmcore.recommend.asking import Ask, BadAsk, Because, Recommendation
from fmcore.recommend.current import POPULARITY, TEXT, Current
from fmcore.recommend.recommender import History, Scored, Scorer, best, causes_in, one_less, standardised
from fmcore.text import clean

SENTENCE_WEIGHS = 3
"""A sentence weighs as much as this many items of the past: the more somebody did since, the less it says."""
LEAST_DROP = 1e-4
"""A cause is named from this share of the scores' spread on: below it the difference is that of rounding."""
MAX_SENTENCE = 2_000


@dataclass(frozen=True)
class Chosen:
    """What answers: its name, the scores' source, why it is not the model that was asked for ("" when it is), and what else is to say."""

    name: str
    scorer: Scorer
    fallback: str = ""
    note: str = ""


def sentence_share(n_history: int) -> float:
    """How much of a list a sentence decides beside so many items of the past, in [0, 1]."""
    return SENTENCE_WEIGHS / (SENTENCE_WEIGHS + n_history)


class Guided(Scorer):
    """A past and a sentence as one: w times what fits the sentence and 1 - w times what the model makes of the past, both standardised.

    w = sentence_share(items of the past); a past that the model cannot read leaves the sentence alone.
    """

    def __init__(self, model: Scorer, fits: np.ndarray):
        self.model, self.fits = model, standardised(fits[None])[0]

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        weight = np.array([[sentence_share(len(past))] for past in histories], dtype=np.float32)
        read = standardised(self.model.scores(histories))
        heard = read.any(axis=1, keepdims=True) & (weight < 1)
        return np.where(heard, weight * self.fits + (1 - weight) * read, self.fits).astype(np.float32)


def chosen(ask: Ask, current: Current, history: History, *, whom: str, n_unknown: int) -> Chosen:
    """What answers a question. whom: the person as a sentence names them. Raises BadAsk where there is no such model."""
    name = ask.model or current.shelf.serving
    if name not in current.models:
        raise BadAsk(f"This version has no model {_quoted(name)}.", f"Models: {', '.join(current.models)}.")
    model, sentence = current.models[name], clean(ask.sentence, limit=MAX_SENTENCE)[0].strip()
    note = ""
    if sentence:
        guided = _guided(name, model, current, sentence, history)
        if guided is not None:
            return guided
        note = "The sentence was left aside: " + (
            "nothing in it can be compared with the items." if TEXT in current.models else "this version does not read texts."
        )
    if name == POPULARITY or bool(model.knows([history])[0]):
        return Chosen(name, model, note=note)
    return Chosen(POPULARITY, current.models[POPULARITY], _why_popular(getattr(model, "title", name), history, whom, n_unknown), note)


def _guided(name: str, model: Scorer, current: Current, sentence: str, history: History) -> Chosen | None:
    """A sentence, with the past where the model can read it; None where nothing can be made of the sentence."""
    text = current.models.get(TEXT)
    if text is None or not any(letter.isalnum() for letter in sentence):
        return None
    fits = np.asarray(text.scores_of(text.embed([sentence])[0]), dtype=np.float32)
    if not np.any(fits) or not np.isfinite(fits).all():
        return None
    reads_past = bool(len(history)) and name != POPULARITY and bool(model.knows([history])[0])
    if not reads_past:
        return Chosen(TEXT, Guided(text, fits))
    return Chosen(name if name == TEXT else f"{name} + {TEXT}", Guided(model, fits))


def _why_popular(title: str, history: History, whom: str, n_unknown: int) -> str:
    if len(history):
        n = len(history)
        return f"{title} has nothing to say about {'this item' if n == 1 else f'these {n:,} items'}, so the most popular items are shown."
    if n_unknown:
        known = "The one item" if n_unknown == 1 else f"None of the {n_unknown:,} items"
        return f"{known} of the past is {'not ' if n_unknown == 1 else ''}in this catalogue, so the most popular items are shown."
    if whom:
        return f"Nothing is known of {whom} yet, so the most popular items are shown."
    return "Nobody was named, so the most popular items are shown."


def listed(
    ask: Ask, current: Current, chosen: Chosen, history: History, *, without: Collection[int], beliefs: live_bandit.Beliefs | None = None
) -> tuple[Recommendation, ...]:
    """The list, without what was met and what is not to be shown; as a learner with `beliefs` chooses it where one is asked for.

    One pass over the models: the history as it is, and where reasons are wanted also without each of its latest items in turn.
    """
    reasons = ask.reasons and chosen.name != POPULARITY
    rows = chosen.scorer.scores(one_less(history) if reasons else [history])
    scores, hidden = rows[0], {*history.tolist(), *without}
    if beliefs is not None:
        rng = np.random.default_rng(ask.seed)
        drawn = live_bandit.choose(scores, current.groups, beliefs, k=ask.k, rng=rng, kind=ask.learner, without=hidden)
        found, chances = [Scored(item, float(scores[item])) for item, _ in drawn], [chance for _, chance in drawn]
    else:
        found = _best(scores, current, ask, hidden)
        chances = [None] * len(found)
    because = _causes(rows, current, history, [one.item for one in found])
    items = current.items
    return tuple(
        Recommendation(items.ids[one.item], current.title(one.item), items.texts[one.item], one.score, cause, chance)
        for one, cause, chance in zip(found, because, chances, strict=True)
    )


def _best(scores: np.ndarray, current: Current, ask: Ask, hidden: Collection[int]) -> list[Scored]:
    if ask.diversity > 0:
        return diversity.rerank(scores, current.vectors, k=ask.k, diversity=ask.diversity, without=hidden)
    return best(scores, k=ask.k, without=hidden)


def _causes(rows: np.ndarray, current: Current, history: History, numbers: Sequence[int]) -> list[Because | None]:
    """For each item the one of the latest past without which its score falls most; None where the fall is nothing but rounding."""
    least = LEAST_DROP * float(rows[0].std())
    return [
        Because(current.items.ids[one[0]], current.title(one[0]), one[1]) if one is not None and one[1] > least else None
        for one in causes_in(rows, history, numbers)
    ]


def _quoted(text: object) -> str:
    return f"‘{clean(text, limit=60)[0]}’"
