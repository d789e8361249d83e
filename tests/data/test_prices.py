"""Prices: stored once, corrected by a later reading, and no number that is none gets in."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcore.data import dates, prices
from fmcore.data.uploads import UploadError
from fmcore.store.store import Store

NOW = dt.datetime(2026, 11, 24, 9, tzinfo=dt.UTC)


@pytest.fixture
def store(tmp_path):
    held = Store(tmp_path / "home")
    yield held
    held.close()


def closes(store):
    return [
        (row["ticker"], row["priced_at"].isoformat(), row["close"]) for row in store.rows("SELECT * FROM prices ORDER BY ticker, priced_at")
    ]


def test_a_daily_price_stands_at_midnight_of_its_day_and_once(store):
    raw = b"ticker,Date,Open,Close\n$brk-b,2026-11-20,1,400.5\nAAPL,2026-11-20,1,99\nAAPL,2026-11-21,1,101\n"
    came = prices.take_in(store, raw, source="px", now=NOW)
    assert (came.n_seen, came.n_new, came.n_refused, came.newest_at) == (3, 3, 0, dt.datetime(2026, 11, 21, tzinfo=dt.UTC))
    assert closes(store) == [
        ("AAPL", "2026-11-20T00:00:00", 99.0),
        ("AAPL", "2026-11-21T00:00:00", 101.0),
        ("BRK.B", "2026-11-20T00:00:00", 400.5),
    ]
    again = prices.take_in(store, raw.replace(b",101\n", b",102\n"), source="px", now=NOW)
    assert (again.n_new, again.n_known) == (1, 2)
    assert closes(store)[1] == ("AAPL", "2026-11-21T00:00:00", 102.0) and len(closes(store)) == 3


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("AAPL,2026-11-20,NaN", prices.NOT_A_NUMBER),
        ("AAPL,2026-11-20,", prices.NOT_A_NUMBER),
        ("AAPL,2026-11-20,inf", prices.NOT_A_NUMBER),
        ("AAPL,2026-11-20,-inf", prices.NOT_A_NUMBER),
        ("AAPL,2026-11-20,0", prices.NOT_POSITIVE),
        ("AAPL,2026-11-20,-3.5", prices.NOT_POSITIVE),
        ("AAPL,2026-11-20,1e308", prices.TOO_LARGE),
        ("AAPL,2026-11-20,1e999", prices.NOT_A_NUMBER),
        ("no ticker,2026-11-20,5", prices.BAD_TICKER),
        ("AAPL,2999-01-01,5", dates.FUTURE),
        ("AAPL,1970-01-01,5", dates.ANCIENT),
        ("AAPL,2026-11-20T16:00:00,5", dates.NO_ZONE),
        ("AAPL,2026-13-40,5", dates.UNREADABLE),
        ("AAPL,2026-11-20", "row does not fit the header"),
    ],
)
def test_a_row_that_is_no_price_is_refused_and_counted(store, row, reason):
    came = prices.take_in(store, f"ticker,date,close\n{row}\nMSFT,2026-11-20,5\n".encode(), source="px", now=NOW)
    assert (came.n_new, came.refusals, came.refused) == (1, {reason: 1}, ((0, reason),))
    assert [ticker for ticker, _, _ in closes(store)] == ["MSFT"]


def test_a_table_without_the_columns_is_refused(store):
    with pytest.raises(UploadError, match="ticker, date and close are needed"):
        prices.take_in(store, b"symbol,close\nAAPL,1\n", source="px", now=NOW)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.floats().map(str), st.text(max_size=12), st.integers().map(str)))
def test_whatever_stands_in_the_column_the_kept_numbers_are_prices(written):
    raw = f'ticker,date,close\nAAPL,2026-11-20,"{written.replace(chr(34), "")}"\n'.encode("utf-8", "replace")
    try:
        frame, came = prices.read(raw, now=NOW)
    except UploadError:
        return
    assert len(frame) + came.n_refused == came.n_seen == 1
    assert all(0 < close <= prices.MAX_PRICE for close in frame["close"])


def test_the_public_prices_are_read_whole(public_data, store):
    from fmcore.data import replay

    raw = replay.unpacked(public_data / "news_stream" / "stocknet_prices.csv.gz")
    frame, came = prices.read(raw, now=NOW, max_bytes=replay.MAX_FILE_BYTES)
    assert came.n_refused == 0 and frame["ticker"].nunique() == 87 and {"BRK.A", "RDS.B"} <= set(frame["ticker"])
