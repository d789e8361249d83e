"""The only door to DuckDB: one file, one owning process, one write path, many readers.

A write is a transaction under one process-wide lock, so writers never conflict; a read is a cursor of its own, so
readers never wait for writers. Non-finite numbers are refused at the door, because `NaN > 3` is true in DuckDB.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from fmcore import clock
from fmcore.nouns import FMError
from fmcore.store.schema import MIGRATIONS

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("fm.store")

MEMORY_MB = 2_048
"""What DuckDB may hold in memory, at most half of the machine's: models and pages need the rest. What sorts more than that goes by way of
a file beside the database."""


class StoreError(FMError):
    """The database cannot be opened or written."""


class StoreLocked(StoreError):
    """Another process owns the database file; `pid` is that process, where DuckDB names it."""

    def __init__(self, message: str, hint: str, pid: int | None):
        super().__init__(message, hint)
        self.pid = pid


class NotFinite(StoreError):
    """A NaN or an infinity was about to be stored."""


class Transaction:
    """A write transaction: `execute` and `executemany` with bound parameters only."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection):
        self._cursor = cursor

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple]:
        """Run one statement; returns its rows, where it has any."""
        return self._cursor.execute(sql, _checked(params)).fetchall()

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row of parameters; no rows is no work."""
        if rows:
            self._cursor.executemany(sql, [_checked(row) for row in rows])

    def insert_frame(self, table: str, frame: pd.DataFrame) -> None:
        """Append a DataFrame whose columns are named like the table's; refuses NaN and infinities in float columns."""
        if not re.fullmatch(r"[a-z_]+", table):
            raise StoreError(f"{table!r} is not a table name")
        for name, column in frame.select_dtypes("floating").items():
            if not column.map(math.isfinite).all():
                raise NotFinite(f"column {name} of {table} holds a number that is not finite", "Drop or repair those rows first.")
        self._cursor.register("incoming_frame", frame)
        try:
            self._cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming_frame")
        finally:
            self._cursor.unregister("incoming_frame")


