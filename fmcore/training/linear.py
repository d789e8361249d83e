"""Recipe "linear": the foundation model stays as it is, a head is fitted on its embeddings. Minutes on a CPU.

Logistic and ridge on random features are compared on validation rows. With `shots` only that many examples a class are learnt
from, drawn by the seed; then the names of the labels count as examples too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from fmcore.config import settings
from fmcore.data.catalogue import LabelledData
from fmcore.models.encoder import EmbeddingCache, load_encoder
from fmcore.models.fitting import FitOptions
from fmcore.models.novelty import IN_SCOPE_SHARE
from fmcore.nouns import FMError, Report
from fmcore.training.finish import Finish, finish

NAME_WEIGHT = 3
"""A label's name counts as three examples when examples are few: +2.3 points at 5 shots on held-out Banking77 rows."""


class TooFewExamples(FMError):
    """A class has fewer examples than were asked for."""


@dataclass(frozen=True)
class LinearParams:
    """What decides the result. shots 0 learns from all training rows; random_features, resamples, max_tokens: see config.PROFILES."""

    base: str = "minilm"
    head: Literal["auto", "logistic", "ridge", "blend"] = "auto"
    shots: int = 0
    seed: int = 0
    max_tokens: int = 64
    random_features: int = 4000
    resamples: int = 1000
    fast: bool = False
    lexical: bool = False
    in_scope_share: float = IN_SCOPE_SHARE


def train(data: LabelledData, params: LinearParams, out: Path, report: Report) -> dict[str, Any]:
    """Write a model folder into `out` and return its metrics. Cancelling is noticed between steps and batches."""
    report.progress(0.0, f"Loading {params.base}")
    encoder = load_encoder(params.base, max_tokens=params.max_tokens)
    report.device(encoder.device)
    learnt = few_shot(data, shots=params.shots, seed=params.seed) if params.shots else data
    options = FitOptions(
        head=params.head,
        random_features=params.random_features,
        seed=params.seed,
        resamples=params.resamples,
        refit=not params.shots,
        test_is_publishers=data.test_is_publishers,
        lexical=params.lexical,
        in_scope_share=params.in_scope_share,
    )
    plan = Finish(
        recipe="linear",
        options=options,
        fast=params.fast,
        threads=settings().training_threads(),
        cache=EmbeddingCache(settings().home / "cache" / "embeddings"),
        label_name_weight=NAME_WEIGHT if params.shots else 0,
        facts={"shots": params.shots},
    )
    metrics = finish(encoder, learnt, out, plan=plan, report=report, span=(0.02, 1.0))
    report.metric(1, accuracy=metrics["accuracy"]["value"])
    return metrics


def few_shot(data: LabelledData, *, shots: int, seed: int) -> LabelledData:
    """The data with `shots` training rows a class, drawn by the seed; validation and test stay. Raises TooFewExamples."""
    small = data.train.groupby("label").size()
    if small.min() < shots:
        raise TooFewExamples(
            f"{small.idxmin()} has {small.min()} training rows, fewer than {shots}.", f"Ask for at most {small.min()} shots."
        )
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(np.flatnonzero(data.train["label"] == label), shots, replace=False) for label in sorted(small.index)]
    train_rows: pd.DataFrame = data.train.iloc[np.sort(np.concatenate(drawn))].reset_index(drop=True)
    note = f"{data.split_note.rstrip('.')}; {shots} training rows a class, drawn with seed {seed}; validation rows only calibrate."
    return replace(data, train=train_rows, split_note=note)
