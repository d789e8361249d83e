"""The run state machine: the rows of runs and run_metrics, and every change of them.

    queued -> running -> succeeded | failed | crashed | cancelled | timed_out | interrupted

Owns: who may queue (one running and one queued run of a job at most, decided under the store's write lock), what a
run may be asked, retries with back-off, heartbeats, and the folder `<home>/runs/<id>`. Never executes a job: that is
the runner's part (jobs/runner.py), which calls the second half of this class.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from pydantic import BaseModel, ValidationError

from fmcore import clock, schedules
from fmcore.log import redact
from fmcore.nouns import FMError, Job, MissedSlot, Run, RunState, Schedule
from fmcore.store.store import NotFinite, Store, Transaction, to_json
from fmcore.text import clean, is_name

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("fm.runs")

BACK_OFF_S = (60, 240, 960)
"""Wait before the second, third and fourth attempt."""
SILENT_S = 35.0
"""A running run whose heartbeat (every 10 s) has not moved for this long is dead: visible within 45 s."""
MAX_PARAMS_CHARS = 64_000
MAX_TAIL_BYTES = 256_000
_RETRIED = ("crashed", "interrupted")
_TIMES = ("requested_at", "not_before_at", "started_at", "beat_at", "finished_at", "slot_at", "cancel_asked_at")


class UnknownJob(FMError):
    """No job has that name."""


class UnknownRun(FMError):
    """No run has that id."""


class BadParams(FMError):
    """The parameters do not fit the job's form."""


class AlreadyQueued(FMError):
    """A run of the job is in the way; `run` is that one."""

    def __init__(self, message: str, hint: str, run: Run):
        super().__init__(message, hint)
        self.run = run


class NotPossible(FMError):
    """The run is not in a state in which that can be done."""


