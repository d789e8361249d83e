"""Items become documents: clean, dated, known when they come again; what cannot be used is refused with a reason that is counted."""

import datetime as dt
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcore import text
from fmcore.data import dates, documents, links
from fmcore.data.documents import RawItem, take_in
from fmcore.store.store import Store

NOW = dt.datetime(2026, 11, 24, 9, tzinfo=dt.UTC)
AT = "Tue, 24 Nov 2026 08:00:00 GMT"


@pytest.fixture
def store(tmp_path):
    held = Store(tmp_path / "home")
    yield held
    held.close()


def rows(store, what="*"):
    return store.rows(f"SELECT {what} FROM documents ORDER BY published_at, title")


def items(n):
    return [RawItem(f"https://news.example/{i}", f"Story {i} of the day", "Body", AT) for i in range(n)]


def test_a_document_is_stored_with_all_that_is_known_of_it(store):
    item = RawItem(
        "HTTPS://www.News.example:443/a?utm_source=rss&id=7#top",
        "Calderbrook &amp; Co: profit falls",
        "<p>The <b>bank</b>'s profit fell.</p><script>steal()</script><p>Shares of Apple rose.</p>",
        AT,
        tickers=("$msft", "no such thing"),
    )
    came = take_in(store, [item], source="wire", now=NOW)
    assert (came.n_seen, came.n_new, came.n_known, came.n_refused) == (1, 1, 0, 0)
    assert came.newest_at == NOW - dt.timedelta(hours=1)
    (row,) = rows(store)
    assert row["url"] == "https://www.news.example/a?id=7"
    assert row["title"] == "Calderbrook & Co: profit falls"
    assert row["body"] == "The bank's profit fell.\nShares of Apple rose."
    assert row["tickers"] == ["MSFT", "CLBK", "AAPL"]
    assert (row["language"], row["source"], row["truncated"], row["synthetic"]) == ("en", "wire", False, False)
    assert row["published_at"] == dt.datetime(2026, 11, 24, 8) and row["seen_at"] == dt.datetime(2026, 11, 24, 9)


def test_taking_the_same_items_in_again_adds_nothing(store):
    assert take_in(store, items(5), source="wire", now=NOW).n_new == 5
    again = take_in(store, items(7), source="wire", now=NOW + dt.timedelta(hours=1))
    assert (again.n_new, again.n_known) == (2, 5)
    assert len(rows(store)) == 7


