"""`python -m benchmarks.trend`: every query of the Sentiment page over scored rows, beside pandas holding the same rows in memory.

Rows are made with numpy and put straight into the tables; each side then answers in a process of its own: FM Desk from the store,
pandas from a frame with the articles' columns (categories where they help, as anyone would). The answers are compared, number by
number, and FM Desk's sums with the raw query on the articles. Times are medians; FM Desk's hold the prior, the shrinkage and the band
too, pandas' only counts and means. Memory: for FM Desk the growth of the process from before the store was opened to its peak, for
pandas the frame alone. Bars: at least 5 times pandas for every query, at most a tenth of its memory, every query under 300 ms.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.serving import machine
from fmcore import clock
from fmcore.nouns import Filters
from fmcore.sentiment import index, rollup, scoring
from fmcore.store.store import Store

RESULTS = Path(__file__).resolve().parent / "results"
BAR = {"times_pandas": 5.0, "share_of_memory": 0.1, "ms": 300.0}
END = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
CHUNK = 500_000
N_TOPICS, N_SOURCES, N_TICKERS, N_PAIRS = 20, 40, 60, 300
FRESH = 2_500
"""Entries that are not folded yet when the queries run, counted twice: once taken out and once put back."""
UNSORTED = rollup.CLUSTER_AT // 4
"""The same for entries that are folded but not sorted by ticker yet: half of what may wait."""
MEMORY_MB = 40
"""What DuckDB may hold in memory while the queries run."""
SLOW_MS = 5_000
"""A query of pandas that takes longer is asked once only."""


# --- rows


def fill(store: Store, n: int, *, days: int, seed: int = 0) -> dict[str, float]:
    """n scored articles over `days` days up to END, three in ten of them copies; documents too. Returns seconds by step."""
    rng = np.random.default_rng(seed)
    began = time.perf_counter()
    start = END.timestamp() - days * 86_400
    seconds = np.sort(rng.integers(int(start), int(END.timestamp()), n))
    root = np.arange(n)
    copy = (rng.random(n) < 0.3) & (root > 0)
    root[copy] -= np.minimum(rng.integers(1, 200, copy.sum()), root[copy])
    while not np.array_equal(root[root], root):
        root = root[root]
    topic, source, tickers = _skewed(rng, n, N_TOPICS)[root], _skewed(rng, n, N_SOURCES), _tickers(rng, n)[root]
    sets = ["", *(f"T{i:02d}" for i in range(N_TICKERS)), *sorted({_pair(rng) for _ in range(N_PAIRS)})]
    named = pd.DataFrame({"code": range(len(sets)), "name": sets})
    for at in range(0, n, CHUNK):
        part = slice(at, min(n, at + CHUNK))
        rows = _chunk(rng, part, seconds, root, topic, source, np.minimum(tickers, len(sets) - 1))
        with store.write() as tx:
            tx.execute("CREATE TEMP TABLE ticker_sets (code INTEGER, name VARCHAR)")
            tx.insert_frame("ticker_sets", named)
            tx.execute("CREATE TEMP TABLE staged (n BIGINT, second BIGINT, root BIGINT, topic INTEGER, source INTEGER, code INTEGER, "
                       "p_negative FLOAT, p_neutral FLOAT, p_positive FLOAT, net INTEGER, sentiment VARCHAR)")  # fmt: skip
            tx.insert_frame("staged", rows)
            tx.execute(_ARTICLES)
            tx.execute(_DOCUMENTS)
            tx.execute("DROP TABLE staged")
            tx.execute("DROP TABLE ticker_sets")
        print(f"{part.stop} rows", flush=True)
    store.checkpoint()
    stored = time.perf_counter()
    rollup.rebuild(store)
    store.checkpoint()
    return {"store_s": round(stored - began, 1), "rebuild_s": round(time.perf_counter() - stored, 1)}


_ID = "printf('%016x', hash({}))"
_SET = "CASE k.name WHEN '' THEN []::VARCHAR[] ELSE string_split(k.name, ',') END"
_ARTICLES = f"""INSERT INTO articles SELECT {_ID.format('n')}, make_timestamp(second * 1000000), printf('source%02d', source), {_SET},
    printf('topic%02d', topic), 0.8, {_ID.format('root')}, n = root, sentiment, net, p_negative, p_neutral, p_positive, 0.1, 'v1', 'v1',
    make_timestamp(second * 1000000 + 60000000), ''::BLOB FROM staged s JOIN ticker_sets k ON k.code = s.code ORDER BY n"""
_DOCUMENTS = f"""INSERT INTO documents SELECT {_ID.format('n')}, printf('source%02d', source), printf('https://news.example/%d', n),
    printf('Headline %d of a company in the news', root), '', 'en', {_SET}, make_timestamp(second * 1000000),
    make_timestamp(second * 1000000 + 30000000), false, true FROM staged s JOIN ticker_sets k ON k.code = s.code ORDER BY n"""


def _skewed(rng: np.random.Generator, n: int, kinds: int) -> np.ndarray:
    weights = 1 / np.arange(1, kinds + 1)
    return rng.choice(kinds, n, p=weights / weights.sum()).astype(np.int32)


def _tickers(rng: np.random.Generator, n: int) -> np.ndarray:
    """A set a row: none for 55 %, one company for 35 %, two for 10 %."""
    kind, one, two = rng.random(n), 1 + _skewed(rng, n, N_TICKERS), 1 + N_TICKERS + rng.integers(0, N_PAIRS, n)
    return np.where(kind < 0.55, 0, np.where(kind < 0.9, one, two)).astype(np.int32)


def _pair(rng: np.random.Generator) -> str:
    a, b = rng.choice(N_TICKERS, 2, replace=False)
    return f"T{min(a, b):02d},T{max(a, b):02d}"


def _chunk(rng: np.random.Generator, part: slice, seconds: np.ndarray, root: np.ndarray, topic: np.ndarray, source: np.ndarray,
           tickers: np.ndarray) -> pd.DataFrame:  # fmt: skip
    p = rng.dirichlet([0.6, 1.2, 0.5], part.stop - part.start).astype(np.float32)
    return pd.DataFrame({
        "n": np.arange(part.start, part.stop), "second": seconds[part], "root": root[part], "topic": topic[part], "source": source[part],
        "code": tickers[part], "p_negative": p[:, 0], "p_neutral": p[:, 1], "p_positive": p[:, 2],
        "net": np.rint(10_000 * (p[:, 2] - p[:, 0])).astype(np.int32),
        "sentiment": np.array(rollup.CLASSES, dtype=object)[p.argmax(axis=1)],
    })  # fmt: skip


def leave_fresh(store: Store) -> None:
    """Make the last entries look as if they had just come: batches of their own behind what is folded and sorted. They are taken out of
    the sums again, so that the whole stays equal to the articles."""
    for n in (UNSORTED, FRESH):
        with store.write() as tx:
            first, last = tx.execute("SELECT min(batch), max(batch) FROM trend_facts")[0]
            tx.execute(f"CREATE TEMP TABLE newest AS SELECT * FROM trend_facts WHERE batch = {first} ORDER BY rowid DESC LIMIT {n}")
            for signs in ("REPLACE (-n_articles AS n_articles, -n_stories AS n_stories)", ""):
                tx.execute(f"INSERT INTO trend_facts SELECT {last + 1}, * EXCLUDE (batch) {signs} FROM newest")
            tx.execute("DROP TABLE newest")
        if n == UNSORTED:
            rollup.fold(store, at=1)
    store.checkpoint()


# --- the queries, by name: what is asked, and how pandas answers it


def windows() -> dict[str, Filters]:
    """The scopes that the page's filters give."""
    def last(days: float) -> dict[str, dt.datetime]:
        return {"start": END - dt.timedelta(days=days), "end": END}

    return {
        "all": Filters(),
        "90 days": Filters(**last(90)),
        "30 days": Filters(**last(30)),
        "7 days": Filters(**last(7)),
        "a topic": Filters(topics=("topic03",), **last(90)),
        "three topics": Filters(topics=("topic01", "topic04", "topic09"), **last(90)),
        "a ticker": Filters(tickers=("T05",), **last(90)),
        "five tickers": Filters(tickers=("T01", "T07", "T11", "T20", "T41"), **last(90)),
        "a source": Filters(sources=("source02",), **last(90)),
        "topic and source": Filters(topics=("topic02",), sources=("source01", "source05"), **last(90)),
        "topic and ticker": Filters(topics=("topic02",), tickers=("T03",), **last(90)),
        "source and ticker": Filters(sources=("source03",), tickers=("T03", "T04"), **last(90)),
        "all three": Filters(topics=("topic01", "topic02"), sources=("source01",), tickers=("T02",), **last(90)),
        "all three, all time": Filters(topics=("topic01", "topic02"), sources=("source01",), tickers=("T02",)),
        "odd window": Filters(
            topics=("topic03",), start=END - dt.timedelta(days=61, minutes=135), end=END - dt.timedelta(days=3, minutes=40)
        ),
    }


