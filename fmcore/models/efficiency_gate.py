"""The gate for compressed versions: a model that is smaller and faster than its teacher must not be noticeably worse.

Reads both versions' held-out answers, joined by text, and never what a version says of itself; never runs a model. The rules:

1. its teacher is in the registry, unchanged, and both answered the same split with the same labels;
2. on the rows that both answered it loses at most ALLOWED points of accuracy;
3. no slice is worse by more than gate.MARGIN plus what is allowed, beyond noise;
4. it was measured to be at least FASTER times as fast as its teacher's served form.

A version that fails one of these is barred: it never serves, whoever asks. For a machine to let it serve it takes more:

5. the bad end of the paired interval is at most SLACK points beyond ALLOWED; where the rows are too few to tell, a person has to decide;
6. it is better than what serves now: its teacher; a slower version made from the same teacher; any other by gate.py's rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fmcore.evaluation.metrics import OOS, paired_difference
from fmcore.models import gate
from fmcore.models.gate import Candidate, Verdict
from fmcore.nouns import ModelVersion

ALLOWED = {"onnx": 0.5, "int8": 0.5, "prune": 0.5, "distill": 0.5, "static": 6.0, "cascade": 1.0}
"""Recipe of a compressed version -> points of accuracy it may lose against its teacher on the same held-out rows."""
SLACK = 1.0
"""Points that the interval's bad end may lie beyond what is allowed: about what 1,000 rows can tell."""
FASTER = 1.05
"""Timings of the same model differ by a few percent from one minute to the next."""


def is_compressed(version: ModelVersion) -> bool:
    """Whether these rules hold for a version: whatever it says of itself, its recipe tells."""
    return version.recipe in ALLOWED


def facts_of(version: ModelVersion) -> dict[str, Any]:
    """What compress.py stored: teacher, sha256, method, lost, speedup, allowed_points; empty for none."""
    found = version.metrics.get("compressed")
    return dict(found) if isinstance(found, Mapping) else {}


def bar(candidate: Candidate, teacher: Candidate | None) -> Verdict:
    """Rules 1 to 4 and gate.py's soundness: a verdict that does not pass bars the version from ever serving.

    teacher: None where the registry does not have it as it was. Folders are verified.
    """
    facts, allowed = facts_of(candidate.version), ALLOWED[candidate.version.recipe]
    checks = gate.soundness(candidate)
    if failed := next((c for c in checks if not c["passed"]), None):
        return gate.verdict_of(False, f"{candidate.name} is not fit to serve: {failed['detail']}", checks, teacher)
    if teacher is None or facts.get("sha256") != teacher.version.sha256:
        named = facts.get("teacher") or "it names none"
        said = f"the model it was made from ({named}) is not here as it was, so that nobody can say what it lost."
        return gate.refused(f"{candidate.name} never serves: {said}", check="teacher")
    if apart := gate.not_comparable(candidate, teacher):
        return gate.refused(f"{candidate.name} never serves: {apart}.", check="teacher", compared_with=teacher.name)
    checks, difference = [*checks, _fast_enough(facts)], None
    both = teacher.heldout.merge(candidate.heldout, on=["text_hash", "label"], suffixes=("_old", "_new"))
    inside = both[both["label"] != OOS]
    if len(inside) < len(candidate.heldout[candidate.heldout["label"] != OOS]) or inside.empty:
        detail = f"it shares {len(inside)} held-out rows with {teacher.name}, not all of them."
        checks.append(gate.check_of("same rows", False, detail))
    else:
        right_old, right_new = inside["predicted_old"] == inside["label"], inside["predicted_new"] == inside["label"]
        estimate = paired_difference(right_old, right_new, resamples=gate.RESAMPLES)
        difference = {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
        slices = gate.slice_checks(both, inside, right_old, right_new, margin=gate.MARGIN + allowed / 100)
        checks += [_lost_little(difference, allowed), *slices]
    if failed := next((c for c in checks if not c["passed"]), None):
        return gate.verdict_of(False, f"{candidate.name} never serves: {failed['detail']}", checks, teacher, difference)
    lost, fast = checks[-2]["detail"], _fast_enough(facts)["detail"]
    return gate.verdict_of(True, f"Made from {teacher.name}: {lost}; {fast}.", checks, teacher, difference)


def judge(candidate: Candidate, champion: Candidate | None, teacher: Candidate | None) -> Verdict:
    """The verdict on a compressed version against what serves now."""
    own = _clear_enough(bar(candidate, teacher), ALLOWED[candidate.version.recipe])
    if not own["passed"] or champion is None or champion.name == teacher.name:
        return {**own, "compared_with": champion.name if champion else own["compared_with"]}
    theirs, mine = facts_of(champion.version), facts_of(candidate.version)
    if not is_compressed(champion.version) or theirs.get("sha256") != mine.get("sha256"):
        return gate.judge(candidate, champion)
    times, before = (float(facts.get("speedup") or 0.0) for facts in (mine, theirs))
    spread = f"{times:.1f} times its teacher's speed, the champion {before:.1f}"
    faster = gate.check_of("faster than the champion", times >= FASTER * before, spread)
    said = f"{own['reason']} The champion {champion.name} was made from the same model: {faster['detail']}."
    return gate.verdict_of(faster["passed"], said, [*own["checks"], faster], champion, own["difference"])


def _clear_enough(own: Verdict, allowed: float) -> Verdict:
    """Rule 5, on a verdict of rules 1 to 4."""
    if not own["passed"]:
        return own
    most, n = -100 * own["difference"]["low"], own["difference"]["n"]
    clear = gate.check_of("rows enough to tell", most <= allowed + SLACK + 1e-9, f"{n} rows leave up to {most:.1f} points lost")
    if clear["passed"]:
        return {**own, "checks": [*own["checks"], clear]}
    reason = f"{own['reason']} But {clear['detail']}, more than the {allowed + SLACK:g} that a machine may risk. A person has to decide."
    return {**own, "passed": False, "reason": reason, "checks": [*own["checks"], clear]}


def _fast_enough(facts: Mapping[str, Any]) -> dict[str, Any]:
    times = facts.get("speedup")
    if not isinstance(times, int | float) or not math.isfinite(times):
        return gate.check_of("faster than its teacher", False, "nobody measured how fast it is.")
    return gate.check_of("faster than its teacher", times >= FASTER, f"{times:.1f} times as fast as the model it was made from is served")


def _lost_little(difference: Mapping[str, float], allowed: float) -> dict[str, Any]:
    lost, least, most = (-100 * difference[key] for key in ("value", "high", "low"))
    spread = f"{lost:.1f} points lost (95 % interval {least:.1f} to {most:.1f}) on {difference['n']} shared rows"
    return gate.check_of("lost little", lost <= allowed + 1e-9, f"{spread}, where {allowed:g} are allowed")
