"""`python -m benchmarks.headlines`: headlines a second from a source's item to the stored article, beside a transformers pipeline.

FM Desk's side is the whole way: cleaning, storing the document, grouping into stories, tokenising, scoring with the served (int8) model,
the lexicon, storing the article, keeping up the sums. The peer is `pipeline("text-classification")` with the same architecture and
encoder weights in fp32, asked in a loop for the same texts (one by one, and in batches of 32), which it neither cleans nor stores.
FM Desk may use the machine's threads, the peer is tried with one and with --threads; they take turns, the best round of each counts.
Bar: at least 3 times the loop. Also: what part of FM Desk's time keeping up the sums and the list of stories takes (bar: 5 %).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import machine
from fmcore import clock
from fmcore.data import documents, news_demo
from fmcore.models.registry import Registry
from fmcore.sentiment import rollup, scoring
from fmcore.serving.engine import Engine
from fmcore.store.store import Store, Transaction
from jobs import finetune

RESULTS = Path(__file__).resolve().parent / "results"
BAR = {"times_pipeline": 3.0, "upkeep_share": 0.05}
ORIGIN = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
MAX_TOKENS = 64
BATCH = 256


class Quiet:
    """A report that nobody reads."""

    def progress(self, fraction: float, message: str = "") -> None: ...

    def metric(self, step: int, **values: float) -> None: ...

    def device(self, name: str) -> None: ...


def items(n: int) -> list[documents.RawItem]:
    """n items of the demo stream, oldest first."""
    days = 1
    while len(frame := news_demo.stream(ORIGIN, ORIGIN + dt.timedelta(days=days), origin=ORIGIN)) < n:
        days *= 2
    return [
        documents.RawItem(
            url=r.url, title=r.title, body=r.body, published=r.published_at.to_pydatetime(), tickers=r.tickers, outlet=r.source
        )
        for r in frame.head(n).itertuples()
    ]


def train(store: Store, task: str) -> None:
    """A first model of a task, as the desk makes it at its first launch, promoted."""
    params = finetune.Params(task=task, recipe="linear", fast=True, max_tokens=MAX_TOKENS, promote="always", reason="benchmark")
    run_dir = store.home / "runs" / f"bench-{task}"
    run_dir.mkdir(parents=True)
    finetune.prepare(store, params, run_dir)
    finetune.work(run_dir, Quiet())
    finetune.land(store, run_dir)


@contextlib.contextmanager
def upkeep_timed() -> Iterator[dict[str, float]]:
    """Seconds spent in keeping up the sums, their names and the list of stories."""
    spent = {"s": 0.0, "depth": 0}
    kept = {(rollup, name): getattr(rollup, name) for name in ("add", "fold", "name_ids")}
    kept |= {(scoring, name): getattr(scoring, name) for name in ("_coded", "_entries")}
    insert = Transaction.insert_frame

    def timed(call: Any) -> Any:
        def inner(*given: Any, **named: Any) -> Any:
            spent["depth"] += 1
            started = time.perf_counter()
            try:
                return call(*given, **named)
            finally:
                spent["depth"] -= 1
                if not spent["depth"]:
                    spent["s"] += time.perf_counter() - started
        return inner

    def inserted(self: Transaction, table: str, frame: Any) -> None:
        (timed(insert) if table == "stories" else insert)(self, table, frame)

    for (module, name), call in kept.items():
        setattr(module, name, timed(call))
    Transaction.insert_frame = inserted
    try:
        yield spent
    finally:
        for (module, name), call in kept.items():
            setattr(module, name, call)
        Transaction.insert_frame = insert


def ours(home: Path, news: list[documents.RawItem], engine_of: Store) -> dict[str, float]:
    """Seconds by step for all items, in a store of their own, by the models of another."""
    store, engine = Store(home), Engine(Registry(engine_of))
    engine.warm("sentiment")
    engine.warm("topic")
    try:
        with upkeep_timed() as spent:
            started = time.perf_counter()
            documents.take_in(store, news, source="benchmark", now=ORIGIN + dt.timedelta(days=365))
            took_in = time.perf_counter()
            while len(waiting := scoring.unscored(store, limit=5_000)):
                for at in range(0, len(waiting), BATCH):
                    scoring.land(store, scoring.score(engine, waiting.iloc[at : at + BATCH]))
                    rollup.fold(store)
            ended = time.perf_counter()
        n = store.rows("SELECT count(*) AS n, count(DISTINCT story_id) AS s FROM articles")[0]
        return {"s": ended - started, "intake_s": took_in - started, "upkeep_s": spent["s"], "n": n["n"], "n_stories": n["s"]}
    finally:
        engine.close()
        store.close()


def pipeline_of() -> Any:
    """The peer: a sequence classifier with three labels on the bundled encoder's weights."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    from fmcore.models.encoder import load_encoder

    encoder = load_encoder("minilm", max_tokens=MAX_TOKENS, device="cpu")
    folder = encoder.model.config.name_or_path
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, local_files_only=True).eval()
    return pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder, local_files_only=True), device=-1)


