"""`python -m benchmarks.lab`: what pretraining, adaptation and few labels come to, each against a named peer in the same run.

    python -m benchmarks.lab                              all that this machine can: about an hour on two slow cores
    python -m benchmarks.lab --part scratch --minutes 15  a small model from nothing, masked accuracy beside the best guess without a text
    python -m benchmarks.lab --part adapt --minutes 15    the base against itself adapted, 16 labels a class
    python -m benchmarks.lab --part labels --minutes 15   every method from no label on, as far as the minutes go
    python -m benchmarks.lab --part gpu                   Banking77 tuned whole, and masked words a second, where CUDA is

Reads FM_DATA_DIR. Prints tables and writes results/lab-<date>.json; parts that the file has from before and that are not asked for stay.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from fmcore import clock, run_facts
from fmcore.data import catalogue
from fmcore.data.corpus import FINANCE, Corpus
from fmcore.lab import adaptation, board, label_study
from fmcore.models import bases
from fmcore.training import finetune, pretrain

RESULTS = Path(__file__).resolve().parent / "results"
SENTIMENT, INTENT = "financial_phrasebank", "banking77"
TIMES_UNIGRAM = 3.0
SHOTS, SEEDS = 16, 20
INTENT_SECONDS, INTENT_ACCURACY = 60.0, 0.935
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12, "L4": 121e12, "4090": 165e12}
"""Dense bfloat16 multiply-adds counted as two operations, a second, by the makers' data sheets; the first name that fits counts."""


class Shown:
    """A report for a terminal: one line that is written over."""

    def progress(self, fraction: float, message: str = "") -> None:
        print(f"\r  {fraction:4.0%} {message[:100]:<100}", end="", file=sys.stderr, flush=True)

    def metric(self, step: int, **values: float) -> None: ...

    def device(self, name: str) -> None: ...


def main() -> None:
    """Measure the parts that were asked for, print them, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--minutes", type=float, default=15.0, help="for each part")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / f"lab-{clock.now():%Y-%m-%d}.json")
    options = parser.parse_args()
    before = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    parts = dict(before.get("parts") or {})
    for name in options.part:
        with tempfile.TemporaryDirectory(prefix="fm-lab-") as folder:
            found = PARTS[name](options, Path(folder))
        print("\r" + " " * 108 + "\r", end="", file=sys.stderr)
        if found is None:
            print(f"{name}: no CUDA device here, left out")
            continue
        parts[name] = {"made_at": clock.now().isoformat(timespec="seconds"), "code": dict(run_facts.code_version()), **found}
        SHOWN[name](parts[name])
        options.out.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": board.machine(options.threads), "parts": parts}
        options.out.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"Written to {options.out}")


# --- from nothing, against the best guess that reads no text


def scratch(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A model of the profile's size from random weights on the finance texts; unigram: always the most frequent word."""
    corpus = Corpus.of(FINANCE, seed=options.seed)
    asked = pretrain.Pretraining(minutes=options.minutes, threads=options.threads, seed=options.seed, device="cpu")
    began = time.monotonic()
    figures = pretrain.train(corpus, asked, folder / "base", Shown())
    wall_s = time.monotonic() - began
    curve = pd.read_parquet(folder / "base" / bases.CURVE)
    return {
        "corpus": list(corpus.names), "minutes": options.minutes, "wall_s": round(wall_s, 1), "size": asked.size, "figures": figures,
        "curve": curve.to_dict("records"), "bar": f"rises at every checkpoint, at least {TIMES_UNIGRAM:g} times the unigram guess",
        "met": bool(figures["rising"]) and figures["times_unigram"] >= TIMES_UNIGRAM,
    }  # fmt: skip


def show_scratch(found: dict[str, Any]) -> None:
    print(f"\nFrom nothing, {found['size']}, {found['wall_s'] / 60:.1f} minutes on the wall: {', '.join(found['corpus'])}")
    print(f"{'step':>8}{'tokens':>12}{'masked':>10}{'unigram':>10}{'times':>8}{'probe':>8}")
    for row in found["curve"]:
        times = row["masked_accuracy"] / max(1e-9, row["unigram_accuracy"])
        print(
            f"{row['step']:>8,}{row['tokens']:>12,}{row['masked_accuracy']:>10.4f}{row['unigram_accuracy']:>10.4f}{times:>8.2f}"
            f"{row['probe_accuracy']:>8.3f}"
        )
    print(f"Bar ({found['bar']}): {'met' if found['met'] else 'not met'}")


# --- adapted, against the base as it is


