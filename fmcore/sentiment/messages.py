"""What a notification says: one message to one channel, as JSON for programs and as text for people.

A message is a pure function of stored rows: every try of it has the same key and, byte for byte, the same body. The JSON is a
contract (docs/alerts.md). Nothing here knows how it travels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

VERSION = 1
MAX_LINES = 20
"""Alerts written out in a text; a chat message has little room. The JSON lists all."""

SIGNS = {"firing": "▲ Firing", "resolved": "✓ Resolved", "no data": "… No data", "error": "! Error"}


@dataclass(frozen=True)
class Message:
    """One message: its key and the events it carries in their order, each with its own "key" beside the event's fields."""

    key: str
    kind: Literal["alert", "group", "digest", "test"]
    events: tuple[Mapping[str, Any], ...]

    def body(self) -> bytes:
        """The message as JSON, UTF-8."""
        content = {"version": VERSION, "sender": "FM Desk", "kind": self.kind, "key": self.key, "notifications": list(self.events)}
        return json.dumps(content, ensure_ascii=False, allow_nan=False, sort_keys=True).encode("utf-8", "replace")

    def mood(self) -> str:
        """How a service may colour it: "bad", "good" or "neutral"."""
        if self.kind in ("digest", "test"):
            return "neutral"
        return "good" if all(event["transition"] == "resolved" for event in self.events) else "bad"

    def title(self) -> str:
        """One line."""
        if len(self.events) == 1:
            event = self.events[0]
            return f"{SIGNS[event['transition']]}: {event['title']}" if self.kind != "test" else str(event["title"])
        n_alerts = len({event["alert_id"] for event in self.events})
        news = f"{n_alerts} {'alert' if n_alerts == 1 else 'alerts'}"
        return f"FM Desk digest: {news}" if self.kind == "digest" else f"FM Desk: {news}"

    def text(self) -> str:
        """The whole message for a person; an alert that fired and resolved since the last one is one line that says both."""
        if len(self.events) == 1:
            event = self.events[0]
            return "\n".join([str(event.get("reason", "")), _facts(event), f"Key: {event['key']}"]).strip()
        alerts: dict[str, list[Mapping[str, Any]]] = {}
        for event in self.events:
            alerts.setdefault(str(event["alert_id"]), []).append(event)
        lines = [_line(events) for events in list(alerts.values())[:MAX_LINES]]
        if len(alerts) > MAX_LINES:
            lines.append(f"... and {len(alerts) - MAX_LINES} more, all of them on the Alerts page.")
        return "\n".join(lines)


def bundle_key(keys: Sequence[str]) -> str:
    """The key of a message that carries several notifications: a hash of theirs."""
    return hashlib.blake2b("\x1f".join(keys).encode(), digest_size=16).hexdigest()


def _facts(event: Mapping[str, Any]) -> str:
    facts = [f"Severity: {event['severity']}", f"Since: {_minute(event.get('starts_at'))}"]
    if event.get("ends_at"):
        facts.append(f"Until: {_minute(event['ends_at'])}")
    return " · ".join(facts)


def _line(events: Sequence[Mapping[str, Any]]) -> str:
    """One alert of many: what became of it last, and what it was before when that is in the same message."""
    last, keys = events[-1], ", ".join(str(event["key"])[:12] for event in events)
    words = " then ".join(SIGNS[event["transition"]].split(" ", 1)[1].lower() for event in events[:-1])
    before = f" (was {words})" if words else ""
    reason = f" {last['reason']}" if last.get("reason") else ""
    facts = f"[{last['severity']}, since {_minute(last.get('starts_at'))}]"
    return f"{SIGNS[last['transition']]}{before}: {last['title']} {facts}.{reason} [{keys}]"


def _minute(moment: Any) -> str:
    """An ISO time to the minute, in UTC as it is stored."""
    return f"{str(moment)[:16].replace('T', ' ')} UTC" if moment else "unknown"
