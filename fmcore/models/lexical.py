"""Lexical scores: a linear model on the words of a text and the letters within them, to stand beside an embedding.

A sentence vector says what a text is about and loses which way it points ("rose", "fell"); words and word parts keep that. Features
are word sequences and character sequences inside words, weighted by tf-idf, each kind of length 1, as in Manning et al. 2008, 6.4.
Serving needs numpy and scipy only; stored as safetensors and a JSON vocabulary, which names only what stands in several texts.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmcore import text
from fmcore.models.heads import fit_logistic

WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)?|[%$€£]")
NUMBER = "0"
"""Every number is read as this one: which number it is teaches nothing that holds elsewhere."""
WORDS_IN_ROW = 3
LETTERS_IN_ROW = (3, 4, 5)
WORD_CHARACTERS = 40
"""A longer word is read up to here: it is an address or noise, and every letter costs."""
MAX_FEATURES = 60_000
PENALTY_C = 10.0
EVENNESS = 0.5
"""Rows of a rare class weigh more, by this power of how rare it is: 0 as they come, 1 all classes alike."""
_REMEMBERED_WORDS = 50_000


@dataclass(frozen=True, eq=False)
class Lexical:
    """words and parts are the features of each kind, in the order of the weights: words first, then parts.

    idf (features,), weights (features, classes), bias (classes,). Safe to use from several threads.
    """

    words: tuple[str, ...]
    parts: tuple[str, ...]
    idf: np.ndarray
    weights: np.ndarray
    bias: np.ndarray

    @property
    def n_classes(self) -> int:
        return len(self.bias)

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (n, classes): log-odds, uncalibrated. A text without a known feature gets the bias."""
        return np.asarray(self.features(texts) @ self.weights + self.bias, dtype=np.float32)

    def features(self, texts: Sequence[str]):
        """scipy CSR float32 (n, features): tf-idf, the words' part and the letters' part of length 1 each."""
        from scipy.sparse import csr_matrix

        indices, values, ends = [], [], [0]
        for each in texts:
            for known in self._known(tokens(each)):
                found, counts = np.unique(known, return_counts=True)
                weighed = (1.0 + np.log(counts)) * self.idf[found]
                indices.append(found)
                values.append(weighed / max(float(np.sqrt(weighed @ weighed)), 1e-12))
            ends.append(ends[-1] + sum(len(i) for i in indices[-2:]))
        shape = (len(texts), len(self.idf))
        if not indices:
            return csr_matrix(shape, dtype=np.float32)
        return csr_matrix((np.concatenate(values).astype(np.float32), np.concatenate(indices), ends), shape=shape)

    def by_token(self, message: str) -> tuple[list[tuple[int, int]], np.ndarray]:
        """(spans of the tokens in a cleaned text, float64 (tokens, classes)): what each token adds; with the bias they make the scores.

        Exact, since the scores are linear in the features: a feature goes in equal parts to the places where it stands, and a word
        sequence in equal parts to its words.
        """
        spans, found = _places(message)
        added = np.zeros((len(found), self.n_classes))
        if not found:
            return spans, added
        row = self.features([message])
        value = dict(zip(row.indices.tolist(), row.data.tolist(), strict=True))
        holders: dict[int, list[int]] = {}
        for i in range(len(found)):
            for n in range(1, min(WORDS_IN_ROW, len(found) - i) + 1):
                number = self._number_of_word.get(" ".join(found[i : i + n]))
                if number is not None:
                    holders.setdefault(number, []).extend(range(i, i + n))
            for number in self._parts_of(found[i]).tolist():
                holders.setdefault(number, []).append(i)
        for number, tokens_with_it in holders.items():
            np.add.at(added, tokens_with_it, value[number] * self.weights[number] / len(tokens_with_it))
        return spans, added

    def check(self, *, n_classes: int) -> None:
        """Raises ValueError when the arrays do not fit together, or hold numbers that are not finite."""
        n = len(self.words) + len(self.parts)
        shapes = {"idf": (n,), "weights": (n, self.n_classes), "bias": (self.n_classes,)}
        if self.n_classes > n_classes or any(not _sound(getattr(self, k), s) for k, s in shapes.items()):
            raise ValueError(f"the lexical scores do not fit {n_classes} labels, or are not finite")

    def save(self, folder: Path) -> None:
        """Write lexical.safetensors and lexical.json into a folder."""
        from safetensors.numpy import save_file

        arrays = {"idf": self.idf, "weights": self.weights, "bias": self.bias}
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "lexical.safetensors")
        known = {"words": list(self.words), "parts": list(self.parts)}
        (folder / "lexical.json").write_text(json.dumps(known, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Lexical:
        """What `save` wrote. Raises whatever its parsers raise for a damaged file."""
        from safetensors.numpy import load_file

        known = json.loads((folder / "lexical.json").read_text(encoding="utf-8"))
        return cls(tuple(known["words"]), tuple(known["parts"]), **load_file(folder / "lexical.safetensors"))

    @functools.cached_property
    def _number_of_word(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    @functools.cached_property
    def _parts_of(self):
        """word -> the numbers of its known parts, remembered: the same words come again and again."""
        number = {part: i for i, part in enumerate(self.parts, start=len(self.words))}

        @functools.lru_cache(maxsize=_REMEMBERED_WORDS)
        def parts_of(word: str) -> np.ndarray:
            return np.array([number[p] for p in letters(word) if p in number], dtype=np.int32)

        return parts_of

    def _known(self, found: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(numbers of the known word sequences, of the known letter sequences), repeated as often as they stand there."""
        number = self._number_of_word
        words = np.array([number[w] for w in sequences(found) if w in number], dtype=np.int32)
        parts = [self._parts_of(word) for word in found]
        return words, np.concatenate(parts) if parts else words[:0]


def tokens(message: str) -> list[str]:
    """The words, numbers and signs of a text, in small letters, each number as NUMBER."""
    found = WORD.findall(text.clean(message)[0].lower())
    return [NUMBER if word[0].isdigit() else word[:WORD_CHARACTERS] for word in found]


def _places(message: str) -> tuple[list[tuple[int, int]], list[str]]:
    """(where each of `tokens` stands in a cleaned text, the tokens). A letter may have more than one small one."""
    small = [c.lower() for c in message]
    at = [i for i, each in enumerate(small) for _ in each]
    spans = [(at[m.start()], at[m.end() - 1] + 1) for m in WORD.finditer("".join(small))]
    return spans, tokens(message)


def sequences(found: Sequence[str]) -> list[str]:
    """Every one, two and three words in a row."""
    return [" ".join(found[i : i + n]) for n in range(1, WORDS_IN_ROW + 1) for i in range(len(found) - n + 1)]


def letters(word: str) -> list[str]:
    """Every three to five letters in a row of a word between blanks; a word that is shorter whole, once."""
    whole = f" {word} "
    return [whole[i : i + n] for n in LETTERS_IN_ROW for i in range(len(whole) - n + 1)] or [whole]


def fit_lexical(texts: Sequence[str], classes: np.ndarray, *, n_classes: int, least_texts: int = 2) -> Lexical:
    """Fit on labelled texts; classes are numbers below n_classes. A feature must stand in least_texts texts, and the most
    frequent MAX_FEATURES of them are kept. Deterministic: the problem is convex and the order of features fixed."""
    found = [tokens(each) for each in texts]
    n_texts = Counter()
    for words in found:
        n_texts.update({(True, w) for w in sequences(words)} | {(False, p) for word in set(words) for p in letters(word)})
    often = sorted((key for key, n in n_texts.items() if n >= least_texts), key=lambda key: (-n_texts[key], key))[:MAX_FEATURES]
    words, parts = (tuple(sorted(name for is_word, name in often if is_word == kind)) for kind in (True, False))
    seen_in = np.array([n_texts[True, w] for w in words] + [n_texts[False, p] for p in parts], dtype=np.float64)
    idf = (np.log((1 + len(texts)) / (1 + seen_in)) + 1).astype(np.float32)
    empty = Lexical(words, parts, idf, np.zeros((len(idf), n_classes), np.float32), np.zeros(n_classes, np.float32))
    rarity = len(classes) / np.maximum(np.bincount(classes, minlength=n_classes), 1) / n_classes
    head = fit_logistic(empty.features(texts), classes, n_classes=n_classes, c=PENALTY_C, weights=(rarity**EVENNESS)[classes])
    return Lexical(words, parts, idf, head.arrays["linear"], head.arrays["bias"])


def _sound(array: np.ndarray, shape: tuple[int, ...]) -> bool:
    return array.shape == shape and bool(np.isfinite(array).all())
