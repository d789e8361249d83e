"""The simulator: it is an environment by gymnasium's own checker, a function of its seed, and true to what it states."""

import dataclasses
import itertools

import numpy as np
import pytest

from fmcore.recommend import simulator
from fmcore.recommend.groups import Groups
from fmcore.recommend.simulator import LOOK, SCREEN, Session
from tests.recommend import toy_visits


@pytest.fixture(scope="module")
def made():
    """(world, log, model): frozen, and nothing here changes them."""
    data = toy_visits.log()
    return simulator.fit(data, toy_visits.GROUPS), data, toy_visits.model(data)


@pytest.fixture
def session(made):
    world, _, model = made
    return Session(world, model.scores)


def visit(session, seed, choose=lambda observation: 0):
    """(rewards, items, observations) of one visit."""
    observation, over = session.reset(seed), False
    rewards, items, seen = [], [], [observation]
    while not over:
        action = choose(observation)
        items.append(session.offered(action))
        reward, left, cut = session.show(action)
        over = left or cut
        observation = session.observation()
        rewards.append(reward)
        seen.append(observation)
    return rewards, items, np.array(seen)


def test_gymnasiums_own_checker_passes(session):
    from gymnasium.utils.env_checker import check_env

    env = simulator.environment(session)
    check_env(env, skip_render_check=True)
    assert env.action_space.n == toy_visits.N_GROUPS


def test_a_visit_is_a_function_of_its_number(made, session):
    world, _, model = made
    other = Session(world, model.scores)
    visit(other, 99)
    for seed in (0, 1):
        for one, two in zip(visit(session, seed), visit(other, seed), strict=True):
            assert np.array_equal(one, two)
    assert visit(session, 0)[1] != visit(session, 5)[1]


def test_the_environment_gives_the_same_visits_under_its_seed(session):
    env, runs = simulator.environment(session), []
    for _ in range(2):
        observation, _ = env.reset(seed=4)
        run = [observation]
        for action in (0, 1, 2):
            observation, reward, terminated, truncated, _ = env.step(action)
            run.append(np.append(observation, [reward, terminated, truncated]))
            if terminated or truncated:
                break
        runs.append(np.concatenate(run))
    assert np.array_equal(*runs)


def test_nothing_is_shown_twice_or_known_already(made, session):
    world = made[0]
    for seed in range(30):
        _, items, _ = visit(session, seed, lambda o: seed % 4)
        assert len(set(items)) == len(items)
        assert not world.met[session._person][items].any()