def queries() -> dict[str, tuple[str, Filters, Any]]:
    """name -> (kind, filters, argument)."""
    scopes = windows()
    found: dict[str, tuple[str, Filters, Any]] = {f"series by day, {name}": ("series", f, "1d") for name, f in scopes.items()}
    six_hours = dict.fromkeys(("90 days", "a topic", "a ticker", "all three", "topic and ticker"), "6h")
    finer = {**six_hours, "30 days": "1h", "7 days": "5min"}
    for name, bucket in finer.items():
        found[f"series by {bucket}, {name}"] = ("series", scopes[name], bucket)
    found["series by 1h, a ticker, 30 days"] = ("series", Filters(tickers=("T05",), start=END - dt.timedelta(days=30), end=END), "1h")
    found["series by 15min, a topic, 7 days"] = ("series", Filters(topics=("topic03",), start=END - dt.timedelta(days=7), end=END), "15min")
    for name in ("all", "7 days", "a ticker", "all three", "odd window"):
        found[f"overall, {name}"] = ("overall", scopes[name], None)
    for by in ("topic", "ticker", "source"):
        found[f"heat by {by}, 30 days by day"] = ("heat", scopes["30 days"], (by, "1d"))
        found[f"movers by {by}, 7 days"] = ("movers", Filters(end=END), (by, 7))
    found["heat by topic, a ticker"] = ("heat", scopes["a ticker"], ("topic", "1d"))
    found["heat by topic, 7 days by hour"] = ("heat", scopes["7 days"], ("topic", "1h"))
    found["movers by ticker, a topic"] = ("movers", Filters(topics=("topic03",), end=END), ("ticker", 7))
    for order in ("newest", "negative", "articles"):
        for name in ("all", "30 days", "a ticker", "all three"):
            found[f"stories {order}, {name}"] = ("stories", scopes[name], order)
    found["copies"] = ("copies", scopes["30 days"], None)
    found["an article"] = ("article", scopes["30 days"], None)
    found["options"] = ("options", Filters(), None)
    found["backlog"] = ("backlog", Filters(), None)
    return found


