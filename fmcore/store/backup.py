"""Backups as Parquet files with checksums, the proof that they can be restored, and the way back from a damaged file.

A backup is a folder `<home>/backups/<stamp>`: one file a table, all of one moment, and MANIFEST.json written last. A
folder without a manifest is not a backup. Model folders are not in it: they carry their own manifests.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from fmcore import clock
from fmcore.store.store import Store, StoreError, StoreLocked

MANIFEST = "MANIFEST.json"


class BackupDamaged(StoreError):
    """A backup is incomplete, altered, or does not restore to what was backed up."""


@dataclass(frozen=True)
class Recovery:
    """What was done to a database that would not open, and what that cost. An empty `set_aside` means: nothing was wrong."""

    story: str
    set_aside: tuple[Path, ...]
    rows: dict[str, int]


def backup(store: Store, folder: Path | None = None) -> Path:
    """Write every table, as of one moment, to `folder` (default: a new one under <home>/backups) and return it."""
    folder = folder or store.home / "backups" / f"{clock.now():%Y%m%d-%H%M%S-%f}"
    half = folder.with_name(folder.name + ".part")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True, mode=0o700)
    with store.read() as cursor:
        cursor.execute("BEGIN")
        tables = {name: _content(cursor, name) for name in _tables(cursor)}
        for name, facts in tables.items():
            path = half / f"{name}.parquet"
            cursor.execute(f"COPY \"{name}\" TO '{_quoted(path)}' (FORMAT parquet)")
            facts["sha256"] = _sha256(path)
        cursor.execute("COMMIT")
        migrations = [row[0] for row in cursor.execute("SELECT name FROM migrations ORDER BY name").fetchall()]
    manifest = {"made_at": clock.now().isoformat(), "duckdb": duckdb.__version__, "migrations": migrations, "tables": tables}
    (half / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    half.rename(folder)
    return folder


def check(folder: Path) -> dict[str, Any]:
    """The manifest of a backup whose files are all as written. Raises BackupDamaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        tables = manifest["tables"]
        for name, facts in tables.items():
            if _sha256(folder / f"{name}.parquet") != facts["sha256"]:
                raise BackupDamaged(f"{name}.parquet in {folder} is not what was written.", "Take an older backup.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupDamaged(f"{folder} is not a complete backup ({error}).", "Take an older backup.") from None
    return manifest


def restore(folder: Path, new_home: Path) -> Store:
    """A new database under `new_home` with the rows of a backup, compared with what was written. Raises BackupDamaged.

    Refuses a home that has a database already: nothing is ever overwritten.
    """
    manifest = check(folder)
    if (new_home / "fm.duckdb").exists():
        raise StoreError(f"{new_home} holds a database already.", "Restore into an empty folder.")
    store = Store(new_home)
    incoming = new_home / "incoming"
    try:
        shutil.copytree(folder, incoming)  # the store reads inside its own home only
        with store.read() as cursor:
            known = set(_tables(cursor))
            ours = [row[0] for row in cursor.execute("SELECT name FROM migrations ORDER BY name").fetchall()]
        if not set(manifest["migrations"]) <= set(ours) or not set(manifest["tables"]) <= known:
            raise BackupDamaged(f"{folder} was made by a newer FM Desk.", "Update FM Desk first.")
        with store.write() as tx:
            for name in sorted(set(manifest["tables"]) - {"migrations"}):
                tx.execute(f'INSERT INTO "{name}" BY NAME SELECT * FROM read_parquet(?)', [str(incoming / f"{name}.parquet")])
        _compare(store, manifest, same_schema=manifest["migrations"] == ours, folder=folder)
        store.checkpoint()
    except BaseException:
        store.close()
        raise
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return store


def drill(store: Store, folder: Path) -> dict[str, Any]:
    """Restore a backup into a temporary database and compare: {"tables", "rows", "seconds"}. Raises BackupDamaged."""
    began = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix=".drill-", dir=store.home))
    try:
        restore(folder, scratch).close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    tables = check(folder)["tables"]
    return {"tables": len(tables), "rows": sum(t["rows"] for t in tables.values()), "seconds": round(time.monotonic() - began, 3)}


