"""The lab's worked examples: the arithmetic that a person is taught with is right."""

import numpy as np
import pytest

from fmcore.lab import examples
from fmcore.lab.examples import SENTENCE, Shape


def test_whole_words_are_masked_together_and_the_draws_come_as_80_10_10():
    words = [word for seed in range(600) for word in examples.masking(seed)]
    asked = [word for word in words if word.what != "plain"]
    askable = sum(any(c.isalnum() for c in word[0]) for word in SENTENCE)
    assert len(asked) == 600 * round(examples.MASKED * askable)
    assert all(len(word.shown) == len(word.pieces) for word in asked)
    assert all(word.shown == ("[MASK]",) * len(word.pieces) for word in asked if word.what == "mask")
    assert all(any(c.isalnum() for c in word.pieces[0]) for word in asked), "punctuation is never asked for"
    share = {what: np.mean([word.what == what for word in asked]) for what in ("mask", "random", "same")}
    assert share["mask"] == pytest.approx(0.8, abs=0.03)
    assert share["random"] == pytest.approx(0.1, abs=0.03)
    assert share["same"] == pytest.approx(0.1, abs=0.03)


def test_one_word_stays_however_much_is_deleted():
    assert sum(examples.deleted(["a", "b", "c"], 1.0, seed=3)) == 1
    assert all(examples.deleted(["a", "b", "c"], 0.0, seed=3))


def test_the_contrast_of_alike_vectors_costs_a_blind_guess():
    shares, loss = examples.contrast(np.full((4, 4), 0.5), 0.05)
    assert shares == pytest.approx(np.full((4, 4), 0.25))
    assert loss == pytest.approx(np.log(4))


def test_the_base_models_size_is_the_one_it_has():
    shape = Shape()
    assert shape.weights == 22_713_216, "what the published weights of all-MiniLM-L6-v2 count"
    assert shape.lora(16) == 663_552
    assert shape.head(77) == 77 * 385
    assert shape.multiplications(25, heads=0, inner=0) == 0
    assert shape.multiplications(25, layers=0.5) == shape.multiplications(25) / 2


def test_pairs_of_few_labels_are_counted():
    assert examples.pairs(8, 3) == (84, 192)
    assert sum(examples.pairs(8, 3)) == 24 * 23 // 2


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.3])
def test_a_smoothed_loss_is_lowest_at_its_target(epsilon):
    target = examples.smoothed(epsilon, 3)
    assert target.sum() == pytest.approx(1)
    p = np.linspace(0.01, 0.999, 5000)
    lowest = p[examples.smoothed_loss(p, epsilon, 3).argmin()]
    assert lowest == pytest.approx(min(target[0], 0.999), abs=1e-3)


def test_two_equal_answers_do_not_diverge_and_others_do():
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.8, 0.1])
    assert examples.divergence(p, p) == 0
    assert examples.divergence(p, q) > 0


def test_dropout_keeps_the_mean():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert np.mean([examples.dropped(values, 0.3, seed=s).sum() for s in range(4000)]) == pytest.approx(10, rel=0.02)


def test_patience_ends_behind_a_bump_or_before_it():
    losses = (3, 2, 2.5, 1, 2, 3)
    assert examples.stopped(losses, 1) == (2, 1)
    assert examples.stopped(losses, 2) == (5, 3)
    assert examples.stopped(losses, 5) == (5, 3)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_moves_a_weight_by_half_a_tick_at_most(bits):
    values = np.random.default_rng(0).normal(size=200)
    grid, step = examples.quantised(values, bits)
    assert np.abs(values - grid).max() <= step / 2 + 1e-12
    assert len(np.unique(grid.round(9))) <= 2**bits - 1


def test_weights_fade_and_cascades_have_their_bound():
    assert examples.decayed(0.1, 0.1, np.array([0, 1, 2])) == pytest.approx([1, 0.99, 0.9801])
    assert examples.cascade_speed(50, 0.0) == 50
    assert examples.cascade_speed(1e9, 0.1) == pytest.approx(10)
    assert examples.cascade_speed(50, 1.0) < 1
