"""Alerts as a program sees them: the inbox, why, acknowledge, silences with a preview, rules; refusals in words."""

import pytest
from starlette.testclient import TestClient

from fmcore import api as rest
from fmcore import config, runtime
from fmcore.sentiment import alerts
from tests.sentiment.alert_news import HOUR, MINUTE, Threshold, at, burst, hum, rule

JSON = {"Content-Type": "application/json"}


@pytest.fixture  # a desk a test: they acknowledge, silence and add rules
def desk(tmp_path):
    """A desk with an alert about Fraud that fires and an older one that is over."""
    held = runtime.start(config.Settings(home=tmp_path / "home"), {})
    alerts.save_rule(held.store, rule(), by="test")
    hum(held.store, 0, 12)
    burst(held.store, 1, 6)
    burst(held.store, 9, 8)
    for hour in (2, 6, 10):
        alerts.evaluate(held.store, now=at(hour) + 5 * MINUTE, detector=Threshold)
    yield held
    runtime.stop()


@pytest.fixture
def client(desk):
    return TestClient(rest.api, base_url="http://127.0.0.1:8501", raise_server_exceptions=False)


def first(client):
    return next(a for a in client.get("/alerts", params={"rule": "r"}).json()["alerts"])


def test_the_inbox_lists_open_alerts_and_others_when_asked(client):
    inbox = client.get("/alerts", params={"rule": "r"}).json()
    assert inbox["summary"]["unacknowledged"] >= 1
    assert [(a["key"], a["state"], a["starts_at"]) for a in inbox["alerts"]] == [("Fraud", "firing", at(9).isoformat().replace("+00:00", "Z"))]
    over = client.get("/alerts", params={"state": "resolved", "rule": "r"}).json()["alerts"]
    assert [a["ends_at"] for a in over] == [at(5).isoformat().replace("+00:00", "Z")]
    assert client.get("/alerts", params={"state": "loud"}).status_code == 422


def test_one_alert_says_why_what_happened_and_which_buckets_fired(client):
    found = client.get(f"/alerts/{first(client)['id']}").json()
    why = found["why"]
    for split in ("by_story", "by_source", "by_ticker", "by_topic", "by_term"):
        assert sum(row["part"] for row in why[split]) == pytest.approx(why["excess"], abs=1e-9)
    assert found["reason"] == why["sentence"] and why["top"][0]["url"].startswith("https://")
    assert [step["what"] for step in found["history"]] == ["firing"]
    assert [point["value"] for point in found["points"]] == [8.0]
    assert client.get("/alerts/nothing").status_code == 404


def test_an_alert_is_acknowledged_once(client):
    id = first(client)["id"]
    assert client.post(f"/alerts/{id}/ack", json={"by": "Ann", "note": "on it"}).json()["acked_by"] == "Ann"
    refused = client.post(f"/alerts/{id}/ack", json={"by": "Bob"})
    assert refused.status_code == 409 and "Ann" in refused.json()["error"]
    assert client.post("/alerts/nothing/ack", json={}).status_code == 404


def test_a_silence_is_previewed_saved_listed_and_ended(client):
    body = {"key": "Fraud", "starts_at": at(20).isoformat(), "ends_at": (at(20) + HOUR).isoformat(), "by": "Ann", "reason": "a <b>test</b>"}
    assert client.post("/silences/preview", json=body).status_code == 200
    assert client.get("/silences").json()["silences"] == []
    made = client.post("/silences", json=body)
    assert made.status_code == 201 and made.json()["reason"] == "a <b>test</b>"
    assert [s["by"] for s in client.get("/silences").json()["silences"]] == ["Ann"]
    assert client.delete(f"/silences/{made.json()['id']}", headers=JSON).status_code == 200
    assert client.delete("/silences/nothing", headers=JSON).status_code == 404
    naive = client.post("/silences", json=body | {"starts_at": "2026-06-01T00:00:00"})
    assert naive.status_code == 422
    assert client.post("/silences", json=body | {"ends_at": at(1).isoformat()}).status_code == 422


def test_rules_are_listed_and_saved_with_the_fault_named(client):
    known = {r["id"]: r for r in client.get("/rules").json()["rules"]}
    assert "market-surge" in known and known["r"]["title"] == "Bad news"
    body = {"id": "mine", "title": "Mine", "dimension": "ticker", "kinds": ["surge"], "severity": "low"}
    assert client.post("/rules", json=body).status_code == 201
    refused = client.post("/rules", json=body | {"sensitivity": 7})
    assert refused.status_code == 422 and "sensitivity" in refused.json()["error"]
    assert client.post("/rules", json=body | {"what": 1}).status_code == 422


def test_a_rule_is_played_back_against_labels(client):
    span = {"start": at(0).isoformat(), "end": at(12).isoformat()}
    body = {"title": "The Fraud affair", "starts_at": at(9).isoformat(), "ends_at": at(10).isoformat(), "topic": "Fraud", "kind": "surge"}
    made = client.post("/incidents", json=body)
    assert made.status_code == 201
    assert [i["title"] for i in client.get("/incidents", params=span).json()["incidents"]] == ["The Fraud affair"]
    found = client.get("/rules/r/backtest", params=span | {"sensitivity": 0.9}).json()
    assert found["rule"]["sensitivity"] == 0.9 and len(found["hits"]) + len(found["misses"]) == 1
    assert "alerts a week" in found["sentence"]
    assert client.get("/rules/nothing/backtest", params=span).status_code == 404
    assert client.get("/rules/dead-feed/backtest", params=span).status_code == 422
    assert client.get("/rules/r/backtest", params={"start": at(0).isoformat(), "end": at(9000).isoformat()}).status_code == 422
    assert client.post("/incidents", json=body | {"ends_at": at(1).isoformat()}).status_code == 422
    assert client.delete(f"/incidents/{made.json()['id']}", headers=JSON).status_code == 200
    assert client.delete(f"/incidents/{made.json()['id']}", headers=JSON).status_code == 422
