"""A small shop whose right answers are known: what comes next is set by what came last, and a shelf's folder made of it."""

from pathlib import Path

import numpy as np
import pandas as pd

from fmcore.data.interactions import Interactions
from fmcore.recommend import shelf


class Quiet:
    """A report that keeps what was said; `stop_at`: the first progress at which a cancel arrives."""

    def __init__(self, stop_at=2.0):
        self.stop_at, self.said = stop_at, []

    def progress(self, fraction, message=""):
        from fmcore.nouns import Cancelled

        self.said.append((fraction, message))
        if fraction >= self.stop_at:
            raise Cancelled

    def metric(self, step, **values):
        pass

    def device(self, name):
        pass


def shop(*, n_users: int = 80, n_items: int = 30, length: int = 8, seed: int = 0, name: str = "toy", synthetic: bool = True) -> Interactions:
    """Everybody walks the ring of items one step at a time from a place of their own; now and then a step is a random one."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        item, seen = int(rng.integers(n_items)), set()
        for step in range(length):
            while item in seen:
                item = (item + 1) % n_items
            seen.add(item)
            rows.append((user, item, 1_700_000_000 + user * 100 + step, np.nan))
            item = (item + 1) % n_items if rng.random() < 0.9 else int(rng.integers(n_items))
    frame = pd.DataFrame(rows, columns=["user", "item", "at", "rating"]).astype({"user": "int32", "item": "int32", "rating": "float32"})
    ids = tuple(f"item-{i}" for i in range(n_items))
    titles = tuple(f"Thing number {i}" for i in range(n_items))
    return Interactions(name, tuple(f"user-{u}" for u in range(n_users)), ids, titles, titles, frame, synthetic, "made up")


def folder(at: Path, *, data: Interactions | None = None, names=("popularity", "transitions"), report=None, **options) -> dict:
    """A fitted shelf in a folder; gives its metrics."""
    return shelf.fit(data or shop(), names=names, minutes=0, out=at, report=report or Quiet(), **options)
