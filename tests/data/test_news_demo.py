"""The demo stream: the same rows whoever asks, planted incidents that are as stated, and nobody real in it."""

import datetime as dt
import itertools
import re
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcore.data import catalogue, news_demo
from fmcore.data.news_demo import COLUMNS, COMPANIES, TOPICS, decoys, labelled, stream, truth

ORIGIN = dt.datetime(2026, 3, 2, 13, 37, tzinfo=dt.UTC)  # a Monday
DAY = dt.timedelta(days=1)


def midnight(origin=ORIGIN):
    return origin.replace(hour=0, minute=0)


@pytest.fixture(scope="module")
def cycle():
    return stream(midnight(), midnight() + 60 * DAY, origin=ORIGIN)


def test_it_has_the_promised_companies_topics_sources_and_volume(cycle):
    assert len(COMPANIES) >= 12 and len({c.sector for c in COMPANIES}) >= 4 and len(TOPICS) >= 8
    assert len({c.ticker for c in COMPANIES}) == len(COMPANIES) and {"T", "IT"} <= {c.ticker for c in COMPANIES}
    assert (
        list(cycle.columns) == list(COLUMNS) and cycle["published_at"].dt.tz is not None and cycle["published_at"].is_monotonic_increasing
    )
    assert set(cycle["topic"]) == set(TOPICS) and set(cycle["sentiment"]) == {"negative", "neutral", "positive"}
    assert cycle["source"].nunique() >= 5 and cycle["url"].is_unique
    a_day = cycle[cycle["incident"] == ""].groupby(cycle["published_at"].dt.date).size()
    assert a_day.min() > 90 and a_day.max() < 450 and 150 < a_day.mean() < 400
    volume = cycle["tickers"].str[0].value_counts()
    assert set(volume.index) == {c.ticker for c in COMPANIES} and volume.iloc[0] > 4 * volume.iloc[-1]


@settings(max_examples=25, deadline=None)
@given(st.floats(-1, 64), st.floats(0, 1.5), st.integers(0, 3))
def test_any_window_holds_the_same_rows_as_a_longer_one(day, length, seed):
    start = midnight() + day * DAY
    window = stream(start, start + length * DAY, seed=seed, origin=ORIGIN)
    longer = stream(start - DAY, start + (length + 1) * DAY, seed=seed, origin=ORIGIN)
    inside = longer[(longer["published_at"] >= start) & (longer["published_at"] < start + length * DAY)].reset_index(drop=True)
    pd.testing.assert_frame_equal(window, inside, check_dtype=False)


