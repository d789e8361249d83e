"""Channels: where notifications go. Owns the table `channels` and the file of their credentials.

An address is a credential (a chat service's holds its token, a mail's its password), so the database, its backups, the pages and
the log know a redacted form only; the whole one lives with the signing secret in <home>/channel-secrets.json, mode 0600. What was
said of a channel last is what holds. Never sends anything.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fmcore import clock, log
from fmcore.nouns import Channel, FMError
from fmcore.store.store import Store

KINDS = ("webhook", "apprise")
MODES = ("each", "digest", "dry run")
SEVERITIES = ("low", "medium", "high")
SECRETS = "channel-secrets.json"
MIN_SECRET_BYTES = 16
CURRENT = "SELECT * FROM channels QUALIFY row_number() OVER (PARTITION BY name ORDER BY version DESC) = 1"
"""The channels as they stand, removed ones included."""

_file_lock = threading.Lock()


class BadChannel(FMError):
    """A channel that cannot be saved as it was described."""


class UnknownChannel(FMError):
    """There is no channel of that name."""


@dataclass(frozen=True)
class Credentials:
    """What a channel's messages are sent to and signed with. Neither shows when printed."""

    address: str = field(repr=False)
    secret: str = field(repr=False)


def channels(store: Store) -> list[Channel]:
    """The channels there are, in the order of their names; enabled is False for a paused one."""
    return [_channel(row) for row in store.rows(f"SELECT * FROM ({CURRENT}) WHERE state <> 'removed' ORDER BY name")]


def channel(store: Store, name: str) -> Channel:
    """One channel. Raises UnknownChannel."""
    found = next((c for c in channels(store) if c.name == name), None)
    if found is None:
        raise UnknownChannel(f"There is no channel named {name[:80]!r}.", "See the list of channels.")
    return found


def add(
    store: Store,
    name: str,
    kind: str,
    address: str,
    *,
    by: str,
    mode: str = "each",
    min_severity: str = "low",
    per_minute: int = 30,
    digest_s: int = 3600,
    secret: str = "",
) -> tuple[Channel, str]:
    """Save a channel and return it with the secret that signs its webhooks, made here (32 random bytes as hex) unless one is given.

    The secret is not shown again anywhere. min_severity: the least severe alert that is sent ("low" sends all). digest_s: seconds
    between two messages in mode "digest". The address is taken as it is: see `outbound.check_address`. Raises BadChannel.
    """
    name = name.strip()
    _check(name, kind, mode, min_severity, per_minute, digest_s)
    if secret and len(secret.encode()) < MIN_SECRET_BYTES:
        raise BadChannel(f"The secret has fewer than {MIN_SECRET_BYTES} bytes.", "Leave it empty: a strong one is made.")
    secret = secret or secrets.token_hex(32)
    secret_id = secrets.token_hex(8)
    _keep(store.home, secret_id, Credentials(address, secret))
    row = {
        "name": name, "kind": kind, "address": redacted(address), "secret_id": secret_id, "mode": mode, "min_severity": min_severity,
        "per_minute": per_minute, "digest_s": digest_s, "state": "on",
    }  # fmt: skip
    with store.write() as tx:
        if tx.execute(f"SELECT 1 FROM ({CURRENT}) WHERE name = ? AND state <> 'removed'", [name]):
            taken = True
        else:
            taken = False
            _say(tx, row, by=by)
    if taken:
        _forget(store.home, secret_id)
        raise BadChannel(f"There is a channel named {name!r} already.", "Choose another name, or remove that one first.")
    return _channel(row), secret


def pause(store: Store, name: str, *, by: str) -> Channel:
    """Take no new alerts and send nothing of what waits, until it is resumed. Raises UnknownChannel."""
    return _turn(store, name, "paused", by=by)


def resume(store: Store, name: str, *, by: str) -> Channel:
    """Send again, what waits first. Raises UnknownChannel."""
    return _turn(store, name, "on", by=by)


def remove(store: Store, name: str, *, by: str) -> None:
    """Forget a channel and its credentials; its delivery log stays. Raises UnknownChannel."""
    secret_id = _secret_id(store, name)
    _turn(store, name, "removed", by=by)
    _forget(store.home, secret_id)


def credentials(store: Store, name: str) -> Credentials:
    """The whole address and the secret of a channel; from here on the log hides both. Raises UnknownChannel, or BadChannel when
    they are not on this machine (a restored backup holds none)."""
    held = _read(store.home).get(_secret_id(store, name))
    if held is None:
        hint = "Backups hold no credentials: remove the channel and add it again."
        raise BadChannel(f"The address of {name} is not on this machine.", hint)
    log.hide(held["address"], held["secret"])
    return Credentials(held["address"], held["secret"])


