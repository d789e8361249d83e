"""Who may ask the API, and how much at once: checked before a request reaches any route, the documentation included.

Host (against DNS rebinding: mounted routes get none of Streamlit's checks), Origin (a page of another site must not drive the desk),
bearer token, JSON only, and a bound on the body. Knows nothing of what a route does.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_BODY_BYTES = 5_000_000
SAFE = ("GET", "HEAD", "OPTIONS")


class Gatekeeper:
    """ASGI middleware. `token()` gives the token that is needed now, or None; `hosts` may be extended while it runs."""

    def __init__(self, app: ASGIApp, *, token: Callable[[], str | None], hosts: set[str], max_body_bytes: int = MAX_BODY_BYTES):
        self.app, self.token, self.hosts, self.max_body_bytes = app, token, hosts, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope["method"], headers)
        if refusal is None and scope["method"] not in SAFE:
            body = await _whole_body(receive, self.max_body_bytes)
            refusal = _too_large(self.max_body_bytes) if body is None else None
            receive = _replayed(body or b"", receive)
        if refusal:
            await _answer(send, *refusal)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, method: str, headers: dict[bytes, str]) -> tuple[int, str, str] | None:
        """(status, what is wrong, what to do), or None when the request may go on."""
        allowed = LOCAL_HOSTS | self.hosts
        host = host_of(headers.get(b"host", ""))
        if host not in allowed:
            return 403, "This address is not one the desk answers to.", "Use http://127.0.0.1, or add the name to server.allowedHosts."
        origin = headers.get(b"origin")
        if origin and host_of(urlsplit(origin).netloc) not in allowed:
            return 403, "Requests from pages of another site are refused.", "Call the API from a program, or from the desk's own pages."
        needed = self.token()
        if needed and not _bears(headers.get(b"authorization", ""), needed):
            return 401, "A valid token is needed.", "Send the header Authorization: Bearer <FM_SECRET_API_TOKEN>."
        if method not in SAFE and headers.get(b"content-type", "").split(";")[0].strip().lower() != "application/json":
            return 415, "The request's content type must be application/json.", "Send the header Content-Type: application/json."
        length = headers.get(b"content-length", "0")
        if not length.isdecimal() or len(length) > 12 or int(length) > self.max_body_bytes:
            return _too_large(self.max_body_bytes)
        return None


def allow_hosts(hosts: set[str], names: Iterable[str]) -> None:
    """Add host names (as in server.allowedHosts; a port is ignored, a wildcard is not understood and left out)."""
    hosts.update(host_of(name) for name in names if name and "*" not in name)


def host_of(netloc: str) -> str:
    """The host of "host:port" or "[::1]:8501", in lower case; "" when it is none."""
    netloc = netloc.strip().lower()
    if netloc.startswith("["):
        return netloc[1:].partition("]")[0]
    if netloc.count(":") > 1:
        return netloc
    return netloc.partition(":")[0].rstrip(".")


def _bears(header: str, token: str) -> bool:
    kind, _, value = header.partition(" ")
    return kind.lower() == "bearer" and secrets.compare_digest(value.strip().encode("latin-1", "replace"), token.encode())


def _too_large(max_bytes: int) -> tuple[int, str, str]:
    return 413, f"The request is larger than {max_bytes // 1_000_000} MB.", "Send fewer or shorter texts at once."


async def _whole_body(receive: Receive, max_bytes: int) -> bytes | None:
    """The body, or None when it is larger than allowed (a length that was not announced, or was announced wrongly)."""
    parts, n_bytes = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        n_bytes += len(parts[-1])
        if n_bytes > max_bytes:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body once, then whatever the connection says."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


async def _answer(send: Send, status: int, error: str, hint: str) -> None:
    body = json.dumps({"error": error, "hint": hint}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 413:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
