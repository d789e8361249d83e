"""Executes runs: two lanes (threads) for light jobs, so that a slow feed does not hold up an alert, and one for heavy ones.

Owns the life of a run between claim and finish, and the one way in which each kind of end is told. Never decides who
may run (fmcore/runs.py) and never computes in the server what can be computed in a child (jobs/child.py).
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from fmcore.nouns import Cancelled, FMError, Job, Run, RunState
from fmcore.runs import Runs
from jobs.place import LocalProcess
from jobs.watch import ThreadReport, Watch

log = logging.getLogger("fm.jobs")

LOG_CAP_BYTES = 5_000_000
LINE_CAP_BYTES = 65_536
DRAIN_S = 2.0
OUTCOME = tuple[RunState, str, Mapping[str, Any]]


class Abandoned(Exception):
    """Work on a thread of the server that did not end when it was told to; the thread is left behind."""


@dataclass
class Ended:
    """How a child ended: its exit code and the error it told of itself, if any."""

    code: int
    error: dict[str, Any] = field(default_factory=dict)


class Runner:
    """Runs what `runs` has queued, from `start` to `stop`. `place` is where heavy work executes."""

    def __init__(self, runs: Runs, *, place: LocalProcess | None = None, grace_s: float = 10.0):
        self._runs, self._place, self._grace_s = runs, place or LocalProcess(), grace_s
        self._stopping = threading.Event()
        kinds = ("light", "light", "heavy")
        self._lanes = [threading.Thread(target=self._lane, args=(k,), daemon=True, name=f"fm-lane-{n}-{k}") for n, k in enumerate(kinds)]

    def start(self) -> None:
        """Close what an earlier server left open, then take runs."""
        for run in self._runs.reap():
            log.warning("run %s of %s was interrupted: %s", run.id, run.job, run.error)
        for lane in self._lanes:
            lane.start()

    def stop(self) -> None:
        """Take no more runs, stop those at work (they are recorded as interrupted and queued again), and wait for that."""
        self._stopping.set()
        deadline = time.monotonic() + self._grace_s + 4
        for lane in self._lanes:
            if lane.ident is not None:
                lane.join(max(0.1, deadline - time.monotonic()))

    def _lane(self, kind: str) -> None:
        while not self._stopping.is_set():
            try:
                run = self._runs.claim(kind)
                if run is not None:
                    self.execute(run)
                    continue
                self._runs.expire()
            except Exception:  # a lane must outlive whatever goes wrong in it, a full disk above all
                log.exception("the %s lane", kind)
                self._stopping.wait(2)
            self._runs.wait_for_change(1.0)

    def execute(self, run: Run) -> Run:
        """Do a run that is running in the store's eyes, to its end; returns it as stored."""
        watch = None
        try:
            job = self._runs.job(run.job)
            watch = Watch(self._runs, run, job, stopping=self._stopping)
            watch.record.begins()
            state, error, result = (self._light if job.kind == "light" else self._heavy)(run, job, watch)
            watch.flush()
        except Exception as fault:  # a fault of our own must end the run in words too
            log.exception("run %s", run.id)
            state, error, result = "crashed", f"The desk could not run it: {_told(fault)}", {}
        if watch is not None:
            watch.record.ends(result)
        self._finish(run, state, error, result)
        return self._runs.get(run.id)

    def _finish(self, run: Run, state: RunState, error: str, result: Mapping[str, Any]) -> None:
        """Store the end; while the disk is full, try again until there is room or the desk stops."""
        while True:
            try:
                self._runs.finish(run.id, state, error=error, result=result)
                return
            except FMError as trouble:
                log.error("the end of run %s is not stored yet: %s", run.id, trouble)
                if self._stopping.wait(2):
                    return

    # --- light: a function on a thread of the server

    def _light(self, run: Run, job: Job, watch: Watch) -> OUTCOME:
        params = self._runs.params(run.job, run.params)
        return self._outcome(watch, lambda: job.run(self._runs.store, params, ThreadReport(watch)))

    def _outcome(self, watch: Watch, work: Callable[[], Any]) -> OUTCOME:
        """Do `work` on a thread and put into words how it went. Work that was done to its end counts, asked to stop or not."""
        try:
            return "succeeded", "", self._attend(watch, work) or {}
        except Abandoned:
            return watch.must_end, f"{watch.why} It did not stop when asked to; its thread ends with the desk.", {}
        except Cancelled:
            return watch.must_end or "cancelled", watch.why, {}
        except MemoryError as error:
            return "crashed", f"It ran out of memory: {_told(error)}", {}
        except Exception as error:  # noqa: BLE001  whatever a job raises is told, stored and shown
            return "failed", _told(error), {}

    def _attend(self, watch: Watch, work: Callable[[], Any]) -> Any:
        done: dict[str, Any] = {}

        def body() -> None:
            try:
                done["value"] = work()
            except BaseException as error:  # noqa: BLE001  handed to the lane, which raises it
                done["error"] = error

        thread = threading.Thread(target=body, daemon=True, name="fm-body")
        thread.start()
        asked_at = None
        while thread.is_alive():
            thread.join(0.1)
            if watch.look():
                asked_at = asked_at or time.monotonic()
                if time.monotonic() - asked_at > self._grace_s and thread.is_alive():
                    raise Abandoned
        if "error" in done:
            raise done["error"]
        return done.get("value")

    # --- heavy: prepare here, work in a child, land here

    def _heavy(self, run: Run, job: Job, watch: Watch) -> OUTCOME:
        landed = self._land_what_is_done(run, job, watch)
        if landed:
            return landed
        store, run_dir = self._runs.store, self._runs.folder(run.id)
        run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        spec = {"run_id": run.id, "job": run.job, "params": dict(run.params), "attempt": run.attempt, "retry_of": run.retry_of}
        (run_dir / "spec.json").write_text(json.dumps(spec, ensure_ascii=True), encoding="utf-8")
        params = self._runs.params(run.job, run.params)

        def prepare() -> None:
            self._inherit(run, run_dir)
            if job.prepare is not None:
                job.prepare(store, params, run_dir)

        state, error, _ = self._outcome(watch, prepare)
        if state != "succeeded" or watch.look():
            return (state, error, {}) if state != "succeeded" else (watch.must_end, watch.why, {})
        watch.heard()
        ended = self._child(run, run_dir, watch)
        worked = _result_of(run_dir)
        if watch.must_end or worked is None:
            return *_cause(watch, ended), {}
        return self._land(job, run_dir, worked, watch)

    def _land(self, job: Job, run_dir: Path, worked: Mapping[str, Any], watch: Watch) -> OUTCOME:
        watch.heard()
        if job.land is None:
            return "succeeded", "", worked
        state, error, landed = self._outcome(watch, lambda: job.land(self._runs.store, run_dir))
        return (state, error, {**worked, **landed}) if state == "succeeded" else (state, f"Its result could not be taken in. {error}", {})

    def _land_what_is_done(self, run: Run, job: Job, watch: Watch) -> OUTCOME | None:
        """An earlier attempt may have finished its work and lost only the landing: then take that in, and train nothing."""
        for folder in self._earlier(run):
            worked = _result_of(folder)
            if worked is not None:
                outcome = self._land(job, folder, worked, watch)
                if outcome[0] == "succeeded":
                    return outcome
                log.warning("run %s: what %s had finished could not be taken in, so it is done again: %s", run.id, folder.name, outcome[1])
                return None
        return None

    def _inherit(self, run: Run, run_dir: Path) -> None:
        """Copy the newest checkpoint among the attempts before this one; whole or not at all."""
        for folder in self._earlier(run):
            if (folder / "checkpoint").is_dir() and not (run_dir / "checkpoint").exists():
                half = run_dir / "checkpoint.part"
                shutil.rmtree(half, ignore_errors=True)
                shutil.copytree(folder / "checkpoint", half)
                half.rename(run_dir / "checkpoint")

    def _earlier(self, run: Run) -> list[Path]:
        folders: list[Path] = []
        while run.retry_of and len(folders) < 20:
            folders.append(self._runs.folder(run.retry_of))
            try:
                run = self._runs.get(run.retry_of)
            except FMError:  # its row was pruned, and so was all before it
                break
        return folders

    def _child(self, run: Run, run_dir: Path, watch: Watch) -> Ended:
        """Start the child, store what it says, stop it when it must end, and leave no process behind."""
        process = self._place.start(run_dir)
        try:
            watch.record.watch(process.pid)
            self._runs.started(run.id, pid=process.pid, pid_created_at=_created_at(process.pid))
            return self._listen(process, run_dir, watch)
        finally:
            self._place.signal(process, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                pipe.close()

    def _listen(self, process: subprocess.Popen, run_dir: Path, watch: Watch) -> Ended:
        ended, asked_at, over_at = Ended(0), None, None
        run_log = CappedLog(run_dir)
        with selectors.DefaultSelector() as pipes, run_log:
            pipes.register(process.stdout, selectors.EVENT_READ, Lines(lambda line: _take(line, watch, ended, run_log)))
            pipes.register(process.stderr, selectors.EVENT_READ, run_log)
            while pipes.get_map() or over_at is None:
                for key, _ in pipes.select(0.2) if pipes.get_map() else ():
                    chunk = os.read(key.fd, LINE_CAP_BYTES)
                    key.data.take(chunk) if chunk else pipes.unregister(key.fileobj)
                now = time.monotonic()
                if watch.look() and over_at is None:
                    if asked_at is None:
                        asked_at = now
                        self._place.signal(process, signal.SIGTERM)
                    elif now - asked_at > self._grace_s:
                        self._place.signal(process, signal.SIGKILL)
                if over_at is None and process.poll() is not None:
                    over_at, ended.code = now, process.returncode
                    self._place.signal(process, signal.SIGKILL)  # what it forked and left
                if over_at is not None and now - over_at > DRAIN_S:
                    break  # a stranger holds the pipe open
                if not pipes.get_map() and over_at is None:
                    time.sleep(0.05)
        return ended


class Lines:
    """Bytes into lines, each handed on; a line longer than the cap is dropped, so that memory stays bounded."""

    def __init__(self, hand_on: Callable[[bytes], None]):
        self._hand_on, self._rest, self._dropping = hand_on, b"", False

    def take(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if not self._dropping:
                self._hand_on(line)
            self._dropping = False
        if len(self._rest) > LINE_CAP_BYTES:
            self._rest, self._dropping = b"", True


class CappedLog:
    """A run's log.txt; past half the cap it becomes log.1.txt and a new one begins, so the newest lines are kept."""

    def __init__(self, run_dir: Path, *, cap_bytes: int = LOG_CAP_BYTES):
        self._path, self._old, self._half = run_dir / "log.txt", run_dir / "log.1.txt", cap_bytes // 2
        self._file = self._path.open("ab")
        self._failed = False

    def __enter__(self) -> CappedLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take(self, chunk: bytes) -> None:
        try:
            if self._file.tell() + len(chunk) > self._half:
                self._file.close()
                self._path.replace(self._old)
                self._file = self._path.open("ab")
            self._file.write(chunk)
            self._file.flush()
        except (OSError, ValueError) as error:  # a full disk costs the log, not the run; ValueError: closed by such a failure
            if not self._failed:
                log.warning("%s cannot be written: %s", self._path, error)
            self._failed = True


def _take(line: bytes, watch: Watch, ended: Ended, run_log: CappedLog) -> None:
    """One line of the child's; what is not one of ours is ignored."""
    try:
        said = json.loads(line)
        kind = said.pop("kind")
        if kind == "progress":
            watch.progress(said["fraction"], said["message"])
        elif kind == "metric":
            values = {name: value for name, value in said["values"].items() if value is not None}
            watch.metric(int(said["step"]), **values)
            for name in said["values"].keys() - values.keys():
                run_log.take(f"[desk] {name[:60]} is not a finite number at step {said['step']}\n".encode("utf-8", "replace"))
        elif kind == "device":
            watch.device(said["name"])
        elif kind == "facts":
            watch.record.told(dict(said["facts"]))
        elif kind == "error":
            ended.error = said
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        log.debug("a line that is not ours: %r", line[:200])


def _cause(watch: Watch, ended: Ended) -> tuple[RunState, str]:
    """How a heavy run ended without a usable result, as a state and a sentence."""
    if watch.must_end:
        return watch.must_end, watch.why
    if ended.error:
        story = f"{ended.error.get('last', 'unknown error')}\n{ended.error.get('trace', '')}".strip()
        return ("crashed", f"It ran out of memory: {story}") if ended.error.get("memory") else ("failed", story)
    if ended.code < 0:
        hint = {signal.SIGKILL: " Out of memory?", signal.SIGSEGV: " A fault in native code.", signal.SIGABRT: " It aborted itself."}
        return "crashed", f"Its process was killed by signal {-ended.code} ({_signal_name(-ended.code)}).{hint.get(-ended.code, '')}"
    return "crashed", f"Its process ended with code {ended.code} and no result."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _result_of(run_dir: Path) -> dict[str, Any] | None:
    """What `work` returned, once it is complete."""
    try:
        found = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _told(error: BaseException) -> str:
    """An exception for a person: our own are sentences already, others need their traceback."""
    if isinstance(error, FMError):
        return str(error)
    return f"{traceback.format_exception_only(error)[-1].strip()[:2000]}\n{''.join(traceback.format_exception(error, limit=-12))[-8000:]}"


def _created_at(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:  # over already
        return 0.0
