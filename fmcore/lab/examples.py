"""Worked examples of the lab's methods, small enough to be told in a picture: exact arithmetic on made-up texts and numbers.

Owns the arithmetic and the size of the base model it speaks of; draws nothing, reads no data, knows of no run. What is measured on real
data is a study's part (studies.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MASKED, TO_MASK, TO_RANDOM = 0.15, 0.8, 0.1
"""Share of words that are asked for; of those, the shares shown as [MASK] and as a random word. The rest is left as it is."""
SENTENCE: tuple[tuple[str, ...], ...] = (
    ("the",), ("insur", "##er"), ("cut",), ("its",), ("dividend",), ("after",), ("an",), ("unex", "##pected"), ("rise",), ("in",),
    ("claims",), (",",), ("and",), ("the",), ("shares",), ("fell",), ("nine",), ("percent",), ("in",), ("early",), ("trading",), (".",),
)  # fmt: skip
"""A sentence in words, each in the pieces of a tokenizer."""
STRANGERS = ("bank", "green", "april", "##ing", "seven", "loan", "quiet", "##al", "pump", "won")
"""What a random replacement is taken from here; in training it is the whole vocabulary."""


def softmax(scores: Sequence[float] | np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    """Probabilities of scores divided by a temperature, along the last axis. Hinton et al. 2015: p_c = e^(z_c/T) / sum e^(z_k/T)."""
    z = np.asarray(scores, dtype=float) / temperature
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


# ---------------------------------------------------------------- without labels


@dataclass(frozen=True)
class MaskedWord:
    """One word of SENTENCE as a model gets it. what: "plain" (not asked for), "mask", "random" or "same" (asked for, left as it is)."""

    pieces: tuple[str, ...]
    shown: tuple[str, ...]
    what: str


def masking(seed: int) -> list[MaskedWord]:
    """One draw of whole-word masking with 80/10/10 over SENTENCE; punctuation is never asked for. Devlin et al. 2019."""
    chance = np.random.default_rng(seed)
    askable = [i for i, word in enumerate(SENTENCE) if any(c.isalnum() for c in word[0])]
    asked = set(chance.choice(askable, max(1, round(MASKED * len(askable))), replace=False).tolist())
    drawn = []
    for i, pieces in enumerate(SENTENCE):
        if i not in asked:
            drawn.append(MaskedWord(pieces, pieces, "plain"))
            continue
        fate = chance.random()
        if fate < TO_MASK:
            drawn.append(MaskedWord(pieces, ("[MASK]",) * len(pieces), "mask"))
        elif fate < TO_MASK + TO_RANDOM:
            drawn.append(MaskedWord(pieces, tuple(chance.choice(STRANGERS, len(pieces)).tolist()), "random"))
        else:
            drawn.append(MaskedWord(pieces, pieces, "same"))
    return drawn


def deleted(words: Sequence[str], share: float, *, seed: int) -> list[bool]:
    """Whether each word stays when each is deleted with probability `share`; one stays always. Wang et al. 2021."""
    luck = np.random.default_rng(seed).random(len(words))
    return [bool(kept) for kept in (luck >= share) | (luck == luck.max())]


def contrast(cosines: np.ndarray, temperature: float) -> tuple[np.ndarray, float]:
    """(probabilities (n, n), loss in nats) of the contrast of n sentences with their second readings, the twin on the diagonal.

    Gao et al. 2021: the mean of -log softmax(cosines / temperature) on the diagonal.
    """
    shares = softmax(cosines, temperature=temperature)
    return shares, float(-np.log(np.diag(shares)).mean())


# ---------------------------------------------------------------- to a task


@dataclass(frozen=True)
class Shape:
    """The size of an encoder like BERT. The defaults are the bundled base model's, MiniLM-L6 (22.7 million weights)."""

    layers: int = 6
    dim: int = 384
    inner: int = 1536
    heads: int = 12
    vocabulary: int = 30_522
    positions: int = 512

    @property
    def embeddings(self) -> int:
        """Weights of words, positions, the two segments and their layer norm."""
        return (self.vocabulary + self.positions + 2) * self.dim + 2 * self.dim

    @property
    def layer(self) -> int:
        """Weights of one layer: attention, feed-forward, two layer norms."""
        attention = 4 * (self.dim * self.dim + self.dim)
        forward = 2 * self.dim * self.inner + self.inner + self.dim
        return attention + forward + 4 * self.dim

    @property
    def pooler(self) -> int:
        return self.dim * self.dim + self.dim

    @property
    def weights(self) -> int:
        return self.embeddings + self.layers * self.layer + self.pooler

    def lora(self, rank: int) -> int:
        """Learnt weights with LoRA on every matrix of a layer: rank x (rows + columns) each. Hu et al. 2022."""
        return self.layers * rank * (4 * 2 * self.dim + 2 * (self.dim + self.inner))

    def head(self, classes: int) -> int:
        """Weights of a linear head."""
        return classes * (self.dim + 1)

    def multiplications(self, n_tokens: int, *, heads: float = 1.0, inner: float = 1.0, layers: float = 1.0) -> float:
        """Multiply-adds of one text through the layers, with the shares of heads, inner neurons and layers that are kept."""
        attention = 4 * n_tokens * self.dim * self.dim + 2 * n_tokens * n_tokens * self.dim
        forward = 2 * n_tokens * self.dim * self.inner
        return self.layers * layers * (heads * attention + inner * forward)


