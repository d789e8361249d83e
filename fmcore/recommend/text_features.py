"""What a text says, as numbers: the encoder's embedding, the words that many items share, and the year that it names.

Owns how these three are brought to one scale and kept, so that an item that comes later is read in the same way. Learns nothing of
people and loads no encoder.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

EMBEDDED = 192
"""Directions of the embeddings that are kept, those in which items differ most."""
WORDS, LEAST_ITEMS, MOST_SHARE = 300, 10, 0.9
"""Words that are counted: the most frequent ones that stand in at least so many items, and not in nearly all."""
YEARS = tuple(range(1920, 2031, 5))
_YEAR_WIDTH = 5.0
_YEAR = re.compile(r"(?<!\d)((?:18|19|20)\d\d)(?!\d)")
_WORD = re.compile(r"[^\W\d_][\w'-]+")


@dataclass(frozen=True, eq=False)
class Features:
    """What is needed to read an item: arrays by name, all float32, and the words in order."""

    words: tuple[str, ...]
    arrays: dict[str, np.ndarray]
    """mean (d,), directions (d, e), idf (words,), centre (f,), scale (f,) of all f = e + words + years columns."""

    @property
    def size(self) -> int:
        """How many columns there are."""
        return len(self.arrays["centre"])

    @property
    def embedded(self) -> int:
        """How many of them, the first, are the embedding."""
        return self.arrays["directions"].shape[1]

    def of(self, texts: Sequence[str], vectors: np.ndarray) -> np.ndarray:
        """float32 (n, size): each of the three parts has mean 0 and, over the items it was learnt from, a mean square of 1 a row."""
        raw = _raw(texts, vectors, self.words, self.arrays)
        return ((raw - self.arrays["centre"]) * self.arrays["scale"]).astype(np.float32)


def learn(texts: Sequence[str], vectors: np.ndarray) -> Features:
    """Features of a catalogue: its texts, and their embeddings float32 (n, d)."""
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = (vectors - mean).astype(np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)
    words = _words(texts)
    n_with = np.array([n for _, n in words], dtype=np.float64)
    arrays = {
        "mean": mean,
        "directions": np.ascontiguousarray(directions[:, ::-1][:, :EMBEDDED]).astype(np.float32),
        "idf": np.log(len(texts) / np.maximum(n_with, 1)).astype(np.float32),
    }
    names = tuple(word for word, _ in words)
    raw = _raw(texts, vectors, names, arrays)
    centre = raw.mean(axis=0)
    scale = np.concatenate([np.full(part.shape[1], _one(part)) for part in _parts(raw - centre, n_words=len(names))])
    return Features(names, {**arrays, "centre": centre.astype(np.float32), "scale": scale.astype(np.float32)})


def year(text: str) -> int | None:
    """The last year that a text names (1800 to 2099); None where it names none."""
    found = _YEAR.findall(text)
    return int(found[-1]) if found else None


def _one(part: np.ndarray) -> float:
    """What brings the mean square of a part's rows to 1; 0 for a part in which nothing differs."""
    square = float(np.square(part).sum(axis=1).mean()) if part.size else 0.0
    return 1 / np.sqrt(square) if square > 1e-9 else 0.0


def _parts(raw: np.ndarray, *, n_words: int) -> list[np.ndarray]:
    n_years = len(YEARS)
    n_embedded = raw.shape[1] - n_words - n_years
    return np.split(raw, [n_embedded, n_embedded + n_words], axis=1)


def _raw(texts: Sequence[str], vectors: np.ndarray, words: Sequence[str], arrays: dict[str, np.ndarray]) -> np.ndarray:
    embedded = (np.asarray(vectors, dtype=np.float32) - arrays["mean"]) @ arrays["directions"]
    place = {word: i for i, word in enumerate(words)}
    counted = np.zeros((len(texts), len(words)), dtype=np.float32)
    for row, text in enumerate(texts):
        counted[row, [place[word] for word in set(_WORD.findall(text.lower())) if word in place]] = 1
    counted *= arrays["idf"]
    length = np.linalg.norm(counted, axis=1, keepdims=True)
    counted = np.divide(counted, length, out=counted, where=length > 0)
    years = np.array([year(text) or np.inf for text in texts])
    near = np.exp(-0.5 * ((years[:, None] - np.array(YEARS)) / _YEAR_WIDTH) ** 2).astype(np.float32).reshape(len(texts), len(YEARS))
    return np.concatenate([embedded, counted, near], axis=1)


def _words(texts: Sequence[str]) -> list[tuple[str, int]]:
    """(word, in how many items it stands), the most frequent first."""
    counts = Counter(word for text in texts for word in set(_WORD.findall(text.lower())))
    kept = [(word, n) for word, n in counts.items() if n >= LEAST_ITEMS and n <= MOST_SHARE * len(texts)]
    return sorted(kept, key=lambda each: (-each[1], each[0]))[:WORDS]
