"""Replay: a dated file played again as news, at a chosen speed; its place is kept to the row.

A file is read once, put in order of time and kept as Parquet below <home>/replay; from then on a look reads only the rows whose time
has come. Owns those files. What is played and when is decided by a Position, which is stored with the documents it stands for.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from fmcore import clock
from fmcore.config import settings
from fmcore.data import dates, tables
from fmcore.data.documents import BATCH, RawItem
from fmcore.nouns import FMError
from fmcore.text import text_hash

STOCKNET = "stocknet_tweets.csv.gz"
MAX_FILE_BYTES = 500_000_000
"""Of a file unpacked. A larger one is split by a person."""
MAX_ROWS = 2_000_000
COLUMNS = ("published", "url", "title", "body", "tickers", "key", "outlet")


class ReplayError(FMError):
    """A file that cannot be played."""


@dataclass(frozen=True)
class Position:
    """How far a replay is: `row` rows are taken in; at the moment looked_at its own clock stood at `at`. Times are aware UTC."""

    row: int
    at: dt.datetime
    looked_at: dt.datetime

    def memory(self) -> dict[str, Any]:
        """As a look notes it."""
        return {name: value.isoformat() if isinstance(value, dt.datetime) else value for name, value in asdict(self).items()}

    @classmethod
    def of(cls, memory: Mapping[str, Any]) -> Position | None:
        """As the last look noted it; None where there was none."""
        if "row" not in memory:
            return None
        return cls(int(memory["row"]), *(dt.datetime.fromisoformat(memory[name]) for name in ("at", "looked_at")))


class Tape:
    """A file in order of time, ready to be played. n_rows, first_at and last_at (aware UTC) say what is on it."""

    def __init__(self, path: Path):
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path)
        self.n_rows = self._file.metadata.num_rows
        self._starts = [0]
        for group in range(self._file.metadata.num_row_groups):
            self._starts.append(self._starts[-1] + self._file.metadata.row_group(group).num_rows)
        self.first_at, self.last_at = (self.rows(n, n + 1)["at"].iloc[0].to_pydatetime() for n in (0, self.n_rows - 1))

    def rows(self, start: int, end: int) -> pd.DataFrame:
        """Rows start to end (not included): COLUMNS, and `at` (aware UTC), the time by which they are in order."""
        end = min(end, self.n_rows)
        wanted = [n for n in range(len(self._starts) - 1) if self._starts[n] < end and self._starts[n + 1] > start]
        if not wanted:
            return pd.DataFrame(columns=["at", *COLUMNS])
        frame = self._file.read_row_groups(wanted).to_pandas()
        frame["at"] = pd.to_datetime(frame["at"], utc=True)
        return frame.iloc[start - self._starts[wanted[0]] : end - self._starts[wanted[0]]]


def tape(home: Path, options: Mapping[str, Any], *, now: dt.datetime) -> Tape:
    """The tape of a replay source's settings, made where it is not there or the file changed. Raises ReplayError, UploadError."""
    path = _path(options)
    try:
        stat = path.stat()
    except OSError as error:
        raise ReplayError(f"{path} cannot be read: {error.strerror}.", "Set FM_DATA_DIR, or put the file where the source says.") from None
    mark = text_hash(f"{path}|{stat.st_size}|{stat.st_mtime_ns}|{options.get('zone')}|1")
    kept = home / "replay" / f"{mark}.parquet"
    if not kept.is_file():
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        _write(_in_order(_items(path, options), options.get("zone") or None, now), kept)
    return Tape(kept)


def due(tape: Tape, position: Position | None, options: Mapping[str, Any], *, now: dt.datetime, resumed_at: dt.datetime) -> Iterator[
    tuple[list[RawItem], Position]
]:  # fmt: skip
    """The items whose time has come since the last look, in slices of BATCH, each with the position after it.

    The replay's clock goes `speed` times as fast as ours and stands still while the source is paused (resumed_at). With nothing to
    play one empty slice says where the clock stands.
    """
    speed = float(options["speed"])
    start = position or Position(0, tape.first_at, now)
    since = max(start.looked_at, resumed_at) if position else now
    reach = tape.last_at if not speed else _later(start.at, speed * max(0.0, (now - since).total_seconds()), tape.last_at)
    row, is_over = start.row, False
    while not is_over:
        frame = tape.rows(row, row + BATCH)
        ready = frame[frame["at"] <= reach]
        is_over = len(ready) < BATCH or row + len(ready) >= tape.n_rows
        row += len(ready)
        last = ready["at"].iloc[-1].to_pydatetime() if len(ready) else start.at
        at = reach if is_over else last
        looked_at = now if is_over or not speed else since + (at - start.at) / speed
        yield [_item(entry, options, tape, start, since) for entry in ready.itertuples()], Position(row, at, looked_at)


def next_at(tape: Tape, position: Position, options: Mapping[str, Any]) -> dt.datetime | None:
    """When the next row's time comes; None when all were played."""
    if position.row >= tape.n_rows:
        return None
    following = tape.rows(position.row, position.row + 1)["at"].iloc[0].to_pydatetime()
    wait_s = (following - position.at).total_seconds() / float(options["speed"]) if options["speed"] else 0.0
    return position.looked_at + dt.timedelta(seconds=min(max(wait_s, 0.0), 86_400 * 365))


