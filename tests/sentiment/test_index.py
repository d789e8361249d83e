"""The trend as the pages ask for it: buckets, shrinkage, the band, what counts as enough, movers, stories and what is behind them."""

import dataclasses
import datetime as dt

import numpy as np
import pandas as pd
import pytest

from fmcore import clock
from fmcore.nouns import Filters
from fmcore.sentiment import index, rollup, scoring, shrink
from fmcore.store.store import Store
from tests.toy_articles import START, documents, scored, several

ZERO = START.replace(tzinfo=clock.UTC)
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
BAD, GOOD = (0.9, 0.05, 0.05), (0.05, 0.05, 0.9)


@pytest.fixture
def store(tmp_path):
    held = Store(tmp_path)
    yield held
    held.close()


def distinct(n, start=0):
    """n texts that share no word."""
    return [" ".join(f"x{i}y{j}" for j in range(8)) for i in range(start, start + n)]


def land(store, n, *, at, start, p, topic="Fraud", tickers=(), source="wire"):
    """n different stories at one moment."""
    ids = [f"n{start + i:05d}" for i in range(n)]
    frame = scored(distinct(n, start), at=[at] * n, ids=ids, p=p, topic=topic, tickers=tickers, source=source)
    documents(store, frame)
    scoring.land(store, frame)


# --- series


def test_an_empty_store_answers_every_question(store):
    assert index.series(store, Filters(), "1d").empty
    assert list(index.series(store, Filters(), "1d").columns[:1]) == ["bucket"]
    week = Filters(start=ZERO, end=ZERO + 7 * DAY)
    assert index.series(store, week, "1d")["n_articles"].tolist() == [0] * 7
    assert index.overall(store, week).index is None
    assert index.heat(store, week, "1d").empty and index.movers(store, week).empty and index.stories(store, week).empty
    assert index.copies(store, "none").empty and index.article(store, "none") is None
    assert index.options(store) == index.Options((), (), ())
    assert index.backlog(store).n_unscored == 0 and index.freshness(store).newest_at is None
    assert index.prices(store, "ABC", ZERO, ZERO + DAY).empty


def test_stories_count_for_the_index_and_articles_for_the_heat(store):
    copies = ["the very same words about one event in one place"] * 9
    at = [START + dt.timedelta(minutes=i) for i in range(9)]
    scoring.land(store, scored(copies, at=at, p=[BAD] + [GOOD] * 8))
    [row] = index.series(store, Filters(start=ZERO, end=ZERO + DAY), "1d").to_dict("records")
    assert (row["n_stories"], row["n_articles"], row["n_negative"]) == (1, 9, 1)
    assert row["mean"] == pytest.approx(-0.85)
    assert not row["enough"] and np.isnan(row["index"]) and np.isnan(row["low"])


def test_every_bucket_of_the_window_has_a_row_in_utc(store):
    land(store, 6, at=START + 26 * HOUR, start=0, p=BAD)
    frame = index.series(store, Filters(start=ZERO, end=ZERO + 2 * DAY), "6h")
    assert str(frame["bucket"].dt.tz) == "UTC" and frame["bucket"].is_monotonic_increasing
    assert frame["n_stories"].tolist() == [0, 0, 0, 0, 6, 0, 0, 0] and frame["enough"].tolist() == [n == 6 for n in frame["n_stories"]]
    for bucket, step in index.BUCKETS.items():
        got = index.series(store, Filters(start=ZERO, end=ZERO + DAY), bucket)
        assert len(got) == 288 // step and got["n_stories"].sum() == 0


@pytest.mark.parametrize("day", [dt.datetime(2026, 3, 29), dt.datetime(2026, 10, 25), dt.datetime(2026, 3, 8), dt.datetime(2026, 11, 1)])
def test_on_the_days_that_clocks_change_there_are_24_hours(store, day):  # T1
    start = day.replace(tzinfo=clock.UTC)
    frame = index.series(store, Filters(start=start, end=start + DAY), "1h")
    assert len(frame) == 24 and frame["bucket"].diff().dropna().eq(pd.Timedelta(hours=1)).all()


def test_a_window_with_too_many_buckets_is_refused_and_the_finest_that_fits_is_named(store):
    year = Filters(start=ZERO - 365 * DAY, end=ZERO)
    with pytest.raises(index.TooFine) as refused:
        index.series(store, year, "5min")
    assert refused.value.hint
    assert index.buckets_for(store, year) == ["6h", "1d"]


