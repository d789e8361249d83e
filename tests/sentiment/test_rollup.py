"""The kept-up sums equal the raw query, exactly, whatever happened: random news, late news, lead changes, rescoring, folding, kills."""

import datetime as dt
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmcore import clock, config
from fmcore.nouns import Filters
from fmcore.sentiment import rollup, scoring
from fmcore.store.store import Store
from tests.toy_articles import START, articles_of, counted, kept, scored, several

DAY = dt.timedelta(days=1)
ZERO = START.replace(tzinfo=clock.UTC)
SCOPES = [
    Filters(),
    Filters(topics=("Fraud",)),
    Filters(topics=("Fraud", "Oil"), sources=("wire",)),
    Filters(tickers=("A", "B")),
    Filters(sources=("blog", "paper"), tickers=("C",)),
    Filters(topics=("Rates",), tickers=("D",)),
    Filters(topics=("Rates", "Oil"), sources=("wire", "blog"), tickers=("A", "D")),
    Filters(topics=("no such topic",)),
    Filters(start=ZERO + dt.timedelta(hours=7, minutes=3), end=ZERO + dt.timedelta(days=9, hours=2, minutes=41)),
    Filters(topics=("Oil",), start=ZERO + dt.timedelta(minutes=55), end=ZERO + dt.timedelta(days=1, minutes=5)),
    Filters(tickers=("B",), start=ZERO + 3 * DAY, end=ZERO + 3 * DAY + dt.timedelta(minutes=20)),
    Filters(start=ZERO + 5 * DAY, end=ZERO + 5 * DAY),
]


def assert_exact(store, scopes=SCOPES, steps=(None, 1, 12, 72, 288)):
    articles = articles_of(store)
    for filters in scopes:
        for step in steps:
            found, expected = kept(store, filters, step=step), counted(articles, filters, step=step)
            assert found.index.tolist() == expected.index.tolist() and np.array_equal(found.to_numpy(), expected.to_numpy()), (filters, step)


def rescored(store, seed):
    """What scoring.rescore writes, with another model's answers for some of the articles."""

    class Engine:
        class registry:
            @staticmethod
            def champion(task):
                return type("Champion", (), {"version": f"v{seed}"})

    rng = np.random.default_rng(seed)
    before = scoring.score
    scoring.score = lambda engine, old: scored(
        list(old["title"]), at=list(old["published_at"]), ids=list(old["id"]), source=list(old["source"]), tickers=[tuple(t) for t in old["tickers"]],
        topic=rng.choice(["Fraud", "Rates", "New"], len(old)).tolist(), p=rng.dirichlet([1, 1, 1], len(old)), version=f"v{seed}")
    try:
        return scoring.rescore(store, Engine, limit=20)
    finally:
        scoring.score = before


STEPS = st.lists(st.sampled_from(["land", "land", "land", "again", "rescore", "fold", "cluster", "tidy"]), min_size=3, max_size=9)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, seed=st.integers(0, 10**6))
def test_whatever_happened_the_sums_are_those_of_the_articles(tmp_path_factory, steps, seed):
    store = Store(tmp_path_factory.mktemp("rollup"))
    n = 0
    for i, step in enumerate(["land", *steps]):
        if step == "land":
            frame = several(seed + i, 40, first=n)
            with store.write() as tx:  # rescoring reads the documents
                kept_columns = frame[["source", "url", "title", "tickers", "published_at", "synthetic"]]
                tx.insert_frame("documents", kept_columns.assign(id=frame["document_id"], body="", language="en", seen_at=frame["published_at"], truncated=False))
            assert scoring.land(store, frame) == 40
            n += 40
        elif step == "again":
            assert scoring.land(store, several(seed, 40)) == 0
        elif step == "rescore":
            assert rescored(store, i + 1) == 20
        elif step == "fold":
            rollup.fold(store, at=1)
        elif step == "cluster":
            rollup.fold(store, at=1, cluster_at=1)
        else:
            rollup.tidy(store, slack=0)
    assert_exact(store, [SCOPES[i] for i in np.random.default_rng(seed).choice(len(SCOPES), 3, replace=False)], (None, 3, 288))
    [leads] = store.rows("SELECT sum(leads::INTEGER) AS n, count(DISTINCT story_id) AS s FROM articles")
    assert leads["n"] == leads["s"] == store.rows("SELECT count(*) AS n FROM stories")[0]["n"]
    assert store.rows("SELECT sum(n_articles) AS n FROM stories")[0]["n"] == n
    store.close()


