"""The fine-tuning job: a data set and a base model become a version, which the gate may promote.

prepare freezes the data and every choice into the run's folder; work reads nothing but that folder; land takes the model in,
asks the gate, and promotes at most once however often it is called.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator

from fmcore import tasks
from fmcore.config import settings
from fmcore.data import catalogue
from fmcore.data.catalogue import LabelledData
from fmcore.lab import defaults
from fmcore.lab.defaults import Choice
from fmcore.models import bases
from fmcore.models.registry import Registry
from fmcore.nouns import Job, Report
from fmcore.store.store import Store
from fmcore.training import augment
from jobs.folder import read_json
from jobs.promoting import promotion

log = logging.getLogger("fm.jobs")

CHAMPION = "champion"
AUTO = "auto"
FEW_SHOT_EPOCHS = 8
"""A handful of rows a label makes short epochs: 8 of them took 5 shots on Banking77 from 0.804 to 0.816."""


KNOBS = ("base", "weight_decay", "dropout", "label_smoothing", "consistency", "augmentation", "patience")
"""What a champion's retraining takes over from it, beside its recipe and data."""


class Params(BaseModel, extra="forbid"):
    task: Literal[tuple(tasks.TASKS)] = Field("intent", description="What the model is for.")
    dataset: str = Field("", title="Data set (empty: the task's demo data)", max_length=1000, description="A data set of the catalogue, or the path of a CSV file with the columns text,label; champion: the present model's; empty: the task's demo data.")  # noqa: E501  # fmt: skip
    recipe: Literal["auto", "linear", "contrast", "full", "lora", "champion"] = Field("auto", description="auto: the task's usual one. linear: a head on the frozen encoder, minutes. contrast: for few shots, pulls messages of one intent together first. full: tune every layer, the best accuracy. lora: tune small adapters, less memory on a GPU. champion: the present model's.")  # noqa: E501  # fmt: skip
    base: str = Field("", title="Base model (empty: the setting's)", max_length=500, description="minilm, base:NAME for one pretrained here, a folder or a hub id; empty takes FM_BASE_MODEL.")  # noqa: E501  # fmt: skip
    epochs: int = Field(0, title="Epochs (0: automatic)", ge=0, le=50, description="Passes over the training rows (full, lora); 0: the profile's, or 8 for few shots.")  # noqa: E501  # fmt: skip
    batch: int = Field(0, title="Batch (0: automatic)", ge=0, le=1024, description="Rows a training step (full, lora); 0 takes the profile's.")  # noqa: E501  # fmt: skip
    learning_rate: float = Field(1e-4, gt=0, le=0.1, allow_inf_nan=False, description="Peak learning rate of the encoder (full, lora); the head's is ten times that.")  # noqa: E501  # fmt: skip
    shots: int = Field(0, title="Shots per label (0: all rows)", ge=0, le=1000, description="Training rows kept per label, drawn by the seed; 0 keeps all.")  # noqa: E501  # fmt: skip
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of every random choice: the same seed trains the same weights.")
    max_tokens: int = Field(0, title="Longest text, tokens (0: automatic)", ge=0, le=512, description="Longest text the model reads, in tokens; 0 takes the profile's.")  # noqa: E501  # fmt: skip
    promote: Literal["gate", "always", "never"] = Field("gate", description="gate: serve the model if it is better on the same held-out rows. always or never: whatever the gate says.")  # noqa: E501  # fmt: skip
    reason: str = Field("", max_length=500, description="Why this run: kept with the promotion.")
    refit: bool = Field(True, description="Fit the shipped head on validation rows too, and on test rows that were cut from the training file. Figures stay those from before (full, lora; linear always does).")  # noqa: E501  # fmt: skip
    weight_decay: float = Field(0.01, ge=0, le=1, allow_inf_nan=False, description="How strongly weights are pulled to zero.")
    dropout: float = Field(0.1, ge=0, le=0.9, allow_inf_nan=False, description="Share of activations left out in training (full, lora); 0.1 leaves the layers as the base model has them.")  # noqa: E501  # fmt: skip
    label_smoothing: float = Field(0.0, ge=0, le=0.5, allow_inf_nan=False, description="Share of each row's aim that goes to all labels alike (full, lora).")  # noqa: E501  # fmt: skip
    consistency: float | None = Field(None, title="R-Drop", ge=0, le=10, allow_inf_nan=False, description="Two passes under different dropout are pulled together this strongly (full, lora); empty: the task's usual.")  # noqa: E501  # fmt: skip
    augmentation: str = Field("", max_length=200, description="Training texts in other words, where their label is kept (full, lora): synonym, back_template, token_dropout, with commas between them.")  # noqa: E501  # fmt: skip
    patience: int | None = Field(None, ge=0, le=50, description="Epochs without a better validation that end the training (full, lora); 0 never stops; empty: 2, and never with few shots.")  # noqa: E501  # fmt: skip
    fast: bool = Field(False, description="A first model in seconds: fewer served forms and heads are tried (linear).")

    @field_validator("augmentation")
    @classmethod
    def _known(cls, value: str) -> str:
        strangers = [name for name in augmentations(value) if name not in augment.AUGMENTATIONS]
        if strangers:
            raise ValueError(f"there is no augmentation {strangers[0][:40]!r}; augmentations: {', '.join(augment.AUGMENTATIONS)}")
        return value


