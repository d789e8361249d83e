"""What the server knows of one run at work: its last sign of life, whether it must stop and why, and what it said of
itself that is not stored yet. Bounded whatever the job does: a flood of metrics or messages is thinned, not queued.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from fmcore import clock
from fmcore.nouns import Cancelled, FMError, Job, Run, RunState
from fmcore.runs import Runs
from fmcore.text import clean
from jobs.record import Record

log = logging.getLogger("fm.jobs")

FLUSH_S, BEAT_S, ASK_S, EXPIRE_S = 0.5, 10.0, 0.2, 5.0
UNSTORED_S = 30.0
"""A run whose heartbeat cannot be stored for this long (three beats) is stopped: nobody could tell it from a dead one."""
POINTS_PER_FLUSH, POINTS_PER_CURVE, CURVES = 256, 4000, 64


class Watch:
    """One run's watch. `progress`, `metric`, `device` and `heard` may come from any thread, `look` and `flush` from the lane's."""

    def __init__(self, runs: Runs, run: Run, job: Job, *, stopping: threading.Event, monotonic: Callable[[], float] = time.monotonic):
        self._runs, self._run, self._job, self._stopping, self._monotonic = runs, run, job, stopping, monotonic
        self._lock = threading.Lock()
        self._began_at = self._heard_at = self._stored_at = self._asked_at = self._expired_at = monotonic()
        self._said: dict[str, Any] = {}
        self._points: deque[tuple[int, str, float]] = deque(maxlen=POINTS_PER_FLUSH)
        self._stride: dict[str, int] = {}
        self._kept: dict[str, int] = {}
        self.must_end: RunState | None = None
        self.why = ""
        self.record = Record(runs, run)

    # --- what the job says

    def progress(self, fraction: float, message: str = "") -> None:
        """How far it is, in [0, 1], and what it does just now."""
        known = fraction if isinstance(fraction, (int, float)) and math.isfinite(fraction) else 0.0
        self._say(progress=min(1.0, max(0.0, float(known))), message=clean(message, limit=500)[0])

    def device(self, name: str) -> None:
        """What it computes on."""
        self._say(device=clean(name, limit=200)[0])

    def metric(self, step: int, **values: float) -> None:
        """Points of its curves; what is not finite is left out."""
        with self._lock:
            for name, value in values.items():
                curve = clean(name, limit=60)[0]
                if curve not in self._stride and len(self._stride) >= CURVES:
                    continue
                stride = self._stride.setdefault(curve, 1)
                if isinstance(value, (int, float)) and math.isfinite(value) and abs(step) < 2**31 and step % stride == 0:
                    self._points.append((int(step), curve, float(value)))
        self._say()

    def heard(self) -> None:
        """A sign of life."""
        self._heard_at = self._monotonic()

    def _say(self, **said: Any) -> None:
        self.heard()
        with self._lock:
            self._said.update(said)
    # --- what the lane asks

    def look(self) -> bool:
        """Store what is due, beat, and decide: True once the run must end (`must_end` and `why` say how)."""
        at = self._monotonic()
        if at - self._stored_at >= (FLUSH_S if self._said or self._points else BEAT_S):
            self.flush()
        if at - self._expired_at >= EXPIRE_S:
            self._expired_at = at
            self._quietly(self._runs.expire)
        if self.must_end is None:
            self._decide(at)
        return self.must_end is not None

    def flush(self) -> None:
        """Store what was said since the last time; also the heartbeat."""
        with self._lock:
            said, self._said = self._said, {}
            points = list(self._points)
            self._points.clear()
        if self._quietly(lambda: self._runs.note(self._run.id, metrics=points, **said)):
            self._stored_at = self._monotonic()
            self._thin(points)

    def _decide(self, at: float) -> None:
        limit, silence = self._job.timeout_s, self._job.silence_s
        if self._stopping.is_set():
            self._end("interrupted", "The desk stopped while this run was at work.")
        elif at - self._began_at > limit:
            self._end("timed_out", f"It ran longer than {clock.duration(limit)}, the limit of this job.")
        elif at - self._heard_at > silence:
            self._end("timed_out", f"It was silent for {clock.duration(silence)}, the limit of this job.")
        elif at - self._stored_at > BEAT_S + UNSTORED_S:
            self._end("crashed", f"Its state could not be stored for {clock.duration(at - self._stored_at)}; see the desk's log.")
        elif at - self._asked_at > ASK_S:
            self._asked_at = at
            self._quietly(self._obey_a_cancel)

    def _obey_a_cancel(self) -> None:
        if self._runs.cancel_asked(self._run.id):
            self._end("cancelled", "Cancelled while it was at work.")

    def _end(self, state: RunState, why: str) -> None:
        self.must_end, self.why = state, why

    def _thin(self, points: list[tuple[int, str, float]]) -> None:
        """Halve a curve that has grown too long, as often as needed; one that cannot be halved is closed."""
        counts: Mapping[str, int] = {name: sum(p[1] == name for p in points) for name in {p[1] for p in points}}
        for name, n in counts.items():
            self._kept[name] = self._kept.get(name, 0) + n
            if self._kept[name] > POINTS_PER_CURVE:
                before, self._stride[name] = self._kept[name], self._stride[name] * 2
                self._quietly(lambda name=name: self._recount(name))
                if self._kept[name] > 0.9 * before:
                    self._stride[name] = 2**31  # all on one step: only step 0 could follow
                    self._kept[name] = 0

    def _recount(self, name: str) -> None:
        self._kept[name] = self._runs.thin_metric(self._run.id, name, stride=self._stride[name])

    def _quietly(self, store: Callable[[], Any]) -> bool:
        """Do something with the store; a full disk must not end the run at once."""
        try:
            store()
            return True
        except FMError as error:
            log.warning("run %s: %s", self._run.id, error)
            return False


class ThreadReport:
    """A job's `report` where it runs on a thread of the server: tells the watch, and raises Cancelled once the run must end."""

    def __init__(self, watch: Watch):
        self._watch = watch

    def progress(self, fraction: float, message: str = "") -> None:
        self._watch.progress(fraction, message)
        self._stop_if_asked()

    def metric(self, step: int, **values: float) -> None:
        self._watch.metric(step, **values)
        self._stop_if_asked()

    def device(self, name: str) -> None:
        self._watch.device(name)
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._watch.must_end:
            raise Cancelled