def pairs(shots: int, classes: int) -> tuple[int, int]:
    """(pairs of one class, pairs of two classes) that `shots` texts a class make. Tunstall et al. 2022."""
    same = classes * math.comb(shots, 2)
    return same, math.comb(shots * classes, 2) - same


# ---------------------------------------------------------------- regularisation


def smoothed(epsilon: float, classes: int) -> np.ndarray:
    """The target distribution, the true label first. Szegedy et al. 2016."""
    target = np.full(classes, epsilon / classes)
    target[0] += 1 - epsilon
    return target


def smoothed_loss(p: np.ndarray, epsilon: float, classes: int) -> np.ndarray:
    """Loss in nats when the true label gets probability p and the others share the rest alike."""
    target = smoothed(epsilon, classes)
    rest = (1 - p) / (classes - 1)
    return -(target[0] * np.log(p) + target[1:].sum() * np.log(rest))


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Kullback-Leibler divergence of two distributions without zeros, in nats: sum p log(p/q)."""
    return float((p * np.log(p / q)).sum())


def decayed(rate: float, decay: float, steps: np.ndarray) -> np.ndarray:
    """Share of itself that a weight keeps after so many steps when no gradient holds it. Loshchilov and Hutter 2019."""
    return (1 - rate * decay) ** steps


def dropped(values: np.ndarray, share: float, *, seed: int) -> np.ndarray:
    """The values with each set to zero with probability `share`, the rest scaled so that the mean stays. Srivastava et al. 2014."""
    kept = np.random.default_rng(seed).random(len(values)) >= share
    return values * kept / (1 - share)


def stopped(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """(place at which training ends, place of the best so far) when it ends after `patience` epochs without a new best."""
    best = 0
    for at, loss in enumerate(losses):
        if loss < losses[best]:
            best = at
        if at - best >= patience:
            return at, best
    return len(losses) - 1, best


# ---------------------------------------------------------------- small and fast


def quantised(values: np.ndarray, bits: int) -> tuple[np.ndarray, float]:
    """(values on the grid, distance of two ticks) of symmetric rounding: s = max|w| / (2^(bits-1) - 1). Jacob et al. 2018."""
    step = float(np.abs(values).max()) / (2 ** (bits - 1) - 1)
    return np.round(values / step) * step, step


def cascade_speed(fast: np.ndarray | float, passed_on: np.ndarray | float) -> np.ndarray | float:
    """How many times as fast as the full model a cascade is, with a student `fast` times as fast and a share of texts passed on."""
    return 1 / (1 / fast + passed_on)
