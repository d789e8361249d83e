"""A small transformer of random weights, trained on the labelled rows alone: what a task costs without any pretraining.

Has no job and no served form: the label study (lab/label_study.py) puts it beside what starts from a pretrained encoder. It reads with the
base model's tokenizer, so that only the weights differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fmcore.data.catalogue import LabelledData
from fmcore.models.encoder import Encoder, batches_by_length
from fmcore.nouns import Report
from fmcore.training import devices, loop
from fmcore.training.finetune import FORWARD_BATCH, padded

NAME = "scratch"
DROPOUT = 0.1


@dataclass(frozen=True)
class Scratch:
    """What can be asked of a run. width: numbers a token; steps: optimiser steps at least, however few rows there are; epochs: passes over
    the rows at most where validation can end it (early_stop)."""

    width: int = 128
    layers: int = 2
    heads: int = 2
    steps: int = 60
    epochs: int = 10
    batch: int = 32
    learning_rate: float = 1e-3
    head_learning_rate: float = 1e-2
    early_stop: bool = False
    seed: int = 0

    def plan(self, n_rows: int) -> loop.Plan:
        """The loop's settings for so many rows."""
        epochs = self.epochs if self.early_stop else max(1, math.ceil(self.steps / math.ceil(n_rows / self.batch)))
        return loop.Plan(
            epochs=epochs, batch=self.batch, learning_rate=self.learning_rate, head_learning_rate=self.head_learning_rate, seed=self.seed
        )


@dataclass(frozen=True)
class FromNothing:
    """A trained classifier: its encoder, its softmax head, and how many parameters training moved."""

    encoder: Encoder
    head: Any
    trainable: int

    def classes(self, texts: list[str]) -> np.ndarray:
        """int64 (n,): the most probable class of each text."""
        import torch

        embeddings = torch.from_numpy(self.encoder.encode(texts, batch=FORWARD_BATCH)).to(self.encoder.device)
        with torch.inference_mode():
            return self.head(embeddings).argmax(dim=1).cpu().numpy()


def random_encoder(like: Encoder, params: Scratch) -> Encoder:
    """An encoder of random weights set by the seed, with the tokenizer, the length and the device of another."""
    from transformers import BertConfig, BertModel

    devices.seed_everything(params.seed)
    config = BertConfig(
        vocab_size=max(len(like.tokenizer), like.model.get_input_embeddings().weight.shape[0]), hidden_size=params.width,
        num_hidden_layers=params.layers, num_attention_heads=params.heads, intermediate_size=2 * params.width,
        max_position_embeddings=max(64, like.max_tokens), pad_token_id=like.tokenizer.pad_token_id or 0,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False).to(like.device)
    return Encoder(NAME, f"{NAME}-{params.seed}-{params.width}", model, like.tokenizer, like.max_tokens, like.device)


def train(data: LabelledData, params: Scratch, like: Encoder, *, report: Report, span: tuple[float, float] = (0.0, 1.0)) -> FromNothing:
    """Train all weights and a softmax head on the training rows; `like` lends its tokenizer only.

    early_stop keeps the weights of the epoch that is best on validation rows; else the last ones. Deterministic under a seed.
    """
    import torch
    from torch import nn

    labels = sorted(set(data.train["label"]))
    order = {label: i for i, label in enumerate(labels)}
    classes = data.train["label"].map(order).to_numpy(dtype=np.int64)
    inside = data.validation[data.validation["label"].isin(labels)]
    truth = inside["label"].map(order).to_numpy(dtype=np.int64)
    encoder = random_encoder(like, params)
    tokens, held = encoder.tokenize(data.train["text"].tolist())[0], encoder.tokenize(inside["text"].tolist())[0]
    head = nn.Linear(encoder.dim, len(labels))
    model = nn.ModuleDict({"encoder": encoder.model, "dropout": nn.Dropout(DROPOUT), "head": head}).to(encoder.device)

    def logits(batch: dict[str, Any]) -> Any:
        return head(model["dropout"](encoder.pooled({k: batch[k] for k in ("input_ids", "attention_mask")}))).float()

    def accuracy() -> float:
        right = 0
        for group in batches_by_length([len(t["input_ids"]) for t in held], batch=FORWARD_BATCH):
            batch = devices.to_device(padded([held[i] for i in group], pad=encoder.tokenizer.pad_token_id), torch.device(encoder.device))
            right += int((logits(batch).argmax(1).cpu().numpy() == truth[group]).sum())
        return right / len(truth)

    plan = params.plan(len(tokens))
    subject = loop.Subject(
        model,
        loop.layerwise_groups([encoder.model], head, plan),
        [len(t["input_ids"]) for t in tokens],
        lambda group: padded([tokens[i] for i in group], pad=encoder.tokenizer.pad_token_id, classes=classes[group]),
        lambda batch: nn.functional.cross_entropy(logits(batch), batch["classes"]),
        accuracy if params.early_stop and len(truth) else None,
        identity=f"{encoder.sha256} {data.split_hash} {params}",
    )
    loop.fit(subject, plan, report=report, device=torch.device(encoder.device), span=span)
    model.eval()
    return FromNothing(encoder, head, sum(p.numel() for p in model.parameters() if p.requires_grad))
