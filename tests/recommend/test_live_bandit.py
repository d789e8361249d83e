"""The live learner: beliefs by hand, their order of events, the list it fills with its probabilities, and that it learns."""

import datetime as dt
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from fmcore.recommend import live_bandit as live
from fmcore.recommend import simulator
from tests.recommend import toy_visits

T0 = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
GROUPS = SimpleNamespace(of=np.repeat(np.arange(3), 4), names=("news", "games", "food"))
"""Items 0-3 are news, 4-7 games, 8-11 food."""
FLAT = live.Prior(np.ones(3), np.full(3, 3.0))


def events(*rows):
    """(seconds, who, item, kind[, value]) rows as a frame."""
    full = [(T0 + dt.timedelta(seconds=row[0]), *row[1:4], row[4] if len(row) > 4 else np.nan) for row in rows]
    return pd.DataFrame(full, columns=["happened_at", "who", "item", "kind", "value"])


def test_beliefs_are_the_counts_over_the_prior():
    found = live.beliefs(
        events((0, "a", 0, "shown", 0.5), (1, "a", 5, "shown", 0.5), (2, "a", 0, "click"), (3, "b", 6, "shown", 0.1), (4, "b", 6, "skip")),
        GROUPS,
        prior=FLAT,
    )
    frame = found.frame
    assert list(frame.columns) == list(live.COLUMNS) and list(frame["name"]) == ["news", "games", "food"]
    assert frame["n_shown"].tolist() == [1, 2, 0] and frame["n_liked"].tolist() == [1, 0, 0]
    assert frame["mean"].tolist() == pytest.approx([2 / 5, 1 / 6, 1 / 4])
    assert ((frame["low"] < frame["mean"]) & (frame["mean"] < frame["high"])).all()
    assert [mean for _, mean in frame["trail"][0]] == pytest.approx([1 / 5, 2 / 5])
    assert [at for at, _ in frame["trail"][1]] == [T0 + dt.timedelta(seconds=1), T0 + dt.timedelta(seconds=3)]
    assert frame["trail"][2] == []


def test_events_in_another_order_of_arrival_give_the_same_beliefs():
    rows = events((0, "a", 0, "shown", 0.5), (1, "a", 0, "click"), (2, "b", 9, "shown", 0.5), (3, "b", 9, "rate", 5.0))
    one, two = (live.beliefs(frame, GROUPS, prior=FLAT) for frame in (rows, rows.iloc[::-1]))
    pd.testing.assert_frame_equal(one.frame, two.frame)
    assert np.allclose(one.weights, two.weights)


@pytest.mark.parametrize(
    ("answer", "liked"),
    [
        ((10, "a", 0, "view"), True),
        ((10, "a", 0, "rate", 3.0), True),
        ((10, "a", 0, "rate", 2.5), False),
        ((10, "a", 0, "skip"), False),
        ((10, "b", 0, "click"), False),
        ((10, "a", 1, "click"), False),
        ((-5, "a", 0, "click"), False),
        ((24 * 3600 + 1, "a", 0, "click"), False),
    ],
)
def test_an_answer_is_a_positive_event_of_the_same_person_on_the_same_item_within_a_day(answer, liked):
    assert live.outcomes(events((0, "a", 0, "shown", 0.5), answer))["liked"].tolist() == [liked]


def test_one_answer_answers_one_show_the_latest():
    found = live.outcomes(events((0, "a", 0, "shown", 0.5), (5, "a", 0, "shown", 0.4), (6, "a", 0, "click"), (7, "a", 0, "like")))
    assert found["liked"].tolist() == [False, True] and found["probability"].tolist() == [0.5, 0.4]


def test_unknown_items_and_no_events_leave_the_prior():
    for frame in (events(), events((0, "a", -1, "shown", 0.5), (1, "a", 99, "shown", 0.5))):
        found = live.beliefs(frame, GROUPS, prior=FLAT)
        assert found.frame["mean"].tolist() == [0.25] * 3 and found.frame["n_shown"].sum() == 0
        assert found.weights[:3] == pytest.approx(0.25) and found.weights[3] == pytest.approx(live.SLOPE)


def test_the_prior_raises_a_group_that_people_met_more_than_its_share_and_stays_weak():
    made = live.prior([np.array([0, 1, 4], dtype=np.int32), np.array([2, 3], dtype=np.int32)], GROUPS)
    mean = made.liked / (made.liked + made.missed)
    assert mean[0] > mean[1] > mean[2] > 0
    assert made.liked + made.missed == pytest.approx(live.STRENGTH)
    assert live.prior([], GROUPS).liked == pytest.approx(live.RATE * live.STRENGTH)


def test_the_linear_model_learns_what_the_score_is_worth():
    rng = np.random.default_rng(0)
    rows, scores = [], []
    for i in range(400):
        z = float(rng.normal())
        rows.append((2 * i, f"u{i}", int(rng.integers(12)), "shown", 0.5))
        scores.append(z)
        if rng.random() < np.clip(0.4 + 0.25 * z, 0, 1):
            rows.append((2 * i + 1, f"u{i}", rows[-1][2], "click"))
            scores.append(np.nan)
    found = live.beliefs(events(*rows), GROUPS, prior=FLAT, scores=np.array(scores))
    assert found.weights[3] == pytest.approx(0.22, abs=0.06)
    assert np.all(np.linalg.eigvalsh(found.covariance) > 0)


