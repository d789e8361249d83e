"""The gate of recommenders: may a machine put this version in the champion's place? A verdict of the same shape as gate.py's.

Compares where two versions placed the very items that people met next (heldout.parquet); never runs a model and never changes a row.
The rules, in order:

1. NDCG@10 and HR@10 are present and finite, and the served model is better than popularity on the same people: the lower bound of the
   paired bootstrap interval of the difference in NDCG@10 is above 0;
2. without a champion the first sound version passes;
3. a champion trained on demo data gives way to a sound version trained on real data;
4. on the same data set and the same held-out rows the candidate must be better: the lower bound of the paired interval is above 0. And
   no slice (short, middle and long pasts; items never, seldom and often met) may be worse by more than MARGIN beyond noise;
5. on the same data set that has grown since, held-out rows have moved: whoever met something new has another last item. Asked to be
   proved better each night, a version that is as good and knows more would be refused for ever, and the one that serves would grow old.
   So a version that learnt from the log as it is now passes when it is no worse: the difference is not below 0 beyond noise, is not below
   -SLACK at all, and no slice is worse as in 4. It is compared on every row that is out of sample for both: rows that have not moved by
   what both stored when they were trained, moved rows by the champion's own placing (champion_rank), which the run asked it for and
   which is missing where the champion had learnt from that very meeting;
6. otherwise the two cannot be compared, and a person has to decide.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmcore.evaluation import ranking
from fmcore.nouns import Estimate, ModelVersion

if TYPE_CHECKING:
    import pandas as pd

Verdict = dict[str, Any]
MARGIN = 0.02
"""Of NDCG@10, of a slice: a good model stands at 0.05 to 0.2, so this is a loss that people notice."""
SLACK = 0.005
"""What newer knowledge may cost on all rows together, so that many small losses within noise cannot add up unseen."""
SLICE_ROWS = 20
SHARED_ROWS = 20
COLUMNS = ("row_hash", "history", "item", "rank", "popularity_rank", "champion_rank")


@dataclass(frozen=True)
class Candidate:
    """What the gate reads of a version: its row, its facts (model.json under metrics) and its held-out ranks."""

    version: ModelVersion
    facts: Mapping[str, Any]
    heldout: pd.DataFrame

    @property
    def name(self) -> str:
        return self.version.version

    @property
    def learnt_up_to(self) -> dt.datetime:
        return dt.datetime.fromisoformat(str(self.facts["trained_up_to"]))


def candidate(version: ModelVersion, *, folder: Path, facts: Mapping[str, Any]) -> Candidate:
    """A version whose folder has been verified, as the gate sees it. Raises OSError, ValueError, KeyError."""
    import pandas as pd

    frame = pd.read_parquet(folder / "heldout.parquet", columns=list(COLUMNS))
    return Candidate(version, facts, frame.drop_duplicates("row_hash").reset_index(drop=True))


def judge(new: Candidate, champion: Candidate | None) -> Verdict:
    """The verdict on a candidate."""
    checks = _soundness(new)
    failed = next((c for c in checks if not c["passed"]), None)
    if failed:
        return _verdict(False, f"{new.name} is not fit to serve: {failed['detail']}", checks, champion)
    reached = f"NDCG@10 {new.version.metrics['ndcg']['value']:.3f} on {len(new.heldout):,} people"
    if champion is None:
        return _verdict(True, f"The first version of this task, with {reached}.", checks, None)
    if champion.facts.get("synthetic") and not new.facts.get("synthetic"):
        reason = f"{champion.name} was trained on demo data; this one on real data ({new.version.dataset}), {reached}."
        return _verdict(True, reason, checks, champion)
    if new.version.dataset != champion.version.dataset:
        apart = f"it was trained on {new.version.dataset}, the champion on {champion.version.dataset}"
        return _verdict(False, f"Not comparable with {champion.name}: {apart}. A person has to decide.", checks, champion)
    rows = _shared(new, champion)
    if len(rows) < SHARED_ROWS:
        apart = f"only {len(rows)} held-out rows are out of sample for both"
        return _verdict(False, f"Not comparable with {champion.name}: {apart}. A person has to decide.", checks, champion)
    return _compared(new, champion, rows, checks)


def _soundness(new: Candidate) -> list[dict]:
    for name, title in (("ndcg", "NDCG@10"), ("hr", "HR@10")):
        figure = new.version.metrics.get(name)
        values = [figure.get(key) for key in ("value", "low", "high")] if isinstance(figure, Mapping) else [None]
        if not all(isinstance(x, int | float) and math.isfinite(x) for x in values):
            return [_check("figures", False, f"its {title} is missing or not a finite number.")]
    rows = new.heldout
    ranks = rows[["rank", "popularity_rank"]].to_numpy(dtype=float)
    if not len(rows) or not np.isfinite(ranks).all() or (ranks < 1).any():
        return [_check("figures", False, "it has no held-out rows to be judged on, or ranks among them that are none.")]
    gain = ranking.paired(rows["popularity_rank"], rows["rank"])
    told = f"NDCG@10 is {_points(gain)} above popularity's on {gain.n:,} people."
    return [
        _check("figures", True, f"NDCG@10 {new.version.metrics['ndcg']['value']:.3f} on {len(rows):,} people"),
        _check("beats popularity", gain.low > 0, told),
    ]


def _shared(new: Candidate, champion: Candidate) -> pd.DataFrame:
    """Rows that are out of sample for both, with the ranks `old` and `new` and the slices they stand in."""
    import pandas as pd

    kept = ["row_hash", "history", "item", "rank"]
    both = new.heldout[kept].merge(champion.heldout[["row_hash", "rank"]], on="row_hash", suffixes=("_new", "_old"))
    both = both.rename(columns={"rank_new": "new", "rank_old": "old"})
    if str(new.facts.get("measured_against") or "") != champion.name:
        return both  # champion_rank would be another version's
    moved = new.heldout[~new.heldout["row_hash"].isin(both["row_hash"]) & new.heldout["champion_rank"].notna()]
    moved = moved[[*kept, "champion_rank"]].rename(columns={"rank": "new", "champion_rank": "old"})
    return pd.concat([both, moved], ignore_index=True)


def _compared(new: Candidate, champion: Candidate, rows: pd.DataFrame, checks: list[dict]) -> Verdict:
    difference = ranking.paired(rows["old"], rows["new"])
    moved = new.facts.get("split_hash") != champion.facts.get("split_hash")
    fresher = moved and new.learnt_up_to >= champion.learnt_up_to
    n_newer = int(new.facts["n_interactions"]) - int(champion.facts["n_interactions"])
    better, no_worse = difference.low > 0, difference.high >= 0 and difference.value >= -SLACK
    spread = f"NDCG@10 changed by {_points(difference)} on {difference.n:,} shared rows"
    name = "no worse than the champion" if fresher else "better than the champion"
    slices = _slices(rows)
    checks = [*checks, _check(name, better or (fresher and no_worse), spread), *slices]
    stated = {"value": difference.value, "low": difference.low, "high": difference.high, "n": difference.n}
    worse = [c for c in slices if not c["passed"]]
    if not (better or (fresher and no_worse)):
        word = "worse than" if difference.high < 0 or fresher else "not proved better than"
        return _verdict(False, f"It is {word} {champion.name}: {spread}.", checks, champion, stated)
    if worse:
        reason = f"It is good overall ({spread}), but worse where it must not be: {worse[0]['detail']}."
        return _verdict(False, reason, checks, champion, stated)
    if better:
        return _verdict(True, f"It is better than {champion.name}: {spread}.", checks, champion, stated)
    learnt = f"learnt from {n_newer:,} newer interactions" if n_newer > 0 else "learnt from the log as it is now"
    return _verdict(True, f"It is no worse than {champion.name} and {learnt}: {spread}.", checks, champion, stated)


def _slices(rows: pd.DataFrame) -> list[dict]:
    """A check for each slice that failed, or one that says how many were looked at."""
    drops: list[tuple[str, Estimate]] = []
    for column, title in (("history", "{} pasts"), ("item", "{} items")):
        for heat, part in rows.groupby(column):
            if heat and len(part) >= SLICE_ROWS:
                drops.append((title.format(heat), ranking.paired(part["old"], part["new"])))
    failed = [
        _check(f"slice {name}", False, f"NDCG@10 for {name} changed by {_points(drop)} on {drop.n:,} rows")
        for name, drop in drops
        if drop.high < -MARGIN
    ]
    return failed or [_check("slices", True, f"none of {len(drops)} slices is worse by more than {MARGIN} of NDCG@10 beyond noise")]


def _check(name: str, passed: bool, detail: str) -> dict:
    return {"name": name, "passed": bool(passed), "detail": detail}


def _verdict(passed: bool, reason: str, checks: list[dict], champion: Candidate | None, difference: dict | None = None) -> Verdict:
    name = champion.name if champion else None
    return {"passed": passed, "reason": reason, "checks": checks, "compared_with": name, "difference": difference}


def _points(change: Estimate) -> str:
    return f"{change.value:+.4f} (95 % interval {change.low:+.4f} to {change.high:+.4f})"
