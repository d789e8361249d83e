"""Stored replies: ranked by likeness, handed over when out of scope, absent when there are none."""

import json

import pytest

from fmcore.models.registry import Registry, write_manifest
from fmcore.serving.engine import Engine
from fmcore.serving.replies import HAND_OVER, best_replies
from fmcore.store.store import Store
from tests import toy_models


@pytest.fixture
def engine(tmp_path):
    store = Store(tmp_path / "home")
    engine = Engine(Registry(store), load=toy_models.load)
    version = toy_models.adopt(engine.registry, tmp_path, run_id="a")
    engine.registry.promote("intent", version.version, by="test", reason="first")
    yield engine
    engine.close()
    store.close()


def ask(engine, text, **options):
    return best_replies(engine, "intent", text, engine.predict("intent", [text])[0], **options)


def test_the_best_reply_is_the_one_nearest_to_the_message(engine):
    found = ask(engine, "where is my loan")
    assert found[0].intent == "loan" and "loan" in found[0].text and found[0].source == "stored replies of banking77"
    scores = [r.score for r in found]
    assert len(found) == 3 and scores == sorted(scores, reverse=True) and all(0 <= s <= 1 for s in scores)


def test_no_more_replies_than_asked_for(engine):
    assert len(ask(engine, "my card", k=1)) == 1


def test_a_message_out_of_scope_is_handed_over_with_the_reason(engine):
    (reply,) = ask(engine, "how is the weather")
    assert reply.text == HAND_OVER and reply.intent == "oos" and "toy" in reply.source and reply.score == 0


@pytest.mark.parametrize("content", [None, "{}", "[]", "not json", json.dumps({"nonesuch": "hello"})])
def test_a_model_without_usable_replies_offers_none(engine, tmp_path, content):
    at = toy_models.folder(tmp_path / "b", finished=False)
    (at / "replies.json").unlink()
    if content is not None:
        (at / "replies.json").write_text(content)
    write_manifest(at)
    version = engine.registry.adopt(at, task="intent", recipe="linear", dataset="x", base="toy", metrics={}, run_id="b")
    engine.registry.promote("intent", version.version, by="test", reason="second")
    assert ask(engine, "my card") == []
