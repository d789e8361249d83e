"""The surge detector on streams whose truth is known: what fires, what it is called, and what must never fire."""

import datetime as dt
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcore.nouns import Counts
from fmcore.sentiment.surge import MARKET, BadCounts, Surge, SurgeSettings

START = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
SOURCES = tuple("abcdefgh")


def counts(n_negative: int, n_stories: int, *, sources=SOURCES, rng=None) -> Counts:
    by_source: dict[str, int] = {}
    for i in range(n_negative):
        source = sources[int(rng.integers(len(sources)))] if rng is not None else sources[i % len(sources)]
        by_source[source] = by_source.get(source, 0) + 1
    return Counts(n_negative, n_stories, n_stories, 0.5 * (n_stories - 2 * n_negative), by_source)


def market(hours: int, *, seed: int = 0, keys: int = 6, extra=None):
    """Buckets of a made-up market with a daily and a weekly rhythm; extra(hour, rng) adds {key number: (negative, other, sources)}."""
    rng = np.random.default_rng(seed)
    for hour in range(hours):
        at = START + hour * HOUR
        level = (0.4 + math.exp(-(((at.hour - 13) / 4) ** 2))) * (0.4 if at.weekday() >= 5 else 1.0) * rng.gamma(10, 0.1)
        added = extra(hour, rng) if extra else {}
        bucket, total = {}, [0, 0, {}, 0.0]
        for key in range(keys):
            negative, other = int(rng.poisson(0.5 * level)), int(rng.poisson(1.5 * level))
            usual = counts(negative, negative + other, rng=rng)
            more_negative, more_other, sources = added.get(key, (0, 0, SOURCES))
            burst = counts(more_negative, more_negative + more_other, sources=sources)
            by_source = {s: usual.by_source.get(s, 0) + burst.by_source.get(s, 0) for s in SOURCES}
            n, k = usual.n_stories + burst.n_stories, usual.n_negative + burst.n_negative
            if n:
                bucket[f"ticker:{key}"] = Counts(k, n, n, usual.sum_net + burst.sum_net, by_source)
            total = [
                total[0] + k,
                total[1] + n,
                {s: total[2].get(s, 0) + by_source[s] for s in SOURCES},
                total[3] + usual.sum_net + burst.sum_net,
            ]
        bucket[MARKET] = Counts(total[0], total[1], total[1], total[3], total[2])
        yield at, hour, bucket


def fired(stream, detector=None):
    detector = detector or Surge()
    return [(hour, key, r) for at, hour, bucket in stream for key, r in detector.update(at, bucket).items() if r.fires]


def test_many_negative_stories_of_one_key_are_a_surge_of_that_key_at_once():
    found = fired(market(515, extra=lambda hour, rng: {2: (9, 1, SOURCES)} if hour in (500, 501) else {}))
    assert ("ticker:2", "surge") in {(key, r.kind) for hour, key, r in found if hour == 500}
    assert {hour for hour, key, r in found if key == "ticker:2"} <= set(range(500, 508))
    assert all(key in ("ticker:2", MARKET) for _, key, _ in found)
    reading = next(r for _, key, r in found if key == "ticker:2")
    assert reading.excess == pytest.approx(reading.value - reading.expected) and reading.value >= 9 and reading.window_s == 3600
    assert f"{reading.value:.0f} negative of" in reading.reason and 0.5 <= reading.score <= 1


def test_a_busy_day_of_all_kinds_of_news_is_no_surge():
    def busy(hour, rng):
        return (
            {key: (int(rng.poisson(1.5)), int(rng.poisson(4.5)), tuple(rng.permutation(SOURCES))) for key in range(6)}
            if 500 <= hour < 524
            else {}
        )

    assert not fired(market(515, extra=busy))


def test_a_key_with_much_news_of_its_usual_mixture_is_no_surge():
    assert not fired(market(515, extra=lambda hour, rng: {1: (4, 12, SOURCES)} if hour == 500 else {}))


def test_one_source_alone_is_a_flood_and_never_a_surge():
    found = fired(market(515, extra=lambda hour, rng: {3: (25, 0, ("h",))} if hour in (500, 501) else {}))
    assert {r.kind for _, _, r in found} == {"flood"}
    assert all("one source, h" in r.reason for _, _, r in found)


def test_a_slow_leak_is_a_shift_of_that_key():
    def leak(hour, rng):
        return {4: (int(rng.poisson(0.8)), 0, SOURCES)} if 500 <= hour < 644 else {}

    found = fired(market(645, extra=leak))
    assert {key for _, key, _ in found} <= {"ticker:4", MARKET}
    reading = next(r for _, key, r in found if r.kind == "shift" and key == "ticker:4")
    assert reading.value < reading.expected and "index" in reading.reason


