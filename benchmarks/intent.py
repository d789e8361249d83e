"""Intent classification against named peers, on the same rows in the same run. Prints a table, writes results/intent-<date>.json.

    python benchmarks/intent.py                      everything but tuning of all weights; about 30 minutes on two slow cores
    python benchmarks/intent.py --only banking77 clinc150
    python benchmarks/intent.py --full               Banking77 with all weights tuned, too (an hour on two slow cores)
    python benchmarks/intent.py --test-banking77 test.csv --test-clinc150 data_full.json

Reads FM_DATA_DIR. With the publishers' test rows (in FM_DATA_DIR, or given as files) it measures on those; without, on rows cut from the
training files, and says so in every line. Peers: logistic regression C=10 on frozen fp32 MiniLM, and TF-IDF with logistic regression.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fmcore.config import settings  # noqa: E402
from fmcore.data import catalogue  # noqa: E402
from fmcore.evaluation.metrics import OOS, accuracy, figure, paired_difference  # noqa: E402
from fmcore.models.encoder import EmbeddingCache, load_encoder  # noqa: E402
from fmcore.models.heads import fit_logistic  # noqa: E402

BARS = {
    "banking77 linear": 0.932, "banking77 full": 0.943, "banking77 5-shot": 0.82, "banking77 10-shot": 0.875, "clinc150 in scope": 0.965,
    "clinc150 AUROC": 0.980, "clinc150 in scope at threshold": 0.92, "clinc150 OOS recall at threshold": 0.90,
}  # fmt: skip
PARTS = ("banking77", "shots", "clinc150")


class Quiet:
    """A report for a terminal: one line that is written over."""

    def progress(self, fraction: float, message: str = "") -> None:
        print(f"\r  {fraction:4.0%} {message[:90]:<90}", end="", file=sys.stderr, flush=True)

    def metric(self, step: int, **values: float) -> None: ...

    def device(self, name: str) -> None: ...


def with_test(data: catalogue.LabelledData, file: Path | None) -> catalogue.LabelledData:
    """The data with a publisher's test rows from a file; the rows that were cut for testing go back to where they came from."""
    if file is None or data.test_is_publishers:
        return data
    if file.suffix == ".json":
        raw = json.loads(file.read_text())
        test = pd.DataFrame([*raw["test"], *raw["oos_test"]], columns=["text", "label"])
    else:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
        test = table.rename(columns={"category": "label", "intent": "label"})[["text", "label"]]
    home = "train" if data.name == "banking77" else "validation"
    grown = {home: pd.concat([getattr(data, home), data.test], ignore_index=True)}
    frames = {"train": data.train, "validation": data.validation, "test": test, **grown}
    note = f"Test is {file.name}, {len(test)} rows."
    return dataclasses.replace(data, **frames, split_note=note, split_hash=catalogue.split_hash(frames), test_is_publishers=True)


def peer(data: catalogue.LabelledData, cache: EmbeddingCache, encoder, *, refit: bool) -> np.ndarray:
    """Right or wrong on each in-scope test row: logistic C=10 on frozen fp32 MiniLM, learnt from the same rows."""
    learnt = pd.concat([data.train, data.validation[data.validation["label"] != OOS]]) if refit else data.train
    labels = sorted(set(learnt["label"]))
    classes = learnt["label"].map({x: i for i, x in enumerate(labels)}).to_numpy()
    head = fit_logistic(cache.encode(encoder, list(learnt["text"]), batch=64), classes, n_classes=len(labels))
    inside = data.test[data.test["label"] != OOS]
    said = np.array(labels, dtype=object)[head.scores(cache.encode(encoder, list(inside["text"]), batch=64)).argmax(axis=1)]
    return said == inside["label"].to_numpy(dtype=object)


def against(metrics: dict, right_peer: np.ndarray, folder: Path) -> dict:
    """The model's figures beside the peers', with the paired difference."""
    table = pd.read_parquet(folder / "heldout.parquet")
    table = table[table["label"] != OOS]
    right = (table["label"] == table["predicted"]).to_numpy()
    figures = ("accuracy", "ece", "oos", "baseline", "coverage", "head", "form", "seconds")
    rows = ("n_train", "n_validation", "n_test", "n_shipped", "split_note")
    return {
        **{k: metrics[k] for k in (*figures, *rows)},
        "peer": {"name": "frozen fp32 MiniLM + logistic C=10", "accuracy": figure(accuracy(right_peer, np.ones(len(right_peer))))},
        "minus_peer": figure(paired_difference(right_peer, right)),
    }