def ours(store: Store, kind: str, filters: Filters, argument: Any, known: dict[str, Any]) -> Any:
    """The page's call."""
    if kind == "series":
        return index.series(store, filters, argument)
    if kind == "overall":
        return index.overall(store, filters)
    if kind == "heat":
        return index.heat(store, filters, argument[1], by=argument[0])
    if kind == "movers":
        return index.movers(store, filters, by=argument[0], days=argument[1])
    if kind == "stories":
        return index.stories(store, filters, order=argument)
    if kind == "copies":
        return index.copies(store, known["story_id"], published_at=known["published_at"])
    if kind == "article":
        return index.article(store, known["document_id"], published_at=known["published_at"])
    return index.options(store) if kind == "options" else index.backlog(store)


class Pandas:
    """The same questions to a frame of the articles; what anyone would write."""

    def __init__(self, frame: pd.DataFrame, documents: pd.DataFrame):
        self.frame, self.documents = frame, documents
        self.sets = frame["tickers"].cat.categories

    def scoped(self, filters: Filters) -> pd.DataFrame:
        frame = self.frame
        mask = np.ones(len(frame), dtype=bool)
        if filters.start:
            mask &= (frame["published_at"] >= filters.start.replace(tzinfo=None)).to_numpy()
        if filters.end:
            mask &= (frame["published_at"] < filters.end.replace(tzinfo=None)).to_numpy()
        for column, wanted in (("topic", filters.topics), ("source", filters.sources)):
            if wanted:
                mask &= frame[column].isin(wanted).to_numpy()
        if filters.tickers:
            mask &= frame["tickers"].isin([s for s in self.sets if set(s.split(",")) & set(filters.tickers)]).to_numpy()
        return frame if mask.all() else frame[mask]

    @staticmethod
    def counted(rows: pd.DataFrame, keys: list[Any]) -> pd.DataFrame:
        leads = rows[rows["leads"]]
        keys_of_leads = [key[rows["leads"]] if isinstance(key, pd.Series) else key for key in keys]
        by = leads.groupby(keys_of_leads, observed=True)
        out = pd.DataFrame({"n_articles": rows.groupby(keys, observed=True).size()})
        out["n_stories"], out["sum_net"] = by.size(), by["net"].sum()
        out["n_negative"] = leads["sentiment"].eq("negative").groupby(keys_of_leads, observed=True).sum()
        return out.fillna(0).astype(np.int64)

    def bucketed(self, filters: Filters, bucket: str, by: str | None = None) -> pd.DataFrame:
        rows = self.scoped(filters)
        label = rows["published_at"].dt.floor(bucket.replace("d", "D"))
        if by is None:
            return self.counted(rows, [label])
        if by != "ticker":
            return self.counted(rows, [rows[by], label])
        rows = self.by_ticker(rows)
        return self.counted(rows, [rows["ticker"], rows["published_at"].dt.floor(bucket.replace("d", "D"))])

    def by_ticker(self, rows: pd.DataFrame) -> pd.DataFrame:
        names = pd.Series(self.sets).str.split(",")
        single = rows.assign(ticker=rows["tickers"].astype(object).map(dict(zip(self.sets, names, strict=True)))).explode("ticker")
        return single[single["ticker"] != ""].reset_index(drop=True)

    def answer(self, kind: str, filters: Filters, argument: Any, known: dict[str, Any]) -> Any:
        if kind == "series":
            return self.bucketed(filters, argument)
        if kind == "heat":
            return self.bucketed(filters, argument[1], argument[0])
        if kind == "overall":
            rows = self.scoped(filters)
            return self.counted(rows, [pd.Series(0, index=rows.index, name="label")])
        if kind == "movers":
            return self.moved(filters, *argument)
        if kind == "stories":
            return self.listed(filters, argument)
        if kind == "copies":
            return self.frame[self.frame["story_id"] == known["story_id"]].sort_values(["published_at", "document_id"])
        if kind == "article":
            return self.frame[self.frame["document_id"] == known["document_id"]]
        if kind == "options":
            return tuple(self.frame["topic"].unique()), tuple(self.frame["source"].unique()), tuple(self.frame["tickers"].unique())
        return int((~self.documents["id"].isin(self.frame["document_id"])).sum())

    def moved(self, filters: Filters, by: str, days: int) -> pd.DataFrame:
        rows = self.scoped(replace(filters, start=filters.end - dt.timedelta(days=2 * days)))
        rows = self.by_ticker(rows) if by == "ticker" else rows
        late = rows["published_at"] >= (filters.end - dt.timedelta(days=days)).replace(tzinfo=None)
        return self.counted(rows, [rows[by], late.rename("label")])

    def listed(self, filters: Filters, order: str) -> pd.DataFrame:
        rows = self.scoped(filters)
        leads = rows[rows["leads"]]
        if order == "newest":
            return leads.nlargest(50, "published_at")
        if order == "negative":
            return leads.nsmallest(50, "net")
        sizes = self.frame["story_id"].value_counts()
        return leads.assign(n_articles=leads["story_id"].map(sizes)).nlargest(50, "n_articles")


