"""A rule on the stored past: what it would have raised, which labelled incidents it would have hit, and how late.

It runs the detector and the states that the engine runs (passes.py, states.py), so on the same news it raises what the engine raises;
only what mutes notifications (silences, inhibition) is left out. Owns the table incidents: what a person says of the past. The demo
stream brings its own truth.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import secrets
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fmcore import clock
from fmcore.data import news_demo
from fmcore.data.sources import Sources
from fmcore.data.tickers import sector_of
from fmcore.nouns import FMError, Rule
from fmcore.sentiment import counts as counting
from fmcore.sentiment.passes import Detector, of_dimension, readings, settings_of
from fmcore.sentiment.rules import FEED_KINDS
from fmcore.sentiment.states import Change, Open, step
from fmcore.sentiment.surge import Surge
from fmcore.store.store import Store
from fmcore.text import clean

LATEST = dt.timedelta(hours=6)
"""An alert this long after the end of an incident still is about it."""
WEEK = dt.timedelta(days=7)
SENSITIVITIES = (0.1, 0.3, 0.5, 0.7, 0.9)


class BadIncident(FMError):
    """An incident that cannot be saved as it was described."""


class BadSpan(FMError):
    """A span that cannot be played back."""


BAD = (BadIncident, BadSpan)


@dataclass(frozen=True)
class Incident:
    """A labelled piece of the past, starts_at <= t < ends_at. kind: "surge", "shift", "flood", or "" for any. by: a person, or "demo"."""

    id: str
    title: str
    kind: str
    starts_at: dt.datetime
    ends_at: dt.datetime
    topic: str
    tickers: tuple[str, ...]
    note: str = ""
    by: str = ""


@dataclass(frozen=True)
class Raised:
    """An alert that the rule raises. fired_at: the end of the bucket that brought it; ends_at: None while it fires at the end of the span.

    incidents: the ids of those it is about; none makes it a false alert, where the span was labelled.
    """

    key: str
    kind: str
    severity: str
    starts_at: dt.datetime
    fired_at: dt.datetime
    ends_at: dt.datetime | None
    value: float
    expected: float
    reason: str
    incidents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hit:
    """An incident that was found, and how long after its start the first alert about it fired."""

    incident: Incident
    fired_at: dt.datetime
    delay_s: float


@dataclass(frozen=True)
class Backtest:
    """What a rule would have done from start until before end. Incidents outside the rule's kinds and keys are neither hit nor missed.

    n_false: alerts about no incident of any kind; says something only where the span was labelled. median_delay_s: None without hits.
    """

    rule: Rule
    start: dt.datetime
    end: dt.datetime
    per_week: float
    raised: tuple[Raised, ...]
    hits: tuple[Hit, ...]
    misses: tuple[Incident, ...]
    n_false: int
    median_delay_s: float | None

    @property
    def sentence(self) -> str:
        """The backtest in words: "2.1 alerts a week; 11 of 13 labelled events found, median delay 4 h; 3 alerts about none of them"."""
        words = [f"{self.per_week:.1f} alerts a week ({len(self.raised)} in {clock.duration((self.end - self.start).total_seconds())})"]
        n = len(self.hits) + len(self.misses)
        if n:
            delay = f", median delay {clock.duration(self.median_delay_s)}" if self.median_delay_s is not None else ""
            words.append(f"{len(self.hits)} of {n} labelled events found{delay}")
            words.append(f"{self.n_false} alerts about none of them")
        return "; ".join(words)


def replay(
    store: Store, rule: Rule, start: dt.datetime, end: dt.datetime, *, incidents: Sequence[Incident] = (), detector: Detector = Surge
) -> Backtest:
    """The rule from start to end (both rounded down to its buckets), beginning with nothing open.

    Equal to what the engine raises on the same news when it begins at start. Raises BadSpan.
    """
    return sweep(store, rule, (rule.sensitivity,), start, end, incidents=incidents, detector=detector)[0]


def sweep(
    store: Store, rule: Rule, sensitivities: Sequence[float], start: dt.datetime, end: dt.datetime, *,
    incidents: Sequence[Incident] = (), detector: Detector = Surge,
) -> list[Backtest]:
    """One backtest a sensitivity, in the order given: what a slider needs. Replays are kept in memory, so that another rule of the same
    bucket and floor, or the same one again, costs little. Raises BadSpan."""
    start, end = (counting.floor_to(moment, rule.bucket_s) for moment in (start, end))
    if start >= end:
        raise BadSpan("There is nothing between the start and the end.", "Choose a longer span.")
    if rule.dimension == "source" or set(rule.kinds) & set(FEED_KINDS):
        raise BadSpan("Dead feeds and missing news cannot be played back.", "They are judged by when somebody looked, not by the news.")
    found = []
    for sensitivity in sensitivities:
        variant = dataclasses.replace(rule, sensitivity=sensitivity)
        held: dict[str, Open] = {}
        changes: list[Change] = []
        for bucket in readings(store, settings_of(variant), start, end, detector=detector):
            held, changed = step(variant, held, bucket.at, of_dimension(variant, bucket), silent=bucket.silent)
            changes += changed
        found.append(_judged(variant, start, end, _raised(changes), incidents))
    return found


def span_of(store: Store) -> tuple[dt.datetime, dt.datetime] | None:
    """From the first to just after the last scored article; None without any."""
    row = store.rows("SELECT min(published_at) AS first, max(published_at) AS last FROM articles")[0]
    if row["first"] is None:
        return None
    return clock.from_store(row["first"]), clock.from_store(row["last"]) + dt.timedelta(hours=1)


# --- labels


def incidents(store: Store, start: dt.datetime, end: dt.datetime) -> list[Incident]:
    """What is labelled between start and end, in order of time: by people, and the demo stream's truth where that is a source."""
    rows = store.rows(
        """SELECT * FROM (SELECT * FROM incidents QUALIFY row_number() OVER (PARTITION BY id ORDER BY n DESC) = 1)
        WHERE NOT removed AND starts_at < ? AND ends_at > ?""", clock.to_store(end), clock.to_store(start))
    said = [
        Incident(r["id"], r["title"], r["kind"], clock.from_store(r["starts_at"]), clock.from_store(r["ends_at"]), r["topic"],
                 tuple(r["tickers"]), r["note"], r["who"])
        for r in rows
    ]
    planted = [i for i in _planted(store, start, end) if i.starts_at < end and i.ends_at > start]
    return sorted([*said, *planted], key=lambda i: (i.starts_at, i.id))


