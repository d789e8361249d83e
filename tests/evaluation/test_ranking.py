"""Ranks and figures of lists against values worked out by hand, a slow reading of the definitions, and the rules of ties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcore.evaluation import ranking


def past(*items):
    return np.array(items, dtype=np.int32)


def test_the_rank_is_the_place_among_the_items_that_the_past_does_not_hold():
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5]] * 3)
    found = ranking.ranks(scores, [past(), past(0), past(0, 1, 3)], np.array([3, 3, 4]))
    assert found.tolist() == [4, 3, 2]


def test_a_tie_counts_against_the_model_so_that_one_that_knows_nothing_is_last():
    same = np.zeros((1, 8))
    assert ranking.ranks(same, [past(1, 2)], np.array([5])).tolist() == [6]
    half = np.array([[2.0, 1.0, 1.0, 1.0, 0.0]])
    assert ranking.ranks(half, [past()], np.array([1])).tolist() == [4], "the worst place among its equals"
    assert ranking.ranks(half, [past(2)], np.array([1])).tolist() == [3], "an equal that was met stands in nobody's way"


def test_popularity_ranks_by_counts_alone_and_equal_counts_share_the_worst_place():
    counts = np.array([5, 3, 3, 3, 1], dtype=np.float32)
    found = ranking.ranks(np.tile(counts, (5, 1)), [past()] * 5, np.arange(5))
    assert found.tolist() == [1, 4, 4, 4, 5]


def test_scores_that_are_not_numbers_never_help_the_model():
    scores = np.array([[np.nan, 1.0, 0.0], [0.0, np.nan, 1.0]])
    assert ranking.ranks(scores, [past(), past()], np.array([1, 1])).tolist() == [2, 3]


def test_no_target_is_no_row_and_a_target_in_its_own_past_is_a_miss():
    scores = np.array([[3.0, 2.0, 1.0]] * 2)
    assert ranking.ranks(scores, [past(), past(0)], np.array([-1, 0])).tolist() == [0, ranking.MISSED]


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_ranks_and_lists_are_what_a_slow_reading_of_the_definition_gives(data):
    n_items = data.draw(st.integers(1, 12))
    scores = np.array([data.draw(st.lists(st.integers(0, 4), min_size=n_items, max_size=n_items))], dtype=np.float64)
    target = data.draw(st.integers(0, n_items - 1))
    met = data.draw(st.sets(st.integers(0, n_items - 1).filter(lambda i: i != target)) if n_items > 1 else st.just(set()))
    met = past(*sorted(met))
    free = [i for i in range(n_items) if i not in met]
    slow = sum(scores[0, i] >= scores[0, target] for i in free)
    assert ranking.ranks(scores, [met], np.array([target])).tolist() == [slow]
    ordered = sorted(free, key=lambda i: (-scores[0, i], i))
    assert [i for i in ranking.lists(scores, [met], k=5)[0] if i >= 0] == ordered[:5]


def test_hits_gains_and_reciprocal_ranks_of_a_hand_worked_case():
    found = np.array([1, 2, 10, 11, 0])
    kept = found[found > 0]
    assert ranking.hits(kept).tolist() == [1, 1, 1, 0]
    assert ranking.gains(kept) == pytest.approx([1, 1 / math.log2(3), 1 / math.log2(11), 0])
    figures = ranking.figures(
        found, np.zeros((5, 1), dtype=int), histories=[past(1)] * 5, targets=np.array([0, 0, 0, 0, -1]), counts=np.array([3, 2]), n_people=5
    )
    assert figures["hr"].value == 0.75 and figures["hr"].n == 4, "a row without a target counts nowhere"
    assert figures["ndcg"].value == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(11)) / 4)
    assert figures["mrr"].value == pytest.approx((1 + 1 / 2 + 1 / 10 + 1 / 11) / 4)
    assert figures["hr"].low <= 0.75 <= figures["hr"].high


def worked_figures(**changes):
    """Two people, four items with 8, 4, 2 and 0 interactions, lists of two."""
    options = {
        "found": np.array([1, 2]),
        "shown": np.array([[0, 1], [0, 2]]),
        "histories": [past(1), past(1)],
        "targets": np.array([0, 2]),
        "counts": np.array([8, 4, 2, 0]),
        "n_people": 8,
        "vectors": np.array([[1, 0], [0, 1], [2, 0], [1, 1]], dtype=np.float32),
        **changes,
    }
    found, shown = options.pop("found"), options.pop("shown")
    return ranking.figures(found, shown, **options)


def test_what_the_lists_show_is_counted_as_the_definitions_say():
    figures = worked_figures()
    assert figures["coverage"].value == 0.75, "three of four items stand in some list"
    # -log2 of 8/8, 4/8 and 2/8: lists of 0 and 1 bit, of 0 and 2 bits
    assert figures["novelty"].value == pytest.approx((0.5 + 1.0) / 2)
    # at a right angle: 1; of one direction: 0
    assert figures["diversity"].value == pytest.approx(0.5)
    # shown: (8 + 4) / 2 and (8 + 2) / 2 interactions, the people's own: 4
    assert figures["popularity_bias"].value == pytest.approx(5.5 / 4 - 1)


def test_short_and_empty_lists_and_people_without_a_past_are_counted_where_they_can_be():
    figures = worked_figures(shown=np.array([[3, -1], [-1, -1]]), histories=[past(), past(1)])
    assert figures["coverage"].value == 0.25 and figures["diversity"] is None and figures["popularity_bias"] is None
    assert figures["novelty"].value == 3.0, "an item nobody met counts as met by one of eight"
    assert worked_figures(vectors=None)["diversity"] is None


def test_no_rows_give_no_figures_and_json_says_so():
    figures = ranking.figures(
        np.zeros(0, dtype=int), np.zeros((0, 10), dtype=int), histories=[], targets=np.zeros(0, dtype=int), counts=np.ones(3), n_people=0
    )
    told = ranking.in_json(figures)
    assert told["hr"] is told["ndcg"] is told["coverage"] is told["novelty"] is None
    assert set(told["slices"]["history cold"]) == {"hr", "ndcg", "mrr"}
    assert ranking.in_json(worked_figures())["hr"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 2}


def test_slices_are_by_the_length_of_the_past_and_by_how_often_the_item_was_met():
    counts = np.array([50, 9, 8, 7, 6, 5, 4, 3, 1, 0])  # ten items: the two most met are hot
    pasts = [np.arange(n, dtype=np.int32) for n in (9, 10, 49, 50, 3)]
    found = ranking.slices(pasts, np.array([0, 1, 2, 9, -1]), counts)
    assert {name: np.flatnonzero(rows).tolist() for name, rows in found.items()} == {
        "history cold": [0],
        "history warm": [1, 2],
        "history hot": [3],
        "item cold": [3],
        "item warm": [2],
        "item hot": [0, 1],
    }


def test_slices_weigh_together_to_the_whole():
    rng = np.random.default_rng(0)
    counts, targets = rng.integers(0, 9, 90), rng.integers(-1, 90, 200)
    pasts = [np.arange(n, dtype=np.int32) for n in rng.integers(0, 80, 200)]
    found = np.where(targets >= 0, rng.integers(1, 40, 200), 0)
    figures = ranking.figures(found, np.zeros((200, 10), dtype=int), histories=pasts, targets=targets, counts=counts, n_people=9)
    for side in ("history", "item"):
        parts = [v["hr"] for name, v in figures["slices"].items() if name.startswith(side) and v["hr"] is not None]
        assert sum(e.value * e.n for e in parts) / sum(e.n for e in parts) == pytest.approx(figures["hr"].value)


def test_a_paired_comparison_is_of_the_same_rows_and_sharper_than_two_intervals():
    rng = np.random.default_rng(0)
    a = rng.integers(1, 30, 400)
    b = np.maximum(a - (rng.random(400) < 0.3), 1)
    better = ranking.paired(a, b)
    assert better.value > 0 and better.low > 0 and better.n == 400
    assert ranking.paired(a, a).value == 0 == ranking.paired(a, a).high
    assert ranking.paired(a, b, of="hr").value == pytest.approx((b <= 10).mean() - (a <= 10).mean())
    assert ranking.paired(np.zeros(3, dtype=int), np.zeros(3, dtype=int)) is None
    with pytest.raises(ValueError, match="same rows"):
        ranking.paired(np.array([1, 0]), np.array([1, 2]))


def test_sampled_ranks_flatter_and_never_draw_the_past_or_the_target():
    rng = np.random.default_rng(0)
    scores, targets = rng.random((60, 300)), rng.integers(0, 300, 60)
    pasts = [past(*rng.choice(np.delete(np.arange(300), t), 5, replace=False)) for t in targets]
    full = ranking.ranks(scores, pasts, targets)
    few = ranking.sampled_ranks(scores, pasts, targets, n_negatives=20, seed=1)
    assert np.all(few <= full) and ranking.hits(few).mean() > ranking.hits(full).mean()
    assert np.array_equal(few, ranking.sampled_ranks(scores, pasts, targets, n_negatives=20, seed=1))
    everything = ranking.sampled_ranks(scores, pasts, targets, n_negatives=10_000)
    assert np.array_equal(everything, full), "a sample of everything is full ranking"


def test_popularity_sampled_ranks_draw_only_what_was_met():
    scores = np.array([[9.0, 8.0, 7.0, 6.0, 5.0]])
    counts = np.array([0, 0, 4, 1, 2])
    assert ranking.sampled_ranks(scores, [past(2)], np.array([4]), n_negatives=9, by="popularity", counts=counts).tolist() == [2]
    with pytest.raises(ValueError, match="counts"):
        ranking.sampled_ranks(scores, [past()], np.array([4]), by="popularity")


def test_cold_items_leave_every_history_and_every_person_is_a_row_of_one_part():
    rng = np.random.default_rng(0)
    pasts = [rng.permutation(50)[:8].astype(np.int32) for _ in range(40)]
    targets = np.array([next(i for i in range(50) if i not in one) for one in pasts])
    targets[3] = -1
    parts = [ranking.cold_items(pasts, targets, n_items=50, share=0.2, part=part, seed=1) for part in range(5)]
    assert np.sum([part.cold for part in parts], axis=0).tolist() == [1] * 50
    assert sorted(np.concatenate([part.targets for part in parts]).tolist()) == sorted(targets[targets >= 0].tolist())
    for part in parts:
        assert len(part.train) == 40 and part.cold[part.targets].all() and len(part.pasts) == len(part.targets)
        assert not any(part.cold[one].any() for one in (*part.train, *part.pasts))
    again, other = (ranking.cold_items(pasts, targets, n_items=50, share=0.2, seed=seed).cold for seed in (1, 2))
    assert np.array_equal(parts[0].cold, again) and not np.array_equal(again, other)