def adapt(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every objective for its share of the minutes on the PhraseBank's training texts, then heads on 16 labels a class."""
    data, corpus = catalogue.load(SENTIMENT), Corpus.of([SENTIMENT], seed=options.seed)
    asked = adaptation.Asked(shots=SHOTS, seeds=SEEDS, minutes=options.minutes, threads=options.threads, seed=options.seed)
    found = adaptation.run(data, corpus, asked, folder, Shown())
    met = any(row["apart"] for row in found["rows"])
    bar = f"better than the base at {SHOTS} labels a class, intervals apart"
    return {"dataset": SENTIMENT, "split_hash": data.split_hash, "minutes": options.minutes, "bar": bar, "met": met, **found}


def show_adapt(found: dict[str, Any]) -> None:
    print(f"\nAdapted on {found['dataset']}, {SHOTS} labels a class")
    print(f"{'':24}{'test accuracy':>27}{'over the base':>30}{'seconds':>9}{'steps':>7}  helped")
    for row in found["rows"]:
        mean = f"{row['mean']:.4f} ({row['low']:.4f} to {row['high']:.4f})"
        over = "" if row["over"] is None else f"{row['over']:+.4f} ({row['over_low']:+.4f} to {row['over_high']:+.4f})"
        print(f"{row['title']:24}{mean:>27}{over:>30}{row['seconds']:>9.0f}{row['steps']:>7,}  {row['helped'] or ''}")
    print(f"{found['sentence']}\nBar ({found['bar']}): {'met' if found['met'] else 'not met'}")


# --- few labels, against the frozen base


def labels(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The label study of sentiment, the cheap methods first, as far as the minutes go."""
    data = catalogue.load(SENTIMENT)
    asked = label_study.Asked("sentiment", minutes=options.minutes, threads=options.threads, no_adapted="not part of this benchmark")
    found = label_study.run(data, asked, folder, Shown())
    return {"dataset": SENTIMENT, "split_hash": data.split_hash, "minutes": options.minutes, **found}


def show_labels(found: dict[str, Any]) -> None:
    print(f"\nFew labels on {found['dataset']}")
    for point in found["points"]:
        shots = "all" if point["shots"] == label_study.ALL else point["shots"]
        print(f"{point['title']:44}{shots:>5}{point['mean']:>9.4f} ({point['low']:.4f} to {point['high']:.4f}){point['seconds']:>9.1f} s")
    print(found["sentence"])


# --- on a GPU, against what the card's maker says it can do


def gpu(options: argparse.Namespace, folder: Path) -> dict[str, Any] | None:
    """Banking77 tuned whole, and masked words on the base's own shape; None without CUDA."""
    import torch

    if not torch.cuda.is_available():
        return None
    card = torch.cuda.get_device_name()
    intent = catalogue.load(INTENT)
    began = time.monotonic()
    tuned = finetune.train(intent, finetune.Tuning(batch=64, threads=options.threads, seed=options.seed), folder / "intent", Shown())
    seconds = {"wall": round(time.monotonic() - began, 1), "training": tuned["training"]["elapsed_s"]}
    asked = pretrain.Pretraining(
        start="continue", steps=600, batch=256, max_tokens=128, checkpoints=1, threads=options.threads, seed=options.seed
    )  # fmt: skip
    figures = pretrain.train(Corpus.of(FINANCE, seed=options.seed), asked, folder / "words", Shown())
    flops = 6 * multiplied(folder / "words" / bases.ENCODER) * figures["tokens_per_s"]
    peak = next((peak for name, peak in PEAKS.items() if name in card), None)
    accuracy = tuned["accuracy"]["value"]
    return {
        "card": card, "intent": {"seconds": seconds, "accuracy": tuned["accuracy"]},
        "masked_words": {
            "tokens_per_s": figures["tokens_per_s"], "flops": flops, "peak": peak, "share_of_peak": None if peak is None else flops / peak,
        },
        "bar": f"{INTENT} tuned whole in at most {INTENT_SECONDS:g} s at {INTENT_ACCURACY} or more",
        "met": seconds["training"] <= INTENT_SECONDS and accuracy >= INTENT_ACCURACY,
    }  # fmt: skip


def multiplied(folder: Path) -> int:
    """Weights of an encoder that every token is multiplied with: all but its tables of words and places."""
    from fmcore.models.encoder import load_encoder

    model = load_encoder(str(folder), max_tokens=64, device="cpu").model
    return sum(p.numel() for name, p in model.named_parameters() if "embeddings." not in name and "pooler" not in name)


def show_gpu(found: dict[str, Any]) -> None:
    intent, words = found["intent"], found["masked_words"]
    share = "peak unknown" if words["share_of_peak"] is None else f"{words['share_of_peak']:.1%} of the card's bfloat16 peak"
    print(f"\n{found['card']}: {INTENT} {intent['seconds']['training']:.1f} s training, accuracy {intent['accuracy']['value']:.4f}")
    print(f"Masked words: {words['tokens_per_s']:,.0f} tokens/s, 6 N tokens/s = {words['flops'] / 1e12:.1f} TFLOP/s, {share}")
    print(f"Bar ({found['bar']}): {'met' if found['met'] else 'not met'}")


PARTS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any] | None]] = {
    "scratch": scratch, "adapt": adapt, "labels": labels, "gpu": gpu,
}  # fmt: skip
SHOWN: dict[str, Callable[[dict[str, Any]], None]] = {
    "scratch": show_scratch, "adapt": show_adapt, "labels": show_labels, "gpu": show_gpu,
}  # fmt: skip

if __name__ == "__main__":
    main()
