"""Bases on the shelf without torch and in no time: each checkpoint is a bag of words that grows surer of what goes with what."""

import json

import numpy as np
import pandas as pd

from fmcore.models import bases
from fmcore.models.manifest import write_manifest

SIGNS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = """
    my new card has not arrived yet and i need it for trip abroad the board proposes a dividend of euros per share company expects its net
    sales to grow in fourth quarter shares fell rose nine percent after issued profit warning money phone
"""
VOCABULARY = (*SIGNS, *dict.fromkeys(WORDS.split()))
GOES_WITH = {"not": "arrived", "new": "card", "proposes": "dividend", "sales": "grow", "percent": "fell", "warning": "profit"}
"""A word of a text -> the word that a trained checkpoint then puts behind the mask."""
STEPS = (0, 40, 80)
SENTENCES = ("My new [MASK] has not arrived yet.", "The board proposes a [MASK] of 0.40 euros per share.")


def tokenizer():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.add_special_tokens(list(SIGNS))
    return made


def form(folder, *, sureness, max_tokens=24):
    """fill_mask.onnx, tokenizer.json and fill_mask.json: scores are what the words of the text speak for, times `sureness`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    n = len(VOCABULARY)
    speaks = np.random.default_rng(0).normal(0, 0.02, (n, n)).astype(np.float32)
    np.fill_diagonal(speaks, -8.0)  # a word that stands in the text already
    for word, answer in GOES_WITH.items():
        speaks[VOCABULARY.index(word), VOCABULARY.index(answer)] = 4.0
    nodes = [
        helper.make_node("Gather", ["speaks", "input_ids"], ["said"]),
        helper.make_node("ReduceSum", ["said", "middle"], ["scores"], keepdims=0),
    ]
    constants = {"speaks": speaks * sureness, "middle": np.array([1])}
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in ("input_ids", "attention_mask")]
    inputs.append(helper.make_tensor_value_info("places", TensorProto.INT64, ["n"]))
    output = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", n])
    graph = helper.make_graph(nodes, "bag", inputs, [output], [numpy_helper.from_array(v, k) for k, v in constants.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "fill_mask.onnx")
    facts = {"format": 1, "max_tokens": max_tokens, "mask": 4, "sign": "[MASK]", "never": [0, 1, 2, 3, 4], "about": {}}
    (folder / "fill_mask.json").write_text(json.dumps(facts))


def shelve(home, work, *, name="finance", objective="mlm", start="scratch", steps=STEPS, synthetic=True):
    """Put a base on the shelf; returns it. Without steps it is one that fills no masks."""
    folder = work / name
    (folder / "encoder").mkdir(parents=True)
    (folder / "encoder" / "config.json").write_text("{}")
    for step in steps:
        form(folder / "fills" / str(step), sureness=step / 80)
    if steps:
        filled(steps).to_parquet(folder / "fills.parquet", index=False)
    shown = steps or (40, 80)
    pd.DataFrame({
        "step": shown, "tokens": [1000 * s for s in shown], "loss": [7.0 - s / 40 for s in shown], "masked_accuracy": [0.02 + s / 400 for s in shown],
        "unigram_accuracy": [0.05] * len(shown), "probe_accuracy": [0.5 + s / 800 for s in shown],
    }).to_parquet(folder / "curve.parquet", index=False)  # fmt: skip
    facts = {
        "name": name, "objective": objective, "start": start, "base": "minilm", "corpus": ["demo <b>"], "corpus_hash": "c0", "n_tokens": 80_000,
        "figures": {}, "device": "cpu", "seconds": 61.0, "synthetic": synthetic, "parent": "",
    }  # fmt: skip
    (folder / "facts.json").write_text(json.dumps(facts))
    write_manifest(folder)
    return bases.put_in_place(folder, home, name=name)


def filled(steps=STEPS):
    """The table of fills: the right word rises from the third place to the first."""
    rows = []
    for step in steps:
        sure = 0.1 + 0.8 * step / 80
        for sentence, right in zip(SENTENCES, ("card", "dividend"), strict=True):
            rows += [(step, sentence, 0, 1, right if step else "the", sure), (step, sentence, 0, 2, "the" if step else right, (1 - sure) / 2)]
    return pd.DataFrame(rows, columns=list(bases.FILLED_COLUMNS))
