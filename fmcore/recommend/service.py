"""The door to the recommenders: lists that follow what people do at once, each item with its reason, from the version that serves now.

Owns how a person's past is put together from the version and from stored events, and when what was read of the tables is read again. Each
answer comes from exactly one version. Never trains, and draws nothing.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fmcore import clock
from fmcore.models.registry import Registry
from fmcore.recommend import answering, events, folding, live_bandit, logged, stock
from fmcore.recommend.asking import (
    Answer,
    Ask,
    BadAsk,
    Because,
    Beside,
    Cause,
    Change,
    Past,
    Recommendation,
    UnknownItem,
    Why,
)
from fmcore.recommend.current import Current, current
from fmcore.recommend.events import Event, Noted
from fmcore.recommend.off_policy import Value
from fmcore.recommend.recommender import History
from fmcore.recommend.shelf import Shelf
from fmcore.recommend.stock import ItemChange
from fmcore.recommend.versions import Refused, Versions
from fmcore.store.store import Store
from fmcore.tasks import RECOMMEND
from fmcore.text import clean

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Answer", "Ask", "BadAsk", "Because", "Beside", "Cause", "Change", "Event", "ItemChange", "Noted", "Past", "Recommend",
    "Recommendation", "Refused", "UnknownItem", "Why",
]  # fmt: skip

FRONTIER = ["diversity", "ndcg", "ndcg_low", "ndcg_high", "ild", "coverage", "n"]
MOST_BELIEVED = 20_000
"""Latest rows that a live learner learns from."""


@dataclass(frozen=True, eq=False)
class _Person:
    """Whom a list is for, as a version sees them. met: the past, oldest first; history: the items of it that there are, by number;
    off: numbers that are not to be shown."""

    current: Current
    met: list[events.Met]
    history: History
    unknown: tuple[str, ...]
    off: set[int]


class Recommend:
    """Asks the recommenders. Cheap to make; safe from any number of threads."""

    def __init__(self, registry: Registry, store: Store, *, versions: Versions | None = None):
        self.store = store
        self.versions = versions or Versions(registry)
        self._lock = threading.Lock()
        self._held: dict[str, Current] = {}
        self._read_at: dict[str, int] = {}

    # --- what serves

    def shelf(self, version: str | None = None) -> Shelf:
        """The shelf that answers, or a version's. Raises UnknownModel, Tampered, Refused."""
        return self.versions.take(version)

    def info(self) -> dict[str, Any]:
        """How recommendations are served: champion, the version that answers, why the two differ, and what its counts go up to."""
        found = self.versions.info()
        held = self._held.get(found["version"] or "")
        facts = {"dataset": None, "model": None, "n_items": None, "n_users": None, "folded_up_to": None}
        if held is not None:
            facts = {
                "dataset": held.shelf.dataset, "model": held.shelf.serving, "n_items": len(held.items) - len(held.removed),
                "n_users": len(held.shelf.users), "folded_up_to": held.folds,
            }  # fmt: skip
        return {**found, **facts}

    def warm(self) -> None:
        """Load the champion and answer once, so that the first person does not wait. Raises what `recommend` raises."""
        self.recommend(Ask(k=1))

    def current(self, version: str | None = None) -> Current:
        """The shelf as it is now, with items and counts that came since. Made again only when the tables say something new.

        Counts that were folded in meanwhile are waited for by the one who makes them; the others go on with what there is.
        """
        seen = self.store.n_commits
        shelf = self.versions.take(version)
        held = self._held.get(shelf.version)
        if held is not None and held.shelf is shelf and self._read_at.get(shelf.version) == seen:
            return held
        changes, folds = stock.last_change(self.store, shelf.dataset), folding.folded_up_to(self.store, shelf.version)
        if held is None or held.shelf is not shelf or held.changes != changes:
            with self._lock:
                return self._made(shelf, changes, folds, seen)
        if held.folds == folds:
            self._read_at[shelf.version] = seen
            return held
        if not self._lock.acquire(blocking=False):
            return held
        try:
            return self._made(shelf, changes, folds, seen)
        finally:
            self._lock.release()

    def _made(self, shelf: Shelf, changes: int, folds: int, seen: int) -> Current:
        """A new Current, unless somebody has made it while this one waited."""
        held = self._held.get(shelf.version)
        if held is None or held.shelf is not shelf or held.changes < changes or held.folds < folds:
            version = self.versions.registry.get(RECOMMEND.name, shelf.version)
            trained_up_to = int(self.versions.registry.facts(version).get("interactions_up_to") or 0)
            held = current(shelf, self.store, trained_up_to=trained_up_to, folds=folds, before=held)
            loaded = {*self.versions.info()["loaded"], shelf.version}
            self._held = {name: one for name, one in self._held.items() if name in loaded} | {shelf.version: held}
        self._read_at[shelf.version] = seen
        return held

    # --- people

    def users(self, prefix: str = "", limit: int = 50) -> list[str]:
        """Who has a name that begins so (capitals do not matter): those who did something here lately, then the data set's people."""
        now = self.current()
        found = dict.fromkeys(events.people(self.store, now.shelf.dataset, prefix=prefix, limit=limit))
        start = prefix.lower()
        for user in now.shelf.users:
            if len(found) >= limit:
                break
            if user.lower().startswith(start):
                found.setdefault(user)
        return list(found)[:limit]

    def history(self, who: str) -> list[Past]:
        """What somebody met, the newest first, as the next list will see it."""
        person = self._person(Ask(who=who))
        now, numbers = person.current, person.current.numbers
        titles = [now.title(numbers[met.item]) if met.item in numbers else met.item for met in person.met]
        found = [Past(met.item, title, met.kind, met.at, met.source) for met, title in zip(person.met, titles, strict=True)]
        return found[::-1]

    def _person(self, ask: Ask) -> _Person:
        """Whom a question is about; their stored events are read now."""
        ask.check()
        now = self.current(ask.version)
        numbers, ids = now.numbers, now.items.ids
        words = events.past(self.store, now.shelf.dataset, ask.who) if ask.who else {}
        if ask.history is not None:
            met = [events.Met(item, "log", None, "data") for item in dict.fromkeys(ask.history)]
        else:
            base = [ids[number] for number in now.shelf.past(ask.who)] if ask.who else []
            met = events.together(base, words)
        history = np.array([numbers[one.item] for one in met if one.item in numbers], dtype=np.int32)
        unknown = tuple(one.item for one in met if one.item not in numbers)
        off = {numbers[item] for item in {*events.kept_off(words), *ask.without} if item in numbers} | now.removed
        return _Person(now, met, history, unknown, off)

    # --- lists

    def recommend(self, ask: Ask) -> Answer:
        """The list that was asked for. Raises BadAsk, UnknownModel, Tampered, Refused."""
        began = time.perf_counter()
        return self._answer(ask, self._person(ask), began)

    def _answer(self, ask: Ask, person: _Person, began: float) -> Answer:
        now, history = person.current, person.history
        who = f"‘{clean(ask.who, limit=60)[0]}’" if ask.who else ""
        chosen = answering.chosen(ask, now, history, whom=who, n_unknown=len(person.unknown))
        beliefs = self._beliefs(now) if ask.learner else None
        items = answering.listed(ask, now, chosen, history, without=person.off, beliefs=beliefs)
        if ask.learner and ask.who:
            self._shown(now, ask.who, items)
        note = " ".join(filter(None, (chosen.note, _short(ask, person, len(items)))))
        ms = (time.perf_counter() - began) * 1000
        return Answer(
            items, chosen.name, now.shelf.version, now.shelf.dataset, chosen.fallback, len(history), person.unknown, ms, note=note
        )

    def side_by_side(self, ask: Ask, models: Sequence[str]) -> Beside:
        """The same question to several models of one version."""
        import pandas as pd

        person = self._person(ask)
        lists = {
            name: self._answer(dataclasses.replace(ask, model=name, learner=None), person, time.perf_counter())
            for name in dict.fromkeys(models)
        }
        on = {name: {one.item for one in answer.items} for name, answer in lists.items()}
        shares = [[_common(on[row], on[column]) for column in lists] for row in lists]
        return Beside(lists, pd.DataFrame(shares, index=list(lists), columns=list(lists), dtype=float))

    def without(self, ask: Ask, item: str) -> Answer:
        """The list as if an item of the past had never been met, and what that moves. Nothing is stored. Raises BadAsk."""
        began = time.perf_counter()
        person, ask = self._person(ask), dataclasses.replace(ask, learner=None)
        number = person.current.numbers.get(item)
        if number is None or number not in person.history:
            raise BadAsk("That item is not in the past.", "Name an item of the history.")
        before = self._answer(dataclasses.replace(ask, reasons=False), person, began)
        rest = dataclasses.replace(person, history=person.history[person.history != number], off={*person.off, number})
        after = self._answer(ask, rest, began)
        return dataclasses.replace(after, changes=_changes(before, after))

    def why(self, ask: Ask, item: str) -> Why:
        """What each item of the past adds to an item's score, checked by taking it away. Raises UnknownItem, BadAsk."""
        person = self._person(ask)
        now, history = person.current, person.history
        number = now.numbers.get(item)
        if number is None:
            raise UnknownItem("There is no such item.", "Name an item of the catalogue.")
        chosen = answering.chosen(ask, now, history, whom="", n_unknown=len(person.unknown))
        score = float(chosen.scorer.scores([history])[0][number])
        found = chosen.scorer.explain(history, number) if len(history) else []
        causes = tuple(
            Cause(now.items.ids[one.item], now.title(one.item), float(one.value), float(one.drop), one.is_cause) for one in found
        )
        said = _sentence(now.title(number), score, causes, fallback=chosen.fallback, guided=chosen.name.endswith("text"))
        return Why(item, now.title(number), score, causes, said, chosen.name, now.shelf.version)

    def similar(self, item: str, k: int = 10, *, model: str | None = None) -> Answer:
        """What the model recommends to somebody who met this item alone. Raises UnknownItem, BadAsk."""
        if item not in self.current().numbers:
            raise UnknownItem("There is no such item.", "Name an item of the catalogue.")
        return self.recommend(Ask(history=(item,), k=k, model=model, reasons=False))

    def frontier(self) -> pd.DataFrame:
        """What diversity costs the version that serves, measured when it was trained; no rows where it was not measured."""
        import pandas as pd

        file = self.versions.registry.get(RECOMMEND.name, self.shelf().version).path / "frontier.parquet"
        return pd.read_parquet(file) if file.is_file() else pd.DataFrame(columns=FRONTIER)

    # --- what people do

    def note(self, said: Sequence[Event]) -> Noted:
        """Store what people did; the next list knows it. Each event is stored once however often it comes."""
        now = self.current()
        return events.note(self.store, now.shelf.dataset, said, known=now.numbers)

    def change_items(self, changes: Sequence[ItemChange]) -> Noted:
        """Let items come, go or be called something else; the next list knows it."""
        now = self.current()
        noted = stock.change(self.store, now.shelf.dataset, changes, known=now.numbers)
        self.current()
        return noted

    def beliefs(self) -> live_bandit.Beliefs:
        """What the live learner believes of each group of items now, from everybody's answers to what it showed."""
        return self._beliefs(self.current())

    def live_estimate(self, learner: str) -> dict[str, str] | None:
        """{"sentence"}: how often what was shown was liked, and how often it would have been, had groups been drawn evenly.

        From the shows of all learners (a row does not say which one); None where they are too few to say.
        """
        now = self.current()
        found = {(policy, value.estimator): value for policy, value in logged.live(self._shows(now), now.groups)}
        own, even = found["learner", "snips"], found["even", "snips"]
        if own.value is None or even.value is None:
            return None
        said = f"Of {own.n:,} shown items {_share(own)} were liked; with groups drawn evenly it would have been {_share(even)}"
        return {"sentence": f"{said} (self-normalised IPS; {even.ess:,.0f} effective rows)."}

    def _beliefs(self, now: Current) -> live_bandit.Beliefs:
        return live_bandit.beliefs(self._shows(now), now.groups, prior=now.prior)

    def _shows(self, now: Current) -> pd.DataFrame:
        """events.shows with the items' numbers, -1 for one that is there no more."""
        frame = events.shows(self.store, now.shelf.dataset, limit=MOST_BELIEVED)
        return frame.assign(item=np.array([now.numbers.get(item, -1) for item in frame["item"]], dtype=np.int64))

    def _shown(self, now: Current, who: str, items: Sequence[Recommendation]) -> None:
        at = clock.now()
        rows = [Event(who, one.item, "shown", one.probability, at, source="bandit") for one in items]
        events.note(self.store, now.shelf.dataset, rows, known=now.numbers, now=at)


