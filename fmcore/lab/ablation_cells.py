"""The cells of a regularisation study: one regulariser trained with one seed, its answers on held-out rows, and the file that keeps them.

Owns what the plain recipe is, how a cell is trained and scored, the budget of minutes, and the files. Knows nothing of comparing
(ablation.py). The training itself is training/finetune.py's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fmcore import clock
from fmcore.data.catalogue import OOS, LabelledData
from fmcore.models.encoder import load_encoder
from fmcore.models.heads import fit_logistic
from fmcore.nouns import Report
from fmcore.training import finetune, loop
from fmcore.training.checkpoint import CheckpointNotSaved
from fmcore.training.linear import NAME_WEIGHT, few_shot

log = logging.getLogger("fm.lab")

STOP_SHARE = 0.2
"""Of a label's training rows, held back by early stopping to stop by: its labels are paid for out of the same rows."""


@dataclass(frozen=True)
class Regulariser:
    """A row of the study. options: what it changes of PLAIN, as parameters of job finetune."""

    name: str
    title: str
    options: Mapping[str, Any] = field(default_factory=dict)


PLAIN = {"weight_decay": 0.01, "dropout": 0.1, "label_smoothing": 0.0, "consistency": 0.0, "augmentation": "", "patience": 0}
@dataclass(frozen=True)
class Ablation:
    """How to study. shots: training rows a label, drawn anew for each seed (0: all of them). minutes: budget of all cells, 0 for none.

    names: which regularisers, empty for all. present: what the task is trained with now (options of job finetune), a row of its own where
    no regulariser is just that.
    """

    base: str = "minilm"
    recipe: str = "full"
    shots: int = 32
    seeds: int = 5
    epochs: int = 8
    batch: int = 32
    learning_rate: float = 1e-4
    max_tokens: int = 64
    minutes: float = 0.0
    names: tuple[str, ...] = ()
    present: Mapping[str, Any] = field(default_factory=dict)
    resamples: int = 1000
    seed: int = 0
    threads: int = 1
    device: str | None = None

    def identity(self, data: LabelledData) -> str:
        """What decides a cell's answers beside its regulariser and its seed."""
        deciding = [self.base, self.recipe, self.shots, self.epochs, self.batch, self.learning_rate, self.max_tokens, self.seed]
        return hashlib.sha256(json.dumps([data.split_hash, *deciding]).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Cell:
    """A regulariser trained with one seed: right or wrong on each in-scope validation and test row, and what it took."""

    name: str
    seed: int
    validation: np.ndarray
    test: np.ndarray
    seconds: float
    told: tuple[Mapping[str, Any], ...] = ()


class Cells:
    """Cells by (name, seed): trained when asked for and the budget has room, kept in files, read back after a stop."""

    def __init__(self, data: LabelledData, params: Ablation, report: Report, folder: Path, n_rows: int):
        self.data, self.params, self.report, self.folder = data, params, report, folder
        self.done: dict[tuple[str, int], Cell] = {}
        self.why: dict[str, str] = {}
        self.total = n_rows * params.seeds
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, each: Regulariser, seed: int, *, until: float) -> None:
        """Have the cell, from its file or by training. `until`: the part of the budget by which it must be finished."""
        path = self.folder / f"{each.name}-{seed}.json"
        identity = f"{self.params.identity(self.data)} {json.dumps(dict(each.options), sort_keys=True)}"
        cell = _read(path, identity)
        if cell is None:
            if not self._room(each, until):
                return
            at = len(self.done) / self.total
            began = f"{each.title}, seed {seed - self.params.seed + 1} of {self.params.seeds}"
            part = _Part(self.report, (at, at + 1 / self.total), f"{began}: cell {len(self.done) + 1} of {self.total}{self._left()}")
            try:
                cell = trained(self.data, each, seed, self.params, part)
            except loop.Diverged as problem:
                self.why[each.name] = f"seed {seed}: {problem.message}"
                return
            _write(path, identity, cell)
        self.done[each.name, seed] = cell
        self.report.metric(len(self.done), val_accuracy=float(cell.validation.mean()))

    def missing(self, tried: Sequence[Regulariser], seeds: int) -> dict[str, str]:
        """What the budget cut: by row, or as "<row>, n of m seeds"."""
        out = {}
        for each in tried:
            have = sum((each.name, self.params.seed + i) in self.done for i in range(seeds))
            if each.name in self.why:
                out[each.name] = self.why[each.name]
            elif have < seeds:
                what = "not trained" if not have else f"{have} of {seeds} seeds trained"
                out[each.name] = f"{what}: the budget of {self.params.minutes:g} minutes was spent."
        return out

    def _spent(self) -> float:
        return sum(cell.seconds for cell in self.done.values())

    def _room(self, each: Regulariser, until: float) -> bool:
        """Whether the cell is likely to be finished in time, by what its like has taken. The very first cell is always trained."""
        if not self.params.minutes or not self.done:
            return True
        alike = [cell.seconds for (name, _), cell in self.done.items() if name == each.name] or [c.seconds for c in self.done.values()]
        return self._spent() + float(np.mean(alike)) <= until * 60 * self.params.minutes

    def _left(self) -> str:
        if not self.done:
            return ""
        left = (self.total - len(self.done)) * self._spent() / len(self.done)
        left = min(left, 60 * self.params.minutes - self._spent()) if self.params.minutes else left
        return f", about {clock.duration(max(0.0, left))} left"


