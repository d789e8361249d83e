"""Teach a classifier a new intent from a handful of examples, while it stays in use: a new head in seconds, nothing else trained.

The head is fitted again on the reference embeddings and the new examples: closed form for ridge, from where it stood for logistic,
so nothing that was known is forgotten. What it does to the known intents, to its neighbours and to out-of-scope messages is
measured on held-out rows by a head that never saw them. The old classifier is left as it is: undo is keeping it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fmcore import text
from fmcore.evaluation.metrics import OOS, figure, mean, paired_difference, scope_figures
from fmcore.models.classifier import Classifier, Rows
from fmcore.models.heads import Head, RidgeSums, fit_head, make_projection
from fmcore.nouns import FMError
from fmcore.training.finish import label_name

MIN_EXAMPLES, MAX_EXAMPLES = 2, 200
MAX_FEATURES = 2000
"""Random features of a taught ridge: solving with 2,000 takes 0.1 CPU-seconds, with 4,000 eight times as long."""
MAX_EXAMPLE_WEIGHT = 10.0
"""A new example counts as up to this many rows, so that five of them are heard beside a hundred of a neighbour. Measured on
Banking77, 8 intents taught with 5 examples each: recall 0.60 at 8, 0.31 at 1, for 0.06 points lost elsewhere."""
NAME_LIMIT = 60
RESAMPLES = 500


class CannotTeach(FMError):
    """The name or the examples cannot be learnt from as they are."""


@dataclass(frozen=True, eq=False)
class Taught:
    """The new classifier, and what teaching did, in figures: see `teach`."""

    classifier: Classifier
    report: dict[str, Any]


def teach(classifier: Classifier, name: str, examples: Sequence[str]) -> Taught:
    """The classifier with one more intent, and a report.

    report: {label, n_examples, before, after, difference, lost: [{label, n}], oos_before, oos_after, landing: [{text, predicted,
    score}], n_landed, seconds, head}. before and after are accuracies on held-out rows of the known intents; difference is paired;
    lost counts held-out rows that now go to the new intent, by their true label; landing says where each new example goes when it
    is left out. Raises CannotTeach, with what to change.
    """
    started = time.perf_counter()
    label, texts = _checked(classifier, name, examples)
    vectors = classifier.embed([*texts, label_name(label)])[0]
    embedded = time.perf_counter()
    new = _NewRows(label, vectors, len(texts), _weight(classifier, len(texts)))
    honest, shipped = _heads(classifier, new)
    solved = time.perf_counter()
    measured = _taught(classifier, honest, new)
    taught = _taught(classifier, shipped, new)
    report = {
        "label": label,
        "n_examples": len(texts),
        "example_weight": round(new.weight, 1),
        **_on_known_rows(classifier, measured, label),
        "landing": _landing(measured, new, texts),
        "head": shipped.kind,
    }
    report["n_landed"] = sum(row["predicted"] == label for row in report["landing"])
    total = time.perf_counter()
    report["seconds"] = {
        "embed": round(embedded - started, 3), "head": round(solved - embedded, 3), "measure": round(total - solved, 3),
        "total": round(total - started, 3),
    }  # fmt: skip
    return Taught(taught, report)


@dataclass(frozen=True, eq=False)
class _NewRows:
    """The new examples (the first n vectors) and the label's name (the last one), each counting as `weight` rows."""

    label: str
    vectors: np.ndarray
    n: int
    weight: float


def _checked(classifier: Classifier, name: str, examples: Sequence[str]) -> tuple[str, list[str]]:
    """(label, cleaned examples). Raises CannotTeach."""
    label = "_".join(text.clean(name, limit=1000)[0].split())
    if not any(c.isalnum() for c in label) or len(label) > NAME_LIMIT:
        raise CannotTeach(f"A name of {len(label)} characters is not a name for an intent.", f"Use 1 to {NAME_LIMIT} letters and digits.")
    taken = {x.casefold() for x in classifier.labels} | {OOS}
    if label.casefold() in taken:
        raise CannotTeach(f"There is an intent {label} already.", "Choose another name; to improve an intent, train with more rows.")
    cleaned = [text.clean(e)[0].strip() for e in examples]
    kept = list({" ".join(e.casefold().split()): e for e in reversed(cleaned) if any(c.isalnum() for c in e)}.values())[::-1]
    if len(kept) < MIN_EXAMPLES:
        few = f"{len(kept)} different examples with words in them; an intent needs {MIN_EXAMPLES} at least."
        raise CannotTeach(few, "Five varied examples work well.")
    if len(kept) > MAX_EXAMPLES:
        raise CannotTeach(f"{len(kept)} examples are more than teaching takes ({MAX_EXAMPLES}).", "Add them to the data and train instead.")
    return label, kept


def _weight(classifier: Classifier, n: int) -> float:
    """How many rows a new example counts as: enough that the new intent weighs about as much as a usual one, within bounds."""
    usual = float(np.median(list(Counter(classifier.reference.labels).values())))
    return float(np.clip(usual / (n + 1), 1.0, MAX_EXAMPLE_WEIGHT))


