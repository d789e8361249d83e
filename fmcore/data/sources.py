"""Sources: where news comes from, what state each is in, and how well it is.

Owns the rows of `sources` (what was said of a source last is what holds) and `source_checks` (one row a look). Adding, pausing and
removing are rows too; removing a source leaves its documents. How a source is looked at is looks.py's part.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import zoneinfo
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from fmcore import clock, text
from fmcore.data import links
from fmcore.data.documents import Intake
from fmcore.nouns import FMError
from fmcore.store.store import Store, Transaction, to_json

MAX_SOURCES = 500
WINDOW = dt.timedelta(days=7)
"""What a source's rates are taken over."""
LATE_AFTER = 3
"""A source is late when its look is overdue by this many minutes, or as many of its own intervals."""


class SourceError(FMError):
    """A source that cannot be added or changed as asked."""


class UnknownSource(SourceError):
    """There is no source of that name."""


class NotOn(SourceError):
    """The source is paused, removed, or of a kind that does not take what it is given."""


def _zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name or "UTC")
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name[:40]!r} is not a time zone such as Europe/Berlin") from None
    return name


def _link(url: str) -> str:
    try:
        links.canonical(url)
    except links.BadLink as error:
        raise ValueError(error.message) from None
    return url.strip()


_ZONE_WORDS = "Zone of dates that do not say theirs, such as Europe/Berlin; empty: such items are refused."
Zone = Annotated[str, AfterValidator(_zone), Field(max_length=60, title="Time zone", description=_ZONE_WORDS)]


class RssSettings(BaseModel, extra="forbid"):
    url: Annotated[str, AfterValidator(_link)] = Field(
        max_length=2048, title="Feed address", description="Address of the RSS or Atom feed."
    )
    every_min: int = Field(10, ge=1, le=1440, title="Look every (minutes)", description="How often the feed is asked for.")
    zone: Zone = ""


class PushSettings(BaseModel, extra="forbid"):
    zone: Zone = ""


class UploadSettings(BaseModel, extra="forbid"):
    zone: Zone = ""


class ReplaySettings(BaseModel, extra="forbid"):
    dataset: Literal["stocknet", ""] = Field("stocknet", title="Data set", description="A dated set of FM_DATA_DIR; empty: the file below.")
    path: str = Field("", max_length=500, title="File", description="A CSV or JSON lines file below FM_DATA_DIR or FM_HOME, gzip allowed.")
    speed: float = Field(
        3600, ge=0, le=1e7, title="Speed (times)", description="1 plays as fast as it happened, 3600 an hour a second, 0 all at once."
    )
    dates: Literal["original", "ending now", "as played"] = Field(
        "original", description="Keep the dates, move them all so that the last is the day of adding, or date each when it is played."
    )
    zone: Zone = ""


class DemoSettings(BaseModel, extra="forbid"):
    seed: int = Field(0, ge=0, le=10_000, description="Another number, another stream.")
    history_days: int = Field(60, ge=0, le=365, title="History (days)", description="How much is there from the start.")


class PricesSettings(BaseModel, extra="forbid"):
    dataset: Literal["stocknet", ""] = Field(
        "", title="Data set", description="A set of FM_DATA_DIR that holds prices; empty: by upload only."
    )


@dataclass(frozen=True)
class Kind:
    """A kind of source: its words, the form of its settings, and whether it is looked at by itself."""

    title: str
    summary: str
    settings: type[BaseModel]
    is_looked_at: bool


KINDS: dict[str, Kind] = {
    "rss": Kind("RSS or Atom feed", "Asked for every few minutes; only what changed is fetched.", RssSettings, True),
    "push": Kind("Push", "Programs send documents to POST /api/documents.", PushSettings, False),
    "upload": Kind("Upload", "A person brings CSV or JSON lines files.", UploadSettings, False),
    "replay": Kind("Replay", "Plays a dated file again, at a chosen speed.", ReplaySettings, True),
    "demo": Kind("Demo stream", "Made-up finance news, written for this desk; it goes on for ever.", DemoSettings, True),
    "prices": Kind("Prices", "Daily closing prices: ticker, date, close.", PricesSettings, True),
}
STATES = ("on", "paused", "removed")


