"""The hybrid on members whose worth is known by construction: one is right of short pasts, another of long ones."""

import numpy as np
import pytest

from fmcore.recommend.counting import Popularity, Transitions
from fmcore.recommend.hybrid import LENGTHS, Hybrid
from fmcore.recommend.recommender import BadRecommender, Items, Recommender

N_ITEMS = 40
ITEMS = Items(tuple(map(str, range(N_ITEMS))), ("",) * N_ITEMS, ("",) * N_ITEMS)


class Oracle(Recommender):
    """Names the item after the last one where the past's length suits it, else noise by the past; counts how often it is asked."""

    title = summary = "made up"

    def __init__(self, name, suits, *, knows=True):
        self.name, self.suits, self.speaks, self.asked, self.fitted = name, suits, knows, 0, 0

    def fit(self, histories, items, *, held=None, report=None):
        self.fitted += 1
        return self

    def scores(self, histories):
        self.asked += len(histories)
        rows = []
        for past in histories:
            row = np.random.default_rng([len(past), int(sum(past)), len(self.name)]).normal(size=N_ITEMS)
            if len(past) and self.suits(len(past)):
                row[(past[-1] + 1) % N_ITEMS] = 8
            rows.append(row if self.speaks and len(past) else np.zeros(N_ITEMS))
        return np.array(rows, dtype=np.float32).reshape(-1, N_ITEMS)

    def save(self, folder):
        raise NotImplementedError

    @classmethod
    def load(cls, folder, items):
        raise NotImplementedError


def pasts(n, *, seed=0, length=None):
    rng = np.random.default_rng(seed)
    lengths = [length] * n if length else rng.choice([1, 2, 3, 12, 25, 30], n)
    found = [rng.permutation(N_ITEMS)[:size].astype(np.int32) for size in lengths]
    held = [next(x % N_ITEMS for x in range(past[-1] + 1, past[-1] + 1 + N_ITEMS) if x % N_ITEMS not in past) for past in found]
    kept = [i for i, past in enumerate(found) if held[i] == (past[-1] + 1) % N_ITEMS]
    return [found[i] for i in kept], np.array([held[i] for i in kept], dtype=np.int32)


def short_and_long():
    return [Oracle("short", lambda n: n <= 3), Oracle("long", lambda n: n >= 10)]


def shares(hybrid):
    return hybrid.weights().pivot(index="length", columns="member", values="weight")


def test_each_length_gets_the_member_that_is_right_there():
    histories, held = pasts(900)
    found = shares(Hybrid(short_and_long()).learn(histories, held))
    assert found.loc[1, "short"] > 0.58 and found.loc[30, "long"] > 0.55
    assert np.allclose(found.sum(axis=1), 1)


def test_few_rows_keep_the_lengths_near_each_other():
    histories, held = pasts(12)
    few, many = shares(Hybrid(short_and_long()).learn(histories, held)), shares(Hybrid(short_and_long()).learn(*pasts(900)))

    def apart(found):
        return found.loc[1, "short"] - found.loc[30, "short"]

    assert apart(few) < 0.5 * apart(many)


def test_a_member_that_is_never_right_gets_little_and_rows_are_counted():
    histories, held = pasts(600)
    hybrid = Hybrid([Oracle("right", lambda n: True), Oracle("never", lambda n: False)]).learn(histories, held)
    assert shares(hybrid)["never"].max() < 0.35 < 0.65 < shares(hybrid)["right"].min()
    frame = hybrid.weights()
    assert list(frame.columns) == ["length", "member", "weight", "n"] and tuple(frame["length"].unique()) == LENGTHS
    assert abs(frame.drop_duplicates("length")["n"].sum() - len(histories)) <= len(LENGTHS)


def test_learning_fits_no_member_and_fitting_fits_each_once():
    members = short_and_long()
    histories, held = pasts(60)
    hybrid = Hybrid(members).learn(histories, held)
    assert [member.fitted for member in members] == [0, 0]
    before = hybrid.shares.copy()
    hybrid.fit(histories, ITEMS)
    assert [member.fitted for member in members] == [1, 1] and np.array_equal(before, hybrid.shares)
    others = short_and_long()
    assert np.array_equal(hybrid.over(others[::-1]).shares, before) and hybrid.over(others).members[0] is others[0]
    with pytest.raises(BadRecommender, match="long"):
        hybrid.over(others[:1])