@pytest.mark.parametrize("kind", ["thompson", "linucb"])
class TestChoose:
    def told(self, rows=()):
        return live.beliefs(events(*rows), GROUPS, prior=FLAT)

    def test_it_fills_a_list_without_repeats_best_of_each_group_first(self, kind):
        scores = np.arange(12, dtype=np.float32)
        shown = live.choose(scores, GROUPS, self.told(), k=6, rng=np.random.default_rng(0), kind=kind, without=[11])
        items = [item for item, _ in shown]
        assert len(items) == len(set(items)) == 6 and 11 not in items
        for arm in range(3):
            mine = [item for item in items if GROUPS.of[item] == arm]
            free = [item for item in range(11, -1, -1) if GROUPS.of[item] == arm and item != 11]
            assert mine == free[: len(mine)]
        assert all(0 < p <= 1 for _, p in shown)

    def test_it_is_a_function_of_its_seed(self, kind):
        lists = [live.choose(np.zeros(12), GROUPS, self.told(), k=5, rng=np.random.default_rng(s), kind=kind) for s in (3, 3)]
        assert lists[0] == lists[1]

    def test_fewer_where_there_are_no_more_and_then_surely(self, kind):
        shown = live.choose(np.zeros(12), GROUPS, self.told(), k=50, rng=np.random.default_rng(0), kind=kind, without=[0, 1])
        assert sorted(item for item, _ in shown) == list(range(2, 12)) and all(p == 1.0 for _, p in shown)
        assert live.choose(np.zeros(12), GROUPS, self.told(), k=3, rng=np.random.default_rng(0), kind=kind, without=range(12)) == []

    def test_the_probability_is_how_often_the_item_is_on_a_list(self, kind):
        told = self.told([(i, f"u{i}", 4, "shown", 0.5) for i in range(6)] + [(10 + i, f"u{i}", 4, "click") for i in range(4)])
        scores = np.linspace(1, 0, 12)
        lists = [live.choose(scores, GROUPS, told, k=3, rng=np.random.default_rng(s), kind=kind, draws=300) for s in range(200)]
        share = np.bincount([item for shown in lists for item, _ in shown], minlength=12) / 200
        said = {item: p for shown in lists for item, p in shown}
        for item, probability in said.items():
            assert probability == pytest.approx(share[item], abs=0.13)

    def test_clicks_move_it_to_what_is_clicked(self, kind):
        rows = [(i, f"u{i}", 8, "shown", 0.5) for i in range(40)] + [(100 + i, f"u{i}", 8, "click") for i in range(30)]
        rows += [(i, f"v{i}", 0, "shown", 0.5) for i in range(40)] + [(i, f"w{i}", 4, "shown", 0.5) for i in range(40)]
        firsts = [live.choose(np.zeros(12), GROUPS, self.told(rows), k=1, rng=np.random.default_rng(s), kind=kind, draws=1)[0][0] for s in range(60)]
        assert np.mean([GROUPS.of[item] == 2 for item in firsts]) > 0.85


def test_the_even_learners_chance_is_the_binomial_tail():
    shows = live.outcomes(events((0, "a", 0, "shown", 0.9), (0, "a", 1, "shown", 0.5), (0, "a", 8, "shown", 0.3), (9, "b", 3, "shown", 1.0)))
    chance = live.even_chance(shows, GROUPS)
    first = 1 - (2 / 3) ** 3
    assert chance == pytest.approx([first, 3 * (1 / 9) * (2 / 3) + 1 / 27, first, 1 / 3])


@pytest.mark.parametrize("kind", ["thompson", "linucb"])
def test_regret_against_random_on_people_who_like_one_group_more(kind):
    liking = np.array([0.1, 0.15, 0.5])
    rows, regret, at_random = [], 0.0, 0.0
    rng = np.random.default_rng(1)
    for i in range(150):
        told = live.beliefs(events(*rows), GROUPS, prior=FLAT)
        ((item, p),) = live.choose(np.zeros(12), GROUPS, told, k=1, rng=rng, kind=kind, draws=20)
        rows.append((10 * i, f"u{i}", item, "shown", p))
        chance = liking[GROUPS.of[item]]
        if rng.random() < chance:
            rows.append((10 * i + 1, f"u{i}", item, "click"))
        regret += liking.max() - chance
        at_random += liking.max() - liking.mean()
    assert regret < 0.5 * at_random


@pytest.mark.parametrize("kind", ["thompson", "linucb"])
def test_regret_against_random_on_the_simulators_people(kind):
    """Most people love the first group; the learner is told nothing of anybody and meets each once."""
    data = toy_visits.log(loved=7)
    world = simulator.fit(data, toy_visits.GROUPS)
    groups = SimpleNamespace(of=world.of, names=world.names)
    flat, luck, rows = live.Prior(np.full(4, 0.6), np.full(4, 3.4)), np.random.default_rng(3), []
    chosen, evenly = [], []
    for i in range(160):
        likes = 1 / (1 + np.exp(-(world.level + 1.0 + world.slope * world.tastes[i % len(world.pasts)])))
        popular = world.tastes.mean(axis=0)
        told = live.beliefs(events(*rows), groups, prior=flat)
        ((item, p),) = live.choose(popular, groups, told, k=1, rng=luck, kind=kind, draws=20)
        rows.append((10 * i, f"u{i}", item, "shown", p))
        if luck.random() < likes[item]:
            rows.append((10 * i + 1, f"u{i}", item, "click"))
        tops = [int(np.where(world.of == arm, popular, -9).argmax()) for arm in range(4)]
        chosen.append(likes[tops].max() - likes[item])
        evenly.append(likes[tops].max() - likes[tops].mean())
    assert sum(chosen[40:]) < 0.8 * sum(evenly[40:])
