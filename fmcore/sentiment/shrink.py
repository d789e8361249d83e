"""From sums of a few stories to an index that can be trusted: empirical Bayes shrinkage and a bootstrap band. Pure arithmetic.

Never reads a table. net is P(positive) - P(negative) in whole 1/10 000, as the rollup keeps it; every result here is in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from fmcore.sentiment.rollup import CLASSES

SCALE = 10_000.0
MIN_STORIES = 5
"""Fewer stories than this are "not enough news": no point is drawn."""
RESAMPLES = 400
STRENGTH = (1.0, 100.0)
"""Bounds of a prior's strength, in stories: one bucket's news can always move the index, a prior never outweighs 100 stories."""
_LEAST_DAYS, _LEAST_STORIES = 5, 50
_CHUNK = 512


@dataclass(frozen=True)
class Prior:
    """What is expected before a bucket's own news: mean in [-1, 1], strength in stories. of: whose history it was estimated from
    ("key": the same filters, "everything": all news, "default": there is no history)."""

    mean: float
    strength: float
    of: Literal["key", "everything", "default"]


DEFAULT = Prior(0.0, 10.0, "default")


def totals(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, sum, sum of squares) over the classes, as float64 (rows, 3), in units of the index."""
    n, total, squares = (frame[[f"{what}_{c}" for c in CLASSES]].to_numpy(np.float64) for what in ("n", "sum", "sq"))
    return n, total / SCALE, squares / SCALE**2


def estimate(history: pd.DataFrame, of: Literal["key", "everything"]) -> Prior | None:
    """The prior out of a history: one row of sums a day. None when there are fewer than 5 days with news or 50 stories.

    Empirical Bayes credibility: with s2 the variance of a story within its day and a the variance of the days' true means, the best
    linear estimate of a bucket's mean is (sum + k m) / (n + k) with k = s2 / a. Both by the unbiased moments of Buehlmann and Straub
    (1970, "Glaubwuerdigkeit fuer Schadensaetze"): s2 = sum_i (q_i - s_i^2 / n_i) / (N - r),
    a = (sum_i n_i (m_i - m)^2 - (r - 1) s2) / (N - sum_i n_i^2 / N). Days that differ by no more than chance (a <= 0) give the largest
    strength.
    """
    n, total, squares = (part.sum(axis=1) for part in totals(history))
    n, total, squares = n[n > 0], total[n > 0], squares[n > 0]
    r, stories = len(n), n.sum()
    if r < _LEAST_DAYS or stories < _LEAST_STORIES or stories <= r:
        return None
    mean = total.sum() / stories
    within = max(0.0, (squares - total**2 / n).sum()) / (stories - r)
    between = ((n * (total / n - mean) ** 2).sum() - (r - 1) * within) / max(stories - (n**2).sum() / stories, 1e-9)
    strength = STRENGTH[1] if between <= 0 else float(np.clip(within / between, *STRENGTH))
    return Prior(float(mean), strength, of)


def index(frame: pd.DataFrame, prior: Prior | Sequence[Prior]) -> np.ndarray:
    """float64 (rows,): the mean over stories, shrunk toward the prior (one for all rows, or one a row): (sum + k m) / (n + k)."""
    n, total, _ = (part.sum(axis=1) for part in totals(frame))
    priors = [prior] if isinstance(prior, Prior) else prior
    mean, strength = np.array([p.mean for p in priors]), np.array([p.strength for p in priors])
    return (total + strength * mean) / (n + strength)


def band(frame: pd.DataFrame, prior: Prior, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(low, high), float64 (rows,): the 95 % percentile interval of 400 bootstrap resamples of the bucket's stories, each shrunk like the
    index itself; NaN where there are fewer than MIN_STORIES.

    The stories themselves are not read again. A resample of n stories with replacement is a multinomial draw of how many come from each
    class, and for each class the mean of as many of its stories: here a normal draw with the class's own mean and (plug-in) standard
    deviation over the square root of their number. That is the bootstrap by stories with one step smoothed (Efron and Tibshirani 1993,
    chapter 13; Silverman and Young 1987): class shares and class moments are exact, only the shape within a class is taken as normal.
    The same sums give the same band.
    """
    n, total, squares = totals(frame)
    low, high = np.full(len(n), np.nan), np.full(len(n), np.nan)
    rows = np.flatnonzero(n.sum(axis=1) >= MIN_STORIES)
    rng = np.random.default_rng(seed)
    for part in np.array_split(rows, -(-len(rows) // _CHUNK) or 1):
        if len(part):
            low[part], high[part] = _resampled(n[part], total[part], squares[part], prior, rng)
    return low, high


def _resampled(
    n: np.ndarray, total: np.ndarray, squares: np.ndarray, prior: Prior, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    stories = n.sum(axis=1)
    some = np.maximum(n, 1)
    means = total / some
    deviations = np.sqrt(np.maximum(squares / some - means**2, 0.0))
    drawn = rng.multinomial(stories.astype(np.int64), n / stories[:, None], size=(RESAMPLES, len(n))).astype(np.float32)
    noise = rng.standard_normal(drawn.shape, dtype=np.float32)
    sums = (drawn * means.astype(np.float32) + np.sqrt(drawn) * deviations.astype(np.float32) * noise).sum(axis=2)
    resampled = np.clip((sums + prior.strength * prior.mean) / (stories + prior.strength), -1.0, 1.0)
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    return low, high
