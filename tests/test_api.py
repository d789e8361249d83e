"""The API as a program sees it: shapes, refusals, and who is let in. Models are toys; everything else is real."""

import datetime as dt
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import BaseModel
from starlette.testclient import TestClient

from fmcore import api as rest
from fmcore import clock, config, runtime
from fmcore.nouns import Job
from fmcore.serving.access import MAX_BODY_BYTES
from fmcore.serving.engine import Engine
from tests import toy_models

BASE = "http://127.0.0.1:8501"


class Params(BaseModel, extra="forbid"):
    n: int = 1


JOBS = {"count": Job(name="count", title="Count", summary="Counts.", kind="light", params=Params, run=lambda s, p, r: {}, schedule="0 6 * * *")}


@pytest.fixture(scope="module")
def module_desk(tmp_path_factory):
    """One desk for the whole file: opening a database for each of seventy tests would take a minute."""
    tmp_path = tmp_path_factory.mktemp("api")
    held = runtime.start(config.Settings(home=tmp_path / "home", secret_api_token=None), JOBS)
    held.engine.close()
    engine = Engine(held.registry, load=toy_models.load)
    object.__setattr__(held, "engine", engine)  # the toy's loader in the place of the real one
    toy_models.adopt(held.registry, tmp_path, run_id="a")
    held.registry.promote("intent", held.registry.versions()[0].version, by="test", reason="first")
    yield held
    runtime.stop()


@pytest.fixture
def desk(module_desk):
    """The desk with nothing queued and no plan, whatever the test before left."""
    yield module_desk
    with module_desk.store.write() as tx:
        for table in ("runs", "run_metrics", "schedules"):
            tx.execute(f"DELETE FROM {table}")


@pytest.fixture
def client(desk):
    return TestClient(rest.api, base_url=BASE, raise_server_exceptions=False)


@pytest.fixture
def with_token(desk):
    before = desk.settings
    object.__setattr__(desk, "settings", config.Settings(home=desk.store.home, secret_api_token="s3cret-token"))
    yield
    object.__setattr__(desk, "settings", before)


HOSTILE = ["", " ", "\x00", "a\x00b", "\ud800", "🙂" * 500, "‮مرحبا", "=cmd|' /C calc'!A0", "<script>alert(1)</script>", "x" * 1_000_000]


# --- models


def test_predict_answers_each_text_from_one_version(client, desk):
    said = client.post("/predict", json={"task": "intent", "texts": ["my card", "a loan"]})
    assert said.status_code == 200
    body = said.json()
    assert [p["label"] for p in body["predictions"]] == ["card", "loan"]
    assert body["version"] == desk.registry.champion("intent").version == body["predictions"][0]["version"]
    assert set(body["predictions"][0]) == {
        "label", "score", "scores", "in_scope", "novelty", "threshold", "reason", "candidates", "coverage", "version", "truncated"
    }  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_any_text_gets_an_answer(client, text):
    import json

    said = client.post("/predict", content=json.dumps({"texts": [text]}), headers={"content-type": "application/json"})
    assert said.status_code == 200 and said.json()["predictions"][0]["label"] in toy_models.LABELS
    assert client.post("/reply", content=json.dumps({"text": text}), headers={"content-type": "application/json"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"texts": []}, 422),
        ({"texts": ["x"] * 257}, 422),
        ({"texts": "x"}, 422),
        ({"texts": [1]}, 422),
        ({"texts": ["x"], "surprise": 1}, 422),
        ({"texts": ["x"], "task": "../etc"}, 404),
        ({"texts": ["x"], "version": "nonesuch"}, 404),
        ({"texts": ["x"], "version": "../../etc/passwd"}, 404),
        ({"texts": ["x"], "task": "clinc150"}, 404),
        ([], 422),
    ],
)
def test_a_wrong_request_is_refused_in_a_sentence(client, body, status):
    said = client.post("/predict", json=body)
    assert said.status_code == status and set(said.json()) == {"error", "hint"} and len(said.json()["error"]) > 5


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"texts":["\\ud800"],"\\ud800":1}', b"NaN", b"1" * 5000])
def test_a_body_that_is_no_request_is_refused_in_a_sentence(client, content):
    said = client.post("/predict", content=content, headers={"content-type": "application/json"})
    assert said.status_code in (400, 422) and set(said.json()) == {"error", "hint"}


