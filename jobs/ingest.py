"""The ingest job: a look at every source whose time has come, every minute; what it brings stands as soon as it is read."""

from __future__ import annotations

from pydantic import BaseModel, Field

from fmcore.data import looks
from fmcore.data.documents import Intake
from fmcore.nouns import Job, Report
from fmcore.store.store import Store


class Params(BaseModel, extra="forbid"):
    source: str = Field("", max_length=80, description="Look at this source only, and at once; empty: at all that are due.")


def run(store: Store, params: Params, report: Report) -> dict[str, object]:
    """Look around for about 45 seconds. Returns {"sources", "new", "known", "refused"}; what failed is on the sources' own record."""
    came = looks.look_around(store, only=params.source, progress=report.progress)
    total = sum(came.values(), Intake())
    report.progress(1.0, f"{len(came)} sources looked at, {total.n_new:,} new documents")
    return {"sources": sorted(came), "new": total.n_new, "known": total.n_known, "refused": total.n_refused}


JOB = Job(
    name="ingest",
    title="Look at the sources",
    summary="Looks at every news source whose time has come and stores what is new.",
    kind="light",
    params=Params,
    run=run,
    schedule="* * * * *",
    timeout_s=600,
    max_attempts=1,
    grace_s=60,
    routine=True,
)
