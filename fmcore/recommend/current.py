"""A shelf as it is now: with the items that came and went since it was trained, and with counts that hold what people did since.

Owns how models that were trained on fewer items answer for all of them. Made from a shelf and stored rows alone, so that whoever makes it
again gets the same; never changes a shelf.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fmcore.recommend import diversity, folding, live_bandit, stock
from fmcore.recommend.recommender import History, Items, Recommender, Scorer
from fmcore.recommend.shelf import Groups, Shelf
from fmcore.store.store import Store

TEXT, POPULARITY = "text", "popularity"


@dataclass(frozen=True, eq=False)
class Current:
    """What answers. items: those of the version, then those that came since; numbers: by id; removed: numbers that are not shown.

    changes and folds: up to which row of the tables this is true. counted: the models with what was folded in, for the version's items;
    readers: those that read texts, for all items.
    """

    shelf: Shelf
    items: Items
    removed: frozenset[int]
    models: Mapping[str, Scorer] = field(repr=False)
    counted: Mapping[str, Scorer] = field(repr=False)
    readers: Mapping[str, Scorer] = field(repr=False)
    changes: int = 0
    folds: int = 0

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each item by its id."""
        return {item: number for number, item in enumerate(self.items.ids)}

    def title(self, number: int) -> str:
        """What an item is called; its id where it has no title."""
        return self.items.titles[number] or self.items.ids[number]

    @cached_property
    def vectors(self) -> np.ndarray:
        """float32 (n_items, d) that say what is alike: by the items' texts, or by who met them where the version does not read texts."""
        if TEXT in self.models:
            return self.models[TEXT].vectors
        known = _likeness(self.shelf)
        return np.concatenate([known, np.zeros((len(self.items) - len(known), known.shape[1]), dtype=known.dtype)])

    @cached_property
    def groups(self) -> Groups:
        """The version's groups of items; an item that came since stands in the one whose texts are nearest, else in the largest."""
        held = self.shelf.groups
        of = np.asarray(held.of)
        n_new = len(self.items) - len(of)
        if not n_new:
            return held
        nearest = np.full(n_new, np.bincount(of).argmax(), dtype=of.dtype)
        if TEXT in self.models:
            centres = np.stack([self.vectors[: len(of)][of == group].sum(axis=0) for group in range(len(held.names))])
            centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
            nearest = (self.vectors[len(of) :] @ centres.T).argmax(axis=1).astype(of.dtype)
        return dataclasses.replace(held, of=np.concatenate([of, nearest]))

    @cached_property
    def prior(self) -> live_bandit.Prior:
        """What a live learner believes of the groups before the first show."""
        return live_bandit.prior(self.shelf.pasts, self.groups)


def current(shelf: Shelf, store: Store, *, trained_up_to: int, folds: int, before: Current | None = None) -> Current:
    """A shelf with what the tables say now, its counts up to event `folds` instead of `trained_up_to` where that is more.

    before: the same shelf as it was; what holds still is taken from it, so that a change costs what has changed.
    """
    same = before if before is not None and before.shelf is shelf else None
    changes, changed = stock.changed(store, shelf.dataset)
    if same is not None and same.folds == folds:
        counted = same.counted
    else:
        counted = _folded(shelf, store, after=trained_up_to, up_to=folds) if folds > trained_up_to else shelf.models
    named = [change for change in changed.values() if change.title or change.text]
    told = Items(tuple(c.item for c in named), tuple(c.title for c in named), tuple(c.text for c in named))
    items = _retold(shelf.items, told)
    models, readers = dict(counted), {}
    if named:
        held = same.readers if same is not None else {}
        readers = {name: held.get(name, model).with_items(told) for name, model in counted.items() if hasattr(model, "with_items")}
        models = _widened(counted, readers, n_before=len(shelf.items), n_new=len(items) - len(shelf.items))
    gone = {item for item, change in changed.items() if change.state == "removed"}
    removed = frozenset(number for number, item in enumerate(items.ids) if item in gone) if gone else frozenset()
    return Current(shelf, items, removed, models, counted, readers, changes, folds)


@functools.lru_cache(maxsize=2)
def _likeness(shelf: Shelf) -> np.ndarray:
    """By who met what; takes seconds for a large log, and a shelf's stays the same."""
    return diversity.likeness(shelf.pasts, n_items=len(shelf.items))