def label_incident(
    store: Store, title: str, *, starts_at: dt.datetime, ends_at: dt.datetime, by: str, kind: str = "", topic: str = "",
    tickers: Sequence[str] = (), note: str = "", now: dt.datetime | None = None,
) -> Incident:
    """Say that something happened. Raises BadIncident."""
    name = clean(title, limit=120)[0].strip()
    aware = starts_at.tzinfo is not None and ends_at.tzinfo is not None
    if not name or not aware or starts_at >= ends_at or kind not in ("", "surge", "shift", "flood") or len(tickers) > 100:
        raise BadIncident("This incident cannot be saved.", "It needs a title, a start before its end (with zones), and a kind there is.")
    made = Incident(secrets.token_hex(6), name, kind, starts_at, ends_at, clean(topic, limit=80)[0].strip(),
                    tuple(clean(t, limit=20)[0].strip() for t in tickers), clean(note, limit=300)[0], clean(by, limit=80)[0] or "unknown")
    _append(store, made, removed=False, now=now)
    return made


def remove_incident(store: Store, id: str, *, by: str, now: dt.datetime | None = None) -> None:
    """Take a person's label back; the demo's truth stays. Unknown ids are refused with BadIncident."""
    known = next((i for i in incidents(store, dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC))
                  if i.id == id and i.by != "demo"), None)
    if known is None:
        raise BadIncident(f"There is no label {clean(id, limit=80)[0]!r} to take back.", "See the labelled incidents.")
    _append(store, dataclasses.replace(known, by=by), removed=True, now=now)


