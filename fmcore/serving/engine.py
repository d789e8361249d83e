"""The engine: texts in, answers out, from the version that serves the task at this moment.

Owns which models are in memory (the champions and a few pinned versions), the swap when a champion changes, and what happens when a
new champion's folder is refused: the version before keeps serving and info() says why. Each call is answered by exactly one version.
Never decides who the champion is (models/registry.py), never opens a file itself.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmcore.models.registry import Registry
from fmcore.nouns import FMError, Prediction
from fmcore.serving.batcher import Batcher, Overloaded, Stopping
from fmcore.serving.journal import Journal

if TYPE_CHECKING:
    from fmcore.models.classifier import Classifier

__all__ = ["Engine", "Overloaded", "Refused", "Stopping", "one_blas_thread"]

log = logging.getLogger("fm.serving")

MAX_LOADED = 3
RETRY_REFUSED_S = 30.0
"""How long a folder that was refused is left alone before it is looked at again."""

Key = tuple[str, str]


class Refused(FMError):
    """A model's files verify but cannot be loaded."""


@dataclass
class _Loaded:
    """A model in memory; `users` are the calls under way in it."""

    key: Key
    classifier: Classifier
    batcher: Batcher
    users: int = 0


class Engine:
    """Answers for every task. `load(folder, version=...)` gives a Classifier; safe from any number of threads."""

    def __init__(self, registry: Registry, *, load: Callable[..., Classifier] | None = None):
        self.registry = registry
        self._load = load or _load_classifier
        self._journal = Journal(registry.store)
        self._lock = threading.Lock()
        self._loading: dict[Key, threading.Lock] = {}
        self._loaded: OrderedDict[Key, _Loaded] = OrderedDict()
        self._serving: dict[str, Key] = {}
        self._refused: dict[Key, tuple[float, FMError]] = {}
        self._warnings: dict[str, str] = {}
        self._closed = False

    def predict(self, task: str, texts: Sequence[str], *, version: str | None = None, source: str = "page") -> list[Prediction]:
        """A Prediction a text, all from one version: the champion, or the one asked for.

        Raises UnknownModel when there is none, Tampered or Refused when none can be loaded, Overloaded when too many wait.
        """
        if not texts:
            return []
        with self._lease(task, version) as model:
            started = time.perf_counter()
            answers = model.batcher.predict(texts)
        ms = (time.perf_counter() - started) * 1000 / len(texts)
        self._journal.note(task, texts, answers, ms=ms, source=source)
        return answers

    @contextlib.contextmanager
    def classifier(self, task: str, *, version: str | None = None) -> Iterator[Classifier]:
        """The loaded classifier itself (for its embeddings and labels), kept in memory for the length of the block."""
        with self._lease(task, version) as model:
            yield model.classifier

    def warm(self, task: str) -> None:
        """Load the champion, if there is one, so that the first person does not wait for it."""
        if self.registry.champion(task) is None:
            return
        try:
            self.predict(task, ["Good morning"], source="warm-up")
        except FMError as error:
            log.warning("%s cannot be warmed up: %s", task, error)

    def info(self, task: str) -> dict[str, Any]:
        """How a task is served: champion, the version in memory that answers, whether the two differ and why (warning). share_sent: of a
        cascade, the share of texts that went on to its full model since it was loaded; None else."""
        champion = self.registry.champion(task)
        with self._lock:
            key = self._serving.get(task)
            model = self._loaded.get(key) if key else None
            return {
                "task": task,
                "champion": champion.version if champion else None,
                "serving": key[1] if model else None,
                "warning": self._warnings.get(task, ""),
                "share_sent": getattr(model.classifier, "share_sent", None) if model else None,
                "n_queued": model.batcher.n_queued if model else 0,
                "n_log_rows_lost": self._journal.n_lost,
                "loaded": [version for loaded_task, version in self._loaded if loaded_task == task],
            }

    def flush(self) -> None:
        """Store the prediction log now."""
        self._journal.flush()

    def close(self) -> None:
        """Answer what was accepted, store the log, let the models go; safe to repeat."""
        with self._lock:
            self._closed = True
            models = list(self._loaded.values())
            self._loaded.clear()
        for model in models:
            model.batcher.close()
        self._journal.close()

    # --- which model

    @contextlib.contextmanager
    def _lease(self, task: str, version: str | None) -> Iterator[_Loaded]:
        """The model for one call, which stays in memory until the call ends."""
        model = self._take(task, version) if version else self._take_champion(task)
        try:
            yield model
        finally:
            with self._lock:
                model.users -= 1
                gone = self._evict()
            _close(gone)

    def _take_champion(self, task: str) -> _Loaded:
        champion = self.registry.champion(task) or self.registry.resolve(task)  # resolve says what there is
        try:
            model = self._take(task, champion.version)
        except Stopping:
            raise
        except FMError as error:
            return self._take_former(task, champion.version, error)
        with self._lock:
            self._serving[task] = model.key
            self._warnings.pop(task, None)
        return model

    def _take_former(self, task: str, champion: str, error: FMError) -> _Loaded:
        """The version that served before, since the champion is refused. Raises the champion's error when there is none."""
        with self._lock:
            before = self._serving.get(task)
        names = [before[1]] if before else []
        for name in dict.fromkeys([*names, *self.registry.former_champions(task)]):
            if name == champion:
                continue
            with contextlib.suppress(FMError):
                model = self._take(task, name)
                with self._lock:
                    self._serving[task] = model.key
                    self._warnings[task] = f"{champion} is refused: {error.message} {name} keeps serving."
                return model
        with self._lock:
            self._warnings[task] = f"{champion} is refused: {error.message} No earlier version can take its place."
        raise error

    def _take(self, task: str, version: str) -> _Loaded:
        """The loaded model of a version, one user more. Loads it once, whoever asks at the same time."""
        key = (task, version)
        if model := self._taken(key):
            return model
        with self._lock:
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:
            if model := self._taken(key):
                return model
            when, error = self._refused.get(key, (0.0, None))
            if error is not None and time.monotonic() - when < RETRY_REFUSED_S:
                raise error
            try:
                model = self._opened(key)
            except FMError as refusal:
                self._refused[key] = (time.monotonic(), refusal)
                log.warning("%s/%s is refused: %s", task, version, refusal)
                raise
        return model

    def _taken(self, key: Key) -> _Loaded | None:
        with self._lock:
            if self._closed:
                raise Stopping("The desk is stopping.", "Try again when it is back.")
            model = self._loaded.get(key)
            if model:
                self._loaded.move_to_end(key)
                model.users += 1
            return model

    def _opened(self, key: Key) -> _Loaded:
        task, version = key
        folder = self.registry.verified(self.registry.get(task, version))
        started = time.monotonic()
        try:
            classifier = self._load(folder, version=version)
        except FMError as error:
            raise Refused(error.message, error.hint) from error
        except Exception as error:  # any fault of a model's files must leave the version before it serving
            log.warning("%s/%s cannot be loaded", task, version, exc_info=True)
            raise Refused(f"{version} cannot be loaded ({type(error).__name__}).", "Train it again, or promote another version.") from None
        model = _Loaded(key, classifier, Batcher(classifier.predict, name=f"{task}-{version}"), users=1)
        with self._lock:
            if not self._closed:
                self._refused.pop(key, None)
                self._loaded[key] = model
                log.info("%s/%s loaded in %.1f s", task, version, time.monotonic() - started)
                return model
        model.batcher.close()
        raise Stopping("The desk is stopping.", "Try again when it is back.")

    def _evict(self) -> list[_Loaded]:
        """Take the models longest unused out of memory, never one at work or one that serves a task."""
        keep = set(self._serving.values())
        idle = [key for key, model in self._loaded.items() if not model.users and key not in keep]
        return [self._loaded.pop(key) for key in idle[: max(0, len(self._loaded) - MAX_LOADED)]]


def one_blas_thread() -> None:
    """Keep numpy's matrices on the calling thread, for the whole process. A message's are so small that BLAS threads only spin against
    each other and against a training run: measured on two busy cores, 33 ms of CPU a prediction with two threads, 9 ms with one."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="blas")


def _close(models: list[_Loaded]) -> None:
    for model in models:
        model.batcher.close()


def _load_classifier(folder: Path, *, version: str) -> Classifier:
    from fmcore.models.classifier import Classifier

    return Classifier.load(folder, version=version)
