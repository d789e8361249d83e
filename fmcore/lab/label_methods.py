"""The methods that the label study puts side by side: each turns some labelled rows into answers for the test rows.

Owns what a method is called, what it costs in row passes, and the descriptions of labels that zero-shot goes by. Trains through training/
only and exports nothing: answers come from the PyTorch encoder, or from cached embeddings where the encoder stays as it is.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fmcore.config import settings
from fmcore.data.labelled import LabelledData
from fmcore.models.encoder import EmbeddingCache, Encoder, load_encoder
from fmcore.models.heads import fit_logistic
from fmcore.nouns import Report
from fmcore.training.finish import label_name
from fmcore.training.linear import NAME_WEIGHT, few_shot

if TYPE_CHECKING:
    from fmcore.lab.label_study import Asked

ALL = -1
"""Shots: every training row."""
BATCH = 64
TIMED, ROUNDS = 32, 5
"""Texts that the speed of embedding is measured on, and how often: the median counts."""
CONTRAST_STEP = 64
"""Texts of a step of contrast.tune, which makes one at least however few rows there are."""

DESCRIPTIONS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "sentiment": {
        "negative": (
            "Bad news for the company: profit, sales or orders fell.",
            "The result was worse than expected: a loss, a warning, job cuts, a lawsuit.",
        ),
        "neutral": (
            "The company announced a fact that is neither good nor bad news.",
            "A description of a company, a location, an appointment, a date or the terms of an agreement.",
        ),
        "positive": (
            "Good news for the company: profit, sales or orders rose.",
            "The result was better than expected: growth, a new contract, a higher dividend.",
        ),
    },
    "topic": {
        "Analyst Update": ("An analyst raises or cuts a stock's rating or price target.",),
        "Fed | Central Banks": ("A central bank such as the Federal Reserve decides or speaks about interest rates.",),
        "Company | Product News": ("A company presents a product, a service or a partnership.",),
        "Treasuries | Corporate Debt": ("Government and corporate bonds, their yields and issues.",),
        "Dividend": ("A company declares or changes its dividend.",),
        "Earnings": ("A company reports quarterly results: earnings per share and revenue.",),
        "Energy | Oil": ("Oil, gas and energy prices and production.",),
        "Financials": ("Banks, lenders and insurers.",),
        "Currencies": ("Exchange rates, currencies and cryptocurrencies.",),
        "General News | Opinion": ("General news and opinion about society, not about a company's shares.",),
        "Gold | Metals | Materials": ("Gold, silver, copper and other metals and materials.",),
        "IPO": ("A company goes public in an initial public offering.",),
        "Legal | Regulation": ("A lawsuit, a court, a fine or a regulator.",),
        "M&A | Investments": ("A merger, an acquisition or an investment in another company.",),
        "Macro": ("Economic data: inflation, growth, jobs, trade.",),
        "Markets": ("Stock markets and indexes rise or fall today.",),
        "Politics": ("Politicians, elections, governments and their policies.",),
        "Personnel Change": ("A company appoints, replaces or loses a chief executive or director.",),
        "Stock Commentary": ("A comment on whether a stock is worth buying.",),
        "Stock Movement": ("A single company's share price moves up or down.",),
    },
}
"""task -> label -> what it means in words. A label that is not here goes by its name."""


@dataclass(frozen=True)
class Method:
    """One way to a classifier. recipe: what job finetune calls it, "" where that trains no such thing; passes(asked, rows, shots): how many
    rows go through an encoder with gradients, what its time grows with; 0 for a method that takes seconds."""

    name: str
    title: str
    recipe: str
    train: Callable[[Bench, LabelledData, int, int, Report], Trained]
    passes: Callable[[Asked, int, int], float]


@dataclass(frozen=True)
class Trained:
    """A finished training: classes(texts) -> int64 (n,); trainable parameters; extra_s of work that a cache spared it here."""

    classes: Callable[[list[str]], np.ndarray]
    trainable: int
    extra_s: float = 0.0


class Bench:
    """What all cells share: the data, the encoders as loaded, and their embeddings. Nothing here is changed by a cell."""

    def __init__(self, data: LabelledData, asked: Asked, *, report: Report):
        self.data, self.asked = data, asked
        self.labels = sorted(set(data.train["label"]))
        self._order = {label: i for i, label in enumerate(self.labels)}
        self.test = test_rows(data, asked.test_rows)
        self.texts = self.test["text"].tolist()
        self.truth = self.test["label"].map(self._order).to_numpy(dtype=np.int64)
        self._encoders: dict[str, Encoder] = {}
        self._embedded: dict[str, dict[str, np.ndarray]] = {}
        self._pace: dict[str, float] = {}
        self._report = report

    def encoder(self, name: str) -> Encoder:
        """The encoder of that name as loaded, for reading only."""
        if name not in self._encoders:
            self._encoders[name] = load_encoder(name, max_tokens=self.asked.max_tokens, device=self.asked.device)
        return self._encoders[name]

    def fresh(self, name: str) -> Encoder:
        """A copy of it that may be trained."""
        own = self.encoder(name)
        return replace(own, model=copy.deepcopy(own.model))

    def rows(self, shots: int, seed: int) -> LabelledData:
        """The data with that many training rows a class, the same for every method; ALL leaves it as it is."""
        return self.data if shots == ALL else few_shot(self.data, shots=shots, seed=seed)

    def classes_of(self, labels: Sequence[str]) -> np.ndarray:
        return np.array([self._order[label] for label in labels], dtype=np.int64)

    def prepare(self, name: str) -> None:
        """Embed every text of the study with the untuned encoder, or take it from the cache: once, before the first cell."""
        known = list(dict.fromkeys([*self.data.train["text"], *self.data.validation["text"], *self.texts, *map(label_name, self.labels)]))
        cache, said = EmbeddingCache(settings().home / "cache" / "embeddings"), f"Embedding {len(known):,} texts, which every cell shares"
        matrix = cache.encode(
            self.encoder(name), known, batch=BATCH, progress=lambda done: self._report.progress(0.0, f"{said}: {done:.0%}")
        )
        self._embedded[name] = dict(zip(known, matrix, strict=True))

    def embeddings(self, name: str, texts: list[str]) -> np.ndarray:
        """float32 (n, dim) of texts of the study, from the untuned encoder."""
        if name not in self._embedded:
            self.prepare(name)
        return np.stack([self._embedded[name][t] for t in texts])

    def embed_s(self, name: str, n: int) -> float:
        """Seconds that embedding so many texts takes here: measured once, on drawn texts of the study."""
        if name not in self._pace:
            texts, took = self.data.train["text"], []
            sample = texts.sample(min(TIMED, len(texts)), random_state=0).tolist()
            for _ in range(ROUNDS):
                began = time.perf_counter()
                self.encoder(name).encode(sample, batch=BATCH)
                took.append((time.perf_counter() - began) / len(sample))
            self._pace[name] = float(np.median(took))
        return n * self._pace[name]


def test_rows(data: LabelledData, most: int) -> Any:
    """The test rows in scope; where there are more than `most` (above 0), a sample of them that no seed of the study changes."""
    known = data.test[data.test["label"].isin(set(data.train["label"]))].reset_index(drop=True)
    if not most or len(known) <= most:
        return known
    return known.iloc[np.sort(np.random.default_rng(0).choice(len(known), most, replace=False))].reset_index(drop=True)


def described(task: str, labels: Sequence[str]) -> list[list[str]]:
    """What stands for each label in zero-shot: its descriptions, or its name as words."""
    known = DESCRIPTIONS.get(task, {})
    return [list(known.get(label) or [label_name(label)]) for label in labels]


def shots_words(shots: int) -> str:
    """A number of examples in words."""
    return {0: "no labels", ALL: "all labels"}.get(shots, f"{shots} per class")


# ---------------------------------------------------------------- the methods


def _zero_shot(bench: Bench, learnt: LabelledData, shots: int, seed: int, report: Report) -> Trained:
    """The label whose embedded descriptions are nearest by cosine. Reads no label at all."""
    encoder = bench.encoder(bench.asked.base)
    texts = described(bench.asked.task, bench.labels)
    centres = np.stack([encoder.encode(each, batch=BATCH).mean(axis=0) for each in texts])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return Trained(lambda asked: (bench.embeddings(bench.asked.base, asked) @ centres.T).argmax(axis=1), 0)


def _frozen(bench: Bench, learnt: LabelledData, shots: int, seed: int, report: Report) -> Trained:
    return _linear(bench, bench.asked.base, learnt, shots)


def _adapted(bench: Bench, learnt: LabelledData, shots: int, seed: int, report: Report) -> Trained:
    return _linear(bench, bench.asked.adapted, learnt, shots)


def _linear(bench: Bench, base: str, learnt: LabelledData, shots: int) -> Trained:
    """A logistic head on the embeddings of an encoder that stays as it is."""
    rows = learnt.train["text"].tolist()
    classes = _headed(bench, lambda texts: bench.embeddings(base, texts), learnt, shots)
    size = (bench.encoder(base).dim + 1) * len(bench.labels)
    return Trained(classes, size, extra_s=bench.embed_s(base, len(rows)))


def _headed(bench: Bench, embed: Callable[[list[str]], np.ndarray], learnt: LabelledData, shots: int) -> Callable:
    """Texts -> classes by a logistic head on the training rows; with few of them the labels' names count as examples too."""
    texts, classes = learnt.train["text"].tolist(), bench.classes_of(learnt.train["label"])
    weights = np.ones(len(texts))
    if shots != ALL:
        texts = [*texts, *map(label_name, bench.labels)]
        classes = np.append(classes, np.arange(len(bench.labels)))
        weights = np.append(weights, np.full(len(bench.labels), NAME_WEIGHT))
    head = fit_logistic(embed(texts), classes, n_classes=len(bench.labels), weights=weights)
    return lambda asked: head.scores(embed(asked)).argmax(axis=1)