def prepare(store: Store, params: Params, run_dir: Path) -> None:
    """Write data/ and settings.json.

    Raises what the catalogue raises for a data set that is not there or cannot be learnt from, and WrongDataset for another task's.
    """
    why = _why(store, params)
    params = _resolved(store, params)
    data = catalogue.load(params.dataset)
    tasks.check_fits(params.task, data.name, data.labels)
    data.save(run_dir / "data")
    chosen = {
        "params": params.model_dump(), "base": params.base or settings().base_model, "profile": settings().profile, "recipe_reason": why,
    }  # fmt: skip
    (run_dir / "settings.json").write_text(json.dumps(chosen, indent=1), encoding="utf-8")


def work(run_dir: Path, report: Report) -> dict[str, Any]:
    """Train and write run_dir/model with its manifest. Returns the figures; a checkpoint in run_dir is gone on from."""
    chosen = read_json(run_dir / "settings.json")
    params, data = Params(**chosen["params"]), LabelledData.load(run_dir / "data")
    out = run_dir / "model"
    shutil.rmtree(out, ignore_errors=True)  # what an attempt before this one left unfinished
    metrics = _train(data, params, chosen["base"], out, report, run_dir / "checkpoint")
    metrics |= {"params": params.model_dump(), "recipe_reason": chosen.get("recipe_reason", "")}
    outcome = {"recipe": params.recipe, "dataset": data.name, "base": chosen["base"], "synthetic": data.synthetic, "metrics": metrics}
    (run_dir / "outcome.json").write_text(json.dumps(outcome, allow_nan=False), encoding="utf-8")
    return {key: metrics.get(key) for key in ("n", "accuracy", "macro_f1", "ece", "oos", "refit", "seconds")}


def land(store: Store, run_dir: Path) -> dict[str, Any]:
    """Adopt the model, ask the gate, promote if that is what the run was for. The same answer however often it is called."""
    params, outcome = Params(**read_json(run_dir / "settings.json")["params"]), read_json(run_dir / "outcome.json")
    registry = Registry(store)
    version = registry.adopt(
        run_dir / "model",
        task=params.task,
        recipe=outcome["recipe"],
        dataset=outcome["dataset"],
        base=outcome["base"],
        metrics=outcome["metrics"],
        run_id=run_dir.name,
    )
    verdict, promoted = promotion(registry, version, promote=params.promote, reason=params.reason, by="finetune")
    shutil.rmtree(run_dir / "checkpoint", ignore_errors=True)  # a landed run is never resumed, and this is most of its folder
    figures = outcome["metrics"]
    return {
        "version": version.version,
        "task": params.task,
        "dataset": outcome["dataset"],
        "recipe": outcome["recipe"],
        "accuracy": figures.get("accuracy"),
        "oos": figures.get("oos"),
        "form": (figures.get("serving") or {}).get("form"),
        "verdict": verdict,
        "promoted": promoted,
    }


