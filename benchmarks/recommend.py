"""`python -m benchmarks.recommend`: recommendations against named peers on the same rows in the same run.

Leave one out by time, full ranking, a person's own items left out. MovieLens-1M (only people and items with five rows or more: 3,416
items) where FM_DATA_DIR or <home>/data has it, else ml-latest-small; the output says which. The bars of issue 5 hold on MovieLens-1M
only. Peers: `implicit`'s ALS with its own answer to a past, EASE without recency, popularity. Rows: every model of a shelf in as much time
as --minutes says; the command line's own choice in two minutes on two cores; items that nobody met, by text alone, against chance; the
time to a person's top ten when warm; memory and bytes; agents in the simulator. Prints a table, and writes JSON to --out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fmcore import clock
from fmcore.data import catalogue, interaction_files
from fmcore.data.interactions import Interactions, leave_one_out
from fmcore.evaluation import metrics, ranking
from fmcore.nouns import FMError
from fmcore.recommend import contest, measure, shelf, turns
from fmcore.recommend.counting import Ease, Popularity
from fmcore.recommend.recommender import History, Items, Recommender
from fmcore.recommend.shelf import Shelf
from fmcore.recommend.text_items import TextItems

RESULTS = Path(__file__).resolve().parent / "results"
BARS = {"best": (0.305, 0.178), "two minutes": (0.265, 0.153), "cold": 10.0, "latency_ms": 20.0}
CALLS = 300
COLD_PARTS = 10
"""Tenths of the items that lose every interaction in turn, so that each person is asked about once."""
AGENT_STEPS = 16_000
REDRAWN = 7
"""Seed of the simulator: another draw of who fits it, trains and judges than those (0 to 2) that its design was looked at with; the people
are of the same log, so some of them were judges then too."""


class Said:
    """Progress as lines on standard error, one for each new message."""

    def __init__(self) -> None:
        self.last = ""

    def progress(self, fraction: float, message: str = "") -> None:
        title = message.split(":")[0]
        if title and title != self.last:
            print(f"  {fraction:4.0%} {title}", file=sys.stderr, flush=True)
            self.last = title

    def metric(self, step: int, **values: float) -> None:
        """Curves are the run page's."""

    def device(self, name: str) -> None:
        self.progress(0.0, f"on {name}")


def data() -> tuple[Interactions, str]:
    """(the log, its name in words): MovieLens-1M cut as papers cut it, else the small one."""
    try:
        return interaction_files.load("ml-1m").core(5), "MovieLens-1M, five-core"
    except FMError:
        return interaction_files.load("movielens"), "ml-latest-small"


def peers(log: Interactions) -> dict[str, dict]:
    """Named peers, fitted on all but the last item of each person and measured on it."""
    items, split = Items(log.items, log.titles, log.texts), leave_one_out(log.histories())
    pasts, rows = split.with_validation(), np.flatnonzero(split.test >= 0)
    asked, targets = [pasts[row] for row in rows], split.test[rows]
    popularity = Popularity().fit(pasts, items)
    found = {"popularity": _figures(popularity, asked, targets, popularity)}
    found["EASE without recency"] = _figures(Ease(recency=1e6).fit(pasts, items), asked, targets, popularity)
    found["implicit ALS (64 factors)"] = _implicit(pasts, len(items), asked, targets)
    return found


def _figures(model: Recommender, asked: Sequence[History], targets: np.ndarray, standin: Recommender) -> dict:
    return measure.estimates(measure.answered(model, asked, targets, standin=standin, report=Said()).ranks, k=10)


def _implicit(pasts: Sequence[History], n_items: int, asked: Sequence[History], targets: np.ndarray) -> dict:
    """The library as its documentation uses it: fitted on the matrix, a past answered by its own recalculate_user."""
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    def matrix(rows: Sequence[History]) -> csr_matrix:
        ends = np.concatenate([[0], np.cumsum([len(past) for past in rows])])
        return csr_matrix((np.ones(ends[-1], np.float32), np.concatenate(rows), ends), shape=(len(rows), n_items))

    model = AlternatingLeastSquares(factors=64, random_state=0, num_threads=1)
    with threadpool_limits(1, "blas"):
        model.fit(matrix(pasts), show_progress=False)
        people = np.stack([model.recalculate_user(0, matrix([past])) for past in asked])
    ranks = np.concatenate([
        ranking.ranks(people[start : start + 256] @ model.item_factors.T, asked[start : start + 256], targets[start : start + 256])
        for start in range(0, len(asked), 256)
    ])  # fmt: skip
    return measure.estimates(ranks, k=10)


