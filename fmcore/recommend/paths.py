"""Paths: what came next for people who met several of the same items close together.

Item transitions add up what each item of a past speaks for alone; here people who met many of them, just before the same item, count for
far more than as many people who met one. Keeps sequences of items without any name, and nothing of the person it answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from fmcore.nouns import Report
from fmcore.recommend.matrices import counted, joined
from fmcore.recommend.recommender import BadRecommender, History, Items, Recommender, read_facts, write_facts

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

OPTIONS = ("recency", "latest", "lag", "power", "meetings", "smoothing")


@dataclass(frozen=True, eq=False)
class Meetings:
    """Where an item was met, sorted by item: on which path, and what followed.

    items int32 (n,); walk int32 (everything,): all paths one after another; place int32 (n,): where in walk the item stands; person
    int32 (n,); first, last int8 (n,): which of the following places count, as steps from the item's own. counts int64 (n_items,).
    """

    walk: np.ndarray
    items: np.ndarray
    place: np.ndarray
    person: np.ndarray
    first: np.ndarray
    last: np.ndarray
    counts: np.ndarray

    def of_each(self) -> np.ndarray:
        """int64 (n_items + 1,): where each item's meetings start."""
        return np.searchsorted(self.items, np.arange(len(self.counts) + 1))

    def sorted(self, kept: np.ndarray) -> Meetings:
        """The meetings at `kept`, by item and otherwise as they stand."""
        kept = kept[np.argsort(self.items[kept], kind="stable")]
        return replace(self, **{name: getattr(self, name)[kept] for name in ("items", "place", "person", "first", "last")})


