"""Alerts: every rule over every closed bucket since it was last looked at. The face of the alert engine for jobs, pages and the API.

Promises and their reasons:

- Everything a restart needs is in the store: a restart fires nothing again and moves no beginning.
- A rule's mark only moves forward, over closed buckets up to the newest article: a clock that steps back repeats nothing, and one
  that steps forward skips nothing, because silence at the end is not evaluated but reported (missing.py).
- Late news changes the counts of past buckets, and so what is expected now; buckets behind the mark are not judged again.
- A rule that fails does not stop another, keeps its mark, and is an alert of its own after three failing evaluations.

Reads counts and readings (passes.py), asks states.py what changed, and hands that to transitions.py, which writes it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
from collections.abc import Mapping
from typing import Any

from fmcore import clock
from fmcore.nouns import Rule
from fmcore.sentiment import attribution, missing, transitions
from fmcore.sentiment import counts as counting
from fmcore.sentiment.inbox import (
    OPEN,
    Group,
    NotPossible,
    UnknownAlert,
    ack,
    alert,
    groups,
    history,
    inbox,
    points,
    preview_silence,
    strip,
    summary,
)
from fmcore.sentiment.passes import Detector, of_dimension, readings, settings_of
from fmcore.sentiment.rules import (
    BadRule,
    BadSilence,
    UnknownRule,
    UnknownSilence,
    change_silence,
    end_silence,
    rule,
    rule_history,
    rules,
    save_rule,
    silence,
    silences,
    switch,
)
from fmcore.sentiment.states import Change, Open, step
from fmcore.sentiment.surge import Surge
from fmcore.sentiment.transitions import Evaluated, Mark, Outcome
from fmcore.store.store import Store

__all__ = [
    "BAD", "OPEN", "UNKNOWN", "BadRule", "BadSilence", "Evaluated", "Group", "NotPossible", "UnknownAlert", "UnknownRule",
    "UnknownSilence", "ack", "alert", "change_silence", "end_silence", "evaluate", "explain", "groups", "history", "inbox", "points",
    "preview_silence", "rule", "rule_history", "rules", "save_rule", "silence", "silences", "strip", "summary", "switch",
]

log = logging.getLogger("fm.alerts")

UNKNOWN, BAD = (UnknownAlert, UnknownRule, UnknownSilence), (BadRule, BadSilence)
"""The refusals of what is not there, and of what cannot be saved."""
GRACE = dt.timedelta(minutes=3)
"""A bucket is closed this long after its end: what was published in it has been fetched and scored by then."""
HOLD = dt.timedelta(hours=6)
HELD_SHARE = 0.1
"""A bucket stays open while more than this share of its documents waits to be scored, unless they have waited HOLD long."""
LOOK_BACK = dt.timedelta(days=63)
"""How far back a new rule looks, and the longest stop that is caught up."""
CONFIRM = dt.timedelta(minutes=9)
"""What is missing must be missing for this long under our eyes: a desk that just woke up has not looked yet."""
ORDER = ("all", "sector", "topic", "ticker", "source")


def evaluate(store: Store, *, now: dt.datetime | None = None, detector: Detector = Surge) -> Evaluated:
    """Bring every rule up to this moment. Doing it again at once changes nothing. Raises StoreError when not even a rule's failure
    can be stored.

    detector: what reads the counts, for tests; see surge.py.
    """
    moment = now or clock.now()
    done, marks, turns = Evaluated(), transitions.read_marks(store), _Turns(store, moment, detector)
    quiet: list[tuple[str, Mark, Mark]] = []
    for one in sorted(rules(store), key=lambda r: ORDER.index(r.dimension)):  # who inhibits comes before who is inhibited
        done.n_rules += 1
        mark = marks.get(one.id, Mark())
        try:
            outcome = turns.missing(one, mark) if one.dimension == "source" else turns.news(one, mark)
            moved = transitions.write(store, one, mark, outcome, moment, done)
            quiet += [(one.id, mark, moved)] if moved else []
        except transitions.Overtaken as other:
            log.info("rule %s: %s", one.id, other)
        except Exception as error:  # one rule's fault must not stop the others
            log.exception("rule %s", one.id)
            done.errors[one.id] = f"{type(error).__name__}: {error}"[:300]
            transitions.write_failure(store, one, mark, done.errors[one.id], moment, done)
    transitions.move_marks(store, quiet, moment)
    return done


def explain(store: Store, alert_id: str) -> Mapping[str, Any]:
    """Why an alert fired (see attribution.why): as stored when it fired, else from the news of its window as it is now.

    {} for alerts that have no news behind them. Raises UnknownAlert.
    """
    found = alert(store, alert_id)
    if found.why or found.kind not in attribution.KINDS:
        return found.why
    row = store.rows("SELECT bucket_end_at, window_s FROM alert_events WHERE alert_id = ? ORDER BY n LIMIT 1", found.id)[0]
    return attribution.why(
        store, dimension=found.dimension, key=found.key, kind=found.kind, end=clock.from_store(row["bucket_end_at"]),
        window_s=row["window_s"], expected=found.expected, value=found.value, detector=found.reason,
    )


class _Turns:
    """The turns of one evaluation. What several rules ask of the store is asked once."""

    def __init__(self, store: Store, moment: dt.datetime, detector: Detector):
        self._store, self._moment, self._detector = store, moment, detector
        self._spans: dict[tuple[int, dt.datetime | None], tuple[dt.datetime, dt.datetime] | None] = {}

    def news(self, rule: Rule, mark: Mark) -> Outcome:
        """A rule over the buckets that closed since its mark."""
        asked = (rule.bucket_s, mark.done_until)
        if asked not in self._spans:
            self._spans[asked] = _closed(self._store, *asked, self._moment)
        span = self._spans[asked]
        if span is None:
            return Outcome(mark.done_until, mark.held)
        start, end = span
        if not rule.enabled:
            return Outcome(end, {}, [Change("resolved", end, held) for held in mark.held.values() if held.firing])
        held, changes, points = dict(mark.held), [], []
        for bucket in readings(self._store, settings_of(rule), start, end, detector=self._detector):
            held, changed = step(rule, held, bucket.at, of_dimension(rule, bucket), silent=bucket.silent)
            changes += changed
            points += [(bucket.at, o) for o in held.values() if o.n_hot and not bucket.silent]
        return Outcome(end, held, changes, points, (end - start) // dt.timedelta(seconds=rule.bucket_s))

    def missing(self, rule: Rule, mark: Mark) -> Outcome:
        """A rule over what does not come: it is judged as it is at this moment."""
        moment = self._moment
        found = {f.key: f for f in missing.findings(self._store, rule, moment)} if rule.enabled else {}
        held: dict[str, Open] = {}
        changes = [Change("resolved", moment, was) for key, was in mark.held.items() if was.firing and key not in found]
        for key, one in found.items():
            was = mark.held.get(key)
            if was is None:
                figures = (one.value, one.expected, 1.0, rule.bucket_s, one.reason)
                was = Open(key, one.kind, rule.severity, False, one.since, moment, 1, 0, *figures)
            elif was.firing:
                was = dataclasses.replace(was, until=moment, value=one.value, reason=one.reason)
            elif moment - was.until >= CONFIRM:
                was = dataclasses.replace(was, firing=True, until=moment, value=one.value, reason=one.reason)
                changes.append(Change("firing", moment, was))
            held[key] = was
        return Outcome(max(moment, mark.done_until or moment), held, changes)


def _closed(
    store: Store, bucket_s: int, done_until: dt.datetime | None, moment: dt.datetime
) -> tuple[dt.datetime, dt.datetime] | None:
    """From the first bucket that has not been judged to the end of the last one that is closed and complete; None without any."""
    length = dt.timedelta(seconds=bucket_s)
    closed = counting.floor_to(moment - GRACE, bucket_s)
    if done_until is not None and done_until + length > closed:
        return None
    newest = counting.newest(store, before=closed)
    first = done_until or counting.oldest(store, since=moment - LOOK_BACK)
    if newest is None or first is None:
        return None
    end = min(closed, counting.floor_to(newest, bucket_s) + length)
    start = counting.floor_to(max(first, moment - LOOK_BACK), bucket_s)
    if done_until is not None and start < done_until:
        start += length  # the rule had other buckets before: nothing is judged twice
    waits = counting.first_incomplete(store, start, end, bucket_s=bucket_s, share=HELD_SHARE, seen_since=moment - HOLD)
    end = min(end, waits or end)
    return (start, end) if start < end else None
