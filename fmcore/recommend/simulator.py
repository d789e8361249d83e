"""The simulator: sessions of made-up visits by people whose tastes come from a log, so that agents can be tried without troubling anybody.

Owns what is true in it: who likes what, how a visit bores and when it ends. Every number that was not measured is an assumption and is
said as one (`World.assumptions`). Knows no agent; the model that ranks the items inside a group is handed in.

A visit is a feed in screens of SCREEN places. The candidates of a step are the groups' best items, by the ranking model, that were neither
met nor shown yet, in the order of their scores; an agent's action is a place in that order (0: the model's best item of all), and that
item is shown next. The person looks at place p of a screen with probability 1 / log2(p + 1) (the discount
of DCG, Järvelin & Kekäläinen 2002), likes what is looked at with the probability below, and then stays or leaves:

    P(like | looked) = sigmoid(level + slope * taste) * exp(-BORED * b)        b: how often the group was looked at lately,
    P(stay)          = stay * exp(-TIRED * b)                                   b <- FADE * b each step, + 1 for a look

taste is the normal score (Φ⁻¹ of the rank) of the item for this person under EASE (Steck 2019) fitted to one half of the log's people;
visits are made by the other half, half of them for training agents and half for judging them. The reward is 1 for a like.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from fmcore.data.interactions import Interactions
from fmcore.nouns import FMError
from fmcore.recommend.counting import Ease
from fmcore.recommend.recommender import History, Items

if TYPE_CHECKING:
    import gymnasium

    from fmcore.recommend.groups import Groups

SCREEN = 5
BORED, TIRED, FADE = 0.35, 0.04, 0.8
"""What one recent look at the same group takes off: exp(-0.35) = 30 % of the chance to like, exp(-0.04) = 4 % of the chance to stay."""
LIKED_SHARE = 0.05
"""Assumed share of the whole catalogue that a person would like when looking at it: sets the level."""
LONGEST = 40
GAP_S = 30 * 60
"""A pause of half an hour ends a session of the log: the usual line of web analytics."""
SHORTEST_MEAN, LONGEST_MEAN = 8.0, 25.0
"""Mean steps of a visit that is not bored: the log's mean session, within these bounds."""
MOST_ITEMS, MOST_PEOPLE, LEAST_PAST, FEWEST = 2_000, 600, 4, 40
NEGATIVES = 20
EMPTY = -5.0
"""Score of a group without an item left: below every normal score there is."""
LOOK = 1 / np.log2(np.arange(SCREEN) + 2)

Ranker = Callable[[Sequence[History]], np.ndarray]
"""Pasts in the catalogue's numbers -> float (n, n_items) scores: `scores` of a model."""
Part = Literal["training", "judging"]


class TooThin(FMError):
    """The log is too small to make a simulator of."""


@dataclass(frozen=True, eq=False)
class World:
    """What is true in the simulator.

    items: int32 (n,) the catalogue's numbers of what can be shown, local int32 (n_catalogue,) the way back, -1 for what cannot; of: int
    (n,) their groups; names: one a group. A person: pasts (what
    an agent knows of them, catalogue numbers), met bool (n_people, n) (never shown), tastes float32 (n_people, n). training and judging:
    which people visit where. slope and level make a chance of a taste; stay is the chance to stay when not bored.
    """

    items: np.ndarray
    local: np.ndarray
    of: np.ndarray
    names: tuple[str, ...]
    pasts: list[History]
    met: np.ndarray
    tastes: np.ndarray
    training: np.ndarray
    judging: np.ndarray
    slope: float
    level: float
    stay: float
    assumptions: tuple[str, ...]

    @property
    def n_groups(self) -> int:
        return len(self.names)


