"""Time crosses the store's border aware on this side, naive UTC on that."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcore import clock


@given(st.datetimes(min_value=dt.datetime(1970, 1, 2), max_value=dt.datetime(2100, 1, 1), timezones=st.timezones()))
def test_a_moment_survives_the_store(moment):
    # as timestamps: Python calls a moment in a repeated hour unequal to itself in another zone
    assert clock.from_store(clock.to_store(moment)).timestamp() == moment.timestamp()


def test_a_naive_moment_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        clock.to_store(dt.datetime(2026, 1, 1))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.42, "0.4 s"), (38, "38 s"), (380, "6 min 20 s"), (3600 * 3 + 300, "3 h 5 min"), (86400 * 12, "12 d"), (7200, "2 h")],
)
def test_a_span_is_said_with_its_unit(seconds, words):
    assert clock.duration(seconds) == words


def test_ago_knows_past_and_future():
    at = dt.datetime(2026, 11, 23, 12, tzinfo=clock.UTC)
    assert clock.ago(at - dt.timedelta(minutes=4), at=at) == "4 min ago"
    assert clock.ago(at + dt.timedelta(hours=2), at=at) == "in 2 h"
    assert clock.ago(None) == "never"
