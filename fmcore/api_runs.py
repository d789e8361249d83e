"""The REST face of tracking: a run's facts, runs side by side, and where a model comes from. Included by api.py under the same rules.

Owns the shape of these requests and answers; the command line prints the same. Never touches a table or a model itself.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from fmcore import comparing_runs, run_facts, runtime
from fmcore.store.store import Store

router = APIRouter(tags=["runs"])

Id = Annotated[str, Query(max_length=200)]


@router.get("/compare")
def compare(run: Annotated[list[str], Query(max_length=comparing_runs.MAX_RUNS)], baseline: Id | None = None) -> JSONResponse:
    """What differs between runs, their figures with the distance to the baseline, and their curves aligned by step."""
    return JSONResponse(comparing_runs.as_json(comparing_runs.compare(_store(), run, baseline=baseline or None)))


@router.get("/lineage")
def lineage(of: Id) -> JSONResponse:
    """The line of descent through a run, a version, or what serves a task: data set, base, run, version, what was made from it."""
    return JSONResponse(dataclasses.asdict(comparing_runs.lineage(_store(), of)))


@router.get("/runs/{run_id}/facts")
def facts(run_id: str) -> JSONResponse:
    """What a run was made of, where it ran, what it cost and what it left; null is unknown."""
    return JSONResponse(dataclasses.asdict(run_facts.of(_store(), run_id)))


@router.post("/runs/{run_id}/pin")
def pin(run_id: str) -> JSONResponse:
    """Make the run the baseline of its job and task."""
    return JSONResponse({"baseline": run_id, "of": comparing_runs.pin(_store(), run_id, by="api")})


def _store() -> Store:
    desk = runtime.current()
    if desk is None:
        raise HTTPException(503, "The desk is not up yet.")
    return desk.store
