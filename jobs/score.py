"""The scoring job: every minute, the documents that wait become articles, a batch a transaction, until none waits or the minute is over.

A killed run loses nothing and doubles nothing: the next one takes what still waits. Owns the order and the pace, no table.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, Field

from fmcore import runtime
from fmcore.models.registry import Registry
from fmcore.nouns import Job, Report
from fmcore.sentiment import rollup, scoring
from fmcore.serving.engine import Engine
from fmcore.store.store import Store

AT_ONCE = 5_000
"""Waiting documents looked up at a time; a batch is a part of them."""


class Score(BaseModel, extra="forbid"):
    """How much is done in one run."""

    batch: int = Field(256, ge=1, le=2_000, description="Documents scored and stored together")
    for_s: float = Field(45, ge=1, le=3_000, description="Seconds after which no new batch is begun; the next run goes on")
    rescore: bool = Field(False, description="When nothing waits: score articles again that other versions than the champions answered")


def run(store: Store, params: Score, report: Report) -> dict[str, Any]:
    """Score what waits; when nothing does, what was scored before there was a topic model gets its topic, once there is one. Returns
    {"scored", "rescored", "waiting", "per_minute", "folded", "reason"}; without a sentiment model nothing is scored, and reason says so."""
    began = time.monotonic()
    done = {"scored": 0, "rescored": 0, "folded": 0, "reason": ""}

    def in_time() -> bool:
        return time.monotonic() - began < params.for_s

    with _engine(store) as engine:
        try:
            nothing_waits = _score(store, engine, params, report, done, in_time)
            while nothing_waits and in_time():
                n = scoring.rescore(store, engine, limit=params.batch, without_topic=not params.rescore)
                if n == 0:
                    break
                done["rescored"] += n
                done["folded"] += rollup.fold(store)
                report.progress(0.5, f"{done['rescored']} scored again")
        except scoring.NoModel as problem:
            done["reason"] = str(problem)
    waits = scoring.backlog(store)
    report.metric(1, backlog=waits.n_unscored, per_minute=waits.per_minute, scored=done["scored"] + done["rescored"])
    report.progress(1.0, done["reason"] or f"{done['scored']} scored, {waits.n_unscored} waiting")
    return {**done, "waiting": waits.n_unscored, "per_minute": waits.per_minute, "seconds": round(time.monotonic() - began, 2)}


def _score(store: Store, engine: Engine, params: Score, report: Report, done: dict[str, Any], in_time: Any) -> bool:
    """Batch after batch until nothing waits (then True) or the time is over. Raises NoModel."""
    while in_time():
        waiting = scoring.unscored(store, limit=AT_ONCE)
        if waiting.empty:
            scoring.mark(store)
            if not done["scored"]:
                rollup.tidy(store)  # an idle minute is the time for it
            return True
        for start in range(0, len(waiting), params.batch):
            if not in_time():
                return False
            done["scored"] += scoring.land(store, scoring.score(engine, waiting.iloc[start : start + params.batch]))
            done["folded"] += rollup.fold(store)
            report.progress(min(0.99, (start + params.batch) / len(waiting)), f"{done['scored']} scored")
    return False


@contextmanager
def _engine(store: Store) -> Iterator[Engine]:
    """The server's engine, or one of its own where no server runs in this process."""
    desk = runtime.current()
    if desk is not None and desk.store is store:
        yield desk.engine
        return
    engine = Engine(Registry(store))
    try:
        yield engine
    finally:
        engine.close()


JOB = Job(
    name="score",
    title="Score the news",
    summary="Gives every waiting document its sentiment, topic and story, and brings the trends up to date.",
    kind="light",
    params=Score,
    run=run,
    schedule="* * * * *",
    timeout_s=3_600,
    silence_s=600,
    max_attempts=1,  # the next minute goes on by itself
    grace_s=60,
    routine=True,
)
