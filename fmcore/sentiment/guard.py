"""The guard at the socket: while it stands, no connection goes to an address that is not on the open internet.

It listens to Python's audit events (PEP 578), which the interpreter raises inside `connect` itself with the address that is about to
be used: whatever library opens the connection, whatever a name resolved to before, and whatever a redirect says, that address is
judged. A hook that raises aborts the operation. Owns the rule at the socket; which addresses are public is `data/outbound.py`'s part.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fmcore.data.outbound import is_public

PORTS = frozenset({25, 80, 443, 465, 587})
"""Ports below 1024 that notifications may go to: the web and mail. Above, services live where they like."""

_TO_ADDRESS = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1}
_PROGRAMS = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"})
_WATCHED = frozenset({*_TO_ADDRESS, *_PROGRAMS, "open"})
_here = threading.local()
_everywhere: list[Guard] = []


class NotAllowed(OSError):
    """The guard stopped a connection, a program or a file. An OSError, so that libraries treat it as a failure to connect."""


class Guard:
    """Stands over the current thread from `with` to its end, or over the whole process once `keep` was called.

    allow_private lifts the rule on addresses, nothing else. After deadline_s every connection made under it is shut, whatever waits
    for it; `timed_out` says so. `refused` holds why connections were stopped. read_only: folders below which files may be opened
    for reading, everything else is stopped; None leaves files alone.
    """

    def __init__(self, *, allow_private: bool, deadline_s: float | None = None, read_only: tuple[Path, ...] | None = None):
        self.allow_private, self.read_only = allow_private, read_only
        self.refused: list[str] = []
        self.timed_out = False
        self._deadline_s = deadline_s
        self._opened: list[socket.socket] = []
        self._lock = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> Guard:
        _install()
        self._outer, _here.guard = getattr(_here, "guard", None), self
        if self._deadline_s is not None:
            threading.Thread(target=self._watch, daemon=True, name="fm-guard").start()
        return self

    def __exit__(self, *_error: object) -> None:
        _here.guard = self._outer
        self._over.set()
        with self._lock:
            for handle in self._opened:
                handle.close()
            self._opened.clear()

    def keep(self) -> None:
        """Stand over every thread of this process, for good. For a child process that does nothing else."""
        _install()
        _everywhere.append(self)

    def judge(self, event: str, args: tuple[Any, ...]) -> None:
        """Raises NotAllowed where the event is one that this guard stops."""
        if event in _TO_ADDRESS:
            connection, address = args[0], args[_TO_ADDRESS[event]]
            if address is not None:  # sendmsg on a connected socket
                self._judge_address(connection, address)
        elif event in _PROGRAMS:
            self._stop("a program was about to be started")
        elif self.read_only is not None:
            self._judge_file(*args)

    def _judge_address(self, connection: socket.socket, address: Any) -> None:
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            self._stop("a connection inside this machine was about to be opened")
        host, port = str(address[0]), int(address[1])
        if not self.allow_private:
            if not _is_open(host):
                self._stop(f"{host} is not on the open internet")
            if port < 1024 and port not in PORTS:
                self._stop(f"port {port} is not one that notifications go to")
        if self.timed_out:
            self._stop("the time was up")
        if self._deadline_s is not None:
            with self._lock:  # TLS moves the connection to another object; a handle of our own still shuts it
                self._opened.append(socket.socket(fileno=os.dup(connection.fileno())))

    def _judge_file(self, path: Any, mode: str | None, flags: int) -> None:
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND)
        if isinstance(path, int):  # a descriptor that is open already
            return
        where = os.path.realpath(os.fsdecode(path))
        if where != os.devnull and (writes or not any(where.startswith(f"{folder}{os.sep}") for folder in self.read_only)):
            raise NotAllowed("a local file was about to be opened")  # not kept: libraries look for many that they can do without

    def _stop(self, reason: str) -> None:
        self.refused.append(reason)
        raise NotAllowed(reason)

    def _watch(self) -> None:
        """At the deadline shut every connection, and go on doing so: one may just have been coming up."""
        if self._over.wait(self._deadline_s):
            return
        self.timed_out = True
        while not self._over.wait(0.2):
            with self._lock:
                for handle in self._opened:
                    with contextlib.suppress(OSError):  # not connected yet, or shut already
                        handle.shutdown(socket.SHUT_RDWR)


def _is_open(host: str) -> bool:
    """Whether a numeric address is on the open internet. A name in its place was not resolved, so it is not taken for public."""
    try:
        return is_public(host)
    except ValueError:
        return False


@functools.cache
def _install() -> Callable[..., None]:
    """Hooks cannot be taken away again, so there is one, and it asks first whether anyone stands guard."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event not in _WATCHED:
            return
        guard = getattr(_here, "guard", None)
        if guard is not None:
            guard.judge(event, args)
        for guard in _everywhere:
            guard.judge(event, args)

    sys.addaudithook(hook)
    return hook
