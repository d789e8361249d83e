"""Interactions: who met which item when, and what the items are.

Owns how such rows are cleaned, ordered and held back: by time, with a stable sort (rows of one moment keep the file's order), never at
random. Never trains, never opens a connection.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True, eq=False)
class Interactions:
    """A log of interactions, cleaned.

    users, items: ids as text; a row's `user` and `item` are places in them. titles and texts are the items', "" where there is none.
    rows: user int32, item int32, at int64 (seconds since 1970, UTC), rating float32 (NaN: none), sorted by user and then time, ties in
    the file's order; each pair of user and item stands once, at its first meeting. notes say in words what was left out and why.
    """

    name: str
    users: tuple[str, ...]
    items: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    rows: pd.DataFrame
    synthetic: bool
    licence: str
    notes: tuple[str, ...] = ()

    @property
    def split_hash(self) -> str:
        """Names the rows and so the leave-one-out split that follows from them."""
        digest = hashlib.sha256()
        for column in ("user", "item", "at"):
            digest.update(np.ascontiguousarray(self.rows[column].to_numpy()).tobytes())
        digest.update("\0".join((*self.users, "", *self.items)).encode())
        return digest.hexdigest()[:16]

    def histories(self) -> list[np.ndarray]:
        """int32 item numbers a user, oldest first, in the order of `users`."""
        items = self.rows["item"].to_numpy(dtype=np.int32)
        ends = np.searchsorted(self.rows["user"].to_numpy(), np.arange(len(self.users) + 1))
        return [items[start:end] for start, end in itertools.pairwise(ends)]


@dataclass(frozen=True, eq=False)
class Split:
    """Leave one out by time: a user's last item is the test's, the one before it validation's; -1 where a user has too few.

    train holds what came before; `with_validation` is the past at the moment of the test.
    """

    train: list[np.ndarray]
    validation: np.ndarray
    test: np.ndarray

    def with_validation(self) -> list[np.ndarray]:
        """The histories a test item is to be foretold from."""
        return [np.append(past, item) if item >= 0 else past for past, item in zip(self.train, self.validation, strict=True)]


def leave_one_out(histories: Sequence[np.ndarray], *, least: int = 3) -> Split:
    """Hold back the last two items of every history of at least `least`; a shorter one is only learnt from."""
    long = [len(past) >= least for past in histories]
    train = [past[:-2] if enough else past for past, enough in zip(histories, long, strict=True)]
    held = np.array([past[-2:] if enough else (-1, -1) for past, enough in zip(histories, long, strict=True)], dtype=np.int32)
    held = held.reshape(-1, 2)
    return Split(train, held[:, 0], held[:, 1])
