"""Diverse lists against maximal marginal relevance worked out one step after another, and the frontier's figures on a known model."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcore.data.interactions import leave_one_out
from fmcore.recommend import diversity
from fmcore.recommend.recommender import Scorer, best

SCORES = np.array([10.0, 9.9, 9.8, 5.0, 1.0, 0.0])
ALIKE = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [-1, 0]], dtype=np.float32)


def items(found):
    return [each.item for each in found]


def test_the_slider_goes_from_the_plain_list_to_items_that_differ():
    plain = diversity.rerank(SCORES, ALIKE, k=3, diversity=0)
    assert plain == best(SCORES, k=3)
    assert items(diversity.rerank(SCORES, ALIKE, k=3, diversity=0.5)) == [0, 5, 3]
    assert items(diversity.rerank(SCORES, ALIKE, k=3, diversity=1))[:2] == [0, 5]
    assert items(diversity.rerank(SCORES, ALIKE, k=3, diversity=0.05)) == [0, 1, 2]


def test_an_item_keeps_its_score_and_what_is_left_out_stays_out():
    found = diversity.rerank(SCORES, ALIKE, k=10, diversity=0.7, without=[0, 3])
    assert sorted(items(found)) == [1, 2, 4, 5] and all(each.score == SCORES[each.item] for each in found)


def test_only_candidates_are_moved_up():
    scores, vectors = -np.arange(500.0), np.eye(500, dtype=np.float32)
    vectors[400] = -vectors[0]
    assert max(items(diversity.rerank(scores, vectors, k=10, diversity=1))) < diversity.CANDIDATES
    assert len(diversity.rerank(scores, vectors, k=150, diversity=0.5)) == 150


@pytest.mark.parametrize("vectors", [None, np.zeros((6, 2), dtype=np.float32)], ids=["none", "without words"])
def test_where_nothing_says_what_is_alike_the_list_stays(vectors):
    assert items(diversity.rerank(SCORES, vectors, k=4, diversity=0.8)) == [0, 1, 2, 3]


def test_equal_scores_nothing_left_and_a_slider_beyond_its_ends():
    assert diversity.rerank(SCORES, ALIKE, k=3, diversity=0.5, without=range(6)) == []
    assert items(diversity.rerank(np.zeros(6), ALIKE, k=2, diversity=0.5)) == [0, 5]
    assert diversity.rerank(SCORES, ALIKE, k=3, diversity=-2) == best(SCORES, k=3)
    assert diversity.rerank(SCORES, ALIKE, k=3, diversity=7) == diversity.rerank(SCORES, ALIKE, k=3, diversity=1)


@given(st.integers(0, 10_000), st.floats(0.01, 1.0), st.integers(1, 12))
def test_it_is_maximal_marginal_relevance(seed, slider, k):
    rng = np.random.default_rng(seed)
    scores, vectors = rng.normal(size=15), rng.normal(size=(15, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    worth = (scores - scores.min()) / (scores.max() - scores.min())
    expected = [int(scores.argmax())]
    while len(expected) < k:
        left = [i for i in range(15) if i not in expected]
        margin = {i: (1 - slider) * worth[i] - slider * max(float(vectors[i] @ vectors[j]) for j in expected) for i in left}
        expected.append(max(margin, key=margin.get))
    assert items(diversity.rerank(scores, vectors, k=k, diversity=slider)) == expected


class Next(Scorer):
    """Foretells the item after the last one, then the ones after that."""

    def scores(self, histories):
        return np.array([[-((i - past[-1] - 1) % 30) for i in range(30)] for past in histories], dtype=np.float32)


def test_the_frontier_trades_accuracy_for_difference_on_the_same_people():
    pasts = [np.arange(start, start + 5, dtype=np.int32) % 30 for start in range(30)]
    vectors = np.repeat(np.eye(10, dtype=np.float32), 3, axis=0)
    found = diversity.frontier(Next(), vectors, leave_one_out(pasts), steps=4, k=5)
    assert list(found.columns) == ["diversity", "ndcg", "ndcg_low", "ndcg_high", "ild", "coverage", "n"]
    assert found["diversity"].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1]) and (found["n"] == 30).all()
    assert found["ndcg"].iloc[0] == 1, "the first of the plain list is what came next"
    assert found["ild"].is_monotonic_increasing and found["ild"].iloc[-1] > found["ild"].iloc[0]
    assert ((found["ndcg_low"] <= found["ndcg"]) & (found["ndcg"] <= found["ndcg_high"])).all()
    assert found["coverage"].between(0, 1).all() and found["coverage"].iloc[0] == 1
    pd.testing.assert_frame_equal(found, diversity.frontier(Next(), vectors, leave_one_out(pasts), steps=4, k=5))


def test_a_frontier_of_nobody_is_empty_and_a_sample_is_one():
    assert diversity.frontier(Next(), None, leave_one_out([np.array([1], dtype=np.int32)])).empty
    pasts = [np.arange(start, start + 5, dtype=np.int32) % 30 for start in range(30)]
    few = diversity.frontier(Next(), None, leave_one_out(pasts), sample=7)
    assert (few["n"] == 7).all() and (few["ild"] == 0).all()


def test_likeness_without_texts_comes_from_who_met_what():
    rng = np.random.default_rng(0)
    pasts = [np.concatenate([rng.permutation(10)[:6] + 10 * (who % 2)]).astype(np.int32) for who in range(80)]
    vectors = diversity.likeness(pasts, n_items=21, size=4)
    assert vectors.dtype == np.float32 and vectors.shape == (21, 4) and not vectors[20].any()
    alike = vectors @ vectors.T
    within = np.mean([alike[i, j] for i, j in itertools.combinations(range(10), 2)])
    assert within > alike[:10, 10:20].mean() + 0.3
    assert diversity.likeness([], n_items=3).shape[0] == 3


def test_unlikeness_of_a_list():
    assert diversity.unlikeness([0, 1], ALIKE) == 0 and diversity.unlikeness([0, 3], ALIKE) == 1 and diversity.unlikeness([0], ALIKE) == 0
    assert diversity.unlikeness([0, 1, 3], ALIKE) == pytest.approx(2 / 3)
