"""The compression job: a served model becomes a smaller, faster one of the same task, which serves only if the gate lets it.

prepare freezes the teacher's verified folder, its data and every choice into the run's folder; work reads nothing but that folder (and the
base model's weights); land takes the variant in and asks the gate. A variant that fails the gate is not promoted, whatever was asked.
"""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, Field

from fmcore import tasks
from fmcore.config import settings
from fmcore.data.catalogue import LabelledData
from fmcore.data.corpus import Corpus, names_of
from fmcore.explain import heldout
from fmcore.models import efficiency_gate
from fmcore.models.registry import Registry, UnknownModel
from fmcore.nouns import FMError, Job, ModelVersion, Report
from fmcore.store.store import Store
from jobs.folder import read_json
from jobs.promoting import promotion

SETTINGS, OUTCOME, TEXTS = "settings.json", "outcome.json", "texts.parquet"
SECOND = "second"
SECONDS = ("onnx", "int8", "prune", "distill")
"""What may stand behind a static model: whatever has an encoder."""
MOST_TEXTS = 20_000
"""Texts without labels: the teacher reads each of them once, which takes some minutes."""


class NoSecond(FMError):
    """A version that cannot be the second stage of a cascade."""


class CompressedAlready(FMError):
    """A version that was itself made from another one."""


class Params(BaseModel, extra="forbid"):
    task: Literal[tuple(tasks.TASKS)] = Field("intent", description="Which task's model is made smaller.")
    version: str = Field("", title="Version (empty: the champion)", max_length=80, description="The model to start from; empty takes the champion, or the one that a compressed champion was made from.")  # noqa: E501  # fmt: skip
    method: Literal[tuple(efficiency_gate.ALLOWED)] = Field("distill", description="onnx: the same weights as ONNX fp32. int8: weights in 8 bits. prune: heads, feed-forward units and layers that matter least are removed. distill: a student of few layers learns from the model. static: a table of word vectors. cascade: the static one first, the full model for doubtful texts.")  # noqa: E501  # fmt: skip
    layers: int = Field(0, title="Layers (0: automatic)", ge=0, le=48, description="Layers of the student, or left by pruning; 0: 3 for a student, all for pruning.")  # noqa: E501  # fmt: skip
    keep: float = Field(0.5, title="Share kept", ge=0.01, le=1.0, allow_inf_nan=False, description="Share of attention heads and feed-forward units that pruning keeps.")  # noqa: E501  # fmt: skip
    minutes: float = Field(0.0, title="Minutes of training (0: automatic)", ge=0, le=24 * 60, allow_inf_nan=False, description="Longest time for training (prune, distill, static); 0: a fixed number of passes, which a seed repeats exactly.")  # noqa: E501  # fmt: skip
    corpus: str = Field("", title="Texts without labels (empty: none)", max_length=1000, description="Names of text collections, with commas between: a student and a static table also learn what the model says of these. As for pretraining: data sets, stocknet, demo_news, paths of files.")  # noqa: E501  # fmt: skip
    second: str = Field("", title="Second stage of a cascade (empty: the model itself)", max_length=80, description="cascade: a student of the same model, which then answers what the static one is unsure of; empty: the model itself.")  # noqa: E501  # fmt: skip
    promote: Literal["gate", "always", "never"] = Field("gate", description="gate, always: serve the variant if the gate passes it; a compressed model that the gate refuses never serves. never: keep it beside the others.")  # noqa: E501  # fmt: skip
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of every random choice: the same seed trains the same weights.")


def prepare(store: Store, params: Params, run_dir: Path) -> None:
    """Write teacher/, data/, settings.json and, where a corpus was named, texts.parquet.

    Raises UnknownModel, CompressedAlready, Tampered, NotHeld when the data set is not here, BadTeacher when it is not the one that the
    teacher was trained on, NoSecond, and BadCorpus.
    """
    from fmcore.training import compress

    registry = Registry(store)
    version = _teacher(registry, params)
    folder = registry.verified(version)
    data = heldout.data_of(version)
    shutil.copytree(folder, run_dir / "teacher")
    described = _described(version)
    compress.Teacher.open(run_dir / "teacher", **described).learnt_from(data)
    data.save(run_dir / "data")
    if params.corpus:
        corpus = Corpus.of(names_of(params.corpus), seed=params.seed)
        spoken = (sentence for document in corpus.documents("train") for sentence in document)
        pd.DataFrame({"text": list(itertools.islice(spoken, MOST_TEXTS))}).to_parquet(run_dir / TEXTS, index=False)
    chosen = {"params": params.model_dump(), "teacher": described, "base": version.base, "dataset": version.dataset}
    if second := _second(registry, params, version):
        shutil.copytree(registry.verified(second), run_dir / SECOND)
        chosen["second"] = _described(second)
    (run_dir / SETTINGS).write_text(json.dumps(chosen, indent=1), encoding="utf-8")


