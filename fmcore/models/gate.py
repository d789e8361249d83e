"""The gate: may a machine put this model in the champion's place? A verdict is one plain sentence and the checks behind it.

Compares two versions on the very rows that both answered when they were trained (heldout.parquet, joined by text hash); never
runs a model and never changes a row. The rules, in order:

1. accuracy is present and finite, and its 95 % interval lies above the share of the most frequent label;
2. without a champion the first sound model passes;
3. a champion trained on demo data gives way to a sound model trained on real data;
4. on the same data set, split and labels the candidate must be better: the lower bound of the paired bootstrap interval of the
   difference in accuracy is above 0. And no slice may be worse by more than MARGIN beyond noise: the upper bound of the paired
   interval of its difference is below -MARGIN. Slices: labels with at least SLICE_ROWS shared rows, recall and AUROC out of scope;
5. otherwise the two cannot be compared, and a person has to decide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmcore.evaluation.metrics import OOS, auroc_value, paired_difference
from fmcore.nouns import Estimate, ModelVersion

if TYPE_CHECKING:
    import pandas as pd

Verdict = dict[str, Any]
MARGIN = 0.05
SLICE_ROWS = 20
RESAMPLES = 1000


@dataclass(frozen=True)
class Candidate:
    """What the gate reads of a version: its row, its facts (model.json under metrics) and its held-out answers."""

    version: ModelVersion
    labels: tuple[str, ...]
    split_hash: str
    synthetic: bool
    heldout: pd.DataFrame

    @property
    def name(self) -> str:
        return self.version.version


def read_heldout(folder: Path) -> pd.DataFrame:
    """heldout.parquet, one row a text: text_hash, label, predicted, novelty, in_scope. Raises OSError, ValueError, KeyError."""
    import pandas as pd

    frame = pd.read_parquet(folder / "heldout.parquet", columns=["text_hash", "label", "predicted", "score", "novelty", "in_scope"])
    return frame.drop_duplicates("text_hash").reset_index(drop=True)


def judge(candidate: Candidate, champion: Candidate | None) -> Verdict:
    """The verdict on a candidate whose folder has been verified."""
    checks = soundness(candidate)
    failed = next((c for c in checks if not c["passed"]), None)
    if failed:
        return verdict_of(False, f"{candidate.name} is not fit to serve: {failed['detail']}", checks, champion)
    accuracy = _percent(candidate.version.metrics["accuracy"]["value"])
    if champion is None:
        return verdict_of(True, f"The first model of this task, with {accuracy} of held-out rows right.", checks, None)
    if champion.synthetic and not candidate.synthetic:
        data = candidate.version.dataset
        reason = f"{champion.name} was trained on demo data; this one on real data ({data}), {accuracy} of held-out rows right."
        return verdict_of(True, reason, checks, champion)
    apart = not_comparable(candidate, champion)
    if apart:
        return verdict_of(False, f"Not comparable with {champion.name}: {apart}. A person has to decide.", checks, champion)
    return _compared(candidate, champion, checks)


def refused(reason: str, *, check: str, compared_with: str | None = None) -> Verdict:
    """A verdict of no for a reason found before the figures were looked at."""
    checks = [check_of(check, False, reason)]
    return {"passed": False, "reason": reason, "checks": checks, "compared_with": compared_with, "difference": None}


def soundness(candidate: Candidate) -> list[dict]:
    """Rule 1 as checks; the first that failed is why a version is not fit to serve."""
    metrics = candidate.version.metrics
    accuracy = metrics.get("accuracy") if isinstance(metrics.get("accuracy"), Mapping) else {}
    figures = [accuracy.get(key) for key in ("value", "low", "high")]
    if not all(isinstance(x, int | float) and math.isfinite(x) for x in figures):
        return [check_of("figures", False, "its accuracy is missing or not a finite number.")]
    rows = candidate.heldout
    if not np.isfinite(rows[["score", "novelty"]].to_numpy(dtype=float)).all():
        return [check_of("figures", False, "its held-out answers hold scores that are not finite numbers.")]
    inside = rows[rows["label"] != OOS]
    if inside.empty:
        return [check_of("figures", False, "it has no held-out rows to be judged on.")]
    share = float(inside["label"].value_counts(normalize=True).iloc[0])
    low = float(accuracy["low"])
    against = f"accuracy is at least {_percent(low)}; always saying the most frequent label gets {_percent(share)}."
    return [
        check_of("figures", True, f"accuracy {_percent(accuracy['value'])} on {len(inside)} rows"),
        check_of("beats the most frequent label", low > share, against),
    ]


def not_comparable(candidate: Candidate, champion: Candidate) -> str:
    """Why two versions cannot be measured against each other, or ""."""
    mine, theirs = candidate.version.dataset, champion.version.dataset
    if mine != theirs:
        return f"it was trained on {mine}, the champion on {theirs}"
    if set(candidate.labels) != set(champion.labels):
        return f"it knows {len(candidate.labels)} labels and the champion {len(champion.labels)}, not the same ones"
    if not candidate.split_hash or candidate.split_hash != champion.split_hash:
        return f"the held-out rows of {mine} were split differently"
    return ""


def _compared(candidate: Candidate, champion: Candidate, checks: list[dict]) -> Verdict:
    both = champion.heldout.merge(candidate.heldout, on=["text_hash", "label"], suffixes=("_old", "_new"))
    inside = both[both["label"] != OOS]
    if inside.empty:
        return verdict_of(False, f"No held-out row was answered by both it and {champion.name}.", checks, champion)
    right_old, right_new = inside["predicted_old"] == inside["label"], inside["predicted_new"] == inside["label"]
    difference = paired_difference(right_old, right_new, resamples=RESAMPLES)
    better = difference.low > 0
    interval = f"95 % interval {_points(difference.low)} to {_points(difference.high)}"
    spread = f"{_points(difference.value)} points ({interval}) on {difference.n} shared rows"
    checks = [*checks, check_of("better than the champion", better, spread), *slice_checks(both, inside, right_old, right_new)]
    stated = {"value": difference.value, "low": difference.low, "high": difference.high, "n": difference.n}
    against = f"{_percent(right_new.mean())} against {_percent(right_old.mean())} right"
    worse = [c for c in checks if not c["passed"] and c["name"].startswith("slice")]
    if not better:
        word = "worse than" if difference.high < 0 else "not proved better than"
        return verdict_of(False, f"It is {word} {champion.name}: {against}, {spread}.", checks, champion, stated)
    if worse:
        reason = f"It is better overall ({against}), but worse where it must not be: {worse[0]['detail']}."
        return verdict_of(False, reason, checks, champion, stated)
    return verdict_of(True, f"It is better than {champion.name}: {against}, {spread}.", checks, champion, stated)


def slice_checks(
    both: pd.DataFrame, inside: pd.DataFrame, right_old: pd.Series, right_new: pd.Series, *, margin: float = MARGIN
) -> list[dict]:
    """A check for each slice that failed, or one that says how many were looked at."""
    drops: list[tuple[str, Estimate]] = []
    for label, rows in inside.groupby("label").groups.items():
        if len(rows) >= SLICE_ROWS:
            drops.append((f"label {label}", paired_difference(right_old[rows], right_new[rows], resamples=RESAMPLES)))
    outside = both[both["label"] == OOS]
    if len(outside) >= SLICE_ROWS:
        drops.append(("out-of-scope recall", paired_difference(~outside["in_scope_old"], ~outside["in_scope_new"], resamples=RESAMPLES)))
        drops.append(("out-of-scope AUROC", _auroc_difference(inside, outside)))
    rule = f"none of {len(drops)} slices is worse by more than {margin * 100:g} points beyond noise"
    failed = [
        check_of(f"slice {name}", False, f"{name} changed by {_points(d.value)} points (at best {_points(d.high)}) on {d.n} rows")
        for name, d in drops
        if d.high < -margin
    ]
    return failed or [check_of("slices", True, rule)]


def _auroc_difference(inside: pd.DataFrame, outside: pd.DataFrame) -> Estimate:
    """How much better the candidate's novelty tells the two kinds apart; both models on the same resampled rows."""
    old_in, new_in = inside["novelty_old"].to_numpy(), inside["novelty_new"].to_numpy()
    old_out, new_out = outside["novelty_old"].to_numpy(), outside["novelty_new"].to_numpy()
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES // 5):
        i, o = rng.integers(0, len(old_in), len(old_in)), rng.integers(0, len(old_out), len(old_out))
        drawn.append(auroc_value(new_in[i], new_out[o]) - auroc_value(old_in[i], old_out[o]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    value = auroc_value(new_in, new_out) - auroc_value(old_in, old_out)
    return Estimate(float(value), float(low), float(high), len(old_out))


def check_of(name: str, passed: bool, detail: str) -> dict:
    """One rule as it came out; detail is a part of a sentence."""
    return {"name": name, "passed": bool(passed), "detail": detail}


def verdict_of(passed: bool, reason: str, checks: list[dict], champion: Candidate | None, difference: dict | None = None) -> Verdict:
    """The answer as it is stored. difference: {"value", "low", "high", "n"} of the paired difference in accuracy, as shares."""
    name = champion.name if champion else None
    return {"passed": passed, "reason": reason, "checks": checks, "compared_with": name, "difference": difference}


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _points(difference: float) -> str:
    return f"{difference * 100:+.1f}"
