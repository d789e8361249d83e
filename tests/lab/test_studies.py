"""Studies are kept once a run, found newest first, and refused when they are of no known kind."""

import pytest

from fmcore.lab import studies
from fmcore.store.store import Store


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "home")
    yield made
    made.close()


def test_a_study_is_kept_once_a_run(store):
    first = studies.keep(store, kind="labels", task="intent", dataset="demo", run_id="r1", content={"points": [{"shots": 8, "mean": 0.5}]})
    again = studies.keep(store, kind="labels", task="intent", dataset="demo", run_id="r1", content={"points": []})
    assert again == first and again.table("points")["shots"].tolist() == [8]
    assert again.table("nothing").empty
    assert len(studies.listed(store, kind="labels")) == 1


def test_the_newest_of_a_task_and_data_set_is_found(store):
    for run, task, dataset in (("r1", "intent", "demo"), ("r2", "intent", "banking77"), ("r3", "topic", "demo_topic")):
        studies.keep(store, kind="board", task=task, dataset=dataset, run_id=run, content={})
    assert studies.latest(store, kind="board", task="intent").run_id == "r2"
    assert studies.latest(store, kind="board", task="intent", dataset="demo").run_id == "r1"
    assert studies.latest(store, kind="labels", task="intent") is None
    assert [s.run_id for s in studies.listed(store, kind="board", task="intent")] == ["r2", "r1"]


def test_unknown_kinds_and_ids_are_refused(store):
    with pytest.raises(studies.UnknownStudy):
        studies.keep(store, kind="gossip", task="intent", dataset="demo", run_id="r", content={})
    with pytest.raises(studies.UnknownStudy):
        studies.get(store, "labels-nothing")
