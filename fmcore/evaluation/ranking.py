"""How good a ranked list is: where the item that a person met next stands, and what the lists show and leave out.

Owns ranks over all items (never over a sample, unless a function says so in its name), their figures with intervals, and the slices.
Knows no recommender: it is given scores, pasts and the items that came next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fmcore.evaluation import metrics
from fmcore.nouns import Estimate

K = 10
MISSED = 2**31 - 1
"""The place of an item that no list can show: beyond every k."""
COLD_HISTORY, HOT_HISTORY = 10, 50
"""A past is cold below the first length and hot from the second."""
HOT_SHARE = 0.2
"""Hot items: this share of the items, those with the most interactions."""
_RESAMPLED = 12_000_000
"""Row numbers that a bootstrap draws at most, so that a large test set fits in memory; its interval is narrow anyway."""


def ranks(scores: np.ndarray, histories: Sequence[np.ndarray], targets: np.ndarray) -> np.ndarray:
    """int64 (n,): the place of each target among all items that its history does not hold, 1 for the best.

    scores: float (n, n_items). A tie counts against the model: the target takes the worst place among its equals, so a model that
    scores everything alike is last everywhere. NaN counts as better than the target, for the same reason. A target of -1 gives 0 (no
    row); a target that its own history holds can never be shown: MISSED.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    found = np.zeros(len(targets), dtype=np.int64)
    for row, (past, target) in enumerate(zip(histories, targets.tolist(), strict=True)):
        if target < 0:
            continue
        not_below = ~(scores[row] < scores[row, target])
        not_below[past] = False
        not_below[target] = True
        found[row] = MISSED if np.any(np.asarray(past) == target) else not_below.sum()
    return found