def test_late_articles_change_the_bucket_they_belong_to(store):
    land(store, 8, at=START + HOUR, start=0, p=BAD)
    window = Filters(start=ZERO, end=ZERO + DAY)
    before = index.series(store, window, "1h")
    rollup.fold(store, at=1)
    land(store, 8, at=START + HOUR, start=50, p=GOOD)
    after = index.series(store, window, "1h")
    assert after["n_stories"].tolist()[1] == 16 and after["mean"][1] == pytest.approx(0)
    pd.testing.assert_frame_equal(before.drop(index=1), after.drop(index=1))


# --- shrinkage and band


def values(net):
    """Rows of rollup.SUMS out of lists of net scores."""
    out = np.zeros((len(net), len(rollup.SUMS)), np.int64)
    for row, scores in enumerate(net):
        whole = np.rint(np.asarray(scores) * 10_000).astype(np.int64)
        code = np.where(whole < -2_000, 0, np.where(whole > 2_000, 2, 1))
        out[row, 0] = len(whole)
        for c in range(3):
            part = whole[code == c]
            out[row, [1 + c, 4 + c, 7 + c]] = len(part), part.sum(), (part**2).sum()
    return out


def test_the_prior_is_that_of_buehlmann_and_straub():
    """Days whose true means differ by a known amount: strength = within / between variance."""
    rng = np.random.default_rng(0)
    days = [np.clip(rng.normal(0.1 + rng.normal(0, 0.2), 0.4, 400), -1, 1) for _ in range(300)]
    found = shrink.estimate(values(days), "key")
    assert found.mean == pytest.approx(0.1, abs=0.04)
    within = np.mean([d.var(ddof=1) for d in days])
    between = np.var([d.mean() for d in days], ddof=1) - within / 400
    assert found.strength == pytest.approx(within / between, rel=0.1)


def test_days_that_differ_by_chance_only_shrink_most_and_too_little_history_gives_none():
    rng = np.random.default_rng(1)
    assert shrink.estimate(values([rng.normal(0, 0.3, 30) for _ in range(40)]), "key").strength > 40
    assert shrink.estimate(values([[0.1] * 10] * 4), "key") is None  # four days
    assert shrink.estimate(values([[0.1]] * 30), "key") is None  # thirty stories
    assert shrink.estimate(np.zeros((0, 10), np.int64), "key") is None


def test_shrinkage_helps_on_held_back_days():
    """Nearer to the true mean of a bucket than the plain mean is, when n is small."""
    rng = np.random.default_rng(2)
    true = rng.normal(0.05, 0.15, 200)
    prior = shrink.estimate(values([np.clip(rng.normal(m, 0.45, 80), -1, 1) for m in true[:100]]), "key")
    few = [np.clip(rng.normal(m, 0.45, 6), -1, 1) for m in true[100:]]
    shrunk, plain = shrink.index(values(few), prior), np.array([f.mean() for f in few])
    assert np.mean((shrunk - true[100:]) ** 2) < 0.7 * np.mean((plain - true[100:]) ** 2)


@pytest.mark.parametrize("n", [5, 8, 15, 40, 150, 400])
def test_the_band_is_that_of_stories_really_resampled(n):
    rng = np.random.default_rng(n)
    gap, width = [], []
    for _ in range(20):
        scores = rng.choice([-1, 0, 1], n, p=[0.3, 0.5, 0.2]) * rng.uniform(0.4, 0.95, n) + rng.normal(0, 0.05, n) * 0.5
        prior = shrink.Prior(0.05, 6.0, "key")
        low, high = shrink.band(values([scores]), prior)
        drawn = rng.choice(scores, (4_000, n)).sum(axis=1)
        expected = np.quantile((drawn + 6 * 0.05) / (n + 6), [0.025, 0.975])
        gap += [abs(low[0] - expected[0]), abs(high[0] - expected[1])]
        width.append(expected[1] - expected[0])
    assert np.mean(gap) < 0.035 * np.mean(width) + 0.002


