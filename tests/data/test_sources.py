"""Sources: the list, what is due, how each is, and looks that store what they brought with where they stand."""

import datetime as dt
import time

import pytest

from fmcore import clock, config
from fmcore.data import looks, news_demo, sources
from fmcore.data.documents import RawItem
from fmcore.data.sources import NotOn, SourceError, Sources, UnknownSource, add_demo_if_empty
from fmcore.store import retention
from fmcore.store.store import Store
from tests.data.web import Site, answer


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Tests ask their own server as often as they like."""
    monkeypatch.setattr(looks, "HOST_GAP_S", 0.0)


@pytest.fixture
def store():
    held = Store(config.settings().home)
    yield held
    held.close()


@pytest.fixture
def site():
    held = Site()
    yield held
    held.close()


def feed(*titles, at="Tue, 24 Nov 2020 07:00:00 GMT"):
    items = "".join(f"<item><title>{t}</title><link>https://n.example/{t}</link><pubDate>{at}</pubDate></item>" for t in titles)
    return f"<rss version='2.0'><channel><title>F</title>{items}</channel></rss>".encode()


def rss(store, site, name="wire", path="/feed", **given):
    """A feed source at the test's own server, whose address the list would refuse only by its port when it is asked."""
    return Sources(store).add(name, "rss", {"url": site.url + path, **given}, "test")


def around(store, **how):
    return looks.look_around(store, allow_private=True, **how)


def make_due(store, name):
    """As if the time of the next look had come."""
    with store.write() as tx:
        tx.execute("UPDATE source_checks SET next_at = ? WHERE source = ?", [clock.to_store(clock.now()), name])


def n_documents(store):
    return store.rows("SELECT count(*) AS n FROM documents")[0]["n"]


# ---------------------------------------------------------------- the list


def test_a_source_is_added_paused_resumed_and_removed_and_who_did_it_is_kept(store):
    held = Sources(store)
    added = held.add("wire", "rss", {"url": "https://n.example/feed"}, " CC BY \n 4.0 ", by="ann")
    assert (added.state, added.licence, added.settings["every_min"], added.zone) == ("on", "CC BY 4.0", 10, None)
    assert held.pause("wire", "bob").state == "paused" and held.get("wire").added_at == added.added_at
    assert held.resume("wire", "bob").state == "on" and held.all() == [held.get("wire")]
    assert held.remove("wire", "cy").state == "removed" and held.all() == []
    assert [(row["who"], row["what"]) for row in store.rows("SELECT who, what FROM audit ORDER BY noted_at")] == [
        ("ann", "source added"), ("bob", "source paused"), ("bob", "source resumed"), ("cy", "source removed"),
    ]  # fmt: skip
    again = held.add("wire", "push")
    assert again.kind == "push" and again.added_at > added.added_at


@pytest.mark.parametrize(
    ("name", "kind", "settings", "words"),
    [
        ("two words", "push", {}, "cannot be a source's name"),
        ("../x", "push", {}, "cannot be a source's name"),
        ("", "push", {}, "cannot be a source's name"),
        ("x", "carrier pigeon", {}, "no kind of source"),
        ("x", "rss", {}, "url: Field required"),
        ("x", "rss", {"url": "javascript:alert(1)"}, "link is not http"),
        ("x", "rss", {"url": "https://n.example/", "every_min": 0}, "every_min"),
        ("x", "push", {"zone": "Mars/Base"}, "not a time zone"),
        ("x", "push", {"what": 1}, "what: Extra inputs"),
        ("x", "replay", {"speed": -1}, "speed"),
        ("x", "replay", {"speed": float("nan")}, "speed"),
        ("there", "push", {}, "There is a source there already"),
    ],
)
def test_what_cannot_be_a_source_is_refused_in_words(store, name, kind, settings, words):
    Sources(store).add("there", "push")
    with pytest.raises(SourceError) as refused:
        Sources(store).add(name, kind, settings)
    assert words in refused.value.message and refused.value.hint


def test_an_unknown_source_is_said_to_be_unknown(store):
    for ask in (lambda s: s.get("x"), lambda s: s.health("x"), lambda s: s.pause("x", "me"), lambda s: s.remove("x", "me")):
        with pytest.raises(UnknownSource):
            ask(Sources(store))


def test_only_a_desk_that_never_had_a_source_gets_the_demo_stream(store):
    assert add_demo_if_empty(store).kind == "demo" and add_demo_if_empty(store) is None
    Sources(store).remove("demo", "me")
    assert add_demo_if_empty(store) is None


# ---------------------------------------------------------------- looks


