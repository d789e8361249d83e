"""Off-policy estimates against values by hand, and against the truth where it is known."""

import numpy as np
import pytest

from fmcore.recommend import bandits, logged, off_policy, simulator
from tests.recommend import toy_visits


def by_name(values):
    return {value.estimator: value for value in values}


def test_ips_snips_and_dr_by_hand(monkeypatch):
    monkeypatch.setattr(off_policy, "LEAST_ESS", 0.0)
    rewards, weights = np.array([1.0, 0.0, 1.0, 1.0]), np.array([2.0, 0.5, 0.0, 1.0])
    direct = off_policy.Direct(logged=np.array([0.5, 0.5, 0.5, 0.5]), expected=np.array([0.4, 0.2, 0.6, 0.4]))
    found = by_name(off_policy.estimates(rewards, weights, direct=direct))
    assert found["ips"].value == pytest.approx((2 + 0 + 0 + 1) / 4)
    assert found["snips"].value == pytest.approx(3 / 3.5)
    assert found["dr"].value == pytest.approx((0.4 + 2 * 0.5 + 0.2 - 0.5 * 0.5 + 0.6 + 0.4 + 1 * 0.5) / 4)
    assert found["ips"].ess == pytest.approx(3.5**2 / (4 + 0.25 + 1))
    assert all(v.low <= v.value <= v.high and v.n == 4 and v.note == "" for v in found.values())


def test_without_a_reward_model_there_is_no_dr():
    assert [v.estimator for v in off_policy.estimates(np.ones(50), np.ones(50))] == ["ips", "snips"]


def test_the_logs_own_policy_is_worth_the_logs_mean():
    rewards = np.arange(60) % 3 / 2
    for value in off_policy.estimates(rewards, np.ones(60)):
        assert value.value == pytest.approx(0.5) and value.ess == pytest.approx(60)


def test_too_few_effective_rows_are_refused_with_the_number():
    weights = np.zeros(1000)
    weights[:20] = 3.0
    for value in off_policy.estimates(np.ones(1000), weights, direct=off_policy.Direct(np.zeros(1000), np.zeros(1000))):
        assert (value.value, value.low, value.high) == (None, None, None)
        assert value.ess == pytest.approx(20) and "1,000 logged rows are worth 20.0" in value.note
    (ips, _) = off_policy.estimates(np.array([]), np.array([]))
    assert ips.value is None and ips.n == 0


def test_a_weight_is_cut_and_that_is_said():
    weights = np.ones(200)
    weights[:2] = 1000.0
    found = by_name(off_policy.estimates(np.ones(200), weights)) if off_policy.effective(np.minimum(weights, 50)) >= 30 else {}
    assert not found
    weights = np.full(200, 40.0)
    weights[:2] = 1000.0
    ips = by_name(off_policy.estimates(np.ones(200), weights))["ips"]
    assert ips.value == pytest.approx((198 * 40 + 2 * 50) / 200) and "(rows: 2)" in ips.note


def test_rows_of_one_person_are_drawn_together():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 25)
    rewards = np.repeat(rng.random(40), 25)
    alone = by_name(off_policy.estimates(rewards, np.ones(1000)))["ips"]
    together = by_name(off_policy.estimates(rewards, np.ones(1000), people=people))["ips"]
    assert together.value == alone.value and together.high - together.low > 3 * (alone.high - alone.low)


def test_weights_are_the_targets_over_the_logged_probability():
    target = np.array([[0.5, 0.5], [1.0, 0.0]])
    assert off_policy.weights_of(target, np.array([1, 1]), np.array([0.25, 0.5])).tolist() == [2.0, 0.0]


def test_the_reward_model_judges_nobody_by_their_own_rows():
    folds = off_policy.folds_of(np.array(["a", "a", "b", "c"]))
    assert folds[0] == folds[1] != folds[2]
    features = np.ones((4, 1, 1))
    told = off_policy.reward_model(features, np.zeros(4, dtype=int), np.array([1.0, 1.0, 0.0, 1.0]), np.ones((4, 1)), folds)
    assert told.logged == pytest.approx([0.0, 0.0, 3 / 4, 0.0]) and told.expected == pytest.approx(told.logged)


def test_an_estimated_logging_policy_is_a_distribution_and_finds_what_the_state_says():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(600, 3))
    actions = np.where(rng.random(600) < 0.8, (states[:, 0] > 0).astype(int), 2)
    found = off_policy.logging_policy(states, actions, 4, off_policy.folds_of(np.arange(600)))
    assert found.sum(axis=1) == pytest.approx(1) and found.min() > 0.9 * off_policy.FLOOR / 1.02
    assert found[states[:, 0] > 1, 1].mean() > 0.6 > 0.1 > found[states[:, 0] > 1, 0].mean()
    assert np.isfinite(off_policy.logging_policy(states, np.zeros(600, dtype=int), 4, off_policy.folds_of(np.arange(600)))).all()


