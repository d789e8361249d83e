"""`python -m fmcore explain`: a contract for other programs. A tiny but real model; the server's side answers through the real API."""

import json
from typing import get_args

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from typer.testing import CliRunner

from fmcore import __main__ as cli
from fmcore import config, runtime
from fmcore.api import api
from fmcore.explain.asking import ALIASES, METHODS
from fmcore.models.registry import Registry
from fmcore.store.store import Store
from tests import tiny_model

TEXT = "please replace my stolen card today"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    at = tmp_path_factory.mktemp("explain-cli")
    store = Store(at / "home")
    registry = Registry(store)
    champion = tiny_model.adopt(registry, at, run_id="a", dataset="demo")
    tiny_model.adopt(registry, at, run_id="b", dataset="other", topics={k: tiny_model.TOPICS[k] for k in ("card", "travel")})
    registry.promote("intent", champion.version, by="test", reason="first")
    store.close()
    return at / "home"


def fm(home, *args):
    config.settings.cache_clear()
    said = CliRunner().invoke(cli.app, ["explain", *map(str, args)], env={"FM_HOME": str(home)})
    config.settings.cache_clear()
    assert said.exception is None or isinstance(said.exception, SystemExit), said.exception
    return said


def explained(home, *args):
    said = fm(home, *args)
    assert said.exit_code == 0 and said.stderr == "", said.stderr
    assert len(said.stdout.strip().splitlines()) == 1
    return json.loads(said.stdout)


def refused(said, *words):
    """Exit code 1, one line on standard error, nothing on standard output, and no word of the text."""
    assert said.exit_code == 1 and said.stdout == "" and len(said.stderr.strip().splitlines()) == 1, said.output
    assert all(word in said.stderr for word in words) and "stolen" not in said.stderr, said.stderr
    return True


def test_explain_prints_the_contract(home):
    text = f"{TEXT} still"  # no other test's
    said = explained(home, "--task", "intent", "--text", text)
    assert {"tokens", "values", "base_value", "label", "score", "additivity_error", "faithfulness"} <= set(said)
    assert said["tokens"] == text.split() and said["base_value"] + sum(said["values"]) == pytest.approx(said["score"], abs=1e-6)
    assert said["label"] == "card" and said["additivity_error"] < 1e-6 and said["faithfulness"]["verdict"] in ("trust", "with care", "do not")
    assert not said["stored"] and said["flips"] is None
    again = explained(home, "--task", "intent", "--text", text)
    assert again["stored"] and {**again, "stored": False} == said, "the next process finds it in the store"


@pytest.mark.parametrize("method", ["fast", "exact", pytest.param("shap", marks=pytest.mark.slow), "lime", "occlusion"])
def test_each_method_can_be_asked(home, method):
    said = explained(home, "--text", "my trip abroad", "--method", method, "--no-trust")
    assert said["method"] == method and said["faithfulness"] is None and len(said["values"]) == 3


def test_gradients_say_where_they_cannot(home):
    assert refused(fm(home, "--text", TEXT, "--method", "ig"))


def test_the_options_reach_the_question(home):
    said = explained(home, "--task", "demo", "--text", TEXT, "--target", "refund", "--budget", "20", "--no-trust", "--flips")
    assert said["target"] == "refund" and said["budget"] == 20 and said["label"] == "card" and said["flips"] is not None
    store = Store(home)
    versions = [v.version for v in Registry(store).versions("intent")]
    store.close()
    for version in versions:
        assert explained(home, "--text", TEXT, "--version", version, "--no-trust")["version"] == version
        assert explained(home, "--task", f"intent@{version}", "--text", TEXT, "--no-trust")["version"] == version


@pytest.mark.parametrize("text", ["", " ", "\ud800 card", "<b>card</b>", "我的卡", "🙂", "card " * 10_000], ids=range(7))
def test_any_text_is_explained(home, text):
    said = explained(home, "--text", text, "--no-trust")
    assert len(said["tokens"]) == len(said["values"])


def test_failures_are_one_line_and_wrong_usage_is_two(home, tmp_path):
    assert refused(fm(home, "--task", "nonesuch", "--text", TEXT), "nonesuch")
    assert refused(fm(home, "--version", "../../etc", "--text", TEXT))
    assert refused(fm(home, "--target", "nonesuch", "--text", TEXT), "no such label")
    assert refused(fm(home, "--method", "exact", "--text", f"{TEXT} {TEXT}"), "12 words")
    assert refused(fm(tmp_path / "fresh", "--text", TEXT), "No model serves intent yet")
    for usage in ([], ["--text"], ["--text", "x", "--method", "magic"], ["--text", "x", "--budget", "7"], ["--text", "x", "--budget", "many"]):
        assert fm(home, *usage).exit_code == 2, usage


def test_the_methods_are_those_of_the_desk():
    assert set(get_args(cli.Method)) == {*METHODS, *ALIASES}


def test_while_a_server_holds_the_store_its_api_answers(home, monkeypatch):
    """The server is this process; the command meets a locked store and goes through the real API."""
    from fmcore.store import store as stores

    alone = explained(home, "--text", TEXT, "--flips", "--budget", "33")
    runtime.start(config.Settings(home=home, secret_api_token=None), {})

    def locked(*_args, **_more):
        raise stores.StoreLocked("in use", "stop it", None)

    server = Starlette(routes=[Mount("/api", api)])
    monkeypatch.setattr(stores, "Store", locked)
    monkeypatch.setattr(cli, "_client", lambda _settings, _locked: TestClient(server, base_url="http://127.0.0.1:8501"))
    try:
        through = explained(home, "--text", TEXT, "--flips", "--budget", "33")
        assert {**through, "stored": alone["stored"]} == alone and through["stored"]
        assert explained(home, "--text", "\ud800 over the wire", "--no-trust")["tokens"][1:] == ["over", "the", "wire"]
        assert refused(fm(home, "--text", TEXT, "--target", "nonesuch"), "no such label")
        assert refused(fm(home, "--task", "nonesuch", "--text", TEXT), "nonesuch")
    finally:
        runtime.stop()
