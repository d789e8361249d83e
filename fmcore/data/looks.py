"""Looks: one visit to one source, whatever its kind, and what came of it.

What a look brings and where it got to are stored in one transaction, so that a kill loses nothing and repeats nothing. A source that
fails is noted and asked again later, ever more rarely; it stops no other. Owns no table.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from fmcore import clock
from fmcore.config import settings
from fmcore.data import feeds, fetch, news_demo, outbound, prices, replay
from fmcore.data.documents import Intake, RawItem, take_in
from fmcore.data.sources import KINDS, NotOn, Source, Sources, UnknownSource, note
from fmcore.nouns import FMError
from fmcore.store.store import Store, StoreError

log = logging.getLogger("fm.looks")

BUDGET_S = 45.0
HOST_GAP_S = 5.0
"""The least time between two requests to one host."""
MAX_BACK_OFF = dt.timedelta(hours=6)
MAX_RETRY_AFTER_S = 86_400.0
DEMO_SLICE = dt.timedelta(days=2)


def look_around(
    store: Store,
    *,
    only: str = "",
    budget_s: float = BUDGET_S,
    progress: Callable[[float, str], None] | None = None,
    allow_private: bool = False,
) -> dict[str, Intake]:
    """Look at every source whose time has come, or at one by name whether or not it has; returns what came, by source.

    Ends after about budget_s seconds; what is left is due again at once. progress(fraction, message) may raise to stop. Raises
    UnknownSource, NotOn (a source that was asked for by name and is not on) or StoreError; a source's own failure is noted with it.
    """
    sources = Sources(store)
    ends = time.monotonic() + budget_s
    waiting = [_asked(sources, only)] if only else sources.due(clock.now())
    came: dict[str, Intake] = {}
    for n, source in enumerate(waiting):
        if time.monotonic() >= ends and not only:
            break
        if progress:
            progress(n / len(waiting), f"Looking at {source.name}")
        if source.kind == "rss" and not _host_is_free(sources, source, ends):
            continue
        try:
            came[source.name] = look(store, source, ends=ends, allow_private=allow_private)
        except NotOn as error:  # removed meanwhile: nothing is noted of what no longer is
            log.info("%s", error)
    return came


def look(store: Store, source: Source, *, ends: float, allow_private: bool = False) -> Intake:
    """One look at a source. ends: the monotonic time at which it should stop and go on next time. Raises NotOn, StoreError."""
    sources = Sources(store)
    memory = sources.memory(source)
    kinds = {"rss": functools.partial(_rss, allow_private=allow_private), "replay": _replay, "demo": _demo, "prices": _prices}
    try:
        return kinds[source.kind](store, source, memory, ends)
    except (NotOn, StoreError):
        raise
    except fetch.Gone as error:
        _note_failure(store, source, memory, error, next_at=None)
        sources.pause(source.name, "the desk", reason=error.message)
    except FMError as error:
        _note_failure(store, source, memory, error, next_at=_back_off(source, memory, error))
    except Exception as error:  # a parser's surprise: this source failed, the others are still to be looked at
        log.error("the look at %s failed", source.name, exc_info=error)
        _note_failure(store, source, memory, error, next_at=_back_off(source, memory, error))
    return Intake()


def receive(store: Store, name: str, items: Iterable[RawItem], *, kind: str = "push", by: str = "api") -> Intake:
    """Take in what a program pushed or a person uploaded, under a source of that kind, which is added where there was none.

    Sending the same items again adds nothing. Raises NotOn where the source is paused, removed or of another kind, SourceError for a
    name that cannot be one.
    """
    sources = Sources(store)
    try:
        source = sources.get(name)
    except UnknownSource:
        source = sources.add(name, kind, by=by)
    if source.state != "on":
        raise NotOn(f"The source {name} is {source.state} and takes nothing in.", "Resume it, or add it again, on the Data page.")
    if source.kind != kind:
        raise NotOn(f"The source {name} is of kind {source.kind}, not {kind}.", "Use another name.")
    memory, at = sources.memory(source), clock.now()
    return take_in(
        store, items, source=name, now=at, zone=source.zone, also=lambda tx, came: note(tx, name, now=at, intake=came, memory=memory)
    )


def _asked(sources: Sources, name: str) -> Source:
    source = sources.get(name)
    if source.state != "on":
        raise NotOn(f"The source {name} is {source.state}.", "Resume it first.")
    if not KINDS[source.kind].is_looked_at:
        raise NotOn(f"The source {name} is not looked at.", "Documents are sent to it.")
    return source


# ---------------------------------------------------------------- one kind each


def _rss(store: Store, source: Source, memory: Mapping[str, Any], ends: float, *, allow_private: bool) -> Intake:
    url = source.settings["url"]
    known = memory if memory.get("url") == url else {}
    got = fetch.fetch_feed(url, etag=known.get("etag", ""), last_modified=known.get("last_modified", ""), allow_private=allow_private)
    now = clock.now()
    next_at = now + dt.timedelta(minutes=source.settings["every_min"])
    kept = {"url": url, "etag": got.etag, "last_modified": got.last_modified, "outlets": memory.get("outlets", ())}
    if got.body is None:
        with store.write() as tx:
            note(tx, source.name, now=now, next_at=next_at, memory=kept)
        return Intake()
    feed = feeds.parse(got.body, url=got.url)
    n_more = feed.n_items - len(feed.items)
    more = Intake(n_seen=n_more, n_refused=n_more, refusals={f"beyond the first {feeds.MAX_ITEMS:,} of a feed": n_more} if n_more else {})
    came = take_in(
        store,
        feed.items,
        source=source.name,
        now=now,
        zone=source.zone,
        also=lambda tx, came: note(tx, source.name, now=now, intake=came + more, next_at=next_at, memory=kept),
    )
    return came + more


def _demo(store: Store, source: Source, memory: Mapping[str, Any], ends: float) -> Intake:
    """The stream from where the last look ended, in slices of days; the first look starts with its history."""
    now = clock.now()
    origin = source.added_at - dt.timedelta(days=source.settings["history_days"])
    start = dt.datetime.fromisoformat(memory["until"]) if "until" in memory else origin
    outlets = memory.get("outlets", ())
    total = Intake()
    while True:
        end = min(start + DEMO_SLICE, now)
        frame = news_demo.stream(start, end, seed=source.settings["seed"], origin=origin) if end > start else None
        start = max(start, end)
        kept = {"until": start.isoformat(), "outlets": outlets}
        next_at = now + dt.timedelta(minutes=1) if start >= now else now
        items = list(_demo_items(frame)) if frame is not None else []
        came = _take_slice(store, source, items, kept, next_at=next_at, synthetic=True)
        total, outlets = total + came, sorted({*outlets, *came.outlets})
        if start >= now or time.monotonic() >= ends:
            return total


def _demo_items(frame: Any) -> Iterator[RawItem]:
    for row in frame.itertuples():
        published = row.published_at.to_pydatetime()
        yield RawItem(url=row.url, title=row.title, body=row.body, published=published, tickers=row.tickers, outlet=row.source)


def _replay(store: Store, source: Source, memory: Mapping[str, Any], ends: float) -> Intake:
    now = clock.now()
    options = {**source.settings, "added_at": source.added_at.isoformat()}
    tape = replay.tape(store.home, options, now=now)
    outlets = memory.get("outlets", ())
    total = Intake()
    for items, position in replay.due(tape, replay.Position.of(memory), options, now=now, resumed_at=source.changed_at):
        following = replay.next_at(tape, position, options)
        kept = {**position.memory(), "n_rows": tape.n_rows, "outlets": outlets, "done": following is None}
        came = _take_slice(store, source, items, kept, next_at=following)
        total, outlets = total + came, sorted({*outlets, *came.outlets})
        if time.monotonic() >= ends:
            break
    return total


def _prices(store: Store, source: Source, memory: Mapping[str, Any], ends: float) -> Intake:
    """The set that the source names, once; what a person uploads comes by another way."""
    now = clock.now()
    folder = settings().data_dir
    if not source.settings["dataset"]:
        with store.write() as tx:
            note(tx, source.name, now=now, memory=dict(memory))
        return Intake()
    if folder is None:
        raise replay.ReplayError("FM_DATA_DIR is not set: the prices are not on this machine.", "Set it to the folder of public data sets.")
    raw = replay.unpacked(folder / "news_stream" / "stocknet_prices.csv.gz")
    kept = {**memory, "done": True}
    return prices.take_in(
        store,
        raw,
        source=source.name,
        now=now,
        max_bytes=replay.MAX_FILE_BYTES,
        also=lambda tx, came: note(tx, source.name, now=now, intake=came, memory=kept),
    )


def _take_slice(
    store: Store, source: Source, items: list[RawItem], kept: Mapping[str, Any], *, next_at: dt.datetime | None, synthetic: bool = False
) -> Intake:
    """Store some items together with where the source then stands: both, or neither."""
    at = clock.now()
    return take_in(
        store,
        items,
        source=source.name,
        synthetic=synthetic,
        now=at,
        zone=source.zone,
        also=lambda tx, came: note(tx, source.name, now=at, intake=came, next_at=next_at, memory=kept),
    )


# ---------------------------------------------------------------- failures and manners


def _note_failure(store: Store, source: Source, memory: Mapping[str, Any], error: BaseException, *, next_at: dt.datetime | None) -> None:
    kept = {**memory, "n_errors": int(memory.get("n_errors", 0)) + 1}
    words = str(error) if isinstance(error, FMError) else f"The look failed ({type(error).__name__}); see logs/desk.log."
    with store.write() as tx:
        note(tx, source.name, now=clock.now(), next_at=next_at, error=words, memory=json.loads(json.dumps(kept, default=str)))


def _back_off(source: Source, memory: Mapping[str, Any], error: BaseException) -> dt.datetime:
    """When to ask again: as the server says, else after its interval doubled with every failure in a row, at most six hours."""
    now = clock.now()
    asked = getattr(error, "retry_after_s", None)
    usual = dt.timedelta(minutes=int(source.settings.get("every_min", 1)))
    wait = min(usual * 2 ** min(int(memory.get("n_errors", 0)) + 1, 12), max(MAX_BACK_OFF, usual))
    if asked is not None:
        return now + max(usual, dt.timedelta(seconds=min(asked, MAX_RETRY_AFTER_S)))
    return now + wait


def _host_is_free(sources: Sources, source: Source, ends: float) -> bool:
    """Waits until no source of the same host was asked within HOST_GAP_S; False where that would take too long: next time, then."""
    host = outbound.host_of(source.settings["url"])
    same = {other.name for other in sources.all() if other.kind == "rss" and outbound.host_of(other.settings["url"]) == host}
    looked = [at for name, at in sources.last_look_at().items() if name in same]
    wait_s = max(((at - clock.now()).total_seconds() + HOST_GAP_S for at in looked), default=0.0)
    if wait_s <= 0:
        return True
    if wait_s > HOST_GAP_S or time.monotonic() + wait_s >= ends:
        return wait_s > HOST_GAP_S  # the clock was set back: its old rows say nothing
    time.sleep(wait_s)
    return True
