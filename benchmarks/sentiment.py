"""Sentiment and topic of news against named peers, on the same rows in the same run. Prints a table, writes results/sentiment-<date>.json.

    python benchmarks/sentiment.py                         linear and the task's usual recipe on both; an hour on two slow cores
    python benchmarks/sentiment.py --only phrasebank --recipes linear
    python benchmarks/sentiment.py --test-phrasebank Sentences_50Agree.txt --test-topic topic_valid.csv

Reads FM_DATA_DIR. Without the publishers' rows it measures on rows that were cut from the files by a hash of the text, and says so. A file
with the PhraseBank's other sentences (`sentence@label`, latin-1) counts what is not in FM_DATA_DIR; those that all annotators agreed on
are known by Sentences_AllAgree.txt beside it (or --test-allagree). Peers: VADER, TF-IDF of words and letters with a linear SVC, logistic
regression C=10 on frozen fp32 MiniLM; each learns from the same rows as FM Desk.
"""

from __future__ import annotations

import argparse
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

from fmcore import tasks  # noqa: E402
from fmcore.config import settings  # noqa: E402
from fmcore.data import catalogue, labelled, readers  # noqa: E402
from fmcore.data.labelled import LabelledData  # noqa: E402
from fmcore.evaluation.lexicon import lexicon_labels  # noqa: E402
from fmcore.evaluation.metrics import accuracy, figure, macro_f1, paired_difference  # noqa: E402
from fmcore.models.encoder import EmbeddingCache, load_encoder  # noqa: E402
from fmcore.models.heads import fit_logistic  # noqa: E402
from fmcore.text import text_hash  # noqa: E402
from jobs import finetune  # noqa: E402

BARS = {"phrasebank accuracy": 0.85, "phrasebank all agree": 0.96, "phrasebank macro_f1": 0.83, "topic accuracy": 0.84}
DATASETS = {"phrasebank": ("sentiment", "financial_phrasebank"), "topic": ("topic", "twitter_financial_topic")}
EVERYBODY = "all"
"""The tier of the sentences that every annotator gave the same label."""


class Quiet:
    """A report for a terminal: one line that is written over."""

    def progress(self, fraction: float, message: str = "") -> None:
        print(f"\r  {fraction:4.0%} {message[:90]:<90}", end="", file=sys.stderr, flush=True)

    def metric(self, step: int, **values: float) -> None: ...

    def device(self, name: str) -> None: ...


def phrasebank(given: Path | None, all_agree: Path | None) -> LabelledData:
    """The PhraseBank of FM_DATA_DIR, its test rows replaced by those of a file where one is given."""
    data = catalogue.load("financial_phrasebank")
    if given is None:
        return data
    ours = pd.concat([data.train, data.test, data.validation])
    known = {readers.bare_words(message) for message in ours["text"]}
    rows = sentences(given)
    test = rows[[readers.bare_words(message) not in known for message in rows["text"]]].drop_duplicates()
    agreed = all_agree or given.with_name(readers.AGREEMENT[EVERYBODY])
    if not agreed.is_file():
        sys.exit(f"{agreed} is not there: give the sentences that all agreed on with --test-allagree.")
    everybody = {text_hash(message) for message in sentences(agreed)["text"]}
    tiers = {key: EVERYBODY if key in everybody else "50" for key in map(text_hash, test["text"])}
    note = f"Test is {given.name}: {len(test)} of its {len(rows)} sentences are not among those in FM_DATA_DIR."
    frames = {"train": pd.concat([data.train, data.test]), "validation": data.validation, "test": test}
    return labelled.build(
        data.name, frames, note=note, labels=data.labels, fold=readers.bare_words, synthetic=False, test_is_publishers=True,
        tiers={**tiers, **data.tiers},
    )  # fmt: skip


def sentences(file: Path) -> pd.DataFrame:
    """A PhraseBank file as text,label."""
    lines = [line.strip().rpartition("@") for line in file.read_text(encoding="latin-1").splitlines() if line.strip()]
    return pd.DataFrame({"text": [message.strip() for message, _, _ in lines], "label": [label.strip().lower() for _, _, label in lines]})


def topic(given: Path | None) -> LabelledData:
    """The topic tweets of FM_DATA_DIR, with the publisher's test rows where their file is given."""
    found = catalogue.dataset("twitter_financial_topic").path
    if given is None or found is None:
        return catalogue.load("twitter_financial_topic")
    with tempfile.TemporaryDirectory() as folder:
        for file in (found / "topic_train.csv", found / "labels.json"):
            (Path(folder) / file.name).symlink_to(file.resolve())
        (Path(folder) / "topic_valid.csv").symlink_to(given.resolve())
        return readers.twitter_financial_topic(Path(folder))


