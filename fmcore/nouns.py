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
    routine: it runs every few minutes; histories leave it out unless asked for, and its good runs are kept for a day.
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
    routine: bool = False


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
    """A catalogue entry and whether its files are here. commercial_use: "yes", "no" or "unclear".

    use: "classify" (labelled texts), "replay" (a dated stream) or "series".
    """

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
    use: str = "classify"


@dataclass(frozen=True)
class Task:
    """What a model can be asked: one line in fmcore/tasks.py. labels: the only ones there may be; empty: what its data set has.

    lexical: words and word parts may stand beside the embedding, which loses which way a sentence points. recipe: the usual one.
    in_scope_share: of ordinary messages to accept where no out-of-scope rows say where to stop. consistency: see finetune.Tuning.
    """

    name: str
    title: str
    default_dataset: str
    datasets: tuple[str, ...]
    labels: tuple[str, ...] = ()
    lexical: bool = False
    recipe: str = "linear"
    in_scope_share: float = 0.95
    consistency: float = 0.0


# ---------------------------------------------------------------- news, trends, alerts


@dataclass(frozen=True)
class Document:
    """A piece of news, cleaned. id: hash of source, canonical url and title. published_at is never later than seen_at."""

    id: str
    source: str
    url: str
    title: str
    body: str
    language: str
    tickers: tuple[str, ...]
    published_at: dt.datetime
    seen_at: dt.datetime
    truncated: bool = False
    synthetic: bool = False


@dataclass(frozen=True)
class Filters:
    """What a trend is taken over; an empty tuple leaves that side open. start <= published_at < end, both aware UTC or None."""

    topics: tuple[str, ...] = ()
    tickers: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    start: dt.datetime | None = None
    end: dt.datetime | None = None


@dataclass(frozen=True)
class Counts:
    """One key's news in one bucket. Stories are counted once, where their first article stands; articles each.

    by_source: negative stories by source. sum_net: sum over stories of P(positive) - P(negative).
    """

    n_negative: int
    n_stories: int
    n_articles: int
    sum_net: float
    by_source: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """What the surge detector says of one key in one bucket. fires is already corrected for the number of keys watched.

    kind: "surge" (many more negative stories than expected), "shift" (the index moved to another level and stays), "flood" (the
    excess is one source's), or "" when nothing is out of the ordinary. score in [0, 1]; reason is one plain sentence with numbers.
    value and expected: negative stories of the last window_s seconds up to the bucket's end (for a shift the mean net score of them).
    """

    kind: str
    fires: bool
    value: float
    expected: float
    excess: float
    p_value: float
    q_value: float
    score: float
    reason: str
    window_s: int = 0


@dataclass(frozen=True)
class Rule:
    """When an alert is raised. dimension: "all", "sector", "topic" or "ticker"; keys empty means every key of it."""

    id: str
    title: str
    dimension: str
    keys: tuple[str, ...]
    kinds: tuple[str, ...]
    severity: Literal["high", "medium", "low"]
    bucket_s: int
    sensitivity: float
    floor: int
    for_buckets: int
    keep_firing_buckets: int
    enabled: bool = True


@dataclass(frozen=True)
class Alert:
    """One alert as it stands. fingerprint: hash of rule, dimension and key; id: fingerprint and starts_at, one firing of it.

    state: "pending", "firing", "resolved", "no data" or "error". why is the exact split of the excess (attribution.py), as JSON.
    """

    id: str
    fingerprint: str
    rule_id: str
    dimension: str
    key: str
    kind: str
    severity: str
    state: str
    starts_at: dt.datetime
    ends_at: dt.datetime | None
    changed_at: dt.datetime
    value: float
    expected: float
    reason: str
    why: Mapping[str, Any] = field(default_factory=dict)
    acked_by: str = ""
    acked_at: dt.datetime | None = None
    silenced_by: str = ""
    inhibited_by: str = ""


