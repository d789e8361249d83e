"""The Sentiment page: every number from the store, filters from the address, hostile news as text, clicks to the stories behind."""

import datetime as dt
import zoneinfo
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from fmcore import clock, runtime
from fmcore.nouns import Filters
from fmcore.sentiment import index
from pages import sentiment, sentiment_charts, sentiment_facts, sentiment_stories
from tests import tiny_model
from tests.pages import toy_desk, toy_news

SHELL = str(Path(__file__).resolve().parents[2] / "pages" / "shell.py")


@pytest.fixture
def desk():
    yield toy_desk.start({})
    runtime.stop()


@pytest.fixture
def filled(desk):
    toy_news.fill(desk.store, end=clock.now() - dt.timedelta(minutes=1))
    return desk


def opened(**query) -> AppTest:
    at = AppTest.from_file(SHELL, default_timeout=60)
    for name, value in query.items():
        at.query_params[name] = value
    at.context = {"timezone": "Europe/Berlin"}
    return sound(at.switch_page("sentiment.py").run())


def sound(at: AppTest) -> AppTest:
    assert not at.exception
    assert not at.error
    return at


def words(at: AppTest) -> str:
    return "\n".join(m.value for m in at.markdown)


def figures(at: AppTest) -> dict:
    return {metric.label: metric.value for metric in at.metric}


def test_without_news_the_page_says_what_to_do(desk):
    assert "No news yet" in words(opened())


def test_news_without_a_model_waits_for_one(desk):
    rows = toy_news.rows(clock.now())
    toy_news.write(desk.store, rows.head(3))
    with desk.store.write() as tx:
        for table in ("articles", "trend_names", "trend_tickers", "trend_facts", "stories"):
            tx.execute(f"DELETE FROM {table}")
    assert "Articles wait for a model" in words(opened())


def test_the_headline_is_the_stores_own(filled):
    at = opened()
    end = sentiment.data.now()
    now = index.overall(filled.store, Filters(start=end - dt.timedelta(days=7), end=end))
    shown = figures(at)
    assert shown["Articles"] == f"{now.n_articles:,}"
    assert shown["Negative stories"].startswith(f"{now.n_negative:,} ")
    assert shown["Net sentiment, −1 to +1"] == sentiment.ui.signed(now.index)
    assert "Demo data" in words(at)
    assert "Europe/Berlin" in words(at).replace("\\", "")
    assert len(at.get("plotly_chart")) == 2
    assert set(at.dataframe[0].value["Ticker"]) == set(toy_news.TICKERS)


def test_filters_come_from_the_address_and_what_is_not_there_is_left_out(filled):
    at = opened(sent_topic="Fraud", sent_range="24 h", sent_ticker=["AAA", "no such ticker"], sent_bucket="nonsense")
    end = sentiment.data.now()
    of = Filters(topics=("Fraud",), tickers=("AAA",), start=end - dt.timedelta(days=1), end=end)
    assert figures(at)["Articles"] == f"{index.overall(filled.store, of).n_articles:,}"
    before = figures(at)["Articles"]
    sound(at.multiselect(key="sent_ticker").set_value(["AAA", "BBB"]).run())
    assert figures(at)["Articles"] != before


def test_alerts_about_what_is_filtered_on_are_marked_and_others_are_not():
    at = pd.date_range("2026-11-20", periods=3, freq="1h", tz="UTC")
    line = pd.DataFrame({"bucket": at})
    fired = pd.DataFrame(
        [(at[1], "high", "firing", "surge", "topic", "Fraud", "Fraud: x", "a"), (at[1], "low", "firing", "surge", "ticker", "AAA", "AAA: x", "b"),
         (at[0] - pd.Timedelta(days=1), "high", "resolved", "surge", "topic", "Fraud", "old", "c")],
        columns=["at", "severity", "state", "kind", "dimension", "key", "title", "id"],
    )  # fmt: skip

    def marked(**sides):
        return sentiment._marks(fired, sentiment.View(Filters(**sides), None, "7 d", "1h"), line)["id"].tolist()

    assert marked(topics=("Fraud",)) == ["a"]
    assert marked(tickers=("AAA",)) == ["b"]
    assert marked(tickers=("BBB",)) == []
    assert marked() == ["a"]
    assert sentiment._marks(fired.head(0), sentiment.View(Filters(topics=("Fraud",)), None, "7 d", "1h"), line).empty


def test_a_window_without_news_says_so_and_offers_a_wider_one(desk):
    toy_news.fill(desk.store, end=clock.now() - dt.timedelta(days=40))
    at = opened()
    assert "No article in the last 7 d" in words(at).replace("\\", "")
    next(b for b in at.button if b.label == "Show all time").click()
    sound(at.run())
    assert figures(at)["Articles"] == "723"


