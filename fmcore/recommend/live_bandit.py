"""The live learner: which group of items to try next, learnt from what was shown and what was clicked.

Its beliefs are a pure function of stored events over a weak prior from the base log: whoever has the events has the beliefs, so nothing is
kept, and a restart or a second server believes the same. Owns how a list is filled, with the probability of each item being on it. Never
touches the store and draws nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from fmcore.recommend.events import is_positive
from fmcore.recommend.recommender import History, standardised

if TYPE_CHECKING:
    from fmcore.recommend.groups import Groups

Kind = Literal["thompson", "linucb"]
ANSWER_WITHIN = dt.timedelta(days=1)
"""How long after a show an answer still counts as its answer."""
STRENGTH, RATE = 4.0, 0.15
"""The prior weighs as much as so many shows of an arm, of which so many in one are liked: weak, a few clicks outweigh it."""
SLOPE, SLOPE_WEIGHT = 0.05, 8.0
"""LinUCB's prior of what one standard deviation of the model's score adds to the chance of a click, and how many shows it weighs."""
NOISE, WIDTH = 0.25, 1.0
"""LinUCB: variance of a click at most (a coin's), and how many standard deviations of doubt are added (alpha in Li et al. 2010)."""
EVENLY = 0.1
"""Share of places given to a group drawn evenly, so that every group can be shown and its probability is never 0."""
DRAWS = 500
"""Lists drawn to estimate the probability of an item being on one; its standard error is then at most 0.022."""
COLUMNS = ("arm", "name", "mean", "low", "high", "n_shown", "n_liked", "trail")


@dataclass(frozen=True, eq=False)
class Prior:
    """What is believed before the first show. liked, missed: float64 (n_arms,), the two parameters of each arm's Beta distribution."""

    liked: np.ndarray
    missed: np.ndarray


@dataclass(frozen=True, eq=False)
class Beliefs:
    """What is believed of each group.

    frame (COLUMNS): an arm a row; mean with its 95 % interval low and high (Beta), n_shown, n_liked, and trail: a list of (moment, mean),
    one entry an event that moved it. liked, missed: the Beta's parameters. weights float64 (n_arms + 1,) and covariance: the linear
    model's (one weight a group, the last one the standardised score's).
    """

    frame: pd.DataFrame
    liked: np.ndarray
    missed: np.ndarray
    weights: np.ndarray
    covariance: np.ndarray


def prior(histories: Sequence[History], groups: Groups) -> Prior:
    """The weak prior of a base log: a group that people met more often than its share of the catalogue starts higher.

    mean of an arm = RATE times (share of the interactions + 1 / n_arms) / (share of the items + 1 / n_arms), within 0.02 and 0.6.
    """
    n = len(groups.names)
    of = np.asarray(groups.of)
    met = np.bincount(of[np.concatenate([*histories, np.empty(0, dtype=np.int32)]).astype(np.int64)], minlength=n).astype(np.float64)
    owned = np.bincount(of, minlength=n).astype(np.float64)
    share = met / met.sum() if met.any() else owned / max(owned.sum(), 1.0)
    lift = (share + 1 / n) / (owned / max(owned.sum(), 1.0) + 1 / n)
    mean = np.clip(RATE * lift, 0.02, 0.6)
    return Prior(mean * STRENGTH, (1 - mean) * STRENGTH)


def outcomes(events: pd.DataFrame) -> pd.DataFrame:
    """Each show with its answer, in the order of time: columns row (its place in `events`), who, item, at, probability, liked, liked_at.

    events: columns who, item, kind, value, happened_at; other columns are left alone. The first positive event of the same person on the
    same item within ANSWER_WITHIN answers the latest show of it that has no answer yet; one answer a show.
    """
    ordered = events.reset_index(drop=True).sort_values("happened_at", kind="stable")
    at = pd.to_datetime(ordered["happened_at"])
    moments = at.dt.as_unit("us").astype("int64").tolist()  # whole numbers: a list is asked for while somebody waits
    within, latest, shows, answers = ANSWER_WITHIN // dt.timedelta(microseconds=1), {}, [], []
    columns = (ordered[name].tolist() for name in ("who", "item", "kind", "value"))
    for row, (moment, who, item, kind, value) in enumerate(zip(moments, *columns, strict=True)):
        if kind == "shown":
            latest[who, item] = len(shows)
            shows.append(row)
            answers.append(-1)
        elif is_positive(kind, value):
            place = latest.pop((who, item), None)
            if place is not None and moment - moments[shows[place]] <= within:
                answers[place] = row
    found, answered = ordered.iloc[shows], np.array(answers, dtype=np.int64) >= 0
    told = {"row": ordered.index[shows], "who": found["who"].array, "item": found["item"].array, "at": at.iloc[shows].array}
    liked_at = at.iloc[answers].reset_index(drop=True).where(answered)
    return pd.DataFrame({**told, "probability": found["value"].array, "liked": answered, "liked_at": liked_at.array})


def beliefs(events: pd.DataFrame, groups: Groups, *, prior: Prior, scores: np.ndarray | None = None) -> Beliefs:
    """What the events teach, on top of the prior. Depends on nothing else: the same events give the same beliefs.

    events: columns who, item (the item's number; -1, no item any more, is left out), kind, value, happened_at. A show without an answer
    counts against its group, an answered one for it. scores: float (len(events),) the standardised score that the model gave a shown
    item, NaN where unknown (counts as 0: the linear model then learns of the group alone).
    """
    n = len(groups.names)
    of = np.asarray(groups.of)
    there = events["item"].between(0, len(of) - 1).to_numpy()
    found = outcomes(events[there])
    arms = of[found["item"].to_numpy(dtype=np.int64)] if len(found) else np.empty(0, dtype=np.int64)
    liked = found["liked"].to_numpy(dtype=bool)
    n_shown = np.bincount(arms, minlength=n)
    n_liked = np.bincount(arms[liked], minlength=n)
    alpha, beta = prior.liked + n_liked, prior.missed + n_shown - n_liked
    from scipy.stats import beta as distribution

    frame = pd.DataFrame({"arm": np.arange(n), "name": list(groups.names), "mean": alpha / (alpha + beta)})
    frame["low"], frame["high"] = distribution.ppf(0.025, alpha, beta), distribution.ppf(0.975, alpha, beta)
    frame["n_shown"], frame["n_liked"] = n_shown, n_liked
    frame["trail"] = _trails(found, arms, prior)
    of_events = np.zeros(len(events)) if scores is None else np.nan_to_num(np.asarray(scores, dtype=np.float64))
    weights, covariance = _linear(arms, np.clip(of_events[there][found["row"].to_numpy(dtype=np.int64)], -3, 3), liked, prior)
    return Beliefs(frame[list(COLUMNS)], alpha, beta, weights, covariance)


def choose(
    scores: np.ndarray,
    groups: Groups,
    beliefs: Beliefs,
    *,
    k: int,
    rng: np.random.Generator,
    kind: Kind = "thompson",
    without: Collection[int] = (),
    draws: int = DRAWS,
) -> list[tuple[int, float]]:
    """k items in the order in which to show them, each with the probability of being on the list; fewer where there are no more.

    scores: float (n_items,) what the model gives this person's items. A place takes a group, then its best item by score that is not on
    the list: by a draw from each group's Beta ("thompson": Thompson 1933, Chapelle & Li 2011), or by the upper bound of a linear model of
    the group and the score ("linucb": Li et al. 2010, arXiv:1003.0146); EVENLY of the places take a group drawn evenly. The probability
    is a Monte Carlo estimate: of `draws` further lists and this one, the share that has the item. Seeded by `rng` alone.
    """
    scores = np.asarray(scores, dtype=np.float32)
    free = np.ones(len(scores), dtype=bool)
    free[list(without)] = False
    tops = _tops(scores, np.asarray(groups.of), len(groups.names), free, k)
    k = min(k, int((tops >= 0).sum()))
    if k <= 0:
        return []
    n = draws + 1
    if kind == "thompson":
        drawn = rng.beta(beliefs.liked, beliefs.missed, size=(n, k, len(groups.names)))
        index: Callable[[int, np.ndarray], np.ndarray] = lambda slot, _: drawn[:, slot]  # noqa: E731
    else:
        bounds = _bounds(standardised(scores[None])[0], tops, beliefs)
        arms = np.arange(len(groups.names))
        index = lambda _, counts: bounds[arms, np.minimum(counts, bounds.shape[1] - 1)]  # noqa: E731
    chosen, counts = _filled(index, (tops >= 0).sum(axis=1), n=n, k=k, rng=rng)
    rank = np.zeros(len(groups.names), dtype=np.int64)
    shown = []
    for arm in chosen[0]:
        shown.append((int(tops[arm, rank[arm]]), float((counts[:, arm] > rank[arm]).mean())))
        rank[arm] += 1
    return shown


def even_chance(shows: pd.DataFrame, groups: Groups) -> np.ndarray:
    """float64 (len(shows),): the probability that a learner without any belief, every place a group drawn evenly, shows the item too.

    shows: `outcomes` of live rows, each list one moment of one person. A group's r-th item is on a list of k when at least r of its places
    fall to the group: P(Binomial(k, 1 / n_arms) >= r). The other policy of an off-policy estimate.
    """
    from scipy.stats import binom

    lists = shows.assign(arm=np.asarray(groups.of)[shows["item"].to_numpy(dtype=np.int64)]).sort_values("row")
    size = lists.groupby(["who", "at"])["item"].transform("size").to_numpy()
    rank = lists.groupby(["who", "at", "arm"]).cumcount().to_numpy() + 1
    return pd.Series(binom.sf(rank - 1, size, 1 / len(groups.names)), index=lists.index).reindex(shows.index).to_numpy()


def _trails(found: pd.DataFrame, arms: np.ndarray, prior: Prior) -> list[list[tuple]]:
    """Per arm (moment, mean) after each event that moved it, in the order of time."""
    yes = found["liked"].to_numpy(dtype=bool)
    moved = pd.DataFrame({
        "at": pd.concat([found["at"], found["liked_at"][yes]], ignore_index=True), "arm": np.concatenate([arms, arms[yes]]),
        "liked": np.repeat([0, 1], [len(arms), yes.sum()]),
    }).sort_values(["at", "liked"], kind="stable")  # fmt: skip
    trails = []
    for arm, (liked, missed) in enumerate(zip(prior.liked, prior.missed, strict=True)):
        mine = moved[moved["arm"] == arm]
        ups = mine["liked"].to_numpy().cumsum()
        means = (liked + ups) / (liked + missed + np.arange(1, len(mine) + 1) - ups)
        trails.append(list(zip(mine["at"].tolist(), means.tolist(), strict=True)))
    return trails


def _linear(arms: np.ndarray, scores: np.ndarray, liked: np.ndarray, prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    """(weights, covariance) of Bayesian ridge regression of the answer on the group's one-hot and the score, noise NOISE."""
    n = len(prior.liked)
    features = np.zeros((len(arms), n + 1))
    features[np.arange(len(arms)), arms] = 1.0
    features[:, n] = scores
    precision = np.diag(np.append(prior.liked + prior.missed, SLOPE_WEIGHT))
    mean = np.append(prior.liked / (prior.liked + prior.missed), SLOPE)
    inverse = np.linalg.inv(precision + features.T @ features)
    return inverse @ (precision @ mean + features.T @ liked), NOISE * inverse


def _bounds(scores: np.ndarray, tops: np.ndarray, beliefs: Beliefs) -> np.ndarray:
    """float64 (n_arms, depth): LinUCB's upper bound of each group's items in `tops`."""
    n = len(tops)
    value = np.clip(np.where(tops >= 0, scores[tops], 0.0), -3, 3).astype(np.float64)
    own, cross, slope = np.diag(beliefs.covariance)[:n, None], beliefs.covariance[:n, n][:, None], beliefs.covariance[n, n]
    variance = own + 2 * cross * value + slope * value**2
    return beliefs.weights[:n, None] + beliefs.weights[n] * value + WIDTH * np.sqrt(np.maximum(variance, 0.0))


def _tops(scores: np.ndarray, of: np.ndarray, n_arms: int, free: np.ndarray, k: int) -> np.ndarray:
    """int64 (n_arms, k): each group's free items by score, best first, -1 where it has no more."""
    tops = np.full((n_arms, max(k, 1)), -1, dtype=np.int64)
    order = np.argsort(-scores, kind="stable")
    order = order[free[order]]
    for arm in range(n_arms):
        mine = order[of[order] == arm][:k]
        tops[arm, : len(mine)] = mine
    return tops


def _filled(
    index: Callable[[int, np.ndarray], np.ndarray], sizes: np.ndarray, *, n: int, k: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(int (n, k) the group of each place, int (n, n_arms) places a group) of n lists, filled place by place; a group that has no more
    items is passed over."""
    counts = np.zeros((n, len(sizes)), dtype=np.int64)
    chosen = np.empty((n, k), dtype=np.int64)
    lists = np.arange(n)
    even = rng.random((n, k)) < EVENLY
    for slot in range(k):
        found = np.where(even[:, slot, None], rng.random((n, len(sizes))), index(slot, counts))
        chosen[:, slot] = np.where(counts < sizes, found, -np.inf).argmax(axis=1)
        counts[lists, chosen[:, slot]] += 1
    return chosen, counts