def test_the_band_holds_the_index_stays_in_range_and_is_the_same_each_time():
    rng = np.random.default_rng(0)
    rows = values([np.clip(rng.normal(rng.uniform(-1, 1), 0.3, rng.integers(0, 60)), -1, 1) for _ in range(300)] + [[1.0] * 7, [-1.0] * 5])
    prior = shrink.Prior(0.0, 3.0, "key")
    low, high = shrink.band(rows, prior)
    point, enough = shrink.index(rows, prior), rows[:, 0] >= shrink.MIN_STORIES
    assert np.isnan(low[~enough]).all() and (low[enough] <= point[enough] + 1e-9).all() and (point[enough] <= high[enough] + 1e-9).all()
    assert (np.abs([low[enough], high[enough]]) <= 1).all()
    assert np.array_equal(low, shrink.band(rows, prior)[0], equal_nan=True)


def test_an_index_leans_on_its_own_history_or_on_all_news(store):
    for day in range(20):
        land(store, 12, at=START + day * DAY, start=100 * day, p=GOOD, topic="Rates")
    land(store, 6, at=START + 19 * DAY, start=5_000, p=BAD, topic="New")
    end = ZERO + 20 * DAY
    assert index.prior(store, Filters(topics=("Rates",), end=end)).of == "key"
    assert index.prior(store, Filters(topics=("New",), end=end)).of == "everything"
    new = index.overall(store, Filters(topics=("New",), start=ZERO + 19 * DAY, end=end))
    assert -0.85 < new.index < 0.8 and new.low <= new.index <= new.high


# --- overall, heat, movers


@pytest.mark.parametrize("days", [3, 40.3])
def test_a_long_window_holds_its_own_history_and_a_short_one_reads_it(store, days):
    for i in range(4):
        scoring.land(store, several(20 + i, 150, first=150 * i, days=60, n_texts=400))
    end = ZERO + dt.timedelta(days=61, hours=5, minutes=35)
    for filters in (Filters(start=end - days * DAY, end=end), Filters(topics=("Oil", "Fraud"), tickers=("A", "B"), start=end - days * DAY, end=end)):
        prior = index.prior(store, filters)
        assert prior.of == "key" and index.overall(store, filters).prior == prior
        at = rollup.scope(store, filters)
        cells = rollup.sums(store, at, step=288)
        points = index.series(store, filters, "1d")
        enough = cells.values[:, 1:4].sum(axis=1) >= index.MIN_STORIES
        assert points["index"].dropna().tolist() == pytest.approx(shrink.index(cells.values, prior)[enough].tolist(), abs=1e-12)
        found = index.heat(store, filters, "1d", by="topic")
        for key, rows in found[found["enough"]].groupby("key"):
            own = index.series(store, dataclasses.replace(filters, topics=(key,)), "1d").set_index("bucket")["index"]
            assert own[rows["bucket"]].tolist() == pytest.approx(rows["index"].tolist(), abs=1e-12)


def test_overall_says_against_what(store):
    for day in range(30):
        land(store, 6, at=START + day * DAY, start=100 * day, p=BAD if day >= 23 else GOOD)
    found = index.overall(store, Filters(start=ZERO + 23 * DAY, end=ZERO + 30 * DAY))
    assert (found.n_stories, found.n_before, found.n_30d) == (42, 42, 138)
    assert found.enough and found.index < 0 and found.change < -0.5 and found.change_30d < -0.5
    assert index.overall(store, Filters()).change is None  # against what?
    thin = index.overall(store, Filters(start=ZERO + 40 * DAY, end=ZERO + 41 * DAY))
    assert not thin.enough and thin.index is None and thin.change is None


@pytest.mark.parametrize("by", ["topic", "ticker", "source"])
def test_heat_adds_up_to_the_series(store, by):
    frame = several(3, 300)
    scoring.land(store, frame)
    heat = index.heat(store, Filters(), "1d", by=by)
    assert list(heat.columns[:2]) == ["key", "bucket"] and str(heat["bucket"].dt.tz) == "UTC"
    expected = frame.explode("tickers").dropna(subset=["tickers"])["tickers"] if by == "ticker" else frame[by]
    assert heat.groupby("key")["n_articles"].sum().to_dict() == expected.value_counts().to_dict()
    assert heat[["key", "bucket"]].equals(heat[["key", "bucket"]].sort_values(["key", "bucket"]))


