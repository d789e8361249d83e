"""Classification heads on frozen embeddings: logistic, ridge on random ReLU features, kernel ridge, and their blend.

A Head is arrays only: scores(embeddings) is a few matrix products, so serving needs numpy and nothing else. Ridge is closed
form: RidgeSums keeps what the rows so far amount to, adding rows and solving again gives exactly what fitting on all of them
at once gives, whatever the order, and rows can be taken out again. Where rows are few, kernel ridge does the same without the
noise of random features. No head calibrates itself; see calibration.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

HeadKind = Literal["logistic", "ridge", "kernel", "blend"]
KERNEL_ROWS = 4000
"""Up to so many rows ridge is solved exactly, with a kernel; beyond, by random features."""
KERNEL_GAMMA = 2.0
LOGISTIC_C = 10.0


@dataclass(frozen=True, eq=False)
class Head:
    """scores = embeddings @ linear + bias + hidden(embeddings) @ weights, each part where its arrays are there.

    hidden is ReLU(embeddings @ projection), random features, or exp(gamma * (embeddings @ landmarks.T - 1)), a kernel.
    """

    kind: HeadKind
    arrays: Mapping[str, np.ndarray]
    settings: Mapping[str, float]

    @property
    def n_classes(self) -> int:
        return int(self.arrays.get("bias", self.arrays.get("weights")).shape[-1])

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """float32 (n, classes), uncalibrated: logits for logistic, fitted class indicators for ridge and kernel."""
        total = np.zeros((len(embeddings), self.n_classes), dtype=np.float32)
        if "linear" in self.arrays:
            total += embeddings @ self.arrays["linear"] + self.arrays["bias"]
        if "projection" in self.arrays:
            total += random_features(embeddings, self.arrays["projection"]) @ self.arrays["weights"]
        if "landmarks" in self.arrays:
            total += kernel(embeddings, self.arrays["landmarks"]) @ self.arrays["weights"]
        return total

    def check(self, *, dim: int, n_classes: int) -> None:
        """Raises ValueError when the arrays do not fit together, or hold numbers that are not finite."""
        wanted = {"linear": (dim, n_classes), "bias": (n_classes,)}
        if "projection" in self.arrays:
            n_features = self.arrays["projection"].shape[-1]
            wanted |= {"projection": (dim, n_features), "weights": (n_features, n_classes)}
        if "landmarks" in self.arrays:
            wanted |= {"landmarks": (len(self.arrays["landmarks"]), dim), "weights": (len(self.arrays["landmarks"]), n_classes)}
        for name, array in self.arrays.items():
            if array.shape != wanted.get(name) or not np.isfinite(array).all():
                raise ValueError(f"the head's {name} do not fit {n_classes} labels and {dim} dimensions, or are not finite")
        if not self.arrays:
            raise ValueError("the head has no arrays")


def fit_head(
    kind: HeadKind,
    settings: Mapping[str, float],
    embeddings: np.ndarray,
    classes: np.ndarray,
    *,
    n_classes: int,
    weights: np.ndarray | None = None,
    sums: RidgeSums | None = None,
    start: Head | None = None,
) -> Head:
    """A head of that kind with those settings on those rows. sums, when given, must stand for exactly those rows."""
    if kind == "logistic":
        return fit_logistic(embeddings, classes, n_classes=n_classes, c=settings["c"], weights=weights, start=start)
    if kind == "kernel":
        return fit_kernel(embeddings, classes, n_classes=n_classes, penalty=settings["penalty"], weights=weights)
    if kind == "ridge":
        if sums is None:
            projection = make_projection(embeddings.shape[1], int(settings["features"]), seed=int(settings["seed"]))
            sums = RidgeSums(projection, n_classes=n_classes)
            sums.add(embeddings, classes, weights=weights)
        head = sums.solve(settings["penalty"])
        return Head(head.kind, head.arrays, {**head.settings, "seed": settings.get("seed", 0)})
    second: HeadKind = "ridge" if "features" in settings else "kernel"
    options = {"n_classes": n_classes, "weights": weights}
    linear = fit_logistic(embeddings, classes, c=settings["c"], start=start, **options)
    return blend(linear, fit_head(second, settings, embeddings, classes, sums=sums, **options), settings["first_t"], settings["second_t"])


def blend(first: Head, second: Head, first_t: float, second_t: float) -> Head:
    """The mean of a logistic head's and a ridge or kernel head's scores, each divided by its temperature: a geometric mean of
    their probabilities."""
    arrays = {k: (v / (2 * first_t)).astype(np.float32) for k, v in first.arrays.items()}
    arrays |= dict(second.arrays) | {"weights": (second.arrays["weights"] / (2 * second_t)).astype(np.float32)}
    return Head("blend", arrays, {**first.settings, **second.settings, "first_t": first_t, "second_t": second_t})


def fit_logistic(
    embeddings: np.ndarray,
    classes: np.ndarray,
    *,
    n_classes: int,
    c: float = 10.0,
    weights: np.ndarray | None = None,
    start: Head | None = None,
) -> Head:
    """Multinomial logistic regression: c * sum of losses + half the squared weights, as scikit-learn has it; biases go free.

    weights: how many times each row counts. start: a logistic head of the first classes to start from; the answer is the same
    within tolerance, since the problem is convex, and found in a fraction of the steps.
    """
    from scipy.optimize import minimize

    n, dim = embeddings.shape
    target = np.zeros((n, n_classes), dtype=np.float32)
    target[np.arange(n), classes] = 1.0
    counts = np.ones((n, 1), dtype=np.float32) if weights is None else weights.astype(np.float32).reshape(n, 1)
    scale = float(c) / n  # the objective is divided by n, so that the stopping tolerance means the same for any n

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.astype(np.float32).reshape(dim + 1, n_classes)
        scores = embeddings @ w[:-1] + w[-1]
        scores -= scores.max(axis=1, keepdims=True)
        exponents = np.exp(scores)
        totals = exponents.sum(axis=1, keepdims=True)
        loss = float((counts * (np.log(totals) - (scores * target).sum(axis=1, keepdims=True))).sum(dtype=np.float64))
        error = (exponents / totals - target) * counts
        gradient = np.vstack([embeddings.T @ error, error.sum(axis=0, keepdims=True)]).astype(np.float64) * scale
        gradient[:-1] += w[:-1] / n
        return loss * scale + 0.5 * float((w[:-1].astype(np.float64) ** 2).sum()) / n, gradient.ravel()

    first = np.zeros((dim + 1, n_classes))
    if start is not None:
        known = start.n_classes
        first[:-1, :known], first[-1, :known] = start.arrays["linear"], start.arrays["bias"]
        first[-1, known:] = start.arrays["bias"].min()
    options = {"maxiter": 500, "gtol": 1e-5 * c, "ftol": 1e-7}
    found = minimize(objective, first.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(dim + 1, n_classes)
    return Head("logistic", {"linear": found[:-1].astype(np.float32), "bias": found[-1].astype(np.float32)}, {"c": c})


def kernel(embeddings: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """exp(KERNEL_GAMMA * (cosine - 1)) of each row with each landmark: 1 for the same text, 0.02 for the opposite."""
    similarity = embeddings @ landmarks.T
    similarity -= 1.0
    similarity *= KERNEL_GAMMA
    return np.exp(similarity, out=similarity)


def fit_kernel(
    embeddings: np.ndarray, classes: np.ndarray, *, n_classes: int, penalty: float, weights: np.ndarray | None = None
) -> Head:
    """Kernel ridge on class indicators, exact. weights: how many times each row counts."""
    from scipy.linalg import cho_factor, cho_solve

    system = kernel(embeddings, embeddings).astype(np.float64)
    system[np.diag_indices_from(system)] += penalty / (1.0 if weights is None else weights)
    target = np.eye(n_classes)[classes]
    solved = cho_solve(cho_factor(system, overwrite_a=True, check_finite=False), target, check_finite=False)
    return Head("kernel", {"landmarks": embeddings, "weights": solved.astype(np.float32)}, {"penalty": penalty})


def fit_one_more(
    embeddings: np.ndarray, is_new: np.ndarray, others: np.ndarray, *, weights: np.ndarray, c: float = LOGISTIC_C
) -> tuple[np.ndarray, float]:
    """(direction, bias) of one more class's scores beside a head that stays as it is: x @ direction + bias.

    others is the log-sum-exp of the known classes' scores on each row; the loss is that of the joint softmax, so what the head
    says of the known classes among themselves does not change at all. weights: how many times each row counts.
    """
    from scipy.optimize import minimize

    sign = np.where(is_new, 1.0, -1.0)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        direction = flat[:-1].astype(np.float32)
        margin = sign * (embeddings @ direction + flat[-1] - others)
        loss = float((weights * np.logaddexp(0.0, -margin)).sum())
        slope = -sign * weights / (1.0 + np.exp(np.clip(margin, -50.0, 50.0)))
        gradient = np.append(embeddings.T @ slope.astype(np.float32) * c + direction, slope.sum() * c)
        return c * loss + 0.5 * float(direction @ direction), gradient.astype(np.float64)

    first = np.append(np.zeros(embeddings.shape[1]), others.min())
    found = minimize(objective, first, jac=True, method="L-BFGS-B", options={"maxiter": 200, "ftol": 1e-7}).x
    return found[:-1].astype(np.float32), float(found[-1])


def with_class(head: Head, direction: np.ndarray, bias: float) -> Head:
    """The head with one more class, whose scores are embeddings @ direction + bias; the others' stay."""
    n = head.n_classes
    linear = head.arrays.get("linear", np.zeros((len(direction), n), dtype=np.float32))
    biases = head.arrays.get("bias", np.zeros(n, dtype=np.float32))
    arrays = {**head.arrays, "linear": np.column_stack([linear, direction]), "bias": np.append(biases, np.float32(bias))}
    if "weights" in arrays:
        arrays["weights"] = np.column_stack([arrays["weights"], np.zeros(len(arrays["weights"]), dtype=np.float32)])
    return Head(head.kind, {k: v.astype(np.float32) for k, v in arrays.items()}, head.settings)


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

    def add(self, embeddings: np.ndarray, classes: np.ndarray, *, weights: np.ndarray | None = None) -> None:
        """Take rows in. weights: how many times each counts."""
        self._move(embeddings, classes, np.ones(len(embeddings)) if weights is None else weights)

    def subtract(self, embeddings: np.ndarray, classes: np.ndarray) -> None:
        """Take rows out that were added before."""
        self._move(embeddings, classes, -np.ones(len(embeddings)))

    def solve(self, penalty: float) -> Head:
        """The ridge head for the rows taken in so far."""
        from scipy.linalg import cho_factor, cho_solve

        system = self.gram.copy()
        system[np.diag_indices_from(system)] += penalty
        factor = cho_factor(system, overwrite_a=True, check_finite=False)
        weights = cho_solve(factor, self.by_class, check_finite=False).astype(np.float32)
        return Head("ridge", {"projection": self.projection, "weights": weights}, {"penalty": penalty, "features": self.gram.shape[0]})

    def _move(self, embeddings: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> None:
        for start in range(0, len(embeddings), 4096):  # bounds memory: 4,096 rows x 4,000 features are 66 MB
            portion = slice(start, start + 4096)
            features = random_features(embeddings[portion], self.projection)
            counted = features * weights[portion].astype(np.float32)[:, None]
            self.gram += features.T @ counted
            indicator = np.zeros((len(features), self.by_class.shape[1]), dtype=np.float32)
            indicator[np.arange(len(features)), classes[portion]] = 1.0
            self.by_class += counted.T @ indicator
