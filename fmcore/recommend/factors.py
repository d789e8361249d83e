"""Factors of items and people by alternating least squares, and a past folded in without training again.

Owns which weights are trained with and that a past is answered with the same ones: a person who was in the training data and one who
comes later are answered alike. Serving needs numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from fmcore.nouns import Report
from fmcore.recommend.matrices import weighted
from fmcore.recommend.recommender import BadRecommender, History, Items, Recommender, read_facts, write_facts

OPTIONS = ("n_factors", "regularisation", "confidence", "iterations", "seed")


class Als(Recommender):
    """Implicit-feedback matrix factorisation (Hu, Koren and Volinsky 2008) by the `implicit` library.

    A met item has confidence `confidence`, every other 1. One thread, so that a seed gives the same factors again.
    """

    name: ClassVar[str] = "als"
    title: ClassVar[str] = "Matrix factorisation"
    summary: ClassVar[str] = "People and items as points in one space, near where people met the items; the order does not count."

    factors: np.ndarray
    """float32 (n_items, n_factors), zeros for an item nobody met."""

    def __init__(self, *, n_factors: int = 64, regularisation: float = 10.0, confidence: float = 2.0, iterations: int = 15, seed: int = 0):
        self.n_factors, self.regularisation, self.confidence = n_factors, regularisation, confidence
        self.iterations, self.seed = iterations, seed

    def fit(self, histories: Sequence[History], items: Items, *, held: np.ndarray | None = None, report: Report | None = None) -> Self:
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        def told(done: int, seconds: float, loss: float | None) -> None:
            if report is not None:
                report.progress((done + 1) / self.iterations, f"Factors, round {done + 1} of {self.iterations}")

        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=self.n_factors, regularization=self.regularisation, alpha=self.confidence, iterations=self.iterations,
                num_threads=1, random_state=self.seed,
            )  # fmt: skip
            model.fit(weighted(histories, n_items=len(items)), show_progress=False, callback=told)
        return self._take(np.nan_to_num(model.item_factors))

    def _take(self, factors: np.ndarray) -> Self:
        self.factors = np.ascontiguousarray(factors, dtype=np.float32)
        wide = self.factors.astype(np.float64)
        self._everyone = wide.T @ wide + self.regularisation * np.eye(wide.shape[1])
        return self

    def person(self, history: History) -> np.ndarray:
        """float64 (n_factors,): the factors of somebody with this past, the exact solution of the training's own least squares.

        (Y'Y + regularisation + (confidence - 1) Yh'Yh) x = confidence * sum(Yh), Yh the factors of the past's items.
        """
        own = self.factors[history].astype(np.float64)
        return np.linalg.solve(self._everyone + (self.confidence - 1) * (own.T @ own), self.confidence * own.sum(axis=0))

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        people = np.array([self.person(history) for history in histories]).reshape(len(histories), self.factors.shape[1])
        return people.astype(np.float32) @ self.factors.T

    def knows(self, histories: Sequence[History]) -> np.ndarray:
        return np.array([bool(self.factors[history].any()) for history in histories], dtype=bool)

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        options = {name: getattr(self, name) for name in OPTIONS}
        write_facts(folder, {"name": self.name, **options})
        save_file({"factors": self.factors}, folder / "factors.safetensors")

    @classmethod
    def load(cls, folder: Path, items: Items) -> Self:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        facts = read_facts(folder)
        try:
            factors = load_file(folder / "factors.safetensors")["factors"]
            model = cls(**{name: facts[name] for name in OPTIONS})
        except (OSError, KeyError, SafetensorError) as error:
            raise BadRecommender(f"{folder.name} cannot be read ({type(error).__name__}).", "Train it again.") from error
        if factors.shape != (len(items), model.n_factors) or not np.isfinite(factors).all():
            raise BadRecommender(f"{folder.name} is of other items, or holds numbers that are not finite.", "Train it again.")
        return model._take(factors)
