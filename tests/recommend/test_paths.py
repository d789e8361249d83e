"""Paths against a slow reading of their definition, and what sets them apart from transitions."""

import numpy as np
import pytest

from fmcore.recommend.counting import Transitions
from fmcore.recommend.paths import Paths
from fmcore.recommend.recommender import Items


def things(n):
    return Items(tuple(map(str, range(n))), ("",) * n, ("",) * n)


def past(*items):
    return np.array(items, dtype=np.int32)


def walks(n_people=50, n_items=25):
    rng = np.random.default_rng(0)
    return [rng.permutation(n_items)[: rng.integers(1, 14)].astype(np.int32) for _ in range(n_people)]


def slow(pasts, history, *, n_items, recency, latest, lag, power, smoothing):
    counts = np.bincount(np.concatenate(pasts), minlength=n_items)
    found = np.zeros(n_items)
    for walk in pasts:
        for place, item in enumerate(walk):
            said = 0.0
            for age, met in enumerate(history[-latest:][::-1]):
                for step in range(1, lag + 1):
                    if place - step >= 0 and walk[place - step] == met:
                        said += np.exp(-age / recency) * (1 - (step - 1) / lag) / np.sqrt(counts[met] + smoothing)
            found[item] += said**power
    found[history] = 0
    return found


@pytest.mark.parametrize("options", [{"lag": 4, "latest": 3, "power": 2.0}, {"lag": 9, "latest": 8, "power": 3.0, "recency": 2.0}])
def test_scores_are_the_sum_over_people_of_what_their_path_says(options):
    pasts = walks()
    model = Paths(**options).fit(pasts, things(25))
    for history in (past(3), past(1, 2, 3), pasts[7], past(*range(12))):
        expected = slow(pasts, history, n_items=25, **{name: value for name, value in model.options().items() if name != "meetings"})
        assert model.scores([history])[0] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_people_who_met_both_count_for_more_than_as_many_who_met_one():
    pasts = [past(0, 1, 2)] * 3 + [past(0, 3)] * 3 + [past(1, 3)] * 3  # 2 and 3 come equally often after 0, and after 1
    for history in (past(0, 1), past(1, 0)):
        together, apart = Paths().fit(pasts, things(4)).scores([history])[0, [2, 3]]
        assert together > apart
    one_by_one = Transitions(smoothing=0.0, recency=1e9).fit(pasts, things(4)).scores([past(0, 1)])[0, [2, 3]]
    assert one_by_one[0] <= one_by_one[1], "transitions cannot tell"


def test_a_crowded_item_is_read_through_some_of_its_meetings_only():
    pasts = [past(0, 1 + person % 5) for person in range(500)]
    model = Paths(meetings=50).fit(pasts, things(6))
    assert len(model.known.items) == 50 and len(np.unique(model.known.person)) == 50
    assert model.known.person.max() > 450, "spread over all people, not the first ones"
    assert np.all(model.scores([past(0)])[0, 1:] > 0), "some of each"
    assert len(Paths(meetings=500).fit(pasts, things(6)).known.items) == 500


def test_new_events_are_seen_even_where_an_item_is_crowded():
    model = Paths(meetings=5).fit([past(0, 1)] * 100, things(4))
    assert model.scores([past(0)])[0, 2] == 0
    assert model.folded([(past(0), 2)]).scores([past(0)])[0, 2] > 0
