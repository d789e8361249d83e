"""The explain job's three steps on a real store and a tiny real model of a person's own CSV file; and through the runner's own child."""

import json
import shutil

import pytest
from pydantic import ValidationError

from fmcore.data import catalogue
from fmcore.explain import overview
from fmcore.explain.heldout import NotHeld
from fmcore.models.registry import Registry, Tampered, UnknownModel
from fmcore.nouns import Cancelled
from fmcore.runs import Runs
from fmcore.store.store import Store
from jobs import JOBS, explain
from jobs.folder import RunFolderDamaged
from jobs.place import LocalProcess
from jobs.runner import Runner
from tests import tiny_model
from tests.explain import known_model


class Quiet:
    def __init__(self, cancel_at=None):
        self.cancel_at, self.seen = cancel_at, []

    def progress(self, fraction, message=""):
        self.seen.append(fraction)
        if self.cancel_at is not None and len(self.seen) >= self.cancel_at:
            raise Cancelled

    def metric(self, step, **values):
        pass

    def device(self, name):
        pass


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def version(store, tmp_path):
    registry = Registry(store)
    file = known_model.csv(tmp_path / "mine.csv", n_each=150, oos=30)
    made = known_model.adopt(registry, tmp_path / "made", file, run_id="a")
    registry.promote("intent", made.version, by="test", reason="first")
    return made


def run_dir(store, name="run-1", **params):
    folder = store.home / "runs" / name
    folder.mkdir(parents=True)
    explain.prepare(store, explain.Params(**params), folder)
    return folder


def test_a_run_ends_in_an_overview_whose_words_are_those_the_labels_were_made_of(store, version):
    folder = run_dir(store, budget=24)
    report = Quiet()
    result = explain.work(folder, report)
    landed = explain.land(store, folder)
    found = overview.latest(store, "intent", version.version)
    assert landed == {"task": "intent", **result} and landed["version"] == version.version
    test = catalogue.load(str(version.metrics["params"]["dataset"])).test
    assert found.n_rows == (test["label"] != "oos").sum() and found.dataset == "mine"
    for label, made_of in tiny_model.TOPICS.items():
        words = found.words[found.words["label"] == label]
        assert words.iloc[0]["word"] in made_of and words.iloc[0]["sure"] and words.iloc[0]["low"] > 0
    assert any("made again" in note for note in found.notes)
    assert report.seen == sorted(report.seen) and report.seen[-1] > 0.9
    json.dumps(landed, allow_nan=False)


def test_landing_twice_stores_one_overview(store, version):
    folder = run_dir(store, n_texts=9, budget=8)
    explain.work(folder, Quiet())
    assert explain.land(store, folder) == explain.land(store, folder)
    assert store.rows("SELECT count(*) AS n FROM overviews")[0]["n"] == 1


def test_a_version_can_be_named_and_work_needs_no_database(store, tmp_path, version):
    other = known_model.adopt(Registry(store), tmp_path / "made", tmp_path / "mine.csv", run_id="b", features=16)
    folder = run_dir(store, version=other.version, n_texts=6, budget=8)
    store.close()
    explain.work(folder, Quiet())
    assert json.loads((folder / "overview.json").read_text())["version"] == other.version
    again = Store(tmp_path / "home")
    try:
        explain.land(again, folder)
        assert overview.latest(again, "intent", other.version).n_texts >= 6
        assert overview.latest(again, "intent", version.version) is None
    finally:
        again.close()


def test_a_cancelled_run_leaves_nothing_to_land_and_can_be_done_again(store, version):
    folder = run_dir(store, n_texts=30, budget=8)
    report = Quiet(cancel_at=12)
    with pytest.raises(Cancelled):
        explain.work(folder, report)
    assert len(report.seen) == 12 and not (folder / "overview.json").exists()
    with pytest.raises(RunFolderDamaged, match=r"overview\.json"):
        explain.land(store, folder)
    explain.work(folder, Quiet())
    assert explain.land(store, folder)["n_texts"] >= 30


def test_what_cannot_be_looked_at_is_refused_before_any_work(store, tmp_path, version):
    with pytest.raises(UnknownModel):
        run_dir(store, "r1", version="nonesuch")
    with pytest.raises(UnknownModel):
        run_dir(store, "r2", task="sentiment")
    (tmp_path / "mine.csv").rename(tmp_path / "away.csv")
    with pytest.raises(NotHeld, match=version.version):
        run_dir(store, "r3")
    (tmp_path / "away.csv").rename(tmp_path / "mine.csv")
    (version.path / "heldout.parquet").write_bytes(b"other")
    with pytest.raises(Tampered):
        run_dir(store, "r4")


@pytest.mark.parametrize("wrong", [{"budget": 2}, {"n_texts": -1}, {"task": "x"}, {"surprise": 1}, {"version": "v" * 81}])
def test_a_form_with_a_senseless_value_is_refused(wrong):
    with pytest.raises(ValidationError):
        explain.Params(**wrong)


def test_rows_of_sentiment_are_cut_by_what_the_live_topic_model_says(store, tmp_path, version):
    registry = Registry(store)
    shutil.copytree(version.path, tmp_path / "topic")
    topic = registry.adopt(tmp_path / "topic", task="topic", recipe="linear", dataset="mine", base="bag", metrics=version.metrics, run_id="t")
    shutil.copytree(version.path, tmp_path / "sentiment")
    mood = registry.adopt(tmp_path / "sentiment", task="sentiment", recipe="linear", dataset="mine", base="bag", metrics=version.metrics, run_id="s")
    first = run_dir(store, "r1", task="sentiment", version=mood.version, n_texts=3, budget=8)
    explain.work(first, Quiet())
    assert "topic" not in {row["by"] for row in json.loads((first / "overview.json").read_text())["slices"]}
    registry.promote("topic", topic.version, by="test", reason="first")
    second = run_dir(store, "r2", task="sentiment", version=mood.version, n_texts=3, budget=8)
    explain.work(second, Quiet())
    found = json.loads((second / "overview.json").read_text())
    assert {row["slice"] for row in found["slices"] if row["by"] == "topic"} == set(tiny_model.TOPICS)
    assert any(topic.version in note for note in found["notes"])


@pytest.mark.slow
def test_it_runs_in_a_child_of_the_runner(store, version, wait):
    runs = Runs(store, JOBS)
    runner = Runner(runs, place=LocalProcess())
    runner.start()
    try:
        run = runs.request("explain", {"n_texts": 12, "budget": 8})
        done = wait(lambda: (r := runs.get(run.id)).state not in ("queued", "running") and r)
        assert done.state == "succeeded", runs.log_tail(run.id)
        assert overview.latest(store, "intent", version.version).n_texts >= 12
    finally:
        runner.stop()
