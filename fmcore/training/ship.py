"""From a trained encoder to a finished model folder: the last part of every recipe.

Chooses the served form (export.py), embeds every row in that form, fits head, calibration and out-of-scope score on those
embeddings (fitting.py) and writes the folder, MANIFEST.json last. Nothing is fitted on embeddings that will not be served.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fmcore import text
from fmcore.data.catalogue import OOS, LabelledData
from fmcore.models.classifier import Rows
from fmcore.models.encoder import Encoder
from fmcore.models.export import Form, Probe, choose_form
from fmcore.models.fitting import FitOptions, fit_classifier
from fmcore.models.manifest import write_manifest
from fmcore.models.served_encoder import ServedEncoder
from fmcore.nouns import Report

PIECE = 512
"""Texts embedded between two progress reports, each of which is a chance to cancel."""


@dataclass(frozen=True)
class Shipment:
    """How to finish a model. facts go into model.json beside what is known of the data; span is this part of the progress."""

    recipe: str
    base: str
    options: FitOptions
    fast: bool = False
    threads: int = 1
    forms: tuple[Form, ...] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    span: tuple[float, float] = (0.0, 1.0)


def ship(
    encoder: Encoder,
    data: LabelledData,
    train: pd.DataFrame,
    *,
    shipment: Shipment,
    out: Path,
    report: Report,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the model folder `out` and return its metrics. train is what was learnt from: data.train, or a few shots of it.

    extra is added to the metrics (what the recipe has to say of its training).
    """
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    low, high = shipment.span

    def said(fraction: float, message: str) -> None:
        report.progress(low + (high - low) * fraction, message)

    serving = choose_form(
        encoder, out, probe_of(data, train), fast=shipment.fast, threads=shipment.threads, forms=shipment.forms,
        progress=lambda fraction, message: said(0.4 * fraction, message),
    )  # fmt: skip
    served = ServedEncoder(out, max_tokens=encoder.max_tokens, threads=shipment.threads)
    chosen_s = time.perf_counter() - started
    parts = {"training": train, "validation": data.validation, "test": data.test}
    n_all = sum(len(frame) for frame in parts.values())
    rows, before = {}, 0
    for name, frame in parts.items():
        words = f"Embedding {name} rows as they are served"
        rows[name] = embedded(served, frame, progress=lambda n, at=before, words=words: said(0.4 + 0.5 * (at + n) / n_all, words))
        before += len(frame)
    said(0.9, "Fitting the head, calibrating, measuring on held-out rows")
    info = facts_of(encoder, data, shipment, form=serving["form"])
    classifier, metrics = fit_classifier(rows["training"], rows["validation"], rows["test"], options=shipment.options, info=info)
    metrics.update(extra or {}, serving=serving)
    metrics["seconds"] = {**metrics.get("seconds", {}), "form": round(chosen_s, 1), "ship": round(time.perf_counter() - started, 1)}
    classifier.save(out)
    _write_json(out / "metrics.json", metrics)
    _write_json(out / "replies.json", dict(data.replies))
    write_manifest(out)
    said(1.0, f"Model written: {metrics['accuracy']['value']:.1%} of {metrics['accuracy']['n']:,} held-out rows right")
    return metrics


def probe_of(data: LabelledData, train: pd.DataFrame) -> Probe:
    """The rows on which the served form is chosen: in-scope training and validation rows."""
    labels = sorted(set(train["label"]))
    order = {label: i for i, label in enumerate(labels)}
    inside = data.validation[data.validation["label"].isin(labels)]
    return Probe(
        train["text"].tolist(), train["label"].map(order).to_numpy(dtype=np.int64),
        inside["text"].tolist(), inside["label"].map(order).to_numpy(dtype=np.int64), len(labels),
    )  # fmt: skip


def embedded(served: ServedEncoder, frame: pd.DataFrame, *, progress=lambda n_done: None) -> Rows:
    """Labelled rows in the served form's embeddings. progress hears the number of rows done."""
    texts = frame["text"].tolist()
    lengths = np.array([len(t) for t in texts])
    order = np.argsort(lengths, kind="stable")  # like lengths together across the pieces, not only within one
    out = np.zeros((len(texts), served.dim), dtype=np.float32)
    for start in range(0, len(texts), PIECE):
        piece = order[start : start + PIECE]
        out[piece] = served.encode([texts[i] for i in piece])
        progress(start + len(piece))
    return Rows(out, frame["label"].to_numpy(dtype=object), tuple(text.text_hash(t) for t in texts))


def facts_of(encoder: Encoder, data: LabelledData, shipment: Shipment, *, form: str) -> dict[str, Any]:
    """What model.json says of a model besides its numbers: enough for its card."""
    n_oos = int((data.test["label"] == OOS).sum())
    return {
        "max_tokens": encoder.max_tokens,
        "base": shipment.base,
        "base_sha256": encoder.sha256,
        "recipe": shipment.recipe,
        "dataset": data.name,
        "split_hash": data.split_hash,
        "split_note": data.split_note,
        "synthetic": data.synthetic,
        "n_out_of_scope_test_rows": n_oos,
        "domains": dict(data.domains),
        "form": form,
        "machine": platform.machine(),
        **shipment.facts,
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")