def situations(m=400, seed=0):
    """Situations whose rewards a linear model tells partly, a logging policy that prefers the first action, and one that is judged."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(m, 4))
    chances = 1 / (1 + np.exp(1.0 - 0.8 * own - np.array([0.0, 0.3, 0.6, 0.9])))
    features = np.concatenate([np.broadcast_to(np.eye(4), (m, 4, 4)), own[:, :, None]], axis=2)
    logging = np.broadcast_to(np.array([0.5, 0.25, 0.15, 0.1]), (m, 4))
    return features, chances, logging, np.eye(4)[own.argmax(axis=1)]


def test_where_the_truth_is_known_intervals_hold_it_and_dr_errs_less():
    found = off_policy.repeated(*situations(), n=400, repeats=100).set_index("estimator")
    assert (found["refused"] == 0).all()
    assert found["coverage"].between(0.88, 1.0).all()
    assert found.loc["dr", "relative_error"] < found.loc["ips", "relative_error"]


@pytest.mark.slow
def test_coverage_over_many_logs_is_between_90_and_99_percent():
    found = off_policy.repeated(*situations(), n=1000, repeats=400).set_index("estimator")
    assert found["coverage"].between(0.90, 0.99).all()
    assert found.loc["dr", "relative_error"] <= found.loc["ips", "relative_error"]


def test_the_same_seed_gives_the_same_interval():
    rng = np.random.default_rng(0)
    rewards, weights = rng.random(100), rng.random(100)
    assert off_policy.estimates(rewards, weights, seed=3) == off_policy.estimates(rewards, weights, seed=3)


@pytest.mark.slow
def test_coverage_over_many_logs_of_the_simulator_is_between_90_and_99_percent():
    data = toy_visits.log()
    session = simulator.Session(simulator.fit(data, toy_visits.GROUPS), toy_visits.model(data).scores)
    met = logged.met_in(session, n=600, seed=0)
    features = np.stack([bandits.features(observation) for observation in met.observations])
    greedy = np.eye(4)[np.zeros(600, dtype=int)]
    found = off_policy.repeated(features, met.chances, met.logging, greedy, n=1000, repeats=200).set_index("estimator")
    assert found["coverage"].between(0.90, 0.99).all()
    assert found.loc["dr", "relative_error"] <= found.loc["ips", "relative_error"]


def test_a_log_drawn_of_the_simulator_has_the_logging_policys_actions_and_the_truths_rewards():
    data = toy_visits.log()
    session = simulator.Session(simulator.fit(data, toy_visits.GROUPS), toy_visits.model(data).scores)
    met = logged.met_in(session, n=200, seed=0)
    at, log = logged.drawn(met, n=20_000, seed=0)
    assert np.bincount(log.actions, minlength=4) / 20_000 == pytest.approx(logged.preferring(4), abs=0.015)
    assert log.rewards.mean() == pytest.approx(met.chances[at, log.actions].mean(), abs=0.005)
    assert np.array_equal(log.observations, met.observations[at])


def test_a_real_log_is_read_at_the_moment_before_each_step():
    """The action is the place of the next item's group among the candidates, the reward whether it was rated 4 or more."""
    data = toy_visits.log()
    world, model = simulator.fit(data, toy_visits.GROUPS), toy_visits.model(data)
    session = simulator.Session(world, model.scores)
    log = logged.of_people(data, session, n=300, seed=0)
    assert len(log.actions) == 300 and set(log.rewards) == {0.0, 1.0} and "estimated" in log.how
    assert log.propensities.sum(axis=1) == pytest.approx(1)
    first = (log.actions == 0).mean()
    assert first > 0.4 and log.rewards[log.actions == 0].mean() > log.rewards[log.actions != 0].mean()


@pytest.mark.parametrize(("rating", "why"), [(np.nan, "0 rated steps"), (5.0, "same side")])
def test_a_log_without_two_sorts_of_ratings_values_nothing(rating, why):
    data = toy_visits.log()
    data.rows["rating"] = np.float32(rating)
    session = simulator.Session(simulator.fit(data, toy_visits.GROUPS), toy_visits.model(data).scores)
    assert why in logged.of_people(data, session, n=300, seed=0)


def test_no_live_rows_are_refused_in_words():
    import pandas as pd

    found = logged.live(pd.DataFrame(columns=["who", "item", "kind", "value", "happened_at"]).astype({"item": int}), toy_visits.GROUPS)
    assert {policy for policy, _ in found} == {"learner", "even"} and all(value.value is None and value.note for _, value in found)
