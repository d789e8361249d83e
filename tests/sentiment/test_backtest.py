"""Backtests: what the engine does, bucket by bucket, and what a plain loop over the counts says."""

import dataclasses
import datetime as dt

import pytest

from fmcore.sentiment import alerts, backtest, counts, rules
from fmcore.sentiment.surge import Surge, SurgeSettings
from fmcore.store.store import Store
from tests.sentiment.alert_news import HOUR, MINUTE, T0, Threshold, at, burst, demo, hum, rule

ALL = ("firing", "resolved")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(rules, "DEFAULTS", ())
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def news(tmp_path_factory):
    """Sixty days of the demo stream, scored without a fault."""
    opened = Store(tmp_path_factory.mktemp("news"))
    planted = demo(opened, seed=0)
    yield opened, planted
    opened.close()


def raised_by_engine(store):
    return sorted((a.key, a.kind, a.severity, a.starts_at, a.ends_at) for a in alerts.inbox(store, states=ALL, limit=10_000))


def raised(test):
    return sorted((r.key, r.kind, r.severity, r.starts_at, r.ends_at) for r in test.raised)


def scripted(store):
    hum(store, 0, 80)
    for hour, n, topic in ((3, 6, "Fraud"), (4, 8, "Fraud"), (9, 5, "Fraud"), (14, 30, "Macro"), (15, 9, "Fraud"), (40, 6, "Macro"), (44, 7, "Fraud"),
                           (45, 7, "Fraud"), (46, 7, "Fraud"), (79, 9, "Fraud")):
        burst(store, hour, n, topic=topic)


@pytest.mark.parametrize("change", [{}, *(pytest.param(change, marks=pytest.mark.slow) for change in (
    {"for_buckets": 2}, {"keep_firing_buckets": 1}, {"floor": 8}, {"keys": ("Fraud",)}))])  # fmt: skip
def test_a_backtest_raises_what_the_engine_then_does_hour_by_hour(store, change):
    scripted(store)
    one = rule(**change)
    alerts.save_rule(store, one, by="me")
    for hour in range(1, 81):
        alerts.evaluate(store, now=at(hour) + 5 * MINUTE, detector=Threshold)
    test = backtest.replay(store, one, at(0), at(80), detector=Threshold)
    assert raised(test) == raised_by_engine(store) and test.raised


def test_a_backtest_equals_a_plain_loop_over_the_counts(store):
    scripted(store)
    one = rule(for_buckets=2, keep_firing_buckets=2)
    hot = {bucket: found["topic:Fraud"].n_negative >= 5 for bucket, found in counts.counts(store, at(0), at(80), bucket_s=3600) if "topic:Fraud" in found}
    expected, run, calm, began = [], 0, 0, None
    for n in range(80):
        run, calm = (run + 1, 0) if hot.get(at(n)) else (0, calm + 1)
        if began is None and run == 2:
            began = at(n - 1)
        elif began is not None and calm == 2:
            expected.append((began, at(n + 1)))
            began = None
    test = backtest.replay(store, dataclasses.replace(one, keys=("Fraud",)), at(0), at(80), detector=Threshold)
    assert [(r.starts_at, r.ends_at) for r in test.raised] == expected == [(at(3), at(7)), (at(44), at(49))]
    assert test.per_week == pytest.approx(2 / (80 / 168))


def test_incidents_are_hit_missed_or_of_no_concern_and_the_delay_is_told(store):
    scripted(store)

    def incident(name, first, last, topic="Fraud", kind="surge", tickers=()):
        return backtest.label_incident(store, name, starts_at=at(first), ends_at=at(last), by="Ann", topic=topic, kind=kind, tickers=tickers)

    early, macro, missed = incident("early", 2.5, 6), incident("macro", 14, 16, topic="Macro", kind=""), incident("missed", 25, 30)
    incident("a company's", 3, 6, topic="", tickers=("CLBK",))
    incident("a shift", 60, 70, kind="shift")
    known = backtest.incidents(store, at(0), at(80))
    test = backtest.replay(store, rule(), at(0), at(80), incidents=known, detector=Threshold)
    assert [(hit.incident, hit.delay_s) for hit in test.hits] == [(early, 2.5 * 3600 - 3600), (macro, 3600.0)]
    assert test.misses == (missed,)
    assert test.median_delay_s == (1.5 * 3600 + 3600) / 2
    about = {(r.key, r.starts_at): r.incidents for r in test.raised}
    assert about["Fraud", at(3)] == (early.id,) and about["Macro", at(14)] == (macro.id,)
    assert test.n_false == len([ids for ids in about.values() if not ids])
    assert "2 of 3 labelled events found, median delay 1 h 15 min" in test.sentence
    backtest.remove_incident(store, missed.id, by="Bob")
    assert missed.id not in {i.id for i in backtest.incidents(store, at(0), at(80))}
    with pytest.raises(backtest.BadIncident):
        backtest.remove_incident(store, missed.id, by="Bob")


def test_what_cannot_be_played_back_is_refused(store):
    with pytest.raises(backtest.BadSpan, match="nothing between"):
        backtest.replay(store, rule(), at(5), at(5))
    with pytest.raises(backtest.BadSpan, match="cannot be played back"):
        backtest.replay(store, rule(dimension="source", kinds=("no data",)), at(0), at(5))
    for values in ({"title": " "}, {"ends_at": at(-1)}, {"kind": "boom"}, {"starts_at": dt.datetime(2026, 6, 1)}):
        with pytest.raises(backtest.BadIncident):
            backtest.label_incident(store, **{"title": "x", "starts_at": at(0), "ends_at": at(1), "by": "me"} | values)
    assert backtest.span_of(store) is None
    hum(store, 0, 5)
    assert backtest.span_of(store) == (at(0) + MINUTE, at(5) + MINUTE)


