"""What a rule's turn changed, written down: marks, events, points and outbox rows, in one transaction.

Owns alert_marks, alert_events and alert_points. One notification a rule and bucket, however many alerts begin in it: the one with the
largest excess leads and speaks for the others; its end is told when all of them are over, and only if its beginning was told.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import itertools
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from fmcore import clock
from fmcore.nouns import Rule
from fmcore.sentiment import attribution, notify
from fmcore.sentiment.muting import Muted, Muting
from fmcore.sentiment.rules import SEVERITIES
from fmcore.sentiment.states import Change, Open, alert_id, fingerprint, from_plain, identity, to_plain
from fmcore.store.store import Store, Transaction, to_json

log = logging.getLogger("fm.alerts")

FAILS = 3
"""A rule that failed in so many evaluations in a row is an alert of its own."""
MAX_EXPLAINED = 40
"""Alerts explained within one evaluation, leads of a group first; the others when somebody asks."""
MAX_NAMED = 5


class Overtaken(Exception):
    """Another evaluation moved the rule's mark meanwhile; what this one found is left to that one."""


@dataclass
class Evaluated:
    """What an evaluation did. errors: rule id -> what went wrong."""

    n_rules: int = 0
    n_buckets: int = 0
    n_firing: int = 0
    n_resolved: int = 0
    n_sent: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    n_explained: int = 0


@dataclass(frozen=True)
class Mark:
    """How far a rule has been evaluated and what it holds open. error: its own failing, which fires after FAILS times in a row."""

    done_until: dt.datetime | None = None
    held: dict[str, Open] = field(default_factory=dict)
    error: Open | None = None
    n_errors: int = 0


@dataclass(frozen=True)
class Outcome:
    """Where a rule stands after its turn, the changes on the way in order, and (bucket, what was out of the ordinary in it)."""

    until: dt.datetime | None
    held: dict[str, Open]
    changes: list[Change] = field(default_factory=list)
    points: list[tuple[dt.datetime, Open]] = field(default_factory=list)
    n_buckets: int = 0


def read_marks(store: Store) -> dict[str, Mark]:
    """The marks of all rules that were evaluated before. What a rule held open is dropped where it cannot be read."""
    found = {}
    for row in store.rows("SELECT * FROM alert_marks ORDER BY rule_id"):
        held, error = {}, None
        try:
            live = json.loads(row["live"])
            held, error = from_plain(live["open"]), from_plain(live["error"]).get("")
        except (ValueError, TypeError, KeyError):  # written by another version, say: one rule's past must not stop all rules
            log.exception("what rule %s held open cannot be read", row["rule_id"])
        found[row["rule_id"]] = Mark(clock.from_store(row["done_until"]), held, error, row["n_errors"])
    return found


def write(store: Store, rule: Rule, mark: Mark, outcome: Outcome, moment: dt.datetime, done: Evaluated) -> Mark | None:
    """Store a turn that went well, or return where the mark moves when nothing else is to be stored (`move_marks`).

    Raises Overtaken when the rule's mark is no longer the one that the turn began with.
    """
    after = Mark(outcome.until, outcome.held)
    done.n_buckets += outcome.n_buckets
    ledger = _Ledger(store, rule, moment, done)
    ledger.changes(outcome, held_before=mark.held)
    ledger.releases(outcome.held)
    if mark.error is not None and mark.error.firing:
        ledger.changes(Outcome(outcome.until, {}, [Change("resolved", moment, mark.error)]), held_before={"": mark.error})
    points = _point_rows(rule, outcome.points)
    if not ledger.rows and not points:
        return after if after != mark else None
    with store.write() as tx:
        _set_mark(tx, rule.id, mark, after, "", moment)
        ledger.commit(tx, points)
    return None


def move_marks(store: Store, moves: Sequence[tuple[str, Mark, Mark]], moment: dt.datetime) -> None:
    """Move the marks of rules that had nothing to say, (rule id, from, to) each; one that was moved meanwhile stays."""
    if not moves:
        return
    with store.write() as tx:
        for rule_id, before, after in moves:
            try:
                _set_mark(tx, rule_id, before, after, "", moment)
            except Overtaken as other:
                log.info("rule %s: %s", rule_id, other)