def test_a_data_set_or_a_pinned_version_names_a_model_too(client, desk):
    name = desk.registry.champion("intent").version
    for task in ("banking77", f"intent@{name}"):
        assert client.post("/predict", json={"task": task, "texts": ["x"]}).json()["version"] == name
        assert client.get("/resolve", params={"name": task}).json()["labels"] == list(toy_models.LABELS)


def test_evaluate_prints_the_contract(client):
    rows = [{"text": f"my {label} {i}", "label": label} for i in range(20) for label in toy_models.LABELS]
    rows += [{"text": f"the weather {i}", "label": "oos"} for i in range(20)]
    said = client.post("/evaluate", json={"task": "intent", "rows": rows}).json()
    assert list(said) == ["n", "accuracy", "macro_f1", "ece", "oos", "task", "version"]
    assert said["n"] == 80 and said["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert list(said["oos"]) == ["n", "auroc", "recall", "in_scope_accuracy"] and said["oos"]["recall"]["value"] == 1.0
    refused = client.post("/evaluate", json={"rows": [{"text": "x", "label": "unheard_of"}]})
    assert refused.status_code == 422 and "unheard_of" in refused.json()["error"]


def test_reply_hands_over_what_is_out_of_scope(client):
    assert client.post("/reply", json={"text": "my card"}).json()["replies"][0]["intent"] == "card"
    assert client.post("/reply", json={"text": "the weather"}).json()["replies"][0]["source"].startswith("hand-over")


def test_promote_and_roll_back_over_the_api(client, desk, tmp_path):
    assert client.post("/models/intent/rollback", json={"reason": "worse"}).status_code == 409
    first = desk.registry.champion("intent").version
    second = toy_models.adopt(desk.registry, tmp_path, run_id="b").version
    assert client.post(f"/models/intent/{second}/promote", json={"reason": ""}).status_code == 422
    assert client.post(f"/models/intent/{second}/promote", json={"reason": "\x00 "}).status_code == 409
    assert client.post(f"/models/intent/{second}/promote", json={"reason": "better"}).json()["previous"] == first
    assert client.post("/predict", json={"texts": ["x"]}).json()["version"] == second
    assert client.post("/models/intent/rollback", json={"reason": "worse"}).json()["version"] == first
    assert client.post("/models/intent/rollback", json={"reason": "worse"}).status_code == 409
    listed = client.get("/models").json()["models"]
    assert {m["version"]: m["stage"] for m in listed} == {first: "champion", second: "retired"}
    detail = client.get(f"/models/intent/{second}").json()
    assert detail["card"]["Data"]["Licence"] == "unknown" and "path" not in detail
    assert client.get("/models/intent/nonesuch").status_code == 404


# --- runs


def test_a_run_is_requested_watched_and_cancelled(client, desk):
    said = client.post("/runs", json={"job": "count", "params": {"n": 3}})
    assert said.status_code == 201
    run = said.json()
    assert run["state"] == "queued" and run["params"] == {"n": 3}
    assert client.post("/runs", json={"job": "count"}).status_code == 409
    assert client.get("/runs", params={"job": "count", "limit": 1}).json()["runs"][0]["id"] == run["id"]
    assert client.get(f"/runs/{run['id']}/metrics").json() == {"run": run["id"], "metrics": []}
    assert client.post(f"/runs/{run['id']}/cancel", json={}).json()["state"] == "cancelled"
    assert client.post(f"/runs/{run['id']}/resume", json={}).status_code == 201


def test_metrics_of_a_run_come_as_they_were_noted(client, desk):
    run = desk.runs.request("count")
    with desk.store.write() as tx:
        tx.execute("INSERT INTO run_metrics VALUES (?, 1, 'loss', 0.5, ?)", [run.id, clock.to_store(dt.datetime(2026, 1, 2, tzinfo=dt.UTC))])
    said = client.get(f"/runs/{run.id}/metrics").json()
    assert said["metrics"] == [{"step": 1, "name": "loss", "value": 0.5, "noted_at": "2026-01-02T00:00:00+00:00"}]


@pytest.mark.parametrize(
    ("body", "status"), [({"job": "nonesuch"}, 404), ({"job": "count", "params": {"n": "many"}}, 422), ({"job": "count", "params": {"m": 1}}, 422)]
)
def test_a_run_that_cannot_be_is_refused(client, body, status):
    assert client.post("/runs", json=body).status_code == status


@pytest.mark.parametrize("path", ["/runs/nonesuch", "/runs/%2e%2e%2fetc", "/runs/nonesuch/metrics", "/nope", "/runs?limit=0", "/runs?limit=9999", "/models?task=x"])
def test_what_is_not_there_says_so(client, path):
    said = client.get(path)
    assert said.status_code in (404, 422) and set(said.json()) == {"error", "hint"}


def test_the_lists_say_what_there_is(client):
    assert [j["name"] for j in client.get("/jobs").json()["jobs"]] == ["count"]
    assert client.get("/tasks").json()["tasks"][0]["name"] == "intent"
    assert {d["name"] for d in client.get("/data").json()["datasets"]} >= {"demo", "banking77", "clinc150"}


def test_health_names_each_part_and_a_scheduler_that_stands_still(client, desk):
    desk.runs.plan("count", "0 6 * * *", clock.now() + dt.timedelta(hours=1))
    well = client.get("/health").json()
    assert well["status"] == "ok" and well["store"]["ok"] and well["models"]["intent"]["champion"]
    desk.runs.plan("count", "0 6 * * *", clock.now() - dt.timedelta(hours=1))
    ill = client.get("/health").json()
    assert ill["status"] == "degraded" and ill["scheduler"]["overdue"] == ["count"]


def test_before_the_desk_is_up_the_answer_says_so(client, monkeypatch):
    monkeypatch.setattr(sys.modules[runtime._HOLDER], "runtime", None)
    said = client.get("/tasks")
    assert said.status_code == 503 and "not up yet" in said.json()["error"]


# --- who is let in


@pytest.mark.parametrize("path", ["/tasks", "/docs", "/openapi.json", "/docs/assets/swagger-ui.css", "/nope"])
def test_a_token_is_needed_for_everything_once_it_is_set(with_token, client, path):
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "s3cret-token"}, {"authorization": "Basic s3cret-token"}, {"authorization": "Bearer s3cret-token\xff"}):
        said = client.get(path, headers=[(k.encode(), v.encode("latin-1")) for k, v in headers.items()])
        assert said.status_code == 401 and said.headers["www-authenticate"] == "Bearer" and "s3cret" not in said.text
    assert client.get(path, headers={"authorization": "Bearer s3cret-token"}).status_code == (404 if path == "/nope" else 200)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8501", "", "127.0.0.1@evil.example", "localhost.evil.example"])
