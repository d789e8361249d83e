"""Several recommenders as one: how much each counts is learnt per length of the past, on items that were held back.

Owns the weights and how they are learnt. The members are models of their own: a hybrid fits them only where `fit` is called, never in
`learn`, and never changes what they say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd

from fmcore.nouns import Report
from fmcore.recommend.counting import Ease, Popularity, Transitions
from fmcore.recommend.recommender import BadRecommender, History, Items, Recommender, read_facts, standardised, write_facts

LENGTHS = (1, 3, 10, 30, 100)
"""Lengths of a past that have weights of their own; in between they are interpolated on a logarithmic scale, beyond they stay."""
SHRINK, EVEN = 10.0, 0.1
"""How strongly the weights of each length are drawn to the common ones, and all to equal ones: in held-out rows."""
SHARPNESS, DEEPEST = 0.3, 30
"""How sharply one score counts as above another, in standard deviations; and the rank from which on a row no longer matters."""
JUDGED, CANDIDATES, STEPS = 2_000, 50, 60
"""Weights are learnt on at most so many pasts, on so many of the best items of each member there, in at most so many steps."""
LEAST = 0.02
"""A member with a smaller share does not take part, and costs nothing."""
_ROWS = 64


class Hybrid(Recommender):
    """The weighted sum of its members' standardised scores. members: popularity, transitions and EASE when None.

    Three ways to one: `fit` fits the members and, where it is given `held`, learns the weights (a fit without keeps those it has, so
    that what was learnt on validation can be fitted again on everything). `learn` takes members that are fitted already on the same
    histories. `over` takes the weights to other fits of the same members. A member that has nothing to say of a past adds nothing; where
    none with a weight has, all count alike. An item that nobody met yet (popularity counts 0) cannot be known to the others: it takes the
    place among the known ones that the text model gives it, where both models are members.
    """

    name: ClassVar[str] = "hybrid"
    title: ClassVar[str] = "Hybrid"
    summary: ClassVar[str] = "All of them together: how much each counts depends on how much is known of a person."

    def __init__(self, members: Sequence[Recommender] | None = None):
        self.members = tuple(members) if members is not None else (Popularity(), Transitions(), Ease())
        self.shares = np.full((len(LENGTHS), len(self.members)), 1 / max(1, len(self.members)))
        """(lengths, members): each row sums to 1."""
        self.judged = np.zeros(len(LENGTHS))
        """How many held-out rows stand behind each length; a row between two lengths counts for both in part."""

    def fit(self, histories: Sequence[History], items: Items, *, held: np.ndarray | None = None, report: Report | None = None) -> Self:
        for done, member in enumerate(self.members):
            if report is not None:
                report.progress(done / (len(self.members) + 1), f"Fitting {member.title}")
            member.fit(histories, items, held=held)
        return self if held is None else self.learn(histories, held)

    def learn(self, histories: Sequence[History], held: np.ndarray, *, seed: int = 0) -> Self:
        """Learn the weights alone. held: int32 (len(histories),) what came next, -1 where there is nothing. Returns itself.

        They maximise a smooth NDCG of the held-out item among the members' best items, each length's weights drawn to those that all
        lengths share, so that few rows move them little. Without any row they stay.
        """
        rows = np.flatnonzero(np.asarray(held) >= 0)
        if len(rows) > JUDGED:
            rows = np.sort(np.random.default_rng(seed).choice(rows, JUDGED, replace=False))
        pasts, targets = [histories[row] for row in rows], np.asarray(held)[rows]
        if len(rows) and self.members:
            between = _between([len(past) for past in pasts])
            self.shares, self.judged = _shares(_learn(self._choices(pasts, targets), between)), between.sum(axis=0)
        return self

    def over(self, members: Sequence[Recommender]) -> Hybrid:
        """A new hybrid with these weights over other fits of the same members, in whatever order. Raises BadRecommender."""
        by_name = {member.name: member for member in members}
        missing = [member.name for member in self.members if member.name not in by_name]
        if missing:
            raise BadRecommender(f"The hybrid lacks its members {', '.join(missing)}.", "Train it again.")
        new = Hybrid([by_name[member.name] for member in self.members])
        new.shares, new.judged = self.shares, self.judged
        return new

    def weights(self) -> pd.DataFrame:
        """length (of the past), member, weight (share of 1), n (held-out rows behind that length): what a page draws."""
        rows = [
            (length, member.name, float(share), round(float(n)))
            for length, shares, n in zip(LENGTHS, self.shares, self.judged, strict=True)
            for member, share in zip(self.members, shares, strict=True)
        ]
        return pd.DataFrame(rows, columns=["length", "member", "weight", "n"])

    def scores(self, histories: Sequence[History]) -> np.ndarray:
        shares = _shares(_between([len(past) for past in histories]) @ self.shares)
        read: dict[int, np.ndarray] = {}
        total = None
        for place, member in enumerate(self.members):
            rows = np.flatnonzero(shares[:, place])
            if len(rows):
                read[place] = self._read(member, histories, rows)
                added = shares[:, [place]].astype(np.float32) * read[place]
                total = added if total is None else total + added
        if total is None:  # nobody asks
            return self.members[0].scores(histories) if self.members else np.zeros((0, 0), dtype=np.float32)
        silent = np.flatnonzero(~total.any(axis=1))
        if len(silent):
            pasts = [histories[row] for row in silent]
            total[silent] = np.mean([standardised(member.scores(pasts)) for member in self.members], axis=0)
        return self._with_unmet(total, histories, read)

    def _read(self, member: Recommender, histories: Sequence[History], rows: np.ndarray) -> np.ndarray:
        """float32 (len(histories), n_items): a member's standardised scores in `rows`, zeros elsewhere."""
        found = standardised(member.scores([histories[row] for row in rows]))
        if len(rows) == len(histories):
            return found
        whole = np.zeros((len(histories), found.shape[1]), dtype=np.float32)
        whole[rows] = found
        return whole

    def _with_unmet(self, total: np.ndarray, histories: Sequence[History], read: Mapping[int, np.ndarray]) -> np.ndarray:
        """Items that nobody met, where text puts them: each takes the score at its place in the text model's order of the known ones."""
        names = [member.name for member in self.members]
        if "text" not in names or Popularity.name not in names:
            return total
        unmet = self.members[names.index(Popularity.name)].counts == 0
        if not unmet.any() or unmet.all():
            return total
        text = names.index("text")
        found = read[text] if text in read else self.members[text].scores(histories)
        for row, heard in enumerate(found):
            if heard.any():
                total[row, unmet] = np.interp(heard[unmet], np.sort(heard[~unmet]), np.sort(total[row, ~unmet]))
        return total

    def knows(self, histories: Sequence[History]) -> np.ndarray:
        told = [member.knows(histories) for member in self.members if member.name != Popularity.name]
        return np.any(told, axis=0) if told else np.zeros(len(histories), dtype=bool)

    def folded(self, pairs: Sequence[tuple[History, int]]) -> Hybrid:
        """A new hybrid whose members have counted the new events too, those that can."""
        return self.over([member.folded(pairs) for member in self.members])

    def _choices(self, pasts: Sequence[History], targets: np.ndarray) -> list[np.ndarray]:
        """For each past float32 (choices, members): what the members say of the item that came (first) and of their best other items."""
        choices = []
        for start in range(0, len(pasts), _ROWS):
            some = pasts[start : start + _ROWS]
            told = np.stack([standardised(member.scores(some)) for member in self.members], axis=2)
            for past, target, said in zip(some, targets[start : start + _ROWS].tolist(), told, strict=True):
                open_ = np.ones(len(said), dtype=bool)
                open_[past], open_[target] = False, False
                others = np.flatnonzero(open_)
                n = min(CANDIDATES, len(others))
                best = [others[np.argpartition(-said[others, m], n - 1)[:n]] for m in range(said.shape[1])] if n else []
                choices.append(said[np.concatenate([[target], np.unique(np.concatenate(best))]).astype(int)] if n else said[[target]])
        return choices

    def save(self, folder: Path, *, with_members: bool = True) -> None:
        """with_members False leaves them out: for a shelf, which keeps them beside."""
        facts = {"members": [member.name for member in self.members], "lengths": list(LENGTHS)}
        write_facts(folder, {"name": self.name, **facts, "shares": self.shares.tolist(), "judged": self.judged.tolist()})
        for member in self.members if with_members else ():
            (folder / member.name).mkdir()
            member.save(folder / member.name)

    @classmethod
    def load(cls, folder: Path, items: Items, *, members: Mapping[str, Recommender] | None = None) -> Self:
        """members: by name, where they are loaded already; else those that `save` wrote beside the weights."""
        from fmcore.recommend.offers import MODELS  # which offers the hybrid too

        facts = read_facts(folder)
        try:
            names, lengths = list(facts["members"]), tuple(facts["lengths"])
            shares, judged = np.array(facts["shares"], dtype=np.float64), np.array(facts["judged"], dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise BadRecommender(f"{folder.name} cannot be read ({type(error).__name__}).", "Train it again.") from error
        there = MODELS if members is None else members
        strange = [name for name in names if name not in there]
        if strange or lengths != LENGTHS or shares.shape != (len(LENGTHS), len(names)) or judged.shape != (len(LENGTHS),):
            raise BadRecommender(f"{folder.name} is a hybrid of other models or lengths {strange}.", "Train it again.")
        model = cls([MODELS[name].load(folder / name, items) for name in names] if members is None else [members[name] for name in names])
        model.shares, model.judged = shares, judged
        return model


def _between(lengths: Sequence[int]) -> np.ndarray:
    """float64 (n, LENGTHS): how much each length of LENGTHS stands for a past's; each row sums to 1."""
    at = np.log(np.maximum(np.asarray(lengths, dtype=np.float64), LENGTHS[0]))
    return np.stack([np.interp(at, np.log(LENGTHS), one) for one in np.eye(len(LENGTHS))], axis=1)


def _shares(weights: np.ndarray) -> np.ndarray:
    """Each row brought to a sum of 1, shares below LEAST left out; a row without any weight counts all alike."""
    total = weights.sum(axis=1, keepdims=True)
    alike = np.full_like(weights, 1 / max(1, weights.shape[1]))
    shares = np.divide(weights, total, out=alike, where=total > 0)
    shares[shares < LEAST] = 0
    return shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)


