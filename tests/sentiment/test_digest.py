"""The morning brief: each sentence made of its numbers, the bad ticker first, silence below a least number of stories."""

import datetime as dt

import pandas as pd
import pytest

from fmcore.sentiment import digest
from fmcore.store.store import Store
from tests.pages import toy_news

NOW = dt.datetime(2026, 11, 20, 12, 30, tzinfo=dt.UTC)


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "home")
    yield made
    made.close()


@pytest.fixture
def filled(store):
    toy_news.fill(store, end=NOW)
    return store


def test_what_changed_most_comes_first_with_its_evidence(filled):
    brief = digest.brief(filled, now=NOW)
    assert brief.refusal == ""
    first = brief.lines[0]
    assert first.key in ("AAA", "Fraud")
    assert {line.key for line in brief.lines} >= {"AAA", "Fraud"}
    aaa = next(line for line in brief.lines if line.key == "AAA")
    assert aaa.kind in ("more negative news", "fell")
    assert aaa.surprise >= digest.LEAST_SURPRISE
    assert len(aaa.evidence) == 3
    rows = filled.rows("SELECT title, tickers, published_at FROM documents WHERE id = ?", aaa.evidence[0])
    assert rows[0]["tickers"] == ["AAA"]
    assert rows[0]["title"] == aaa.top_story


def test_the_numbers_of_a_line_are_the_stores_own(filled):
    line = next(line for line in digest.brief(filled, now=NOW).lines if line.key == "AAA")
    start = NOW - digest.WINDOW
    counted = filled.rows(
        """SELECT count(*) FILTER (WHERE leads) AS n, count(*) AS articles, count(*) FILTER (WHERE leads AND sentiment = 'negative') AS bad,
           sum(net) FILTER (WHERE leads) / 10000.0 AS net FROM articles WHERE list_contains(tickers, 'AAA') AND published_at >= ?""",
        (start + dt.timedelta(minutes=5)).replace(tzinfo=None),
    )[0]
    assert line.numbers["n_stories"] == counted["n"]
    assert line.numbers["n_articles"] == counted["articles"]
    assert line.numbers["n_negative"] == counted["bad"]
    assert line.numbers["index"] == pytest.approx(counted["net"] / counted["n"])
    shown = f"{line.numbers['expected']:.1f}" if line.kind == "more negative news" else f"{abs(line.numbers['before']):.2f}"
    assert shown in line.text


def test_a_watchlist_leaves_only_its_own(filled):
    assert {line.key for line in digest.brief(filled, now=NOW, watchlist=("AAA",)).lines} == {"AAA"}
    quiet = digest.brief(filled, now=NOW, watchlist=("nothing of this name",))
    assert quiet.lines == () and quiet.refusal == ""


def test_the_limit_holds_and_the_order_is_by_surprise(filled):
    lines = digest.brief(filled, now=NOW, limit=1).lines
    more = digest.brief(filled, now=NOW, limit=9).lines
    assert lines == more[:1]
    assert [line.surprise for line in more] == sorted((line.surprise for line in more), reverse=True)


def test_too_little_news_is_refused_in_words(store):
    assert "Too little news" in digest.brief(store, now=NOW).refusal
    toy_news.write(store, toy_news.rows(NOW).tail(digest.LEAST_ALL - 5))
    brief = digest.brief(store, now=NOW)
    assert brief.lines == ()
    assert str(digest.LEAST_ALL) in brief.refusal


def windows(key, counts, net=0.0):
    return pd.DataFrame(
        [(key, w, n, n, bad, net * n) for w, (n, bad) in enumerate(counts)],
        columns=["key", "window", "n_stories", "n_articles", "n_negative", "net"],
    )


def test_a_day_like_all_others_surprises_nobody_and_a_short_past_says_nothing():
    usual = windows("A", [(20, 5)] * 29)
    row = next(iter(digest.surprises(usual, usual.assign(key=""))))
    assert abs(row["more"]) < 1 and abs(row["moved"]) < 1
    short = windows("A", [(20, 20)] + [(20, 5)] * (digest.LEAST_DAYS - 1))
    assert list(digest.surprises(short, short.assign(key=""))) == []
    few = windows("A", [(digest.LEAST_STORIES - 1, 4)] + [(20, 5)] * 20)
    assert list(digest.surprises(few, few.assign(key=""))) == []


def test_twice_the_news_of_all_kinds_is_no_surprise_but_twice_the_share_is():
    past = [(20, 5)] * 28
    everything = windows("A", [(40, 10), *past])
    assert abs(next(iter(digest.surprises(everything, everything.assign(key=""))))["more"]) < 1
    other = windows("B", [(40, 10), *[(20, 5)] * 28])
    bad = pd.concat([windows("A", [(40, 30), *past]), other])
    total = bad.groupby("window", as_index=False)[["n_stories", "n_articles", "n_negative", "net"]].sum()
    by_key = {row["key"]: row["more"] for row in digest.surprises(bad, total)}
    assert by_key["A"] > 3 > abs(by_key["B"])


def test_a_watchlist_is_kept_and_the_last_one_holds(store):
    assert digest.watchlist(store) == ()
    digest.watch(store, ["AAA", " BBB ", "AAA", ""], by="ada")
    assert digest.watchlist(store) == ("AAA", "BBB")
    digest.watch(store, [], by="ada")
    assert digest.watchlist(store) == ()
    with pytest.raises(digest.BadWatchlist):
        digest.watch(store, [f"T{i}" for i in range(digest.MAX_WATCHED + 1)], by="ada")
