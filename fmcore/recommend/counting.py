"""Recommenders that count: popularity, items met by the same people, EASE, what follows what, and their sum. Closed forms, seconds to fit.

Each but popularity is a matrix of what an item of the past adds to the score of another item; a past is the sum of its rows, the latest
weighing most. So every reason is a row of the matrix, and a past that changes is answered at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from fmcore.evaluation import ranking
from fmcore.nouns import Report
from fmcore.recommend.matrices import counted, followers, inverted, read_rows, solved, spread, strongest, together, weighted, write_rows
from fmcore.recommend.paths import Paths
from fmcore.recommend.recommender import BadRecommender, History, Items, Recommender, read_facts, standardised, write_facts

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from fmcore.recommend.matrices import Rows

Pairs = Sequence[tuple[History, int]]
"""New events: a past as it was, and the item met next."""
SMALL, ENOUGH = 4_096, 5
"""The closed forms take in so many items whatever their counts; in a larger catalogue an item must have been met so often."""
WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""What a blend tries for each member beside the first."""
JUDGED, JUDGED_SCORES = 3_000, 20_000_000
"""A blend chooses its weights on at most so many pasts, and so many scores."""


class Popularity(Recommender):
    """How many people met an item: the same list for everybody, and the row every other model has to beat."""

    name: ClassVar[str] = "popularity"
    title: ClassVar[str] = "Popularity"
    summary: ClassVar[str] = "What most people met, the same for everybody; answers where no other model can."

    counts: np.ndarray
    """int64 (n_items,)."""

    def fit(self, histories: Sequence[History], items: Items, *, held: np.ndarray | None = None, report: Report | None = None) -> Self:
        self.counts = counted(histories, n_items=len(items))
        return self

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        return np.tile(self.counts.astype(np.float32), (len(histories), 1))

    def knows(self, histories: Sequence[History]) -> np.ndarray:
        return np.ones(len(histories), dtype=bool)

    def folded(self, pairs: Pairs) -> Popularity:
        """A new model that has counted the new events too: the same as fitting again with them."""
        new = Popularity()
        new.counts = self.counts + np.bincount([item for _, item in pairs], minlength=len(self.counts)).astype(np.int64)
        return new

    def save(self, folder: Path) -> None:
        write_facts(folder, {"name": self.name, "counts": self.counts.tolist()})

    @classmethod
    def load(cls, folder: Path, items: Items) -> Self:
        model = cls()
        model.counts = np.array(_facts(folder, "counts")["counts"], dtype=np.int64)
        if model.counts.shape != (len(items),):
            raise BadRecommender(f"{folder.name} is of other items.", "Train it again.")
        return model


class ByRows(Recommender):
    """A model whose score is the weighted sum of the rows of the past's items: exp(-age / recency), the latest item of age 0."""

    OPTIONS: ClassVar[tuple[str, ...]]
    """Names of the constructor's options, which are also attributes."""

    recency: float
    rows: Rows
    _speaks: np.ndarray
    """bool (n_items,): whose row says anything."""

    def _take(self, rows: Rows) -> Self:
        self.rows = rows
        self._speaks = np.any(rows != 0, axis=1) if isinstance(rows, np.ndarray) else np.diff(rows.indptr) > 0
        return self

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        found = weighted(histories, n_items=self.rows.shape[0], recency=self.recency) @ self.rows
        return np.asarray(found if isinstance(found, np.ndarray) else found.toarray(), dtype=np.float32)

    def knows(self, histories: Sequence[History]) -> np.ndarray:
        pasts = weighted(histories, n_items=self.rows.shape[0], recency=self.recency)
        return pasts @ self._speaks.astype(np.float32) > 0

    def options(self) -> dict:
        """The constructor's options as they are."""
        return {name: getattr(self, name) for name in self.OPTIONS}

    def save(self, folder: Path) -> None:
        write_facts(folder, {"name": self.name, **self.options()})
        write_rows(folder, self.rows)

    @classmethod
    def load(cls, folder: Path, items: Items) -> Self:
        return cls(**_facts(folder, *cls.OPTIONS))._take(read_rows(folder, n_items=len(items)))