def test_the_same_seed_writes_the_same_news_and_another_one_other_news():
    window = (midnight() + 20 * DAY, midnight() + 22 * DAY)
    first, again, other = (stream(*window, seed=seed, origin=ORIGIN) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert set(first["title"]) != set(other["title"])
    shifted = stream(window[0] + dt.timedelta(hours=2), window[1], seed=0, origin=ORIGIN.replace(hour=1))
    assert set(shifted["url"]) <= set(first["url"])  # only the day of the origin counts


def test_a_window_in_another_zone_is_the_same_window_and_a_naive_one_is_refused():
    start = midnight() + 3 * DAY
    there = start.astimezone(dt.timezone(dt.timedelta(hours=9)))
    pd.testing.assert_frame_equal(stream(start, start + DAY, origin=ORIGIN), stream(there, there + DAY, origin=ORIGIN))
    with pytest.raises(ValueError, match="time zone"):
        stream(start.replace(tzinfo=None), start, origin=ORIGIN)


def test_nothing_stands_before_the_origin_and_an_empty_window_has_the_columns():
    for start, end in ((midnight() - 9 * DAY, midnight()), (midnight() + DAY, midnight() + DAY), (midnight() + DAY, midnight())):
        empty = stream(start, end, origin=ORIGIN)
        assert len(empty) == 0 and list(empty.columns) == list(COLUMNS)


def test_the_truth_agrees_with_the_rows(cycle):
    incidents = truth(ORIGIN)
    assert len({i.shape for i in incidents}) >= 4 and {i.kind for i in incidents} == {"surge", "shift", "flood"}
    for incident in incidents:
        rows = cycle[cycle["incident"] == incident.name]
        firsts = rows.drop_duplicates("story")
        assert len(firsts) >= 20 and (rows["sentiment"] == "negative").all() and set(rows["topic"]) == {incident.topic}
        assert (firsts["published_at"] >= incident.starts_at).all() and (firsts["published_at"] < incident.ends_at).all()
        assert set(incident.tickers) == set(rows["tickers"].str[0])
        assert firsts["story"].iloc[0] == incident.top_story
        if incident.source:
            assert set(rows["source"]) == {incident.source} and rows["title"].nunique() == len(rows)
        else:
            assert rows["story"].value_counts().index[0] == incident.top_story and rows["source"].nunique() >= 4
        assert midnight() <= incident.starts_at < incident.ends_at < midnight() + 60 * DAY
        assert incident.starts_at.weekday() < 5


def test_incidents_do_not_overlap_and_leave_two_weeks_to_learn_from():
    for seed, day in itertools.product(range(20), range(7)):
        origin = ORIGIN + day * DAY
        planted = sorted([*truth(origin, seed=seed), *decoys(origin, seed=seed)], key=lambda i: i.starts_at)
        assert planted[0].starts_at >= midnight(origin) + 14 * DAY
        for before, after in zip(planted, planted[1:], strict=False):
            assert before.ends_at < after.starts_at, (seed, before.name, after.name)


@pytest.mark.parametrize("seed", range(3))
def test_a_surge_stands_out_by_what_its_shape_says(seed):
    news = stream(midnight(), midnight() + 60 * DAY, seed=seed, origin=ORIGIN).drop_duplicates("story")
    bad = news[news["sentiment"] == "negative"]
    quiet = bad[bad["incident"] == ""]
    for incident in truth(ORIGIN, seed=seed):
        share = 1 if incident.shape in ("shock", "sector") else len(incident.tickers)
        mine = (
            quiet[quiet["topic"] == incident.topic] if incident.shape == "shock" else quiet[quiet["tickers"].str[0].isin(incident.tickers)]
        )
        days = max(1.0, (incident.ends_at - incident.starts_at) / DAY)
        times = (bad["incident"] == incident.name).sum() / days / (len(mine) / 60 / share)
        low, high = {"shift": (1.5, 8), "surge": (2.5, 60), "flood": (10, 200)}[incident.kind]
        assert low < times < high, (incident.name, times)


def test_the_next_cycle_has_incidents_of_the_same_shapes_on_other_days():
    first, second = truth(ORIGIN), truth(ORIGIN, cycle=1)
    assert [i.shape for i in first] == [i.shape for i in second] and {i.name for i in first}.isdisjoint(i.name for i in second)
    assert all(midnight() + 60 * DAY <= i.starts_at < midnight() + 120 * DAY for i in second)
    surge = next(i for i in second if i.shape == "sudden")
    rows = stream(surge.starts_at, surge.ends_at, origin=ORIGIN)
    assert (rows["incident"] == surge.name).sum() > 20


def test_decoys_are_many_articles_of_one_story_and_much_news_of_the_usual_mix(cycle):
    echo, results = sorted(decoys(ORIGIN), key=lambda i: i.starts_at)
    copies = cycle[cycle["incident"] == echo.name]
    assert echo.kind == results.kind == "" and copies["story"].nunique() == 1 and len(copies) > 40
    busy = cycle[cycle["incident"] == results.name]
    assert busy["story"].nunique() == 30 and 0.2 < (busy["sentiment"] == "negative").mean() < 0.35


def test_news_follows_the_working_day_and_the_week(cycle):
    at = cycle["published_at"][cycle["incident"] == ""].dt
    assert (at.hour.between(7, 16)).mean() > 0.55 and (at.hour < 4).mean() < 0.06
    assert (at.day_of_week > 4).mean() < 0.22


def test_copies_and_feeds_leave_their_marks(cycle):
    for mark in ("&amp;|&pound;|&#x27;|&quot;", r"^RT @\w+: ", r"^UPDATE \d-", r"^\$[A-Z]+ ", r"#stocks", r"\$\d+\.\dT\b"):
        assert cycle["title"].str.contains(mark).any() or cycle["body"].str.contains(mark).any(), mark
    assert cycle["body"].str.contains("<p>").any() and cycle["url"].str.contains("utm_source").any()
    assert 0.3 < 1 - cycle["story"].nunique() / len(cycle) < 0.7
    assert (cycle.groupby("story")["sentiment"].nunique() == 1).all()
    assert all(urlsplit(url).hostname.endswith(".example") for url in cycle["url"].head(500))
    assert not cycle["title"].str.contains(r"[{}]").any() and not cycle["body"].str.contains(r"[{}]").any()


def test_it_is_varied_enough_to_read_like_news():
    rows = news_demo.news_phrases.phrases()
    titles = rows[rows["use"] == "title"]
    assert titles.groupby("topic")["text"].nunique().min() >= 25
    assert titles.groupby(["topic", "sentiment"]).size().min() >= 9 and not rows["text"].duplicated().any()


def test_nobody_real_is_in_it(public_data):
    stocks = pd.read_csv(public_data / "news_stream" / "StockTable.tsv", sep="\t", dtype=str)
    words = {w for name in stocks["Company"] for w in re.findall(r"[A-Z][a-z]{4,}", name)}
    common = {"Electric", "Company", "Corporation", "Group", "Limited", "Energy", "Financial", "Mobile", "Systems", "General", "Johnson"}
    common |= {
        "National",
        "China",
        "Holdings",
        "Bank",
        "Partners",
        "Stores",
        "Power",
        "Royal",
        "First",
        "American",
        "International",
        "Service",
        "Medical",
        "Technologies",
    }
    ours = " ".join([*(f"{c.name} {' '.join(c.aliases)}" for c in COMPANIES), *map(str, news_demo.news_phrases.slots().values())])
    assert not [w for w in words - common if re.search(rf"\b{w}\b", ours)]


def test_it_says_that_it_is_made_up():
    assert "made up" in news_demo.news_phrases.slots()["synthetic"]


# ---------------------------------------------------------------- labelled rows


@pytest.mark.parametrize("task", ["sentiment", "topic"])
def test_labelled_rows_are_the_same_each_time_and_share_no_wording_between_parts(task):
    rows = labelled(task)
    assert list(rows.columns) == ["split", "text", "label"] and rows["text"].is_unique and 1500 < len(rows) < 2500
    news_demo._labelled.cache_clear()
    pd.testing.assert_frame_equal(rows, labelled(task))
    wordings = news_demo.news_phrases.phrases()
    assert wordings.groupby("text")["split"].nunique().max() == 1
    assert all(set(part["label"]) == set(rows["label"]) for _, part in rows.groupby("split"))


def test_other_tasks_have_no_labels():
    with pytest.raises(ValueError, match="intent"):
        labelled("intent")


def test_a_bag_of_words_learns_something_and_does_not_solve_it():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    for task, chance in (("sentiment", 0.45), ("topic", 0.2)):
        rows = labelled(task)
        train, test = rows[rows["split"] == "train"], rows[rows["split"] == "test"]
        model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=500))
        score = model.fit(train["text"], train["label"]).score(test["text"], test["label"])
        assert chance < score < 0.95
        assert np.max(test["label"].value_counts(normalize=True)) < score


def test_the_demo_sets_stand_in_the_catalogue_as_synthetic():
    for name in ("demo_sentiment", "demo_topic"):
        assert catalogue.dataset(name).state == "built in" and catalogue.load(name).synthetic
