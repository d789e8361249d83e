"""Held-out ranks: what the gate compares two versions on, person by person, without the names of people.

Owns heldout.parquet: a row a measured person with where the item that came next was placed, by the served model, by popularity and,
where the item came after it was trained, by the version that served before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from fmcore.data.interactions import Interactions
from fmcore.nouns import Report
from fmcore.recommend.measure import answered
from fmcore.recommend.recommender import History, Recommender
from fmcore.recommend.turns import Ground, Turn, slices_of


class Served(Protocol):
    """What is asked of the version before: a shelf."""

    numbers: dict[str, int]
    models: dict[str, Recommender]
    serving: str

    def past(self, user: str) -> History: ...


def frame(data: Interactions, on: Ground, served: Turn, popularity: Turn, *, champion: Served | None, report: Report) -> pd.DataFrame:
    """Columns user_hash, row_hash, history, item (slices: cold, warm, hot), rank, popularity_rank, champion_rank (NaN: not asked).

    row_hash names the person, the item held back and how many came before: two versions measured the same row where it is the same.
    """
    who = [data.users[place] for place in on.test]
    met = [data.items[item] for item in on.targets]
    length = [len(past) for past in on.pasts]
    history, item = slices_of(on)
    old = np.full(len(who), np.nan) if champion is None else champions_ranks(champion, data, who, on.pasts, met, report=report)
    return pd.DataFrame({
        "user_hash": [_hash(user) for user in who],
        "row_hash": [_hash(user, one, str(n)) for user, one, n in zip(who, met, length, strict=True)],
        "history": history, "item": item, "rank": served.test.ranks, "popularity_rank": popularity.test.ranks, "champion_rank": old,
    })  # fmt: skip


def champions_ranks(
    champion: Served, data: Interactions, who: Sequence[str], pasts: Sequence[History], met: Sequence[str], *, report: Report
) -> np.ndarray:
    """float64 (n,): where the version before places each item; NaN where it learnt from that very meeting, so that asking proves nothing.

    It reads of a past the items that it knows. An item that it does not know can never be shown by it: the last place.
    """
    numbers = np.array([champion.numbers.get(one, -1) for one in data.items], dtype=np.int64)
    target = np.array([champion.numbers.get(one, -1) for one in met], dtype=np.int64)
    learnt = np.array([one in champion.past(user) for user, one in zip(who, target, strict=True)], dtype=bool)
    ranks = np.where(target < 0, float(len(data.items)), np.nan)
    asked = np.flatnonzero(~learnt & (target >= 0))
    rows = [mapped[mapped >= 0].astype(np.int32) for mapped in (numbers[pasts[place]] for place in asked)]
    model, standin = champion.models[champion.serving], champion.models["popularity"]
    ranks[asked] = answered(model, rows, target[asked], standin=standin, report=report).ranks
    return ranks


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
