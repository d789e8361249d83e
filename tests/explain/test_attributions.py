"""Attributions of models whose right answer is known: additive ones, ones with an interaction, ones that do not listen."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from fmcore.explain.attributions import BUDGETS, METHODS, NotExplained, attribute, most_pieces, pieces, usual_budget
from fmcore.explain.words import split

FIRST = np.array([1.0, 0.0])
ADDS_UP = ("fast", "exact", "shap")


class Model:
    """texts -> (n, 2) probabilities; counts what it is asked for."""

    def __init__(self, of):
        self.of, self.asked = of, []

    def __call__(self, texts):
        self.asked += texts
        p = np.array([self.of(t.split()) for t in texts])
        return np.stack([p, 1 - p], axis=1)


def additive(words):
    return 0.1 + 0.5 * ("up" in words) + 0.2 * ("good" in words) - 0.05 * ("not" in words)


def logistic(words):
    z = -1 + sum({"alpha": 2.0, "beta": 1.0, "gamma": -1.5}.get(w, 0.1 * (len(w) % 3)) for w in words) + 2.0 * ("not" in words and "beta" in words)
    return 1 / (1 + np.exp(-z))


def exact_by_orders(of, tokens):
    """Shapley values by their definition: the mean effect over all orders."""
    total = np.zeros(len(tokens))
    orders = list(itertools.permutations(range(len(tokens))))
    for order in orders:
        there = set()
        for i in order:
            before = of([tokens[j] for j in sorted(there)])
            there.add(i)
            total[i] += of([tokens[j] for j in sorted(there)]) - before
    return total / len(orders)


def test_exact_is_the_mean_over_all_orders():
    words = split("alpha not beta gamma delta")
    found = attribute(Model(logistic), words, target=FIRST, method="exact")
    assert found.values == pytest.approx(exact_by_orders(logistic, words.tokens), abs=1e-12)
    assert found.n_calls == 2 ** len(words)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_effects_of_an_additive_model(method):
    words = split("prices up and good not bad")
    found = attribute(Model(additive), words, target=FIRST, method=method)
    if method == "lime":
        assert spearmanr(found.values, [0, 0.5, 0, 0.2, -0.05, 0])[0] > 0.8
    else:
        assert found.values == pytest.approx([0, 0.5, 0, 0.2, -0.05, 0], abs=0.02)
    assert found.score == pytest.approx(0.75) and len(found.values) == len(words)


@pytest.mark.parametrize("method", ADDS_UP)
@pytest.mark.parametrize("n", [1, 2, 5, 9, 10, 14, 30])
def test_base_and_values_add_up_to_the_score(method, n):
    if method == "exact" and n > 10:
        pytest.skip("exact is for up to 10 words")
    words = pieces(split(" ".join(["alpha", "beta", "gamma", "not", *(f"w{i}" for i in range(n))][:n])), method=method)
    found = attribute(Model(logistic), words, target=FIRST, method=method)
    assert found.additivity_error < 1e-9
    assert found.base_value == pytest.approx(logistic([]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [8, 16, 40, 64])
def test_no_method_asks_for_more_texts_than_its_budget(method, budget):
    for n in (1, 3, 9, 25):
        model = Model(logistic)
        words = pieces(split(" ".join(f"w{i}" for i in range(n))), method=method, budget=budget)
        if method == "exact" and 2 ** len(words) > budget:
            with pytest.raises(NotExplained):
                attribute(model, words, target=FIRST, method=method, budget=budget)
            continue
        found = attribute(model, words, target=FIRST, method=method, budget=budget)
        assert found.n_calls == len(model.asked) <= budget


def test_fast_agrees_with_exact_where_words_act_together():
    model, words = Model(logistic), split("alpha not beta gamma one two three four five")
    exact = attribute(model, words, target=FIRST, method="exact").values
    fast = attribute(model, words, target=FIRST, budget=64).values
    assert spearmanr(exact, fast)[0] > 0.9
    assert np.abs(exact - fast).max() < 0.05


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_values(method):
    words = split("alpha not beta gamma one two three four")
    first, again = (attribute(Model(logistic), words, target=FIRST, method=method, seed=3) for _ in range(2))
    assert (first.values == again.values).all()


def test_the_target_may_weigh_labels_against_each_other():
    words = split("prices up")
    net = attribute(Model(additive), words, target=np.array([1.0, -1.0]), method="exact")
    assert net.score == pytest.approx(2 * 0.6 - 1) and net.values[1] == pytest.approx(1.0)


@pytest.mark.parametrize("method", METHODS)
def test_a_text_without_words_has_its_score_as_base(method):
    found = attribute(Model(additive), split(""), target=FIRST, method=method)
    assert (found.base_value, found.score, found.n_calls, len(found.values)) == (0.1, 0.1, 1, 0)


def test_a_model_that_does_not_listen_gives_every_word_nothing():
    found = attribute(Model(lambda words: 0.3), split(" ".join(f"w{i}" for i in range(12))), target=FIRST)
    assert np.abs(found.values).max() < 1e-9


def test_refusals_say_what_to_do():
    words = split(" ".join(f"w{i}" for i in range(50)))
    with pytest.raises(NotExplained, match="no method"):
        attribute(Model(additive), words, target=FIRST, method="magic")
    with pytest.raises(NotExplained, match="subsets"):
        attribute(Model(additive), words, target=FIRST, method="exact")
    with pytest.raises(NotExplained, match="too few"):
        attribute(Model(additive), words, target=FIRST, budget=20)


def test_progress_rises_and_what_it_raises_stops_the_work():
    seen, model = [], Model(logistic)
    words = split(" ".join(f"w{i}" for i in range(100)))
    attribute(model, words, target=FIRST, budget=400, progress=seen.append)
    assert seen == sorted(seen) and len(seen) >= 4 and seen[-1] <= 1.0

    class Stop(Exception):
        pass

    def stop(_fraction):
        raise Stop

    stopped = Model(logistic)
    with pytest.raises(Stop):
        attribute(stopped, words, target=FIRST, budget=400, progress=stop)
    assert len(stopped.asked) < 100, "it stops between two batches"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 60), st.sampled_from(METHODS), st.integers(8, 80), st.integers(0, 5))
def test_any_length_and_budget_is_answered_with_finite_numbers(n, method, budget, seed):
    words = pieces(split(" ".join(f"w{i}" for i in range(n))), method=method, budget=budget)
    if method == "exact" and 2 ** len(words) > budget:
        return
    found = attribute(Model(logistic), words, target=FIRST, method=method, budget=budget, seed=seed)
    assert np.isfinite(found.values).all() and len(found.values) == len(words) <= max(1, most_pieces(method, budget))


def test_every_method_has_a_budget():
    assert set(BUDGETS) == set(METHODS)


def test_long_texts_get_more_calls_unless_somebody_says_otherwise():
    assert usual_budget("fast", 12) == 40 and usual_budget("fast", 13) == 80 and usual_budget("shap", 500) == 100
    with pytest.raises(NotExplained):
        usual_budget("magic", 3)