def _folded(shelf: Shelf, store: Store, *, after: int, up_to: int) -> dict[str, Scorer]:
    """The models, those that count with the events of `after` < n <= `up_to` counted too."""

    def base(who: str) -> list[str]:
        return [shelf.items.ids[number] for number in shelf.past(who)]

    found = folding.pairs(store, shelf.dataset, after=after, up_to=up_to, base=base)
    numbers = shelf.numbers
    known = [([numbers[one] for one in past if one in numbers], numbers[item]) for past, item in found if item in numbers]
    pairs = [(np.array(past, dtype=np.int32), item) for past, item in known]
    if not pairs:
        return dict(shelf.models)
    whole = {name: model for name, model in shelf.models.items() if not hasattr(model, "over")}
    folded = {name: model.folded(pairs) for name, model in whole.items()}
    return {name: folded.get(name, model) for name, model in shelf.models.items()} | _hybrids(shelf.models, folded)


def _retold(items: Items, told: Items) -> Items:
    """The items with the titles and texts that they have now, then those that came since."""
    now = dict(zip(items.ids, zip(items.titles, items.texts, strict=True), strict=True))
    now |= dict(zip(told.ids, zip(told.titles, told.texts, strict=True), strict=True))
    return Items(tuple(now), tuple(title for title, _ in now.values()), tuple(text for _, text in now.values()))


def _widened(models: Mapping[str, Scorer], readers: Mapping[str, Scorer], *, n_before: int, n_new: int) -> dict[str, Scorer]:
    """The models for the items as they are now: `readers` read the new ones, the others place them by what the text model says."""
    if not n_new:
        return {**models, **readers, **_hybrids(models, {**models, **readers})}
    others = {name: model for name, model in models.items() if name not in readers}
    wide = {name: Widened(model, readers.get(TEXT), n_before=n_before, n_new=n_new) for name, model in others.items()}
    plain = {name: Widened(model, None, n_before=n_before, n_new=n_new) for name, model in others.items()}
    return {name: readers.get(name) or wide[name] for name in models} | _hybrids(models, {**plain, **readers}, needs=(TEXT, POPULARITY))


def _hybrids(models: Mapping[str, Scorer], members: Mapping[str, Scorer], *, needs: Collection[str] = ()) -> dict[str, Scorer]:
    """The models that are sums of others, over `members` in the place of their own; those that lack one of `needs` are left out."""
    found = {}
    for name, model in models.items():
        own = [member.name for member in getattr(model, "members", ())] if hasattr(model, "over") else []
        if own and {*own, *needs} <= members.keys() and set(needs) <= set(own):
            found[name] = model.over([members[one] for one in own])
    return found


class Widened(Scorer):
    """A model that knows `n_before` items, for `n_new` more. A new item gets the score of the known item beside which its text puts it.

    That is: the text model's score of the new item is looked up among its scores of the known items, and the model's own score at the same
    place of its order is taken. Where no text model has anything to say, and under popularity, new items come last.
    """

    def __init__(self, model: Recommender, text: Scorer | None, *, n_before: int, n_new: int):
        self.model, self.text, self.n_before, self.n_new = model, text, n_before, n_new
        self.name, self.title = model.name, model.title

    @property
    def counts(self) -> np.ndarray:
        """int (n_items,) how many people met each item, where the model counts that: nobody met a new one."""
        return np.append(self.model.counts, np.zeros(self.n_new, dtype=self.model.counts.dtype))

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        known = self.model.scores(self._known(histories))
        new = np.repeat(known.min(axis=1, keepdims=True), self.n_new, axis=1) if self.n_before else np.zeros((len(histories), self.n_new))
        if self.text is not None and self.name != POPULARITY:
            for row, read in enumerate(self.text.scores(histories)):
                if read.any():
                    new[row] = np.interp(read[self.n_before :], np.sort(read[: self.n_before]), np.sort(known[row]))
        return np.concatenate([known, new], axis=1).astype(np.float32)

    def knows(self, histories: Sequence[History]) -> np.ndarray:
        return self.model.knows(self._known(histories))

    def _known(self, histories: Sequence[History]) -> list[History]:
        return [past[past < self.n_before] for past in map(np.asarray, histories)]