def redacted(address: str) -> str:
    """What may be shown of an address: the scheme, and for a web address its host; the rest may hold a token."""
    scheme = address.partition(":")[0].lower()
    if not re.fullmatch(r"[a-z][a-z0-9+.-]{0,30}", scheme):
        return "****"
    try:
        parts = urlsplit(address)
        host = parts.hostname if scheme in ("http", "https") else None
        port = f":{parts.port}" if host and parts.port else ""
    except ValueError:
        return f"{scheme}://****"
    return f"{scheme}://{host}{port}/****" if host else f"{scheme}://****"


def severities_from(least: str) -> tuple[str, ...]:
    """The severities that a channel with this least one takes."""
    return SEVERITIES[SEVERITIES.index(least):]


def _check(name: str, kind: str, mode: str, min_severity: str, per_minute: int, digest_s: int) -> None:
    if not re.fullmatch(r"[\w][\w .-]{0,59}", name):
        raise BadChannel("A channel's name has 1 to 60 letters, digits, spaces, dots, hyphens or underscores.", "Choose a short name.")
    for what, value, known in (("kind", kind, KINDS), ("mode", mode, MODES), ("severity", min_severity, SEVERITIES)):
        if value not in known:
            raise BadChannel(f"{value[:40]!r} is not a {what}.", f"One of: {', '.join(known)}.")
    if not 1 <= per_minute <= 600:
        raise BadChannel("A channel sends 1 to 600 messages a minute.", "30 suits most services.")
    if not 60 <= digest_s <= 86_400:
        raise BadChannel("A digest comes every 60 to 86,400 seconds.", "3600 is once an hour.")


def _turn(store: Store, name: str, state: str, *, by: str) -> Channel:
    with store.write() as tx:
        names = [column for column in COLUMNS if column != "version"]
        found = tx.execute(f"SELECT {', '.join(names)} FROM ({CURRENT}) WHERE name = ? AND state <> 'removed'", [name])
        if not found:
            raise UnknownChannel(f"There is no channel named {name[:80]!r}.", "See the list of channels.")
        row = {**dict(zip(names, found[0], strict=True)), "state": state}
        _say(tx, row, by=by)
    return _channel(row)


COLUMNS = ("name", "version", "kind", "address", "secret_id", "mode", "min_severity", "per_minute", "digest_s", "state")


def _say(tx: Any, row: dict[str, Any], *, by: str) -> None:
    version = tx.execute("SELECT coalesce(max(version), 0) + 1 FROM channels WHERE name = ?", [row["name"]])[0][0]
    values = [version if column == "version" else row[column] for column in COLUMNS]
    tx.execute(f"INSERT INTO channels ({', '.join(COLUMNS)}, who, changed_at) VALUES ({', '.join('?' * len(COLUMNS))}, ?, ?)",
               [*values, by, clock.to_store(clock.now())])  # fmt: skip


def _channel(row: dict[str, Any]) -> Channel:
    kept = {name: row[name] for name in ("name", "kind", "address", "mode", "min_severity", "per_minute", "digest_s")}
    return Channel(**kept, enabled=row["state"] == "on")


# ---------------------------------------------------------------- the file of credentials


def _secret_id(store: Store, name: str) -> str:
    found = store.rows(f"SELECT secret_id FROM ({CURRENT}) WHERE name = ? AND state <> 'removed'", name)
    if not found:
        raise UnknownChannel(f"There is no channel named {name[:80]!r}.", "See the list of channels.")
    return found[0]["secret_id"]


def _keep(home: Path, secret_id: str, held: Credentials) -> None:
    log.hide(held.address, held.secret)
    with _file_lock:
        _replace(home, {**_read(home), secret_id: {"address": held.address, "secret": held.secret}})


def _forget(home: Path, secret_id: str) -> None:
    with _file_lock:
        _replace(home, {key: held for key, held in _read(home).items() if key != secret_id})


def _read(home: Path) -> dict[str, dict[str, str]]:
    try:
        return json.loads((home / SECRETS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadChannel(f"{SECRETS} cannot be read ({type(error).__name__}).", "Remove that file and add the channels again.") from None


def _replace(home: Path, content: dict[str, dict[str, str]]) -> None:
    part = home / f"{SECRETS}.part"
    with open(part, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    part.chmod(0o600)
    os.replace(part, home / SECRETS)
