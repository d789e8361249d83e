"""The outbox: what waits for a channel, what was tried, and what came of it. Owns the tables `outbox`, `bundles` and `deliveries`.

A row of the outbox is never changed: its state is the last word of `deliveries` on the message that carries it, which is the row's own
id unless it was bundled with others. A bundle is fixed before its first try, so that each try is the same message. Decides nothing.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fmcore import clock
from fmcore.nouns import Notification
from fmcore.sentiment.channels import CURRENT, severities_from
from fmcore.sentiment.messages import Message
from fmcore.store.store import Store, Transaction, to_json
from fmcore.text import clean

MAX_EVENT_CHARS = 32_000
TRANSITIONS = ("firing", "resolved", "no data", "error")

# What deliveries say of each message. A try is a row with a latency; "again" is a person's word that starts the count anew.
_SAID = """(SELECT message_id, max(step) AS step, last(outcome ORDER BY step) AS outcome, last(error ORDER BY step) AS error,
    last(next_at ORDER BY step) AS next_at, last(tried_at ORDER BY step) AS tried_at, last(latency_ms ORDER BY step) AS latency_ms,
    count(latency_ms) AS attempts, count(latency_ms) FILTER (WHERE step > again) AS tries,
    min(tried_at) FILTER (WHERE step > again AND latency_ms IS NOT NULL) AS first_at
    FROM (SELECT *, coalesce(max(step) FILTER (WHERE outcome = 'again') OVER (PARTITION BY message_id), 0) AS again FROM deliveries)
    GROUP BY message_id)"""
_ROWS = f"""(SELECT o.*, coalesce(b.message_id, o.id) AS message_id, coalesce(b.kind, 'alert') AS kind, s.* EXCLUDE (message_id)
    FROM outbox o LEFT JOIN bundles b ON b.notification_id = o.id LEFT JOIN {_SAID} s ON s.message_id = coalesce(b.message_id, o.id))"""
_STATE = "CASE outcome WHEN 'sent' THEN 'sent' WHEN 'dry' THEN 'dry' WHEN 'dead' THEN 'dead' ELSE 'queued' END"


@dataclass(frozen=True)
class Row:
    """A queued transition of one alert."""

    id: str
    alert_id: str
    transition: str
    created_at: dt.datetime


@dataclass(frozen=True)
class Waiting:
    """A message that is not done: its rows in their order, and what its tries so far say. tries and first_at count from the last time
    a person asked for it again."""

    id: str
    kind: str
    step: int = 0
    tries: int = 0
    first_at: dt.datetime | None = None
    tried_at: dt.datetime | None = None
    next_at: dt.datetime | None = None
    rows: list[Row] = field(default_factory=list)

    @property
    def alerts(self) -> set[str]:
        return {row.alert_id for row in self.rows}

    def waits(self, now: dt.datetime) -> bool:
        """Whether its next try is still to come. A try in the future means that the clock was set back: then it is due."""
        return self.next_at is not None and self.next_at > now and (self.tried_at is None or self.tried_at <= now)


# ---------------------------------------------------------------- in


def enqueue(tx: Transaction, event: Mapping[str, Any], *, now: dt.datetime) -> int:
    """Queue an alert's transition for every channel that takes it, inside the caller's transaction; returns the rows added.

    event: alert_id, fingerprint, transition ("firing", "resolved", "no data" or "error"), severity, title, reason, url_path,
    starts_at, ends_at, why. The same transition of the same alert again adds nothing. A resolve goes only where the alert went,
    paused channels included: nobody hears the end of what they never heard of.
    """
    return enqueue_all(tx, [event], now=now)


def enqueue_all(tx: Transaction, events: Sequence[Mapping[str, Any]], *, now: dt.datetime) -> int:
    """The same for many transitions at once, in their order."""
    taking = tx.execute(f"SELECT name, min_severity FROM ({CURRENT}) WHERE state = 'on' ORDER BY name")
    known = _known(tx, [str(event["alert_id"]) for event in events])
    rows = []
    for event in events:
        alert_id, transition, severity = str(event["alert_id"]), str(event["transition"]), str(event["severity"])
        if transition not in TRANSITIONS:
            raise ValueError(f"{transition!r} is not a transition")
        heard = known.setdefault(alert_id, {})
        names = list(heard) if transition == "resolved" else [name for name, least in taking if severity in severities_from(least)]
        content = _content(event)
        for name in names:
            if transition in heard.get(name, ()):
                continue
            heard.setdefault(name, set()).add(transition)
            title = clean(event["title"], limit=300)[0]
            rows.append((key(alert_id, transition, name), name, alert_id, transition, severity, title, content))
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]  # as lists: fifty times faster than row by row
        sql = f"""INSERT INTO outbox SELECT (SELECT coalesce(max(n), 0) FROM outbox) + unnest(range(1, ? + 1)),
                  {", ".join(["unnest(?::VARCHAR[])"] * len(columns))}, ?"""
        tx.execute(sql, [len(rows), *columns, clock.to_store(now)])
    return len(rows)


def key(alert_id: str, transition: str, channel: str) -> str:
    """The idempotency key of one transition to one channel: 128 bits of a hash, the same whenever it is made."""
    return hashlib.blake2b("\x1f".join((alert_id, transition, channel)).encode(), digest_size=16).hexdigest()


def _known(tx: Transaction, alert_ids: Sequence[str]) -> dict[str, dict[str, set[str]]]:
    """What is in the outbox of these alerts: alert id -> channel that still exists -> transitions."""
    sql = f"""SELECT alert_id, channel, transition FROM outbox WHERE alert_id IN (SELECT unnest(?::VARCHAR[]))
              AND channel IN (SELECT name FROM ({CURRENT}) WHERE state <> 'removed') ORDER BY channel"""
    found: dict[str, dict[str, set[str]]] = {}
    for alert_id, channel, transition in tx.execute(sql, [list(alert_ids)]):
        found.setdefault(alert_id, {}).setdefault(channel, set()).add(transition)
    return found


def _content(event: Mapping[str, Any]) -> str:
    """The event as JSON, bounded: an explanation that is too long is left to the page that the event points to."""
    plain = {name: value.isoformat() if isinstance(value, dt.datetime) else value for name, value in event.items()}
    content = to_json(plain)
    return content if len(content) <= MAX_EVENT_CHARS else to_json({**plain, "why": {}, "why_left_out": True})


# ---------------------------------------------------------------- what waits


def waiting(store: Store, channel: str) -> list[Waiting]:
    """The messages of a channel that are neither sent nor dead, in the order in which their first rows came."""
    sql = f"""SELECT n, id, alert_id, transition, created_at, message_id, kind, step, tries, first_at, tried_at, next_at
              FROM {_ROWS} WHERE channel = ? AND {_STATE} = 'queued' ORDER BY n"""
    found: dict[str, Waiting] = {}
    for row in store.rows(sql, channel):
        at = {name: clock.from_store(row[name]) for name in ("first_at", "tried_at", "next_at")}
        message = found.setdefault(row["message_id"], Waiting(row["message_id"], row["kind"], row["step"] or 0, row["tries"] or 0, **at))
        message.rows.append(Row(row["id"], row["alert_id"], row["transition"], clock.from_store(row["created_at"])))
    return list(found.values())


def undelivered(store: Store, channel: str) -> set[str]:
    """The alerts of which a channel has heard nothing, and will not unless someone asks: all there is of them are dead letters."""
    sql = f"""SELECT alert_id FROM {_ROWS} WHERE channel = ? AND transition <> 'resolved'
              GROUP BY alert_id HAVING bool_and({_STATE} = 'dead')"""
    return {row["alert_id"] for row in store.rows(sql, channel)}


def bundle(store: Store, key: str, kind: str, rows: Sequence[Row], *, now: dt.datetime) -> Waiting:
    """Fix that these rows travel as one message; returns it."""
    with store.write() as tx:
        sql = "INSERT INTO bundles SELECT ?, ?, unnest(?::VARCHAR[]), ?"
        tx.execute(sql, [key, kind, [row.id for row in rows], clock.to_store(now)])
    return Waiting(key, kind, rows=list(rows))


def message(store: Store, waiting: Waiting) -> Message:
    """What is to be sent. Where several travel together, their explanations are left to the page: a receiver takes only so much."""
    sql = "SELECT id, event, created_at FROM outbox WHERE id IN (SELECT unnest(?::VARCHAR[])) ORDER BY n"
    events = []
    for row in store.rows(sql, [each.id for each in waiting.rows]):
        queued_at = clock.from_store(row["created_at"]).isoformat()
        left_out = {} if waiting.kind == "alert" else {"why": {}, "why_left_out": True}
        events.append({**json.loads(row["event"]), **left_out, "key": row["id"], "queued_at": queued_at})
    return Message(waiting.id, waiting.kind, tuple(events))


def tried_since(store: Store, channel: str, moment: dt.datetime, *, now: dt.datetime) -> int:
    """How many messages were tried between two moments, tests included."""
    sql = "SELECT count(latency_ms) AS n FROM deliveries WHERE channel = ? AND tried_at > ? AND tried_at <= ?"
    return store.rows(sql, channel, clock.to_store(moment), clock.to_store(now))[0]["n"]


def last_failure(store: Store, channel: str) -> tuple[dt.datetime, dt.datetime] | None:
    """(tried at, next at) of a channel's last try when that failed for now and its message still waits; None when the channel is well."""
    sql = """WITH tried AS (SELECT * FROM deliveries WHERE channel = ? AND latency_ms IS NOT NULL AND who = '' ORDER BY rowid DESC LIMIT 1)
             SELECT tried_at, next_at FROM tried WHERE outcome = 'retry'
             AND NOT EXISTS (FROM deliveries d WHERE d.message_id = tried.message_id AND d.step > tried.step)"""
    found = store.rows(sql, channel)
    return (clock.from_store(found[0]["tried_at"]), clock.from_store(found[0]["next_at"])) if found else None


