import clusters
import numpy as np
import pytest

from fmcore.evaluation.metrics import OOS, auroc_value
from fmcore.models.novelty import choose_threshold, fit_novelty


@pytest.fixture(scope="module")
def novelty():
    train, validation = clusters.rows(30, seed=1), clusters.rows(20, seed=2)
    classes = np.array([clusters.LABELS.index(x) for x in train.labels])
    scores = lambda rows: 8 * rows.embeddings @ clusters.CENTRES[:4].T  # noqa: E731
    fitted = fit_novelty(train.embeddings, classes, validation=validation.embeddings, validation_scores=scores(validation), n_classes=4)
    return fitted, validation, scores


def test_it_is_measured_in_standard_deviations_of_in_scope_validation_rows(novelty):
    fitted, validation, scores = novelty
    values = fitted.score(validation.embeddings, scores(validation))
    assert values.mean() == pytest.approx(0, abs=1e-3) and values.std() == pytest.approx(1, abs=1e-3)


def test_each_part_and_their_mean_put_strangers_above_known_rows(novelty):
    fitted, _, scores = novelty
    test = clusters.rows(20, seed=3, n_oos=40)
    oos = test.labels == OOS
    parts = fitted.parts(test.embeddings, scores(test))
    for column in parts.T:
        assert auroc_value(column[~oos], column[oos]) > 0.9
    total = fitted.score(test.embeddings, scores(test))
    assert auroc_value(total[~oos], total[oos]) > 0.98


def test_a_taught_class_is_no_longer_strange(novelty):
    fitted, _, scores = novelty
    strangers = clusters.rows(1, seed=4, n_oos=30)
    vectors = strangers.embeddings[strangers.labels == OOS]
    known = np.full((len(vectors) - 5, 4), -20.0)  # the head's part is the same before and after
    before = fitted.parts(vectors[5:], known)[:, 1:]
    after = fitted.with_class(vectors[:5]).parts(vectors[5:], known)[:, 1:]
    assert (after < before).mean() > 0.95


def test_the_threshold_is_the_cheapest_one_there_is():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(0, 1, 300), rng.normal(2.5, 1, 60)
    values, is_oos = np.concatenate([inside, outside]), np.repeat([False, True], [300, 60])
    for cost in (0.5, 1.0, 4.0):
        chosen = choose_threshold(values, is_oos, missed_oos_cost=cost)
        price = lambda t, cost=cost: (inside > t).mean() + cost * (outside <= t).mean()  # noqa: E731
        assert price(chosen.value) <= min(price(t) for t in np.linspace(-4, 6, 2001)) + 1e-9
        assert f"{cost:g} times" in chosen.note
    assert choose_threshold(values, is_oos, missed_oos_cost=4).value < choose_threshold(values, is_oos, missed_oos_cost=0.5).value


def test_without_out_of_scope_rows_it_accepts_a_stated_share_of_the_known():
    values = np.random.default_rng(0).normal(size=400)
    chosen = choose_threshold(values, np.zeros(400, dtype=bool))
    assert (values <= chosen.value).mean() == pytest.approx(0.95, abs=0.01) and "95%" in chosen.note


def test_news_without_out_of_scope_rows_is_next_to_never_rejected():
    values = np.random.default_rng(0).standard_normal(400)
    chosen = choose_threshold(values, np.zeros(400, dtype=bool), in_scope_share=0.995)
    assert (values <= chosen.value).mean() >= 0.995 and "99.5%" in chosen.note
