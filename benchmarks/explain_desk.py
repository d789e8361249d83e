"""Two parts of benchmarks/explain.py that use a desk's own machinery: flips, and a request that is asked a second time."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.explain_bench import Bench, say
from fmcore.evaluation.metrics import figure, mean
from fmcore.explain import counterfactual, words
from fmcore.explain.asking import Explain, Question
from fmcore.models import masked_lm
from fmcore.models.classifier import Classifier
from fmcore.models.registry import Registry
from fmcore.serving.engine import Engine
from fmcore.store.store import Store


def flips(bench: Bench, options: argparse.Namespace, _save: Callable[[dict], None]) -> dict:
    """Correctly classified held-back texts whose label changes after at most 3 edits, and whether each flip is one when asked alone."""
    labels = bench.classifier.labels
    filler = masked_lm.load(options.mask_filler) if options.mask_filler else None
    asked = {"deletions only": None} | ({"deletions and swaps": filler.propose} if filler else {})
    answers = bench.fresh(bench.texts[: 2 * options.texts]).argmax(axis=1)
    texts = [(t, labels[a]) for t, y, a in zip(bench.texts, bench.labels, answers, strict=False) if labels[a] == y][: options.texts]
    results: dict = {"n_texts": len(texts), "ways": {}}
    for name, propose in asked.items():
        made, verified, edits, calls = [], [], [], []
        for text, label in texts:
            found = counterfactual.flips(bench.fresh, labels, words.split(text), label=label, propose=propose)
            made.append(bool(found.flips))
            calls.append(found.n_calls)
            edits += [len(found.flips[0].edits)] if found.flips else []
            for flip in found.flips:
                again = labels[int(bench.fresh([flip.text])[0].argmax())]
                verified.append(again == flip.label != label and len(flip.edits) <= 3)
        results["ways"][name] = {
            "found": figure(mean(made)), "verified": figure(mean(verified)), "mean_calls": round(float(np.mean(calls)), 1),
            "edits": {str(k): edits.count(k) for k in sorted(set(edits))},
        }  # fmt: skip
        print(f"  flips, {name}: found {say(results['ways'][name]['found'])}, verified {say(results['ways'][name]['verified'])}")
    return results


def repeat(bench: Bench, options: argparse.Namespace, _save: Callable[[dict], None]) -> dict:
    """Texts that a desk's model is asked for, at a first request and at the same one again."""
    calls = 0

    def counting(folder: Path, *, version: str) -> Classifier:
        classifier = Classifier.load(folder, version=version, threads=1)

        def embed(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
            nonlocal calls
            calls += len(texts)
            return classifier.embed(texts)

        return classifier.with_embedder(embed, version=version)

    with tempfile.TemporaryDirectory() as place:
        store = Store(Path(place) / "home")
        registry = Registry(store)
        copy = shutil.copytree(bench.folder, Path(place) / "model")
        facts = {"recipe": "linear", "dataset": "banking77", "base": "minilm", "metrics": {}}
        version = registry.adopt(copy, task="intent", run_id="benchmark", **facts).version
        engine = Engine(registry, load=counting)
        desk = Explain(engine, store, Path(place) / "home")
        counts = []
        for text in bench.texts[: options.repeats]:
            for _ in range(2):
                before = calls
                desk.answer(Question("intent", text, version=version, parts=("explanation", "trust")), timeout_s=120, who="benchmark")
                counts.append(calls - before)
        desk.close()
        engine.close()
        store.close()
    first, again = counts[::2], counts[1::2]
    print(f"  a first request: {np.mean(first):.0f} texts; the same again: {max(again)} at most ({len(again)} texts)")
    mean_first = round(float(np.mean(first)), 1)
    return {"n_texts": len(again), "mean_calls_of_a_first_request": mean_first, "most_calls_of_a_repeated_request": max(again)}