def test_the_demo_sources_truth_is_labelled_by_itself(store):
    from fmcore.data.sources import Sources

    origin = Sources(store).add("demo", "demo", {"seed": 3}, "synthetic", by="me").added_at - 60 * 24 * HOUR
    first = backtest.incidents(store, origin, origin + 60 * 24 * HOUR)
    assert {i.by for i in first} == {"demo"} and {i.kind for i in first} == {"surge", "shift", "flood"}
    assert len(backtest.incidents(store, origin, origin + 120 * 24 * HOUR)) == 2 * len(first)


def test_late_news_are_seen_by_the_next_backtest(store):
    hum(store, 0, 30)
    one = rule(floor=5)
    assert backtest.replay(store, one, at(0), at(20)).raised == ()
    made = []

    class Watched(Threshold):
        def __init__(self, settings):
            made.append(settings)
            super().__init__(settings)

    backtest.replay(store, one, at(0), at(20), detector=Watched)
    backtest.replay(store, one, at(2), at(30), detector=Watched)
    assert len(made) == 1, "the same news: the replay goes on where it stood"
    burst(store, 10, 9)
    assert [r.starts_at for r in backtest.replay(store, one, at(0), at(20), detector=Watched).raised] == [at(10)]
    assert len(made) == 2


@pytest.mark.slow
def test_a_replay_that_goes_on_reads_what_one_from_the_start_reads(news, tmp_path):
    store, _ = news
    start = T0 + 40 * 24 * HOUR
    one = rule(dimension="ticker")
    for days in (1, 2, 5):
        backtest.replay(store, one, start, start + days * 24 * HOUR)
    found = backtest.replay(store, one, start, start + 20 * 24 * HOUR)
    surge, held, changes = {}, {}, []
    from fmcore.sentiment import passes, states

    for n in range(20 * 24):
        moment = start + n * HOUR
        block = passes._EPOCH + ((moment - passes._EPOCH) // dt.timedelta(days=28)) * dt.timedelta(days=28)
        if block not in surge:
            surge[block] = Surge(SurgeSettings(sensitivity=one.sensitivity, floor=one.floor))
            fed = counts.counts(store, block - dt.timedelta(days=28), min(block + dt.timedelta(days=28), start + 20 * 24 * HOUR), bucket_s=3600)
            said = {b: surge[block].update(b, of) for b, of in fed}
        bucket = passes.Bucket(moment, {k: r for k, r in said[moment].items() if r.fires}, False)
        held, changed = states.step(one, held, moment, passes.of_dimension(one, bucket))
        changes += changed
    assert [(c.held.key, c.held.since) for c in changes if c.what == "firing"] == [(r.key, r.starts_at) for r in found.raised]
    assert found.raised


@pytest.mark.slow
def test_the_real_detector_over_the_demo_stream_raises_in_a_backtest_what_the_engine_raises(news, tmp_path):
    store, _ = news
    end = T0 + 60 * 24 * HOUR
    alerts.evaluate(store, now=end - 30 * 24 * HOUR + 5 * MINUTE)
    for day in range(29, -1, -1):
        alerts.evaluate(store, now=end - day * 24 * HOUR + 5 * MINUTE)
    for one in alerts.rules(store):
        if one.dimension != "source":
            test = backtest.replay(store, one, T0, end)
            engine = sorted((a.key, a.kind, a.severity, a.starts_at, a.ends_at) for a in alerts.inbox(store, states=ALL, rule_id=one.id, limit=10_000))
            assert raised(test) == engine


@pytest.mark.slow
def test_a_more_sensitive_rule_is_out_of_the_ordinary_in_no_fewer_hours(news):
    store, planted = news
    start, end = T0 + 3 * 24 * HOUR, T0 + 60 * 24 * HOUR
    known = [backtest.Incident(i.name, i.name, i.kind, i.starts_at, i.ends_at, i.topic, i.tickers) for i in planted]
    tests = backtest.sweep(store, rule(dimension="topic"), (0.1, 0.5, 0.9), start, end, incidents=known)
    assert [t.rule.sensitivity for t in tests] == [0.1, 0.5, 0.9]
    found = [len(t.hits) for t in tests]
    assert found == sorted(found) and [t.per_week for t in tests] == sorted(t.per_week for t in tests)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_planted_incident_fires_with_its_topic_company_and_top_story(tmp_path, seed):
    """The demo stream with its true labels, end to end: counts, detector, states, attribution."""
    with_labels = Store(tmp_path / "home")
    planted = demo(with_labels, seed=seed)
    alerts.evaluate(with_labels, now=T0 + 60 * 24 * HOUR)
    found = alerts.inbox(with_labels, states=ALL, limit=1_000)
    for incident in planted:
        about = [a for a in found if (a.key == incident.topic or a.key in incident.tickers)
                 and incident.starts_at <= a.starts_at + HOUR and a.starts_at < incident.ends_at + 6 * HOUR]
        assert about, f"{incident.name} did not fire"
        kinds = {a.kind for a in about}
        assert (incident.kind in kinds) or (incident.kind == "shift" and "surge" in kinds), f"{incident.name}: {kinds}"
        explained = [alerts.explain(with_labels, a.id) for a in about]
        assert any(why["by_topic"][0]["name"] == incident.topic for why in explained), f"{incident.name}: topic"
        assert any({why["by_ticker"][0]["name"]} & set(incident.tickers) for why in explained), f"{incident.name}: company"
        assert any(why["top"][0]["story_id"] == incident.top_story for why in explained), f"{incident.name}: story"
    with_labels.close()
