"""Recipe `mask_filling`: a masked language model from texts without labels, for words that could stand in a place (explanations).

Whole words are masked and told from what stands around them (Devlin et al. 2019; whole-word masking as in its later release). A new
head learns that on top of the encoder, together with the encoder's last layers; the word embeddings stay. What serves is
models/masked_lm.py's part.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmcore import clock, text
from fmcore.data.labelled import folded
from fmcore.models import masked_lm
from fmcore.models.encoder import Encoder, load_encoder
from fmcore.nouns import FMError, Report
from fmcore.training import devices, loop
from fmcore.training.finetune import layers_of, padded

if TYPE_CHECKING:
    from torch import Tensor, nn

MASKED = 0.15
DEV_SHARE, DEV_MOST = 0.05, 500
LEAST_TEXTS = 20
PROBES = 64
FORWARD_BATCH = 32
NO_WORD = -100
"""The target of a token that is not masked, as torch's cross-entropy skips it."""


class TooFewTexts(FMError):
    """Not enough texts to learn from and to measure on."""


@dataclass(frozen=True)
class Filling:
    """What can be asked of a run. steps: optimiser steps in all, however many texts there are; layers: last layers that learn."""

    base: str = "minilm"
    steps: int = 400
    batch: int = 32
    layers: int = 2
    learning_rate: float = 5e-4
    head_learning_rate: float = 3e-3
    max_tokens: int = 64
    seed: int = 0
    threads: int = 1
    device: str | None = None

    def plan(self, n_texts: int) -> loop.Plan:
        """The loop's settings for that many texts."""
        epochs = max(1, round(self.steps * self.batch / n_texts))
        return loop.Plan(
            epochs=epochs, batch=self.batch, learning_rate=self.learning_rate, head_learning_rate=self.head_learning_rate,
            patience=epochs, seed=self.seed,
        )  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """A text's tokens, and the number of the word that each belongs to; -1 where nothing is ever masked."""

    ids: list[int]
    words: np.ndarray


def train(
    texts: Sequence[str], params: Filling, out: Path, report: Report, *, checkpoint: Path | None = None, sources: Sequence[str] = ()
) -> dict[str, Any]:
    """Train on texts, measure on a held-out share of them, write the folder of a masked language model. Returns the figures.

    loss and accuracy are over masked words of held-out texts, in nats a token: "before" with the head as it begins (words as often
    as they come), "after" as saved. sources: what to call the texts. Deterministic under a seed, texts and number of threads.
    Raises TooFewTexts and NoMask.
    """
    import torch

    torch.set_num_threads(params.threads)
    report.progress(0.0, f"Loading {params.base}")
    encoder = load_encoder(params.base, max_tokens=params.max_tokens, device=params.device)
    devices.seed_everything(params.seed)
    learnt, dev = _split(texts, params)
    rows, held = tokenized(encoder, learnt), tokenized(encoder, dev)
    counts = Counter(token for row in rows for token in row.ids)
    n_tokens = encoder.model.get_input_embeddings().weight.shape[0]
    model = masked_lm.network(encoder, frequencies=frequencies(counts, n_tokens))
    layers = last_layers(encoder, params.layers)
    model.to(encoder.device)
    exam = _Exam(model, encoder, held, seed=params.seed)
    before = exam.result()
    plan = params.plan(len(rows))
    began = time.monotonic()
    subject = loop.Subject(
        model,
        loop.layerwise_groups(layers, words_head(model), plan),
        [len(row.ids) for row in rows],
        lambda group: masked([rows[i] for i in group], encoder, chance=np.random),
        lambda batch: _loss(model, batch),
        lambda: exam.result()["accuracy"],
        identity=f"mask_filling {encoder.sha256} {params} {hashlib.sha256(chr(0).join(learnt).encode()).hexdigest()}",
    )
    outcome = loop.fit(subject, plan, report=report, checkpoint=checkpoint, device=torch.device(encoder.device), span=(0.05, 0.95))
    after = exam.result()
    report.progress(0.95, "Writing the served form")
    figures = {
        "loss_before": before["loss"], "loss_after": after["loss"], "accuracy_before": before["accuracy"],
        "accuracy_after": after["accuracy"], "n_texts": len(rows), "n_held_out": len(held), "n_masked": after["n"], "steps": outcome.steps,
        "seconds": round(time.monotonic() - began, 1), "device": outcome.device, "seed": params.seed,
        "sources": list(sources),
    }  # fmt: skip
    about = {**figures, "made_at": clock.now().isoformat(timespec="seconds")}
    masked_lm.save(model, encoder, out, words=whole_words(encoder, learnt), probes=dev[:PROBES], about=about)
    return figures


def tokenized(encoder: Encoder, texts: Sequence[str]) -> list[_Row]:
    """Each text's tokens as far as the model reads, and which of them make up a word; texts without words are left out.

    A word is what the tokenizer says is one, with a letter or a digit in it: punctuation is never proposed, so it is not asked for.
    """
    rows = []
    whole = encoder.tokenizer(list(texts), truncation=True, max_length=encoder.max_tokens, return_offsets_mapping=True)
    for i, message in enumerate(texts):
        words = np.array([-1 if word is None else word for word in whole.word_ids(i)])
        said = [any(c.isalnum() for c in message[a:b]) for a, b in whole["offset_mapping"][i]]
        words[~np.isin(words, words[said])] = -1
        if (words >= 0).any():
            rows.append(_Row(whole["input_ids"][i], words))
    return rows


