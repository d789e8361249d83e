"""What the parts of benchmarks/explain.py share: the model, the held-back texts in a fixed random order, the reference's model.

No head that is explained here ever learnt from a text that is measured on.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fmcore.data import catalogue
from fmcore.evaluation.metrics import bootstrap, figure
from fmcore.explain import words
from fmcore.explain.attributions import Attribution, Score
from fmcore.explain.words import Words
from fmcore.models.classifier import Classifier
from fmcore.models.heads import Head, fit_logistic
from fmcore.models.served_encoder import ServedEncoder

MAX_TOKENS = 64

Explainer = Callable[[Words, np.ndarray], Attribution]


class Quiet:
    """A report for a terminal: one line that is written over."""

    def progress(self, fraction: float, message: str = "") -> None:
        print(f"\r  {fraction:4.0%} {message[:90]:<90}", end="", file=sys.stderr, flush=True)

    def metric(self, step: int, **values: float) -> None: ...

    def device(self, name: str) -> None: ...


class Embedded:
    """Embeddings by text, kept: many methods ask for the same masked texts. Never used where CPU is measured."""

    def __init__(self, classifier: Classifier):
        self._embed, self._known = classifier.embed, {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._embed(new)[0], strict=True))
        return np.stack([self._known[text] for text in texts])


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
    """The model, its scores with and without the kept embeddings, and the held-back texts in a fixed random order."""

    folder: Path
    encoder: ServedEncoder
    classifier: Classifier
    texts: list[str]
    labels: list[str]
    split_note: str
    embedded: Embedded

    @classmethod
    def make(cls, folder: Path) -> Bench:
        encoder = ServedEncoder(folder, max_tokens=MAX_TOKENS, threads=1)
        classifier = Classifier.load_without_encoder(folder, version="benchmark").with_embedder(encoder.embed)
        if classifier.heldout_seen.any():
            sys.exit(f"The head in {folder} was refitted on the held-back rows. Leave --model out: one is trained that was not.")
        data = catalogue.load("banking77")
        rows = data.test[data.test["label"] != "oos"]
        order = np.random.default_rng(0).permutation(len(rows))
        texts, labels = (rows[column].to_numpy()[order].tolist() for column in ("text", "label"))
        return cls(folder, encoder, classifier, texts, labels, data.split_note, Embedded(classifier))

    def fresh(self, texts: Sequence[str]) -> np.ndarray:
        """The served model's probabilities as a desk's explanations ask for them, nothing kept: what CPU is measured on."""
        return self.classifier.probabilities(self.classifier.embed(list(texts))[0], lexical=self.classifier.lexical_scores(list(texts)))

    def served(self, texts: Sequence[str]) -> np.ndarray:
        """The same, embeddings kept."""
        return self.classifier.probabilities(self.embedded(list(texts)), lexical=self.classifier.lexical_scores(list(texts)))

    def head(self) -> Head:
        """The reference's head: logistic regression with C=10 on the rows the served head learnt from."""
        place = {label: i for i, label in enumerate(self.classifier.labels)}
        known = self.classifier.reference
        classes = np.array([place[label] for label in known.labels])
        return fit_logistic(known.embeddings, classes, n_classes=len(place))

    def pieces(self, text: str) -> Words:
        """The text in the tokens of the encoder's WordPiece."""
        tokens = self.encoder.tokenizer.encode(text, add_special_tokens=False)
        return Words(text, tuple((a, b) for a, b in tokens.offsets if b > a))

    def drawn(self, n: int, least: int, most: int) -> list[str]:
        """The first n held-back texts of so many words."""
        return [text for text in self.texts if least <= len(words.split(text)) <= most][:n]


def softmax_of(head: Head, embed: Embedded) -> Score:
    """Probabilities of a logistic head, no temperature."""

    def score(texts: Sequence[str]) -> np.ndarray:
        scores = head.scores(embed(list(texts))).astype(float)
        exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
        return exponents / exponents.sum(axis=1, keepdims=True)

    return score


def trained(out: Path) -> None:
    """A `linear` model whose head never sees the held-back rows: they are declared to be a publisher's, which no refit may touch."""
    from fmcore.training import linear

    data = dataclasses.replace(catalogue.load("banking77"), test_is_publishers=True)
    linear.train(data, linear.LinearParams(), out, Quiet())
    print("\r" + " " * 100 + "\r", end="", file=sys.stderr)


def aimed(score: Score, text: str) -> np.ndarray:
    """Target: the model's own answer."""
    answer = score([text])[0]
    return np.eye(len(answer))[int(answer.argmax())]


def say(value: dict | None) -> str:
    """A figure as text."""
    return "none" if value is None else f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f}, n {value['n']})"


def middle(values: np.ndarray) -> dict | None:
    """The median with its interval, as JSON."""
    return figure(bootstrap(lambda rows: float(np.median(values[rows])), len(values), resamples=1000))