# --- the two sides


def ask_ours(home: Path, rounds: int) -> dict[str, Any]:
    """Times, memory and answers from the store, in this process."""
    before = _rss()
    store = Store(home, memory_mb=MEMORY_MB)
    known = _known(store)
    times, answers = {}, {}
    for name, (kind, filters, argument) in queries().items():
        answers[name] = _facts(kind, ours(store, kind, filters, argument, known), argument)
        times[name] = _timed(lambda k=kind, f=filters, a=argument: ours(store, k, f, a, known), rounds)
    memory = _peak() - before
    equal = _equal_to_raw(store)
    store.close()
    return {"times": times, "answers": answers, "memory_mb": round(memory / 1e6, 1), "equal_to_raw": equal}


def ask_pandas(home: Path, rounds: int) -> dict[str, Any]:
    """Times, memory and answers of pandas, in this process."""
    store = Store(home)
    known = _known(store)
    frame = store.frame(
        """SELECT document_id, published_at, source, array_to_string(tickers, ',') AS tickers, topic, topic_score, story_id, leads,
           sentiment, net, p_negative, p_neutral, p_positive, lexicon, sentiment_version, topic_version, scored_at
           FROM articles ORDER BY rowid"""
    )
    documents = store.frame("SELECT id FROM documents")
    store.close()
    for column in ("source", "tickers", "topic", "sentiment", "sentiment_version", "topic_version"):
        frame[column] = frame[column].astype("category")
    memory = int(frame.memory_usage(deep=True).sum())
    peer, times, answers = Pandas(frame, documents), {}, {}
    for name, (kind, filters, argument) in queries().items():
        kept: list[Any] = []
        first = _timed(lambda k=kind, f=filters, a=argument, kept=kept: kept.append(peer.answer(k, f, a, known)), 1)
        answers[name] = _facts(kind, kept.pop(), argument)
        again = first if first["ms"] > SLOW_MS else _timed(lambda k=kind, f=filters, a=argument: peer.answer(k, f, a, known), rounds)
        times[name] = {key: min(first[key], again[key]) for key in first}
    return {"times": times, "answers": answers, "memory_mb": round(memory / 1e6, 1)}