class ItemKNN(ByRows):
    """Items met by the same people: the cosine of their columns, the nearest `neighbours` kept (Sarwar et al. 2001).

    shrink is added to the divisor, so that a meeting of two rare items proves little.
    """

    name: ClassVar[str] = "knn"
    title: ClassVar[str] = "Item neighbours"
    summary: ClassVar[str] = "Items that the same people met, in whatever order."
    OPTIONS: ClassVar[tuple[str, ...]] = ("neighbours", "shrink", "recency")

    def __init__(self, *, neighbours: int = 200, shrink: float = 10.0, recency: float = 5.0):
        self.neighbours, self.shrink, self.recency = neighbours, shrink, recency

    def fit(self, histories: Sequence[History], items: Items, *, held: np.ndarray | None = None, report: Report | None = None) -> Self:
        met = weighted(histories, n_items=len(items))
        length = np.sqrt(counted(histories, n_items=len(items))).astype(np.float32)

        def cosines():
            for start, block in together(met):
                places = np.arange(start, start + len(block))
                block /= length[places, None] * length[None, :] + self.shrink
                block[np.arange(len(block)), places] = 0
                yield block

        return self._take(strongest(cosines(), len(items), neighbours=self.neighbours))


class Ease(ByRows):
    """EASE^R (Steck 2019): the linear model that foretells each item from all the others, in closed form; the past weighted by recency.

    At most the `most` most frequent items take part (the inverse takes most^2 * 4 bytes and most^3 steps); others get zeros. In a
    catalogue of more than matrices.DENSE items the strongest `neighbours` of each are kept.
    """

    name: ClassVar[str] = "ease"
    title: ClassVar[str] = "EASE with recency"
    summary: ClassVar[str] = "A linear model over all the items a person met, the latest weighing most; solved in one step."
    OPTIONS: ClassVar[tuple[str, ...]] = ("regularisation", "recency", "most", "neighbours")

    def __init__(self, *, regularisation: float = 500.0, recency: float = 5.0, most: int = 12_000, neighbours: int = 512):
        self.regularisation, self.recency, self.most, self.neighbours = regularisation, recency, most, neighbours

    def fit(self, histories: Sequence[History], items: Items, *, held: np.ndarray | None = None, report: Report | None = None) -> Self:
        counts = counted(histories, n_items=len(items))
        kept = _frequent(counts, self.most)
        common = np.empty((len(kept), len(kept)), dtype=np.float32)
        for start, block in together(weighted(histories, n_items=len(items))[:, kept]):
            common[start : start + len(block)] = block
        common[np.diag_indices(len(kept))] += self.regularisation
        found = inverted(common)
        found /= -np.diag(found)[None, :]
        found[np.diag_indices(len(kept))] = 0
        return self._take(spread(found, kept, n_items=len(items), neighbours=self.neighbours))


