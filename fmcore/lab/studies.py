"""Studies: what the lab's jobs found, kept so that a page can draw it and a default can name it as its reason.

Owns the table `studies`. Knows nothing of what is in a study but its kind: tables as lists of rows, and sentences.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fmcore import clock
from fmcore.nouns import FMError
from fmcore.store.store import Store, to_json

KINDS = ("labels", "ablation", "board", "adaptation")
"""label-efficiency curves, regularisation ablation, Pareto board, continued pretraining and contrast against the base."""


class UnknownStudy(FMError):
    """No study has that id or kind."""


@dataclass(frozen=True)
class Study:
    """One study. content: its kind's own tables (a list of flat rows each) and sentences, finite JSON; made_at is UTC."""

    id: str
    kind: str
    task: str
    dataset: str
    run_id: str
    content: Mapping[str, Any]
    made_at: dt.datetime

    def table(self, name: str) -> pd.DataFrame:
        """A table of the content, a row an entry; empty where the study has none of that name."""
        return pd.DataFrame(self.content.get(name, []))


def keep(store: Store, *, kind: str, task: str, dataset: str, run_id: str, content: Mapping[str, Any]) -> Study:
    """Store a study, once a run and kind: landing twice gives the first row back. Raises UnknownStudy for another kind."""
    if kind not in KINDS:
        raise UnknownStudy(f"There is no kind of study {kind!r}.", f"Kinds: {', '.join(KINDS)}.")
    text = to_json(content)
    with store.write() as tx:
        if not tx.execute("SELECT 1 FROM studies WHERE id = ?", [_id(kind, run_id)]):
            row = [_id(kind, run_id), kind, task, dataset, run_id, text, clock.to_store(clock.now())]
            tx.execute("INSERT INTO studies VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    return get(store, _id(kind, run_id))


def get(store: Store, study_id: str) -> Study:
    """The study of that id. Raises UnknownStudy."""
    found = store.rows("SELECT * FROM studies WHERE id = ? LIMIT 1", study_id)
    if not found:
        raise UnknownStudy(f"There is no study {study_id[:80]!r}.", "It may have been made on another desk.")
    return _study(found[0])


def listed(store: Store, *, kind: str, task: str | None = None, limit: int = 20) -> list[Study]:
    """The newest studies of a kind first; of every task where none is named."""
    where, params = ("AND task = ?", [task]) if task else ("", [])
    rows = store.rows(f"SELECT * FROM studies WHERE kind = ? {where} ORDER BY noted_at DESC LIMIT ?", kind, *params, limit)
    return [_study(row) for row in rows]


def latest(store: Store, *, kind: str, task: str, dataset: str | None = None) -> Study | None:
    """The newest study of a kind for a task, and a data set where one is named."""
    where, params = ("AND dataset = ?", [dataset]) if dataset else ("", [])
    rows = store.rows(f"SELECT * FROM studies WHERE kind = ? AND task = ? {where} ORDER BY noted_at DESC LIMIT 1", kind, task, *params)
    return _study(rows[0]) if rows else None


def _id(kind: str, run_id: str) -> str:
    return f"{kind}-{run_id}"


def _study(row: Mapping[str, Any]) -> Study:
    content, at = json.loads(row["content"]), clock.from_store(row["noted_at"])
    return Study(row["id"], row["kind"], row["task"], row["dataset"], row["run_id"], content, at)
