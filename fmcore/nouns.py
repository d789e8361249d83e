"""The nouns of FM Desk: frozen dataclasses that pages, jobs, the API and the store pass to each other. No behaviour."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

RunState = Literal["queued", "running", "succeeded", "failed", "crashed", "cancelled", "timed_out", "interrupted"]
Stage = Literal["candidate", "champion", "retired"]


class FMError(Exception):
    """A refusal with two sentences: `message` for the log, `hint` for the person (what to do next)."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class Cancelled(BaseException):
    """Raised out of a `report` call when the run was asked to stop. A BaseException: no `except Exception` may swallow it."""


class Report(Protocol):
    """What a job speaks through while it works. Each call raises Cancelled when the run was asked to stop."""

    def progress(self, fraction: float, message: str = "") -> None: ...

    def metric(self, step: int, **values: float) -> None: ...

    def device(self, name: str) -> None: ...


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % bootstrap interval and the number of rows behind it."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Evaluation:
    """One metric of one model on one split."""

    metric: str
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one text.

    scores are calibrated probabilities over the in-scope labels, largest first, summing to 1; label and score are the
    first of them, whether or not the text is in scope. novelty is the out-of-scope score (higher is stranger, in
    standard deviations of in-scope validation text); the text is in scope while novelty <= threshold.
    candidates is the conformal set: it holds the true in-scope label with the stated coverage.
    """

    label: str
    score: float
    scores: Mapping[str, float]
    in_scope: bool
    novelty: float
    threshold: float
    reason: str
    candidates: tuple[str, ...]
    coverage: float
    version: str
    truncated: bool = False


@dataclass(frozen=True)
class Reply:
    """A stored answer offered for a message: score in [0, 1] is the similarity that ranked it."""

    intent: str
    text: str
    score: float
    source: str


@dataclass(frozen=True)
class ModelVersion:
    """A trained model: a folder that is complete and hash-verified, plus its row in the registry."""

    task: str
    version: str
    path: Path
    sha256: str
    base: str
    recipe: str
    dataset: str
    metrics: Mapping[str, Any]
    stage: Stage
    created_at: dt.datetime
    run_id: str | None = None
    verdict: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Promotion:
    """One change of champion: who, when, why, from which version."""

    task: str
    version: str
    previous: str | None
    by: str
    reason: str
    at: dt.datetime


@dataclass(frozen=True)
class Run:
    """One execution of a job, as the store knows it."""

    id: str
    job: str
    params: Mapping[str, Any]
    state: RunState
    trigger: str
    attempt: int
    requested_at: dt.datetime
    started_at: dt.datetime | None = None
    beat_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    progress: float = 0.0
    message: str = ""
    error: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    pid: int | None = None
    slot_at: dt.datetime | None = None
    retry_of: str | None = None
    device: str = ""
    not_before_at: dt.datetime | None = None
    cancel_asked_at: dt.datetime | None = None

    @property
    def is_over(self) -> bool:
        return self.state not in ("queued", "running")


@dataclass(frozen=True)
class Job:
    """What can be run: a name, a form (a pydantic model with extra="forbid"), and its functions.

    light: `run(store, params, report) -> dict` on a thread of the server.
    heavy: `prepare(store, params, run_dir)` in the server, `work(run_dir, report) -> dict` in a child process without
    a database, `land(store, run_dir) -> dict` in the server, idempotent.
    schedule is a five-field cron line in UTC (weekdays by name), with the parameters it runs with; None means on request only.
    A slot missed by at most grace_s is caught up once; timeout_s bounds a run, silence_s the time between two reports.
    """

    name: str
    title: str
    summary: str
    kind: Literal["light", "heavy"]
    params: type
    run: Callable[..., Any] | None = None
    prepare: Callable[..., Any] | None = None
    work: Callable[..., Any] | None = None
    land: Callable[..., Any] | None = None
    schedule: str | None = None
    scheduled_params: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 4 * 3600
    silence_s: float = 900
    max_attempts: int = 3
    grace_s: float = 3600


@dataclass(frozen=True)
class Schedule:
    """When a job runs next, and how its last slot ended."""

    job: str
    cron: str
    next_at: dt.datetime | None
    last_at: dt.datetime | None
    last_state: str
    missed: int


@dataclass(frozen=True)
class MissedSlot:
    """A scheduled moment at which a job did not run, and why."""

    job: str
    slot_at: dt.datetime
    reason: str
    noted_at: dt.datetime


@dataclass(frozen=True)
class Dataset:
    """A catalogue entry and whether its files are here. commercial_use: "yes", "no" or "unclear"."""

    name: str
    title: str
    summary: str
    licence: str
    commercial_use: str
    size: str
    columns: str
    source: str
    synthetic: bool
    state: Literal["built in", "local", "downloaded", "missing"]
    path: Path | None


@dataclass(frozen=True)
class Task:
    """What a model can be asked: one line in fmcore/tasks.py."""

    name: str
    title: str
    default_dataset: str
    datasets: tuple[str, ...]