def test_a_feed_is_read_then_asked_only_whether_it_changed(store, site):
    site.paths["/feed"] = lambda h: answer(h, b"", code=304) if h.headers.get("If-None-Match") == '"1"' else answer(h, feed("a", "b"), ETag='"1"', Last_Modified="Tue, 24 Nov 2020 07:00:00 GMT")  # fmt: skip
    rss(store, site)
    assert around(store)["wire"].n_new == 2
    assert around(store) == {}  # not due
    make_due(store, "wire")
    assert around(store)["wire"].n_seen == 0
    assert site.asked[1][2]["If-Modified-Since"] == "Tue, 24 Nov 2020 07:00:00 GMT" and n_documents(store) == 2
    health = Sources(store).health("wire")
    assert (health.state, health.n_looks, health.n_errors, health.n_new, health.error) == ("well", 2, 0, 2, "")
    assert health.last_item_at == dt.datetime(2020, 11, 24, 7, tzinfo=dt.UTC)
    assert health.per_day == pytest.approx(2 / 7) and health.share_copies is None and health.lag_s is None


def test_what_is_refused_is_on_the_record_with_its_reasons(store, site):
    site.paths["/feed"] = lambda h: answer(h, feed("a").replace(b"https://n.example/a", b"javascript:x"))
    rss(store, site)
    assert around(store)["wire"].n_refused == 1
    assert Sources(store).health("wire").refusals == {"link is not http or https": 1}


def test_items_beyond_what_a_feed_may_hold_are_counted(store, site, monkeypatch):
    monkeypatch.setattr(looks.feeds.parse, "__kwdefaults__", {"url": "", "max_items": 3})
    site.paths["/feed"] = lambda h: answer(h, feed(*"abcde"))
    rss(store, site)
    came = around(store)["wire"]
    assert (came.n_seen, came.n_new, came.n_refused) == (5, 3, 2)
    assert Sources(store).health("wire").refusals == {"beyond the first 1,000 of a feed": 2}


def test_a_failing_source_backs_off_and_stops_no_other(store, site):
    site.paths["/ok"] = lambda h: answer(h, feed("fine"))
    rss(store, site, "bad", "/gone")
    Sources(store).add("good", "demo", {"history_days": 1})
    waits = []
    for _ in range(4):
        before = clock.now()
        around(store, only="bad")
        waits.append((Sources(store).health("bad").next_at - before).total_seconds() / 60)
    assert [round(wait, -1) for wait in waits] == [20, 40, 80, 160]
    assert around(store)["good"].n_new > 50
    health = Sources(store).health("bad")
    assert health.state == "failing" and "answered 404" in health.error and health.n_errors == 4


def test_retry_after_is_honoured_and_gone_pauses(store, site):
    site.paths["/busy"] = lambda h: answer(h, b"", code=429, Retry_After="5400")
    site.paths["/gone"] = lambda h: answer(h, b"", code=410)
    rss(store, site, "busy", "/busy")
    rss(store, site, "gone", "/gone")
    around(store, only="busy")
    around(store, only="gone")
    wait = (Sources(store).health("busy").next_at - clock.now()).total_seconds()
    assert 5300 < wait <= 5400
    assert Sources(store).get("gone").state == "paused" and Sources(store).health("gone").state == "paused"
    assert "gone for good (410)" in store.rows("SELECT what FROM audit WHERE who = 'the desk'")[0]["what"]
    assert Sources(store).due(clock.now()) == []


def test_one_host_is_asked_once_in_a_while(store, site, monkeypatch):
    site.paths["/feed"] = lambda h: answer(h, feed("a"))
    for name in ("one", "two", "three"):
        rss(store, site, name)
    monkeypatch.setattr(looks, "HOST_GAP_S", 0.4)
    times = []
    monkeypatch.setattr(looks.time, "sleep", lambda s, sleep=time.sleep: (times.append(s), sleep(s)))
    assert set(around(store)) == {"one", "two", "three"}
    assert len(times) == 2 and all(0 < s <= 0.4 for s in times)
    for name in ("one", "two", "three"):
        make_due(store, name)
    Sources(store).pause("one", "me")
    monkeypatch.setattr(looks, "HOST_GAP_S", 60.0)
    assert around(store, budget_s=5.0) == {}  # it would have to wait longer than there is time: next minute


def test_the_demo_stream_comes_with_its_history_and_goes_on(store):
    source = Sources(store).add("demo", "demo", {"history_days": 5})
    first = around(store)["demo"]
    origin = source.added_at - dt.timedelta(days=5)
    expected = news_demo.stream(origin, source.added_at, origin=origin)
    assert abs(first.n_new - len(expected)) < 50 and first.n_refused == 0
    rows = store.rows("SELECT count(*) AS n, count(DISTINCT id) AS n_ids, bool_and(synthetic) AS synthetic FROM documents")[0]
    assert rows["n"] == rows["n_ids"] == first.n_new and rows["synthetic"]
    make_due(store, "demo")
    again = around(store)["demo"]
    assert again.n_known == 0
    health = Sources(store).health("demo")
    assert health.state == "well" and set(health.outlets) == set(expected["source"]) and 100 < health.per_day < 500