def test_another_host_name_is_refused(client, host):
    assert client.get("/tasks", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:8501", "127.0.0.1:9", "[::1]:8501", "LOCALHOST"])
def test_this_machine_is_let_in(client, host):
    assert client.get("/tasks", headers={"host": host}).status_code == 200


def test_a_configured_host_name_is_let_in(client):
    assert client.get("/tasks", headers={"host": "desk.example.org"}).status_code == 403
    rest.allow_hosts(["desk.example.org"])
    assert client.get("/tasks", headers={"host": "desk.example.org:443"}).status_code == 200
    rest._hosts.discard("desk.example.org")


def test_a_page_of_another_site_cannot_drive_the_desk(client):
    assert client.get("/tasks", headers={"origin": "https://evil.example"}).status_code == 403
    assert client.post("/runs", content=b'{"job":"count"}', headers={"content-type": "text/plain"}).status_code == 415
    assert client.post("/runs", content=b'{"job":"count"}').status_code == 415
    assert client.get("/runs").json()["runs"] == []


def test_a_body_beyond_the_bound_is_refused_whether_it_is_announced_or_not(client):
    big = b" " * (MAX_BODY_BYTES + 1)
    assert client.post("/predict", content=big, headers={"content-type": "application/json"}).status_code == 413
    assert client.post("/predict", content=iter([big]), headers={"content-type": "application/json"}).status_code == 413


def test_the_documentation_needs_no_other_server(client):
    page = client.get("/docs")
    assert page.status_code == 200 and "http" not in page.text.replace("http://127.0.0.1:8501", "").split("<script>")[0]
    assert client.get("/docs/assets/swagger-ui-bundle.js").status_code == 200
    assert client.get("/docs/assets/../../../etc/passwd").status_code == 404
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/predict", "/reply", "/evaluate", "/tasks", "/jobs", "/runs", "/models", "/data", "/health"} <= set(paths)


def test_fifty_callers_at_once_all_get_their_answer(client):
    with ThreadPoolExecutor(50) as pool:
        said = list(pool.map(lambda i: client.post("/predict", json={"texts": [toy_models.LABELS[i % 3]]}), range(150)))
    assert all(s.status_code == 200 for s in said)
    assert [s.json()["predictions"][0]["label"] for s in said] == [toy_models.LABELS[i % 3] for i in range(150)]
