import json

import numpy as np
import pytest

from fmcore.evaluation import baselines, metrics
from fmcore.nouns import Prediction


def said(label, *, score=0.8, novelty=0.0, candidates=None):
    return Prediction(label, score, {label: score}, novelty <= 1, novelty, 1.0, "", candidates or (label,), 0.9, "v")


def test_accuracy_comes_with_an_interval_that_holds_it_and_narrows_with_rows():
    few = metrics.accuracy(["a"] * 20, ["a"] * 15 + ["b"] * 5)
    many = metrics.accuracy(["a"] * 2000, ["a"] * 1500 + ["b"] * 500)
    assert few.value == many.value == 0.75 and few.low < 0.75 < few.high
    assert many.high - many.low < (few.high - few.low) / 3
    assert many.high - many.low == pytest.approx(2 * 1.96 * (0.75 * 0.25 / 2000) ** 0.5, rel=0.15)


def test_no_rows_give_no_figure():
    assert metrics.accuracy([], []) is None and metrics.figure(None) is None and metrics.macro_f1([], []) is None
    assert metrics.auroc([1.0, 2.0], [False, False]) is None


def test_macro_f1_is_scikit_learns():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    true, predicted = rng.choice(list("abc"), 200).tolist(), rng.choice(list("abcd"), 200).tolist()
    expected = f1_score(true, predicted, labels=["a", "b", "c"], average="macro")
    assert metrics.macro_f1(true, predicted, resamples=20).value == pytest.approx(expected)


def test_calibration_error_of_a_hand_worked_case():
    # ten rows at 0.9 with eight right: 0.1 off; ten rows at 0.5 with five right: 0 off
    value = metrics.ece([0.9] * 10 + [0.5] * 10, [True] * 8 + [False] * 2 + [True] * 5 + [False] * 5, resamples=20).value
    assert value == pytest.approx(0.05)
    assert metrics.ece([1.0], [True], resamples=5).value == 0


def test_auroc_counts_ties_half_and_agrees_with_every_pair():
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 6, 40).astype(float), rng.integers(2, 9, 30).astype(float)
    pairs = np.mean([(o > i) + 0.5 * (o == i) for i in inside for o in outside])
    assert metrics.auroc_value(inside, outside) == pytest.approx(pairs)


def test_a_paired_difference_is_sharper_than_two_intervals_and_needs_the_same_rows():
    a = np.array([True] * 80 + [False] * 20)
    b = a.copy()
    b[80:86] = True
    difference = metrics.paired_difference(a, b)
    assert difference.value == pytest.approx(0.06) and difference.low > 0
    with pytest.raises(ValueError, match="same rows"):
        metrics.paired_difference(a, b[:-1])


def test_what_evaluate_prints_has_the_shape_of_the_contract_and_counts_by_its_rules():
    true = ["a", "a", "b", "c", "oos", "oos"]
    predictions = [said("a"), said("a", novelty=2.0), said("a"), said("zzz"), said("a", novelty=3.0), said("b")]
    result = metrics.evaluate_predictions(true, predictions, resamples=50, seed=1)
    assert result["n"] == 6
    assert result["accuracy"]["value"] == 0.5  # before the scope decision; a label the model has not is a wrong answer
    assert set(result["accuracy"]) >= {"value", "low", "high"}
    assert result["oos"]["n"] == 2 and result["oos"]["recall"]["value"] == 0.5
    assert result["oos"]["in_scope_accuracy"]["value"] == 0.25  # a rejected in-scope row is an error
    assert result["confusions"][0]["n"] == 1 and {r["label"] for r in result["per_class"]} == {"a", "b", "c"}
    json.dumps(result, allow_nan=False)


def test_evaluating_in_scope_rows_alone_or_strangers_alone_gives_none_where_nothing_can_be_said():
    inside = metrics.evaluate_predictions(["a"], [said("a")], resamples=10)
    outside = metrics.evaluate_predictions(["oos"], [said("a", novelty=5)], resamples=10)
    assert inside["oos"] is None and inside["accuracy"]["value"] == 1
    assert outside["accuracy"] is None and outside["oos"] is None
    json.dumps([inside, outside], allow_nan=False)


def test_the_same_seed_gives_the_same_interval():
    one, two = (metrics.accuracy(["a"] * 50, ["a"] * 40 + ["b"] * 10, seed=3) for _ in range(2))
    assert one == two


def test_the_baselines_are_what_they_say():
    train = [("where is my card", "card"), ("card lost", "card"), ("pay my bill", "bill"), ("the bill is wrong", "bill"), ("my bill", "bill")]
    texts, labels = map(list, zip(*train, strict=True))
    assert baselines.majority(labels, ["bill", "card", "oos"], resamples=10)["accuracy"]["value"] == 0.5
    figures, right = baselines.bag_of_words_figures(texts, labels, ["lost card", "bill", "?"], ["card", "bill", "oos"], resamples=10)
    assert figures["accuracy"]["n"] == 2 and right.all()
    assert list(baselines.bag_of_words(["?", "!"], ["a", "b"], ["x"])) == ["a"]
