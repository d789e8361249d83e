"""Alerts: who is told what, once, in order, whatever restarts, clocks, silences and late news do to it."""

import dataclasses
import datetime as dt
import random

import pytest

from fmcore.nouns import Silence
from fmcore.sentiment import alerts, channels, rules, transitions
from fmcore.sentiment.surge import Surge
from fmcore.store.store import Store
from tests.sentiment.alert_news import HOUR, MINUTE, T0, Threshold, at, burst, hum, outbox, put, rule

SECOND = dt.timedelta(seconds=1)
MS = dt.timedelta(milliseconds=1)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A desk with a channel and no rules of its own."""
    monkeypatch.setattr(rules, "DEFAULTS", ())
    opened = Store(tmp_path / "home")
    channels.add(opened, "desk", "webhook", "https://hook.example/x", by="me")
    yield opened
    opened.close()


FEEDS = next(r for r in rules.DEFAULTS if r.id == "dead-feed")


def only(store, *wanted):
    """These rules and no others."""
    for one in wanted:
        alerts.save_rule(store, one, by="test")


def look(store, now, detector=Threshold):
    return alerts.evaluate(store, now=now, detector=detector)


def every_hour(store, first, last, detector=Threshold):
    """Evaluate five minutes past each hour, first and last included; returns how many notifications were queued each time."""
    return [look(store, at(h) + 5 * MINUTE, detector).n_sent for h in range(first, last + 1)]


def events(store):
    sql = "SELECT key, transition, starts_at, bucket_end_at, sent, muted FROM alert_events ORDER BY n"
    return [tuple(row.values()) for row in store.rows(sql)]


def everything(store, **filters):
    return alerts.inbox(store, states=("firing", "resolved", "no data", "error"), **filters)


# --- the life of an alert


def test_an_alert_waits_fires_and_resolves_and_each_step_is_told_once(store):
    only(store, rule(for_buckets=2, keep_firing_buckets=2))
    hum(store, 0, 12)
    burst(store, 3, 6)
    burst(store, 4, 7)
    assert every_hour(store, 1, 4) == [0, 0, 0, 0]
    [waiting] = alerts.inbox(store, states=("pending",))
    assert (waiting.state, waiting.key, waiting.starts_at) == ("pending", "Fraud", at(3))
    assert every_hour(store, 5, 12) == [1, 0, 1, 0, 0, 0, 0, 0]
    [done] = everything(store)
    assert done.id == waiting.id
    assert (done.state, done.starts_at, done.ends_at, done.value) == ("resolved", at(3), at(7), 7)
    assert outbox(store) == [(done.id, "firing"), (done.id, "resolved")]
    assert alerts.points(store, done.id)["value"].tolist() == [6, 7]
    assert [step["what"] for step in alerts.history(store, done.id)] == ["firing", "resolved"]


def test_what_is_out_of_the_ordinary_once_only_never_fires_when_two_are_asked_for(store):
    only(store, rule(for_buckets=2))
    hum(store, 0, 9)
    for hour in (2, 4, 6):
        burst(store, hour, 9)
    every_hour(store, 1, 9)
    assert not events(store) and not outbox(store)


def test_an_evaluation_done_again_changes_nothing(store):
    only(store, rule())
    hum(store, 0, 6)
    burst(store, 3, 6)
    look(store, at(6) + 5 * MINUTE)
    before = events(store), outbox(store), store.rows("SELECT * FROM alert_marks ORDER BY rule_id")
    again = look(store, at(6) + 5 * MINUTE)
    assert (again.n_firing, again.n_resolved, again.n_sent) == (0, 0, 0)
    assert (events(store), outbox(store), store.rows("SELECT * FROM alert_marks ORDER BY rule_id")) == before


def test_a_restart_while_firing_fires_nothing_again_and_moves_no_beginning(store):
    only(store, rule(keep_firing_buckets=5))
    hum(store, 0, 12)
    burst(store, 2, 6)
    look(store, at(3) + 5 * MINUTE)
    [before] = alerts.inbox(store)
    for n in range(5):
        home = store.home
        store.close()
        store = Store(home)
        look(store, at(4 + n / 2) + 5 * MINUTE)
        [now] = alerts.inbox(store)
        assert (now.id, now.starts_at) == (before.id, before.starts_at)
    assert outbox(store) == [(before.id, "firing")]
    store.close()


def test_a_stop_is_caught_up_with_the_same_transitions_as_hour_by_hour(store, tmp_path):
    other = Store(tmp_path / "other")
    for s in (store, other):
        only(s, rule(), rule("two", dimension="ticker", for_buckets=2, keep_firing_buckets=1))
        hum(s, 0, 30)
        for hour, n in ((3, 6), (4, 8), (5, 7), (9, 5), (14, 9), (15, 9), (22, 6)):
            burst(s, hour, n, tickers=("HLD",) if hour % 2 else ("HLD", "ABC"))
    every_hour(store, 1, 30)
    look(other, at(30) + 5 * MINUTE)
    told = "rule_id, key, kind, severity, transition, starts_at, bucket_end_at, ends_at, value, expected"
    sql = f"SELECT {told} FROM alert_events ORDER BY rule_id, bucket_end_at, transition, key"
    assert store.rows(sql) == other.rows(sql)
    assert store.rows("SELECT rule_id, done_until, live FROM alert_marks ORDER BY 1") == other.rows(
        "SELECT rule_id, done_until, live FROM alert_marks ORDER BY 1")
    other.close()


def test_what_lies_in_the_past_is_recorded_and_not_told(store):
    only(store, rule(keep_firing_buckets=1))
    hum(store, 0, 48)
    burst(store, 5, 9)
    done = look(store, at(48) + 5 * MINUTE)
    [old] = everything(store)
    assert (old.state, done.n_firing, done.n_resolved, done.n_sent) == ("resolved", 1, 1, 0)
    assert [(muted, sent) for *_, sent, muted in events(store)] == [("past", False), ("never told", False)]
    assert outbox(store) == []


def test_what_began_while_the_desk_was_down_and_goes_on_is_told(store):
    only(store, rule())
    hum(store, 0, 14)
    look(store, at(4) + 5 * MINUTE)
    for hour in range(6, 13):
        burst(store, hour, 6)
    assert look(store, at(13) + 5 * MINUTE).n_sent == 1
    [told] = alerts.inbox(store)
    assert told.starts_at == at(6)


def test_severity_is_the_rules_and_one_step_up_far_beyond_expectation(store):
    only(store, rule())
    hum(store, 0, 5)
    burst(store, 2, 6, topic="Fraud")
    burst(store, 2, 30, topic="Bankruptcy")
    look(store, at(3) + 5 * MINUTE)
    assert [(a.key, a.severity) for a in alerts.inbox(store)] == [("Bankruptcy", "high"), ("Fraud", "medium")]
    assert alerts.summary(store) == {"high": 1, "medium": 1, "low": 0, "unacknowledged": 2}


# --- A6, A7: noise


def test_a_series_that_flips_every_hour_is_one_alert(store):
    only(store, rule(keep_firing_buckets=2))
    hum(store, 0, 62)
    put(store, [(at(hour) + n * MINUTE, {}) for hour in range(1, 60, 2) for n in range(6)])
    every_hour(store, 1, 62)
    assert [what for _, what in outbox(store)] == ["firing", "resolved"]


@pytest.mark.slow
def test_a_series_that_flips_two_hundred_times_is_told_once_in_four_hours_at_most(store):
    only(store, rule(keep_firing_buckets=1))
    hum(store, 0, 202)
    put(store, [(at(hour) + n * MINUTE, {}) for hour in range(1, 201, 2) for n in range(6)])
    every_hour(store, 1, 202)
    assert len(everything(store)) == 100, "each is recorded"
    told = outbox(store)
    assert len(told) <= 2 * (1 + 202 / 4)
    firings = [id for id, what in told if what == "firing"]
    moments = [row["noted_at"] for row in store.rows("SELECT noted_at FROM alert_events WHERE sent AND transition = 'firing' ORDER BY n")]
    assert len(firings) == len(set(firings)) and all(b - a >= 4 * HOUR for a, b in zip(moments, moments[1:]))


def test_five_thousand_alerts_at_once_are_one_notification_and_a_short_inbox(store):
    only(store, rule(dimension="ticker", floor=1))
    hum(store, 0, 6)
    names = [f"T{n:04d}" for n in range(5_000)]
    start = at(2) + MINUTE
    put(store, [(start + i * MS, {"tickers": tuple(names[i % 250 :: 250]), "topic": "Fraud"}) for i in range(1500)])

    class Flood(Threshold):
        def update(self, bucket_at, counts):
            return {f"ticker:{name}": self._reading(3) for name in names} if bucket_at == at(2) else {}

    assert look(store, at(3) + 5 * MINUTE, Flood).n_firing == 5_000
    assert len(outbox(store)) == 1
    title, = [row["title"] for row in store.rows("SELECT title FROM outbox")]
    assert title.endswith("and 4999 more")
    [group] = alerts.groups(store)
    assert (group.n, group.n_open, len(group.members)) == (5_000, 5_000, 20)
    assert len(alerts.inbox(store, limit=200)) == 200
    assert alerts.summary(store)["medium"] == 5_000
    every_hour(store, 4, 6, Flood)
    assert [what for _, what in outbox(store)] == ["firing", "resolved"]
    assert store.rows("SELECT count(*) AS n FROM alert_events")[0]["n"] == 10_000, "nothing is lost"


def test_alerts_of_one_bucket_are_told_together_and_their_end_when_all_are_over(store):
    only(store, rule(keep_firing_buckets=1))
    hum(store, 0, 9)
    burst(store, 2, 9, topic="Fraud")
    burst(store, 2, 6, topic="Bankruptcy")
    burst(store, 3, 6, topic="Bankruptcy")
    assert every_hour(store, 3, 6) == [1, 0, 1, 0]
    lead = next(a for a in everything(store) if a.key == "Fraud")
    assert outbox(store) == [(lead.id, "firing"), (lead.id, "resolved")]
    [first, last] = store.rows("SELECT title, event FROM outbox ORDER BY n")
    assert "Fraud and 1 more" in first["title"] and "Bankruptcy" in first["event"]
    assert last["title"].startswith("Over: ")


# --- A8: silences


@pytest.mark.parametrize(
    ("when", "told"),
    [(-MS, 1), (dt.timedelta(0), 0), (HOUR - MS, 0), (HOUR, 1)],
    ids=["1 ms before its start", "at its start", "1 ms before its end", "at its end"],
)
def test_a_silence_holds_from_its_start_to_just_before_its_end(store, when, told):
    only(store, rule())
    hum(store, 0, 6)
    burst(store, 2, 6)
    start = at(3) + 10 * MINUTE
    alerts.silence(store, starts_at=start, ends_at=start + HOUR, by="Ann", reason="planned", rule_id="r", dimension="topic", key="Fraud")
    assert look(store, start + when).n_sent == told
    [alert] = alerts.inbox(store)
    assert bool(alert.silenced_by) == (not told)


def test_what_a_silence_kept_quiet_is_told_when_it_ends_and_the_alert_still_fires(store):
    only(store, rule())
    hum(store, 0, 9)
    for hour in range(2, 7):
        burst(store, hour, 6)
    alerts.silence(store, starts_at=at(0), ends_at=at(5) + 30 * MINUTE, by="Ann", reason="planned")
    assert every_hour(store, 1, 6) == [0, 0, 0, 0, 0, 1]
    [alert] = alerts.inbox(store)
    assert outbox(store) == [(alert.id, "firing")] and alert.starts_at == at(2)


def test_a_resolve_within_a_silence_is_recorded_and_not_told(store):
    only(store, rule(keep_firing_buckets=1))
    hum(store, 0, 9)
    burst(store, 2, 6)
    assert every_hour(store, 1, 3) == [0, 0, 1]
    alerts.silence(store, starts_at=at(3) + 30 * MINUTE, ends_at=at(20), by="Ann", reason="known")
    assert every_hour(store, 4, 8) == [0] * 5
    [alert] = everything(store)
    assert (alert.state, [what for _, what in outbox(store)]) == ("resolved", ["firing"])


def test_silences_overlap_are_edited_and_ended_in_flight(store):
    only(store, rule(keep_firing_buckets=1))
    hum(store, 0, 30)
    for hour in (2, 8, 14, 20):
        burst(store, hour, 6)
    first = alerts.silence(store, starts_at=at(0), ends_at=at(30), by="Ann", reason="a", key="FRAUD")
    second = alerts.silence(store, starts_at=at(0), ends_at=at(10), by="Bob", reason="b")
    other = alerts.silence(store, starts_at=at(0), ends_at=at(30), by="Cid", reason="c", key="Macro")
    assert sum(every_hour(store, 1, 6)) == 0
    alerts.end_silence(store, first.id, by="Ann", now=at(7))
    assert sum(every_hour(store, 7, 12)) == 0, "the other one still holds"
    assert sum(every_hour(store, 13, 18)) == 2, "none holds: firing and resolved"
    alerts.change_silence(store, dataclasses.replace(second, ends_at=at(30)), by="Bob")
    assert sum(every_hour(store, 19, 24)) == 0, "made longer, it holds again"
    listed = {s.id: s for s in alerts.silences(store)}
    assert set(listed) == {first.id, second.id, other.id}, "expired ones are listed too"
    assert (listed[first.id].by, listed[first.id].reason, listed[first.id].ends_at) == ("Ann", "a", at(7))


def test_a_preview_says_what_a_silence_would_have_muted(store):
    only(store, rule(keep_firing_buckets=1))
    hum(store, 0, 30)
    for hour in (2, 8, 14):
        burst(store, hour, 6, topic="Fraud" if hour != 8 else "Bankruptcy")
    every_hour(store, 1, 20)
    draft = Silence("", "", "topic", "fraud", at(30), at(40), "Ann", "noise")
    assert [a.starts_at for a in alerts.preview_silence(store, draft, now=at(30))] == [at(14), at(2)]
    assert alerts.preview_silence(store, draft, days=0, now=at(30)) == []
    assert not alerts.silences(store)
    with pytest.raises(alerts.BadSilence, match="end after it starts"):
        alerts.preview_silence(store, dataclasses.replace(draft, ends_at=at(30)))


@pytest.mark.parametrize("change", [{"reason": " "}, {"by": ""}, {"ends_at": at(400 * 24)}, {"dimension": "planet"},
                                    {"starts_at": dt.datetime(2026, 6, 1)}])
def test_a_silence_without_reason_name_end_or_zone_is_refused(store, change):
    values = {"starts_at": at(0), "ends_at": at(1), "by": "Ann", "reason": "why"} | change
    with pytest.raises(alerts.BadSilence):
        alerts.silence(store, **values)


# --- inhibition


def test_the_market_stands_for_its_sectors_and_a_sector_for_its_companies(store):
    only(store, rule("m", dimension="all", floor=12, keep_firing_buckets=1), rule("s", dimension="sector", keep_firing_buckets=1),
         rule("t", dimension="ticker", floor=3, keep_firing_buckets=1), rule("topics"))
    hum(store, 0, 12)
    for ticker in ("CLBK", "NRVF", "HLMR"):  # three banks of the demo's list
        burst(store, 2, 3, tickers=(ticker,), topic=f"About {ticker}")
    burst(store, 6, 14, tickers=("CLBK",))
    every_hour(store, 3, 5)
    found = {(a.rule_id, a.key): a for a in everything(store)}
    sector = found["s", "Banks"]
    assert not sector.inhibited_by
    assert {found["t", t].inhibited_by for t in ("CLBK", "NRVF", "HLMR")} == {sector.id}
    assert [id for id, what in outbox(store) if what == "firing"] == [sector.id]
    every_hour(store, 6, 7)
    now = {(a.rule_id, a.key): a for a in alerts.inbox(store)}
    market = now["m", ""]
    assert now["s", "Banks"].inhibited_by == now["t", "CLBK"].inhibited_by == market.id
    assert not now["topics", "Fraud"].inhibited_by, "a topic says something else than the market"


def test_what_was_inhibited_is_told_when_what_stood_for_it_is_over(store):
    only(store, rule("m", dimension="all", floor=12, keep_firing_buckets=1), rule("t", dimension="ticker"))
    hum(store, 0, 12)
    burst(store, 2, 14, tickers=("CLBK",))
    for hour in (3, 4, 5):
        burst(store, hour, 6, tickers=("CLBK",))
    assert every_hour(store, 3, 5) == [1, 2, 0], "the market's end, and with it the company"
    assert [(a.key, a.inhibited_by) for a in alerts.inbox(store)] == [("CLBK", "")]


def test_a_silenced_market_alert_does_not_hide_the_companies(store):
    only(store, rule("m", dimension="all"), rule("t", dimension="ticker"))
    hum(store, 0, 6)
    burst(store, 2, 6, tickers=("CLBK",))
    alerts.silence(store, starts_at=at(0), ends_at=at(9), by="Ann", reason="busy", rule_id="m")
    assert look(store, at(3) + 5 * MINUTE).n_sent == 1


# --- A9: what does not come, and what fails


def test_a_silent_stream_is_an_alert_of_its_own_and_clears_nothing(store):
    only(store, rule(keep_firing_buckets=2), FEEDS)
    hum(store, 0, 10)
    burst(store, 9, 6)
    looks = [look(store, at(9) + n * 5 * MINUTE) for n in range(5 * 12)]
    assert sum(done.n_resolved for done in looks) == 0
    found = {a.kind: a for a in alerts.inbox(store)}
    assert found["surge"].state == "firing", "silence is not calm"
    assert found["no data"].state == "no data" and "No scored news at all since" in found["no data"].reason
    noted = store.rows("SELECT noted_at FROM alert_events WHERE kind = 'no data'")[0]["noted_at"].replace(tzinfo=dt.UTC)
    assert at(10) + 3 * HOUR <= noted <= at(10) + 3 * HOUR + 15 * MINUTE
    hum(store, 15, 20)
    look(store, at(16) + 5 * MINUTE)
    assert {a.kind: a.state for a in everything(store)}["no data"] == "resolved"
    assert {a.kind: a.state for a in everything(store)}["surge"] == "firing", "one calm hour is not two"
    look(store, at(17) + 5 * MINUTE)
    assert {a.kind: a.state for a in everything(store)}["surge"] == "resolved"
    assert sorted(what for _, what in outbox(store)) == ["firing", "no data", "resolved", "resolved"]


def test_a_stream_that_rests_every_night_is_not_missed_at_night(store):
    only(store, FEEDS)
    for day in range(5):
        hum(store, 24 * day + 8, 24 * day + 18)
    for n in range(14 * 3):
        look(store, at(24 * 4 + 18) + n * 20 * MINUTE)
    assert everything(store) == []
    for n in range(6 * 3):
        look(store, at(24 * 5 + 8) + n * 20 * MINUTE)
    [found] = alerts.inbox(store)
    assert found.kind == "no data", "but by noon it is"


def note_look(store, when, *, source="wire-a", ok=True, n_new=0, error=""):
    with store.write() as tx:
        tx.execute("""INSERT INTO source_checks (source, checked_at, ok, n_seen, n_new, n_known, n_refused, refusals, error, memory)
            VALUES (?, ?, ?, ?, ?, 0, 0, '{}', ?, '{}')""", [source, when.replace(tzinfo=None), ok, n_new, n_new, error])


def test_a_feed_that_fails_or_brings_nothing_is_an_alert_of_its_own(store):
    only(store, FEEDS)
    hum(store, 0, 40)
    with store.write() as tx:
        for name, kind in (("wire-a", "rss"), ("wire-b", "rss"), ("quiet", "rss"), ("once", "upload"), ("paused", "rss")):
            tx.execute("INSERT INTO sources VALUES (?, ?, '{}', '', ?, ?)", [name, kind, "on" if name != "paused" else "paused", T0.replace(tzinfo=None)])
    for hour in range(0, 36):
        now = at(hour) + 10 * MINUTE
        note_look(store, now, source="wire-a", ok=hour < 30, n_new=3 if hour < 30 else 0, error="404 Not Found" if hour >= 30 else "")
        note_look(store, now, source="wire-b", n_new=2 if hour < 31 else 0)
        note_look(store, now, source="quiet", n_new=1 if hour % 12 == 0 else 0)
        note_look(store, now, source="once", n_new=1 if hour == 0 else 0)
        note_look(store, now, source="paused", ok=False)
        for n in range(2, 14, 2) if hour > 28 else ():
            look(store, at(hour) + 5 * n * MINUTE)
    found = {a.key: a for a in alerts.inbox(store)}
    assert set(found) == {"wire-a", "wire-b"}
    assert "404 Not Found" in found["wire-a"].reason and found["wire-a"].state == "firing" and found["wire-a"].kind == "dead feed"
    assert "nothing new since" in found["wire-b"].reason
    note_look(store, at(36), source="wire-a", n_new=1)
    look(store, at(36) + 5 * MINUTE)
    assert {a.key: a.state for a in everything(store)}["wire-a"] == "resolved"


class Broken(Threshold):
    """Fails for the rule whose floor is 7."""

    working = False

    def __init__(self, settings):
        if settings.floor == 7 and not Broken.working:
            raise RuntimeError("poison")
        super().__init__(settings)


def test_a_rule_that_fails_stops_no_other_and_is_an_alert_after_three_times(store):
    only(store, rule("bad", floor=7), rule("good"))
    hum(store, 0, 12)
    burst(store, 2, 8)
    Broken.working = False
    assert look(store, at(3) + 5 * MINUTE, Broken).errors == {"bad": "RuntimeError: poison"}
    assert [a.rule_id for a in alerts.inbox(store)] == ["good"]
    look(store, at(3) + 10 * MINUTE, Broken)
    assert [a.kind for a in alerts.inbox(store)] == ["surge"]
    look(store, at(3) + 15 * MINUTE, Broken)
    look(store, at(3) + 20 * MINUTE, Broken)
    [error] = alerts.inbox(store, states=("error",))
    assert (error.rule_id, error.state, error.dimension, error.key) == ("bad", "error", "rule", "bad")
    assert "poison" in error.reason and "not watched" in error.reason
    Broken.working = True
    done = look(store, at(4) + 5 * MINUTE, Broken)
    assert not done.errors and done.n_buckets >= 1
    assert {a.kind: a.state for a in everything(store, rule_id="bad")} == {"error": "resolved", "surge": "firing"}, "and it catches up"
    assert [what for _, what in outbox(store)].count("error") == 1


def test_what_cannot_be_read_of_one_rule_stops_no_other(store):
    only(store, rule("a"), rule("b", for_buckets=2))
    hum(store, 0, 12)
    burst(store, 2, 8)
    look(store, at(3) + 5 * MINUTE)
    with store.write() as tx:
        tx.execute("UPDATE alert_marks SET live = '{\"open\": {\"Fraud\": {\"odd\": 1}}, \"error\": {}}' WHERE rule_id = 'a'")
    burst(store, 3, 8)
    done = look(store, at(4) + 5 * MINUTE)
    assert done.errors == {} and [a.rule_id for a in alerts.inbox(store, rule_id="b")] == ["b"]


# --- A11: order


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 6))])
def test_an_end_is_told_after_its_beginning_never_without_and_each_once(store, seed):
    rng = random.Random(seed)
    only(store, rule(keep_firing_buckets=1), rule("t", dimension="ticker", for_buckets=2, keep_firing_buckets=2), rule("m", dimension="all", floor=9))
    hum(store, 0, 60)
    now = at(1)
    for hour in range(60):
        if rng.random() < 0.45:
            burst(store, hour, rng.randint(3, 12), topic=rng.choice(["Fraud", "Bankruptcy"]), tickers=(rng.choice(["CLBK", "NRVF", "QLN"]),))
        if rng.random() < 0.15:
            alerts.silence(store, starts_at=now, ends_at=now + rng.randint(1, 9) * HOUR, by="x", reason="y", key=rng.choice(["", "Fraud", "CLBK"]))
        if rng.random() < 0.6:
            now = at(hour + 1) + rng.randint(3, 55) * MINUTE
            look(store, now)
            if rng.random() < 0.3:
                look(store, now - rng.randint(0, 90) * MINUTE)
    look(store, at(61))
    seen: dict[str, list[str]] = {}
    for id, what in outbox(store):
        seen.setdefault(id, []).append(what)
    assert seen and all(steps in (["firing"], ["firing", "resolved"]) for steps in seen.values())
    recorded: dict[str, list[str]] = {}
    for row in store.rows("SELECT alert_id, transition FROM alert_events ORDER BY n"):
        recorded.setdefault(row["alert_id"], []).append(row["transition"])
    for steps in recorded.values():
        assert steps[0] == "firing" and steps.count("firing") == 1 and steps.count("released") <= 1
        assert steps.count("resolved") <= 1 and ("resolved" not in steps or steps[-1] == "resolved")


# --- T1, T2, T6: time


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01"])
def test_both_days_on_which_clocks_change_have_24_hours_each_judged_once(store, day):
    only(store, rule(keep_firing_buckets=1))
    start = dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC) - 6 * HOUR
    put(store, [(start + n * HOUR + MINUTE, {"sentiment": "neutral"}) for n in range(30)])
    hot = (6, 7, 8, 13)  # around 01:00 UTC (Berlin) and 07:00 UTC (New York)
    put(store, [(start + hour * HOUR + (2 + n) * MINUTE, {}) for hour in hot for n in range(6)])
    n = sum(look(store, start + (h + 1) * HOUR + 5 * MINUTE).n_buckets for h in range(3, 18))
    assert n == 18
    assert [a.starts_at for a in reversed(everything(store))] == [start + 6 * HOUR, start + 13 * HOUR]


def test_a_clock_that_steps_back_repeats_nothing_and_one_that_steps_forward_loses_nothing(store):
    only(store, rule(keep_firing_buckets=2), FEEDS)
    with store.write() as tx:
        tx.execute("INSERT INTO sources VALUES ('wire-a', 'rss', '{}', '', 'on', ?)", [T0.replace(tzinfo=None)])
    hum(store, 0, 30)
    for hour in range(10):
        note_look(store, at(hour), n_new=1)
    burst(store, 3, 6)
    every_hour(store, 1, 5)
    told = outbox(store)
    assert [what for _, what in told] == ["firing"]
    assert look(store, at(4) + 5 * MINUTE).n_buckets == 0, "an hour back"
    assert look(store, at(2)).n_sent == 0
    ahead = look(store, at(5) + 10 * MINUTE + 24 * HOUR)
    assert ahead.n_sent == 1, "the resolve of news that has come since; no feed is declared dead for a step of the clock"
    assert [a.kind for a in everything(store)] == ["surge"]


def test_a_step_forward_before_the_news_has_come_skips_no_bucket(store):
    only(store, rule())
    hum(store, 0, 5)
    look(store, at(5) + 5 * MINUTE)
    look(store, at(5) + 10 * MINUTE + 24 * HOUR)
    hum(store, 5, 12)
    burst(store, 8, 6)
    every_hour(store, 6, 10)
    assert [a.starts_at for a in alerts.inbox(store)] == [at(8)]


def test_late_news_is_counted_and_fires_nothing_for_the_past(store):
    only(store, rule())
    hum(store, 0, 12)
    every_hour(store, 1, 6)
    burst(store, 2, 30)
    assert every_hour(store, 7, 9) == [0, 0, 0] and not everything(store)
    from fmcore.sentiment import counts

    found = {bucket: of.get("topic:Fraud") for bucket, of in counts.counts(store, at(0), at(4), bucket_s=3600)}
    assert found[at(2)].n_negative == 30


def test_news_in_any_order_is_counted_alike(store, tmp_path):
    from fmcore.sentiment import counts

    rng = random.Random(1)
    rows = [(at(rng.random() * 20), {"sentiment": rng.choice(["negative", "neutral", "positive"]), "topic": rng.choice("AB"),
                                     "tickers": tuple(rng.sample(["CLBK", "QLN", "NRVF"], rng.randint(0, 2)))}) for _ in range(200)]
    shuffled = Store(tmp_path / "shuffled")
    put(store, sorted(rows, key=lambda row: row[0]))
    for start in range(0, 200, 40):
        put(shuffled, rows[start : start + 40])
    spans = [list(counts.counts(s, at(0), at(21), bucket_s=3600)) for s in (store, shuffled)]
    assert spans[0] == spans[1]
    shuffled.close()


def test_a_bucket_stays_open_while_its_documents_wait_to_be_scored(store):
    only(store, rule())
    hum(store, 0, 12)
    waiting = put(store, [(at(2) + (20 + n) * MINUTE, {}) for n in range(8)], articles=False)
    assert [look(store, at(h) + 5 * MINUTE).n_buckets for h in (2, 3, 4)] == [2, 0, 0]
    assert alerts.inbox(store) == []
    import pandas as pd

    from tests.sentiment.alert_news import write

    frame = pd.DataFrame([{"published_at": at(2) + (20 + n) * MINUTE, "id": id, "source": "wire-a", "topic": "Fraud", "tickers": (), "sentiment": "negative",
                           "story": "", "title": "x", "url": "", "body": ""} for n, id in enumerate(waiting)])
    write(store, frame, documents=False)
    assert look(store, at(4) + 10 * MINUTE).n_buckets == 2
    assert [a.starts_at for a in everything(store)] == [at(2)], "it comes late and is not lost"


def test_documents_that_can_never_be_scored_hold_nothing_up_for_ever(store):
    only(store, rule())
    hum(store, 0, 20)
    put(store, [(at(2) + n * MINUTE, {}) for n in range(8)], articles=False)
    look(store, at(8) + 5 * MINUTE)
    assert look(store, at(9) + 5 * MINUTE).n_buckets == 7


# --- what people do


def test_an_acknowledgement_ends_with_its_alert(store):
    only(store, rule(keep_firing_buckets=1))
    hum(store, 0, 12)
    burst(store, 2, 6)
    burst(store, 8, 6)
    look(store, at(3) + 5 * MINUTE)
    [first] = alerts.inbox(store)
    taken = alerts.ack(store, first.id, by="Ann", note="calling them", now=at(3) + 10 * MINUTE)
    assert (taken.acked_by, taken.acked_at, taken.state) == ("Ann", at(3) + 10 * MINUTE, "firing")
    assert alerts.summary(store)["unacknowledged"] == 0
    with pytest.raises(alerts.NotPossible, match="Ann acknowledged this alert 5 min ago"):
        alerts.ack(store, first.id, by="Bob", now=at(3) + 15 * MINUTE)
    every_hour(store, 4, 9)
    with pytest.raises(alerts.NotPossible, match="is over"):
        alerts.ack(store, first.id, by="Bob")
    [second] = alerts.inbox(store)
    assert second.id != first.id and second.fingerprint == first.fingerprint and second.acked_by == ""
    assert [(h["what"], h["by"]) for h in alerts.history(store, first.id)] == [("firing", ""), ("acknowledged", "Ann"), ("resolved", "")]
    with pytest.raises(alerts.UnknownAlert):
        alerts.ack(store, "nothing", by="Ann")


def test_the_last_word_on_a_rule_holds_even_when_the_clock_steps_back(store):
    alerts.save_rule(store, rule(title="first"), by="Ann", now=at(5))
    alerts.save_rule(store, rule(title="second"), by="Bob", now=at(1))
    assert alerts.rule(store, "r").title == "second"
    assert [(v["title"], v["who"]) for v in alerts.rule_history(store, "r")] == [("second", "Bob"), ("first", "Ann")]
    with pytest.raises(alerts.UnknownRule):
        alerts.rule(store, "nothing")


@pytest.mark.parametrize(
    ("change", "fault"),
    [({"id": "../x"}, "id"), ({"title": " "}, "title"), ({"dimension": "planet"}, "dimension"), ({"kinds": ()}, "kinds"), ({"kinds": ("boom",)}, "kinds"),
     ({"severity": "loud"}, "severity"), ({"bucket_s": 7}, "bucket"), ({"sensitivity": float("nan")}, "sensitivity"), ({"floor": 0}, "floor"),
     ({"for_buckets": 0}, "wait"), ({"keys": ("",)}, "keys"), ({"kinds": ("dead feed",)}, "source")],
)  # fmt: skip
def test_a_rule_that_makes_no_sense_is_refused_with_the_fault_named(store, change, fault):
    with pytest.raises(alerts.BadRule, match=fault):
        alerts.save_rule(store, dataclasses.replace(rule(), **change), by="me")


def test_a_rules_dimension_stays(store):
    alerts.save_rule(store, rule(), by="me")
    with pytest.raises(alerts.BadRule, match="another rule"):
        alerts.save_rule(store, rule(dimension="ticker"), by="me")


def test_a_changed_rule_fires_nothing_for_the_past_and_a_switched_off_one_ends_what_it_holds(store):
    only(store, rule(floor=20))
    hum(store, 0, 12)
    burst(store, 2, 8)
    look(store, at(5) + 5 * MINUTE)
    alerts.save_rule(store, rule(floor=5), by="me")
    burst(store, 6, 8)
    look(store, at(7) + 5 * MINUTE)
    assert [a.starts_at for a in everything(store)] == [at(6)]
    alerts.switch(store, "r", on=False, by="me")
    look(store, at(8) + 5 * MINUTE)
    assert [a.state for a in everything(store)] == ["resolved"]
    burst(store, 9, 8)
    look(store, at(10) + 5 * MINUTE)
    alerts.switch(store, "r", on=True, by="me")
    look(store, at(11) + 5 * MINUTE)
    assert len(everything(store)) == 1, "what happened while it was off stays unsaid"


def test_a_rule_for_some_keys_looks_at_those_only(store):
    only(store, rule(keys=("Fraud",)))
    hum(store, 0, 5)
    burst(store, 2, 8)
    burst(store, 2, 9, topic="Bankruptcy")
    look(store, at(3) + 5 * MINUTE)
    assert [a.key for a in everything(store)] == ["Fraud"]


def test_a_desk_without_news_has_nothing_to_say(store):
    done = look(store, at(5), Surge)
    assert (done.n_rules, done.n_buckets, done.n_firing, done.errors) == (len(alerts.rules(store)), 0, 0, {})
    assert alerts.inbox(store) == [] and alerts.groups(store) == []


def test_the_default_rules_share_one_pass_of_the_detector(store, monkeypatch):
    monkeypatch.undo()
    made = []

    class Counting(Threshold):
        def __init__(self, settings):
            made.append(settings)
            super().__init__(settings)

    hum(store, 0, 5)
    look(store, at(5) + 5 * MINUTE, Counting)
    assert len(made) == 1


def test_the_strip_counts_a_rules_days(store):
    only(store, rule(keep_firing_buckets=1))
    hum(store, 0, 60)
    for hour in (2, 9, 30):
        burst(store, hour, 6)
    every_hour(store, 1, 40)
    strip = alerts.strip(store, days=90, now=at(60))
    assert strip[["rule_id", "n_fired"]].values.tolist() == [["r", 2], ["r", 1]]


def test_what_somebody_has_taken_is_not_told_again_when_a_silence_ends(store):
    only(store, rule())
    hum(store, 0, 9)
    for hour in range(2, 7):
        burst(store, hour, 6)
    alerts.silence(store, starts_at=at(0), ends_at=at(5), by="Ann", reason="planned")
    every_hour(store, 1, 4)
    [alert] = alerts.inbox(store)
    alerts.ack(store, alert.id, by="Ann", now=at(4) + 10 * MINUTE)
    assert every_hour(store, 5, 7) == [0, 0, 0] and outbox(store) == []


def test_an_alert_beyond_the_budget_is_explained_when_somebody_asks(store, monkeypatch):
    monkeypatch.setattr(transitions, "MAX_EXPLAINED", 1)
    only(store, rule())
    hum(store, 0, 5)
    burst(store, 2, 9, topic="Fraud")
    burst(store, 2, 7, topic="Bankruptcy")
    look(store, at(3) + 5 * MINUTE)
    large, small = sorted(alerts.inbox(store), key=lambda a: -a.value)
    assert large.why["value"] == 9 and large.reason == large.why["sentence"]
    assert small.why == {} and small.reason == "7 where 1 is usual"
    found = alerts.explain(store, small.id)
    assert (found["value"], found["expected"]) == (7, 1.0) and found["sentence"].startswith("7 negative stories about Bankruptcy")
    assert alerts.explain(store, large.id) == large.why
    with pytest.raises(alerts.UnknownAlert):
        alerts.explain(store, "nothing")


def test_an_alert_whose_cause_cannot_be_found_is_still_an_alert(store, monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("no cause")

    only(store, rule())
    hum(store, 0, 5)
    burst(store, 2, 9)
    monkeypatch.setattr(transitions.attribution, "why", broken)
    done = look(store, at(3) + 5 * MINUTE)
    assert (done.errors, done.n_sent) == ({}, 1)
    [alert] = alerts.inbox(store)
    assert (alert.why, alert.reason) == ({}, "9 where 1 is usual")
