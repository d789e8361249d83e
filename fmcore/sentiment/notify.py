"""Notifications: which waiting message is sent when, to which channel, and what follows from how that went.

Promises: a transition is queued in the transaction that makes it; it reaches each reachable channel at least once, in order, under the
same key at every try, and is noted as sent only after it was; a channel that fails delays no other; what cannot be delivered stays
visible as a dead letter. Owns these decisions; the rows are outbox.py's, the connections sending.py's.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from fmcore import clock
from fmcore.config import settings
from fmcore.nouns import Channel, FMError
from fmcore.sentiment import channels, outbox, sending
from fmcore.sentiment.messages import Message, bundle_key
from fmcore.sentiment.outbox import Row, Waiting, enqueue, enqueue_all, key, notifications, tally, tries
from fmcore.sentiment.sending import Outcome
from fmcore.store.store import Store

__all__ = [
    "Delivered", "NotPossible", "deliver", "enqueue", "enqueue_all", "key", "notifications", "remove_channel", "retry", "send_test",
    "tally", "tries",
]  # fmt: skip

log = logging.getLogger("fm.notify")

BACKOFF_S, MAX_BACKOFF_S = 10.0, 120.0
GIVE_UP_AFTER, GIVE_UP_TRIES = dt.timedelta(hours=24), 20
PROBE_AFTER = 3
"""Failed tries of the first message in a row before another one shows whether the message or the whole channel is at fault."""
MAX_GROUP, MAX_DIGEST = 100, 1000
"""Alerts in one message at most."""
TEST_TIMEOUT_S = 5.0

_busy: set[tuple[str, str]] = set()
_busy_lock = threading.Lock()


class NotPossible(FMError):
    """There is nothing to do again."""


@dataclass(frozen=True)
class Delivered:
    """What one round did, in messages: sent, noted as a dry run, failed for now, given up; and what still waits after it."""

    n_sent: int = 0
    n_dry: int = 0
    n_failed: int = 0
    n_dead: int = 0
    n_waiting: int = 0

    def __add__(self, other: Delivered) -> Delivered:
        return Delivered(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def deliver(
    store: Store,
    *,
    now: dt.datetime | None = None,
    send: Callable[[Channel, Message], Outcome] | None = None,
    budget_s: float = 45.0,
) -> Delivered:
    """Send what is due, each channel on a thread of its own; returns when all are done, or after budget_s and the last try's time.

    now: a fixed moment instead of the clock's; send: what sends a message instead of the network. Both are for tests. A channel
    that is still at work since the last round is left alone. Raises what a channel's thread raised, after the others are done.
    """
    present, ends = {c.name: c for c in channels.channels(store)}, time.monotonic() + budget_s
    for name in sorted(set(tally(store)) - set(present)):
        _bury(store, name, now or clock.now())
    lanes = [_Lane(store, channel, now=now, send=send, ends=ends) for channel in present.values() if channel.enabled]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join(max(0.0, ends + 2 * sending.TIMEOUT_S - time.monotonic()))
    failed = [lane.error for lane in lanes if lane.error is not None]
    if failed:
        raise failed[0]
    return sum((lane.done for lane in lanes), Delivered())


def retry(store: Store, notification_id: str, *, by: str, now: dt.datetime | None = None) -> int:
    """Queue a dead letter again, together with what else of its alert died in the same channel; returns the messages queued.

    Takes the id of a notification or of a message. Its key stays what it was. Raises NotPossible.
    """
    moment = now or clock.now()
    found = outbox.dead(store, notification_id)
    if not found:
        raise NotPossible("That is not a dead letter.", "It may have been sent since, or be queued again already.")
    with store.write() as tx:
        for channel, message in found:
            outbox.record(tx, channel, message, "again", now=moment, next_at=moment, who=by)
    return len(found)


def send_test(store: Store, name: str, *, by: str, send: Callable[[Channel, Message], Outcome] | None = None) -> Outcome:
    """Send one test message to a channel now, past the queue, and note how it went. Raises UnknownChannel or BadChannel."""
    channel, now = channels.channel(store, name), clock.now()
    held, test_key = channels.credentials(store, name), outbox.key(now.isoformat(), "test", name)
    event = {
        "key": test_key, "alert_id": "test", "fingerprint": "test", "transition": "firing", "severity": "low",
        "title": "Test message from FM Desk", "reason": f"Sent by {by} to see whether this channel works.", "url_path": "/alerts",
        "starts_at": now.isoformat(), "ends_at": None, "why": {},
    }  # fmt: skip
    message, began = Message(test_key, "test", (event,)), time.monotonic()
    if send is not None:
        outcome = send(channel, message)
    else:
        with sending.sender(channel, held, allow_private=settings().allow_private_targets, timeout_s=TEST_TIMEOUT_S) as post:
            outcome = post(message)
    word, took_ms = "sent" if outcome.ok else "dead", (time.monotonic() - began) * 1000
    with store.write() as tx:
        done = Waiting(test_key, "test", rows=[Row(test_key, "test", "firing", now)])
        outbox.record(tx, name, done, word, now=now, error=outcome.reason, latency_ms=took_ms, who=by)
    return outcome


def remove_channel(store: Store, name: str, *, by: str) -> None:
    """Remove a channel; what waits for it becomes dead letters. Raises UnknownChannel."""
    channels.remove(store, name, by=by)
    _bury(store, name, clock.now())


def backoff_s(message_id: str, tries: int) -> float:
    """Seconds until the next try after so many failed ones: 10, 20, 40 ... 120, each give or take a quarter, by the message's id."""
    digest = hashlib.blake2b(f"{message_id}/{tries}".encode(), digest_size=4).digest()
    jitter = 0.75 + 0.5 * int.from_bytes(digest, "big") / 2**32
    return min(MAX_BACKOFF_S, BACKOFF_S * 2 ** min(tries - 1, 10) * jitter)


