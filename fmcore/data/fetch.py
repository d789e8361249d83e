"""Downloads: files and feeds from the internet, when a person or a job asks for them.

A download goes out through `outbound.py`, is bounded in size and time, resumes where it was cut, and stands under its final name
only once its checksum fits. Nothing here knows what is in a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from fmcore import clock
from fmcore.data import catalogue, outbound
from fmcore.data.outbound import MAX_REDIRECTS, Deadline, FetchError, Refused, TooLarge, ask, host_of, offline, redirected, tls
from fmcore.nouns import Dataset

MAX_TRIES = 3


class ChecksumMismatch(FetchError):
    """A whole file, but not the one that was asked for."""


class NotStored(FetchError):
    """The disk did not take the file."""


class Gone(FetchError):
    """The server says that what was asked for is gone for good (410)."""


class Busy(FetchError):
    """The server asks to be left alone (429, 503); retry_after_s is for how long, None where it does not say."""

    def __init__(self, message: str, hint: str, retry_after_s: float | None):
        super().__init__(message, hint)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class FetchedFeed:
    """A feed's bytes and what to show the server next time; body is None when it says that nothing changed since."""

    body: bytes | None
    etag: str
    last_modified: str
    url: str


def download(
    url: str,
    target: Path,
    *,
    max_bytes: int,
    sha256: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    allow_private: bool = False,
    stall_s: float = 30,
    deadline_s: float = 1800,
) -> str:
    """Fetch a URL into a file and return its sha256; what is there already of `target`.part is not fetched again.

    progress(done_bytes, total_bytes or None) is called after each chunk; what it raises ends the download, which a later call
    resumes. allow_private lets tests reach a server on this machine. Raises a FetchError.
    """
    deadline = Deadline(deadline_s)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        timeout = httpx.Timeout(stall_s, connect=min(stall_s, 10))
        with httpx.Client(trust_env=False, follow_redirects=False, verify=tls(), timeout=timeout) as client:
            part = _Part(target, url)
            for n_try in range(1, MAX_TRIES + 1):
                try:
                    with deadline, _open(client, url, part, deadline=deadline, allow_private=allow_private) as response:
                        part.take(response, max_bytes=max_bytes, progress=progress, deadline=deadline)
                    break
                except (httpx.TransportError, _ServerError) as error:
                    deadline.check(url)
                    if n_try == MAX_TRIES:
                        raise offline(url, error) from error
                    time.sleep(min(0.2 * n_try, deadline.left_s()))
        return part.finish(sha256)
    except httpx.InvalidURL as error:
        raise Refused(f"{url[:200]!r} is not an address.", "Check it.") from error
    except OSError as error:
        raise NotStored(f"{target.name} cannot be written: {error.strerror or error}.", f"Check the disk of {target.parent}.") from error


def fetch_dataset(
    entry: Dataset,
    home: Path,
    *,
    progress: Callable[[float, str], None] | None = None,
    files: tuple[catalogue.RemoteFile, ...] = (),
    allow_private: bool = False,
) -> dict[str, object]:
    """Download a data set of the catalogue into <home>/data/<name>; files that are there and whole are kept.

    progress(fraction, message) may raise to cancel. files: the same files at a mirror. The manifest is written last: without it
    the catalogue takes the set for missing. Returns {"dataset", "path", "bytes", "sha256"}, the last by file. Raises a FetchError,
    or catalogue.BadData when the files are not the set that the catalogue describes.
    """
    files = files or catalogue.remote_files(entry.name)
    if not files:
        if entry.state == "built in":
            raise Refused(f"{entry.title} is built in; there is nothing to download.")
        raise Refused(f"{entry.title} cannot be downloaded from here.", catalogue.how_to_get(entry.name))
    folder = home / "data" / entry.name
    seen: dict[str, dict[str, object]] = {}
    with _alone(folder):
        for at, file in enumerate(files):
            target = folder / file.name
            if not _is_whole(target, file.sha256):
                download(
                    file.url,
                    target,
                    max_bytes=file.max_bytes,
                    sha256=file.sha256,
                    progress=_share(progress, file.name, at, of=len(files)),
                    allow_private=allow_private,
                )
            seen[file.name] = {"sha256": file.sha256, "bytes": target.stat().st_size, "url": file.url}
        catalogue.check_rows(entry.name, folder)
        manifest = {"dataset": entry.name, "fetched_at": clock.now().isoformat(timespec="seconds"), "files": seen}
        _write_whole(folder / catalogue.MANIFEST, json.dumps(manifest, indent=1).encode())
    if progress:
        progress(1.0, f"{entry.title} is here")
    n_bytes = sum(file["bytes"] for file in seen.values())
    return {"dataset": entry.name, "path": str(folder), "bytes": n_bytes, "sha256": {name: file["sha256"] for name, file in seen.items()}}


