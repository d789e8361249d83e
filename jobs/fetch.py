"""The fetch job: one public data set, from its publisher into <home>/data, on request only."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from fmcore.data import catalogue, fetch
from fmcore.nouns import Job, Report
from fmcore.store.store import Store


class Params(BaseModel, extra="forbid"):
    dataset: Literal["banking77", "clinc150"] = Field("banking77", description="The data set to download from its publisher.")


def run(store: Store, params: Params, report: Report) -> dict[str, object]:
    """Download the set; a set that is there and whole is only checked. Returns {"dataset", "path", "bytes", "sha256"}."""
    return fetch.fetch_dataset(catalogue.dataset(params.dataset), store.home, progress=report.progress)


JOB = Job(
    name="fetch",
    title="Fetch a data set",
    summary="Downloads a public data set from its publisher, checks it, and puts it into the catalogue.",
    kind="light",
    params=Params,
    run=run,
    timeout_s=3600,
    max_attempts=2,
)
