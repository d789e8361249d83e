"""The label study: how well each method does with so many labelled examples a class, and what that costs.

Owns the order of the cells, the budget of time, what is kept of a finished cell, and the study's content. A cell is one training: a method,
a number of examples a class, a seed. With the same seed every method learns from the same drawn rows; all answer the same test rows.
What a method does is label_methods.py's part, what follows from the figures label_advice.py's.

A finished cell is a file in the checkpoint folder, written whole and renamed: a study that was killed goes on after it, bit-equal.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmcore import clock, tasks
from fmcore.data.labelled import LabelledData
from fmcore.evaluation.baselines import majority
from fmcore.evaluation.metrics import macro_f1
from fmcore.lab import label_advice
from fmcore.lab.label_methods import ALL, METHODS, REPEATABLE, Bench, Method, described, shots_words
from fmcore.nouns import FMError, Report

log = logging.getLogger("fm.lab")
SHOTS = (0, 1, 2, 4, 8, 16, 32, 64, ALL)
CELLS = "cells"
SAMPLED_S = 0.1
"""How often memory is looked at while a cell works."""


class NothingToStudy(FMError):
    """No cell of the study that was asked for can be made."""


@dataclass(frozen=True)
class Asked:
    """What a study is of. shots: examples a class, 0 for none and ALL for every row; minutes: time on the wall, 0 for as long as it takes;
    test_rows: at most so many, 0 for all; adapted: the further pretrained base, "" where there is none (no_adapted says why). present: the
    method that the task is trained with now, which a winner at `adopt_at` examples must beat."""

    task: str
    methods: tuple[str, ...] = tuple(METHODS)
    shots: tuple[int, ...] = SHOTS
    seeds: int = 5
    minutes: float = 0.0
    base: str = "minilm"
    adapted: str = ""
    no_adapted: str = ""
    test_rows: int = 0
    max_tokens: int = 64
    batch: int = 32
    epochs: int = 3
    few_epochs: int = 8
    scratch_steps: int = 60
    learning_rate: float = 1e-4
    threads: int = 1
    device: str | None = None
    resamples: int = 1000
    present: str = ""
    adopt_at: int = ALL

    def identity(self) -> str:
        """What a cell's answer depends on beside the data and the cell itself."""
        left = ("methods", "shots", "seeds", "minutes", "no_adapted", "resamples", "device", "present", "adopt_at")
        return json.dumps({k: v for k, v in asdict(self).items() if k not in left}, sort_keys=True)


@dataclass(frozen=True)
class Group:
    """The cells of one method with one number of examples: every seed of it. rows: training rows; passes: the work of one cell."""

    method: Method
    shots: int
    seeds: int
    rows: int
    passes: float

    @property
    def words(self) -> str:
        """ "LoRA, 8 per class"."""
        return f"{self.method.title}, {shots_words(self.shots)}"


@dataclass(frozen=True)
class Cell:
    """A finished cell: predicted, one class number a test row; seconds of training, wall_s with reading and answering."""

    method: str
    shots: int
    seed: int
    predicted: tuple[int, ...]
    trainable: int
    seconds: float
    wall_s: float
    rss_mb: float


def run(data: LabelledData, asked: Asked, checkpoint: Path, report: Report) -> dict[str, Any]:
    """Make every cell that the time allows and return the study's content (docs/lab.md; studies.py keeps it).

    Cancel is noticed between and within cells. The same cells give the same answers under a seed and number of threads; what a killed run
    has finished in `checkpoint` is taken up when it is of the same data, base and settings. Raises NothingToStudy.
    """
    import torch

    torch.set_num_threads(asked.threads)
    groups, left_out = planned(data, asked)
    if not groups:
        raise NothingToStudy("No cell of this study can be made.", " ".join(left_out.values()))
    report.progress(0.0, f"Loading {asked.base}")
    bench = Bench(data, asked, report=report)
    cells = _Cells(checkpoint, f"{bench.encoder(asked.base).sha256} {data.split_hash} {asked.identity()}")
    report.device(bench.encoder(asked.base).device)
    study = _Run(bench, groups, cells, report)  # its clock runs from here
    for base in dict.fromkeys([asked.base, *([asked.adapted] if any(g.method.name == "adapted" for g in groups) else [])]):
        bench.prepare(base)
    finished, late = study.finish()
    return content(bench, finished, left_out | late)