def test_a_bucket_that_is_too_fine_for_the_window_is_replaced_in_words(filled):
    at = opened(sent_range="90 d", sent_bucket="by 5min")
    assert "is too long for buckets of 5min" in words(at).replace("\\", "")


def test_hostile_news_is_text(filled):
    at = opened(sent_range="24 h")
    text = words(at)
    assert "onerror" in text
    for live in ("<img", ":red[x]", "](javascript", "$\\int"):
        assert live not in text.replace("\\<", "").replace("\\:", "").replace("\\]", "").replace("\\$", "")
    assert "no link" in text
    for chart in at.get("plotly_chart"):
        assert "<img" not in chart.proto.spec


def test_copies_are_counted_and_opened(filled):
    at = opened(sent_range="24 h", sent_order="Most told")
    assert "+3 copies, first here" in words(at)
    at = press_why(at)
    assert "Told 4 times" in words(at)
    assert "Lexicon (VADER" in words(at)
    assert len(at.error) == 1 and "could not be drawn" not in at.error[0].value, "no model is live, and it is said"


def press_why(at: AppTest) -> AppTest:
    at = next(b for b in at.button if b.label == "Why?").click().run()
    assert not at.exception
    return at


def test_why_a_story_got_its_net_score_is_the_shared_component(filled, tmp_path):
    topics = {"negative": ["fraud", "fined", "loss"], "neutral": ["rates", "story", "report"], "positive": ["earnings", "profit", "record"]}
    metrics = tiny_model.save(tmp_path / "m", topics=topics)
    made = filled.registry.adopt(
        tmp_path / "m", task="sentiment", recipe="linear", dataset="demo-sentiment", base="bag", metrics=metrics, run_id="r"
    )
    filled.registry.promote("sentiment", made.version, by="a test", reason="for the test")
    at = press_why(opened(sent_range="24 h", sent_order="Most told"))
    (held,) = at.session_state["why_held"].values()
    assert held.ticket.wait(60)
    at = sound(at.run())
    question, answer = held.question, held.ticket.answer
    assert (question.task, question.target) == ("sentiment", "net")
    assert question.text in set(filled.store.frame("SELECT title FROM documents")["title"]), "the text that was scored, and nothing else"
    assert answer.explanation.target == "net" and answer.explanation.score == pytest.approx(answer.explanation.base_value + sum(answer.explanation.values), abs=1e-3)
    assert sentiment.ui.esc(answer.sentence) in words(at)
    assert "which is not here any more" in words(at), "the articles were scored by a version that the registry does not have"
    assert not any(question.text in str(value) for value in dict(at.query_params).values())


def test_the_drawer_holds_the_stories_of_a_bucket(filled):
    at = opened(sent_range="24 h")
    end = sentiment.data.now()
    of = sentiment_stories.around(end - dt.timedelta(hours=6), 3600, Filters(tickers=("AAA",)))
    assert (of.start, of.end, of.tickers) == (end - dt.timedelta(hours=6), end - dt.timedelta(hours=5), ("AAA",))
    at.session_state["sent_drawer"] = {"title": "AAA <b>", "filters": Filters(tickers=("AAA",), start=end - dt.timedelta(days=1), end=end), "order": "negative"}
    at = sound(at.run())
    assert any("stories · " in m.value and "times in" in m.value for m in at.markdown)


def test_clicks_are_read_from_what_the_chart_says_and_checked():
    buckets = pd.Series(pd.date_range("2026-11-20", periods=4, freq="6h", tz="UTC"))

    def click(**point):
        return {"selection": {"points": [point]}}

    assert sentiment.clicked(click(x="2026-11-20 06:00"), buckets) == buckets[1]
    assert sentiment.clicked(click(x="2026-11-20T07:30:00"), buckets) == buckets[1]
    assert sentiment.clicked(click(x="2020-01-01"), buckets) is None
    assert sentiment.clicked(click(x="<script>"), buckets) is None
    assert sentiment.clicked({"selection": {"points": []}}, buckets) is None
    assert sentiment.clicked(None, buckets) is None
    cell = click(customdata=["Fraud", "2026-11-20T06:00:00+00:00"])
    assert sentiment.clicked_cell(cell, {"Fraud"}) == ("Fraud", buckets[1])
    assert sentiment.clicked_cell(cell, {"Rates"}) is None
    assert sentiment.clicked_cell(click(customdata=["Fraud", "never"]), {"Fraud"}) is None


