"""Figures with their uncertainty: every metric is an Estimate with a 95 % bootstrap interval over rows.

Owns what is counted and how it is resampled; never fits anything, never sees a text. A row whose true label is "oos" is out
of scope: it counts in the out-of-scope block only. Nothing returned here is NaN: a figure without rows is None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fmcore.nouns import Estimate, Prediction

OOS = "oos"
"""The label of a row that belongs to no intent."""

ECE_BINS = 15


def figure(estimate: Estimate | None, *, digits: int = 5) -> dict | None:
    """An Estimate as JSON: {"value", "low", "high", "n"}, or None where there were no rows."""
    if estimate is None:
        return None
    kept = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {**{k: round(float(v), digits) for k, v in kept.items()}, "n": estimate.n}


def resampled_rows(n: int, *, resamples: int, seed: int) -> np.ndarray:
    """(resamples, n) row numbers drawn with replacement: the bootstrap that every figure here uses."""
    return np.random.default_rng(seed).integers(0, n, size=(resamples, n), dtype=np.int32)


def bootstrap(statistic: Callable[[np.ndarray], float], n: int, *, resamples: int, seed: int = 0) -> Estimate | None:
    """Estimate of a statistic of row numbers, with the percentile interval. None without rows."""
    if n == 0:
        return None
    value = float(statistic(np.arange(n)))
    drawn = np.array([statistic(rows) for rows in resampled_rows(n, resamples=resamples, seed=seed)])
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(value, float(min(low, value)), float(max(high, value)), n)


def mean(values: Sequence[float] | np.ndarray, *, resamples: int = 1000, seed: int = 0) -> Estimate | None:
    """The mean of per-row values (accuracy: 1 for right, 0 for wrong)."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        return None
    drawn = values[resampled_rows(len(values), resamples=resamples, seed=seed)].mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def accuracy(true: Sequence[str], predicted: Sequence[str], *, resamples: int = 1000, seed: int = 0) -> Estimate | None:
    """Share of rows whose predicted label is the true one."""
    return mean(np.asarray(true, dtype=object) == np.asarray(predicted, dtype=object), resamples=resamples, seed=seed)


def macro_f1(true: Sequence[str], predicted: Sequence[str], *, resamples: int = 1000, seed: int = 0) -> Estimate | None:
    """Mean F1 over the classes that occur among the true labels of the (resampled) rows."""
    names = sorted(set(true) | set(predicted))
    index = {name: i for i, name in enumerate(names)}
    t, p = np.array([index[x] for x in true], dtype=int), np.array([index[x] for x in predicted], dtype=int)

    def value(rows: np.ndarray) -> float:
        tt, pp = t[rows], p[rows]
        n_true, n_predicted = np.bincount(tt, minlength=len(names)), np.bincount(pp, minlength=len(names))
        hit = np.bincount(tt[tt == pp], minlength=len(names))
        seen = n_true > 0
        return float((2 * hit[seen] / (n_true + n_predicted)[seen]).mean())

    return bootstrap(value, len(t), resamples=resamples, seed=seed)


def ece(scores: Sequence[float], correct: Sequence[bool], *, bins: int = ECE_BINS, resamples: int = 1000, seed: int = 0) -> Estimate | None:
    """Expected calibration error of the top score, equal-width bins. Its bootstrap interval is biased upwards, as ECE is."""
    s, c = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    which = np.clip((s * bins).astype(int), 0, bins - 1)
    gap = s - c

    def value(rows: np.ndarray) -> float:
        return float(np.abs(np.bincount(which[rows], weights=gap[rows], minlength=bins)).sum() / len(rows))

    return bootstrap(value, len(s), resamples=resamples, seed=seed)


def auroc_value(negatives: np.ndarray, positives: np.ndarray) -> float:
    """Chance that a random positive (out of scope) scores above a random negative; ties count half."""
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, side="left")
    upto = np.searchsorted(ordered, positives, side="right")
    return float((below + upto).mean() / (2 * len(ordered)))