# ---------------------------------------------------------------- the plan


def planned(data: LabelledData, asked: Asked) -> tuple[list[Group], dict[str, str]]:
    """(the groups in the order they are made, what is left out and why). What costs little comes first, over the whole curve: heads on a
    frozen encoder, then the small model from scratch. Then what is tuned, from the middle of the curve outwards, so that a short budget is
    spread; all labels last."""
    sizes = data.train["label"].value_counts()
    groups, left_out = [], {}
    for name in dict.fromkeys(asked.methods):
        method = METHODS[name]
        if name == "adapted" and not asked.adapted:
            left_out[method.title] = asked.no_adapted or "There is no further pretrained base: run the job pretrain with start=continue."
            continue
        for shots in dict.fromkeys(asked.shots):
            if (shots == 0) != (name == "zero_shot"):
                continue
            if shots > sizes.min():
                short = int((sizes < shots).sum())
                left_out[f"every method, {shots_words(shots)}"] = f"{short} of {len(sizes)} labels have fewer than {shots} training rows."
                continue
            rows = len(data.train) if shots == ALL else (shots + 1) * len(sizes) if shots else 0
            seeds = 1 if name in REPEATABLE and shots in (0, ALL) else asked.seeds
            groups.append(Group(method, shots, seeds, rows, method.passes(asked, rows, shots)))
    turn = {shots: i for i, shots in enumerate(outwards(sorted({g.shots for g in groups if g.shots > 0})))}
    cost = {name: i for i, name in enumerate(METHODS)}

    def order(group: Group) -> tuple[bool, int, int, int]:
        where = turn.get(group.shots, len(turn))
        cheap = group.passes == 0 or (group.method.name == "scratch" and group.shots != ALL)
        return (not cheap, 0 if cheap else where, cost[group.method.name], where)

    return sorted(groups, key=order), left_out


def outwards(values: Sequence[int]) -> list[int]:
    """Sorted values, the middle one first, then the middles of both halves, and so on: 1 2 3 4 5 6 7 -> 4 2 6 1 3 5 7."""
    found, parts = [], [list(values)]
    while parts:
        part = parts.pop(0)
        if part:
            middle = len(part) // 2
            found.append(part[middle])
            parts += [part[:middle], part[middle + 1 :]]
    return found


# ---------------------------------------------------------------- the work


class _Cells:
    """Finished cells on disk, a file each; those of other settings are put away first."""

    def __init__(self, folder: Path, identity: str):
        self._folder = folder / CELLS / hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._folder.mkdir(parents=True, exist_ok=True)

    def read(self, method: str, shots: int, seed: int) -> Cell | None:
        path = self._path(method, shots, seed)
        try:
            return Cell(**{k: tuple(v) if k == "predicted" else v for k, v in json.loads(path.read_text(encoding="utf-8")).items()})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as problem:
            log.warning("%s cannot be read (%s): the cell is made again", path.name, problem)
            return None

    def keep(self, cell: Cell) -> None:
        path = self._path(cell.method, cell.shots, cell.seed)
        half = path.with_suffix(".part")
        half.write_text(json.dumps(asdict(cell), allow_nan=False), encoding="utf-8")
        half.replace(path)

    def _path(self, method: str, shots: int, seed: int) -> Path:
        return self._folder / f"{method}.{'all' if shots == ALL else shots}.{seed}.json"


