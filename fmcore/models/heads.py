"""Classification heads on frozen embeddings: multinomial logistic, and ridge on random ReLU features.

A Head is arrays only: scores(embeddings) is a few matrix products, so serving needs numpy and nothing else. Ridge is closed
form: RidgeSums keeps what the rows so far amount to, adding rows and solving again gives exactly what fitting on all of them
at once gives, whatever the order, and rows can be taken out again. No head calibrates itself; see calibration.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

HeadKind = Literal["logistic", "ridge"]


@dataclass(frozen=True)
class Head:
    """scores = hidden(embeddings) @ weights + bias; hidden is the identity (logistic) or random ReLU features (ridge)."""

    kind: HeadKind
    weights: np.ndarray
    bias: np.ndarray
    projection: np.ndarray | None
    settings: Mapping[str, float]

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """float32 (n, classes), uncalibrated: logits for logistic, fitted class indicators for ridge."""
        hidden = embeddings if self.projection is None else random_features(embeddings, self.projection)
        return hidden @ self.weights + self.bias

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays, for safetensors."""
        kept = {"weights": self.weights, "bias": self.bias}
        return kept if self.projection is None else {**kept, "projection": self.projection}


def fit_logistic(embeddings: np.ndarray, classes: np.ndarray, *, n_classes: int, c: float = 10.0) -> Head:
    """Multinomial logistic regression. Every class 0..n_classes-1 must occur."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, max_iter=1000).fit(embeddings, classes)
    weights, bias = model.coef_.T, model.intercept_
    if n_classes == 2:  # scikit-learn keeps one column for two classes
        weights, bias = np.hstack([-weights / 2, weights / 2]), np.hstack([-bias / 2, bias / 2])
    return Head("logistic", weights.astype(np.float32), bias.astype(np.float32), None, {"c": c})


def make_projection(dim: int, n_features: int, *, seed: int) -> np.ndarray:
    """The random directions of the ridge's features, fixed by the seed."""
    return np.random.default_rng(seed).standard_normal((dim, n_features), dtype=np.float32)


def random_features(embeddings: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """ReLU of random projections: an approximation of the arc-cosine kernel that gets better with more of them."""
    hidden = embeddings @ projection
    return np.maximum(hidden, 0.0, out=hidden)


class RidgeSums:
    """Sufficient statistics of a ridge on random features: sums over rows of f f' and of f by class.

    Exact under streaming: add() in any order and any portions, subtract() to take rows out, solve() at any time.
    """

    def __init__(self, projection: np.ndarray, *, n_classes: int):
        n_features = projection.shape[1]
        self.projection = projection
        self.gram = np.zeros((n_features, n_features), dtype=np.float32)
        self.by_class = np.zeros((n_features, n_classes), dtype=np.float32)

    def add(self, embeddings: np.ndarray, classes: np.ndarray) -> None:
        """Take rows in."""
        self._move(embeddings, classes, sign=1.0)

    def subtract(self, embeddings: np.ndarray, classes: np.ndarray) -> None:
        """Take rows out that were added before."""
        self._move(embeddings, classes, sign=-1.0)

    def copy(self) -> RidgeSums:
        """An independent copy: a what-if that leaves this one as it is."""
        other = RidgeSums.__new__(RidgeSums)
        other.projection, other.gram, other.by_class = self.projection, self.gram.copy(), self.by_class.copy()
        return other

    def with_classes(self, n_classes: int) -> RidgeSums:
        """A copy with room for more classes."""
        other = self.copy()
        extra = np.zeros((len(self.by_class), n_classes - self.by_class.shape[1]), dtype=np.float32)
        other.by_class = np.hstack([self.by_class, extra])
        return other

    def solve(self, penalty: float) -> Head:
        """The ridge head for the rows taken in so far."""
        from scipy.linalg import cho_factor, cho_solve

        system = self.gram.copy()
        system[np.diag_indices_from(system)] += penalty
        factor = cho_factor(system, overwrite_a=True, check_finite=False)
        weights = cho_solve(factor, self.by_class, check_finite=False).astype(np.float32)
        bias = np.zeros(weights.shape[1], dtype=np.float32)
        return Head("ridge", weights, bias, self.projection, {"penalty": penalty, "features": self.gram.shape[0]})

    def _move(self, embeddings: np.ndarray, classes: np.ndarray, *, sign: float) -> None:
        for start in range(0, len(embeddings), 4096):  # bounds memory: 4,096 rows x 4,000 features are 66 MB
            features = random_features(embeddings[start : start + 4096], self.projection)
            self.gram += sign * (features.T @ features)
            which = classes[start : start + 4096]
            indicator = np.zeros((len(which), self.by_class.shape[1]), dtype=np.float32)
            indicator[np.arange(len(which)), which] = sign
            self.by_class += features.T @ indicator