def _heads(classifier: Classifier, new: _NewRows) -> tuple[Head, Head]:
    """(a head that saw no held-out row, the head to ship): the same one where the reference holds no held-out rows."""
    order = {label: i for i, label in enumerate((*classifier.labels, new.label))}
    classes = np.array([order[x] for x in classifier.reference.labels])
    seen = classifier.heldout_seen
    vectors, kind, settings = classifier.reference.embeddings, classifier.head.kind, dict(classifier.head.settings)
    sums = None
    if "features" in settings:
        settings["features"] = min(MAX_FEATURES, settings["features"])
        projection = make_projection(vectors.shape[1], int(settings["features"]), seed=int(settings["seed"]))
        sums = RidgeSums(projection, n_classes=len(order))
        sums.add(vectors[~seen], classes[~seen])
        sums.add(new.vectors, np.full(len(new.vectors), len(order) - 1), weights=np.full(len(new.vectors), new.weight))

    def fit(kept: np.ndarray, start: Head | None) -> Head:
        weights = np.concatenate([np.ones(int(kept.sum())), np.full(len(new.vectors), new.weight)])
        rows = np.vstack([vectors[kept], new.vectors])
        which = np.concatenate([classes[kept], np.full(len(new.vectors), len(order) - 1)])
        return fit_head(kind, settings, rows, which, n_classes=len(order), weights=weights, sums=sums, start=start)

    honest = fit(~seen, _start(classifier.head))
    if not seen.any():
        return honest, honest
    if sums is not None:
        sums.add(vectors[seen], classes[seen])
    return honest, fit(np.ones(len(classes), dtype=bool), _start(honest))


def _start(head: Head) -> Head | None:
    """The logistic part of a head, to start the next fit from."""
    if "linear" not in head.arrays:
        return None
    scale = 2 * head.settings["first_t"] if head.kind == "blend" else 1.0
    return Head("logistic", {k: head.arrays[k] * np.float32(scale) for k in ("linear", "bias")}, {})


def _taught(classifier: Classifier, head: Head, new: _NewRows) -> Classifier:
    examples = new.vectors[: new.n]
    reference = Rows(
        np.vstack([classifier.reference.embeddings, examples]),
        np.concatenate([classifier.reference.labels, np.array([new.label] * new.n, dtype=object)]),
    )
    return replace(
        classifier,
        labels=(*classifier.labels, new.label),
        head=head,
        novelty=classifier.novelty.with_class(examples),
        reference=reference,
        heldout_seen=np.concatenate([classifier.heldout_seen, np.zeros(new.n, dtype=bool)]),
        info={**classifier.info, "taught": [*classifier.info.get("taught", ()), new.label]},
        version=f"{classifier.version}+{new.label}",
    )


def _on_known_rows(old: Classifier, taught: Classifier, label: str) -> dict[str, Any]:
    """Before and after on the held-out rows. Before rests on the stored answers, which came from rows not learnt from."""
    if not len(old.heldout):
        return {"before": None, "after": None, "difference": None, "lost": [], "oos_before": None, "oos_after": None}
    table, predictions = old.heldout_table, taught.decide(old.heldout.embeddings)
    true = np.asarray(old.heldout.labels, dtype=object)
    is_oos = true == OOS
    said = np.array([p.label for p in predictions], dtype=object)
    right_before, right_after = (table["predicted"].to_numpy(dtype=object) == true), said == true
    options = {"resamples": RESAMPLES, "seed": 0}
    lost = Counter(true[(said == label) & ~is_oos])
    accepted = np.array([p.in_scope for p in predictions])
    return {
        "before": figure(mean(right_before[~is_oos], **options)),
        "after": figure(mean(right_after[~is_oos], **options)),
        "difference": figure(paired_difference(right_before[~is_oos], right_after[~is_oos], **options)),
        "lost": [{"label": x, "n": n} for x, n in lost.most_common()],
        "oos_before": scope_figures(
            table["novelty"].to_numpy(float), is_oos, table["in_scope"].to_numpy(bool), right_before, **options
        ),
        "oos_after": scope_figures(np.array([p.novelty for p in predictions]), is_oos, accepted, right_after, **options),
    }


def _landing(taught: Classifier, new: _NewRows, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Where each new example goes when it is left out: its nearest known intent by the similarity of its three nearest rows."""
    known, vectors = taught.reference, new.vectors[: new.n]
    first = len(known) - new.n
    rows = []
    for i, vector in enumerate(vectors):
        similarity = known.embeddings @ vector
        similarity[first + i] = -np.inf
        votes: Counter[str] = Counter()
        for row in np.argsort(-similarity)[:3]:
            votes[known.labels[row]] += float(max(similarity[row], 0.0))
        label, weight = votes.most_common(1)[0] if votes else ("", 0.0)
        rows.append({"text": texts[i], "predicted": str(label), "score": round(weight / max(sum(votes.values()), 1e-9), 3)})
    return rows
