"""The recommendation job: what it takes in, what it makes, when it makes nothing, and how often it takes effect."""

import datetime as dt
import json

import pytest

from fmcore import clock
from fmcore.data.interaction_files import own_name
from fmcore.models.registry import Registry
from fmcore.nouns import Cancelled
from fmcore.recommend import events
from fmcore.recommend.offers import UnknownRecommender
from fmcore.recommend.shelf import Shelf
from fmcore.runs import AlreadyQueued, Runs
from fmcore.store.store import Store
from jobs import JOBS
from jobs import recommend as job
from tests.recommend.toy_shelf import Quiet, shop


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def log(tmp_path):
    """A CSV of the toy shop."""
    data = shop()
    path = tmp_path / "walks.csv"
    named = data.rows.assign(user=[data.users[u] for u in data.rows["user"]], item=[data.items[i] for i in data.rows["item"]])
    named.rename(columns={"at": "timestamp"})[["user", "item", "timestamp"]].to_csv(path, index=False)
    return str(path)


def prepared(store, name, **params):
    folder = store.home / "runs" / name
    folder.mkdir(parents=True)
    job.prepare(store, job.Params(**{"models": "transitions", "minutes": 0, **params}), folder)
    return folder


def ran(store, name, *, report=None, **params):
    folder = prepared(store, name, **params)
    job.work(folder, report or Quiet())
    return folder, job.land(store, folder)


def named(store):
    """What the log of the toy shop is called."""
    return own_name(store.home.parent / "walks.csv")


def click(store, who, item, minutes=0, dataset=None):
    dataset = dataset or named(store)
    at = clock.now() - dt.timedelta(hours=1) + dt.timedelta(minutes=minutes)
    noted = events.note(store, dataset, [events.Event(who, item, "click", happened_at=at)], known={item})
    assert noted.stored == 1


def test_a_log_becomes_a_version_that_serves(store, log):
    _, result = ran(store, "run-1", dataset=log)
    champion = Registry(store).champion("recommend")
    assert result["promoted"] and result["version"] == champion.version and result["serving"] == "transitions"
    shelf = Shelf.load(champion.path, version=champion.version)
    assert shelf.dataset == named(store) and len(shelf.users) == 80 and champion.metrics["params"]["dataset"] == log


def test_landing_twice_takes_effect_once(store, log):
    folder, first = ran(store, "run-1", dataset=log)
    assert job.land(store, folder) == first
    registry = Registry(store)
    assert len(registry.versions("recommend")) == 1 and len(registry.promotions("recommend")) == 1


def test_what_is_asked_for_decides_who_serves(store, log):
    _, never = ran(store, "run-1", dataset=log, promote="never")
    assert not never["promoted"] and Registry(store).champion("recommend") is None
    _, always = ran(store, "run-2", dataset=log, promote="always", models="popularity")
    assert always["promoted"] and not always["verdict"]["passed"]


def test_stored_interactions_are_learnt_from(store, log):
    click(store, "a newcomer", "item-3")
    folder, _ = ran(store, "run-1", dataset=log)
    champion = Registry(store).champion("recommend")
    shelf = Shelf.load(champion.path, version="v")
    assert [shelf.items.ids[i] for i in shelf.past("a newcomer")] == ["item-3"]


def test_a_night_without_anything_new_ends_at_once_and_says_so(store, log):
    _, first = ran(store, "run-1", dataset=log)
    folder, second = ran(store, "run-2", models="champion", only_if_new=True)
    assert second["version"] is None and first["version"] in second["nothing_new"] and not (folder / "data").exists()
    assert job.land(store, folder) == second and len(Registry(store).versions("recommend")) == 1


def test_a_night_with_something_new_refits_what_the_champion_was_made_of(store, log):
    _, first = ran(store, "run-1", dataset=log)
    for user in range(20):
        met = {f"item-{i}" for i in shop().histories()[user]}
        click(store, f"user-{user}", next(f"item-{i}" for i in range(30) if f"item-{i}" not in met), minutes=user)
    folder, second = ran(store, "run-2", models="champion", only_if_new=True)
    chosen = json.loads((folder / "settings.json").read_text())
    assert chosen["champion"] == first["version"] and chosen["params"]["models"] == "transitions" and chosen["params"]["dataset"] == log
    assert second["n_interactions"] == first["n_interactions"] + 20
    assert second["verdict"]["difference"]["n"] == 80  # moved rows are compared by the champion's own placing of them
    assert not (folder / "champion").exists()


def test_a_forgotten_item_is_something_new_and_is_not_learnt(store, log):
    ran(store, "run-1", dataset=log)
    data = shop()
    item = data.items[data.histories()[0][0]]
    at = clock.now() - dt.timedelta(minutes=5)
    events.note(store, named(store), [events.Event("user-0", item, "forget", happened_at=at)], known={item})
    _, second = ran(store, "run-2", models="champion", only_if_new=True)
    version = Registry(store).get("recommend", second["version"])
    assert item not in [Shelf.load(version.path, version="v").items.ids[i] for i in Shelf.load(version.path, version="v").past("user-0")]


def test_a_damaged_champion_is_no_reason_not_to_train(store, log):
    ran(store, "run-1", dataset=log)
    champion = Registry(store).champion("recommend")
    (champion.path / "items.parquet").write_bytes(b"torn")
    folder = prepared(store, "run-2", dataset=log)
    assert json.loads((folder / "settings.json").read_text())["champion"] == ""
    job.work(folder, Quiet())
    assert "person has to decide" in job.land(store, folder)["verdict"]["reason"]


def test_a_misspelt_model_is_refused_before_anything_is_read(store):
    with pytest.raises(UnknownRecommender, match="oracle"):
        prepared(store, "run-1", models="popularity, oracle", dataset="/no/such.csv")


def test_a_killed_run_goes_on_after_its_last_finished_model(store, log, monkeypatch):
    folder = prepared(store, "run-1", dataset=log)
    with pytest.raises(Cancelled):
        job.work(folder, Quiet(stop_at=0.5))
    from fmcore.recommend.counting import Popularity

    monkeypatch.setattr(Popularity, "save", lambda *_: pytest.fail("a finished model was fitted again"))
    job.work(folder, Quiet())
    assert job.land(store, folder)["promoted"] and not (folder / "checkpoint").exists()


def test_two_trainings_do_not_wait_at_once(store):
    runs = Runs(store, JOBS)
    runs.request("recommend", {})
    with pytest.raises(AlreadyQueued):
        runs.request("recommend", {})