@pytest.mark.parametrize(
    "url",
    [
        "https://n.example/x?utm_source={n}",
        "https://n.example/x#{n}",
        "https://n.example/x?visit={n}",
        "http{s}://www.n.example/x/?fbclid={n}",
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_one_article_under_fifty_addresses_is_one_document(store, url, at_once):
    copies = [RawItem(url.format(n=n, s="s" if n % 2 else ""), "The same headline", "The same text.", AT) for n in range(50)]
    parts = [copies] if at_once else [[copy] for copy in copies]
    came = [take_in(store, part, source="wire", now=NOW) for part in parts]
    assert sum(c.n_new for c in came) == 1 and sum(c.n_known for c in came) == 49
    assert len(rows(store)) == 1


def test_other_sources_other_texts_and_other_paths_are_other_documents(store):
    take_in(
        store,
        [RawItem("https://n.example/x?id=1", "Filing", "One.", AT), RawItem("https://n.example/x?id=2", "Filing", "Two.", AT)],
        source="a",
        now=NOW,
    )
    take_in(store, [RawItem("https://n.example/x?id=1", "Filing", "One.", AT)], source="b", now=NOW)
    take_in(store, [RawItem("https://n.example/y", "Filing", "One.", AT)], source="a", now=NOW)
    assert len(rows(store)) == 4


def test_without_a_link_the_sources_key_or_the_words_and_the_date_tell_items_apart(store):
    same = RawItem("", "Up we go", published=AT)
    keyed = [RawItem("", "Up we go", published=AT, key=key) for key in ("1", "2", "1")]
    later = RawItem("", "Up we go", published="Tue, 24 Nov 2026 08:30:00 GMT")
    came = take_in(store, [same, same, *keyed, later], source="wire", now=NOW)
    assert (came.n_new, came.n_known) == (4, 2)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (RawItem(), documents.EMPTY),
        (RawItem(title=" \u200b\u202e ", body="<p> </p><script>x()</script>"), documents.EMPTY),
        (RawItem("javascript:alert(1)", "t"), links.NOT_WEB),
        (RawItem("java\tscript:alert(1)", "t"), links.NOT_WEB),
        (RawItem("data:text/html;base64,AAAA", "t"), links.NOT_WEB),
        (RawItem("file:///etc/passwd", "t"), links.NOT_WEB),
        (RawItem("https://bank.example@evil.example/", "t"), links.WITH_USER),
        (RawItem("https://[::1", "t"), links.NOT_READ),
        (RawItem("https://n.example/" + "x" * 3000, "t"), links.TOO_LONG),
        (RawItem("", "t", published="Fri, 01 Jan 2999 00:00:00 GMT"), dates.FUTURE),
        (RawItem("", "t", published="Thu, 01 Jan 1970 00:00:00 GMT"), dates.ANCIENT),
        (RawItem("", "t", published="2026-11-24T08:00:00"), dates.NO_ZONE),
        (RawItem("", "t", published=dt.datetime(2026, 11, 24, 8)), dates.NO_ZONE),
        (RawItem("", "t", published="NaN"), dates.UNREADABLE),
        (RawItem("", "t", published=math.nan), dates.UNREADABLE),
    ],
)
def test_what_cannot_be_used_is_refused_and_counted(store, item, reason):
    came = take_in(store, [item, *items(1), item], source="wire", now=NOW)
    assert came.refusals == {reason: 2} and came.refused == ((0, reason), (2, reason))
    assert (came.n_seen, came.n_new, came.n_refused) == (3, 1, 2)
    assert len(rows(store)) == 1


def test_an_item_without_a_date_counts_from_when_it_is_seen_and_is_counted(store):
    came = take_in(store, [RawItem("", "No date"), RawItem("", "Blank date", published="  ")], source="wire", now=NOW)
    assert (came.n_new, came.n_undated) == (2, 2)
    assert {row["published_at"] for row in rows(store)} == {NOW.replace(tzinfo=None)}


def test_a_stated_zone_places_dates_without_one(store):
    came = take_in(
        store,
        [RawItem("", "a", published="2026-11-24 08:00"), RawItem("", "b", published="2026-10-25 02:30")],
        source="wire",
        now=NOW,
        zone="Europe/Berlin",
    )
    assert came.refusals == {dates.NOT_A_TIME: 1}
    assert rows(store)[0]["published_at"] == dt.datetime(2026, 11, 24, 7)


def test_a_body_of_ten_megabytes_is_cut_and_says_so(store):
    came = take_in(store, [RawItem("", "Long", "word " * 2_000_000, AT), RawItem("", "T" * 3000, "", AT)], source="wire", now=NOW)
    assert came.n_truncated == 2
    long, title = rows(store)
    assert len(long["body"]) <= text.MAX_CHARS and len(title["title"]) <= documents.MAX_TITLE
    assert long["truncated"] and title["truncated"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("<p>One</p><p>Two &amp; <i>thr</i>ee</p>", "One\nTwo & three"),
        ("line<br/>break<br>again", "line\nbreak\nagain"),
        ("$5 < $6 and a<b and c>d &lt;3", "$5 < $6 and a<b and c>d <3"),
        ("&lt;p&gt;escaped twice &amp;amp; more&lt;/p&gt;", "escaped twice & more"),
        ("<style>p{}</style><noscript>no</noscript><template>t</template>seen<!-- not -->", "seen"),
        ("a\x00b\x1bc\u202ed\u200be", "a b cde"),
        ("cafe\u0301", "café"),
        ("half \ud83d pair", "half ? pair"),
        ("<div>" * 30_000 + "deep", "deep"),
        ("<<<<p>" * 5_000 + "x", None),
    ],
)
def test_markup_becomes_what_a_reader_sees(raw, expected):
    words, _ = documents.plain(raw, limit=20_000, lines=True)
    assert expected is None or words == expected


