"""The queue of reviews: what is kept of a disagreement, how it is settled, and the audit of both."""

import json

import pytest

from fmcore.explain import reviews
from fmcore.explain.reviews import BadReview, NotOpen, UnknownReview
from fmcore.store.store import Store
from fmcore.tasks import UnknownTask

SENT = {
    "task": "intent", "version": "linear-demo-1", "text": "marigold card", "predicted": "card", "score": 0.8, "suggested": "refund",
    "note": "it is <b>about</b> money", "who": "ann",
}  # fmt: skip


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("reviews") / "home")
    yield store
    store.close()


@pytest.fixture
def store(opened):
    yield opened
    with opened.write() as tx:
        tx.execute("DELETE FROM reviews")
        tx.execute("DELETE FROM audit")


def send(store, **more):
    return reviews.send(store, **{**SENT, **more})


def audit(store):
    return [(row["who"], row["what"], json.loads(row["detail"])) for row in store.rows("SELECT * FROM audit ORDER BY noted_at")]


def test_a_disagreement_waits_until_somebody_settles_it(store):
    one, two = send(store), send(store, text="another", suggested="")
    assert [r.id for r in reviews.listed(store)] == [one.id, two.id] and reviews.listed(store)[0] == one
    assert (one.state, one.who, one.note, one.text, one.score) == ("open", "ann", SENT["note"], "marigold card", 0.8)
    settled = reviews.settle(store, one.id, state="agreed", who="bob", note="the message is about money")
    assert (settled.state, settled.who, settled.note, settled.text) == ("agreed", "bob", "the message is about money", "marigold card")
    assert [r.id for r in reviews.listed(store)] == [two.id] and reviews.listed(store, state="agreed") == [settled]
    assert [r.id for r in reviews.listed(store, state=None)] == [one.id, two.id] and reviews.listed(store, state="declined") == []
    assert settled.at >= one.at and one.at.tzinfo is not None


def test_each_change_is_in_the_audit_without_the_text(store):
    sent = send(store)
    reviews.settle(store, sent.id, state="declined", who="bob", note="marigold is a card")
    what = {"review": sent.id, "task": "intent", "version": "linear-demo-1", "predicted": "card", "suggested": "refund"}
    assert audit(store) == [("ann", "send for review", what | {"state": "open"}), ("bob", "settle a review", what | {"state": "declined"})]
    assert "marigold" not in str(audit(store)) and "marigold" not in repr(sent)


def test_settling_needs_a_reason_and_happens_once(store):
    sent = send(store)
    for more in ({"note": " \n\x00 "}, {"state": "open"}, {"state": "maybe"}, {"note": "x" * 1001}):
        with pytest.raises(BadReview):
            reviews.settle(store, sent.id, **{"state": "agreed", "who": "bob", "note": "why", **more})
    reviews.settle(store, sent.id, state="agreed", who="bob", note="why")
    with pytest.raises(NotOpen, match="agreed"):
        reviews.settle(store, sent.id, state="declined", who="cleo", note="no")
    with pytest.raises(UnknownReview):
        reviews.settle(store, "' OR 1=1 --", state="agreed", who="bob", note="why")
    assert len(audit(store)) == 2


@pytest.mark.parametrize(
    "more",
    [{"text": " "}, {"version": "../x"}, {"predicted": ""}, {"score": float("nan")}, {"score": 1.5}, {"suggested": "card"}, {"note": "x" * 1001}],
)
def test_what_cannot_be_kept_is_refused_in_words(store, more):
    with pytest.raises(BadReview) as refused:
        send(store, **more)
    assert refused.value.hint and "marigold" not in str(refused.value)
    assert reviews.listed(store) == [] and audit(store) == []


def test_an_unknown_task_and_state_are_refused(store):
    with pytest.raises(UnknownTask):
        send(store, task="nonesuch")
    with pytest.raises(BadReview):
        reviews.listed(store, state="nonesuch")


def test_hostile_text_is_bounded_and_stays_text(store):
    sent = send(store, text="\ud800<img onerror=x>\x00" + "x" * 100_000, suggested="a\nb" + "y" * 1000, who="\x00" * 10)
    [kept] = reviews.listed(store)
    assert kept == sent and kept.text.startswith("?<img onerror=x> x") and len(kept.text) == 20_000
    assert kept.suggested.startswith("a b") and len(kept.suggested) <= reviews.MAX_LABEL and kept.who == "unknown"


def test_the_queue_is_bounded_and_so_is_a_list(store, monkeypatch):
    monkeypatch.setattr(reviews, "MAX_OPEN", 3)
    made = [send(store, text=f"text {i}") for i in range(3)]
    with pytest.raises(BadReview, match="3 reviews wait"):
        send(store)
    assert [r.id for r in reviews.listed(store, limit=2)] == [r.id for r in made[:2]]
    reviews.settle(store, made[0].id, state="declined", who="bob", note="no")
    assert send(store, task="topic").state == "open" and [r.task for r in reviews.listed(store, task="topic")] == ["topic"]
