"""A model's turn: fitted on the past, measured on what came next and on what came last, fitted again on everything, and kept.

Owns the order of these steps, and the folder of a turn, so that a run that died goes on after the last finished model. Knows no version
and chooses nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fmcore.data.interactions import Interactions, Split, leave_one_out
from fmcore.evaluation import ranking
from fmcore.nouns import Report
from fmcore.recommend import offers
from fmcore.recommend.counting import Popularity
from fmcore.recommend.hybrid import Hybrid
from fmcore.recommend.measure import Answered, Budget, Part, affordable, answered, crossed, people
from fmcore.recommend.offers import Shape
from fmcore.recommend.recommender import History, Items, Recommender

DONE, RANKS = "turn.json", "ranks.parquet"
FIRST, MEASURED, MODEL = "first", "measured", "model"
"""The three forms of a turn's model: fitted on train, as it was measured on the test, and as it is served."""
SHARE = 0.4
"""Of the time left, for the first fit of a model that learns step by step; the fit on everything takes at most as much again."""
AGAIN = 1.3
"""A second fit takes as long as the first, or this much longer: there are more rows, and other work beside it."""


@dataclass(frozen=True, eq=False)
class Ground:
    """What all models of a shelf are fitted and measured on. validation and test: places of the people who are measured."""

    items: Items
    everything: list[History]
    split: Split
    before_test: list[History]
    validation: np.ndarray
    test: np.ndarray
    counts: np.ndarray
    popularity: tuple[Popularity, Popularity]
    seed: int

    @property
    def shape(self) -> Shape:
        """How large it all is."""
        return offers.shape(self.items, self.everything)

    @property
    def pasts(self) -> list[History]:
        """What the measured people had met before the item of the test."""
        return [self.before_test[place] for place in self.test]

    @property
    def targets(self) -> np.ndarray:
        """int32 the item of the test of each measured person."""
        return self.split.test[self.test]


@dataclass(frozen=True, eq=False)
class Turn:
    """What came of a model's turn: its folder, its ranks on validation, its answers on the test, and what is told of it."""

    name: str
    folder: Path
    validation: np.ndarray
    test: Answered
    told: dict[str, Any]


def ground(data: Interactions, *, seed: int) -> Ground:
    """Split a log by time, and fit what stands in for models that know nothing of a past."""
    items, everything = Items(data.items, data.titles, data.texts), data.histories()
    split = leave_one_out(everything)
    before = split.with_validation()
    counts = np.bincount(np.concatenate([*before, np.zeros(0, np.int32)]), minlength=len(items))
    stand_ins = (Popularity().fit(split.train, items), Popularity().fit(before, items))
    most = affordable(len(items))
    places = people(split.validation, seed=seed, most=most), people(split.test, seed=seed, most=most)
    return Ground(items, everything, split, before, *places, counts, stand_ins, seed)


def take(name: str, on: Ground, *, folder: Path, budget: Budget, report: Report, encoder: str = "") -> Turn:
    """A model's turn, or what an attempt before this one kept of it. Raises what its fit raises.

    First on train, its settings chosen on validation; then on train and validation for the test, and on everything for service. Where
    the time left does not allow a fit, the model from before stands; one that learns step by step is measured as it was on train, and
    only reads the item of validation. `measured_after` and `learnt_from` say which rows the measured and the served one learnt from.
    """
    if (folder / DONE).is_file():
        return _kept(name, folder)
    _cleared(folder)
    began, training = time.monotonic(), folder / "training"
    minutes = max(0.05, budget.left_s / 60 * SHARE) if np.isfinite(budget.left_s) else 0.0
    model = offers.make(name, seed=on.seed, minutes=minutes, checkpoint=training / "first", encoder=encoder)
    model = model.fit(on.split.train, on.items, held=on.split.validation, report=Part(report, 0.0, 0.4, "fitted on the past"))
    fit_s = time.monotonic() - began
    model.save(_empty(folder / FIRST))
    again_s = AGAIN * offers.again_s(model, fit_s)
    rows = [on.split.train[place] for place in on.validation]
    told = {"fit_seconds": round(fit_s, 2), "measured_after": "train", "learnt_from": "train"}
    seen = answered(model, rows, on.split.validation[on.validation], standin=on.popularity[0], report=Part(report, 0.4, 0.45, "validation"))
    if name not in offers.TRAINED and budget.left_s > 2 * again_s:
        model = offers.again(model, checkpoint=None).fit(on.before_test, on.items, report=Part(report, 0.45, 0.6, "fitted for the test"))
        told["measured_after"] = told["learnt_from"] = "train and validation"
    test = answered(model, on.pasts, on.targets, standin=on.popularity[1], report=Part(report, 0.6, 0.7, "test"))
    _also(model, folder / MEASURED, same_as=folder / FIRST if told["measured_after"] == "train" else None)
    if budget.left_s > again_s:
        part = Part(report, 0.7, 0.98, "fitted on everything")
        model = offers.again(model, checkpoint=training / "again").fit(on.everything, on.items, report=part)
        told["learnt_from"] = "everything"
    _also(model, folder / MODEL, same_as=None if told["learnt_from"] == "everything" else folder / MEASURED)
    told |= {"seconds": round(time.monotonic() - began, 2), "n_fallback": test.n_fallback}
    return _keep(Turn(name, folder, seen.ranks, test, told))


