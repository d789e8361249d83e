"""Explanations and reviews over the API: shapes, refusals, and that a client who leaves frees its slot. A tiny but real model."""

import json
import logging
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from fmcore import api as rest
from fmcore import api_explain, config, runtime
from fmcore.explain.asking import ALIASES, METHODS, TookTooLong
from fmcore.serving.batcher import Overloaded
from tests import tiny_model

BASE = "http://127.0.0.1:8501"
SHAPE = {
    "tokens", "values", "spans", "base_value", "label", "score", "additivity_error", "target", "task", "version", "method", "budget", "n_calls",
    "n_unread", "made_at", "stored", "sentence", "faithfulness", "flips", "tried", "prediction", "missing",
}  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """One desk for the whole file; every test asks about texts of its own."""
    at = tmp_path_factory.mktemp("api-explain")
    held = runtime.start(config.Settings(home=at / "home", secret_api_token=None), {})
    made = tiny_model.adopt(held.registry, at, run_id="a", dataset="demo")
    held.registry.promote("intent", made.version, by="test", reason="first")
    yield held
    runtime.stop()


@pytest.fixture
def client(desk):
    return TestClient(rest.api, base_url=BASE, raise_server_exceptions=False)


def ask(client, text, **more):
    """POST /explain; the body is written by hand, because httpx refuses half a surrogate pair."""
    body = json.dumps({"text": text, "trust": False, **more})
    return client.post("/explain", content=body, headers={"content-type": "application/json"})


def test_an_explanation_adds_up_and_says_whether_to_believe_it(client, desk):
    said = client.post("/explain", json={"task": "intent", "text": "please replace my stolen card today", "flips": True})
    assert said.status_code == 200, said.text
    body = said.json()
    assert set(body) == SHAPE and body["tokens"] == ["please", "replace", "my", "stolen", "card", "today"]
    assert body["base_value"] + sum(body["values"]) == pytest.approx(body["score"], abs=1e-6) and body["additivity_error"] < 1e-6
    assert body["label"] == body["target"] == body["prediction"]["label"] == "card"
    assert body["version"] == desk.registry.champion("intent").version and body["missing"] == {}
    faith = body["faithfulness"]
    assert faith["verdict"] in ("trust", "with care", "do not") and faith["checks"] and set(faith["checks"][0]) == {"name", "passed", "sentence"}
    assert {"comprehensiveness", "sufficiency", "agreement", "stability", "deletion", "insertion"} < set(faith)
    assert all(flip["label"] != "card" for flip in body["flips"])
    assert client.post("/explain", json={"task": "intent", "text": "please replace my stolen card today"}).json()["stored"]


def test_a_name_of_a_data_set_or_a_version_means_a_model_too(client, desk):
    name = desk.registry.champion("intent").version
    for more in ({"task": "demo"}, {"task": f"intent@{name}"}, {"task": "intent", "version": name}):
        assert ask(client, "my trip abroad", **more).json()["version"] == name


def test_every_method_has_its_name_at_the_api(client):
    assert set(api_explain.Method.__args__) == {*METHODS, *ALIASES}
    for method in ("fast", "exact", "lime", "occlusion"):
        assert ask(client, "a refund of the money", method=method).json()["method"] == method


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"task": "../etc"}, 404), ({"task": "topic"}, 404), ({"version": "nonesuch"}, 404), ({"version": "../../etc/passwd"}, 404),
        ({"method": "magic"}, 422), ({"target": "nonesuch"}, 422), ({"target": "net"}, 422), ({"budget": 1}, 422), ({"budget": 10**40}, 422),
        ({"budget": "many"}, 422), ({"text": 1}, 422), ({"text": None}, 422), ({"surprise": 1}, 422), ({"text": "x" * 2_000_001}, 422),
        ({"method": "exact", "text": "marigold " * 11}, 422),
    ],
)  # fmt: skip
def test_a_wrong_question_is_refused_in_a_sentence(client, more, status):
    said = ask(client, **{"text": "marigold card", **more})
    assert said.status_code == status and set(said.json()) == {"error", "hint"} and len(said.json()["error"]) > 5
    assert "marigold" not in said.text