class _Part:
    """A cell's share of the study's report: its progress under one message, no metrics of its own."""

    def __init__(self, report: Report, span: tuple[float, float], message: str):
        self.report, self.span, self.message = report, span, message

    def progress(self, fraction: float, message: str = "") -> None:
        self.report.progress(self.span[0] + (self.span[1] - self.span[0]) * fraction, self.message)

    def metric(self, step: int, **values: float) -> None:
        """A cell's losses are not the study's."""

    def device(self, name: str) -> None:
        self.report.device(name)


def trained(data: LabelledData, each: Regulariser, seed: int, params: Ablation, report: Report) -> Cell:
    """One cell: the rows drawn by the seed, tuned with the regulariser; then a head fitted on the tuned encoder, as is served."""
    import torch

    torch.set_num_threads(params.threads)
    began = time.monotonic()
    drawn = few_shot(data, shots=params.shots, seed=seed) if params.shots else data
    tuning = tuning_of(each, seed, params)
    learnt, stop = held_back(drawn.train, seed=seed) if tuning.validates else (drawn.train, drawn.train)
    subject = replace(drawn, train=learnt, validation=stop)
    encoder = load_encoder(params.base, max_tokens=params.max_tokens, device=params.device)
    extra = finetune.augmented(encoder, subject, tuning, report=report)
    encoder, _, _ = finetune.tune(encoder, subject, tuning, extra=extra, report=report, span=(0.05, 0.9))
    rows = finetune.rows_of(drawn, with_names=bool(params.shots))
    names = sorted(set(rows["label"]))
    weights = np.where(np.arange(len(rows)) < len(drawn.train), 1.0, NAME_WEIGHT)
    classes = rows["label"].map(names.index).to_numpy(dtype=np.int64)
    vectors = encoder.encode(rows["text"].tolist(), batch=finetune.FORWARD_BATCH)
    head = fit_logistic(vectors, classes, n_classes=len(names), c=finetune.TUNED_C[0], weights=weights)

    def right(part: pd.DataFrame) -> np.ndarray:
        seen = encoder.encode(part["text"].tolist(), batch=finetune.FORWARD_BATCH)
        return (np.asarray(names, dtype=object)[head.scores(seen).argmax(axis=1)] == part["label"].to_numpy(dtype=object)).astype(np.int8)

    report.progress(0.95)
    answers = [right(part[part["label"] != OOS]) for part in (data.validation, data.test)]
    return Cell(each.name, seed, *answers, round(time.monotonic() - began, 2), tuple(asdict(check) for check in extra.told))


def tuning_of(each: Regulariser, seed: int, params: Ablation) -> finetune.Tuning:
    """PLAIN with what the regulariser changes, as job finetune would be asked for it."""
    options = {**PLAIN, **each.options}
    return finetune.Tuning(
        recipe=params.recipe, base=params.base, epochs=params.epochs, batch=params.batch, learning_rate=params.learning_rate,
        shots=params.shots, seed=seed, max_tokens=params.max_tokens, threads=params.threads, device=params.device,
        **{**options, "augmentation": names_of(options["augmentation"])},
    )  # fmt: skip


def names_of(listed: str) -> tuple[str, ...]:
    """The augmentations that a parameter of job finetune names, separated by commas."""
    return tuple(name.strip() for name in listed.split(",") if name.strip())


def held_back(rows: pd.DataFrame, *, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rows to learn from, rows to stop by): STOP_SHARE of each label, at least one, where that leaves one to learn from."""
    rng, stop = np.random.default_rng(seed), []
    for label in sorted(set(rows["label"])):
        mine = np.flatnonzero(rows["label"] == label)
        n = min(max(1, round(STOP_SHARE * len(mine))), len(mine) - 1)
        stop += rng.choice(mine, n, replace=False).tolist()
    chosen = np.isin(np.arange(len(rows)), stop)
    return rows[~chosen].reset_index(drop=True), rows[chosen].reset_index(drop=True)


def _read(path: Path, identity: str) -> Cell | None:
    """A finished cell of just this study; None where there is none, or it is torn or another's."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["identity"] != identity:
            return None
        answers = [np.array([int(one) for one in kept[part]], dtype=np.int8) for part in ("validation", "test")]
        return Cell(kept["name"], kept["seed"], *answers, kept["seconds"], tuple(kept["told"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("a finished cell cannot be read (%s): it is trained again", error)
        return None


def _write(path: Path, identity: str, cell: Cell) -> None:
    """Raises CheckpointNotSaved where the disk does not take it; the cells before it stay whole."""
    answers = {part: "".join(map(str, getattr(cell, part))) for part in ("validation", "test")}
    kept = {"identity": identity, "name": cell.name, "seed": cell.seed, **answers, "seconds": cell.seconds, "told": cell.told}
    fresh = path.with_suffix(".part")
    try:
        with fresh.open("w", encoding="utf-8") as stream:
            json.dump(kept, stream, ensure_ascii=False, allow_nan=False)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(path)
    except OSError as error:
        what = f"{cell.name} with seed {cell.seed} could not be kept ({error})."
        raise CheckpointNotSaved(what, "Free some disk space, then resume.") from error
