"""Measure a version on rows that a person brings: the JSON of `python -m fmcore evaluate` and of POST /api/evaluate.

Owns the shape of that answer, which is a contract (design.md section 6), and the refusal of rows whose labels the version cannot
know. Never decides how a figure is computed: that is evaluation/metrics.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fmcore.evaluation.metrics import OOS, evaluate_predictions
from fmcore.nouns import FMError, Prediction


class WrongLabels(FMError):
    """The rows' labels are not the version's."""


def labels_fit(labels: Sequence[str], *, version: str, known: Mapping[str, Sequence[str]]) -> str:
    """ "" when the version knows every label, else a warning for the log. known: the labels of every version, by name.

    Raises WrongLabels when another version knows them all, or when this one does not know most of them: then another model is meant.
    """
    asked = {label for label in labels if label != OOS}
    missing = asked - set(known.get(version, ()))
    if not missing:
        return ""
    some = ", ".join(repr(label[:60]) for label in sorted(missing)[:3])
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    sentence = f"{version} does not know {len(missing)} of the {len(asked)} labels: {some}{more}."
    knowing = [name for name, theirs in known.items() if asked <= set(theirs)]
    if knowing:
        raise WrongLabels(sentence, f"These versions know them all: {', '.join(knowing[:5])}.")
    if 2 * len(missing) > len(asked):
        raise WrongLabels(sentence, "No version knows them all; train one on this data set first.")
    return f"{sentence} Rows with them count as wrong answers."


def figures(labels: Sequence[str], predictions: Sequence[Prediction], *, task: str, version: str) -> dict[str, Any]:
    """{"n", "accuracy", "macro_f1", "ece", "oos", "task", "version"}; each figure {"value", "low", "high"} or None without rows.

    n counts all rows. accuracy, macro_f1 and ece are over in-scope rows before the scope decision; in oos, n counts the
    out-of-scope rows, and recall and in_scope_accuracy are at the served threshold. oos is None without out-of-scope rows.
    """
    measured = evaluate_predictions(labels, predictions)
    oos = measured["oos"]
    return {
        "n": measured["n"],
        **{name: _bare(measured[name]) for name in ("accuracy", "macro_f1", "ece")},
        "oos": {"n": oos["n"], **{name: _bare(oos[name]) for name in ("auroc", "recall", "in_scope_accuracy")}} if oos else None,
        "task": task,
        "version": version,
    }


def _bare(figure: Mapping[str, Any] | None) -> dict[str, float] | None:
    return {key: figure[key] for key in ("value", "low", "high")} if figure else None
