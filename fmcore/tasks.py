"""TASKS: what a model can be asked, one line a task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fmcore.nouns import FMError, Task

SENTIMENTS = ("negative", "neutral", "positive")
NEWS = {"lexical": True, "in_scope_share": 0.995}
"""News comes from chosen sources: next to all of it is in scope. A topic shows in the words; the recipe linear reads it in minutes."""
POLAR = {"recipe": "full", "consistency": 1.0}
"""A frozen encoder drops polarity, so it is tuned; annotators disagree on half of the sentences: see docs/experiments.md."""
TASKS = {
    task.name: task
    for task in (
        Task("intent", "Customer-service intent", "demo", ("demo", "banking77", "clinc150")),
        Task("sentiment", "News sentiment", "demo_sentiment", ("demo_sentiment", "financial_phrasebank"), SENTIMENTS, **NEWS, **POLAR),
        Task("topic", "News topic", "demo_topic", ("demo_topic", "twitter_financial_topic"), **NEWS),
    )
}

RECOMMEND = Task("recommend", "Recommendations", "demo_shop", ("demo_shop", "movielens", "ml-1m"), recipe="shelf")
"""Has versions, a gate and a champion like the others, but answers a past with items, not a text with a label: it stands beside TASKS."""
SERVED = {**TASKS, RECOMMEND.name: RECOMMEND}
"""Everything the registry keeps versions of."""


class UnknownTask(FMError):
    """No task has that name."""


class WrongDataset(FMError):
    """A data set that does not teach what the task asks."""


def task(name: str) -> Task:
    """The task of that name. Raises UnknownTask with the names there are."""
    if name not in TASKS:
        raise UnknownTask(f"There is no task {name!r}.", f"Tasks: {', '.join(TASKS)}.")
    return TASKS[name]


def first_run(name: str) -> dict[str, Any]:
    """What a desk without a model of a task trains first: small enough for a first answer within a minute."""
    return {"task": name, "dataset": task(name).default_dataset, "recipe": "linear", "fast": True}


def check_fits(name: str, dataset: str, labels: Iterable[str]) -> None:
    """Whether a data set teaches a task. Raises WrongDataset: a set of another task, or labels that this one does not have."""
    asked = task(name)
    others = [t.title for t in TASKS.values() if dataset in t.datasets]
    if others and dataset not in asked.datasets:
        hint = f"For {asked.title}: {', '.join(asked.datasets)}, or a CSV file."
        raise WrongDataset(f"The data set {dataset} is for {others[0]}, not for {asked.title}.", hint)
    if asked.labels and set(labels) != set(asked.labels):
        found = ", ".join(sorted(labels)[:5])
        raise WrongDataset(f"{asked.title} has the labels {', '.join(asked.labels)}; the data set has {found}.", "Rename its labels.")