def run(recipe: str, data: catalogue.LabelledData, folder: Path, **options) -> dict:
    """One recipe from start to finished folder."""
    from fmcore.training import contrast, finetune, linear

    threads = settings().training_threads()
    if recipe == "linear":
        return linear.train(data, linear.LinearParams(**options), folder, Quiet())
    if recipe == "contrast":
        return contrast.train(data, contrast.Contrast(threads=threads, **options), folder, Quiet())
    return finetune.train(data, finetune.Tuning(recipe="full", threads=threads, **options), folder, Quiet())


def shots(data: catalogue.LabelledData, cache: EmbeddingCache, encoder, *, recipe: str, k: int, draws: int) -> dict:
    """Accuracy over several draws of k examples a class, beside the peer on the very same draws."""
    from fmcore.training.linear import few_shot

    ours, theirs = [], []
    for seed in range(draws):
        with tempfile.TemporaryDirectory() as folder:
            metrics = run(recipe, data, Path(folder), shots=k, seed=seed, fast=True)
        ours.append(metrics["accuracy"]["value"])
        theirs.append(float(peer(few_shot(data, shots=k, seed=seed), cache, encoder, refit=False).mean()))
    return {
        "recipe": recipe, "shots": k, "draws": draws, "accuracy": round(float(np.mean(ours)), 5), "each": ours,
        "standard_deviation": round(float(np.std(ours, ddof=1)), 5) if draws > 1 else None, "n_test": metrics["accuracy"]["n"],
        "peer": {"name": "frozen fp32 MiniLM + logistic C=10, no label names", "accuracy": round(float(np.mean(theirs)), 5)},
        "minus_peer": round(float(np.mean(ours) - np.mean(theirs)), 5), "split_note": data.split_note,
    }  # fmt: skip


def measure(options: argparse.Namespace) -> dict:
    """Every asked-for part."""
    cache = EmbeddingCache(settings().home / "cache" / "embeddings")
    encoder = load_encoder("minilm", max_tokens=64)
    results: dict = {}
    banking = with_test(catalogue.load("banking77"), options.test_banking77)
    for name, data, recipe, wanted in (
        ("banking77 linear", banking, "linear", "banking77" in options.only),
        ("banking77 full", banking, "full", options.full),
        ("clinc150 linear", None, "linear", "clinc150" in options.only),
        ("clinc150 full", None, "full", options.full and "clinc150" in options.only),
    ):
        if wanted:
            data = data or with_test(catalogue.load("clinc150"), options.test_clinc150)
            with tempfile.TemporaryDirectory() as folder:
                metrics = run(recipe, data, Path(folder))
                results[name] = against(metrics, peer(data, cache, encoder, refit=True), Path(folder))
            show(name, results[name])
    if "shots" in options.only:
        for k in (5, 10):
            for recipe in options.shot_recipes:
                name = f"banking77 {k}-shot {recipe}"
                results[name] = shots(banking, cache, encoder, recipe=recipe, k=k, draws=options.draws)
                ours, theirs = results[name]["accuracy"], results[name]["peer"]["accuracy"]
                print(f"\r{name}: {ours:.4f}, peer {theirs:.4f} ({options.draws} draws){'':60}")
    return results


def show(name: str, result: dict) -> None:
    """A result as lines for a person."""
    value, ece, oos, difference = result["accuracy"], result["ece"], result["oos"], result["minus_peer"]
    print(f"\r{name}: {value['value']:.4f} ({value['low']:.4f} to {value['high']:.4f}, n {value['n']}); {result['split_note']}")
    print(f"  peer {result['peer']['accuracy']['value']:.4f}, difference {difference['value']:+.4f} ({difference['low']:+.4f} to "
          f"{difference['high']:+.4f}); TF-IDF {result['baseline']['accuracy']['value']:.4f}; ECE {ece['value']:.4f}; "
          f"head {result['head']['chosen']}; form {result['form']}")  # fmt: skip
    if oos:
        print(f"  OOS AUROC {oos['auroc']['value']:.4f}, at the threshold recall {oos['recall']['value']:.4f}, "
              f"in-scope accuracy {oos['in_scope_accuracy']['value']:.4f} (n {oos['n']})")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--full", action="store_true", help="tune all weights, too")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--shot-recipes", nargs="+", choices=("linear", "contrast"), default=["linear", "contrast"])
    parser.add_argument("--test-banking77", type=Path)
    parser.add_argument("--test-clinc150", type=Path)
    options = parser.parse_args()
    began = time.perf_counter()
    results = measure(options)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    target = ROOT / "benchmarks" / "results" / f"intent-{today}.json"
    before = json.loads(target.read_text())["results"] if target.is_file() else {}
    machine = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version(), "processor": platform.processor()}
    target.parent.mkdir(exist_ok=True)
    seconds = round(time.perf_counter() - began, 1)
    body = {"on": today, "machine": machine, "bars": BARS, "seconds": seconds, "results": {**before, **results}}
    target.write_text(json.dumps(body, indent=1) + "\n")
    print(f"\nWritten to {target.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
