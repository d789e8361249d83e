"""A version of a person's own CSV file: the tiny model trained on the split that the catalogue makes of it, adopted into a registry."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from fmcore.data import catalogue
from fmcore.models.classifier import Rows
from fmcore.models.fitting import FitOptions, fit_classifier
from fmcore.models.registry import ModelVersion, Registry, write_manifest
from fmcore.models.served_encoder import ServedEncoder
from fmcore.text import text_hash
from tests import tiny_model

HIDDEN = {"card": "quux", "refund": "corge", "travel": "grault"}
"""Words that the tiny encoder does not know: a label that shows in them is seen by lexical scores only."""


def csv(path: Path, *, n_each: int = 60, oos: int = 0, seed: int = 0, hidden: bool = False) -> Path:
    """hidden: the label shows in half of the rows' words, and in the other half in HIDDEN only."""
    rows = pd.DataFrame(tiny_model.rows(n_each, seed=seed, oos=oos), columns=["text", "label"])
    if hidden:
        filler = [" ".join([*text.split()[2:], HIDDEN[label], f"n{i}"]) for i, (text, label) in enumerate(rows.itertuples(index=False))]
        rows["text"] = rows["text"].where(rows.index % 2 == 0, pd.Series(filler))
    rows.drop_duplicates("text").to_csv(path, index=False)
    return path


def adopt(registry: Registry, work: Path, data_file: Path, *, run_id: str, features: int = 64, lexical: bool = False, shots: int = 0) -> ModelVersion:
    """shots: rows a label that are learnt, the first ones. The shipped head is refitted on the test rows, as for any such file."""
    data = catalogue.load(str(data_file))
    folder = work / run_id
    folder.mkdir(parents=True)
    tiny_model._write_encoder(folder)
    encoder = ServedEncoder(folder, max_tokens=32)
    frames = [data.train.groupby("label").head(shots) if shots else data.train, data.validation, data.test]
    parts = [
        Rows(encoder.encode(list(f["text"])), f["label"].to_numpy(dtype=object), tuple(text_hash(t) for t in f["text"]), tuple(f["text"]))
        for f in frames
    ]
    options = FitOptions(head="ridge", random_features=features, resamples=50, test_is_publishers=False, lexical=lexical)
    classifier, metrics = fit_classifier(*parts, options=options, info={"max_tokens": 32})
    classifier.save(folder)
    (folder / "replies.json").write_text("{}")
    metrics |= {"params": {"dataset": str(data_file)}, "split_hash": data.split_hash, "synthetic": False}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_manifest(folder)
    return registry.adopt(folder, task="intent", recipe="linear", dataset=data.name, base="bag", metrics=metrics, run_id=run_id)


def held_rows(texts, labels, predicted, *, score=None) -> pd.DataFrame:
    """Rows as heldout.Held has them."""
    n = len(texts)
    return pd.DataFrame({
        "text_hash": [text_hash(t) for t in texts], "text": list(texts), "label": list(labels), "predicted": list(predicted),
        "score": np.full(n, 0.9) if score is None else score, "novelty": 0.0, "in_scope": True,
    })  # fmt: skip
