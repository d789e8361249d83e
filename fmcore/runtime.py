"""The one runtime of a process: settings, store, runs, registry, engine, explanations and recommendations, made once.

Pages, API and jobs share it. It hangs on a synthetic module in sys.modules, because Streamlit's hot reload drops every local module and a
module global with it.
Importing this loads no model library; never draws, never schedules.
"""

from __future__ import annotations

import datetime as dt
import sys
import threading
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fmcore import clock
from fmcore.config import Settings
from fmcore.explain.asking import Explain
from fmcore.models.registry import Registry
from fmcore.nouns import Job
from fmcore.recommend.service import Recommend
from fmcore.runs import Runs
from fmcore.serving.engine import Engine, one_blas_thread
from fmcore.store.store import Store

_HOLDER = "_fm_process_state"


@dataclass(frozen=True)
class Runtime:
    """What a process holds once. `probes` are named functions that say how a part is (app.py adds the scheduler's)."""

    settings: Settings
    store: Store
    jobs: Mapping[str, Job]
    runs: Runs
    registry: Registry
    engine: Engine
    explain: Explain
    recommend: Recommend
    started_at: dt.datetime
    probes: dict[str, Callable[[], Mapping[str, Any]]] = field(default_factory=dict)


def current() -> Runtime | None:
    """The runtime, or None where no server runs in this process."""
    return _holder().runtime


def start(settings: Settings, jobs: Mapping[str, Job]) -> Runtime:
    """Open the store and hold the runtime; the one that is there when it was started already. Raises StoreLocked, StoreError."""
    holder = _holder()
    with holder.lock:
        if holder.runtime is None:
            one_blas_thread()
            store = Store(settings.home)
            registry = Registry(store)
            engine = Engine(registry)
            holder.runtime = Runtime(
                settings=settings,
                store=store,
                jobs=jobs,
                runs=Runs(store, jobs),
                registry=registry,
                engine=engine,
                explain=Explain(engine, store, settings.home),
                recommend=Recommend(registry, store),
                started_at=clock.now(),
            )
        return holder.runtime


def stop() -> None:
    """Let the runtime go: explanations end, the engine answers what it has accepted, then the store closes. Safe to repeat."""
    holder = _holder()
    with holder.lock:
        runtime, holder.runtime = holder.runtime, None
        if runtime is not None:
            runtime.explain.close()
            runtime.engine.close()
            runtime.store.close()


def _holder() -> types.ModuleType:
    """The synthetic module; setdefault makes the first of two racing threads win."""
    held = sys.modules.get(_HOLDER)
    if held is None:
        made = types.ModuleType(_HOLDER)
        made.lock, made.runtime = threading.RLock(), None
        held = sys.modules.setdefault(_HOLDER, made)
    return held
