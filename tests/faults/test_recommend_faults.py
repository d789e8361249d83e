"""Recommendations under real faults, through the faces that people use: hostile logs and ids, a catalogue that changes, versions that swap
or break while they serve, full disks, and kill -9 at every step of noting and training."""

import csv
import datetime as dt
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from fmcore import api as rest
from fmcore import clock, config, runtime
from fmcore.models.registry import Registry
from fmcore.nouns import FMError
from fmcore.recommend import events
from fmcore.recommend.service import Ask, Event, ItemChange, Recommend
from fmcore.recommend.shelf import Shelf
from fmcore.runs import AlreadyQueued, Runs
from fmcore.store.store import Store
from jobs import JOBS, fold_in, reinforce
from jobs import recommend as job
from jobs.place import LocalProcess
from jobs.runner import Runner
from tests.faults import recommender
from tests.faults.victims import Victims
from tests.recommend import toy_service, toy_shelf, toy_visits
from tests.recommend.toy_shelf import Quiet
from tests.tiny_encoder import TOPICS, save_tiny_encoder

ROOT = Path(__file__).resolve().parents[2]
BASE = "http://127.0.0.1:8501"
ODD = ["007", "7", 'say "hi" 🦊', "it's; DROP TABLE items --", "a,b", "<script>alert(1)</script>", "日本語", "  padded ", "💥" * 20, "two\nlines"]
ITEMS = [*ODD, *(f"item-{n}" for n in range(30))]
PEOPLE = [*ODD, *(f"user-{n}" for n in range(40))]
WORDS = list(TOPICS.values())
NOBODY_MET = "nobody met me"
FIRST_AT = 1_700_000_000


def topic(item):
    return ITEMS.index(item) % len(WORDS)


def messy(path, *, seed=0, ids=None):
    """A log of people who walk through the items of one topic, in the order of no clock, with all that goes wrong in one; and its items."""
    chance, rows = random.Random(seed), []
    for number, who in enumerate(PEOPLE):
        own = [item for item in ITEMS if topic(item) == number % len(WORDS)]
        for step in range(8):
            rating = ("4.5", "NaN", "", "inf", "five")[step % 5]
            rows.append((who, own[(number + step) % len(own)], FIRST_AT + number * 1000 + step, rating))
    rows += [(who, item, at + 500, "1") for who, item, at, _ in rows[::9]]  # met again later
    rows += [("user-1", "tomorrow", int(time.time()) + 10**7, "5"), ("", "item-1", FIRST_AT, ""), ("user-1", "item-1", "some day", "")]
    chance.shuffle(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("user", "item", "timestamp", "rating"), *rows])
    with path.with_name(f"{path.stem}-items.csv").open("w", encoding="utf-8", newline="") as file:
        told = [(item, f"{WORDS[topic(item)].split()[n % 7]} {n}", WORDS[topic(item)]) for n, item in enumerate(ITEMS)]
        csv.writer(file).writerows([("item", "title", "text"), *told, (NOBODY_MET, "refund", WORDS[1])])
    return path


def trained(store, name, **params):
    """A whole run of the job but for its process; what landed."""
    folder = store.home / "runs" / name
    folder.mkdir(parents=True)
    job.prepare(store, job.Params(**{"minutes": 0, "promote": "always", **params}), folder)
    job.work(folder, Quiet())
    return job.land(store, folder)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A home in which a version serves that learnt from the messy log, with a text model; each test copies it."""
    at = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as set_to:
        set_to.setenv("FM_HOME", str(at / "home"))
        set_to.setenv("FM_BASE_MODEL", save_tiny_encoder(at / "encoder"))
        config.settings.cache_clear()
        store = Store(at / "home")
        trained(store, "first", dataset=str(messy(at / "log.csv")), models="transitions, knn, text, hybrid")
        store.close()
    config.settings.cache_clear()
    return at / "home"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A home in which a version of the toy shop serves; each test copies it."""
    at = tmp_path_factory.mktemp("plain")
    return toy_service.served(at / "home", at)


@pytest.fixture
def desk(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "served")
    yield runtime.start(config.Settings(home=tmp_path / "served", secret_api_token=None), JOBS)
    runtime.stop()


@pytest.fixture
def shop(plain, tmp_path):
    """A desk over the toy shop."""
    shutil.copytree(plain, tmp_path / "served")
    yield runtime.start(config.Settings(home=tmp_path / "served", secret_api_token=None), JOBS)
    runtime.stop()


def client():
    return TestClient(rest.api, base_url=BASE, raise_server_exceptions=False)


def post(path, body):
    """By hand: httpx refuses NaN and half a surrogate pair."""
    return client().post(path, content=json.dumps(body), headers={"content-type": "application/json"})


def ids(answer):
    return [one.item for one in answer.items]


# ---------------------------------------------------------------- a log as they come


