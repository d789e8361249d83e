"""Reviews: answers that a person disagreed with, and what another person made of each. Owns the table `reviews`.

The one place where a text that was asked about is stored, and only because somebody sent it. A row is never changed: the last of an id
holds. Every change leaves a row in the audit in the same transaction, without the text and without the notes.
"""

from __future__ import annotations

import datetime as dt
import math
import secrets
from dataclasses import dataclass, field
from typing import Any

from fmcore import clock
from fmcore.nouns import FMError
from fmcore.store.store import Store, Transaction, to_json
from fmcore.tasks import task as known_task
from fmcore.text import clean, is_name

STATES = ("open", "agreed", "declined")
MAX_LABEL, MAX_NOTE, MAX_WHO = 200, 1_000, 80
MAX_OPEN = 5_000
"""Open reviews that may wait: a queue that nobody works off must not fill the disk."""
MOST_LISTED = 1_000

_LAST = "SELECT * FROM reviews QUALIFY row_number() OVER (PARTITION BY id ORDER BY n DESC) = 1"
_COLUMNS = ("n", "id", "task", "version", "text", "predicted", "score", "suggested", "note", "state", "who", "noted_at")


class BadReview(FMError):
    """A review that cannot be kept as it was sent."""


class UnknownReview(FMError):
    """There is no review with that id."""


class NotOpen(FMError):
    """A review that was settled already."""


@dataclass(frozen=True)
class Review:
    """predicted and score: the answer of `version`; suggested: the label that would be right, "" where none was named.

    While it is open, note, who and at are the sender's; once it is settled, the reviewer's: note is then the reason.
    """

    id: str
    task: str
    version: str
    text: str = field(repr=False)
    predicted: str
    score: float
    suggested: str
    note: str = field(repr=False)
    state: str
    who: str
    at: dt.datetime


def send(
    store: Store, *, task: str, version: str, text: str, predicted: str, score: float, suggested: str = "", note: str = "", who: str
) -> Review:
    """Keep a disagreement for review. Raises BadReview, UnknownTask."""
    row: dict[str, Any] = {
        "id": secrets.token_hex(8), "task": known_task(task).name, "version": version, "text": clean(text)[0],
        "predicted": _line(predicted, MAX_LABEL), "score": float(score), "suggested": _line(suggested, MAX_LABEL),
        "note": _said(note), "state": "open", "who": _line(who, MAX_WHO) or "unknown",
    }  # fmt: skip
    faults = [
        ("its version is no name of a model", is_name(version)),
        ("it has no text", bool(row["text"].strip())),
        ("it does not say what the model answered", bool(row["predicted"])),
        ("its score must be from 0 to 1", math.isfinite(row["score"]) and 0 <= row["score"] <= 1),
        ("what is suggested is what the model said", row["suggested"] != row["predicted"]),
    ]
    _refuse(faults)
    with store.write() as tx:
        ((n_open,),) = tx.execute(f"SELECT count(*) FROM ({_LAST}) WHERE state = 'open'")
        if n_open >= MAX_OPEN:
            raise BadReview(f"{n_open:,} reviews wait already.", "Somebody has to settle some of them first.")
        return _append(tx, row, what="send for review")


def listed(store: Store, *, state: str | None = "open", task: str | None = None, limit: int = 100) -> list[Review]:
    """Reviews as they stand: the open ones in the order they came, settled ones and all of them (state None) newest first."""
    if state is not None and state not in STATES:
        raise BadReview("There is no such state.", f"States: {', '.join(STATES)}.")
    order = "n" if state == "open" else "n DESC"
    sql = f"""SELECT * FROM ({_LAST}) WHERE (? IS NULL OR state = ?) AND (? IS NULL OR task = ?) ORDER BY {order} LIMIT ?"""
    rows = store.rows(sql, state, state, task, task, max(1, min(int(limit), MOST_LISTED)))
    return [_review(row) for row in rows]


def settle(store: Store, id: str, *, state: str, who: str, note: str) -> Review:
    """Say what came of an open review: "agreed" (the model was wrong) or "declined"; note is the reason.

    Raises UnknownReview, NotOpen, BadReview.
    """
    row = {"state": state, "who": _line(who, MAX_WHO) or "unknown", "note": _said(note)}
    _refuse([("it is settled as agreed or declined", state in STATES[1:]), ("it needs a reason", bool(row["note"]))])
    with store.write() as tx:
        found = tx.execute(f"SELECT {', '.join(_COLUMNS)} FROM ({_LAST}) WHERE id = ?", [clean(id, limit=80)[0]])
        if not found:
            raise UnknownReview("There is no such review.", "See the list of reviews.")
        before = dict(zip(_COLUMNS, found[0], strict=True))
        if before["state"] != "open":
            raise NotOpen(f"This review was settled already: {before['state']}.", "")
        return _append(tx, before | row, what="settle a review")


def _append(tx: Transaction, row: dict[str, Any], *, what: str) -> Review:
    ((n,),) = tx.execute("SELECT coalesce(max(n), 0) + 1 FROM reviews")
    row = {**row, "n": n, "noted_at": clock.to_store(clock.now())}
    tx.execute(f"INSERT INTO reviews ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})", [row[name] for name in _COLUMNS])
    detail = {name: row[name] for name in ("task", "version", "predicted", "suggested", "state")} | {"review": row["id"]}
    tx.execute("INSERT INTO audit VALUES (?, ?, ?, ?)", [row["who"], what, to_json(detail), row["noted_at"]])
    return _review(row)


def _review(row: dict[str, Any]) -> Review:
    kept = {name: row[name] for name in _COLUMNS if name not in ("n", "noted_at")}
    return Review(**kept, at=clock.from_store(row["noted_at"]))


def _refuse(faults: list[tuple[str, bool]]) -> None:
    wrong = [said for said, holds in faults if not holds]
    if wrong:
        raise BadReview(f"This review cannot be kept: {'; '.join(wrong)}.", "Change it and send it again.")


def _line(text: object, limit: int) -> str:
    return " ".join(clean(text, limit=limit)[0].split())


def _said(note: str) -> str:
    said, cut = clean(note, limit=MAX_NOTE)
    if cut:
        raise BadReview(f"The note has more than {MAX_NOTE:,} characters.", "Say it shorter.")
    return said.strip()
