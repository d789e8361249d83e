"""The reinforcement job: agents trained and judged in a simulator of the log that a version of the recommendations learnt from.

prepare freezes the log, the version's files and what the live learner showed into the run's folder; work reads nothing but that folder
and keeps each finished agent, so that a run that died goes on; land stores the contest once, however often it is called.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, Field

from fmcore.config import settings
from fmcore.data import interaction_files
from fmcore.data.interactions import Interactions
from fmcore.models.registry import Registry
from fmcore.nouns import Job, Report
from fmcore.recommend import contest, events, turns
from fmcore.recommend.shelf import Shelf
from fmcore.store.store import Store
from fmcore.tasks import RECOMMEND
from jobs.folder import RunFolderDamaged, read_json

MOST_EVENTS = 100_000
OUTCOME = "contest.json"


class Params(BaseModel, extra="forbid"):
    version: str = Field("", title="Version (empty: the champion)", max_length=80, description="The version of the recommendations that the agents build on; empty takes the one that serves.")  # noqa: E501  # fmt: skip
    dataset: str = Field("", title="Data set (empty: the version's)", max_length=1000, description="The log to simulate: a data set of the catalogue or the path of a CSV file; empty takes what the version learnt from.")  # noqa: E501  # fmt: skip
    steps: int = Field(0, title="Steps (0: automatic)", ge=0, le=1_000_000, description="Training steps of each agent with each seed; 0 takes the profile's, which is some minutes for all of them on one core.")  # noqa: E501  # fmt: skip
    seeds: int = Field(5, ge=2, le=20, description="How often each agent is trained, each time with another seed; the intervals are over them.")  # noqa: E501  # fmt: skip
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the simulator and of every random choice beside the agents' own.")
    only_if_served: bool = Field(False, title="Only if recommendations are live", description="End at once, and say so, where no version serves yet.")  # noqa: E501  # fmt: skip


def prepare(store: Store, params: Params, run_dir: Path) -> None:
    """Write data/, shelf/, live.parquet and settings.json.

    Raises UnknownModel, Tampered, and what reading the data set raises.
    """
    registry = Registry(store)
    if params.only_if_served and not params.version and registry.champion(RECOMMEND.name) is None:
        told = {"params": params.model_dump(), "nothing_to_do": "No version of the recommendations serves yet."}
        (run_dir / "settings.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
        return
    version = registry.get(RECOMMEND.name, params.version) if params.version else registry.resolve(RECOMMEND.name)
    learnt_from = dict(version.metrics.get("params") or {}).get("dataset") or version.dataset
    data = events.merged(store, interaction_files.load(params.dataset or learnt_from))
    data.save(run_dir / "data")
    events.shows(store, data.name, limit=MOST_EVENTS).to_parquet(run_dir / "live.parquet", index=False)
    shutil.rmtree(run_dir / "shelf", ignore_errors=True)
    turns.linked(registry.verified(version), run_dir / "shelf")
    chosen = {"params": params.model_dump(), "version": version.version, "nothing_to_do": ""}
    (run_dir / "settings.json").write_text(json.dumps(chosen, indent=1), encoding="utf-8")


def work(run_dir: Path, report: Report) -> dict[str, Any]:
    """Train, judge, estimate, and write run_dir/contest.json. Returns the outcome in words and the table."""
    chosen = read_json(run_dir / "settings.json")
    if chosen["nothing_to_do"]:
        report.progress(1.0, chosen["nothing_to_do"])
        return {"nothing_to_do": chosen["nothing_to_do"]}
    params = Params(**chosen["params"])
    shelf = Shelf.load(run_dir / "shelf", version=chosen["version"])
    data = contest.aligned(Interactions.load(run_dir / "data"), shelf.items)
    live = pd.read_parquet(run_dir / "live.parquet")
    live["item"] = [shelf.numbers.get(item, -1) for item in live["item"]]
    plan = contest.Plan(steps=params.steps or settings().limits().agent_steps, seeds=params.seeds, seed=params.seed)
    model, sequence = contest.rankers_of(shelf)
    found = contest.run(
        data, model, shelf.groups, plan=plan, ranker=model.title, version=shelf.version, events=live if len(live) else None,
        sequence=sequence, checkpoint=run_dir / "checkpoint", report=report,
    )  # fmt: skip
    (run_dir / OUTCOME).write_text(contest.as_json(found), encoding="utf-8")
    return _outline(found)


def land(store: Store, run_dir: Path) -> dict[str, Any]:
    """Store the contest. The same answer however often it is called. Raises RunFolderDamaged."""
    if nothing := read_json(run_dir / "settings.json")["nothing_to_do"]:
        return {"nothing_to_do": nothing}
    try:
        found = contest.from_json(json.dumps(read_json(run_dir / OUTCOME)))
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderDamaged(f"{OUTCOME} of run {run_dir.name} is no contest ({error}).", "Start the run again.") from error
    contest.save(store, found, run_id=run_dir.name)
    for part in ("checkpoint", "shelf"):  # a landed run is never resumed, and these are most of its folder
        shutil.rmtree(run_dir / part, ignore_errors=True)
    return _outline(found)


def _outline(found: contest.Contest) -> dict[str, Any]:
    means = {row["agent"]: round(row["mean"], 3) for row in found.table.to_dict("records")}
    return {
        "version": found.version, "dataset": found.dataset, "likes_a_visit": means, "sentence": found.sentence, "seconds": found.seconds,
    }  # fmt: skip


JOB = Job(
    name="reinforce",
    title="Let agents compete",
    summary="Trains bandits and deep agents in a simulator of the log, and judges them beside chance, popularity and the greedy model.",
    kind="heavy",
    params=Params,
    prepare=prepare,
    work=work,
    land=land,
    schedule="0 4 * * sat",
    scheduled_params={"only_if_served": True},
    timeout_s=6 * 3600,
)
