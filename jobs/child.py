"""A run's own process: `python -m jobs.child RUN_DIR`. Does a heavy job's `work` on the files of one run folder.

Speaks JSON lines on what was its standard output; stray prints go to the log. Never opens the database. Ends when its
standard input ends, since then the server is gone. Writes result.json last, by rename: with it the work is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmcore import config, mirrors, run_facts
from fmcore.mirrors import Mirrors
from fmcore.nouns import Cancelled, Job

ORPHANED = 75
"""Exit code of a child whose server went away."""
CANCELLED = 143
OUT_OF_MEMORY = 137
FAILED = 1


class PipeReport:
    """A job's `report` in its own process: each call is one line on the pipe to the server."""

    def __init__(self, stream: Any):
        self._stream, self._lock = stream, threading.Lock()
        self.cancelled = False
        self.mirrors: Mirrors | None = None

    def progress(self, fraction: float, message: str = "") -> None:
        self.send("progress", fraction=_finite(fraction) or 0.0, message=str(message)[:500])
        self._stop_if_asked()

    def metric(self, step: int, **values: float) -> None:
        finite = {name[:60]: _finite(value) for name, value in values.items()}
        self.send("metric", step=int(step), values=finite)
        if self.mirrors is not None:
            self.mirrors.metric(int(step), finite)
        self._stop_if_asked()

    def device(self, name: str) -> None:
        self.send("device", name=str(name)[:200])
        self._stop_if_asked()

    def send(self, kind: str, **fields: Any) -> None:
        """One line. A broken pipe means that nobody listens any more: end."""
        line = (json.dumps({"kind": kind, **fields}) + "\n").encode()
        try:
            with self._lock:
                self._stream.write(line)
        except BrokenPipeError:
            os._exit(ORPHANED)

    def _stop_if_asked(self) -> None:
        if self.cancelled:
            raise Cancelled


def main(jobs: Mapping[str, Job], *, argv: list[str] | None = None) -> int:
    """Run the `work` of the job that RUN_DIR/spec.json names, out of `jobs` only; returns the exit code."""
    run_dir = Path((argv or sys.argv[1:])[0])
    stream = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a stray print goes to the log, never into the protocol
    _end_with_the_parent()
    with contextlib.suppress(OSError):  # where the system forbids it we run as we are
        os.nice(10)  # the pages come first
    report = PipeReport(stream)
    signal.signal(signal.SIGTERM, lambda *_: setattr(report, "cancelled", True))  # the next report call raises Cancelled
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code, result = _do(jobs, run_dir, report)
    if not _end_mirrors(report, {0: "succeeded", CANCELLED: "cancelled"}.get(code, "failed"), result):
        os._exit(code)  # a client that hangs would keep the process
    return code


def _do(jobs: Mapping[str, Job], run_dir: Path, report: PipeReport) -> tuple[int, Mapping[str, Any]]:
    """The work; (exit code, its result)."""
    try:
        spec = json.loads((run_dir / "spec.json").read_text(encoding="utf-8"))
        before = _tell_what_it_is_made_of(run_dir, report)
        _start_mirrors(spec, before, report)
        result = jobs[spec["job"]].work(run_dir, report) or {}
        _tell_what_it_made(run_dir, report, before)
        _write_result(run_dir, result)
        return 0, result
    except Cancelled:
        return CANCELLED, {}
    except MemoryError as error:
        report.send("error", memory=True, last=_last_line(error), trace=traceback.format_exc(limit=-12)[-8000:])
        return OUT_OF_MEMORY, {}
    except BaseException as error:  # noqa: BLE001  whatever ended the job is told to the server, which stores it
        report.send("error", memory=False, last=_last_line(error), trace=traceback.format_exc(limit=-12)[-8000:])
        return FAILED, {}


def _start_mirrors(spec: Mapping[str, Any], data: Mapping[str, Any], report: PipeReport) -> None:
    """Copy the run's curves to where the settings say, if anywhere. A fault costs the copy, not the run."""

    def say(sentence: str) -> None:
        print(sentence, file=sys.stderr)
        report.send("facts", facts={"notes": [sentence]})

    try:
        chosen = mirrors.wanted(config.settings())
        if chosen:
            version = run_facts.code_version()
            tags = {"code": version["commit"] or version["package"], "data_hash": data.get("hash") or "unknown"}
            run = mirrors.Mirrored(spec["run_id"], spec["job"], mirrors.shareable(spec.get("params") or {}), tags)
            report.mirrors = mirrors.Mirrors(chosen, run, say=say)
    except Exception:  # noqa: BLE001  whatever it is, it stands in the run's log
        traceback.print_exc()


def _end_mirrors(report: PipeReport, state: str, result: Mapping[str, Any]) -> bool:
    """False where a mirror still hangs."""
    try:
        return report.mirrors is None or report.mirrors.close(state, run_facts.figures(result))
    except Exception:  # noqa: BLE001  the same
        traceback.print_exc()
        return True


def _tell_what_it_is_made_of(run_dir: Path, report: PipeReport) -> Mapping[str, Any]:
    """Code, libraries, machine and the frozen data of this run; returns the data's facts. A fault costs facts, not the run."""
    try:
        report.send("facts", facts=run_facts.of_process())
        data = run_facts.frozen(run_dir)
        report.send("facts", facts={"data": data})
        return data
    except Exception:  # noqa: BLE001  whatever it is, it stands in the run's log
        traceback.print_exc()
        return {}


def _tell_what_it_made(run_dir: Path, report: PipeReport, before: Mapping[str, Any]) -> None:
    try:
        report.send("facts", facts={"artefacts": run_facts.artefacts(run_dir, before=before), "peak_rss_mb": run_facts.peak_rss_mb()})
    except Exception:  # noqa: BLE001  the same
        traceback.print_exc()


def _end_with_the_parent() -> None:
    """Die when standard input ends, in two ways: a signal from the kernel, which needs no Python and so also ends a
    process deep in C code, for the whole process group; and a thread, where the system sends no such signal.

    os.read, not sys.stdin: a daemon thread inside sys.stdin's lock aborts the interpreter at exit.
    """
    leads = os.getpid() == os.getpgrp()
    with contextlib.suppress(OSError, AttributeError):
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(0, fcntl.F_SETOWN, -os.getpgrp() if leads else os.getpid())
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)

    def watch() -> None:
        while os.read(0, 4096):
            continue
        if leads:
            with contextlib.suppress(OSError):
                os.killpg(os.getpgrp(), signal.SIGKILL)  # what we forked goes too
        os._exit(ORPHANED)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def _write_result(run_dir: Path, result: Mapping[str, Any]) -> None:
    text = json.dumps(result, allow_nan=False, default=str)
    half = run_dir / "result.json.part"
    with half.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    half.replace(run_dir / "result.json")


def _last_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()[:2000]


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


if __name__ == "__main__":
    from jobs import JOBS

    sys.exit(main(JOBS))