def test_a_messy_log_is_learnt_from_in_order_and_what_was_left_out_is_said(desk):
    held = desk.recommend.shelf()
    assert set(held.items.ids) == {*ITEMS, NOBODY_MET} and set(held.users) == set(PEOPLE), "ids as their owner writes them"
    for number, who in enumerate(PEOPLE):
        own = [item for item in ITEMS if topic(item) == number % len(WORDS)]
        assert [met.item for met in desk.recommend.history(who)][::-1] == [own[(number + step) % len(own)] for step in range(8)]
    said = " ".join(held.facts["notes"])
    for left_out in ("1 row more than 1 day in the future", "had met before", "1 row without a usable user or item", "1 row without a time"):
        assert left_out in said, said
    assert "Ratings that cannot be read" in said


def test_ids_of_any_text_go_in_and_come_out_as_they_are(desk):
    skipped = []
    for who in ODD:
        before = post("/recommend", {"user": who, "k": 100}).json()
        assert before["fallback"] == "" and before["n_history"] == 8
        assert {one["item"] for one in before["items"]} | {met.item for met in desk.recommend.history(who)} == {*ITEMS, NOBODY_MET}
        skipped.append({"who": who, "item": before["items"][0]["item"]})
        assert post("/interactions", {"events": [{"user": who, "item": skipped[-1]["item"], "kind": "skip"}]}).json()["stored"] == 1
        after = [one["item"] for one in post("/recommend", {"user": who, "k": 100}).json()["items"]]
        assert skipped[-1]["item"] not in after and len(after) == len(before["items"]) - 1
        assert desk.recommend.why(Ask(who=who), after[0]).item == after[0] and who in desk.recommend.users(who, limit=3)
    assert desk.store.rows("SELECT who, item FROM interactions ORDER BY n") == skipped, "and nobody else's"


def test_the_order_of_a_files_rows_makes_no_difference_where_moments_differ(desk, tmp_path):
    again = trained(desk.store, "second", dataset=str(messy(tmp_path / "log.csv", seed=1)), models="transitions, knn")
    version = desk.registry.get("recommend", again["version"])
    assert version.metrics["content_hash"] == desk.recommend.shelf().facts["content_hash"]


@pytest.mark.parametrize("log", ["", "a,x,1\n", "a,x,1\nb,x,2\n" * 5, "a,x,99999999999\n", "a,x,soon\n", ",,\n"])
def test_a_log_to_learn_nothing_from_fails_in_words_and_what_served_serves_on(shop, tmp_path, log):
    (tmp_path / "log.csv").write_text(f"user,item,timestamp\n{log}")
    with pytest.raises(FMError) as refused:
        trained(shop.store, "second", dataset=str(tmp_path / "log.csv"), models="transitions, knn, ease, hybrid")
    assert refused.value.message and refused.value.hint
    assert len(shop.registry.versions("recommend")) == 1 and shop.recommend.recommend(Ask(who="user-1")).fallback == ""


def test_a_catalogue_of_one_item_beside_two_others_serves_whoever_has_not_met_it(shop, tmp_path):
    """Three items, one person who met them all: the smallest log that can be measured."""
    (tmp_path / "log.csv").write_text("user,item,timestamp\nann,x,1\nann,y,2\nann,z,3\nbob,x,4\n")
    made = trained(shop.store, "second", dataset=str(tmp_path / "log.csv"), models="transitions, knn, ease, als, hybrid, blend")
    assert made["promoted"] and shop.recommend.info()["version"] is not None
    for model in shop.recommend.shelf().models:
        nothing = shop.recommend.recommend(Ask(who="ann", model=model, diversity=0.5, k=500))
        assert nothing.items == () and "Nothing is left to show" in nothing.note
        assert set(ids(shop.recommend.recommend(Ask(who="bob", model=model, k=500)))) == {"y", "z"}
        assert set(ids(shop.recommend.recommend(Ask(who="zoë", model=model)))) == {"x", "y", "z"}
    shop.recommend.change_items([ItemChange(item, state="removed") for item in "xy"])
    alone = shop.recommend.recommend(Ask(who="bob"))
    assert ids(alone) == ["z"] and "Only 1 item is left to show: of 1 items" in alone.note


# ---------------------------------------------------------------- questions at the edge


def edges(desk):
    """Everybody at the edge of what is known, by name."""
    everything = tuple(desk.recommend.shelf().items.ids)
    return {
        "nobody": Ask(), "a stranger": Ask(who="zoë 🦊"), "an empty past": Ask(who=PEOPLE[0], history=()), "unknown items": Ask(history=("?", "??")),
        "one item": Ask(history=everything[:1]), "one twice": Ask(history=everything[:1] * 2), "all but one": Ask(history=everything[1:]),
        "everything": Ask(history=everything),
    }  # fmt: skip


MORE = [{}, {"diversity": 1.0}, {"learner": "thompson", "seed": 1}, {"learner": "linucb", "seed": 1}, {"sentence": "a refund of my money"}]


