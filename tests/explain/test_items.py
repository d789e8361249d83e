"""Contributions of past items to a recommended one: exact where the recommender is additive, and checked by removal on real behaviour."""

import numpy as np
import pandas as pd
import pytest

from fmcore.explain.items import contributions


def test_an_additive_recommender_is_taken_apart_exactly():
    likeness = {"dune": 0.6, "alien": 0.3, "heat": 0.0, "up": -0.2}

    def score(histories):
        return np.array([1.5 + sum(likeness[item] for item in h) for h in histories])

    found, attribution = contributions(score, ["dune", "heat", "alien", "up"])
    assert {c.item: round(c.value, 6) for c in found} == likeness == {c.item: round(c.drop, 6) for c in found}
    assert [c.item for c in found if c.is_cause] == ["dune", "alien"]
    assert attribution.base_value == pytest.approx(1.5) and attribution.additivity_error < 1e-9


def test_a_long_past_is_explained_by_its_latest_items():
    asked = []

    def score(histories):
        asked.extend(histories)
        return np.array([sum(0.9 ** (len(h) - 1 - i) * (item % 3) for i, item in enumerate(h)) for h in histories])

    found, attribution = contributions(score, list(range(500)), budget=60)
    assert found[-1].item == 499 and 10 < len(found) < 60
    assert all(h[:400] == tuple(range(400)) for h in asked), "what came before stands in every history"
    assert attribution.additivity_error < 1e-9 and attribution.n_calls <= 60


def test_nothing_in_the_past_explains_nothing():
    found, attribution = contributions(lambda histories: np.array([0.25] * len(histories)), [])
    assert found == [] and attribution.base_value == attribution.score == 0.25


def test_taking_the_named_cause_away_lowers_the_score_on_real_behaviour(public_data):
    ratings = pd.read_csv(next((public_data / "movielens").rglob("ratings.csv"))).sort_values("timestamp", kind="stable")
    top = ratings["movieId"].value_counts().index[:400]
    ratings = ratings[ratings["movieId"].isin(top)]
    place = {movie: i for i, movie in enumerate(top)}
    seen = np.zeros((ratings["userId"].max() + 1, len(top)))
    seen[ratings["userId"], ratings["movieId"].map(place)] = 1
    both = seen.T @ seen
    cosine = both / np.sqrt(np.outer(np.diag(both), np.diag(both)))
    np.fill_diagonal(cosine, 0)

    checked = 0
    for _, past in list(ratings.groupby("userId")["movieId"])[:40]:
        history = [place[movie] for movie in past][-12:]
        if len(history) < 3:
            continue
        scores = cosine[history].sum(axis=0)
        scores[history] = -1
        item = int(scores.argmax())
        found, _ = contributions(lambda hs, item=item: np.array([cosine[list(h), item].sum() for h in hs]), history)
        cause = max(found, key=lambda c: c.value)
        assert cause.is_cause and cosine[history, item].max() == pytest.approx(cause.drop)
        checked += 1
    assert checked > 20
