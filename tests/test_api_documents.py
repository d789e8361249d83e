"""Documents pushed through the API: many at once, once each, refused one by one; and the list of sources."""

import json

import pytest
from starlette.testclient import TestClient

from fmcore import api as rest
from fmcore import config, runtime
from fmcore.data.sources import Sources


@pytest.fixture
def desk():
    yield runtime.start(config.settings(), {})
    runtime.stop()


@pytest.fixture
def client(desk):
    return TestClient(rest.api, base_url="http://127.0.0.1:8501", raise_server_exceptions=False)


def push(client, documents, **more):
    return client.post("/documents", content=json.dumps({"documents": documents, **more}), headers={"Content-Type": "application/json"})


def test_a_batch_is_taken_in_once(client, desk):
    batch = [
        {"title": f"Headline {n}", "url": f"https://n.example/{n}", "published_at": "2026-01-05T08:00:00Z", "tickers": ["AAPL"]}
        for n in range(1000)
    ]
    said = push(client, batch, source="script").json()
    assert (said["source"], said["n_new"], said["n_known"], said["n_refused"], said["refused"]) == ("script", 1000, 0, 0, [])
    assert push(client, batch, source="script").json()["n_known"] == 1000
    assert desk.store.rows("SELECT count(*) AS n FROM documents WHERE source = 'script'")[0]["n"] == 1000


def test_each_refused_document_is_named_with_its_reason(client):
    said = push(
        client,
        [
            {"title": "good"},
            {"title": "bad link", "url": "javascript:alert(1)"},
            {"title": "no zone", "published_at": "2026-01-05 08:00"},
            {"title": None, "body": None},
            {"title": "a number for a date", "published_at": 1767600000},
            {"title": 5, "body": ["a"], "url": None, "id": 7, "tickers": [1, None, "$msft"]},
            {"title": "half \ud83d"},
        ],
    )  # fmt: skip
    assert said.status_code == 200
    told = said.json()
    assert (told["n_seen"], told["n_new"], told["n_refused"], told["n_undated"]) == (7, 3, 4, 3)
    assert [row["index"] for row in told["refused"]] == [1, 2, 3, 4]
    assert told["refusals"] == {
        "link is not http or https": 1,
        "date without a time zone": 1,
        "no title and no text": 1,
        "date not understood": 1,
    }


def test_not_a_number_in_json_is_refused_not_stored(client):
    said = client.post(
        "/documents", content=b'{"documents": [{"title": "a", "published_at": NaN}]}', headers={"Content-Type": "application/json"}
    )
    assert said.status_code == 200 and said.json()["refusals"] == {"date not understood": 1}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"documents": []}, 422),
        ({"documents": [{"title": "x"}] * 1001}, 422),
        ({"documents": [{"headline": "x"}]}, 422),
        ({"documents": [{"title": "x"}], "source": "no such name!"}, 422),
        ({}, 422),
    ],
)
def test_a_request_of_the_wrong_shape_is_refused_whole(client, desk, body, status):
    said = client.post("/documents", json=body)
    assert said.status_code == status and said.json()["error"]
    assert desk.store.rows("SELECT count(*) AS n FROM documents")[0]["n"] == 0


def test_a_source_that_is_paused_or_of_another_kind_takes_nothing(client, desk):
    push(client, [{"title": "x"}], source="script")
    Sources(desk.store).pause("script", "me")
    Sources(desk.store).add("feed", "rss", {"url": "https://n.example/"})
    for name in ("script", "feed"):
        said = push(client, [{"title": "y"}], source=name)
        assert said.status_code == 409 and said.json()["hint"]


def test_the_doors_rules_hold_here_too(client):
    assert client.post("/documents", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.post("/documents", json={"documents": [{"title": "x" * 5_100_000}]}).status_code == 413
    assert client.post("/documents", json={"documents": [{"title": "x"}]}, headers={"Origin": "https://evil.example"}).status_code == 403


def test_sources_are_listed_with_their_health(client, desk):
    assert client.get("/sources").json() == {"sources": []}
    push(client, [{"title": "x"}, {}], source="script")
    (row,) = client.get("/sources").json()["sources"]
    assert (row["name"], row["kind"], row["state"], row["licence"]) == ("script", "push", "on", "not stated")
    assert (row["health"]["n_new"], row["health"]["refusals"], row["health"]["state"]) == (1, {"no title and no text": 1}, "well")
