"""What a base model in pretraining is asked at each checkpoint: hidden words of texts held back, sentiment from its frozen embedding, and
fixed sentences to fill in.

Each question stays the same over a run, so that two checkpoints differ by what was learnt alone. Never learns anything itself but the
probe's logistic head, on training rows; its figure is over validation rows, never test rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmcore.config import settings
from fmcore.data import catalogue
from fmcore.models import bases, fill_mask
from fmcore.models.encoder import Encoder
from fmcore.models.heads import fit_logistic
from fmcore.training import devices
from fmcore.training.checkpoint import CheckpointNotSaved
from fmcore.training.mask_filling import NO_WORD
from fmcore.training.packing import NothingToPack

if TYPE_CHECKING:
    from torch import Tensor, nn

ROWS = 1000
"""Packed rows held back that are asked at most; of fewer rows each is asked again with other words hidden, MOST_TIMES at most."""
MOST_TIMES = 4
FORWARD = 64
PROBE_ROWS = 400
"""Training rows, and as many validation rows, of the sentiment probe."""
SENTENCES = (
    "Net profit [MASK] to EUR 13.1 million from EUR 8.7 million a year earlier.",
    "Shares of the company [MASK] after the earnings report.",
    "The central bank raised interest [MASK].",
    "Net sales in the third [MASK] were higher than expected.",
    "Oil [MASK] fell on fears of weak demand.",
    "The stock [MASK] closed lower on Friday.",
)
WORDS_KEPT = 10


class Exam:
    """The same words hidden in the same rows held back, whenever it is asked. n: hidden pieces."""

    def __init__(self, run: Any, *, n_rows: int):
        self._run = run
        ids, words, relation = run.held.ids[:n_rows], run.held.words[:n_rows], run.held.relation[:n_rows]
        chance = np.random.default_rng(run.params.seed)
        times = max(1, min(MOST_TIMES, n_rows // max(1, len(ids))))
        self._batches = [
            run.batch(ids[i : i + FORWARD], words[i : i + FORWARD], relation[i : i + FORWARD], chance=chance, exam=True)
            for _ in range(times)
            for i in range(0, len(ids), FORWARD)
        ]
        asked = np.concatenate([batch["targets"][batch["targets"] != NO_WORD].numpy() for batch in self._batches])
        if not len(asked):
            raise NothingToPack("The vocabulary knows no word of the texts held back.", "Choose another corpus, or start from scratch.")
        self.n = len(asked)
        self.unigram = float(np.bincount(asked).max() / len(asked))

    def result(self) -> dict[str, float]:
        """val_loss (nats a hidden piece), masked_accuracy, unigram_accuracy (the one piece that is hidden most often, always guessed: the
        best that ignores the text), and pair_accuracy where the objective has pairs."""
        from torch.nn.functional import cross_entropy

        model, loss, right, alike, pairs = self._run.model, 0.0, 0, 0, 0
        for cpu in self._batches:
            batch = devices.to_device(cpu, self._run.device)
            states = states_of(model, batch)
            rows, places = (batch["targets"] != NO_WORD).nonzero(as_tuple=True)
            scores, wanted = model["words"].scores(states[rows, places]).float(), batch["targets"][rows, places]
            loss += float(cross_entropy(scores, wanted, reduction="sum"))
            right += int((scores.argmax(dim=1) == wanted).sum())
            if "relation" in model:
                alike += int((model["relation"](states[:, 0]).argmax(dim=1) == batch["relation"]).sum())
                pairs += len(states)
        found = {"val_loss": loss / self.n, "masked_accuracy": right / self.n, "unigram_accuracy": self.unigram}
        return {**found, "pair_accuracy": alike / pairs} if pairs else found


def states_of(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """(rows, tokens, width): what the encoder makes of a batch."""
    given = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}
    return model["words"].encoder(**given).last_hidden_state


@dataclass(frozen=True, eq=False)
class Probe:
    """A sentiment set's rows for a logistic head on frozen embeddings; name says which."""

    name: str
    texts: tuple[list[str], list[str]]
    classes: tuple[np.ndarray, np.ndarray]
    n_classes: int

    @classmethod
    def of(cls, *, seed: int) -> Probe:
        """Financial PhraseBank where it is on this machine, else the built-in demo."""
        name = "financial_phrasebank" if catalogue.dataset("financial_phrasebank").state != "missing" else "demo_sentiment"
        data = catalogue.load(name)
        parts = [part.sample(min(PROBE_ROWS, len(part)), random_state=seed) for part in (data.train, data.validation)]
        order = {label: i for i, label in enumerate(data.labels)}
        texts = tuple(part["text"].tolist() for part in parts)
        return cls(name, texts, tuple(part["label"].map(order).to_numpy(dtype=np.int64) for part in parts), len(data.labels))

    def accuracy(self, encoder: Encoder) -> float:
        """Share of validation rows told right from the frozen mean-pooled embedding."""
        learnt, asked = (encoder.encode(texts, batch=FORWARD) for texts in self.texts)
        head = fit_logistic(learnt, self.classes[0], n_classes=self.n_classes)
        return float((head.scores(asked).argmax(axis=1) == self.classes[1]).mean())


def keep(run: Any, step: int) -> list[dict[str, Any]]:
    """Write the served form of the weights at a step, and what it puts into SENTENCES: rows of bases.FILLED_COLUMNS.

    Raises CheckpointNotSaved when the disk is full; the forms before stay.
    """
    import torch

    folder: Path = run.kept / str(step)
    try:
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(run.device.type, enabled=False):  # it is compared to the digit
            probes = [sentence.replace(fill_mask.MASK, "rose") for sentence in SENTENCES]
            served = fill_mask.save(run.words, run.encoder, folder, probes=probes, about={"step": step, "base": run.encoder.name})
    except OSError as error:
        raise CheckpointNotSaved(
            f"The checkpoint at step {step} could not be kept ({error}).", "Free some disk space, then resume."
        ) from error
    return [
        {"step": step, "sentence": sentence, "mask": filled.place, "rank": rank, "token": token, "probability": probability}
        for sentence in SENTENCES
        for filled in _filled(served, sentence)
        for rank, (token, probability) in enumerate(zip(filled.words, filled.probabilities, strict=True), start=1)
    ]


def _filled(served: fill_mask.FillMask, sentence: str) -> list[fill_mask.Filled]:
    """Nothing for a sentence whose mask lies beyond what a very short model reads."""
    try:
        return served.fill(sentence, WORDS_KEPT)
    except fill_mask.NothingToFill:
        return []


def head_of(base: str) -> Mapping[str, Tensor]:
    """The words' head that was trained with a base of the shelf; {} for any other base, which has none."""
    from safetensors.torch import load_file

    if not base.startswith(bases.PREFIX):
        return {}
    path = bases.get(settings().home, base.removeprefix(bases.PREFIX)).path / bases.HEAD
    return load_file(path) if path.is_file() else {}
