"""From scores to probabilities that mean what they say, and to sets that hold the true label as often as promised.

One temperature, fitted on validation rows by likelihood; it never changes which label comes first. The conformal set is split
conformal prediction on the calibrated probabilities (score: 1 - probability of the true label).
"""

from __future__ import annotations

import math

import numpy as np

COVERAGE = 0.9


def softmax(scores: np.ndarray, *, temperature: float) -> np.ndarray:
    """float64 (n, classes): probabilities that sum to 1."""
    scaled = scores.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    np.exp(scaled, out=scaled)
    return scaled / scaled.sum(axis=1, keepdims=True)


def negative_log_likelihood(scores: np.ndarray, classes: np.ndarray, temperature: float) -> float:
    """Mean negative log-likelihood of the true classes, in nats."""
    scaled = scores.astype(np.float64) / temperature
    top = scaled.max(axis=1)
    total = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float((total - scaled[np.arange(len(classes)), classes]).mean())


def fit_temperature(scores: np.ndarray, classes: np.ndarray) -> float:
    """The temperature of greatest likelihood on rows the head was not fitted on. 1.0 when there are none.

    One row more than there are is taken to be wrong (its runner-up was meant): without a mistake on the rows there are, the
    likelihood alone would ask for certainty, which n rows cannot teach.
    """
    n = len(classes)
    if not n:
        return 1.0
    from scipy.optimize import minimize_scalar

    runner_up = np.argsort(-scores, axis=1, kind="stable")[:, min(1, scores.shape[1] - 1)]

    def loss(log_t: float) -> float:
        t = math.exp(log_t)
        return (n * negative_log_likelihood(scores, classes, t) + negative_log_likelihood(scores, runner_up, t)) / (n + 1)

    found = minimize_scalar(loss, bounds=(math.log(1e-3), math.log(1e2)), method="bounded")
    return float(math.exp(found.x))


def fit_conformal(probabilities: np.ndarray, classes: np.ndarray, *, coverage: float = COVERAGE) -> float:
    """The least probability a label needs to be in the set, such that the set holds the true label with that coverage.

    The finite-sample quantile: ceil((n + 1) * coverage)-th smallest of 1 - p(true). 0.0 (every label) when n is too small.
    """
    n = len(classes)
    rank = math.ceil((n + 1) * coverage)
    if n == 0 or rank > n:
        return 0.0
    strangeness = np.sort(1.0 - probabilities[np.arange(n), classes])
    return float(max(0.0, 1.0 - strangeness[rank - 1]))


def conformal_sizes(ranked: np.ndarray, *, least: float) -> np.ndarray:
    """int (n,): how many labels of each row are in its set, those that reach the least probability; never none. ranked: each row's
    probabilities, largest first."""
    return np.maximum(1, (ranked >= least).sum(axis=1))
