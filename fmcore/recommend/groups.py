"""Readable groups of items: what a bandit chooses between, and what a page colours by.

k-means on the items' vectors, each group named by the words that set it apart (class-based TF-IDF). Deterministic; every item stands in
exactly one group. Trains nothing else and keeps nothing.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from dataclasses import dataclass

import numpy as np

from fmcore.recommend.recommender import Items

MOST = 12
EACH = 8
"""Items that a group has on average at least: fewer and larger groups for a small catalogue."""
DIMENSIONS = 32
"""Of the vectors, those that differ most: k-means on them is ten times as fast and the groups are as readable."""
WORDS = 2
_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True, eq=False)
class Groups:
    """of: int32 (n_items,) the group of each item. names: one a group, all different, the largest group first."""

    of: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def groups(items: Items, vectors: np.ndarray, *, n: int = MOST) -> Groups:
    """At most n groups of items that are alike by their vectors (float32 (n_items, d)); fewer for a small catalogue."""
    if not len(items):
        return Groups(np.zeros(0, dtype=np.int32), ())
    found = _clusters(np.asarray(vectors, dtype=np.float64), n=min(n, MOST, max(1, len(items) // EACH)))
    sizes = Counter(found.tolist())
    order = sorted(sizes, key=lambda each: (-sizes[each], int(np.flatnonzero(found == each)[0])))
    of = np.array([order.index(each) for each in found.tolist()], dtype=np.int32)
    return Groups(of, _names(items, of, n_groups=len(order)))


def _clusters(vectors: np.ndarray, *, n: int) -> np.ndarray:
    """int (n_items,): numbers of clusters, some perhaps without items."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning

    if n < 2:
        return np.zeros(len(vectors), dtype=int)
    small = min(DIMENSIONS, *vectors.shape)
    vectors = PCA(small, svd_solver="randomized", random_state=0).fit_transform(vectors) if small < vectors.shape[1] else vectors
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different items than groups: there are fewer groups then
        return KMeans(n, n_init=2, random_state=0).fit_predict(vectors)


def _names(items: Items, of: np.ndarray, *, n_groups: int) -> tuple[str, ...]:
    """A name a group, all different: its most telling words, more of them where two groups share the first ones; else a title."""
    names: list[str] = []
    for group, words in enumerate(_telling(items, of, n_groups=n_groups)):
        first = int(np.flatnonzero(of == group)[0])
        tried = [", ".join(words[:n]) for n in range(WORDS, len(words) + 1)] or [", ".join(words)]
        name = next((each for each in tried if each and each not in names), f"like {items.titles[first][:40] or items.ids[first][:40]}")
        names.append(name if name not in names else f"{name} ({group + 1})")
    return tuple(names)


def _telling(items: Items, of: np.ndarray, *, n_groups: int) -> list[list[str]]:
    """The words that set each group apart: share of its items x log(this share / the share of all items), a class-based TF-IDF."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    within: list[Counter] = [Counter() for _ in range(n_groups)]
    for group, title, text in zip(of.tolist(), items.titles, items.texts, strict=True):
        within[group].update({word for word in _WORD.findall(f"{title} {text}".lower()) if word not in ENGLISH_STOP_WORDS})
    everywhere: Counter = Counter()
    for words in within:
        everywhere.update(words)
    sizes = np.bincount(of, minlength=n_groups)
    telling = []
    for size, words in zip(sizes.tolist(), within, strict=True):
        worth = {w: n / size * np.log(n / size * len(of) / everywhere[w]) for w, n in words.items()}
        best: list[str] = []
        for word in sorted(worth, key=lambda w: (-worth[w], w)):
            if (worth[word] > 0 or n_groups == 1) and not any(word.startswith(one) or one.startswith(word) for one in best):
                best.append(word)  # "options" says nothing beside "option"
            if len(best) == 2 * WORDS:
                break
        telling.append(best)
    return telling
