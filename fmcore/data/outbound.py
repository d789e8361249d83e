"""Outbound requests: the one way out of FM Desk, for downloads, feeds and notifications alike.

A request goes to a public address only, is bounded in size and time, and connects to the very address that was vetted, at every
redirect. Proxies, cookies and .netrc of the environment are ignored. Nothing here knows what is in an answer.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import functools
import ipaddress
import queue
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx

from fmcore import clock
from fmcore.nouns import FMError

MAX_REDIRECTS = 3
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_V6 = ipaddress.ip_network("2000::/3")
_TEREDO = ipaddress.ip_network("2001::/32")
_UNPACKED_AT_ONCE = 65_536


class FetchError(FMError):
    """A request that did not bring what was asked for."""


class Offline(FetchError):
    """The server cannot be reached, broke off, or is too slow."""


class Refused(FetchError):
    """An address this desk does not connect to, or an answer that is not what was asked for."""


class TooLarge(FetchError):
    """More bytes than the answer may have."""


def is_public(address: str) -> bool:
    """Whether an IP address is one on the open internet: not private, loopback, link-local, shared, multicast or reserved.

    Addresses that carry another inside (mapped, NAT64, 6to4) are judged by the inner one, since that is where packets go.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6:
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _GLOBAL_V6 or ip in _TEREDO:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


@dataclass(frozen=True)
class Answer:
    """What a server said: any status, the headers by lower-case name, the unpacked body, and the address it came from at last.

    retry_after_s is how long the server asks to be left alone (Retry-After in seconds or as a date), None where it does not say.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    retry_after_s: float | None = None


def exchange(
    method: str,
    url: str,
    *,
    max_bytes: int,
    deadline_s: float,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
    max_redirects: int = MAX_REDIRECTS,
    gzip: bool = False,
    allow_private: bool = False,
) -> Answer:
    """One request and its whole answer, whatever its status; the caller judges that.

    Redirects are followed for GET only, each address vetted anew; with max_redirects=0 a redirect is the answer. gzip asks for a
    packed body, which is unpacked under the same max_bytes. allow_private lets a test or a setting reach private addresses and
    other ports. Raises Refused (the address, or too many redirects), TooLarge, or Offline (no connection, broken off, too slow).
    """
    deadline = Deadline(deadline_s)
    sent = {**({"Accept-Encoding": "gzip"} if gzip else {}), **(headers or {})}
    timeout = httpx.Timeout(deadline_s, connect=min(deadline_s, 10))
    try:
        at = httpx.URL(url)
        with deadline, httpx.Client(trust_env=False, follow_redirects=False, verify=tls(), timeout=timeout) as client:
            for _hop in range(max_redirects + 1):
                with ask(client, at, sent, deadline=deadline, allow_private=allow_private, method=method, content=content) as response:
                    if method == "GET" and max_redirects and response.has_redirect_location:
                        at = redirected(at, response)
                        continue
                    return _answer(response, at, max_bytes=max_bytes, deadline=deadline)
        raise Refused(f"{host_of(url)} redirects more than {max_redirects} times.", "It has moved, or the server is set up wrongly.")
    except httpx.InvalidURL as error:
        raise Refused(f"{url[:200]!r} is not an address.", "Check it.") from error
    except httpx.TransportError as error:
        deadline.check(url)
        raise offline(url, error) from error


def redirected(at: httpx.URL, response: httpx.Response) -> httpx.URL:
    """Where a redirect leads. Raises Refused when it leaves encryption."""
    to = at.join(response.headers["location"])
    if at.scheme == "https" and to.scheme != "https":
        raise Refused(f"{at.host} redirects to an unencrypted address.")
    return to


def _answer(response: httpx.Response, at: httpx.URL, *, max_bytes: int, deadline: Deadline) -> Answer:
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "", "gzip", "x-gzip"):
        raise Refused(f"{at.host} sends its answer packed as {packing[:40]!r}, though not asked to.", "It was not unpacked.")
    body = bytearray()
    unpack = zlib.decompressobj(wbits=31) if packing.endswith("gzip") else None
    try:
        for chunk in response.iter_raw():
            for piece in _unpacked(chunk, unpack) if unpack else (chunk,):
                body += piece
                if len(body) > max_bytes:
                    raise TooLarge(
                        f"The answer of {at.host} is larger than the {max_bytes / 1e6:.1f} MB allowed.", "Nothing of it is used."
                    )
            deadline.check(str(at))
    except zlib.error as error:
        raise Refused(f"{at.host} sends a body that is not the gzip it says it is ({error}).") from error
    deadline.check(str(at))  # a body without a length ends like a whole one when its socket is shut
    if unpack and not unpack.eof and body:
        raise Refused(f"{at.host} sends a gzip body that breaks off.", "It was not used.")
    named = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, named, bytes(body), str(at), retry_after_s(named.get("retry-after", "")))


def _unpacked(chunk: bytes, unpack: zlib._Decompress) -> Iterator[bytes]:
    """A packed chunk's content in pieces of bounded size, however much is in it."""
    while chunk and not unpack.eof:
        yield unpack.decompress(chunk, _UNPACKED_AT_ONCE)
        chunk = unpack.unconsumed_tail


