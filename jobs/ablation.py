"""The regularisation study's job: the same rows and seeds with and without each regulariser, and perhaps a new default.

prepare freezes the data and every choice into the run's folder; work reads nothing but that folder and keeps each finished cell, so that a
run that died goes on; land stores the study once, however often it is called, and makes a winner the task's default where it was asked to.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator

from fmcore import tasks
from fmcore.config import settings
from fmcore.data import catalogue
from fmcore.data.catalogue import LabelledData
from fmcore.lab import ablation, defaults, studies
from fmcore.lab.ablation_cells import PLAIN, Ablation
from fmcore.lab.defaults import Choice
from fmcore.nouns import Job, Report
from fmcore.store.store import Store
from jobs.finetune import FEW_SHOT_EPOCHS
from jobs.folder import read_json

SETTINGS, OUTCOME = "settings.json", "study.json"


class Params(BaseModel, extra="forbid"):
    task: Literal[tuple(tasks.TASKS)] = Field("sentiment", description="What the model is for.")
    dataset: str = Field("", title="Data set (empty: the task's demo data)", max_length=1000, description="A data set of the catalogue, or the path of a CSV file with the columns text,label; empty: the task's demo data.")  # noqa: E501  # fmt: skip
    shots: int = Field(32, title="Shots per label (0: all rows)", ge=0, le=1000, description="Training rows a label, drawn anew for each seed; 0 takes all rows, which takes hours on a CPU. A label with fewer rows lowers it for all.")  # noqa: E501  # fmt: skip
    seeds: int = Field(5, ge=1, le=20, description="How often each row of the table is trained; the intervals are over them.")
    minutes: float = Field(60.0, title="Minutes (0: as long as it takes)", ge=0, le=900, allow_inf_nan=False, description="Time on the wall. Seed by seed; what does not fit is named in the study.")  # noqa: E501  # fmt: skip
    regularisers: str = Field("", title="Regularisers (empty: all)", max_length=300, description="Names with commas between them: weight_decay_0, weight_decay_0.1, dropout_0, dropout_0.3, label_smoothing, r_drop, synonym, back_template, token_dropout, early_stopping; empty takes all.")  # noqa: E501  # fmt: skip
    adopt: Literal["gate", "never"] = Field("never", description="gate: a winner that beats what the task is trained with now becomes its default, with this study as the reason. never: the study changes nothing.")  # noqa: E501  # fmt: skip
    recipe: Literal["full", "lora"] = Field("full", description="What is tuned: every layer, or small adapters.")
    epochs: int = Field(0, title="Epochs (0: automatic)", ge=0, le=50, description="Passes over the training rows; 0: the profile's, or 8 for few shots.")  # noqa: E501  # fmt: skip
    seed: int = Field(0, ge=0, le=2**31 - 1, description="The first seed: the same seeds draw the same rows and train the same weights.")

    @field_validator("regularisers")
    @classmethod
    def _known(cls, value: str) -> str:
        strangers = [name for name in named(value) if name not in ablation.NAMES]
        if strangers:
            raise ValueError(f"there is no regulariser {strangers[0][:40]!r}; regularisers: {', '.join(ablation.NAMES)}")
        return value


def prepare(store: Store, params: Params, run_dir: Path) -> None:
    """Write data/ and settings.json.

    Raises what the catalogue raises for a data set that is not there or cannot be learnt from, and WrongDataset for another task's.
    """
    params = params.model_copy(update={"dataset": params.dataset or tasks.task(params.task).default_dataset})
    data = catalogue.load(params.dataset)
    tasks.check_fits(params.task, data.name, data.labels)
    data.save(run_dir / "data")
    smallest = int(data.train["label"].value_counts().min())
    choice = defaults.chosen(store, params.task) or Choice(tasks.task(params.task).recipe)
    chosen = {
        "params": params.model_copy(update={"shots": min(params.shots, smallest)}).model_dump(),
        "base": choice.base or settings().base_model,
        "present": present(params.task, choice),
    }
    (run_dir / SETTINGS).write_text(json.dumps(chosen, indent=1), encoding="utf-8")


def work(run_dir: Path, report: Report) -> dict[str, Any]:
    """Make the study and write run_dir/study.json. Returns what it says; finished cells in the checkpoint are gone on after."""
    chosen = read_json(run_dir / SETTINGS)
    params, data, limits = Params(**chosen["params"]), LabelledData.load(run_dir / "data"), settings().limits()
    asked = Ablation(
        base=chosen["base"], recipe=params.recipe, shots=params.shots, seeds=params.seeds,
        epochs=params.epochs or (FEW_SHOT_EPOCHS if params.shots else limits.epochs), batch=limits.batch, max_tokens=limits.max_tokens,
        minutes=params.minutes, names=named(params.regularisers), present=chosen["present"], resamples=limits.bootstrap_resamples,
        seed=params.seed, threads=settings().training_threads(),
    )  # fmt: skip
    content = ablation.run(data, asked, report, folder=run_dir / "checkpoint")
    outcome = {"task": params.task, "dataset": data.name, "content": content}
    (run_dir / OUTCOME).write_text(json.dumps(outcome, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    return outline(content)


def land(store: Store, run_dir: Path) -> dict[str, Any]:
    """Store the study and, where it was asked to, the default. The same answer however often it is called."""
    chosen, outcome = read_json(run_dir / SETTINGS), read_json(run_dir / OUTCOME)
    params, content = Params(**chosen["params"]), outcome["content"]
    study = studies.keep(store, kind="ablation", task=outcome["task"], dataset=outcome["dataset"], run_id=run_dir.name, content=content)
    adopted, why = _adopted(store, params, content, base=chosen["base"], study_id=study.id)
    shutil.rmtree(run_dir / "checkpoint", ignore_errors=True)  # a landed run is never resumed
    return {"study": study.id, "task": outcome["task"], "dataset": outcome["dataset"], **outline(content), "adopted": adopted, "why": why}


def named(listed: str) -> tuple[str, ...]:
    """The names in "r_drop, synonym"."""
    return tuple(listed.replace(",", " ").split())


def present(task: str, choice: Choice) -> dict[str, Any]:
    """What recipe auto changes of the plain recipe for this task now."""
    options = {"consistency": tasks.task(task).consistency, **choice.options}
    return {name: value for name, value in options.items() if name in PLAIN and value != PLAIN[name]}


def outline(content: dict[str, Any]) -> dict[str, Any]:
    """A study in a line or two, for the run's own result."""
    return {
        "sentence": content["sentence"], "winner": content["winner"], "n_rows": len(content["rows"]),
        "n_left_out": len(content["left_out"]),
    }  # fmt: skip


