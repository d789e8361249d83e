"""The interval of a repeated training: it covers, counts seeds and rows, and pairs what belongs together."""

import numpy as np
import pytest

from fmcore.evaluation.seeds import over_seeds, paired_over_seeds


def answers(seeds, rows, *, share, seed=0):
    return np.random.default_rng(seed).random((seeds, rows)) < share


def test_the_mean_stands_inside_its_interval_and_more_rows_narrow_it():
    few, many = over_seeds(answers(5, 50, share=0.7)), over_seeds(answers(5, 2000, share=0.7))
    assert few.low < few.value < few.high and few.n == 50
    assert many.high - many.low < few.high - few.low


def test_seeds_that_differ_widen_the_interval():
    alike, apart = np.full((5, 400), 0.5), np.repeat([[0.1], [0.3], [0.5], [0.7], [0.9]], 400, axis=1)
    assert over_seeds(alike).high == over_seeds(alike).low == 0.5
    found = over_seeds(apart)
    assert found.value == pytest.approx(0.5) and found.high - found.low > 0.3


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    chance, held = np.random.default_rng(1), 0
    for trial in range(200):
        hard, luck = chance.normal(0, 1.0, 80), chance.normal(0, 0.5, 5)
        p = 1 / (1 + np.exp(-(hard[None, :] + luck[:, None])))
        found = over_seeds(chance.random((5, 80)) < p, resamples=300, seed=trial)
        held += found.low <= 0.5 <= found.high
    assert 0.85 <= held / 200 <= 0.995


def test_a_pair_is_told_apart_where_each_alone_is_not():
    easy = answers(1, 300, share=0.5, seed=2)
    worse, better = np.repeat(easy, 3, axis=0), np.repeat(easy, 3, axis=0)
    better[:, np.flatnonzero(~easy[0])[:15]] = True
    one, two, apart = over_seeds(worse), over_seeds(better), paired_over_seeds(worse, better)
    assert one.high > two.low and apart.low > 0 and apart.value == pytest.approx(0.05)


def test_a_figure_without_seeds_stands_beside_every_seed():
    fixed, drawn = np.ones((1, 40)), np.zeros((5, 40))
    assert paired_over_seeds(drawn, fixed).value == 1.0
    with pytest.raises(ValueError, match="same seeds"):
        paired_over_seeds(np.ones((2, 40)), np.ones((3, 40)))
    with pytest.raises(ValueError, match="same seeds"):
        paired_over_seeds(np.ones((2, 40)), np.ones((2, 41)))
    with pytest.raises(ValueError, match="at least one"):
        over_seeds(np.ones((0, 3)))
