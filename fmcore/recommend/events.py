"""Events: what people did with items, as it came in, and what that makes of their past.

Owns the table interactions. A row is never changed: an event is stored once however often it is sent, and what holds of a person and an
item follows from all their rows in the order of their moments. Also owns what stored events make of a data set before a training. Never
scores anything and knows no model.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fmcore import clock
from fmcore.data.interactions import Interactions
from fmcore.recommend import stock
from fmcore.recommend.stock import Noted, id_fault
from fmcore.store.store import Store
from fmcore.text import clean, storable

__all__ = ["Event", "Met", "Noted", "Word", "everybody", "kept_off", "latest", "merged", "note", "past", "people", "shows", "together"]

KINDS = ("view", "click", "like", "skip", "rate", "forget", "keep", "shown")
AHEAD = dt.timedelta(minutes=5)
"""How far a sender's clock may be ahead of ours."""
LIKED_FROM = 3.0
"""A rating from here on counts as liked; a lower one keeps the item off the person's lists."""
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=clock.UTC)
_COLUMNS = ("n", "who", "item", "kind", "value", "source", "happened_at")


@dataclass(frozen=True)
class Event:
    """Something that a person did with an item. happened_at: aware; None is now. id: what makes sending it twice harmless; None is
    made from who, item, kind and moment. value: the rating of "rate", the probability of "shown"."""

    who: str
    item: str
    kind: str
    value: float | None = None
    happened_at: dt.datetime | None = None
    id: str | None = None
    source: str = "page"


@dataclass(frozen=True)
class Met:
    """An item of somebody's past. n: the arrival of the event that made it so; 0 and no moment where it comes from the data set."""

    item: str
    kind: str
    at: dt.datetime | None
    source: str
    n: int = 0


@dataclass
class Word:
    """What the stored events of one person say of one item, after the last of them. met: when it joined the past, if they made it so.

    back: when it was put back. rating: the last one. out: taken out of the past. again: met anew after that, so that an older place in
    the past no longer holds. off: kept off the lists.
    """

    met: Met | None = None
    back: Met | None = None
    rating: float | None = None
    out: bool = False
    again: bool = False
    off: bool = False

    def hear(self, said: Met, *, value: float | None) -> None:
        """Take in the next event."""
        self.rating = value if said.kind == "rate" else self.rating
        if is_positive(said.kind, value):
            self.again = self.again or self.out
            self.met = said if self.met is None or self.out else self.met
            self.out = self.off = False
        elif said.kind in ("skip", "rate"):
            self.off = True
        elif said.kind == "forget":
            self.out = True
        elif said.kind == "keep":
            self.back = said if self.out else self.back
            self.out = self.off = False


Words = Mapping[str, Word]
"""By item, what one person's stored events say."""


def is_positive(kind: str, value: float | None) -> bool:
    """Whether an event puts its item into the person's past."""
    return kind in ("view", "click", "like") or (kind == "rate" and value is not None and value >= LIKED_FROM)


# --- taking in


def note(store: Store, dataset: str, events: Sequence[Event], *, known: Container[str], now: dt.datetime | None = None) -> Noted:
    """Store a batch; `known` are the items there are. What cannot be stored is refused with a reason, the rest is stored.

    An id that is there already, or twice in the batch, is stored once: its first event holds. Safe from several threads.
    """
    now = now or clock.now()
    rows: dict[str, dict[str, Any]] = {}
    refused, n_sound = [], 0
    for place, event in enumerate(events):
        if fault := _fault(event, known, now):
            refused.append((place, fault))
            continue
        n_sound += 1
        row = _row(event, dataset, now)
        rows.setdefault(row["id"], row)
    stored = _insert(store, rows) if rows else 0
    return Noted(stored, n_sound - stored, tuple(refused))


def _insert(store: Store, rows: Mapping[str, dict[str, Any]]) -> int:
    """Append the rows whose id is not there yet; how many."""
    with store.write() as tx:
        there = {id for (id,) in tx.execute("SELECT id FROM interactions WHERE id IN (SELECT unnest(?))", [list(rows)])}
        fresh = [row for id, row in rows.items() if id not in there]
        ((last,),) = tx.execute("SELECT coalesce(max(n), 0) FROM interactions")
        frame = pd.DataFrame([{"n": last + i, **row} for i, row in enumerate(fresh, 1)])
        if fresh:
            frame["value"] = frame["value"].astype(float)
            valued = frame["value"].notna()  # NULL is NaN in a frame, which the store refuses: such rows come without the column
            for part in (frame[valued], frame[~valued].drop(columns="value")):
                if len(part):
                    tx.insert_frame("interactions", part)
    return len(fresh)