def test_a_member_without_weight_is_not_asked():
    members = short_and_long()
    hybrid = Hybrid(members)
    hybrid.shares = np.tile([0.0, 1.0], (len(LENGTHS), 1))
    hybrid.scores(pasts(20)[0])
    assert members[0].asked == 0 and members[1].asked > 0


def test_where_the_weighted_members_are_silent_the_others_answer():
    silent, speaking = Oracle("silent", lambda n: True, knows=False), Oracle("speaking", lambda n: True)
    hybrid = Hybrid([silent, speaking])
    hybrid.shares = np.tile([1.0, 0.0], (len(LENGTHS), 1))
    past = np.array([4], dtype=np.int32)
    assert hybrid.recommend(past, k=1)[0].item == 5 and hybrid.knows([past]).all()


def counted():
    """Everybody meets 0, 1, 2 in this order, and nobody item 4."""
    return [np.array([0, 1, 2], dtype=np.int32)] * 5 + [np.array([0, 1, 3], dtype=np.int32)], Items(tuple("abcde"), ("",) * 5, ("",) * 5)


def test_an_empty_past_gets_the_popular_items_and_nothing_known_is_claimed():
    histories, items = counted()
    hybrid = Hybrid([Popularity(), Transitions()]).fit(histories, items)
    empty = np.zeros(0, dtype=np.int32)
    assert [each.item for each in hybrid.recommend(empty, k=3)] == [0, 1, 2]
    assert hybrid.knows([empty, np.array([1], dtype=np.int32)]).tolist() == [False, True]
    assert hybrid.scores([]).shape[0] == 0


class Text(Oracle):
    """Says that item 4 is like item 2."""

    def scores(self, histories):
        return np.tile(np.array([0.0, 1, 5, 2, 5.5], dtype=np.float32), (len(histories), 1))


def test_an_item_that_nobody_met_reaches_the_list_through_the_text_model():
    histories, items = counted()
    past = np.array([1], dtype=np.int32)
    without = Hybrid([Popularity(), Transitions()]).fit(histories, items)
    with_text = Hybrid([Popularity(), Transitions(), Text("text", lambda n: True)]).fit(histories, items)
    assert 4 not in [each.item for each in without.recommend(past, k=3)]
    scores = with_text.scores([past])[0]
    assert scores[4] == scores[[0, 1, 2, 3]].max()


def test_new_events_reach_the_members_that_count():
    histories, items = counted()
    hybrid = Hybrid([Popularity(), Transitions()]).fit(histories, items)
    past = np.array([1], dtype=np.int32)
    folded = hybrid.folded([(past, 4)] * 50)
    assert hybrid.recommend(past, k=1)[0].item == 2 and folded.recommend(past, k=1)[0].item == 4


def test_saved_and_loaded_it_says_the_same(tmp_path):
    histories, items = counted()
    hybrid = Hybrid([Popularity(), Transitions()]).fit(histories, items, held=np.array([3, 3, 3, 3, 3, 2], dtype=np.int32))
    for name in ("whole", "bare"):
        (tmp_path / name).mkdir()
    hybrid.save(tmp_path / "whole")
    hybrid.save(tmp_path / "bare", with_members=False)
    beside = {member.name: member for member in hybrid.members}
    for again in (Hybrid.load(tmp_path / "whole", items), Hybrid.load(tmp_path / "bare", items, members=beside)):
        assert np.array_equal(again.scores(histories), hybrid.scores(histories)) and again.weights().equals(hybrid.weights())
    with pytest.raises(BadRecommender):
        Hybrid.load(tmp_path / "bare", items, members={"popularity": hybrid.members[0]})
    with pytest.raises(BadRecommender):
        Hybrid.load(tmp_path / "bare", items)
    (tmp_path / "whole" / "recommender.json").write_text('{"members": 3}')
    with pytest.raises(BadRecommender):
        Hybrid.load(tmp_path / "whole", items)
