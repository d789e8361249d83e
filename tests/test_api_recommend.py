"""Recommendations over the API: shapes, refusals, ids that are any text, and events that are stored once. Small but real models."""

import datetime as dt
import json
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from fmcore import api as rest
from fmcore import api_recommend, clock, config, runtime
from fmcore.recommend.versions import Refused
from tests.recommend import toy_service

BASE = "http://127.0.0.1:8501"
ODD = 'say "hi" it\'s 🦊 </script>'


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home in which one version serves; tests work on copies of it."""
    at = tmp_path_factory.mktemp("api-recommend")
    return toy_service.served(at / "home", at)


@pytest.fixture
def desk(home, tmp_path):
    shutil.copytree(home, tmp_path / "served")
    yield runtime.start(config.Settings(home=tmp_path / "served", secret_api_token=None), {})
    runtime.stop()


@pytest.fixture
def client(desk):
    return TestClient(rest.api, base_url=BASE, raise_server_exceptions=False)


def post(client, path, body):
    """The body is written by hand: httpx refuses half a surrogate pair and NaN."""
    return client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})


def events(client, *said):
    return post(client, "/interactions", {"events": list(said)})


# ---------------------------------------------------------------- lists


def test_a_list_has_its_reasons_and_says_which_version_it_is_from(client, desk):
    said = client.post("/recommend", json={"user": "user-1", "k": 5})
    assert said.status_code == 200, said.text
    body = said.json()
    assert set(body) == {"items", "model", "version", "dataset", "fallback", "note", "n_history", "unknown", "ms"}
    assert len(body["items"]) == 5 and set(body["items"][0]) == {"item", "title", "score", "because"} and body["n_history"] == 8
    assert body["model"] == "transitions" and body["fallback"] == "" and body["dataset"] == "toy" and body["unknown"] == []
    assert body["version"] == desk.registry.champion("recommend").version
    assert set(body["items"][0]["because"]) == {"item", "title", "drop"} and body["items"][0]["because"]["drop"] > 0
    assert all(one["because"] is None for one in client.post("/recommend", json={"user": "user-1", "reasons": False}).json()["items"])


def test_a_history_a_model_and_what_is_left_out_are_obeyed(client):
    body = {"history": ["item-4", "nonesuch", ODD], "model": "knn", "k": 4, "without": ["item-5"], "diversity": 0.5}
    said = client.post("/recommend", json=body).json()
    assert said["model"] == "knn" and said["unknown"] == ["nonesuch", ODD] and said["n_history"] == 1
    assert "item-5" not in [one["item"] for one in said["items"]]


def test_popularity_answers_strangers_and_says_why(client):
    for body in ({}, {"user": ODD}, {"history": []}, {"sentence": "anything red"}, {"user": "", "history": ["nonesuch"]}):
        said = client.post("/recommend", json=body).json()
        assert said["model"] == "popularity" and said["fallback"].endswith(".") and len(said["items"]) == 10


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "nonesuch"}, 422), ({"version": "nonesuch"}, 404), ({"version": "../../etc/passwd"}, 404), ({"k": 0}, 422), ({"k": 501}, 422),
        ({"k": "many"}, 422), ({"diversity": 1.5}, 422), ({"diversity": float("nan")}, 422), ({"surprise": 1}, 422), ({"user": 7}, 422),
        ({"history": "item-1"}, 422), ({"history": ["x"] * 10_001}, 422), ({"sentence": "x" * 20_001}, 422), ({"user": None, "k": 10**40}, 422),
    ],
)  # fmt: skip
def test_a_wrong_question_is_refused_in_a_sentence(client, body, status):
    said = post(client, "/recommend", body)
    assert said.status_code == status and set(said.json()) == {"error", "hint"} and len(said.json()["error"]) > 5


def test_a_desk_without_a_version_says_so(tmp_path):
    runtime.start(config.Settings(home=tmp_path / "bare", secret_api_token=None), {})
    try:
        client = TestClient(rest.api, base_url=BASE, raise_server_exceptions=False)
        for path, body in (("/recommend", {}), ("/interactions", {"events": [{"user": "a", "item": "b", "kind": "view"}]}), ("/items", {"items": [{"item": "a", "title": "A"}]})):
            said = client.post(path, json=body)
            assert said.status_code == 404 and "No model serves recommend yet" in said.json()["error"]
    finally:
        runtime.stop()


def test_a_version_that_cannot_be_loaded_is_503(client, desk, monkeypatch):
    def refuse(_ask):
        raise Refused("The folder is damaged.", "Train it again.")

    monkeypatch.setattr(desk.recommend, "recommend", refuse)
    assert client.post("/recommend", json={}).status_code == 503


def test_without_a_desk_it_says_so(monkeypatch):
    monkeypatch.setattr(runtime, "current", lambda: None)
    client = TestClient(rest.api, base_url=BASE, raise_server_exceptions=False)
    assert client.post("/recommend", json={}).status_code == 503


# ---------------------------------------------------------------- what people do


def test_events_are_stored_once_and_the_next_list_knows_them(client):
    first = {"id": "web-1", "user": ODD, "item": "item-4", "kind": "click", "happened_at": "2026-01-31T12:00:00Z"}
    assert events(client, first, first).json() == {"stored": 1, "known": 1, "refused": []}
    assert events(client, first, {"user": ODD, "item": "item-9", "kind": "rate", "value": 4.5}).json() == {"stored": 1, "known": 1, "refused": []}
    said = client.post("/recommend", json={"user": ODD, "k": 3}).json()
    assert said["n_history"] == 2 and said["fallback"] == "" and said["items"][0]["item"] == "item-10"


def test_what_cannot_be_stored_is_refused_by_itself_with_a_reason(client, desk):
    ahead = (clock.now() + dt.timedelta(hours=1)).isoformat()
    wrong = [
        {"item": "nonesuch"}, {"kind": "buy"}, {"kind": "rate"}, {"kind": "rate", "value": float("nan")}, {"value": float("inf")}, {"happened_at": ahead},
        {"happened_at": "yesterday"}, {"happened_at": "2026-01-31T12:00:00"}, {"user": ""}, {"user": "u" * 301}, {"item": "i" * 301}, {"id": "e" * 301},
    ]  # fmt: skip
    sound = {"user": "ada", "item": "item-1", "kind": "view"}
    said = events(client, sound, *[{**sound, **more} for more in wrong], {**sound, "item": "item-2"})
    assert said.status_code == 200
    body = said.json()
    assert body["stored"] == 2 and [one["index"] for one in body["refused"]] == list(range(1, len(wrong) + 1))
    assert all(one["reason"].endswith(".") for one in body["refused"])
    assert {row["source"] for row in desk.store.rows("SELECT source FROM interactions")} == {"api"}


@pytest.mark.parametrize(
    "body",
    [
        {"events": []}, {}, {"events": [{"user": "a", "item": "b", "kind": "view"}] * 1_001}, {"events": [{"user": "a", "item": "b"}]},
        {"events": [{"user": "a", "item": "b", "kind": "view", "surprise": 1}]}, {"events": [{"user": 1, "item": "b", "kind": "view"}]},
        {"events": [{"user": "a", "item": "b", "kind": "rate", "value": "five"}]}, {"events": "all"},
    ],
)  # fmt: skip
def test_a_malformed_batch_is_refused_whole(client, desk, body):
    said = post(client, "/interactions", body)
    assert said.status_code == 422 and set(said.json()) == {"error", "hint"}
    assert desk.store.rows("SELECT count(*) AS n FROM interactions") == [{"n": 0}]


def test_a_thousand_events_fit_in_one_request(client):
    batch = [{"user": f"u{n % 50}", "item": f"item-{n % 30}", "kind": "click", "id": f"e-{n}"} for n in range(1_000)]
    assert events(client, *batch).json() == {"stored": 1_000, "known": 0, "refused": []}
    assert events(client, *batch).json() == {"stored": 0, "known": 1_000, "refused": []}


def test_half_a_surrogate_pair_is_a_name_like_any_other(client):
    assert events(client, {"user": "a\ud800", "item": "item-1", "kind": "view"}).json()["stored"] == 1
    assert post(client, "/recommend", {"user": "a\ud800"}).json()["n_history"] == 1


# ---------------------------------------------------------------- the catalogue


def test_items_come_and_go(client):
    change = {"items": [{"item": ODD, "title": "Odd", "text": "painted red"}, {"item": "item-5", "state": "removed"}, {"item": "nonesuch", "state": "removed"}]}
    said = client.post("/items", json=change).json()
    assert said["stored"] == 2 and said["refused"][0]["index"] == 2 and "no item" in said["refused"][0]["reason"]
    assert client.post("/items", json=change).json()["known"] == 2
    found = client.post("/recommend", json={"history": ["item-4"], "k": 40}).json()["items"]
    assert "item-5" not in [one["item"] for one in found] and found[-1]["item"] == ODD and found[-1]["title"] == "Odd"
    assert events(client, {"user": "ada", "item": ODD, "kind": "like"}).json()["stored"] == 1


@pytest.mark.parametrize("body", [{"items": []}, {"items": [{"item": "a", "state": "asleep"}]}, {"items": [{"title": "a"}]}, {"items": [{"item": "a", "title": "b"}] * 1_001}])
def test_a_malformed_change_is_refused_whole(client, body):
    assert client.post("/items", json=body).status_code == 422


# ---------------------------------------------------------------- the door


def test_the_door_is_that_of_the_whole_api(client):
    body = {"user": "user-1"}
    assert client.post("/recommend", json=body, headers={"host": "evil.example"}).status_code == 403
    assert client.post("/recommend", json=body, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.post("/interactions", content="user=ada", headers={"content-type": "text/plain"}).status_code == 415
    assert client.post("/interactions", content="x" * 5_000_001, headers={"content-type": "application/json"}).status_code == 413
    assert client.get("/recommend").status_code == 405


def test_a_token_is_asked_for_where_there_is_one(home, tmp_path):
    shutil.copytree(home, tmp_path / "served")
    runtime.start(config.Settings(home=tmp_path / "served", secret_api_token="let me in"), {})
    try:
        client = TestClient(rest.api, base_url=BASE, raise_server_exceptions=False)
        assert client.post("/recommend", json={}).status_code == 401
        assert client.post("/recommend", json={}, headers={"authorization": "Bearer let me in"}).status_code == 200
    finally:
        runtime.stop()


def test_the_documentation_shows_an_example_that_works_for_each(client):
    schema = client.get("/openapi.json").json()
    for path, body in (("/recommend", "RecommendBody"), ("/interactions", "InteractionsBody"), ("/items", "ItemsBody")):
        assert schema["paths"][path]["post"]["description"] and not schema["paths"][path]["post"].get("parameters")
        examples = schema["components"]["schemas"][body]["examples"]
        assert examples and all(client.post(path, json=example).status_code == 200 for example in examples)


def test_versions_and_health_tell_of_recommendations_too(client, desk):
    version = desk.registry.champion("recommend").version
    (row,) = client.get("/models", params={"task": "recommend"}).json()["models"]
    assert row["version"] == version and row["stage"] == "champion" and row["labels"] == [] and row["figures"]["ndcg"]["n"] == 80
    assert client.get("/models", params={"task": "nonesuch"}).status_code == 404
    assert client.get("/resolve", params={"name": "recommend"}).json()["version"] == version
    client.post("/recommend", json={})
    health = client.get("/health").json()["models"]["recommend"]
    assert health["champion"] == health["version"] == version and health["warning"] == "" and health["n_items"] == 30


def test_the_routes_are_synchronous():
    """A list that is worked out must not hold up the server's event loop."""
    assert "async def" not in Path(api_recommend.__file__).read_text()
