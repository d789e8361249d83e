"""Dates of sources: placed exactly, or refused; a zone is never guessed."""

import datetime as dt
import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcore.data import dates

NOW = dt.datetime(2026, 11, 24, 9, tzinfo=dt.UTC)


def place(written, **how):
    return dates.place(written, seen_at=NOW, **how).isoformat().removesuffix("+00:00")


def reason(written, **how):
    with pytest.raises(dates.BadDate) as refused:
        dates.place(written, seen_at=NOW, **how)
    return refused.value.message


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Tue, 24 Nov 2026 07:00:00 GMT", "2026-11-24T07:00:00"),
        ("Tue, 24 Nov 2026 07:00:00 +0530", "2026-11-24T01:30:00"),
        ("24 Nov 2026 07:00 -0500", None),
        ("Tue, 24 Nov 2026 07:00:00 -0000", "2026-11-24T07:00:00"),
        ("Mon, 23 Nov 2026 07:00:00 EST", "2026-11-23T12:00:00"),
        ("2026-11-24T07:00:00Z", "2026-11-24T07:00:00"),
        ("2026-11-24T07:00:00.123456+01:00", "2026-11-24T06:00:00.123456"),
        ("2026-11-24 07:00:00 +01:00", "2026-11-24T06:00:00"),
        ("2026-11-24 07:00 UTC", "2026-11-24T07:00:00"),
        ("2026-11-24T09:05:00Z", "2026-11-24T09:00:00"),  # a clock that runs ahead a little is set back to ours
        # the zone's name says which of the two 02:30 it is
        ("Sun, 25 Oct 2026 02:30:00 CEST", "2026-10-25T00:30:00"),
        ("Sun, 25 Oct 2026 02:30:00 CET", "2026-10-25T01:30:00"),
        ("2026-07-01 12:00 CEST", "2026-07-01T10:00:00"),
        ("2026-07-01 12:00 BST", "2026-07-01T11:00:00"),
    ],
)
def test_a_date_with_its_zone_is_placed(written, expected):
    if expected is None:
        assert reason(written) == dates.FUTURE
    else:
        assert place(written) == expected


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("Tue, 24 Nov 2026 07:00:00", dates.NO_ZONE),
        ("2026-11-24T07:00:00", dates.NO_ZONE),
        ("2026-11-24", dates.NO_ZONE),
        ("Wed, 01 Jul 2026 12:00:00 IST", dates.NO_ZONE),  # India, Israel or Ireland
        ("2026-03-29 02:30 CET", dates.NOT_A_TIME),  # skipped
        ("Sun, 29 Mar 2026 02:30:00 CEST", dates.NOT_A_TIME),
        ("Wed, 01 Jul 2026 12:00:00 CET", dates.NOT_A_TIME),  # goes by CEST then: what was meant is a guess
        ("Fri, 01 Jan 2999 00:00:00 GMT", dates.FUTURE),
        ("2026-11-24T09:11:00Z", dates.FUTURE),
        ("9999-12-31T23:59:59-14:00", dates.FUTURE),
        ("Thu, 01 Jan 1970 00:00:00 GMT", dates.ANCIENT),
        ("0001-01-01T00:00:00+14:00", dates.ANCIENT),
        ("0000-01-01T00:00:00Z", dates.UNREADABLE),
        ("Tue, 24 Nov 2026 25:00:00 GMT", dates.UNREADABLE),
        ("24/11/2026 07:00", dates.UNREADABLE),
        ("1732435200", dates.UNREADABLE),
        ("yesterday", dates.UNREADABLE),
        ("NaT", dates.UNREADABLE),
        (float("nan"), dates.UNREADABLE),
        ("x" * 1000, dates.UNREADABLE),
    ],
)
def test_a_date_that_would_have_to_be_guessed_is_refused(written, why):
    assert reason(written) == why


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize(("skipped", "twice"), [("2026-03-29T02:30", "2026-10-25T02:30"), ("2026-03-08T02:30", "2026-11-01T01:30")])
def test_on_both_clock_changes_a_local_time_is_placed_or_refused(zone, skipped, twice):
    berlin_change = skipped == "2026-03-29T02:30"
    if berlin_change == (zone == "Europe/Berlin"):
        assert reason(skipped, zone=zone) == reason(twice, zone=zone) == dates.NOT_A_TIME
    else:
        assert place(skipped, zone=zone) and place(twice, zone=zone)


def test_the_zone_a_person_names_is_used_only_where_none_is_written():
    assert place("2026-11-24 07:00", zone="Europe/Berlin") == "2026-11-24T06:00:00"
    assert place("2026-11-24 07:00 UTC", zone="Europe/Berlin") == "2026-11-24T07:00:00"
    assert reason("2026-11-24 07:00", zone="Mars/Base") == dates.NO_ZONE


@given(st.datetimes(min_value=dt.datetime(1990, 1, 3), max_value=dt.datetime(2026, 11, 20)), st.integers(-14 * 60, 14 * 60))
def test_every_way_to_write_a_moment_gives_that_moment(moment, minutes):
    exact = moment.replace(microsecond=0, tzinfo=dt.timezone(dt.timedelta(minutes=minutes)))
    ways = [
        exact.isoformat(),
        exact.isoformat(" "),
        email.utils.format_datetime(exact),
        exact.strftime("%d %b %Y %H:%M:%S %z"),
        exact.strftime("%Y-%m-%d %H:%M:%S %z"),
    ]
    assert {dates.place(way, seen_at=NOW) for way in ways} == {exact}


@given(st.one_of(st.text(max_size=60), st.datetimes(), st.datetimes(timezones=st.timezones()), st.none(), st.floats(), st.integers()))
def test_whatever_is_written_is_placed_in_utc_or_refused(written):
    try:
        placed = dates.place(written, seen_at=NOW)
    except dates.BadDate as refused:
        assert refused.message in (dates.UNREADABLE, dates.NO_ZONE, dates.NOT_A_TIME, dates.FUTURE, dates.ANCIENT)
    else:
        assert placed.tzinfo == dt.UTC and dates.EARLIEST <= placed <= NOW