@pytest.mark.parametrize("more", MORE)
def test_who_is_at_the_edge_gets_all_that_is_left_and_no_more(desk, more):
    everything, models = set(desk.recommend.shelf().items.ids), list(desk.recommend.shelf().models)
    for edge, asked in edges(desk).items():
        past = set(asked.history or ())
        left = everything - past
        for name, k in [(None, 1), (None, 500), *((name, 500) for name in models)]:
            answer = desk.recommend.recommend(Ask(**{**vars(asked), **more, "model": name, "k": k}))
            assert len(set(ids(answer))) == len(ids(answer)) == min(k, len(left)) and set(ids(answer)) <= left, (edge, name)
            assert all(np.isfinite(one.score) for one in answer.items)
            assert set(answer.unknown) == past - everything and answer.n_history == len(past & everything)
            assert bool(answer.note) == (k > len(left)), (edge, answer.note)
            known = bool(past & everything) or "sentence" in more or name == "popularity"
            assert (answer.fallback == "") is known, (edge, name, answer.fallback)
            assert all(one.because.item in past for one in answer.items if one.because)
        beside = desk.recommend.side_by_side(asked, models)
        assert np.isfinite(beside.overlap.to_numpy()).all() and np.allclose(np.diag(beside.overlap), 1)


SENTENCES = [
    "x", "card " * 4_000, "\0\x1b[31m\u202e \u200b", "我丢了卡，想退款", "أريد استرداد أموالي", "🦊🦊🦊", "\ud800 half a pair",
    "<script>refund</script>", "'; DROP TABLE interactions; --", "   \n\t ",
]  # fmt: skip


def test_any_sentence_is_answered_over_the_api_or_said_to_be_left_aside(desk):
    for sentence in SENTENCES:
        for body in ({"sentence": sentence}, {"sentence": sentence, "user": PEOPLE[0]}, {"sentence": sentence, "model": "popularity"}):
            said = post("/recommend", {**body, "k": 5})
            assert said.status_code == 200, (sentence, said.text)
            answer = said.json()
            assert len(answer["items"]) == 5 and all(np.isfinite(one["score"]) for one in answer["items"])
            assert "text" in answer["model"] or "sentence was left aside" in answer["note"] or not sentence.strip(), sentence
    assert post("/recommend", {"sentence": "refund return back purchase", "k": 3}).json()["model"] == "text"


SENSELESS = [
    {"k": 0}, {"k": -1}, {"k": 1.5}, {"k": float("nan")}, {"diversity": -0.1}, {"diversity": float("nan")}, {"diversity": float("inf")},
    {"diversity": "much"}, {"history": [None]}, {"history": [["item-1"]]}, {"without": "item-1"}, {"reasons": "perhaps"},
]  # fmt: skip


def test_a_senseless_number_is_refused_in_words(shop):
    for body in SENSELESS:
        said = post("/recommend", body)
        assert said.status_code == 422 and next(iter(body)) in said.json()["error"], (body, said.text)


def test_a_batch_that_is_too_large_is_refused_whole_and_says_how_much_may_come(desk):
    event = {"user": "ann", "item": "item-1", "kind": "click"}
    said = post("/interactions", {"events": [{**event, "id": str(n)} for n in range(5_000)]})
    assert said.status_code == 422 and "1000" in said.json()["error"].replace(",", ""), said.text
    assert desk.recommend.history("ann") == []
    assert post("/interactions", {"events": [{**event, "id": str(n)} for n in range(1_000)]}).json()["stored"] == 1_000


def test_events_that_come_late_twice_or_from_tomorrow(desk):
    """The past is that of the moments, whatever the order of arrival; what lies ahead is refused by itself."""
    at = clock.now() - dt.timedelta(days=1)
    walk = [{"id": f"e{n}", "user": "ann", "item": f"item-{n}", "kind": "click", "happened_at": (at + dt.timedelta(minutes=n)).isoformat()} for n in range(6)]
    ahead = {"user": "ann", "item": "item-9", "kind": "click", "happened_at": (clock.now() + dt.timedelta(hours=1)).isoformat()}
    naive = {"user": "ann", "item": "item-9", "kind": "click", "happened_at": "2026-01-31T12:00:00"}
    broken = {"user": "ann", "item": "item-9", "kind": "rate", "value": float("nan")}
    arrived = [walk[n] for n in (5, 0, 3, 3, 1, 4, 2, 0)]
    said = post("/interactions", {"events": [ahead, *arrived, naive, broken]}).json()
    assert (said["stored"], said["known"], [one["index"] for one in said["refused"]]) == (6, 2, [0, 9, 10])
    assert all(word in one["reason"] for word, one in zip(("future", "zone", "finite"), said["refused"], strict=True))
    assert [met.item for met in desk.recommend.history("ann")][::-1] == [f"item-{n}" for n in range(6)]
    late = {"user": "ann", "item": "item-2", "kind": "skip", "happened_at": at.isoformat()}  # before it was clicked
    assert post("/interactions", {"events": [late]}).json()["stored"] == 1
    assert events.kept_off(events.past(desk.store, desk.recommend.shelf().dataset, "ann")) == set()
    in_order = desk.recommend.recommend(Ask(history=tuple(f"item-{n}" for n in range(6))))
    assert ids(desk.recommend.recommend(Ask(who="ann"))) == ids(in_order)


