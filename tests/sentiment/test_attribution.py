"""Why an alert fired: every split sums to the excess, the story that leads comes first, the sentence is made from the numbers."""

import datetime as dt
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmcore.sentiment import attribution
from fmcore.store.store import Store
from tests.sentiment.alert_news import HOUR, MINUTE, T0, at, put

SPLITS = ("by_story", "by_source", "by_ticker", "by_topic", "by_term")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    opened = Store(tmp_path_factory.mktemp("desk"))
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def empty(store):
    with store.write() as tx:
        tx.execute("DELETE FROM articles")
        tx.execute("DELETE FROM documents")


def why(store, **changes):
    values = dict(dimension="topic", key="Fraud", kind="surge", end=at(10), window_s=3600, expected=2.1) | changes
    return attribution.why(store, **values)


def sums(found):
    return [math.fsum(row["part"] for row in found[name]) for name in SPLITS]


STORY = st.fixed_dictionaries({
    "topic": st.sampled_from(["Fraud", "Fraud", "Macro", ""]), "source": st.sampled_from(["wire-a", "wire-b", "blog", "x"]),
    "sentiment": st.sampled_from(["negative", "negative", "neutral", "positive"]), "net": st.integers(-10_000, 10_000),
    "tickers": st.lists(st.sampled_from(["CLBK", "QLN", "NRVF", "ZZZZ"]), max_size=4).map(tuple),
    "title": st.lists(st.sampled_from(["fraud", "probe", "bank", "inquiry", "the", "of", "shares", "fall", "a", "regulator", "12", "§", "''"]), max_size=7).map(" ".join),
})  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    stories=st.lists(st.tuples(STORY, st.floats(0, 0.999)), max_size=40), before=st.lists(st.tuples(STORY, st.floats(0, 0.999)), max_size=20),
    expected=st.floats(0, 500), about=st.sampled_from([("topic", "Fraud"), ("ticker", "CLBK"), ("sector", "Banks"), ("all", "")]),
    kind=st.sampled_from(["surge", "flood"]),
)
def test_every_split_of_a_count_sums_to_the_excess(store, stories, before, expected, about, kind):
    with store.write() as tx:
        tx.execute("DELETE FROM articles")
        tx.execute("DELETE FROM documents")
    put(store, [(at(9 + part), said) for said, part in stories] + [(at(-100 + 90 * part), said) for said, part in before])
    found = why(store, dimension=about[0], key=about[1], expected=expected, kind=kind, value=99.0)
    n = sum(s["sentiment"] == "negative" and (
        about[0] == "all" or (about[0] == "topic" and s["topic"] == "Fraud") or (about[0] == "ticker" and "CLBK" in s["tickers"])
        or (about[0] == "sector" and bool({"CLBK", "NRVF"} & set(s["tickers"])))) for s, _ in stories)
    assert found["value"] == n and found["excess"] == n - expected
    assert sums(found) == pytest.approx([n - expected] * 5, abs=1e-9)
    assert all(row["part"] == row["part"] for name in SPLITS for row in found[name]), "no NaN"


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    stories=st.lists(st.tuples(STORY, st.floats(0, 0.999)), max_size=40), expected=st.floats(-1, 1), value=st.none() | st.floats(-1, 0.99),
    kind=st.sampled_from(["shift", "flood"]),
)
def test_every_split_of_an_index_sums_to_its_fall(store, stories, expected, value, kind):
    if kind == "flood" and value is None:
        value = -0.5
    with store.write() as tx:
        tx.execute("DELETE FROM articles")
        tx.execute("DELETE FROM documents")
    put(store, [(at(9 + part), said) for said, part in stories])
    found = why(store, kind=kind, expected=expected, value=value)
    nets = [s["net"] / 10_000 for s, _ in stories if s["topic"] == "Fraud"]
    mean = sum(nets) / len(nets) if nets else expected
    assert found["unit"] == "index"
    assert found["value"] == pytest.approx(mean if value is None else value, abs=1e-12)
    assert sums(found) == pytest.approx([found["excess"]] * 5, abs=1e-9)


def test_a_split_of_more_parts_than_are_shown_keeps_its_sum(store):
    put(store, [(at(9) + n * MINUTE, {"source": f"s{n}", "tickers": (f"T{n}",), "title": f"word{n} other{n}"}) for n in range(50)])
    found = why(store)
    assert all(len(found[name]) <= attribution.N_SHOWN + 1 for name in SPLITS)
    assert sums(found) == pytest.approx([50 - 2.1] * 5, abs=1e-9)


def test_what_is_usual_of_a_source_is_not_its_part_of_the_excess(store):
    usual = [(at(9) - day * 24 * HOUR, {"source": "wire-a"}) for day in range(1, 10)]
    usual += [(at(9) - day * 24 * HOUR, {"source": "wire-b"}) for day in range(1, 10)]
    put(store, usual + [(at(9) + n * MINUTE, {"source": "wire-a" if n < 2 else "blog"}) for n in range(10)])
    parts = {row["name"]: (row["part"], row["n"]) for row in why(store, expected=4.0)["by_source"]}
    assert parts == {"blog": (8.0, 8.0), "wire-a": (0.0, 2.0), attribution.OTHERS: (-2.0, 0.0)}