def test_every_scope_and_bucket_is_exact_before_and_after_folding_and_tidying(tmp_path):
    store = Store(tmp_path)
    for i in range(3):
        scoring.land(store, several(i, 150, first=150 * i))
    assert_exact(store)
    assert rollup.fold(store, at=1) > 0
    scoring.land(store, several(9, 60, first=900))
    assert rollup.fold(store, at=10_000) == 0  # not enough waits
    assert_exact(store)
    rollup.fold(store, at=1, cluster_at=1)
    assert_exact(store)
    assert rollup.fold(store, at=1) == 0
    scoring.land(store, several(10, 60, first=1000))
    rollup.fold(store, at=1)
    assert_exact(store)  # some entries are sorted by ticker, some wait for it
    store.close()
    store = Store(tmp_path)  # nothing of it lives in memory only
    assert_exact(store)
    store.close()


def test_tidying_changes_no_sum_and_drops_what_cancelled(tmp_path):
    store = Store(tmp_path)
    for i in range(12):
        scoring.land(store, several(i, 120, first=120 * i))
        rollup.fold(store, at=1)
    before = [kept(store, filters, step=12) for filters in SCOPES]
    tables = set()
    while table := rollup.tidy(store):
        assert table not in tables
        tables.add(table)
    assert tables
    for filters, frame in zip(SCOPES, before, strict=True):
        pd.testing.assert_frame_equal(kept(store, filters, step=12), frame)
    store.close()


def test_by_key_each_ticker_of_an_article_has_it_and_a_filter_counts_it_once(tmp_path):
    store = Store(tmp_path)
    scoring.land(store, scored(["one two three four", "five six seven eight", "nine ten eleven twelve"], tickers=[("A", "B"), ("A",), ()]))
    at = rollup.scope(store, Filters())
    cells = rollup.sums(store, at, by="ticker")
    assert dict(zip(cells.keys, cells.values[:, 0], strict=True)) == {"A": 2, "B": 1}
    for _ in range(2):  # before they are sorted by ticker, and after
        both = rollup.scope(store, Filters(tickers=("A", "B")))
        for step in (None, 1, 288):
            assert rollup.sums(store, both, step=step).values[:, 0].tolist() == [2]
        cells = rollup.sums(store, both, by="ticker", step=1)
        assert dict(zip(cells.keys, cells.values[:, 0], strict=True)) == {"A": 2, "B": 1}
        assert rollup.sums(store, rollup.scope(store, Filters(tickers=("B",))), by="ticker").keys.tolist() == ["B"]
        rollup.fold(store, at=1, cluster_at=1)
    store.close()


def test_rebuilding_from_the_articles_gives_the_same_sums_and_stories(tmp_path):
    store = Store(tmp_path)
    for i in range(3):
        scoring.land(store, several(i, 100, first=100 * i))
    before = store.rows("SELECT story_id, published_at, net, n_articles FROM stories ORDER BY story_id")
    tail = kept(store, Filters(), step=288)
    assert rollup.rebuild(store) == 300
    assert_exact(store)
    assert store.rows("SELECT story_id, published_at, net, n_articles FROM stories ORDER BY story_id") == before
    pd.testing.assert_frame_equal(kept(store, Filters(), step=288), tail)
    store.close()


KILLED = """
import os, signal, sys
sys.path[:0] = [{root!r}]
from fmcore.sentiment import rollup, scoring
from fmcore.store import store as store_module
from tests.toy_articles import several
left = [int(sys.argv[3])]
execute, insert = store_module.Transaction.execute, store_module.Transaction.insert_frame
def counted(call):
    def inner(self, *args):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(self, *args)
    return inner
store = store_module.Store(sys.argv[1])
store_module.Transaction.execute, store_module.Transaction.insert_frame = counted(execute), counted(insert)
if sys.argv[2] == "land":
    scoring.land(store, several(7, 60, first=400))
else:
    rollup.fold(store, at=1, cluster_at=1)
    rollup.tidy(store, slack=0)
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["land", "fold"])
def test_killed_at_any_statement_nothing_is_lost_or_doubled(tmp_path, what):
    root = str(Path(__file__).resolve().parents[2])
    store = Store(tmp_path)
    scoring.land(store, several(1, 120))
    store.close()
    for statement in (0, 3, 6, 9, 13, 17, 21, 10_000):
        done = subprocess.run([sys.executable, "-c", KILLED.format(root=root), str(tmp_path), what, str(statement)], cwd=root, capture_output=True,
                              text=True, env=config.child_environment(), check=False)
        assert done.returncode in (-signal.SIGKILL, 0), done.stderr
        store = Store(tmp_path)
        n = store.rows("SELECT count(*) AS n FROM articles")[0]["n"]
        assert n in (120, 180) and store.rows("SELECT sum(n_articles) AS n FROM stories")[0]["n"] == n
        assert_exact(store, steps=(1, 12, 288))
        store.close()
    assert done.stdout.strip() == "done" and os.path.exists(tmp_path / "fm.duckdb")
