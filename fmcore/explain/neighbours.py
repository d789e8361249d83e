"""Neighbours: the examples a model learnt from that are nearest to a text, with their words.

A model folder holds the embeddings and labels of what was learnt, without texts. The texts come from the data set: its rows are put in
the order in which they were learnt, every label must agree, and each text that is shown is embedded again and must lie where the
stored row lies. What cannot be proved is not shown. Texts are held in memory only, for as long as their model is.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fmcore.data.labelled import OOS, LabelledData, folded
from fmcore.explain.heldout import data_of
from fmcore.models.classifier import Classifier
from fmcore.nouns import FMError, ModelVersion, Neighbour
from fmcore.training.linear import NAME_WEIGHT, few_shot

if TYPE_CHECKING:
    from fmcore.serving.engine import Engine

SAME = 0.97
"""Least cosine between a stored row and its text embedded again. Not 1: quantised activations depend on the rest of a batch. Of 4,000
rows of two int8 models embedded again, alone or in sixes, the least was 0.976, and 5 lay below 0.98."""


class NoExamples(FMError):
    """What the model learnt from is not at hand as texts."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest known examples, nearest first; to be gone through like a list.

    label is the model's answer, which `supports` of a neighbour is about. novelty and threshold are the prediction's: the text is out of
    scope above the threshold. note: what was left out and why, "" when nothing was.
    """

    neighbours: tuple[Neighbour, ...]
    label: str
    novelty: float
    threshold: float
    note: str = ""

    def __iter__(self) -> Iterator[Neighbour]:
        return iter(self.neighbours)

    def __len__(self) -> int:
        return len(self.neighbours)


_texts: weakref.WeakKeyDictionary[Classifier, tuple[str | None, ...]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def nearest(engine: Engine, task: str, text: str, *, version: str | None = None, k: int = 6) -> Nearest:
    """The k examples nearest to a text among all that the version (the champion by default) learnt from, whatever their label.

    An example that stands there twice with one label counts once. Raises NoExamples, with why, where the texts are not at hand, and what
    the engine raises.
    """
    with engine.classifier(task, version=version) as classifier:
        texts = _texts_of(engine, task, classifier)
        prediction = classifier.predict([text])[0]
        likeness = classifier.reference.embeddings @ classifier.embed([text])[0][0]
        rows = _distinct(np.argsort(-likeness, kind="stable"), texts, classifier.reference.labels, k)
        proved = _proved(classifier, rows, texts)
    labels = classifier.reference.labels
    found = tuple(
        Neighbour(texts[i], str(labels[i]), float(np.clip(likeness[i], -1.0, 1.0)), str(labels[i]) == prediction.label) for i in proved
    )
    n_gone = len(rows) - len(found)
    note = f"{n_gone} of the {len(rows)} nearest are left out: their text no longer gives what was stored of it." if n_gone else ""
    return Nearest(found, prediction.label, prediction.novelty, prediction.threshold, note)


def _texts_of(engine: Engine, task: str, classifier: Classifier) -> tuple[str | None, ...]:
    """The text of each reference row; None for a row that is no example. Read once for a loaded classifier, and again after a failure."""
    with _lock:
        known = _texts.get(classifier)
    if known is None:
        version = engine.registry.get(task, classifier.version)
        known = _in_order(classifier, _data(engine, version, classifier), version.metrics)
        with _lock:
            _texts[classifier] = known
    return known


def _data(engine: Engine, version: ModelVersion, classifier: Classifier) -> LabelledData:
    """The data set as it was learnt from: as the catalogue has it, else as the training run kept it."""
    wanted = classifier.info.get("split_hash") or version.metrics.get("split_hash")
    sources = [lambda: data_of(version)]
    if version.run_id:
        sources.append(lambda: LabelledData.load(engine.registry.store.home / "runs" / version.run_id / "data"))
    refusals: list[FMError] = []
    for read in sources:
        try:
            data = read()
        except FMError as problem:
            refusals.append(problem)
            continue
        if wanted in (None, data.split_hash):
            return data
        refusals.append(_other_rows(version.version, data.name))
    raise NoExamples(refusals[0].message, refusals[0].hint) from refusals[0]


def _in_order(classifier: Classifier, data: LabelledData, metrics: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The texts in the order of fitting.py: training rows (a few of each label, then the labels' names, where shots were drawn), and after
    a refit the validation rows and the publisher's test rows that were cut from the training file. Raises NoExamples."""
    params = metrics.get("params") or {}
    shots = int(metrics.get("shots") or params.get("shots") or 0)
    train = few_shot(data, shots=shots, seed=int(params.get("seed", metrics.get("seed", 0)))).train if shots else data.train
    texts: list[str | None] = list(train["text"])
    labels = list(train["label"])
    names = sorted(set(labels) - {OOS})
    if shots:
        labels += [name for name in names for _ in range(NAME_WEIGHT)]
        texts += [None] * (len(labels) - len(texts))
    stored = list(classifier.reference.labels)
    for later in (data.validation, data.test):
        if len(texts) < len(stored):
            inside = later[later["label"].isin(names)]
            texts += list(inside["text"])
            labels += list(inside["label"])
    if labels != stored:
        raise _other_rows(classifier.version, data.name)
    return tuple(texts)


def _distinct(order: np.ndarray, texts: tuple[str | None, ...], labels: np.ndarray, k: int) -> list[int]:
    """The first k rows in that order that are examples, one for each text and label."""
    rows: dict[tuple[str, str], int] = {}
    for i in order:
        if len(rows) == k:
            break
        if texts[i] is not None:
            rows.setdefault((folded(texts[i]), str(labels[i])), int(i))
    return list(rows.values())


def _proved(classifier: Classifier, rows: list[int], texts: tuple[str | None, ...]) -> list[int]:
    """Those rows whose text gives their stored embedding again."""
    if not rows:
        return []
    again = classifier.embed([texts[i] for i in rows])[0]
    cosines = (again * classifier.reference.embeddings[rows]).sum(axis=1)
    return [i for i, cosine in zip(rows, cosines, strict=True) if cosine > SAME]


def _other_rows(version: str, dataset: str) -> NoExamples:
    sentence = f"The rows of {dataset} are not those that {version} learnt from, so that its examples cannot be shown."
    return NoExamples(sentence, "The data set was changed since: train the model again.")
