"""The lexicon that users would otherwise pick: VADER, which stands beside every sentiment model as its baseline.

It knows no finance and learns nothing. Source: Hutto and Gilbert 2014, "VADER: A Parsimonious Rule-based Model for Sentiment
Analysis of Social Media Text" (package vaderSentiment); the thresholds are the authors'.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from fmcore.evaluation.metrics import OOS, accuracy, figure, macro_f1

NAME = "VADER"
THRESHOLD = 0.05
"""A compound score of at least this is positive, of at most its negative is negative, and neutral between."""


@functools.cache
def _analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def lexicon_scores(texts: Sequence[str]) -> np.ndarray:
    """float64 (n,) in [-1, 1]: the compound score of each text; 0 for an empty one."""
    analyzer = _analyzer()
    return np.array([analyzer.polarity_scores(text)["compound"] for text in texts], dtype=np.float64)


def lexicon_labels(texts: Sequence[str]) -> np.ndarray:
    """ "negative", "neutral" or "positive" for each text, by the authors' thresholds."""
    scores = lexicon_scores(texts)
    return np.where(scores >= THRESHOLD, "positive", np.where(scores <= -THRESHOLD, "negative", "neutral")).astype(object)


def lexicon_figures(
    texts: Sequence[str], labels: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> tuple[dict[str, Any], np.ndarray]:
    """({name, accuracy, macro_f1}, right or wrong on each in-scope row) of the lexicon on labelled rows."""
    true = np.asarray(labels, dtype=object)
    inside = true != OOS
    said, true = lexicon_labels(list(np.asarray(texts, dtype=object)[inside])), true[inside]
    options = {"resamples": resamples, "seed": seed}
    shown = {"name": NAME, "accuracy": figure(accuracy(true, said, **options)), "macro_f1": figure(macro_f1(true, said, **options))}
    return shown, said == true
