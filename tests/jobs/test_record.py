"""Facts of real runs: noted at the start, told by the child, noted at the end; kept through kill -9; never a reason to fail."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fmcore import config, energy, run_facts
from fmcore.runs import Runs
from fmcore.store.store import Store
from jobs.place import LocalProcess
from jobs.runner import Runner

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
TOYS = Path(__file__).with_name("toys.py")


def patched(line):
    """A child like the toys', with one line run before it starts."""
    code = f"import sys; sys.path.insert(0, {str(TOYS.parent)!r})\nimport toys, jobs.child\nfrom fmcore import run_facts, mirrors\n{line}\nsys.exit(jobs.child.main(toys.JOBS))"
    return LocalProcess(command=(sys.executable, "-c", code))


def test_a_run_says_what_it_was_made_of_and_what_it_took(runs, runner):
    run = runner.execute(runs.start_now("heavy", {"steps": 2}))
    facts = run_facts.of(runs.store, run.id)
    assert run.state == "succeeded" and facts.params["steps"] == 2 and facts.figures["steps"] == 2
    assert facts.code_words and facts.libraries["torch"] and facts.machine and facts.cpu_count == os.cpu_count()
    assert [file["name"] for file in facts.data["files"]] == ["input.json"] and len(facts.data["hash"]) == 64
    assert facts.device == "cpu" and facts.seconds > 0 and 5 < facts.peak_rss_mb < 10_000
    assert (facts.energy_j is None) is facts.energy_note.startswith("Not readable here: ")
    assert facts.artefacts == () and facts.parents == () and facts.notes == ()


def test_what_a_run_made_is_listed_with_the_manifests_hashes(runs):
    line = ("import fmcore.models.manifest as m, pathlib\n"
            "def work(run_dir, report):\n"
            "    (run_dir / 'model').mkdir(); (run_dir / 'model' / 'w.bin').write_text('abc'); m.write_manifest(run_dir / 'model')\n"
            "toys.FAULTS['work'] = lambda params, run_dir, report: work(run_dir, report)")
    run = Runner(runs, place=patched(line)).execute(runs.start_now("heavy"))
    made = {a.name: a for a in run_facts.of(runs.store, run.id).artefacts}
    assert run.state == "succeeded", run.error
    assert made["model/w.bin"].bytes == 3 and made["model/w.bin"].sha256.startswith("ba7816bf") and made["model/MANIFEST.json"].sha256 is None


def test_a_child_killed_at_work_leaves_what_was_known_until_then(runs, runner, wait):
    runner.start()
    run = runs.request("heavy", {"do": "hang"})
    wait(lambda: run_facts.of(runs.store, run.id).data.get("hash"))
    psutil.Process(runs.get(run.id).pid).kill()
    wait(lambda: runs.get(run.id).is_over)
    facts = run_facts.of(runs.store, run.id)
    assert facts.state == "crashed" and facts.code_words and facts.libraries["torch"] and len(facts.data["hash"]) == 64
    assert facts.artefacts == () and facts.seconds > 0
    [retry] = runs.active()
    assert runs.get(retry.id).retry_of == run.id


