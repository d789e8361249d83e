"""A process of its own for apprise: `python -m fmcore.sentiment.apprise_child`, started by sending.py.

A channel's address is user input that a library of a hundred plug-ins interprets, so this process has no database, no secrets but
that address, no proxy or .netrc from the environment, a guard over every connection, file and program, and a parent that kills it.
Reads JSON lines, answers one each: first {"address", "allow_private", "deadline_s"} -> {"ok", "reason", "service"}, then messages
{"title", "text", "mood"} -> {"ok", "permanent", "reason"}. Ends with its input.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import sys
from pathlib import Path
from typing import Any

from fmcore.config import ROOT
from fmcore.sentiment.guard import Guard

_SCHEMES = """azure bark barks betterstack brevo chanify dingtalk discord feishu flock form forms gchat github gotify gotifys guilded hassio
    hassios ifttt ilert incidentio jira json jsons lark line mailersend mailgun mailto mailtos mastodon mastodons matrix matrixs mmost
    mmosts nexmo ntfy ntfys o365 onesignal opsgenie pagerduty pagertree pbul postmark pover prowl pushdeer pushdeers pushme pushplus
    resend revolt rocket rockets schan sendgrid ses signal signals signl4 slack smtp2go sns sparkpost splunk spugpush squadcast
    synology synologys tgram threema twilio twist victorops vonage webex wechat wecom wecombot whatsapp workflow workflows wxpusher
    wxteams xml xmls zoom zulip"""
SCHEMES = frozenset(_SCHEMES.split())
"""Services that are spoken to over HTTP or mail. Not here: whatever starts programs, opens local files, sockets or the desktop,
reads further addresses from somewhere (config URLs), or speaks a protocol of its own."""

MAX_BYTES = 2 << 30
"""Address space: an answer that never ends cannot fill the machine's memory."""

PERMANENT = frozenset(range(300, 500)) - {408, 425, 429}
MOODS = {"bad": "warning", "good": "success", "neutral": "info"}


class _Said(logging.Handler):
    """Keeps the HTTP status that apprise logs on failure; the lines themselves may hold tokens and go nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.status = 0

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r"error=(\d{3})\b", record.getMessage())
        if found:
            self.status = int(found[1])


def scheme_of(address: str) -> str:
    """The scheme of an address, in lower case; "" when it has none."""
    return address.partition("://")[0].lower() if "://" in address else ""


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is not an answer
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    asked = json.loads(sys.stdin.readline())
    said = _Said()
    service, reason = _service(asked["address"], said)
    _answer(answers, ok=service is not None, reason=reason, service=str(getattr(service, "service_name", "")))
    if service is None:
        return
    folders = tuple(Path(os.path.realpath(folder)) for folder in (sys.prefix, sys.base_prefix, ROOT / "fmcore"))
    Guard(allow_private=asked["allow_private"], read_only=folders).keep()
    for line in sys.stdin:
        _answer(answers, **_sent(service, json.loads(line), said, allow_private=asked["allow_private"], deadline_s=asked["deadline_s"]))


def _service(address: str, said: logging.Handler) -> tuple[Any, str]:
    """(apprise's object for an address, "") or (None, why not). Opens no connection."""
    if scheme_of(address) not in SCHEMES:
        return None, f"{scheme_of(address)[:30] or 'that'}:// is not a service that messages are sent to"
    import apprise

    logger = logging.getLogger("apprise")
    logger.handlers, logger.propagate = [said], False
    logger.setLevel(logging.WARNING)
    shown = {"app_id": "FM Desk", "app_desc": "FM Desk", "app_url": ""}
    asset = apprise.AppriseAsset(**shown, async_mode=False, http_redirects=False, allow_templates=False, storage_mode="memory")
    service = apprise.Apprise.instantiate(address, asset=asset)
    if service is None:
        return None, "the address is not complete; see the service's page on https://github.com/caronc/apprise/wiki"
    if "overflow=" not in address:
        service.overflow_mode = apprise.OverflowMode.SPLIT  # a long list in two messages, not in one that is refused
    return service, ""


def _sent(service: Any, message: dict[str, str], said: _Said, *, allow_private: bool, deadline_s: float) -> dict[str, Any]:
    said.status = 0
    with Guard(allow_private=allow_private, deadline_s=deadline_s) as guard:
        try:
            ok = service.notify(title=message["title"], body=message["text"], notify_type=MOODS[message["mood"]], body_format="text")
        except Exception as error:  # noqa: BLE001  a plug-in may raise anything; the other messages must not suffer
            return {"ok": False, "permanent": False, "reason": f"The service's plug-in failed ({type(error).__name__})."}
    if ok and not guard.timed_out:  # an answer that was cut off may look like a whole one
        return {"ok": True, "permanent": False, "reason": ""}
    if guard.timed_out:
        return {"ok": False, "permanent": False, "reason": f"It did not take the message within {deadline_s:.0f} s."}
    if guard.refused:
        return {"ok": False, "permanent": True, "reason": f"Stopped: {guard.refused[-1]}."}
    if said.status:
        return {"ok": False, "permanent": said.status in PERMANENT, "reason": f"It answered {said.status}."}
    return {"ok": False, "permanent": False, "reason": "The service did not take it, or cannot be reached."}


def _answer(answers: Any, **content: Any) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
