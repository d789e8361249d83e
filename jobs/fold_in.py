"""The job that keeps the counts of the recommender that serves as new as what people do.

Writes one row that says up to which event the counts go; the service works them out from the stored events. Killed at any moment it has
lost nothing, and run again it changes nothing.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from fmcore import runtime
from fmcore.models.registry import Registry
from fmcore.nouns import Job, Report
from fmcore.recommend import folding
from fmcore.store.store import Store
from fmcore.tasks import RECOMMEND


class FoldIn(BaseModel, extra="forbid"):
    """Nothing to choose."""


def run(store: Store, params: FoldIn, report: Report) -> dict[str, Any]:
    """Fold what is new into the champion; quick where nothing is."""
    registry = Registry(store)
    champion = registry.champion(RECOMMEND.name)
    if champion is None:
        return {"version": None, "folded": 0, "up_to": 0}
    facts = registry.facts(champion)
    trained_up_to = int(facts.get("interactions_up_to") or 0)
    up_to, n_new = folding.fold(store, champion.version, str(facts.get("dataset") or champion.dataset), trained_up_to=trained_up_to)
    desk = runtime.current()
    if n_new and desk is not None and desk.store is store:
        report.progress(0.5, "counting")
        desk.recommend.current()  # here, so that nobody who asks for a list waits for it
    return {"version": champion.version, "folded": n_new, "up_to": up_to}


JOB = Job(
    name="fold_in",
    title="Fold in new interactions",
    summary="Lets the counts of the recommender that serves hold what people did since it was trained.",
    kind="light",
    params=FoldIn,
    run=run,
    schedule="*/5 * * * *",
    timeout_s=600,
    grace_s=300,
    routine=True,
)
"""Interactions are stored when they happen and lists follow them at once; only what others make of them waits for this job."""
