"""Attributions: what each word of a text adds to a model's score, by a choice of methods on nothing but a scoring function.

Every method asks for texts in batches and never for more than its budget. `fast` is this project's own: a Gaussian process learns,
from a few dozen masked texts, how the log-probabilities of all labels depend on which words are there; the Shapley values of that
surrogate need no further call of the model. Gradients are gradients.py's part.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fmcore.explain.words import Words
from fmcore.nouns import FMError

Score = Callable[[Sequence[Any]], np.ndarray]
"""texts (or whatever Pieces.keep gives) -> float (n, labels) probabilities."""
Progress = Callable[[float], None]
"""Called with the fraction done between batches; may raise to stop."""

METHODS = ("fast", "exact", "shap", "lime", "occlusion")
BUDGETS = {"fast": 40, "exact": 1024, "shap": 100, "lime": 200, "occlusion": 40}
"""Texts a method may ask the model for when nobody says otherwise."""
MANY_WORDS = 12
"""Above it fast asks for twice as many: for 13 to 20 words the median rank correlation with 300 calls was 0.78 with 40, 0.87 with 80, for
21 to 28 words 0.50 and 0.80."""
MOST_EXACT = 10
"""Words up to which every subset is asked for: 2 ** 10 = 1,024 texts."""
BATCH = 64
LENGTH_SCALE = 4.0
"""Words of difference over which the surrogate forgets; see docs/explanations.md for what was tried."""
LINEAR = 3.0
"""Prior variance of the words' separate effects, against that of all they do together."""
JITTER = 1e-6
LOOKED_AT = 4
"""One call in so many is kept for the sets that the order of the words so far names: what the explanation claims is looked at. Sufficiency
fell from 0.253 to 0.244 on 200 texts of Banking77."""
LOOKING = 25
"""WALKS for an order that only says where to look next."""
WALKS, STEPS = 200, 4_000
"""Most pairs of random orders in which the surrogate is walked through where its subsets are too many to list, and about the most steps
of a direction in all: an order of n pieces is n steps, each a row of n numbers in memory."""


class NotExplained(FMError):
    """A method that cannot explain this text."""


class Pieces(Protocol):
    """What may be there or not: the Words of a text, the items of a history."""

    def __len__(self) -> int: ...

    def keep(self, kept: Sequence[bool]) -> Any: ...


@dataclass(frozen=True, eq=False)
class Attribution:
    """values (words,) float64; base_value + values.sum() = score but for what the method itself leaves open (LIME, a stopped sampling)."""

    values: np.ndarray
    base_value: float
    score: float
    n_calls: int

    @property
    def additivity_error(self) -> float:
        """|base_value + sum(values) - score|."""
        return abs(self.base_value + float(self.values.sum()) - self.score)


def attribute(
    score: Score,
    words: Pieces,
    *,
    target: np.ndarray,
    method: str = "fast",
    budget: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    probabilities: bool = True,
) -> Attribution:
    """What each of `words` adds to target @ probabilities. target: float (labels,), 1 at the label that is explained.

    probabilities=False: the scores are any numbers, which fast then learns as they are.

    Deterministic under a seed. fast, exact and shap add up to the score by construction; lime and occlusion leave a gap, which
    `additivity_error` says. Raises NotExplained for an unknown method, or more words than the method or its budget allows (see `pieces`).
    """
    budget, n = budget or _default(method), len(words)
    asked = _Asked(score, words, target, total=budget, progress=progress)
    if n == 0:
        whole = float(asked.values(np.ones((1, 0), dtype=bool))[0])
        return Attribution(np.zeros(0), whole, whole, asked.n_calls)
    listed = 2**n <= budget
    if method == "exact" and not (listed and n <= MOST_EXACT):
        raise NotExplained(f"{n} words have {2**n:,} subsets, {budget:,} calls are allowed.", "Ask for fast, or explain fewer words.")
    if n > most_pieces(method, budget):
        raise NotExplained(f"{budget} calls of the model are too few for {n} words.", "Ask for a larger budget.")
    if listed and method in ("fast", "exact"):
        values = _exact(asked.values(_all_subsets(n)), n)
    else:
        methods = {"fast": functools.partial(_fast, probabilities=probabilities), "shap": _shap, "lime": _lime, "occlusion": _occlusion}
        values = methods[method](asked, n, budget, seed)
    base, whole = asked.values(np.array([[False] * n, [True] * n]))
    if method == "lime":
        base, values = values[0], values[1:]
    return Attribution(np.asarray(values, dtype=np.float64), float(base), float(whole), asked.n_calls)