def fit(data: Interactions, groups: Groups, *, seed: int = 0) -> World:
    """A world fitted to a log: groups.of names the group of each item of `data`. Raises TooThin."""
    histories = data.histories()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(histories))
    told = order[::2]
    counts = np.bincount(data.rows["item"].to_numpy()[np.isin(data.rows["user"], told)], minlength=len(data.items))
    items = np.sort(np.argsort(-counts, kind="stable")[:MOST_ITEMS])
    items = items[counts[items] > 0].astype(np.int32)
    names_of, of = _compact(np.asarray(groups.of)[items], groups.names)
    local = np.full(len(data.items), -1, dtype=np.int32)
    local[items] = np.arange(len(items))
    mine = [past for past in (_inside(histories[u], local) for u in order[1::2]) if len(past) >= LEAST_PAST][:MOST_PEOPLE]
    if len(mine) < FEWEST or len(items) < FEWEST or len(names_of) < 2:
        raise TooThin(
            f"{data.name} has {len(mine)} people for visits and {len(items)} items that the others met (groups: {len(names_of)}).",
            f"A simulator needs {FEWEST} of each and two groups: bring a longer log.",
        )
    names = tuple(str(i) for i in range(len(items)))
    truth = Ease(regularisation=200.0, recency=30.0).fit([_inside(histories[u], local) for u in told], Items(names, names, names))
    tastes = _normal(truth.scores(mine))
    slope = _slope(truth, mine, rng)
    level = _level(slope, len(items))
    mean = _mean_session(data)
    met = np.zeros((len(mine), len(items)), dtype=bool)
    halves = [(len(past) + 1) // 2 for past in mine]
    for row, (past, half) in enumerate(zip(mine, halves, strict=True)):
        met[row, past[:half]] = True
    people = np.arange(len(mine))
    known = [items[past[:half]] for past, half in zip(mine, halves, strict=True)]
    world = World(items, local, of, names_of, known, met, tastes, people[::2], people[1::2], slope, level, 1 - 1 / mean, ())
    return dataclasses.replace(world, assumptions=_assumptions(world, data, len(told), mean))


def _inside(past: History, local: np.ndarray) -> History:
    """A past in the world's own numbers, without what cannot be shown."""
    found = local[past]
    return found[found >= 0]


def _compact(of: np.ndarray, names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Only the groups that have an item: (names, int (n,) the group of each item)."""
    there, compact = np.unique(of, return_inverse=True)
    return tuple(names[g] for g in there), compact


def _normal(scores: np.ndarray) -> np.ndarray:
    """float32: each row's scores as normal scores of their ranks, ties by the item's number; comparable whatever made them."""
    from scipy.special import ndtri

    n = scores.shape[1]
    ranks = np.empty(scores.shape, dtype=np.int64)
    np.put_along_axis(ranks, np.argsort(-scores, axis=1, kind="stable"), np.broadcast_to(np.arange(n), scores.shape), axis=1)
    return ndtri(1 - (ranks + 0.5) / n).astype(np.float32)


def _slope(truth: Ease, pasts: Sequence[History], rng: np.random.Generator) -> float:
    """What one normal score is worth in log-odds: logistic regression of "met next" against items drawn at random.

    The slope of such a case-control sample does not depend on how many controls are drawn (Prentice & Pyke 1979); its level does.
    """
    from sklearn.linear_model import LogisticRegression

    long = [past for past in pasts if len(past) >= 2]
    tastes = _normal(truth.scores([past[:-1] for past in long]))
    values, answers = [], []
    for row, past in zip(tastes, long, strict=True):
        others = np.setdiff1d(rng.integers(0, len(row), NEGATIVES), past)
        values += [row[past[-1]], *row[others]]
        answers += [1, *([0] * len(others))]
    found = LogisticRegression().fit(np.array(values).reshape(-1, 1), answers)
    return float(np.clip(found.coef_[0, 0], 0.2, 3.0))


def _level(slope: float, n: int) -> float:
    """The intercept at which LIKED_SHARE of a catalogue of n items is liked."""
    from scipy.optimize import brentq
    from scipy.special import expit, ndtri

    tastes = ndtri((np.arange(n) + 0.5) / n)
    return float(brentq(lambda level: expit(level + slope * tastes).mean() - LIKED_SHARE, -30, 10))


def _mean_session(data: Interactions) -> float:
    """Mean interactions of the log's sessions (a pause of GAP_S ends one), within SHORTEST_MEAN and LONGEST_MEAN."""
    rows = data.rows.sort_values(["user", "at"], kind="stable")
    at, user = rows["at"].to_numpy(), rows["user"].to_numpy()
    starts = np.append(True, (np.diff(user) != 0) | (np.diff(at) > GAP_S))
    return float(np.clip(len(rows) / starts.sum(), SHORTEST_MEAN, LONGEST_MEAN))


def _assumptions(world: World, data: Interactions, n_told: int, mean: float) -> tuple[str, ...]:
    made_up = " The log itself is made up." if data.synthetic else ""
    return (
        f"Tastes: EASE fitted to {n_told:,} people of {data.name}; visits by {len(world.pasts):,} others, {len(world.training):,} for "
        f"training and {len(world.judging):,} for judging. An agent knows the first half of a visitor's past; the taste follows from "
        f"all of it.{made_up}",
        f"Catalogue: the {len(world.items):,} items that those people met most, in {world.n_groups} groups.",
        f"Liking: one normal score of taste is worth {world.slope:.2f} in log-odds (measured: met next against random items); "
        f"{LIKED_SHARE:.0%} of the catalogue is liked when looked at (assumed).",
        f"Boredom (assumed): each recent look at the same group takes {1 - np.exp(-BORED):.0%} off the chance to like and "
        f"{1 - np.exp(-TIRED):.0%} off the chance to stay; it fades by {1 - FADE:.0%} a step.",
        f"Position (assumed): place p of a screen of {SCREEN} is looked at with probability 1 / log2(p + 1).",
        f"Length: {mean:.0f} steps on average when not bored (the log's sessions, kept within {SHORTEST_MEAN:.0f} and {LONGEST_MEAN:.0f}), "
        f"{LONGEST} at most.",
    )


class Session:
    """One visit after another. `reset(seed)` starts one (the seed is all its chance), `show(action)` goes on; `observation()` in between.

    What an agent sees, float32 (n_features,): of each candidate in order the model's normal score, then of each candidate's group its own
    recent shows (fading), its share of the known past and its likes in this visit; then the chance that the next place is looked at, and
    the share of the longest visit that has gone by. Looks and boredom stay hidden. The ranking model is asked again at the start of a
    screen after a like. part: whose visits.
    """

    def __init__(self, world: World, ranker: Ranker, *, part: Part = "training"):
        from scipy.special import ndtri

        self.world, self._ranker = world, ranker
        self._people = world.training if part == "training" else world.judging
        self._place = {int(person): row for row, person in enumerate(self._people)}
        self._first = self._ranked([world.pasts[person] for person in self._people])
        n = len(world.items)
        self._scores = ndtri(1 - (np.arange(n) + 0.5) / n)
        self._shares = np.stack([self._share(person) for person in self._people])
        self._over = True

    @property
    def n_features(self) -> int:
        return 4 * self.world.n_groups + 2

    def _ranked(self, pasts: Sequence[History], batch: int = 256) -> np.ndarray:
        """int32 (len(pasts), n): the world's items, best first."""
        blocks = [self._ranker(pasts[i : i + batch])[:, self.world.items] for i in range(0, len(pasts), batch)]
        return np.concatenate([np.argsort(-block, axis=1, kind="stable").astype(np.int32) for block in blocks])

    def _share(self, person: int) -> np.ndarray:
        counts = np.bincount(self.world.of[self.world.met[person]], minlength=self.world.n_groups)
        return counts / max(counts.sum(), 1)

    def reset(self, seed: int) -> np.ndarray:
        """Start the visit of that number; returns the first observation."""
        rng = np.random.default_rng([int(seed), 7])
        self._person = int(self._people[rng.integers(len(self._people))])
        self._luck = rng.random((LONGEST, 3))
        world = self.world
        self._free = ~world.met[self._person]
        self._liked: list[int] = []
        self._asked_with = 0
        self._line_up(self._first[self._place[self._person]])
        self._bored, self._shown, self._likes = np.zeros(world.n_groups), np.zeros(world.n_groups), np.zeros(world.n_groups)
        self.step, self._over = 0, False
        return self.observation()

    def _line_up(self, order: np.ndarray) -> None:
        """Each group's free items, best first, and where in `order` each stands."""
        free = self._free[order]
        places = np.flatnonzero(free)
        of = self.world.of[order[places]]
        sort = np.argsort(of, kind="stable")
        ends = np.searchsorted(of[sort], np.arange(self.world.n_groups + 1))
        self._order = order
        self._lines = [places[sort[start:end]] for start, end in itertools.pairwise(ends)]
        self._at = np.zeros(self.world.n_groups, dtype=np.int64)
        self._best = np.array([self._scores[line[0]] if len(line) else EMPTY for line in self._lines])

    def candidates(self) -> np.ndarray:
        """int (n_groups,): the groups in the order of the actions; one that has no item left comes last."""
        return np.argsort(-self._best, kind="stable")

    def offered(self, action: int) -> int:
        """The world's number of the item that an action would show; the best of all where its group has none left."""
        groups = self.candidates()
        group = groups[action] if self._at[groups[action]] < len(self._lines[groups[action]]) else groups[0]
        return int(self._order[self._lines[group][self._at[group]]])

    def chances(self) -> np.ndarray:
        """float64 (n_groups,): P(like) of the next step for each action. The truth, not for agents."""
        return np.array([self._chance(self.offered(a)) for a in range(self.world.n_groups)]) * LOOK[self.step % SCREEN]

    def _chance(self, item: int) -> float:
        """P(like | looked)."""
        world = self.world
        logit = world.level + world.slope * float(world.tastes[self._person, item])
        return float(np.exp(-BORED * self._bored[world.of[item]]) / (1 + np.exp(-logit)))

    def show(self, action: int) -> tuple[float, bool, bool]:
        """(reward, whether the person left, whether the visit was cut: at its longest, or nothing is left) of showing a candidate."""
        if self._over:
            raise ValueError("the visit is over: reset first")
        item = self.offered(int(action))
        group = int(self.world.of[item])
        look, like, leave = self._luck[self.step]
        looked = look < LOOK[self.step % SCREEN]
        liked = bool(looked and like < self._chance(item))
        self._bored *= FADE
        self._shown *= FADE
        self._bored[group] += looked
        self._shown[group] += 1
        self._take(group, item, liked)
        self.step += 1
        left = leave > self.world.stay * np.exp(-TIRED * self._bored[group])
        self._over = left or self.step >= LONGEST or not self._free.any()
        if self.step % SCREEN == 0 and len(self._liked) > self._asked_with and not self._over:
            self._asked_with = len(self._liked)
            past = np.append(self.world.pasts[self._person], self.world.items[self._liked]).astype(np.int32)
            self._line_up(self._ranked([past])[0])
        return float(liked), bool(left), bool(self._over and not left)

    def _take(self, group: int, item: int, liked: bool) -> None:
        self._free[item] = False
        self._at[group] += 1
        line = self._lines[group]
        self._best[group] = self._scores[line[self._at[group]]] if self._at[group] < len(line) else EMPTY
        if liked:
            self._likes[group] += 1
            self._liked.append(item)

    def observation(self) -> np.ndarray:
        """What an agent may know now."""
        return self._observed(self._shares[self._place[self._person]])

    def situations(self, pasts: Sequence[History]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(observation, candidates' groups) of people of a log at their next step, as if a visit began there: their latest items stand
        for what they were shown. Ends the visit that was on."""
        self._over, self.step = True, 0
        local, found = self.world.local, []
        for past, order in zip(pasts, self._ranked(pasts), strict=True):
            met = local[past][local[past] >= 0]
            of = self.world.of[met]
            self._free = np.ones(len(self.world.items), dtype=bool)
            self._free[met] = False
            self._line_up(order)
            self._shown = np.bincount(of, weights=FADE ** np.arange(len(of))[::-1], minlength=self.world.n_groups)
            self._likes = np.zeros(self.world.n_groups)
            found.append((self._observed(np.bincount(of, minlength=self.world.n_groups) / max(len(of), 1)), self.candidates()))
        return found

    def _observed(self, shares: np.ndarray) -> np.ndarray:
        now = (LOOK[self.step % SCREEN], self.step / LONGEST)
        groups = self.candidates()
        parts = (self._best[groups] / 3, self._shown[groups] / 3, shares[groups], np.minimum(self._likes[groups] / 3, 1.5), now)
        return np.concatenate(parts).astype(np.float32)


def environment(session: Session) -> gymnasium.Env:
    """The session as a gymnasium environment: Discrete(n_groups) actions, Box observations, reward 1 for a like, terminated by leaving."""
    import gymnasium

    class Visits(gymnasium.Env):
        """The simulator of this module; see there for what is true in it."""

        metadata = {"render_modes": []}  # noqa: RUF012  gymnasium's own way to say it

        def __init__(self) -> None:
            self.action_space = gymnasium.spaces.Discrete(session.world.n_groups)
            self.observation_space = gymnasium.spaces.Box(-5.0, 5.0, (session.n_features,), np.float32)

        def reset(self, *, seed: int | None = None, options: dict | None = None):
            super().reset(seed=seed)
            return session.reset(int(self.np_random.integers(2**31))), {}

        def step(self, action):
            reward, left, cut = session.show(int(action))
            return session.observation(), reward, left, cut, {}

    return Visits()
