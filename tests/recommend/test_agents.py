"""The agents: trained under a seed, stoppable, and judged on the same visits."""

import numpy as np
import pytest

from fmcore.nouns import Cancelled
from fmcore.recommend import agents, simulator
from fmcore.recommend.agents import AGENTS
from fmcore.recommend.simulator import Session
from tests.recommend import toy_visits


def silent(step, total):
    pass


@pytest.fixture(scope="module")
def world_and_model():
    """Frozen; every test makes its own sessions of it."""
    data = toy_visits.log()
    return simulator.fit(data, toy_visits.GROUPS), toy_visits.model(data)


@pytest.fixture
def sessions(world_and_model):
    world, model = world_and_model
    return Session(world, model.scores), Session(world, model.scores, part="judging")


def test_greedy_always_takes_the_models_best_and_random_every_candidate(sessions):
    training, judging = sessions
    greedy = agents.train("greedy", training, steps=0, seed=0, hear=silent)
    at_random = agents.train("random", training, steps=0, seed=0, hear=silent)
    seen = judging.reset(0)
    assert {greedy(seen) for _ in range(5)} == {0}
    assert {at_random(seen) for _ in range(200)} == set(range(toy_visits.N_GROUPS))


@pytest.mark.parametrize("name", ["random", "linucb", "thompson"])
def test_the_same_seed_gives_the_same_agent_and_visits(sessions, name):
    training, judging = sessions
    one, two, other = (agents.play(agents.train(name, training, steps=200, seed=s, hear=silent), judging, range(60)) for s in (1, 1, 2))
    assert np.array_equal(one, two)
    assert len(one) == 60 and one.min() >= 0 and (name != "random" or not np.array_equal(one, other))


def test_the_bandits_learn_to_beat_chance(sessions):
    training, judging = sessions
    chance = agents.play(agents.train("random", training, steps=0, seed=0, hear=silent), judging, range(600)).mean()
    for name in ("linucb", "thompson"):
        assert agents.play(agents.train(name, training, steps=3000, seed=0, hear=silent), judging, range(600)).mean() > chance


@pytest.mark.parametrize("name", ["linucb", "thompson"])
def test_returns_are_told_and_a_cancel_ends_the_training(sessions, name):
    training, _ = sessions
    told = []

    def hear(step, total):
        told.append((step, total))
        if len(told) == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        agents.train(name, training, steps=10_000, seed=0, hear=hear)
    steps = [step for step, _ in told]
    assert len(told) == 5 and steps == sorted(steps)


def test_a_deep_agent_trains_tells_its_returns_and_stops(sessions):
    """The one tiny run of stable-baselines3 among the fast tests."""
    training, judging = sessions
    told = []
    act = agents.train("dqn", training, steps=128, seed=0, hear=lambda step, total: told.append(step))
    assert told and told == sorted(told) and told[-1] <= 128
    assert agents.play(act, judging, range(5)).shape == (5,)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_what_an_agent_does_is_what_its_network_says(sessions, monkeypatch, name):
    models, made = [], agents._algorithm
    monkeypatch.setattr(agents, "_algorithm", lambda *a, **k: models.append(made(*a, **k)) or models[-1])
    training, _ = sessions
    act = agents.train(name, training, steps=600, seed=0, hear=silent)
    seen = np.random.default_rng(0).uniform(-3, 3, (200, training.n_features)).astype(np.float32)
    said = [int(models[0].predict(observation, deterministic=True)[0]) for observation in seen]
    assert [act(observation) for observation in seen] == said and len(set(said)) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_a_cancel_ends_a_deep_agents_training(sessions, name):
    def hear(step, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        agents.train(name, sessions[0], steps=100_000, seed=0, hear=hear)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_a_deep_agent_is_a_function_of_its_seed(sessions, name):
    training, judging = sessions
    played = [agents.play(agents.train(name, training, steps=512, seed=s, hear=silent), judging, range(40)) for s in (3, 3)]
    assert np.array_equal(*played)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_a_deep_agent_learns_to_beat_chance(sessions, name):
    training, judging = sessions
    chance = agents.play(agents.train("random", training, steps=0, seed=0, hear=silent), judging, range(600)).mean()
    act = agents.train(name, training, steps=6000, seed=0, hear=silent)
    assert agents.play(act, judging, range(600)).mean() > chance


def test_every_agent_says_what_it_is():
    assert all(agent.summary.endswith(".") and agent.title for agent in AGENTS.values())
    assert [name for name in AGENTS if AGENTS[name].learns] == ["linucb", "thompson", "dqn", "ppo"]
