"""What goes with what, by the items' texts alone: likeness, and a map learnt from what people met after what.

The map is a ridge between the texts of a past and the text of the item that came next ("An embarrassingly simple approach to zero-shot
learning", Romera-Paredes and Torr, ICML 2015), cut to its strongest directions. Nothing in it belongs to a single item. Knows no encoder
and no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fmcore.recommend.matrices import weighted
from fmcore.recommend.recommender import History

RECENCIES = (2.0, 20.0)
"""A past is read twice: mostly its last few items, and its last few dozen (weights exp(-age / recency), summing to 1)."""
RANK = 128
"""Directions of the learnt map: what one score costs."""
PAIRS = 60_000
"""Pasts and next items that the map is learnt from at most: plenty for its few hundred columns."""
RIDGE = 1e-3
LEARNT = 0.5
"""What the learnt part weighs beside likeness. On films taken out of training (validation, ml-latest-small, 610 people) HR@10 was 0.044
with none of it, 0.056 with 0.25, 0.041 with 0.5: apart by little more than chance."""
_JUDGED = 200
"""Pasts on which likeness and the learnt part are brought to one scale."""


@dataclass(frozen=True, eq=False)
class Map:
    """What is added for a past and an item: likeness x their cosine, plus before (recencies, size, rank) and next (size, rank) of their
    features, plus lean (size,), what people go for whatever they met before. All float32; embedded: the first columns of the features."""

    before: np.ndarray
    next: np.ndarray
    lean: np.ndarray
    likeness: np.ndarray
    embedded: int


@dataclass(frozen=True, eq=False)
class Placed:
    """Items under a map: past (recencies, n, r) is what they add to a person, keys (n, r) and lean (n,) what they answer with."""

    past: np.ndarray
    keys: np.ndarray
    lean: np.ndarray

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        """float32 (len(histories), n); a row of zeros for an empty past."""
        n_items = len(self.keys)
        person = np.zeros((len(histories), self.keys.shape[1]), dtype=np.float32)
        for recency, past in zip(RECENCIES, self.past, strict=True):
            person += _means(histories, n_items=n_items, recency=recency) @ past
        there = np.array([len(past) > 0 for past in histories], dtype=np.float32).reshape(-1, 1)
        return person @ self.keys.T + there * self.lean

    def put(self, others: Placed, rows: Sequence[int], *, n: int) -> Placed:
        """n items: these, with others in the given rows, after their own or in their place."""
        past = np.stack([put(own, other, rows, n=n) for own, other in zip(self.past, others.past, strict=True)])
        return Placed(past, put(self.keys, others.keys, rows, n=n), put(self.lean, others.lean, rows, n=n))


def put(own: np.ndarray, others: np.ndarray, rows: Sequence[int], *, n: int) -> np.ndarray:
    """n rows: the own first, and the others where `rows` says."""
    found = np.zeros((n, *own.shape[1:]), dtype=own.dtype)
    found[: len(own)] = own
    found[list(rows)] = others
    return found


def placed(features: np.ndarray, by: Map) -> Placed:
    """Items by their features, float32 (n, size)."""
    near = features[:, : by.embedded]
    length = np.linalg.norm(near, axis=1, keepdims=True)
    near = np.divide(near, length, out=np.zeros_like(near), where=length > 1e-6)
    learnt = np.einsum("nf,tfr->tnr", features, by.before, optimize=True)
    alike = np.zeros((len(RECENCIES), *near.shape), dtype=np.float32)
    alike[0] = near * by.likeness
    past = np.concatenate([alike, learnt], axis=2)
    return Placed(past.astype(np.float32), np.concatenate([near, features @ by.next], axis=1), features @ by.lean)


def learn(features: np.ndarray, histories: Sequence[History], *, embedded: int, seed: int = 0) -> Map:
    """The map from features float32 (n_items, size), the first `embedded` of which are the embedding, and what people met."""
    size, rank = features.shape[1], min(RANK, features.shape[1])
    plain = Map(
        np.zeros((len(RECENCIES), size, 1), np.float32),
        np.zeros((size, 1), np.float32),
        np.zeros(size, np.float32),
        np.float32(1),
        embedded,
    )
    pasts, came = _pairs(histories, seed=seed)
    if not len(came):
        return plain
    means = [_means(pasts, n_items=len(features), recency=recency) @ features for recency in RECENCIES]
    found = _ridge(np.concatenate([*means, np.ones((len(came), 1), np.float32)], axis=1), features, came)
    left, strength, right = np.linalg.svd(found[:-1].astype(np.float64), full_matrices=False)
    root = np.sqrt(strength[:rank])
    learnt = Map(
        (left[:, :rank] * root).reshape(len(RECENCIES), size, rank).astype(np.float32),
        (right[:rank].T * root).astype(np.float32), found[-1], np.float32(0), embedded,
    )  # fmt: skip
    judged = [pasts[row] for row in np.random.default_rng(seed).choice(len(pasts), min(_JUDGED, len(pasts)), replace=False)]
    spread = [float(placed(features, part).scores(judged).std(axis=1).mean()) for part in (plain, learnt)]
    if min(spread) <= 1e-9:
        return plain
    scale = np.float32(LEARNT / spread[1])
    return Map(learnt.before * scale, learnt.next, learnt.lean * scale, np.float32(1 / spread[0]), embedded)


def _ridge(persons: np.ndarray, features: np.ndarray, came: np.ndarray) -> np.ndarray:
    """float32 (persons' columns, size): M with persons @ M @ features.T near 1 for what came and near 0 for what did not."""
    known = np.unique(came)
    each = np.concatenate([features, np.ones((len(features), 1), np.float32)], axis=1)
    moments = persons.T @ persons / len(came)
    items = each[known].T @ each[known] / len(known)
    cross = persons.T @ each[came] / len(came)
    moments[np.diag_indices(len(moments))] += RIDGE
    items[np.diag_indices(len(items))] += RIDGE
    return np.linalg.solve(items, np.linalg.solve(moments, cross).T).T[:, :-1].astype(np.float32)


def _means(histories: Sequence[History], *, n_items: int, recency: float):
    """float32 CSR (len(histories), n_items): each row's weights sum to 1."""
    from scipy.sparse import diags

    weights = weighted(histories, n_items=n_items, recency=recency)
    total = np.asarray(weights.sum(axis=1), dtype=np.float32).reshape(-1)
    return diags(1 / np.maximum(total, 1e-6)) @ weights


def _pairs(histories: Sequence[History], *, seed: int) -> tuple[list[History], np.ndarray]:
    """(pasts, what came next), at most PAIRS of them, drawn by the seed."""
    ends = np.cumsum([0, *(max(len(past) - 1, 0) for past in histories)])
    n = int(ends[-1])
    chosen = np.sort(np.random.default_rng(seed).choice(n, PAIRS, replace=False)) if n > PAIRS else np.arange(n)
    person = np.searchsorted(ends, chosen, side="right") - 1
    steps = (chosen - ends[person] + 1).tolist()
    each = list(zip(person.tolist(), steps, strict=True))
    came = np.array([histories[who][step] for who, step in each], dtype=np.int64)
    return [histories[who][:step] for who, step in each], came
