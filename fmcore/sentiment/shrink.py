"""From sums of a few stories to an index that can be trusted: empirical Bayes shrinkage and a bootstrap band. Pure arithmetic.

Never reads a table. net is P(positive) - P(negative) in whole 1/10 000, as the rollup keeps it; every result here is in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

SCALE = 10_000.0
MIN_STORIES = 5
"""Fewer stories than this are "not enough news": no point is drawn."""
STRENGTH = (1.0, 100.0)
"""Bounds of a prior's strength, in stories: one bucket's news can always move the index, a prior never outweighs 100 stories."""
_LEAST_DAYS, _LEAST_STORIES = 5, 50
_Z = 1.959964


@dataclass(frozen=True)
class Prior:
    """What is expected before a bucket's own news: mean in [-1, 1], strength in stories. of: whose history it was estimated from
    ("key": the same filters, "everything": all news, "default": there is no history)."""

    mean: float
    strength: float
    of: Literal["key", "everything", "default"]


DEFAULT = Prior(0.0, 10.0, "default")


def totals(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, sum, sum of squares) over the classes, as float64 (rows, 3), in units of the index. values: rows of rollup.SUMS."""
    n, total, squares = (values[:, i : i + 3].astype(np.float64) for i in (1, 4, 7))
    return n, total / SCALE, squares / SCALE**2


def estimate(history: np.ndarray, of: Literal["key", "everything"]) -> Prior | None:
    """The prior out of a history: one row of rollup.SUMS a day. None when there are fewer than 5 days with news or 50 stories.

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


def index(values: np.ndarray, prior: Prior | Sequence[Prior]) -> np.ndarray:
    """float64 (rows,): the mean over stories, shrunk toward the prior (one for all rows, or one a row): (sum + k m) / (n + k)."""
    n, total, _ = (part.sum(axis=1) for part in totals(values))
    priors = [prior] if isinstance(prior, Prior) else prior
    mean, strength = np.array([p.mean for p in priors]), np.array([p.strength for p in priors])
    return (total + strength * mean) / (n + strength)


def band(values: np.ndarray, prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    """(low, high), float64 (rows,): the 95 % percentile interval of the bootstrap of the bucket's stories, each resample shrunk like the
    index itself; NaN where there are fewer than MIN_STORIES.

    Computed, not drawn: the mean of n stories resampled with replacement has the mean of the stories, their variance over n, their
    skewness over sqrt(n) and their excess kurtosis over n, exactly; the quantiles are the Cornish-Fisher expansion in these four (Hall
    1992, "The Bootstrap and Edgeworth Expansion", section 2.5 and chapter 3: it agrees with the bootstrap to second order). Mean and
    variance are those of the stories; skewness and kurtosis are those of three classes with their own exact shares, means and
    variances and a normal shape within (the smoothed bootstrap of Silverman and Young 1987). tests/sentiment/test_index.py holds it
    against stories that are really resampled.
    """
    n, total, squares = totals(values)
    stories = n.sum(axis=1)
    some, share = np.maximum(n, 1), n / np.maximum(stories, 1)[:, None]
    means = total / some
    inner = np.maximum(squares / some - means**2, 0.0)
    mean = (share * means).sum(axis=1)
    off = means - mean[:, None]
    variance = (share * (inner + off**2)).sum(axis=1)
    safe, count = np.maximum(variance, 1e-12), np.maximum(stories, 1)
    skew = (share * (off**3 + 3 * off * inner)).sum(axis=1) / safe**1.5 / np.sqrt(count)
    excess = ((share * (off**4 + 6 * off**2 * inner + 3 * inner**2)).sum(axis=1) / safe**2 - 3) / count
    edges = []
    for z in (-_Z, _Z):
        quantile = z + skew * (z**2 - 1) / 6 + excess * (z**3 - 3 * z) / 24 - skew**2 * (2 * z**3 - 5 * z) / 36
        resampled = np.clip(mean + quantile * np.sqrt(variance / count), -1.0, 1.0)
        shrunk = (stories * resampled + prior.strength * prior.mean) / np.maximum(stories + prior.strength, 1e-9)
        edges.append(np.where(stories >= MIN_STORIES, shrunk, np.nan))
    return edges[0], edges[1]