def test_not_enough_news_is_a_gap_in_line_and_band():
    at = pd.date_range("2026-11-20", periods=6, freq="1h", tz="UTC")
    line = pd.DataFrame({"bucket": at, "n_stories": [9, 9, 1, 9, 9, 0], "n_articles": 9, "n_negative": 1, "index": 0.1, "low": 0.0, "high": 0.2})
    line["enough"] = line["n_stories"] >= 5
    fig = sentiment_charts.index_chart(line, bucket="1h", zone=dt.UTC)
    drawn = next(trace for trace in fig.data if trace.name == "index")
    assert [v == v for v in drawn.y] == [True, True, False, True, True, False]
    assert sum(getattr(trace, "fill", None) == "toself" for trace in fig.data) == 2
    ticks = [trace for trace in fig.data if trace.type == "scatter" and trace.marker.symbol == "line-ns"]
    assert len(ticks) == 1 and len(ticks[0].x) == 1, "a tick for thin news, none for no news"


def test_no_hour_is_missing_or_twice_when_the_clocks_change():
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    at = pd.Series(pd.date_range("2026-10-24 22:00", periods=5, freq="1h", tz="UTC"))
    assert len(set(sentiment_charts.positions(at))) == 5
    told = sentiment_charts.told(at, 3600, zone)
    assert len(set(told)) == 5
    assert told[2].endswith("02:00–02:00 CEST") and told[3].endswith("02:00–03:00 CET")


def test_what_is_taken_away_is_what_was_drawn(filled):
    end = sentiment.data.now()
    of = Filters(start=end - dt.timedelta(days=1), end=end)
    line = index.series(filled.store, of, "1h")
    table = sentiment_facts.index_table(line)
    assert table["bucket_utc"].iloc[0].endswith("Z")
    assert table["n_articles"].sum() == line["n_articles"].sum()
    stories = sentiment_facts.stories_table(index.stories(filled.store, of, limit=5))
    assert list(stories.columns[:4]) == ["story_id", "document_id", "published_at_utc", "source"]


def test_the_price_stands_beside_the_index_of_one_ticker_and_its_absence_is_said(filled):
    assert "No prices for AAA" in words(opened(sent_ticker="AAA")).replace("\\", "")
    now = clock.to_store(clock.now())
    rows = [("AAA", now - dt.timedelta(hours=h), 100.0 + h, "csv") for h in range(100)]
    with filled.store.write() as tx:
        tx.executemany("INSERT INTO prices VALUES (?, ?, ?, ?)", rows)
    assert "closing price" in words(opened(sent_ticker="AAA"))
    at = pd.date_range("2026-11-20", periods=3, freq="1h", tz="UTC")
    line = pd.DataFrame({"bucket": at, "n_stories": 9, "n_articles": 9, "n_negative": 1, "index": 0.1, "low": 0.0, "high": 0.2, "enough": True})
    fig = sentiment_charts.index_chart(line, bucket="1h", zone=dt.UTC, prices=pd.DataFrame({"priced_at": at, "close": [1.0, 2.0, 3.0]}))
    assert next(trace for trace in fig.data if trace.name == "price").yaxis == "y3"


def test_the_report_of_the_screen_is_the_same_twice_and_says_where_it_is_from(filled, monkeypatch):
    moment = clock.now()
    monkeypatch.setattr(clock, "now", lambda: moment)
    end = sentiment.data.now()
    view = sentiment.View(Filters(topics=("Fraud",), start=end - dt.timedelta(days=7), end=end), None, "7 d", "6h")
    at = sentiment.data.stamp(filled.store)

    def made():
        now = index.overall(filled.store, view.filters)
        screen = sentiment_facts.Screen(view, now, "newest", "ticker", zoneinfo.ZoneInfo("Europe/Berlin"), "one week")
        return sentiment_facts.html_report(filled, at, screen, index.series(filled.store, view.filters, "6h"))

    page = made()
    assert "one week (Europe/Berlin)" in page and "From (Europe/Berlin)" in page
    assert page == made()
    assert "Filters: Fraud" in page and "no model is live now; VADER beside them" in page and "Demo data" in page
    assert "<img" not in page and "javascript:" not in page.replace("(javascript:alert(1))", "")


def test_a_page_that_is_paused_stands_still_and_a_live_one_is_drawn_again(filled):
    at = opened(sent_range="24 h")
    before = figures(at)["Articles"]
    at.toggle(key="sent_live").set_value(False)
    sound(at.run())
    toy_news.write(filled.store, toy_news.rows(clock.now(), days=1, seed=9).assign(story=[f"d{90_000 + i}" for i in range(72)]), first=90_000)
    assert figures(opened(sent_range="24 h"))["Articles"] != before
