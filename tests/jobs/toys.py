"""Tiny jobs for the runner's tests, and their child: `python toys.py RUN_DIR` runs their `work` as jobs/child.py does."""

import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script, this file starts with its own folder only

from pydantic import BaseModel

from fmcore.nouns import FMError, Job


class Params(BaseModel, extra="forbid"):
    """One form for all: what to do, for how long, and a place to leave a trace."""

    do: str = "work"
    steps: int = 3
    delay_s: float = 0.0
    text: str = ""


def prepare(store, params, run_dir):
    if params.do == "bad-prepare":
        raise FMError("There is no such data set.", "Fetch it first.")
    (run_dir / "input.json").write_text(json.dumps({"rows": store.rows("SELECT 41 + 1 AS n")}))


def work(run_dir, report):
    params = Params(**json.loads((run_dir / "spec.json").read_text())["params"])
    print("a stray print that must not break the protocol")
    return FAULTS[params.do](params, run_dir, report) or {}


def _steps(params, run_dir, report):
    checkpoint = run_dir / "checkpoint" / "step.txt"
    first = int(checkpoint.read_text()) if checkpoint.exists() else 0
    report.device("cpu")
    for step in range(first + 1, params.steps + 1):
        time.sleep(params.delay_s)
        checkpoint.parent.mkdir(exist_ok=True)
        fresh = checkpoint.with_suffix(".part")
        fresh.write_text(str(step))
        fresh.replace(checkpoint)  # a checkpoint is whole or not there: the tests kill this process at any instant
        report.metric(step, loss=1 / step)
        report.progress(step / params.steps, f"step {step}")
    return {"steps": params.steps, "first": first + 1, "rows": json.loads((run_dir / "input.json").read_text())["rows"]}


def _raise(params, run_dir, report):
    raise ValueError("bad batch")


def _memory_error(params, run_dir, report):
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    return {"n": len(bytearray(2**32))}


def _kill_self(params, run_dir, report):
    os.kill(os.getpid(), signal.SIGKILL)


def _segfault(params, run_dir, report):
    os.kill(os.getpid(), signal.SIGSEGV)


def _exit(params, run_dir, report):
    os._exit(3)


def _hang(params, run_dir, report):
    (run_dir / "hanging").touch()
    time.sleep(600)


def _deaf(params, run_dir, report):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
        os._exit(0)
    _hang(params, run_dir, report)


def _forking(params, run_dir, report):
    """Leaves a process in the group and one that left it, both longer lived than the work."""
    for leave in (False, True):
        pid = os.fork()
        if pid == 0:
            if leave:
                os.setsid()
            time.sleep(600)
            os._exit(0)
        with (run_dir / "pids.txt").open("a") as file:
            file.write(f"{pid}\n")
    _hang(params, run_dir, report)


def _hold_the_gil(params, run_dir, report):
    """Deep in C code that never lets another thread in."""
    (run_dir / "hanging").touch()
    sum(range(10**12))


def _log_flood(params, run_dir, report):
    line = "x" * 999 + "\n"
    for _ in range(params.steps):
        sys.stderr.write(line * 1000)
    sys.stderr.write("the last line\n")
    return {}


def _metric_flood(params, run_dir, report):
    for step in range(params.steps):
        report.metric(step, loss=1.0, **{f"curve{step % 500}": 2.0})
    report.metric(params.steps, loss=float("nan"))
    return {}


def _long_line(params, run_dir, report):
    report._stream.write(b"[" * 5_000_000 + b"\n" + b"{not json}\n" + b'{"kind": "progress"}\n' + b"[1]\n")
    report.progress(0.5, "after the rubbish \ud800")
    return {"ok": True}


FAULTS = {
    "work": _steps, "bad-prepare": _steps, "raise": _raise, "memory": _memory_error, "sigkill": _kill_self, "segfault": _segfault, "exit": _exit,
    "hang": _hang, "deaf": _deaf, "fork": _forking, "gil": _hold_the_gil, "log-flood": _log_flood, "metric-flood": _metric_flood,
    "long-line": _long_line, "bad-land": _steps,
}


def land(store, run_dir):
    """Idempotent by run: one row of the audit table each."""
    spec = json.loads((run_dir / "spec.json").read_text())
    if spec["params"]["do"] == "bad-land" and not (run_dir.parent / "landing-is-possible").exists():
        raise FMError("The shelf is full.", "Make room.")
    with store.write() as tx:
        if not tx.execute("SELECT 1 FROM audit WHERE who = ?", [spec["run_id"]]):
            tx.execute("INSERT INTO audit VALUES (?, 'landed', '', now()::TIMESTAMP)", [spec["run_id"]])
    return {"landed": spec["run_id"]}


def light(store, params, report):
    if params.do == "raise":
        raise ValueError("bad row")
    for step in range(params.steps):
        time.sleep(params.delay_s)
        report.metric(step, value=step)
        report.progress(step / params.steps, "counting")
    return {"n": store.rows("SELECT count(*) AS n FROM runs")[0]["n"]}


JOBS = {job.name: job for job in (
    Job("heavy", "Heavy", "", kind="heavy", params=Params, prepare=prepare, work=work, land=land, timeout_s=60, silence_s=60),
    Job("light", "Light", "", kind="light", params=Params, run=light, timeout_s=60),
    Job("hasty", "Hasty", "", kind="heavy", params=Params, prepare=prepare, work=work, land=land, timeout_s=1.5),
    Job("mute", "Mute", "", kind="heavy", params=Params, prepare=prepare, work=work, land=land, silence_s=1.5),
    Job("nightly", "Nightly", "", kind="light", params=Params, run=light, schedule="0 3 * * *", scheduled_params={"steps": 1}),
)}
COMMAND = (sys.executable, str(Path(__file__).resolve()))

if __name__ == "__main__":
    from jobs.child import main

    sys.exit(main(JOBS))