# ---------------------------------------------------------------- what came of it


def record(
    tx: Transaction,
    channel: str,
    done: Waiting,
    outcome: str,
    *,
    now: dt.datetime,
    error: str = "",
    latency_ms: float | None = None,
    next_at: dt.datetime | None = None,
    who: str = "",
) -> None:
    """Note what came of a message: "sent", "dry", "retry" (with next_at), "dead", or a person's "again"."""
    facts = [done.id, done.step + 1, channel, outcome, len(done.rows), error, latency_ms]
    tx.execute("INSERT INTO deliveries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [*facts, clock.to_store(next_at), who, clock.to_store(now)])


def dead(store: Store, notification_id: str) -> list[tuple[str, Waiting]]:
    """The dead letters to take up again together with one: all of the same alerts in the same channel. (channel, message) each."""
    sql = f"""WITH rows AS {_ROWS}, chosen AS (SELECT channel, alert_id FROM rows WHERE id = ? OR message_id = ?)
              SELECT channel, message_id, any_value(kind) AS kind, any_value(step) AS step, list(id ORDER BY n) AS ids FROM rows
              WHERE outcome = 'dead' AND (channel, alert_id) IN (SELECT (channel, alert_id) FROM chosen)
              GROUP BY channel, message_id ORDER BY min(n)"""
    found = []
    for row in store.rows(sql, notification_id, notification_id):
        rows = [Row(each, "", "", clock.now()) for each in row["ids"]]
        found.append((row["channel"], Waiting(row["message_id"], row["kind"], row["step"], rows=rows)))
    return found


def notifications(store: Store, *, channel: str = "", state: str = "", limit: int = 100) -> list[Notification]:
    """What was to be sent, newest first, and how far it is; `state`: "queued", "sent", "dead", "dry" or "" for all."""
    sql = f"""SELECT *, {_STATE} AS state FROM {_ROWS} WHERE (? = '' OR channel = ?) AND (? = '' OR {_STATE} = ?)
              ORDER BY n DESC LIMIT ?"""
    found = []
    for row in store.rows(sql, channel, channel, state, state, limit):
        kept = {name: row[name] for name in ("id", "channel", "alert_id", "transition", "state", "title", "severity", "message_id")}
        sent_at = row["tried_at"] if row["state"] == "sent" else None
        at = {"created_at": row["created_at"], "next_at": row["next_at"], "sent_at": sent_at}
        at = {name: clock.from_store(moment) for name, moment in at.items()}
        said = {"attempts": row["attempts"] or 0, "error": row["error"] or "", "latency_ms": row["latency_ms"]}
        found.append(Notification(**kept, **at, **said))
    return found


def tries(store: Store, notification_id: str) -> list[dict[str, Any]]:
    """What was tried with a notification and what a person said to it, oldest first: outcome, error, latency_ms, next_at, tried_at, who."""
    sql = f"""SELECT outcome, error, latency_ms, next_at, tried_at, who FROM deliveries
              WHERE message_id IN (SELECT message_id FROM {_ROWS} WHERE id = ?) ORDER BY step"""
    rows = store.rows(sql, notification_id)
    return [{**row, "next_at": clock.from_store(row["next_at"]), "tried_at": clock.from_store(row["tried_at"])} for row in rows]


def tally(store: Store) -> dict[str, dict[str, int]]:
    """How many notifications of each channel are in each state: {"ops": {"sent": 12, "dead": 1}}."""
    found: dict[str, dict[str, int]] = {}
    for row in store.rows(f"SELECT channel, {_STATE} AS state, count(*) AS n FROM {_ROWS} GROUP BY ALL ORDER BY ALL"):
        found.setdefault(row["channel"], {})[row["state"]] = row["n"]
    return found
