"""Folding in: counts of a version that also hold what people did after it was trained. Owns the table recommend_folds.

A row says up to which event a version's counts go; the counts themselves are worked out from the stored events each time, so that a
process killed at any moment has lost nothing and counted nothing twice. Never changes a model's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fmcore import clock
from fmcore.recommend import events
from fmcore.store.store import Store

MOST_EVENTS = 200_000
"""Events that are folded into one version; what comes after them waits for the next training."""
Pair = tuple[list[str], str]
"""Items that a person had met, oldest first, and the one they met next."""


def fold(store: Store, version: str, dataset: str, *, trained_up_to: int) -> tuple[int, int]:
    """Let a version's counts hold all events there are now; (up to which, how many more than before). A row only where there are more."""
    with store.write() as tx:
        ((known,),) = tx.execute("SELECT coalesce(max(up_to), 0) FROM recommend_folds WHERE version = ?", [version])
        before = max(known, trained_up_to)
        newer = "SELECT n FROM interactions WHERE dataset = ? AND kind <> 'shown' AND n > ? ORDER BY n LIMIT ?"
        ((last, total),) = tx.execute(f"SELECT max(n), count(*) FROM ({newer})", [dataset, trained_up_to, MOST_EVENTS])
        if last is None or last <= before:
            return before, 0
        ((n_new,),) = tx.execute(f"SELECT count(*) FROM ({newer}) WHERE n > ?", [dataset, trained_up_to, MOST_EVENTS, before])
        tx.execute("INSERT INTO recommend_folds VALUES (?, ?, ?, ?)", [version, last, total, clock.to_store(clock.now())])
    return last, n_new


def folded_up_to(store: Store, version: str) -> int:
    """Up to which event a version's counts go beyond its training, 0 where nothing was folded in."""
    return store.rows("SELECT coalesce(max(up_to), 0) AS n FROM recommend_folds WHERE version = ?", version)[0]["n"]


def pairs(store: Store, dataset: str, *, after: int, up_to: int, base: Callable[[str], Sequence[str]]) -> list[Pair]:
    """For each item that joined somebody's past by an event of `after` < n <= `up_to`: what they had met before it, and the item.

    base(who): the past in the version. What was taken out of a past by then is in no pair; the order is that of the moments.
    """
    found = []
    for who, words in events.everybody(store, dataset, up_to=up_to, active_after=after).items():
        whole = events.together(base(who), words)
        items = [met.item for met in whole]
        found += [(items[:place], met.item) for place, met in enumerate(whole) if met.n > after]
    return found