@dataclass(frozen=True)
class Silence:
    """Alerts that match are not sent from starts_at to ends_at. dimension, key and rule_id empty match everything."""

    id: str
    rule_id: str
    dimension: str
    key: str
    starts_at: dt.datetime
    ends_at: dt.datetime
    by: str
    reason: str


@dataclass(frozen=True)
class Channel:
    """Where notifications go. kind: "webhook" (signed) or "apprise"; mode: "each", "digest" or "dry run".

    address is redacted: the whole one is a credential. digest_s: seconds between two digests. A paused channel is not enabled.
    """

    name: str
    kind: str
    address: str
    mode: str
    min_severity: str
    per_minute: int
    enabled: bool = True
    digest_s: int = 3600


@dataclass(frozen=True)
class Notification:
    """One alert's transition on its way to one channel. id is its key: the same for every try, and for nothing else.

    message_id: the message that carries it, its own id unless it travels in a group; latency_ms: how long the last try took.
    """

    id: str
    channel: str
    alert_id: str
    transition: str
    state: Literal["queued", "sent", "dead", "dry"]
    attempts: int
    created_at: dt.datetime
    next_at: dt.datetime | None
    sent_at: dt.datetime | None
    error: str = ""
    title: str = ""
    severity: str = ""
    message_id: str = ""
    latency_ms: float | None = None


# --- explanations


@dataclass(frozen=True)
class Explanation:
    """Why a model gave a text its score: values[i] is what tokens[i] adds to it.

    tokens are whole words, or runs of words in a long text, in the order of the text; spans their (start, end) in the cleaned text.
    target is the label that is explained, or "net": P(positive) - P(negative). base_value is the score of the text without any of its
    words, score that of the whole text: base_value + sum(values) = score up to additivity_error. budget bounds the texts that the model
    may be asked for; n_calls is how many it was. n_unread counts the characters at the end that the model does not read.
    """

    task: str
    version: str
    label: str
    target: str
    score: float
    base_value: float
    tokens: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    values: tuple[float, ...]
    method: str
    budget: int
    n_calls: int
    additivity_error: float
    seconds: float
    made_at: dt.datetime
    n_unread: int = 0
    stored: bool = False


@dataclass(frozen=True)
class Curve:
    """The target's score as words go (deletion) or come back (insertion), strongest first, beside random orders of the same words.

    shares are the shares of words changed, from 0 to 1; area is the mean height, low and high the range of the random orders' areas.
    """

    shares: tuple[float, ...]
    scores: tuple[float, ...]
    random: tuple[float, ...]
    area: float
    random_area: float
    low: float
    high: float


@dataclass(frozen=True)
class Trust:
    """Whether to believe an explanation, and the numbers that made the verdict.

    comprehensiveness and sufficiency as in ERASER (DeYoung et al. 2020, arXiv:1911.03429) over the shares 5, 10, 20 and 50 %: how far the
    score falls without the strongest words (more is better), and with them alone (less is better). agreement: Spearman's rank correlation
    with other methods, by method. stability: the same between seeds. None where a text has too few words to say. checks are
    (name, passed, sentence with the numbers) in the order in which they are shown.
    """

    verdict: Literal["trust", "with care", "do not"]
    checks: tuple[tuple[str, bool, str], ...]
    comprehensiveness: float | None
    sufficiency: float | None
    deletion: Curve | None
    insertion: Curve | None
    agreement: Mapping[str, float]
    stability: float | None
    n_calls: int


@dataclass(frozen=True)
class Edit:
    """One change of a text: the word at `place` (its number among the tokens) deleted, or another word in its stead."""

    place: int
    old: str
    new: str


@dataclass(frozen=True)
class Flip:
    """A text that is a few words away and gets another label; verified: label and score are the model's answer to `text` itself."""

    edits: tuple[Edit, ...]
    text: str
    label: str
    score: float
    old_label: str
    old_score: float


@dataclass(frozen=True)
class Neighbour:
    """A row the model learnt from: how alike (cosine in the encoder's space, [-1, 1]), and whether its label is the model's answer."""

    text: str
    label: str
    similarity: float
    supports: bool
