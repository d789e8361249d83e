"""Teach a classifier a new intent from a handful of examples, while it stays in use: a new head in seconds, nothing else trained.

The head gets one more class, fitted on the new examples against all reference rows; what it says of the known intents among
themselves stays as it was, so nothing is forgotten: a known row can only be lost to the new intent itself. That, and what happens
out of scope, is measured on held-out rows by scores that never saw them. The old classifier is left as it is: undo is keeping it.
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
from fmcore.models.heads import fit_one_more, with_class
from fmcore.models.novelty import energy
from fmcore.nouns import FMError
from fmcore.training.finish import label_name

MIN_EXAMPLES, MAX_EXAMPLES = 2, 200
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
    shown = [*texts, label_name(label)]
    vectors, lexical = classifier.embed(shown)[0], classifier.lexical_scores(shown)
    embedded = time.perf_counter()
    new = _fitted(classifier, label, vectors, len(texts), lexical)
    solved = time.perf_counter()
    taught = _taught(classifier, new)
    report = {
        "label": label,
        "n_examples": len(texts),
        "example_weight": round(new.weight, 1),
        **_on_known_rows(classifier, taught, new),
        "landing": _landing(taught, new, texts),
        "head": classifier.head.kind,
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
    """The new examples (the first n vectors) and the label's name (the last one), each counting as `weight` rows; and what was
    fitted on them: the new class's calibrated score is embedding @ direction + bias. lexical: the vectors' texts' lexical scores."""

    label: str
    vectors: np.ndarray
    n: int
    weight: float
    direction: np.ndarray
    bias: float
    lexical: np.ndarray | None


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


def _reference_weights(classifier: Classifier) -> np.ndarray:
    """One a row, but rows of intents that were taught before count as much as they did then."""
    earlier = {x: _weight(classifier, int((classifier.reference.labels == x).sum())) for x in classifier.info.get("taught", ())}
    return np.array([earlier.get(label, 1.0) for label in classifier.reference.labels])


def _weight(classifier: Classifier, n: int) -> float:
    """How many rows a new example counts as: enough that the new intent weighs about as much as a usual one, within bounds."""
    usual = float(np.median(list(Counter(classifier.reference.labels).values())))
    return float(np.clip(usual / (n + 1), 1.0, MAX_EXAMPLE_WEIGHT))


def _fitted(classifier: Classifier, label: str, vectors: np.ndarray, n: int, lexical: np.ndarray | None) -> _NewRows:
    """The new class's scores, fitted on its examples and every reference row."""
    known, weight = classifier.reference.embeddings, _weight(classifier, n)
    rows = np.vstack([known, vectors])
    is_new = np.arange(len(rows)) >= len(known)
    others = -energy(classifier.scale(rows, lexical=_stacked(classifier.reference.lexical, lexical)))
    weights = np.concatenate([_reference_weights(classifier), np.full(len(vectors), weight)])
    direction, bias = fit_one_more(rows, is_new, others, weights=weights)
    return _NewRows(label, vectors, n, weight, direction, bias, lexical)


def _stacked(known: np.ndarray | None, new: np.ndarray | None) -> np.ndarray | None:
    return None if known is None or new is None else np.vstack([known, new])


def _taught(classifier: Classifier, new: _NewRows) -> Classifier:
    examples = new.vectors[: new.n]
    reference = Rows(
        np.vstack([classifier.reference.embeddings, examples]),
        np.concatenate([classifier.reference.labels, np.array([new.label] * new.n, dtype=object)]),
        lexical=_stacked(classifier.reference.lexical, None if new.lexical is None else new.lexical[: new.n]),
    )
    raw = classifier.temperature  # a head's scores are divided by it before they are probabilities
    return replace(
        classifier,
        labels=(*classifier.labels, new.label),
        head=with_class(classifier.head, new.direction * raw, new.bias * raw),
        heldout_scores=_heldout_scores(classifier, new),
        novelty=classifier.novelty.with_class(examples),
        reference=reference,
        heldout_seen=np.concatenate([classifier.heldout_seen, np.zeros(new.n, dtype=bool)]),
        info={**classifier.info, "taught": [*classifier.info.get("taught", ()), new.label]},
        version=f"{classifier.version}+{new.label}",
    )


def _heldout_scores(classifier: Classifier, new: _NewRows) -> np.ndarray:
    """Scores of the held-out rows by a head that never saw them, with the new class's beside them."""
    kept = classifier.heldout_scores
    heldout = classifier.heldout
    known = classifier.scale(heldout.embeddings, lexical=heldout.lexical) if kept is None else kept
    return np.column_stack([known, heldout.embeddings @ new.direction + new.bias]).astype(np.float32)


def _on_known_rows(old: Classifier, taught: Classifier, new: _NewRows) -> dict[str, Any]:
    """Before and after on the held-out rows. Before rests on the stored answers, which came from rows not learnt from."""
    if not len(old.heldout):
        return {"before": None, "after": None, "difference": None, "lost": [], "oos_before": None, "oos_after": None}
    table, scores = old.heldout_table, _heldout_scores(old, new)
    true = np.asarray(old.heldout.labels, dtype=object)
    is_oos = true == OOS
    said = np.array(taught.labels, dtype=object)[scores.argmax(axis=1)]
    novelty = taught.novelty.score(old.heldout.embeddings, scores)
    right_before, right_after = (table["predicted"].to_numpy(dtype=object) == true), said == true
    options = {"resamples": RESAMPLES, "seed": 0}
    lost = Counter(true[(said == new.label) & ~is_oos])
    return {
        "before": figure(mean(right_before[~is_oos], **options)),
        "after": figure(mean(right_after[~is_oos], **options)),
        "difference": figure(paired_difference(right_before[~is_oos], right_after[~is_oos], **options)),
        "lost": [{"label": x, "n": n} for x, n in lost.most_common()],
        "oos_before": scope_figures(table["novelty"].to_numpy(float), is_oos, table["in_scope"].to_numpy(bool), right_before, **options),
        "oos_after": scope_figures(novelty, is_oos, novelty <= taught.threshold, right_after, **options),
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
