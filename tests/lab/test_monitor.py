"""The pretraining monitor: runs and bases alike, whatever a run that was killed left behind."""

import json

import pytest

from fmcore import runtime
from fmcore.lab import monitor
from jobs import JOBS
from tests.lab import toy_bases
from tests.pages import toy_desk


@pytest.fixture
def desk():
    yield toy_desk.start(JOBS)
    runtime.stop()


def test_runs_at_work_come_first_then_the_shelf_then_what_ended_early(desk, tmp_path):
    failed = toy_desk.ended(desk, monitor.JOB, "failed", error="no number")
    done = desk.runs.start_now(monitor.JOB)
    toy_bases.shelve(desk.store.home, tmp_path)
    desk.runs.finish(done.id, "succeeded", result={"base": "base:finance"})
    working = desk.runs.start_now(monitor.JOB)
    there = monitor.watchable(desk.runs, desk.store.home)
    assert [one.key for one in there] == [f"run:{working.id}", "base:finance", f"run:{failed.id}"]
    assert [one.at_work for one in there] == [True, False, False]
    assert there[1].run.id == done.id, "the base knows the run that made it"
    assert there[1].about["corpus"] == ["demo <b>"] and there[0].about["objective"] == "mlm"


def test_a_base_has_curves_even_where_its_run_is_not_on_this_desk(desk, tmp_path):
    toy_bases.shelve(desk.store.home, tmp_path)
    watched = monitor.watchable(desk.runs, desk.store.home)[0]
    curves = monitor.curves(desk.runs, watched)
    assert list(curves[curves["name"] == "masked_accuracy"]["value"]) == pytest.approx([0.02, 0.12, 0.22])
    assert monitor.facts(desk.runs, watched) is None and monitor.tokens(desk.runs, watched) is None
    assert len(monitor.fills(desk.runs, watched)) == len(toy_bases.filled())


@pytest.mark.parametrize("torn", ['{"step": 80, "sent', "[1, 2]", '{"step": 80}', "\x00\x00", ""])
def test_a_torn_line_of_a_killed_run_is_left_out(desk, torn):
    run = desk.runs.start_now(monitor.JOB)
    folder = desk.runs.folder(run.id) / "checkpoint"
    folder.mkdir(parents=True)
    rows = toy_bases.filled((0,)).to_dict("records")
    (folder / "fills.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + torn)
    (folder / "curve.jsonl").write_text('{"step": 40, "tokens": 4096}\n' + torn)
    watched = monitor.watchable(desk.runs, desk.store.home)[0]
    assert len(monitor.fills(desk.runs, watched)) == len(rows)
    assert monitor.tokens(desk.runs, watched) == 4096


def test_only_a_failed_run_with_a_finished_folder_can_be_kept(desk):
    run = toy_desk.ended(desk, monitor.JOB, "failed", error="no number")
    watched = monitor.watchable(desk.runs, desk.store.home)[0]
    assert not monitor.can_keep(desk.runs, watched)
    (desk.runs.folder(run.id) / "model").mkdir(parents=True)
    (desk.runs.folder(run.id) / "model" / "MANIFEST.json").write_text("{}")
    assert monitor.can_keep(desk.runs, watched)


def test_a_small_run_fits_the_jobs_form_with_and_without_public_data(desk, public_data):
    assert monitor.small_run()["corpus"] == ",".join(monitor.SMALL_SETS)
    desk.runs.params(monitor.JOB, monitor.small_run())
