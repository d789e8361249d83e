"""The reinforcement job's three steps on a real store and a small shelf; stopped, gone on with, and through the runner's own child."""

import datetime as dt
import json

import pytest
from pydantic import ValidationError

from fmcore import clock
from fmcore.data.interaction_files import own_name
from fmcore.models.registry import Registry, UnknownModel
from fmcore.nouns import Cancelled
from fmcore.recommend import contest, events, shelf
from fmcore.runs import Runs
from fmcore.store.store import Store
from jobs import JOBS
from jobs import reinforce as job
from jobs.folder import RunFolderDamaged
from jobs.place import LocalProcess
from jobs.runner import Runner
from tests.recommend import toy_visits
from tests.recommend.toy_visits import Quiet


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def version(store, tmp_path):
    """A promoted version that learnt from a CSV of the toy visits."""
    data, path = toy_visits.log(n_users=160), tmp_path / "visits.csv"
    named = data.rows.assign(user=[data.users[u] for u in data.rows["user"]], item=[data.items[i] for i in data.rows["item"]])
    named.rename(columns={"at": "timestamp"}).to_csv(path, index=False)
    metrics = shelf.fit(data, names=["popularity", "transitions"], minutes=0, out=tmp_path / "made", report=Quiet())
    registry = Registry(store)
    made = registry.adopt(
        tmp_path / "made", task="recommend", recipe="shelf", dataset=data.name, base="none",
        metrics={**metrics, "params": {"dataset": str(path)}}, run_id="a",
    )
    registry.promote("recommend", made.version, by="test", reason="first")
    return made


def run_dir(store, name="run-1", **params):
    folder = store.home / "runs" / name
    folder.mkdir(parents=True)
    job.prepare(store, job.Params(**{"steps": 128, "seeds": 2, **params}), folder)
    return folder


def test_the_weekly_run_of_a_desk_without_recommendations_ends_at_once_and_says_so(store):
    folder = run_dir(store, **JOBS["reinforce"].scheduled_params)
    assert "serves yet" in job.work(folder, Quiet())["nothing_to_do"]
    assert "serves yet" in job.land(store, folder)["nothing_to_do"]
    assert contest.latest(store) is None


def test_a_run_ends_in_a_contest_that_is_stored_once(store, version, tmp_path):
    for i in range(3):
        item, at = f"item-{i}", clock.now() - dt.timedelta(minutes=9)
        events.note(store, own_name(tmp_path / "visits.csv"), [events.Event("ann", item, "shown", 0.5, at, source="bandit")], known={item})
    folder, report = run_dir(store), Quiet()
    done = job.work(folder, report)
    landed = job.land(store, folder)
    assert landed == done == job.land(store, folder)
    assert store.rows("SELECT count(*) AS n FROM contests")[0]["n"] == 1
    found = contest.latest(store, version.version)
    assert found.sentence == landed["sentence"] and set(landed["likes_a_visit"]) == set(found.table["agent"])
    assert found.plan.seeds == 2 and found.plan.steps == 128 and len(found.table) == 7
    live = found.off_policy[found.off_policy["source"] == "live"]
    assert set(live["n"]) == {3} and live["value"].isna().all()
    assert {f"return_{name}" for name in contest.LEARNERS} == {name for _, values in report.metrics for name in values}
    assert not (folder / "shelf").exists() and not (folder / "checkpoint").exists()
    json.dumps(landed, allow_nan=False)


def test_a_cancelled_run_has_nothing_to_land_and_its_finished_agents_are_kept(store, version):
    folder = run_dir(store)
    with pytest.raises(Cancelled):
        job.work(folder, Quiet(stop_at=2))
    assert {path.stem for path in (folder / "checkpoint").glob("*.json")} >= {"random-0", "greedy-1"}
    with pytest.raises(RunFolderDamaged, match=r"contest\.json"):
        job.land(store, folder)
    assert contest.latest(store) is None


def test_prepare_takes_all_that_work_needs_and_names_the_version(store, version):
    folder = run_dir(store, version=version.version)
    assert json.loads((folder / "settings.json").read_text())["version"] == version.version
    assert (folder / "shelf" / "model.json").exists() and (folder / "data").is_dir() and (folder / "live.parquet").exists()


def test_a_damaged_contest_is_refused_in_words(store, version):
    folder = run_dir(store)
    (folder / "contest.json").write_text("{}")
    with pytest.raises(RunFolderDamaged, match="no contest"):
        job.land(store, folder)


def test_what_is_not_there_is_refused_before_any_work(store, version):
    with pytest.raises(UnknownModel):
        run_dir(store, "r1", version="nonesuch")
    with pytest.raises(Exception, match="nowhere"):
        run_dir(store, "r2", dataset="/nowhere/at/all.csv")


def test_a_desk_without_recommendations_says_so(store):
    with pytest.raises(UnknownModel):
        run_dir(store)


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"seeds": 1}, {"seeds": 99}, {"surprise": 1}, {"version": "v" * 81}])
def test_a_form_with_a_senseless_value_is_refused(wrong):
    with pytest.raises(ValidationError):
        job.Params(**wrong)


def test_the_schedule_is_weekly():
    assert JOBS["reinforce"].schedule == "0 4 * * sat" and JOBS["reinforce"].kind == "heavy"


@pytest.mark.slow
def test_it_runs_in_a_child_of_the_runner(store, version, wait):
    runs = Runs(store, JOBS)
    runner = Runner(runs, place=LocalProcess())
    runner.start()
    try:
        run = runs.request("reinforce", {"steps": 128, "seeds": 2})
        done = wait(lambda: (r := runs.get(run.id)).state not in ("queued", "running") and r, for_s=240)
        assert done.state == "succeeded", runs.log_tail(run.id)
        assert contest.latest(store, version.version).sentence == done.result["sentence"]
        assert "return_ppo" in set(runs.metrics(run.id)["name"])
    finally:
        runner.stop()
