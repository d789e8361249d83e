"""What stands in the alert inbox, and what a person does with it. Reads the tables of alerts.py; writes acknowledgements only."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fmcore import clock
from fmcore.nouns import Alert, FMError, Silence
from fmcore.sentiment import rules as wanted
from fmcore.sentiment.states import alert_id, fingerprint
from fmcore.sentiment.transitions import read_marks
from fmcore.store.store import Store
from fmcore.text import clean

if TYPE_CHECKING:
    import pandas as pd

OPEN = ("firing", "no data", "error")
MAX_LIMIT = 10_000
_RANK = {"high": 0, "medium": 1, "low": 2}
_NOW = """
WITH last AS (SELECT * FROM alert_events QUALIFY row_number() OVER (PARTITION BY alert_id ORDER BY n DESC) = 1),
first AS (SELECT alert_id, min_by(reason, n) AS reason, min_by(value, n) AS value, min_by(expected, n) AS expected,
    min_by(why, n) AS why, min_by(bucket_end_at, n) AS fired_at, bool_or(sent) AS was_sent,
    max_by(silenced_by, n) FILTER (WHERE transition <> 'resolved') AS silenced_by,
    max_by(inhibited_by, n) FILTER (WHERE transition <> 'resolved') AS inhibited_by
    FROM alert_events GROUP BY alert_id),
acked AS (SELECT alert_id, min_by(who, noted_at) AS who, min(noted_at) AS at FROM alert_acks GROUP BY alert_id)
SELECT last.* EXCLUDE (reason, value, expected, why, silenced_by, inhibited_by), first.* EXCLUDE (alert_id),
    acked.who AS acked_by, acked.at AS acked_at,
    CASE WHEN last.transition = 'resolved' THEN 'resolved' WHEN last.kind IN ('no data', 'error') THEN last.kind ELSE 'firing' END AS state
FROM last JOIN first USING (alert_id) LEFT JOIN acked USING (alert_id)
"""


class UnknownAlert(FMError):
    """There is no alert of that id."""


class NotPossible(FMError):
    """The alert is not in a state in which that can be done."""


@dataclass(frozen=True)
class Group:
    """Alerts of one rule that began in the same bucket: one notification, one line of the inbox. fired_at: that bucket's start."""

    rule_id: str
    title: str
    severity: str
    fired_at: dt.datetime
    n: int
    n_open: int
    lead: Alert
    members: tuple[Alert, ...]


def inbox(
    store: Store, *, states: Sequence[str] = OPEN, severities: Sequence[str] = (), rule_id: str = "", dimension: str = "", key: str = "",
    since: dt.datetime | None = None, limit: int = 200,
) -> list[Alert]:
    """Alerts in those states, the most severe first, then the newest. An empty filter leaves that side open.

    "pending" among the states adds what is out of the ordinary but not for long enough; "resolved" what is over. since: those
    that stood open at or after that moment.
    """
    marks = ", ".join("?" * len(states)) or "''"
    sql = f"""SELECT * FROM ({_NOW}) WHERE state IN ({marks}) AND (? = '' OR rule_id = ?) AND (? = '' OR dimension = ?)
        AND (? = '' OR key = ?) AND (?::TIMESTAMP IS NULL OR ends_at IS NULL OR ends_at >= ?)
        ORDER BY list_position(['high', 'medium', 'low'], severity), fired_at DESC, abs(value - expected) DESC, alert_id LIMIT ?"""
    at = clock.to_store(since)
    rows = store.rows(sql, *states, rule_id, rule_id, dimension, dimension, key, key, at, at, min(limit, MAX_LIMIT))
    found = [_alert(row) for row in rows] + (_pending(store) if "pending" in states else [])
    kept = [a for a in found if (not severities or a.severity in severities)
            and (not rule_id or a.rule_id == rule_id) and (not dimension or a.dimension == dimension) and (not key or a.key == key)]
    return sorted(kept, key=lambda a: (_RANK[a.severity], a.state == "pending"))[:limit]


def groups(store: Store, *, states: Sequence[str] = OPEN, since: dt.datetime | None = None, n_members: int = 20) -> list[Group]:
    """The inbox with one line a rule and bucket, however many alerts began there; members holds the n_members largest."""
    titles = {rule.id: rule.title for rule in wanted.rules(store)}
    together: dict[tuple[str, dt.datetime], list[Alert]] = {}
    for alert in inbox(store, states=states, since=since, limit=MAX_LIMIT):
        together.setdefault((alert.rule_id, alert.starts_at), []).append(alert)
    return [
        Group(rule_id, titles.get(rule_id, rule_id), min((a.severity for a in of), key=_RANK.__getitem__), at, len(of),
              sum(a.state in OPEN for a in of), of[0], tuple(of[:n_members]))
        for (rule_id, at), of in together.items()
    ]


def alert(store: Store, alert_id: str) -> Alert:
    """One alert as it stands. Raises UnknownAlert."""
    rows = store.rows(f"SELECT * FROM ({_NOW}) WHERE alert_id = ?", clean(alert_id, limit=80)[0])
    if not rows:
        raise UnknownAlert(f"There is no alert {clean(alert_id, limit=80)[0]!r}.", "See the Alerts page.")
    return _alert(rows[0])