def _append(store: Store, incident: Incident, *, removed: bool, now: dt.datetime | None) -> None:
    with store.write() as tx:
        ((n,),) = tx.execute("SELECT coalesce(max(n), 0) + 1 FROM incidents")
        row = [n, incident.id, incident.title, incident.kind, clock.to_store(incident.starts_at), clock.to_store(incident.ends_at),
               incident.topic, list(incident.tickers), incident.note, removed, incident.by, clock.to_store(now or clock.now())]
        tx.execute("""INSERT INTO incidents (n, id, title, kind, starts_at, ends_at, topic, tickers, note, removed, who, noted_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""", row)


def _planted(store: Store, start: dt.datetime, end: dt.datetime) -> Iterator[Incident]:
    """The truth of the demo streams that are sources here."""
    for source in Sources(store).all():
        if source.kind != "demo":
            continue
        origin, seed = source.added_at - dt.timedelta(days=source.settings["history_days"]), source.settings["seed"]
        first = max(0, (start - origin).days // news_demo.CYCLE_DAYS)
        for cycle in range(first, max(first, (end - origin).days // news_demo.CYCLE_DAYS) + 1):
            for found in news_demo.truth(origin, seed=seed, cycle=cycle):
                yield Incident(f"{source.name}-{found.name}", found.name, found.kind, found.starts_at, found.ends_at, found.topic,
                               found.tickers, "planted in the demo stream", "demo")


# --- judging


def _raised(changes: Sequence[Change]) -> list[Raised]:
    found: list[Raised] = []
    open_: dict[str, int] = {}
    for change in changes:
        held = change.held
        if change.what == "firing":
            open_[held.key] = len(found)
            found.append(Raised(held.key, held.kind, held.severity, held.since, change.at, None, held.value, held.expected, held.reason))
        else:
            at = open_.pop(held.key)
            found[at] = dataclasses.replace(found[at], ends_at=change.at)
    return found


def _judged(rule: Rule, start: dt.datetime, end: dt.datetime, raised: Sequence[Raised], incidents: Sequence[Incident]) -> Backtest:
    about = [tuple(i.id for i in incidents if _is_about(rule, one, i)) for one in raised]
    judged = tuple(dataclasses.replace(one, incidents=ids) for one, ids in zip(raised, about, strict=True))
    hits, misses = [], []
    for incident in (i for i in incidents if _concerns(rule, i) and start <= i.starts_at < end):
        first = min((one.fired_at for one in judged if incident.id in one.incidents), default=None)
        if first is None:
            misses.append(incident)
        else:
            hits.append(Hit(incident, first, max(0.0, (first - incident.starts_at).total_seconds())))
    return Backtest(
        rule, start, end, len(raised) / ((end - start) / WEEK), judged, tuple(hits), tuple(misses), sum(not ids for ids in about),
        statistics.median([hit.delay_s for hit in hits]) if hits else None,
    )


def _concerns(rule: Rule, incident: Incident) -> bool:
    """Whether the rule was to find an incident: one of its kinds, and about a key it watches."""
    if incident.kind and incident.kind not in rule.kinds:
        return False
    keys = _keys(rule.dimension, incident)
    return bool(keys & set(rule.keys) if rule.keys else keys)


def _is_about(rule: Rule, raised: Raised, incident: Incident) -> bool:
    """Whether an alert is about an incident: its key is one of the incident's, and it fired while that lasted or soon after."""
    return raised.key in _keys(rule.dimension, incident) and incident.starts_at < raised.fired_at <= incident.ends_at + LATEST


def _keys(dimension: str, incident: Incident) -> set[str]:
    if dimension == "topic":
        return {incident.topic} - {""}
    if dimension == "ticker":
        return set(incident.tickers)
    return {sector_of(t) for t in incident.tickers} if dimension == "sector" else {""}
