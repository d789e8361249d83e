"""TASKS: what a model can be asked, one line a task."""

from __future__ import annotations

from fmcore.nouns import FMError, Task

TASKS = {
    task.name: task
    for task in (Task(name="intent", title="Customer-service intent", default_dataset="demo", datasets=("demo", "banking77", "clinc150")),)
}


class UnknownTask(FMError):
    """No task has that name."""


def task(name: str) -> Task:
    """The task of that name. Raises UnknownTask with the names there are."""
    if name not in TASKS:
        raise UnknownTask(f"There is no task {name!r}.", f"Tasks: {', '.join(TASKS)}.")
    return TASKS[name]