# ---------------------------------------------------------------- a catalogue that changed


def lists(desk, who, item):
    """Every list that a person may be shown, by how it was asked for."""
    ask, found = Ask(who=who, k=500), {}
    met = desk.recommend.history(who)[0].item
    for name in desk.recommend.shelf().models:
        found[name] = ids(desk.recommend.recommend(Ask(who=who, k=500, model=name)))
        found[f"{name}, spread"] = ids(desk.recommend.recommend(Ask(who=who, k=500, model=name, diversity=1.0)))
        found[f"like, {name}"] = ids(desk.recommend.similar(met, 500, model=name))
    beside = desk.recommend.side_by_side(ask, list(desk.recommend.shelf().models))
    found |= {f"beside, {name}": ids(answer) for name, answer in beside.lists.items()}
    found["without"] = ids(desk.recommend.without(ask, met))
    found["in words"] = ids(desk.recommend.recommend(Ask(who=who, k=500, sentence=f"{WORDS[1]} refund")))
    for learner in ("thompson", "linucb"):
        found[learner] = ids(desk.recommend.recommend(Ask(who=who, k=500, learner=learner, seed=0)))
    found["stranger"] = ids(desk.recommend.recommend(Ask(who="zoë", k=500)))
    found["api"] = [one["item"] for one in post("/recommend", {"user": who, "k": 500}).json()["items"]]
    found["api, history"] = [one["item"] for one in post("/recommend", {"history": [met], "k": 500, "diversity": 0.5}).json()["items"]]
    assert item not in [one.item for one in desk.recommend.history(who)], "the test asks for an item that can be on a list"
    return found


def test_what_left_the_catalogue_is_on_no_list_whoever_asks_and_what_came_is_on_all(desk):
    gone, new = desk.recommend.recommend(Ask(who="user-1")).items[0].item, 'new "🦊" 007'
    assert all(gone in shown for shown in lists(desk, "user-1", gone).values())
    changed = post("/items", {"items": [{"item": gone, "state": "removed"}, {"item": new, "title": "refund money", "text": WORDS[1]}]}).json()
    assert changed == {"stored": 2, "known": 0, "refused": []}
    for how, shown in lists(desk, "user-1", gone).items():
        assert gone not in shown and new in shown, how
    assert desk.recommend.info()["n_items"] == len(ITEMS) + 1
    for name in ("transitions", "knn"):  # which know who met what and nothing of texts
        assert ids(desk.recommend.recommend(Ask(who="user-3", model=name, k=500))).index(new) < 12, name
    topmost = ids(desk.recommend.recommend(Ask(sentence="refund money return back purchase", k=5)))
    assert new in topmost, "its text is how it is found"
    post("/items", {"items": [{"item": new, "state": "removed"}, {"item": gone, "title": "back again"}]})
    for how, shown in lists(desk, "user-1", gone).items():
        assert gone in shown and new not in shown, how


def test_what_was_met_may_leave_the_catalogue_and_a_training_learns_without_it(desk, tmp_path):
    who = PEOPLE[1]
    met = desk.recommend.history(who)[0].item
    desk.recommend.change_items([ItemChange(met, state="removed"), ItemChange("brand new", "holiday", WORDS[2])])
    assert desk.recommend.note([Event(f"user-{n}", "brand new", "click") for n in range(20)]).stored == 20
    assert desk.recommend.recommend(Ask(who=who)).fallback == ""
    assert desk.recommend.similar("brand new").items and desk.recommend.why(Ask(who=who), "brand new").model
    learnt = trained(desk.store, "second", dataset=str(Path(desk.registry.champion("recommend").metrics["params"]["dataset"])), models="transitions, knn")
    held = desk.recommend.shelf()
    assert held.version == learnt["version"] and met not in held.items.ids and "brand new" in held.items.ids
    assert [held.items.ids[n] for n in held.past("user-3")][-1] == "brand new"
    assert all(met not in shown for shown in lists(desk, "user-30", met).values())


# ---------------------------------------------------------------- versions that swap and break


