"""The last part of every recipe: from an encoder to a complete model folder with measured figures.

Chooses the served form (ONNX), embeds all rows with that very form, fits and measures the head on those embeddings, and writes
the folder; the manifest comes last. What is measured is therefore what will be served.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fmcore import text
from fmcore.data.catalogue import LabelledData
from fmcore.evaluation import baselines
from fmcore.evaluation.lexicon import lexicon_figures
from fmcore.evaluation.metrics import OOS, figure, paired_difference
from fmcore.evaluation.robustness import suite_figures
from fmcore.models import export
from fmcore.models.classifier import Classifier, Rows
from fmcore.models.encoder import EmbeddingCache, Encoder
from fmcore.models.fitting import FitOptions, fit_classifier
from fmcore.models.manifest import write_manifest
from fmcore.models.served_encoder import ServedEncoder
from fmcore.nouns import Report
from fmcore.tasks import SENTIMENTS

PARTS = ("train", "validation", "test")
UNTUNED = "linear"
"""The recipe that leaves the encoder as it is; every other one keeps its weights in the folder."""


@dataclass(frozen=True)
class Finish:
    """How to finish. fast: fewer served forms measured on fewer rows, for a first launch. label_name_weight: above 0, each
    label's name counts as that many more training rows. cache keeps embeddings of an encoder that will be used again. forms: the served
    forms to choose from beside fp32, None for all. tuned: whether the encoder has learnt from the training rows, so that they cannot judge
    a form; None: every recipe but "linear" has."""

    recipe: str
    options: FitOptions
    fast: bool = False
    threads: int = 1
    cache: EmbeddingCache | None = None
    label_name_weight: int = 0
    forms: Sequence[export.Form] | None = None
    tuned: bool | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def finish(
    encoder: Encoder, data: LabelledData, out: Path, *, plan: Finish, report: Report, span: tuple[float, float] = (0.0, 1.0)
) -> dict[str, Any]:
    """Write the model folder `out` and return its metrics. span: the part of the run's progress that this step takes."""
    said = _within(report, span)
    started = time.perf_counter()
    tuned = plan.recipe != UNTUNED if plan.tuned is None else plan.tuned
    serving = export.choose_form(
        encoder, out, _probe(data), fast=plan.fast, tuned=tuned, threads=plan.threads, forms=plan.forms,
        progress=lambda f, message: said(0.45 * f, message),
    )  # fmt: skip
    if plan.recipe != UNTUNED:
        encoder.save_weights(out)
    exported = time.perf_counter()
    served = ServedEncoder(out, max_tokens=encoder.max_tokens, threads=plan.threads)
    rows = embedded(served, data, cache=plan.cache, said=lambda f, message: said(0.45 + 0.35 * f, message))
    if plan.label_name_weight:
        rows["train"] = with_label_names(rows["train"], served, weight=plan.label_name_weight)
    encoded = time.perf_counter()
    said(0.82, f"Fitting the head on {len(rows['train'])} rows")
    classifier, metrics = fit_classifier(*(rows[part] for part in PARTS), options=plan.options, info=_facts(encoder, data, plan))
    said(0.93, "Measuring the baselines on the same rows")
    metrics |= compared(data, classifier, plan.options)
    if set(classifier.labels) == set(SENTIMENTS):
        metrics |= sentiment_checks(data, classifier.with_embedder(served.embed), plan.options)
    metrics |= {
        "split_hash": data.split_hash, "split_note": data.split_note, "synthetic": data.synthetic, "base": encoder.name,
        "base_sha256": encoder.sha256, "recipe": plan.recipe, "dataset": data.name, "device": encoder.device, "serving": serving,
        "form": serving["form"], "n_labels": len(classifier.labels), **plan.facts,
    }  # fmt: skip
    metrics["seconds"] |= {"export": round(exported - started, 2), "embed": round(encoded - exported, 2)}
    metrics["seconds"]["finish"] = round(time.perf_counter() - started, 2)
    write_folder(out, classifier, metrics, data)
    said(1.0, f"Measured: accuracy {metrics['accuracy']['value']:.3f} on {metrics['n_test']} held-out rows")
    return metrics


