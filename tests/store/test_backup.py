"""Backups restore to exactly what was backed up, damage is noticed, and a damaged database has a way back."""

import json
import os
import shutil

import pytest

from fmcore.store import backup, retention
from fmcore.store.schema import MIGRATIONS
from fmcore.store.store import Store, StoreError, StoreLocked
from jobs.maintain import Maintain, run


class Silent:
    def progress(self, fraction, message=""):
        pass


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    with opened.write() as tx:
        rows = [[f"who {i} 'quoted' 😀", "", "", "2026-01-01 00:00:00"] for i in range(500)]
        tx.executemany("INSERT INTO audit VALUES (?, ?, ?, ?)", rows)
        tx.executemany("INSERT INTO run_metrics VALUES (?, ?, ?, ?, ?)", [["r", i, "loss", i / 7, "2020-01-01 00:00:00"] for i in range(50)])
    yield opened
    opened.close()


def test_a_backup_restores_to_the_same_rows(store, tmp_path):
    folder = backup.backup(store)
    restored = backup.restore(folder, tmp_path / "new")
    for table in ("audit", "run_metrics", "runs"):
        sql = f"SELECT * FROM {table} ORDER BY ALL"
        assert restored.rows(sql) == store.rows(sql)
    restored.close()
    assert backup.drill(store, folder)["rows"] == 550 + len(MIGRATIONS) and not list(store.home.glob(".drill-*"))
    assert backup.backups(store.home) == [folder]


def test_a_backup_is_of_one_moment(store):
    folder = backup.backup(store)
    with store.write() as tx:
        tx.execute("DELETE FROM audit")
    assert backup.drill(store, folder)["rows"] == 550 + len(MIGRATIONS)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "swap"])
def test_damage_is_noticed(store, tmp_path, damage):
    folder = backup.backup(store)
    victim = folder / "audit.parquet"
    raw = bytearray(victim.read_bytes())
    if damage == "flip":
        raw[len(raw) // 2] ^= 1
        victim.write_bytes(raw)
    elif damage == "truncate":
        victim.write_bytes(raw[:-10])
    elif damage == "remove":
        victim.unlink()
    elif damage == "manifest":
        (folder / "MANIFEST.json").write_text("{")
    else:  # a well-formed file with other rows, and a checksum made to fit: only the comparison of the rows can tell
        manifest = json.loads((folder / "MANIFEST.json").read_text())
        with store.write() as tx:
            tx.execute("UPDATE audit SET what = 'changed' WHERE who LIKE 'who 7 %'")
        other = backup.backup(store)
        shutil.copy(other / "audit.parquet", victim)
        manifest["tables"]["audit"]["sha256"] = json.loads((other / "MANIFEST.json").read_text())["tables"]["audit"]["sha256"]
        (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(backup.BackupDamaged, match="."):
        backup.restore(folder, tmp_path / "new")


def test_a_restore_never_overwrites_a_database(store):
    with pytest.raises(StoreError, match="already"):
        backup.restore(backup.backup(store), store.home)


def test_an_unfinished_backup_does_not_count(store):
    (store.home / "backups" / "20260101-000000").mkdir(parents=True)
    folder = backup.backup(store)
    folder.rename(folder.with_name(folder.name + ".part"))
    assert backup.backups(store.home) == []


def test_the_daily_job_backs_up_prunes_and_keeps_what_it_should(store):
    old, new = store.home / "runs" / "old", store.home / "runs" / "new"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "log.txt").write_text("x")
    os.utime(old, (0, 0))
    for _ in range(3):
        said = run(store, Maintain(keep_backups=2), Silent())
    assert said["drill"]["rows"] >= 503 and said["backups_kept"] == 2 == len(backup.backups(store.home))
    assert not old.exists() and new.exists()
    assert store.rows("SELECT count(*) AS n FROM run_metrics") == [{"n": 0}], "metrics of 2020 are past their time"
    assert store.rows("SELECT count(*) AS n FROM audit") == [{"n": 500}], "the audit is kept for good"


def test_the_daily_job_drops_cached_embeddings_that_are_old(store):
    cache = store.home / "cache" / "embeddings" / "model-64"
    cache.mkdir(parents=True)
    for name in ("old", "new"):
        (cache / f"{name}.safetensors").write_text("x")
    os.utime(cache / "old.safetensors", (0, 0))
    assert run(store, Maintain(), Silent())["cached_files_removed"] == 1
    assert [file.name for file in cache.iterdir()] == ["new.safetensors"]


def test_pruning_touches_listed_tables_only(store):
    with pytest.raises(KeyError):
        retention.prune(store, {"audit": 1})


def test_recovering_a_sound_database_changes_nothing(store):
    with pytest.raises(StoreError, match="no database"):
        backup.recover(store.home / "elsewhere")
    store.close()
    done = backup.recover(store.home)
    assert done.set_aside == () and done.rows["audit"] == 500


def test_recovering_refuses_while_a_server_holds_the_database(store):
    import subprocess
    import sys

    code = f"from fmcore.store import backup; from pathlib import Path; backup.recover(Path({str(store.home)!r}))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stderr
    assert StoreLocked.__name__ in told


def test_a_damaged_database_file_comes_back_from_the_newest_sound_backup(store):
    good = backup.backup(store)
    bad = backup.backup(store)
    (bad / "audit.parquet").write_bytes(b"")
    store.close()
    store.path.write_bytes(b"\x00" * 50_000)
    with pytest.raises(StoreError, match="damaged") as refused:
        backup.recover(store.home)
    assert "--from-backup" in refused.value.hint
    done = backup.recover(store.home, from_backup=True)
    assert good.name in done.story and [p.exists() for p in done.set_aside] == [True] and done.rows["audit"] == 500
    again = Store(store.home)
    assert again.rows("SELECT count(*) AS n FROM audit") == [{"n": 500}]
    again.close()
