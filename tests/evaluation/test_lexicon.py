"""The lexicon baseline: its scores, its thresholds, and its figures on labelled rows."""

import numpy as np
import pytest

from fmcore.data import catalogue
from fmcore.evaluation.lexicon import lexicon_figures, lexicon_labels, lexicon_scores


def test_scores_have_the_sign_of_plain_words_and_stay_in_bounds():
    texts = ["a great success, excellent results", "a terrible disaster, awful losses", "the office has four floors", "", "😀" * 2000, "good " * 5000]
    scores = lexicon_scores(texts)
    assert scores.shape == (6,) and np.isfinite(scores).all() and (np.abs(scores) <= 1).all()
    assert scores[0] > 0.5 and scores[1] < -0.5 and scores[2] == scores[3] == 0
    assert lexicon_labels(texts)[:4].tolist() == ["positive", "negative", "neutral", "neutral"]


def test_no_text_gives_no_score():
    assert len(lexicon_scores([])) == 0 and len(lexicon_labels([])) == 0


def test_it_knows_no_finance_which_is_why_it_is_only_the_baseline():
    assert lexicon_labels(["Operating profit fell to EUR 8.7 million from EUR 13.1 million."])[0] != "negative"


def test_figures_are_over_in_scope_rows_with_intervals():
    shown, right = lexicon_figures(["a great success", "an awful mess", "how is the weather"], ["positive", "positive", "oos"], resamples=50)
    assert shown["name"] == "VADER" and right.tolist() == [True, False]
    assert shown["accuracy"]["value"] == 0.5 and shown["accuracy"]["n"] == 2 and {"low", "high"} <= shown["macro_f1"].keys()


def test_on_the_demo_news_it_is_better_than_chance_and_far_from_right():
    test = catalogue.load("demo_sentiment").test
    shown, _ = lexicon_figures(list(test["text"]), list(test["label"]), resamples=50)
    assert 0.4 < shown["accuracy"]["value"] < 0.8


def test_on_phrasebank_it_does_what_others_report_of_it(public_data):
    test = catalogue.load("financial_phrasebank").test
    shown, _ = lexicon_figures(list(test["text"]), list(test["label"]), resamples=50)
    assert shown["accuracy"]["value"] == pytest.approx(0.54, abs=0.05)