def write_folder(out: Path, classifier: Classifier, metrics: Mapping[str, Any], data: LabelledData) -> None:
    """Everything but the encoder's files, which lie in `out` already; the manifest last."""
    classifier.save(out)
    (out / "metrics.json").write_text(json.dumps(metrics, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")
    (out / "replies.json").write_text(json.dumps(dict(data.replies), ensure_ascii=False, indent=1), encoding="utf-8")
    write_manifest(out)


def embedded(
    served: ServedEncoder, data: LabelledData, *, cache: EmbeddingCache | None, said: Callable[[float, str], None]
) -> dict[str, Rows]:
    """Each part of the data as embedded Rows."""
    rows, done, total = {}, 0, sum(len(getattr(data, part)) for part in PARTS)
    for part in PARTS:
        frame = getattr(data, part)
        texts = list(frame["text"])
        step = functools.partial(_embedding_progress, said, part=part, done=done, n=len(texts), total=total)
        matrix = cache.encode(served, texts, progress=step) if cache else served.encode(texts, progress=step)
        rows[part] = Rows(matrix, frame["label"].to_numpy(dtype=object), tuple(text.text_hash(t) for t in texts), tuple(texts))
        done += len(texts)
    return rows


def _embedding_progress(said: Callable[[float, str], None], fraction: float, *, part: str, done: int, n: int, total: int) -> None:
    said((done + fraction * n) / max(total, 1), f"Embedding {part} rows with the served form")


def label_name(label: str) -> str:
    """A label as words: "card_arrival" -> "card arrival"."""
    return " ".join(label.replace("_", " ").replace("-", " ").split())


def with_label_names(train: Rows, served: Any, *, weight: int) -> Rows:
    """The rows and, `weight` times each, the names of their labels: what a label is called tells much when rows are few."""
    labels = sorted(set(train.labels))
    names = served.encode([label_name(x) for x in labels])
    repeated = np.repeat(np.arange(len(labels)), weight)
    return Rows(
        np.vstack([train.embeddings, names[repeated]]),
        np.concatenate([train.labels, np.array(labels, dtype=object)[repeated]]),
        (*train.hashes, *(text.text_hash(label_name(labels[i])) for i in repeated)),
        None if train.texts is None else (*train.texts, *(label_name(labels[i]) for i in repeated)),
    )


def compared(data: LabelledData, classifier: Classifier, options: FitOptions) -> dict[str, Any]:
    """{baseline, majority, against_baseline}: the same test rows answered by simpler means, and the paired difference."""
    train_texts, train_labels = list(data.train["text"]), list(data.train["label"])
    inside = data.validation[data.validation["label"].isin(set(train_labels))]
    if options.refit:
        train_texts, train_labels = train_texts + list(inside["text"]), train_labels + list(inside["label"])
    settings = {"resamples": options.resamples, "seed": options.seed}
    test_texts, test_labels = list(data.test["text"]), list(data.test["label"])
    baseline, right = baselines.bag_of_words_figures(train_texts, train_labels, test_texts, test_labels, **settings)
    table = classifier.heldout_table
    kept = table["label"] != OOS
    ours = (table["label"] == table["predicted"])[kept].to_numpy()
    return {
        "baseline": baseline,
        "majority": baselines.majority(train_labels, test_labels, **settings),
        "against_baseline": figure(paired_difference(right, ours, **settings)),
    }


def sentiment_checks(data: LabelledData, classifier: Classifier, options: FitOptions) -> dict[str, Any]:
    """{lexicon, against_lexicon, failure_suite}: the lexicon on the same test rows, the paired difference to it, and the suite."""
    settings = {"resamples": options.resamples, "seed": options.seed}
    lexicon, right = lexicon_figures(list(data.test["text"]), list(data.test["label"]), **settings)
    table = classifier.heldout_table
    ours = (table["label"] == table["predicted"])[table["label"] != OOS].to_numpy()
    return {
        "lexicon": lexicon,
        "against_lexicon": figure(paired_difference(right, ours, **settings)),
        "failure_suite": suite_figures(lambda texts: [prediction.label for prediction in classifier.predict(texts)]),
    }


def _probe(data: LabelledData) -> export.Probe:
    labels = sorted(set(data.train["label"]))
    order = {label: i for i, label in enumerate(labels)}
    inside = data.validation[data.validation["label"].isin(order)]
    train_classes, classes = (frame["label"].map(order).to_numpy() for frame in (data.train, inside))
    return export.Probe(list(data.train["text"]), train_classes, list(inside["text"]), classes, len(labels))


def _facts(encoder: Encoder, data: LabelledData, plan: Finish) -> dict[str, Any]:
    """What model.json keeps beside the numbers."""
    return {
        "max_tokens": encoder.max_tokens, "base": encoder.name, "base_sha256": encoder.sha256, "recipe": plan.recipe, "dataset": data.name,
        "split_hash": data.split_hash, "split_note": data.split_note, "synthetic": data.synthetic, "domains": dict(data.domains),
    }  # fmt: skip


def _within(report: Report, span: tuple[float, float]) -> Callable[[float, str], None]:
    first, last = span
    return lambda fraction, message: report.progress(first + (last - first) * min(max(fraction, 0.0), 1.0), message)
