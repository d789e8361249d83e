"""What a shelf can hold: every model by name, from simple to elaborate, and what it costs on a log of a given shape.

Owns the order in which models are fitted and chosen, and the refusal of a model that would not fit into memory or time. The costs are
rough, measured on two cores, and lean high: a model left out with a sentence is better than a run that is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmcore.nouns import FMError
from fmcore.recommend.counting import Blend, Ease, ItemKNN, NextItem, Popularity, Transitions
from fmcore.recommend.factors import Als
from fmcore.recommend.hybrid import Hybrid
from fmcore.recommend.paths import Paths
from fmcore.recommend.recommender import History, Items, Recommender
from fmcore.recommend.sequence import Sequence as SequenceModel
from fmcore.recommend.text_items import TextItems

MODELS: dict[str, type[Recommender]] = {
    model.name: model for model in (Popularity, Transitions, ItemKNN, Als, Ease, NextItem, Paths, Blend, TextItems, SequenceModel, Hybrid)
}
TRAINED = (SequenceModel.name,)
"""Models that learn step by step and take what time there is; the others are solved in a time that their log sets."""
AUTO = "auto"


class UnknownRecommender(FMError):
    """No recommender has that name."""


@dataclass(frozen=True)
class Shape:
    """The size of a log. n_pairs: how many pairs of items stand in somebody's past together, counted with their repetition."""

    n_users: int
    n_items: int
    n_rows: int
    n_pairs: int
    has_texts: bool


@dataclass(frozen=True)
class Cost:
    """seconds of one fit on one slow core, and bytes of memory at its height."""

    seconds: float
    bytes: float


def _transitions(s: Shape) -> Cost:
    return Cost(0.3 + s.n_rows * 5e-7, s.n_rows * 100 + min(s.n_rows * 5, s.n_items * s.n_items) * 24)


def _neighbours(s: Shape) -> Cost:
    return Cost(0.5 + s.n_pairs * 2e-9 + s.n_items * s.n_items * 2e-7, s.n_items * 4096 + s.n_rows * 32 + 5e8)


def _ease(s: Shape) -> Cost:
    n = min(s.n_items, 12_000)
    return Cost(0.5 + s.n_pairs * 2e-9 + n**3 * 3e-11, n * n * 9 + min(s.n_items, 10_000) ** 2 * 4 + s.n_rows * 32)


def _next(s: Shape) -> Cost:
    n = min(s.n_items, 8_000)
    return Cost(0.5 + s.n_rows * 2e-6 + n**3 * 6e-11, n * n * 17 + min(s.n_items, 10_000) ** 2 * 4 + s.n_rows * 32)


def _paths(s: Shape) -> Cost:
    return Cost(0.5 + s.n_rows * 5e-7, s.n_rows * 40)


def _factors(s: Shape) -> Cost:
    return Cost(1 + s.n_rows * 3e-6 + (s.n_users + s.n_items) * 2e-4, (s.n_users + s.n_items) * 1024 + s.n_rows * 48)


def _blend(s: Shape) -> Cost:
    parts = _paths(s), _ease(s), _next(s)
    return Cost(sum(part.seconds for part in parts) + min(s.n_users, 5_000) * (2e-3 + s.n_items * 2e-7), sum(part.bytes for part in parts))


def _sequence(s: Shape) -> Cost:
    """Three passes over the log, without which it is no match for the counting models."""
    return Cost(10 + s.n_rows * 1.2e-4, 1.2e9 + s.n_items * 2048 + s.n_rows * 16)


def _text(s: Shape) -> Cost:
    """Every item is read once, by a graph that the first fit on a machine has to make."""
    return Cost(25 + s.n_items * 8e-3, 1.2e9 + s.n_items * 16_384)


def _hybrid(s: Shape) -> Cost:
    people = min(s.n_users, 3_000)
    return Cost(3 + people * (s.n_items * 1e-6 + 6e-3), people * 400 * 16 * 8 + 256 * s.n_items * 64)