class Transitions(ByRows):
    """What follows what: how often an item came within the next `lag` items after another, as a share of all that came after it.

    `smoothing` is added to what a share is of, so that a single meeting proves little.
    """

    name: ClassVar[str] = "transitions"
    title: ClassVar[str] = "Item transitions"
    summary: ClassVar[str] = "What people met within a few steps after the same items, in this order."
    OPTIONS: ClassVar[tuple[str, ...]] = ("lag", "recency", "smoothing")

    counts: csr_matrix
    """float32 (n_items, n_items), as counted; rows are made of it."""

    def __init__(self, *, lag: int = 5, recency: float = 3.0, smoothing: float = 10.0):
        self.lag, self.recency, self.smoothing = lag, recency, smoothing

    def fit(self, histories: Sequence[History], items: Items, *, held: np.ndarray | None = None, report: Report | None = None) -> Self:
        from scipy.sparse import csr_matrix

        counts = csr_matrix((len(items), len(items)), dtype=np.float32)
        for _, came in followers(histories, n_items=len(items), lag=self.lag):
            counts = counts + came
        return self._count(counts)

    def _count(self, counts: csr_matrix) -> Self:
        from scipy.sparse import diags

        counts.sort_indices()
        self.counts = counts
        after = np.asarray(counts.sum(axis=1), dtype=np.float32).reshape(-1)
        return self._take((diags(1 / np.maximum(after + self.smoothing, 1e-6)) @ counts).tocsr().astype(np.float32))

    def folded(self, pairs: Pairs) -> Transitions:
        """A new model that has counted the new events too: the same as fitting again with each past one item longer."""
        from scipy.sparse import csr_matrix

        before = [past[-self.lag :] for past, _ in pairs]
        gone = np.concatenate([np.empty(0, dtype=np.int32), *before])
        come = np.repeat(np.array([item for _, item in pairs], dtype=np.int32), [len(past) for past in before])
        added = csr_matrix((np.ones(len(gone), dtype=np.float32), (gone, come)), shape=self.counts.shape)
        return Transitions(**self.options())._count((self.counts + added).tocsr())

    def save(self, folder: Path) -> None:
        write_facts(folder, {"name": self.name, **self.options()})
        write_rows(folder, self.counts)

    @classmethod
    def load(cls, folder: Path, items: Items) -> Self:
        return cls(**_facts(folder, *cls.OPTIONS))._count(read_rows(folder, n_items=len(items)))


class NextItem(ByRows):
    """The linear model that foretells the next item from the weighted past: ridge regression over every place of every history.

    Transitions count an item's followers again for every other item that came before the same ones; the regression gives each item of
    the past only what the others do not explain, as EASE does for sets (after SLIT of Choi et al. 2021). With the past weighted by w, its
    normal equations are sums over pairs of items so many places apart, so no place is ever visited: (D + K + K' + regularisation) M = K,
    D the items' counts and K the transitions of each lag weighted by w(lag) = exp(-lag / recency) * (1 - lag / reach). Both factors are
    positive definite functions, and so is the matrix. `most` and `neighbours` as in Ease.
    """

    name: ClassVar[str] = "next"
    title: ClassVar[str] = "Next-item regression"
    summary: ClassVar[str] = "A linear model of what comes next, which counts no reason twice; solved in one step."
    OPTIONS: ClassVar[tuple[str, ...]] = ("regularisation", "recency", "reach", "most", "neighbours")

    def __init__(self, *, regularisation: float = 50.0, recency: float = 10.0, reach: int = 30, most: int = 8_000, neighbours: int = 512):
        self.regularisation, self.recency, self.reach, self.most, self.neighbours = regularisation, recency, reach, most, neighbours

    def fit(self, histories: Sequence[History], items: Items, *, held: np.ndarray | None = None, report: Report | None = None) -> Self:
        counts = counted(histories, n_items=len(items))
        kept = _frequent(counts, self.most)
        ahead = np.zeros((len(kept), len(kept)), dtype=np.float32)
        for lag, came in followers(histories, n_items=len(items), lag=self.reach - 1):
            pairs = came[kept][:, kept].tocoo()
            ahead[pairs.row, pairs.col] += pairs.data * np.float32(np.exp(-lag / self.recency) * (1 - lag / self.reach))
        around = ahead + ahead.T
        around[np.diag_indices(len(kept))] += counts[kept] + self.regularisation
        return self._take(spread(solved(around, ahead), kept, n_items=len(items), neighbours=self.neighbours))


