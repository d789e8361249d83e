"""Two versions of a task on the same labelled rows: which answers a second one set right, broke, or changed from wrong to wrong.

Rests on the answers stored when each was measured; what a version has not answered it is asked, at the caller's own cost and without a
line in the prediction log. Never says which version should serve: that is models/gate.py.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fmcore.data.labelled import OOS
from fmcore.explain import heldout
from fmcore.explain.heldout import Held
from fmcore.explain.slices import cuts
from fmcore.nouns import FMError, ModelVersion
from fmcore.text import text_hash

if TYPE_CHECKING:
    from fmcore.serving.engine import Engine

BATCH = 64
REMEMBERED = 8
FIXED, BROKEN, CHANGED = "fixed", "broken", "changed"
ROW_COLUMNS = ("text", "label", "first", "second", "change")
SLICE_COLUMNS = ("by", "slice", "n", "n_fixed", "n_broken")
UNSURE = 0.05
"""p of the sign test from which on fixed and broken rows may well be chance."""


class NotComparable(FMError):
    """Two versions that no common rows can tell apart."""


@dataclass(frozen=True, eq=False)
class Flipped:
    """What a second version answers otherwise than a first one, on n labelled rows of the first's.

    rows (ROW_COLUMNS): the ones with another answer, broken first; label is the true one, and "oos" as an answer means refused as out of
    scope, which is looked at on rows out of scope only. slices (SLICE_COLUMNS): every part of the n rows, the most broken on
    balance first. note says in sentences what that comes to.
    """

    rows: pd.DataFrame
    slices: pd.DataFrame
    n: int
    note: str


_found: OrderedDict[tuple[str, ...], Flipped] = OrderedDict()
_lock = threading.Lock()


def flipped(engine: Engine, task: str, first: str, second: str) -> Flipped:
    """What `second` changed on the held-out rows of `first`; remembered, since a version never changes.

    Raises UnknownModel, Tampered, Refused, and NotComparable: the same version twice, other labels, or a data set that is gone.
    """
    key = (str(engine.registry.root), task, first, second)
    with _lock:
        if key in _found:
            _found.move_to_end(key)
            return _found[key]
    made = _flipped(engine, engine.registry.get(task, first), engine.registry.get(task, second))
    with _lock:
        _found[key] = made
        while len(_found) > REMEMBERED:
            _found.popitem(last=False)
    return made


def _flipped(engine: Engine, first: ModelVersion, second: ModelVersion) -> Flipped:
    registry = engine.registry
    if first.version == second.version:
        raise NotComparable(f"{first.version} is compared with itself.", "Choose another version.")
    mine, theirs = set(registry.labels(first)), set(registry.labels(second))
    if mine != theirs:
        said = f"{first.version} knows {len(mine)} labels and {second.version} {len(theirs)}; {len(mine & theirs)} are the same"
        raise NotComparable(f"{said}.", "Compare versions that were trained on the same labels.")
    try:
        held = heldout.held(registry, first)
        stored = heldout.stored(registry, second)
    except heldout.NotHeld as error:
        raise NotComparable(error.message, error.hint) from error
    known = stored.set_index("text_hash")[["predicted", "in_scope"]].to_dict("index")
    missing = held.rows[~held.rows["text_hash"].isin(known)]
    known |= _asked(engine, second, missing)
    answers = pd.DataFrame([known[key] for key in held.rows["text_hash"]], index=held.rows.index)
    return compared(held, answers, names=(first.version, second.version), sources=_sources(second, held, missing))


def compared(held: Held, second: pd.DataFrame, *, names: tuple[str, str], sources: str = "") -> Flipped:
    """The same from answers that are there: second holds predicted and in_scope along held.rows. names: what the note calls the two."""
    rows = pd.DataFrame({"text": held.rows["text"], "label": held.rows["label"]})
    rows["first"], rows["second"] = _answer(held.rows, rows["label"]), _answer(second, rows["label"])
    other, was, is_now = rows["first"] != rows["second"], rows["first"] == rows["label"], rows["second"] == rows["label"]
    rows["change"] = np.select([other & is_now, other & was, other], [FIXED, BROKEN, CHANGED], default="")
    order = rows["change"].map({BROKEN: 0, FIXED: 1, CHANGED: 2})
    changed = rows.assign(order=order).sort_values(["order", "label", "text"])[list(ROW_COLUMNS)]
    note = f"{_note(rows, names)} {sources}".strip()
    return Flipped(changed[changed["change"] != ""].reset_index(drop=True), _slices(held, rows["change"]), len(rows), note)


def _asked(engine: Engine, version: ModelVersion, missing: pd.DataFrame) -> dict[str, dict]:
    """text_hash -> predicted and in_scope of a version, for rows that it has no stored answer to."""
    if missing.empty:
        return {}
    texts = list(missing["text"])
    with engine.classifier(version.task, version=version.version) as classifier:
        found = [answer for at in range(0, len(texts), BATCH) for answer in classifier.predict(texts[at : at + BATCH])]
    return {key: {"predicted": a.label, "in_scope": a.in_scope} for key, a in zip(missing["text_hash"], found, strict=True)}


def _answer(answers: pd.DataFrame, label: pd.Series) -> pd.Series:
    """The label that was answered; on a row out of scope "oos" where it was refused."""
    refused = (label == OOS) & ~answers["in_scope"].astype(bool)
    return answers["predicted"].where(~refused, OOS)


def _slices(held: Held, change: pd.Series) -> pd.DataFrame:
    found = [
        (by, str(part), len(places), int((change.loc[places] == FIXED).sum()), int((change.loc[places] == BROKEN).sum()))
        for by, parts in cuts(held).items()
        for part, places in parts.dropna().groupby(parts).groups.items()
    ]
    table = pd.DataFrame(found, columns=list(SLICE_COLUMNS))
    order = table.assign(balance=table["n_fixed"] - table["n_broken"])
    order = order.sort_values(["balance", "n_broken", "by", "slice"], ascending=[True, False, True, True])
    return order[list(SLICE_COLUMNS)].reset_index(drop=True)


# --- in words


def _note(rows: pd.DataFrame, names: tuple[str, str]) -> str:
    first, second = names
    inside = rows[rows["label"] != OOS]
    fixed, broken, changed = (int((inside["change"] == kind).sum()) for kind in (FIXED, BROKEN, CHANGED))
    said = (
        f"Of {len(inside):,} labelled rows {second} sets {fixed:,} right that {first} had wrong, breaks {broken:,} that were right, and is "
        f"wrong in another way on {changed:,}."
    )
    if outside := len(rows) - len(inside):
        out = rows[rows["label"] == OOS]["change"]
        refused, taken = int((out == FIXED).sum()), int((out == BROKEN).sum())
        said += f" Of {outside:,} rows out of scope it refuses {refused:,} that were taken, and takes {taken:,} that were refused."
    return f"{said} {_sign_test(fixed, broken)}"


def _sign_test(fixed: int, broken: int) -> str:
    """What the exact sign test on the rows that only one of the two has right says (McNemar 1947)."""
    from scipy.stats import binomtest

    if not fixed + broken:
        return "Both are right on the same rows."
    p = float(binomtest(fixed, fixed + broken, 0.5).pvalue)
    shown = f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
    if p >= UNSURE:
        return f"Set right and broken differ by no more than chance would make them (sign test, {shown})."
    return f"That is {'better' if fixed > broken else 'worse'} than chance would make it (sign test, {shown})."


def _sources(second: ModelVersion, held: Held, missing: pd.DataFrame) -> str:
    """Where the second's answers come from, and whether it may have learnt from the rows it was asked for."""
    gone = f" {held.n_gone:,} rows are left out: {held.dataset} does not hold them any more." if held.n_gone else ""
    if missing.empty:
        return f"Both sets of answers were given before either model had learnt from these rows.{gone}"
    said = f"{second.version} had not answered {len(missing):,} of them when it was measured and was asked now"
    try:
        data = heldout.data_of(second)
    except heldout.NotHeld:
        return f"{said}; whether it has learnt from them cannot be told, since its data set is gone.{gone}"
    learnt = {text_hash(text) for text in pd.concat([data.train, data.validation])["text"]}
    n = int(missing["text_hash"].isin(learnt).sum())
    learnt_too = f"; {n:,} of those stand among the rows it may have learnt from, where it does better than on new ones" if n else ""
    return f"{said}{learnt_too}.{gone}"