def leaderboard(log: Interactions, *, minutes: float, out: Path) -> dict:
    """Every model of a shelf, and the one it would serve."""
    told = shelf.fit(log, names=["auto"], minutes=minutes, out=out, report=Said())
    kept = ("model", "hr", "ndcg", "mrr", "coverage", "diversity", "popularity_bias", "seconds", "measured_after", "learnt_from", "slices")
    rows = [{key: row[key] for key in kept} for row in told["leaderboard"]]
    return {"rows": rows, "serving": told["serving"], "left_out": told["left_out"], "seconds": told["seconds"], "minutes": minutes}


def two_minutes(log: Interactions, folder: Path) -> dict:
    """`python -m fmcore recommend` on CSV files of the log, on two cores and as its defaults have it."""
    rows = pd.DataFrame({
        "user": np.array(log.users, dtype=object)[log.rows["user"]], "item": np.array(log.items, dtype=object)[log.rows["item"]],
        "timestamp": log.rows["at"],
    })  # fmt: skip
    sizes = rows.groupby("user")["item"].transform("size")
    last = rows[sizes >= 3].groupby("user").tail(1)
    rows.drop(last.index).to_csv(folder / "train.csv", index=False)
    last.to_csv(folder / "test.csv", index=False)
    command = [sys.executable, "-m", "fmcore", "recommend", "--train", folder / "train.csv", "--test", folder / "test.csv", "-k", "10"]
    began = time.monotonic()
    done = subprocess.run(["taskset", "-c", "0,1", *command], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return {**found, "wall_s": round(time.monotonic() - began, 1)}


def cold(log: Interactions, *, parts: int = COLD_PARTS) -> dict:
    """Items without any interaction, by text alone: `ranking.cold_items`, its parts together, ranked among all items.

    Chance gets 10 of the items that a person has not met.
    """
    items, split = Items(log.items, log.titles, log.texts), leave_one_out(log.histories())
    pasts, ranks, chance, n_cold = split.with_validation(), [], [], 0
    for part in range(parts):
        rows = ranking.cold_items(pasts, split.test, n_items=len(items), part=part)
        model = TextItems().fit(rows.train, items, report=Said())
        ranks.append(measure.answered(model, rows.pasts, rows.targets, standin=model, report=Said()).ranks)
        chance += [10 / (len(items) - len(past)) for past in rows.pasts]
        n_cold += int(rows.cold.sum())
    found = metrics.figure(metrics.mean(ranking.hits(np.concatenate(ranks))))
    at_random = float(np.mean(chance))
    return {
        "n_cold": n_cold,
        "parts": parts,
        "hr@10": found,
        "chance": round(at_random, 6),
        "times_chance": round(found["value"] / at_random, 1),
    }


def latency(models: Mapping[str, Recommender], pasts: Sequence[History]) -> dict[str, dict]:
    """Milliseconds to a person's top ten when warm, one call at a time."""
    asked = [past for past in pasts if len(past)]
    asked = [asked[place] for place in np.random.default_rng(0).integers(0, len(asked), CALLS)]
    return {name: _timed(lambda past, model=model: model.recommend(past, k=10), asked) for name, model in models.items()}


def _timed(call: Callable[[History], Any], asked: Sequence[History]) -> dict:
    for past in asked[:20]:
        call(past)
    taken = []
    for past in asked:
        began = time.perf_counter()
        call(past)
        taken.append((time.perf_counter() - began) * 1000)
    return {"p50_ms": round(float(np.percentile(taken, 50)), 2), "p95_ms": round(float(np.percentile(taken, 95)), 2), "n": len(taken)}


def made_up(n_items: int, *, n_users: int = 2000, seed: int = 0) -> Interactions:
    """A synthetic log, to time lists over a catalogue of a given size; its figures mean nothing."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(n_users), 60)
    start = rng.integers(0, n_items, n_users)[user]
    item = (start + rng.geometric(20 / n_items, len(user))) % n_items
    frame = pd.DataFrame({"user": user, "item": item, "at": np.arange(len(user)), "rating": np.nan})
    frame = frame.drop_duplicates(["user", "item"]).astype({"user": "int32", "item": "int32", "rating": "float32"}).reset_index(drop=True)
    names = tuple(f"Thing {i}" for i in range(n_items))
    return Interactions(f"synthetic, {n_items:,} items", tuple(map(str, range(n_users))), names, names, names, frame, True, "made up")


def lists_of(n_items: int) -> dict:
    """Latency of the quickly fitted models over a made-up catalogue of that size."""
    log = made_up(n_items)
    on = turns.ground(log, seed=0)
    models = {}
    for name in ("popularity", "transitions", "knn", "als", "ease", "next", "paths", "blend"):
        model = shelf.MODELS[name]()
        models[name] = model.fit(on.everything, on.items)
    return {"data": log.name, "models": latency(models, on.everything)}


def agents(log: Interactions, version: Shelf, *, steps: int) -> dict:
    """RL agents beside random, popularity and greedy in the simulator, five seeds."""
    model, sequence = contest.rankers_of(version)
    found = contest.run(
        contest.aligned(log, version.items), model, version.groups, plan=contest.Plan(steps=steps, seed=REDRAWN), ranker=model.title,
        version=version.version, sequence=sequence, report=Said(),
    )  # fmt: skip
    return contest.figures(found)


def memory(version: Shelf, folder: Path) -> dict:
    """Bytes of a past in memory and of a version on disk."""
    lengths = [len(past) for past in version.pasts]
    files = {path.relative_to(folder).parts[0]: 0 for path in folder.rglob("*") if path.is_file()}
    for path in folder.rglob("*"):
        if path.is_file():
            files[path.relative_to(folder).parts[0]] += path.stat().st_size
    return {"bytes_a_user": round(4 * float(np.mean(lengths)), 1), "mean_history": round(float(np.mean(lengths)), 1), "disk_bytes": files}


def table(result: Mapping[str, Any]) -> str:
    """The rows as text."""
    lines = [f"{result['data']}: {result['n_users']:,} people, {result['n_items']:,} items, {result['n_interactions']:,} rows"]
    lines += [f"(load of the machine at the start: {result['load'][0]:.1f}; times mean something below its number of cores)", ""]
    lines += [f"{'':28}{'HR@10':>24}{'NDCG@10':>24}{'seconds':>10}"]
    for name, row in result["peers"].items():
        lines.append(f"{'peer: ' + name:28}{_shown(row['hr@10']):>24}{_shown(row['ndcg@10']):>24}")
    for row in result["leaderboard"]["rows"]:
        star = " *" if row["model"] == result["leaderboard"]["serving"] else ""
        lines.append(f"{row['model'] + star:28}{_shown(row['hr']):>24}{_shown(row['ndcg']):>24}{row['seconds']:>10}")
    quick = result["two_minutes"]
    lines.append(f"{'2 minutes: ' + quick['model']:28}{_shown(quick['hr@10']):>24}{_shown(quick['ndcg@10']):>24}{quick['wall_s']:>10}")
    found = result["cold"]
    lines += ["", f"cold items, by text: HR@10 {_shown(found['hr@10'])}, {found['times_chance']} times chance (bar {BARS['cold']:.0f})"]
    for place in result["latency"]:
        slowest = max(place["models"].items(), key=lambda one: one[1]["p95_ms"])
        lines.append(f"top ten, {place['data']}: slowest {slowest[0]}, p95 {slowest[1]['p95_ms']} ms (bar {BARS['latency_ms']:.0f})")
    lines.append(f"memory a user: {result['memory']['bytes_a_user']} bytes for {result['memory']['mean_history']} items")
    lines.append(f"agents: {result['agents']['sentence']}")
    return "\n".join(lines)


def _shown(figure: Mapping[str, float] | None) -> str:
    return "" if figure is None else f"{figure['value']:.4f} ({figure['low']:.3f}-{figure['high']:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="for the models of the shelf; 0: no limit")
    parser.add_argument("--steps", type=int, default=AGENT_STEPS, help="training steps of each agent and seed")
    parser.add_argument("--out", type=Path, help="where the JSON goes; default: benchmarks/results, dated")
    options = parser.parse_args()
    log, name = data()
    here = "" if catalogue.dataset("ml-1m").path else " (MovieLens-1M is not here: the bars of the issue are not measured)"
    print(f"{name}{here}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "version"
        result = {
            "measured_at": clock.now().isoformat(timespec="seconds"), "load": os.getloadavg(), "data": name, "bars": BARS,
            "n_users": len(log.users), "n_items": len(log.items), "n_interactions": len(log.rows), "peers": peers(log),
        }  # fmt: skip
        result["leaderboard"] = leaderboard(log, minutes=options.minutes, out=folder)
        version = Shelf.load(folder, version="benchmark")
        result["latency"] = [{"data": name, "models": latency(version.models, version.pasts)}]
        result["latency"] += [lists_of(n) for n in (3_416, 10_000)]
        result["memory"] = memory(version, folder)
        result["two_minutes"] = two_minutes(log, Path(scratch))
        result["cold"] = cold(log)
        result["agents"] = agents(log, version, steps=options.steps)
    out = options.out or RESULTS / f"recommend-{clock.now():%Y-%m-%d}.json"
    out.write_text(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