def test_while_versions_swap_each_answer_is_that_of_one_and_no_event_is_lost(shop, tmp_path):
    for run_id, options in (("b", {"seed": 2, "n_items": 40}), ("c", {"seed": 5, "n_items": 20})):
        toy_service.adopt(shop.registry, tmp_path, run_id=run_id, data=toy_service.shop(**options))
    versions = [version.version for version in shop.registry.versions("recommend")]
    people = [f"user-{n}" for n in range(0, 70, 7)]
    body = {"k": 6, "diversity": 0.2}
    right = {(who, version): post("/recommend", {"user": who, "version": version, **body}).json()["items"] for who in people for version in versions}
    over, seen = threading.Event(), set()

    def swap():
        chance = random.Random(1)
        while not over.wait(0.005):
            now = shop.registry.champion("recommend").version
            shop.registry.promote("recommend", chance.choice([one for one in versions if one != now]), by="test", reason="on")
            if chance.random() < 0.3:
                shop.registry.rollback("recommend", by="test", reason="back")

    def ask(worker):
        for n in range(30):
            who = people[(worker + n) % len(people)]
            said = post("/recommend", {"user": who, **body})
            assert said.status_code == 200, said.text
            assert said.json()["items"] == right[who, said.json()["version"]]
            seen.add(said.json()["version"])

    def note(worker):
        stored = 0
        for n in range(30):
            acts = [{"id": f"{worker}-{n}-{part}", "user": f"new {worker}", "item": f"item-{(n + part) % 20}", "kind": "click"} for part in range(3)]
            said = post("/interactions", {"events": acts})
            assert said.status_code == 200 and said.json()["refused"] == [], said.text
            stored += said.json()["stored"]
        return stored

    with ThreadPoolExecutor(6) as pool:
        swapping = pool.submit(swap)
        asking, noting = [pool.submit(ask, n) for n in range(3)], [pool.submit(note, n) for n in range(2)]
        try:
            assert [one.result() for one in asking] == [None] * 3 and sum(one.result() for one in noting) == 180
        finally:
            over.set()
        swapping.result()
    assert len(seen) > 1, "versions did swap"
    assert shop.store.rows("SELECT count(DISTINCT id) AS n FROM interactions")[0]["n"] == 180