def usual_budget(method: str, n_words: int) -> int:
    """Texts a method may ask the model for when nobody says otherwise. Raises NotExplained for an unknown method."""
    return _default(method) * (2 if method == "fast" and n_words > MANY_WORDS else 1)


def most_pieces(method: str, budget: int | None = None) -> int:
    """How many words a method can tell apart with so many calls: fast keeps a quarter of them for what words do together."""
    allowed = budget or _default(method)
    most = {"fast": allowed * 3 // 4, "exact": MOST_EXACT, "shap": (allowed - 1) // 2, "lime": allowed // 2, "occlusion": allowed - 2}
    return max(1, most[method])


def pieces(words: Words, *, method: str, budget: int | None = None) -> Words:
    """The words, neighbours joined into runs where there are more than the method can tell apart; "exact" refuses instead."""
    return words if method == "exact" else words.runs(most_pieces(method, budget))


def _default(method: str) -> int:
    if method not in METHODS:
        raise NotExplained(f"There is no method {method!r}.", f"Methods: {', '.join(METHODS)}, gradients.")
    return BUDGETS[method]


class _Asked:
    """The model as a function of which words are there; a subset is asked for once. Its answers are called probabilities always."""

    def __init__(self, score: Score, words: Pieces, target: np.ndarray, *, total: int, progress: Progress | None):
        self._score, self._words, self._target, self._total, self._progress = score, words, target, total, progress
        self._known: dict[bytes, np.ndarray] = {}

    @property
    def n_calls(self) -> int:
        return len(self._known)

    def probabilities(self, masks: np.ndarray) -> np.ndarray:
        """(n, labels) for boolean masks (n, words)."""
        new = list({row.tobytes(): row for row in masks if row.tobytes() not in self._known}.values())
        for at in range(0, len(new), BATCH):
            batch = new[at : at + BATCH]
            answers = self._score([self._words.keep(row) for row in batch])
            self._known.update(zip((row.tobytes() for row in batch), np.asarray(answers, dtype=np.float64), strict=True))
            if self._progress is not None:
                self._progress(min(1.0, len(self._known) / self._total))
        return np.stack([self._known[row.tobytes()] for row in masks])

    def values(self, masks: np.ndarray) -> np.ndarray:
        """(n,) the target's score."""
        return self.probabilities(masks) @ self._target

    def aim(self, probabilities: np.ndarray) -> np.ndarray:
        """(n,) the target's score from (n, labels) probabilities."""
        return probabilities @ self._target


# --- exact


def _all_subsets(n: int) -> np.ndarray:
    """bool (2 ** n, n): row i has the binary digits of i, the first word the highest."""
    return (np.arange(2**n)[:, None] >> np.arange(n - 1, -1, -1)) & 1 == 1


def _exact(values: np.ndarray, n: int) -> np.ndarray:
    """Shapley values from the values of _all_subsets(n) (Shapley 1953): the mean of a word's effect over all orders."""
    subsets = np.arange(2**n)
    size = _all_subsets(n).sum(axis=1)
    weight = np.array([math.factorial(k) * math.factorial(n - k - 1) / math.factorial(n) for k in range(n)])
    found = np.empty(n)
    for i in range(n):
        bit = 1 << (n - 1 - i)
        without = subsets[subsets & bit == 0]
        found[i] = weight[size[without]] @ (values[without | bit] - values[without])
    return found


# --- fast: the Shapley values of a surrogate


def _fast(asked: _Asked, n: int, budget: int, seed: int, *, probabilities: bool) -> np.ndarray:
    """Shapley values of a Gaussian process posterior mean on log-probabilities; observed subsets keep their observed values.

    In log-probabilities a word's effects come nearer to adding up than in probabilities, and all labels share one kernel, so that the
    others' answers help: the softmax of the surrogate gives the target's score back. The last quarter of the calls goes where the order
    so far matters most: the strongest words alone, and all but them.
    """
    rng = np.random.default_rng(seed)
    make = functools.partial(_surrogate, asked, probabilities=probabilities)
    seen = _design(n, budget - max(0, min(budget // LOOKED_AT, budget - n - 2)), rng)
    while len(seen) < budget:
        values = _shapley(asked, seen, make(seen), np.random.default_rng(seed), walks=LOOKING)
        new = _named(values, seen)[: budget - len(seen)]
        seen = np.concatenate([seen, new]) if len(new) else _design(n, budget, rng, start=seen)
    return _shapley(asked, seen, make(seen), rng, walks=WALKS)


def _surrogate(asked: _Asked, seen: np.ndarray, *, probabilities: bool) -> _Surrogate:
    answers = asked.probabilities(seen)
    return _Surrogate(seen, np.log(np.maximum(answers, 1e-9)), _softmax) if probabilities else _Surrogate(seen, answers, _as_it_is)


def _shapley(asked: _Asked, seen: np.ndarray, surrogate: _Surrogate, rng: np.random.Generator, *, walks: int) -> np.ndarray:
    """Shapley values of the surrogate, listed where the subsets can be."""
    n = seen.shape[1]
    if n > MOST_EXACT:
        return _walked(surrogate, asked, n, rng, walks=walks)
    values = asked.aim(surrogate(_all_subsets(n)))
    values[seen @ (1 << np.arange(n - 1, -1, -1))] = asked.values(seen)
    return _exact(values, n)


def _named(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """bool (sets, n): the strongest 1, 2, 4, ... and half of the pieces alone, and all but them, where they were not asked for yet."""
    n = len(values)
    place = np.argsort(np.argsort(-values, kind="stable"))
    counts = sorted({*(2**i for i in range(n.bit_length()) if 2**i < n / 2), math.ceil(n / 2)})
    known = {row.tobytes() for row in seen}
    sets = [row for k in counts for row in (place < k, place >= k) if row.tobytes() not in known]
    return np.array(sets).reshape(-1, n)


def _design(n: int, budget: int, rng: np.random.Generator, *, start: np.ndarray | None = None) -> np.ndarray:
    """bool (budget, n) distinct subsets: all, none, all but one, one alone where half the budget is left, then pairs of a random subset
    and its complement, every size as often as another."""
    rows: dict[bytes, np.ndarray] = {}

    def add(row: np.ndarray) -> None:
        if len(rows) < budget:
            rows.setdefault(row.tobytes(), row)

    for row in () if start is None else start:
        add(row)
    for row in (np.ones(n, dtype=bool), np.zeros(n, dtype=bool), *~np.eye(n, dtype=bool)):
        add(row)
    if budget >= 2.5 * n:
        for row in np.eye(n, dtype=bool):
            add(row)
    while len(rows) < min(budget, 2**n):
        row = np.zeros(n, dtype=bool)
        row[rng.choice(n, rng.integers(1, n), replace=False)] = True
        add(row)
        add(~row)
    return np.stack(list(rows.values()))


class _Surrogate:
    """masks -> answers (n, labels): the posterior mean of a Gaussian process with kernel exp(-Hamming / LENGTH_SCALE) + LINEAR times the
    mean product of signs (Rasmussen and Williams 2006, 2.2), through `link`."""

    def __init__(self, masks: np.ndarray, outputs: np.ndarray, link: Callable[[np.ndarray], np.ndarray]):
        self._signs, self._link = np.where(masks, 1.0, -1.0), link
        self._mean = outputs.mean(axis=0)
        self._weights = np.linalg.solve(self._kernel(self._signs) + JITTER * np.eye(len(masks)), outputs - self._mean)

    def __call__(self, masks: np.ndarray) -> np.ndarray:
        return self._link(self._kernel(np.where(masks, 1.0, -1.0)) @ self._weights + self._mean)

    def _kernel(self, signs: np.ndarray) -> np.ndarray:
        product = signs @ self._signs.T
        n = signs.shape[1]
        return np.exp((product - n) / (2 * LENGTH_SCALE)) + LINEAR * product / n


def _softmax(logs: np.ndarray) -> np.ndarray:
    exponents = np.exp(logs - logs.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def _as_it_is(outputs: np.ndarray) -> np.ndarray:
    return outputs


def _walked(surrogate: _Surrogate, asked: _Asked, n: int, rng: np.random.Generator, *, walks: int) -> np.ndarray:
    """Shapley values of the surrogate by walking through random orders and their reverses (antithetic: Mitchell et al. 2022, JMLR 23(43)).

    Each walk ends at the observed values of no word and of all words, so that the values add up to the score exactly.
    """
    orders = np.array([rng.permutation(n) for _ in range(min(walks, max(1, STEPS // n)))])
    orders = np.concatenate([orders, orders[:, ::-1]])
    place = np.argsort(orders, axis=1)
    steps = np.arange(1, n)
    masks = place[:, None, :] < steps[None, :, None]  # (walks, n - 1, n): the first 1, 2, ... words of each order
    inner = asked.aim(surrogate(masks.reshape(-1, n))).reshape(len(orders), n - 1)
    none, whole = asked.values(np.array([[False] * n, [True] * n]))
    path = np.concatenate([np.full((len(orders), 1), none), inner, np.full((len(orders), 1), whole)], axis=1)
    effects = np.diff(path, axis=1)
    return np.take_along_axis(effects, place, axis=1).mean(axis=0)


# --- the usual ones


def _occlusion(asked: _Asked, n: int, _budget: int, _seed: int) -> np.ndarray:
    """The score less that without the word (Li, Monroe and Jurafsky 2016, arXiv:1612.08220). Does not add up to the score."""
    values = asked.values(np.concatenate([np.ones((1, n), dtype=bool), ~np.eye(n, dtype=bool)]))
    return values[0] - values[1:]


def _shap(asked: _Asked, n: int, budget: int, seed: int) -> np.ndarray:
    """shap's permutation explainer on the words of this text (Lundberg and Lee 2017, arXiv:1705.07874)."""
    import shap

    def masker(mask: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.where(mask, x, False)[None, :]

    def model(rows: np.ndarray) -> np.ndarray:
        return asked.values(np.asarray(rows, dtype=bool).reshape(-1, n))

    explainer = shap.explainers.Permutation(model, masker, seed=seed)
    found = explainer(np.ones((1, n), dtype=bool), max_evals=budget, silent=True)
    return np.asarray(found.values[0], dtype=np.float64)


def _lime(asked: _Asked, n: int, budget: int, seed: int) -> np.ndarray:
    """(1 + words,) intercept and coefficients of a ridge regression on random subsets, weighted by likeness to the text (Ribeiro et al.
    2016, arXiv:1602.04938): cosine distance, kernel width 0.25 as in the authors' package, whose last release is of 2020."""
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(seed)
    masks = np.ones((budget - 1, n), dtype=bool)
    for row in masks[1:]:
        row[rng.choice(n, rng.integers(1, n + 1), replace=False)] = False
    distance = 1 - np.sqrt(masks.mean(axis=1))
    weight = np.sqrt(np.exp(-(distance**2) / 0.25**2))
    ridge = Ridge(alpha=1.0).fit(masks.astype(float), asked.values(masks), sample_weight=weight)
    return np.array([ridge.intercept_, *ridge.coef_])
