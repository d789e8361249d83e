"""Trends as a program asks for them: the index, the stories behind it, the movers; refusals in words."""

import datetime as dt

import pytest
from starlette.testclient import TestClient

from fmcore import api as rest
from fmcore import config, runtime
from fmcore.nouns import Filters
from fmcore.sentiment import index, scoring
from tests.toy_articles import START, documents, several

DAY = dt.timedelta(days=1)
FROM, TO = "2026-10-01T00:00:00Z", "2026-10-13T00:00:00Z"


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A desk with 400 scored articles of twelve days."""
    held = runtime.start(config.Settings(home=tmp_path_factory.mktemp("trends") / "home"), {})
    frame = several(3, 400, n_texts=150)
    documents(held.store, frame)
    scoring.land(held.store, frame)
    yield held
    runtime.stop()


@pytest.fixture
def client(desk):
    return TestClient(rest.api, base_url="http://127.0.0.1:8501", raise_server_exceptions=False)


def got(client, what, **params):
    answer = client.get(f"/sentiment/{what}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_index_has_a_row_a_bucket_and_nothing_where_there_is_not_enough(client, desk):
    said = got(client, "index", start=FROM, end=TO, bucket="1d", topic=["Fraud", "Oil"], ticker="A", source="wire")
    start = START.replace(tzinfo=dt.UTC)
    own = index.series(desk.store, Filters(("Fraud", "Oil"), ("A",), ("wire",), start, start + 12 * DAY), "1d")
    assert said["bucket"] == "1d" and said["least_stories"] == index.MIN_STORIES and len(said["points"]) == 12
    assert [point["n_articles"] for point in said["points"]] == own["n_articles"].tolist() and sum(own["n_articles"]) > 0
    assert [point["bucket"][:10] for point in said["points"]] == [f"2026-10-{day:02d}" for day in range(1, 13)]
    for point in said["points"]:
        assert (point["index"] is None) == (not point["enough"]) == (point["n_stories"] < index.MIN_STORIES)
    everything = got(client, "index", start=FROM, end=TO)["points"]
    assert sum(point["n_articles"] for point in everything) == 400
    assert all(-1 <= point["low"] <= point["index"] <= point["high"] <= 1 for point in everything if point["enough"])


def test_the_stories_come_in_the_order_asked_for_and_no_more_than_asked_for(client):
    orders = {"newest": ("published_at", True), "negative": ("net", False), "articles": ("n_articles", True)}
    for order, (column, falling) in orders.items():
        said = got(client, "stories", start=FROM, end=TO, order=order, limit=7)
        values = [story[column] for story in said["stories"]]
        assert said["order"] == order and len(values) == 7 and values == sorted(values, reverse=falling)
    stories = got(client, "stories", start=FROM, end=TO, ticker="B", topic="Rates", limit=500)["stories"]
    assert stories and all("B" in story["tickers"] and story["topic"] == "Rates" for story in stories)
    assert {"story_id", "url", "title", "source", "sentiment", "p_negative", "lexicon"} <= set(stories[0])
    assert got(client, "stories", topic="no such topic")["stories"] == []


@pytest.mark.parametrize("by", ["topic", "ticker", "source"])
def test_the_movers_are_those_of_the_page(client, desk, by):
    said = got(client, "movers", end=TO, days=5, by=by)
    own = index.movers(desk.store, Filters(end=START.replace(tzinfo=dt.UTC) + 12 * DAY), by=by, days=5)
    assert (said["by"], said["days"]) == (by, 5) and [row["key"] for row in said["movers"]] == own["key"].tolist()
    assert [row["n_stories"] for row in said["movers"]] == own["n_stories"].tolist()
    assert all(row["low"] <= row["change"] <= row["high"] for row in said["movers"] if row["enough"])


@pytest.mark.parametrize(
    ("what", "params"),
    [
        ("index", {"bucket": "1m"}), ("index", {"start": "2026-10-01T00:00:00"}), ("index", {"colour": "red"}),
        ("stories", {"limit": 501}), ("stories", {"order": "loudest"}), ("movers", {"by": "author"}), ("movers", {"days": 0}),
        ("movers", {"ticker": ["A"] * 101}),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(client, what, params):
    assert client.get(f"/sentiment/{what}", params=params).status_code == 422


def test_a_window_too_fine_to_draw_is_refused_with_a_way_out(client):
    answer = client.get("/sentiment/index", params={"start": "2020-01-01T00:00:00Z", "end": TO, "bucket": "5min"})
    assert 400 <= answer.status_code < 500 and "longer buckets" in answer.text
