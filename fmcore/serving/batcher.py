"""Micro-batches: one thread a loaded model answers the calls of many, up to MAX_BATCH texts in one pass.

Owns the order of the queue, its bound and its waiting time; knows nothing of versions or of who serves. A call's texts are answered
by this one model or not at all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet

from fmcore.nouns import FMError, Prediction

log = logging.getLogger("fm.serving")

MAX_BATCH = 64
GATHER_S = 0.002
MAX_QUEUED_TEXTS = 4096
PATIENCE_S = 10.0
_IN_FLIGHT = 2


class Overloaded(FMError):
    """Too many messages wait; this one was not answered."""


class Stopping(FMError):
    """The model is being put away."""


class Batcher:
    """`answer` is called on one thread only, with at most MAX_BATCH texts."""

    def __init__(self, answer: Callable[[list[str]], Sequence[Prediction]], *, name: str, patience_s: float = PATIENCE_S):
        self._answer, self._patience_s = answer, patience_s
        self._queue: deque[tuple[list[str], Future]] = deque()
        self._n_queued = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"fm-{name}", daemon=True)
        self._thread.start()

    @property
    def n_queued(self) -> int:
        """Texts that wait."""
        return self._n_queued

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """The answers, in order. Raises Overloaded when a piece of the call waits longer than patience_s."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # texts of a length together: little padding in a pass
        pieces = [[texts[i] for i in order[at : at + MAX_BATCH]] for at in range(0, len(texts), MAX_BATCH)]
        waiting: deque[Future] = deque()
        answers: list[Prediction] = []
        try:
            for piece in pieces:  # a long call keeps two pieces in the queue, so that short calls get between them
                if len(waiting) == _IN_FLIGHT:
                    answers += self._wait(waiting.popleft())
                waiting.append(self._submit(piece))
            while waiting:
                answers += self._wait(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()
        return [answer for _, answer in sorted(zip(order, answers, strict=True), key=lambda pair: pair[0])]

    def close(self) -> None:
        """Answer what waits, then end the thread; safe to repeat."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=self._patience_s)

    def _submit(self, piece: list[str]) -> Future:
        future: Future = Future()
        with self._changed:
            if self._closed:
                raise Stopping("The model is being put away.", "Try again in a moment.")
            if self._n_queued + len(piece) > MAX_QUEUED_TEXTS:
                raise _overloaded(self._n_queued)
            self._queue.append((piece, future))
            self._n_queued += len(piece)
            self._changed.notify_all()
        return future

    def _wait(self, future: Future) -> list[Prediction]:
        try:
            return future.result(timeout=self._patience_s)
        except NotYet:
            future.cancel()
            raise _overloaded(self._n_queued) from None

    def _run(self) -> None:
        while True:
            batch = self._gather()
            if not batch:
                return
            live = [(texts, future) for texts, future in batch if future.set_running_or_notify_cancel()]
            if live:
                self._settle(live)

    def _gather(self) -> list[tuple[list[str], Future]]:
        """The next calls that fit into one pass; a lone call waits GATHER_S for company. Empty when closed and done."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            until = time.monotonic() + GATHER_S
            self._changed.wait_for(lambda: self._closed or self._n_queued >= MAX_BATCH or time.monotonic() >= until, timeout=GATHER_S)
            batch, n_texts = [], 0
            while self._queue and (not batch or n_texts + len(self._queue[0][0]) <= MAX_BATCH):
                batch.append(self._queue.popleft())
                n_texts += len(batch[-1][0])
            self._n_queued -= n_texts
            return batch

    def _settle(self, batch: list[tuple[list[str], Future]]) -> None:
        """Answer several calls in one pass; when that fails, each on its own, so that one text's fault stays with its caller."""
        try:
            answers = list(self._answer([text for texts, _ in batch for text in texts]))
            if len(answers) != sum(len(texts) for texts, _ in batch):
                raise FMError(f"the model gave {len(answers)} answers to another number of texts")
        except Exception as error:  # noqa: BLE001 - whatever a text does to a model must reach its caller, not end this thread
            if len(batch) > 1:
                for call in batch:
                    self._settle([call])
            else:
                log.warning("a message was not answered: %s", type(error).__name__)
                batch[0][1].set_exception(error)
            return
        at = 0
        for texts, future in batch:
            future.set_result(answers[at : at + len(texts)])
            at += len(texts)


def _overloaded(n_queued: int) -> Overloaded:
    return Overloaded(f"The desk is busy: {n_queued} messages wait to be answered.", "Try again in a few seconds, or send fewer at once.")