def sampled_ranks(
    scores: np.ndarray,
    histories: Sequence[np.ndarray],
    targets: np.ndarray,
    *,
    n_negatives: int = 100,
    by: Literal["uniform", "popularity"] = "uniform",
    counts: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """int64 (n,): the place of each target among itself and `n_negatives` sampled items; only to repeat a paper's protocol.

    Figures from such ranks are inconsistent with those of full ranking: "A is better than B" need not hold there even in expectation,
    and small samples measure little but the area under the ROC curve (Krichene and Rendle, "On Sampled Metrics for Item
    Recommendation", KDD 2020). Never compare them with figures of `ranks`, and never choose a model by them.

    by="popularity" draws in proportion to counts, int (n_items,). Items of the history and the target are never drawn; fewer are drawn
    where there are no more. Ties and -1 as in `ranks`.
    """
    if by == "popularity" and counts is None:
        raise ValueError("sampling by popularity needs the items' counts")
    rng = np.random.default_rng(seed)
    weights = np.ones(scores.shape[1]) if by == "uniform" else np.asarray(counts, dtype=np.float64)
    found = np.zeros(len(targets), dtype=np.int64)
    for row, (past, target) in enumerate(zip(histories, np.asarray(targets).tolist(), strict=True)):
        if target < 0:
            continue
        free = weights.copy()
        free[past], free[target] = 0, 0
        n = min(n_negatives, int((free > 0).sum()))
        drawn = rng.choice(len(free), size=n, replace=False, p=free / free.sum()) if n else np.array([], dtype=int)
        found[row] = 1 + int((~(scores[row, drawn] < scores[row, target])).sum())
    return found


def lists(scores: np.ndarray, histories: Sequence[np.ndarray], *, k: int = K) -> np.ndarray:
    """int32 (n, k): the best items of each row, best first, ties by number; the history left out, -1 where there are no more."""
    shown = np.full((len(scores), k), -1, dtype=np.int32)
    for row, past in enumerate(histories):
        masked = np.asarray(scores[row], dtype=np.float64).copy()
        masked[past] = -np.inf
        masked[~np.isfinite(masked)] = -np.inf
        n = min(k, int((masked > -np.inf).sum()))
        if n:
            candidates = np.flatnonzero(masked >= np.sort(masked)[-n])
            shown[row, :n] = candidates[np.lexsort((candidates, -masked[candidates]))][:n]
    return shown


def hits(found: np.ndarray, *, k: int = K) -> np.ndarray:
    """float64: 1 where a rank is within the first k, else 0 (rows without a rank must be left out before)."""
    return (found <= k).astype(np.float64)


def gains(found: np.ndarray, *, k: int = K) -> np.ndarray:
    """float64: NDCG@k of rows with one right item: 1 / log2(1 + rank) within the first k, else 0 (Järvelin and Kekäläinen 2002)."""
    return np.where(found <= k, 1.0 / np.log2(1.0 + np.maximum(found, 1)), 0.0)


def paired(found_a: np.ndarray, found_b: np.ndarray, *, k: int = K, of: Literal["ndcg", "hr"] = "ndcg", seed: int = 0) -> Estimate | None:
    """How much better b ranks than a on the same rows (paired bootstrap of the difference b - a); None without rows."""
    a, b = np.asarray(found_a), np.asarray(found_b)
    if a.shape != b.shape or np.any((a > 0) != (b > 0)):
        raise ValueError("a paired comparison needs the same rows")
    value = gains if of == "ndcg" else hits
    there = a > 0
    return _mean(value(b[there], k=k) - value(a[there], k=k), seed=seed)


def slices(histories: Sequence[np.ndarray], targets: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """{name: bool (n,)}: rows by the length of the past and by how often the item that came next was met in training.

    counts: int (n_items,) interactions an item in the training histories. A cold item has none; hot are the fifth with the most.
    """
    length = np.array([len(past) for past in histories], dtype=int)
    targets = np.asarray(targets)
    there = targets >= 0
    met = np.where(there, np.asarray(counts)[targets], -1)
    hot = np.zeros(len(counts), dtype=bool)
    hot[np.argsort(-np.asarray(counts), kind="stable")[: round(HOT_SHARE * len(counts))]] = True
    hot_target = there & (met > 0) & hot[targets]
    return {
        "history cold": there & (length < COLD_HISTORY),
        "history warm": there & (length >= COLD_HISTORY) & (length < HOT_HISTORY),
        "history hot": there & (length >= HOT_HISTORY),
        "item cold": there & (met == 0),
        "item warm": there & (met > 0) & ~hot_target,
        "item hot": hot_target,
    }


@dataclass(frozen=True, eq=False)
class Cold:
    """Items as if nobody had met them: cold bool (n_items,) which; train all histories without them; pasts and targets the rows."""

    cold: np.ndarray
    train: list[np.ndarray]
    pasts: list[np.ndarray]
    targets: np.ndarray


def cold_items(
    histories: Sequence[np.ndarray], targets: np.ndarray, *, n_items: int, share: float = 0.1, part: int = 0, seed: int = 0
) -> Cold:
    """Take a share of the items out of training altogether; the rows are the people whose target (-1: none) is one of them.

    histories: what each met before the target. part: 0 to round(1 / share) - 1, the parts of one seed have no item in common, so that
    over all of them each person is a row once. Rank the targets among ALL items (`ranks`); a random order has HR@k = k / n_items.
    """
    parts = np.array_split(np.random.default_rng(seed).permutation(n_items), max(1, round(1 / share)))
    cold = np.zeros(n_items, dtype=bool)
    cold[parts[part]] = True
    train = [past[~cold[past]] for past in histories]
    rows = [row for row, target in enumerate(np.asarray(targets).tolist()) if target >= 0 and cold[target]]
    return Cold(cold, train, [train[row] for row in rows], np.asarray(targets)[rows])


def figures(
    found: np.ndarray,
    shown: np.ndarray,
    *,
    histories: Sequence[np.ndarray],
    targets: np.ndarray,
    counts: np.ndarray,
    n_people: int,
    vectors: np.ndarray | None = None,
    k: int = K,
    seed: int = 0,
) -> dict:
    """{hr, ndcg, mrr, coverage, novelty, diversity, popularity_bias: Estimate | None, slices: {name: {hr, ndcg, mrr}}}.

    found: `ranks`; shown: `lists` of the same rows; counts: int (n_items,) interactions an item in training, of `n_people` people;
    vectors: float (n_items, d) that say which items are alike (None: no diversity).
    hr and ndcg are at k; mrr is the mean of 1 / rank, without a limit. coverage: the share of all items that some list shows (its
    interval leans low, since a resample holds fewer different people). novelty: mean of -log2 of the share of people who met a shown
    item, in bits (Vargas and Castells 2011; an item nobody met counts as met by one). diversity: mean over lists of 1 - cosine of two
    shown items. popularity_bias: how many more interactions the shown items have than those of the people's own pasts, as a share (0: as
    popular as what people choose themselves, 1: twice; the group's popularity lift of Abdollahpouri et al. 2019).
    """
    found, counts, shown = np.asarray(found), np.asarray(counts, dtype=np.float64), np.asarray(shown)[:, :k]
    by_slice = {name: _accuracy(found[rows], k=k, seed=seed) for name, rows in slices(histories, targets, counts).items()}
    return {
        **_accuracy(found, k=k, seed=seed),
        "coverage": _coverage(shown, n_items=len(counts), seed=seed),
        "novelty": _novelty(shown, counts, n_people=n_people, seed=seed),
        "diversity": None if vectors is None else _diversity(shown, vectors, seed=seed),
        "popularity_bias": _popularity_bias(shown, histories, counts, seed=seed),
        "slices": by_slice,
    }


def in_json(found: Mapping) -> dict:
    """`figures` as JSON: each Estimate as {"value", "low", "high", "n"}, None where there were no rows."""
    return {key: in_json(value) if isinstance(value, Mapping) else metrics.figure(value) for key, value in found.items()}


def _accuracy(found: np.ndarray, *, k: int, seed: int) -> dict[str, Estimate | None]:
    there = found[found > 0]
    return {"hr": _mean(hits(there, k=k), seed=seed), "ndcg": _mean(gains(there, k=k), seed=seed), "mrr": _mean(1.0 / there, seed=seed)}


def _coverage(shown: np.ndarray, *, n_items: int, seed: int) -> Estimate | None:
    def share(rows: np.ndarray) -> float:
        seen = np.zeros(n_items + 1, dtype=bool)
        seen[shown[rows]] = True  # -1, no item, falls on the place after the last
        return float(seen[:-1].mean())

    return metrics.bootstrap(share, len(shown) if n_items else 0, resamples=_resamples(len(shown) * shown.shape[1]), seed=seed)


def _novelty(shown: np.ndarray, counts: np.ndarray, *, n_people: int, seed: int) -> Estimate | None:
    surprise = -np.log2(np.minimum(np.maximum(counts, 1) / max(n_people, 1), 1.0))
    there = shown >= 0
    full = there.any(axis=1)
    summed = np.where(there, surprise[shown], 0.0).sum(axis=1)
    return _mean(summed[full] / there[full].sum(axis=1), seed=seed)


def _diversity(shown: np.ndarray, vectors: np.ndarray, *, seed: int) -> Estimate | None:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, lengths, out=np.zeros_like(vectors, dtype=np.float32), where=lengths > 0)
    values = []
    for row in shown:
        of = unit[row[row >= 0]]
        if len(of) > 1:
            total = float(np.square(of.sum(axis=0)).sum() - np.square(of).sum())  # sum of the cosines of all ordered pairs
            values.append(1.0 - total / (len(of) * (len(of) - 1)))
    return _mean(np.array(values), seed=seed)


def _popularity_bias(shown: np.ndarray, histories: Sequence[np.ndarray], counts: np.ndarray, *, seed: int) -> Estimate | None:
    there = shown >= 0
    rows = np.flatnonzero(there.any(axis=1) & np.array([len(past) > 0 for past in histories], dtype=bool))
    own = np.array([counts[histories[row]].mean() for row in rows])
    of_list = np.where(there, counts[shown], 0.0).sum(axis=1)[rows] / there[rows].sum(axis=1)
    if not own.sum():
        return None

    def lift(some: np.ndarray) -> float:
        return float(of_list[some].mean() / max(own[some].mean(), 1e-12) - 1.0)

    return metrics.bootstrap(lift, len(rows), resamples=_resamples(len(rows)), seed=seed)


def _mean(values: np.ndarray, *, seed: int) -> Estimate | None:
    return metrics.mean(values, resamples=_resamples(len(values)), seed=seed)


def _resamples(n: int) -> int:
    return int(np.clip(_RESAMPLED // max(n, 1), 200, 1000))
