"""The scoring job: everything that waits is scored once, whatever kills it, and each article says which version answered."""

import dataclasses
import datetime as dt
import functools
import random
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from fmcore import config, runtime
from fmcore.models.registry import Registry
from fmcore.nouns import Cancelled, Filters
from fmcore.sentiment import index, rollup, scoring
from fmcore.serving.engine import Engine
from fmcore.store.store import Store
from jobs import JOBS, score
from tests import toy_models
from tests.toy_articles import START, articles_of, counted, kept

ROOT = Path(__file__).resolve().parents[2]
SENTIMENTS = ("negative", "neutral", "positive")
TOPICS = ("Fraud", "Rates")


class Said:
    """A report that keeps what it is told; `each` is called at every progress."""

    def __init__(self, each=lambda: None):
        self.metrics, self.lines, self.each = {}, [], each

    def progress(self, fraction, message=""):
        self.lines.append((fraction, message))
        self.each()

    def metric(self, step, **values):
        self.metrics |= values


@pytest.fixture
def store(tmp_path, monkeypatch):
    held = Store(tmp_path / "home")
    monkeypatch.setattr(score, "Engine", functools.partial(Engine, load=toy_models.load))
    yield held
    held.close()


def serve(store, work, task, labels, run_id):
    """Train and promote a toy."""
    registry = Registry(store)
    made = toy_models.folder(work / run_id, labels=labels, speaks=run_id)
    version = registry.adopt(made, task=task, recipe="linear", dataset="demo", base="toy", metrics=toy_models.metrics(), run_id=run_id)
    registry.promote(task, version.version, by="test", reason="test")
    return version.version


def wait_for(store, n, *, first=0, at=START, seen=START):
    """n documents; every third says negative, every second is about rates."""
    texts = [f"w{i}a w{i}b w{i}c w{i}d {SENTIMENTS[i % 3]} {TOPICS[i % 2]}" for i in range(first, first + n)]
    frame = pd.DataFrame({
        "id": [f"d{i:05d}" for i in range(first, first + n)], "source": "wire", "url": "https://news.example", "title": texts, "body": "",
        "language": "en", "tickers": [["A"]] * n, "published_at": [at + dt.timedelta(minutes=i) for i in range(first, first + n)],
        "seen_at": seen, "truncated": False, "synthetic": True,
    })
    with store.write() as tx:
        tx.insert_frame("documents", frame)
    return frame


def articles(store):
    return store.rows("SELECT document_id, sentiment, topic, story_id, leads, net, sentiment_version FROM articles ORDER BY document_id")


def assert_consistent(store, n):
    assert store.rows("SELECT count(*) AS n, count(DISTINCT document_id) AS d FROM articles") == [{"n": n, "d": n}]
    assert (store.rows("SELECT sum(n_articles) AS n FROM stories")[0]["n"] or 0) == n
    found, expected = kept(store, Filters(), step=12), counted(articles_of(store), Filters(), step=12)
    assert found.to_numpy().tolist() == expected.to_numpy().tolist()


def test_the_job_is_a_routine_of_every_minute():
    job = JOBS["score"]
    assert job is score.JOB and job.routine and job.kind == "light" and job.schedule == "* * * * *"


def test_what_waits_is_scored_once_oldest_first(store, tmp_path):
    sentiment, topic = serve(store, tmp_path, "sentiment", SENTIMENTS, "s1"), serve(store, tmp_path, "topic", TOPICS, "t1")
    wait_for(store, 30)
    said = Said()
    result = score.run(store, score.Score(batch=8), said)
    assert (result["scored"], result["waiting"], result["reason"]) == (30, 0, "")
    assert said.metrics["backlog"] == 0 and said.metrics["scored"] == 30 and said.metrics["per_minute"] == 0.5
    rows = articles(store)
    assert [r["sentiment"] for r in rows] == [SENTIMENTS[i % 3] for i in range(30)] and [r["topic"] for r in rows] == [TOPICS[i % 2] for i in range(30)]
    assert {r["sentiment_version"] for r in rows} == {sentiment} and store.rows("SELECT DISTINCT topic_version AS v FROM articles") == [{"v": topic}]
    assert [r["net"] for r in rows[:3]] == [-7_000, 0, 7_000]
    assert_consistent(store, 30)
    assert score.run(store, score.Score(), Said())["scored"] == 0  # nothing is done twice
    wait_for(store, 5, first=30, at=START - dt.timedelta(days=400))  # late news
    assert index.backlog(store).n_unscored == 5 and index.backlog(store).oldest_at is not None
    assert score.run(store, score.Score(), Said())["scored"] == 5
    assert_consistent(store, 35)


