"""Lexical scores: what they learn, how they are kept, and how they stand beside a head."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcore.models.classifier import BadModel, Classifier, Rows
from fmcore.models.fitting import FitOptions, fit_classifier
from fmcore.models.lexical import Lexical, fit_lexical, tokens
from fmcore.training.teach import teach

UP, DOWN = ("profit rose", "sales climbed", "margin improved", "orders grew"), ("profit fell", "sales sank", "margin shrank", "orders slid")
OPTIONS = FitOptions(random_features=64, resamples=50, lexical=True, test_is_publishers=False)


def news(n: int, *, seed: int) -> tuple[list[str], np.ndarray]:
    """n invented sentences, half of them good news."""
    chance = np.random.default_rng(seed)
    classes = np.arange(n) % 2
    lines = (UP, DOWN)
    return [f"{lines[c][chance.integers(4)]} by {chance.integers(99)} % in week {chance.integers(9)}" for c in classes], classes


def rows(n: int, *, seed: int, tells: float) -> Rows:
    """Rows whose embeddings tell the class as far as `tells`, while the words tell it always."""
    texts, classes = news(n, seed=seed)
    vectors = np.random.default_rng(seed).standard_normal((n, 8)).astype(np.float32)
    vectors[:, 0] += tells * (2 * classes - 1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Rows(vectors, np.array(["good", "bad"], dtype=object)[classes], tuple(f"{seed}-{i}" for i in range(n)), tuple(texts))


def fitted(*, tells: float = 0.3) -> tuple[Classifier, dict]:
    parts = [rows(n, seed=s, tells=tells) for n, s in ((120, 1), (80, 2), (60, 3))]
    return fit_classifier(*parts, options=OPTIONS, info={"max_tokens": 16})


@pytest.fixture(scope="module")
def model() -> tuple[Classifier, dict]:
    return fitted()


def test_learns_from_words_and_word_parts():
    texts, classes = news(80, seed=0)
    lexical = fit_lexical(texts, classes, n_classes=2)
    fresh, truth = news(40, seed=9)
    assert (lexical.scores(fresh).argmax(axis=1) == truth).all()
    assert lexical.scores(["profits roses"])[0].argmax() == 0  # words never seen, parts seen
    assert "profit rose by" in lexical.words and " ros" in lexical.parts


def test_is_deterministic_and_independent_of_the_batch():
    texts, classes = news(80, seed=0)
    one, two = fit_lexical(texts, classes, n_classes=2), fit_lexical(texts, classes, n_classes=2)
    assert np.array_equal(one.weights, two.weights) and one.words == two.words
    alone = np.vstack([one.scores([t]) for t in texts])
    assert np.allclose(alone, one.scores(texts), atol=1e-5)


def test_numbers_are_read_as_one_and_signs_are_kept():
    assert tokens("EUR 13.1m, up 7,5 % from $9") == ["eur", "0", "m", "up", "0", "%", "from", "$", "0"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=80), max_size=4))
def test_any_text_has_finite_scores(texts):
    known, classes = news(40, seed=0)
    scores = fit_lexical(known, classes, n_classes=2).scores([*texts, "", "a" * 100_000, "\ud800"])
    assert scores.shape == (len(texts) + 3, 2) and np.isfinite(scores).all()


def test_texts_without_a_common_feature_give_the_bias():
    lexical = fit_lexical(["aaa", "bbb", "ccc"], np.array([0, 1, 1]), n_classes=2)
    assert lexical.words == () and np.allclose(lexical.scores(["ddd", "eee"]), lexical.bias)
    assert lexical.scores([]).shape == (0, 2)


def test_saved_and_loaded_is_the_same_and_holds_no_text_of_one_row(tmp_path):
    texts, classes = news(60, seed=0)
    lexical = fit_lexical([*texts, "a secret that stands here only"], np.append(classes, 0), n_classes=2)
    lexical.save(tmp_path)
    assert np.array_equal(Lexical.load(tmp_path).scores(texts), lexical.scores(texts))
    assert "secret" not in json.loads((tmp_path / "lexical.json").read_text())["words"]


def test_stands_beside_the_head_where_validation_says_so(model):
    classifier, metrics = model
    assert metrics["lexical"]["chosen"] and classifier.lexical_weight > 0
    assert metrics["accuracy"]["value"] > metrics["lexical"]["validation_accuracy"]["head"]
    assert metrics["lexical"]["validation_nll"]["both"] < metrics["lexical"]["validation_nll"]["head"]


def test_is_left_out_where_it_does_not_help():
    plain, metrics = fitted(tells=50.0)
    assert plain.lexical is None and not metrics["lexical"]["chosen"] and metrics["lexical"]["share"] == 0.0


def test_a_folder_with_lexical_scores_comes_back_whole_and_without_texts(model, tmp_path):
    classifier, _ = model
    classifier.save(tmp_path)
    again = Classifier.load_without_encoder(tmp_path, version="v")
    test = rows(60, seed=3, tells=0.3)
    said = [p.label for p in classifier.decide(test.embeddings, lexical=classifier.lexical_scores(test.texts))]
    assert said == [p.label for p in again.decide(test.embeddings, lexical=again.lexical_scores(test.texts))]
    assert np.allclose(again.heldout.lexical, classifier.heldout.lexical) and again.reference.texts is None
    assert json.loads((tmp_path / "model.json").read_text())["format"] == 2


def test_predicting_texts_uses_their_words(model):
    classifier, _ = model
    zeros = classifier.with_embedder(lambda texts: (np.tile(np.float32([0, 1, 0, 0, 0, 0, 0, 0]), (len(texts), 1)), np.zeros(len(texts), bool)))
    assert [p.label for p in zeros.predict(["sales climbed by 3 %", "orders slid by 3 %"])] == ["good", "bad"]


def test_embeddings_alone_are_refused_where_words_are_needed(model):
    with pytest.raises(BadModel, match="lexical"):
        model[0].decide(model[0].heldout.embeddings)


def test_a_damaged_lexical_part_is_refused(model, tmp_path):
    model[0].save(tmp_path)
    (tmp_path / "lexical.json").write_text(json.dumps({"words": ["one"], "parts": []}))
    with pytest.raises(BadModel):
        Classifier.load_without_encoder(tmp_path, version="v")


def test_teaching_keeps_what_words_say_of_the_known(model, tmp_path):
    chance = np.random.default_rng(5)

    def embed(texts):
        vectors = chance.standard_normal((len(texts), 8)).astype(np.float32)
        vectors[:, 7] += 9.0
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.zeros(len(texts), dtype=bool)

    known = model[0].with_embedder(embed)
    taught = teach(known, "weather", ["rain all week", "a storm is near", "sunny in the north"]).classifier
    row = known.heldout
    before, after = known.scale(row.embeddings, lexical=row.lexical), taught.scale(row.embeddings, lexical=row.lexical)
    assert np.allclose(before, after[:, :-1], atol=1e-4)
    assert taught.predict(["clouds and wind"])[0].label == "weather"
    dataclasses.replace(taught, version="t").save(tmp_path)
    assert Classifier.load_without_encoder(tmp_path, version="t").labels == ("bad", "good", "weather")


@given(st.lists(st.sampled_from(["profit", "rose", "by", "12,5", "%", "İlk", "Σας", "sales sank.", "  ", "利润", "-", "profit-fell"]), max_size=12))
@settings(max_examples=60, deadline=None)
def test_what_the_tokens_add_makes_the_scores_and_stands_where_they_stand(parts):
    texts, classes = news(80, seed=1)
    lexical = fit_lexical(texts, classes, n_classes=2)
    message = " ".join(parts)
    spans, added = lexical.by_token(message)
    assert added.sum(axis=0) + lexical.bias == pytest.approx(lexical.scores([message])[0], abs=1e-4)
    assert [token for span in spans for token in tokens(message[slice(*span)])] == tokens(message)


def test_a_word_that_no_text_had_adds_nothing_and_one_that_decides_adds_most():
    texts, classes = news(80, seed=1)
    spans, added = fit_lexical(texts, classes, n_classes=2).by_token("zzzz profit rose")
    assert (added[0] == 0).all() and added[2, 0] > added[1, 0] and spans == [(0, 4), (5, 11), (12, 16)]
