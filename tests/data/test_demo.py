"""The built-in data is what it says it is, and hard enough to be honest."""

import re

import numpy as np
import pytest

from fmcore.data import catalogue, demo


def test_the_demo_data_has_the_promised_size():
    rows = demo.rows()
    inside = rows[rows["intent"] != demo.OOS]
    assert inside["intent"].nunique() >= 30 and inside["domain"].nunique() == 5
    assert inside.groupby("intent").size().min() >= 30
    assert (rows["intent"] == demo.OOS).sum() >= 150
    assert rows.notna().all().all() and (rows["text"].str.strip() != "").all()


def test_every_intent_has_one_domain_a_reply_and_rows_in_every_part():
    inside = demo.rows().query("intent != 'oos'")
    assert (inside.groupby("intent")["domain"].nunique() == 1).all()
    assert set(demo.replies()) == set(inside["intent"])
    assert all(len(reply) > 40 for reply in demo.replies().values())
    assert inside.groupby(["intent", "split"]).size().unstack().min().min() >= 5


def test_no_text_or_near_copy_of_it_stands_in_two_parts():
    rows = demo.rows()
    words = [set(re.findall(r"[a-z0-9']+", message.casefold())) for message in rows["text"]]
    column = {word: n for n, word in enumerate(sorted(set().union(*words)))}
    has = np.zeros((len(words), len(column)), dtype=np.float32)
    for n, mine in enumerate(words):
        has[n, [column[word] for word in mine]] = 1
    common = has @ has.T
    size = has.sum(axis=1)
    jaccard = common / np.maximum(size[:, None] + size[None, :] - common, 1)
    split = rows["split"].to_numpy()
    first, second = np.nonzero((jaccard > 0.8) & (split[:, None] != split[None, :]))
    assert not [(rows["text"][i], rows["text"][j]) for i, j in zip(first, second, strict=True)]


def test_the_demo_data_says_that_it_is_made_up():
    assert catalogue.dataset("demo").synthetic and "Synthetic" in catalogue.dataset("demo").summary
    assert catalogue.load("demo").synthetic


@pytest.mark.slow
def test_a_bag_of_words_does_not_solve_the_demo_data():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    data = catalogue.load("demo")
    test = data.test[data.test["label"] != catalogue.OOS]
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000))
    model.fit(data.train["text"], data.train["label"])
    assert 0.3 < model.score(test["text"], test["label"]) < 0.95