def history(store: Store, alert_id: str) -> list[dict[str, Any]]:
    """What happened to an alert, oldest first: at (aware UTC, when it was noted), what, by, detail, bucket_at, sent, muted."""
    known = alert(store, alert_id)
    rows = store.rows("SELECT * FROM alert_events WHERE alert_id = ? ORDER BY n", known.id)
    told = [
        {"at": clock.from_store(r["noted_at"]), "what": r["transition"], "by": "", "detail": r["reason"],
         "bucket_at": clock.from_store(r["bucket_end_at"]), "sent": r["sent"], "muted": r["muted"]}
        for r in rows
    ]
    acks = store.rows("SELECT * FROM alert_acks WHERE alert_id = ? ORDER BY noted_at", known.id)
    told += [{"at": clock.from_store(r["noted_at"]), "what": "acknowledged", "by": r["who"], "detail": r["note"], "bucket_at": None,
              "sent": False, "muted": ""} for r in acks]
    return sorted(told, key=lambda row: row["at"])


def points(store: Store, alert_id: str) -> pd.DataFrame:
    """The buckets that fired, for the chart: columns bucket_at (naive UTC, the bucket's start), value, expected, score."""
    return store.frame("SELECT bucket_at, value, expected, score FROM alert_points WHERE alert_id = ? ORDER BY bucket_at", alert_id)


def strip(store: Store, *, days: int = 90, now: dt.datetime | None = None) -> pd.DataFrame:
    """The history at a glance: rule_id, day (naive UTC midnight), n_fired, n_silenced, n_missing ("no data", "error", dead feeds)."""
    since = (now or clock.now()) - dt.timedelta(days=days)
    return store.frame(
        """SELECT rule_id, date_trunc('day', bucket_end_at) AS day, count(*) FILTER (WHERE kind IN ('surge', 'shift', 'flood')) AS n_fired,
            count(*) FILTER (WHERE silenced_by <> '') AS n_silenced,
            count(*) FILTER (WHERE kind IN ('no data', 'error', 'dead feed')) AS n_missing
        FROM alert_events WHERE transition IN ('firing', 'no data', 'error') AND bucket_end_at >= ? GROUP BY ALL ORDER BY ALL""",
        clock.to_store(since),
    )


def ack(store: Store, alert_id: str, *, by: str, note: str = "", now: dt.datetime | None = None) -> Alert:
    """Say that somebody is at it. It holds for this firing only: when the alert resolves, so does the acknowledgement.

    Raises UnknownAlert; NotPossible when the alert is over or acknowledged already, by whom and when.
    """
    who = clean(by, limit=80)[0].strip() or "unknown"
    with store.write() as tx:
        found = alert(store, alert_id)
        if found.state == "resolved":
            raise NotPossible(f"The alert {found.id} is over.", "Nothing needs to be acknowledged.")
        if found.acked_by:
            raise NotPossible(f"{found.acked_by} acknowledged this alert {clock.ago(found.acked_at, at=now)}.", "Talk to them.")
        row = [found.id, who, clean(note, limit=300)[0], clock.to_store(now or clock.now())]
        tx.execute("INSERT INTO alert_acks (alert_id, who, note, noted_at) VALUES (?, ?, ?, ?)", row)
    return alert(store, alert_id)


def preview_silence(store: Store, silence: Silence, *, days: int = 30, now: dt.datetime | None = None) -> list[Alert]:
    """The alerts of the last days that were sent and that this silence, had it been in force, would have muted; newest first.

    The silence need not be saved. Raises BadSilence.
    """
    checked = wanted.checked_silence(silence)
    since = (now or clock.now()) - dt.timedelta(days=days)
    rows = store.rows(f"SELECT * FROM ({_NOW}) WHERE was_sent AND fired_at >= ? ORDER BY fired_at DESC, alert_id", clock.to_store(since))
    found = [_alert(row) for row in rows]
    return [a for a in found if wanted.matches(checked, rule_id=a.rule_id, dimension=a.dimension, key=a.key)]


def summary(store: Store) -> dict[str, int]:
    """How many alerts are open by severity, and how many of all open ones nobody has acknowledged ("unacknowledged")."""
    rows = store.rows(f"SELECT severity, count(*) AS n, count(*) FILTER (WHERE acked_by IS NULL) AS n_new FROM ({_NOW}) "
                      "WHERE state <> 'resolved' GROUP BY severity")
    by = {row["severity"]: row["n"] for row in rows}
    return {severity: by.get(severity, 0) for severity in _RANK} | {"unacknowledged": sum(row["n_new"] for row in rows)}


def _alert(row: dict[str, Any]) -> Alert:
    over = row["state"] == "resolved"
    return Alert(
        row["alert_id"], row["fingerprint"], row["rule_id"], row["dimension"], row["key"], row["kind"], row["severity"], row["state"],
        clock.from_store(row["starts_at"]), clock.from_store(row["ends_at"]) if over else None, clock.from_store(row["noted_at"]),
        row["value"], row["expected"], row["reason"], json.loads(row["why"]), row["acked_by"] or "",
        clock.from_store(row["acked_at"]), row["silenced_by"], row["inhibited_by"],
    )


def _pending(store: Store) -> list[Alert]:
    """What rules hold that does not fire yet."""
    found, marks = [], read_marks(store)
    for rule in wanted.rules(store):
        for held in marks[rule.id].held.values() if rule.id in marks else ():
            if not held.firing:
                print_of = fingerprint(rule.id, rule.dimension, held.key)
                found.append(Alert(
                    alert_id(print_of, held.since), print_of, rule.id, rule.dimension, held.key, held.kind, held.severity, "pending",
                    held.since, None, held.until, held.value, held.expected, held.reason,
                ))  # fmt: skip
    return found
