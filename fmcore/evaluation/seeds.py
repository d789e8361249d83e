"""Figures of a training that was repeated: the mean over seeds and test rows, with an interval that counts both as chance.

Rows are resampled as everywhere else; the seeds are resampled beside them, the same rows for every seed, since every seed answers the same
rows (Owen 2007, "The pigeonhole bootstrap": crossed random effects). With few seeds the part that is theirs is a little too narrow.
"""

from __future__ import annotations

import numpy as np

from fmcore.nouns import Estimate


def over_seeds(right: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> Estimate:
    """The mean of right (seeds, rows), 1 for right and 0 for wrong or any other figure a row, with its 95 % interval. n counts rows.

    One seed gives the interval over rows alone. Raises ValueError without seeds or rows.
    """
    right = np.atleast_2d(np.asarray(right, dtype=np.float64))
    n_seeds, n_rows = right.shape
    if not right.size:
        raise ValueError("a mean needs at least one seed and one row")
    rng = np.random.default_rng(seed)
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=resamples)
    rows = rng.multinomial(n_rows, np.full(n_rows, 1 / n_rows), size=resamples)
    drawn = ((seeds @ right) * rows).sum(axis=1) / right.size
    value = float(right.mean())
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(value, float(min(low, value)), float(max(high, value)), n_rows)


def paired_over_seeds(right_a: np.ndarray, right_b: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> Estimate:
    """How much more often b is right than a: both (seeds, rows), the same seeds and rows in both. A figure that no seed changes may come as
    (1, rows): it stands beside every seed of the other. Raises ValueError for figures of other rows or other seeds."""
    a, b = np.atleast_2d(np.asarray(right_a, dtype=np.float64)), np.atleast_2d(np.asarray(right_b, dtype=np.float64))
    if a.shape[1] != b.shape[1] or (len(a) != len(b) and 1 not in (len(a), len(b))):
        raise ValueError(f"a paired comparison needs the same seeds and rows, not {a.shape} and {b.shape}")
    return over_seeds(b - a, resamples=resamples, seed=seed)