def test_heat_by_ticker_under_a_ticker_filter_shows_that_ticker_only(store):
    land(store, 6, at=START, start=0, p=BAD, tickers=("A", "B"))
    assert set(index.heat(store, Filters(tickers=("A",)), "1d", by="ticker")["key"]) == {"A"}


def test_movers_name_what_changed_first(store):
    for day in range(28):
        land(store, 6, at=START + day * DAY, start=200 * day, p=GOOD, topic="Calm", tickers=("A",))
        land(store, 6, at=START + day * DAY, start=200 * day + 100, p=BAD if day >= 21 else GOOD, topic="Fallen", tickers=("B",))
    land(store, 2, at=START + 27 * DAY, start=9_000, p=BAD, topic="Thin")
    for by, first, second in (("topic", "Fallen", "Calm"), ("ticker", "B", "A")):
        found = index.movers(store, Filters(end=ZERO + 28 * DAY), by=by, days=7)
        assert found["key"].tolist()[:2] == [first, second]
        top = found.iloc[0]
        assert top["enough"] and top["change"] < -0.8 and top["low"] <= top["change"] <= top["high"] < 0 and top["n_before"] == 42
        assert len(top["spark"]) == 30 and top["spark"][-1] == pytest.approx(-0.85) and top["spark"][0] is None
    thin = index.movers(store, Filters(end=ZERO + 28 * DAY), by="topic", days=7).set_index("key").loc["Thin"]
    assert not thin["enough"] and np.isnan(thin["change"])


# --- stories and what is behind them


def test_stories_in_three_orders_with_their_copies(store):
    texts = [*distinct(5), *[distinct(1, 90)[0]] * 4]
    p = [(0.1 * i, 0.9 - 0.1 * i, 0.1) for i in range(5)] + [GOOD] * 4
    frame = scored(texts, at=[START + i * HOUR for i in range(9)], p=p, tickers=[("A",)] * 5 + [("B", "A")] * 4, source=["wire"] * 6 + ["blog"] * 3)
    documents(store, frame)
    scoring.land(store, frame)
    newest = index.stories(store, Filters())
    assert newest["document_id"].tolist() == ["d00005", "d00004", "d00003", "d00002", "d00001", "d00000"]
    assert index.stories(store, Filters(), order="negative", limit=2)["document_id"].tolist() == ["d00004", "d00003"]
    top = index.stories(store, Filters(), order="articles", limit=1).iloc[0]
    assert (top["story_id"], top["n_articles"], top["tickers"], top["title"]) == ("d00005", 4, ["A", "B"], texts[5])
    assert top["net"] == pytest.approx(0.85) and top["p_positive"] == pytest.approx(0.9) and top["published_at"].tzinfo is not None
    assert index.stories(store, Filters(tickers=("B",)))["document_id"].tolist() == ["d00005"]
    assert index.stories(store, Filters(sources=("blog",))).empty  # a story stands where its lead does
    with pytest.raises(KeyError):
        index.stories(store, Filters(), order="loudest")
    for hint in (None, top["published_at"].to_pydatetime()):
        behind = index.copies(store, "d00005", published_at=hint)
        assert behind["document_id"].tolist() == ["d00005", "d00006", "d00007", "d00008"] and behind["leads"].tolist() == [True] + [False] * 3
        assert behind["title"].tolist() == texts[5:]
    one = index.article(store, "d00007")
    assert (one["story_id"], one["n_articles"], one["title"], one["leads"]) == ("d00005", 4, texts[7], False)
    assert one["published_at"] == ZERO + 7 * HOUR and one["net"] == pytest.approx(0.85) and one["sentiment_version"] == "v1"
    assert index.options(store) == index.Options(("Fraud",), ("A", "B"), ("blog", "wire"))
    assert index.freshness(store).newest_at == ZERO + 8 * HOUR


def test_the_last_price_of_a_moment_holds(store):
    with store.write() as tx:
        for hour, close in ((0, 10.0), (1, 11.0), (1, 12.0)):
            tx.execute("INSERT INTO prices VALUES ('ABC', ?, ?, 'csv')", [START + hour * HOUR, close])
    frame = index.prices(store, "ABC", ZERO, ZERO + DAY)
    assert frame["close"].tolist() == [10.0, 12.0] and frame["priced_at"][0] == pd.Timestamp(ZERO)