def test_a_story_about_several_companies_is_split_evenly(store):
    put(store, [(at(9), {"tickers": ("CLBK", "QLN")}), (at(9) + MINUTE, {"tickers": ("CLBK",)}), (at(9) + 2 * MINUTE, {})])
    found = why(store, expected=0.0)
    assert {row["name"]: (row["part"], row["label"]) for row in found["by_ticker"]} == {
        "CLBK": (1.5, "Calderbrook Bank (CLBK)"), "QLN": (0.5, "Quillon Systems (QLN)"), attribution.NO_COMPANY: (1.0, attribution.NO_COMPANY)}


def background(store):
    """Four days of ordinary news, which makes ordinary words ordinary."""
    words = ["quarterly results for the group", "shares fall after results", "the board of the group meets", "new product for the market"]
    put(store, [(T0 - n * HOUR, {"topic": "Earnings" if n % 3 else "Fraud", "title": words[n % 4], "sentiment": "neutral" if n % 4 else "negative",
                                 "tickers": ("QLN",)}) for n in range(1, 96)])


def test_the_story_that_is_copied_and_in_the_excess_speaks_first_and_links_to_its_document(store):
    background(store)
    rows = [(at(9) + MINUTE, {"title": "shares fall after results", "tickers": ("QLN",), "source": "wire-b", "story": "old"})]
    rows += [(at(9) + 4 * MINUTE, {"title": "Halden hides losses, regulator says", "tickers": ("HLD",), "story": "lead"})]
    rows += [(at(9) + (5 + n) * MINUTE, {"title": "Halden hides losses, regulator says", "tickers": ("HLD",), "story": "lead", "source": f"copy-{n}"})
             for n in range(6)]
    rows += [(at(9) + (20 + n) * MINUTE, {"title": f"Halden probe widens: part {n}", "tickers": ("HLD",), "source": "blog"}) for n in range(8)]
    ids = put(store, rows)
    found = why(store)
    first = found["top"][0]
    assert (first["document_id"], first["story_id"], first["n_articles"], first["url"]) == (ids[1], "lead", 7, f"https://a.example/{int(ids[1][1:])}")
    assert found["value"] == 10, "stories, not articles"
    assert found["sentence"] == (
        "10 negative stories about Fraud between 09:00 and 10:00 UTC on 01 Jun, 2.1 expected; 9 of them about HLD, first by wire-a at "
        "01 Jun 09:04: ‘Halden hides losses, regulator says’.")
    assert found["by_term"][0]["name"] in ("halden", "probe", "widens", "part"), "the words of the excess"
    assert not {"the", "for"} & {row["name"] for row in found["by_term"]}
    assert found["by_topic"][0]["name"] == "Fraud"


def test_a_story_that_began_before_and_is_told_again_may_speak_first_but_is_no_part_of_the_excess(store):
    background(store)
    rows = [(at(8) + 40 * MINUTE, {"title": "Halden hides losses, regulator says", "tickers": ("HLD",), "story": "lead"})]
    rows += [(at(8) + (50 + 3 * n) * MINUTE, {"title": "Halden hides losses, regulator says", "tickers": ("HLD",), "story": "lead", "source": f"c{n}"})
             for n in range(12)]
    rows += [(at(9) + (20 + n) * MINUTE, {"title": f"Halden losses: part {n}", "tickers": ("HLD",)}) for n in range(8)]
    put(store, rows)
    found = why(store)
    assert (found["value"], found["top"][0]["story_id"], found["top"][0]["part"]) == (8, "lead", 0.0)
    assert "first by wire-a at 01 Jun 08:40" in found["sentence"]
    assert sums(found) == pytest.approx([8 - 2.1] * 5, abs=1e-9)


def test_a_flood_names_its_source_and_a_shift_its_level(store):
    put(store, [(at(9) + n * MINUTE, {"source": "tickertalk", "tickers": ("CLBK",), "net": -9000}) for n in range(12)])
    flood = why(store, dimension="ticker", key="CLBK", kind="flood", value=12.0, expected=0.5)
    assert flood["unit"] == "negative stories" and "12 of them by one source, tickertalk" in flood["sentence"]
    shift = why(store, dimension="ticker", key="CLBK", kind="shift", value=-0.9, expected=-0.1)
    assert shift["sentence"].startswith("The index of the news about Calderbrook Bank (CLBK) stood at -0.90 between 09:00 and 10:00 UTC")
    assert [row["name"] for row in shift["by_topic"]] == ["Fraud", attribution.WEIGHTING]


def test_hostile_titles_stay_text_and_are_cut(store):
    put(store, [(at(9), {"title": "<script>alert(1)</script>" + "x" * 500}), (at(9) + MINUTE, {"title": ""})])
    found = why(store, expected=0.0)
    assert all(len(row["title"]) <= attribution.MAX_TITLE for row in found["top"])
    assert len(found["sentence"]) < 500


def test_no_story_at_all_is_one_part(store):
    found = why(store, expected=3.0)
    assert found["excess"] == -3.0 and [[row["name"] for row in found[name]] for name in SPLITS] == [[attribution.OTHERS]] * 5
    assert found["top"] == [] and found["sentence"].startswith("0 negative stories about Fraud")


def test_the_same_news_give_the_same_answer(store):
    put(store, [(at(9) + n * MINUTE, {"source": "ab"[n % 2], "tickers": ("CLBK", "QLN")[: n % 3]}) for n in range(20)])
    assert why(store) == why(store)
    assert dt.datetime.fromisoformat(why(store)["window"][0]) == at(9)
