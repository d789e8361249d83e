"""A run's record: what it is made of and what it costs, noted in the store when it begins, as it tells, and when it ends.

Gathers what only the server can: joules, the memory of a process that may be killed, seconds, what the result says it came from. The
rest is told by the run's own process (jobs/child.py). Whatever goes wrong here is logged and costs facts, never the run. A run whose
desk is killed keeps what was noted until then. Routine runs, several a minute, get one note, at their end.
"""

from __future__ import annotations

import functools
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from fmcore import energy, run_facts
from fmcore.nouns import Run
from fmcore.runs import Runs

log = logging.getLogger("fm.jobs")

EVERY_S = 5.0


def _at_no_risk(method: Callable[..., None]) -> Callable[..., None]:
    """A method whose faults are logged and go no further."""

    @functools.wraps(method)
    def quiet(self: Record, *args: Any) -> None:
        try:
            method(self, *args)
        except Exception:  # facts are never a reason for a run to fail
            log.exception("facts of run %s", self.run_id)

    return quiet


class Record:
    """One run's record. `begins` and `ends` once each, `told` and `watch` in between, from the lane's thread. None of them raises."""

    def __init__(self, runs: Runs, run: Run, *, every_s: float = EVERY_S):
        self._runs, self._run, self.run_id, self._every_s = runs, run, run.id, every_s
        job = runs.jobs.get(run.job)
        self._routine, self._heavy = bool(job and job.routine), bool(job and job.kind == "heavy")
        self._began_at, self._peak_mb, self._pid, self._meter = time.monotonic(), 0.0, None, None
        self._over = threading.Event()

    def begins(self) -> None:
        """Note what is known before anything ran, and read the machine's meters from here on."""
        if not self._routine:
            self._note_the_start()
        self._start_the_meters()

    @_at_no_risk
    def _note_the_start(self) -> None:
        facts = {**run_facts.of_process(), "parents": run_facts.parents(self._run, {}, {})}
        run_facts.note(self._runs.store, self.run_id, facts)

    @_at_no_risk
    def _start_the_meters(self) -> None:
        self._meter = energy.Meter(nvml=energy.nvml() if self._heavy else None)
        if self._heavy:
            threading.Thread(target=self._keep_reading, daemon=True, name="fm-meter").start()

    @_at_no_risk
    def told(self, facts: Mapping[str, Any]) -> None:
        """Note what the run's own process says of itself."""
        self._peak_mb = max(self._peak_mb, float(facts.get("peak_rss_mb") or 0.0))
        for sentence in facts.get("notes", ()):
            log.warning("run %s: %s", self.run_id, sentence)
        run_facts.note(self._runs.store, self.run_id, facts)

    def watch(self, pid: int) -> None:
        """The run's own process, whose memory counts from here on."""
        self._pid = pid

    @_at_no_risk
    def ends(self, result: Mapping[str, Any]) -> None:
        """Note what it took."""
        self._over.set()
        joules, of_what = self._meter.read() if self._meter else (None, "The meters could not be read.")
        facts = {
            "seconds": round(time.monotonic() - self._began_at, 3),
            "peak_rss_mb": round(self._peak_mb, 1) or None,
            "energy_j": joules,
            "energy_note": of_what,
            "parents": run_facts.parents(self._run, result, self._frozen_settings()),
        }
        run_facts.note(self._runs.store, self.run_id, {**(run_facts.of_process() if self._routine else {}), **facts})

    def _keep_reading(self) -> None:
        """On a thread: a counter wraps within minutes, and a process may be gone before it could say how much memory it held."""
        while not self._over.wait(self._every_s):
            self._read()

    @_at_no_risk
    def _read(self) -> None:
        self._meter.sample()
        if self._pid is not None:
            try:
                self._peak_mb = max(self._peak_mb, psutil.Process(self._pid).memory_info().rss / 2**20)
            except psutil.Error:  # over already
                self._pid = None

    def _frozen_settings(self) -> Mapping[str, Any]:
        """What prepare froze as the run's choices; by convention settings.json."""
        try:
            found = json.loads((self._runs.folder(self.run_id) / "settings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
