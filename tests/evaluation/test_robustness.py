"""The failure suite: enough sentences of each kind, counted right, and never part of what a model learns."""

import pytest

from fmcore.data import catalogue
from fmcore.data.labelled import folded
from fmcore.evaluation import robustness
from fmcore.evaluation.robustness import KINDS, cases, suite, suite_figures
from fmcore.tasks import SENTIMENTS


def oracle(texts):
    known = dict(zip(cases()["text"], cases()["expected"], strict=True))
    return [known[text] for text in texts]


def test_each_kind_has_at_least_ten_sentences_and_both_signs():
    rows = cases()
    assert set(rows["kind"]) == set(KINDS) and rows.groupby("kind").size().min() >= 10
    assert set(rows["expected"]) == set(SENTIMENTS) and not rows["text"].duplicated().any()
    for kind in KINDS:
        counts = rows[rows["kind"] == kind]["expected"].value_counts()
        assert counts["negative"] >= 3 and counts["positive"] >= 3, kind


def test_who_says_the_same_of_everything_fails_every_kind():
    for label in SENTIMENTS:
        result = suite(lambda texts, label=label: [label] * len(texts))
        assert all(kind.n_passed < 0.7 * kind.n for kind in result.kinds)


def test_a_perfect_model_passes_and_every_failure_is_named():
    assert suite(oracle).failures == () and suite(oracle).n_passed == suite(oracle).n == len(cases())
    wrong = cases()["text"][3]
    result = suite(lambda texts: ["neutral" if text == wrong else said for text, said in zip(texts, oracle(texts), strict=True)])
    (failure,) = result.failures
    assert (failure.text, failure.said, failure.kind) == (wrong, "neutral", "negation") and result.n_passed == result.n - 1
    assert {kind.kind: kind.n - kind.n_passed for kind in result.kinds} == {kind: int(kind == "negation") for kind in KINDS}


def test_the_figures_of_a_version_hold_the_lexicons_counts_beside():
    figures = suite_figures(oracle)
    assert figures["n_passed"] == figures["n"] and figures["lexicon"] == "VADER" and 0 < figures["n_lexicon"] < 0.7 * figures["n"]
    assert figures["n_lexicon"] == sum(kind["n_lexicon"] for kind in figures["kinds"]) and figures["failures"] == []


def test_a_model_that_does_not_answer_each_sentence_is_no_result():
    with pytest.raises(ValueError, match="2 answers"):
        suite(lambda _texts: ["positive", "negative"])


def test_no_sentence_of_it_is_learnt_from(public_data):
    sentences = {folded(text) for text in cases()["text"]}
    for name in ("demo_sentiment", "financial_phrasebank"):
        data = catalogue.load(name)
        assert all(sentences.isdisjoint(folded(text) for text in getattr(data, part)["text"]) for part in catalogue.PARTS)


def test_changing_what_cases_returns_changes_no_later_run():
    rows = cases()
    rows["expected"] = "neutral"
    assert suite(oracle).n_passed == len(robustness.cases())