def write_failure(store: Store, rule: Rule, mark: Mark, error: str, moment: dt.datetime, done: Evaluated) -> None:
    """Store that a rule failed: its mark and what it holds stay, and from the FAILS-th time in a row it is an alert of its own."""
    reason = f"The rule {rule.title!r} could not be evaluated: {error}. What it watches is not watched meanwhile."
    held = mark.error or Open("", "error", "high", False, moment, moment, 0, 0, 0.0, 0.0, 1.0, rule.bucket_s, reason)
    n = mark.n_errors + 1
    now = dataclasses.replace(held, until=moment, n_hot=n, firing=n >= FAILS, reason=reason)
    ledger = _Ledger(store, rule, moment, done)
    if now.firing and not held.firing:
        ledger.bucket([Change("firing", moment, now)])
    with store.write() as tx:
        _set_mark(tx, rule.id, mark, dataclasses.replace(mark, error=now, n_errors=n), error, moment)
        ledger.commit(tx, [])


@dataclass(frozen=True)
class _Lead:
    """The alert that speaks for its group."""

    id: str
    held: Open


class _Ledger:
    """The rows of one turn, collected first and written together."""

    def __init__(self, store: Store, rule: Rule, moment: dt.datetime, done: Evaluated):
        self._store, self._rule, self._moment, self._done = store, rule, moment, done
        self._told: dict[str, _Lead] = {}  # open alerts whose beginning was told -> who spoke for them
        self._n_open: Counter[str] = Counter()  # who speaks for a group -> how many of the group are open
        self._begun: set[str] = set()
        self.rows: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []

    @functools.cached_property
    def _muting(self) -> Muting:
        return Muting(self._store, self._rule, self._moment)

    def changes(self, outcome: Outcome, *, held_before: Mapping[str, Open]) -> None:
        """All changes of the turn, bucket by bucket."""
        if any(held.firing for held in held_before.values()):
            self._told |= self._told_before(held_before)
            self._n_open.update(lead.id for lead in self._told.values())
        for _, of_bucket in itertools.groupby(outcome.changes, key=lambda change: change.at):
            self.bucket(list(of_bucket), standing=outcome.held)

    def bucket(self, changes: Sequence[Change], *, standing: Mapping[str, Open] | None = None) -> None:
        """The changes of one bucket: ends first, then beginnings, told as one group. standing: how things are after the last bucket."""
        for change in changes:
            if change.what == "resolved":
                self._resolve(change)
        begun = []
        for change in (c for c in changes if c.what == "firing"):
            now = (standing or {}).get(change.held.key)
            latest = now if now is not None and now.since == change.held.since else change.held
            begun.append((change.held, self._muting.of(latest, at=change.at)))
        if begun:
            self._begin(begun, at=changes[-1].at, transition="")

    def releases(self, held: Mapping[str, Open]) -> None:
        """What is open, was not told, and is muted no longer: a silence has ended, or the alert that stood for it is over."""
        seen = self._begun | self._told.keys()
        waiting = {id: o for id, o in ((self._id(o), o) for o in held.values() if o.firing) if id not in seen}
        if not waiting:
            return
        sql = "SELECT DISTINCT alert_id FROM alert_acks WHERE alert_id IN (SELECT unnest(?::VARCHAR[]))"
        acked = {row["alert_id"] for row in self._store.rows(sql, list(waiting))}
        free = [o for id, o in waiting.items() if id not in acked and not self._muting.of(o, at=o.until).word]
        if free:
            free.sort(key=lambda o: -abs(o.value - o.expected))
            self._begin([(o, Muted()) for o in free], at=max(o.until for o in free), transition="released")

    def commit(self, tx: Transaction, points: list[dict[str, Any]]) -> None:
        """Everything collected, inside the caller's transaction."""
        if self.rows:
            ((n,),) = tx.execute("SELECT coalesce(max(n), 0) FROM alert_events")
            frame = pd.DataFrame([{"n": n + i, **row} for i, row in enumerate(self.rows, 1)])
            for name in ("starts_at", "bucket_end_at", "ends_at", "noted_at"):
                frame[name] = pd.to_datetime(frame[name])
            tx.insert_frame("alert_events", frame)
        if points:
            tx.insert_frame("alert_points", pd.DataFrame(points))
        if self.events:
            notify.enqueue_all(tx, self.events, now=self._moment)
        self._done.n_sent += len(self.events)
        self._done.n_firing += sum(row["transition"] in ("firing", "no data", "error") for row in self.rows)
        self._done.n_resolved += sum(row["transition"] == "resolved" for row in self.rows)

    def _begin(self, begun: Sequence[tuple[Open, Muted]], *, at: dt.datetime, transition: str) -> None:
        """Alerts that begin together: a row each, and one notification for those that nothing mutes."""
        told = [held for held, muted in begun if not muted.word]
        lead = _Lead(self._id(told[0]), told[0]) if told else None
        for held, muted in begun:
            id, is_told = self._id(held), not muted.word
            why = self._explained(held, at) if transition != "released" else {}
            word = transition or (held.kind if held.kind in ("no data", "error") else "firing")
            row = self._row(held, word, at, why=why, lead_id=lead.id if is_told and lead else "", sent=is_told, muted=muted)
            self.rows.append(row)
            self._begun.add(id)
            if is_told and lead:
                self._told[id] = lead
                self._n_open[lead.id] += 1
                self._muting.told_at[row["fingerprint"]] = self._moment
        if lead:
            self._tell(lead, told)

    def _tell(self, lead: _Lead, told: Sequence[Open]) -> None:
        row = next(row for row in reversed(self.rows) if row["alert_id"] == lead.id)
        n = len(told) - 1
        more = f" and {n} more" if n else ""
        named = ", ".join(attribution.label(*identity(self._rule, held)) for held in told[1 : 1 + MAX_NAMED])
        named += f" and {n - MAX_NAMED} more" if n > MAX_NAMED else ""
        severity = max((held.severity for held in told), key=SEVERITIES.index)
        self.events.append(self._event(lead, lead.held.kind if lead.held.kind in ("no data", "error") else "firing", severity) | {
            "title": f"{self._title(lead.held)}{more}", "reason": row["reason"] + (f" With it: {named}." if named else ""),
            "ends_at": None, "why": json.loads(row["why"]),
        })

    def _resolve(self, change: Change) -> None:
        held = change.held
        id = self._id(held)
        lead, silenced = self._told.pop(id, None), self._muting.silence(*identity(self._rule, held))
        if lead is not None:
            self._n_open[lead.id] -= 1
        last_of_group = lead is not None and self._n_open[lead.id] == 0
        told = last_of_group and not silenced
        muted = Muted("" if told else "silence" if silenced else "group" if lead else "never told", silenced)
        of_news = held.kind in attribution.KINDS
        reason = (f"Nothing out of the ordinary between {held.until:%d %b %H:%M} and {change.at:%d %b %H:%M} UTC." if of_news
                  else f"Over since {change.at:%d %b %H:%M} UTC.")
        self.rows.append(self._row(held, "resolved", change.at, ends_at=change.at, lead_id=lead.id if lead else "", sent=told, muted=muted,
                                   reason=reason))
        if told and lead:
            self.events.append(self._event(lead, "resolved", lead.held.severity) | {
                "title": f"Over: {self._title(lead.held)}", "reason": reason, "ends_at": change.at, "why": {}})

    def _event(self, lead: _Lead, transition: str, severity: str) -> dict[str, Any]:
        return {
            "alert_id": lead.id, "fingerprint": fingerprint(self._rule.id, *identity(self._rule, lead.held)), "transition": transition,
            "severity": severity, "url_path": f"/alerts?alert={lead.id}", "starts_at": lead.held.since,
        }

    def _row(
        self, held: Open, transition: str, at: dt.datetime, *, why: Mapping[str, Any] | None = None, ends_at: dt.datetime | None = None,
        lead_id: str, sent: bool, muted: Muted, reason: str = "",
    ) -> dict[str, Any]:
        dimension, key = identity(self._rule, held)
        return {
            "alert_id": self._id(held), "fingerprint": fingerprint(self._rule.id, dimension, key), "rule_id": self._rule.id,
            "dimension": dimension, "key": key, "kind": held.kind, "severity": held.severity, "transition": transition,
            "starts_at": clock.to_store(held.since), "bucket_end_at": clock.to_store(at), "ends_at": clock.to_store(ends_at),
            "value": held.value, "expected": held.expected, "score": held.score, "window_s": held.window_s,
            "reason": reason or (why or {}).get("sentence") or held.reason, "why": to_json(why or {}), "lead_id": lead_id, "sent": sent,
            "muted": muted.word, "silenced_by": muted.silenced_by, "inhibited_by": muted.inhibited_by,
            "noted_at": clock.to_store(self._moment),
        }

    def _explained(self, held: Open, at: dt.datetime) -> Mapping[str, Any]:
        """The split of the excess; {} beyond the budget of an evaluation, or where it fails: an alert without a cause is an alert."""
        if held.kind not in attribution.KINDS or self._done.n_explained >= MAX_EXPLAINED:
            return {}
        self._done.n_explained += 1
        try:
            return attribution.why(self._store, dimension=self._rule.dimension, key=held.key, kind=held.kind, end=at,
                                   window_s=held.window_s, expected=held.expected, value=held.value, detector=held.reason)
        except Exception:
            log.exception("explaining %s of %s", held.key, self._rule.id)
            return {}

    def _told_before(self, held: Mapping[str, Open]) -> dict[str, _Lead]:
        """Which of the alerts that were open before the turn have been told, and who spoke for them."""
        ids = {self._id(o): o for o in held.values() if o.firing}
        sql = """SELECT DISTINCT e.alert_id, e.lead_id, l.key, l.severity, l.starts_at FROM alert_events e
            JOIN alert_events l ON l.alert_id = e.lead_id AND l.lead_id = e.lead_id AND l.sent AND l.transition <> 'resolved'
            WHERE e.sent AND e.transition <> 'resolved' AND e.alert_id IN (SELECT unnest(?::VARCHAR[])) AND e.rule_id = ?"""
        found = {}
        for row in self._store.rows(sql, list(ids), self._rule.id):
            held = dataclasses.replace(ids[row["alert_id"]], key=row["key"], severity=row["severity"],
                                       since=clock.from_store(row["starts_at"]))
            found[row["alert_id"]] = _Lead(row["lead_id"], held)
        return found

    def _id(self, held: Open) -> str:
        return alert_id(fingerprint(self._rule.id, *identity(self._rule, held)), held.since)

    def _title(self, held: Open) -> str:
        if held.kind == "error":
            return f"The rule {self._rule.title!r} fails"
        if held.kind == "no data":
            return "No news at all"
        name = attribution.label(self._rule.dimension, held.key)
        return f"{self._rule.title}: {name}" if name else self._rule.title


