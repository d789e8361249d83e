"""What a shelf can hold: every model by name, from simple to elaborate, and what it costs on a log of a given shape.

Owns the order in which models are fitted and chosen, and the refusal of a model that would not fit into memory or time. The costs are
rough, measured on two cores, and lean high: a model left out with a sentence is better than a run that is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmcore.nouns import FMError
from fmcore.recommend.counting import Blend, Ease, ItemKNN, Popularity, Transitions
from fmcore.recommend.recommender import History, Items, Recommender
from fmcore.recommend.sequence import Sequence as SequenceModel

MODELS: dict[str, type[Recommender]] = {model.name: model for model in (Popularity, Transitions, ItemKNN, Ease, Blend, SequenceModel)}
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
    return Cost(0.5 + s.n_rows * 3e-6, s.n_rows * 200 + min(s.n_pairs, s.n_items * s.n_items) * 12)


def _neighbours(s: Shape) -> Cost:
    return Cost(0.5 + s.n_pairs * 1e-8 + s.n_items * s.n_items * 4e-7, s.n_items * 4096 + s.n_rows * 32 + 5e8)


def _ease(s: Shape) -> Cost:
    n = min(s.n_items, 12_000)
    return Cost(0.5 + s.n_pairs * 1e-8 + n**3 * 6e-11, n * n * 9 + min(s.n_items, 10_000) ** 2 * 4 + s.n_rows * 32)


def _blend(s: Shape) -> Cost:
    parts = _transitions(s), _ease(s)
    return Cost(sum(part.seconds for part in parts) + min(s.n_users, 5000) * s.n_items * 1e-6, sum(part.bytes for part in parts))


def _sequence(s: Shape) -> Cost:
    """Three passes over the log, without which it is no match for the counting models."""
    return Cost(10 + s.n_rows * 1.2e-4, 1.2e9 + s.n_items * 2048 + s.n_rows * 16)


COSTS: dict[str, Callable[[Shape], Cost]] = {
    "popularity": lambda s: Cost(s.n_rows * 5e-8, s.n_rows * 16),
    "transitions": _transitions,
    "knn": _neighbours,
    "ease": _ease,
    "blend": _blend,
    "sasrec": _sequence,
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


def make(name: str, *, seed: int, minutes: float, checkpoint: Path | None) -> Recommender:
    """A model to be fitted. minutes (0: as many as it takes), seed and checkpoint: for those that learn step by step."""
    if name in TRAINED:
        return SequenceModel(seed=seed, minutes=minutes, checkpoint=checkpoint)
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
    return fit_s


def refusal(name: str, shape: Shape, *, left_s: float, free_bytes: float) -> str:
    """Why a model is not fitted on such a log, as a sentence; "" where it may be."""
    cost = COSTS[name](shape)
    title = MODELS[name].title
    if cost.bytes > free_bytes:
        return f"{title} needs about {_gigabytes(cost.bytes)} of memory for {shape.n_items:,} items; {_gigabytes(free_bytes)} are free."
    if cost.seconds > left_s:
        return f"{title} takes about {cost.seconds:,.0f} s on a log of this size; {max(0.0, left_s):,.0f} s of the time allowed are left."
    return ""


def _gigabytes(n: float) -> str:
    return f"{max(0.0, n) / 2**30:.1f} GB"