class Blend(Recommender):
    """The z-sum of other models: each row of scores standardised, then added with weights chosen on held-out items.

    members: the next-item regression, EASE and paths when None. weights: one a member; `fit` chooses them when it is given `held`,
    and keeps those it has when not, so that what was chosen on validation can be fitted again on everything.
    """

    name: ClassVar[str] = "blend"
    title: ClassVar[str] = "Sum of three"
    summary: ClassVar[str] = "What comes next, EASE and people on the same path, each brought to the same scale and added."

    def __init__(self, members: Sequence[Recommender] | None = None, *, weights: Sequence[float] | None = None):
        self.members = tuple(members) if members is not None else (NextItem(), Ease(), Paths())
        usual = (1.0,) * len(self.members) if members is not None else (1.0, 1.0, 0.5)
        self.weights = tuple(weights) if weights is not None else usual

    def fit(self, histories: Sequence[History], items: Items, *, held: np.ndarray | None = None, report: Report | None = None) -> Self:
        for done, member in enumerate(self.members):
            if report is not None:
                report.progress(done / len(self.members), f"Fitting {member.title}")
            member.fit(histories, items)
        if held is not None and np.any(np.asarray(held) >= 0):
            self.weights = self._chosen(histories, np.asarray(held), n_items=len(items))
        return self

    def _chosen(self, histories: Sequence[History], held: np.ndarray, *, n_items: int) -> tuple[float, ...]:
        """The weights with the best NDCG@10 on held-out items; the first member's stays 1, and what is nearest to 1 each wins a tie."""
        rows = np.flatnonzero(held >= 0)
        most = min(JUDGED, max(JUDGED_SCORES // n_items, 100))
        if len(rows) > most:
            rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
        tried = sorted(itertools.product((1.0,), *[WEIGHTS] * (len(self.members) - 1)), key=lambda each: np.abs(np.log(each)).sum())
        gained = np.zeros(len(tried))
        for some in np.array_split(rows, max(len(rows) // 500, 1)):
            pasts = [histories[row] for row in some]
            parts = [standardised(member.scores(pasts)) for member in self.members]
            for place, weights in enumerate(tried):
                summed = np.sum([w * part for w, part in zip(weights, parts, strict=True)], axis=0)
                gained[place] += ranking.gains(ranking.ranks(summed, pasts, held[some])).sum()
        return tried[int(gained.argmax())]

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        parts = [np.float32(w) * standardised(member.scores(histories)) for w, member in zip(self.weights, self.members, strict=True)]
        return np.sum(parts, axis=0, dtype=np.float32)

    def knows(self, histories: Sequence[History]) -> np.ndarray:
        return np.any([member.knows(histories) for member in self.members], axis=0)

    def folded(self, pairs: Pairs) -> Blend:
        """A new model whose members have counted the new events too, those that can."""
        return Blend([member.folded(pairs) for member in self.members], weights=self.weights)

    def save(self, folder: Path) -> None:
        write_facts(folder, {"name": self.name, "members": [member.name for member in self.members], "weights": list(self.weights)})
        for place, member in enumerate(self.members):
            member.save(folder / f"{place}_{member.name}")

    @classmethod
    def load(cls, folder: Path, items: Items) -> Self:
        facts = _facts(folder, "members", "weights")
        strange = [name for name in facts["members"] if name not in COUNTING]
        if strange or len(facts["members"]) != len(facts["weights"]):
            raise BadRecommender(f"{folder.name} is a sum of models that do not exist here: {strange}.", "Train it again.")
        members = [COUNTING[name].load(folder / f"{place}_{name}", items) for place, name in enumerate(facts["members"])]
        return cls(members, weights=facts["weights"])


COUNTING: dict[str, Callable[..., Recommender]] = {kind.name: kind for kind in (Popularity, ItemKNN, Ease, Transitions, NextItem, Paths)}
"""What a blend can be made of."""


def _frequent(counts: np.ndarray, most: int) -> np.ndarray:
    """The items that a closed form takes in, by number: at most `most`, beyond SMALL only those met ENOUGH times, none without any."""
    n = min(most, max(SMALL, int((counts >= ENOUGH).sum())))
    kept = np.sort(np.argsort(-counts, kind="stable")[:n])
    return kept[counts[kept] > 0]


def _facts(folder: Path, *names: str) -> dict:
    facts = read_facts(folder)
    missing = [name for name in names if name not in facts]
    if missing:
        raise BadRecommender(f"{folder.name} lacks its {', '.join(missing)}.", "Train it again.")
    return {name: facts[name] for name in names}
