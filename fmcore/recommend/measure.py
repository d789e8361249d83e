"""Measuring a recommender: where it places the item that a person met next, as it would be served.

Owns how rows are scored in bounded memory, which of a log's people are measured, which model is chosen on held-back items, and how much
time a comparison may take. A past of which a model knows nothing is answered by popularity, as in the service. Never touches the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fmcore.evaluation import metrics, ranking
from fmcore.nouns import Report
from fmcore.recommend.recommender import History, Recommender

K = 10
MEASURED, ENOUGH = 20_000, 2_000
"""People measured at most (beyond that the intervals are narrower than anything that is decided on them), and in a huge catalogue."""
RANKED = 100_000_000
"""Scores ranked for one model at most, at some ten million a second."""
SCORES_AT_ONCE = 4_000_000
"""Scores held in memory at a time: 16 MB as float32."""


@dataclass(frozen=True)
class Answered:
    """What a model said of rows: int64 (n,) ranks of the targets (0: no row), int32 (n, k) lists, how many pasts popularity answered."""

    ranks: np.ndarray
    shown: np.ndarray
    n_fallback: int


class Part:
    """A part of a report's progress, so that whoever works in it need not know of the rest."""

    def __init__(self, report: Report, low: float, high: float, saying: str = ""):
        self.report, self.low, self.high, self.saying = report, low, high, saying

    def progress(self, fraction: float, message: str = "") -> None:
        words = ": ".join(filter(None, (self.saying, message)))
        self.report.progress(self.low + (self.high - self.low) * min(1.0, max(0.0, fraction)), words)

    def metric(self, step: int, **values: float) -> None:
        self.report.metric(step, **values)

    def device(self, name: str) -> None:
        self.report.device(name)


class Budget:
    """Seconds on the wall that something may take, counted from now; minutes 0: as many as it needs."""

    def __init__(self, minutes: float):
        self.began = time.monotonic()
        self.seconds = minutes * 60.0 if minutes > 0 else float("inf")

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self.began

    @property
    def left_s(self) -> float:
        return self.seconds - self.spent_s


def answered(
    model: Recommender, histories: Sequence[History], targets: np.ndarray, *, standin: Recommender, report: Report, k: int = K
) -> Answered:
    """The model's answers to pasts with the item each person met next (-1: none), popularity standing in where it knows nothing."""
    targets = np.asarray(targets)
    ranks, shown = np.zeros(len(targets), dtype=np.int64), np.full((len(targets), k), -1, dtype=np.int32)
    n_fallback, step, start = 0, 1, 0
    while start < len(targets):
        end = min(len(targets), start + step)
        rows = [np.asarray(past) for past in histories[start:end]]
        scores = model.scores(rows)
        silent = ~np.any(scores != 0, axis=1)
        if silent.any() and model is not standin:
            scores = scores.copy()
            scores[silent] = standin.scores([rows[i] for i in np.flatnonzero(silent)])
            n_fallback += int(silent.sum())
        ranks[start:end] = ranking.ranks(scores, rows, targets[start:end])
        shown[start:end] = ranking.lists(scores, rows, k=k)
        step, start = max(1, min(256, SCORES_AT_ONCE // max(1, scores.shape[1]))), end
        report.progress(end / len(targets), f"{end:,} of {len(targets):,} people measured")
    return Answered(ranks, shown, n_fallback)


def crossed(
    learn: Callable[[np.ndarray], Recommender], histories: Sequence[History], held: np.ndarray, places: np.ndarray, *,
    standin: Recommender, report: Report,
) -> np.ndarray:  # fmt: skip
    """int64 (len(places),) ranks of held items by a model that learns from held items: each half of the people by what the other taught.

    learn: held items with -1 where they must not be looked at -> a model.
    """
    found = np.zeros(len(places), dtype=np.int64)
    for half in (0, 1):
        mine = np.flatnonzero(np.arange(len(places)) % 2 == half)
        others = np.array(held)
        others[places[mine]] = -1
        rows, targets = [histories[place] for place in places[mine]], np.asarray(held)[places[mine]]
        part = Part(report, half / 2, half / 2 + 0.5)
        found[mine] = answered(learn(others), rows, targets, standin=standin, report=part).ranks
    return found


def affordable(n_items: int) -> int:
    """How many people are measured at most, by the size of the catalogue."""
    return int(np.clip(RANKED // max(1, n_items), ENOUGH, MEASURED))


def people(targets: np.ndarray, *, seed: int, most: int = MEASURED) -> np.ndarray:
    """Sorted places of the people to measure: those with a target, or a random `most` of them."""
    there = np.flatnonzero(np.asarray(targets) >= 0)
    return np.sort(np.random.default_rng(seed).choice(there, most, replace=False)) if len(there) > most else there


def chosen(found: Mapping[str, np.ndarray]) -> str:
    """The model to serve, by ranks on the same validation rows; names stand from simple to elaborate.

    The best by NDCG@10, unless a simpler one is within one standard error of the paired difference: then the simplest of those.
    """
    value = {name: ranking.gains(ranks[ranks > 0], k=K) for name, ranks in found.items()}
    best = max(value, key=lambda name: value[name].mean() if len(value[name]) else 0.0)
    for name, gains in value.items():
        lost = value[best] - gains
        if not len(lost) or lost.mean() <= lost.std() / np.sqrt(len(lost)):
            return name
    return best


def ndcg(ranks: np.ndarray) -> float:
    """NDCG@10 of ranks; 0 where there are none."""
    gains = ranking.gains(ranks[ranks > 0], k=K)
    return float(gains.mean()) if len(gains) else 0.0


def estimates(ranks: np.ndarray, *, k: int, seed: int = 0) -> dict[str, dict | None]:
    """{"hr@k", "ndcg@k", "mrr"} of ranks as JSON figures with their intervals."""
    there = ranks[ranks > 0]
    rows = {f"hr@{k}": ranking.hits(there, k=k), f"ndcg@{k}": ranking.gains(there, k=k), "mrr": 1.0 / np.maximum(there, 1)}
    return {name: metrics.figure(metrics.mean(values, seed=seed)) for name, values in rows.items()}


def coverage(shown: np.ndarray, *, n_items: int, seed: int = 0) -> dict | None:
    """The share of all items that some list shows, as a JSON figure."""

    def share(rows: np.ndarray) -> float:
        return len(np.unique(shown[rows][shown[rows] >= 0])) / n_items

    return metrics.figure(metrics.bootstrap(share, len(shown), resamples=200, seed=seed))