@dataclass(frozen=True)
class Source:
    """A source as it stands. added_at: when it was added, or added again after it had been removed."""

    name: str
    kind: str
    settings: Mapping[str, Any]
    licence: str
    state: Literal["on", "paused", "removed"]
    changed_at: dt.datetime
    added_at: dt.datetime

    @property
    def zone(self) -> str | None:
        """The zone that a person named for dates without one."""
        return self.settings.get("zone") or None


@dataclass(frozen=True)
class Health:
    """How a source is. state: "new" (never looked at), "well", "late", "failing", "paused" or "done" (a file played to its end).

    Counts are over the looks of the last seven days: n_seen items came, n_new were new, n_known had come before, n_refused were refused
    (refusals by reason). per_day and share_copies are over the seven days before its newest article: documents a day, and the share
    of its scored articles that repeat a story somebody told before, None before any is scored. lag_s: median time from publication
    to here, of what was published since the source was added, None without any. n_errors of n_looks failed; error is the last
    look's, "" when that went well.
    """

    name: str
    state: str
    last_look_at: dt.datetime | None = None
    last_item_at: dt.datetime | None = None
    next_at: dt.datetime | None = None
    lag_s: float | None = None
    n_looks: int = 0
    n_errors: int = 0
    n_seen: int = 0
    n_new: int = 0
    n_known: int = 0
    n_refused: int = 0
    refusals: Mapping[str, int] = field(default_factory=dict)
    per_day: float = 0.0
    share_copies: float | None = None
    error: str = ""
    outlets: tuple[str, ...] = ()


