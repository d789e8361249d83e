"""A sentence encoder adapted to a corpus without labels: objectives "simcse", "tsdae" and "polarity" of the job pretrain.

simcse (Gao et al. 2021, arXiv:2104.08821): a sentence goes through twice, under different dropout; the two vectors are to find each other
among the batch's. tsdae (Wang et al. 2021, arXiv:2104.06979): 60 % of the tokens are deleted, a small decoder has to write the sentence
again from the one pooled vector. polarity: each sentence that points up or down (opposites.py) beside itself turned round, and sentences
that point nowhere; the three groups are pulled apart (Khosla et al. 2020). Topics are the same on both sides, so only the direction is
left to be learnt: what an encoder taught on topics drops. No label is used, but a word list speaks in their place, and it is English.

The losses are a few lines each on the house's loop rather than sentence-transformers' trainer: that one brings accelerate and datasets,
saves torch pickles that this house does not read, and neither resumes to the bit nor stops at a report. Only the last layers learn, as in
mask_filling.py: three quarters of the time on a processor goes into what the lower ones would learn, and small corpora make them forget.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fmcore import text
from fmcore.models import bases
from fmcore.models.encoder import Encoder, load_encoder
from fmcore.models.manifest import write_manifest
from fmcore.nouns import FMError, Report
from fmcore.training import devices, exams, loop
from fmcore.training.contrast import contrastive_loss
from fmcore.training.finetune import layers_of, padded
from fmcore.training.opposites import direction, turned

if TYPE_CHECKING:
    from torch import Tensor, nn

OBJECTIVES = ("simcse", "tsdae", "polarity")
TEMPERATURE = 0.05
DELETED = 0.6
LEAST_TEXTS, MOST_TEXTS = 20, 200_000
"""Fewer are no corpus; of more, those with the smallest hashes are taken, so that memory is bounded and the choice is the texts' own."""
HELD_MOST = 200
"""Held-back sentences that the figures at each checkpoint are measured on."""
NEIGHBOURS = 40
"""Ranks by length within which a sentence without a direction is drawn for one with it."""
AVERAGING = 4.0
"""A run that ends by the clock keeps its rate; the average over about its last fifth stands for the fall at the end. See loop.Plan."""
ROUND_STEPS, WARM_STEPS = 20, 10
"""Where the clock, not a number of steps, ends the run: steps between two looks at it, and steps in which the rate rises."""


class NotAdaptable(FMError):
    """A corpus too small, or a base model that an objective cannot teach."""