def _learn(choices: Sequence[np.ndarray], between: np.ndarray) -> np.ndarray:
    """float64 (LENGTHS, members), rows summing to 1. choices: a past's, the right one first; between: float (n, LENGTHS).

    ApproxNDCG (Qin, Liu and Li 2010): the rank of the right item is 1 + the sum of sigmoids of how far the others lie above it, and a row
    gains 1 / log2(1 + rank) less what rank DEEPEST gains. Weights are a softmax, each length's drawn to the common ones by SHRINK. Started
    from equal weights and from the best member alone, as there may be several maxima.
    """
    from scipy.optimize import minimize

    told = [each for each in range(len(choices)) if len(choices[each]) > 1]
    n_members = choices[0].shape[1]
    alike = np.full((between.shape[1], n_members), 1 / n_members)
    if not told or n_members < 2:
        return alike
    above = [choices[each][1:] - choices[each][:1] for each in told]
    alone = np.mean([1 / np.log2(2 + (each > 0).sum(axis=0)) for each in above], axis=0)
    loss = _loss(above, between[told])
    found = []
    for start in (np.zeros(n_members), 2.0 * np.eye(n_members)[alone.argmax()]):
        flat = np.tile(start, between.shape[1] + 1)
        found.append(minimize(loss, flat, jac=True, method="L-BFGS-B", options={"maxiter": STEPS}))
    best = min(found, key=lambda each: each.fun)
    return _softmax(best.x.reshape(-1, n_members)[1:])


