"""The contest in one call, its figures and sentences, what a stopped one goes on from, and how it is stored."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from fmcore.nouns import Cancelled
from fmcore.recommend import contest, simulator, standings
from fmcore.recommend.contest import Plan
from fmcore.recommend.recommender import Items
from fmcore.store.store import Store
from tests.recommend import toy_visits
from tests.recommend.test_live_bandit import events
from tests.recommend.toy_visits import Quiet

QUICK = {"plan": Plan(steps=200, seeds=2), "ranker": "EASE", "version": "v1", "learners": ("linucb",)}


def held(*, report=None, data=None, **options):
    data = data or toy_visits.log()
    return contest.run(data, toy_visits.model(data), toy_visits.GROUPS, report=report or Quiet(), **QUICK | options)


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


def test_one_call_gives_returns_curves_table_estimates_assumptions_and_a_sentence():
    report = Quiet()
    found = held(report=report)
    n = found.plan.n_visits
    assert list(found.returns.columns) == ["agent", "seed", "episode", "return"]
    assert found.returns.groupby("agent")["return"].size().to_dict() == dict.fromkeys(("random", "popularity", "greedy", "linucb"), 2 * n)
    assert list(found.table.columns) == list(standings.COLUMNS) and list(found.table["agent"]) == ["random", "popularity", "greedy", "linucb"]
    for row in found.table.to_dict("records"):
        mine = found.returns[found.returns["agent"] == row["agent"]]["return"]
        assert row["mean"] == pytest.approx(mine.mean())
        assert row["low"] <= row["mean"] <= row["high"] and (row["n_seeds"], row["n_visits"]) == (2, n)
    assert "Greedy EASE" in found.table.set_index("agent").loc["greedy", "title"] and "Greedy EASE" in found.sentence
    assert len(found.assumptions) >= 8 and any("boredom" in said.lower() for said in found.assumptions)
    names = {name for _, values in report.metrics for name in values}
    assert names == {"return_linucb"} == {f"return_{agent}" for agent in found.curves["agent"]}
    assert report.progressed == sorted(report.progressed) and report.progressed[-1] == 1.0
    assert found.synthetic and found.dataset == "toy" and found.version == "v1"


def test_off_policy_estimates_stand_beside_the_truth_of_the_simulator_and_without_one_for_the_real_log():
    found = held().off_policy
    assert list(found.columns) == list(contest.OFF_POLICY)
    assert set(found["agent"]) == {"random", "greedy", "linucb"} and set(found["estimator"]) == {"ips", "snips", "dr"}
    simulated, real = found[found["source"] == "simulator"], found[found["source"] == "log"]
    assert simulated["truth"].between(0, 1).all() and real["truth"].isna().all()
    dr = simulated[simulated["estimator"] == "dr"].set_index("agent")
    assert ((dr["low"] - 0.05 <= dr["truth"]) & (dr["truth"] <= dr["high"] + 0.05)).all()
    assert (found["ess"] > 0).all() and (found["n"] > 0).all()


def test_greedy_is_worth_more_than_chance_on_the_real_log_of_people_who_love_one_group():
    real = held().off_policy.query("source == 'log' and estimator == 'snips'").set_index("agent")["value"]
    assert real["greedy"] > real["random"] + 0.2


def test_a_log_without_ratings_says_that_it_values_nothing():
    found = held(data=toy_visits.log(rated=False))
    real = found.off_policy[found.off_policy["source"] == "log"]
    assert real["value"].isna().all() and real["note"].str.contains("0 rated steps").all()
    assert any("0 rated steps" in said for said in found.assumptions)


def test_what_the_live_learner_showed_is_estimated_from_its_own_probabilities():
    rows = []
    for i in range(120):
        rows.append((10 * i, f"u{i}", i % 100, "shown", 0.5))
        if i % 4 == 0:
            rows.append((10 * i + 1, f"u{i}", i % 100, "click"))
    found = held(events=events(*rows)).off_policy.query("source == 'live'").set_index(["agent", "estimator"])
    assert found.loc[("learner", "ips"), "value"] == pytest.approx(0.25)
    assert found.loc[("even", "ips"), "value"] == pytest.approx(0.25 * 0.25 / 0.5)
    assert found["truth"].isna().all() and (found["n"] == 120).all()
    few = held(events=events((0, "a", 3, "shown", 0.5))).off_policy.query("source == 'live'")
    assert few["value"].isna().all() and few["note"].str.contains("Not estimated").all()


def test_the_same_plan_gives_the_same_contest():
    one, two = held(), held()
    pd.testing.assert_frame_equal(one.returns, two.returns)
    pd.testing.assert_frame_equal(one.table, two.table)
    pd.testing.assert_frame_equal(one.off_policy, two.off_policy)


def test_a_stopped_contest_goes_on_after_its_finished_agents(tmp_path):
    kept = tmp_path / "checkpoint"
    stopped = Quiet(stop_at=10**9)
    held(report=stopped, checkpoint=kept)
    (kept / "linucb-1.json").unlink()
    again = Quiet()
    found = held(report=again, checkpoint=kept)
    assert 0 < len(again.metrics) < len(stopped.metrics)
    pd.testing.assert_frame_equal(found.returns, held().returns)
    other = Quiet()
    held(report=other, checkpoint=kept, plan=Plan(steps=200, seeds=2, seed=5))
    assert len(other.metrics) >= len(stopped.metrics) - 5


def test_a_cancel_is_heard_while_an_agent_trains(tmp_path):
    with pytest.raises(Cancelled):
        held(report=Quiet(stop_at=3), checkpoint=tmp_path / "checkpoint")
    assert not list((tmp_path / "checkpoint").glob("linucb-*.json"))


def test_a_contest_survives_the_store_and_is_stored_once(store):
    found = held()
    contest.save(store, found, run_id="run-1")
    contest.save(store, found, run_id="run-1")
    assert store.rows("SELECT count(*) AS n FROM contests")[0]["n"] == 1
    back = contest.latest(store, "v1")
    for name in ("returns", "curves", "off_policy", "estimators"):
        pd.testing.assert_frame_equal(getattr(back, name), getattr(found, name), check_dtype=False, atol=1e-5)
    assert back.table["better_than_greedy"].tolist() == found.table["better_than_greedy"].tolist()
    assert (back.sentence, back.assumptions, back.plan, back.made_at) == (found.sentence, found.assumptions, found.plan, found.made_at)
    json.loads(contest.as_json(found))


def test_the_figures_for_a_benchmark_are_json_without_the_single_returns():
    found = held()
    told = json.loads(json.dumps(contest.figures(found), allow_nan=False))
    assert [row["agent"] for row in told["table"]] == list(found.table["agent"]) and told["sentence"] == found.sentence
    assert told["table"][0]["over_random"] is None and told["plan"]["seeds"] == 2 and "returns" not in told and "curves" not in told


def test_the_latest_of_a_version_or_of_any(store):
    assert contest.latest(store) is None
    first = held()
    later = dataclasses.replace(first, version="v2", made_at=first.made_at.replace(year=first.made_at.year + 1))
    contest.save(store, later, run_id="b")
    contest.save(store, first, run_id="a")
    assert contest.latest(store).version == "v2" and contest.latest(store, "v1").version == "v1" and contest.latest(store, "v9") is None


def test_a_log_in_other_numbers_is_aligned_to_the_model():
    data = toy_visits.log(n_users=4)
    ids = (*reversed(data.items[5:]), "a new one")
    found = contest.aligned(data, Items(ids, ids, ids))
    assert found.items == ids
    said = [(row.user, data.items[row.item]) for row in data.rows.itertuples() if row.item >= 5]
    assert [(row.user, found.items[row.item]) for row in found.rows.itertuples()] == said


def test_a_sequence_model_that_does_not_serve_is_followed_greedily_too():
    data = toy_visits.log()
    found = held(data=data, sequence=toy_visits.model(data))
    table = found.table.set_index("agent")
    assert table.loc["sasrec", "mean"] == table.loc["greedy", "mean"] and table.loc["sasrec", "over_greedy"] == 0
    assert table["over_sasrec"].notna().sum() == len(table) - 1 and "Greedy SASRec" in found.sentence
    assert "sasrec" not in set(found.off_policy["agent"])
    assert held().table["over_sasrec"].isna().all()


def test_too_thin_a_log_is_refused():
    with pytest.raises(simulator.TooThin):
        held(data=toy_visits.log(n_users=10))


class TestStandings:
    def returns(self, **shifts):
        rng = np.random.default_rng(0)
        luck = rng.poisson(2.0, size=(1, 400)).astype(float)
        base = {"random": 0.0, "popularity": 0.0, "greedy": 0.5} | shifts
        return {name: np.repeat(luck, 5, axis=0) + shift + rng.normal(0, 0.1, (5, 400)) for name, shift in base.items()}

    def test_not_better_than_greedy_is_said_exactly_when_the_paired_interval_says_so(self):
        for shift, better in ((0.6, True), (0.5, False), (0.3, False)):
            found = standings.table(self.returns(dqn=shift), ranker="SASRec")
            row = found.set_index("agent").loc["dqn"]
            assert row["better_than_greedy"] is better
            assert bool(row["over_greedy_low"] > 0) is better
            assert ("not better than Greedy SASRec" in row["sentence"]) is not better
            assert ("Not better than Greedy SASRec: DQN." in standings.verdict(found)) is not better
            assert ("Better than Greedy SASRec: DQN." in standings.verdict(found)) is better

    def test_the_paired_difference_is_much_surer_than_the_means(self):
        row = standings.table(self.returns(ppo=0.6), ranker="EASE").set_index("agent").loc["ppo"]
        assert row["over_greedy"] == pytest.approx(0.1, abs=0.02)
        assert row["over_greedy_high"] - row["over_greedy_low"] < 0.2 * (row["high"] - row["low"])

    def test_whether_the_learners_beat_chance_is_said(self):
        apart = standings.verdict(standings.table(self.returns(random=-2.0, popularity=-2.0, dqn=1.0), ranker="EASE"))
        assert apart.count("every learner's interval lies above") == 2
        close = standings.verdict(standings.table(self.returns(dqn=0.01), ranker="EASE"))
        assert close.count("the interval does not lie above for DQN") == 2

    def test_greedy_has_no_verdict_on_itself_and_a_baseline_no_difference_to_itself(self):
        found = standings.table(self.returns(), ranker="EASE").set_index("agent")
        assert found.loc["greedy", "better_than_greedy"] is None and pd.isna(found.loc["random", "over_random"])
        assert standings.verdict(found.reset_index()) == "No agent that learns took part."

    def test_seeds_that_differ_widen_the_interval(self):
        same = np.tile(np.arange(400) % 3, (5, 1)).astype(float)
        apart = same + np.array([-1, -0.5, 0, 0.5, 1])[:, None]
        drawn = standings.Resamples(5, 400)
        assert drawn.mean(apart).high - drawn.mean(apart).low > 2 * (drawn.mean(same).high - drawn.mean(same).low)
        assert drawn.mean(apart).value == pytest.approx(same.mean())


@pytest.mark.slow
def test_every_agent_takes_part_by_default():
    found = held(learners=contest.LEARNERS, plan=Plan(steps=256, seeds=2))
    assert list(found.table["agent"]) == ["random", "popularity", "greedy", "linucb", "thompson", "dqn", "ppo"]
    assert {"return_dqn", "return_ppo"} <= {f"return_{name}" for name in found.curves["agent"]}
