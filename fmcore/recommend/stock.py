"""The stock: how a catalogue has changed since a version was trained on it. New items, items no longer there, other titles and texts.

Owns the table catalogue_items: a row is never changed, the last of an item holds. Never scores anything and knows no model.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Literal

from fmcore import clock
from fmcore.store.store import Store
from fmcore.text import clean, storable

STATES = ("live", "removed")
MAX_ID = 300
"""Characters of a person's, an item's or an event's id."""
MAX_TITLE = 500
_COLUMNS = "n, dataset, item, title, text, state, noted_at"


@dataclass(frozen=True)
class Noted:
    """What became of a batch: how many rows were stored, how many were known already, and (place in the batch, reason) of the rest."""

    stored: int
    known: int
    refused: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class ItemChange:
    """How an item is from now on: its title and text where it is live, or that it is removed (its texts then do not matter)."""

    item: str
    title: str = ""
    text: str = ""
    state: Literal["live", "removed"] = "live"


def change(store: Store, dataset: str, changes: Sequence[ItemChange], *, known: Container[str]) -> Noted:
    """Store a batch of changes, in order; `known` are the items there are.

    A change that says what holds already is known, one that makes no sense is refused with a reason.
    """
    told, refused, new = [], [], set()
    for place, asked in enumerate(changes):
        if fault := _fault(asked):
            refused.append((place, fault))
        elif asked.state == "removed" and asked.item not in known and asked.item not in new:
            refused.append((place, f"There is no item ‘{clean(asked.item, limit=60)[0]}’ in the catalogue."))
        else:
            told.append(_tidy(asked))
            new.add(asked.item)
    with store.write() as tx:
        ids = list({asked.item for asked in told})
        rows = tx.execute(_LAST, [dataset, ids]) if ids else []
        holds = {item: ItemChange(item, title, text, state) for item, title, text, state in rows}
        ((last,),) = tx.execute("SELECT coalesce(max(n), 0) FROM catalogue_items")
        fresh, at = [], clock.to_store(clock.now())
        for asked in told:
            if holds.get(asked.item) != asked:
                fresh.append([last + len(fresh) + 1, dataset, asked.item, asked.title, asked.text, asked.state, at])
                holds[asked.item] = asked
        tx.executemany(f"INSERT INTO catalogue_items ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", fresh)
    return Noted(len(fresh), len(told) - len(fresh), tuple(refused))


_LAST = """SELECT item, title, text, state FROM catalogue_items WHERE dataset = ? AND item IN (SELECT unnest(?))
           QUALIFY row_number() OVER (PARTITION BY item ORDER BY n DESC) = 1"""


def changed(store: Store, dataset: str) -> tuple[int, dict[str, ItemChange]]:
    """(the number of the last change, what holds of each changed item, in the order in which they were first live).

    A removed item keeps the title and text that it had last, "" where no change ever gave it any.
    """
    sql = """SELECT item, arg_max(title, n) FILTER (state = 'live') AS title, arg_max(text, n) FILTER (state = 'live') AS text,
             arg_max(state, n) AS state, max(n) AS last, min(n) FILTER (state = 'live') AS first
             FROM catalogue_items WHERE dataset = ? GROUP BY item ORDER BY first"""
    rows = store.rows(sql, dataset)
    return max((row["last"] for row in rows), default=0), {
        row["item"]: ItemChange(row["item"], row["title"] or "", row["text"] or "", row["state"]) for row in rows
    }


def last_change(store: Store, dataset: str) -> int:
    """The number of the last change, 0 where there is none: what was read when it was the same still holds."""
    return store.rows("SELECT coalesce(max(n), 0) AS n FROM catalogue_items WHERE dataset = ?", dataset)[0]["n"]


def id_fault(value: object, name: str) -> str:
    """Why a value cannot be the id of a person, an item or an event; "" where it can."""
    if not isinstance(value, str) or not value.strip():
        return f"The {name} has no id."
    if "\0" in value:
        return f"The id of the {name} holds a NUL character."
    return f"The id of the {name} has more than {MAX_ID} characters." if len(value) > MAX_ID else ""


def _fault(asked: ItemChange) -> str:
    if fault := id_fault(asked.item, "item"):
        return fault
    if asked.state not in STATES:
        return f"There is no state ‘{clean(asked.state, limit=60)[0]}’; states: {', '.join(STATES)}."
    if asked.state == "live" and not clean(asked.title)[0].strip() and not clean(asked.text)[0].strip():
        return "A live item needs a title or a text."
    return ""


def _tidy(asked: ItemChange) -> ItemChange:
    if asked.state == "removed":
        return ItemChange(storable(asked.item), "", "", "removed")
    title = " ".join(clean(asked.title, limit=MAX_TITLE)[0].split())
    return ItemChange(storable(asked.item), title, clean(asked.text)[0], "live")
