"""Labelled points whose right answer is known by construction: one cluster a label, and out-of-scope points far from all."""

import hashlib

import numpy as np

from fmcore.evaluation.metrics import OOS
from fmcore.models.classifier import Classifier, Rows
from fmcore.models.fitting import FitOptions, fit_classifier

DIM = 24
LABELS = ("balance", "card_lost", "greeting", "refund")
OPTIONS = FitOptions(random_features=64, resamples=50, test_is_publishers=True)


def unit(matrix: np.ndarray) -> np.ndarray:
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


CENTRES = unit(np.random.default_rng(7).standard_normal((len(LABELS) + 2, DIM)))


def rows(n: int, *, seed: int, n_oos: int = 0, noise: float = 0.12) -> Rows:
    """n rows a label and n_oos out-of-scope rows around a centre of their own."""
    rng = np.random.default_rng(seed)
    which = np.concatenate([np.repeat(np.arange(len(LABELS)), n), np.full(n_oos, len(LABELS))])
    vectors = unit(CENTRES[which] + noise * rng.standard_normal((len(which), DIM)))
    labels = np.array([*LABELS, OOS], dtype=object)[which]
    return Rows(vectors, labels, tuple(f"{seed:04d}{i:012d}" for i in range(len(which))))


def embed(texts):
    """Texts that name a label's words lie near its centre; "dragon" has a place of its own; anything else is random."""
    out = []
    for t in texts:
        digest = hashlib.sha256(t.encode("utf-8", "replace")).digest()
        noise = 0.08 * np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(DIM)
        place = next((i for i, label in enumerate((*LABELS, "oos", "dragon")) if label.split("_")[0] in t), None)
        out.append((CENTRES[place] if place is not None else 0) + noise)
    return unit(np.array(out)), np.array([len(t) > 500 for t in texts], dtype=bool)


def fitted(**options) -> tuple[Classifier, dict]:
    """A classifier on the clusters, and its metrics."""
    chosen = FitOptions(**{**{f: getattr(OPTIONS, f) for f in OPTIONS.__dataclass_fields__}, **options})
    model, metrics = fit_classifier(
        rows(20, seed=1), rows(15, seed=2, n_oos=20), rows(15, seed=3, n_oos=20), options=chosen, info={"max_tokens": 32}
    )
    return model.with_embedder(embed, version="v1"), metrics
