"""`python -m jobs`: one JSON object on standard output, words on standard error, and the promised exit codes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from fmcore import config
from fmcore.runs import Runs
from fmcore.store.store import Store
from jobs import JOBS
from jobs.__main__ import app

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def command(*args):
    return [sys.executable, "-m", "jobs", *args]


def call(*args):
    return subprocess.run(command(*args), cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture
def home():
    return config.settings().home


@pytest.fixture
def server(home):
    """A running server that holds the store."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home.mkdir(parents=True)
    process = subprocess.Popen([sys.executable, Path(__file__).with_name("served.py"), home, str(port)], cwd=ROOT)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            httpx.get(f"http://127.0.0.1:{port}/api/runs")
            break
        except httpx.HTTPError:
            time.sleep(0.1)
    yield process
    process.kill()
    process.wait()


def test_list_and_run_without_a_server():
    listed = call("list")
    assert listed.returncode == 0 and "30 2 * * *" in listed.stdout and "never ran" in listed.stdout
    done = call("run", "maintain", "--set", "keep_backups=2")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["state"] == "succeeded" and told["params"]["keep_backups"] == 2
    assert told["result"]["backups_kept"] == 1 and "%" in done.stderr
    [row] = [job for job in json.loads(call("list", "--json").stdout)["jobs"] if job["name"] == "maintain"]
    assert row["last_run"]["id"] == told["id"] and row["next_at"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["run", "nope"], "Jobs: "), (["run", "maintain", "--set", "keep_backups=many"], "keep_backups"), (["run", "maintain", "--set", "x"], "KEY=VALUE"),
        (["run"], "NAME"), (["fly"], "fly"), (["run", "maintain", "--set", "$(reboot)=1"], "$(reboot)"),
    ],
)
def test_wrong_usage_ends_with_two(args, said):
    done = call(*args)
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr and "Traceback" not in done.stderr


def test_a_run_that_fails_ends_with_one_and_one_line(home):
    home.mkdir(parents=True)
    (home / "backups").write_text("in the way")
    done = call("run", "maintain")
    assert done.returncode == 1 and json.loads(done.stdout)["state"] == "failed"
    assert "Traceback" not in done.stderr and "failed." in done.stderr.splitlines()[-1]


def test_a_store_held_by_something_else_is_told_with_its_pid(home):
    store = Store(home)
    for args in (["run", "maintain"], ["list"], ["recover"]):
        done = call(*args)
        assert done.returncode == 1 and f"process {os.getpid()}" in done.stderr and done.stdout == ""
    (home / "server.json").write_text('{"pid": 1, "url": "http://127.0.0.1:9"}')  # left by a server that is gone
    assert f"process {os.getpid()}" in call("list").stderr
    store.close()


def test_ctrl_c_cancels_the_run(home):
    process = subprocess.Popen(command("run", "finetune", "--set", "recipe=full"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(home.glob("runs/*/spec.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and json.loads(out)["state"] == "cancelled" and "ancelled" in err.splitlines()[-1]


def test_with_a_server_the_command_line_goes_through_its_api(server):
    done = call("run", "maintain", "--set", "keep_backups=3")
    told = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (told["state"], told["trigger"], told["result"]["backups_kept"]) == ("succeeded", "api", 1)
    [row] = [job for job in json.loads(call("list", "--json").stdout)["jobs"] if job["name"] == "maintain"]
    assert row["last_run"]["id"] == told["id"]
    refused = call("run", "maintain", "--set", "keep_backups=many")
    assert refused.returncode == 2 and "keep_backups" in refused.stderr


def test_recover_sets_a_damaged_log_aside(home):
    store = Store(home)
    store.close()
    code = f"import os, signal; from fmcore.store.store import Store; s = Store({str(home)!r})\nwith s.write() as t: t.execute(\"INSERT INTO audit VALUES ('a', '', '', now()::TIMESTAMP)\")\nos.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60)
    log = home / "fm.duckdb.wal"
    raw = bytearray(log.read_bytes())
    raw[len(raw) // 2] ^= 255
    log.write_bytes(raw)
    assert call("list").returncode == 1
    done = call("recover")
    assert done.returncode == 0 and "may be lost" in done.stderr and json.loads(done.stdout)["rows"]["audit"] == 0
    assert call("list").returncode == 0


@pytest.fixture
def two_runs(home):
    """Two runs that are over, in a store that nobody holds."""
    store = Store(home)
    runs, made = Runs(store, JOBS), []
    for n in (2, 3):
        run = runs.start_now("maintain", {"keep_backups": n})
        runs.finish(run.id, "succeeded", result={"backups_kept": n})
        made.append(run.id)
    store.close()
    return made


def test_compare_and_lineage_without_a_server(two_runs):
    a, b = two_runs
    typed = CliRunner()
    told = json.loads(typed.invoke(app, ["compare", a, b]).stdout)
    assert told["baseline"] == a and told["params"][0]["values"] == {a: 2, b: 3} and told["metrics"][0]["deltas"][b]["value"] == 1
    assert json.loads(typed.invoke(app, ["compare", a, b, "--baseline", b, "--pin"]).stdout)["baseline"] == b
    assert json.loads(typed.invoke(app, ["compare", a]).stdout)["pinned"] is True, "the pin survived the process"
    assert json.loads(typed.invoke(app, ["lineage", a]).stdout)["children"][0]["children"][0]["id"] == a
    for args in (["compare", "nobody", a], ["lineage", "nobody"], ["compare"], ["lineage"]):
        refused = typed.invoke(app, args)
        assert refused.exit_code == 2 and refused.stdout == "" and refused.stderr


def test_compare_and_lineage_through_a_server(server):
    a, b = (json.loads(call("run", "maintain", "--set", f"keep_backups={n}").stdout)["id"] for n in (2, 3))
    told = json.loads(call("compare", a, b, "--baseline", b, "--pin").stdout)
    assert told["baseline"] == b and told["runs"][0]["code"]["package"]
    assert json.loads(call("lineage", a).stdout)["children"][0]["children"][0]["id"] == a
    refused = call("compare", a, "nobody")
    assert refused.returncode == 2 and "nobody" in refused.stderr and "Traceback" not in refused.stderr
