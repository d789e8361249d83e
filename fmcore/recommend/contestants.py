"""Recommenders against each other on a test that somebody brings: chosen on items held back from train, measured once, in bounded time.

Owns what is fitted when, so that a comparison ends within its minutes, and the JSON of `python -m fmcore recommend`. Full ranking over all
items of train, the ones that a person has met left out; a person's first test row by time is the one that counts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fmcore.data.interactions import Interactions
from fmcore.evaluation import ranking
from fmcore.nouns import FMError, Report
from fmcore.recommend import measure, offers
from fmcore.recommend.counting import Blend, Popularity, Transitions
from fmcore.recommend.hybrid import Hybrid
from fmcore.recommend.measure import Answered, Budget, Part, answered
from fmcore.recommend.offers import MODELS
from fmcore.recommend.recommender import History, Items, Recommender

JUDGED, ENOUGH = 5_000, 500
"""People whose held-back item decides between models at most, and at least where that takes long."""
JUDGING = 0.08
"""Of the time left, for judging one model, where it answers slowly."""
QUICK = (Popularity.name, Transitions.name)
FIRST = 32
"""People by whom it is seen how slowly a model answers."""
MARGIN = 0.9
"""Of the minutes: what is planned with. The rest is for the interpreter's start, and a last step slower than the first ones were."""
SLOWER = 1.4
"""A step takes at most so much longer than the like step before it."""


class NothingToMeasure(FMError):
    """No test row can be used."""


@dataclass(frozen=True, eq=False)
class Exam:
    """The test in the numbers of train: what each person had met (nothing for a stranger), int32 the item they met next, -1: unknown."""

    pasts: list[History]
    targets: np.ndarray
    n_strangers: int

    @property
    def n_unknown(self) -> int:
        return int((self.targets < 0).sum())


@dataclass(frozen=True, eq=False)
class Tried:
    """A model that was fitted without the held-back items: ranks of as many of them as there was time for, in the order of the judged;
    the seconds of fitting it again and of a person's answer. members: what a hybrid is made of.
    """

    name: str
    model: Recommender
    ranks: np.ndarray
    again_s: float
    answer_s: float
    members: tuple[Tried, ...] = ()


def exam(train: Interactions, test: Interactions) -> Exam:
    """The test's first row of each person by time. Raises NothingToMeasure."""
    people = {user: place for place, user in enumerate(train.users)}
    numbers = {item: place for place, item in enumerate(train.items)}
    histories = train.histories()
    known = [people.get(user, -1) for user in test.users]
    pasts = [histories[place] if place >= 0 else np.zeros(0, np.int32) for place in known]
    targets = np.array([numbers.get(test.items[met[0]], -1) for met in test.histories()], dtype=np.int32)
    if not (targets >= 0).any():
        raise NothingToMeasure("No item of the test stands in train.", "Are the two files of the same log, with the same ids?")
    return Exam(pasts, targets, known.count(-1))