def _later(at: dt.datetime, seconds: float, end: dt.datetime) -> dt.datetime:
    return end if seconds >= (end - at).total_seconds() else at + dt.timedelta(seconds=seconds)


def _item(entry: Any, options: Mapping[str, Any], tape: Tape, start: Position, since: dt.datetime) -> RawItem:
    """A row as an item, its date moved as the source's settings say. A date that cannot be placed stays as written, and is refused."""
    published: str | dt.datetime | None = entry.published or None
    if entry.placed and options["dates"] != "original":
        at = entry.at.to_pydatetime()
        if options["dates"] == "as played" and options["speed"]:
            published = since + (at - start.at) / float(options["speed"])
        else:
            published = at + (dt.datetime.fromisoformat(options["added_at"]) - tape.last_at)
    elif entry.placed:
        published = entry.at.to_pydatetime()
    cells = {name: getattr(entry, name) for name in COLUMNS if name not in ("published", "tickers")}
    return RawItem(published=published, tickers=tuple(entry.tickers), **cells)


def _path(options: Mapping[str, Any]) -> Path:
    """The file that settings mean: a known set, or a path below FM_DATA_DIR or FM_HOME. Raises ReplayError."""
    data_dir, home = settings().data_dir, settings().home
    if options.get("dataset") == "stocknet":
        if data_dir is None:
            raise ReplayError(
                "The stocknet tweets are not on this machine: FM_DATA_DIR is not set.", "Set it to the folder of public data sets."
            )
        return data_dir / "news_stream" / STOCKNET
    given = Path(options.get("path") or "")
    if not given.name:
        raise ReplayError("The source names neither a data set nor a file.", "Remove it and add it again.")
    roots = [root.resolve() for root in (data_dir, home) if root is not None]
    real = (roots[0] / given).resolve()
    if not any(real.is_relative_to(root) for root in roots):
        raise ReplayError(f"{given} is not below FM_DATA_DIR or FM_HOME.", f"Put the file into {home / 'incoming'} and give that path.")
    return real


def _items(path: Path, options: Mapping[str, Any]) -> list[RawItem]:
    raw = unpacked(path)
    if options.get("dataset") == "stocknet":
        return list(_tweets(tables.read_documents(raw, max_bytes=MAX_FILE_BYTES, max_rows=MAX_ROWS)))
    return tables.read_documents(raw, max_bytes=MAX_FILE_BYTES, max_rows=MAX_ROWS)


def _tweets(items: list[RawItem]) -> Iterator[RawItem]:
    """StockNet's rows as tweets: one a doc_id, whatever number of tickers it is listed under, each with the link it stands under.

    The list says which cashtag a tweet was found by, which for one letter is often no company ("Beat $C!"): those are left to the text.
    """
    tweets: dict[str, RawItem] = {}
    for item in items:
        held = tweets.get(item.key)
        names = tuple(ticker for ticker in item.tickers if len(ticker) > 1)
        if held is None:
            tweets[item.key] = replace(item, url=f"https://twitter.com/i/web/status/{item.key}", body="", tickers=names)
        else:
            tweets[item.key] = replace(held, tickers=held.tickers + names)
    return iter(tweets.values())


def unpacked(path: Path) -> bytes:
    """A file's bytes, gzip opened, never more than allowed. Raises ReplayError."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.open(file) if packed else contextlib.nullcontext(file) as opened:
                raw = opened.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ReplayError(f"{path.name} cannot be read: {error}.", "Check the file.") from error
    if len(raw) > MAX_FILE_BYTES:
        raise ReplayError(f"{path.name} holds more than {MAX_FILE_BYTES / 1e6:.0f} MB.", "Split it.")
    return raw


def _in_order(items: list[RawItem], zone: str | None, now: dt.datetime) -> pd.DataFrame:
    """Items by their time. One whose date cannot be placed stands where the row before it does. Raises ReplayError."""
    at, placed = [], []
    last = None
    for item in items:
        try:
            last = dates.place(item.published or "", seen_at=now, zone=zone)
            placed.append(True)
        except dates.BadDate:
            placed.append(False)
        at.append(last)
    first = next((moment for moment in at if moment is not None), None)
    if first is None:
        raise ReplayError("No row of the file has a date that can be placed.", "It needs a column published_at, with time zones.")
    columns = {name: [getattr(item, name) for item in items] for name in COLUMNS}
    columns["published"] = [item.published or "" for item in items]
    columns["tickers"] = [list(item.tickers) for item in items]
    moments = pd.Series([clock.to_store(moment or first) for moment in at], dtype="datetime64[us]")
    return pd.DataFrame({"at": moments, "placed": placed, **columns}).sort_values("at", kind="stable", ignore_index=True)


def _write(frame: pd.DataFrame, path: Path) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    frame.to_parquet(part, index=False, row_group_size=5_000)
    os.replace(part, path)
