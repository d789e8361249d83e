"""Interactions: who met which item when, and what the items are.

Owns how such rows are cleaned, ordered and held back: by time, with a stable sort (rows of one moment keep the file's order), never at
random. Never trains, never opens a connection.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fmcore import clock, text
from fmcore.data.labelled import BadData

AHEAD = dt.timedelta(days=1)
"""A row may lie this far in the future (clocks and zones differ); what lies further is left out."""
MAX_ID_CHARS = 300
MAX_USERS, MAX_ITEMS = 1_000_000, 200_000
"""More than these are refused: a model's list of scores is as long as the catalogue, and every person is held in memory."""
MAX_TITLE_CHARS, MAX_TEXT_CHARS = 300, 4_000
_MISSING = {"", "nan", "null", "none", "<na>", "\\n"}
"""Ids that are how programs write "there is none", in small letters."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """A log of interactions, cleaned.

    users, items: ids as text; a row's `user` and `item` are places in them. titles and texts are the items', "" where there is none.
    rows: user int32, item int32, at int64 (seconds since 1970, UTC), rating float32 (NaN: none), sorted by user and then time, ties in
    the file's order; each pair of user and item stands once, at its first meeting. notes say in words what was left out and why.
    """

    name: str
    users: tuple[str, ...]
    items: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    rows: pd.DataFrame
    synthetic: bool
    licence: str
    notes: tuple[str, ...] = ()

    @property
    def split_hash(self) -> str:
        """Names the rows and so the leave-one-out split that follows from them."""
        digest = hashlib.sha256()
        for column in ("user", "item", "at"):
            digest.update(np.ascontiguousarray(self.rows[column].to_numpy()).tobytes())
        digest.update("\0".join((*self.users, "", *self.items)).encode())
        return digest.hexdigest()[:16]

    def histories(self) -> list[np.ndarray]:
        """int32 item numbers a user, oldest first, in the order of `users`."""
        items = self.rows["item"].to_numpy(dtype=np.int32)
        ends = np.searchsorted(self.rows["user"].to_numpy(), np.arange(len(self.users) + 1))
        return [items[start:end] for start, end in itertools.pairwise(ends)]

    def table(self) -> pd.DataFrame:
        """The rows as `build` takes them: user and item as text (categorical), at in seconds, rating."""
        coded = {"user": (self.rows["user"], self.users), "item": (self.rows["item"], self.items)}
        columns = {key: pd.Categorical.from_codes(codes, categories=list(ids)) for key, (codes, ids) in coded.items()}
        return pd.DataFrame({**columns, "at": self.rows["at"].to_numpy(), "rating": self.rows["rating"].to_numpy()})

    def catalogue(self) -> pd.DataFrame:
        """The items as `build` takes them, columns item, title, text, in the order of `items`."""
        return pd.DataFrame({"item": self.items, "title": self.titles, "text": self.texts}, dtype="str")

    def core(self, least: int = 5) -> Interactions:
        """Only users and items with at least `least` interactions each, as papers cut MovieLens-1M to its 3,416 items."""
        rows, n_before = self.table(), -1
        while len(rows) != n_before:
            n_before = len(rows)
            for key in ("user", "item"):
                rows = rows[rows.groupby(key, observed=True)[key].transform("size").to_numpy() >= least]
        items = self.catalogue()
        items = items[items["item"].isin(set(rows["item"].astype("str")))]
        note = f"Only users and items with at least {least} interactions: {len(items):,} of {len(self.items):,} items."
        return build(rows, name=self.name, items=items, synthetic=self.synthetic, licence=self.licence, notes=(*self.notes, note))

    def save(self, folder: Path) -> None:
        """Write the log as Parquet and JSON into a folder (made when it is not there)."""
        folder.mkdir(parents=True, exist_ok=True)
        self.rows.to_parquet(folder / "rows.parquet", index=False)
        self.catalogue().to_parquet(folder / "items.parquet", index=False)
        pd.DataFrame({"user": self.users}, dtype="str").to_parquet(folder / "users.parquet", index=False)
        facts = {key: getattr(self, key) for key in ("name", "synthetic", "licence", "notes")}
        (folder / "interactions.json").write_text(json.dumps(facts, ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Interactions:
        """What `save` wrote. Raises BadData."""
        try:
            facts = json.loads((folder / "interactions.json").read_text(encoding="utf-8"))
            rows, items, users = (pd.read_parquet(folder / f"{part}.parquet") for part in ("rows", "items", "users"))
            return cls(
                name=facts["name"], users=tuple(users["user"]), items=tuple(items["item"]), titles=tuple(items["title"]),
                texts=tuple(items["text"]), rows=rows[["user", "item", "at", "rating"]], synthetic=facts["synthetic"],
                licence=facts["licence"], notes=tuple(facts["notes"]),
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadData(f"The interactions in {folder.name} cannot be read ({type(error).__name__}).", "Make them again.") from error


@dataclass(frozen=True, eq=False)
class Split:
    """Leave one out by time: a user's last item is the test's, the one before it validation's; -1 where a user has too few.

    train holds what came before; `with_validation` is the past at the moment of the test.
    """

    train: list[np.ndarray]
    validation: np.ndarray
    test: np.ndarray

    def with_validation(self) -> list[np.ndarray]:
        """The histories a test item is to be foretold from."""
        return [np.append(past, item) if item >= 0 else past for past, item in zip(self.train, self.validation, strict=True)]


def leave_one_out(histories: Sequence[np.ndarray], *, least: int = 3) -> Split:
    """Hold back the last two items of every history of at least `least`; a shorter one is only learnt from."""
    long = [len(past) >= least for past in histories]
    train = [past[:-2] if enough else past for past, enough in zip(histories, long, strict=True)]
    held = np.array([past[-2:] if enough else (-1, -1) for past, enough in zip(histories, long, strict=True)], dtype=np.int32)
    held = held.reshape(-1, 2)
    return Split(train, held[:, 0], held[:, 1])


def build(
    rows: pd.DataFrame,
    *,
    name: str,
    items: pd.DataFrame | None = None,
    synthetic: bool = False,
    licence: str = "",
    notes: Sequence[str] = (),
    now: dt.datetime | None = None,
) -> Interactions:
    """A log out of raw rows in the order of their file.

    rows: user, item (text or categories of text), at (seconds since 1970, may be fractions; NaN where unreadable) and, if there is
    one, rating. items: item, title, text; they may be more than the rows name, and of an item that stands twice the first counts.
    Left out, and said so in the notes: rows without an id or a readable time, rows of the future, later meetings of the same pair.
    Raises BadData where nothing is left or where there is too much.
    """
    user, users = _codes(rows["user"])
    item, known = _codes(rows["item"])
    at = rows["at"].to_numpy(dtype=np.float64, na_value=np.nan)
    latest = ((now or clock.now()) + AHEAD).timestamp()
    no_id, no_time = (user < 0) | (item < 0), ~np.isfinite(at)
    future = ~no_time & (at > latest)
    said = [
        *notes,
        *note(int(no_id.sum()), "without a usable user or item"),
        *note(int((no_time & ~no_id).sum()), "without a time that can be read"),
        *note(int((future & ~no_id).sum()), f"more than {AHEAD.days} day in the future"),
    ]
    kept = np.flatnonzero(~(no_id | no_time | future))
    if not len(kept):
        raise BadData(f"No row of {name} can be used. {' '.join(said)}".strip(), "Each row needs a user, an item and a time.")
    listed = _listed(items, said)
    user, users = _sorted(user[kept], users, most=MAX_USERS, what="users")
    item, known = _sorted(item[kept], known, also=listed, most=MAX_ITEMS, what="items")
    order = np.lexsort((at[kept], user))  # stable: rows of one moment keep the file's order
    repeated = pd.Series(user[order] * np.int64(len(known)) + item[order]).duplicated().to_numpy()
    said += note(int(repeated.sum()), "of a user and an item that had met before")
    order = order[~repeated]
    kept = kept[order]
    rating = rows["rating"].to_numpy(dtype=np.float32)[kept] if "rating" in rows else np.full(len(kept), np.nan, np.float32)
    frame = pd.DataFrame({"user": user[order], "item": item[order], "at": np.floor(at[kept]).astype(np.int64), "rating": rating})
    titles, texts = zip(*(listed.get(one, ("", "")) for one in known), strict=True)
    return Interactions(name, users, known, titles, texts, frame, synthetic, licence, tuple(said))


def _codes(column: pd.Series) -> tuple[np.ndarray, list[str]]:
    """(int32 code of each row's id, -1 where it is none; the ids)."""
    held = column.array if isinstance(column.dtype, pd.CategoricalDtype) else pd.Categorical(column)
    codes: dict[str, int] = {}
    to = np.full(len(held.categories) + 1, -1, dtype=np.int32)  # the last place answers for code -1, a missing value
    for at, found in enumerate(held.categories):
        written = text.storable(str(found))
        if usable_id(written):
            to[at] = codes.setdefault(written, len(codes))
    return to[held.codes], list(codes)


def usable_id(written: str) -> bool:
    """Whether a text names a user or an item: not blank, no way of writing "none", without NUL, of bounded length."""
    return len(written) <= MAX_ID_CHARS and written.strip().casefold() not in _MISSING and "\0" not in written


def _sorted(codes: np.ndarray, ids: Sequence[str], *, most: int, what: str, also: Iterable[str] = ()) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes of the ids in use (and of those in `also`) in an order that does not depend on the rows: numbers by value, then text."""
    used = np.flatnonzero(np.bincount(codes, minlength=len(ids)))
    held = sorted({*(ids[code] for code in used), *also}, key=_natural)
    if len(held) > most:
        raise BadData(f"There are {len(held):,} {what}, more than {most:,}.", f"Leave out the rarest {what}.")
    place = {one: at for at, one in enumerate(held)}
    to = np.full(len(ids), -1, dtype=np.int32)
    to[used] = [place[ids[code]] for code in used]
    return to[codes], tuple(held)


def _natural(written: str) -> tuple[bool, int, str]:
    is_number = written.isascii() and written.isdigit()
    return not is_number, int(written) if is_number else 0, written


def _listed(items: pd.DataFrame | None, said: list[str]) -> Mapping[str, tuple[str, str]]:
    """Item -> (title, text), made safe and bounded; what was left out is added to `said`."""
    listed: dict[str, tuple[str, str]] = {}
    n_without = n_twice = 0
    for one, title, body in () if items is None else items[["item", "title", "text"]].itertuples(index=False, name=None):
        written = text.storable(str(one))
        if not usable_id(written):
            n_without += 1
        elif written in listed:
            n_twice += 1
        else:
            listed[written] = (text.clean(title, limit=MAX_TITLE_CHARS)[0].strip(), text.clean(body, limit=MAX_TEXT_CHARS)[0].strip())
    said += [*note(n_without, "of the catalogue without a usable item"), *note(n_twice, "of the catalogue for an item listed before")]
    return listed


def note(n: int, what: str) -> list[str]:
    """[so many rows of that kind were left out], or nothing where there were none."""
    return [f"{n:,} row{'s' if n != 1 else ''} {what} left out."] if n else []
