"""A series as a person or a program brings it: timestamps and values, the rows that cannot be used named and kept in their place.

Reading is bounded in bytes and rows. Nothing here knows what the series is for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fmcore.data.uploads import UploadError, bytes_of, column, decode, names_of, table

MAX_BYTES = 200_000_000
MAX_ROWS = 2_000_000
TIME_NAMES = ("timestamp", "time", "date", "datetime")
VALUE_NAMES = ("value", "count", "y")
EARLIEST, LATEST = pd.Timestamp("1900-01-01"), pd.Timestamp("2200-01-01")


@dataclass(frozen=True)
class Series:
    """frame: timestamp (datetime64, UTC where the text names a zone; NaT where unusable) and value (float64, NaN where unusable).

    cells: the table as it came, for who writes it back. bad: (row number from 1, why) of each row that cannot be used.
    """

    frame: pd.DataFrame
    cells: pd.DataFrame
    bad: tuple[tuple[int, str], ...]


def read_series(source: bytes | Path, *, max_bytes: int = MAX_BYTES, max_rows: int = MAX_ROWS) -> Series:
    """A CSV file with the columns timestamp and value; other columns are kept in cells. Raises UploadError on what is no such table."""
    content, _ = decode(bytes_of(source, max_bytes))
    header, rows = table(content, max_rows)
    named = [name.strip().casefold() for name in header]
    at_time, at_value = column(named, TIME_NAMES), column(named, VALUE_NAMES)
    for what, at, names in (("times", at_time, TIME_NAMES), ("values", at_value, VALUE_NAMES)):
        if at is None:
            found = ", ".join(repr(name.strip()[:30]) for name in header[:8])
            raise UploadError(f"There is no column with {what}; the first row is: {found}.", f"Name a column {names_of(names)}.")
    width = len(header)
    cells = pd.DataFrame([[*row[:width], *[""] * (width - len(row))] for row in rows], columns=header, dtype="str")
    odd = {n: f"it has {len(row)} cells where the first row has {width}" for n, row in enumerate(rows, 1) if len(row) != width}
    read = as_series(cells.iloc[:, at_time].tolist(), cells.iloc[:, at_value].tolist())
    read.frame.loc[[n - 1 for n in odd], "value"] = math.nan  # shifted cells are not guessed at
    return Series(read.frame, cells, tuple(sorted({**dict(read.bad), **odd}.items())))


def as_series(times: Sequence[Any], values: Sequence[Any]) -> Series:
    """Times (ISO 8601 and its like) and values (numbers or their text) side by side; what cannot be read is missing, and named."""
    texts = pd.Series(["" if t is None else str(t).strip() for t in times], dtype="str")
    at = pd.to_datetime(texts, utc=True, errors="coerce", format="mixed").dt.tz_localize(None)
    at = at.where((at >= EARLIEST) & (at < LATEST))
    numbers = pd.Series([_number(v) for v in values], dtype="float64")
    bad: list[tuple[int, str]] = []
    for n in (at.isna() | numbers.isna()).to_numpy().nonzero()[0].tolist():
        what = f"the time {texts[n][:40]!r} cannot be read" if pd.isna(at[n]) else f"the value {str(values[n])[:40]!r} is no finite number"
        bad.append((n + 1, what))
    frame = pd.DataFrame({"timestamp": at, "value": numbers})
    return Series(frame, frame, tuple(bad))


def _number(value: Any) -> float:
    """A finite number, or NaN."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) and not isinstance(value, bool) else math.nan