def _loss(above: Sequence[np.ndarray], between: np.ndarray) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """What `_learn` makes small, with its gradient. above: for each row float32 (others, members), how far they lie above the right one."""
    sizes = np.array([len(each) for each in above])
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    row = np.repeat(np.arange(len(sizes)), sizes)
    gap, n_members = np.concatenate(above), above[0].shape[1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        wishes = flat.reshape(-1, n_members)
        shares = _softmax(wishes[1:])
        higher = (gap * (between @ shares).astype(np.float32)[row]).sum(axis=1) / SHARPNESS
        odds = 1 / (1 + np.exp(-np.clip(higher, -40, 40)))
        rank = 1 + np.add.reduceat(odds, first)
        log = np.log2(1 + rank)
        near = rank < DEEPEST
        gained = np.where(near, 1 / log - 1 / np.log2(1 + DEEPEST), 0)
        slope = np.where(near, 1 / (log**2 * (1 + rank) * np.log(2)), 0)
        by_row = np.add.reduceat(gap * ((slope / SHARPNESS)[row] * odds * (1 - odds))[:, None], first, axis=0)
        by_share = between.T @ by_row
        pull = wishes[1:] - wishes[:1]
        value = -gained.sum() + SHRINK / 2 * np.square(pull).sum() + EVEN / 2 * np.square(wishes).sum()
        own = shares * (by_share - (shares * by_share).sum(axis=1, keepdims=True)) + SHRINK * pull
        return float(value), (np.concatenate([-SHRINK * pull.sum(axis=0)[None], own]) + EVEN * wishes).ravel()

    return loss


def _softmax(wishes: np.ndarray) -> np.ndarray:
    raised = np.exp(wishes - wishes.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
