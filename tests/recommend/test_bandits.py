"""The contextual bandits: their regression is ridge regression, and they learn in the simulator."""

import numpy as np
import pytest

from fmcore.recommend import bandits, simulator
from fmcore.recommend.bandits import LinearThompson, LinUCB, features
from tests.recommend import toy_visits

N = 3


def observation(rng, *, look=1.0):
    return np.concatenate([rng.random(4 * N), [look, 0.2]]).astype(np.float32)


def test_features_are_an_arm_a_row_and_shrink_with_the_look():
    seen = observation(np.random.default_rng(0))
    found = features(seen)
    assert found.shape == (N, N + 7) and found[:, :N] == pytest.approx(np.eye(N))
    assert found[1, N:] == pytest.approx([1, seen[1], seen[1] ** 2, seen[N + 1], seen[N + 1] * seen[1], seen[2 * N + 1], seen[3 * N + 1]], abs=1e-6)
    seen[-2] = 0.5
    assert features(seen) == pytest.approx(found / 2, abs=1e-6)


@pytest.mark.parametrize("kind", [LinUCB, LinearThompson])
def test_what_it_learns_is_ridge_regression(kind):
    rng, bandit = np.random.default_rng(0), kind(N)
    rows, rewards = [], []
    for _ in range(60):
        seen, arm, reward = observation(rng), int(rng.integers(N)), float(rng.random() < 0.5)
        bandit.learn(seen, arm, reward)
        rows.append(features(seen)[arm])
        rewards.append(reward)
    x = np.array(rows)
    assert bandit.weights == pytest.approx(np.linalg.solve(x.T @ x + bandits.PRECISION * np.eye(N + 7), x.T @ np.array(rewards)))


@pytest.mark.parametrize("kind", [LinUCB, LinearThompson])
def test_doubt_makes_it_try_every_arm_first(kind):
    rng, bandit = np.random.default_rng(0), kind(N)
    tried = set()
    for _ in range(30):
        seen = observation(rng)
        arm = bandit.explore(seen)
        tried.add(arm)
        bandit.learn(seen, arm, 0.0)
    assert tried == set(range(N))


@pytest.mark.parametrize("kind", [LinUCB, LinearThompson])
def test_regret_falls_below_half_of_random_and_the_best_arm_is_found(kind):
    rng, bandit = np.random.default_rng(2), kind(N, seed=1)
    chances, regret = np.array([0.2, 0.7, 0.4]), 0.0
    for _ in range(600):
        seen = observation(rng)
        arm = bandit.explore(seen)
        regret += chances.max() - chances[arm]
        bandit.learn(seen, arm, float(rng.random() < chances[arm]))
    assert regret < 0.5 * 600 * (chances.max() - chances.mean())
    assert np.mean([bandit.act(observation(rng)) == 1 for _ in range(50)]) > 0.9


def test_thompson_is_a_function_of_its_seed():
    rng = np.random.default_rng(0)
    seen = [observation(rng) for _ in range(20)]
    one, two, other = ([LinearThompson(N, seed=s).explore(o) for o in seen] for s in (1, 1, 2))
    assert one == two
    bandit, rival = LinearThompson(N, seed=1), LinearThompson(N, seed=2)
    assert [bandit.explore(o) for o in seen] != [rival.explore(o) for o in seen]


def test_on_real_observations_of_the_simulator_it_is_finite():
    data = toy_visits.log()
    session = simulator.Session(simulator.fit(data, toy_visits.GROUPS), toy_visits.model(data).scores)
    bandit = LinUCB(toy_visits.N_GROUPS)
    for seed in range(20):
        seen = session.reset(seed)
        arm = bandit.explore(seen)
        bandit.learn(seen, arm, session.show(arm)[0])
    assert np.isfinite(bandit.weights).all() and 0 <= bandit.act(session.reset(0)) < toy_visits.N_GROUPS
