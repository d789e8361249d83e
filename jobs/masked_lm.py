"""The masked language model's job: the texts that the live versions learnt from become proposals for words to swap in explanations.

prepare freezes the texts into the run's folder, training rows only; work reads nothing but that folder; land puts the model in the
place of the one before it, however often it is called.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, Field

from fmcore import tasks
from fmcore.config import settings
from fmcore.data import catalogue
from fmcore.data.catalogue import LabelledData
from fmcore.models import masked_lm
from fmcore.models.registry import Registry
from fmcore.nouns import FMError, Job, Report
from fmcore.store.store import Store
from jobs.folder import read_json

log = logging.getLogger("fm.jobs")

TEXTS, SETTINGS, FIGURES = "texts.parquet", "settings.json", "outcome.json"


class Params(BaseModel, extra="forbid"):
    dataset: str = Field("", title="Data set (empty: those of the live models)", max_length=1000, description="A data set of the catalogue, or the path of a CSV file with the columns text,label; empty: what the live model of each task learnt from, or the task's demo data.")  # noqa: E501  # fmt: skip
    steps: int = Field(0, title="Steps (0: automatic)", ge=0, le=200_000, description="Training steps; 0 takes the profile's, which is some minutes on two cores.")  # noqa: E501  # fmt: skip
    layers: int = Field(2, ge=0, le=48, description="How many of the encoder's last layers learn beside the new head.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of every random choice: the same seed trains the same weights.")


def prepare(store: Store, params: Params, run_dir: Path) -> None:
    """Write texts.parquet and settings.json. Raises what the catalogue raises for a data set that a person named."""
    sets = [catalogue.load(params.dataset)] if params.dataset else _live(store)
    texts = _training_texts(sets)
    pd.DataFrame({"text": texts}).to_parquet(run_dir / TEXTS, index=False)
    chosen = {"params": params.model_dump(), "base": settings().base_model, "sources": [data.name for data in sets]}
    (run_dir / SETTINGS).write_text(json.dumps(chosen, indent=1), encoding="utf-8")


def work(run_dir: Path, report: Report) -> dict[str, Any]:
    """Train and write run_dir/model with its manifest. Returns the figures; a checkpoint in run_dir is gone on from."""
    from fmcore.training import mask_filling

    chosen = read_json(run_dir / SETTINGS)
    params, limits, out = Params(**chosen["params"]), settings().limits(), run_dir / "model"
    shutil.rmtree(out, ignore_errors=True)  # what an attempt before this one left unfinished
    filling = mask_filling.Filling(
        base=chosen["base"], steps=params.steps or limits.masking_steps, batch=limits.batch, layers=params.layers,
        max_tokens=limits.max_tokens, seed=params.seed, threads=settings().training_threads(),
    )  # fmt: skip
    texts = pd.read_parquet(run_dir / TEXTS)["text"].tolist()
    figures = mask_filling.train(texts, filling, out, report, checkpoint=run_dir / "checkpoint", sources=chosen["sources"])
    (run_dir / FIGURES).write_text(json.dumps(figures, allow_nan=False), encoding="utf-8")
    return figures


def land(store: Store, run_dir: Path) -> dict[str, Any]:
    """Put the model in place. The same answer and the same model however often it is called."""
    figures = read_json(run_dir / FIGURES)
    masked_lm.put_in_place(run_dir / "model", store.home, name=run_dir.name)
    shutil.rmtree(run_dir / "checkpoint", ignore_errors=True)  # a landed run is never resumed
    return {"name": run_dir.name, **figures}


def _live(store: Store) -> list[LabelledData]:
    """What the live version of each task learnt from; its demo data where there is none, or where that is not here any more."""
    registry, found = Registry(store), {}
    for task in tasks.TASKS.values():
        champion = registry.champion(task.name)
        named = dict((champion.metrics.get("params") or {}) if champion else {}).get("dataset") or task.default_dataset
        try:
            data = catalogue.load(named)
        except FMError as error:
            log.warning("the data of the live %s model is not here (%s): its demo data is taken", task.name, error.message)
            data = catalogue.load(task.default_dataset)
        found[data.split_hash] = data
    return list(found.values())


def _training_texts(sets: Iterable[LabelledData]) -> list[str]:
    """The training texts, less those that any of these sets holds back."""
    sets = list(sets)
    held = {catalogue.folded(t) for data in sets for part in (data.validation, data.test) for t in part["text"]}
    return [t for data in sets for t in data.train["text"] if catalogue.folded(t) not in held]


JOB = Job(
    name="masked_lm",
    title="Learn which words fit",
    summary="Trains a small masked language model on the live models' training texts; explanations swap words with what it proposes.",
    kind="heavy",
    params=Params,
    prepare=prepare,
    work=work,
    land=land,
    schedule="0 5 * * sun",
    timeout_s=2 * 3600,
)