def _adopted(store: Store, params: Params, content: dict[str, Any], *, base: str, study_id: str) -> tuple[bool, str]:
    """(whether the winner is the task's default by this study, why or why not)."""
    if params.adopt != "gate":
        return False, "The study was not asked to change the default."
    if not content["adoptable"]:
        return False, content["why"]
    now = defaults.chosen(store, params.task) or Choice(tasks.task(params.task).recipe)
    if now.study_id != study_id and (now.recipe != params.recipe or (now.base or settings().base_model) != base):
        return False, f"The task is trained with the recipe {now.recipe}, not with the one that was studied: {params.recipe} from {base}."
    title = next(row["title"] for row in content["rows"] if row["name"] == content["winner"])
    rows = f"{params.shots} rows a label" if params.shots else "all rows"
    reason = f"{title}, studied with {rows} of {params.dataset}: {content['why']}."
    choice = Choice(params.recipe, now.base, content["options"])
    return defaults.adopted(store, params.task, choice, study_id=study_id, reason=reason, by="ablation study"), reason


JOB = Job(
    name="ablation",
    title="What helps against overfitting",
    summary="Trains a task with and without each regulariser and augmentation on the same rows and seeds, and says which help.",
    kind="heavy",
    params=Params,
    prepare=prepare,
    work=work,
    land=land,
    timeout_s=16 * 3600,
)