class Runs:
    """The runs of the jobs in `jobs` (name -> Job), kept in `store`. `now` and `monotonic` are clocks, for tests."""

    def __init__(
        self, store: Store, jobs: Mapping[str, Job], *, now: Callable[[], dt.datetime] = clock.now,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        self.store, self.jobs = store, jobs
        self._now, self._monotonic = now, monotonic
        self._changed = threading.Condition()
        self._seen: dict[str, tuple[Any, float]] = {}  # run id -> its last heartbeat and when, on our clock, we first saw it

    # --- what a person, a schedule or a program asks

    def request(
        self, job: str, params: Mapping[str, Any] | BaseModel | None = None, *, trigger: str = "manual", slot_at: dt.datetime | None = None,
        retry_of: str | None = None, attempt: int = 1,
    ) -> Run:
        """Queue a run. Raises UnknownJob, BadParams, or AlreadyQueued when one of the same job waits already."""
        checked = self._checked_params(job, params)
        with self._write() as tx:
            self._refuse(tx, job, "queued")
            run_id = self._insert(tx, job, checked, trigger=trigger, slot_at=slot_at, retry_of=retry_of, attempt=attempt)
        return self.get(run_id)

    def start_now(self, job: str, params: Mapping[str, Any] | BaseModel | None = None, *, trigger: str = "cli") -> Run:
        """Insert a run that is running already: for a caller that owns the store and executes it itself, in the foreground."""
        checked = self._checked_params(job, params)
        with self._write() as tx:
            self._refuse(tx, job, "running")
            run_id = self._insert(tx, job, checked, trigger=trigger)
            self._mark_running(tx, run_id)
        return self.get(run_id)

    def params(self, job: str, values: Mapping[str, Any] | BaseModel | None = None) -> BaseModel:
        """The job's form filled with `values`. Raises UnknownJob or BadParams, with every fault named."""
        form = self.job(job).params
        if values is not None and not isinstance(values, (Mapping, BaseModel)):
            raise BadParams(f"The parameters of {job} must be names with values, not {type(values).__name__}.", 'For example {"seed": 1}.')
        try:
            return form.model_validate(values.model_dump() if isinstance(values, BaseModel) else dict(values or {}))
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False, include_context=False)
            said = "; ".join(f"{'.'.join(str(part) for part in f['loc'])[:80] or 'parameters'}: {f['msg'][:200]}" for f in faults[:5])
            more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
            known = ", ".join(form.model_fields) or "none"
            raise BadParams(clean(f"{job} cannot run with these parameters: {said}{more}.")[0], f"Its parameters: {known}.") from None

    def job(self, name: str) -> Job:
        """The job of that name. Raises UnknownJob with the names there are."""
        if name not in self.jobs:
            raise UnknownJob(f"There is no job {clean(name, limit=80)[0]!r}.", f"Jobs: {', '.join(self.jobs) or 'none'}.")
        return self.jobs[name]

    def get(self, run_id: str) -> Run:
        """One run. Raises UnknownRun."""
        found = self._runs("WHERE id = ?", _word(run_id))
        if not found:
            raise UnknownRun(f"There is no run {clean(run_id, limit=80)[0]!r}.", "See the history on the Training page.")
        return found[0]

    def history(self, *, job: str | None = None, limit: int = 50) -> list[Run]:
        """The newest runs first; without a job's name, routine runs that went well are left out."""
        order = "ORDER BY requested_at DESC, id DESC LIMIT ?"
        if job is not None:
            return self._runs(f"WHERE job = ? {order}", _word(job), int(limit))
        routine = [name for name, known in self.jobs.items() if known.routine]
        marks = ", ".join("?" * len(routine)) or "''"
        return self._runs(f"WHERE job NOT IN ({marks}) OR state NOT IN ('queued', 'running', 'succeeded') {order}", *routine, int(limit))

    def active(self) -> list[Run]:
        """What runs or waits now, oldest first; routine runs too."""
        return self._runs("WHERE state IN ('queued', 'running') ORDER BY requested_at, id")

    def metrics(self, run_id: str) -> pd.DataFrame:
        """Columns step, name, value, noted_at (naive UTC), in the order they came."""
        sql = "SELECT step, name, value, noted_at FROM run_metrics WHERE run_id = ? ORDER BY noted_at, step, name"
        return self.store.frame(sql, _word(run_id))

    def folder(self, run_id: str) -> Path:
        """Where a run keeps its files (it may not exist). Raises UnknownRun on what cannot be an id."""
        if not is_name(run_id):
            raise UnknownRun(f"{clean(run_id, limit=80)[0]!r} cannot be a run's id.", "See the history on the Training page.")
        return self.store.home / "runs" / run_id

    def log_tail(self, run_id: str, *, lines: int = 200) -> str:
        """The end of a run's log: at most `lines` lines and 256 kB, credentials redacted; "" when it wrote none."""
        tail = b""
        for name in ("log.txt", "log.1.txt"):  # the older half stands in log.1.txt
            path = self.folder(run_id) / name
            if path.is_file() and tail.count(b"\n") <= lines and len(tail) < MAX_TAIL_BYTES:
                tail = _end_of(path, MAX_TAIL_BYTES - len(tail)) + tail
        text = tail.decode("utf-8", "replace")
        return "\n".join(redact(clean(line, limit=2000)[0]) for line in text.splitlines()[-max(0, lines):] if lines > 0)

    def cancel(self, run_id: str, *, by: str) -> Run:
        """Stop a run: a queued one ends here, a running one is asked to. Repeating it is harmless. Raises UnknownRun, NotPossible."""
        with self._write() as tx:
            found = tx.execute("SELECT state, job FROM runs WHERE id = ?", [_word(run_id)])
            if not found:
                raise UnknownRun(f"There is no run {clean(run_id, limit=80)[0]!r}.")
            state = found[0][0]
            if state == "queued":
                self._drop(tx, run_id, f"Cancelled by {_word(by)} before it started.")
            elif state == "running":
                now = clock.to_store(self._now())
                tx.execute("UPDATE runs SET cancel_asked_at = coalesce(cancel_asked_at, ?) WHERE id = ?", [now, run_id])
            else:
                raise NotPossible(f"Run {run_id} is over ({state}).", "There is nothing to cancel.")
            self._audit(tx, by, "cancel a run", {"run": run_id, "job": found[0][1]})
        return self.get(run_id)

    def resume(self, run_id: str, *, by: str) -> Run:
        """Queue a new run with the same parameters that continues from the old one's checkpoint, where it left one."""
        old = self.get(run_id)
        if not old.is_over or old.state == "succeeded":
            raise NotPossible(f"Run {run_id} is {old.state}.", "Only a run that ended early can be resumed.")
        checked = self._checked_params(old.job, old.params)
        with self._write() as tx:
            self._refuse(tx, old.job, "queued")
            new_id = self._insert(tx, old.job, checked, trigger="resume", retry_of=old.id)
            self._audit(tx, by, "resume a run", {"run": old.id, "as": new_id, "job": old.job})
        return self.get(new_id)

    # --- schedules

    def schedules(self) -> list[Schedule]:
        """Every job with a schedule: its next slot, its last one and how that ended ("missed", or the run's state)."""
        return schedules.schedules(self.store, self.jobs)

    def missed(self, limit: int = 50) -> list[MissedSlot]:
        """The newest slots at which a job did not run, with the reason."""
        return schedules.missed(self.store, limit)

    def plan(self, job: str, cron: str, next_at: dt.datetime) -> None:
        """Set when a job fires next, without firing: a new or changed schedule, or a clock that was set back."""
        with self._write() as tx:
            schedules.set_next(tx, job, cron, next_at)

    def fire(
        self, job: str, *, slot_at: dt.datetime | None, lost: Sequence[tuple[dt.datetime, str]], cron: str, next_at: dt.datetime
    ) -> Run | None:
        """One turn of a schedule in one transaction: queue the run for slot_at, record lost slots, set the next one.

        A slot that has a run or a missed row already is left alone, but for routine jobs: they go on when the clock is set back and
        an hour is lived through again. A slot that cannot be queued becomes a missed one.
        """
        checked = self._checked_params(job, self.job(job).scheduled_params)
        run_id, lost = None, list(lost)
        with self._write() as tx:
            taken = schedules.taken(tx, job, [at for at, _ in lost] + [slot_at] * (slot_at is not None))
            if slot_at is not None and (slot_at not in taken or self.job(job).routine):
                try:
                    self._refuse(tx, job, "queued")
                    run_id = self._insert(tx, job, checked, trigger="schedule", slot_at=slot_at)
                except AlreadyQueued as error:
                    if not self.job(job).routine:
                        lost.append((slot_at, f"run {error.run.id} of this job was waiting already"))
            schedules.record_missed(tx, job, [(at, why) for at, why in lost if at not in taken], at=self._now())
            schedules.set_next(tx, job, cron, next_at, fired=slot_at)
        return self.get(run_id) if run_id else None

    # --- the runner's side

    def claim(self, kind: str) -> Run | None:
        """Take the oldest queued run of that kind ("light" or "heavy") that may start now; it is running from here on."""
        names = [job.name for job in self.jobs.values() if job.kind == kind]
        if not names:
            return None
        marks = ", ".join("?" * len(names))
        sql = f"""SELECT id FROM runs WHERE state = 'queued' AND job IN ({marks}) AND (not_before_at IS NULL OR not_before_at <= ?)
                  AND job NOT IN (SELECT job FROM runs WHERE state = 'running') ORDER BY requested_at, id LIMIT 1"""
        if not self.store.rows(sql, *names, clock.to_store(self._now())):  # the idle case needs no write
            return None
        with self._write() as tx:
            found = tx.execute(sql, [*names, clock.to_store(self._now())])
            if not found:
                return None
            self._mark_running(tx, found[0][0])
        return self.get(found[0][0])

    def started(self, run_id: str, *, pid: int, pid_created_at: float) -> None:
        """Remember the child process: pid and creation time together name it, the pid alone does not."""
        with self._write() as tx:
            tx.execute("UPDATE runs SET pid = ?, pid_created_at = ? WHERE id = ? AND state = 'running'", [pid, pid_created_at, run_id])

    def beat(self, run_id: str) -> None:
        """The run is being looked after."""
        with self._write() as tx:
            tx.execute("UPDATE runs SET beat_at = ? WHERE id = ? AND state = 'running'", [clock.to_store(self._now()), run_id])

    def cancel_asked(self, run_id: str) -> bool:
        """Whether the run should stop: a cancel was asked for, or it is no longer running in the store's eyes."""
        rows = self.store.rows("SELECT state, cancel_asked_at FROM runs WHERE id = ?", run_id)
        return not rows or rows[0]["state"] != "running" or rows[0]["cancel_asked_at"] is not None

    def note(
        self, run_id: str, *, progress: float | None = None, message: str | None = None, device: str | None = None,
        metrics: Sequence[tuple[int, str, float]] = (),
    ) -> None:
        """Store what a run said of itself: progress in [0, 1], a sentence, its device, (step, name, value) rows."""
        now = clock.to_store(self._now())
        with self._write() as tx:
            rows = [[run_id, step, name, value, now] for step, name, value in metrics]
            tx.executemany("INSERT INTO run_metrics VALUES (?, ?, ?, ?, ?)", rows)
            tx.execute(
                """UPDATE runs SET progress = coalesce(?, progress), message = coalesce(?, message), device = coalesce(?, device),
                   beat_at = ? WHERE id = ? AND state = 'running'""",
                [progress, message, device, now, run_id])

    def thin_metric(self, run_id: str, name: str, *, stride: int) -> int:
        """Keep the points of one curve whose step divides by `stride`; returns how many are left."""
        with self._write() as tx:
            tx.execute("DELETE FROM run_metrics WHERE run_id = ? AND name = ? AND step % ? != 0", [run_id, name, stride])
            return tx.execute("SELECT count(*) FROM run_metrics WHERE run_id = ? AND name = ?", [run_id, name])[0][0]

    def finish(self, run_id: str, state: RunState, *, error: str = "", result: Mapping[str, Any] | None = None) -> Run | None:
        """End a running run; crashed and interrupted ones are queued again after a back-off. Returns that retry, if any.

        A run that is over already stays as it is.
        """
        with self._write() as tx:
            found = tx.execute("SELECT job, params, attempt FROM runs WHERE id = ? AND state = 'running'", [run_id])
            if not found:
                return None
            retry_id, note = self._retry(tx, run_id, state, *found[0])
            tx.execute(
                """UPDATE runs SET state = ?, finished_at = ?, error = ?, result = ?,
                   progress = CASE WHEN ? = 'succeeded' THEN 1 ELSE progress END WHERE id = ?""",
                [state, clock.to_store(self._now()), f"{clean(error, limit=12_000)[0]}{note}", _result_json(result), state, run_id])
        log.info("run %s of %s: %s", run_id, found[0][0], state)
        return self.get(retry_id) if retry_id else None

    def reap(self) -> list[Run]:
        """At boot: nothing can be running. Kill what the last server left behind, close its rows, queue retries."""
        closed = []
        for row in self.store.rows("SELECT id, job, pid, pid_created_at FROM runs WHERE state = 'running'"):
            _kill_leftover(row["pid"], row["pid_created_at"])
            self.finish(row["id"], "interrupted", error="The desk stopped while this run was at work.")
            closed.append(self.get(row["id"]))
        with self._write() as tx:
            for run_id, job in tx.execute("SELECT id, job FROM runs WHERE state = 'queued'"):
                if job not in self.jobs:
                    self._drop(tx, run_id, f"There is no job {job!r} any more.")
        return closed

    def expire(self, *, silent_s: float = SILENT_S) -> list[Run]:
        """Close running runs whose heartbeat stands still: no phantom is shown as running.

        Compares what changes in the row with our own monotonic clock, so that a wall clock set forward kills nothing.
        A run that died before its first beat counts from its start.
        """
        at = self._monotonic()
        rows = self.store.rows("SELECT id, pid, pid_created_at, coalesce(beat_at, started_at) AS sign FROM runs WHERE state = 'running'")
        before = self._seen
        seen = {r["id"]: before[r["id"]] if before.get(r["id"], (None,))[0] == r["sign"] else (r["sign"], at) for r in rows}
        dead = [r for r in rows if at - seen[r["id"]][1] >= silent_s]
        if dead:
            with self.store.write():  # while another writer keeps the store busy nobody can beat: then judge later
                stalled_s = self._monotonic() - at
            if stalled_s > 1.0:
                seen, dead = {}, []
        self._seen = seen
        for row in dead:
            _kill_leftover(row["pid"], row["pid_created_at"])
            self.finish(row["id"], "crashed", error=f"No sign of life for {silent_s:.0f} s.")
        return [self.get(row["id"]) for row in dead]

    def wait_for_change(self, timeout_s: float) -> None:
        """Sleep until a run is asked for, cancelled or finished, or the time is over."""
        with self._changed:
            self._changed.wait(timeout_s)

    # --- inside

    @contextlib.contextmanager
    def _write(self) -> Iterator[Transaction]:
        with self.store.write() as tx:
            yield tx
        with self._changed:
            self._changed.notify_all()

    def _checked_params(self, job: str, params: Mapping[str, Any] | BaseModel | None) -> str:
        try:
            text = to_json(self.params(job, params).model_dump(mode="json"))
            text.encode("utf-8")
        except (NotFinite, UnicodeEncodeError):
            message = f"A parameter of {job} holds a number or text that cannot be stored."
            raise BadParams(message, "Use finite numbers and plain text.") from None
        if len(text) > MAX_PARAMS_CHARS:
            message = f"The parameters of {job} are {len(text):,} characters long."
            raise BadParams(message, f"At most {MAX_PARAMS_CHARS:,}: pass a path for what is large.")
        return text

    def _refuse(self, tx: Transaction, job: str, state: str) -> None:
        found = tx.execute("SELECT id FROM runs WHERE job = ? AND state = ? LIMIT 1", [job, state])
        if not found:
            return
        run = self.get(found[0][0])
        until = f" until {run.not_before_at:%H:%M} UTC, to try run {run.retry_of} again" if run.not_before_at and run.retry_of else ""
        verb = "is running already" if state == "running" else f"waits already{until}"
        raise AlreadyQueued(f"Run {run.id} of {job} {verb}.", "Let it finish, or cancel it first.", run)

    def _insert(
        self, tx: Transaction, job: str, params: str, *, trigger: str, slot_at: dt.datetime | None = None, retry_of: str | None = None,
        attempt: int = 1, not_before_at: dt.datetime | None = None,
    ) -> str:
        now = self._now()
        run_id = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
        tx.execute(
            """INSERT INTO runs (id, job, params, state, trigger, slot_at, attempt, retry_of, requested_at, not_before_at,
                                 progress, message, error, result, device)
               VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, 0, '', '', '{}', '')""",
            [run_id, job, params, _word(trigger), clock.to_store(slot_at), attempt, retry_of,
             clock.to_store(now), clock.to_store(not_before_at)])
        return run_id

    def _drop(self, tx: Transaction, run_id: str, why: str) -> None:
        now = clock.to_store(self._now())
        tx.execute("UPDATE runs SET state = 'cancelled', finished_at = ?, error = ? WHERE id = ?", [now, why, run_id])

    def _mark_running(self, tx: Transaction, run_id: str) -> None:
        tx.execute("UPDATE runs SET state = 'running', started_at = ? WHERE id = ?", [clock.to_store(self._now()), run_id])

    def _retry(self, tx: Transaction, run_id: str, state: str, job: str, params: str, attempt: int) -> tuple[str | None, str]:
        """(id of the run that tries again, what to add to the error)."""
        most = self.jobs[job].max_attempts if job in self.jobs else 1
        if state not in _RETRIED:
            return None, ""
        if attempt >= most:
            return None, f" This was attempt {attempt} of {most}; it is not tried again by itself."
        waiting = tx.execute("SELECT id FROM runs WHERE job = ? AND state = 'queued' LIMIT 1", [job])
        if waiting:
            return None, f" Not tried again by itself, since run {waiting[0][0]} of this job waits already: resume it later."
        wait_s = BACK_OFF_S[min(attempt, len(BACK_OFF_S)) - 1]
        later = self._now() + dt.timedelta(seconds=wait_s)
        retry_id = self._insert(tx, job, params, trigger="retry", retry_of=run_id, attempt=attempt + 1, not_before_at=later)
        return retry_id, f" It is tried again in {clock.duration(wait_s)} as run {retry_id}."

    def _audit(self, tx: Transaction, who: str, what: str, detail: Mapping[str, Any]) -> None:
        tx.execute("INSERT INTO audit VALUES (?, ?, ?, ?)", [_word(who), what, to_json(dict(detail)), clock.to_store(self._now())])

    def _runs(self, where: str, *params: Any) -> list[Run]:
        return [_run(row) for row in self.store.rows(f"SELECT * FROM runs {where}", *params)]


