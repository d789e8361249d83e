"""`python -m jobs list | run NAME | compare RUN RUN | lineage RUN | recover`: the jobs and their runs from a terminal.

Uses the store directly when no server holds it, and the running server's API when one does. Standard output carries
one JSON object (or the table of `list`), everything else goes to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, NoReturn

import httpx
import typer
from tqdm import tqdm

from fmcore import clock, comparing_runs, config
from fmcore.nouns import FMError, Run
from fmcore.runs import BadParams, NotPossible, Runs, UnknownJob, UnknownRun
from fmcore.store import backup
from fmcore.store.store import Store, StoreLocked
from jobs import JOBS
from jobs.place import LocalProcess
from jobs.runner import Runner
from jobs.scheduler import next_slot

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="FM Desk's jobs from a terminal.")
DONE, FAILED, WRONG_USAGE = 0, 1, 2
LOST_S = 30.0


class WrongUsage(FMError):
    """What was typed cannot be meant."""


class NoAnswer(FMError):
    """The running server refuses, or does not answer."""


class Stops:
    """Counts Ctrl-C and SIGTERM instead of raising: an exception in the middle of a query would leave the store in doubt."""

    def __init__(self) -> None:
        self.n = 0

    def __enter__(self) -> Stops:
        self._before = {number: signal.signal(number, self._count) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _count(self, *_: object) -> None:
        self.n += 1


@app.command("list")
def list_jobs(as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False) -> None:
    """The jobs, when each runs next, and how its last run ended."""
    with _in_words():
        rows = _overview()
        print(json.dumps({"jobs": rows}, default=str) if as_json else _table(rows))


@app.command()
def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One of `python -m jobs list`.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A parameter: a JSON value, else plain text.")
    ] = None,
) -> None:
    """Run a job in the foreground: progress on standard error, one JSON object on standard output."""
    with _in_words():
        params = _params(settings or [])
        with contextlib.redirect_stdout(sys.stderr), Stops() as stops:
            ended = _run(name, params, stops)
        print(json.dumps(ended, default=str))
        if ended["state"] != "succeeded":
            first = (ended.get("error") or "").strip().splitlines()[:1]
            _leave(FAILED, f"Run {ended['id']} of {name}: {ended['state']}. {first[0] if first else ''}")


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN ...", help="Runs, by their ids.")],
    baseline: Annotated[str, typer.Option(metavar="RUN", help="Held against; left out: the pinned run, else the first.")] = "",
    pin: Annotated[bool, typer.Option("--pin", help="Keep that baseline for later comparisons of this job and task.")] = False,
) -> None:
    """Runs side by side: what differs, each figure's distance to the baseline, curves by step. One JSON object."""

    def here(store: Store) -> dict[str, Any]:
        compared = comparing_runs.compare(store, runs, baseline=baseline or None)
        if pin:
            comparing_runs.pin(store, compared.baseline, by="terminal")
        return comparing_runs.as_json(compared)

    def there(server: httpx.Client) -> dict[str, Any]:
        asked = httpx.QueryParams([*(("run", run) for run in runs), ("baseline", baseline)])
        compared = _ask(server, "GET", f"/api/compare?{asked}")
        if pin:
            _ask(server, "POST", f"/api/runs/{compared['baseline']}/pin")
        return compared

    with _in_words():
        print(json.dumps(_look(here, there), default=str))


@app.command()
def lineage(of: Annotated[str, typer.Argument(metavar="VERSION|RUN", help="A version, task@version, a task, or a run's id.")]) -> None:
    """Where a model comes from and what was made from it, from data set to versions. One JSON object."""
    with _in_words():
        asked = httpx.QueryParams({"of": of})
        tree = _look(
            lambda store: dataclasses.asdict(comparing_runs.lineage(store, of)), lambda server: _ask(server, "GET", f"/api/lineage?{asked}")
        )
        print(json.dumps(tree, default=str))


