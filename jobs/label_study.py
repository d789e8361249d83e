"""The label study's job: one data set and every method, from no label to all of them, become curves, advice and perhaps a new default.

prepare freezes the data and every choice into the run's folder; work reads nothing but that folder and keeps each finished cell, so that a
run that died goes on; land stores the study once, however often it is called, and makes a clear winner the task's default where it was
asked to.
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
from fmcore.lab import defaults, label_study, studies
from fmcore.lab.defaults import Choice
from fmcore.models import bases
from fmcore.nouns import Job, Report
from fmcore.store.store import Store
from jobs.folder import read_json

SETTINGS, OUTCOME = "settings.json", "study.json"
ALL = "all"


class Params(BaseModel, extra="forbid"):
    task: Literal[tuple(tasks.TASKS)] = Field("sentiment", description="What the model is for.")
    dataset: str = Field("", title="Data set (empty: the task's demo data)", max_length=1000, description="A data set of the catalogue, or the path of a CSV file with the columns text,label; empty: the task's demo data.")  # noqa: E501  # fmt: skip
    methods: str = Field("", title="Methods (empty: all)", max_length=300, description="Names with commas between them: zero_shot, frozen, adapted, scratch, lora, full, setfit; empty takes all.")  # noqa: E501  # fmt: skip
    shots: str = Field("0,1,2,4,8,16,32,64,all", max_length=200, description="Labelled examples a class, with commas between them; 0 is without labels, all is every training row. Numbers that a class has too few rows for are left out.")  # noqa: E501  # fmt: skip
    seeds: int = Field(5, ge=1, le=20, description="How often each training is made, each time with other drawn rows; the intervals are over them.")  # noqa: E501  # fmt: skip
    minutes: float = Field(60.0, title="Minutes (0: as long as it takes)", ge=0, le=900, allow_inf_nan=False, description="Time on the wall. What is cheap comes first, over the whole curve; what does not fit is named in the study.")  # noqa: E501  # fmt: skip
    base: str = Field("", title="Base model (empty: the desk's)", max_length=300, description="The pretrained encoder: minilm, a folder, a hub id, or base:NAME of one that was pretrained here; empty takes the desk's.")  # noqa: E501  # fmt: skip
    test_rows: int = Field(1000, title="Test rows at most (0: all)", ge=0, le=1_000_000, description="Every cell answers the same test rows: so many at most, one sample of them.")  # noqa: E501  # fmt: skip
    adopt: Literal["gate", "never"] = Field("never", description="gate: a clear winner becomes the task's recipe auto, with this study as its reason. never: the study changes nothing.")  # noqa: E501  # fmt: skip
    adopt_at: str = Field(ALL, title="Adopt the winner at", max_length=8, description="The number of examples a class whose winner may become the default; all for every row.")  # noqa: E501  # fmt: skip

    @field_validator("shots", "adopt_at")
    @classmethod
    def _numbers(cls, value: str) -> str:
        for word in value.replace(",", " ").split():
            if word != ALL and not (word.isdigit() and int(word) <= 10_000):
                raise ValueError(f"{word[:20]!r} is no number of examples: use whole numbers up to 10000, or all")
        if not value.replace(",", " ").split():
            raise ValueError("name at least one number of examples")
        return value

    @field_validator("methods")
    @classmethod
    def _known(cls, value: str) -> str:
        strangers = [word for word in value.replace(",", " ").split() if word not in label_study.METHODS]
        if strangers:
            raise ValueError(f"there is no method {strangers[0][:40]!r}; methods: {', '.join(label_study.METHODS)}")
        return value


def prepare(store: Store, params: Params, run_dir: Path) -> None:
    """Write data/ and settings.json.

    Raises what the catalogue raises for a data set that is not there or cannot be learnt from, and WrongDataset for another task's.
    """
    params = params.model_copy(update={"dataset": params.dataset or tasks.task(params.task).default_dataset})
    data = catalogue.load(params.dataset)
    tasks.check_fits(params.task, data.name, data.labels)
    data.save(run_dir / "data")
    base = params.base or settings().base_model
    adapted, why = _adapted(store, base=base, synthetic=data.synthetic)
    chosen = {
        "params": params.model_dump(), "base": base, "adapted": adapted, "no_adapted": why,
        "present": _present(store, params.task, base=base, adapted=adapted),
    }  # fmt: skip
    (run_dir / SETTINGS).write_text(json.dumps(chosen, indent=1), encoding="utf-8")


def work(run_dir: Path, report: Report) -> dict[str, Any]:
    """Make the study and write run_dir/study.json. Returns what it says; finished cells in the checkpoint are gone on after."""
    chosen = read_json(run_dir / SETTINGS)
    params, data, limits = Params(**chosen["params"]), LabelledData.load(run_dir / "data"), settings().limits()
    asked = label_study.Asked(
        task=params.task, methods=tuple(params.methods.replace(",", " ").split()) or tuple(label_study.METHODS),
        shots=numbers(params.shots), seeds=params.seeds, minutes=params.minutes, base=chosen["base"], adapted=chosen["adapted"],
        no_adapted=chosen["no_adapted"], test_rows=params.test_rows, max_tokens=limits.max_tokens, batch=limits.batch, epochs=limits.epochs,
        threads=settings().training_threads(), resamples=limits.bootstrap_resamples, present=chosen["present"],
        adopt_at=numbers(params.adopt_at)[0],
    )  # fmt: skip
    content = label_study.run(data, asked, run_dir / "checkpoint", report)
    outcome = {"task": params.task, "dataset": data.name, "content": content}
    (run_dir / OUTCOME).write_text(json.dumps(outcome, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    return _outline(content)


def land(store: Store, run_dir: Path) -> dict[str, Any]:
    """Store the study and, where it was asked to, the default. The same answer however often it is called."""
    chosen, outcome = read_json(run_dir / SETTINGS), read_json(run_dir / OUTCOME)
    params, content = Params(**chosen["params"]), outcome["content"]
    study = studies.keep(store, kind="labels", task=outcome["task"], dataset=outcome["dataset"], run_id=run_dir.name, content=content)
    winner, adopted = content["winner"], False
    if params.adopt == "gate" and winner["clear"]:
        base = chosen["adapted"] if winner["method"] == "adapted" else params.base
        choice = Choice(winner["recipe"], base)
        adopted = defaults.adopted(store, outcome["task"], choice, study_id=study.id, reason=winner["reason"], by="label study")
    shutil.rmtree(run_dir / "checkpoint", ignore_errors=True)  # a landed run is never resumed
    return {"study": study.id, "task": outcome["task"], "dataset": outcome["dataset"], **_outline(content), "adopted": adopted}


def numbers(said: str) -> tuple[int, ...]:
    """The numbers of examples in "0,1,8,all", each once."""
    return tuple(dict.fromkeys(label_study.ALL if word == ALL else int(word) for word in said.replace(",", " ").split()))


def _outline(content: dict[str, Any]) -> dict[str, Any]:
    return {
        "sentence": content["sentence"], "n_points": len(content["points"]), "n_left_out": len(content["left_out"]),
        "winner": content["winner"]["reason"],
    }  # fmt: skip


def _adapted(store: Store, *, base: str, synthetic: bool) -> tuple[str, str]:
    """(the newest base on the shelf that goes on from this one, why there is none)."""
    continued = [b for b in bases.listed(store.home) if b.facts.get("start") == "continue" and b.facts.get("base") == base]
    fitting = [b for b in continued if synthetic or not b.facts.get("synthetic")]
    if fitting:
        return bases.PREFIX + fitting[0].name, ""
    if continued:
        return "", f"The shelf's bases that go on from {base} learnt from made-up texts; this data is real."
    return "", f"No base on the shelf goes on from {base}: run the job pretrain with start=continue."


def _present(store: Store, task: str, *, base: str, adapted: str) -> str:
    """The method that recipe auto trains this task with now; "" where the study has no such method."""
    choice = defaults.chosen(store, task) or Choice(tasks.task(task).recipe)
    if choice.recipe == "linear" and adapted and choice.base == adapted:
        return "adapted"
    if choice.base not in ("", base):
        return ""
    own = [m.name for m in label_study.METHODS.values() if m.recipe == choice.recipe and m.name != "adapted"]
    return own[0] if own else ""


JOB = Job(
    name="label_study",
    title="How many labels are needed",
    summary="Trains every method with none to all labels, several seeds each: curves with intervals, the cost, and which to use when.",
    kind="heavy",
    params=Params,
    prepare=prepare,
    work=work,
    land=land,
    timeout_s=16 * 3600,
)
