"""What benchmarks/explain.py sets its figures beside: shap on a transformers pipeline, shap's Partition and KernelExplainer on words.

Each peer is called the way its own documentation calls it, but for the mask: words are deleted, as ours are. A peer's units are brought
to whole words by adding up what stands in a word.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from fmcore.explain.attributions import Attribution, Score
from fmcore.explain.words import Words
from fmcore.models.encoder import Encoder
from fmcore.models.heads import Head


class Counted:
    """The model as shap calls it: rows of 0 and 1 in, the target's score out, every row counted."""

    def __init__(self, score: Score, words: Words, target: np.ndarray):
        self.score, self.words, self.target, self.n_calls = score, words, target, 0

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows, dtype=bool).reshape(-1, len(self.words))
        self.n_calls += len(rows)
        return self.score([self.words.keep(row) for row in rows]) @ self.target


class WordMasker:
    """shap's masker interface for a row of words; neighbours merge first in the tree that Partition walks down."""

    def __init__(self, n: int):
        from scipy.cluster.hierarchy import linkage

        self.clustering = linkage(np.arange(n, dtype=float)[:, None], "complete")
        self.shape, self.fixed_background = (lambda _: (1, n)), True

    def __call__(self, mask: np.ndarray, row: np.ndarray) -> np.ndarray:
        return (np.asarray(mask, dtype=bool) & row)[None, :]


def partition(score: Score, words: Words, target: np.ndarray, *, budget: int) -> Attribution:
    """shap.explainers.Partition on a batched function and words (Owen values)."""
    import shap

    n, model = len(words), Counted(score, words, target)
    if n < 2:
        base, whole = model(np.array([[0] * n, [1] * n]))
        return Attribution(np.full(n, whole - base), float(base), float(whole), 2)
    found = shap.explainers.Partition(model, WordMasker(n))(np.ones((1, n), dtype=bool), max_evals=budget, batch_size=64, silent=True)
    n_calls = model.n_calls
    whole = float(model(np.ones((1, n)))[0])
    return Attribution(np.asarray(found.values[0], dtype=float), float(np.ravel(found.base_values)[0]), whole, n_calls)


def kernel_shap(score: Score, words: Words, target: np.ndarray, *, budget: int, seed: int) -> Attribution:
    """shap.KernelExplainer, which draws every subset with its complement (paired), no word left out of the regression."""
    import shap

    n, model = len(words), Counted(score, words, target)
    held = np.random.get_state()  # the explainer draws from NumPy's global state
    np.random.seed(seed)
    try:
        explainer = shap.KernelExplainer(model, np.zeros((1, n)))
        values = explainer.shap_values(np.ones((1, n)), nsamples=budget - 2, l1_reg=False, silent=True)
    finally:
        np.random.set_state(held)
    base, whole = float(np.ravel(explainer.expected_value)[0]), float(np.ravel(explainer.fx)[0])
    return Attribution(np.ravel(values).astype(float), base, whole, model.n_calls)


def text_pipeline(encoder: Encoder, head: Head, labels: Sequence[str]):
    """The fp32 encoder with a linear head as a transformers text-classification pipeline, one text a forward as is its default."""
    import torch
    from transformers import BertModel, BertPreTrainedModel, pipeline
    from transformers.modeling_outputs import SequenceClassifierOutput
    from transformers.utils import logging

    class MeanPooled(BertPreTrainedModel):
        def __init__(self, config):
            super().__init__(config)
            self.bert = BertModel(config, add_pooling_layer=False)
            self.classifier = torch.nn.Linear(config.hidden_size, config.num_labels)
            self.post_init()

        def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, **_):
            states = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(states.dtype)
            pooled = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1).clamp(min=1.0), dim=1)
            return SequenceClassifierOutput(logits=self.classifier(pooled))

    logging.set_verbosity_error()  # pipeline() lists 150 model names, because this class is not among them
    config = encoder.model.config
    config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    model = MeanPooled(config).eval()
    model.bert.load_state_dict({k: v for k, v in encoder.model.state_dict().items() if not k.startswith("pooler.")})
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(head.arrays["linear"].T.copy()))
        model.classifier.bias.copy_(torch.from_numpy(head.arrays["bias"]))
    return pipeline("text-classification", model=model, tokenizer=encoder.tokenizer, top_k=None, device="cpu")


def pipeline_score(pipe, labels: Sequence[str]) -> Score:
    """The pipeline as a scoring function; the order of the labels is `labels`."""
    place = {label: i for i, label in enumerate(labels)}

    def score(texts: Sequence[str]) -> np.ndarray:
        out = np.zeros((len(texts), len(labels)))
        for row, found in zip(out, pipe(list(texts)), strict=True):
            for one in found:
                row[place[one["label"]]] = one["score"]
        return out

    return score


def shap_pipeline(explainer, pipe, words: Words, target: np.ndarray) -> Attribution:
    """shap.Explainer(pipeline) with all its defaults, its tokens added up to whole words; n_calls are the forwards of the network."""
    forwards: list[int] = []
    hook = pipe.model.register_forward_hook(lambda _module, _given, answer: forwards.append(len(answer.logits)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = explainer([words.text], silent=True)
    finally:
        hook.remove()
    if "".join(found.data[0]) != words.text:
        raise ValueError("shap's tokens do not make up the text")
    ends = np.cumsum([len(token) for token in found.data[0]])
    tokens = found.values[0] @ target
    values = np.zeros(len(words))
    for end, token, value in zip(ends, found.data[0], tokens, strict=True):
        middle = end - len(token) + len(token.rstrip()) / 2
        for i, (start, stop) in enumerate(words.spans):
            if token.strip() and start <= middle < stop:
                values[i] += value
    base = float(found.base_values[0] @ target)
    return Attribution(values, base, base + float(tokens.sum()), sum(forwards))
