"""The prediction log: what was answered, by which version, how fast; a hash and a length in the place of the text.

Owns the table predictions. Writing never delays an answer: rows wait in memory and a thread stores them once a second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from fmcore import clock
from fmcore.nouns import FMError, Prediction
from fmcore.store.store import Store
from fmcore.text import clean, text_hash

log = logging.getLogger("fm.serving")

FLUSH_S = 1.0
MAX_WAITING = 200_000
_COLUMNS = ("task", "version", "text_hash", "n_chars", "label", "score", "in_scope", "novelty", "ms", "source", "noted_at")


class Journal:
    """Rows on their way to the table predictions. Rows beyond MAX_WAITING are dropped and counted in `n_lost`."""

    def __init__(self, store: Store):
        self._store = store
        self._rows: list[tuple] = []
        self._wake = threading.Condition()
        self._writing = threading.Lock()
        self._closed = False
        self.n_lost = 0
        self._thread = threading.Thread(target=self._run, name="fm-journal", daemon=True)
        self._thread.start()

    def note(self, task: str, texts: Sequence[str], predictions: Sequence[Prediction], *, ms: float, source: str) -> None:
        """Remember a call's answers; ms is what one text of it took."""
        at = clock.to_store(clock.now())
        rows = []
        for text, p in zip(texts, predictions, strict=True):
            kept = clean(text)[0]
            answer = (p.label, float(p.score), bool(p.in_scope), float(p.novelty))
            rows.append((task, p.version, text_hash(kept), len(kept), *answer, ms, source, at))
        with self._wake:
            room = MAX_WAITING - len(self._rows)
            self.n_lost += max(0, len(rows) - room)
            self._rows += rows[: max(0, room)]

    def flush(self) -> None:
        """Store what waits, now. A store that refuses costs these rows, never an answer."""
        with self._writing:
            with self._wake:
                rows, self._rows = self._rows, []
            if not rows:
                return
            import pandas as pd

            try:
                with self._store.write() as tx:
                    tx.insert_frame("predictions", pd.DataFrame(rows, columns=list(_COLUMNS)))
            except (FMError, OSError, RuntimeError) as error:  # disk full, closed store: duckdb's errors are RuntimeErrors
                with self._wake:
                    self.n_lost += len(rows)
                log.warning("%d predictions were not logged: %s", len(rows), error)

    def close(self) -> None:
        """Store what waits and stop; safe to repeat."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join(timeout=10)
        self.flush()

    def _run(self) -> None:
        while True:
            with self._wake:
                if self._wake.wait_for(lambda: self._closed, timeout=FLUSH_S):
                    return
            started = time.monotonic()
            self.flush()
            if time.monotonic() - started > FLUSH_S:
                log.info("storing the prediction log took %.1f s", time.monotonic() - started)