def _resolved(store: Store, params: Params) -> Params:
    """The parameters with the task's demo data for no data set, its recipe or what a study chose for "auto", and the champion's choices
    for "champion"."""
    usual = tasks.task(params.task).default_dataset
    if params.recipe == AUTO:
        params = _as_chosen(store, params)
    if CHAMPION not in (params.recipe, params.dataset):
        return params.model_copy(update={"dataset": params.dataset or usual})
    champion = Registry(store).champion(params.task)
    before = dict(champion.metrics.get("params") or {}) if champion else {}
    recipe = before.get("recipe", tasks.task(params.task).recipe) if params.recipe == CHAMPION else params.recipe
    dataset = before.get("dataset", usual) if params.dataset == CHAMPION else params.dataset or usual
    knobs = {name: before[name] for name in KNOBS if name in before} if params.recipe == CHAMPION else {}
    return params.model_copy(update={**knobs, "recipe": recipe, "dataset": dataset})


def _as_chosen(store: Store, params: Params) -> Params:
    """The recipe, base and options that a study chose for the task, else its usual recipe. What a person set otherwise stays."""
    choice = _choice(store, params.task) or Choice(tasks.task(params.task).recipe)
    options = {"base": choice.base, **choice.options}
    usual = {name: Params.model_fields[name].default for name in options if name in Params.model_fields}
    free = {name: options[name] for name, default in usual.items() if getattr(params, name) == default}
    return Params(**{**params.model_dump(), **free, "recipe": choice.recipe})


def _choice(store: Store, task: str) -> Choice | None:
    """What a study chose, where the base that it was chosen with is still here."""
    choice = defaults.chosen(store, task)
    if choice and choice.base.startswith(bases.PREFIX) and not bases.exists(store.home, choice.base.removeprefix(bases.PREFIX)):
        log.warning("the default of %s needs %s, which is not on the shelf any more: the usual recipe is taken", task, choice.base)
        return None
    return choice


def _why(store: Store, params: Params) -> str:
    """Why the run has its recipe, for the model card."""
    if params.recipe == CHAMPION:
        return "That of the version before it."
    if params.recipe != AUTO:
        return "Asked for when the run was started."
    choice = _choice(store, params.task)
    return f"{choice.reason} (study {choice.study_id})" if choice else "The task's usual one; no study has chosen another."


def augmentations(listed: str) -> tuple[str, ...]:
    """The names in "synonym, token_dropout"."""
    return tuple(listed.replace(",", " ").split())


def _train(data: LabelledData, params: Params, base: str, out: Path, report: Report, checkpoint: Path) -> dict[str, Any]:
    from fmcore.training import contrast, finetune, linear

    limits, task = settings().limits(), tasks.task(params.task)
    common = {
        "base": base, "shots": params.shots, "seed": params.seed, "max_tokens": params.max_tokens or limits.max_tokens,
        "random_features": limits.random_features, "resamples": limits.bootstrap_resamples,
        "lexical": task.lexical, "in_scope_share": task.in_scope_share,
    }  # fmt: skip
    if params.recipe == "linear":
        return linear.train(data, linear.LinearParams(**common, fast=params.fast), out, report)
    if params.recipe == "contrast":
        chosen = contrast.Contrast(**common, fast=params.fast, threads=settings().training_threads())
        return contrast.train(data, chosen, out, report, checkpoint=checkpoint)
    epochs = FEW_SHOT_EPOCHS if params.shots else limits.epochs
    tuning = finetune.Tuning(
        **common, recipe=params.recipe, epochs=params.epochs or epochs, batch=params.batch or limits.batch,
        learning_rate=params.learning_rate, refit=params.refit, threads=settings().training_threads(),
        consistency=task.consistency if params.consistency is None else params.consistency, weight_decay=params.weight_decay,
        dropout=params.dropout, label_smoothing=params.label_smoothing, augmentation=augmentations(params.augmentation),
        patience=params.patience,
    )  # fmt: skip
    return finetune.train(data, tuning, out, report, checkpoint=checkpoint)


JOB = Job(
    name="finetune",
    title="Fine-tune a model",
    summary="Trains a classifier on a data set from a foundation model, measures it on held-out rows, and lets the gate promote it.",
    kind="heavy",
    params=Params,
    prepare=prepare,
    work=work,
    land=land,
    schedule="0 3 * * sun",
    scheduled_params={"recipe": CHAMPION, "dataset": CHAMPION, "reason": "Weekly retraining."},
)