def retry_after_s(header: str) -> float | None:
    """Retry-After (RFC 9110, seconds or a date) as seconds from now; None where it is missing or makes no sense."""
    header = header.strip()
    if header.isascii() and header.isdecimal():
        return float(header[:9])
    try:
        at = email.utils.parsedate_to_datetime(header)
    except (ValueError, IndexError, OverflowError):
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or dt.UTC) - clock.now()).total_seconds())


class Deadline:
    """The most time a request may take. While entered, a timer shuts its socket then, whatever is waited for."""

    def __init__(self, seconds: float):
        self.seconds, self.ends = seconds, time.monotonic() + seconds
        self._stream, self._timer = None, None

    def __enter__(self) -> Deadline:
        self._timer = threading.Timer(self.left_s(), self._shut)
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._timer.cancel()
        self._stream = None

    def left_s(self) -> float:
        return max(0.0, self.ends - time.monotonic())

    def check(self, url: str) -> None:
        if self.left_s() == 0:
            what = f"{host_of(url)} did not deliver within {clock.duration(self.seconds)}."
            raise Offline(what, "Try again later: what came before is kept.")

    def watch(self, event: str, info: dict) -> None:
        """httpx's trace hook: notes the stream of the connection as it is opened."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._stream = info["return_value"]

    def _shut(self) -> None:
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(OSError):  # closed in the same moment: what was wanted
                stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def ask(
    client: httpx.Client,
    at: httpx.URL,
    headers: Mapping[str, str],
    *,
    deadline: Deadline,
    allow_private: bool,
    method: str = "GET",
    content: bytes | None = None,
) -> Iterator[httpx.Response]:
    """One request, sent to the vetted address itself with the host's name in Host and TLS, so that nothing is resolved twice."""
    addresses = vetted(at, allow_private=allow_private, within_s=deadline.left_s())
    client.cookies.clear()
    for n, address in enumerate(addresses, 1):
        deadline.check(str(at))  # four addresses that do not answer must not cost four times the time
        request = client.build_request(
            method,
            at.copy_with(host=address, fragment=None),
            headers={"Host": at.netloc.decode("ascii"), "User-Agent": "fm-desk", "Accept": "*/*", "Accept-Encoding": "identity", **headers},
            content=content,
            extensions={"sni_hostname": at.raw_host.decode("ascii"), "trace": deadline.watch},
        )
        try:
            response = client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if n == len(addresses):
                raise
            continue
        try:
            yield response
        finally:
            response.close()
        return


def check_url(url: str, *, allow_private: bool = False) -> None:
    """Raises Refused where a request to this address would be refused now; a name that nobody knows at the moment passes."""
    try:
        with contextlib.suppress(Offline):
            vetted(httpx.URL(url), allow_private=allow_private)
    except httpx.InvalidURL as error:
        raise Refused(f"{url[:200]!r} is not an address.", "Check it.") from error


def vetted(at: httpx.URL, *, allow_private: bool, within_s: float = 10.0) -> list[str]:
    """The addresses of a URL's host, all of them public. Raises Refused, or Offline when the name is not known, or not in time."""
    if at.scheme not in ("http", "https") or not at.host or at.userinfo:
        raise Refused(f"Only plain http and https addresses are fetched, not {str(at)[:60]!r}.")
    port = at.port or (443 if at.scheme == "https" else 80)
    if port not in (80, 443) and not allow_private:
        raise Refused(f"Port {port} of {at.host} is not fetched from; only 80 and 443 are.")
    try:
        addresses = _resolved(at.raw_host.decode("ascii").strip("[]"), port, within_s)
    except (OSError, ValueError) as error:
        raise offline(str(at), error) from error
    private = [address for address in addresses if not is_public(address)]
    if private and not allow_private:
        raise Refused(f"{at.host} is {private[0]}, which is not on the open internet.", "Only public addresses are fetched.")
    return addresses[:4]


def _resolved(host: str, port: int, within_s: float) -> list[str]:
    """The addresses of a name. The system's look-up has no time limit of its own: it runs on a thread that is left behind when late."""
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put(list(dict.fromkeys(entry[4][0] for entry in found)))
        except (OSError, ValueError) as error:
            answers.put(error)

    threading.Thread(target=look_up, daemon=True, name="fm-resolve").start()
    try:
        answer = answers.get(timeout=max(within_s, 0.01))
    except queue.Empty:
        raise TimeoutError("its name was not resolved in time") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def offline(url: str, error: Exception) -> Offline:
    """What a transport error means, in words."""
    reason = str(error) or type(error).__name__
    return Offline(
        f"{host_of(url)} cannot be reached: {reason[:200]}.",
        "Try again later. For a data set: put its files into a folder and set FM_DATA_DIR to it.",
    )


@functools.lru_cache(maxsize=1)
def tls() -> ssl.SSLContext:
    """The trust that every client shares: certifi's roots, nothing of the environment."""
    return httpx.create_ssl_context(trust_env=False)


def host_of(url: str) -> str:
    """The host of an address, for a sentence about it."""
    return httpx.URL(url).host