def test_a_replay_keeps_its_place_in_the_store(store):
    folder = config.settings().home / "incoming"
    folder.mkdir()
    lines = [f"2020-01-0{1 + n // 24}T{n % 24:02}:00:00Z,Story {n}" for n in range(48)]
    (folder / "old.csv").write_text("published_at,title\n" + "\n".join(lines) + "\n")
    held = Sources(store)
    held.add("old", "replay", {"dataset": "", "path": "incoming/old.csv", "speed": 0})
    assert around(store)["old"].n_new == 48
    assert held.health("old").state == "done" and held.memory(held.get("old"))["row"] == 48
    assert around(store) == {} and n_documents(store) == 48
    held.remove("old", "me")
    held.add("old", "replay", {"dataset": "", "path": "incoming/old.csv", "speed": 0})
    came = around(store)["old"]
    assert (came.n_new, came.n_known) == (0, 48)


def test_a_source_removed_while_it_is_read_leaves_nothing_half(store, site):
    def removed_meanwhile(handler):
        Sources(store).remove("wire", "somebody")
        answer(handler, feed("a", "b"))

    site.paths["/feed"] = removed_meanwhile
    rss(store, site)
    assert around(store) == {} and n_documents(store) == 0
    assert store.rows("SELECT count(*) AS n FROM source_checks")[0]["n"] == 0


def test_documents_stay_when_their_source_goes(store, site):
    site.paths["/feed"] = lambda h: answer(h, feed("a", "b"))
    rss(store, site)
    around(store)
    Sources(store).remove("wire", "me")
    assert n_documents(store) == 2


def test_pushed_documents_count_under_their_source_and_are_known_again(store):
    items = [RawItem(title=f"Pushed {n}", key=str(n)) for n in range(3)]
    assert looks.receive(store, "script", items).n_new == 3
    assert looks.receive(store, "script", items).n_known == 3
    source = Sources(store).get("script")
    assert (source.kind, Sources(store).health("script").n_seen) == ("push", 6)
    Sources(store).pause("script", "me")
    with pytest.raises(NotOn, match="paused"):
        looks.receive(store, "script", items)
    Sources(store).add("feed", "rss", {"url": "https://n.example/"})
    with pytest.raises(NotOn, match="of kind rss"):
        looks.receive(store, "feed", items)
    with pytest.raises(SourceError):
        looks.receive(store, "not a name", items)


def test_a_source_asked_for_by_name_must_be_one_that_is_looked_at(store):
    Sources(store).add("script", "push")
    with pytest.raises(NotOn):
        around(store, only="script")
    with pytest.raises(UnknownSource):
        around(store, only="nobody")


def test_the_share_of_copies_is_of_scored_articles(store):
    looks.receive(store, "script", [RawItem(title=f"Pushed {n}", key=str(n), published="Tue, 24 Nov 2020 07:00:00 GMT") for n in range(4)])
    with store.write() as tx:
        for n, row in enumerate(tx.execute("SELECT id, published_at FROM documents")):
            tx.execute("INSERT INTO articles VALUES (?, ?, 'script', [], 't', 1, 's', ?, 'neutral', 0, 0, 1, 0, 0, 'v', 'v', ?, ''::BLOB)", [row[0], row[1], n == 0, row[1]])  # fmt: skip
    assert Sources(store).health("script").share_copies == pytest.approx(0.75)


def test_a_look_that_is_overdue_is_late(store, site):
    site.paths["/feed"] = lambda h: answer(h, feed("a"))
    rss(store, site)
    around(store)
    assert Sources(store).health("wire", now=clock.now() + dt.timedelta(minutes=39)).state == "well"
    assert Sources(store).health("wire", now=clock.now() + dt.timedelta(minutes=41)).state == "late"
    assert sources.LATE_AFTER == 3


def test_the_clock_set_back_changes_no_order(store, monkeypatch):
    held = Sources(store)
    held.add("wire", "push")
    monkeypatch.setattr(clock, "now", lambda: dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    assert held.pause("wire", "me").state == "paused"
    assert held.resume("wire", "me").state == "on"
    assert held.get("wire").state == "on"


def test_old_looks_go_but_where_each_source_stands_is_kept(store):
    folder = config.settings().home / "incoming"
    folder.mkdir()
    (folder / "old.csv").write_text("published_at,title\n2020-01-01T00:00:00Z,One\n")
    held = Sources(store)
    held.add("old", "replay", {"dataset": "", "path": "incoming/old.csv", "speed": 0})
    around(store)
    for _ in range(3):
        looks.receive(store, "script", [RawItem(title="Pushed", key="1")])
    with store.write() as tx:
        for table, column in (("sources", "changed_at"), ("source_checks", "checked_at")):
            tx.execute(f"UPDATE {table} SET {column} = {column} - INTERVAL 400 DAY")
    assert retention.prune(store, {"source_checks": 90}) == {"source_checks": 2}
    assert held.memory(held.get("old"))["row"] == 1 and held.health("old").state == "done" and held.due(clock.now()) == []