class _Run:
    """One study's moving parts: which cells are done, what time they took, and what is left."""

    def __init__(self, bench: Bench, groups: Sequence[Group], cells: _Cells, report: Report):
        self.bench, self.groups, self.cells, self.report = bench, groups, cells, report
        self.total = sum(group.seeds for group in groups)
        self.done: dict[tuple[str, int], list[Cell]] = {}
        self.budget_s = 60 * bench.asked.minutes
        self.began = time.monotonic()
        self.before_s = 0.0

    def finish(self) -> tuple[dict[tuple[str, int], list[Cell]], dict[str, str]]:
        """(finished cells by method and shots, what the time did not allow). A group that does not fit is passed over for what still does,
        and at the end gets as many seeds as fit."""
        self._take_up()
        waiting = [group for group in self.groups if not self._group(group, whole=True)]
        for group in waiting:
            self._group(group, whole=False)
        late = {}
        for group in self.groups:
            n = len(self.done.get((group.method.name, group.shots), ()))
            if n < group.seeds:
                which = group.words if not n else f"{group.words}, {group.seeds - n} of {group.seeds} seeds"
                late[which] = f"{self.bench.asked.minutes:g} minutes were not enough: {self._cost_words(group)}."
        self.report.progress(1.0, f"{self._n_done()} of {self.total} cells")
        return self.done, late

    def _take_up(self) -> None:
        """Whatever an attempt before this one has finished, with the time it took."""
        for group in self.groups:
            for seed in range(group.seeds):
                cell = self.cells.read(group.method.name, group.shots, seed)
                if cell is not None:
                    self.done.setdefault((cell.method, cell.shots), []).append(cell)
                    self.before_s += cell.wall_s
        if self._n_done():
            log.info("%d finished cells were found and are kept", self._n_done())

    def _group(self, group: Group, *, whole: bool) -> bool:
        """Make the group's missing seeds, all of them or (whole=False) those that fit. Whether none is missing."""
        have = {cell.seed for cell in self.done.get((group.method.name, group.shots), ())}
        missing = [seed for seed in range(group.seeds) if seed not in have]
        for i, seed in enumerate(missing):
            if not self._fits(group, len(missing) - i if whole else 1):
                return False
            self._cell(group, seed)
        if missing:
            self._tell(group)
        return True

    def _fits(self, group: Group, n: int) -> bool:
        left_s = self.budget_s - self.before_s - (time.monotonic() - self.began)
        return not self.budget_s or (left_s > 0 and n * (self._cost_s(group) or 0.0) <= left_s)

    def _cost_s(self, group: Group) -> float | None:
        """What one cell should take, from the finished cells of the method; None before the first of them."""
        own = [(g.passes, c.wall_s) for g in self.groups if g.method is group.method for c in self.done.get((g.method.name, g.shots), ())]
        if not own:
            return None
        passes, seconds = (sum(part) for part in zip(*own, strict=True))
        return seconds / len(own) if not passes else seconds * group.passes / passes

    def _cost_words(self, group: Group) -> str:
        cost = self._cost_s(group)
        return "no cell of the method was reached" if cost is None else f"one seed takes about {clock.duration(cost)}"

    def _cell(self, group: Group, seed: int) -> None:
        said = f"cell {self._n_done() + 1} of {self.total}: {group.words}, seed {seed + 1} of {group.seeds}"
        inner = _Within(self.report, self._share_done(), said)
        inner.progress(0.0)
        gc.collect()  # models of cells before this one hang in cycles, and would count as this one's memory
        bench, began = self.bench, time.perf_counter()
        with _Memory() as memory:
            learnt = bench.rows(group.shots, seed) if group.shots else bench.data
            trained = group.method.train(bench, learnt, group.shots, seed, inner)
            seconds = time.perf_counter() - began + trained.extra_s
            predicted = trained.classes(bench.texts)
        cell = Cell(
            group.method.name, group.shots, seed, tuple(int(c) for c in predicted), trained.trainable, round(seconds, 3),
            round(time.perf_counter() - began, 3), round(memory.peak_mb, 1),
        )  # fmt: skip
        self.cells.keep(cell)
        self.done.setdefault((cell.method, cell.shots), []).append(cell)

    def _tell(self, group: Group) -> None:
        """A point of the curve, live: the step is the number of examples a class (for all labels, their mean number)."""
        right = [np.mean(np.array(c.predicted) == self.bench.truth) for c in self.done[group.method.name, group.shots]]
        step = group.shots if group.shots != ALL else group.rows // len(self.bench.labels)
        self.report.metric(step, **{f"{group.method.name}_accuracy": float(np.mean(right))})

    def _n_done(self) -> int:
        return sum(map(len, self.done.values()))

    def _share_done(self) -> float:
        cells = self._n_done() / self.total
        spent = (self.before_s + time.monotonic() - self.began) / self.budget_s if self.budget_s else 0.0
        return min(1.0, max(cells, spent))


class _Within:
    """A cell's own report: every call tells where the study stands, and passes a cancel on; the cell's curves are its own affair."""

    def __init__(self, report: Report, share: float, said: str):
        self._report, self._share, self._said = report, share, said

    def progress(self, fraction: float, message: str = "") -> None:
        self._report.progress(self._share, self._said)

    def metric(self, step: int, **values: float) -> None:
        self._report.progress(self._share, self._said)

    def device(self, name: str) -> None:
        pass  # the study has said it


