"""Jobs under real faults: children and servers killed at any moment leave no phantom, no orphan and no second copy."""

import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "jobs"))

from toys import COMMAND, JOBS

from fmcore import clock, config
from fmcore.runs import Runs
from fmcore.store.store import Store
from jobs.place import LocalProcess
from jobs.runner import Runner

pytestmark = pytest.mark.slow
DESK = Path(__file__).with_name("desk.py")
ROOT = DESK.parents[2]


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def until(condition, for_s=90.0):
    deadline = time.monotonic() + for_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"nothing came of it in {for_s} s"
        time.sleep(0.02)
    return found


def test_a_child_killed_at_a_random_step_is_seen_and_tried_again_from_its_checkpoint(tmp_path):
    chance, store = random.Random(5), Store(tmp_path)
    ahead = [0.0]
    runs = Runs(store, JOBS, now=lambda: clock.now() + timedelta(seconds=ahead[0]))
    runner = Runner(runs, place=LocalProcess(command=COMMAND))
    runner.start()
    run = runs.request("heavy", {"steps": 100, "delay_s": 0.03})
    for _ in range(2):  # of three attempts
        until(lambda run=run: runs.get(run.id).progress > 0)
        time.sleep(chance.uniform(0, 0.6))
        psutil.Process(runs.get(run.id).pid).kill()
        until(lambda run=run: runs.get(run.id).is_over, 45)
        assert runs.get(run.id).state == "crashed" and "signal 9" in runs.get(run.id).error
        [retry] = runs.active()
        assert retry.retry_of == run.id and retry.state == "queued"
        ahead[0] += 300
        run = retry
    until(lambda: runs.get(run.id).is_over)
    last = runs.get(run.id)
    assert (last.state, last.attempt) == ("succeeded", 3) and last.result["first"] > 1
    runner.stop()
    store.close()


@pytest.mark.parametrize("command", [("/bin/false",), (sys.executable, "-c", "raise SystemExit(3)"), ("/no/such/program",)])
def test_a_child_that_dies_before_its_first_sign_is_a_crash_at_once(tmp_path, command):
    store = Store(tmp_path)
    runs = Runs(store, JOBS)
    run = Runner(runs, place=LocalProcess(command=command)).execute(runs.start_now("heavy"))
    assert run.state == "crashed" and run.error and len(runs.active()) == 1
    store.close()


@pytest.mark.parametrize("what", ["work", "gil", "deaf"])
def test_a_killed_server_takes_its_child_along_and_its_run_is_queued_once(tmp_path, what):
    desk = subprocess.Popen([sys.executable, DESK, tmp_path, what], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
                            env=config.child_environment(PYTHONPATH=str(ROOT)))
    run_id, pid = desk.stdout.readline().split()
    child = psutil.Process(int(pid))

    def family():
        return [child, *child.children(recursive=True)]

    sign = tmp_path / "runs" / run_id / ("checkpoint" if what == "work" else "hanging")
    until(sign.exists)
    if what == "deaf":
        until(lambda: len(family()) == 2)
    members = family()
    desk.kill()
    began = time.monotonic()
    until(lambda: all(gone(member.pid) for member in members), 5)
    print(f"{what}: {len(members)} processes gone {time.monotonic() - began:.2f} s after their server")
    desk.wait()
    desk.stdout.close()

    store = Store(tmp_path)
    runs, later = Runs(store, JOBS), Runs(store, JOBS, now=lambda: clock.now() + timedelta(minutes=2))
    assert [run.id for run in runs.reap()] == [run_id] and runs.get(run_id).state == "interrupted"
    assert runs.reap() == [] and [run.retry_of for run in runs.active()] == [run_id]
    if what == "work":
        run = Runner(runs, place=LocalProcess(command=COMMAND)).execute(later.claim("heavy"))
        assert run.state == "succeeded" and run.result["first"] > 1
    store.close()


def test_a_stopping_server_leaves_no_child_and_says_interrupted(tmp_path):
    code = f"""
import signal, sys, time
sys.path.insert(0, {str(ROOT / "tests" / "jobs")!r})
from toys import COMMAND, JOBS
from fmcore.runs import Runs
from fmcore.store.store import Store
from jobs.place import LocalProcess
from jobs.runner import Runner
store = Store({str(tmp_path)!r})
runs = Runs(store, JOBS)
runner = Runner(runs, place=LocalProcess(command=COMMAND))
runner.start()
run = runs.request("heavy", {{"steps": 1000, "delay_s": 0.05}})
def stop(*_):
    runner.stop()
    store.close()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
while not runs.get(run.id).progress:
    time.sleep(0.05)
print(run.id, runs.get(run.id).pid, flush=True)
while True:
    time.sleep(1)
"""
    desk = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    run_id, pid = desk.stdout.readline().split()
    desk.send_signal(signal.SIGTERM)
    assert desk.wait(15) == 0 and gone(int(pid))
    desk.stdout.close()
    store = Store(tmp_path)
    runs = Runs(store, JOBS)
    assert runs.get(run_id).state == "interrupted" and [run.retry_of for run in runs.active()] == [run_id]
    store.close()
