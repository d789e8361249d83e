"""A tiny encoder that was "pretrained": words of one topic lie together in it, so that few labels, or none, are enough."""

from pathlib import Path

import numpy as np

from tests.tiny_encoder import TOPICS, save_tiny_encoder, tiny_data


def save_knowing_encoder(folder: Path) -> str:
    """The tiny BERT with a topic's direction in each of its words, and layers that add nothing to what comes in."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    save_tiny_encoder(folder)
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    chance = np.random.default_rng(0)
    with torch.no_grad():
        words = model.get_input_embeddings().weight
        words.copy_(torch.from_numpy(chance.normal(0, 0.02, tuple(words.shape))))
        for part in (model.embeddings.position_embeddings, model.embeddings.token_type_embeddings):
            part.weight.zero_()
        for said in TOPICS.values():
            direction = torch.from_numpy(chance.normal(0, 1.0, words.shape[1]))
            for word in said.split():
                words[tokenizer.convert_tokens_to_ids(word)] += direction
        for layer in model.encoder.layer:
            for part in (layer.attention.output.dense, layer.output.dense):
                part.weight.zero_()
                part.bias.zero_()
    model.save_pretrained(folder, safe_serialization=True)
    return str(folder)


def data(*, n_train: int = 20):
    """Four topics, told by two of their words each."""
    return tiny_data(n_train=n_train)


class Quiet:
    """A report that keeps what it is told and cancels, where asked to, once a message holds certain words."""

    def __init__(self, cancel_at: str = ""):
        self.cancel_at, self.said, self.points, self.fractions = cancel_at, [], [], []

    def progress(self, fraction, message=""):
        from fmcore.nouns import Cancelled

        self.said.append(message)
        self.fractions.append(fraction)
        if self.cancel_at and self.cancel_at in message:
            raise Cancelled

    def metric(self, step, **values):
        self.points.append((step, values))

    def device(self, name):
        self.said.append(name)
