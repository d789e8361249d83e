"""The recommendation job: a log of interactions, with what was stored since, becomes a version, which the gate may promote.

prepare freezes the log and every choice into the run's folder, with the version that serves beside it; work reads nothing but that
folder; land takes the version in, asks the gate, and promotes at most once however often it is called. A run that finds nothing that no
version has learnt from yet says so and makes none.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from fmcore.config import settings
from fmcore.data import interaction_files
from fmcore.data.interactions import Interactions
from fmcore.models.manifest import Tampered
from fmcore.models.registry import Registry
from fmcore.nouns import Job, ModelVersion, Report
from fmcore.recommend import events, offers, shelf, turns
from fmcore.recommend.recommender import BadRecommender
from fmcore.recommend.shelf import Shelf
from fmcore.store.store import Store
from fmcore.tasks import RECOMMEND
from jobs.folder import read_json
from jobs.promoting import promotion

log = logging.getLogger("fm.jobs")

CHAMPION = "champion"


class Params(BaseModel, extra="forbid"):
    dataset: str = Field("", title="Data set (empty: the present version's)", max_length=1000, description="A data set of the catalogue, or the path of a CSV file with the columns user,item,timestamp; empty: what the present version learnt from, or the demo shop.")  # noqa: E501  # fmt: skip
    models: str = Field("auto", max_length=300, description="Models to put side by side, with commas between them; popularity is always one. auto: all that fit the log, the time and the memory. champion: those of the present version, with its minutes.")  # noqa: E501  # fmt: skip
    minutes: float = Field(10.0, title="Minutes (0: no limit)", ge=0, le=900, allow_inf_nan=False, description="Time for all models together. Those solved in one step come first, the sequence model trains in what is left; 0 lets it train until validation stops gaining.")  # noqa: E501  # fmt: skip
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of every random choice.")
    promote: Literal["gate", "always", "never"] = Field("gate", description="gate: serve the version if it is better on the same held-out items, or no worse and learnt from newer ones. always or never: whatever the gate says.")  # noqa: E501  # fmt: skip
    reason: str = Field("", max_length=500, description="Why this run: kept with the promotion.")
    only_if_new: bool = Field(False, title="Only if there is something new", description="Train only where there are interactions or items that no version has learnt from yet.")  # noqa: E501  # fmt: skip


def prepare(store: Store, params: Params, run_dir: Path) -> None:
    """Write data/, settings.json and, where the present version learnt from the same data set, champion/.

    Raises UnknownRecommender, and what reading the data set raises.
    """
    registry = Registry(store)
    champion = registry.champion(RECOMMEND.name)
    params = _resolved(champion, params)
    offers.ordered(_names(params))  # a misspelt model is refused before anything is read
    base = interaction_files.load(params.dataset)
    up_to = events.latest(store, base.name)  # what comes after is not learnt from, and so folded in
    data = events.merged(store, base, up_to=up_to)
    chosen = {
        "params": params.model_dump(), "encoder": settings().base_model, "champion": "", "nothing_new": "", "interactions_up_to": up_to,
    }  # fmt: skip
    known = next((v for v in registry.versions(RECOMMEND.name) if v.metrics.get("content_hash") == shelf.content_hash(data)), None)
    if params.only_if_new and known is not None:
        chosen["nothing_new"] = f"Nothing new: {known.version} has learnt from all {len(data.rows):,} interactions."
    else:
        data.save(run_dir / "data")
        if champion is not None and champion.dataset == data.name:
            chosen["champion"] = _taken_along(registry, champion, run_dir / "champion")
    (run_dir / "settings.json").write_text(json.dumps(chosen, indent=1), encoding="utf-8")


def work(run_dir: Path, report: Report) -> dict[str, Any]:
    """Fit, measure and write run_dir/model with its manifest. Returns the figures; a checkpoint in run_dir is gone on from."""
    chosen = read_json(run_dir / "settings.json")
    if chosen["nothing_new"]:
        report.progress(1.0, chosen["nothing_new"])
        return {"nothing_new": chosen["nothing_new"]}
    params, data, out = Params(**chosen["params"]), Interactions.load(run_dir / "data"), run_dir / "model"
    shutil.rmtree(out, ignore_errors=True)  # what an attempt before this one left unfinished
    metrics = shelf.fit(
        data, names=_names(params), minutes=params.minutes, out=out, report=report, seed=params.seed,
        checkpoint=run_dir / "checkpoint", encoder=chosen["encoder"], champion=_before(run_dir / "champion", chosen["champion"]),
    )  # fmt: skip
    outcome = {"dataset": data.name, "base": chosen["encoder"], "metrics": {**metrics, "params": params.model_dump()}}
    outcome["metrics"]["interactions_up_to"] = chosen["interactions_up_to"]
    (run_dir / "outcome.json").write_text(json.dumps(outcome, allow_nan=False), encoding="utf-8")
    return {key: metrics[key] for key in ("n", "hr", "ndcg", "serving", "seconds")}


def land(store: Store, run_dir: Path) -> dict[str, Any]:
    """Adopt the version, ask the gate, promote if that is what the run was for. The same answer however often it is called."""
    chosen = read_json(run_dir / "settings.json")
    params = Params(**chosen["params"])
    if chosen["nothing_new"]:
        return {"version": None, "dataset": params.dataset, "nothing_new": chosen["nothing_new"], "promoted": False}
    outcome, registry = read_json(run_dir / "outcome.json"), Registry(store)
    metrics = outcome["metrics"]
    version = registry.adopt(
        run_dir / "model", task=RECOMMEND.name, recipe=RECOMMEND.recipe, dataset=outcome["dataset"], base=outcome["base"],
        metrics=metrics, run_id=run_dir.name,
    )  # fmt: skip
    verdict, promoted = promotion(registry, version, promote=params.promote, reason=params.reason, by="recommend")
    for part in ("checkpoint", "champion"):  # a landed run is never resumed, and these are most of its folder
        shutil.rmtree(run_dir / part, ignore_errors=True)
    told = {key: metrics.get(key) for key in ("serving", "hr", "ndcg", "coverage", "left_out", "n_users", "n_items", "n_interactions")}
    named = {"version": version.version, "task": RECOMMEND.name, "dataset": outcome["dataset"]}
    return {**named, **told, "verdict": verdict, "promoted": promoted}


def _resolved(champion: ModelVersion | None, params: Params) -> Params:
    """The parameters with the present version's choices where they are asked for, or the demo shop where there is none."""
    before = dict(champion.metrics.get("params") or {}) if champion else {}
    update: dict[str, Any] = {"dataset": params.dataset or before.get("dataset") or RECOMMEND.default_dataset}
    if params.models.strip() == CHAMPION:
        update |= {"models": before.get("models", "auto"), "minutes": before.get("minutes", params.minutes)}
    return params.model_copy(update=update)


def _names(params: Params) -> list[str]:
    return params.models.replace(",", " ").split() or [offers.AUTO]


def _taken_along(registry: Registry, champion: ModelVersion, target: Path) -> str:
    """The present version's files under the run's own name for them; "" where they are damaged: then there is nothing to compare with."""
    try:
        shutil.rmtree(target, ignore_errors=True)
        turns.linked(registry.verified(champion), target)
    except (Tampered, OSError) as error:
        log.warning("%s cannot be measured beside the new version: %s", champion.version, error)
        return ""
    return champion.version


def _before(folder: Path, version: str) -> Shelf | None:
    try:
        return Shelf.load(folder, version=version) if version else None
    except BadRecommender as error:
        log.warning("the version before is not measured: %s", error)
        return None


JOB = Job(
    name="recommend",
    title="Train recommendations",
    summary="Fits recommenders on a log of interactions and what people did here since, measures them, and lets the gate promote them.",
    kind="heavy",
    params=Params,
    prepare=prepare,
    work=work,
    land=land,
    schedule="30 2 * * *",
    scheduled_params={"models": CHAMPION, "only_if_new": True, "reason": "Nightly refit."},
    timeout_s=16 * 3600,
)
