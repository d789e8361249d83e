"""The contract of a recommender: it reads the past of a person, oldest first, and gives every item a score.

A model keeps nothing of a person: whoever has a past can be answered, known or not, and a past that changes is answered as it is now.
Owns what all models share: lists, likenesses, reasons, and who answers where a model has nothing to say. Never reads a file of a data
set and never touches the store.
"""

from __future__ import annotations

import abc
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from fmcore.explain.items import Contribution, contributions
from fmcore.nouns import FMError, Report

History = np.ndarray
"""int32 (n,) numbers of items, oldest first."""
REASONS_FROM = 12
"""Latest items of a past that may be named as a reason in a list; the details of one item look at more."""


class BadRecommender(FMError):
    """A model's folder cannot be read, or a model was asked before it was fitted."""


@dataclass(frozen=True)
class Items:
    """What can be recommended: ids as their owner writes them, titles and texts to show and to read ("" where there is none)."""

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Scored:
    """An item of a list by its number, with the score that ranked it (comparable within one list only)."""

    item: int
    score: float


class Scorer(abc.ABC):
    """What gives scores: a model, or several as one. All it says of lists, likenesses and reasons follows from its scores."""

    @abc.abstractmethod
    def scores(self, histories: Sequence[History]) -> np.ndarray:
        """float32 (len(histories), n_items), finite, higher is better; a row of zeros where the model has nothing to say."""

    def knows(self, histories: Sequence[History]) -> np.ndarray:
        """bool (len(histories),): whether the model has something to say of a past; where not, popularity answers and says so."""
        return np.any(self.scores(histories) != 0, axis=1)

    def folded(self, pairs: Sequence[tuple[History, int]]) -> Recommender:
        """A NEW model that has learnt new events too (a past as it was, the item met next); itself where that needs a new fit."""
        return self

    def recommend(self, history: History, *, k: int = 10, without: Collection[int] = ()) -> list[Scored]:
        """The best k items that are neither in the history nor in `without`, best first; fewer where there are no more."""
        return best(self.scores([history])[0], k=k, without=[*history.tolist(), *without])

    def similar_items(self, item: int, *, k: int = 10) -> list[Scored]:
        """The items that the model recommends to somebody who met this one alone."""
        return self.recommend(np.array([item], dtype=np.int32), k=k)

    def explain(self, history: History, item: int, *, budget: int = 64, seed: int = 0) -> list[Contribution]:
        """What each of the latest items of a history adds to an item's score (Shapley), each checked by removal (`drop`)."""

        def score(pasts: Sequence[Sequence[int]]) -> np.ndarray:
            return self.scores([np.asarray(past, dtype=np.int32) for past in pasts])[:, item]

        return contributions(score, history.tolist(), budget=budget, seed=seed)[0]

    def causes(self, history: History, items: Sequence[int], *, latest: int = REASONS_FROM) -> list[tuple[int, float] | None]:
        """For each of `items`: (the item of the history without which its score falls most, by how much), None where none falls.

        One pass for all of them: the history as it is, and without each of its latest items in turn.
        """
        pasts = one_less(history, latest=latest)
        return causes_in(self.scores(pasts), history, items)


class Recommender(Scorer):
    """One model. `fit` makes it ready; `save` and `load` keep it in a folder of JSON and safetensors files (never a pickle)."""

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]

    @abc.abstractmethod
    def fit(
        self, histories: Sequence[History], items: Items, *, held: np.ndarray | None = None, report: Report | None = None
    ) -> Self:
        """Learn from what people met in the past.

        histories: one a person, oldest first, each item once. held: int32 (len(histories),) the item that each person met next, -1
        where there is none; a model may choose its settings on it, but must not learn from it. Returns itself.
        """

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model into an empty folder."""

    @classmethod
    @abc.abstractmethod
    def load(cls, folder: Path, items: Items) -> Self:
        """The model that `save` wrote. Raises BadRecommender."""


def one_less(history: History, *, latest: int = REASONS_FROM) -> list[History]:
    """A history, and then without each of its latest items in turn, in their order: what `causes_in` needs the scores of."""
    return [history, *(np.delete(history, place) for place in range(max(0, len(history) - latest), len(history)))]


def causes_in(scores: np.ndarray, history: History, items: Sequence[int]) -> list[tuple[int, float] | None]:
    """What `Scorer.causes` gives, from the scores of `one_less(history)`, float (1 + latest, n_items)."""
    n = len(scores) - 1
    if not n or not len(items):
        return [None] * len(items)
    found = scores[:, list(items)].astype(np.float64)
    drops = found[:1] - found[1:]
    latest = history[len(history) - n :]
    most = drops.argmax(axis=0)
    return [
        (int(latest[place]), float(drops[place, column])) if drops[place, column] > 0 else None for column, place in enumerate(most)
    ]


def best(scores: np.ndarray, *, k: int, without: Collection[int] = ()) -> list[Scored]:
    """The k best of float (n_items,) scores, best first, ties by the item's number; `without` and non-finite scores left out."""
    masked = np.asarray(scores, dtype=np.float64).copy()
    masked[list(without)] = -np.inf
    masked[~np.isfinite(masked)] = -np.inf
    k = min(k, int((masked > -np.inf).sum()))
    if k <= 0:
        return []
    threshold = np.partition(masked, -k)[-k]  # every item at the threshold takes part: argpartition alone would break ties by chance
    candidates = np.flatnonzero(masked >= threshold)
    order = candidates[np.lexsort((candidates, -masked[candidates]))][:k]
    return [Scored(int(item), float(masked[item])) for item in order]


def standardised(scores: np.ndarray) -> np.ndarray:
    """float32 (n, n_items): each row with mean 0 and deviation 1; a row without any difference becomes zeros. What makes models addable."""
    scores = np.asarray(scores, dtype=np.float32)
    spread = scores.std(axis=1, keepdims=True)
    centred = scores - scores.mean(axis=1, keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)


def write_facts(folder: Path, facts: dict) -> None:
    """A model's settings as <folder>/recommender.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recommender.json").write_text(json.dumps(facts, allow_nan=False, sort_keys=True), encoding="utf-8")


def read_facts(folder: Path) -> dict:
    """What `write_facts` wrote. Raises BadRecommender."""
    try:
        facts = json.loads((folder / "recommender.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadRecommender(f"{folder.name} cannot be read ({type(error).__name__}).", "Train it again.") from error
    if not isinstance(facts, dict):
        raise BadRecommender(f"{folder.name} holds no settings.", "Train it again.")
    return facts
