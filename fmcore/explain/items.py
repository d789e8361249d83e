"""Items: what each thing in a person's past adds to the score of what is recommended, checked by taking it away.

Knows no recommender: it is given a function from histories to scores. The values are attributions.py's, on items in the place of words.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from fmcore.explain.attributions import Attribution, Progress, attribute, most_pieces

History = tuple[Hashable, ...]
BUDGET = 64


@dataclass(frozen=True)
class Contribution:
    """An item of a history: value is its Shapley value, drop what the score loses when it alone is taken away (the check)."""

    item: Hashable
    value: float
    drop: float

    @property
    def is_cause(self) -> bool:
        """Whether it may be named as a reason: it adds to the score, and the score falls without it."""
        return self.value > 0 and self.drop > 0


@dataclass(frozen=True)
class Past:
    """A history as attributions sees it: places that are there or not, the latest `n` of them one by one, what came before always there."""

    before: History
    items: History

    def __len__(self) -> int:
        return len(self.items)

    def keep(self, kept: Sequence[bool]) -> History:
        """The history with the items of `kept` only, in order."""
        return (*self.before, *(item for item, stays in zip(self.items, kept, strict=True) if stays))


def contributions(
    score: Callable[[Sequence[History]], np.ndarray],
    history: Sequence[Hashable],
    *,
    budget: int = BUDGET,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[list[Contribution], Attribution]:
    """(each of the latest items in order, the attribution behind them) for one recommended item.

    score: histories, oldest item first -> float (n,) scores of the recommended item. At most `budget` histories are asked for, and those
    without one item each. A history longer than half the budget is explained by its latest items, the rest standing as it is: the
    base value is then the score of that rest.
    """
    n = min(len(history), most_pieces("fast", budget) * 2 // 3)
    past = Past(tuple(history[: len(history) - n]), tuple(history[len(history) - n :]))

    def scores(histories: Sequence[History]) -> np.ndarray:
        return np.asarray(score(histories), dtype=np.float64).reshape(-1, 1)

    found = attribute(scores, past, target=np.ones(1), budget=budget, seed=seed, progress=progress, probabilities=False)
    if not n:
        return [], found
    without = scores([past.keep(row) for row in ~np.eye(n, dtype=bool)])[:, 0]
    return [Contribution(i, float(v), found.score - float(w)) for i, v, w in zip(past.items, found.values, without, strict=True)], found
