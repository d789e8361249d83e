"""What follows from the label study's answers: a point with its interval a method and number of examples, which method to use where, and
whether one is so clearly ahead that the task's default should change.

Works on answers only (right or wrong, a row a seed); trains nothing and stores nothing. Every comparison is paired: the same seeds, the
same test rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fmcore import clock
from fmcore.data.labelled import LabelledData
from fmcore.evaluation.seeds import over_seeds, paired_over_seeds
from fmcore.lab.label_methods import ALL, METHODS, REPEATABLE, shots_words
from fmcore.nouns import Estimate

Key = tuple[str, int]
"""(method, shots)"""
EQUAL = 0.01
"""As good as another: at worst one point below it, by the interval."""
CHEAPER = 0.5
"""Clearly cheaper: at most half the seconds."""
FEWEST_SEEDS = 3
"""Of a method that chance has a part in; fewer show nothing about its luck."""
Point = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """The points, and the answers behind them: right[method, shots] is (seeds, rows), one row of answers where no seed changes them."""

    points: list[Point]
    right: Mapping[Key, np.ndarray]
    resamples: int = 1000

    def at(self, shots: int) -> list[Point]:
        """What may be used with so many examples, best first: those methods, and the one that needs none."""
        found = [p for p in self.points if p["shots"] in (shots, 0)]
        return sorted(found, key=lambda p: (-p["mean"], p["seconds"]))

    def above(self, one: Point, other: Point) -> Estimate:
        """How much better `one` is than `other`, over the seeds that both have."""
        a, b = self.right[_key(one)], self.right[_key(other)]
        fixed = [len(each) == 1 and point["method"] in REPEATABLE for each, point in ((a, one), (b, other))]
        if not any(fixed):
            n = min(len(a), len(b))
            a, b = a[:n], b[:n]
        return paired_over_seeds(b, a, resamples=self.resamples)

    def cheapest(self, candidates: Sequence[Point]) -> Point:
        """The cheapest of those that are not shown to be worse than the best of them (best first)."""
        good = [p for p in candidates if p is candidates[0] or self.above(candidates[0], p).low <= 0]
        return min(good, key=lambda p: p["seconds"])


def points(
    done: Mapping[Key, Sequence[Any]], right: Mapping[Key, np.ndarray], cells: Sequence[Mapping[str, Any]], *, resamples: int
) -> list[Point]:
    """A row a method and number of examples, in the order of cost, then of examples (all labels last)."""
    rows = []
    for (method, shots), made in done.items():
        found = over_seeds(right[method, shots], resamples=resamples)
        f1 = [c["macro_f1"] for c in cells if (c["method"], c["shots"]) == (method, shots)]
        rows.append({
            "method": method, "title": METHODS[method].title, "shots": shots, "mean": round(found.value, 5), "low": round(found.low, 5),
            "high": round(found.high, 5), "macro_f1": round(float(np.mean(f1)), 5), "n_seeds": len(made), "n_test": found.n,
            "trainable": made[0].trainable, "seconds": round(float(np.mean([c.seconds for c in made])), 3),
            "rss_mb": max(c.rss_mb for c in made),
        })  # fmt: skip
    order = {name: i for i, name in enumerate(METHODS)}
    return sorted(rows, key=lambda p: (order[p["method"]], p["shots"] == ALL, p["shots"]))


def advice(table: Table, *, usual: Mapping[str, Any]) -> list[dict[str, Any]]:
    """{shots, method, sentence} for each number of examples that was measured, from none to all. usual: what always saying the most
    frequent label comes to (baselines.majority, and its macro_f1); it is named where what is advised is not shown to be above it."""
    counts = sorted({p["shots"] for p in table.points}, key=lambda shots: (shots == ALL, shots))
    return [_advised(table, shots, usual) for shots in counts]


def _advised(table: Table, shots: int, usual: Mapping[str, Any]) -> dict[str, Any]:
    candidates = table.at(shots)
    best, chosen = candidates[0], table.cheapest(candidates)
    needs_none = ", which needs no labels" if chosen["shots"] == 0 and shots else ""
    said = f"{_with(shots)} use {chosen['title']}{needs_none}: {_figure(chosen)}"
    others = [p for p in candidates if p is not chosen]
    if not others:
        said += "; no other method was measured there"
    elif chosen is best:
        second = others[0]
        said += f", against {_figure(second)} of {second['title']}, {_proved(table.above(chosen, second), second, chosen)}"
    else:
        said += f", against {_figure(best)} of {best['title']}, which is not shown to be better and takes {_took(best)}"
    took = "nothing is trained" if not chosen["trainable"] else f"it takes {_took(chosen)}"
    sentences = [f"{said}; {took}."]
    if chosen["low"] <= usual["accuracy"]["value"]:
        f1 = f"with a macro F1 of {usual['macro_f1']:.2f} against {chosen['macro_f1']:.2f}"
        sentences.append(f"Always saying {usual['label']} is right on {usual['accuracy']['value']:.2f}, {f1}.")
    if missing := _not_measured(table, shots):
        sentences.append(f"Not measured there: {', '.join(missing)}.")
    return {"shots": shots, "method": chosen["method"], "sentence": " ".join(sentences)}


def _not_measured(table: Table, shots: int) -> list[str]:
    """Methods of the study without a point at that number of examples."""
    there = {p["method"] for p in table.at(shots)}
    learn = {p["method"]: p["title"] for p in table.points if p["shots"]} if shots else {}
    return [title for method, title in learn.items() if method not in there]


def _proved(apart: Estimate, second: Point, chosen: Point) -> str:
    if apart.low > 0:
        return "which is shown to be worse"
    slower = second["seconds"] > chosen["seconds"]
    return "which is not shown to be worse" + (f" but takes {_took(second)}" if slower else "")


def sentence(table: Table, advised: Sequence[Mapping[str, Any]]) -> str:
    """What the whole study says: what to use where, and whether pretraining pays."""
    runs: list[list[Any]] = []
    for row in advised:
        if runs and runs[-1][0] == row["method"]:
            runs[-1][2] = row["shots"]
        else:
            runs.append([row["method"], row["shots"], row["shots"]])
    told = [f"{METHODS[method].title} {_range(first, last)}" for method, first, last in runs]
    partly = [shots_words(row["shots"]) for row in advised if _not_measured(table, row["shots"])]
    hole = f"Not every method was measured with {', '.join(partly)}." if partly else ""
    return " ".join(filter(None, [f"Use {', '.join(told)}." if told else "", hole, _pretraining(table)]))


def _range(first: int, last: int) -> str:
    if first == last:
        return f"with {shots_words(first)}"
    return f"from {shots_words(first)} to {shots_words(last)}"


def _pretraining(table: Table) -> str:
    """With how few labels a pretrained encoder is shown to beat the best that was measured from scratch."""
    scratch = max((p for p in table.points if p["method"] == "scratch"), key=lambda p: p["mean"], default=None)
    others = [p for p in table.points if p["method"] != "scratch" and p["shots"]]
    if scratch is None or not others:
        return ""
    ordered = sorted(others, key=lambda p: (p["shots"] == ALL, p["shots"], -p["mean"]))
    better = next((p for p in ordered if table.above(p, scratch).low > 0), None)
    best = f"the best from scratch that was measured, {scratch['mean']:.2f} with {shots_words(scratch['shots'])}"
    if better is None:
        return f"No pretrained encoder is shown to be better than {best}."
    said = f"{better['title']} with {shots_words(better['shots'])} ({better['mean']:.2f})"
    return f"Pretraining pays: {said} is shown to be better than {best}."


def winner(table: Table, *, at: int, present: str, data: LabelledData) -> dict[str, Any]:
    """{method, recipe, shots, clear, reason}: what the task should be trained with at so many examples, against the present method.

    clear only where it is shown to be better than the present one, or is as good (within a point, by the interval) at half the time, on
    data that is not made up; else the reason says why nothing changes.
    """
    none = {"method": "", "recipe": "", "shots": at, "clear": False}
    where = f"with {shots_words(at)} of {data.name}"
    trained = [p for p in table.at(at) if p["shots"] == at and METHODS[p["method"]].recipe]
    known = [p for p in trained if p["n_seeds"] >= FEWEST_SEEDS or (p["method"] in REPEATABLE and at == ALL)]
    now = next((p for p in known if p["method"] == present), None)
    if now is None:
        title = METHODS[present].title if present in METHODS else "The present recipe"
        return {**none, "reason": f"{title} was not measured {where} with {FEWEST_SEEDS} seeds: nothing to compare a new default with."}
    first = table.cheapest(known)
    found = {**none, "method": first["method"], "recipe": METHODS[first["method"]].recipe}
    if first is now:
        return {**found, "reason": f"{now['title']} stays: {where} nothing is shown to be better, and nothing as good costs less."}
    apart = table.above(first, now)
    figures = f"{first['mean']:.3f} against {now['mean']:.3f}, {_points(apart)}, {_seeds(first, now)}, {first['n_test']} test rows"
    if apart.low > 0:
        clear, said = True, f"{first['title']} is better than {now['title']} {where}: {figures}."
    elif apart.low >= -EQUAL and first["seconds"] <= CHEAPER * now["seconds"]:
        cost = f"{_took(first)} instead of {_took(now)}"
        clear, said = True, f"{first['title']} is as good as {now['title']} {where} and takes {cost}: {figures}."
    else:
        clear, said = False, f"{first['title']} is not clearly ahead of {now['title']} {where}: {figures}."
    if data.synthetic:
        clear, said = False, f"{said} The data is made up: it decides no default."
    return {**found, "clear": clear, "reason": said}


def _key(point: Mapping[str, Any]) -> Key:
    return point["method"], point["shots"]


def _with(shots: int) -> str:
    if shots == 0:
        return "Without labels"
    return "With all labels" if shots == ALL else f"With {shots} example{'s' if shots > 1 else ''} per class"


def _figure(point: Mapping[str, Any]) -> str:
    """ "0.78 (0.75 to 0.81)"."""
    return f"{point['mean']:.2f} ({point['low']:.2f} to {point['high']:.2f})"


def _took(point: Mapping[str, Any]) -> str:
    return "less than 0.1 s" if point["seconds"] < 0.1 else clock.duration(point["seconds"])


def _points(apart: Estimate) -> str:
    return f"{100 * apart.value:+.1f} points (95 % interval {100 * apart.low:+.1f} to {100 * apart.high:+.1f})"


def _seeds(one: Point, other: Point) -> str:
    n = max(one["n_seeds"], other["n_seeds"])
    return f"{n} seed{'s' if n > 1 else ''}"
