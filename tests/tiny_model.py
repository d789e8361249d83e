"""A real model folder in a second and without torch: a bag-of-words ONNX encoder, a ridge head, everything the recipes write."""

import json
from pathlib import Path

import numpy as np

from fmcore.models.classifier import Rows
from fmcore.models.fitting import FitOptions, fit_classifier
from fmcore.models.registry import ModelVersion, Registry, write_manifest
from fmcore.models.served_encoder import ServedEncoder
from fmcore.text import text_hash

TOPICS = {
    "card": ["card", "plastic", "chip", "pin", "contactless", "replace", "stolen"],
    "refund": ["refund", "money", "return", "purchase", "shop", "cancel", "back"],
    "travel": ["travel", "abroad", "country", "trip", "flight", "currency", "holiday"],
}
STRANGE = ["weather", "poem", "football", "recipe", "planet", "guitar", "opera"]
FILLER = ["please", "my", "the", "is", "not", "i", "can", "how", "do", "with", "why", "still", "need", "help", "today"]


def rows(n_each: int, *, seed: int, oos: int = 0, topics=TOPICS) -> list[tuple[str, str]]:
    chance = np.random.default_rng(seed)
    said = [(f"{' '.join(chance.choice(words, 2))} {' '.join(chance.choice(FILLER, 4))}", label) for label, words in topics.items() for _ in range(n_each)]
    return said + [(f"{' '.join(chance.choice(STRANGE, 4))} {' '.join(chance.choice(FILLER, 1))}", "oos") for _ in range(oos)]


def _write_encoder(folder: Path) -> None:
    """Gather, masked mean, length 1: the same inputs and output as export.py's graph."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = ["[PAD]", "[UNK]", *sorted({*FILLER, *STRANGE, *(w for ws in TOPICS.values() for w in ws)})]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.random.default_rng(0).normal(size=(len(words), 32)).astype(np.float32)
    table[[words.index(w) for w in FILLER]] *= 0.2  # as a trained encoder would: filler says little
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["vectors", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "tiny"], ["nonzero"]),
        helper.make_node("ReduceL2", ["nonzero", "one"], ["length"], keepdims=1),
        helper.make_node("Div", ["nonzero", "length"], ["embedding"]),
    ]
    constants = {"table": table, "last": np.array([2]), "middle": np.array([1]), "one": np.array([1]), "tiny": np.array([1e-3], np.float32)}
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in ("input_ids", "attention_mask")]
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 32])
    graph = helper.make_graph(nodes, "bag", inputs, [output], [numpy_helper.from_array(v, k) for k, v in constants.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "encoder.onnx")


def save(folder: Path, *, topics=TOPICS, seed: int = 0) -> dict:
    """Write the folder, manifest and all. Returns the metrics."""
    folder.mkdir(parents=True)
    _write_encoder(folder)
    encoder = ServedEncoder(folder, max_tokens=32)
    parts = [rows(40, seed=seed + 1, topics=topics), rows(20, seed=seed + 2, oos=20, topics=topics), rows(20, seed=seed + 3, oos=20, topics=topics)]
    embedded = [
        Rows(encoder.encode([t for t, _ in part]), np.array([x for _, x in part], dtype=object), tuple(text_hash(t) for t, _ in part))
        for part in parts
    ]
    options = FitOptions(head="ridge", random_features=64, resamples=100)
    classifier, metrics = fit_classifier(*embedded, options=options, info={"max_tokens": 32, "synthetic": True})
    classifier.save(folder)
    (folder / "replies.json").write_text(json.dumps({label: f"We look after your {label}." for label in topics}))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_manifest(folder)
    return metrics


def adopt(registry: Registry, work: Path, *, run_id: str, dataset: str, topics=TOPICS) -> ModelVersion:
    metrics = save(work / run_id, topics=topics)
    return registry.adopt(work / run_id, task="intent", recipe="linear", dataset=dataset, base="bag", metrics=metrics, run_id=run_id)