def _row(event: Event, dataset: str, now: dt.datetime) -> dict[str, Any]:
    who, item = storable(event.who), storable(event.item)
    at = clock.to_store(event.happened_at or now)
    key = "\0".join((dataset, who, item, event.kind, at.isoformat()))
    id = storable(event.id) if event.id is not None else hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    value = None if event.value is None else float(event.value)
    return {
        "id": id, "dataset": dataset, "who": who, "item": item, "kind": event.kind, "value": value, "source": event.source,
        "happened_at": at, "noted_at": clock.to_store(now),
    }  # fmt: skip


def _fault(event: Event, known: Container[str], now: dt.datetime) -> str:
    """Why an event cannot be stored, as a sentence; "" where it can."""
    for value, name in ((event.who, "person"), (event.item, "item")):
        if fault := id_fault(value, name):
            return fault
    if event.id is not None and (fault := id_fault(event.id, "event")):
        return fault
    if event.kind not in KINDS:
        return f"There is no kind {_quoted(event.kind)}; kinds: {', '.join(KINDS)}."
    return _value_fault(event) or _moment_fault(event.happened_at, now) or _item_fault(event.item, known)


def _value_fault(event: Event) -> str:
    value = event.value
    if value is None:
        return f"{'A rating' if event.kind == 'rate' else 'What was shown'} needs a value." if event.kind in ("rate", "shown") else ""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -sys.float_info.max <= value <= sys.float_info.max:
        return "The value is not a finite number."
    if event.kind == "shown" and not 0 < value <= 1:
        return "The value of what was shown is its probability, above 0 and at most 1."
    return ""


def _moment_fault(at: object, now: dt.datetime) -> str:
    if at is None:
        return ""
    if not isinstance(at, dt.datetime) or at.tzinfo is None:
        return "The moment has no time zone."
    if at > now + AHEAD:
        return "The moment lies in the future."
    return "The moment lies before 1970." if at < _EPOCH else ""


def _item_fault(item: str, known: Container[str]) -> str:
    return "" if storable(item) in known else f"There is no item {_quoted(item)} in the catalogue."


def _quoted(text: object) -> str:
    return f"‘{clean(text, limit=60)[0]}’"


# --- reading back


def latest(store: Store, dataset: str) -> int:
    """The arrival number of the newest event of a data set, 0 where there is none."""
    return store.rows("SELECT coalesce(max(n), 0) AS n FROM interactions WHERE dataset = ?", dataset)[0]["n"]


def people(store: Store, dataset: str, *, prefix: str = "", limit: int = 50) -> list[str]:
    """Who has stored events and a name that begins so (capitals do not matter), the latest to do something first."""
    sql = """SELECT who FROM interactions WHERE dataset = ? AND starts_with(lower(who), lower(?)) GROUP BY who
             ORDER BY max(n) DESC LIMIT ?"""
    return [row["who"] for row in store.rows(sql, dataset, storable(prefix), limit)]


def past(store: Store, dataset: str, who: str) -> dict[str, Word]:
    """What a person's stored events say, by item; read at each call, so that nothing just done is missing."""
    sql = f"SELECT {', '.join(_COLUMNS)} FROM interactions WHERE dataset = ? AND who = ? AND kind <> 'shown' ORDER BY happened_at, n"
    return heard(store.rows(sql, dataset, storable(who)))


def everybody(store: Store, dataset: str, *, up_to: int | None = None, active_after: int = 0) -> dict[str, dict[str, Word]]:
    """What stored events say by person and item, of those who did something later than arrival `active_after`, as of arrival `up_to`."""
    sql = f"""SELECT {', '.join(_COLUMNS)} FROM interactions WHERE dataset = ? AND kind <> 'shown' AND n <= ? AND who IN
              (SELECT who FROM interactions WHERE dataset = ? AND n > ? AND n <= ?) ORDER BY happened_at, n"""
    last = up_to if up_to is not None else latest(store, dataset)
    by: dict[str, list[dict[str, Any]]] = {}
    for row in store.rows(sql, dataset, last, dataset, active_after, last):
        by.setdefault(row["who"], []).append(row)
    return {who: heard(rows) for who, rows in by.items()}


def shows(store: Store, dataset: str, *, limit: int) -> pd.DataFrame:
    """What the live learner showed and what those people did, the latest `limit` rows in the order of their moments: columns who, item,
    kind, value, happened_at."""
    sql = """SELECT who, item, kind, value, happened_at, n FROM interactions WHERE dataset = ? AND kind NOT IN ('forget', 'keep')
             AND who IN (SELECT who FROM interactions WHERE dataset = ? AND kind = 'shown') ORDER BY n DESC LIMIT ?"""
    frame = store.frame(sql, dataset, dataset, limit)
    return frame.sort_values(["happened_at", "n"], kind="stable").drop(columns="n").reset_index(drop=True)