def work(run_dir: Path, report: Report) -> dict[str, Any]:
    """Compress and write run_dir/model with its manifest. Returns the figures; a checkpoint in run_dir is gone on from."""
    from fmcore.training import compress

    chosen = read_json(run_dir / SETTINGS)
    params, data, out = Params(**chosen["params"]), LabelledData.load(run_dir / "data"), run_dir / "model"
    shutil.rmtree(out, ignore_errors=True)  # what an attempt before this one left unfinished
    limits, task = settings().limits(), tasks.task(params.task)
    teacher = compress.Teacher.open(run_dir / "teacher", **chosen["teacher"])
    second = compress.Teacher.open(run_dir / SECOND, **chosen["second"]) if chosen.get("second") else None
    asked = compress.Compression(
        method=params.method, layers=params.layers, keep=params.keep, minutes=params.minutes, seed=params.seed, texts=_texts(run_dir),
        batch=limits.batch, threads=settings().training_threads(), random_features=limits.random_features,
        resamples=limits.bootstrap_resamples, lexical=task.lexical, in_scope_share=task.in_scope_share, second=second,
    )  # fmt: skip
    metrics = compress.train(teacher, data, asked, out, report, checkpoint=run_dir / "checkpoint")
    outcome = {"metrics": metrics, "synthetic": data.synthetic}
    (run_dir / OUTCOME).write_text(json.dumps(outcome, allow_nan=False), encoding="utf-8")
    return {key: metrics.get(key) for key in ("n", "accuracy", "form", "compressed")}


def land(store: Store, run_dir: Path) -> dict[str, Any]:
    """Adopt the variant and ask the gate; it serves if it passes and that was asked. The same answer however often it is called."""
    chosen, metrics = read_json(run_dir / SETTINGS), read_json(run_dir / OUTCOME)["metrics"]
    params, registry = Params(**chosen["params"]), Registry(store)
    version = registry.adopt(
        run_dir / "model", task=params.task, recipe=params.method, dataset=chosen["dataset"], base=chosen["base"], metrics=metrics,
        run_id=run_dir.name,
    )  # fmt: skip
    wanted = "never" if params.promote == "never" else "gate"
    verdict, promoted = promotion(registry, version, promote=wanted, reason="", by="compress")
    for folder in ("checkpoint", "teacher", SECOND):
        shutil.rmtree(run_dir / folder, ignore_errors=True)  # a landed run is never resumed, and these are most of its folder
    return {
        "version": version.version, "task": params.task, "dataset": chosen["dataset"], "recipe": params.method,
        "teacher": chosen["teacher"]["version"], "accuracy": metrics.get("accuracy"), "form": metrics.get("form"),
        "compressed": metrics.get("compressed"), "verdict": verdict, "promoted": promoted,
    }  # fmt: skip


def _teacher(registry: Registry, params: Params) -> ModelVersion:
    """The version asked for; without one the champion, or what a compressed champion was made from."""
    version = registry.get(params.task, params.version) if params.version else registry.resolve(params.task)
    if not efficiency_gate.is_compressed(version):
        return version
    named = str(efficiency_gate.facts_of(version).get("teacher") or "")
    if params.version:
        hint = f"Start from {named}: losses add up." if named else "Start from the model it was made from: losses add up."
        raise CompressedAlready(f"{version.version} is a compressed model itself.", hint)
    if not named:
        raise UnknownModel(f"{version.version} does not say which model it was made from.", "Name the version to start from.")
    return registry.get(params.task, named)


def _described(version: ModelVersion) -> dict[str, Any]:
    """What `Teacher.open` needs to know of a version's folder."""
    return {"version": version.version, "sha256": version.sha256, "metrics": dict(version.metrics)}


def _second(registry: Registry, params: Params, teacher: ModelVersion) -> ModelVersion | None:
    """The student that a cascade is to go on to. Raises NoSecond for another method, another teacher's, or one that is no encoder."""
    if not params.second:
        return None
    version = registry.get(params.task, params.second)
    made = efficiency_gate.facts_of(version)
    if params.method != "cascade" or made.get("teacher") != teacher.version or made.get("method") not in SECONDS:
        said = f"{version.version} cannot be the second stage of a cascade from {teacher.version}."
        raise NoSecond(said, f"Name a version that was made from it by {', '.join(SECONDS)}, with method cascade.")
    return version


def _texts(run_dir: Path) -> tuple[str, ...]:
    path = run_dir / TEXTS
    return tuple(pd.read_parquet(path)["text"]) if path.is_file() else ()


JOB = Job(
    name="compress",
    title="Make a model smaller and faster",
    summary="Makes a small fast version of a model (int8, pruned, student, static, cascade), measures what it lost, and asks the gate.",
    kind="heavy",
    params=Params,
    prepare=prepare,
    work=work,
    land=land,
    timeout_s=6 * 3600,
)
