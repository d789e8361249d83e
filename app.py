"""The server: puts the desk together, starts it before the first visitor, and takes it down in order.

The only file that may import everything. Start it with `streamlit run app.py`, `python app.py` or `uvicorn app:app`; one
process serves the pages at /, the API at /api, and keeps the schedule. Owns the order of starting and stopping, the
refusal of an open address without a sign-in, the headers of every answer, and `<home>/server.json`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import anyio
import psutil
import streamlit as st
from pydantic import ValidationError
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fmcore import clock, log, runtime
from fmcore.api import allow_hosts, api
from fmcore.config import Settings, settings
from fmcore.data import sources
from fmcore.models import masked_lm
from fmcore.nouns import FMError
from fmcore.runs import AlreadyQueued
from fmcore.tasks import RECOMMEND, SERVED, TASKS, first_run
from jobs import JOBS
from jobs.place import LocalProcess
from jobs.runner import Runner
from jobs.scheduler import Scheduler
from pages import ui

logger = logging.getLogger("fm.app")

HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"SAMEORIGIN",
    b"content-security-policy": b"frame-ancestors 'self'; object-src 'none'; base-uri 'self'",
    b"referrer-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
}


FIRST_SHELF = {"minutes": 1.5}
"""The first recommendations: of the demo shop, in a minute and a half; the nightly run has longer."""
FIRST_STEPS = 80
"""Of the first masked language model: about a minute, so that a person's own run need not wait long; Sundays' run is a whole one."""


class SecurityHeaders:
    """Adds HEADERS to every HTTP answer; an answer that sets one itself keeps its own."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = {name.lower() for name, _ in message.get("headers", [])}
                message["headers"] = [*message.get("headers", []), *((n, v) for n, v in HEADERS.items() if n not in sent)]
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


def healthz(_request: Request) -> JSONResponse:
    """The process answers."""
    return JSONResponse({"status": "ok"})


def readyz(_request: Request) -> JSONResponse:
    """The desk is up and its store answers; 503 with the reason otherwise."""
    desk = runtime.current()
    if desk is None:
        return JSONResponse({"status": "starting", "reason": "the desk is not up yet"}, 503)
    try:
        desk.store.rows("SELECT 1")
    except Exception as error:  # whatever stops the store from answering, the probe must say "not ready"
        logger.error("the store does not answer", exc_info=error)
        return JSONResponse({"status": "failing", "reason": "the store does not answer; see logs/desk.log"}, 503)
    return JSONResponse({"status": "ready", "models": sorted(task for task in TASKS if desk.registry.champion(task))})


# ---------------------------------------------------------------- who may reach it


def open_address_refusal(address: str, current: Settings) -> str:
    """Why the desk must not listen on `address`, as a sentence that says what to do; "" when it may."""
    if _is_loopback(address):
        return ""
    missing = []
    if not ui.sign_in_is_configured():
        missing.append("a sign-in for people ([auth] in .streamlit/secrets.toml, see docs/operating.md)")
    if current.secret_api_token is None or not current.secret_api_token.get_secret_value():
        missing.append("a token for the API (the variable FM_SECRET_API_TOKEN)")
    if not missing:
        return ""
    shown = address or "all addresses"
    return f"FM Desk does not listen on {shown} without {' and '.join(missing)}. Configure that, or use --server.address 127.0.0.1."


def _is_loopback(address: str) -> bool:
    """Whether only this machine can connect there. No address at all means every network."""
    if address.startswith("unix://") or address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]").split("%")[0]).is_loopback
    except ValueError:  # a host name, or "": where that leads is not known here
        return False


# ---------------------------------------------------------------- the life of the desk