def test_without_a_sentiment_model_it_waits_and_says_so(store, tmp_path):
    wait_for(store, 3)
    result = score.run(store, score.Score(), Said())
    assert (result["scored"], result["waiting"]) == (0, 3) and "No sentiment model" in result["reason"]
    serve(store, tmp_path, "sentiment", SENTIMENTS, "s1")
    assert score.run(store, score.Score(), Said())["scored"] == 3
    assert {r["topic"] for r in articles(store)} == {"unknown"}  # and without a topic model the topic is that


def test_a_model_that_says_something_else_scores_nothing(store, tmp_path):
    serve(store, tmp_path, "sentiment", ("up", "down"), "s1")
    wait_for(store, 3)
    with pytest.raises(scoring.WrongModel):
        score.run(store, score.Score(), Said())
    assert_consistent(store, 0)


def test_a_run_ends_in_time_and_the_next_goes_on(store, tmp_path, monkeypatch):
    serve(store, tmp_path, "sentiment", SENTIMENTS, "s1")
    wait_for(store, 20)
    clock = [0.0]
    monkeypatch.setattr(score.time, "monotonic", lambda: clock[0])
    said = Said(lambda: clock.__setitem__(0, clock[0] + 20))
    result = score.run(store, score.Score(batch=5, for_s=30), said)
    assert (result["scored"], result["waiting"]) == (10, 10)
    assert_consistent(store, 10)
    assert score.run(store, score.Score(), Said())["scored"] == 10


def test_a_cancelled_run_keeps_its_whole_batches(store, tmp_path):
    serve(store, tmp_path, "sentiment", SENTIMENTS, "s1")
    wait_for(store, 20)

    def stop():
        raise Cancelled

    with pytest.raises(Cancelled):
        score.run(store, score.Score(batch=6), Said(stop))
    assert_consistent(store, 6)


def test_a_model_swapped_mid_run_signs_what_it_answered_itself(store, tmp_path):
    first = serve(store, tmp_path, "sentiment", SENTIMENTS, "s1")
    wait_for(store, 40)
    versions = [first]

    def swap():
        if len(versions) == 1:
            versions.append(serve(store, tmp_path, "sentiment", SENTIMENTS, "s2"))

    score.run(store, score.Score(batch=10), Said(swap))
    assert [r["sentiment_version"] for r in articles(store)] == [versions[0]] * 10 + [versions[1]] * 30
    again = score.run(store, score.Score(batch=4, rescore=True), Said())
    assert again["rescored"] == 10 and {r["sentiment_version"] for r in articles(store)} == {versions[1]}
    assert_consistent(store, 40)
    assert score.run(store, score.Score(rescore=True), Said())["rescored"] == 0


def test_scoring_again_changes_the_trend_exactly(store, tmp_path):
    serve(store, tmp_path, "sentiment", SENTIMENTS, "s1")
    wait_for(store, 60)
    score.run(store, score.Score(), Said())
    rollup.fold(store, at=1)
    serve(store, tmp_path, "topic", TOPICS, "t1")  # until now every topic was unknown
    serve(store, tmp_path, "sentiment", ("negative", "positive", "neutral"), "s2")
    assert score.run(store, score.Score(batch=25, rescore=True), Said())["rescored"] == 60
    assert_consistent(store, 60)
    assert set(index.stories(store, Filters(topics=("Rates",)))["topic"]) == {"Rates"} and index.stories(store, Filters(topics=("unknown",))).empty


def test_what_was_scored_before_there_was_a_topic_model_gets_its_topic_by_itself(store, tmp_path, monkeypatch):
    serve(store, tmp_path, "sentiment", SENTIMENTS, "s1")
    wait_for(store, 30)
    assert score.run(store, score.Score(), Said())["rescored"] == 0  # there is no topic model yet
    assert {r["topic"] for r in articles(store)} == {"unknown"}
    topic = serve(store, tmp_path, "topic", TOPICS, "t1")
    wait_for(store, 4, first=30)
    clock = [0.0]
    with monkeypatch.context() as patched:
        patched.setattr(score.time, "monotonic", lambda: clock[0])
        result = score.run(store, score.Score(batch=10, for_s=30), Said(lambda: clock.__setitem__(0, clock[0] + 12)))
    assert (result["scored"], result["rescored"]) == (4, 20)  # new ones first, and no longer than a run may take
    assert_consistent(store, 34)
    assert score.run(store, score.Score(batch=7), Said())["rescored"] == 10
    assert [r["topic"] for r in articles(store)] == [TOPICS[i % 2] for i in range(34)]
    assert store.rows("SELECT DISTINCT topic_version AS v FROM articles") == [{"v": topic}]
    assert_consistent(store, 34)
    serve(store, tmp_path, "topic", TOPICS, "t2")
    assert score.run(store, score.Score(), Said())["rescored"] == 0  # another topic model is no reason of its own