class Paths(Recommender):
    """Sequence neighbours (after STAN of Garg et al. 2019, as a sum over people).

    For a person who met latest items of the past at most `lag` places before item j, what they speak for j is the sum of
    exp(-age / recency) * (1 - (step - 1) / lag) / sqrt(meetings of the item + smoothing); j's score is the sum over people of that to the
    `power`: 1 would be item transitions. At most `meetings` of each item are looked at: a list costs the same however large the log.
    Items of the past score 0.
    """

    name: ClassVar[str] = "paths"
    title: ClassVar[str] = "The same path"
    summary: ClassVar[str] = "What came next for people who met several of the same items close together."

    known: Meetings

    def __init__(
        self, *, recency: float = 5.0, latest: int = 10, lag: int = 10, power: float = 2.5, meetings: int = 400, smoothing: float = 10.0
    ):
        self.recency, self.latest, self.lag, self.power = recency, latest, lag, power
        self.meetings, self.smoothing = meetings, smoothing

    def fit(self, histories: Sequence[History], items: Items, *, held: np.ndarray | None = None, report: Report | None = None) -> Self:
        walk = joined(histories)
        lengths = np.array([len(past) for past in histories], dtype=np.int64)
        after = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(len(walk))
        everything = Meetings(
            walk, walk, np.arange(len(walk), dtype=np.int32), np.repeat(np.arange(len(histories), dtype=np.int32), lengths),
            np.ones(len(walk), dtype=np.int8), np.minimum(after, self.lag).astype(np.int8), counted(histories, n_items=len(items)),
        )  # fmt: skip
        return self._take(self._spread(everything.sorted(np.flatnonzero(after > 0))))

    def _spread(self, known: Meetings) -> Meetings:
        """At most `meetings` of each item, drawn at random but always the same (people may come in an order that means something)."""
        by_chance = np.lexsort((np.random.default_rng(0).random(len(known.items)), known.items))
        starts = known.of_each()
        rank = np.arange(len(known.items)) - np.repeat(starts[:-1], np.diff(starts))
        return known.sorted(np.sort(by_chance[rank < self.meetings]))

    def _take(self, known: Meetings) -> Self:
        self.known, self._starts = known, known.of_each()
        self._n_people = int(known.person.max(initial=-1)) + 1
        self._weight = 1 / np.sqrt(np.minimum(known.counts, self.meetings) + self.smoothing)
        return self

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        found = np.zeros((len(histories), len(self.known.counts)), dtype=np.float32)
        for row, history in zip(found, histories, strict=True):
            spoken = self._spoken(history[-self.latest :][::-1])
            row[:] = np.bincount(spoken.indices, weights=spoken.data**self.power, minlength=len(row))
            row[history] = 0
        return found

    def _spoken(self, latest: History) -> csr_matrix:
        """float64 (people, n_items): how much each person's path speaks for an item, given the latest items, the very last first."""
        from scipy.sparse import csr_matrix

        starts, ends = self._starts[latest], self._starts[latest + 1]
        at = np.concatenate([np.empty(0, dtype=np.int64), *(np.arange(a, b) for a, b in zip(starts, ends, strict=True))])
        weight = np.repeat(np.exp(-np.arange(len(latest)) / self.recency) * self._weight[latest], ends - starts)
        steps = np.arange(1, self.lag + 1)
        counts = (steps >= self.known.first[at, None]) & (steps <= self.known.last[at, None])
        value = weight[:, None] * (1 - (steps - 1) / self.lag)
        place = self.known.place[at, None] + steps
        person = np.broadcast_to(self.known.person[at, None], place.shape)
        shape = (self._n_people, len(self.known.counts))
        return csr_matrix((value[counts], (person[counts], self.known.walk[place[counts]])), shape=shape)

    def folded(self, pairs: Sequence[tuple[History, int]]) -> Paths:
        """A new model that knows the new events too: the same as fitting again with each past one item longer."""
        tails = [past[-self.lag :] for past, _ in pairs]
        walk = joined([np.append(tail, item) for tail, (_, item) in zip(tails, pairs, strict=True)])
        lengths = np.array([len(tail) for tail in tails], dtype=np.int64)
        ends = np.cumsum(lengths + 1) - 1
        place = np.concatenate([np.empty(0, dtype=np.int64), *(np.arange(e - n, e) for e, n in zip(ends, lengths, strict=True))])
        step = (np.repeat(ends, lengths) - place).astype(np.int8)
        old = self.known
        grown = Meetings(
            np.concatenate([old.walk, walk]),
            np.concatenate([old.items, walk[place]]),
            np.concatenate([old.place, place + len(old.walk)]).astype(np.int32),
            np.concatenate([old.person, np.repeat(np.arange(len(pairs)), lengths) + self._n_people]).astype(np.int32),
            np.concatenate([old.first, step]),
            np.concatenate([old.last, step]),
            old.counts + np.bincount([item for _, item in pairs], minlength=len(old.counts)).astype(np.int64),
        )
        return Paths(**self.options())._take(grown.sorted(np.arange(len(grown.items))))

    def options(self) -> dict:
        """The constructor's options as they are."""
        return {name: getattr(self, name) for name in OPTIONS}

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        write_facts(folder, {"name": self.name, **self.options()})
        save_file({name: np.ascontiguousarray(array) for name, array in vars(self.known).items()}, folder / "paths.safetensors")

    @classmethod
    def load(cls, folder: Path, items: Items) -> Self:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        facts = read_facts(folder)
        try:
            model, known = cls(**{name: facts[name] for name in OPTIONS}), Meetings(**load_file(folder / "paths.safetensors"))
        except (OSError, KeyError, TypeError, SafetensorError) as error:
            raise BadRecommender(f"{folder.name} cannot be read ({type(error).__name__}).", "Train it again.") from error
        n, fits = len(known.items), all(len(part) == len(known.items) for part in (known.place, known.person, known.first, known.last))
        ends = known.place + known.last if fits else np.array([len(known.walk)])
        inside = all(not len(x) or (x.min() >= 0 and x.max() < len(items)) for x in (known.walk, known.items))
        if known.counts.shape != (len(items),) or not inside or (n and int(ends.max()) >= len(known.walk)):
            raise BadRecommender(f"{folder.name} is of other items, or its parts do not fit together.", "Train it again.")
        return model._take(known)
