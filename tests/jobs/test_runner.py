"""The runner with real child processes: each way to end has its own state and words, and nothing is left behind."""

import json
import stat
import subprocess
import time

import psutil
import pytest
from toys import COMMAND, land

from jobs.child import FAILED
from jobs.place import LocalProcess

pytestmark = pytest.mark.slow


@pytest.fixture
def do(runs, runner):
    """do("work", steps=3) runs a toy to its end in the foreground."""

    def run(what, *, job="heavy", **params):
        return runner.execute(runs.start_now(job, {"do": what, **params}))

    return run


def no_children():
    """None of the runs' processes is left; other tests may keep a browser or a server of theirs."""
    alive = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    return [p for p in alive if any("toys.py" in part for part in p.cmdline())] == []


def test_a_heavy_run_goes_through_prepare_work_and_land(runs, do):
    run = do("work", steps=4)
    assert (run.state, run.error, run.progress, run.message, run.device) == ("succeeded", "", 1.0, "step 4", "cpu")
    assert run.result == {"steps": 4, "first": 1, "rows": [{"n": 42}], "landed": run.id}
    assert runs.metrics(run.id)["value"].tolist() == [1, 1 / 2, 1 / 3, 1 / 4]
    assert runs.log_tail(run.id) == "a stray print that must not break the protocol"
    assert stat.S_IMODE(runs.folder(run.id).stat().st_mode) == 0o700
    assert run.pid and not psutil.pid_exists(run.pid)


def test_a_light_run_has_the_store_in_hand(do, runs):
    run = do("work", job="light", steps=3)
    assert (run.state, dict(run.result)) == ("succeeded", {"n": 1}) and len(runs.metrics(run.id)) == 3


@pytest.mark.parametrize(
    ("what", "job", "state", "said"),
    [
        ("raise", "heavy", "failed", "ValueError: bad batch"),
        ("raise", "light", "failed", "ValueError: bad row"),
        ("bad-prepare", "heavy", "failed", "There is no such data set. Fetch it first."),
        ("bad-land", "heavy", "failed", "The shelf is full. Make room."),
        ("memory", "heavy", "crashed", "ran out of memory: MemoryError"),
        ("sigkill", "heavy", "crashed", "killed by signal 9 (SIGKILL). Out of memory?"),
        ("segfault", "heavy", "crashed", "killed by signal 11 (SIGSEGV)"),
        ("exit", "heavy", "crashed", "ended with code 3 and no result"),
        ("hang", "hasty", "timed_out", "longer than 1.5 s"),
        ("hang", "mute", "timed_out", "silent for 1.5 s"),
    ],
)
def test_each_way_to_end_has_its_own_state_and_words(do, runs, what, job, state, said):
    run = do(what, job=job, steps=1)
    assert (run.state, said in run.error) == (state, True), run.error
    assert said in run.error.splitlines()[0], "the cause stands in the first line"
    assert ("Traceback" in run.error) is (what in ("raise", "memory"))
    assert [r.retry_of for r in runs.active()] == ([run.id] if state == "crashed" else [])
    assert no_children()


@pytest.mark.parametrize("what", ["deaf", "fork", "gil"])
def test_a_run_that_does_not_listen_is_killed_with_all_it_forked(runs, runner, wait, what):
    runner.start()
    run = runs.request("heavy", {"do": what})
    wait((runs.folder(run.id) / "hanging").exists)
    runs.cancel(run.id, by="ann")
    wait(lambda: runs.get(run.id).is_over)
    assert runs.get(run.id).state == "cancelled"
    pids = (runs.folder(run.id) / "pids.txt").read_text().split() if what == "fork" else []
    assert len(pids) == (2 if what == "fork" else 0)
    assert not [pid for pid in pids if psutil.pid_exists(int(pid)) and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE]
    assert no_children()


def test_a_cancelled_run_stops_at_its_next_report(runs, runner, wait):
    runner.start()
    run = runs.request("heavy", {"steps": 1000, "delay_s": 0.05})
    wait(lambda: runs.get(run.id).progress > 0)
    runs.cancel(run.id, by="ann")
    assert wait(lambda: runs.get(run.id).is_over)
    assert runs.get(run.id).state == "cancelled" and runs.active() == []


def test_a_light_run_is_cancelled_too(runs, runner, wait):
    runner.start()
    run = runs.request("light", {"steps": 1000, "delay_s": 0.05})
    wait(lambda: runs.get(run.id).progress > 0)
    runs.cancel(run.id, by="ann")
    wait(lambda: runs.get(run.id).is_over)
    assert runs.get(run.id).state == "cancelled"


def test_a_light_run_does_not_wait_behind_a_heavy_one(runs, runner, wait):
    runner.start()
    heavy = runs.request("heavy", {"do": "hang"})
    wait(lambda: runs.get(heavy.id).state == "running")
    light = runs.request("light", {"steps": 1})
    assert wait(lambda: runs.get(light.id).is_over) and runs.get(heavy.id).state == "running"