def test_a_server_killed_leaves_what_was_noted_at_the_start(tmp_path):
    desk = subprocess.Popen([sys.executable, ROOT / "tests" / "faults" / "desk.py", tmp_path, "hang"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            text=True, cwd=ROOT, env=config.child_environment(PYTHONPATH=str(ROOT)))
    run_id, _ = desk.stdout.readline().split()
    desk.send_signal(signal.SIGKILL)
    desk.wait()
    desk.stdout.close()
    store = Store(tmp_path)
    try:
        Runs(store, {}).reap()
        facts = run_facts.of(store, run_id)
        assert facts.state == "interrupted" and facts.code_words and facts.libraries["torch"] and facts.machine
        assert facts.energy_j is None and facts.energy_note.startswith("Not noted") and facts.peak_rss_mb is None
        assert facts.seconds is None or facts.seconds < 60, "the time until it was found is not the time it worked"
    finally:
        store.close()


def test_a_resumed_run_names_the_one_it_goes_on_from(runs, runner):
    old = runner.execute(runs.start_now("heavy", {"do": "raise"}))
    runs.resume(old.id, by="ann")
    new = runner.execute(runs.claim("heavy"))
    assert run_facts.of(runs.store, new.id).parents == (run_facts.Parent(old.id, "resumed from"),)


@pytest.mark.parametrize(
    "line",
    [
        "run_facts.of_process = lambda: 1 / 0", "run_facts.frozen = lambda run_dir: 1 / 0", "run_facts.artefacts = lambda run_dir, before: 1 / 0",
        "mirrors.wanted = lambda settings: 1 / 0", "run_facts.of_process = lambda: {'x': float('nan')}",
    ],
)
def test_facts_that_cannot_be_gathered_cost_facts_not_the_run(runs, line):
    run = Runner(runs, place=patched(line)).execute(runs.start_now("heavy"))
    assert (run.state, run.error) == ("succeeded", "")


@pytest.mark.parametrize(
    ("job", "broken"),
    [("heavy", (run_facts, "note")), *(("light", b) for b in ((run_facts, "note"), (run_facts, "of_process"), (energy, "Meter"), (run_facts, "parents")))],
)
def test_facts_that_cannot_be_stored_cost_facts_not_the_run(runs, runner, monkeypatch, broken, job):
    monkeypatch.setattr(*broken, lambda *args, **more: 1 / 0)
    run = runner.execute(runs.start_now(job))
    assert (run.state, run.error) == ("succeeded", "")


def test_joules_are_those_of_the_time_it_ran(runs, runner, monkeypatch, tmp_path):
    domain = tmp_path / "powercap" / "intel-rapl:0"
    domain.mkdir(parents=True)
    for name, value in (("name", "package-0"), ("max_energy_range_uj", "1000000"), ("energy_uj", "100")):
        (domain / name).write_text(value)
    meter = energy.Meter
    monkeypatch.setattr(energy, "Meter", lambda **more: meter(powercap=tmp_path / "powercap", **more))
    light = runs.job("light")
    monkeypatch.setitem(runs.jobs, "light", light.__class__(**{**light.__dict__, "run": lambda *_: (domain / "energy_uj").write_text("500100") and {}}))
    facts = run_facts.of(runs.store, runner.execute(runs.start_now("light")).id)
    assert facts.energy_j == pytest.approx(0.5) and "RAPL" in facts.energy_note and facts.peak_rss_mb is None


def test_a_routine_run_is_noted_once(runs, runner, monkeypatch):
    light = runs.job("light")
    monkeypatch.setitem(runs.jobs, "light", light.__class__(**{**light.__dict__, "routine": True}))
    run = runner.execute(runs.start_now("light"))
    assert runs.store.rows("SELECT count(*) AS n FROM run_facts") == [{"n": 1}] and run_facts.of(runs.store, run.id).code_words


# --- mirrors, through a real run


def test_a_tensorboard_directory_that_cannot_be_written_is_said_once_and_the_run_goes_on(runs, runner, monkeypatch, tmp_path, caplog):
    (tmp_path / "board").write_text("a file in the way")
    monkeypatch.setenv("FM_TENSORBOARD_DIR", str(tmp_path / "board"))
    with caplog.at_level(logging.WARNING, logger="fm.jobs"):
        run = runner.execute(runs.start_now("heavy", {"steps": 50}))
    assert run.state == "succeeded" and run.result["steps"] == 50
    [sentence] = run_facts.notes(runs.store, run.id)
    assert "TensorBoard" in sentence and run_facts.of(runs.store, run.id).notes == (sentence,)
    assert runs.log_tail(run.id).count("Not copied to TensorBoard") == 1 and caplog.text.count("Not copied to TensorBoard") == 1


def test_a_killed_childs_points_stand_in_tensorboards_file(runs, runner, monkeypatch, tmp_path, wait):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("FM_TENSORBOARD_DIR", str(tmp_path / "board"))
    runner.start()
    run = runs.request("heavy", {"steps": 1000, "delay_s": 0.02})

    def points():
        read = EventAccumulator(str(tmp_path / "board" / "heavy" / run.id))
        try:
            read.Reload()
            return read.Scalars("loss")
        except Exception:  # noqa: BLE001  no folder or no point yet
            return []

    wait(points)
    psutil.Process(runs.get(run.id).pid).kill()
    wait(lambda: runs.get(run.id).is_over)
    assert [(p.step, p.value) for p in points()][:2] == [(1, 1.0), (2, 0.5)] and run_facts.notes(runs.store, run.id) == ()
    runs.cancel(runs.active()[0].id, by="ann")


def test_a_mirror_that_hangs_does_not_keep_the_process(runs):
    line = ("import time\nmirrors.Mirrors.close.__kwdefaults__['wait_s'] = 0.2\n"
            "mirrors.wanted = lambda settings: [mirrors.TensorBoard(mirrors.Path('x'))]\n"
            "mirrors.TensorBoard.open = lambda self, run: time.sleep(600)")
    run = Runner(runs, place=patched(line)).execute(runs.start_now("heavy"))
    assert run.state == "succeeded" and "did not answer in time" in run_facts.notes(runs.store, run.id)[0]

