"""What can be asked of the recommenders, and how the answers look: frozen dataclasses. Owns which questions make no sense."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fmcore.nouns import FMError

if TYPE_CHECKING:
    import pandas as pd

MOST_ITEMS = 500
"""Longest list."""
LEARNERS = ("thompson", "linucb")


class BadAsk(FMError):
    """A question that cannot be answered as it was asked."""


class UnknownItem(FMError):
    """There is no item with that id."""


@dataclass(frozen=True)
class Ask:
    """Who or what a list is for.

    who: anybody, known or not. history: ids of items, oldest first, in the place of the person's own past. sentence: what somebody looks
    for in their own words. model: None is the one that serves. version: None is the champion. diversity: 0 as scored, 1 as different from
    each other as can be. without: ids that are not to be on the list. learner: who chooses what is shown, with `seed` repeatable.
    """

    who: str | None = None
    history: tuple[str, ...] | None = None
    sentence: str | None = None
    k: int = 10
    model: str | None = None
    version: str | None = None
    diversity: float = 0.0
    reasons: bool = True
    without: tuple[str, ...] = ()
    learner: Literal["thompson", "linucb"] | None = None
    seed: int | None = None

    def check(self) -> None:
        """Raises BadAsk."""
        if isinstance(self.k, bool) or not isinstance(self.k, int) or not 1 <= self.k <= MOST_ITEMS:
            raise BadAsk(f"A list has 1 to {MOST_ITEMS} items.", "Choose another k.")
        if not math.isfinite(self.diversity) or not 0 <= self.diversity <= 1:
            raise BadAsk("Diversity is a number from 0 to 1.", "0 is the list as scored.")
        if self.learner is not None and self.learner not in LEARNERS:
            raise BadAsk("There is no such learner.", f"Learners: {', '.join(LEARNERS)}.")


@dataclass(frozen=True)
class Because:
    """The item of the past without which the score falls most, and by how much."""

    item: str
    title: str
    drop: float


@dataclass(frozen=True)
class Recommendation:
    """An item of a list. score: comparable within the list only. probability: of being on the list, where a learner chose it."""

    item: str
    title: str
    text: str
    score: float
    because: Because | None = None
    probability: float | None = None


@dataclass(frozen=True)
class Change:
    """Where an item stood before something was taken away and where it stands after, from 1; None: not on the list."""

    item: str
    title: str
    before: int | None
    after: int | None


@dataclass(frozen=True)
class Answer:
    """A list from exactly one version.

    fallback: "" when the model that was asked for answered, else why popularity did. n_history: items of the past that were used;
    unknown: those that the catalogue does not have. note: what else is to be said, such as why a list is short. changes: in a list
    without an item of the past, what that moved.
    """

    items: tuple[Recommendation, ...]
    model: str
    version: str
    dataset: str
    fallback: str
    n_history: int
    unknown: tuple[str, ...]
    ms: float
    note: str = ""
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Past:
    """Something in somebody's past. kind: "log" for what the data set has of them (without a moment); source: data, page, api or bandit."""

    item: str
    title: str
    kind: str
    happened_at: dt.datetime | None
    source: str


@dataclass(frozen=True)
class Cause:
    """What an item of the past adds to a score: value is its Shapley value, drop what the score loses without it alone.

    is_cause: it may be named as a reason, since it adds to the score and the score falls without it.
    """

    item: str
    title: str
    value: float
    drop: float
    is_cause: bool


@dataclass(frozen=True)
class Why:
    """Why an item has its score: the latest items of the past with what each adds, oldest first, and that in a sentence."""

    item: str
    title: str
    score: float
    contributions: tuple[Cause, ...]
    sentence: str
    model: str
    version: str


@dataclass(frozen=True, eq=False)
class Beside:
    """Several models' lists for one question, by model; overlap: the share of items that two lists have in common (Jaccard)."""

    lists: Mapping[str, Answer]
    overlap: pd.DataFrame