def _known(store: Store) -> dict[str, Any]:
    [row] = store.rows("SELECT story_id, published_at FROM stories WHERE n_articles = 4 ORDER BY published_at DESC LIMIT 1")
    return {"story_id": row["story_id"], "document_id": row["story_id"], "published_at": clock.from_store(row["published_at"])}


def _facts(kind: str, answer: Any, argument: Any = None) -> Any:
    """What must be equal on both sides, as JSON data."""
    columns = ["n_stories", "n_articles", "n_negative"]
    if kind in ("series", "heat"):
        total = (answer["mean"] * answer["n_stories"] * 10_000).round() if "mean" in answer else answer["sum_net"]
        rows = answer[columns].assign(net=total.fillna(0))
        rows = rows[rows["n_articles"] > 0]
        placed = rows.mul(np.arange(1, len(rows) + 1), axis=0)  # the same numbers in another order are another answer
        return [len(rows), *(int(x) for x in rows.sum()), *(int(x) for x in placed.sum() % 1_000_003)]
    if kind == "overall":
        return [int(getattr(answer, c)) if isinstance(answer, index.Overall) else int(answer[c].sum()) for c in columns]
    if kind == "movers":
        return sorted(_moved_counts(answer))
    if kind == "stories" and "n_articles" in answer and argument == "articles":
        return sorted(answer["n_articles"].tolist())  # which of many equal ones is last is anybody's choice
    if kind == "stories":
        return sorted(answer["net"].mul(10_000 if answer["net"].dtype.kind == "f" else 1).round().astype(int).tolist())
    if kind == "copies":
        return answer["document_id"].tolist()
    if kind == "article":
        return [answer["document_id"] if isinstance(answer, dict) else answer["document_id"].iloc[0]]
    if kind == "options":
        return len(answer.topics if isinstance(answer, index.Options) else answer[0])
    return int(getattr(answer, "n_unscored", answer))


def _moved_counts(answer: pd.DataFrame) -> list[list[Any]]:
    if "spark" in answer:
        return [[row.key, int(row.n_stories), int(row.n_before)] for row in answer.itertuples()]
    wide = answer["n_stories"].unstack("label", fill_value=0)
    return [[str(key), int(row.get(True, 0)), int(row.get(False, 0))] for key, row in wide.iterrows()]


def _equal_to_raw(store: Store) -> bool:
    """Whether the kept-up sums are those of the articles, for every scope and two buckets."""
    for filters in windows().values():
        for step in (12, 288):
            kept = rollup.sums(store, rollup.scope(store, filters), step=step)
            raw = raw_sums(store, filters, step=step).to_numpy(np.int64)
            if not np.array_equal(np.column_stack([kept.labels, kept.values])[kept.values[:, 0] != 0], raw):
                return False
    return True


def raw_sums(store: Store, filters: Filters, *, step: int) -> pd.DataFrame:
    """What `rollup.sums` must equal, straight from the articles."""
    conditions, params = ["true"], []
    for column, wanted in (("topic", filters.topics), ("source", filters.sources)):
        if wanted:
            conditions.append(f"list_contains(?, {column})")
            params.append(list(wanted))
    if filters.tickers:
        conditions.append("list_has_any(tickers, ?)")
        params.append(list(filters.tickers))
    bucket = f"epoch(published_at)::BIGINT // {rollup.BUCKET_S}"
    at = rollup.scope(store, filters)
    conditions.append(f"{bucket} >= {at.start} AND {bucket} < {at.end}")
    columns = ["count(*)::BIGINT AS n_articles"]
    for what, value in (("n", "1"), ("sum", "net"), ("sq", "net::BIGINT * net")):
        columns += [f"sum(CASE WHEN leads AND sentiment = '{c}' THEN {value} ELSE 0 END)::BIGINT AS {what}_{c}" for c in rollup.CLASSES]
    sql = f"SELECT {bucket} // {step} * {step} AS label, {', '.join(columns)} FROM articles WHERE {' AND '.join(conditions)}"
    return store.frame(f"{sql} GROUP BY ALL ORDER BY ALL", *params)