@dataclass(frozen=True)
class Adapting:
    """What can be asked of a run. steps: optimiser steps, 0 to go on until `minutes` are over; layers: the last ones that learn, 0 all.

    batch: sentences of a step; a row of polarity brings two more with it, so half as many rows make about the same work.
    """

    objective: str = "simcse"
    base: str = "minilm"
    steps: int = 0
    minutes: float = 5.0
    batch: int = 32
    max_tokens: int = 64
    checkpoints: int = 8
    seed: int = 0
    threads: int = 1
    layers: int = 2
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    device: str | None = None
    report_s: float = 1.0
    checkpoint_s: float = 60.0

    def recipe(self) -> dict[str, Any]:
        """What decides the resulting weights: every field but how often to report and to save."""
        return {k: v for k, v in asdict(self).items() if k not in ("report_s", "checkpoint_s")}

    @property
    def rows(self) -> int:
        """Rows of a step."""
        return max(2, self.batch // 2) if self.objective == "polarity" else self.batch

    def plan(self) -> loop.Plan:
        """The loop's settings: an epoch of the loop is what lies between two checkpoints."""
        epochs = max(1, min(self.checkpoints, self.steps)) if self.steps else 1_000_000
        return loop.Plan(
            epochs=epochs, batch=self.rows, learning_rate=self.learning_rate, head_learning_rate=self.head_learning_rate, seed=self.seed,
            warmup=0.06 if self.steps else WARM_STEPS / (ROUND_STEPS * epochs), decay=bool(self.steps),
            seconds=0.0 if self.steps else 60 * self.minutes, averaging=0.0 if self.steps else AVERAGING,
            report_s=self.report_s, checkpoint_s=self.checkpoint_s,
        )  # fmt: skip

    def rows_a_round(self) -> int:
        """Rows of an epoch of the loop."""
        return self.rows * (max(1, self.steps // max(1, min(self.checkpoints, self.steps))) if self.steps else ROUND_STEPS)


def train(corpus: Any, params: Any, out: Path, report: Report, *, checkpoint: Path | None = None) -> dict[str, Any]:
    """Adapt a base to a corpus and write the folder of a base (models/bases.py) without fills. Returns the figures.

    corpus: data/corpus.py's Corpus. params: an Adapting, or pretrain.Pretraining, of which the fields of the same name are taken.
    Deterministic under a seed, corpus and number of threads where steps, not minutes, end it. Raises NotAdaptable, Diverged.
    """
    import torch

    asked = params if isinstance(params, Adapting) else _asked(params)
    torch.set_num_threads(asked.threads)
    report.progress(0.0, f"Loading {asked.base}")
    encoder = load_encoder(asked.base, max_tokens=asked.max_tokens, device=asked.device)
    began = time.monotonic()
    learnt, held = drawn(corpus, "train", most=MOST_TEXTS, seed=asked.seed), drawn(corpus, "held_back", most=HELD_MOST, seed=asked.seed)
    probe = exams.Probe.of(seed=asked.seed)
    outcome, n_tokens = adapt(
        encoder, learnt, held, asked, report=report, checkpoint=checkpoint, identity=corpus.hash, probe=probe.accuracy
    )  # fmt: skip
    report.progress(0.95, "Writing the adapted base")
    history = [{"step": row["step"], **row} for row in outcome.history]
    figures = {
        **{key: value for row in history for key, value in row.items() if key not in ("epoch", "step")},
        "steps": outcome.steps, "n_texts": len(learnt), "n_held_back": len(held), "probe": probe.name,
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    facts = {
        "objective": asked.objective, "start": "continue", "base": encoder.name, "corpus": list(corpus.names), "corpus_hash": corpus.hash,
        "licences": dict(corpus.licences), "notes": corpus.notes, "params": asked.recipe(),
        "n_tokens": n_tokens, "figures": figures, "device": outcome.device, "seconds": figures["seconds"],
        "synthetic": bool(corpus.synthetic), "parent": encoder.sha256,
    }  # fmt: skip
    save(encoder, out, curve=history, facts=facts)
    return figures


def _asked(params: Any) -> Adapting:
    if params.start != "continue":
        raise NotAdaptable(f"The objective {params.objective} needs a base to start from.", "Choose start: continue, or the objective mlm.")
    shared = ("objective", "base", "steps", "minutes", "batch", "max_tokens", "checkpoints", "seed", "threads", "layers", "device",
              "report_s", "checkpoint_s")  # fmt: skip
    rate = {"learning_rate": params.learning_rate} if params.learning_rate else {}
    return Adapting(**{name: getattr(params, name) for name in shared}, **rate)


def save(encoder: Encoder, out: Path, *, curve: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    """Write the folder of a base, its manifest last."""
    out.mkdir(parents=True, exist_ok=True)
    encoder.model.save_pretrained(out / bases.ENCODER, safe_serialization=True)
    encoder.tokenizer.save_pretrained(out / bases.ENCODER)
    pd.DataFrame(list(curve)).to_parquet(out / bases.CURVE, index=False)
    (out / bases.FACTS).write_text(json.dumps(facts, ensure_ascii=False, allow_nan=False, indent=1), encoding="utf-8")
    write_manifest(out)


def drawn(corpus: Any, part: str, *, most: int, seed: int) -> list[str]:
    """At most `most` different sentences of a part, those with the smallest hashes, in that order; the rest is never held in memory."""
    kept: list[tuple[int, str]] = []  # a heap, the largest hash on top
    known: set[str] = set()
    for sentence in _sentences(corpus, part):
        key = -int.from_bytes(hashlib.blake2b(f"{seed} {sentence}".encode(), digest_size=8).digest())
        if sentence in known or (len(kept) == most and key <= kept[0][0]):
            continue
        known.add(sentence)
        if len(kept) < most:
            heapq.heappush(kept, (key, sentence))
        else:
            known.discard(heapq.heapreplace(kept, (key, sentence))[1])
    return [sentence for _, sentence in sorted(kept, reverse=True)]


def _sentences(corpus: Any, part: str) -> Iterator[str]:
    for document in corpus.documents(part):
        for sentence in document:
            cleaned = text.clean(sentence)[0].strip()
            if any(c.isalnum() for c in cleaned):
                yield cleaned


def adapt(
    encoder: Encoder,
    learnt: Sequence[str],
    held: Sequence[str],
    params: Adapting,
    *,
    report: Report,
    checkpoint: Path | None = None,
    identity: str = "",
    probe: Callable[[Encoder], float] | None = None,
) -> tuple[loop.Outcome, int]:
    """(what the loop says, the tokens that were read). The encoder itself is changed.

    At each checkpoint the figures of `_figures` are reported. Raises NotAdaptable.
    """
    import torch

    if len(learnt) < LEAST_TEXTS:
        raise NotAdaptable(f"There are {len(learnt)} sentences to learn from.", f"At least {LEAST_TEXTS} different ones are needed.")
    devices.seed_everything(params.seed)  # a decoder starts from random weights
    layers = _layers_that_learn(encoder, params.layers)
    objective = _OBJECTIVES[params.objective](encoder, learnt)
    model = _counted(encoder.model, objective.decoder).to(encoder.device)
    order = np.argsort([len(ids) for ids in objective.tokens], kind="stable")
    n_rows, began, start = params.rows_a_round(), time.monotonic(), int(model.tokens)
    due_s = 0.0 if params.steps else 60 * params.minutes / params.checkpoints
    looked = began
    spots = np.linspace(0, len(order), n_rows, endpoint=False)

    def collate(which: Sequence[int]) -> dict[str, Tensor]:
        """A row stands for a stretch of the sentences by length: which of them it is this time is drawn."""
        at = spots[np.asarray(which)] + np.random.random(len(which)) * (len(order) / n_rows)
        return objective.collate(order[np.minimum(at.astype(np.int64), len(order) - 1)])

    def loss(batch: dict[str, Tensor]) -> Tensor:
        model.tokens += batch["attention_mask"].sum()
        return objective.loss(batch)

    def watch(_step: int) -> dict[str, float]:
        nonlocal looked
        now = time.monotonic()
        seen = {"tokens": int(model.tokens), "tokens_per_s": round((int(model.tokens) - start) / max(1e-9, now - began), 1)}
        if now - looked < due_s:
            return seen
        looked = now
        seen |= _figures(encoder, held)
        return seen if probe is None else {**seen, "probe_accuracy": probe(encoder)}

    plan = params.plan()
    subject = loop.Subject(
        model,
        loop.layerwise_groups(layers, objective.decoder, plan),
        [len(objective.tokens[order[int(spot)]]) for spot in spots],
        collate,
        loss,
        watch=watch,
        identity=f"sentence_adapt {encoder.sha256} {identity} {params.recipe()}",
    )
    outcome = loop.fit(subject, plan, report=report, checkpoint=checkpoint, device=torch.device(encoder.device), span=(0.05, 0.95))
    return outcome, int(model.tokens)


def _layers_that_learn(encoder: Encoder, n: int) -> list[nn.Module]:
    """Freeze the encoder but for its last n layers (0: all of them, and still not the embeddings), which are returned."""
    layers = layers_of(encoder.model)[1:]
    encoder.model.requires_grad_(False)
    for layer in layers[-n:]:
        layer.requires_grad_(True)
    return layers[-n:]


def _counted(encoder: nn.Module, decoder: nn.Module | None) -> nn.Module:
    """What the loop trains, with the tokens read so far as a buffer: so a resumed run's count is the whole run's."""
    import torch

    model = torch.nn.Module()
    model.encoder = encoder
    if decoder is not None:
        model.decoder = decoder
    model.register_buffer("tokens", torch.zeros((), dtype=torch.int64))
    return model


def _figures(encoder: Encoder, held: Sequence[str]) -> dict[str, float]:
    """How the vectors of held-back sentences lie. uniformity: log of the mean of exp(-2 d^2) over pairs (Wang and Isola 2020), lower is
    more even, 0 is a collapse; turned_similarity: mean cosine of a sentence and itself turned round."""
    found: dict[str, float] = {}
    if len(held) > 1:
        vectors = encoder.encode(list(held), batch=64)
        cosine = (vectors @ vectors.T)[np.triu_indices(len(held), k=1)]
        found["uniformity"] = float(np.log(np.exp(-4 * (1 - cosine)).mean()))
    pairs = [(sentence, turned(sentence)) for sentence in held if direction(sentence)]
    if pairs:
        one, other = (encoder.encode(list(side), batch=64) for side in zip(*pairs, strict=True))
        found["turned_similarity"] = float((one * other).sum(axis=1).mean())
    return found


# --- the objectives


def twins_loss(first: Tensor, second: Tensor) -> Tensor:
    """Mean over rows i of -log of the share that second[i] has in exp(cosine / TEMPERATURE) over all of second; rows have length 1."""
    import torch

    return torch.nn.functional.cross_entropy(first @ second.T / TEMPERATURE, torch.arange(len(first), device=first.device))


class _Twins:
    """simcse."""

    decoder = None

    def __init__(self, encoder: Encoder, texts: Sequence[str]):
        self._encoder, self._pad = encoder, encoder.tokenizer.pad_token_id
        self.tokens = [row["input_ids"] for row in encoder.tokenize(texts)[0]]

    def collate(self, which: np.ndarray) -> dict[str, Tensor]:
        """The sentences, and the same again: dropout tells them apart."""
        rows = [{"input_ids": self.tokens[i]} for i in which]
        return padded([*rows, *rows], pad=self._pad)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        first, second = self._encoder.pooled(batch).chunk(2)
        return twins_loss(first, second)


class _Groups:
    """polarity. A row is a sentence with a direction; with it go its turned form, and a sentence without one of about the same length."""

    decoder = None

    def __init__(self, encoder: Encoder, texts: Sequence[str]):
        self._encoder, self._pad = encoder, encoder.tokenizer.pad_token_id
        ways = [direction(sentence) for sentence in texts]
        pointing = [sentence for sentence, way in zip(texts, ways, strict=True) if way]
        still = [sentence for sentence, way in zip(texts, ways, strict=True) if way == 0]
        if min(len(pointing), len(still)) < LEAST_TEXTS:
            raise NotAdaptable(
                f"{len(pointing)} of {len(texts):,} sentences point up or down, {len(still)} point nowhere.",
                f"At least {LEAST_TEXTS} of each are needed, in English: choose another corpus, or the objective simcse.",
            )
        self._ways = np.array([way for way in ways if way])
        self.tokens, self._turned, self._still = (
            [row["input_ids"] for row in encoder.tokenize(some)[0]] for some in (pointing, [turned(each) for each in pointing], still)
        )
        self._still.sort(key=len)
        self._like = np.searchsorted([len(ids) for ids in self._still], [len(ids) for ids in self.tokens])

    def collate(self, which: np.ndarray) -> dict[str, Tensor]:
        """The sentences, their turned forms, as many without a direction; classes are 1, -1 and 0."""
        near = np.clip(self._like[which] + np.random.randint(-NEIGHBOURS, NEIGHBOURS + 1, len(which)), 0, len(self._still) - 1)
        rows = [*(self.tokens[i] for i in which), *(self._turned[i] for i in which), *(self._still[i] for i in near)]
        classes = np.concatenate([self._ways[which], -self._ways[which], np.zeros(len(which), np.int64)])
        return padded([{"input_ids": ids} for ids in rows], pad=self._pad, classes=classes)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        return contrastive_loss(self._encoder.pooled({k: batch[k] for k in ("input_ids", "attention_mask")}), batch["classes"])


class _Rewriting:
    """tsdae. The decoder is one layer and guesses among the tokens that the corpus has; the paper's is as large as the encoder."""

    def __init__(self, encoder: Encoder, texts: Sequence[str]):
        import torch

        self._encoder, self._pad = encoder, encoder.tokenizer.pad_token_id
        self._kept = np.array(encoder.tokenizer.all_special_ids)
        self.tokens = [row["input_ids"] for row in encoder.tokenize(texts)[0]]
        self._vocabulary = torch.from_numpy(np.unique(np.concatenate([np.asarray(ids) for ids in self.tokens])))
        self.decoder = _decoder(encoder, self._vocabulary.to(encoder.device))

    def collate(self, which: np.ndarray) -> dict[str, Tensor]:
        """What is left of each sentence, and the whole one: its tokens as `whole` (n, longest), by the decoder's numbers as `wanted`."""
        import torch

        rows = [{"input_ids": self.tokens[i]} for i in which]
        whole = padded(rows, pad=self._pad)
        wanted = torch.searchsorted(self._vocabulary, whole["input_ids"]).masked_fill(whole["attention_mask"] == 0, -100)
        left = padded([{"input_ids": deleted(row["input_ids"], self._kept, chance=np.random)} for row in rows], pad=self._pad)
        return {**left, "whole": whole["input_ids"], "wanted": wanted}

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        from torch.nn.functional import cross_entropy

        vectors = self._encoder.pooled({k: batch[k] for k in ("input_ids", "attention_mask")})
        scores = self.decoder(vectors, batch["whole"][:, :-1])
        return cross_entropy(scores.flatten(0, 1).float(), batch["wanted"][:, 1:].flatten())


def deleted(ids: Sequence[int], kept: np.ndarray, *, chance: Any) -> list[int]:
    """A sentence's tokens less DELETED of them, at least one stays; those in `kept` (special ones) always do. chance.random(n) draws."""
    places = np.flatnonzero(~np.isin(ids, kept))
    n_gone = min(round(DELETED * len(places)), max(0, len(places) - 1))
    gone = set(places[np.argsort(chance.random(len(places)), kind="stable")[:n_gone]].tolist())
    return [token for i, token in enumerate(ids) if i not in gone]


def _decoder(encoder: Encoder, vocabulary: Tensor) -> nn.Module:
    """forward(vectors (n, dim), tokens (n, t)) -> scores (n, t, len(vocabulary)) of the token after each. Raises NotAdaptable."""
    import torch
    from torch import nn

    table = encoder.model.get_input_embeddings()
    if table.weight.shape[1] != encoder.dim:
        raise NotAdaptable(f"The word vectors of {encoder.name} are not as wide as its states.", "Choose the objective simcse.")
    heads = int(encoder.model.config.num_attention_heads)

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Parameter(torch.zeros(encoder.max_tokens, encoder.dim))
            self.norm = nn.LayerNorm(encoder.dim)
            self.layer = nn.TransformerDecoderLayer(encoder.dim, heads, 2 * encoder.dim, activation="gelu", batch_first=True)
            self.bias = nn.Parameter(torch.zeros(len(vocabulary)))

        def forward(self, vectors, tokens):
            n = tokens.shape[1]
            states = self.norm(table(tokens) + self.places[:n])
            later = nn.Transformer.generate_square_subsequent_mask(n, device=tokens.device)
            memory = vectors.unsqueeze(1) * encoder.dim**0.5
            states = self.layer(states, memory, tgt_mask=later, tgt_is_causal=True)
            return nn.functional.linear(states, table.weight[vocabulary], self.bias)

    return Decoder()


_OBJECTIVES: dict[str, Callable[[Encoder, Sequence[str]], Any]] = {
    "simcse": _Twins,
    "tsdae": _Rewriting,
    "polarity": _Groups,
}