class _Memory:
    """The process's peak resident memory in MB while a block works, looked at every SAMPLED_S seconds."""

    def __enter__(self) -> _Memory:
        import psutil

        self._process, self._over = psutil.Process(), threading.Event()
        self.peak_mb = self._now()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.peak_mb = max(self.peak_mb, self._now())

    def _watch(self) -> None:
        while not self._over.wait(SAMPLED_S):
            self.peak_mb = max(self.peak_mb, self._now())

    def _now(self) -> float:
        return self._process.memory_info().rss / 2**20


# ---------------------------------------------------------------- the content


def content(bench: Bench, done: dict[tuple[str, int], list[Cell]], left_out: dict[str, str]) -> dict[str, Any]:
    """The study as studies.py keeps it: points, cells, advice, sentence, left_out, notes, and `winner`, what a
    default may rest on."""
    asked, truth = bench.asked, bench.truth
    names = [bench.labels[c] for c in truth]
    right = {key: np.array([np.array(c.predicted) == truth for c in sorted(cells, key=lambda c: c.seed)]) for key, cells in done.items()}
    rows = []
    for cells in done.values():
        for cell in sorted(cells, key=lambda c: c.seed):
            f1 = macro_f1(names, [bench.labels[c] for c in cell.predicted], resamples=2)
            accuracy = float(np.mean(np.array(cell.predicted) == truth))
            rows.append({"method": cell.method, "shots": cell.shots, "seed": cell.seed, "accuracy": round(accuracy, 5),
                         "macro_f1": round(f1.value, 5), "seconds": cell.seconds, "rss_mb": cell.rss_mb})  # fmt: skip
    table = label_advice.Table(label_advice.points(done, right, rows, resamples=asked.resamples), right, resamples=asked.resamples)
    usual = majority(bench.data.train["label"].tolist(), names, resamples=asked.resamples)
    usual |= {"macro_f1": round(macro_f1(names, [usual["label"]] * len(names), resamples=2).value, 5)}
    advice = label_advice.advice(table, usual=usual)
    return {
        "points": table.points, "cells": rows, "advice": advice, "sentence": label_advice.sentence(table, advice), "left_out": left_out,
        "notes": _notes(bench), "majority": usual,
        "winner": label_advice.winner(table, at=asked.adopt_at, present=asked.present, data=bench.data),
        "base": asked.base, "adapted": asked.adapted, "synthetic": bench.data.synthetic, "split_hash": bench.data.split_hash,
    }  # fmt: skip


def _notes(bench: Bench) -> list[str]:
    """What a reader must know to believe the figures."""
    asked, n = bench.asked, len(bench.truth)
    known = len(bench.data.test[bench.data.test["label"].isin(bench.labels)])
    sample = f"all {n} test rows in scope" if n == known else f"{n} of the {known} test rows in scope, one sample for every cell"
    drawn = "drawn rows are balanced over the labels, the test rows are as they come"
    title = tasks.task(asked.task).title
    words = "; ".join(f"{label}: {' '.join(texts)}" for label, texts in zip(bench.labels, described(asked.task, bench.labels), strict=True))
    return [
        f"Measured on {sample}; intervals are over seeds and test rows together, 95 %.",
        f"With the same seed every method learns from the same rows; {drawn}.",
        "With few rows the labels' names count as examples in every method that learns. Validation rows are used with all labels only, to "
        "end a training in time.",
        f"The heads are logistic regression with one setting, and tuning is plain cross-entropy for {asked.few_epochs} epochs "
        f"({asked.epochs} with all labels): the jobs' own choice of heads and {title}'s further settings come on top of this.",
        "Methods were compared on the test rows themselves, without a correction for how many there are.",
        "Memory is the peak of the whole process while the cell worked; seconds are training, without reading the data and answering.",
        f"From scratch: 2 layers of width 128 with random weights and the tokenizer of {asked.base}.",
        f"Zero-shot goes by: {words[:1500]}",
    ]


def names_of(methods: Iterable[str]) -> tuple[str, ...]:
    """The methods in the order of cost. Raises NothingToStudy for one that does not exist."""
    asked = set(methods)
    if strangers := asked - set(METHODS):
        raise NothingToStudy(f"There is no method {sorted(strangers)[0][:60]!r}.", f"Methods: {', '.join(METHODS)}.")
    return tuple(name for name in METHODS if name in asked)