def peers(data: LabelledData, *, sentiment: bool) -> dict[str, np.ndarray]:
    """What each peer says of the test rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    learnt = pd.concat([data.train, data.validation])
    texts, labels, asked = learnt["text"].tolist(), learnt["label"].to_numpy(dtype=object), data.test["text"].tolist()
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
    characters = TfidfVectorizer(sublinear_tf=True, ngram_range=(2, 5), min_df=2, analyzer="char_wb")
    bag = make_pipeline(make_union(words, characters), LinearSVC(C=0.3)).fit(texts, labels)
    said = {"TF-IDF words + characters, SVC": bag.predict(asked)}
    if sentiment:
        said["VADER"] = lexicon_labels(asked)
    names = np.array(data.labels, dtype=object)
    classes = np.searchsorted(names.astype(str), labels.astype(str))
    encoder, cache = load_encoder("minilm", max_tokens=64), EmbeddingCache(settings().home / "cache" / "embeddings")
    head = fit_logistic(cache.encode(encoder, texts, batch=64), classes, n_classes=len(names))
    said["frozen MiniLM + logistic"] = names[head.scores(cache.encode(encoder, asked, batch=64)).argmax(axis=1)]
    return said


def trained(task: str, data: LabelledData, recipe: str, runs: Path | None) -> tuple[np.ndarray, dict]:
    """(what FM Desk says of the test rows, its own metrics): the fine-tuning job's work on these rows with its defaults."""
    with tempfile.TemporaryDirectory() as folder:
        run = (runs or Path(folder)) / f"{task}-{recipe}"
        run.mkdir(parents=True, exist_ok=True)
        data.save(run / "data")
        params = finetune.Params(task=task, dataset=data.name, recipe=recipe)
        chosen = {"params": params.model_dump(), "base": settings().base_model, "profile": settings().profile}
        (run / "settings.json").write_text(json.dumps(chosen))
        finetune.work(run, Quiet())
        print("\r" + " " * 100 + "\r", end="", file=sys.stderr)
        table = pd.read_parquet(run / "model" / "heldout.parquet")
        metrics = json.loads((run / "model" / "metrics.json").read_text())
    kept = ("ece", "lexical", "head", "form", "threshold", "training", "seconds", "n_train", "n_shipped")
    facts = {key: metrics.get(key) for key in kept}
    facts["form_loss_points"] = metrics["serving"]["loss_points"]
    facts["in_scope"] = round(float(table["in_scope"].mean()), 4)
    return table["predicted"].to_numpy(dtype=object), facts


def figures(said: np.ndarray, data: LabelledData) -> dict:
    """Accuracy and macro-F1 with 95 % bootstrap intervals over all test rows, and over those that everybody agreed on."""
    true = data.test["label"].to_numpy(dtype=object)
    agreed = np.array([data.tiers.get(text_hash(message)) == EVERYBODY for message in data.test["text"]], dtype=bool)
    measured = {"accuracy": figure(accuracy(true, said)), "macro_f1": figure(macro_f1(list(true), list(said)))}
    if agreed.any():
        measured["all_agree"] = figure(accuracy(true[agreed], said[agreed]))
        measured["all_agree_macro_f1"] = figure(macro_f1(list(true[agreed]), list(said[agreed])))
    return measured


def measure(options: argparse.Namespace) -> dict:
    """Every asked-for data set, each with its peers and FM Desk's recipes."""
    results: dict = {}
    for name in options.only:
        task, _ = DATASETS[name]
        data = phrasebank(options.test_phrasebank, options.test_allagree) if name == "phrasebank" else topic(options.test_topic)
        true = data.test["label"].to_numpy(dtype=object)
        print(f"{name}: {len(data.test)} test rows. {data.split_note}")
        said = peers(data, sentiment=name == "phrasebank")
        results[name] = {"n_test": len(true), "split_note": data.split_note, "split_hash": data.split_hash, "models": {}}
        for peer, answers in said.items():
            results[name]["models"][peer] = show(peer, figures(answers, data))
        best = max(said, key=lambda peer: float((said[peer] == true).mean()))
        for recipe in dict.fromkeys(tasks.task(task).recipe if r == "auto" else r for r in options.recipes):
            answers, facts = trained(task, data, recipe, options.runs)
            beyond = figure(paired_difference(said[best] == true, answers == true))
            ours = {**figures(answers, data), **facts, "best_peer": best, "minus_best_peer": beyond}
            results[name]["models"][f"FM Desk {recipe}"] = show(f"FM Desk {recipe}", ours)
    return results


def show(name: str, result: dict) -> dict:
    """A result as a line for a person; the result."""
    shown = [(key, result[key]) for key in ("accuracy", "macro_f1", "all_agree", "minus_best_peer", "ece") if result.get(key)]
    words = "  ".join(f"{key} {value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})" for key, value in shown)
    print(f"  {name:<32} {words}", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(DATASETS), default=list(DATASETS))
    recipes = ("auto", "linear", "full", "lora")
    parser.add_argument("--recipes", nargs="*", choices=recipes, default=["linear", "auto"], help="auto: the task's usual one")
    parser.add_argument("--test-phrasebank", type=Path, help="a file of sentence@label lines")
    parser.add_argument("--test-allagree", type=Path, help="the part of those that all annotators agreed on")
    parser.add_argument("--test-topic", type=Path, help="topic_valid.csv")
    parser.add_argument("--runs", type=Path, help="where the runs are kept; one that was cut off goes on from its checkpoint")
    options = parser.parse_args()
    began = time.perf_counter()
    results = measure(options)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    target = ROOT / "benchmarks" / "results" / f"sentiment-{today}.json"
    before = json.loads(target.read_text())["results"] if target.is_file() else {}
    for name, result in results.items():  # what an earlier run of the day measured on the same rows stays beside
        same = before.get(name, {}).get("split_hash") == result["split_hash"]
        before[name] = {**result, "models": {**before[name]["models"], **result["models"]}} if same else result
    machine = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version(), "processor": platform.processor()}
    body = {"on": today, "machine": machine, "bars": BARS, "seconds": round(time.perf_counter() - began, 1), "results": before}
    target.write_text(json.dumps(body, indent=1) + "\n")
    print(f"Written to {target.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
