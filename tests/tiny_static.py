"""A real static model and a real cascade in two seconds: random word vectors with fitted heads, on six intents of the demo data."""

import json
import shutil

import numpy as np

from fmcore.data import catalogue
from fmcore.models.cascade import FAST, FORMAT, FULL
from fmcore.models.classifier import CASCADE
from fmcore.models.fitting import FitOptions, fit_classifier
from fmcore.models.manifest import write_manifest
from fmcore.models.served_encoder import ServedEncoder
from fmcore.models.static import Pieces, StaticEncoder, Tables, flattened, pair_keys
from tests.pages import tiny_model

MAX_TOKENS = tiny_model.MAX_TOKENS


def parts(n_intents=tiny_model.N_INTENTS):
    """{train, validation, test} of a few intents of the demo data, and its split_hash."""
    data = catalogue.load("demo")
    kept = {*data.labels[:n_intents], catalogue.OOS}
    return {name: getattr(data, name)[getattr(data, name)["label"].isin(kept)] for name in ("train", "validation", "test")}, data.split_hash


def tables(folder, texts, *, dim=64, seed=0):
    """static.safetensors for the words of `texts` and the pairs that stand in them, beside the tokenizer.json that is in the folder."""
    chance = np.random.default_rng(seed)
    pieces = Pieces(folder / "tokenizer.json", max_tokens=MAX_TOKENS)
    n = pieces.tokenizer.get_vocab_size()
    keys = np.unique(pair_keys(*flattened(pieces.tokens(list(texts))[0]), n)[0])
    scale = 1 / dim**0.5
    made = Tables(
        chance.standard_normal((n, dim)), 0.3 * chance.standard_normal((len(keys), dim)), keys, scale * chance.standard_normal((dim, dim)),
        np.zeros(dim),
    )  # fmt: skip
    made.save(folder)


def fitted(folder, encoder, frames, **options):
    """Fit a classifier around an encoder and write the rest of its folder."""
    rows = [tiny_model.rows(encoder, frames[name]) for name in ("train", "validation", "test")]
    info = {"max_tokens": MAX_TOKENS, "base": "words", "dataset": "demo", "synthetic": True, "recipe": "static"}
    made, metrics = fit_classifier(*rows, options=FitOptions(random_features=256, resamples=50, **options), info=info)
    made.save(folder)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "replies.json").write_text("{}")
    return metrics


def save_static(folder, *, dim=64, seed=0):
    """The folder of a static model; returns its metrics."""
    frames, _ = parts()
    tiny_model.encoder(folder, frames["train"]["text"], seed=seed)
    (folder / "encoder.onnx").unlink()
    tables(folder, frames["train"]["text"], dim=dim, seed=seed)
    metrics = fitted(folder, StaticEncoder(folder, max_tokens=MAX_TOKENS), frames, head="logistic", n_near=60, refit=False)
    write_manifest(folder)
    return metrics


def save_cascade(folder, *, margin=0.1, dim=128, seed=0):
    """The folder of a cascade with a poor fast model; returns the full model's metrics."""
    frames, _ = parts()
    save_static(folder / FAST, dim=dim, seed=seed)
    tiny_model.encoder(folder / FULL, frames["train"]["text"], seed=seed)
    metrics = fitted(folder / FULL, ServedEncoder(folder / FULL, max_tokens=MAX_TOKENS, threads=1), frames, head="ridge")
    for name in ("model.json", "heldout.parquet", "replies.json", "metrics.json"):
        shutil.copyfile(folder / FULL / name, folder / name)
    (folder / CASCADE).write_text(json.dumps({"format": FORMAT, "threshold": margin, "share_expected": 0.3}))
    write_manifest(folder)
    return metrics


def adopt(desk, folder, save, *, recipe, task="intent", promote=True, **options):
    """Save, register under a recipe that the gate lets through, and make it live; returns the version."""
    metrics, (_, split_hash) = save(folder, **options), parts()
    facts = {**metrics, "synthetic": True, "split_hash": split_hash}
    made = desk.registry.adopt(folder, task=task, recipe=recipe, dataset="demo", base="words", metrics=facts, run_id=f"run-{folder.name}")
    if promote:
        desk.registry.promote(task, made.version, by="a test", reason="for the test")
    return desk.registry.get(task, made.version)
