"""The delivery job: what waits in the outbox goes to its channels, once a minute.

One round a run: what fails waits for its next try in the store, not here. Never decides what is sent; that is sentiment/notify.py.
"""

from __future__ import annotations

import dataclasses

from pydantic import BaseModel, Field

from fmcore.nouns import Job, Report
from fmcore.sentiment import notify
from fmcore.store.store import Store


class Deliver(BaseModel, extra="forbid"):
    """How long a round may take."""

    budget_s: float = Field(45, ge=1, le=300, description="Seconds after which no further message is begun")


def run(store: Store, params: Deliver, report: Report) -> dict[str, int]:
    """One round over every channel. Returns {"n_sent", "n_dry", "n_failed", "n_dead", "n_waiting"}, in messages."""
    done = notify.deliver(store, budget_s=params.budget_s)
    report.progress(1.0, f"{done.n_sent} sent, {done.n_waiting} waiting")
    return dataclasses.asdict(done)


JOB = Job(
    name="deliver",
    title="Delivery of alerts",
    summary="Sends what waits in the outbox to its channels: at least once, in order, under one key for good.",
    kind="light",
    params=Deliver,
    run=run,
    schedule="* * * * *",
    timeout_s=300,
    max_attempts=1,
    grace_s=60,
    routine=True,
)
