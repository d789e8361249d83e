"""A log of people who each love one group of items, small enough to simulate in a second, and a model that knows it."""

import numpy as np
import pandas as pd

from fmcore.data.interactions import Interactions
from fmcore.recommend.counting import Ease
from fmcore.recommend.groups import Groups
from fmcore.recommend.recommender import Items

N_GROUPS, EACH = 4, 25
GROUPS = Groups(np.repeat(np.arange(N_GROUPS, dtype=np.int32), EACH), ("news", "games", "food", "music"))


def log(*, n_users: int = 240, length: int = 12, seed: int = 0, rated: bool = True, loved: int = 1) -> Interactions:
    """Two in three of what a person meets is of their own group; rated 5 there and mostly 3 elsewhere. Of every `loved` + 3 people, `loved`
    belong to the first group."""
    rng, rows = np.random.default_rng(seed), []
    n_items = N_GROUPS * EACH
    for user in range(n_users):
        own = max(user % (N_GROUPS + loved - 1) - loved + 1, 0)
        weights = np.where(GROUPS.of == own, 6.0, 1.0) / (1 + np.arange(n_items) % EACH / 5)
        for step, item in enumerate(rng.choice(n_items, length, replace=False, p=weights / weights.sum())):
            rating = (5.0 if GROUPS.of[item] == own or rng.random() < 0.2 else 3.0) if rated else np.nan
            rows.append((user, item, 1_700_000_000 + user * 10_000 + step * 60, rating))
    frame = pd.DataFrame(rows, columns=["user", "item", "at", "rating"]).astype({"user": "int32", "item": "int32", "rating": "float32"})
    names = tuple(f"item-{i}" for i in range(n_items))
    return Interactions("toy", tuple(f"user-{u}" for u in range(n_users)), names, names, names, frame, True, "made up")


def model(data: Interactions) -> Ease:
    return Ease(regularisation=50.0).fit(data.histories(), Items(data.items, data.titles, data.texts))


class Quiet:
    """A report that keeps what was said; `stop_at`: the metric call at which a cancel arrives."""

    def __init__(self, stop_at: int | None = None):
        self.stop_at, self.progressed, self.metrics = stop_at, [], []

    def progress(self, fraction, message=""):
        self.progressed.append(fraction)

    def metric(self, step, **values):
        from fmcore.nouns import Cancelled

        self.metrics.append((step, values))
        if self.stop_at is not None and len(self.metrics) >= self.stop_at:
            raise Cancelled

    def device(self, name):
        pass