def test_quiet_markets_stay_quiet():
    assert sum(len({(key, hour // 24) for hour, key, _ in fired(market(480, seed=seed, keys=19))}) for seed in range(2)) <= 2


def test_nothing_fires_before_the_warm_up_is_over_for_market_and_for_key():
    assert not fired(market(72, extra=lambda hour, rng: {0: (40, 0, SOURCES)} if hour == 60 else {}))
    late = Surge()
    for at, _, bucket in market(20 * 24):
        late.update(at, bucket)
    new = late.update(START + 480 * HOUR, {"ticker:new": counts(30, 30), MARKET: counts(35, 60)})["ticker:new"]
    assert not new.fires and new.kind == ""


@given(st.integers(1, 40), st.integers(0, 40), st.integers(80, 200))
@settings(max_examples=6, deadline=None)
def test_a_constant_never_fires(negative, other, hours):
    detector = Surge()
    for hour in range(hours):
        c = counts(negative, negative + other)
        assert not any(r.kind for r in detector.update(START + hour * HOUR, {MARKET: c, "ticker:A": c}).values())


def test_a_gap_is_unknown_and_does_not_fire():
    stream = list(market(480))
    whole = fired(stream)
    holed = fired([b for b in stream if not 300 <= b[1] < 420])
    silent = fired([(at, hour, {} if 300 <= hour < 420 else bucket) for at, hour, bucket in stream])
    assert whole == holed == silent == []


def test_a_reading_does_not_change_with_what_comes_later():
    stream = list(market(300, extra=lambda hour, rng: {2: (9, 1, SOURCES)} if hour == 200 else {}))
    other = list(market(300, seed=9))
    a, b = Surge(), Surge()
    first = [a.update(at, bucket) for at, _, bucket in stream]
    second = [b.update(at, bucket) for at, _, bucket in stream[:210] + other[210:]]
    assert first[:210] == second[:210]


def test_an_incident_does_not_raise_what_is_expected_for_long():
    plain, hit = Surge(), Surge()
    for (at, _, bucket), (_, _, burst) in zip(
        market(480), market(480, extra=lambda hour, rng: {2: (30, 0, SOURCES)} if 300 <= hour < 303 else {}), strict=True
    ):
        usual, after = plain.update(at, bucket)["ticker:2"], hit.update(at, burst)["ticker:2"]
    assert after.expected < 1.5 * usual.expected + 0.1


def test_for_buckets_waits_and_a_single_bucket_does_not_fire():
    def fires(hours):
        stream = market(425, extra=lambda hour, rng: {2: (6, 0, SOURCES)} if 400 <= hour < 400 + hours else {})
        return [hour for hour, key, _ in fired(stream, Surge(SurgeSettings(for_buckets=12))) if key == "ticker:2"]

    assert not fires(1) and min(fires(20)) >= 411


def test_the_floor_holds():
    stream = market(515, extra=lambda hour, rng: {2: (9, 0, SOURCES)} if hour == 500 else {})
    assert not [r for _, key, r in fired(stream, Surge(SurgeSettings(floor=20))) if r.kind in ("surge", "flood")]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_count_is_refused(bad):
    with pytest.raises(BadCounts, match="no counts"):
        Surge().update(START, {MARKET: Counts(0, 1, 1, bad)})
    with pytest.raises(BadCounts):
        Surge().update(START, {MARKET: Counts(2, 1, 1, 0.0)})


def test_a_burst_that_is_over_leaves_no_shift_behind():
    found = fired(market(600, extra=lambda hour, rng: {2: (4, 0, SOURCES)} if 500 <= hour < 509 else {}))
    assert {r.kind for _, key, r in found if key == "ticker:2"} == {"surge"}


def test_other_buckets_than_hours_work_alike():
    def in_steps(per_hour):
        detector = Surge(SurgeSettings(bucket_s=3600 // per_hour))
        for at, hour, bucket in market(21 * 24, keys=3, extra=lambda hour, rng: {2: (9, 1, SOURCES)} if hour in (450, 451) else {}):
            parts = [bucket] + [{key: Counts(0, 0, 0, 0.0) for key in bucket}] * (per_hour - 1)
            for n, part in enumerate(parts):
                for key, r in detector.update(at + n * HOUR / per_hour, part).items():
                    if r.fires:
                        yield hour, key, r.kind

    assert {(key, kind) for _, key, kind in in_steps(4) if key != MARKET} == {("ticker:2", "surge")}


def test_settings_out_of_range_are_refused():
    for wrong in ({"sensitivity": 1.1}, {"floor": 0}, {"for_buckets": 0}, {"bucket_s": 0}, {"bucket_s": 90_000}):
        with pytest.raises(BadCounts):
            SurgeSettings(**wrong)


def test_a_more_sensitive_detector_fires_no_later():
    def first(sensitivity):
        stream = market(500, extra=lambda hour, rng: {2: (3, 0, SOURCES)} if hour >= 480 else {})
        return min(
            (hour for hour, key, _ in fired(stream, Surge(SurgeSettings(sensitivity=sensitivity))) if key == "ticker:2"), default=720
        )

    assert first(0.8) <= first(0.2)


def test_time_goes_forward_only():
    detector = Surge()
    detector.update(START, {MARKET: counts(1, 2)})
    for at in (START, START - HOUR, START.replace(tzinfo=None)):
        with pytest.raises(BadCounts):
            detector.update(at, {MARKET: counts(1, 2)})