@app.command()
def recover(
    from_backup: Annotated[bool, typer.Option("--from-backup", help="Restore the newest backup; what came after it is lost.")] = False,
) -> None:
    """Make a database that does not open usable again. Nothing is deleted: what is damaged is renamed."""
    with _in_words():
        done = backup.recover(config.settings().home, from_backup=from_backup)
        print(done.story, file=sys.stderr)
        print(json.dumps({"story": done.story, "set_aside": [str(path) for path in done.set_aside], "rows": done.rows}))


def _params(pairs: list[str]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise WrongUsage(f"--set {pair!r} is not KEY=VALUE.", "For example: --set dataset=demo --set epochs=3")
        try:
            params[key.strip()] = json.loads(value)
        except ValueError:
            params[key.strip()] = value
    return params


def _run(name: str, params: Mapping[str, Any], stops: Stops) -> dict[str, Any]:
    if name not in JOBS:
        raise UnknownJob(f"There is no job {name!r}.", f"Jobs: {', '.join(JOBS)}.")
    try:
        store = Store(config.settings().home, wait_s=0.5)
    except StoreLocked as locked:
        with _server(locked) as server:
            return _run_there(server, name, params, stops)
    with contextlib.closing(store):
        return _run_here(Runs(store, JOBS), name, params, stops)


def _run_here(runs: Runs, name: str, params: Mapping[str, Any], stops: Stops) -> dict[str, Any]:
    """No server holds the store: be the server for the time of one run."""
    runs.reap()
    run = runs.start_now(name, params)
    runner = Runner(runs, place=LocalProcess(threads=config.settings().training_threads()))
    over = threading.Event()

    def execute() -> None:
        try:
            runner.execute(run)
        finally:
            over.set()

    def look() -> dict[str, Any]:
        over.wait(0.2)
        return _as_json(runs.get(run.id))

    threading.Thread(target=execute, daemon=True, name="fm-lane").start()
    ended = _follow(stops, look, cancel=lambda: runs.cancel(run.id, by="terminal"))
    over.wait(15)  # the child is gone after its grace at the latest
    return ended or look()


def _run_there(server: httpx.Client, name: str, params: Mapping[str, Any], stops: Stops) -> dict[str, Any]:
    """A server holds the store: ask it, and watch."""
    run_id = _ask(server, "POST", "/api/runs", {"job": name, "params": dict(params)})["id"]

    def look() -> dict[str, Any]:
        time.sleep(0.5)
        return _patiently(lambda: _ask(server, "GET", f"/api/runs/{run_id}"))

    ended = _follow(stops, look, cancel=lambda: _ask(server, "POST", f"/api/runs/{run_id}/cancel"))
    return ended or look()


def _follow(stops: Stops, look: Callable[[], dict[str, Any]], *, cancel: Callable[[], Any]) -> dict[str, Any] | None:
    """Draw the bar until the run is over. The first Ctrl-C cancels the run; after the second nobody waits: None."""
    cancelled = False
    with tqdm(total=100, unit="%", bar_format="{l_bar}{bar}| {elapsed}", file=sys.stderr) as bar:
        while stops.n < 2:
            now = look()
            bar.n = round(100 * float(now.get("progress") or 0))
            bar.set_description_str(str(now.get("message") or now["state"]), refresh=True)
            if now["state"] not in ("queued", "running"):
                return now
            if stops.n and not cancelled:
                cancelled = True
                with contextlib.suppress(NotPossible):  # it ended meanwhile
                    cancel()
    return None


def _patiently(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A server may be away for a moment."""
    deadline = time.monotonic() + LOST_S
    while True:
        try:
            return ask()
        except NoAnswer:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


@contextlib.contextmanager
def _server(locked: StoreLocked) -> Iterator[httpx.Client]:
    """A client of the server that holds the store. Raises the StoreLocked where the holder is no server."""
    settings = config.settings()
    try:
        told = json.loads((settings.home / "server.json").read_text(encoding="utf-8"))
        url, pid = str(told["url"]), int(told["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        raise locked from None
    if locked.pid is not None and pid != locked.pid:  # left by a server that is gone
        raise locked
    headers = {"Content-Type": "application/json"}  # the API refuses a POST without it, an empty one too
    if settings.secret_api_token:
        headers["Authorization"] = f"Bearer {settings.secret_api_token.get_secret_value()}"
    with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
        yield client


def _ask(server: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    try:
        answer = server.request(method, path, json=body)
    except httpx.HTTPError as error:
        raise NoAnswer(f"The server at {server.base_url} does not answer ({type(error).__name__}).", "Is it still starting?") from None
    if answer.is_success:
        return answer.json()
    kind = WrongUsage if answer.status_code in (400, 404, 422) else NotPossible
    raise kind(f"The server refuses: {_reason(answer)}")


def _reason(answer: httpx.Response) -> str:
    try:
        said = answer.json()
        return f"{said['error']} {said.get('hint', '')}".strip()
    except (ValueError, KeyError, TypeError, AttributeError):  # not our API's shape: a proxy, another program on that port
        return f"{answer.status_code} {answer.reason_phrase}"


def _overview() -> list[dict[str, Any]]:
    try:
        store = Store(config.settings().home, wait_s=0.5)
    except StoreLocked as locked:
        with _server(locked) as server:
            return [_row(name, next(iter(_runs_there(server, name)), None)) for name in JOBS]
    with contextlib.closing(store):
        runs = Runs(store, JOBS)
        return [_row(name, next((_as_json(r) for r in runs.history(job=name, limit=1)), None)) for name in JOBS]


def _look(here: Callable[[Store], Any], there: Callable[[httpx.Client], Any]) -> Any:
    """Ask the store when it is free, else the running server."""
    try:
        store = Store(config.settings().home, wait_s=0.5)
    except StoreLocked as locked:
        with _server(locked) as server:
            return there(server)
    with contextlib.closing(store):
        return here(store)


def _runs_there(server: httpx.Client, name: str) -> list[dict[str, Any]]:
    return _ask(server, "GET", f"/api/runs?job={name}&limit=1")["runs"]


def _row(name: str, last: dict[str, Any] | None) -> dict[str, Any]:
    job = JOBS[name]
    next_at = next_slot(job.schedule, clock.now()).isoformat() if job.schedule else None
    kept = {key: last.get(key) for key in ("id", "state", "requested_at", "finished_at", "error")} if last else None
    return {"name": name, "title": job.title, "kind": job.kind, "schedule": job.schedule, "next_at": next_at, "last_run": kept}


def _table(rows: list[dict[str, Any]]) -> str:
    head = ("job", "schedule (UTC)", "next", "last run", "ended")
    lines = [head]
    for row in rows:
        last = row["last_run"] or {}
        at = [str(value)[:16].replace("T", " ") if value else "-" for value in (row["next_at"], last.get("requested_at"))]
        lines.append((row["name"], row["schedule"] or "on request", at[0], at[1], last.get("state") or "never ran"))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _as_json(run: Run) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, dt.datetime) else value for name, value in dataclasses.asdict(run).items()}


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Our own errors as one line and an exit code."""
    try:
        yield
    except (WrongUsage, BadParams, UnknownJob, UnknownRun, comparing_runs.BadComparison) as error:
        _leave(WRONG_USAGE, str(error))
    except FMError as error:
        _leave(FAILED, str(error))
    except KeyboardInterrupt:
        _leave(FAILED, "Stopped.")


def _leave(code: int, sentence: str) -> NoReturn:
    print(" ".join(sentence.split()), file=sys.stderr)
    raise typer.Exit(code)


if __name__ == "__main__":
    app(prog_name="python -m jobs")