def compare(train: Interactions, test: Interactions, *, k: int, name: str, budget: Budget, seed: int, report: Report) -> dict[str, Any]:
    """The JSON of the command: the named model, or for "auto" the best on the last item of each person in train, measured on the test.

    Settings and the choice see nothing of the test. The chosen model is fitted again on all of train, then popularity and as many of the
    others as time allows stand beside it. Raises UnknownRecommender and NothingToMeasure.
    """
    needs_all = name in (offers.AUTO, Hybrid.name)
    names = sorted((one for one in offers.ordered([offers.AUTO if needs_all else name]) if needs_all or one == name), key=_turn)
    asked = exam(train, test)
    field = _Field(train, asked, k=k, seed=seed, budget=budget, report=report)
    tried = field.try_all(names)
    standing = [one for one in tried if name in (one.name, offers.AUTO)]
    if not standing:
        raise NothingToMeasure(field.left_out[name], "Give it more --minutes, or choose another --model.")
    n_judged = min(len(one.ranks) for one in tried)
    validation = {one.name: round(measure.ndcg(one.ranks[:n_judged]), 5) for one in tried}
    in_time = [one for one in standing if field.has_time(one)] or standing
    best = max(in_time, key=lambda one: validation[one.name])
    final = field.finished(best)
    figures, baselines = field.figures(final), {Popularity.name: field.figures(field.popularity)}
    for other in tried:
        if other is not best and other.name not in (*baselines, *offers.TRAINED, Hybrid.name) and field.has_time(other):
            baselines[other.name] = field.figures(field.finished(other))
    return {
        "model": best.name, **figures, "n_users": len(asked.targets), "seconds": round(budget.spent_s, 1), "baselines": baselines,
        "k": k, "ranking": "full", "n_items": len(train.items), "n_unknown_items": asked.n_unknown, "n_unknown_users": asked.n_strangers,
        "validation": validation, "n_judged": n_judged, "left_out": field.left_out, "notes": [*train.notes, *test.notes],
    }  # fmt: skip


def _turn(name: str) -> tuple[bool, bool, bool]:
    """What is quick, and shows how fast this machine is; the closed form that promises most; the others; at last those that take all."""
    return name in (*offers.TRAINED, Hybrid.name), name not in QUICK, name not in (Blend.name, *offers.TRAINED)