def _timed(call: Callable[[], Any], rounds: int) -> dict[str, float]:
    """ms: the best round by the clock; cpu_ms: the best by processor time, all threads. Other work on the machine stretches the first."""
    walls, cpus = [], []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append((time.perf_counter() - wall) * 1000)
        cpus.append((time.process_time() - cpu) * 1000)
    return {"ms": round(min(walls), 3), "cpu_ms": round(min(cpus), 3)}


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak() -> int:
    """Of this process alone: ru_maxrss starts with what the parent held."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


# --- the whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--home", type=Path, help="a folder to keep the rows in; filled when it is empty")
    parser.add_argument("--side", choices=["ours", "pandas"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps((ask_ours if options.side == "ours" else ask_pandas)(options.home, options.rounds)))
        return
    with tempfile.TemporaryDirectory(prefix="fm-trend-") as scratch:
        measure(options, options.home or Path(scratch))


def measure(options: argparse.Namespace, home: Path) -> None:
    """Fill where needed, ask both sides, print, and keep the JSON."""
    store = Store(home)
    filled: dict[str, float] = {}
    if not store.rows("SELECT count(*) AS n FROM articles")[0]["n"]:
        filled = fill(store, options.rows, days=options.days)
        leave_fresh(store)
        scoring.mark(store)  # as the job does when nothing waits
    n = store.rows("SELECT count(*) AS n FROM articles")[0]["n"]
    store.close()
    mine, peer = (_child(home, side, options.rounds) for side in ("ours", "pandas"))
    facts = {"benchmark": "trend", "measured_at": clock.now().isoformat(), "rows": n, "days": options.days, "filled": filled,
             "database_mb": round((home / "fm.duckdb").stat().st_size / 1e6)}  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"trend-{n}-{clock.now():%Y-%m-%d}.json").write_text(json.dumps({**facts, **compared(mine, peer)}, indent=1) + "\n")


def compared(mine: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """Both sides beside each other, printed and as JSON data. times: by the clock; times_cpu: by processor time, which other work on the
    machine does not stretch (FM Desk's counts both threads)."""
    rows = []
    for name, own in mine["times"].items():
        other = peer["times"][name]
        rows.append({
            "query": name, **own, "pandas_ms": other["ms"], "pandas_cpu_ms": other["cpu_ms"], "times": round(other["ms"] / own["ms"], 1),
            "times_cpu": round(other["cpu_ms"] / own["cpu_ms"], 1), "same_answer": mine["answers"][name] == peer["answers"][name],
        })  # fmt: skip
    for row in sorted(rows, key=lambda r: r["times"]):
        print(f"{row['times']:8.1f}x {row['times_cpu']:8.1f}x cpu {row['ms']:9.2f} ms {row['pandas_ms']:10.2f} ms  "
              f"{'' if row['same_answer'] else 'DIFFERENT '}{row['query']}")  # fmt: skip
    share = mine["memory_mb"] / peer["memory_mb"]
    result = {
        "memory_mb": mine["memory_mb"], "pandas_memory_mb": peer["memory_mb"], "share_of_memory": round(share, 3),
        "equal_to_raw": mine["equal_to_raw"], "slowest_ms": max(r["ms"] for r in rows), "least_times_pandas": min(r["times"] for r in rows),
        "least_times_pandas_cpu": min(r["times_cpu"] for r in rows), "bar": BAR,
    }  # fmt: skip
    result["bar_met"] = bool(
        result["least_times_pandas"] >= BAR["times_pandas"] and share <= BAR["share_of_memory"] and result["slowest_ms"] < BAR["ms"]
        and result["equal_to_raw"] and all(r["same_answer"] for r in rows)
    )  # fmt: skip
    print(result)
    return {**result, "queries": rows, "machine": machine()}


def _child(home: Path, side: str, rounds: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.trend", "--side", side, "--home", str(home), "--rounds", str(rounds)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
