"""The board job: every version of a task that was measured on the same rows, in one run on this machine; the best may serve.

prepare freezes which versions and which rows; work reads nothing but their folders and the run's; land stores the board once, asks the
gate about each version, and lets the chosen one serve where that was asked for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from fmcore import tasks
from fmcore.config import settings
from fmcore.data.catalogue import LabelledData
from fmcore.explain import heldout
from fmcore.lab import studies
from fmcore.models.registry import Registry
from fmcore.nouns import Job, ModelVersion, Report
from fmcore.store.store import Store
from jobs.folder import read_json
from jobs.promoting import promotion

TITLES = {
    "linear": "Frozen encoder, linear head", "full": "Fine-tuned", "lora": "LoRA", "contrast": "Contrastive", "onnx": "ONNX fp32",
    "int8": "int8", "prune": "Pruned", "distill": "Distilled student", "static": "Static student", "cascade": "Cascade",
}  # fmt: skip
"""A recipe in words."""
MOST = 16
"""Versions on one board, the newest first: each is held in memory."""


class Params(BaseModel, extra="forbid"):
    task: Literal[tuple(tasks.TASKS)] = Field("intent", description="Which task's versions are measured.")
    version: str = Field("", title="Reference (empty: the champion's own)", max_length=80, description="The version whose PyTorch form is the yardstick; empty takes the champion, or its teacher where it is compressed.")  # noqa: E501  # fmt: skip
    max_lost: float = Field(0.5, title="Points that may be lost", ge=0, le=100, allow_inf_nan=False, description="The board chooses the fastest version that loses no more accuracy than this, in points.")  # noqa: E501  # fmt: skip
    n_texts: int = Field(256, title="Texts a round of timing", ge=8, le=20_000, description="More texts give steadier figures.")
    threads: int = Field(1, ge=1, le=256, description="Processor threads for every version, PyTorch included.")
    promote: Literal["gate", "never"] = Field("never", description="gate: the chosen version serves if the gate passes it.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the intervals' resampling.")


def prepare(store: Store, params: Params, run_dir: Path) -> None:
    """Write data/ and settings.json. Raises UnknownModel, Tampered, NotHeld when versions or rows are not here."""
    registry = Registry(store)
    reference = _reference(registry, params)
    data = heldout.data_of(reference)
    data.save(run_dir / "data")
    champion = registry.champion(params.task)
    chosen = {
        "params": params.model_dump(), "reference": reference.version, "dataset": reference.dataset,
        "variants": [
            {
                "version": v.version, "recipe": v.recipe, "title": _title(registry, v), "folder": str(registry.verified(v)),
                "form": str(v.metrics.get("form") or ""), "serving": champion is not None and v.version == champion.version,
            }
            for v in _comparable(registry, reference)
        ],
    }  # fmt: skip
    (run_dir / "settings.json").write_text(json.dumps(chosen, indent=1), encoding="utf-8")


def work(run_dir: Path, report: Report) -> dict[str, Any]:
    """Measure, and write run_dir/board.json. Returns its outline."""
    from fmcore.lab import board

    chosen = read_json(run_dir / "settings.json")
    params, data = Params(**chosen["params"]), LabelledData.load(run_dir / "data")
    variants = [board.Variant(**{**v, "folder": Path(v["folder"])}) for v in chosen["variants"]]
    report.device("cpu")
    content = board.measure(
        variants, data, task=params.task, reference=chosen["reference"], report=report, max_lost=params.max_lost,
        timing=board.Timing(n_texts=params.n_texts, threads=params.threads), resamples=settings().limits().bootstrap_resamples,
        seed=params.seed,
    )  # fmt: skip
    (run_dir / "board.json").write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    return {"choice": content["choice"], "sentence": content["sentence"]}


def land(store: Store, run_dir: Path) -> dict[str, Any]:
    """Store the board with the gate's verdicts, and promote the chosen one where asked. The same answer however often it is called."""
    chosen, content = read_json(run_dir / "settings.json"), read_json(run_dir / "board.json")
    params, registry = Params(**chosen["params"]), Registry(store)
    promoted = False
    for row in content["rows"]:
        row |= _verdict(registry, params.task, row["version"])
    study = studies.keep(store, kind="board", task=params.task, dataset=chosen["dataset"], run_id=run_dir.name, content=content)
    choice = study.content["choice"]
    if choice and params.promote == "gate" and (champion := registry.champion(params.task)) and champion.version != choice:
        _, promoted = promotion(registry, registry.get(params.task, choice), promote="gate", reason=study.content["sentence"], by="board")
    outline = {"task": params.task, "dataset": chosen["dataset"], "choice": choice, "sentence": study.content["sentence"]}
    return {**outline, "promoted": promoted, "n_versions": len(chosen["variants"])}


def _title(registry: Registry, version: ModelVersion) -> str:
    """The recipe in words; a cascade that goes on to a student says so."""
    title, full = TITLES.get(version.recipe, version.recipe), (version.metrics.get("cascade") or {}).get("full")
    second = next((v for v in registry.versions(version.task) if v.version == full), None)
    made = (second.metrics.get("compressed") or {}).get("method") if second else None
    return f"{title} to the {TITLES[made][0].lower()}{TITLES[made][1:]}" if made in TITLES else title


def _reference(registry: Registry, params: Params) -> ModelVersion:
    """The version asked for, else the champion, or the teacher of a compressed one while the registry has it."""
    version = registry.get(params.task, params.version) if params.version else registry.resolve(params.task)
    teacher = (version.metrics.get("compressed") or {}).get("teacher")
    known = {v.version: v for v in registry.versions(params.task)}
    return known.get(teacher, version)


def _comparable(registry: Registry, reference: ModelVersion) -> list[ModelVersion]:
    """Versions measured on the reference's held-out rows, itself first, then the newest."""
    same = reference.metrics.get("split_hash")
    others = [
        v for v in registry.versions(reference.task)
        if v.version != reference.version and v.dataset == reference.dataset and same and v.metrics.get("split_hash") == same
    ]  # fmt: skip
    return [reference, *others][:MOST]


def _verdict(registry: Registry, task: str, name: str) -> dict[str, Any]:
    """{"passes", "verdict"} of the gate; None and why for what is no version, or serves already."""
    found = next((v for v in registry.versions(task) if v.version == name), None)
    if found is None:
        return {"passes": None, "verdict": "It is the yardstick, not a version that can serve."}
    if (champion := registry.champion(task)) and champion.version == name:
        return {"passes": None, "verdict": "It serves now."}
    verdict = registry.gate(found)
    return {"passes": bool(verdict["passed"]), "verdict": verdict["reason"]}


JOB = Job(
    name="board",
    title="Compare versions for accuracy and speed",
    summary="Measures every version of a task on this machine in one run, beside PyTorch fp32, and names the fastest that loses little.",
    kind="heavy",
    params=Params,
    prepare=prepare,
    work=work,
    land=land,
    timeout_s=3600,
)