class Desk:
    """Everything that runs beside the pages: runtime, runner, scheduler, and the two watchers of this file."""

    def __init__(self, current: Settings):
        self.settings = current
        self.runtime = runtime.start(current, JOBS)
        self.stopping = threading.Event()
        place = LocalProcess(threads=current.training_threads())
        self.runner, self.scheduler = Runner(self.runtime.runs, place=place), Scheduler(self.runtime.runs)
        self.runner.start()
        self.scheduler.start()
        self.first = first_launch(self.runtime)
        if current.bootstrap:
            sources.add_demo_if_empty(self.runtime.store)
        self.watchers = [threading.Thread(target=watch, daemon=True) for watch in (self._announce, self._keep_warm, self._first_models)]
        for watcher in self.watchers:
            watcher.start()

    def stop(self) -> None:
        """Take it down in the opposite order; what was running is recorded as interrupted."""
        self.stopping.set()
        _forget_address(self.settings.home)
        self.scheduler.stop()
        self.runner.stop()
        for watcher in self.watchers:
            if watcher is not threading.current_thread():  # a refusal of the address stops the desk from within
                watcher.join(5)
        runtime.stop()

    def _announce(self) -> None:
        """Wait until the server listens, then say where, in words and in <home>/server.json.

        Looks at the sockets themselves, so it also holds when another program than Streamlit's chose the address.
        """
        while not self.stopping.wait(0.05):
            listening = listening_on()
            if not listening:
                continue
            refusal = next(filter(None, (open_address_refusal(host, self.settings) for host, _ in listening)), "")
            if refusal:
                self.stop()
                leave(refusal)
            answer_at_once()
            host, port = listening[0]
            shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host  # noqa: S104  compared, not bound
            url = f"http://{shown}:{port}"
            _remember_address(self.settings.home, url)
            print(f"\n  FM Desk: {url}   (stop with Ctrl-C)\n", flush=True)
            return

    def _first_models(self) -> None:
        """Ask for the first models that had no place in the queue at the start, as soon as there is one; then for what swaps words."""
        while self.first and not self.stopping.wait(1.0):
            try:
                self.first = first_launch(self.runtime, self.first)
            except FMError as error:  # asked for again at the next start; a person can also do it on the Training page
                logger.warning("first models of %s were not asked for", ", ".join(self.first), exc_info=error)
                return
        try:
            first_shelf(self.runtime)
        except FMError as error:  # the same: the Recommend page says how to ask for it
            logger.warning("the first recommendations were not asked for", exc_info=error)
        try:
            first_words(self.runtime)
        except FMError as error:  # the same: explanations delete words only, until there is one
            logger.warning("the first masked language model was not asked for", exc_info=error)

    def _keep_warm(self) -> None:
        """Load a new champion as soon as it is one, so that no visitor waits for it."""
        warm: dict[str, str] = {}
        while not self.stopping.wait(1.0):
            for task in SERVED:
                try:
                    champion = self.runtime.registry.champion(task)
                    if champion is not None and warm.get(task) != champion.version:
                        warm[task] = champion.version
                        if task == RECOMMEND.name:
                            self.runtime.recommend.warm()
                        else:
                            self.runtime.engine.warm(task)
                except Exception as error:  # the engine refuses a bad champion to whoever asks; here it only stays cold
                    logger.warning("the champion of %s could not be warmed up", task, exc_info=error)


def start() -> Desk:
    """Settings, address, log, desk; every refusal is one sentence on stderr and exit code 2."""
    try:
        current = settings()
    except ValidationError as error:
        faults = "; ".join(f"FM_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}" for fault in error.errors())
        leave(f"A setting cannot be used. {faults}. See docs/operating.md, 'Settings'.")
    if not st.get_option("server.allowedHosts"):
        leave("Its settings in .streamlit/config.toml were not read. Start it from the project's folder.")
    refusal = open_address_refusal(st.get_option("server.address") or "", current)
    if refusal:
        leave(refusal)
    allow_hosts(st.get_option("server.allowedHosts"))
    try:
        log.set_up(current.home / "logs", level=current.log_level)
        return Desk(current)
    except FMError as error:
        leave(str(error))
    except OSError as error:
        what = f"{error.filename or current.home} cannot be used ({error.strerror})"
        leave(f"{what}. Set FM_HOME to a folder you own, or make room on the disk.")


