"""The fold-in job: what people did becomes counts of the version that serves, once, whatever kills it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmcore import config, runtime
from fmcore.models.registry import Registry
from fmcore.recommend import events, folding
from fmcore.recommend.service import Ask, Event
from fmcore.store.store import Store
from jobs import JOBS, fold_in
from tests.recommend import toy_service

ROOT = Path(__file__).resolve().parents[2]


class Silent:
    def progress(self, fraction, message=""):
        pass


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home in which one version serves; tests work on copies of it."""
    at = tmp_path_factory.mktemp("fold-in")
    return toy_service.served(at / "home", at)


@pytest.fixture
def store(home, tmp_path):
    shutil.copytree(home, tmp_path / "home")
    held = Store(tmp_path / "home")
    yield held
    held.close()


def run(store):
    return fold_in.run(store, fold_in.FoldIn(), Silent())


def after(desk, item="item-2"):
    return [(one.item, one.score) for one in desk.recommend(Ask(history=(item,), k=5)).items]


def all_do(desk, n, *items, first=0):
    assert desk.note([Event(f"p{person}", item, "click") for person in range(first, first + n) for item in items]).stored == n * len(items)


def rows(store):
    return store.rows("SELECT version, up_to, n_events FROM recommend_folds ORDER BY up_to")


def test_without_a_version_or_anything_new_it_does_nothing(store, tmp_path):
    bare = Store(tmp_path / "bare")
    assert run(bare) == {"version": None, "folded": 0, "up_to": 0} and rows(bare) == []
    bare.close()
    assert run(store)["folded"] == 0 and rows(store) == []


def test_new_events_are_in_the_counts_after_one_run_and_a_second_changes_nothing(store):
    desk = toy_service.over(store)
    before = after(desk)
    all_do(desk, 30, "item-2", "item-25")
    assert run(store) == {"version": desk.shelf().version, "folded": 60, "up_to": 60}
    once = after(desk)
    assert once[0][0] == "item-25" and once != before
    assert run(store)["folded"] == 0 and after(desk) == once and rows(store) == [{"version": desk.shelf().version, "up_to": 60, "n_events": 60}]
    all_do(desk, 1, "item-2", "item-14", first=90)
    assert run(store)["folded"] == 2 and after(desk) != once


def test_the_counts_are_those_of_the_people_it_saw(store):
    desk = toy_service.over(store)
    before = {one.item: one.score for one in desk.recommend(Ask(model="popularity", k=30)).items}
    all_do(desk, 7, "item-25")
    desk.note([Event("skipper", "item-25", "skip"), Event("undecided", "item-25", "like"), Event("undecided", "item-25", "forget"), Event("p0", "item-25", "view")])
    run(store)
    now = {one.item: one.score for one in desk.recommend(Ask(model="popularity", k=30)).items}
    assert now == {**before, "item-25": before["item-25"] + 7}


def test_what_the_version_was_trained_on_is_not_folded_again(store, tmp_path):
    desk = toy_service.over(store)
    all_do(desk, 5, "item-2", "item-25")
    registry = Registry(store)
    version = toy_service.adopt(registry, tmp_path, run_id="refit", interactions_up_to=10)
    toy_service.promote(registry, version)
    before = after(desk)
    assert run(store) == {"version": version.version, "folded": 0, "up_to": 10} and after(desk) == before
    all_do(desk, 5, "item-2", "item-25", first=50)
    all_do(desk, 1, "item-14")  # somebody whose earlier events were learnt from already
    assert run(store)["folded"] == 11 and rows(store)[0]["n_events"] == 11
    counts = {one.item: one.score for one in desk.recommend(Ask(model="popularity", k=30)).items}
    trained = dict(zip(desk.shelf().items.ids, desk.shelf().models["popularity"].counts.tolist(), strict=True))
    assert counts == {**trained, "item-2": trained["item-2"] + 5, "item-25": trained["item-25"] + 5, "item-14": trained["item-14"] + 1}


def test_events_of_another_data_set_are_none_of_its_business(store):
    events.note(store, "other shop", [Event("p", "item-2", "click")], known={"item-2"})
    assert run(store)["folded"] == 0 and rows(store) == []


def test_in_the_server_the_counts_are_ready_when_the_job_ends(home, tmp_path):
    shutil.copytree(home, tmp_path / "served")
    desk = runtime.start(config.Settings(home=tmp_path / "served"), JOBS)
    try:
        all_do(desk.recommend, 3, "item-2", "item-25")
        run(desk.store)
        assert desk.recommend.info()["folded_up_to"] == 6
    finally:
        runtime.stop()


VICTIM = """
import sys
sys.path[:0] = [{root!r}]
from fmcore.store.store import Store
from jobs import fold_in
class Silent:
    def progress(self, fraction, message=""): pass
store = Store(sys.argv[1], wait_s=20)
print("ready", flush=True)
while True: fold_in.run(store, fold_in.FoldIn(), Silent())
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_has_lost_nothing_and_counted_nothing_twice(store):
    desk = toy_service.over(store)
    home = store.home
    for turn in range(4):
        all_do(desk, 5, "item-2", "item-25", first=turn * 10)
        store.close()
        victim = subprocess.Popen([sys.executable, "-c", VICTIM.format(root=str(ROOT)), str(home)], cwd=ROOT, text=True, stdout=subprocess.PIPE, env=config.child_environment())
        victim.stdout.readline()
        time.sleep(0.02 * turn)
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        store = Store(home, wait_s=20)
        desk = toy_service.over(store)
        run(store)
        assert folding.folded_up_to(store, desk.shelf().version) == 10 * (turn + 1) and rows(store)[-1]["n_events"] == 10 * (turn + 1)
    counts = {one.item: one.score for one in desk.recommend(Ask(model="popularity", k=30)).items}
    shelf = desk.shelf()
    trained = dict(zip(shelf.items.ids, shelf.models["popularity"].counts.tolist(), strict=True))
    assert counts == {**trained, "item-2": trained["item-2"] + 20, "item-25": trained["item-25"] + 20}
    store.close()


def test_it_runs_every_few_minutes_without_filling_histories():
    assert fold_in.JOB.routine and fold_in.JOB.kind == "light" and fold_in.JOB.schedule == "*/5 * * * *"