def test_a_visit_ends_when_everything_was_shown(made):
    world, _, model = made
    session = Session(dataclasses.replace(world, met=np.ones_like(world.met), stay=9.0), model.scores)
    session.reset(0)
    session._free[:3] = True
    session._line_up(session._order)
    ends = [session.show(3)[1:] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_candidates_come_best_first_and_action_0_is_the_models_best(made, session):
    world, _, model = made
    observation = session.reset(3)
    scores = model.scores([world.pasts[session._person]])[0][world.items]
    free = np.where(world.met[session._person], -np.inf, scores)
    assert free[session.offered(0)] == free.max()
    best = observation[: world.n_groups]
    assert (np.diff(best) <= 0).all()
    for action, group in enumerate(session.candidates()):
        item = session.offered(action)
        assert world.of[item] == group and free[item] == free[world.of == group].max()


def test_people_of_training_never_judge_and_taste_was_told_by_others(made):
    world, data, _ = made
    assert not set(world.training) & set(world.judging)
    assert len(world.training) + len(world.judging) == len(world.pasts) <= len(data.users) // 2


def rate(session, act, *, n=400):
    """(likes a step, mean steps) over n visits."""
    found = [visit(session, seed, act)[0] for seed in range(n)]
    return sum(map(sum, found)) / sum(map(len, found)), np.mean([len(one) for one in found])


def test_likes_are_as_frequent_as_the_stated_chance(session):
    said, got = [], []
    for seed in range(400):
        session.reset(seed)
        said.append(session.chances()[0])
        got.append(session.show(0)[0])
    assert np.mean(got) == pytest.approx(np.mean(said), abs=4 * np.sqrt(np.mean(said) / 400))


def test_a_group_that_is_looked_at_again_and_again_bores(made):
    world, _, model = made
    keen = dataclasses.replace(world, level=30.0, stay=9.0)  # everybody stays, and likes whatever is looked at: what is left is boredom
    stay = Session(keen, model.scores)
    stay.reset(0)
    group = stay.candidates()[0]
    for _ in range(10):
        stay.show(int(np.flatnonzero(stay.candidates() == group)[0]))
    place = int(np.flatnonzero(stay.candidates() == group)[0])
    looked = stay._bored[group]
    assert looked > 1 and stay.chances()[place] / LOOK[0] == pytest.approx(np.exp(-simulator.BORED * looked))
    others = [a for a, g in enumerate(stay.candidates()) if g != group]
    assert stay.chances()[others] / LOOK[0] == pytest.approx(1.0)


def test_boredom_shortens_visits(made):
    world, _, model = made
    session = Session(world, model.scores)
    turns = itertools.count()
    _, same = rate(session, lambda o: int(o[world.n_groups : 2 * world.n_groups].argmax()))
    _, varied = rate(session, lambda o: next(turns) % 4)
    assert same < varied


def test_lower_places_of_a_screen_are_looked_at_less(made):
    world, _, model = made
    keen = dataclasses.replace(world, level=30.0, stay=9.0)
    session = Session(keen, model.scores)
    got = np.array([visit(session, seed, lambda o: int(o[4:8].argmin()))[0][:SCREEN] for seed in range(300)])
    assert got[:, 0].mean() > 0.95 > got[:, 1].mean() > got[:, 4].mean()
    assert LOOK[0] == 1 and LOOK[1] == pytest.approx(0.6309, abs=1e-4)


def test_boredom_and_looks_stay_hidden_from_the_agent(session):
    """The agent sees what it showed; whether that was looked at would tell more."""
    observation = session.reset(0)
    n = session.world.n_groups
    assert observation[n : 2 * n].max() == 0
    session.show(0)
    seen = session.observation()[n : 2 * n]
    assert seen.max() == pytest.approx(1 / 3) and (seen > 0).sum() == 1


def test_the_model_is_asked_again_after_a_like(made):
    world, _, model = made
    asked = []

    def scores(pasts):
        asked.append([len(past) for past in pasts])
        return model.scores(pasts)

    session = Session(dataclasses.replace(world, level=30.0, stay=9.0), scores)
    before = len(asked)
    visit(session, 0)
    again = asked[before:]
    assert again and all(len(lengths) == 1 for lengths in again)
    assert again[0][0] > len(world.pasts[session._person])


def test_a_better_model_earns_more_than_the_wrong_way_round(made):
    world, _, model = made
    good = rate(Session(world, model.scores), lambda o: 0)[0]
    bad = rate(Session(world, lambda pasts: -model.scores(pasts)), lambda o: 0)[0]
    assert good > 1.3 * bad


def test_the_numbers_are_stated_and_the_made_up_log_is_named(made):
    world = made[0]
    said = " ".join(world.assumptions)
    assert f"{world.slope:.2f}" in said and "30%" in said and "made up" in said and "assumed" in said and "measured" in said
    assert world.slope > 0.3 and 0 < world.stay < 1


def test_the_level_is_where_the_stated_share_is_liked():
    from scipy.special import expit, ndtri

    level = simulator._level(1.5, 500)
    assert expit(level + 1.5 * ndtri((np.arange(500) + 0.5) / 500)).mean() == pytest.approx(simulator.LIKED_SHARE)


def test_a_world_is_a_function_of_log_and_seed(made):
    world, data, _ = made
    again, other = simulator.fit(data, toy_visits.GROUPS), simulator.fit(data, toy_visits.GROUPS, seed=1)
    assert np.array_equal(world.tastes, again.tastes) and world.slope == again.slope
    assert other.slope != world.slope


def test_a_thin_log_and_a_single_group_are_refused():
    with pytest.raises(simulator.TooThin, match="10 people"):
        simulator.fit(toy_visits.log(n_users=20), toy_visits.GROUPS)
    with pytest.raises(simulator.TooThin, match="groups: 1"):
        simulator.fit(toy_visits.log(), Groups(np.zeros(100, dtype=np.int32), ("all",)))


def test_an_over_visit_takes_no_further_step(session):
    visit(session, 0)
    with pytest.raises(ValueError, match="reset first"):
        session.show(0)