def test_a_source_removed_mid_run_takes_nothing_back(store, tmp_path):
    serve(store, tmp_path, "sentiment", SENTIMENTS, "s1")
    wait_for(store, 20)

    def remove():
        with store.write() as tx:
            tx.execute("DELETE FROM documents")

    score.run(store, score.Score(batch=10), Said(remove))
    assert_consistent(store, 20)  # what was looked up is scored
    assert (index.stories(store, Filters())["title"] != "").all()
    assert index.article(store, "d00003")["title"] == ""


def test_clocks_that_step_back_hide_no_document(store, tmp_path):  # T2
    serve(store, tmp_path, "sentiment", SENTIMENTS, "s1")
    wait_for(store, 5, seen=START + dt.timedelta(days=30))
    score.run(store, score.Score(), Said())
    wait_for(store, 5, first=10, seen=START)  # seen "before" everything that was scored
    assert score.run(store, score.Score(), Said())["scored"] == 5
    assert_consistent(store, 10)


def test_the_text_that_is_scored():
    assert scoring.scored_text("Profit up", "In the third quarter") == "Profit up. In the third quarter"
    assert scoring.scored_text("Profit up!", "More") == "Profit up! More"
    assert scoring.scored_text(" Profit ", "") == "Profit" and scoring.scored_text("", " body ") == "body"
    assert len(scoring.scored_text("t", "x" * 50_000)) == 3 + scoring.BODY_CHARS


def test_the_servers_engine_is_used_where_there_is_one(store, tmp_path):
    engine = Engine(Registry(store), load=toy_models.load)
    serve(store, tmp_path, "sentiment", SENTIMENTS, "s1")
    wait_for(store, 3)
    held = runtime.start(config.Settings(home=store.home.parent / "other"), JOBS)
    try:
        desk = dataclasses.replace(held, store=store, engine=engine)
        runtime._holder().runtime = desk
        score.run(store, score.Score(), Said())
        assert engine.info("sentiment")["loaded"]
    finally:
        runtime._holder().runtime = held
        runtime.stop()
        engine.close()


VICTIM = """
import functools, sys
sys.path[:0] = [{root!r}]
from fmcore.serving.engine import Engine
from fmcore.store.store import Store
from jobs import score
from tests import toy_models
class Silent:
    def progress(self, fraction, message=""): print(message, flush=True)
    def metric(self, step, **values): pass
score.Engine = functools.partial(Engine, load=toy_models.load)
score.rollup.FOLD_AT = 50
print("ready", flush=True)
score.run(Store(sys.argv[1], wait_s=20), score.Score(batch=7), Silent())
"""


@pytest.mark.slow
def test_killed_again_and_again_it_loses_nothing_and_doubles_nothing(tmp_path):
    chance = random.Random(4)
    store = Store(tmp_path / "home")
    serve(store, tmp_path, "sentiment", SENTIMENTS, "s1")
    wait_for(store, 400)
    store.close()
    counts = []
    for _ in range(6):
        victim = subprocess.Popen([sys.executable, "-c", VICTIM.format(root=str(ROOT)), str(tmp_path / "home")], cwd=ROOT, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=config.child_environment())
        victim.stdout.readline()
        for _ in range(chance.randrange(1, 5)):  # some batches, then dead somewhere in the next one
            victim.stdout.readline()
        time.sleep(chance.uniform(0, 0.15))
        victim.kill()
        victim.wait()
        store = Store(tmp_path / "home", wait_s=20)
        n = store.rows("SELECT count(*) AS n FROM articles")[0]["n"]
        assert_consistent(store, n)
        counts.append(n)
        store.close()
    assert counts == sorted(counts) and counts[-1] > 0
    store = Store(tmp_path / "home", wait_s=20)
    engine = Engine(Registry(store), load=toy_models.load)
    while len(waiting := scoring.unscored(store, limit=100)):
        scoring.land(store, scoring.score(engine, waiting))
    assert_consistent(store, 400)
    engine.close()
    store.close()
