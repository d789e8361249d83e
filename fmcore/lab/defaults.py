"""How a task is trained where nobody says: what a study chose, with the study as its reason, or the line of tasks.py.

Owns the table `task_defaults`. Never overrides a recipe that a person named: only "auto" asks here.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fmcore import clock, tasks
from fmcore.nouns import FMError
from fmcore.store.store import Store, to_json

RECIPES = ("linear", "contrast", "full", "lora")
"""What a default may be: the recipes that job finetune trains."""


class BadChoice(FMError):
    """A default that no job could follow."""


@dataclass(frozen=True)
class Choice:
    """How to train. base "" is the desk's own foundation model; options are further parameters of job finetune by name.

    study_id, reason, by and at say where it comes from; they are filled in by `chosen`.
    """

    recipe: str
    base: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    study_id: str = ""
    reason: str = ""
    by: str = ""
    at: dt.datetime | None = None


def chosen(store: Store, task: str) -> Choice | None:
    """What a study chose for a task; None where none did, or where that was taken back."""
    rows = store.rows("SELECT * FROM task_defaults WHERE task = ? ORDER BY noted_at DESC LIMIT 1", task)
    choice = json.loads(rows[0]["choice"]) if rows else {}
    if not choice:
        return None
    row = rows[0]
    told = {"study_id": row["study_id"], "reason": row["reason"], "by": row["who"], "at": clock.from_store(row["noted_at"])}
    return Choice(choice["recipe"], choice.get("base", ""), choice.get("options", {}), **told)


def choose(store: Store, task: str, choice: Choice, *, study_id: str, reason: str, by: str) -> Choice:
    """Make it the task's default, once a study: choosing the same twice leaves one row. Raises UnknownTask and BadChoice."""
    tasks.task(task)
    if choice.recipe not in RECIPES:
        raise BadChoice(f"No job trains with the recipe {choice.recipe!r}.", f"Recipes: {', '.join(RECIPES)}.")
    if not reason.strip():
        raise BadChoice("A default without a reason is not kept.", "Say what it was found better by.")
    content = to_json({"recipe": choice.recipe, "base": choice.base, "options": dict(choice.options)})
    _note(store, task, content, study_id=study_id, reason=reason, by=by)
    found = chosen(store, task)
    assert found is not None  # written just now, under the store's one write lock
    return found


def adopted(store: Store, task: str, choice: Choice, *, study_id: str, reason: str, by: str) -> bool:
    """`choose` for a job's land: once a study, so that a second landing does not undo what a person did since. Always True."""
    if not store.rows("SELECT 1 FROM task_defaults WHERE task = ? AND study_id = ? LIMIT 1", task, study_id):
        choose(store, task, choice, study_id=study_id, reason=reason, by=by)
    return True


def reset(store: Store, task: str, *, by: str, reason: str = "Taken back.") -> None:
    """Back to the recipe of tasks.py. What was chosen stays in the table. Raises UnknownTask."""
    tasks.task(task)
    if chosen(store, task) is not None:
        _note(store, task, "{}", study_id="", reason=reason, by=by)


def told(store: Store, task: str) -> str:
    """One sentence: with what recipe "auto" trains the task, and why."""
    found, usual = chosen(store, task), tasks.task(task)
    if found is None:
        return f"auto trains {usual.title} with the recipe {usual.recipe}: the usual one, no study has chosen another."
    base = f" from {found.base}" if found.base else ""
    return f"auto trains {usual.title} with the recipe {found.recipe}{base}: {found.reason}"


def _note(store: Store, task: str, content: str, *, study_id: str, reason: str, by: str) -> None:
    with store.write() as tx:
        last = tx.execute("SELECT choice, study_id FROM task_defaults WHERE task = ? ORDER BY noted_at DESC LIMIT 1", [task])
        if not last or tuple(last[0]) != (content, study_id):
            row = [task, content, study_id, reason, by, clock.to_store(clock.now())]
            tx.execute("INSERT INTO task_defaults VALUES (?, ?, ?, ?, ?, ?)", row)