class Sources:
    """The sources of a store."""

    def __init__(self, store: Store):
        self.store = store

    # ------------------------------------------------------------ the list

    def add(self, name: str, kind: str, settings: Mapping[str, Any] | None = None, licence: str = "", *, by: str = "local user") -> Source:
        """A new source, on from now. licence: what its texts may be used for, in a person's words. Raises SourceError."""
        if not text.is_name(name):
            raise SourceError(f"{name[:80]!r} cannot be a source's name.", "Use letters, digits, dots, dashes and underscores.")
        if kind not in KINDS:
            raise SourceError(f"There is no kind of source {kind[:40]!r}.", f"Kinds: {', '.join(KINDS)}.")
        checked = self._checked(kind, settings or {})
        words = " ".join(text.clean(licence, limit=300)[0].split()) or "not stated"
        with self.store.write() as tx:
            held = _latest(tx, name)
            if held and held.state != "removed":
                raise SourceError(f"There is a source {name} already.", "Choose another name, or remove that one first.")
            if tx.execute("SELECT count(DISTINCT name) FROM sources")[0][0] >= MAX_SOURCES:
                raise SourceError(f"There are {MAX_SOURCES} sources.", "Remove some, or push several through one.")
            return _say(tx, name, kind, checked, words, "on", by=by, what="source added")

    def pause(self, name: str, by: str, *, reason: str = "") -> Source:
        """Look no more until it is resumed; what it brought stays. Raises UnknownSource."""
        return self._change(name, "paused", by=by, what=f"source paused{': ' + reason if reason else ''}")

    def resume(self, name: str, by: str) -> Source:
        """Look again, at once. Raises UnknownSource."""
        return self._change(name, "on", by=by, what="source resumed")

    def remove(self, name: str, by: str) -> Source:
        """Take it off the list, whatever it is doing; its documents stay. Raises UnknownSource."""
        return self._change(name, "removed", by=by, what="source removed")

    def all(self) -> list[Source]:
        """Every source that was not removed, by name."""
        rows = [tuple(row.values()) for row in self.store.rows(f"{_ROWS} ORDER BY name, changed_at, rowid")]
        held = [_told(list(said)) for _, said in itertools.groupby(rows, key=lambda row: row[0])]
        return sorted((source for source in held if source.state != "removed"), key=lambda source: source.name.lower())

    def get(self, name: str) -> Source:
        """One source, a removed one too. Raises UnknownSource."""
        rows = self.store.rows(f"{_ROWS} WHERE name = ? ORDER BY changed_at, rowid", name)
        found = _told([tuple(row.values()) for row in rows])
        if found is None:
            raise _unknown(name)
        return found

    def _change(self, name: str, state: str, *, by: str, what: str) -> Source:
        with self.store.write() as tx:
            held = _latest(tx, name)
            if held is None or held.state == "removed":
                raise _unknown(name)
            if held.state == state:
                return held
            return _say(tx, name, held.kind, held.settings, held.licence, state, by=by, what=what)

    def _checked(self, kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return KINDS[kind].settings(**settings).model_dump()
        except (ValidationError, TypeError) as error:
            faults = error.errors() if isinstance(error, ValidationError) else [{"loc": (), "msg": str(error)}]
            said = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg'].removeprefix('Value error, ')}".lstrip(": ") for f in faults[:4])
            raise SourceError(f"These settings do not fit a source of kind {kind}: {said}.", "Correct them and add it again.") from None

    # ------------------------------------------------------------ looks

    def due(self, now: dt.datetime) -> list[Source]:
        """The sources to look at now, the longest overdue first: those that are on, are looked at, and whose time has come."""
        checks = self._last_checks()
        waiting = []
        for source in self.all():
            last = checks.get(source.name)
            fresh = last is None or last["checked_at"] < source.changed_at  # added or resumed since: at once
            at = source.changed_at if fresh else last["next_at"]
            if source.state == "on" and KINDS[source.kind].is_looked_at and at is not None and at <= now:
                waiting.append((at, source.name, source))
        return [source for _, _, source in sorted(waiting, key=lambda entry: entry[:2])]

    def memory(self, source: Source) -> dict[str, Any]:
        """What the last look noted for the next one: etag, position; {} when it was never looked at since it was added."""
        last = self._last_checks(source.name).get(source.name)
        return last["memory"] if last and last["checked_at"] >= source.added_at else {}

    def last_look_at(self) -> dict[str, dt.datetime]:
        """When each source was last looked at."""
        return {name: row["checked_at"] for name, row in self._last_checks().items()}

    def _last_checks(self, name: str | None = None) -> dict[str, dict[str, Any]]:
        where = "WHERE source = ?" if name is not None else ""
        sql = f"""SELECT * FROM source_checks {where}
                  QUALIFY row_number() OVER (PARTITION BY source ORDER BY checked_at DESC, rowid DESC) = 1"""
        rows = self.store.rows(sql, *([name] if name is not None else []))
        times = ("checked_at", "next_at", "newest_at")
        return {row["source"]: {**row, **{t: clock.from_store(row[t]) for t in times}, "memory": json.loads(row["memory"])} for row in rows}

    # ------------------------------------------------------------ health

    def health(self, name: str, *, now: dt.datetime | None = None) -> Health:
        """How one source is. Raises UnknownSource."""
        return self._health(self.get(name), self._last_checks(name).get(name), now or clock.now())

    def healths(self, *, now: dt.datetime | None = None) -> dict[str, Health]:
        """How every source is that was not removed."""
        checks, moment = self._last_checks(), now or clock.now()
        return {source.name: self._health(source, checks.get(source.name), moment) for source in self.all()}

    def looks(self, name: str, *, limit: int = 50) -> list[dict[str, Any]]:
        """The last looks at a source, newest first: checked_at, ok, n_seen, n_new, n_known, n_refused, error."""
        sql = """SELECT checked_at, ok, n_seen, n_new, n_known, n_refused, error FROM source_checks
                 WHERE source = ? ORDER BY checked_at DESC, rowid DESC LIMIT ?"""
        return [{**row, "checked_at": clock.from_store(row["checked_at"])} for row in self.store.rows(sql, name, limit)]

    def daily(self, name: str, *, days: int = 30) -> list[tuple[dt.date, int]]:
        """(UTC day, documents published on it) of a source, days without any included, up to the day of its newest. [] without any."""
        health = self.health(name)
        if health.last_item_at is None:
            return []
        last = health.last_item_at.date()
        first = last - dt.timedelta(days=days - 1)
        sql = """SELECT published_at::DATE AS day, count(*) AS n FROM documents
                 WHERE published_at >= ? AND published_at < ? AND source IN (SELECT unnest(?)) GROUP BY day"""
        found = self.store.rows(sql, first, last + dt.timedelta(days=1), list(health.outlets))
        counts = {row["day"]: row["n"] for row in found}
        return [(day, counts.get(day, 0)) for day in (first + dt.timedelta(days=n) for n in range(days))]

    def stamp(self) -> tuple[dt.datetime | None, dt.datetime | None]:
        """Changes with every look and with everything that is said of a source."""
        row = self.store.rows(
            "SELECT (SELECT max(checked_at) FROM source_checks) AS looked, (SELECT max(changed_at) FROM sources) AS said"
        )[0]
        return row["looked"], row["said"]

    def _health(self, source: Source, last: dict[str, Any] | None, now: dt.datetime) -> Health:
        if last is None or last["checked_at"] < source.added_at:
            return Health(source.name, "paused" if source.state == "paused" else "new")
        since = max(source.added_at, now - WINDOW)
        sums = self.store.rows(
            """SELECT count(*) AS n_looks, coalesce(sum(CASE WHEN ok THEN 0 ELSE 1 END), 0)::INT AS n_errors,
                      coalesce(sum(n_seen), 0)::BIGINT AS n_seen, coalesce(sum(n_new), 0)::BIGINT AS n_new,
                      coalesce(sum(n_known), 0)::BIGINT AS n_known, coalesce(sum(n_refused), 0)::BIGINT AS n_refused,
                      list(refusals) FILTER (refusals <> '{}') AS refusals
               FROM source_checks WHERE source = ? AND checked_at >= ?""",
            source.name,
            clock.to_store(since),
        )[0]
        refusals: Counter[str] = Counter()
        for told in sums.pop("refusals") or ():
            refusals.update(json.loads(told))
        newest = self.store.rows(
            "SELECT max(newest_at) AS at FROM source_checks WHERE source = ? AND checked_at >= ?",
            source.name,
            clock.to_store(source.added_at),
        )[0]["at"]
        outlets = tuple(last["memory"].get("outlets", (source.name,)))
        newest = clock.from_store(newest)
        return Health(
            source.name,
            _state(source, last, now),
            last_look_at=last["checked_at"],
            last_item_at=newest,
            next_at=last["next_at"] if source.state == "on" else None,
            lag_s=self._lag_s(source, outlets, now),
            refusals=dict(refusals.most_common()),
            per_day=self._per_day(outlets, newest),
            share_copies=self._share_copies(outlets, newest),
            error=last["error"],
            outlets=outlets,
            **sums,
        )

    def _lag_s(self, source: Source, outlets: tuple[str, ...], now: dt.datetime) -> float | None:
        sql = """SELECT median(epoch(seen_at - published_at)) AS lag_s FROM documents
                 WHERE published_at > ? AND source IN (SELECT unnest(?))"""
        since = max(source.added_at, now - WINDOW)
        return self.store.rows(sql, clock.to_store(since), list(outlets))[0]["lag_s"]

    def _per_day(self, outlets: tuple[str, ...], newest: dt.datetime | None) -> float:
        if newest is None:
            return 0.0
        sql = "SELECT count(*) AS n FROM documents WHERE published_at > ? AND published_at <= ? AND source IN (SELECT unnest(?))"
        rows = self.store.rows(sql, clock.to_store(newest - WINDOW), clock.to_store(newest), list(outlets))
        return rows[0]["n"] / WINDOW.days

    def _share_copies(self, outlets: tuple[str, ...], newest: dt.datetime | None) -> float | None:
        if newest is None:
            return None
        sql = """SELECT avg(CASE WHEN leads THEN 0 ELSE 1 END) AS share FROM articles
                 WHERE published_at > ? AND source IN (SELECT unnest(?))"""
        return self.store.rows(sql, clock.to_store(newest - WINDOW), list(outlets))[0]["share"]


def note(
    tx: Transaction,
    name: str,
    *,
    now: dt.datetime,
    intake: Intake | None = None,
    next_at: dt.datetime | None = None,
    error: str = "",
    memory: Mapping[str, Any] | None = None,
) -> None:
    """Store what a look came to, in the transaction of what it brought. Raises NotOn, and so undoes it, where the source was removed."""
    held = _latest(tx, name)
    if held is None or held.state == "removed":
        raise NotOn(f"The source {name} was removed meanwhile.", "What it brought before stays.")
    came = intake or Intake()
    kept = dict(memory or {})
    kept["outlets"] = sorted({*kept.get("outlets", ()), *came.outlets})[:100] or [name]
    columns = [name, clock.to_store(now), not error, came.n_seen, came.n_new, came.n_known, came.n_refused, to_json(came.refusals)]
    columns += [clock.to_store(came.newest_at), clock.to_store(next_at), text.clean(error, limit=500)[0], to_json(kept)]
    tx.execute("INSERT INTO source_checks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", columns)


def add_demo_if_empty(store: Store) -> Source | None:
    """The demo stream as the first source of a desk that never had one; None where there was one, removed or not."""
    if store.rows("SELECT count(*) AS n FROM sources")[0]["n"]:
        return None
    return Sources(store).add("demo", "demo", {}, "Synthetic, written for FM Desk; free to use", by="first launch")


_ROWS = "SELECT name, kind, settings, licence, state, changed_at FROM sources"


def _latest(tx: Transaction, name: str) -> Source | None:
    return _told(tx.execute(f"{_ROWS} WHERE name = ? ORDER BY changed_at, rowid", [name]))


def _told(rows: Sequence[tuple]) -> Source | None:
    """A source from all that was said of it, in order; None where nothing was."""
    added_at = None
    for row in rows:
        added_at = None if row[4] == "removed" else added_at or clock.from_store(row[5])
    if not rows:
        return None
    name, kind, settings, licence, state, changed_at = rows[-1]
    changed_at = clock.from_store(changed_at)
    return Source(name, kind, json.loads(settings), licence, state, changed_at, added_at or changed_at)


def _say(tx: Transaction, name: str, kind: str, settings: Mapping[str, Any], licence: str, state: str, *, by: str, what: str) -> Source:
    """One more row about a source, later than every one before it even where the clock was set back; and who said so."""
    last = tx.execute("SELECT max(changed_at) FROM sources WHERE name = ?", [name])[0][0]
    now = clock.to_store(clock.now())
    at = now if last is None else max(now, last + dt.timedelta(microseconds=1))
    tx.execute("INSERT INTO sources VALUES (?, ?, ?, ?, ?, ?)", [name, kind, to_json(dict(settings)), licence, state, at])
    tx.execute("INSERT INTO audit VALUES (?, ?, ?, ?)", [by, what, name, now])
    return _latest(tx, name)


def _state(source: Source, last: Mapping[str, Any], now: dt.datetime) -> str:
    if source.state == "paused":
        return "paused"
    if last["error"]:
        return "failing"
    if last["memory"].get("done"):
        return "done"
    late = dt.timedelta(minutes=LATE_AFTER * max(1, int(source.settings.get("every_min", 1))))
    return "late" if last["next_at"] is not None and last["next_at"] + late < now else "well"


def _unknown(name: str) -> UnknownSource:
    return UnknownSource(f"There is no source {name[:80]!r}.", "See the Data page for the sources there are.")
