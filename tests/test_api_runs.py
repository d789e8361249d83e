"""Tracking over REST: facts, comparison, lineage and the pinned baseline, and refusals in words."""

import pytest
from pydantic import BaseModel
from starlette.testclient import TestClient

from fmcore import api as rest
from fmcore import config, run_facts, runtime
from fmcore.nouns import Job

BASE = "http://127.0.0.1:8501"


class Params(BaseModel, extra="forbid"):
    n: int = 1


JOBS = {"count": Job(name="count", title="Count", summary="Counts.", kind="heavy", params=Params)}


@pytest.fixture
def desk(tmp_path):
    yield runtime.start(config.Settings(home=tmp_path / "home", secret_api_token=None), JOBS)
    runtime.stop()


@pytest.fixture
def client():
    return TestClient(rest.api, base_url=BASE, raise_server_exceptions=False)


def done(desk, **params):
    run = desk.runs.start_now("count", params)
    desk.runs.note(run.id, metrics=[(1, "loss", 1.0)])
    run_facts.note(desk.store, run.id, {"seconds": 2.0, "code": {"commit": "a" * 40, "dirty": False}})
    desk.runs.finish(run.id, "succeeded", result={"accuracy": {"value": 0.9, "low": 0.8, "high": 0.95}})
    return run.id


def test_a_runs_facts_a_comparison_and_a_line(desk, client):
    a, b = done(desk), done(desk, n=2)
    facts = client.get(f"/runs/{a}/facts").json()
    assert facts["seconds"] == 2.0 and facts["energy_j"] is None and facts["code"]["commit"] == "a" * 40
    compared = client.get("/compare", params={"run": [a, b], "baseline": b}).json()
    assert compared["baseline"] == b and [row["name"] for row in compared["params"]] == ["n"]
    assert compared["curves"]["loss"] == {"step": [1], a: [1.0], b: [1.0]}
    line = client.get("/lineage", params={"of": a}).json()
    assert line["kind"] == "data" and line["children"][0]["children"][0]["id"] == a


def test_a_pinned_run_is_the_baseline_from_then_on(desk, client):
    a, b = done(desk), done(desk, n=2)
    assert client.post(f"/runs/{b}/pin", json={}).json() == {"baseline": b, "of": "count"}
    compared = client.get("/compare", params={"run": a}).json()
    assert (compared["baseline"], compared["pinned"]) == (b, True)


def test_refusals_say_why(desk, client):
    a = done(desk)
    for path, status in ((f"/compare?run={a}", 422), ("/compare", 422), (f"/compare?run={a}&run=nobody", 404), ("/lineage?of=nobody", 404), ("/runs/nobody/facts", 404)):
        answer = client.get(path)
        assert answer.status_code == status and answer.json()["error"], path
    assert client.post("/runs/nobody/pin", json={}).status_code == 404


def test_before_the_desk_is_up(client):
    assert client.get("/lineage?of=x").status_code == 503