def fetch_feed(
    url: str,
    *,
    etag: str = "",
    last_modified: str = "",
    max_bytes: int = 5_000_000,
    deadline_s: float = 15,
    allow_private: bool = False,
) -> FetchedFeed:
    """A feed as it is now, or that it did not change since the answer that carried this ETag or Last-Modified.

    max_bytes bounds the unpacked feed, deadline_s everything from the connection to the last byte. Raises Gone, Busy, Refused (the
    address, or any other answer than a feed's), TooLarge or Offline.
    """
    known = {"If-None-Match": etag, "If-Modified-Since": last_modified}
    headers = {"Accept": "application/rss+xml, application/atom+xml, application/xml;q=0.9, */*;q=0.5"}
    headers |= {name: value for name, value in known.items() if value and value.isascii() and value.isprintable()}
    said = outbound.exchange(
        "GET", url, headers=headers, max_bytes=max_bytes, deadline_s=deadline_s, gzip=True, allow_private=allow_private
    )
    host = host_of(said.url)
    if said.status == 304:
        return FetchedFeed(None, etag, last_modified, said.url)
    if said.status == 410:
        raise Gone(f"{host} says that this feed is gone for good (410).", "Remove the source, or give its new address.")
    if said.status in (429, 503):
        raise Busy(f"{host} asks to be left alone for now ({said.status}).", "It is asked again later.", said.retry_after_s)
    if said.status != 200:
        hint = "Check the address." if said.status in (401, 403, 404) else "It is asked again later."
        raise Refused(f"{host} answered {said.status} instead of a feed.", hint)
    kept = (said.headers.get(name, "")[:500] for name in ("etag", "last-modified"))
    return FetchedFeed(said.body, *kept, said.url)


class _ServerError(Exception):
    """A 5xx or 429 answer: worth another try."""