def _share(value: Value) -> str:
    return f"{value.value:.0%} (95 %: {value.low:.0%} to {value.high:.0%})"


def _common(one: set[str], other: set[str]) -> float:
    """Jaccard: the share of all items of two lists that are on both; two empty lists are the same."""
    return len(one & other) / len(one | other) if one | other else 1.0


def _changes(before: Answer, after: Answer) -> tuple[Change, ...]:
    """Items whose place differs, in the order of the new list and then of the old one."""
    places = [{one.item: place for place, one in enumerate(answer.items, 1)} for answer in (before, after)]
    titles = {one.item: one.title for answer in (before, after) for one in answer.items}
    found = [Change(item, titles[item], places[0].get(item), places[1].get(item)) for item in dict.fromkeys([*places[1], *places[0]])]
    return tuple(change for change in found if change.before != change.after)


def _short(ask: Ask, person: _Person, n: int) -> str:
    """Why a list is shorter than asked for, as a sentence."""
    if n >= ask.k:
        return ""
    now = person.current
    if len(now.removed) == len(now.items):
        return "Every item was taken out of the catalogue."
    left = "Nothing is left to show" if not n else f"Only {n:,} {'item is' if n == 1 else 'items are'} left to show"
    return f"{left}: of {len(now.items) - len(now.removed):,} items the others were met already or are kept off the list."


def _sentence(title: str, score: float, causes: Sequence[Cause], *, fallback: str, guided: bool) -> str:
    """Why an item has its score, from the numbers alone."""
    shown = f"‘{clean(title, limit=80)[0]}’"
    if fallback:
        return f"{shown} is here because many people met it. {fallback}"
    named = sorted((cause for cause in causes if cause.is_cause), key=lambda cause: -cause.drop)[:2]  # as the list names them
    if not named:
        source = "what was asked for in words" if guided else "the past as a whole"
        return f"{shown} has its score from {source}: taking away any single item of it does not lower the score."
    first, rest = named[0], named[1:]
    said = f"{shown} is here most of all because of ‘{clean(first.title, limit=80)[0]}’: "
    said += f"without it the score falls from {_number(score)} to {_number(score - first.drop)}."
    for cause in rest:
        said += f" ‘{clean(cause.title, limit=80)[0]}’ adds to it too (to {_number(score - cause.drop)} without it)."
    return said


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