def _run(row: dict[str, Any]) -> Run:
    values = {name: row[name] for name in Run.__dataclass_fields__}
    values.update({name: clock.from_store(row[name]) for name in _TIMES})
    values.update(params=json.loads(row["params"]), result=json.loads(row["result"]))
    return Run(**values)


def _word(text: object) -> str:
    """A short string that can be bound: what holds a lone surrogate is no name of ours, and matches nothing."""
    return clean(text, limit=200)[0]


def _result_json(result: Mapping[str, Any] | None) -> str:
    text = to_json(dict(result or {})).encode("utf-8", "replace").decode()
    return text if len(text) <= 1_000_000 else to_json({"note": "the result was larger than 1 MB and was not kept"})


def _end_of(path: Path, n_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - n_bytes))
        return file.read(n_bytes)


def _kill_leftover(pid: int | None, created_at: float | None) -> None:
    """Kill a child, and its children, that outlived its server. A process with the same pid but born at another time is not ours."""
    if pid is None or created_at is None:
        return
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - created_at) > 1.0:
            return
        family = [*process.children(recursive=True), process]
    except psutil.Error:  # gone already: what we want
        return
    log.warning("killing process %s, left behind by a run", pid)
    for member in family:
        with contextlib.suppress(psutil.Error):  # it may go while we look
            member.kill()
    psutil.wait_procs(family, timeout=5)