def _tuned(recipe: str) -> Callable[[Bench, LabelledData, int, int, Report], Trained]:
    def train(bench: Bench, learnt: LabelledData, shots: int, seed: int, report: Report) -> Trained:
        from fmcore.training import finetune

        asked = bench.asked
        params = finetune.Tuning(
            recipe=recipe, base=asked.base, epochs=asked.epochs if shots == ALL else asked.few_epochs, batch=asked.batch,
            learning_rate=asked.learning_rate, shots=0 if shots == ALL else shots, seed=seed, max_tokens=asked.max_tokens,
            threads=asked.threads, device=asked.device,
        )  # fmt: skip
        trainable = _trainable(bench, recipe)
        encoder, _, _ = finetune.tune(bench.fresh(asked.base), learnt, params, report=report)
        classes = _headed(bench, lambda texts: encoder.encode(texts, batch=BATCH), learnt, shots)
        return Trained(classes, trainable, extra_s=bench.embed_s(asked.base, len(learnt.train)))  # the head starts from cached embeddings

    return train


def _setfit(bench: Bench, learnt: LabelledData, shots: int, seed: int, report: Report) -> Trained:
    """Rows of one class pulled together first, then a head (Tunstall et al. 2022, with a supervised contrastive loss over batches)."""
    from fmcore.training import contrast

    asked = bench.asked
    params = contrast.Contrast(
        base=asked.base, shots=0 if shots == ALL else shots, seed=seed, max_tokens=asked.max_tokens, threads=asked.threads,
        device=asked.device,
    )  # fmt: skip
    trainable = _trainable(bench, "full")
    encoder, _ = contrast.tune(bench.fresh(asked.base), learnt, params, report=report)
    return Trained(_headed(bench, lambda texts: encoder.encode(texts, batch=BATCH), learnt, shots), trainable)