def backups(home: Path) -> list[Path]:
    """The backups of a home that have a manifest, newest first."""
    found = [path.parent for path in (home / "backups").glob(f"*/{MANIFEST}")]
    return sorted((folder for folder in found if not folder.name.endswith(".part")), reverse=True)


def recover(home: Path, *, from_backup: bool = False) -> Recovery:
    """Make a database that does not open usable again; what is damaged is renamed, never deleted.

    Without `from_backup` the write-ahead log is set aside and what the main file holds remains. With it the newest
    sound backup becomes the database. A database that opens is left alone. Raises StoreLocked, StoreError.
    """
    path, log = home / "fm.duckdb", home / "fm.duckdb.wal"
    if not path.exists():
        raise StoreError(f"There is no database at {path}.", "Set FM_HOME to the desk's folder.")
    try:
        with contextlib.closing(Store(home, wait_s=0)) as store:
            return Recovery("The database opens; nothing was changed.", (), _rows(store))
    except StoreLocked:
        raise
    except StoreError as error:
        reason = error.message
    stamp = f"{clock.now():%Y%m%d-%H%M%S}"
    if from_backup:
        return _from_backup(home, stamp, reason)
    if not log.exists():
        raise StoreError(f"The database file itself is damaged ({reason}).", "Run: python -m jobs recover --from-backup")
    written_at = dt.datetime.fromtimestamp(path.stat().st_mtime, clock.UTC)
    aside = log.rename(log.with_name(f"{log.name}.damaged-{stamp}"))
    try:
        with contextlib.closing(Store(home, wait_s=0)) as store:
            story = f"The write-ahead log was damaged and is now {aside.name}."
            cost = f"What was stored after {written_at:%Y-%m-%d %H:%M:%S} UTC may be lost."
            return Recovery(f"{story} {cost}", (aside,), _rows(store))
    except StoreError as error:
        aside.rename(log)
        raise StoreError(f"The database file itself is damaged ({error.message}).", "Run: python -m jobs recover --from-backup") from None


def _from_backup(home: Path, stamp: str, reason: str) -> Recovery:
    for folder in backups(home):
        scratch = Path(tempfile.mkdtemp(prefix=".restore-", dir=home))
        try:
            store = restore(folder, scratch)
            rows = _rows(store)
            store.close()
            aside = []
            for name in ("fm.duckdb.wal", "fm.duckdb"):
                if (home / name).exists():
                    aside.append((home / name).rename(home / f"{name}.damaged-{stamp}"))
            (scratch / "fm.duckdb").rename(home / "fm.duckdb")
            return Recovery(f"Restored from the backup {folder.name}; what was stored after it is lost. ({reason})", tuple(aside), rows)
        except BackupDamaged:
            continue
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    hint = "Set FM_HOME to a new folder, or repair the file with DuckDB's own tools."
    raise StoreError(f"There is no sound backup under {home / 'backups'}.", hint)


def _rows(store: Store) -> dict[str, int]:
    with store.read() as cursor:
        return {name: _content(cursor, name)["rows"] for name in _tables(cursor)}


def _compare(store: Store, manifest: dict[str, Any], *, same_schema: bool, folder: Path) -> None:
    with store.read() as cursor:
        for name, facts in manifest["tables"].items():
            if name == "migrations":
                continue
            found = _content(cursor, name)
            comparable = same_schema and manifest["duckdb"] == duckdb.__version__  # the hash may differ between versions
            if found["rows"] != facts["rows"] or (comparable and found["hash"] != facts["hash"]):
                raise BackupDamaged(f"{name} from {folder} does not restore to what was backed up.", "Take an older backup.")


def _tables(cursor: duckdb.DuckDBPyConnection) -> list[str]:
    rows = cursor.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal ORDER BY table_name").fetchall()
    return [row[0] for row in rows]


def _content(cursor: duckdb.DuckDBPyConnection, table: str) -> dict[str, Any]:
    """How many rows, and a hash of all of them that does not depend on their order."""
    n, total = cursor.execute(f'SELECT count(*), coalesce(sum(hash(t)::HUGEINT), 0)::VARCHAR FROM "{table}" t').fetchone()
    return {"rows": n, "hash": total}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
