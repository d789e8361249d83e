"""Sending: one message to one channel, and what came of it in words.

A webhook goes out through `data/outbound.py`; apprise runs in a process of its own under the guard of guard.py. A try takes ten seconds
at most, redirects are not followed, and nothing of the environment (proxies, .netrc) is used. Knows nothing of the outbox.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fmcore import clock
from fmcore.config import ROOT
from fmcore.data import outbound
from fmcore.log import redact
from fmcore.nouns import Channel
from fmcore.sentiment.channels import BadChannel, Credentials
from fmcore.sentiment.messages import Message

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 1_000_000
MAX_RETRY_AFTER_S = 24 * 3600.0
PERMANENT = frozenset(range(300, 500)) - {408, 425, 429}
_STARTING_S = 30.0
_NOTHING = {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": os.devnull}


@dataclass(frozen=True)
class Outcome:
    """What came of a try. permanent: another one would end the same way. retry_after_s: how long the receiver asks to be left alone."""

    ok: bool
    reason: str = ""
    permanent: bool = False
    retry_after_s: float = 0.0


Send = Callable[[Message], Outcome]


@contextlib.contextmanager
def sender(channel: Channel, held: Credentials, *, allow_private: bool, timeout_s: float = TIMEOUT_S) -> Iterator[Send]:
    """A function that sends a message to a channel. Never raises on what a receiver does: that is an Outcome."""
    if channel.kind == "webhook":
        yield functools.partial(post, held, allow_private=allow_private, timeout_s=timeout_s)
        return
    child = _Child(held.address, allow_private=allow_private, timeout_s=timeout_s)
    try:
        yield child.send
    finally:
        child.stop()


def check_address(kind: str, address: str, *, allow_private: bool) -> str:
    """What stands at an address, in a word ("webhook", "Slack"); nothing is connected to. Raises BadChannel.

    A first look only: the address is judged again at each connection, whatever its name resolves to then.
    """
    if len(address) > 2000 or not address.isprintable() or any(character.isspace() for character in address):
        raise BadChannel("That is not an address.", "Give it without blanks, in at most 2,000 characters.")
    if kind == "webhook":
        try:
            outbound.check_url(address, allow_private=allow_private)
        except outbound.Refused as error:
            hint = "It looks like https://hooks.example.com/path; FM_ALLOW_PRIVATE_TARGETS=true allows receivers in your own network."
            raise BadChannel(redact(error.message), hint) from None
        return "webhook"
    child = _Child(address, allow_private=allow_private, timeout_s=TIMEOUT_S)
    try:
        return child.start()
    except NotStarted as error:
        raise BadChannel(f"This address cannot be used: {error}.", "It looks like slack://TokenA/TokenB/TokenC or mailtos://...") from None
    finally:
        child.stop()


# ---------------------------------------------------------------- webhooks


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """The value of X-FMDesk-Signature: "sha256=" and the hex HMAC-SHA256, keyed with the secret, of timestamp, a dot and the body."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def post(held: Credentials, message: Message, *, allow_private: bool, timeout_s: float = TIMEOUT_S) -> Outcome:
    """Send a message to a webhook, signed; any 2xx answer means taken."""
    body, stamp = message.body(), str(int(clock.now().timestamp()))
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Idempotency-Key": message.key,
        "X-FMDesk-Timestamp": stamp,
        "X-FMDesk-Signature": signature(held.secret, stamp, body),
    }
    bounds = {"max_bytes": MAX_ANSWER_BYTES, "deadline_s": timeout_s, "max_redirects": 0, "allow_private": allow_private}
    try:
        answer = outbound.exchange("POST", held.address, headers=headers, content=body, **bounds)
    except outbound.Offline as error:
        return Outcome(False, redact(error.message))
    except outbound.FetchError as error:
        return Outcome(False, redact(error.message), permanent=True)
    if 200 <= answer.status < 300:
        return Outcome(True)
    if 300 <= answer.status < 400:
        return Outcome(False, f"It redirects ({answer.status}), and redirects are not followed.", permanent=True)
    wait_s = min(answer.retry_after_s or 0.0, MAX_RETRY_AFTER_S)  # longer is a fault, and nobody would hear of the alert
    return Outcome(False, f"It answered {answer.status}.", permanent=answer.status in PERMANENT, retry_after_s=wait_s)


# ---------------------------------------------------------------- apprise, in a process of its own


class NotStarted(Exception):
    """apprise does not take the address; the text says why."""


class _Child:
    """The process that speaks for one channel, started with its first message and stopped with the last."""

    def __init__(self, address: str, *, allow_private: bool, timeout_s: float):
        self._hello = {"address": address, "allow_private": allow_private, "deadline_s": timeout_s}
        self._timeout_s = timeout_s
        self._process: subprocess.Popen | None = None
        self._unread = b""

    def start(self) -> str:
        """Start it and return the service's name. Raises NotStarted."""
        command = [sys.executable, "-m", "fmcore.sentiment.apprise_child"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, cwd=ROOT, env=_NOTHING, start_new_session=True, **pipes)
        answer = self._ask(self._hello, within_s=_STARTING_S)
        if answer is None:
            raise NotStarted("its own process did not start")
        if not answer["ok"]:
            raise NotStarted(answer["reason"])
        return answer["service"]

    def send(self, message: Message) -> Outcome:
        """Have one message sent; a process that does not answer in time is ended, and the next message gets a new one."""
        try:
            if self._process is None:
                self.start()
        except NotStarted as error:
            self.stop()
            return Outcome(False, f"Its address cannot be used: {error}.", permanent=True)
        answer = self._ask({"title": message.title(), "text": message.text(), "mood": message.mood()}, within_s=self._timeout_s + 2)
        if answer is None:
            self.stop()
            return Outcome(False, f"It did not take the message within {self._timeout_s:.0f} s")
        return Outcome(answer["ok"], answer["reason"], permanent=answer["permanent"])

    def stop(self) -> None:
        process, self._process, self._unread = self._process, None, b""
        if process is not None:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()

    def _ask(self, content: dict[str, Any], *, within_s: float) -> dict[str, Any] | None:
        """One line in, one line out; None when the process ended or took too long."""
        deadline = time.monotonic() + within_s
        try:
            self._process.stdin.write(json.dumps(content).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return None
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            more = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            if not more:
                return None
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)