def _scratch(bench: Bench, learnt: LabelledData, shots: int, seed: int, report: Report) -> Trained:
    from fmcore.training import scratch
    from fmcore.training.finetune import rows_of

    data = replace(learnt, train=rows_of(learnt, with_names=shots != ALL))
    params = scratch.Scratch(batch=bench.asked.batch, steps=bench.asked.scratch_steps, early_stop=shots == ALL, seed=seed)
    made = scratch.train(data, params, bench.encoder(bench.asked.base), report=report)
    return Trained(made.classes, made.trainable)


def _trainable(bench: Bench, recipe: str) -> int:
    """Parameters that the recipe trains, the head's included."""
    from fmcore.training.finetune import prepare_network

    network, _, _ = prepare_network(bench.fresh(bench.asked.base), recipe)
    return sum(p.numel() for p in network.parameters() if p.requires_grad) + (bench.encoder(bench.asked.base).dim + 1) * len(bench.labels)


def _epochs(asked: Asked, rows: int, shots: int) -> float:
    return rows * (asked.epochs if shots == ALL else asked.few_epochs)


def _scratch_passes(asked: Asked, rows: int, shots: int) -> float:
    return 10 * rows if shots == ALL else asked.scratch_steps * min(rows, asked.batch)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("zero_shot", "Zero-shot by descriptions", "", _zero_shot, lambda asked, rows, shots: 0),
        Method("frozen", "Frozen + linear", "linear", _frozen, lambda asked, rows, shots: 0),
        Method("adapted", "Further pretrained + linear", "linear", _adapted, lambda asked, rows, shots: 0),
        Method("scratch", "From scratch", "", _scratch, _scratch_passes),
        Method("lora", "LoRA", "lora", _tuned("lora"), _epochs),
        Method("full", "Full tuning", "full", _tuned("full"), _epochs),
        Method("setfit", "Contrastive (SetFit-style)", "contrast", _setfit, lambda asked, rows, shots: max(CONTRAST_STEP, 4 * rows)),
    )
}  # fmt: skip
"""In the order of what they cost."""
REPEATABLE = ("zero_shot", "frozen", "adapted")
"""Methods without chance of their own: with the same rows they answer the same, so all rows need one seed only."""
