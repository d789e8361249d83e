"""The failure suite: sentences on which sentiment models are known to fail, run at each training and shown with what failed.

Kinds: negation, comparison with another period or an estimate, "less bad than", two companies in one sentence, hedges, numbers.
Written for FM Desk; synthetic; never trained on. A sentence that names two companies is judged for its subject, the one named first
(after "unlike", the other one). Counts only: a few dozen sentences say where a model is blind, not how often it errs on news.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fmcore.evaluation.lexicon import NAME, lexicon_labels

FILE = Path(__file__).resolve().parents[1] / "data" / "builtin" / "failure_suite.csv"
KINDS = ("negation", "comparison", "less bad", "two companies", "hedge", "number")
Predict = Callable[[Sequence[str]], Sequence[str]]
"""Texts in, one label a text out."""


@dataclass(frozen=True)
class Failure:
    """A sentence that was labelled otherwise than a reader would."""

    kind: str
    text: str
    expected: str
    said: str


@dataclass(frozen=True)
class KindCount:
    """How many sentences of a kind passed."""

    kind: str
    n: int
    n_passed: int


@dataclass(frozen=True)
class SuiteResult:
    """What came of the suite: counts by kind, in the order of KINDS, and every failure."""

    kinds: tuple[KindCount, ...]
    failures: tuple[Failure, ...]

    @property
    def n(self) -> int:
        return sum(kind.n for kind in self.kinds)

    @property
    def n_passed(self) -> int:
        return sum(kind.n_passed for kind in self.kinds)


@functools.cache
def _cases() -> pd.DataFrame:
    return pd.read_csv(FILE, dtype=str, keep_default_na=False)


def cases() -> pd.DataFrame:
    """The sentences: columns kind, expected, text."""
    return _cases().copy()


def suite(predict: Predict) -> SuiteResult:
    """Run every sentence through `predict` and compare. Raises ValueError when it does not answer each of them."""
    rows = _cases().assign(said=_answers(predict))
    passed = rows["said"] == rows["expected"]
    counts = [KindCount(kind, int((rows["kind"] == kind).sum()), int(passed[rows["kind"] == kind].sum())) for kind in KINDS]
    wrong = rows[~passed].itertuples(index=False)
    return SuiteResult(tuple(counts), tuple(Failure(row.kind, row.text, row.expected, row.said) for row in wrong))


def suite_figures(predict: Predict) -> dict[str, Any]:
    """The suite as a version's metrics keep it, the lexicon's counts beside.

    {n, n_passed, kinds: [{kind, n, n_passed, n_lexicon}], failures: [{kind, text, expected, said}], lexicon, n_lexicon}.
    """
    ours, theirs = suite(predict), suite(lexicon_labels)
    kinds = [asdict(mine) | {"n_lexicon": other.n_passed} for mine, other in zip(ours.kinds, theirs.kinds, strict=True)]
    failures = [asdict(failure) for failure in ours.failures]
    return {"n": ours.n, "n_passed": ours.n_passed, "kinds": kinds, "failures": failures, "lexicon": NAME, "n_lexicon": theirs.n_passed}


def _answers(predict: Predict) -> list[str]:
    texts = list(_cases()["text"])
    said = [str(label) for label in predict(texts)]
    if len(said) != len(texts):
        raise ValueError(f"{len(said)} answers to {len(texts)} sentences")
    return said
