"""One-step logs in the terms of the simulator's agents: what could be seen, which candidate was taken, what came of it.

Three sources: the simulator under a policy whose probabilities are known, the real log (its policy is estimated, and that is said), and
what the live learner showed with its own probabilities. Owns how they are made comparable; estimates are off_policy.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fmcore.data.interactions import Interactions
from fmcore.recommend import bandits, live_bandit, off_policy
from fmcore.recommend.off_policy import Value
from fmcore.recommend.simulator import LEAST_PAST, Session

if TYPE_CHECKING:
    from fmcore.recommend.groups import Groups

FALL = 4.0
"""The simulator's logging policy takes place a of n candidates with a probability like exp(-a / FALL): it prefers the model's best."""
LIKED_FROM = 4.0
"""A rating of the log from here on is a like: half of MovieLens' ratings are."""
LEAST_ROWS = 100


@dataclass(frozen=True, eq=False)
class Situations:
    """Moments of visits. observations float32 (m, n_features); chances float64 (m, n) the truth; logging float64 (m, n) probabilities."""

    observations: np.ndarray
    chances: np.ndarray
    logging: np.ndarray


@dataclass(frozen=True, eq=False)
class Log:
    """A log of n rows. observations float32 (n, n_features); actions int (n,) places among the candidates; rewards float (n,);
    propensities float64 (n, n_actions); people (n,); how: where the probabilities are from, as a sentence."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    propensities: np.ndarray
    people: np.ndarray
    how: str


def preferring(n: int) -> np.ndarray:
    """float64 (n,): the simulator's logging policy over n candidates."""
    weights = np.exp(-np.arange(n) / FALL)
    return weights / weights.sum()


def met_in(session: Session, *, n: int, seed: int) -> Situations:
    """n situations that visits under the logging policy come to."""
    rng, policy = np.random.default_rng([seed, 13]), preferring(session.world.n_groups)
    observations, chances = [], []
    while len(observations) < n:
        observation, over = session.reset(int(rng.integers(2**31))), False
        while not over and len(observations) < n:
            observations.append(observation)
            chances.append(session.chances())
            _, left, cut = session.show(int(rng.choice(len(policy), p=policy)))
            over = left or cut
            observation = session.observation()
    return Situations(np.stack(observations), np.stack(chances), np.tile(policy, (n, 1)))


def drawn(situations: Situations, *, n: int, seed: int) -> tuple[np.ndarray, Log]:
    """(int (n,) which situations, a log of n rows of them): actions by the logging policy, rewards by the true chances."""
    rng = np.random.default_rng([seed, 17])
    at = rng.integers(0, len(situations.chances), n)
    cumulated = situations.logging[at].cumsum(axis=1)
    actions = np.minimum((rng.random((n, 1)) > cumulated).sum(axis=1), cumulated.shape[1] - 1)
    rewards = (rng.random(n) < situations.chances[at, actions]).astype(np.float64)
    log = Log(
        situations.observations[at], actions, rewards, situations.logging[at], np.arange(n),
        "Simulator: the logging policy and the truth are known.",
    )  # fmt: skip
    return at, log


def of_people(data: Interactions, session: Session, *, n: int, seed: int) -> Log | str:
    """A log of at most n rows of real people at random moments, or why there is none.

    The action is the candidate whose group the next item belongs to, the reward whether it was rated LIKED_FROM or more; the policy that
    led there is estimated by multinomial logistic regression on what an agent sees, for each half of the people from the other.
    """
    rows = data.rows.reset_index(drop=True)
    world = session.world
    local = world.local
    place = rows.groupby("user").cumcount().to_numpy()
    usable = np.flatnonzero((place >= LEAST_PAST) & (local[rows["item"]] >= 0) & rows["rating"].notna())
    if len(usable) < LEAST_ROWS:
        return f"{data.name} has {len(usable):,} rated steps: what was met without a word on whether it was liked values no policy."
    liked = (rows["rating"].to_numpy() >= LIKED_FROM).astype(np.float64)
    if liked[usable].min() == liked[usable].max():
        return f"Every rating of {data.name} falls on the same side of {LIKED_FROM:.0f}: no policy is better than another."
    chosen = np.sort(np.random.default_rng([seed, 19]).choice(usable, min(n, len(usable)), replace=False))
    items = rows["item"].to_numpy(dtype=np.int32)
    seen = session.situations([items[at - place[at] : at] for at in chosen])
    actions = np.array([int(np.flatnonzero(groups == world.of[local[items[at]]])[0]) for at, (_, groups) in zip(chosen, seen, strict=True)])
    observations, people = np.stack([observation for observation, _ in seen]), rows["user"].to_numpy()[chosen]
    propensities = off_policy.logging_policy(observations, actions, world.n_groups, off_policy.folds_of(people))
    how = f"Real log: the policy that led people is estimated, not known; a like is a rating of {LIKED_FROM:.0f} or more."
    return Log(observations, actions, liked[chosen], propensities, people, how)


def values(log: Log, target: np.ndarray, *, seed: int = 0) -> list[Value]:
    """The estimates of a policy, float64 (n, n_actions) probabilities on the log's rows."""
    features = np.stack([bandits.features(observation) for observation in log.observations])
    rows = np.arange(len(log.actions))
    weights = off_policy.weights_of(target, log.actions, log.propensities[rows, log.actions])
    direct = off_policy.reward_model(features, log.actions, log.rewards, target, off_policy.folds_of(log.people))
    return off_policy.estimates(log.rewards, weights, people=log.people, direct=direct, seed=seed)


def live(events: pd.DataFrame, groups: Groups) -> list[tuple[str, Value]]:
    """(policy, estimate) of clicks a shown item, from the live learner's own rows: the learner itself, and one that draws groups evenly.

    events: as `live_bandit.beliefs` takes them. A pure function of them; no reward model, so no doubly robust estimate.
    """
    there = events["item"].between(0, len(np.asarray(groups.of)) - 1)
    shows = live_bandit.outcomes(events[there.to_numpy()])
    shows = shows[shows["probability"].astype(float) > 0]
    rewards, people = shows["liked"].to_numpy(dtype=np.float64), shows["who"].to_numpy()
    if not len(shows):
        return [(policy, value) for policy in ("learner", "even") for value in off_policy.estimates(rewards, rewards)]
    even = live_bandit.even_chance(shows, groups) / shows["probability"].to_numpy(dtype=np.float64)
    told: Sequence[tuple[str, np.ndarray]] = (("learner", np.ones(len(shows))), ("even", even))
    return [(policy, value) for policy, weights in told for value in off_policy.estimates(rewards, weights, people=people)]
