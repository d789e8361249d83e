"""The detector for any series: what it must find, what it must never call an anomaly, and that it never looks ahead."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fmcore.sentiment import anomaly
from fmcore.sentiment.anomaly import WARM_UP, Detector

START = pd.Timestamp("2026-03-02")
FLOATS = st.floats(allow_nan=True, allow_infinity=True, width=64)


def frame_of(values, *, step="5min", start=START):
    return pd.DataFrame({"timestamp": pd.date_range(start, periods=len(values), freq=step), "value": np.asarray(values, dtype=float)})


def daily(n, *, seed=0, noise=1.0):
    """A daily rhythm with noise, 5 minutes a row."""
    rng = np.random.default_rng(seed)
    return 50 + 20 * np.sin(np.arange(n) * 2 * np.pi / 288) + rng.normal(0, noise, n)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("a peak", lambda x: x.__setitem__(3000, x[3000] + 60)),
        ("a fall", lambda x: x.__setitem__(slice(3000, 3006), 0.0)),
        ("another level", lambda x: x.__setitem__(slice(3000, None), x[3000:] + 25)),
        ("a day without its rhythm", lambda x: x.__setitem__(slice(3000, 3288), 50.0)),
    ],
)
def test_what_departs_from_the_usual_is_found_when_it_begins(what, change):
    values = daily(4000)
    change(values)
    scored = anomaly.score(frame_of(values))
    fired = np.flatnonzero(scored["is_anomaly"])
    assert any(3000 <= at <= 3050 for at in fired), (what, fired)
    assert (fired < 3000).sum() <= 4
    assert (scored["anomaly_score"].between(0, 1)).all() and (scored["is_anomaly"] == (scored["anomaly_score"] >= 0.5)).all()


def test_the_weekday_is_part_of_what_is_expected():
    n = 24 * 7 * 24
    days = (np.arange(n) // 24) % 7 < 5
    values = np.where(days, 100.0, 20.0) + np.random.default_rng(1).normal(0, 2, n)
    at = n - 5 * 24
    values[at : at + 24] = 20.0  # a Wednesday like a Sunday
    scored = anomaly.score(frame_of(values, step="h"))
    fired = np.flatnonzero(scored["is_anomaly"])
    assert any(at <= hour < at + 24 for hour in fired)
    assert scored["expected"].iloc[at - 24] - scored["expected"].iloc[at + 4 * 24 - 24] > 30


def test_an_anomaly_is_reported_once_and_not_as_long_as_it_lasts():
    values = daily(4000)
    values[3000:3200] += 40
    assert anomaly.score(frame_of(values))["is_anomaly"].iloc[3000:3200].sum() <= 5


@given(st.lists(FLOATS, max_size=400), st.integers(0, 400))
@example([1.0] * 200 + [1e308, -1e308, math.nan, math.inf], 50)
@settings(max_examples=20, deadline=None)
def test_whatever_the_values_scores_are_finite_and_those_of_a_prefix_are_the_prefix_of_the_scores(values, cut):
    frame = frame_of(values)
    whole = anomaly.score(frame)
    part = anomaly.score(frame.iloc[:cut])
    pd.testing.assert_frame_equal(whole.iloc[:cut], part)
    assert whole["anomaly_score"].between(0, 1).all() and len(whole) == len(frame)
    assert not whole["is_anomaly"].iloc[:WARM_UP].any()
    missing = ~np.isfinite(frame["value"])
    assert (whole.loc[missing, "anomaly_score"] == 0).all() and not whole.loc[missing, "is_anomaly"].any()


@given(st.floats(-1e300, 1e300), st.integers(0, 600))
@settings(max_examples=15, deadline=None)
def test_a_constant_never_fires(value, n):
    assert not anomaly.score(frame_of([value] * n))["is_anomaly"].any()


@given(st.integers(200, 1400), st.integers(1, 3000))
@settings(max_examples=6, deadline=None)
def test_a_gap_does_not_fire(at, missing):
    frame = frame_of(np.round(50 + 20 * np.sin(np.arange(1500 + missing) * 2 * np.pi / 288), 3))
    holed = pd.concat([frame.iloc[:at], frame.iloc[at + missing :]])
    assert not anomaly.score(holed)["is_anomaly"].any()


def test_missing_values_teach_nothing():
    values = daily(2500)
    values[2200] += 60
    with_holes = np.insert(values, np.arange(100, 2000, 50), np.nan)
    times = frame_of(values)["timestamp"]
    stamps = np.insert(times.to_numpy(), np.arange(100, 2000, 50), times.to_numpy()[np.arange(100, 2000, 50)])
    scored = anomaly.score(pd.DataFrame({"timestamp": stamps, "value": with_holes}))
    kept = scored[~np.isnan(with_holes)].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, anomaly.score(frame_of(values)), check_exact=True)


def test_times_that_repeat_or_go_back_are_rows_like_any_other():
    frame = frame_of(daily(1000))
    frame.loc[500:505, "timestamp"] = frame.loc[500, "timestamp"]
    frame.loc[700, "timestamp"] -= pd.Timedelta(days=3)
    scored = anomaly.score(frame)
    assert len(scored) == 1000 and scored["anomaly_score"].between(0, 1).all()
    assert list(scored["timestamp"]) == list(frame["timestamp"])


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_series_too_short_to_know_anything(n):
    scored = anomaly.score(frame_of([3.0, 1e9][:n]))
    assert list(scored.columns) == ["timestamp", "value", "expected", "anomaly_score", "is_anomaly"]
    assert len(scored) == n and not scored["is_anomaly"].any()


def test_row_by_row_and_in_pieces_is_the_same_as_at_once():
    frame = frame_of(daily(900))
    online, pieces = Detector(), Detector()
    at_once = anomaly.score(frame)
    seconds = frame["timestamp"].astype("int64") / 10 ** {"ns": 9, "us": 6, "s": 0}[np.datetime_data(frame["timestamp"].dtype)[0]]
    rows = [online.update(s, v) for s, v in zip(seconds, frame["value"], strict=True)]
    assert [r.anomaly_score for r in rows] == at_once["anomaly_score"].tolist()
    pd.testing.assert_frame_equal(pd.concat([pieces.score(frame.iloc[:333]), pieces.score(frame.iloc[333:])]), at_once)


def test_one_wild_value_does_not_blind_the_detector():
    values = daily(4000)
    values[1500] = 1e250
    values[3500] += 80
    assert anomaly.score(frame_of(values))["is_anomaly"].iloc[3500:3510].any()


def test_scale_and_unit_do_not_matter():
    values = daily(3000)
    values[2500] += 60
    fired = [np.flatnonzero(anomaly.score(frame_of(values * k))["is_anomaly"]).tolist() for k in (1.0, 1024.0, 2.0**-20)]
    assert fired[0] == fired[1] == fired[2] and 2500 in fired[0]


@pytest.mark.slow
def test_the_state_does_not_grow_with_the_series():
    import tracemalloc

    detector = Detector()
    rng = np.random.default_rng(0)

    def feed(first, n):
        for i, v in enumerate(rng.normal(0, 1, n)):
            detector.update((first + i) * 60.0, v)

    tracemalloc.start()
    feed(0, 25_000)
    before = tracemalloc.get_traced_memory()[0]
    feed(25_000, 40_000)
    assert tracemalloc.get_traced_memory()[0] - before < 200_000
    tracemalloc.stop()