def take_hybrid(taken: Sequence[Turn], on: Ground, *, folder: Path, report: Report) -> Turn:
    """The turn of the hybrid of the models that have had theirs: its weights are learnt on validation, its members are not fitted again.

    Its ranks on validation are by weights that the other half of the people taught.
    """
    if (folder / DONE).is_file():
        return _kept(Hybrid.name, folder)
    _cleared(folder)
    began = time.monotonic()
    names = offers.members([turn.name for turn in taken])
    first = [model for name, model in loaded(taken, FIRST, on.items).items() if name in names]

    def learnt(held: np.ndarray) -> Hybrid:
        return Hybrid(first).learn(on.split.train, held, seed=on.seed)

    halves = Part(report, 0.0, 0.4, "validation")
    ranks = crossed(learnt, on.split.train, on.split.validation, on.validation, standin=on.popularity[0], report=halves)
    report.progress(0.4, "weights")
    model = learnt(on.split.validation)
    fit_s = time.monotonic() - began
    model = model.over(list(loaded(taken, MEASURED, on.items).values()))
    test = answered(model, on.pasts, on.targets, standin=on.popularity[1], report=Part(report, 0.6, 0.95, "test"))
    for form in (FIRST, MEASURED, MODEL):
        model.save(_empty(folder / form), with_members=False)
    told = {
        "fit_seconds": round(fit_s, 2), "measured_after": "as its members", "learnt_from": "as its members",
        "seconds": round(time.monotonic() - began, 2), "n_fallback": test.n_fallback,
    }  # fmt: skip
    return _keep(Turn(Hybrid.name, folder, ranks, test, told))


def loaded(taken: Sequence[Turn], form: str, items: Items) -> dict[str, Recommender]:
    """The models of finished turns in one of their forms, by name."""
    found: dict[str, Recommender] = {}
    for turn in taken:
        found[turn.name] = offers.read(turn.name, turn.folder / form, items, beside=found)
    return found


def row(turn: Turn, on: Ground, *, title: str, vectors: np.ndarray | None, k: int) -> dict[str, Any]:
    """A model's row of the leaderboard: its figures on the test with intervals and by slice, as JSON."""
    found = ranking.figures(
        turn.test.ranks, turn.test.shown, histories=on.pasts, targets=on.targets, counts=on.counts, n_people=len(on.before_test),
        vectors=vectors, k=k,
    )  # fmt: skip
    return {"model": turn.name, "title": title, **ranking.in_json(found), **turn.told}


def linked(source: Path, target: Path) -> None:
    """A folder's files under another name too: by hard links, or copied where the file system has none."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copyfile(one, other)

    shutil.copytree(source, target, copy_function=link)


def _cleared(folder: Path) -> None:
    """What an attempt before this one left unfinished goes, but for what a training can go on from."""
    for form in (FIRST, MEASURED, MODEL):
        shutil.rmtree(folder / form, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def _also(model: Recommender, folder: Path, *, same_as: Path | None) -> None:
    """The model in another of its forms, which may be one that is there already."""
    if same_as is None:
        model.save(_empty(folder))
    else:
        linked(same_as, folder)


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _keep(turn: Turn) -> Turn:
    pd.DataFrame({"rank": turn.validation}).to_parquet(turn.folder / f"validation-{RANKS}", index=False)
    shown = {"shown": list(turn.test.shown)}
    pd.DataFrame({"rank": turn.test.ranks, **shown}).to_parquet(turn.folder / f"test-{RANKS}", index=False)
    part = turn.folder / f"{DONE}.part"
    part.write_text(json.dumps(turn.told, allow_nan=False), encoding="utf-8")
    part.rename(turn.folder / DONE)
    return turn


def _kept(name: str, folder: Path) -> Turn:
    told = json.loads((folder / DONE).read_text(encoding="utf-8"))
    validation = pd.read_parquet(folder / f"validation-{RANKS}")["rank"].to_numpy()
    test = pd.read_parquet(folder / f"test-{RANKS}")
    shown = np.stack(test["shown"].tolist()) if len(test) else np.zeros((0, 1), np.int32)
    return Turn(name, folder, validation, Answered(test["rank"].to_numpy(), shown, told["n_fallback"]), told)


def slices_of(on: Ground) -> tuple[Sequence[str], Sequence[str]]:
    """(slice of the past, slice of the item) of each measured person: cold, warm or hot."""
    found = ranking.slices(on.pasts, on.targets, on.counts)
    return tuple(
        np.select([found[f"{what} {heat}"] for heat in ("cold", "warm", "hot")], ["cold", "warm", "hot"], default="")
        for what in ("history", "item")
    )  # fmt: skip