def _bury(store: Store, name: str, now: dt.datetime) -> None:
    left = outbox.waiting(store, name)
    if left:
        with store.write() as tx:
            for message in left:
                outbox.record(tx, name, message, "dead", now=now, error="the channel was removed")


def _chunks(messages: list[Waiting], size: int) -> list[list[Waiting]]:
    """Parts of about so many messages, all of an alert in the same one: no part brings the end of what another one begins."""
    by_alert: dict[str, list[Waiting]] = {}
    for message in messages:
        by_alert.setdefault(message.rows[0].alert_id, []).append(message)
    parts: list[list[Waiting]] = [[]]
    for group in by_alert.values():
        if parts[-1] and len(parts[-1]) + len(group) > size:
            parts.append([])
        parts[-1] += group
    return parts if parts[0] else []


def _probe(others: list[Waiting], blocked: set[str]) -> str:
    """The message that shows whether the channel or the first message is at fault: one that seldom failed, else the one whose last
    try is longest ago, so that several bad messages do not hide a good one. "" when there is none."""
    free = [message for message in others if not message.alerts & blocked]
    young = [message for message in free if message.tries < PROBE_AFTER]
    if young:
        return young[0].id
    return min(free, key=lambda message: message.tried_at).id if free else ""


class _Lane(threading.Thread):
    """One channel's round. A daemon: a receiver that hangs in name resolution must not hold up the end of the desk."""

    def __init__(
        self,
        store: Store,
        channel: Channel,
        *,
        now: dt.datetime | None,
        send: Callable[[Channel, Message], Outcome] | None,
        ends: float,
    ):
        super().__init__(daemon=True, name=f"fm-deliver-{channel.name}")
        self.store, self.channel, self.done = store, channel, Delivered()
        self.error: Exception | None = None
        self._fixed, self._given, self._ends = now, send, ends
        self._was_down = False

    def run(self) -> None:
        mine = (str(self.store.home), self.channel.name)
        with _busy_lock:
            if mine in _busy:
                return
            _busy.add(mine)
        try:
            self._round()
        except Exception as error:  # noqa: BLE001  handed to the thread that waits, which raises it
            self.error = error
        finally:
            with _busy_lock:
                _busy.discard(mine)

    def _now(self) -> dt.datetime:
        return self._fixed or clock.now()

    def _round(self) -> None:
        """1 see what waits; 2 in a dry run note it and be done; 3 hold back what has no beginning; 4 leave a failing channel alone
        until its time; 5 make groups; 6 send."""
        queue = outbox.waiting(self.store, self.channel.name)
        if queue and self.channel.mode == "dry run":
            self._note_dry(queue)
            queue = []
        queue = self._held_back(queue)
        if queue and not self._left_alone(queue[0]):
            now_due, later = self._grouped(queue)
            with ExitStack() as stack:
                queue = self._send_all(now_due, self._sender(stack)) + later
        self.done += Delivered(n_waiting=len(queue))

    def _note_dry(self, queue: list[Waiting]) -> None:
        with self.store.write() as tx:
            for message in queue:
                outbox.record(tx, self.channel.name, message, "dry", now=self._now(), who="dry run")
        self.done += Delivered(n_dry=len(queue))

    def _held_back(self, queue: list[Waiting]) -> list[Waiting]:
        """The queue without resolves whose alert is a dead letter: they become dead letters too, until someone asks for both again."""
        unheard = outbox.undelivered(self.store, self.channel.name) if queue else set()
        held = [m for m in queue if m.alerts <= unheard and all(row.transition == "resolved" for row in m.rows)]
        if held:
            with self.store.write() as tx:
                for message in held:
                    why = "held back: nobody there heard of the alert itself, which is a dead letter"
                    outbox.record(tx, self.channel.name, message, "dead", now=self._now(), error=why)
            self.done += Delivered(n_dead=len(held))
        gone = {message.id for message in held}
        return [message for message in queue if message.id not in gone]

    def _left_alone(self, head: Waiting) -> bool:
        """Whether the channel failed at its last try and the time for the next has not come."""
        failure, now = outbox.last_failure(self.store, self.channel.name), self._now()
        if failure is None:
            return False
        tried_at, next_at = failure
        asked = replace(head, tried_at=tried_at, next_at=next_at)
        self._was_down = True
        return head.waits(now) or asked.waits(now)

    def _tokens(self) -> int:
        now = self._now()
        return self.channel.per_minute - outbox.tried_since(self.store, self.channel.name, now - dt.timedelta(minutes=1), now=now)

    # --- groups

    def _grouped(self, queue: list[Waiting]) -> tuple[list[Waiting], list[Waiting]]:
        """(what to send now, what waits for its digest). What was not tried yet is put into groups: in a digest all up to the last
        interval's end, else only when there is more than may be sent this minute."""
        fresh = self._loose(queue)
        if self.channel.mode == "digest":
            now = self._now().timestamp()
            closed = dt.datetime.fromtimestamp(now - now % self.channel.digest_s, clock.UTC)
            due = [message for message in fresh if message.rows[0].created_at < closed]
            queue = self._bundled(queue, _chunks(due, MAX_DIGEST), "digest")
            later = {message.id for message in fresh} - {message.id for message in due}
            return [m for m in queue if m.id not in later], [m for m in queue if m.id in later]
        room = self._tokens() - (len(queue) - len(fresh))
        if not 0 < room < len(fresh):
            return queue, []
        size = min(MAX_GROUP, math.ceil(len(fresh) / room))
        return self._bundled(queue, _chunks(fresh, size)[:room], "group"), []

    def _loose(self, queue: list[Waiting]) -> list[Waiting]:
        """Single messages that were never tried and whose alert has nothing older under way."""
        tried = set().union(*(m.alerts for m in queue if m.step or m.kind != "alert"))
        return [m for m in queue if m.step == 0 and m.kind == "alert" and not m.alerts & tried]

    def _bundled(self, queue: list[Waiting], chunks: list[list[Waiting]], kind: str) -> list[Waiting]:
        made, gone = {}, set()
        for chunk in chunks:
            rows = [row for message in chunk for row in message.rows]
            made[chunk[0].id] = outbox.bundle(self.store, bundle_key([kind, *(row.id for row in rows)]), kind, rows, now=self._now())
            gone |= {message.id for message in chunk}
        return [made.get(message.id, message) for message in queue if message.id in made or message.id not in gone]

    # --- sending

    def _sender(self, stack: ExitStack) -> sending.Send:
        if self._given is not None:
            return lambda message: self._given(self.channel, message)
        try:
            held = channels.credentials(self.store, self.channel.name)
        except channels.BadChannel as error:
            reason = error.message
            return lambda message: Outcome(False, reason)
        return stack.enter_context(sending.sender(self.channel, held, allow_private=settings().allow_private_targets))

    def _send_all(self, queue: list[Waiting], send: sending.Send) -> list[Waiting]:
        """Send in order until the minute's share or the time is up, or the channel fails; returns what still waits."""
        left, blocked, unsent = self._tokens(), set(), []
        alive, probe = False, ""
        for at, message in enumerate(queue):
            if left <= 0 or time.monotonic() >= self._ends:
                return [*unsent, *queue[at:]]
            not_yet = message.waits(self._now()) and not self._was_down
            if message.alerts & blocked or not_yet or (probe and message.id != probe and not alive):
                blocked |= message.alerts
                unsent.append(message)
                continue
            left -= 1
            state, outcome = self._send_one(message, send)
            if state != "retry":
                alive = True
                if state == "dead":
                    blocked |= message.alerts  # what follows of these alerts is held back in the next round
                continue
            blocked |= message.alerts
            unsent.append(message)
            if outcome.retry_after_s or message.tries + 1 < PROBE_AFTER or probe == message.id:
                return [*unsent, *queue[at + 1:]]
            probe = probe or _probe(queue[at + 1:], blocked)
        return unsent

    def _send_one(self, message: Waiting, send: sending.Send) -> tuple[str, Outcome]:
        """Send, then note how it went: in this order, so that a kill in between repeats a message and never loses one."""
        content, began = outbox.message(self.store, message), time.monotonic()
        outcome = send(content)
        took_ms, now = (time.monotonic() - began) * 1000, self._now()
        state, next_at, reason = "sent", None, outcome.reason
        if not outcome.ok:
            tries, first_at = message.tries + 1, message.first_at or now
            state = "dead" if outcome.permanent else "retry"
            if state == "retry" and tries >= GIVE_UP_TRIES and now - first_at > GIVE_UP_AFTER:
                state, reason = "dead", f"given up after {tries} tries: {reason}"
            if state == "retry":
                next_at = now + dt.timedelta(seconds=max(backoff_s(message.id, tries), outcome.retry_after_s))
        with self.store.write() as tx:
            outbox.record(tx, self.channel.name, message, state, now=now, error=reason, latency_ms=took_ms, next_at=next_at)
        if state == "dead":
            log.error("%s to %s is a dead letter: %s", message.id, self.channel.name, reason)
        elif state == "retry":
            log.warning("%s to %s failed (try %d): %s", message.id, self.channel.name, message.tries + 1, reason)
        self.done += Delivered(n_sent=state == "sent", n_failed=state == "retry", n_dead=state == "dead")
        return state, outcome
