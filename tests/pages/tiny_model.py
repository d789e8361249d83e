"""A real model in under two seconds: a bag-of-words encoder as ONNX, fitted on six intents of the demo data.

Every file of a served model is there and true; only the encoder is small (fixed random word vectors, mean-pooled).
"""

import numpy as np

from fmcore.data import catalogue
from fmcore.models.classifier import Rows
from fmcore.models.fitting import FitOptions, fit_classifier
from fmcore.models.manifest import write_manifest
from fmcore.models.served_encoder import ServedEncoder
from fmcore.text import text_hash

DIM, MAX_TOKENS, N_INTENTS = 256, 32, 6


def encoder(folder, texts, *, seed):
    """encoder.onnx and tokenizer.json for the words of `texts`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    split = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    said = [{word for word, _ in split.pre_tokenize_str(t.lower())} for t in texts]
    words = sorted(set().union(*said))
    rarity = np.log(len(said) / np.array([1 + sum(word in one for one in said) for word in ["", *words]]))
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, **{w: i + 1 for i, w in enumerate(words)}}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), split
    tokenizer.save(str(folder / "tokenizer.json"))
    table = (np.random.default_rng(seed).standard_normal((len(words) + 1, DIM)) * rarity[:, None] ** 1.5).astype(np.float32)
    table[0] = 0.0
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Cast", ["attention_mask"], ["mask2"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask2", "last"], ["mask"]),
        helper.make_node("Mul", ["words", "mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["summed"], keepdims=0),
        helper.make_node("ReduceL2", ["summed", "one"], ["norm"], keepdims=1),
        helper.make_node("Max", ["norm", "tiny"], ["safe"]),
        helper.make_node("Div", ["summed", "safe"], ["embedding"]),
    ]
    constants = {"table": table, "last": np.array([-1]), "one": np.array([1]), "tiny": np.array([1e-6], np.float32)}
    graph = helper.make_graph(
        nodes, "words",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIM])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(folder / "encoder.onnx"))


def rows(served, frame):
    return Rows(served.encode(frame["text"].tolist()), frame["label"].to_numpy(dtype=object), tuple(text_hash(t) for t in frame["text"]))


def adopt(desk, folder, *, seed=0, promote=True, run_id=None, task="intent", dataset="demo"):
    """Fit one, register it, and make it live; returns the version."""
    data = catalogue.load(dataset)
    kept = {*data.labels[:N_INTENTS], catalogue.OOS}
    parts = {name: getattr(data, name)[getattr(data, name)["label"].isin(kept)] for name in ("train", "validation", "test")}
    encoder(folder, parts["train"]["text"], seed=seed)
    served = ServedEncoder(folder, max_tokens=MAX_TOKENS, threads=1)
    info = {"max_tokens": MAX_TOKENS, "base": "words", "dataset": dataset, "synthetic": True}
    classifier, metrics = fit_classifier(
        *(rows(served, parts[p]) for p in ("train", "validation", "test")),
        options=FitOptions(head="ridge", random_features=512, seed=seed, resamples=50), info=info,
    )  # fmt: skip
    classifier.save(folder)
    write_manifest(folder)
    facts = {**metrics, "synthetic": True, "split_hash": data.split_hash}
    made = desk.registry.adopt(
        folder, task=task, recipe="linear", dataset=dataset, base="words", metrics=facts, run_id=run_id or f"run-{seed}-{folder.name}"
    )
    if promote:
        desk.registry.promote(task, made.version, by="a test", reason="for the test")
    return desk.registry.get(task, made.version)
