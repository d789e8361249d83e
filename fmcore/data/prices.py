"""Prices: closing prices of tickers, read from a table and stored once.

Owns the rows of `prices`. A price that is no positive finite number, a date that cannot be placed and a ticker that is none are
refused and counted. A daily price stands at 00:00 UTC of its day; a later reading of the same source takes the earlier one's place.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Callable, Sequence

import pandas as pd

from fmcore import clock
from fmcore.data import dates, tickers, uploads
from fmcore.data.documents import Intake
from fmcore.data.uploads import UploadError
from fmcore.store.store import Store, Transaction

MAX_PRICE = 1e7
BAD_TICKER, NOT_A_NUMBER, NOT_POSITIVE, TOO_LARGE = (
    "ticker not understood",
    "price is not a finite number",
    "price is zero or negative",
    f"price above {MAX_PRICE:,.0f}",
)
TICKER_NAMES, DATE_NAMES, CLOSE_NAMES = (
    ("ticker", "symbol"),
    ("date", "priced_at", "timestamp", "time"),
    ("close", "price", "closing price"),
)


def take_in(
    store: Store,
    raw: bytes,
    *,
    source: str,
    now: dt.datetime | None = None,
    max_bytes: int = uploads.MAX_BYTES,
    max_rows: int = 1_000_000,
    also: Callable[[Transaction, Intake], None] | None = None,
) -> Intake:
    """Store the prices of a CSV file with the columns ticker, date and close, in one transaction; the same file again adds nothing.

    also(tx, what became of all rows) runs in that transaction. Raises UploadError for a file that is no such table, StoreError.
    """
    frame, part = read(raw, now=now or clock.now(), max_bytes=max_bytes, max_rows=max_rows)
    with store.write() as tx:
        n_new = _merge(tx, frame, source)
        whole = Intake(**{**part.__dict__, "n_new": n_new, "n_known": part.n_seen - part.n_refused - n_new, "outlets": (source,)})
        if also:
            also(tx, whole)
    return whole


def read(raw: bytes, *, now: dt.datetime, max_bytes: int = uploads.MAX_BYTES, max_rows: int = 1_000_000) -> tuple[pd.DataFrame, Intake]:
    """(frame ticker, priced_at (naive UTC), close; what was refused). The last row of a ticker and moment counts. Raises UploadError."""
    content, _ = uploads.decode(uploads.bytes_of(raw, max_bytes))
    header, rows = uploads.table(content, max_rows)
    named = [name.strip().casefold() for name in header]
    places = [uploads.column(named, accepted) for accepted in (TICKER_NAMES, DATE_NAMES, CLOSE_NAMES)]
    if None in places:
        found = ", ".join(repr(name.strip()[:30]) for name in header[:8])
        raise UploadError(f"The columns ticker, date and close are needed; the first row is: {found}.", "Name the columns so.")
    kept: dict[tuple[str, dt.datetime], float] = {}
    refusals: Counter[str] = Counter()
    refused = []
    for n, row in enumerate(rows):
        found = _price(row, places, now) if len(row) == len(header) else "row does not fit the header"
        if isinstance(found, str):
            refusals[found] += 1
            refused += [(n, found)] if len(refused) < 100 else []
        else:
            kept[found[:2]] = found[2]
    columns = {"ticker": [t for t, _ in kept], "priced_at": [clock.to_store(at) for _, at in kept], "close": list(kept.values())}
    frame = pd.DataFrame(columns).astype({"ticker": "object", "priced_at": "datetime64[us]", "close": "float64"})
    newest = max((at for _, at in kept), default=None)
    return frame, Intake(len(rows), n_refused=refusals.total(), refusals=dict(refusals), refused=tuple(refused), newest_at=newest)


def _price(row: Sequence[str], places: Sequence[int], now: dt.datetime) -> tuple[str, dt.datetime, float] | str:
    """(ticker, moment, close) of a row, or why it is refused."""
    ticker, written, number = (row[at].strip() for at in places)
    ticker = tickers.normal(ticker)
    if not ticker:
        return BAD_TICKER
    try:
        close = float(number)
    except ValueError:
        return NOT_A_NUMBER
    if not math.isfinite(close):
        return NOT_A_NUMBER
    if close <= 0 or close > MAX_PRICE:
        return NOT_POSITIVE if close <= 0 else TOO_LARGE
    try:
        day = len(written) == 10 and written[4] == written[7] == "-"
        return ticker, dates.place(f"{written}T00:00:00+00:00" if day else written, seen_at=now), close
    except dates.BadDate as error:
        return error.message


def _merge(tx: Transaction, frame: pd.DataFrame, source: str) -> int:
    """Put the prices in the place of what the source said of the same tickers and moments; returns how many say something new."""
    if frame.empty:
        return 0
    low, high = frame["priced_at"].min().to_pydatetime(), frame["priced_at"].max().to_pydatetime()
    there = tx.execute("SELECT ticker, priced_at, close FROM prices WHERE source = ? AND priced_at BETWEEN ? AND ?", [source, low, high])
    known = {(ticker, at): close for ticker, at, close in there}
    keys = list(zip(frame["ticker"], frame["priced_at"].dt.to_pydatetime(), strict=True))
    is_new = [known.get(key) != close for key, close in zip(keys, frame["close"], strict=True)]
    changed = [key for key, new in zip(keys, is_new, strict=True) if new and key in known]
    tx.executemany("DELETE FROM prices WHERE source = ? AND ticker = ? AND priced_at = ?", [[source, *key] for key in changed])
    fresh = frame[is_new]
    if len(fresh):
        tx.insert_frame("prices", fresh.assign(source=source))
    return len(fresh)