def _set_mark(tx: Transaction, rule_id: str, before: Mark, after: Mark, error: str, moment: dt.datetime) -> None:
    """Move a rule's mark, if it is still where it was read."""
    stored = tx.execute("SELECT done_until, n_errors FROM alert_marks WHERE rule_id = ?", [rule_id])
    expected = [(clock.to_store(before.done_until), before.n_errors)] if stored else []
    if stored != expected or (not stored and before != Mark()):
        raise Overtaken(f"the mark of {rule_id} moved meanwhile")
    live = to_json({"open": to_plain(after.held), "error": to_plain({"": after.error} if after.error else {})})
    row = [clock.to_store(after.done_until), live, after.n_errors, error, clock.to_store(moment), rule_id]
    if stored:
        tx.execute("UPDATE alert_marks SET done_until = ?, live = ?, n_errors = ?, error = ?, noted_at = ? WHERE rule_id = ?", row)
    else:
        tx.execute("INSERT INTO alert_marks (done_until, live, n_errors, error, noted_at, rule_id) VALUES (?, ?, ?, ?, ?, ?)", row)


def _point_rows(rule: Rule, points: Sequence[tuple[dt.datetime, Open]]) -> list[dict[str, Any]]:
    return [
        {"alert_id": alert_id(fingerprint(rule.id, *identity(rule, held)), held.since), "bucket_at": clock.to_store(at),
         "value": held.value, "expected": held.expected, "score": held.score}
        for at, held in points
    ]