def test_stopping_the_desk_interrupts_what_runs_and_queues_it_again(runs, runner, wait):
    runner.start()
    run = runs.request("heavy", {"do": "hang"})
    wait(lambda: (runs.folder(run.id) / "hanging").exists())
    runner.stop()
    assert runs.get(run.id).state == "interrupted" and [r.retry_of for r in runs.active()] == [run.id]
    assert no_children()


def test_a_resumed_run_continues_from_the_checkpoint(runs, runner, wait):
    runner.start()
    old = runs.request("heavy", {"steps": 1000, "delay_s": 0.02})
    wait(lambda: runs.get(old.id).progress >= 0.004)
    runs.cancel(old.id, by="ann")
    wait(lambda: runs.get(old.id).is_over)
    steps_done = int((runs.folder(old.id) / "checkpoint" / "step.txt").read_text())
    with runs.store.write() as tx:
        tx.execute("UPDATE runs SET params = '{\"steps\": ' || ? || '}' WHERE id = ?", [str(steps_done + 2), old.id])
    new = runs.resume(old.id, by="ann")
    wait(lambda: runs.get(new.id).is_over)
    assert runs.get(new.id).result["first"] == steps_done + 1


def test_a_run_that_lost_only_its_landing_is_landed_not_trained_again(do, runs, runner):
    old = do("bad-land", steps=1)
    assert old.state == "failed"
    (runs.store.home / "runs" / "landing-is-possible").touch()
    runs.resume(old.id, by="ann")
    new = runner.execute(runs.claim("heavy"))
    assert (new.state, new.result["landed"]) == ("succeeded", old.id)
    assert not runs.folder(new.id).exists(), "nothing was computed again"


def test_landing_twice_has_no_second_effect(do, runs):
    run = do("work", steps=1)
    land(runs.store, runs.folder(run.id))
    assert runs.store.rows("SELECT count(*) AS n FROM audit") == [{"n": 1}]


def test_a_log_flood_keeps_the_newest_five_megabytes(do, runs):
    run = do("log-flood", steps=30)  # 30 MB
    kept = sum(path.stat().st_size for path in runs.folder(run.id).glob("log*.txt"))
    assert run.state == "succeeded" and 2_000_000 < kept <= 5_000_000
    assert runs.log_tail(run.id, lines=1) == "the last line"


def test_a_flood_of_metrics_is_thinned_and_its_memory_bounded(do, runs):
    before = psutil.Process().memory_info().rss
    run = do("metric-flood", steps=30_000)
    kept = runs.metrics(run.id)
    assert run.state == "succeeded" and 0 < len(kept) < 30_000 and kept["name"].nunique() <= 64
    assert "loss is not a finite number" in runs.log_tail(run.id)
    assert psutil.Process().memory_info().rss - before < 200_000_000


def test_rubbish_on_the_pipe_harms_nobody(do):
    run = do("long-line")
    assert (run.state, run.result["ok"], run.message) == ("succeeded", True, "after the rubbish ?")


def test_hostile_parameters_reach_the_child_as_json_only(do, runs):
    text = "--help; touch /tmp/owned\n$(reboot) `id` \x00 \u202e'\" 😀"
    run = do("work", steps=1, text=text)
    assert run.state == "succeeded"
    assert json.loads((runs.folder(run.id) / "spec.json").read_text())["params"]["text"] == text


def test_the_child_gets_no_secret(runs, monkeypatch):
    monkeypatch.setenv("FM_SECRET_API_TOKEN", "hush")
    process = LocalProcess(command=("/bin/sh", "-c", "env"), threads=3).start(runs.store.home)
    told = process.communicate(timeout=30)[0].decode()
    assert "hush" not in told and "OMP_NUM_THREADS=3" in told


def test_an_unknown_job_or_a_missing_spec_ends_the_child_in_words(tmp_path):
    process = LocalProcess(command=COMMAND).start(tmp_path)
    said = json.loads(process.stdout.readline())
    assert process.wait(60) == FAILED and said["kind"] == "error" and "spec.json" in said["last"]
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()


@pytest.mark.parametrize("what", ["hang", "gil"])
def test_a_child_ends_with_its_server_however_deep_it_is(tmp_path, wait, what):
    (tmp_path / "spec.json").write_text(json.dumps({"job": "heavy", "params": {"do": what}}))
    process = LocalProcess(command=COMMAND).start(tmp_path)
    wait((tmp_path / "hanging").exists)
    time.sleep(0.3)
    process.stdin.close()
    assert process.wait(5) != 0
    process.stdout.close()
    process.stderr.close()


def test_a_leftover_process_is_known_by_its_birth_not_by_its_pid_alone(runs, wait):
    stranger = subprocess.Popen(["sleep", "60"])
    ours = subprocess.Popen(["sleep", "60"])
    born_at = psutil.Process(ours.pid).create_time()
    try:
        for job, pid, at in (("heavy", stranger.pid, born_at - 100), ("hasty", ours.pid, born_at)):
            run = runs.start_now(job)
            runs.started(run.id, pid=pid, pid_created_at=at)
        runs.reap()
        assert not psutil.pid_exists(ours.pid) and stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
        ours.wait()
