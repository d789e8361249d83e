"""Events: stored once, refused with reasons, and what they make of a past and of a data set."""

import datetime as dt
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmcore import clock
from fmcore.data.interactions import Interactions
from fmcore.recommend import events, folding, stock
from fmcore.recommend.events import Event
from fmcore.recommend.stock import ItemChange
from fmcore.store import backup, retention
from fmcore.store.store import Store

SHOP = "toy"
KNOWN = {f"i{n}" for n in range(20)} | {'say "hi"', "it's", "🦊", "x" * 300}
NOW = dt.datetime(2026, 3, 1, 12, tzinfo=clock.UTC)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An empty database; tests work on copies of it."""
    at = tmp_path_factory.mktemp("empty") / "home"
    Store(at).close()
    return at


@pytest.fixture
def store(home, tmp_path):
    shutil.copytree(home, tmp_path / "home")
    held = Store(tmp_path / "home")
    yield held
    held.close()


def note(store, *said, now=NOW):
    return events.note(store, SHOP, said, known=KNOWN, now=now)


def at(minutes):
    return NOW - dt.timedelta(days=1) + dt.timedelta(minutes=minutes)


def past(store, who="ada", base=()):
    return [met.item for met in events.together(base, events.past(store, SHOP, who))]


def off(store, who="ada"):
    return events.kept_off(events.past(store, SHOP, who))


def count(store):
    return store.rows("SELECT count(*) AS n, count(DISTINCT id) AS ids, count(DISTINCT n) AS numbers FROM interactions")[0]


# ---------------------------------------------------------------- stored once


def test_the_same_id_is_stored_once_and_its_first_event_holds(store):
    first = Event("ada", "i1", "click", id="a", happened_at=at(0))
    assert note(store, first, first, Event("ada", "i2", "like", id="a")) == events.Noted(1, 2)
    assert note(store, first) == events.Noted(0, 1)
    assert store.rows("SELECT item, kind FROM interactions") == [{"item": "i1", "kind": "click"}]


def test_without_an_id_the_same_act_at_the_same_moment_is_one_and_at_another_is_two(store):
    again = Event("ada", "i1", "view", happened_at=at(0))
    assert note(store, again, again).stored == 1 and note(store, again).stored == 0
    assert note(store, Event("ada", "i1", "view", happened_at=at(1)), Event("bob", "i1", "view", happened_at=at(0))).stored == 2
    assert events.note(store, "other", [again], known=KNOWN, now=NOW).stored == 1  # another data set's


def test_an_act_without_a_moment_happened_now(store):
    note(store, Event("ada", "i1", "click"))
    assert store.rows("SELECT happened_at FROM interactions")[0]["happened_at"] == NOW.replace(tzinfo=None)


def test_concurrent_writers_of_the_same_events_store_each_once_and_lose_none(store):
    batches = [[Event(f"u{w}", f"i{n % 20}", "click", id=f"{w}-{n}") for n in range(40)] + [Event("all", "i1", "view", id=f"same-{n}") for n in range(40)] for w in range(4)]

    def write(batch):
        return [note(store, *batch[start : start + 16]) for start in range(0, len(batch), 16)]

    with ThreadPoolExecutor(8) as pool:
        found = [noted for written in pool.map(write, batches * 2) for noted in written]
    assert count(store) == {"n": 200, "ids": 200, "numbers": 200}
    assert sum(noted.stored for noted in found) == 200 and sum(noted.known for noted in found) == 8 * 80 - 200


def test_arrival_is_numbered_in_order_without_a_gap(store):
    for n in range(3):
        note(store, Event("ada", f"i{n}", "click", happened_at=at(-n)), Event("ada", f"i{n}", "rate", 4.5, at(-n)))
    rows = store.rows("SELECT n, item, value FROM interactions ORDER BY n")
    assert sorted(row["n"] for row in rows) == [1, 2, 3, 4, 5, 6] and {row["item"] for row in rows[:2]} == {"i0"}
    assert sorted(row["value"] or 0 for row in rows) == [0, 0, 0, 4.5, 4.5, 4.5] and events.latest(store, SHOP) == 6


def test_ten_thousand_events_come_in_as_one_batch(store):
    said = [Event(f"user {n % 500}", f"i{n % 20}", "click", happened_at=at(n / 60)) for n in range(10_000)]
    before = store.n_commits
    assert note(store, *said) == events.Noted(10_000, 0) and store.n_commits == before + 1
    assert note(store, *said) == events.Noted(0, 10_000)


# ---------------------------------------------------------------- refused


FAULTS = [
    (Event("ada", "nonesuch", "click"), "no item ‘nonesuch’"),
    (Event("ada", "i1", "buy"), "no kind ‘buy’"),
    (Event("ada", "i1", "rate"), "needs a value"),
    (Event("ada", "i1", "rate", float("nan")), "not a finite number"),
    (Event("ada", "i1", "click", float("inf")), "not a finite number"),
    (Event("ada", "i1", "rate", "5"), "not a finite number"),
    (Event("ada", "i1", "rate", 10**400), "not a finite number"),
    (Event("ada", "i1", "rate", True), "not a finite number"),
    (Event("ada", "i1", "shown"), "needs a value"),
    (Event("ada", "i1", "shown", 1.5), "probability"),
    (Event("ada", "i1", "shown", 0.0), "probability"),
    (Event("", "i1", "click"), "person has no id"),
    (Event(" ", "i1", "click"), "person has no id"),
    (Event(None, "i1", "click"), "person has no id"),
    (Event("u" * 301, "i1", "click"), "more than 300"),
    (Event("ada", "i" * 301, "click"), "more than 300"),
    (Event("ada", "i1", "click", id="e" * 301), "more than 300"),
    (Event("ada", "i1", "click", id=""), "event has no id"),
    (Event("a\0da", "i1", "click"), "NUL"),
    (Event("ada", "i1", "click", happened_at=NOW + dt.timedelta(minutes=6)), "future"),
    (Event("ada", "i1", "click", happened_at=dt.datetime(9999, 12, 31, tzinfo=clock.UTC)), "future"),
    (Event("ada", "i1", "click", happened_at=dt.datetime(2026, 1, 1)), "time zone"),
    (Event("ada", "i1", "click", happened_at=dt.datetime(1969, 1, 1, tzinfo=clock.UTC)), "1970"),
]


def test_what_makes_no_sense_is_refused_with_a_reason_and_the_rest_is_stored(store):
    batch = [event for event, _ in FAULTS]
    noted = note(store, Event("bob", "i1", "click"), *batch, Event("bob", "i2", "click"))
    assert noted.stored == 2 == count(store)["n"] and [place for place, _ in noted.refused] == list(range(1, len(FAULTS) + 1))
    for (_, reason), (_, said) in zip(FAULTS, noted.refused, strict=True):
        assert reason in said and said.endswith(".")


def test_a_clock_a_little_ahead_is_no_fault(store):
    assert note(store, Event("ada", "i1", "click", happened_at=NOW + dt.timedelta(minutes=4))).stored == 1


ODD = ['say "hi"', "it's", "🦊", "x" * 300, "'; DROP TABLE interactions; --", "‮مرحبا", "None", "%_", "\ud800"]


def test_ids_are_any_text(store):
    for odd in ODD:
        item = odd if odd in KNOWN else "i1"
        assert note(store, Event(odd, item, "click", id=odd)).stored == 1
        kept = odd.encode("utf-8", "replace").decode()
        assert past(store, odd) == past(store, kept) == [item]
        assert events.people(store, SHOP, limit=1) == [kept] == events.people(store, SHOP, prefix=odd, limit=1)
        assert note(store, Event(odd, item, "click", id=odd)).known == 1
    assert events.people(store, SHOP, prefix="none") == ["None"] and events.people(store, SHOP, prefix="%") == ["%_"]


# ---------------------------------------------------------------- a past


def test_positive_events_join_the_past_in_the_order_of_their_moments_however_late_they_come(store):
    note(store, Event("ada", "i3", "like", happened_at=at(3)), Event("ada", "i1", "view", happened_at=at(1)))
    note(store, Event("ada", "i2", "rate", 3.0, at(2)), Event("ada", "i4", "rate", 2.9, at(4)), Event("ada", "i5", "skip", happened_at=at(5)))
    note(store, Event("ada", "i0", "click", happened_at=at(0)), Event("ada", "i1", "click", happened_at=at(9)), Event("bob", "i9", "click"))
    assert past(store) == ["i0", "i1", "i2", "i3"]
    assert past(store, base=["i3", "i7"]) == ["i3", "i7", "i0", "i1", "i2"]  # what the data set has comes first, each item once
    assert off(store) == {"i4", "i5"}


def test_what_was_shown_is_no_past(store):
    note(store, Event("ada", "i1", "shown", 0.5), Event("ada", "i1", "shown", 0.5, at(0)))
    assert past(store) == [] and off(store) == set() and list(events.shows(store, SHOP, limit=9)["item"]) == ["i1", "i1"]


def test_forgetting_takes_an_item_out_and_keeping_puts_it_back_where_it_was(store):
    base = ["b1", "i2"]
    note(store, Event("ada", "i3", "click", happened_at=at(0)), Event("ada", "i4", "click", happened_at=at(1)))
    note(store, Event("ada", "i2", "forget", happened_at=at(2)), Event("ada", "i3", "forget", happened_at=at(2)))
    assert past(store, base=base) == ["b1", "i4"] and off(store) == {"i2", "i3"}
    note(store, Event("ada", "i2", "keep", happened_at=at(3)), Event("ada", "i3", "keep", happened_at=at(3)))
    assert past(store, base=base) == ["b1", "i2", "i3", "i4"] and off(store) == set()


def test_what_was_forgotten_before_the_training_can_be_put_back(store):
    note(store, Event("ada", "i1", "click", happened_at=at(0)), Event("ada", "i2", "forget", happened_at=at(1)), Event("ada", "i2", "keep", happened_at=at(2)))
    assert past(store, base=[]) == ["i1", "i2"]  # the version's past is without it, and nothing stored says when it was met


def test_meeting_something_again_after_forgetting_it_is_a_new_meeting(store):
    note(store, Event("ada", "i1", "forget", happened_at=at(0)), Event("ada", "i2", "click", happened_at=at(1)), Event("ada", "i1", "like", happened_at=at(2)))
    assert past(store, base=["i1", "i3"]) == ["i3", "i2", "i1"] and off(store) == set()


def test_a_skip_holds_until_somebody_thinks_otherwise(store):
    note(store, Event("ada", "i1", "skip", happened_at=at(0)), Event("ada", "i2", "skip", happened_at=at(0)))
    assert off(store) == {"i1", "i2"} and off(store, "bob") == set()
    note(store, Event("ada", "i1", "like", happened_at=at(1)), Event("ada", "i2", "keep", happened_at=at(1)))
    assert off(store) == set() and past(store) == ["i1"]


KIND = st.sampled_from(["view", "click", "like", "skip", "forget", "keep"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 5), KIND), max_size=12), st.permutations(range(12)))
def test_a_past_does_not_depend_on_the_order_of_arrival(tmp_path_factory, said, order):
    rows = [{"item": f"i{item}", "kind": kind, "value": None, "source": "page", "happened_at": at(minute).replace(tzinfo=None), "n": minute + 1} for minute, (item, kind) in enumerate(said)]
    straight = events.heard(rows)
    shuffled = events.heard(sorted([rows[place] for place in order if place < len(rows)], key=lambda row: row["happened_at"]))
    assert events.together(["i0", "i1"], straight) == events.together(["i0", "i1"], shuffled)
    whole = [met.item for met in events.together(["i0", "i1"], straight)]
    assert len(whole) == len(set(whole)) and not {i for i, word in straight.items() if word.out} & set(whole)


# ---------------------------------------------------------------- into a data set


def log(rows=(("u0", "a", 10), ("u0", "b", 20), ("u1", "b", 5))):
    users, items = sorted({u for u, _, _ in rows}), ["a", "b", "c"]
    frame = pd.DataFrame([(users.index(u), items.index(i), t, np.nan) for u, i, t in rows], columns=["user", "item", "at", "rating"])
    frame = frame.astype({"user": np.int32, "item": np.int32, "at": np.int64, "rating": np.float32})
    return Interactions(SHOP, tuple(users), tuple(items), ("A", "B", "C"), ("", "", ""), frame, True, "none")


def names(data):
    return {user: [data.items[item] for item in past] for user, past in zip(data.users, data.histories(), strict=True)}


def say(store, *said):
    assert not events.note(store, SHOP, said, known={"a", "b", "c", "new"}, now=NOW).refused


def moment(seconds):
    return dt.datetime.fromtimestamp(seconds, clock.UTC)


def test_nothing_stored_leaves_the_data_set_as_it_is(store):
    data = log()
    assert events.merged(store, data) is data


def test_stored_events_are_merged_by_their_moment_with_new_people_last(store):
    say(store, Event("u0", "c", "click", happened_at=moment(15)), Event("zoë", "a", "like", happened_at=moment(7)), Event("u1", "a", "rate", 4.0, moment(99)))
    say(store, Event("u1", "c", "skip"), Event("u1", "c", "rate", 1.0), Event("shy", "a", "skip"), Event("u1", "a", "shown", 0.5))
    found = events.merged(store, log())
    assert names(found) == {"u0": ["a", "c", "b"], "u1": ["b", "a"], "zoë": ["a"]}
    assert found.rows["rating"].dropna().tolist() == [4.0] and found.items == ("a", "b", "c") and found.split_hash != log().split_hash
    assert found.rows.dtypes.equals(log().rows.dtypes) and "stored here" in found.notes[-1]


def test_what_the_data_set_has_counts_when_it_is_earlier(store):
    say(store, Event("u0", "a", "click", happened_at=moment(50)), Event("u1", "b", "click", happened_at=moment(1)))
    found = events.merged(store, log())
    assert names(found) == names(log()) and found.rows["at"].tolist() == [10, 20, 1]


def test_what_was_taken_out_is_not_learnt_from_and_what_was_put_back_is(store):
    say(store, Event("u0", "a", "forget", happened_at=moment(30)), Event("u0", "b", "forget", happened_at=moment(30)), Event("u0", "b", "keep", happened_at=moment(31)))
    say(store, Event("u1", "b", "forget", happened_at=moment(30)), Event("u1", "b", "click", happened_at=moment(40)), Event("u1", "c", "click", happened_at=moment(41)))
    assert names(events.merged(store, log())) == {"u0": ["b"], "u1": ["b", "c"]}


def test_removed_items_are_gone_new_ones_are_there_and_texts_are_as_they_are_now(store):
    stock.change(store, SHOP, [ItemChange("b", state="removed"), ItemChange("new", "New", "text"), ItemChange("a", "A better title"), ItemChange("gone", "x")], known={"a", "b", "c"})
    stock.change(store, SHOP, [ItemChange("gone", state="removed")], known={"gone"})
    say(store, Event("u1", "new", "click", happened_at=moment(9)), Event("u0", "b", "like"))
    found = events.merged(store, log())
    assert found.items == ("a", "c", "new") and found.titles == ("A better title", "C", "New") and found.texts == ("", "", "text")
    assert names(found) == {"u0": ["a"], "u1": ["new"]}


# ---------------------------------------------------------------- changes of the catalogue


def test_the_last_change_of_an_item_holds_and_saying_it_again_changes_nothing(store):
    change = [ItemChange("a", "One"), ItemChange("a", "Two"), ItemChange("b", state="removed")]
    assert stock.change(store, SHOP, change, known={"b"}) == stock.Noted(3, 0)
    assert stock.change(store, SHOP, [ItemChange("a", "Two"), ItemChange("b", "ignored", state="removed")], known={"b"}) == stock.Noted(0, 2)
    last, holds = stock.changed(store, SHOP)
    assert last == 3 == stock.last_change(store, SHOP) and holds == {"a": ItemChange("a", "Two"), "b": ItemChange("b", state="removed")}
    stock.change(store, SHOP, [ItemChange("a", state="removed")], known={"a"})
    assert stock.changed(store, SHOP)[1]["a"] == ItemChange("a", "Two", state="removed")  # what it was called is still known
    assert stock.changed(store, "other") == (0, {})


WRONG = [
    (ItemChange("", "x"), "no id"),
    (ItemChange("x" * 301, "x"), "300"),
    (ItemChange("n"), "title or a text"),
    (ItemChange("n", "\0 \n"), "title or a text"),
    (ItemChange("n", "x", state="asleep"), "no state"),
    (ItemChange("nonesuch", state="removed"), "no item"),
]


def test_a_change_that_makes_no_sense_is_refused_and_the_rest_is_stored(store):
    noted = stock.change(store, SHOP, [ItemChange("ok", "Fine"), *(change for change, _ in WRONG)], known={"b"})
    assert noted.stored == 1 and [place for place, _ in noted.refused] == list(range(1, len(WRONG) + 1))
    assert all(reason in said for (_, reason), (_, said) in zip(WRONG, noted.refused, strict=True))


# ---------------------------------------------------------------- folding


def test_pairs_are_what_came_next_by_moment_less_what_was_taken_out(store):
    say(store, Event("u0", "a", "click", happened_at=moment(30)))
    before = events.latest(store, SHOP)
    say(store, Event("u0", "c", "click", happened_at=moment(50)), Event("u0", "b", "click", happened_at=moment(40)), Event("v", "a", "like"), Event("w", "a", "skip"))
    last = events.latest(store, SHOP)
    found = folding.pairs(store, SHOP, after=before, up_to=last, base={"u0": ["a"], "v": [], "w": []}.__getitem__)
    assert sorted(found) == sorted([(["a"], "b"), (["a", "b"], "c"), ([], "a")])
    say(store, Event("u0", "b", "forget"))
    assert folding.pairs(store, SHOP, after=before, up_to=last, base={"u0": ["a"], "v": [], "w": []}.__getitem__) == found  # as of then
    assert (["a"], "c") in folding.pairs(store, SHOP, after=before, up_to=last + 1, base={"u0": ["a"], "v": [], "w": []}.__getitem__)


def test_folding_says_up_to_where_once(store):
    assert folding.fold(store, "v1", SHOP, trained_up_to=0) == (0, 0) and folding.folded_up_to(store, "v1") == 0
    say(store, Event("u0", "a", "click"), Event("u0", "b", "click"), Event("u0", "b", "shown", 0.5))
    assert folding.fold(store, "v1", SHOP, trained_up_to=1) == (2, 1)
    assert folding.fold(store, "v1", SHOP, trained_up_to=1) == (2, 0) and folding.folded_up_to(store, "v1") == 2
    assert store.rows("SELECT count(*) AS n FROM recommend_folds")[0]["n"] == 1


def test_folding_is_bounded_and_leaves_the_rest_to_the_training(store, monkeypatch):
    monkeypatch.setattr(folding, "MOST_EVENTS", 3)
    say(store, *[Event(f"u{n}", "a", "click") for n in range(5)])
    assert folding.fold(store, "v1", SHOP, trained_up_to=0) == (3, 3) and folding.fold(store, "v1", SHOP, trained_up_to=0) == (3, 0)


# ---------------------------------------------------------------- kept, and backed up


def test_what_holds_of_a_past_and_of_a_catalogue_outlives_the_pruning_of_old_rows(store):
    long_ago = NOW - dt.timedelta(days=900)
    old = [Event("ada", "i1", "click", happened_at=long_ago), Event("ada", "i2", "click", happened_at=long_ago), Event("ada", "i2", "forget", happened_at=long_ago)]
    note(store, *old, now=long_ago + dt.timedelta(days=1))
    note(store, Event("ada", "i1", "click", happened_at=long_ago), now=long_ago + dt.timedelta(days=2))  # the same, known
    note(store, Event("ada", "i1", "click"), Event("ada", "i2", "keep"), Event("ada", "i2", "forget"), now=NOW - dt.timedelta(days=500))
    stock.change(store, SHOP, [ItemChange("a", "One"), ItemChange("a", "Two"), ItemChange("b", "B"), ItemChange("a", "Three")], known=())
    folding.fold(store, "v1", SHOP, trained_up_to=0)
    with store.write() as tx:
        tx.execute("UPDATE catalogue_items SET noted_at = noted_at - INTERVAL 2 YEAR")
        tx.execute("UPDATE recommend_folds SET noted_at = noted_at - INTERVAL 2 YEAR")
    before = (past(store, base=["i9"]), off(store), stock.changed(store, SHOP)[1], folding.folded_up_to(store, "v1"), events.latest(store, SHOP))
    tables = ("interactions", "catalogue_items", "recommend_folds", "contests")
    assert retention.prune(store, dict.fromkeys(tables, 365)) == {"interactions": 2, "catalogue_items": 2, "recommend_folds": 0, "contests": 0}
    after = (past(store, base=["i9"]), off(store), stock.changed(store, SHOP)[1], folding.folded_up_to(store, "v1"), events.latest(store, SHOP))
    assert after == before and before[0] == ["i9", "i1"] and before[1] == {"i2"}


def test_events_changes_and_folds_are_in_a_backup(store, tmp_path):
    note(store, Event('a "b" 🦊', "🦊", "rate", 4.5), Event("ada", "i1", "click"))
    stock.change(store, SHOP, [ItemChange("new", "New")], known=())
    folding.fold(store, "v1", SHOP, trained_up_to=0)
    restored = backup.restore(backup.backup(store), tmp_path / "new")
    for table in ("interactions", "catalogue_items", "recommend_folds", "contests"):
        assert restored.rows(f"SELECT * FROM {table} ORDER BY ALL") == store.rows(f"SELECT * FROM {table} ORDER BY ALL")
    restored.close()