def ask(peer: Any, texts: list[str], batch: int, threads: int) -> float:
    """Seconds for all texts."""
    import torch

    torch.set_num_threads(threads)
    started = time.perf_counter()
    if batch == 1:
        for text in texts:
            peer(text, truncation=True, max_length=MAX_TOKENS)
    else:
        peer(texts, batch_size=batch, truncation=True, max_length=MAX_TOKENS)
    return time.perf_counter() - started


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The rounds, and what came of them, for sentiment alone and for sentiment and topic."""
    news, peer = items(options.headlines), pipeline_of()
    texts = [scoring.scored_text(item.title, item.body) for item in news]
    peer_texts = texts[: options.peer_headlines]
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="fm-headlines-") as scratch:
        models = Store(Path(scratch) / "models")
        loops: dict[tuple[int, int], list[float]] = {(b, t): [] for b in (1, 32) for t in sorted({1, options.threads})}
        for tasks in (["sentiment"], ["sentiment", "topic"]):
            train(models, tasks[-1])
            rounds = []
            for number in range(options.rounds):
                rounds.append(ours(Path(scratch) / f"{len(tasks)}-{number}", news, models))
                for how, times in loops.items():
                    times.append(ask(peer, peer_texts, *how))
                print(tasks, rounds[-1], {how: round(len(peer_texts) / t[-1], 1) for how, t in loops.items()}, flush=True)
            best = min(rounds, key=lambda r: r["s"])
            result["+".join(tasks)] = {
                "headlines_per_s": round(best["n"] / best["s"], 1), "n": best["n"], "n_stories": best["n_stories"],
                "intake_share": round(best["intake_s"] / best["s"], 3),
                "upkeep_share": round(float(np.median([r["upkeep_s"] / r["s"] for r in rounds])), 4),
            }  # fmt: skip
        models.close()
    loop = {f"batch {b}": round(len(peer_texts) / min(t for how, times in loops.items() if how[0] == b for t in times), 1) for b in (1, 32)}
    one, both = result["sentiment"], result["sentiment+topic"]
    return {
        **result, "pipeline_per_s": loop, "n_pipeline": len(peer_texts),
        "times_pipeline": round(one["headlines_per_s"] / loop["batch 1"], 2),
        "times_pipeline_batched": round(one["headlines_per_s"] / loop["batch 32"], 2),
        "times_two_pipelines_both_tasks": round(both["headlines_per_s"] / (loop["batch 1"] / 2), 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--headlines", type=int, default=4_000)
    parser.add_argument("--peer-headlines", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    result = {"benchmark": "headlines", "measured_at": clock.now().isoformat(), "threads": options.threads, **measure(options),
              "bar": BAR, "machine": machine()}  # fmt: skip
    shares = [result[name]["upkeep_share"] for name in ("sentiment", "sentiment+topic")]
    result["bar_met"] = result["times_pipeline"] >= BAR["times_pipeline"] and max(shares) <= BAR["upkeep_share"]
    print(json.dumps(result, indent=1))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"headlines-{clock.now():%Y-%m-%d}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