def heard(rows: Iterable[Mapping[str, Any]]) -> dict[str, Word]:
    """One person's rows, in the order of their moments, as words by item."""
    words: dict[str, Word] = {}
    for row in rows:
        said = Met(row["item"], row["kind"], clock.from_store(row["happened_at"]), row["source"], row["n"])
        words.setdefault(row["item"], Word()).hear(said, value=row["value"])
    return words


def together(base: Sequence[str], words: Words) -> list[Met]:
    """A person's past, oldest first: what the data set holds of them, less what was taken out, then what they met since, by moment."""
    held = [item for item in base if item not in words or not (words[item].out or words[item].again)]
    there = set(held)
    since = [word.met or word.back for item, word in words.items() if not word.out and item not in there]
    since = sorted((met for met in since if met is not None), key=lambda met: (met.at, met.n))
    return [*(Met(item, "log", None, "data") for item in held), *since]


def kept_off(words: Words) -> set[str]:
    """Items that are not to be on a person's lists: skipped, rated low, or taken out of the past."""
    return {item for item, word in words.items() if word.out or word.off}


# --- into a data set


def merged(store: Store, data: Interactions, *, up_to: int | None = None) -> Interactions:
    """A data set with what was stored of it: changed items as they are now, removed ones gone, and everybody's past as of arrival `up_to`.

    An item joins a past at its event's moment, so that late events find their place; what the data set has of the same person and item
    counts when it is earlier. What was taken out of a past is not learnt from. The data set itself where nothing was stored.
    """
    last, changes = stock.changed(store, data.name)
    said = everybody(store, data.name, up_to=up_to)
    if not last and not said:
        return data
    users = _extended(data.users, (who for who, words in said.items() if any(word.met and not word.out for word in words.values())))
    items = _extended(data.items, (item for item, change in changes.items() if change.state == "live"))
    rows = _with_events(data.rows, said, users, items)
    stays = np.array([item not in changes or changes[item].state == "live" for item in items], dtype=bool)
    rows = rows[stays[rows["item"].to_numpy()]]
    rows = rows.assign(item=(np.cumsum(stays) - 1)[rows["item"].to_numpy()].astype(np.int32)).reset_index(drop=True)
    kept = [item for item, stay in zip(items, stays, strict=True) if stay]
    told = dict(zip(data.items, zip(data.titles, data.texts, strict=True), strict=True))
    told |= {item: (change.title, change.text) for item, change in changes.items()}
    notes = (*data.notes, f"With what was stored here: {len(rows):,} rows instead of {len(data.rows):,}, {len(kept):,} items.")
    titles, texts = (tuple(told[item][part] for item in kept) for part in (0, 1))
    return Interactions(data.name, tuple(users), tuple(kept), titles, texts, rows, data.synthetic, data.licence, notes)


def _extended(held: Sequence[str], more: Iterable[str]) -> dict[str, int]:
    """The place of each name: those held first, then the new ones in their order."""
    return {name: place for place, name in enumerate(dict.fromkeys([*held, *more]))}


def _with_events(rows: pd.DataFrame, said: Mapping[str, Words], users: Mapping[str, int], items: Mapping[str, int]) -> pd.DataFrame:
    """The rows of a data set less what was taken out, with what was met since, in the order of Interactions.rows."""
    gone, new = [], []
    for who, words in said.items():
        for item, word in words.items():
            if who not in users or item not in items:  # somebody without a past; an item that came after the data set and went again
                continue
            pair = (users[who], items[item])
            if word.out or word.again:
                gone.append(pair)
            met = word.met
            if met is not None and not word.out:
                rating = word.rating if word.rating is not None else np.nan
                new.append((*pair, int(met.at.timestamp()), rating))
    added = pd.DataFrame(new, columns=["user", "item", "at", "rating"]).astype(
        {"user": np.int32, "item": np.int32, "at": np.int64, "rating": np.float32}
    )
    moved = np.isin(rows["user"].to_numpy(), np.array([pair[0] for pair in (*gone, *new)], dtype=np.int32))
    theirs = rows[moved]  # only these people's rows are sorted again: a log may have ten million others
    keys = theirs["user"].to_numpy(dtype=np.int64) * len(items) + theirs["item"].to_numpy()
    out = np.isin(keys, np.array([user * len(items) + item for user, item in gone], dtype=np.int64))
    theirs = pd.concat([theirs[~out], added]).sort_values(["user", "at"], kind="stable").drop_duplicates(["user", "item"])
    whole = pd.concat([rows[~moved], theirs], ignore_index=True)
    return whole.iloc[np.argsort(whole["user"].to_numpy(), kind="stable")].reset_index(drop=True)
