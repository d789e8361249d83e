"""Storage under real faults: kill -9, torn and flipped logs, a full disk. What was acknowledged is there, and nothing by halves."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmcore.store import backup, schema
from fmcore.store.store import Store, StoreError
from tests.faults.victims import Victims

pytestmark = pytest.mark.slow
WRITER = Path(__file__).with_name("writer.py")
N_KILLS = 100


@pytest.fixture
def victims():
    made = Victims(WRITER)
    yield made
    made.close()


def commits(store):
    """Commit number -> how many of its three rows are there."""
    return {int(row["who"]): row["n"] for row in store.rows("SELECT who, count(*) AS n FROM audit GROUP BY who")}


def test_a_hundred_kills_lose_no_acknowledged_commit_and_tear_none(tmp_path, victims, record_property):
    chance = random.Random(7)
    acked, number, slowest_s = set(), 0, 0.0
    for _ in range(N_KILLS):
        pid = victims.start("write", tmp_path, number)
        if chance.random() < 0.9:  # the others die while they open
            victims.until("open")
        time.sleep(chance.uniform(0, 0.15))
        os.kill(pid, signal.SIGKILL)
        acked |= {int(line.split()[1]) for line in victims.until() if line.startswith("acked")}
        began = time.perf_counter()
        store = Store(tmp_path, wait_s=0)
        slowest_s = max(slowest_s, time.perf_counter() - began)
        found = commits(store)
        store.close()
        assert acked <= set(found), "an acknowledged commit is gone"
        assert set(found.values()) <= {3}, "half a transaction is there"
        number = max(found, default=-1) + 1
    print(f"{N_KILLS} kills, {len(acked)} acknowledged commits, none lost, slowest reopening {slowest_s:.3f} s")
    record_property("slowest_reopening_s", round(slowest_s, 3))
    assert len(acked) > N_KILLS and slowest_s < 10


def test_a_kill_at_every_step_of_the_migrations_is_finished_at_the_next_start(tmp_path, victims):
    expected, step, survived = None, 0, False
    whole = Store(tmp_path / "whole")
    expected = whole.rows("SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY ALL")
    whole.close()
    while not survived:
        home = tmp_path / str(step)
        victims.start("migrate", home, step)
        survived = "migrated" in victims.until()
        store = Store(home, wait_s=0)
        assert store.rows("SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY ALL") == expected
        assert [row["name"] for row in store.rows("SELECT name FROM migrations")] == [name for name, _ in schema.MIGRATIONS]
        store.close()
        step += 1
    assert step > sum(len(statements) for _, statements in schema.MIGRATIONS)


@pytest.fixture
def killed_home(tmp_path, victims):
    """A home whose writer was killed while commits stood in the write-ahead log."""
    home = tmp_path / "killed"
    pid = victims.start("write", home, 1)
    acked = 0
    while acked < 9:  # 11 is folded into the main file
        acked = int(victims.until("acked")[-1].split()[1])
    os.kill(pid, signal.SIGKILL)
    victims.until()
    assert (home / "fm.duckdb.wal").stat().st_size > 1000
    return home


def copy_of(home, to, wal):
    to.mkdir()
    shutil.copy(home / "fm.duckdb", to)
    (to / "fm.duckdb.wal").write_bytes(wal)
    return to


def test_a_torn_log_opens_to_a_prefix_of_the_commits(tmp_path, killed_home):
    wal = (killed_home / "fm.duckdb.wal").read_bytes()
    longest = 0
    for i, cut in enumerate(range(0, len(wal), max(1, len(wal) // 40))):
        torn = wal[:cut] if i % 2 else wal[:cut] + b"\x00" * (len(wal) - cut) if i % 4 else wal[:cut]
        home = copy_of(killed_home, tmp_path / f"cut{i}", torn)
        try:
            store = Store(home, wait_s=0)
        except StoreError:  # a zero-filled tail may be refused, never misread; then there is a way back
            assert torn != wal[:cut]
            backup.recover(home)
            store = Store(home, wait_s=0)
        found = commits(store)
        store.close()
        assert sorted(found) == list(range(1, len(found) + 1)) and set(found.values()) <= {3}
        longest = max(longest, len(found))
    assert longest >= 8


def test_a_flipped_bit_in_the_log_is_harmless_or_refused_and_recovery_sets_it_aside(tmp_path, killed_home):
    wal, chance, refused = (killed_home / "fm.duckdb.wal").read_bytes(), random.Random(3), 0
    for i in range(25):
        flipped = bytearray(wal)
        flipped[chance.randrange(len(wal))] ^= 1 << chance.randrange(8)
        home = copy_of(killed_home, tmp_path / f"flip{i}", bytes(flipped))
        try:
            store = Store(home, wait_s=0)
        except StoreError as error:
            refused += 1
            assert "operating.md" in error.hint
            done = backup.recover(home)
            assert "may be lost" in done.story and done.set_aside[0].read_bytes() == bytes(flipped)
            store = Store(home, wait_s=0)
        found = commits(store)
        store.close()
        assert sorted(found) == list(range(1, len(found) + 1)) and set(found.values()) <= {3}, "never silently wrong"
    assert refused


DISK_FULL = """
import json, os, resource, signal, sys, threading, time
sys.path.insert(0, sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from toys import JOBS
from fmcore.runs import Runs
from fmcore.store.store import Store, StoreError
from tests.faults.victims import Victims
from jobs.runner import Runner

store, acked, said = Store(sys.argv[1]), 0, []
def room(n_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))
def put():
    with store.write() as tx:
        tx.executemany("INSERT INTO audit VALUES (?, ?, '', now()::TIMESTAMP)", [[str(acked), os.urandom(500).hex()] for _ in range(20)])
def attempt(what):
    try:
        what()
        return True
    except StoreError as error:
        said.append(str(error))
        return False
runs = Runs(store, JOBS)
run = runs.start_now("light", {"steps": 3, "delay_s": 0.3})
room(900_000)
while attempt(put):
    acked += 20
attempt(store.checkpoint)
read_while_full = store.rows("SELECT count(*) AS n FROM audit")[0]["n"]
room(1)
lane = threading.Thread(target=Runner(runs).execute, args=(run,))
lane.start()
time.sleep(2)
waiting = lane.is_alive()
room(resource.RLIM_INFINITY)
lane.join(30)
put()
print(json.dumps({"acked": acked, "read_while_full": read_while_full, "said": said, "waiting": waiting, "state": runs.get(run.id).state}))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_full_disk_is_told_loses_nothing_and_is_over_once_there_is_room(tmp_path):
    toys = Path(__file__).resolve().parents[1] / "jobs"
    done = subprocess.run([sys.executable, "-c", DISK_FULL, tmp_path, toys], capture_output=True, text=True, timeout=120)
    told = json.loads(done.stdout)
    assert told["acked"] > 100 and told["read_while_full"] == told["acked"]
    assert told["said"] and all("Make room on the disk" in sentence for sentence in told["said"])
    assert told["waiting"] and told["state"] == "succeeded", "the run's end is stored once there is room"
    store = Store(tmp_path)
    assert store.rows("SELECT count(*) AS n FROM audit") == [{"n": told["acked"] + 20}]
    store.close()


def test_a_home_on_a_read_only_file_system_is_refused_in_words():
    place = Path("/proc/fm-desk")  # not even root can make a folder there
    if not place.parent.is_dir():
        pytest.skip("no /proc here")
    with pytest.raises(StoreError, match="FM_HOME"):
        Store(place)