@pytest.mark.parametrize("error", [Overloaded("The desk is busy.", "Try again."), TookTooLong("No answer.", "Try again.")])
def test_a_busy_desk_answers_503(client, desk, monkeypatch, error):
    def busy(*_args, **_more):
        raise error

    monkeypatch.setattr(desk.explain, "answer", busy)
    assert ask(client, "my card").status_code == 503


def test_the_wait_is_bounded_and_looks_whether_the_client_is_there(client, desk, monkeypatch):
    seen = {}

    def answer(question, *, timeout_s, who, gone):
        seen.update(timeout_s=timeout_s, gone=gone(), text=question.text)
        raise TookTooLong("No answer.", "")

    monkeypatch.setattr(desk.explain, "answer", answer)
    ask(client, "my card")
    assert seen == {"timeout_s": api_explain.ANSWER_S, "gone": False, "text": "my card"} and api_explain.ANSWER_S <= 60


HOSTILE = ["", " ", "\x00", "a\x00b", "\ud800", "🙂" * 500, "‮مرحبا", "=cmd|' /C calc'!A0", "<script>alert(1)</script>", "我的卡", "card " * 10_000]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_any_text_is_explained(client, text):
    said = ask(client, text)
    assert said.status_code == 200 and len(said.json()["tokens"]) == len(said.json()["values"])


def test_no_text_is_in_an_address_or_in_the_log(client, caplog):
    with caplog.at_level(logging.DEBUG, logger="fm"):
        ask(client, "marigold card")
        ask(client, "marigold card", method="exact", budget=9)
        client.post("/reviews", json={"task": "intent", "version": "v", "text": "marigold", "predicted": "card", "score": 0.5})
    assert "marigold" not in caplog.text
    paths = client.get("/openapi.json").json()["paths"]
    assert not [p for path in ("/explain", "/reviews", "/reviews/{review_id}") for verb in paths[path].values() for p in verb.get("parameters", []) if "text" in p["name"]]


def test_without_a_desk_it_says_so(monkeypatch):
    monkeypatch.setattr(runtime, "current", lambda: None)
    client = TestClient(rest.api, base_url=BASE, raise_server_exceptions=False)
    assert ask(client, "x").status_code == client.get("/reviews").status_code == 503


# --- reviews

SENT = {"task": "intent", "version": "linear-demo-1", "text": "my <b>card</b>", "predicted": "card", "score": 0.8, "suggested": "refund", "note": "money"}


def test_a_disagreement_is_sent_listed_and_settled(client):
    said = client.post("/reviews", json=SENT)
    assert said.status_code == 201
    review = said.json()
    assert SENT.items() <= review.items() and review["state"] == "open" and review["who"] == "api"
    assert review in client.get("/reviews", params={"task": "intent"}).json()["reviews"]
    assert client.post(f"/reviews/{review['id']}", json={"state": "agreed", "reason": ""}).status_code == 422
    assert client.post(f"/reviews/{review['id']}", json={"state": "agreed", "reason": " "}).status_code == 422
    settled = client.post(f"/reviews/{review['id']}", json={"state": "agreed", "reason": "it is about money"})
    assert settled.status_code == 200 and settled.json()["note"] == "it is about money"
    assert client.post(f"/reviews/{review['id']}", json={"state": "declined", "reason": "no"}).status_code == 409
    assert settled.json() in client.get("/reviews", params={"state": "all"}).json()["reviews"]
    assert review["id"] not in [r["id"] for r in client.get("/reviews").json()["reviews"]]


@pytest.mark.parametrize(
    ("body", "status"),
    [({"task": "nonesuch"}, 404), ({"score": 2}, 422), ({"text": ""}, 422), ({"note": "x" * 1001}, 422), ({"surprise": 1}, 422), ({"version": "../x"}, 422)],
)
def test_a_wrong_review_is_refused_in_a_sentence(client, body, status):
    said = client.post("/reviews", json={**SENT, **body})
    assert said.status_code == status and set(said.json()) == {"error", "hint"}


def test_a_review_that_is_not_there_is_404(client):
    assert client.post("/reviews/nonesuch", json={"state": "agreed", "reason": "x"}).status_code == 404
    assert client.get("/reviews", params={"state": "nonesuch"}).status_code == client.get("/reviews", params={"limit": 0}).status_code == 422


def test_the_routes_are_synchronous():
    """An explanation at work must not hold up the server's event loop."""
    assert "async def" not in Path(api_explain.__file__).read_text()
