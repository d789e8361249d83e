"""Faithfulness on models whose right explanation is known: it is believed, a random or reversed one is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcore.explain.attributions import BATCH, Attribution, attribute
from fmcore.explain.faithfulness import (
    RIGHT,
    WRONG,
    YARDSTICK,
    comprehensiveness_sufficiency,
    curves,
    deletion_beats_random,
    rank_correlation,
    trust,
)
from fmcore.explain.words import split

FIRST = np.array([1.0, 0.0])
EFFECTS = {"alpha": 0.30, "beta": 0.15, "gamma": 0.08, "delta": 0.04, "epsilon": 0.02, "zeta": 0.01, "eta": -0.03, "theta": -0.07}
BASE = 0.25
WORDS = split(" ".join(EFFECTS))
TRUE = np.array(list(EFFECTS.values()))


class Model:
    """Each word adds its effect; counts the texts and the calls."""

    def __init__(self, of=None):
        self.of, self.asked, self.n_batches = of or (lambda words: BASE + sum(EFFECTS.get(w, 0.0) for w in set(words))), [], 0

    def __call__(self, texts):
        self.asked += texts
        self.n_batches += 1
        p = np.array([self.of(t.split()) for t in texts])
        return np.stack([p, 1 - p], axis=1)


def said(values, *, base=BASE, words=WORDS, model=None):
    score = float((model or Model())([words.keep([True] * len(words))])[0, 0])
    return Attribution(np.asarray(values, dtype=float), base, score, 0)


def judged(values, *, words=WORDS, model=None, **rest):
    return trust(model or Model(), words, said(values, words=words), target=FIRST, **rest)


def check(found, name):
    return next((passed, sentence) for called, passed, sentence in found.checks if called == name)


def failed(found):
    return {name for name, passed, _ in found.checks if not passed}


def test_the_true_effects_are_trusted():
    found = judged(TRUE, others={"lime": TRUE + 0.001}, again=[TRUE, TRUE * 1.1], familiar=(-0.5, 1.5))
    assert found.verdict == "trust"
    assert [name for name, _, _ in found.checks] == ["faithful", "right", "sufficient", "agreeing", "stable", "additive", "familiar", "sure"]
    assert not failed(found)
    assert found.agreement[YARDSTICK] == pytest.approx(1.0)
    assert found.stability == pytest.approx(1.0)


def test_the_curves_are_the_scores_along_the_order():
    found = judged(TRUE)
    order = np.argsort(-TRUE)
    whole = BASE + TRUE.sum()
    falling = [whole - TRUE[order[:k]].sum() for k in range(9)]
    rising = [BASE + TRUE[order[:k]].sum() for k in range(9)]
    assert found.deletion.shares == pytest.approx(np.arange(9) / 8)
    assert found.deletion.scores == pytest.approx(falling)
    assert found.insertion.scores == pytest.approx(rising)
    assert found.deletion.area == pytest.approx(np.trapezoid(falling, dx=1 / 8))
    assert found.insertion.area == pytest.approx(np.trapezoid(rising, dx=1 / 8))
    assert found.deletion.random[0] == pytest.approx(whole) and found.deletion.random[-1] == pytest.approx(BASE)
    assert found.deletion.area < found.deletion.low <= found.deletion.random_area <= found.deletion.high
    assert found.deletion.random_area == pytest.approx((whole + BASE) / 2), "orders with their reverses are straight in an additive model"


def test_comprehensiveness_and_sufficiency_are_those_of_eraser():
    strongest = np.cumsum(-np.sort(-TRUE))
    k = np.array([1, 1, 2, 4])  # ceil of 5, 10, 20 and 50 % of eight words
    whole = strongest[-1]
    expected = strongest[k - 1].mean(), (whole - strongest[k - 1]).mean()
    assert comprehensiveness_sufficiency(Model(), WORDS, TRUE, target=FIRST) == pytest.approx(expected)
    found = judged(TRUE)
    assert (found.comprehensiveness, found.sufficiency) == pytest.approx(expected)


def test_twenty_words_take_one_two_four_and_ten():
    words = split(" ".join(f"w{i}" for i in range(20)))
    model = Model(lambda there: 0.02 * len(there))
    values = np.linspace(1, 0, 20)
    found = comprehensiveness_sufficiency(model, words, values, target=FIRST)
    assert found == pytest.approx((0.02 * np.mean([1, 2, 4, 10]), 0.02 * np.mean([19, 18, 16, 10])))
    assert words.keep(np.arange(20) < 2) in model.asked


def test_reversed_and_random_explanations_are_not_believed():
    effects = np.linspace(0.10, -0.05, 16)
    words = split(" ".join(f"w{i}" for i in range(16)))
    model = Model(lambda there: 0.3 + sum(effects[int(w[1:])] for w in there))

    def verdict(values):
        return trust(model, words, said(values, base=0.3, words=words, model=model), target=FIRST).verdict

    assert verdict(effects) == "trust"
    assert verdict(-effects) == "do not"
    rng = np.random.default_rng(5)
    assert [verdict(rng.permutation(effects)) for _ in range(6)].count("do not") >= 5


def test_a_method_on_a_model_with_an_interaction_is_trusted_and_its_reverse_is_not():
    def of(there):
        z = -1 + sum(EFFECTS.get(w, 0) * 8 for w in there) + 2.0 * ("beta" in there and "delta" in there)
        return 1 / (1 + np.exp(-z))

    made = attribute(Model(of), WORDS, target=FIRST, method="fast")
    again = [attribute(Model(of), WORDS, target=FIRST, method="fast", seed=s).values for s in (1, 2)]
    assert trust(Model(of), WORDS, made, target=FIRST, again=again).verdict == "trust"
    turned = Attribution(-made.values, made.base_value, made.score, made.n_calls)
    assert trust(Model(of), WORDS, turned, target=FIRST, again=[-a for a in again]).verdict == "do not", "however stable it is"


def test_half_right_is_with_care_or_worse_and_the_sentence_says_by_how_much():
    values = TRUE.copy()
    values[[1, 2, 3, 4, 5]] = values[[5, 4, 3, 2, 1]]
    found = judged(values)
    agreement = rank_correlation(values, TRUE)
    assert WRONG < agreement < RIGHT
    assert found.agreement[YARDSTICK] == pytest.approx(agreement)
    assert found.verdict == "with care" and failed(found) >= {"right"}
    assert f"{agreement:.2f}" in check(found, "right")[1]


@pytest.mark.parametrize(
    ("rest", "name", "number"),
    [
        ({"others": {"lime": -TRUE, "occlusion": TRUE[::-1]}}, "agreeing", "lime -1.00"),
        ({"again": [TRUE[::-1]]}, "stable", "Computed 2 times"),
        ({"familiar": (2.25, 1.5)}, "familiar", "novelty 2.25, threshold 1.50"),
    ],
)
def test_each_doubt_alone_makes_it_with_care(rest, name, number):
    found = judged(TRUE, **rest)
    assert found.verdict == "with care"
    assert failed(found) == {name}
    assert number in check(found, name)[1]


def test_values_that_do_not_add_up_are_taken_with_care_and_the_gap_is_told():
    found = judged(TRUE * 0.8)
    assert failed(found) == {"additive"} and found.verdict == "with care"
    assert f"{0.2 * TRUE.sum():.3f}" in check(found, "additive")[1]


def test_an_unsure_answer_is_taken_with_care():
    labels = np.array([1.0, 0.0, 0.0])

    def torn(texts):
        p = np.array([0.2 + 0.5 * sum(EFFECTS[w] for w in t.split()) for t in texts])
        return np.stack([p, *[(1 - p) / 2] * 2], axis=1)

    made = attribute(torn, WORDS, target=labels, method="exact")
    found = trust(torn, WORDS, made, target=labels)
    assert failed(found) == {"sure"} and found.verdict == "with care"
    assert "45 %" in check(found, "sure")[1]


def test_a_net_target_of_two_labels():
    net = np.array([1.0, -1.0])
    made = attribute(Model(), WORDS, target=net, method="exact")
    found = trust(Model(), WORDS, made, target=net)
    assert found.verdict == "trust"
    assert found.deletion.scores[0] == pytest.approx(2 * (BASE + TRUE.sum()) - 1)


def test_agreement_holds_each_method_by_name():
    found = judged(TRUE, others={"lime": TRUE, "occlusion": -TRUE})
    assert found.agreement == pytest.approx({YARDSTICK: 1.0, "lime": 1.0, "occlusion": -1.0})


def test_stability_is_the_mean_over_pairs_and_the_top_words_are_counted():
    swapped = TRUE.copy()
    swapped[[2, 3]] = swapped[[3, 2]]
    found = judged(TRUE, again=[swapped])
    assert found.stability == pytest.approx(rank_correlation(TRUE, swapped))
    assert "67 %" in check(found, "stable")[1], "two of the three strongest are the same"


# --- few words


def test_no_words():
    found = judged([], words=split(""))
    assert found.verdict == "do not"
    assert found.checks == (("worded", False, "There are no words to explain."),)
    assert (found.deletion, found.insertion, found.comprehensiveness, found.sufficiency, found.stability) == (None,) * 5
    assert found.agreement == {} and found.n_calls == 0


def test_one_word_has_no_order():
    words = split("alpha")
    found = judged([0.30], words=words, familiar=(0.0, 1.0))
    assert found.verdict == "with care"
    assert "one word" in check(found, "worded")[1]
    assert (found.deletion, found.insertion, found.comprehensiveness, found.sufficiency, found.stability) == (None,) * 5
    assert check(found, "additive")[0] and check(found, "familiar")[0]
    assert found.n_calls == 1


@pytest.mark.parametrize("text", ["", "alpha"])
def test_the_figures_without_an_order(text):
    words = split(text)
    assert curves(Model(), words, TRUE[: len(words)], target=FIRST) is None
    assert deletion_beats_random(Model(), words, TRUE[: len(words)], target=FIRST) is None
    found = comprehensiveness_sufficiency(Model(), words, TRUE[: len(words)], target=FIRST)
    assert found is None if not text else found == pytest.approx((0.30, 0.0))


def test_two_words_are_told_apart_by_every_subset():
    words = split("alpha theta")
    assert judged([0.30, -0.07], words=words).verdict == "trust"
    assert judged([-0.07, 0.30], words=words).verdict == "do not"
    assert judged([0.30, -0.07], words=words).n_calls == 4


def test_equal_words_are_asked_once_and_tie():
    words = split("alpha alpha alpha")
    model = Model()
    found = trust(model, words, Attribution(np.full(3, 0.1), BASE, BASE + 0.3, 0), target=FIRST)
    assert found.n_calls == 4 == len(set(model.asked)) == len(model.asked)
    assert found.agreement[YARDSTICK] == 1.0


def test_a_model_that_does_not_listen_has_nothing_to_explain():
    deaf = Model(lambda _: 0.9)
    calm = trust(deaf, WORDS, Attribution(np.zeros(8), 0.9, 0.9, 0), target=FIRST)
    assert calm.verdict == "with care" and "nothing to explain" in check(calm, "faithful")[1]
    loud = trust(deaf, WORDS, Attribution(TRUE - TRUE.mean(), 0.9, 0.9, 0), target=FIRST)
    assert loud.verdict == "do not" and "0.24" in check(loud, "faithful")[1]


# --- what it costs


def test_each_text_is_asked_once_in_few_batches():
    words = split(" ".join(f"w{i}" for i in range(12)))
    model = Model(lambda there: 0.9 * len(there) / 12)
    found = trust(model, words, Attribution(np.linspace(0.2, 0.0, 12), 0.0, 0.9, 0), target=FIRST)
    assert found.n_calls == len(model.asked) == len(set(model.asked)) <= 240
    assert model.n_batches <= 8 + found.n_calls / BATCH, "the yardstick looks again a few times"


def test_progress_grows_and_may_stop_it():
    heard = []
    judged(TRUE, progress=heard.append)
    assert heard == sorted(heard) and 0 < heard[-1] <= 1

    def stop(_):
        raise KeyboardInterrupt

    model = Model()
    with pytest.raises(KeyboardInterrupt):
        judged(TRUE, model=model, progress=stop)
    assert model.n_batches == 1


def test_long_texts_have_twelve_steps():
    words = split(" ".join(f"w{i}" for i in range(40)))
    model = Model(lambda there: len(there) / 41)
    deletion, insertion = curves(model, words, np.linspace(1, 0, 40), target=FIRST)
    assert len(deletion.shares) == len(insertion.scores) == 13
    assert (deletion.shares[0], deletion.shares[-1]) == (0.0, 1.0)


def test_many_words_are_judged_by_runs_of_neighbours():
    """The true values of more words than the yardstick tells apart are still believed, the reversed ones still not."""
    effects = np.linspace(0.008, 0.0, 120)
    words = split(" ".join(f"w{i}" for i in range(120)))
    model = Model(lambda there: 0.1 + sum(effects[int(w[1:])] for w in there))
    for sign, verdict in ((1, "trust"), (-1, "do not")):
        found = trust(model, words, said(sign * effects, base=0.1, words=words, model=model), target=FIRST)
        assert found.verdict == verdict
        assert found.agreement[YARDSTICK] * sign > 0.9
        assert found.n_calls <= 340


def test_deletion_against_random_orders():
    assert deletion_beats_random(Model(), WORDS, TRUE, target=FIRST) is True
    assert deletion_beats_random(Model(), WORDS, -TRUE, target=FIRST) is False


# --- what always holds

WORDY = st.lists(st.sampled_from([*EFFECTS, "ακαθαρτος", "<b>", "\U0001f600", "银行"]), min_size=0, max_size=9)


@settings(max_examples=20, deadline=None)
@given(tokens=WORDY, data=st.data())
def test_figures_are_bounded_and_the_same_twice(tokens, data):
    words = split(" ".join(tokens))
    n = len(words)
    numbers = st.floats(-1, 1, allow_nan=False)
    values = np.array(data.draw(st.lists(numbers, min_size=n, max_size=n)))
    again = [np.array(data.draw(st.lists(numbers, min_size=n, max_size=n)))] if n else []
    found = judged(values, words=words, again=again, others={"lime": values}, seed=3)
    assert found == judged(values, words=words, again=again, others={"lime": values}, seed=3)
    assert found.verdict in ("trust", "with care", "do not")
    assert (found.verdict == "trust") <= all(passed for _, passed, _ in found.checks)
    assert found.n_calls <= 2**n
    assert all(-1 <= value <= 1 for value in found.agreement.values())
    for curve in (found.deletion, found.insertion):
        assert (curve is None) == (n < 2)
        if curve is not None:
            assert curve.low <= curve.random_area <= curve.high or curve.low == pytest.approx(curve.high)
            assert all(0 <= s <= 1 for s in (*curve.scores, *curve.random, curve.area))
            assert list(curve.shares) == sorted(set(curve.shares))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-1000, 1000).map(lambda n: n / 1000), min_size=2, max_size=12))  # nearer values count as equal ones
def test_an_order_agrees_with_itself(values):
    values = np.array(values)
    assert rank_correlation(values, values) == pytest.approx(1.0)
    assert rank_correlation(values, 2 * values) == pytest.approx(1.0) or np.ptp(np.round(values, 6)) < 1e-5