class _Field:
    """One comparison's moving parts."""

    def __init__(self, train: Interactions, asked: Exam, *, k: int, seed: int, budget: Budget, report: Report):
        self.items, self.histories = Items(train.items, train.titles, train.texts), train.histories()
        self.asked, self.k, self.seed, self.budget, self.report = asked, k, seed, budget, report
        self.held = np.array([past[-1] if len(past) > 1 else -1 for past in self.histories], dtype=np.int32)
        self.shorter = [past[:-1] if len(past) > 1 else past for past in self.histories]
        self.judged = np.random.default_rng(seed).permutation(measure.people(self.held, seed=seed, most=JUDGED))
        self.popularity = Popularity().fit(self.histories, self.items)
        self.standin = Popularity().fit(self.shorter, self.items)
        self.shape = offers.shape(self.items, self.histories)
        self.left_out: dict[str, str] = {}
        self.slowness = 1.0
        self.again: dict[str, Recommender] = {Popularity.name: self.popularity}

    def try_all(self, names: Sequence[str]) -> list[Tried]:
        """Each model that fits into time and memory, fitted without the held-back items and measured on them."""
        tried: list[Tried] = []
        for place, name in enumerate(names):
            part = Part(self.report, 0.7 * place / len(names), 0.7 * (place + 1) / len(names), MODELS[name].title)
            free_s = self._left_s() - (self._finish_s(max(tried, key=lambda one: measure.ndcg(one.ranks))) if tried else 0.0)
            if name in offers.TRAINED and Hybrid.name in names:  # which takes what time it is given: some is kept for their sum
                free_s -= SLOWER * self.slowness * offers.COSTS[Hybrid.name](self.shape).seconds
            why = ""
            if name != Popularity.name:
                once = free_s / self.slowness / (1 if name in (*offers.TRAINED, Hybrid.name) else 2)  # the others are fitted again
                why = offers.refusal(name, self.shape, left_s=once, free_bytes=offers.free_bytes())
            if not why:
                try:
                    tried.append(self._try_hybrid(tried, part) if name == Hybrid.name else self._try(name, free_s, part))
                    continue
                except FMError as error:
                    why = error.message
                except MemoryError:
                    why = f"{MODELS[name].title} did not fit into memory."
            self.left_out[name] = why
        return tried

    def _try(self, name: str, free_s: float, report: Report) -> Tried:
        began = time.monotonic()
        minutes = free_s / 60 * 0.8 if np.isfinite(free_s) else 0.0
        model = offers.make(name, seed=self.seed, minutes=minutes, checkpoint=None)
        model = model.fit(self.shorter, self.items, held=self.held, report=Part(report, 0.0, 0.8))
        fit_s = time.monotonic() - began
        self.slowness = max(self.slowness, offers.slowness(name, self.shape, fit_s))
        first, answer_s = self._judge(model, self.judged[:FIRST], Part(report, 0.8, 0.82))
        n = int(np.clip(free_s * JUDGING / answer_s, ENOUGH, JUDGED)) if np.isfinite(free_s) else JUDGED
        rest, answer_s = self._judge(model, self.judged[FIRST:n], Part(report, 0.82, 1.0))
        # what learns step by step reads the held-back item without having learnt from it: as papers measure it, and in half the time
        again_s = 0.0 if name in offers.TRAINED and np.isfinite(free_s) else offers.again_s(model, fit_s)
        return Tried(name, model, np.concatenate([first, rest]), again_s, answer_s)

    def _judge(self, model: Recommender, places: np.ndarray, report: Report) -> tuple[np.ndarray, float]:
        """(ranks of the held-back items of some people, seconds for one of them)."""
        began, rows = time.monotonic(), [self.shorter[place] for place in places]
        found = answered(model, rows, self.held[places], standin=self.standin, report=report)
        return found.ranks, (time.monotonic() - began) / max(1, len(places))

    def _try_hybrid(self, tried: Sequence[Tried], report: Report) -> Tried:
        """The models tried so far as one, each half of the people judged by weights that the other half taught."""
        chosen = offers.members([one.name for one in tried])
        parts = tuple(one for one in tried if one.name in chosen)

        def learnt(held: np.ndarray) -> Hybrid:
            return Hybrid([one.model for one in parts]).learn(self.shorter, held, seed=self.seed)

        places = self.judged[: min(len(one.ranks) for one in tried)]
        ranks = measure.crossed(learnt, self.shorter, self.held, places, standin=self.standin, report=report)
        model = learnt(self.held)
        answer_s = sum(one.answer_s for one in parts)
        needed = set(model.weights().query("weight > 0")["member"])
        parts = tuple(one for one in parts if one.name in needed)
        return Tried(Hybrid.name, model, ranks, sum(one.again_s for one in parts), answer_s, parts)

    def finished(self, one: Tried) -> Recommender:
        """The model fitted again on all of train, with what was chosen; as it is where that would take too long."""
        if one.name in self.again:
            return self.again[one.name]
        if not one.again_s or not self.has_time(one):
            return one.model
        part = Part(self.report, 0.7, 0.9, "fitted on all of train")
        if one.members:
            model = one.model.over([*one.model.members, *(self.finished(member) for member in one.members)])
        else:
            model = offers.again(one.model, checkpoint=None).fit(self.histories, self.items, report=part)
        self.again[one.name] = model
        return model

    def figures(self, model: Recommender) -> dict[str, Any]:
        """A model's figures on the test. An item that train does not have is a miss."""
        found = self._answers(model)
        ranks = np.where(self.asked.targets < 0, ranking.MISSED, found.ranks)
        of_lists = {"coverage": measure.coverage(found.shown, n_items=len(self.items)), "n_fallback": found.n_fallback}
        return {**measure.estimates(ranks, k=self.k), **of_lists}

    def _answers(self, model: Recommender) -> Answered:
        part = Part(self.report, 0.9, 1.0, "test")
        return answered(model, self.asked.pasts, self.asked.targets, standin=self.popularity, report=part, k=self.k)

    def has_time(self, one: Tried) -> bool:
        """Whether a model can be fitted again and measured in what is left."""
        return self._left_s() > self._finish_s(one)

    def _finish_s(self, one: Tried) -> float:
        return SLOWER * (one.again_s + one.answer_s * len(self.asked.targets)) + 2

    def _left_s(self) -> float:
        return self.budget.left_s - (1 - MARGIN) * self.budget.seconds if np.isfinite(self.budget.seconds) else float("inf")