@pytest.mark.parametrize("how", ["cut", "flipped", "gone", "folder gone"])
def test_a_version_that_breaks_after_its_promotion_leaves_the_one_before_serving_and_says_so(shop, tmp_path, how):
    first = shop.registry.champion("recommend").version
    before = post("/recommend", {"user": "user-1"}).json()
    second = toy_service.adopt(shop.registry, tmp_path, run_id="b", data=toy_service.shop(seed=2))
    toy_service.promote(shop.registry, second)
    file = second.path / "pasts.parquet"
    if how == "folder gone":
        shutil.rmtree(second.path)
    elif how == "gone":
        file.unlink()
    else:
        whole = bytearray(file.read_bytes())
        whole[len(whole) // 2] ^= 1
        file.write_bytes(whole[: len(whole) // 2] if how == "cut" else whole)
    said = post("/recommend", {"user": "user-1"}).json()
    assert said["version"] == first and said["items"] == before["items"]
    info = shop.recommend.info()
    assert info["version"] == first and info["champion"] == second.version and f"{second.version} is refused" in info["warning"]
    assert post("/recommend", {"version": second.version}).status_code in (409, 503)
    assert post("/interactions", {"events": [{"user": "ann", "item": "item-1", "kind": "click"}]}).json()["stored"] == 1
    assert fold_in.run(shop.store, fold_in.FoldIn(), Quiet())["version"] == second.version
    assert post("/recommend", {"user": "ann"}).json()["version"] == first
    shop.registry.rollback("recommend", by="test", reason="it is damaged")
    assert post("/recommend", {"user": "user-1"}).json()["version"] == first and shop.recommend.info()["warning"] == ""


def test_a_version_that_breaks_while_it_serves_goes_on_from_memory(shop):
    before = post("/recommend", {"user": "user-1"}).json()["items"]
    shutil.rmtree(shop.registry.champion("recommend").path)
    assert post("/recommend", {"user": "user-1"}).json()["items"] == before
    assert post("/interactions", {"events": [{"user": "user-1", "item": before[0]["item"], "kind": "click"}]}).json()["stored"] == 1
    moved = post("/recommend", {"user": "user-1"})
    assert moved.status_code == 200 and before[0]["item"] not in [one["item"] for one in moved.json()["items"]]
    assert shop.recommend.frontier().empty


def test_two_trainings_at_once_are_refused_on_every_face(shop):
    runs = shop.runs
    first = runs.request("recommend", {"dataset": "demo_shop"})
    with pytest.raises(AlreadyQueued):
        runs.request("recommend", {})
    said = post("/runs", {"job": "recommend", "params": {}})
    assert said.status_code == 409 and first.id in said.json()["error"]
    assert runs.claim("heavy").id == first.id
    second = runs.request("recommend", {})  # one may wait while one runs
    with pytest.raises(AlreadyQueued):
        runs.start_now("recommend", {})
    assert {run.id for run in runs.active()} == {first.id, second.id} and runs.claim("heavy") is None


# ---------------------------------------------------------------- kill -9


@pytest.fixture
def victims():
    environment = config.child_environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    made = Victims(recommender.__file__, environment=environment)
    yield made
    made.close()


@pytest.mark.slow
def test_killed_while_noting_what_was_acknowledged_is_there_once_and_counts_are_as_without(plain, tmp_path, victims):
    chance, home, number, acked = random.Random(3), tmp_path / "killed", 0, set()
    shutil.copytree(plain, home)
    for turn in range(8):
        pid = victims.start("note", home, number)
        victims.until("open")
        for _ in range(chance.randint(1, 6)):
            acked |= {int(line.split()[1]) for line in victims.until("acked") if line.startswith("acked")}
        time.sleep(chance.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        acked |= {int(line.split()[1]) for line in victims.until() if line.startswith("acked")}
        store = Store(home, wait_s=5)
        found = {row["id"] for row in store.rows("SELECT id FROM interactions")}
        assert all(f"{n}-{part}" in found for n in acked for part in range(3)), "what was acknowledged is there"
        whole = {int(one.split("-")[0]) for one in found}
        assert len(found) == 3 * len(whole) and whole <= {*acked, *range(number, max(acked) + 2)}, "no batch by halves"
        if turn % 2:
            fold_in.run(store, fold_in.FoldIn(), Quiet())
        number = max(acked) - 1  # the sender does not know what arrived, and sends some again
        store.close()

    shutil.copytree(plain, tmp_path / "untouched")
    stores = [Store(home, wait_s=5), Store(tmp_path / "untouched", wait_s=5)]
    try:
        desks = [Recommend(Registry(store), store) for store in stores]
        for desk, store in zip(desks, stores, strict=True):
            for n in range(max(whole) + 1):
                desk.note(recommender.batch(n))
            fold_in.run(store, fold_in.FoldIn(), Quiet())
        assert stores[0].rows("SELECT count(*) AS n FROM interactions")[0]["n"] == 3 * (max(whole) + 1)
        for model in ("popularity", "transitions"):
            killed, without = (desk.recommend(Ask(history=("item-5",), model=model, k=30)) for desk in desks)
            assert [(one.item, one.score) for one in killed.items] == [(one.item, one.score) for one in without.items]
        assert [[met.item for met in desk.history("person 3")] for desk in desks][0] == [met.item for met in desks[1].history("person 3")]
    finally:
        for store in stores:
            store.close()


TIMES = {"seconds", "fit_seconds", "made_at"}


def timeless(found):
    """Figures without when they were made and how long they took."""
    if isinstance(found, dict):
        return {key: timeless(value) for key, value in found.items() if key not in TIMES}
    return [timeless(one) for one in found] if isinstance(found, list) else found


@pytest.mark.slow
def test_killed_twice_on_its_way_a_training_goes_on_to_the_same_version(tmp_path, victims):
    store, log = Store(tmp_path / "home"), tmp_path / "log.csv"
    data = toy_shelf.shop()
    rows = data.rows.assign(user=[data.users[u] for u in data.rows["user"]], item=[data.items[i] for i in data.rows["item"]])
    rows.rename(columns={"at": "timestamp"})[["user", "item", "timestamp"]].to_csv(log, index=False)
    fresh = store.home / "runs" / "run-1"
    fresh.mkdir(parents=True)
    job.prepare(store, job.Params(dataset=str(log), models="transitions, knn, als, blend, hybrid", minutes=0), fresh)
    whole = shutil.copytree(fresh, tmp_path / "whole")
    victims.start("work", whole, 0)
    n_calls = int(victims.until("worked")[-1].split()[1])
    victims.until()
    expected = timeless(json.loads((whole / "outcome.json").read_text())["metrics"])
    for first in range(1, n_calls, max(1, n_calls // 12)):
        killed = shutil.copytree(fresh, tmp_path / f"killed-{first}")
        for call in (first, 1 + first // 2):  # the second attempt finds what the first has finished
            victims.start("work", killed, call)
            lines = victims.until()
            assert (killed / "outcome.json").exists() is any(line.startswith("worked") for line in lines)
        victims.start("work", killed, 0)
        assert victims.until()[0].startswith("worked")
        assert timeless(json.loads((killed / "outcome.json").read_text())["metrics"]) == expected
        assert_same_shelf(killed / "model", whole / "model")
        shutil.rmtree(killed)
    store.close()


def assert_same_shelf(one, other):
    held, right = (Shelf.load(folder, version="v") for folder in (one, other))
    pasts = list(right.pasts)
    assert held.models.keys() == right.models.keys() and held.serving == right.serving
    for name, model in held.models.items():
        assert np.array_equal(model.scores(pasts), right.models[name].scores(pasts)), name


@pytest.mark.slow
def test_killed_at_each_statement_of_its_landing_a_version_is_there_once(plain, tmp_path, victims):
    home, landed, step = tmp_path / "home", False, 0
    shutil.copytree(plain, home)
    store = Store(home)
    (tmp_path / "log.csv").write_text("user,item,timestamp\n" + "".join(f"u{u},i{(u + n) % 20},{100 * u + n}\n" for u in range(30) for n in range(6)))
    folder = home / "runs" / "run-1"
    folder.mkdir(parents=True)
    job.prepare(store, job.Params(dataset=str(tmp_path / "log.csv"), models="transitions", minutes=0, promote="always"), folder)
    job.work(folder, Quiet())
    store.close()
    while not landed:
        copy = shutil.copytree(home, tmp_path / f"step-{step}")
        victims.start("land", copy, step)
        landed = "landed" in victims.until()
        store = Store(copy, wait_s=5)
        try:
            first, second = (job.land(store, copy / "runs" / "run-1") for _ in range(2))
            registry = Registry(store)
            assert first == second and first["promoted"] and registry.champion("recommend").version == first["version"]
            assert len(registry.versions("recommend")) == 2 and len(registry.promotions("recommend")) == 2
            assert Recommend(registry, store).recommend(Ask(who="u1")).version == first["version"]
        finally:
            store.close()
        shutil.rmtree(copy)
        step += 1
    assert step > 3


@pytest.mark.slow
def test_a_contest_killed_on_its_way_ends_as_one_that_was_not(tmp_path, victims):
    store, fresh = Store(tmp_path / "home"), tmp_path / "home" / "runs" / "run-1"
    visits(store, tmp_path)
    fresh.mkdir(parents=True)
    reinforce.prepare(store, reinforce.Params(steps=128, seeds=2), fresh)
    whole = shutil.copytree(fresh, tmp_path / "whole")
    victims.start("contest", whole, 0)
    n_calls = int(victims.until("worked")[-1].split()[1])
    victims.until()
    killed = shutil.copytree(fresh, tmp_path / "killed")
    for call in (1, n_calls // 4, n_calls // 4, n_calls // 4, 10**9):  # each attempt goes on after what the one before has finished
        victims.start("contest", killed, call)
        lines = victims.until()
        assert (killed / "contest.json").exists() is any(line.startswith("worked") for line in lines)
    one, other = (timeless(json.loads((folder / "contest.json").read_text())) for folder in (killed, whole))
    assert one == other
    store.close()


def visits(store, at):
    """Adopt and promote a version that learnt from a CSV of the toy visits."""
    data, path = toy_visits.log(n_users=160), at / "visits.csv"
    named = data.rows.assign(user=[data.users[u] for u in data.rows["user"]], item=[data.items[i] for i in data.rows["item"]])
    named.rename(columns={"at": "timestamp"}).to_csv(path, index=False)
    return trained(store, "before", dataset=str(path), models="transitions")


def until(condition, for_s=120.0):
    deadline = time.monotonic() + for_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"nothing came of it in {for_s} s"
        time.sleep(0.01)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["recommend", "reinforce"])
def test_a_killed_child_leaves_no_running_run_and_the_next_attempt_gives_the_same(tmp_path, name):
    """The real child of the real runner: killed before its first sign, then on its way; compared with a run that nobody killed."""
    ahead, store = [0.0], Store(tmp_path / "home")
    version = visits(store, tmp_path)["version"]
    runs = Runs(store, JOBS, now=lambda: clock.now() + dt.timedelta(seconds=ahead[0]))
    runner = Runner(runs, place=LocalProcess())
    params = {"steps": 128, "seeds": 2} if name == "reinforce" else {"models": "transitions, knn, blend, hybrid", "minutes": 0, "promote": "never"}
    runner.start()
    try:
        run = first = runs.request(name, params)
        for least in (-1.0, 0.1):
            until(lambda run=run, least=least: runs.get(run.id).pid and runs.get(run.id).progress > least)
            os.kill(runs.get(run.id).pid, signal.SIGKILL)
            until(lambda run=run: runs.get(run.id).is_over)
            assert runs.get(run.id).state == "crashed" and "signal 9" in runs.get(run.id).error
            [retry] = runs.active()
            assert retry.retry_of == run.id and retry.state == "queued"
            ahead[0] += 300
            run = retry
        done = until(lambda: (found := runs.get(run.id)).is_over and found)
        assert done.state == "succeeded" and done.attempt == 3, runs.log_tail(run.id)
        unhurt = runs.request(name, params)
        right = until(lambda: (found := runs.get(unhurt.id)).is_over and found)
        assert first.id != right.id and not runs.active() and right.state == "succeeded"
        if name == "reinforce":
            assert timeless(done.result) == timeless(right.result)
            assert store.rows("SELECT count(*) AS n FROM contests")[0]["n"] == 2
        else:
            assert {**timeless(done.result), "version": ""} == {**timeless(right.result), "version": ""}
            registry = Registry(store)
            assert len(registry.versions("recommend")) == 3 and registry.champion("recommend").version == version
            assert_same_shelf(*(registry.get("recommend", one.result["version"]).path for one in (done, right)))
    finally:
        runner.stop()
        store.close()


@pytest.mark.slow
def test_a_training_of_a_second_process_is_refused_while_one_holds_the_home(tmp_path):
    """`python -m jobs run recommend` twice at once over one home: one trains, the other says who is in the way."""
    environment = config.child_environment(FM_HOME=str(tmp_path / "home"), OMP_NUM_THREADS="1")
    (tmp_path / "log.csv").write_text("user,item,timestamp\n" + "".join(f"u{u},i{(u + n) % 20},{100 * u + n}\n" for u in range(30) for n in range(6)))
    chosen = [f"dataset={tmp_path / 'log.csv'}", "models=transitions,knn", "minutes=0"]
    command = [sys.executable, "-m", "jobs", "run", "recommend", *(part for one in chosen for part in ("--set", one))]
    both = [subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=180) for process in both]
    codes = sorted(process.returncode for process in both)
    store = Store(tmp_path / "home")
    made = Registry(store).versions("recommend")
    store.close()
    told = [json.loads(out) for out, _ in said if out.strip()]
    if codes == [0, 1]:
        [failed] = [error for process, (_, error) in zip(both, said, strict=True) if process.returncode]
        assert "Traceback" not in failed and any(str(process.pid) in failed for process in both), failed
        assert len(made) == 1
    else:  # the second came when the first was done
        assert codes == [0, 0], said
    assert all(one["state"] == "succeeded" for one in told) and len(told) == codes.count(0)


# ---------------------------------------------------------------- too much


DISK_FULL = """
import json, os, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from fmcore import clock
from fmcore.models.registry import Registry
from fmcore.recommend import events
from fmcore.recommend.service import Ask, Event, ItemChange, Recommend
from fmcore.store.store import Store, StoreError
store = Store(sys.argv[1])
desk, acked, said = Recommend(Registry(store), store), 0, []
desk.recommend(Ask(who="user-1"))
def batch(n):
    return [Event(f"person {n}" + "x" * 200, f"item-{i}", "click", id=f"{n}-{i}" + "y" * 200) for i in range(30)]
def attempt(what):
    try:
        what()
        return True
    except StoreError as error:
        said.append(str(error))
        return False
size = max(file.stat().st_size for file in store.home.glob("fm.duckdb*"))
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, resource.RLIM_INFINITY))
while attempt(lambda: desk.note(batch(acked))):
    acked += 1
attempt(lambda: desk.change_items([ItemChange("item-3", state="removed")]))
answer = desk.recommend(Ask(who="person 0" + "x" * 200, k=30))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
again = desk.note(batch(acked))
print(json.dumps({"acked": acked, "said": said, "n_history": answer.n_history, "again": [again.stored, again.known]}))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_full_disk_is_said_while_noting_lists_go_on_and_what_was_refused_may_be_sent_again(plain, tmp_path):
    shutil.copytree(plain, tmp_path / "home")
    done = subprocess.run([sys.executable, "-c", DISK_FULL, tmp_path / "home"], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert told["acked"] > 2 and told["said"] and all("Make room on the disk" in sentence for sentence in told["said"]), told
    assert told["n_history"] == 30 and told["again"] == [30, 0]
    store = Store(tmp_path / "home", wait_s=5)
    assert store.rows("SELECT count(*) AS n FROM interactions WHERE kind = 'click'")[0]["n"] == 30 * (told["acked"] + 1)
    store.close()


MILLIONS = """
import json, resource, sys
from pathlib import Path
from fmcore.data import interaction_files
from fmcore.recommend import shelf
class Silent:
    def progress(self, *_): pass
    def metric(self, *_, **__): pass
    def device(self, *_): pass
data = interaction_files.load(sys.argv[1])
told = shelf.fit(data, names=["auto"], minutes=0.25, out=Path(sys.argv[2]), report=Silent())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"n": len(data.rows), "peak_kb": peak, "left_out": told["left_out"], "models": [row["model"] for row in told["leaderboard"]]}))
"""


@pytest.mark.slow
def test_ten_million_rows_are_learnt_from_in_bounded_memory_and_what_was_left_out_is_said(tmp_path):
    rng = np.random.default_rng(0)
    columns = rng.integers(0, 5_000, 500_000), (20_000 * rng.random(500_000) ** 2).astype(int), rng.integers(10**9, 17 * 10**8, 500_000)
    block = "\n".join(f"uX-{u},i{i},{at},4" for u, i, at in zip(*(column.tolist() for column in columns), strict=True)) + "\n"
    with (tmp_path / "big.csv").open("w") as file:
        file.write("user,item,timestamp,rating\n")
        for n in range(20):
            file.write(block.replace("X", str(n)))
    done = subprocess.run([sys.executable, "-c", MILLIONS, tmp_path / "big.csv", tmp_path / "made"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    bytes_a_row = 400  # with the models that a fast machine fits in the time; a slow one leaves them out and stays at half of it
    assert told["n"] > 9_900_000 and told["peak_kb"] * 1024 < bytes_a_row * told["n"]
    assert "popularity" in told["models"] and told["left_out"] and not set(told["models"]) & set(told["left_out"])
    assert all(why.endswith(".") for why in told["left_out"].values())
    held = Shelf.load(tmp_path / "made", version="v")
    answer = held.models[held.serving].recommend(held.past("u7-42"), k=10)
    assert len(answer) == 10 and len(held.users) == 100_000
