"""A past folded in is what the library would have trained for the same person."""

import numpy as np
import pytest

from fmcore.nouns import Cancelled
from fmcore.recommend.factors import Als
from fmcore.recommend.matrices import weighted
from fmcore.recommend.recommender import Items

PASTS = [np.random.default_rng(person).permutation(30)[: 3 + person % 9].astype(np.int32) for person in range(80)]
ITEMS = Items(tuple(map(str, range(30))), ("",) * 30, ("",) * 30)


@pytest.mark.parametrize("confidence", [1.0, 2.0, 20.0])
def test_a_past_folded_in_is_the_librarys_own_recalculation(confidence):
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    model = Als(n_factors=8, regularisation=0.5, confidence=confidence).fit(PASTS, ITEMS)
    library = AlternatingLeastSquares(factors=8, regularization=0.5, alpha=confidence, num_threads=1)
    library.item_factors = model.factors
    with threadpool_limits(1, "blas"):
        theirs = library.recalculate_user(np.arange(len(PASTS)), weighted(PASTS, n_items=30))
    assert np.array([model.person(past) for past in PASTS]) == pytest.approx(theirs, abs=1e-4)
    assert model.scores(PASTS) == pytest.approx(theirs @ model.factors.T, abs=1e-4)


def test_the_order_of_a_past_does_not_count_and_a_seed_gives_the_same_again():
    model = Als(n_factors=8, seed=1).fit(PASTS, ITEMS)
    assert model.scores([PASTS[5][::-1]]) == pytest.approx(model.scores([PASTS[5]]), abs=1e-5)
    assert np.array_equal(model.factors, Als(n_factors=8, seed=1).fit(PASTS, ITEMS).factors)
    assert not np.array_equal(model.factors, Als(n_factors=8, seed=2).fit(PASTS, ITEMS).factors)


def test_training_tells_how_far_it_is_and_stops_when_asked():
    class Stops:
        said: list[float] = []

        def progress(self, fraction, message=""):
            self.said.append(fraction)
            if fraction >= 0.4:
                raise Cancelled

    with pytest.raises(Cancelled):
        Als(n_factors=4, iterations=10).fit(PASTS, ITEMS, report=Stops())
    assert Stops.said == pytest.approx([0.1, 0.2, 0.3, 0.4])
