"""Hand-made model folders and a toy classifier, for tests of what surrounds a model: registry, gate, engine, API."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from fmcore.models.registry import Registry, write_manifest
from fmcore.nouns import Prediction
from fmcore.text import text_hash

LABELS = ("card", "loan", "rate")


def heldout(*, right: float = 0.9, n: int = 300, oos: int = 60, caught: float = 0.9, labels=LABELS, seed: int = 0) -> pd.DataFrame:
    """Held-out answers: the first `right` share of rows (in a fixed shuffle) is right, so that a larger share only adds right rows."""
    order = np.random.default_rng(seed).permutation(n)
    true = [labels[i % len(labels)] for i in range(n)]
    predicted = [t if order[i] < right * n else labels[(i + 1) % len(labels)] for i, t in enumerate(true)]
    inside = pd.DataFrame({"label": true, "predicted": predicted, "score": 0.8, "novelty": np.linspace(-1, 1, n), "in_scope": True})
    flagged = np.arange(oos) < caught * oos
    outside = pd.DataFrame({"label": "oos", "predicted": labels[0], "score": 0.4, "novelty": np.where(flagged, 3.0, 0.0), "in_scope": ~flagged})
    frame = pd.concat([inside, outside], ignore_index=True)
    return frame.assign(text_hash=[text_hash(f"row {i}") for i in range(len(frame))])


def metrics(*, accuracy: float = 0.9, split: str = "s1", synthetic: bool = False, n: int = 300) -> dict:
    low = accuracy - 0.03
    return {"n": n, "accuracy": {"value": accuracy, "low": low, "high": min(1.0, accuracy + 0.03), "n": n}, "split_hash": split, "synthetic": synthetic}


def folder(at: Path, *, labels=LABELS, rows: pd.DataFrame | None = None, speaks: str = "", finished: bool = True) -> Path:
    """A model folder as a recipe leaves it, without an encoder."""
    at.mkdir(parents=True)
    (at / "model.json").write_text(json.dumps({"format": 1, "labels": list(labels), "speaks": speaks, "info": {"max_tokens": 32}}))
    save_file({"weights": np.ones((4, len(labels)), np.float32)}, at / "head.safetensors")
    (heldout(labels=labels) if rows is None else rows).to_parquet(at / "heldout.parquet")
    (at / "metrics.json").write_text("{}")
    (at / "replies.json").write_text(json.dumps({label: f"About your {label}: we are on it." for label in labels}))
    if finished:
        write_manifest(at)
    return at


def adopt(registry: Registry, work: Path, *, run_id: str, dataset: str = "banking77", facts: dict | None = None, **made):
    """A version in the registry, from a hand-made folder."""
    made_at = folder(work / run_id, speaks=run_id, **made)
    return registry.adopt(
        made_at, task="intent", recipe="linear", dataset=dataset, base="toy", metrics=facts or metrics(), run_id=run_id
    )


class ToyClassifier:
    """Answers every text with its own version; fails on "boom"; embeds a text by the labels it names."""

    def __init__(self, version: str, labels: tuple[str, ...], pause_s: float = 0.0):
        self.version, self.labels, self.pause_s = version, labels, pause_s
        self.largest_batch = 0
        self.reference = SimpleNamespace(embeddings=np.eye(len(labels), dtype=np.float32), labels=np.array(labels, dtype=object))

    def predict(self, texts):
        self.largest_batch = max(self.largest_batch, len(texts))
        if self.pause_s:
            time.sleep(self.pause_s)
        if any("boom" in t for t in texts):
            raise ValueError("boom")
        return [self._one(t) for t in texts]

    def _one(self, text):
        label = next((x for x in self.labels if x in text), self.labels[0])
        rest = (1 - 0.8) / (len(self.labels) - 1)
        scores = {label: 0.8, **{x: rest for x in self.labels if x != label}}
        strange = "weather" in text
        return Prediction(
            label=label, score=0.8, scores=scores, in_scope=not strange, novelty=3.0 if strange else -1.0, threshold=1.5, reason="toy",
            candidates=(label,), coverage=0.9, version=self.version,
        )

    def embed(self, texts):
        vectors = np.array([[float(t.lower().count(x)) + 0.01 for x in self.labels] for t in texts], dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.zeros(len(texts), dtype=bool)


def load(at: Path, *, version: str) -> ToyClassifier:
    """What Engine(load=...) is given."""
    facts = json.loads((at / "model.json").read_text())
    return ToyClassifier(version, tuple(facts["labels"]))