class Store:
    """The database under `home` (a folder made with mode 0700); closed means closed. memory_mb bounds what DuckDB holds in
    memory; what it lets go is read from the disk again.

    Raises StoreLocked when another process owns the file after `wait_s` seconds, StoreError when the folder or file
    cannot be used. Both carry a sentence that says what to do.
    """

    def __init__(self, home: str | os.PathLike, *, wait_s: float = 5.0, memory_mb: int = MEMORY_MB):
        self.home = Path(home).absolute()
        self.path = self.home / "fm.duckdb"
        self._memory_mb = min(memory_mb, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2_000_000)
        self._write_lock = threading.RLock()
        self.n_commits = 0  # what was read while this stood still is still true: readers may key a cache on it
        _make_home(self.home)
        self._closed = False
        self._connection: duckdb.DuckDBPyConnection | None = self._open(wait_s)
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    def _open(self, wait_s: float) -> duckdb.DuckDBPyConnection:
        config = {
            "storage_compatibility_version": "v1.5.0",
            "python_enable_replacements": False,
            "memory_limit": f"{self._memory_mb}MB",
        }
        deadline = time.monotonic() + wait_s
        while True:
            try:
                connection = duckdb.connect(str(self.path), config=config)
                quoted = str(self.home).replace("'", "''")
                connection.execute(f"SET allowed_directories = ['{quoted}']")  # Parquet lies here: backups, run folders
                connection.execute("SET enable_external_access = false")
                connection.execute("SET lock_configuration = true")
                self.path.chmod(0o600)
                return connection
            except duckdb.IOException as error:
                if "lock" not in str(error).lower():
                    raise StoreError(
                        f"{self.path} cannot be opened: {error}", "See docs/operating.md, 'When the database does not open'."
                    ) from None
                if time.monotonic() < deadline:  # the server before this one may still be stopping
                    time.sleep(0.1)
                    continue
                found = re.search(r"PID (\d+)", str(error))
                pid = int(found[1]) if found else None
                who = f"process {pid}" if pid else "another process"
                raise StoreLocked(
                    f"{self.path} is in use by {who}.",
                    f"Only one server can own it: stop that one{f' (kill {pid})' if pid else ''}, or set FM_HOME to another folder.",
                    pid,
                ) from None
            except duckdb.Error as error:
                raise StoreError(
                    f"{self.path} cannot be opened: {error}", "See docs/operating.md, 'When the database does not open'."
                ) from None

    def _migrate(self) -> None:
        """Apply what is missing, each migration in one transaction, then a CHECKPOINT: no DDL waits in the log."""
        with self.write() as tx:
            tx.execute("CREATE TABLE IF NOT EXISTS migrations (name VARCHAR NOT NULL, applied_at TIMESTAMP NOT NULL)")
        done = {row["name"] for row in self.rows("SELECT name FROM migrations")}
        unknown = done - {name for name, _ in MIGRATIONS}
        if unknown:
            raise StoreError(
                f"{self.path} was written by a newer FM Desk ({', '.join(sorted(unknown))}).",
                "Update FM Desk, or set FM_HOME to another folder.",
            )
        for name, statements in MIGRATIONS:
            if name in done:
                continue
            with self.write() as tx:
                for statement in statements:
                    tx.execute(statement)
                tx.execute("INSERT INTO migrations VALUES (?, ?)", [name, clock.to_store(clock.now())])
            self.checkpoint()
            log.info("migration %s applied", name)

    @contextlib.contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor of its own for reading; sees one consistent snapshot a statement. Raises StoreError."""
        with self._in_words():
            cursor = self._usable().cursor()
            try:
                yield cursor
            finally:
                cursor.close()

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction: all of it is on disk when the block ends, or none of it. Writers take turns. Raises StoreError."""
        with self._write_lock, self._in_words():
            cursor = self._usable().cursor()
            try:
                cursor.execute("BEGIN")
                yield Transaction(cursor)
                cursor.execute("COMMIT")
                self.n_commits += 1
            except BaseException:
                with contextlib.suppress(duckdb.Error):  # the failed COMMIT may have ended the transaction already
                    cursor.execute("ROLLBACK")
                raise
            finally:
                cursor.close()

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        """DuckDB's errors as StoreError. A fatal one (a checkpoint on a full disk) ends the connection: it is opened anew
        at the next use, and what was committed is there again."""
        try:
            yield
        except duckdb.Error as error:
            text = str(error).strip()
            if isinstance(error, duckdb.FatalException) or "has been invalidated" in text:
                with self._write_lock:
                    if self._connection is not None:
                        self._connection.close()
                        self._connection = None
            full = re.search(r"could not write|no space|file too large|disk", text, re.IGNORECASE)
            room = "Make room on the disk; what was stored before is safe."
            hint = room if full else "See docs/operating.md, 'When the database does not open'."
            raise StoreError(f"The database refused: {text[:500]}", hint) from error

    def _usable(self) -> duckdb.DuckDBPyConnection:
        connection = self._connection
        if connection is not None and not self._closed:
            return connection
        with self._write_lock:
            if self._closed:
                raise StoreError("The database is closed.", "The desk is stopping; start it again.")
            if self._connection is None:
                self._connection = self._open(1.0)
            return self._connection

    def rows(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        """The rows of a query as dictionaries; parameters are bound, timestamps come back naive UTC."""
        with self.read() as cursor:
            cursor.execute(sql, _checked(params))
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def frame(self, sql: str, *params: Any) -> pd.DataFrame:
        """The rows of a query as a DataFrame."""
        with self.read() as cursor:
            return cursor.execute(sql, _checked(params)).df()

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the main file."""
        with self._write_lock, self.read() as cursor:
            cursor.execute("CHECKPOINT")

    def close(self) -> None:
        """Wait for the writer at work, then close; safe to repeat."""
        deadline = time.monotonic() + 5
        with self._write_lock:
            self._closed = True
            while self._connection is not None:
                try:
                    self._connection.close()
                    self._connection = None
                except duckdb.ResourceInUseException:  # a reader is taking its cursor this very moment
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)


def to_json(value: Any) -> str:
    """JSON as the store keeps it. Raises NotFinite on NaN and infinities, which are not JSON."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str, sort_keys=True)
    except ValueError as error:
        raise NotFinite(f"a value that is not finite cannot be stored ({error})") from None


def _checked(params: Sequence[Any]) -> list[Any]:
    for value in params:
        if isinstance(value, float) and not math.isfinite(value):
            raise NotFinite(f"{value} is not a finite number and was not stored", "Drop or repair that value first.")
    return list(params)


def _make_home(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = home / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreError(
            f"{home} cannot be written ({error.strerror}).", "Set FM_HOME to a folder you own, or make room on the disk."
        ) from None
