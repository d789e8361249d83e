"""Which versions of recommenders are in memory: the champion, and a few that somebody named.

Owns the swap when the champion changes, and what happens when its folder is refused: the version before keeps serving, and `info` says
why. Whoever has taken a shelf keeps it until they let it go. Never decides who the champion is and never scores anything.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from fmcore.models.registry import Registry
from fmcore.nouns import FMError
from fmcore.recommend.shelf import Shelf
from fmcore.tasks import RECOMMEND

log = logging.getLogger("fm.recommend")

MAX_LOADED = 3
RETRY_REFUSED_S = 30.0
"""How long a folder that was refused is left alone before it is looked at again."""


class Refused(FMError):
    """A version's files verify but cannot be loaded."""


class Versions:
    """Shelves by version; safe from any number of threads. `load(folder, version=...)` gives a Shelf."""

    def __init__(self, registry: Registry, *, load: Callable[..., Shelf] = Shelf.load):
        self.registry = registry
        self._load = load
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # one at a time: two shelves read at once would need the memory of both
        self._loaded: OrderedDict[str, Shelf] = OrderedDict()
        self._serving: str | None = None
        self._refused: dict[str, tuple[float, FMError]] = {}
        self._warning = ""

    def take(self, version: str | None = None) -> Shelf:
        """That version's shelf, or the one that serves: the champion's, where its folder is sound.

        Raises UnknownModel when there is none, Tampered or Refused when none can be loaded.
        """
        if version:
            return self._shelf(version)
        champion = self.registry.champion(RECOMMEND.name) or self.registry.resolve(RECOMMEND.name)  # resolve says what there is
        try:
            shelf = self._shelf(champion.version)
        except FMError as error:
            return self._former(champion.version, error)
        with self._lock:
            self._serving, self._warning = shelf.version, ""
        return shelf

    def info(self) -> dict[str, Any]:
        """champion, the version that answers (the champion where nothing was asked yet), what is in memory, and why the two differ."""
        champion = self.registry.champion(RECOMMEND.name)
        with self._lock:
            return {
                "task": RECOMMEND.name,
                "champion": champion.version if champion else None,
                "version": self._serving or (champion.version if champion else None),
                "warning": self._warning,
                "loaded": list(self._loaded),
            }

    def _former(self, champion: str, error: FMError) -> Shelf:
        """What served before, since the champion is refused. Raises the champion's error when there is nothing."""
        before = [self._serving] if self._serving else []
        for name in dict.fromkeys([*before, *self.registry.former_champions(RECOMMEND.name)]):
            if name == champion:
                continue
            with contextlib.suppress(FMError):
                shelf = self._shelf(name)
                with self._lock:
                    self._serving = name
                    self._warning = f"{champion} is refused: {error.message} {name} keeps serving."
                return shelf
        with self._lock:
            self._warning = f"{champion} is refused: {error.message} No earlier version can take its place."
        raise error

    def _shelf(self, version: str) -> Shelf:
        """A version's shelf, loaded once whoever asks at the same time."""
        if found := self._held(version):
            return found
        with self._loading:
            if found := self._held(version):
                return found
            when, error = self._refused.get(version, (0.0, None))
            if error is not None and time.monotonic() - when < RETRY_REFUSED_S:
                raise error
            try:
                shelf = self._opened(version)
            except FMError as refusal:
                self._refused[version] = (time.monotonic(), refusal)
                log.warning("%s is refused: %s", version, refusal)
                raise
            with self._lock:
                self._refused.pop(version, None)
                self._loaded[version] = shelf
                idle = [name for name in self._loaded if name not in (version, self._serving)]
                for name in idle[: max(0, len(self._loaded) - MAX_LOADED)]:
                    del self._loaded[name]
            return shelf

    def _held(self, version: str) -> Shelf | None:
        with self._lock:
            if found := self._loaded.get(version):
                self._loaded.move_to_end(version)
            return found

    def _opened(self, version: str) -> Shelf:
        started = time.monotonic()
        folder = self.registry.verified(self.registry.get(RECOMMEND.name, version))
        try:
            shelf = self._load(folder, version=version)
        except FMError as error:
            raise Refused(error.message, error.hint) from error
        log.info("%s loaded in %.1f s", version, time.monotonic() - started)
        return shelf