def test_a_text_without_a_title_gets_its_opening(store):
    short, long = (
        RawItem("", "", "Just a tweet about $AAPL", AT),
        RawItem("", "", "The first sentence of it is long enough. " + "More words follow. " * 40, AT),
    )
    take_in(store, [short, long], source="wire", now=NOW)
    assert [(row["title"], bool(row["body"])) for row in rows(store)] == [
        ("Just a tweet about $AAPL", False),
        ("The first sentence of it is long enough. " + "More words follow. " * 7 + "More words follow.", True),
    ]


@pytest.mark.parametrize(
    ("words", "language"),
    [
        ("Der Gewinn der Bank ist im dritten Quartal gesunken", "de"),
        ("The bank says its profit has fallen with the market", "en"),
        ("公司第三季度利润下降百分之十二由于需求疲软于需求", "zh"),
        ("$AAPL up 3%", "und"),
        ("RT @trader: https://t.co/abcdefghijklmnopqrstuv #stocks #wow", "und"),
    ],
)
def test_the_language_is_a_guess_and_short_texts_have_none(words, language):
    assert documents.language(words) == language


def test_what_goes_with_the_last_batch_is_stored_with_it_or_not_at_all(store, monkeypatch):
    monkeypatch.setattr(documents, "BATCH", 3)

    def fail(tx, came):
        assert came.n_new == 8
        raise KeyError("no")

    with pytest.raises(KeyError):
        take_in(store, items(8), source="wire", now=NOW, also=fail)
    assert len(rows(store)) == 6  # the batches before it stand, and are known the next time
    told = []
    came = take_in(store, items(8), source="wire", now=NOW, also=lambda tx, c: told.append(c))
    assert (came.n_new, came.n_known, told) == (2, 6, [came])


def test_late_and_shuffled_items_give_the_same_rows(tmp_path):
    given_items = [RawItem(f"https://n.example/{n}", f"Story {n}", "", dt.datetime(2026, 11, 1 + n, tzinfo=dt.UTC)) for n in range(9)]
    found = []
    for name, order in (("a", given_items), ("b", given_items[::-1])):
        held = Store(tmp_path / name)
        take_in(held, order, source="wire", now=NOW)
        found.append(rows(held, "id, published_at"))
        held.close()
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    held = Store(tmp_path_factory.mktemp("documents") / "home")
    yield held
    held.close()


anything = st.one_of(st.text(max_size=200), st.text(alphabet="<>&;/ apscriptjv:\u202e\ud800\x00\"'=#%@[]?.", max_size=80))


@settings(max_examples=150, deadline=None)
@given(st.builds(RawItem, url=anything, title=anything, body=anything, published=st.one_of(st.none(), anything, st.datetimes(), st.datetimes(timezones=st.timezones())), tickers=st.lists(anything, max_size=3).map(tuple), key=anything, outlet=anything))  # fmt: skip
def test_no_item_breaks_the_intake_and_each_is_accounted_for(shared, item):
    came = take_in(shared, [item], source="wire", now=NOW)
    assert came.n_new + came.n_known + came.n_refused == came.n_seen == 1
    assert sum(came.refusals.values()) == came.n_refused
    again = take_in(shared, [item], source="wire", now=NOW)
    assert again.n_new == 0
    for row in shared.rows("SELECT * FROM documents WHERE published_at > seen_at OR published_at < '1990-01-01' OR url LIKE 'javascript%'"):
        raise AssertionError(row)
