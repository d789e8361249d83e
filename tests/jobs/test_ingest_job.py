"""The ingest job: run through the frame's own runner; a second run has no second effect, and a kill loses and doubles nothing."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmcore import config
from fmcore.data.sources import Sources
from fmcore.runs import Runs
from fmcore.store.store import Store
from jobs import JOBS
from jobs.ingest import Params, run

ROOT = Path(__file__).resolve().parents[2]


class Report:
    def __init__(self):
        self.said = []

    def progress(self, fraction, message=""):
        self.said.append((fraction, message))


@pytest.fixture
def store():
    held = Store(config.settings().home)
    yield held
    held.close()


def write_news(home, n):
    (home / "incoming").mkdir(parents=True, exist_ok=True)
    lines = [
        f"2020-01-{1 + k % 28:02}T{k % 24:02}:{k % 60:02}:00Z,https://n.example/{k},Story number {k} of the market today" for k in range(n)
    ]
    (home / "incoming" / "old.csv").write_text("published_at,url,title\n" + "\n".join(lines) + "\n")


def test_every_due_source_is_looked_at_and_a_second_run_adds_nothing(store):
    write_news(store.home, 50)
    Sources(store).add("old", "replay", {"dataset": "", "path": "incoming/old.csv", "speed": 0})
    Sources(store).add("missing", "replay", {"dataset": "", "path": "incoming/nothing.csv", "speed": 0})
    report = Report()
    assert run(store, Params(), report) == {"sources": ["missing", "old"], "new": 50, "known": 0, "refused": 0}
    assert report.said[-1] == (1.0, "2 sources looked at, 50 new documents")
    assert run(store, Params(), Report())["new"] == 0
    assert "cannot be read" in Sources(store).health("missing").error


def test_it_runs_every_minute_beside_other_work_and_can_be_asked_for_one_source(store):
    job = JOBS["ingest"]
    assert (job.schedule, job.kind, job.routine) == ("* * * * *", "light", True)
    requested = Runs(store, JOBS).request("ingest", {"source": "old"})
    assert requested.params["source"] == "old"


def test_from_a_terminal_it_says_what_came(store, tmp_path):
    write_news(store.home, 20)
    Sources(store).add("old", "replay", {"dataset": "", "path": "incoming/old.csv", "speed": 0})
    store.close()
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "run", "ingest"], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.strip().splitlines()[-1])["result"]["new"] == 20


@pytest.fixture
def looker():
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("looker.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    yield process
    process.stdin.close()
    process.wait(20)


@pytest.mark.parametrize("n_kills", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_loses_and_doubles_nothing(store, looker, n_kills):
    """kill -9 in the midst of a replay, again and again; what is there is always whole slices, and the end is exact."""
    n, home = 400 * n_kills, store.home
    write_news(home, n)
    Sources(store).add("old", "replay", {"dataset": "", "path": "incoming/old.csv", "speed": 0})
    store.close()
    stood = [0]
    for attempt in range(n_kills):
        looker.stdin.write(f"{home}\n")
        looker.stdin.flush()
        victim = int(looker.stdout.readline().removeprefix("open "))
        time.sleep(0.02 + 0.03 * (attempt % 5))
        with contextlib.suppress(ProcessLookupError):  # a quick machine may be through already
            os.kill(victim, signal.SIGKILL)
        assert looker.stdout.readline() == "over\n"
        held = Store(home)
        rows = held.rows("SELECT count(*) AS n, count(DISTINCT id) AS n_ids FROM documents")[0]
        stood.append(Sources(held).memory(Sources(held).get("old")).get("row", 0))
        held.close()
        assert rows["n"] == rows["n_ids"] == stood[-1], f"attempt {attempt}: {rows}, stands at {stood[-1]}"
    assert stood == sorted(stood)
    held = Store(home)
    run(held, Params(), Report())
    assert held.rows("SELECT count(*) AS n, count(DISTINCT title) AS n_titles FROM documents")[0] == {"n": n, "n_titles": n}
    held.close()