class _Part:
    """The unfinished file: its bytes in <target>.part, and beside it what the server called them (<target>.part.json)."""

    def __init__(self, target: Path, url: str):
        self.target, self.url = target, url
        self.path, self.note = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.json")

    def headers(self) -> dict[str, str]:
        """The request headers that ask for the rest of the file; {} where it has to be fetched from the start."""
        try:
            note = json.loads(self.note.read_text())
            size = self.path.stat().st_size
        except (FileNotFoundError, ValueError):
            return {}
        etag = note.get("etag", "") if isinstance(note, dict) and note.get("url") == self.url else ""
        strong = isinstance(etag, str) and etag.startswith('"') and etag.isascii() and etag.isprintable()
        return {"Range": f"bytes={size}-", "If-Range": etag} if strong and size else {}

    def take(self, response: httpx.Response, *, max_bytes: int, progress: Callable | None, deadline: Deadline) -> None:
        """Append the body to the part, from the start unless the server sends the rest that was asked for."""
        done = self._starts_at(response)
        length = response.headers.get("content-length", "")
        total = done + int(length) if length.isdecimal() else None
        _bounded(total or 0, max_bytes, self.url)
        self.note.write_text(json.dumps({"url": self.url, "etag": response.headers.get("etag", "")}))
        with self.path.open("ab" if done else "wb") as file:
            for chunk in response.iter_raw():
                done += len(chunk)
                _bounded(done, max_bytes, self.url)
                file.write(chunk)
                deadline.check(self.url)
                if progress:
                    progress(done, total)
            deadline.check(self.url)  # a body without a length ends like a whole one when its socket is shut
            file.flush()
            os.fsync(file.fileno())

    def finish(self, sha256: str | None) -> str:
        """Check the whole part and give it its final name. Raises ChecksumMismatch, and forgets the part."""
        found = _digest(self.path)
        if sha256 and found != sha256:
            self.forget()
            raise ChecksumMismatch(
                f"{self.target.name} from {host_of(self.url)} has the sha256 {found[:12]}…, not {sha256[:12]}….",
                "The file was changed on its way or at its source; nothing was kept. Try again later.",
            )
        os.replace(self.path, self.target)
        self.note.unlink(missing_ok=True)
        return found

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _starts_at(self, response: httpx.Response) -> int:
        if response.status_code != 206:
            return 0
        size = self.path.stat().st_size
        if not response.headers.get("content-range", "").startswith(f"bytes {size}-"):
            self.forget()
            raise _ServerError("it sent another part of the file than was asked for")
        return size


@contextlib.contextmanager
def _open(client: httpx.Client, url: str, part: _Part, *, deadline: Deadline, allow_private: bool) -> Iterator[httpx.Response]:
    """The answer that holds the file, redirects followed with each address vetted. Raises Refused or _ServerError."""
    at = httpx.URL(url)
    for _hop in range(MAX_REDIRECTS + 1):
        with ask(client, at, part.headers(), deadline=deadline, allow_private=allow_private) as response:
            if response.has_redirect_location:
                at = redirected(at, response)
                continue
            _fit(response, part, at)
            yield response
            return
    raise Refused(f"{host_of(url)} redirects more than {MAX_REDIRECTS} times.", "The file has moved, or the server is set up wrongly.")


def _fit(response: httpx.Response, part: _Part, at: httpx.URL) -> None:
    """Raises unless the answer is a body as it was asked for: plain bytes, whole or the rest of a part."""
    code = response.status_code
    if code == 416:
        part.forget()
        raise _ServerError("the part kept here is not of this file")
    if code == 429 or code >= 500:
        raise _ServerError(f"it answered {code}")
    if code not in (200, 206) or (code == 206 and "Range" not in part.headers()):
        raise Refused(f"{at.host} answered {code} for {at.path[:200]}.", "The file is not there any more." if code in (404, 410) else "")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Refused(f"{at.host} sends {at.path[:200]} compressed, though asked not to.", "It could be of any size; it was not unpacked.")


def _bounded(n_bytes: int, max_bytes: int, url: str) -> None:
    if n_bytes > max_bytes:
        raise TooLarge(f"The file from {host_of(url)} is larger than the {max_bytes / 1e6:.1f} MB allowed.", "Nothing of it is used.")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and _digest(path) == sha256


def _write_whole(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _share(progress: Callable[[float, str], None] | None, name: str, at: int, *, of: int) -> Callable[[int, int | None], None] | None:
    """One file's bytes as its share of the whole data set."""
    if progress is None:
        return None

    def told(done: int, total: int | None) -> None:
        progress((at + (done / total if total else 0)) / of, f"{name}: {done / 1e6:.1f} MB" + (f" of {total / 1e6:.1f}" if total else ""))

    return told


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a data set's folder: two fetches of one set would write into the same parts. Raises Refused, or NotStored."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("wb")
    except OSError as error:
        raise NotStored(f"{folder} cannot be written: {error.strerror}.", "Check FM_HOME.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(f"{folder.name} is being fetched already.", "Wait for that to end.") from error
        yield
