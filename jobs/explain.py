"""The explain job: one version looked at as a whole, on labelled rows that it did not learn from.

prepare freezes which model and which rows; work reads nothing but the model's folder and the run's; land stores the overview once,
however often it is called.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from fmcore import tasks
from fmcore.config import settings
from fmcore.data.catalogue import LabelledData
from fmcore.explain import heldout, overview
from fmcore.models.registry import Registry
from fmcore.nouns import Job, Report
from fmcore.store.store import Store
from jobs.folder import read_json

TOPIC = "topic"


class Params(BaseModel, extra="forbid"):
    task: Literal[tuple(tasks.TASKS)] = Field("intent", description="What the model is for.")
    version: str = Field("", title="Version (empty: the champion)", max_length=80, description="The version to look at; empty takes the one that serves.")  # noqa: E501  # fmt: skip
    n_texts: int = Field(0, title="Texts to explain (0: automatic)", ge=0, le=20_000, description="Held-out texts whose words are weighed, drawn evenly over the labels; 0 takes 300, or 12 a label where that is more.")  # noqa: E501  # fmt: skip
    budget: int = Field(40, title="Calls of the model a text", ge=8, le=400, description="How many texts the model may be asked for to explain one; a long text may take four times that.")  # noqa: E501  # fmt: skip
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of every random choice: the same seed gives the same overview.")


def prepare(store: Store, params: Params, run_dir: Path) -> None:
    """Write data/, rows.parquet and settings.json.

    Raises UnknownModel, Tampered, and NotHeld when the version's rows or its data set are not here.
    """
    registry = Registry(store)
    version = registry.get(params.task, params.version) if params.version else registry.resolve(params.task)
    data = heldout.data_of(version)
    answers = heldout.stored(registry, version)
    heldout.joined(answers, data)  # raises here, in sight of whoever asks
    data.save(run_dir / "data")
    answers.to_parquet(run_dir / "rows.parquet", index=False)
    topics = registry.champion(TOPIC) if params.task == "sentiment" else None
    chosen = {
        "params": params.model_dump(), "version": version.version, "folder": str(registry.verified(version)),
        "topic_folder": str(registry.verified(topics)) if topics else "", "topic_version": topics.version if topics else "",
    }  # fmt: skip
    (run_dir / "settings.json").write_text(json.dumps(chosen, indent=1), encoding="utf-8")


def work(run_dir: Path, report: Report) -> dict[str, Any]:
    """Explain and count, and write run_dir/overview.json. Returns its outline."""
    import pandas as pd

    from fmcore.models.classifier import Classifier

    chosen = read_json(run_dir / "settings.json")
    params, data = Params(**chosen["params"]), LabelledData.load(run_dir / "data")
    held = heldout.joined(pd.read_parquet(run_dir / "rows.parquet"), data)
    report.progress(0.0, "Loading the model")
    served = Classifier.load(Path(chosen["folder"]), version=chosen["version"], threads=settings().training_threads())
    report.progress(0.02, "The model as it was when its figures were taken")
    classifier, said = heldout.as_measured(served, data, held.rows)
    topics = _topics(chosen, list(held.rows["text"]), report)
    notes = [said, *([f"Topics are what {chosen['topic_version']} says of the rows."] if topics else [])]
    found = overview.look(
        classifier.probabilities_of, classifier.labels, held, task=params.task, version=chosen["version"],
        sampling=overview.Sampling(n_texts=params.n_texts, budget=params.budget, seed=params.seed), topics=topics, notes=notes,
        progress=lambda fraction, message: report.progress(0.1 + 0.9 * fraction, message),
    )  # fmt: skip
    (run_dir / "overview.json").write_text(overview.as_json(found), encoding="utf-8")
    return {"version": found.version, **_outline(found)}


def land(store: Store, run_dir: Path) -> dict[str, Any]:
    """Store the overview. The same answer however often it is called."""
    found = overview.from_json(json.dumps(read_json(run_dir / "overview.json")))
    overview.save(store, found, run_id=run_dir.name)
    return {"task": found.task, "version": found.version, **_outline(found)}


def _outline(found: overview.Overview) -> dict[str, Any]:
    weak = found.slices[found.slices["weak"].astype(bool)]
    return {
        "n_rows": found.n_rows, "n_right": found.n_right, "n_texts": found.n_texts, "n_calls": found.n_calls, "n_words": len(found.words),
        "n_confusions": len(found.confusions), "weak": [f"{by}: {part}" for by, part in zip(weak["by"], weak["slice"], strict=True)],
    }  # fmt: skip


def _topics(chosen: dict[str, Any], texts: list[str], report: Report) -> list[str] | None:
    """What the live topic model says of each text; None where there is none."""
    if not chosen["topic_folder"]:
        return None
    from fmcore.models.classifier import Classifier

    report.progress(0.05, "Topics of the rows")
    model = Classifier.load(Path(chosen["topic_folder"]), version=chosen["topic_version"], threads=settings().training_threads())
    return [prediction.label for prediction in model.predict(texts)]


JOB = Job(
    name="explain",
    title="Look at a model as a whole",
    summary="Finds the words that speak for each label, what is confused by which words, and the slices where a version is weak.",
    kind="heavy",
    params=Params,
    prepare=prepare,
    work=work,
    land=land,
    timeout_s=3600,
)
