"""The store: whole transactions only, one owner, clear refusals, and a clean door for values."""

import os
import stat
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest

from fmcore.store import schema
from fmcore.store.store import NotFinite, Store, StoreError, StoreLocked, to_json


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


def put(store, who="me", detail=""):
    with store.write() as tx:
        tx.execute("INSERT INTO audit VALUES (?, 'test', ?, now()::TIMESTAMP)", [who, detail])


def count(store):
    return store.rows("SELECT count(*) AS n FROM audit")[0]["n"]


def test_what_was_written_is_there_after_a_restart(store):
    put(store)
    store.close()
    again = Store(store.home)
    assert count(again) == 1
    again.close()


def test_a_transaction_is_all_or_nothing(store):
    with pytest.raises(ZeroDivisionError), store.write() as tx:
        tx.execute("INSERT INTO audit VALUES ('a', '', '', now()::TIMESTAMP)")
        raise ZeroDivisionError
    assert count(store) == 0
    put(store)
    assert count(store) == 1


def test_writers_take_turns_and_readers_do_not_wait(store):
    inside, go_on = threading.Event(), threading.Event()

    def slow_writer():
        with store.write() as tx:
            tx.execute("INSERT INTO audit VALUES ('slow', '', '', now()::TIMESTAMP)")
            inside.set()
            go_on.wait(10)

    slow = threading.Thread(target=slow_writer)
    slow.start()
    inside.wait(10)
    assert count(store) == 0, "a reader sees what is committed, at once"
    fast = threading.Thread(target=put, args=(store, "fast"))
    fast.start()
    go_on.set()
    slow.join(10)
    fast.join(10)
    assert count(store) == 2


def test_many_writers_on_the_same_row_never_conflict(store):
    put(store, "shared", "0")
    errors = []

    def bump():
        for _ in range(20):
            try:
                with store.write() as tx:
                    tx.execute("UPDATE audit SET detail = (detail::INTEGER + 1)::VARCHAR WHERE who = 'shared'")
            except StoreError as error:
                errors.append(error)

    threads = [threading.Thread(target=bump) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and store.rows("SELECT detail FROM audit")[0]["detail"] == "160"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused_at_the_door(store, value):
    for refused in (
        lambda: store.rows("SELECT ?", value),
        lambda: to_json({"loss": value}),
    ):
        with pytest.raises(NotFinite):
            refused()
    with pytest.raises(NotFinite), store.write() as tx:
        tx.executemany("INSERT INTO run_metrics VALUES (?, ?, ?, ?, now()::TIMESTAMP)", [["r", 1, "loss", value]])
    frame = pd.DataFrame({"run_id": ["r"], "step": [1], "name": ["loss"], "value": [value], "noted_at": pd.to_datetime(["2026-01-01"])})
    with pytest.raises(NotFinite), store.write() as tx:
        tx.insert_frame("run_metrics", frame)
    assert store.rows("SELECT count(*) AS n FROM run_metrics") == [{"n": 0}]


def test_a_frame_goes_in_by_column_names(store):
    frame = pd.DataFrame({"value": [0.5], "name": ["loss"], "step": [3], "run_id": ["r"], "noted_at": pd.to_datetime(["2026-01-01"])})
    with store.write() as tx:
        tx.insert_frame("run_metrics", frame)
        with pytest.raises(StoreError, match="not a table name"):
            tx.insert_frame("runs; DROP TABLE runs", frame)
    assert store.frame("SELECT step, value FROM run_metrics").values.tolist() == [[3, 0.5]]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')", "COPY runs TO '/tmp/out.csv'", "ATTACH '/tmp/other.duckdb'", "INSTALL httpfs", "LOAD httpfs",
        "SELECT * FROM 'http://127.0.0.1:9/x.parquet'", "SELECT * FROM glob('/etc/*')", "SET enable_external_access = true",
        "SELECT * FROM '/etc/passwd'",
    ],
)
def test_the_database_touches_no_file_or_network_of_its_own(store, sql):
    with pytest.raises(StoreError):
        store.rows(sql)


def test_values_are_bound_never_spliced(store):
    hostile = "'; DROP TABLE audit; -- $$ \x00 \u202e 😀"
    put(store, hostile)
    assert store.rows("SELECT who FROM audit WHERE who = ?", hostile) == [{"who": hostile}]


def test_home_and_file_belong_to_their_owner_alone(store):
    assert stat.S_IMODE(store.home.stat().st_mode) == 0o700 and stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_a_second_server_is_told_who_the_first_one_is(store):
    code = f"""
import sys
from fmcore.store.store import Store, StoreLocked
try:
    Store({str(store.home)!r}, wait_s=0.2)
except StoreLocked as error:
    print(error.pid, error)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout
    assert told.startswith(f"{os.getpid()} ") and f"kill {os.getpid()}" in told and "FM_HOME" in told
    put(store)
    assert count(store) == 1, "the first one noticed nothing"


def test_a_server_waits_for_the_one_before_it_to_stop(store):
    code = f"""
from fmcore.store.store import Store
Store({str(store.home)!r}, wait_s=30).close()
print("opened")
"""
    second = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    store.close()
    assert second.communicate(timeout=60)[0] == "opened\n"


def test_closed_means_closed(store):
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        put(store)
    with pytest.raises(StoreError, match="closed"):
        count(store)


def test_memory_is_bounded_and_what_is_larger_goes_by_way_of_the_disk(store, tmp_path):
    limit = "SELECT current_setting('memory_limit') AS held"
    assert store.rows(limit)[0]["held"].endswith(("MiB", "GiB"))  # a share of the machine's, 2 GB at most
    small = Store(tmp_path / "small", memory_mb=64)
    assert small.rows(limit)[0]["held"] == "61.0 MiB"
    with small.write() as tx:
        tx.execute("CREATE TEMP TABLE wide AS SELECT md5(range::VARCHAR) AS text FROM range(2000000)")
        tx.execute("CREATE TEMP TABLE in_order AS SELECT text FROM wide ORDER BY text")
        assert tx.execute("SELECT count(DISTINCT text) FROM in_order") == [(2_000_000,)]
    small.close()


def test_a_wrong_statement_is_told_as_our_own_error(store):
    with pytest.raises(StoreError, match="no_such_table"):
        store.rows("SELECT * FROM no_such_table")


def test_a_file_of_a_newer_desk_is_left_alone(store):
    with store.write() as tx:
        tx.execute("INSERT INTO migrations VALUES ('999_future', now()::TIMESTAMP)")
    store.close()
    with pytest.raises(StoreError, match="newer FM Desk"):
        Store(store.home)
    with pytest.raises(StoreError, match="newer FM Desk"):
        Store(store.home)


def test_every_migration_is_applied_once_and_recorded(store):
    names = [name for name, _ in schema.MIGRATIONS]
    assert [row["name"] for row in store.rows("SELECT name FROM migrations ORDER BY name")] == sorted(names) == names


def test_a_file_that_is_no_database_is_refused_in_words(tmp_path):
    (tmp_path / "fm.duckdb").write_bytes(b"not a database at all" * 1000)
    with pytest.raises(StoreError, match="cannot be opened") as refused:
        Store(tmp_path, wait_s=0)
    assert not isinstance(refused.value, StoreLocked) and "operating.md" in refused.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_that_cannot_be_written_is_refused_in_words(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "home")


def test_a_home_that_is_a_file_is_refused_in_words(tmp_path):
    (tmp_path / "home").touch()
    with pytest.raises(StoreError, match="FM_HOME"):
        Store(tmp_path / "home")
