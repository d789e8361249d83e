"""The closed forms against slow readings of their formulas, and what a blend chooses."""

import numpy as np
import pytest

from fmcore.data.interactions import leave_one_out
from fmcore.evaluation import ranking
from fmcore.recommend import matrices
from fmcore.recommend.counting import Blend, Ease, ItemKNN, NextItem, Popularity, Transitions
from fmcore.recommend.recommender import BadRecommender, Items, Recommender


def things(n):
    return Items(tuple(map(str, range(n))), ("",) * n, ("",) * n)


def walks(n_people=60, n_items=20, *, seed=0):
    """Most steps go up by one or two on a ring, so that there is something to foretell."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n_people):
        at, past = int(rng.integers(n_items)), []
        for _ in range(int(rng.integers(4, 12))):
            past.append(at)
            at = (at + int(rng.choice([1, 1, 1, 2, 7]))) % n_items
            while at in past:
                at = (at + 1) % n_items
        found.append(np.array(past, dtype=np.int32))
    return found


def test_ease_is_the_regression_of_every_item_on_all_the_others():
    pasts = walks()
    met = np.zeros((len(pasts), 20))
    for row, past in enumerate(pasts):
        met[row, past] = 1
    rows = Ease(regularisation=3.0).fit(pasts, things(20)).rows
    for item in (0, 7):
        others = np.delete(np.arange(20), item)
        gram = met[:, others].T @ met[:, others] + 3.0 * np.eye(19)
        assert rows[others, item] == pytest.approx(np.linalg.solve(gram, met[:, others].T @ met[:, item]), abs=1e-4)
        assert rows[item, item] == 0


def test_item_neighbours_are_cosines():
    pasts = [np.array(p, dtype=np.int32) for p in ([0, 1], [1, 0, 2], [0, 3], [2])]
    rows = ItemKNN(shrink=0.0).fit(pasts, things(4)).rows.toarray()
    assert rows[0, 1] == pytest.approx(2 / np.sqrt(3 * 2)) == rows[1, 0] and rows[0, 3] == pytest.approx(1 / np.sqrt(3))
    assert np.diag(rows).tolist() == [0] * 4
    kept = ItemKNN(shrink=0.0, neighbours=1).fit(pasts, things(4)).rows
    assert np.diff(kept.indptr).tolist() == [1, 1, 1, 1] and kept[0].indices.tolist() == [1]


def test_transitions_are_shares_of_what_came_within_the_lag():
    pasts = [np.array([0, 1, 2, 3], dtype=np.int32), np.array([0, 2], dtype=np.int32)]
    model = Transitions(lag=2, smoothing=1.0, recency=1.0).fit(pasts, things(4))
    assert model.counts.toarray().tolist() == [[0, 1, 2, 0], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert model.rows.toarray()[0] == pytest.approx([0, 1 / 4, 2 / 4, 0])
    two = model.scores([np.array([0, 1], dtype=np.int32)])[0]
    assert two == pytest.approx([0, np.exp(-1) / 4, np.exp(-1) * 2 / 4 + 1 / 3, 1 / 3])


def test_the_next_item_regression_solves_its_normal_equations():
    pasts = walks(80, 15)
    model = NextItem(regularisation=2.0, recency=4.0, reach=6).fit(pasts, things(15))
    around, ahead = 2.0 * np.eye(15), np.zeros((15, 15))
    for past in pasts:
        for i, before in enumerate(past):
            around[before, before] += 1
            for j in range(i + 1, min(i + 6, len(past))):
                weight = np.exp(-(j - i) / 4.0) * (1 - (j - i) / 6)
                ahead[before, past[j]] += weight
                around[before, past[j]] += weight
                around[past[j], before] += weight
    assert np.linalg.eigvalsh(around).min() > 0
    assert model.rows == pytest.approx(np.linalg.solve(around, ahead), abs=1e-4)


def test_the_regression_counts_no_reason_twice():
    # whoever meets 2 met 0 and 1 before, in either order; 3 comes after 1 alone. Transitions give 0 the credit that is 1's.
    pasts = [np.array(p, dtype=np.int32) for p in ([0, 1, 3], [1, 3], [1, 3], [0, 2], [0, 2], [0, 1, 3])] * 30
    regression = NextItem(regularisation=1.0).fit(pasts, things(4)).rows
    assert regression[1, 3] > 5 * abs(regression[0, 3])


def test_what_a_blend_chooses_is_the_best_of_what_it_tries_and_stays_for_the_next_fit():
    pasts = walks(200, 30)
    split = leave_one_out(pasts)
    chosen = Blend([Transitions(), Popularity()]).fit(split.train, things(30), held=split.validation)

    def ndcg(model):
        return ranking.gains(ranking.ranks(model.scores(split.train), split.train, split.validation)).mean()

    for weight in (0.25, 0.5, 1.0, 2.0, 4.0):
        other = Blend([Transitions(), Popularity()], weights=(1.0, weight)).fit(split.train, things(30))
        assert other.weights == (1.0, weight) and ndcg(other) <= ndcg(chosen) + 1e-12
    assert chosen.weights[1] < 1, "popularity says little of somebody who walks a ring"
    assert chosen.fit(split.with_validation(), things(30)).weights == chosen.weights


def test_a_blend_beats_each_of_its_members_where_order_and_company_both_matter():
    pasts = walks(400, 40, seed=3)
    split = leave_one_out(pasts)

    def ndcg(model: Recommender) -> float:
        model.fit(split.train, things(40), held=split.validation)
        return ranking.gains(ranking.ranks(model.scores(split.with_validation()), split.with_validation(), split.test)).mean()

    popular, blend = ndcg(Popularity()), ndcg(Blend())
    assert blend > 2 * popular and blend >= ndcg(Transitions()) - 0.01 and blend >= ndcg(Ease()) - 0.01


def test_a_large_catalogue_keeps_the_strongest_neighbours_and_the_frequent_items(monkeypatch):
    pasts = walks(150, 40)
    whole = Ease(regularisation=5.0).fit(pasts, things(40))
    monkeypatch.setattr(matrices, "DENSE", 10)
    monkeypatch.setattr("fmcore.recommend.counting.SMALL", 0)
    cut = Ease(regularisation=5.0, neighbours=6, most=39).fit(pasts, things(40))
    assert np.diff(cut.rows.indptr).max() == 6
    full = Ease(regularisation=5.0, neighbours=40).fit(pasts, things(40))
    assert full.rows.toarray() == pytest.approx(whole.rows, abs=1e-6)
    rarest = int(np.argsort(-matrices.counted(pasts, n_items=40), kind="stable")[-1])
    assert not cut.rows.toarray()[rarest].any() and not cut.rows.toarray()[:, rarest].any()
    assert not cut.knows([np.array([rarest], dtype=np.int32)])[0]
    for past in pasts[:5]:
        values = np.abs(full.rows.toarray()[past[0]])
        assert set(cut.rows[[past[0]]].indices) <= set(np.argsort(-values)[:7]), "what is left out is weak"


def test_an_old_part_of_a_long_past_weighs_nothing():
    model = Transitions(recency=2.0).fit(walks(), things(20))
    long = np.arange(19, dtype=np.int32)
    assert np.array_equal(model.scores([long]), model.scores([long[-14:]]))
    assert not np.array_equal(model.scores([long]), model.scores([long[-3:]]))


def test_a_matrix_without_an_inverse_is_refused_in_words():
    with pytest.raises(BadRecommender, match="no inverse"):
        Ease(regularisation=-1e6).fit(walks(), things(20))
    with pytest.raises(BadRecommender, match="no solution"):
        NextItem(regularisation=-1e6).fit(walks(), things(20))


def test_a_blend_of_strangers_is_refused(tmp_path):
    model = Blend([Transitions()]).fit(walks(), things(20))
    model.save(tmp_path / "blend")
    settings = tmp_path / "blend" / "recommender.json"
    settings.write_text(settings.read_text().replace('"transitions"', '"stranger"'))
    with pytest.raises(BadRecommender, match="stranger"):
        Blend.load(tmp_path / "blend", things(20))


@pytest.mark.slow
def test_on_real_behaviour_the_sum_beats_its_members_and_popularity_by_far(public_data):
    from fmcore.data import interaction_files

    data = interaction_files.load("movielens")
    split = leave_one_out(data.histories())
    items = Items(data.items, data.titles, data.texts)
    rows = np.flatnonzero(split.test >= 0)
    pasts = [split.with_validation()[row] for row in rows]
    found = {}
    for model in (Popularity(), Transitions(), Ease(most=2_000), Blend((NextItem(most=2_000), Ease(most=2_000), Transitions()))):
        model.fit(split.train, items, held=split.validation).fit(split.with_validation(), items)
        found[model.name] = ranking.ranks(model.scores(pasts), pasts, split.test[rows])
    ndcg = {name: ranking.gains(each).mean() for name, each in found.items()}
    assert ndcg["blend"] > max(ndcg["transitions"], ndcg["ease"]) > 2 * ndcg["popularity"]
    assert ranking.paired(found["popularity"], found["blend"]).low > 0