COSTS: dict[str, Callable[[Shape], Cost]] = {
    "popularity": lambda s: Cost(s.n_rows * 5e-8, s.n_rows * 16),
    "transitions": _transitions,
    "knn": _neighbours,
    "als": _factors,
    "ease": _ease,
    "next": _next,
    "paths": _paths,
    "blend": _blend,
    "text": _text,
    "sasrec": _sequence,
    "hybrid": _hybrid,
}


def shape(items: Items, histories: Sequence[History]) -> Shape:
    """The size of a log."""
    lengths = np.array([len(past) for past in histories], dtype=np.int64)
    has_texts = any(items.titles) or any(items.texts)
    return Shape(len(lengths), len(items), int(lengths.sum()), int(np.square(lengths).sum()), has_texts)


def free_bytes() -> float:
    """Memory that a model may take: most of what this machine has left."""
    import psutil

    return psutil.virtual_memory().available * 0.7


def ordered(names: Sequence[str]) -> list[str]:
    """The named models from simple to elaborate, popularity always among them; "auto" names all. Raises UnknownRecommender."""
    for name in names:
        if name not in MODELS and name != AUTO:
            raise UnknownRecommender(f"There is no recommender {name!r}.", f"There are: {', '.join(MODELS)}.")
    return [name for name in MODELS if name in names or AUTO in names or name == Popularity.name]


def make(name: str, *, seed: int, minutes: float, checkpoint: Path | None, encoder: str = "") -> Recommender:
    """A model to be fitted. minutes (0: as many as it takes) and checkpoint: for those that learn step by step; encoder: "" the desk's."""
    if name == TextItems.name:
        return TextItems(encoder=encoder)
    if name in TRAINED:
        return SequenceModel(seed=seed, minutes=minutes, checkpoint=checkpoint)
    if name == Als.name:
        return Als(seed=seed)
    return MODELS[name]()


def again(model: Recommender, *, checkpoint: Path | None) -> Recommender:
    """A model to be fitted on more rows with what the fit of `model` has chosen."""
    if isinstance(model, SequenceModel):
        return SequenceModel(seed=model.seed, minutes=0, epochs=model.figures["best_epoch"], params=model.params, checkpoint=checkpoint)
    return model


def again_s(model: Recommender, fit_s: float) -> float:
    """Seconds of that second fit, by those of the first: those that learn step by step pass over the log less often."""
    if isinstance(model, SequenceModel):
        return fit_s * model.figures["best_epoch"] / max(1, model.figures["epochs"])
    share = {TextItems.name: 0.3, Blend.name: 0.6}  # what was read once is kept; weights are chosen once
    return fit_s * share.get(model.name, 1.0)


def read(name: str, folder: Path, items: Items, *, beside: Mapping[str, Recommender]) -> Recommender:
    """The model of that name in a folder; a hybrid is made of the models `beside` it. Raises BadRecommender."""
    return Hybrid.load(folder, items, members=beside) if name == Hybrid.name else MODELS[name].load(folder, items)


def members(names: Sequence[str]) -> list[str]:
    """What a hybrid of these models is made of: all but the sum of some that are there one by one."""
    singly = {member.name for member in Blend().members}
    return [name for name in names if name != Hybrid.name and not (name == Blend.name and singly <= set(names))]


def slowness(name: str, shape: Shape, fit_s: float) -> float:
    """How many times slower this machine is, as it is just now, than the costs say; told by the first fit of a quick model."""
    return fit_s / COSTS[name](shape).seconds if name == Transitions.name else 1.0


def refusal(name: str, shape: Shape, *, left_s: float, free_bytes: float) -> str:
    """Why a model is not fitted on such a log, as a sentence; "" where it may be."""
    cost = COSTS[name](shape)
    title = MODELS[name].title
    if name == TextItems.name and not shape.has_texts:
        return f"{title} has nothing to read: the items have neither titles nor texts."
    if cost.bytes > free_bytes:
        return f"{title} needs about {_gigabytes(cost.bytes)} of memory for {shape.n_items:,} items; {_gigabytes(free_bytes)} are free."
    if cost.seconds > left_s:
        return f"{title} takes about {cost.seconds:,.0f} s on a log of this size; {max(0.0, left_s):,.0f} s of the time allowed are left."
    return ""


def _gigabytes(n: float) -> str:
    return f"{max(0.0, n) / 2**30:.1f} GB"