def masked(rows: Sequence[_Row], encoder: Encoder, *, chance: Any) -> dict[str, Tensor]:
    """A batch with MASKED of each text's words hidden, at least one, all pieces of a word together: input_ids, attention_mask, targets
    (int64 (n, tokens), NO_WORD where nothing is asked). chance.random(n) draws."""
    import torch

    hidden = []
    for row in rows:
        there = np.unique(row.words[row.words >= 0])
        order = np.argsort(chance.random(len(there)), kind="stable")
        hidden.append(np.isin(row.words, there[order[: max(1, round(MASKED * len(there)))]]))
    mask_id = encoder.tokenizer.mask_token_id
    shown = [np.where(gone, mask_id, row.ids).tolist() for row, gone in zip(rows, hidden, strict=True)]
    batch = padded([{"input_ids": ids} for ids in shown], pad=encoder.tokenizer.pad_token_id)
    targets = np.full(batch["input_ids"].shape, NO_WORD, dtype=np.int64)
    for i, (row, gone) in enumerate(zip(rows, hidden, strict=True)):
        targets[i, : len(gone)] = np.where(gone, row.ids, NO_WORD)
    return {**batch, "targets": torch.from_numpy(targets)}


def whole_words(encoder: Encoder, texts: Sequence[str]) -> dict[int, str]:
    """token id -> word, for the words of texts that are one token each, of letters and digits only: what may be proposed."""
    whole = encoder.tokenizer(list(texts), truncation=True, max_length=encoder.max_tokens)
    found: set[int] = set()
    for i in range(len(texts)):
        words = whole.word_ids(i)
        pieces = Counter(words)
        found.update(t for t, word in zip(whole["input_ids"][i], words, strict=True) if word is not None and pieces[word] == 1)
    named = {token: encoder.tokenizer.decode([token]).strip() for token in sorted(found - set(encoder.tokenizer.all_special_ids))}
    return {token: word for token, word in named.items() if word.isalnum()}


class _Exam:
    """The same words masked in the same held-out texts, whenever it is asked: mean loss in nats and share of words told right."""

    def __init__(self, model: nn.Module, encoder: Encoder, rows: Sequence[_Row], *, seed: int):
        self._model, self._device = model, encoder.device
        chance = np.random.default_rng(seed)
        ordered = sorted(rows, key=lambda row: len(row.ids))
        self._batches = [masked(ordered[i : i + FORWARD_BATCH], encoder, chance=chance) for i in range(0, len(ordered), FORWARD_BATCH)]

    def result(self) -> dict[str, float]:
        """loss, accuracy, and n, the number of masked tokens behind them."""
        import torch
        from torch.nn.functional import cross_entropy

        self._model.eval()
        loss = right = n = 0.0
        with torch.inference_mode():
            for batch in self._batches:
                scores, wanted = asked(self._model, devices.to_device(batch, torch.device(self._device)))
                loss += float(cross_entropy(scores, wanted, reduction="sum"))
                right += float((scores.argmax(dim=1) == wanted).sum())
                n += len(wanted)
        return {"loss": loss / n, "accuracy": right / n, "n": int(n)}


def asked(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(scores (n, vocabulary) of the masked tokens only, which nearly doubles the speed; the tokens that stood there)."""
    rows, places = (batch["targets"] != NO_WORD).nonzero(as_tuple=True)
    scores = model(batch["input_ids"], batch["attention_mask"], rows, places).float()
    return scores, batch["targets"][rows, places]


def _loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    from torch.nn.functional import cross_entropy

    return cross_entropy(*asked(model, batch))


def _split(texts: Sequence[str], params: Filling) -> tuple[list[str], list[str]]:
    """(to learn from, held out): distinct texts in an order set by the seed, of the first no more than the steps can see."""
    distinct = list({folded(cleaned): cleaned for message in texts if (cleaned := text.clean(message)[0].strip())}.values())
    if len(distinct) < LEAST_TEXTS:
        raise TooFewTexts(f"There are {len(distinct)} texts to learn words from.", f"At least {LEAST_TEXTS} different ones are needed.")
    order = np.random.default_rng(params.seed).permutation(len(distinct))
    n_dev = min(DEV_MOST, max(1, round(DEV_SHARE * len(distinct))))
    learnt = order[n_dev:][: max(params.batch, params.steps * params.batch)]
    return [distinct[i] for i in learnt], [distinct[i] for i in order[:n_dev]]


def frequencies(counts: Counter[int], n: int) -> np.ndarray:
    """(n,) how often each token comes, one added to all."""
    found = np.ones(n)
    for token, times in counts.items():
        found[token] += times
    return found / found.sum()


def last_layers(encoder: Encoder, n: int) -> list[nn.Module]:
    """Freeze the encoder but for its last n layers, which are returned."""
    layers = layers_of(encoder.model)[1:]
    encoder.model.requires_grad_(False)
    chosen = layers[max(0, len(layers) - n) :] if n else []
    for layer in chosen:
        layer.requires_grad_(True)
    return chosen


def words_head(model: nn.Module) -> nn.Module:
    """The head's own parameters, as one module for the optimiser's groups."""
    from torch import nn

    head = nn.Module()
    head.transform, head.norm = model.transform, model.norm
    head.register_parameter("bias", model.bias)
    return head
