"""The adaptation study's job: the base model adapted in several ways for minutes each, measured with few labels; which of them helped.

prepare freezes the labelled rows and names the corpus, training-side texts only; work reads the run's folder and that corpus, and an arm
that is finished is not made twice; land stores the study once, and puts the base that helped most on the shelf where that was asked for.
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
from fmcore.data import corpus as corpora
from fmcore.data.catalogue import LabelledData
from fmcore.lab import adaptation, studies
from fmcore.models import bases
from fmcore.nouns import Job, Report
from fmcore.store.store import Store
from jobs.folder import read_json

SETTINGS, OUTCOME, ADAPTED, TEXTS, NEWS = "settings.json", "study.json", "adapted", "texts.jsonl", "news.parquet"


class Params(BaseModel, extra="forbid"):
    task: Literal[tuple(tasks.TASKS)] = Field("sentiment", description="What the few labels are for.")
    dataset: str = Field("", title="Data set (empty: the task's demo data)", max_length=1000, description="A data set of the catalogue, or the path of a CSV file with the columns text,label; empty: the task's demo data.")  # noqa: E501  # fmt: skip
    corpus: str = Field("", title="Corpus (empty: the data set's training texts)", max_length=4000, description="Texts to adapt to, without labels: data sets, stocknet, news, or paths, with commas between them; empty: the training texts of the data set.")  # noqa: E501  # fmt: skip
    shots: int = Field(16, ge=1, le=1000, description="Labelled examples a class that each head learns from.")
    seeds: int = Field(20, ge=2, le=200, description="How often the examples are drawn; every arm gets the same draws.")
    minutes: float = Field(15.0, gt=0, le=600, allow_inf_nan=False, description="Training time on the wall, shared equally by the objectives.")  # noqa: E501  # fmt: skip
    steps: int = Field(0, title="Steps (0: by the clock)", ge=0, le=1_000_000, description="Training steps of each objective, for a run that can be repeated to the bit; 0 lets the minutes end it.")  # noqa: E501  # fmt: skip
    objectives: str = Field("", title="Objectives (empty: all)", max_length=200, description="Names with commas between them: mlm, simcse, tsdae, polarity; empty takes all.")  # noqa: E501  # fmt: skip
    keep: bool = Field(True, description="Put the base that helped most on the shelf of pretrained bases, if one did.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the training's random choices.")

    @field_validator("objectives")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            adaptation.objectives_of(value)
        except adaptation.UnknownObjective as unknown:
            raise ValueError(str(unknown)) from unknown
        return value


def prepare(store: Store, params: Params, run_dir: Path) -> None:
    """Write data/, settings.json, and the texts of a corpus that is not on the disk by itself.

    Raises what the catalogue and the corpus raise for what is not there or cannot be learnt from, and WrongDataset for another task's set.
    """
    params = params.model_copy(update={"dataset": params.dataset or tasks.task(params.task).default_dataset})
    data = catalogue.load(params.dataset)
    tasks.check_fits(params.task, data.name, data.labels)
    data.save(run_dir / "data")
    names = corpora.names_of(params.corpus)
    if not names and params.dataset in catalogue.ENTRIES:
        names = (params.dataset,)
    elif not names:  # a file holds the rows that are held back too
        names = (str(run_dir / TEXTS),)
        lines = (json.dumps({"text": text}, ensure_ascii=False) for text in data.train["text"])
        (run_dir / TEXTS).write_text("\n".join(lines), encoding="utf-8")
    if corpora.NEWS in names:
        corpora.export_news(store, run_dir / NEWS)
    chosen = {"params": params.model_dump(), "corpus": list(names), "base": settings().base_model}
    (run_dir / SETTINGS).write_text(json.dumps(chosen, indent=1), encoding="utf-8")


def work(run_dir: Path, report: Report) -> dict[str, Any]:
    """Adapt and measure, and write run_dir/study.json. Returns what it says."""
    chosen = read_json(run_dir / SETTINGS)
    params, data, limits = Params(**chosen["params"]), LabelledData.load(run_dir / "data"), settings().limits()
    report.progress(0.0, "Reading the corpus")
    corpus = corpora.Corpus.of(chosen["corpus"], seed=params.seed, news=run_dir / NEWS)
    asked = adaptation.Asked(
        objectives=adaptation.objectives_of(params.objectives), base=chosen["base"], shots=params.shots, seeds=params.seeds,
        minutes=params.minutes, steps=params.steps, batch=limits.batch, max_tokens=limits.max_tokens, seed=params.seed,
        threads=settings().training_threads(), resamples=limits.bootstrap_resamples,
    )  # fmt: skip
    content = adaptation.run(data, corpus, asked, run_dir / ADAPTED, report)
    outcome = {"task": params.task, "dataset": data.name, "content": content}
    (run_dir / OUTCOME).write_text(json.dumps(outcome, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    return {"sentence": content["sentence"], "best": content["best"]}


def land(store: Store, run_dir: Path) -> dict[str, Any]:
    """Store the study, put its best base on the shelf. The same answer however often it is called."""
    params, outcome = Params(**read_json(run_dir / SETTINGS)["params"]), read_json(run_dir / OUTCOME)
    content = outcome["content"]
    study = studies.keep(
        store, kind="adaptation", task=outcome["task"], dataset=outcome["dataset"], run_id=run_dir.name, content=content
    )  # fmt: skip
    kept = ""
    if params.keep and content["best"]:
        kept = bases.put_in_place(run_dir / ADAPTED / content["best"], store.home, name=f"{content['best']}-{run_dir.name}").name
    shutil.rmtree(run_dir / ADAPTED, ignore_errors=True)  # a landed run is never resumed
    return {"study": study.id, "task": outcome["task"], "dataset": outcome["dataset"], "sentence": content["sentence"], "base": kept}


JOB = Job(
    name="adaptation",
    title="Compare ways to adapt the base model",
    summary="Adapts the base to a field's texts by several objectives without labels, and measures with few labels which of them helped.",
    kind="heavy",
    params=Params,
    prepare=prepare,
    work=work,
    land=land,
    timeout_s=12 * 3600,
)
