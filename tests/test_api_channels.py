"""Channels and delivery as a program sees them: what is accepted, what is refused, and what no answer ever holds."""

import pytest
from starlette.testclient import TestClient

from fmcore import api as rest
from fmcore import clock, config, runtime
from fmcore.sentiment import notify
from tests.sentiment.collector import Collector

TOKEN = "T0KEN-in-the-path"
JSON = {"Content-Type": "application/json"}  # what every change has to say, a body or none


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    held = runtime.start(config.Settings(home=tmp_path_factory.mktemp("channels") / "home"), {})
    yield held
    runtime.stop()


@pytest.fixture
def collector(monkeypatch):
    monkeypatch.setenv("FM_ALLOW_PRIVATE_TARGETS", "true")
    config.settings.cache_clear()
    made = Collector()
    yield made
    made.close()


@pytest.fixture
def client(desk):
    yield TestClient(rest.api, base_url="http://127.0.0.1:8501", raise_server_exceptions=False)
    with desk.store.write() as tx:
        for table in ("channels", "outbox", "bundles", "deliveries"):
            tx.execute(f"DELETE FROM {table}")


def add(client, collector, **more):
    body = {"name": "ops", "kind": "webhook", "address": collector.url(f"/{TOKEN}"), **more}
    return client.post("/channels", json=body)


def fire(desk, alert_id="a1"):
    event = {
        "alert_id": alert_id, "fingerprint": "f", "transition": "firing", "severity": "high", "title": "Surge", "reason": "So many.",
        "url_path": "/alerts", "starts_at": clock.now(), "ends_at": None, "why": {},
    }  # fmt: skip
    with desk.store.write() as tx:
        notify.enqueue(tx, event, now=clock.now())


def test_a_channel_is_added_tested_listed_paused_and_removed_and_no_answer_holds_its_address(client, collector):
    added = add(client, collector)
    assert added.status_code == 201 and len(bytes.fromhex(added.json()["secret"])) == 32
    assert client.post("/channels/ops/test", json={}).json() == {"ok": True, "reason": ""}
    assert collector.requests[0].content["kind"] == "test"
    listed = client.get("/channels")
    assert listed.json()["channels"][0]["address"] == f"http://127.0.0.1:{collector.port}/****"
    paused = client.post("/channels/ops/pause", json={})
    assert paused.json()["enabled"] is False and client.post("/channels/ops/resume", json={}).json()["enabled"] is True
    for answer in (added, listed, paused):
        assert TOKEN not in answer.text
    assert added.json()["secret"] not in listed.text
    assert client.delete("/channels/ops", headers=JSON).status_code == 204
    assert client.get("/channels").json() == {"channels": []}


def test_a_secret_that_was_given_is_not_said_again(client, collector):
    answer = add(client, collector, secret="a-secret-of-mine-1234")
    assert "secret" not in answer.json() and "a-secret-of-mine-1234" not in answer.text


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"kind": "pigeon"}, 422),
        ({"address": "file:///etc/passwd"}, 422),
        ({"address": f"https://user:{TOKEN}@example.com/"}, 422),
        ({"kind": "apprise", "address": "dbus://"}, 422),
        ({"secret": "short"}, 422),
        ({"name": "../x"}, 422),
        ({"per_minute": 10_000}, 422),
        ({"surprise": 1}, 422),
    ],
)
def test_what_is_no_channel_is_refused_without_repeating_its_credentials(client, collector, wrong, status):
    answer = add(client, collector, **wrong)
    assert answer.status_code == status and answer.json()["error"] and TOKEN not in answer.text
    assert client.get("/channels").json() == {"channels": []}


def test_private_addresses_are_refused_unless_allowed_by_the_setting(client, collector, monkeypatch):
    monkeypatch.setenv("FM_ALLOW_PRIVATE_TARGETS", "false")
    config.settings.cache_clear()
    answer = add(client, collector)
    assert answer.status_code == 422 and "FM_ALLOW_PRIVATE_TARGETS" in answer.json()["hint"]
    assert add(client, collector, address="https://10.0.0.1/x").status_code == 422


def test_unknown_channels_and_letters_are_told_apart_from_wrong_requests(client, collector):
    assert client.post("/channels/nobody/pause", json={}).status_code == 404
    assert client.delete("/channels/nobody", headers=JSON).status_code == 404
    assert client.post("/channels/nobody/test", json={}).status_code == 404
    assert client.post("/deliveries/nothing/retry", json={}).status_code == 409


def test_deliveries_show_their_state_and_a_dead_letter_can_be_sent_again(client, desk, collector):
    add(client, collector)
    collector.modes = [410, 200]
    fire(desk)
    notify.deliver(desk.store)
    [dead] = client.get("/deliveries", params={"state": "dead"}).json()["deliveries"]
    assert (dead["channel"], dead["alert_id"], dead["error"], dead["attempts"]) == ("ops", "a1", "It answered 410.", 1)
    assert client.post(f"/deliveries/{dead['id']}/retry", json={}).json() == {"queued": 1}
    notify.deliver(desk.store)
    [sent] = client.get("/deliveries").json()["deliveries"]
    assert (sent["state"], sent["attempts"]) == ("sent", 2)
    tries = client.get(f"/deliveries/{dead['id']}").json()["tries"]
    assert [(t["outcome"], t["who"]) for t in tries] == [("dead", ""), ("again", "api"), ("sent", "")]
    assert client.get("/channels").json()["channels"][0]["notifications"] == {"sent": 1}
    assert client.get("/deliveries", params={"state": "lost"}).status_code == 422
