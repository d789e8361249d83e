"""The alert job: every five minutes, every rule over the news since it was last looked at, and at once the messages that follow.

A killed run loses nothing and doubles nothing: transitions and their messages are committed together, rule by rule. Owns no table.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from fmcore.nouns import Job, Report
from fmcore.sentiment import alerts, notify
from fmcore.store.store import Store


class Alerts(BaseModel, extra="forbid"):
    """What is done in one run."""

    send: bool = Field(True, description="Send what is due right away; without it the next delivery does")
    send_for_s: float = Field(20, ge=1, le=45, description="Seconds that sending may take; what is left goes with the next delivery")


def run(store: Store, params: Alerts, report: Report) -> dict[str, Any]:
    """Evaluate and send. Returns {"rules", "buckets", "firing", "resolved", "notified", "errors", "sent", "waiting"}."""
    report.progress(0.1, "evaluating")
    done = alerts.evaluate(store)
    result = {"rules": done.n_rules, "buckets": done.n_buckets, "firing": done.n_firing, "resolved": done.n_resolved,
              "notified": done.n_sent, "errors": done.errors}
    report.progress(0.7, f"{done.n_firing} firing, {done.n_resolved} resolved")
    if params.send:
        told = notify.deliver(store, budget_s=params.send_for_s)
        result |= {"sent": told.n_sent, "waiting": told.n_waiting}
    report.metric(1, firing=done.n_firing, resolved=done.n_resolved, buckets=done.n_buckets, errors=len(done.errors))
    return result


JOB = Job(
    name="alerts",
    title="Watch for alerts",
    summary="Evaluates every alert rule over the news since the last time, and sends what came of it.",
    kind="light",
    params=Alerts,
    run=run,
    schedule="*/5 * * * *",
    timeout_s=1_800,
    silence_s=900,  # a first evaluation reads two months of news in one go
    max_attempts=1,  # the next run goes on by itself
    grace_s=300,
    routine=True,
)
