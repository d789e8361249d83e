"""`python -m benchmarks.efficiency`: what making a model small and fast costs, beside PyTorch fp32 in the same run on the same rows.

For each task: a teacher (trained by the job finetune where the home has none), a version by each method of the job compress, and the job
board, which measures all of them taking turns. The bars are the issue's. Everything goes through the command line that people use, in a
home of its own, so that a second call measures again and trains nothing twice.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fmcore import clock
from fmcore.lab import board, studies
from fmcore.models.registry import Registry
from fmcore.store.store import Store

RESULTS = Path(__file__).resolve().parent / "results"
TASKS = {"intent": "banking77", "sentiment": "financial_phrasebank"}
METHODS = ("onnx", "int8", "prune", "distill", "static", "cascade")
BARS = {
    "served variant chosen by the board": (None, 4.0, 0.5),
    "static student alone": ("static", 50.0, 6.0),
    "cascade": ("cascade", 10.0, 1.0),
}
"""What -> (the method, or None for any; least times PyTorch fp32; most points lost)."""

REACHED = ("version", "title", "speedup", "lost_points", "lost_low", "lost_high", "n")


def main() -> None:
    """Train what is missing, measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".fm/efficiency"), help="where teachers and variants are kept")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--n-texts", type=int, default=512)
    parser.add_argument("--out", type=Path, default=RESULTS / f"efficiency-{clock.now():%Y-%m-%d}.json")
    options = parser.parse_args()
    found = {task: measured(task, options) for task in options.tasks}
    content = {"made_at": clock.now().isoformat(), "machine": board.machine(options.threads), "tasks": found}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"Written to {options.out}")


def measured(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """A task's board with the bars beside it."""
    dataset = TASKS[task]
    teacher = _teacher(options.home, task, dataset)
    if teacher is None:
        _run(options.home, "finetune", task=task, dataset=dataset)
        teacher = _teacher(options.home, task, dataset)
    for method in options.methods:
        if method not in _made(options.home, task, teacher):
            _run(options.home, "compress", task=task, version=teacher, method=method, promote="never")
    _run(options.home, "board", task=task, version=teacher, n_texts=options.n_texts, threads=options.threads)
    store = Store(options.home)
    try:
        content = studies.latest(store, kind="board", task=task, dataset=dataset).content
    finally:
        store.close()
    told = {"dataset": dataset, "teacher": teacher, "bars": bars(content["rows"]), **content}
    _print(task, told)
    return told


def bars(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each bar the row that answers it (the fastest within the loss, else the most accurate) and whether it is met."""
    found = {}
    for name, (method, times, lost) in BARS.items():
        fit = [row for row in rows if row["version"] != board.REFERENCE and method in (None, row["variant"])]
        within = [row for row in fit if row["lost_points"] <= lost]
        row = max(within, key=lambda r: r["speedup"]) if within else max(fit, key=lambda r: r["accuracy"], default=None)
        met = row is not None and row["lost_points"] <= lost and row["speedup"] >= times
        reached = {} if row is None else {key: row[key] for key in REACHED}
        found[name] = {"times_needed": times, "points_allowed": lost, "met": met, **reached}
    return found


def _teacher(home: Path, task: str, dataset: str) -> str | None:
    """The newest version on that data set that is nobody's student."""
    store = Store(home)
    try:
        return next((v.version for v in Registry(store).versions(task) if v.dataset == dataset and not v.metrics.get("compressed")), None)
    finally:
        store.close()


def _made(home: Path, task: str, teacher: str | None) -> set[str]:
    store = Store(home)
    try:
        made = [v.metrics.get("compressed") or {} for v in Registry(store).versions(task)]
        return {c["method"] for c in made if c.get("teacher") == teacher}
    finally:
        store.close()


def _run(home: Path, job: str, **params: Any) -> None:
    """One job in the foreground, as a person would; its progress goes to the terminal. Raises CalledProcessError."""
    asked = [part for name, value in params.items() for part in ("--set", f"{name}={value}")]
    print(f"python -m jobs run {job} {' '.join(asked)}", flush=True)
    environment = {**os.environ, "FM_HOME": str(home)}
    subprocess.run([sys.executable, "-m", "jobs", "run", job, *asked], env=environment, check=True, stdout=subprocess.DEVNULL)


def _print(task: str, told: dict[str, Any]) -> None:
    print(f"\n{task}: {told['dataset']}, {told['n']:,} held-out rows, {told['machine']['threads']} thread(s)")
    print(f"{'':44}{'accuracy':>10}{'points lost':>24}{'texts/s':>10}{'times':>8}{'p50 ms':>9}{'p95 ms':>9}{'MB':>8}")
    for row in sorted(told["rows"], key=lambda r: r["texts_per_s"]):
        lost = f"{row['lost_points']:+.2f} ({row['lost_low']:+.2f} to {row['lost_high']:+.2f})"
        name = f"{row['title']}, {row['form']}"[:43]
        figures = f"{row['accuracy']:>10.4f}{lost:>24}{row['texts_per_s']:>10,.0f}{row['speedup']:>8.1f}"
        print(f"{name:44}{figures}{row['p50_ms']:>9.2f}{row['p95_ms']:>9.2f}{row['mb']:>8.1f}")
    for name, bar in told["bars"].items():
        word = "met" if bar["met"] else "not met"
        reached = f"{bar['speedup']:.1f} times at {bar['lost_points']:.2f} points lost" if "speedup" in bar else "no such version"
        print(f"{name}: {word}: {reached} (asked: {bar['times_needed']:g} times at {bar['points_allowed']:g})")


if __name__ == "__main__":
    main()
