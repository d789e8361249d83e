"""Tickets: who waits for an explanation, in what order, and how to stop waiting. A line of work with a few slots and stated bounds.

Owns the order (first come, first served), the bounds of the line, and what frees a slot: an answer, a cancel, nobody looking any more.
The same work asked for twice at once is done once. Knows nothing of models; what is done is a function. A question is never logged,
and nothing keeps it once its tickets are gone.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Literal

from fmcore.nouns import Cancelled, FMError
from fmcore.serving.batcher import Overloaded, Stopping

log = logging.getLogger("fm.explain")

State = Literal["waiting", "working", "done", "failed", "cancelled"]
Step = Callable[[float, str], None]
"""step(fraction done, what is done now), between two batches; raises Cancelled when nobody waits any more."""

SLOTS = 2
MAX_WAITING = 16
MAX_EACH = MAX_WAITING // 2
"""Tickets that one asker may hold at once: nobody fills the line alone."""
PATIENCE_S = 30.0
"""Longest wait in the line."""
LONGEST_S = 120.0
"""Longest work on one question: a slot is never held for good."""
ABANDONED_S = 20.0
"""A ticket that nobody looked at for so long is cancelled."""


class TookTooLong(FMError):
    """Work, or a wait for it, that is over its time."""


class _Work:
    """What is asked once, however many wait for it."""

    def __init__(self, key: Hashable, question: Any):
        self.key, self.question = key, question
        self.state: State = "waiting"
        self.progress, self.message = 0.0, ""
        self.answer: Any = None
        self.error: FMError | None = None
        self.since = time.monotonic()
        self.tickets: list[Ticket] = []

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    def end(self, state: State, *, answer: Any = None, error: FMError | None = None) -> None:
        self.state, self.answer, self.error = state, answer, error
        self.progress = 1.0 if state == "done" else self.progress


class Ticket:
    """One asker's place in the line, then their answer. Reading `state` counts as looking, as `seen` and `wait` do."""

    def __init__(self, line: Line, work: _Work, who: str):
        self._line, self._work, self.who = line, work, who
        self._seen_at = time.monotonic()
        self._gone = False
        work.tickets.append(self)

    @property
    def state(self) -> State:
        """waiting, working, done, failed or cancelled."""
        with self._line.changed:
            self._seen_at = time.monotonic()
            self._line.tidy()
            return "cancelled" if self._gone else self._work.state

    @property
    def progress(self) -> float:
        """The share that is done, from 0 to 1; never falls."""
        return self._work.progress

    @property
    def message(self) -> str:
        """What is done now, or where in the line this stands, in a few words."""
        place = self.place
        return f"waiting, number {place} in line" if place else self._work.message

    @property
    def place(self) -> int:
        """1 for the next in line; 0 when it does not wait."""
        return self._line.place(self._work)

    @property
    def answer(self) -> Any:
        """The answer of a ticket that is done, else None."""
        return None if self._gone else self._work.answer

    @property
    def error(self) -> FMError | None:
        """Why a ticket failed, else None."""
        return None if self._gone else self._work.error

    def seen(self) -> None:
        """Somebody looks at this ticket."""
        self._seen_at = time.monotonic()

    def cancel(self) -> None:
        """Stop waiting. The work stops before its next batch, unless somebody else waits for the same; safe to repeat."""
        with self._line.changed:
            self._gone = self._gone or not self._work.is_over
            self._line.tidy()
            self._line.changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Whether it is over within so many seconds."""
        until = time.monotonic() + timeout_s
        with self._line.changed:
            while self.state not in ("done", "failed", "cancelled"):
                rest = until - time.monotonic()
                if rest <= 0:
                    return False
                self._line.changed.wait(timeout=min(rest, 1.0, self._line.abandoned_s / 4))  # waiting is looking
        return True

    def waits(self, now: float) -> bool:
        """Whether somebody still wants the answer; whoever did not look for ABANDONED_S no longer does."""
        self._gone = self._gone or now - self._seen_at > self._line.abandoned_s
        return not self._gone


class Line:
    """do(question, step) gives the answer to a question, on one of `slots` threads that start with the first question."""

    def __init__(
        self, do: Callable[[Any, Step], Any], *, slots: int = SLOTS, max_waiting: int = MAX_WAITING, patience_s: float = PATIENCE_S,
        abandoned_s: float = ABANDONED_S, longest_s: float = LONGEST_S,
    ):  # fmt: skip
        self._do, self._slots, self._max_waiting = do, slots, max_waiting
        self._patience_s, self.abandoned_s, self._longest_s = patience_s, abandoned_s, longest_s
        self.changed = threading.Condition()
        self._waiting: deque[_Work] = deque()
        self._working: list[_Work] = []
        self._threads: list[threading.Thread] = []
        self._closed = False

    def join(self, question: Any, *, key: Hashable, who: str) -> Ticket:
        """A ticket for a question; questions with the same key are one piece of work. Raises Overloaded, Stopping."""
        with self.changed:
            if self._closed:
                raise Stopping("The desk is stopping.", "Try again when it is back.")
            self.tidy()
            held = [*self._working, *self._waiting]
            if sum(t.who == who for work in held for t in work.tickets) >= MAX_EACH:
                raise Overloaded(f"{MAX_EACH} explanations are on their way for you already.", "Wait for one of them, or cancel one.")
            work = next((w for w in held if w.key == key), None)
            if work is None:
                if len(self._waiting) >= self._max_waiting:
                    raise _busy(len(self._waiting))
                work = _Work(key, question)
                self._waiting.append(work)
            self._start()
            self.changed.notify_all()
            return Ticket(self, work, who)

    def over(self, answer: Any, *, who: str) -> Ticket:
        """A ticket whose answer is there already."""
        work = _Work(None, None)
        work.end("done", answer=answer)
        return Ticket(self, work, who)

    def place(self, work: _Work) -> int:
        """The place in the line, from 1; 0 for work that does not wait."""
        with self.changed:
            return next((i for i, waiting in enumerate(self._waiting, 1) if waiting is work), 0)

    def tidy(self) -> None:
        """Let go of what nobody waits for and of what waited too long. Called with `changed` held."""
        now, n = time.monotonic(), len(self._waiting)
        for work in [*self._working, *self._waiting]:
            work.tickets = [ticket for ticket in work.tickets if ticket.waits(now)]
        for work in list(self._waiting):
            if not work.tickets:
                work.end("cancelled")
            elif now - work.since > self._patience_s:
                work.end("failed", error=_busy(n))
        if any(work.is_over for work in self._waiting):
            self._waiting = deque(work for work in self._waiting if not work.is_over)
            self.changed.notify_all()

    def close(self, *, timeout_s: float = 10.0) -> None:
        """End what waits and what is under way, and the threads; safe to repeat."""
        with self.changed:
            self._closed = True
            for work in self._waiting:
                work.end("failed", error=Stopping("The desk is stopping.", "Try again when it is back."))
            self._waiting.clear()
            self.changed.notify_all()
            threads = list(self._threads)
        for thread in threads:
            thread.join(timeout_s)

    # --- the threads

    def _start(self) -> None:
        while len(self._threads) < self._slots:
            thread = threading.Thread(target=self._run, name=f"fm-explain-{len(self._threads) + 1}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self) -> None:
        while (work := self._next()) is not None:
            state, answer, error = self._done(work)
            with self.changed:
                self._working.remove(work)
                work.end(state, answer=answer, error=error)
                self.changed.notify_all()
            del work, answer, error  # an idle thread must not keep the last one's text in memory

    def _next(self) -> _Work | None:
        """The first in line, or None when the line is closed."""
        with self.changed:
            while not self._closed:
                self.tidy()
                if self._waiting:
                    work = self._waiting.popleft()
                    work.state = "working"
                    self._working.append(work)
                    return work
                self.changed.wait()
            return None

    def _done(self, work: _Work) -> tuple[State, Any, FMError | None]:
        started = time.monotonic()

        def step(fraction: float, message: str) -> None:
            with self.changed:
                self.tidy()
                if self._closed or not work.tickets:
                    work.key = None  # who asks the same now gets work of their own
                    raise Cancelled
            if time.monotonic() - started > self._longest_s:
                raise TookTooLong(f"The explanation took longer than {self._longest_s:.0f} s.", "Ask with a smaller budget.")
            work.progress, work.message = max(work.progress, min(1.0, fraction)), message

        try:
            return "done", self._do(work.question, step), None
        except Cancelled:
            if not self._closed:
                return "cancelled", None, None
            return "failed", None, Stopping("The desk is stopping.", "Try again when it is back.")
        except FMError as error:
            return "failed", None, error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - whatever a text does to a method must reach its asker, not end this thread
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno}"
            log.error("an explanation failed: %s at %s", type(error).__name__, where)  # not its message: that may quote the text
            return "failed", None, FMError(f"The explanation failed ({type(error).__name__}).", "Try another method; the log says where.")


def _busy(n: int) -> Overloaded:
    return Overloaded(f"The desk is busy: {n} explanations wait.", "Try again in a few seconds.")