def auroc(novelty: Sequence[float], is_oos: Sequence[bool], *, resamples: int = 1000, seed: int = 0) -> Estimate | None:
    """Area under the ROC curve of a novelty score; both kinds are resampled within themselves. None if one is missing."""
    s, o = np.asarray(novelty, dtype=np.float64), np.asarray(is_oos, dtype=bool)
    inside, outside = s[~o], s[o]
    if not len(inside) or not len(outside):
        return None
    rng = np.random.default_rng(seed)
    drawn = [
        auroc_value(inside[rng.integers(0, len(inside), len(inside))], outside[rng.integers(0, len(outside), len(outside))])
        for _ in range(resamples)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(auroc_value(inside, outside), float(low), float(high), len(s))


def paired_difference(
    correct_a: Sequence[bool], correct_b: Sequence[bool], *, resamples: int = 1000, seed: int = 0
) -> Estimate | None:
    """How much more often b is right than a on the same rows (paired bootstrap)."""
    a, b = np.asarray(correct_a, dtype=np.float64), np.asarray(correct_b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"a paired comparison needs the same rows, not {len(a)} and {len(b)}")
    return mean(b - a, resamples=resamples, seed=seed)


def per_class(true: Sequence[str], predicted: Sequence[str]) -> list[dict]:
    """[{label, precision, recall, f1, n, n_predicted}] by falling n; precision is None for a label never predicted."""
    n_true, n_predicted = Counter(true), Counter(predicted)
    hits = Counter(t for t, p in zip(true, predicted, strict=True) if t == p)
    rows = []
    for label in sorted(n_true, key=lambda x: (-n_true[x], x)):
        hit, said = hits[label], n_predicted[label]
        rows.append({
            "label": label, "n": n_true[label], "n_predicted": said,
            "precision": round(hit / said, 5) if said else None,
            "recall": round(hit / n_true[label], 5),
            "f1": round(2 * hit / (n_true[label] + said), 5),
        })  # fmt: skip
    return rows


def confusions(true: Sequence[str], predicted: Sequence[str], *, limit: int = 50) -> list[dict]:
    """[{true, predicted, n}] of the wrong answers, most frequent first."""
    wrong = Counter((t, p) for t, p in zip(true, predicted, strict=True) if t != p)
    return [{"true": t, "predicted": p, "n": n} for (t, p), n in sorted(wrong.items(), key=lambda x: (-x[1], x[0]))[:limit]]


def scope_figures(
    novelty: np.ndarray, is_oos: np.ndarray, accepted: np.ndarray, correct: np.ndarray, *, resamples: int, seed: int
) -> dict | None:
    """The out-of-scope block. An in-scope row counts as right only when it was accepted and its label is right."""
    if not is_oos.any() or is_oos.all():
        return None
    inside = ~is_oos
    return {
        "n": int(is_oos.sum()),
        "auroc": figure(auroc(novelty, is_oos, resamples=resamples, seed=seed)),
        "recall": figure(mean(~accepted[is_oos], resamples=resamples, seed=seed)),
        "in_scope_accuracy": figure(mean(accepted[inside] & correct[inside], resamples=resamples, seed=seed)),
    }


def coverage_figures(true: Sequence[str], predictions: Sequence[Prediction], *, resamples: int, seed: int) -> dict | None:
    """How often the conformal set held the true label, beside what was promised, and how large the sets are."""
    if not predictions:
        return None
    held = [t in p.candidates for t, p in zip(true, predictions, strict=True)]
    return {
        "target": predictions[0].coverage,
        "measured": figure(mean(held, resamples=resamples, seed=seed)),
        "mean_size": round(float(np.mean([len(p.candidates) for p in predictions])), 3),
    }


def evaluate_predictions(
    true_labels: Sequence[str], predictions: Sequence[Prediction], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """What `python -m fmcore evaluate` prints (design.md section 6): n, accuracy, macro_f1, ece, oos, then the details.

    Accuracy, macro-F1 and ECE are over in-scope rows before the scope decision; the oos block is at the served threshold,
    and is None without out-of-scope rows. A true label that the model does not know counts as a wrong answer.
    """
    if len(true_labels) != len(predictions):
        raise ValueError(f"{len(true_labels)} labels for {len(predictions)} predictions")
    is_oos = np.array([t == OOS for t in true_labels], dtype=bool)
    correct = np.array([t == p.label for t, p in zip(true_labels, predictions, strict=True)], dtype=bool)
    inside = [(t, p) for t, p, o in zip(true_labels, predictions, is_oos, strict=True) if not o]
    true, said = [t for t, _ in inside], [p.label for _, p in inside]
    options: Mapping[str, int] = {"resamples": resamples, "seed": seed}
    return {
        "n": len(true_labels),
        "accuracy": figure(mean(correct[~is_oos], **options)),
        "macro_f1": figure(macro_f1(true, said, **options)),
        "ece": figure(ece([p.score for _, p in inside], correct[~is_oos], **options)),
        "oos": scope_figures(
            np.array([p.novelty for p in predictions]), is_oos, np.array([p.in_scope for p in predictions], dtype=bool), correct, **options
        ),
        "coverage": coverage_figures(true, [p for _, p in inside], **options),
        "per_class": per_class(true, said),
        "confusions": confusions(true, said),
    }
