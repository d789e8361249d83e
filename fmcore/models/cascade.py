"""The cascade: a fast model answers first, and only the texts it is not sure of go on to the full one (Viola and Jones 2001; for
language models Varshney and Baral 2022).

A text goes on when the two most probable labels are closer than a margin, when the fast model would call it out of scope, or when it has
no words. The margin is chosen on validation rows (training/cascade.py) and stands in cascade.json. To everything that asks for more than an
answer (embeddings, known examples, teaching) a cascade is its full model; a cascade that was taught something asks the full model alone.

On disk: cascade.json, the cascade's own model.json, heldout.parquet and metrics, and the two models in fast/ and full/.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fmcore import text
from fmcore.models.classifier import CASCADE as FILE
from fmcore.models.classifier import HELDOUT_COLUMNS, BadModel, Classifier
from fmcore.nouns import Prediction

FORMAT = 1
FAST, FULL = "fast", "full"
BY_FAST = "Answered by the fast stage, which is sure of it."
BY_FULL = "Answered by the full model, which the fast stage passed it on to."


class Tally:
    """How many texts were asked, and how many of them went on to the full model, since this process loaded the model."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.n_asked = self.n_sent = 0

    def add(self, n_asked: int, n_sent: int) -> None:
        with self._lock:
            self.n_asked += n_asked
            self.n_sent += n_sent

    @property
    def share_sent(self) -> float | None:
        """In [0, 1]; None before the first text."""
        return self.n_sent / self.n_asked if self.n_asked else None


@dataclass(frozen=True, eq=False)
class Cascade(Classifier):
    """The full model's fields, and the fast model in front of it. margin in [0, 1]: a text whose two most probable labels are less than
    that apart, by the fast model's calibrated probabilities, goes on. share_expected: how many did on validation rows."""

    fast: Classifier | None = None
    margin: float = 1.0
    share_expected: float = 1.0
    tally: Tally = field(default_factory=Tally)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One Prediction a text, in order, all under the cascade's version; the reason says which model answered."""
        if not self._asks_fast:
            return super().predict(texts)
        answers = self.fast.predict(texts)
        sent = [i for i, answer in enumerate(answers) if goes_on(answer, self.margin)]
        self.tally.add(len(answers), len(sent))
        second = dict(zip(sent, super().predict([texts[i] for i in sent]), strict=True))
        return [self._said(second.get(i, answer), BY_FULL if i in second else BY_FAST) for i, answer in enumerate(answers)]

    def probabilities_of(self, texts: Sequence[str]) -> np.ndarray:
        """float64 (n, labels): of each text those of the model that answers it, so that explanations are of what is served."""
        if not self._asks_fast or not len(texts):
            return super().probabilities_of(texts)
        embeddings = self.fast.embed(texts)[0]
        scores = self.fast.scale(embeddings)
        chances = self.fast.probabilities(embeddings)
        wordless = np.array([not any(c.isalnum() for c in text.clean(t)[0]) for t in texts])
        strange = wordless | (self.fast.novelty.score(embeddings, scores) > self.fast.threshold)
        sent = np.flatnonzero(unsure(chances, self.margin) | strange)
        self.tally.add(len(texts), len(sent))
        if len(sent):
            chances[sent] = super().probabilities_of([texts[i] for i in sent])
        return chances

    def read_to(self, cleaned: str) -> int:
        """How many characters of a cleaned text an answer may rest on: what the model that reads further reads."""
        return max(super().read_to(cleaned), self.fast.read_to(cleaned)) if self._asks_fast else super().read_to(cleaned)

    @property
    def share_sent(self) -> float | None:
        """The share of texts that went on to the full model since this one was loaded; None before the first text."""
        return self.tally.share_sent

    @property
    def _asks_fast(self) -> bool:
        """Whether the fast model knows the same labels: not once the full one was taught another."""
        return self.fast is not None and self.fast.labels == self.labels

    def _said(self, answer: Prediction, stage: str) -> Prediction:
        return dataclasses.replace(answer, version=self.version, reason=f"{answer.reason} {stage}")

    @classmethod
    def load(cls, folder: Path, *, version: str, threads: int = 0) -> Cascade:
        """The cascade of a folder with both its models. Raises BadModel when one of them is not there or they do not fit together."""
        folder = Path(folder)
        parts = {name: Classifier.load(folder / name, version=version, threads=threads) for name in (FAST, FULL)}
        return cls._of(folder, parts[FAST], parts[FULL])

    @classmethod
    def load_without_encoder(cls, folder: Path, *, version: str) -> Cascade:
        """All but the encoders: enough for labels, examples and held-out answers."""
        folder = Path(folder)
        parts = {name: Classifier.load_without_encoder(folder / name, version=version) for name in (FAST, FULL)}
        return cls._of(folder, parts[FAST], parts[FULL])

    @classmethod
    def _of(cls, folder: Path, fast: Classifier, full: Classifier) -> Cascade:
        try:
            facts = json.loads((folder / FILE).read_text(encoding="utf-8"))
            info = json.loads((folder / "model.json").read_text(encoding="utf-8"))["info"]
            table = pd.read_parquet(folder / "heldout.parquet", columns=HELDOUT_COLUMNS)
            margin, share = (float(facts[key]) for key in ("threshold", "share_expected"))
            if facts["format"] != FORMAT or not 0.0 <= margin <= 1.0 or not 0.0 <= share <= 1.0:
                raise ValueError(f"{FILE} is of another format, or its numbers are not shares")
            if fast.labels != full.labels or type(full) is not Classifier or type(fast) is not Classifier:
                raise ValueError("its two models do not know the same labels")
        except Exception as problem:  # a damaged file fails in any of three parsers; each failure means the same here
            raise BadModel(f"{folder.name} cannot be loaded: {problem}.", "Make it again, or roll back to another version.") from problem
        kept: dict[str, Any] = {each.name: getattr(full, each.name) for each in dataclasses.fields(Classifier)}
        kept |= {"info": info, "heldout_table": table}
        return cls(**kept, fast=fast, margin=margin, share_expected=share)


def goes_on(answer: Prediction, margin: float) -> bool:
    """Whether the full model has to answer: the fast one is unsure of the label, or takes the text to be out of scope."""
    chances = list(answer.scores.values())[:2]
    return not answer.in_scope or chances[0] - (chances[1] if len(chances) > 1 else 0.0) < margin


def unsure(chances: np.ndarray, margin: float) -> np.ndarray:
    """bool (n,): rows whose two largest probabilities are less than margin apart. chances (n, labels), at least two."""
    return margins(chances) < margin


def margins(chances: np.ndarray) -> np.ndarray:
    """float64 (n,): the largest probability of each row less its second largest."""
    top = np.partition(chances, -2, axis=1)[:, -2:]
    return top[:, 1] - top[:, 0]
