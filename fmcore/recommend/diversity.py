"""Lists that repeat themselves less: maximal marginal relevance (Carbonell and Goldstein 1998) over the best candidates, and its price.

Owns the slider between accuracy and diversity, and the measured frontier that a job stores and a page draws. Knows no model and no data
set: it is given scores, and vectors that say what is alike.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fmcore.evaluation import metrics, ranking
from fmcore.recommend.recommender import History, Scored, Scorer, best

if TYPE_CHECKING:
    from fmcore.data.interactions import Split

CANDIDATES = 100
"""Only the best of a list may be moved up: the most different item of a whole catalogue is one that nobody wants."""
_ROWS = 128
"""Histories scored at a time: a frontier's memory stays small on a large catalogue."""


def rerank(scores: np.ndarray, vectors: np.ndarray | None, *, k: int, diversity: float, without: Collection[int] = ()) -> list[Scored]:
    """k items of one row of scores, each chosen for its score and for being unlike what was chosen before it.

    scores: float (n_items,). vectors: float32 (n_items, d) of length 1 each (or 0: like nothing); None gives the plain list.
    diversity: 0 is the plain list, 1 looks at nothing but likeness after the first item. An item keeps the score that the model gave it,
    so that the scores of such a list need not fall. Among items of the same worth the better scored comes first.
    """
    diversity = float(np.clip(diversity, 0.0, 1.0))
    if vectors is None or diversity == 0:
        return best(scores, k=k, without=without)
    plain = best(scores, k=max(CANDIDATES, k), without=without)
    if not plain:
        return []
    order = _mmr(np.array([each.score for each in plain]), np.asarray(vectors)[[each.item for each in plain]], k=k, diversity=diversity)
    return [plain[place] for place in order]


def _mmr(scores: np.ndarray, vectors: np.ndarray, *, k: int, diversity: float) -> list[int]:
    """Places of the chosen candidates in order. scores: falling."""
    spread = scores[0] - scores[-1]
    worth = (1 - diversity) * (scores - scores[-1]) / (spread if spread > 0 else 1.0)
    alike = vectors @ vectors.T
    chosen, nearest = [0], alike[0].copy()
    free = np.ones(len(scores), dtype=bool)
    free[0] = False
    while len(chosen) < min(k, len(scores)):
        place = int(np.where(free, worth - diversity * nearest, -np.inf).argmax())
        chosen.append(place)
        free[place] = False
        np.maximum(nearest, alike[place], out=nearest)
    return chosen


def likeness(histories: Sequence[History], *, n_items: int, size: int = 64, seed: int = 0) -> np.ndarray:
    """float32 (n_items, size) of length 1 (0 for an item that nobody met): items of the same people lie near each other.

    For catalogues without texts: the singular vectors of who met what, each person's row of length 1 (a long past says less of each pair).
    """
    from scipy.sparse import csr_matrix
    from sklearn.utils.extmath import randomized_svd

    lengths = np.array([len(past) for past in histories], dtype=np.int64)
    values = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths).astype(np.float32)
    items = np.concatenate([np.zeros(0, np.int32), *histories])
    met = csr_matrix((values, items, np.concatenate([[0], np.cumsum(lengths)])), shape=(len(histories), n_items))
    size = min(size, min(met.shape))
    if not met.nnz or not size:
        return np.zeros((n_items, max(size, 1)), dtype=np.float32)
    _, strength, right = randomized_svd(met, size, random_state=seed)
    vectors = (right * strength[:, None]).T.astype(np.float32)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 1e-6)


def frontier(
    model: Scorer, vectors: np.ndarray | None, split: Split, *, steps: int = 6, k: int = 10, sample: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """What each step of the slider costs and brings, on the held-out last items: one row a step.

    model: fitted without the test items. Columns: diversity (0 to 1), ndcg with its 95 % bootstrap interval ndcg_low, ndcg_high,
    ild (mean over lists of 1 - cosine of each pair of a list's items), coverage (share of the catalogue that stands in some list), n
    (people, at most `sample`, drawn by the seed). No rows where nothing was held out.
    """
    rows = np.flatnonzero(split.test >= 0)
    if len(rows) > sample:
        rows = np.sort(np.random.default_rng(seed).choice(rows, sample, replace=False))
    pasts, sliders = split.with_validation(), np.linspace(0.0, 1.0, max(steps, 2))
    ranks: list[list[int]] = [[] for _ in sliders]
    unlike: list[list[float]] = [[] for _ in sliders]
    shown: list[set[int]] = [set() for _ in sliders]
    n_items = 0
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        for row, scores in zip(some, model.scores([pasts[row] for row in some]), strict=True):
            n_items = len(scores)
            for step, diversity in enumerate(sliders):
                items = [each.item for each in rerank(scores, vectors, k=k, diversity=diversity, without=pasts[row].tolist())]
                ranks[step].append(items.index(split.test[row]) + 1 if split.test[row] in items else k + 1)
                unlike[step].append(unlikeness(items, vectors))
                shown[step].update(items)
    found = []
    for step, diversity in enumerate(sliders):
        gained = metrics.mean(ranking.gains(np.array(ranks[step], dtype=int), k=k), seed=seed)
        if gained is not None:
            found.append((diversity, gained.value, gained.low, gained.high, np.mean(unlike[step]), len(shown[step]) / n_items, gained.n))
    return pd.DataFrame(found, columns=["diversity", "ndcg", "ndcg_low", "ndcg_high", "ild", "coverage", "n"])


def unlikeness(items: Sequence[int], vectors: np.ndarray | None) -> float:
    """Mean of 1 - cosine over the pairs of a list; 0 for a list of fewer than two, or without vectors."""
    if vectors is None or len(items) < 2:
        return 0.0
    own = np.asarray(vectors)[list(items)]
    alike = own @ own.T
    return float(1 - (alike.sum() - np.trace(alike)) / (len(items) * (len(items) - 1)))
