"""What a model has to beat on the same rows: always saying the most frequent label, and a bag of words with a linear model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fmcore.evaluation.metrics import OOS, accuracy, figure


def majority(train_labels: Sequence[str], test_labels: Sequence[str], *, resamples: int = 1000, seed: int = 0) -> dict:
    """{name, label, accuracy} of the most frequent training label on the in-scope test rows."""
    most = max(sorted(set(train_labels)), key=Counter(train_labels).__getitem__)
    inside = [t for t in test_labels if t != OOS]
    share = accuracy(inside, [most] * len(inside), resamples=resamples, seed=seed)
    return {"name": "most frequent label", "label": most, "accuracy": figure(share)}


def bag_of_words(train_texts: Sequence[str], train_labels: Sequence[str], test_texts: Sequence[str]) -> np.ndarray:
    """The labels that TF-IDF (words and pairs of words) with a logistic model gives to the test texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    rare = 2 if len(train_texts) > 2000 else 1  # pairs seen once only cost time where there are many
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=rare, token_pattern=r"(?u)\b\w+\b")  # noqa: S106 - a regular expression
    try:
        features = words.fit_transform(train_texts)
    except ValueError:  # texts without a single word: there is nothing to count
        return np.array([Counter(train_labels).most_common(1)[0][0]] * len(test_texts), dtype=object)
    model = LogisticRegression(C=10, max_iter=200).fit(features, list(train_labels))
    return np.asarray(model.predict(words.transform(test_texts)), dtype=object)


def bag_of_words_figures(
    train_texts: Sequence[str], train_labels: Sequence[str], test_texts: Sequence[str], test_labels: Sequence[str],
    *, resamples: int = 1000, seed: int = 0,
) -> tuple[dict, np.ndarray]:  # fmt: skip
    """({name, accuracy}, right or wrong on each in-scope test row)."""
    inside = np.array([t != OOS for t in test_labels], dtype=bool)
    said = bag_of_words(train_texts, train_labels, list(np.asarray(test_texts, dtype=object)[inside]))
    true = np.asarray(test_labels, dtype=object)[inside]
    return {"name": "TF-IDF + logistic", "accuracy": figure(accuracy(true, said, resamples=resamples, seed=seed))}, said == true
