"""Notifications: the outbox between an alert's transition and the channels that hear of it, and its delivery.

Promises: a transition is queued in the transaction that makes it; it reaches each reachable channel at least once; each try bears
the same key; what cannot be delivered stays visible. Owns the tables `outbox`, `bundles` and `deliveries`. Opens no connection.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from fmcore import clock
from fmcore.sentiment.channels import CURRENT, severities_from
from fmcore.store.store import Transaction, to_json
from fmcore.text import clean

MAX_EVENT_CHARS = 32_000
TRANSITIONS = ("firing", "resolved", "no data", "error")


# ---------------------------------------------------------------- into the outbox


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