def first_launch(desk: Any, tasks: Sequence[str] = tuple(TASKS)) -> tuple[str, ...]:
    """A desk without any model of a task trains a small one on its demo data, at once and in view.

    Returns the tasks that have to be asked for later: only one run of a job waits at a time.
    """
    if not desk.settings.bootstrap:
        return ()
    under_way = {run.params.get("task") for run in desk.runs.active() if run.job == "finetune"}  # also one that was interrupted
    missing = [task for task in tasks if task not in under_way and not desk.registry.versions(task)]
    for i, task in enumerate(missing):
        try:
            desk.runs.request("finetune", first_run(task), trigger="first launch")
        except AlreadyQueued:
            return tuple(missing[i:])
    return ()


def first_shelf(desk: Any) -> None:
    """A desk without recommendations makes some of its demo shop, behind its first models."""
    under_way = any(run.job == RECOMMEND.name for run in desk.runs.active())
    if desk.settings.bootstrap and not under_way and not desk.registry.versions(RECOMMEND.name):
        desk.runs.request(RECOMMEND.name, FIRST_SHELF, trigger="first launch")


def first_words(desk: Any) -> None:
    """A desk without a masked language model trains one behind its first models, so that explanations can swap words."""
    under_way = any(run.job == "masked_lm" for run in desk.runs.active())
    if desk.settings.bootstrap and not under_way and not masked_lm.exists(desk.settings.home):
        desk.runs.request("masked_lm", {"steps": FIRST_STEPS}, trigger="first launch")


def leave(sentence: str) -> NoReturn:
    """One sentence on stderr, exit code 2. sys.exit inside a server's start-up would end in its traceback instead."""
    print(f"\nFM Desk cannot start: {sentence}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(2)


def listening_on() -> list[tuple[str, int]]:
    """The TCP addresses on which this process listens."""
    found = psutil.Process().net_connections(kind="tcp")
    return sorted({(c.laddr.ip, c.laddr.port) for c in found if c.status == psutil.CONN_LISTEN})


def answer_at_once() -> None:
    """Switch Nagle's algorithm off on the listening sockets; connections that they accept inherit it.

    Streamlit opens its socket without naming TCP, so asyncio does not do this by itself, and every answer of two or
    more writes waits some 40 ms for the other side's delayed acknowledgement.
    """
    for connection in psutil.Process().net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN:
            with socket.socket(fileno=os.dup(connection.fd)) as listener:
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _remember_address(home: Path, url: str) -> None:
    """Write server.json, whole or not at all, for the commands that talk to a running server."""
    fresh = home / f"server.json.{os.getpid()}"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"pid": os.getpid(), "url": url, "started_at": clock.now().isoformat(timespec="seconds")}, file)
    fresh.replace(home / "server.json")


def _forget_address(home: Path) -> None:
    """Remove server.json if it is ours."""
    path = home / "server.json"
    with contextlib.suppress(OSError, ValueError):  # gone, or torn by someone else's hand: nothing of ours is left to remove
        if json.loads(path.read_text(encoding="utf-8")).get("pid") == os.getpid():
            path.unlink()


@contextlib.asynccontextmanager
async def lifespan(_app: Any) -> AsyncIterator[dict[str, Any]]:
    """The desk stands before the first visitor and until the last answer."""
    desk = await anyio.to_thread.run_sync(start)
    try:
        yield {}
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(desk.stop)


def say_instead(error: Exception) -> bool:
    """What the page shows for a failure in a fragment or a callback: words, never a traceback."""
    ui.failure(error)
    return True


app = st.App(
    str(Path(__file__).resolve().parent / "pages" / "shell.py"),
    lifespan=lifespan,
    routes=[Route("/healthz", healthz), Route("/readyz", readyz), Mount("/api", api)],
    middleware=[Middleware(SecurityHeaders)],
    on_script_error=say_instead,
)

if __name__ == "__main__":
    app.run()
