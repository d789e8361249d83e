import numpy as np
import pytest

from fmcore.models.calibration import conformal_sizes, fit_conformal, fit_temperature, softmax


def drawn(n, *, temperature, seed=0):
    """Scores of four classes whose true labels are drawn from softmax(scores / temperature)."""
    rng = np.random.default_rng(seed)
    scores = 3 * rng.standard_normal((n, 4))
    chances = softmax(scores, temperature=temperature)
    return scores, np.array([rng.choice(4, p=p) for p in chances])


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    scores, classes = drawn(4000, temperature=temperature)
    assert fit_temperature(scores, classes) == pytest.approx(temperature, rel=0.15)


def test_a_faultless_validation_set_gives_no_certainty():
    scores = np.eye(4)[np.arange(40) % 4]
    p = softmax(scores, temperature=fit_temperature(scores, np.arange(40) % 4)).max()
    assert 0.9 < p < 0.99


def test_the_conformal_set_holds_the_truth_as_often_as_promised():
    scores, classes = drawn(2000, temperature=1.0)
    probabilities = softmax(scores, temperature=1.0)
    least = fit_conformal(probabilities[:1000], classes[:1000], coverage=0.9)
    order = np.argsort(-probabilities[1000:], axis=1)
    sizes = conformal_sizes(np.take_along_axis(probabilities[1000:], order, axis=1), least=least)
    held = [c in places[:n] for c, places, n in zip(classes[1000:], order, sizes, strict=True)]
    assert np.mean(held) == pytest.approx(0.9, abs=0.03)


def test_too_few_rows_promise_nothing_less_than_every_label():
    probabilities = np.array([[0.7, 0.3]])
    least = fit_conformal(probabilities, np.array([0]), coverage=0.9)
    assert conformal_sizes(probabilities, least=least).tolist() == [2]
    assert conformal_sizes(np.array([[0.6, 0.4]]), least=0.9).tolist() == [1]
