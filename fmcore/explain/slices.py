"""Slices: parts of labelled rows by what can be said of a row, and whether a model is weaker there than elsewhere.

Works on rows and on right or wrong; never asks a model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fmcore.explain import words
from fmcore.explain.heldout import Held

BINS = (0.5, 0.8, 0.95)
"""Where confidence is cut: the score of the answer."""
LEAST = 10
"""Rows of a slice below which nothing is said of it."""
FALSE_DISCOVERIES = 0.05
"""Expected share of slices called weak that are not (Benjamini and Hochberg 1995)."""
CONFIDENCE = "confidence"
"""Weak where it is low by its very nature, so it is judged apart and lends no other slice its evidence."""
COLUMNS = (
    "by", "slice", "n", "n_right", "accuracy", "low", "high", "confidence", "rest", "difference", "difference_low", "difference_high", "p",
    "weak",
)  # fmt: skip
_AGREEMENT = {"all": "all agree", "75": "75 % and more agree", "66": "66 to 75 % agree", "50": "50 to 66 % agree"}


def cuts(held: Held, *, topics: Sequence[str] | None = None) -> dict[str, pd.Series]:
    """For each way to cut the rows of `held` the slice of every row, as a Series along them: length (thirds by number of words),
    confidence, label, and domain, annotators, source and topic where they are known. topics: a topic a row."""
    rows = held.rows
    found = {"length": lengths(rows["text"]), CONFIDENCE: confidences(rows["score"]), "label": rows["label"]}
    if held.domains:
        found["domain"] = rows["label"].map(held.domains)
    if held.tiers:
        found["annotators"] = rows["text_hash"].map(held.tiers).map(lambda tier: _AGREEMENT.get(tier, tier), na_action="ignore")
    if held.sources:
        found["source"] = rows["text_hash"].map(held.sources)
    if topics is not None:
        found["topic"] = pd.Series(list(topics), index=rows.index, dtype="str")
    return found


def lengths(texts: pd.Series) -> pd.Series:
    """Short, medium and long: thirds by the number of words, as even as ties let them be."""
    n = texts.map(lambda each: len(words.split(each)))
    first, second = (int(edge) for edge in np.quantile(n, [1 / 3, 2 / 3], method="lower"))
    names = (f"short: up to {_words(first)}", f"medium: {first + 1} to {_words(second)}", f"long: more than {_words(second)}")
    return pd.Series(np.select([n <= first, n <= second], names[:2], default=names[2]), index=texts.index)


def _words(n: int) -> str:
    return f"{n} word" if n == 1 else f"{n} words"


def confidences(scores: pd.Series) -> pd.Series:
    """The bin of each score."""
    names = [f"below {BINS[0]:g}", *(f"{a:g} to {b:g}" for a, b in itertools.pairwise(BINS)), f"{BINS[-1]:g} or more"]
    return pd.Series(np.array(names, dtype=object)[np.searchsorted(BINS, scores, side="right")], index=scores.index)


def measured(right: pd.Series, score: pd.Series, by: Mapping[str, pd.Series]) -> pd.DataFrame:
    """COLUMNS, the weak ones first, then from the worst difference to the best. right (bool) and score along the same rows as `by`.

    accuracy with its Wilson interval; difference from the accuracy of all other rows (rest) with Newcombe's hybrid score interval
    (Newcombe 1998, Statistics in Medicine 17, method 10); confidence is the mean score. weak: the interval lies below 0, and Fisher's exact
    test passes Benjamini and Hochberg's rule over all slices (those by confidence among themselves). Slices of fewer than LEAST
    rows, or with fewer than that outside, are left out.
    """
    found = []
    for name, parts in by.items():
        for part, places in parts.dropna().groupby(parts).groups.items():
            if len(places) >= LEAST and len(right) - len(places) >= LEAST:
                found.append({"by": name, "slice": str(part), **_compared(right.loc[places], right.drop(places), score.loc[places])})
    table = pd.DataFrame(found, columns=list(COLUMNS)).astype({"weak": bool})
    for apart in (True, False):
        table = _judged(table, (table["by"] == CONFIDENCE) == apart)
    return table.sort_values(["weak", "difference", "by", "slice"], ascending=[False, True, True, True]).reset_index(drop=True)


def _compared(inside: pd.Series, outside: pd.Series, score: pd.Series) -> dict[str, float]:
    from scipy.stats import fisher_exact

    n, k, m, rest = len(inside), int(inside.sum()), len(outside), int(outside.sum())
    (p, low, high), (q, rest_low, rest_high) = _share(k, n), _share(rest, m)
    return {
        "n": n, "n_right": k, "accuracy": p, "low": low, "high": high, "confidence": float(score.mean()), "rest": q, "difference": p - q,
        "difference_low": p - q - math.hypot(p - low, rest_high - q), "difference_high": p - q + math.hypot(high - p, q - rest_low),
        "p": min(1.0, float(fisher_exact([[k, n - k], [rest, m - rest]]).pvalue)), "weak": False,
    }  # fmt: skip


def _share(k: int, n: int) -> tuple[float, float, float]:
    """(share, low, high): Wilson's 95 % interval."""
    from scipy.stats import binomtest

    interval = binomtest(k, n).proportion_ci(method="wilson")
    return k / n, float(interval.low), float(interval.high)


def _judged(table: pd.DataFrame, family: pd.Series) -> pd.DataFrame:
    from scipy.stats import false_discovery_control

    if family.any():
        passes = false_discovery_control(table.loc[family, "p"].to_numpy()) <= FALSE_DISCOVERIES
        table.loc[family, "weak"] = passes & (table.loc[family, "difference_high"] < 0).to_numpy()
    return table
