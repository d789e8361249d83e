"""The labelled rows that a version was measured on, with their texts, and the model as it was when it answered them.

The answers lie in the model's folder without texts, the texts in the data set; a digest of the text brings them together. A shipped
head may have been refitted on these very rows once its figures were taken: what it says of them today is remembered, not judged.
Never stores anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fmcore import text
from fmcore.data import catalogue
from fmcore.data.labelled import OOS, LabelledData
from fmcore.models.classifier import Classifier, Rows
from fmcore.models.gate import read_heldout
from fmcore.nouns import FMError, ModelVersion

if TYPE_CHECKING:
    from fmcore.models.registry import Registry

AGREES = 0.99
"""Share of the stored answers that the model without its last refit must give again to be taken for the one that was measured."""


class NotHeld(FMError):
    """A version without labelled rows that can be looked at."""


@dataclass(frozen=True, eq=False)
class Held:
    """rows: text_hash, text, label ("oos" out of scope), predicted, score, novelty, in_scope, as answered when the figures were taken.

    domains: label -> domain; tiers: text_hash -> how many annotators agree, and sources: text_hash -> where a row
    comes from, for a data set that says so. n_gone: stored answers whose text the data set no longer holds.
    """

    rows: pd.DataFrame
    dataset: str
    synthetic: bool
    domains: Mapping[str, str] = field(default_factory=dict)
    tiers: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    n_gone: int = 0


def dataset_of(version: ModelVersion) -> str:
    """What catalogue.load is to be asked for: the data set's name, or the path of the CSV file that was trained on."""
    return str((version.metrics.get("params") or {}).get("dataset") or version.dataset)


def data_of(version: ModelVersion) -> LabelledData:
    """The data set of a version. Raises NotHeld when it is not here any more."""
    try:
        return catalogue.load(dataset_of(version))
    except FMError as error:
        raise NotHeld(f"The rows of {version.version} cannot be read: {error.message}", error.hint) from error


def held(registry: Registry, version: ModelVersion) -> Held:
    """The rows of a version, from its verified folder and its data set. Raises NotHeld, Tampered."""
    return joined(stored(registry, version), data_of(version))


def stored(registry: Registry, version: ModelVersion) -> pd.DataFrame:
    """The answers in a version's folder, a row a text: text_hash, label, predicted, score, novelty, in_scope. Raises NotHeld, Tampered."""
    folder = registry.verified(version)
    try:
        return read_heldout(folder)
    except (OSError, ValueError, KeyError) as error:
        raise NotHeld(f"{version.version} has no held-out answers ({type(error).__name__}).", "Train it again.") from error


def joined(answers: pd.DataFrame, data: LabelledData) -> Held:
    """Stored answers with the texts of the data set's test rows. Raises NotHeld when none of them is there."""
    texts = pd.DataFrame({"text_hash": [text.text_hash(t) for t in data.test["text"]], "text": list(data.test["text"])})
    rows = answers.merge(texts.drop_duplicates("text_hash"), on="text_hash", how="inner").reset_index(drop=True)
    if rows.empty:
        raise NotHeld(f"None of the rows that were held out stands in {data.name} now.", "The data set was changed: train the model again.")
    return Held(rows, data.name, data.synthetic, data.domains, data.tiers, data.sources, n_gone=len(answers) - len(rows))


def as_measured(classifier: Classifier, data: LabelledData, rows: pd.DataFrame) -> tuple[Classifier, str]:
    """(the classifier without its last refit on the test rows, what was done as a sentence).

    The same kind of head with the same settings, fitted on the reference rows that are not held-out ones. It is compared with the
    stored answers to `rows`; where it does not give them again, or the rows it needs are gone, the classifier comes back as it is served
    and the sentence says so.
    """
    if not classifier.heldout_seen.any():
        return classifier, "The model has not learnt from these rows."
    before = _without_held(classifier, data)
    if before is None:
        return classifier, f"The head that is served was fitted on these rows too, and the one before cannot be made again: {_REMEMBERS}"
    answers = before.probabilities_of(list(rows["text"]))
    same = float(np.mean(np.array(before.labels, dtype=object)[answers.argmax(axis=1)] == rows["predicted"].to_numpy(dtype=object)))
    if same < AGREES:
        said = f"A head fitted without these rows gives only {same * 100:.1f} % of the stored answers again"
        return classifier, f"{said}, so that it is not used: {_REMEMBERS}"
    return before, (
        "The head that is served was fitted on these rows too, once its figures were taken. What is explained is the head before that, "
        f"made again: it gives {same * 100:.1f} % of the stored answers."
    )


_REMEMBERS = "the words are those of the model as served, which knows the right answers to these rows."


def _without_held(classifier: Classifier, data: LabelledData) -> Classifier | None:
    from fmcore.models.heads import fit_head
    from fmcore.models.lexical import fit_lexical

    kept = ~classifier.heldout_seen
    names = classifier.reference.labels[kept]
    order = {label: i for i, label in enumerate(classifier.labels)}
    classes = np.array([order[name] for name in names])
    embeddings, n = classifier.reference.embeddings[kept], len(classifier.labels)
    lexical = classifier.lexical
    if lexical is not None:
        learnt = pd.concat([data.train, data.validation[data.validation["label"] != OOS]])
        if list(learnt["label"]) != list(names):
            return None  # other rows than the data set's: a few shots of it, or names of labels among them
        lexical = fit_lexical(list(learnt["text"]), classes, n_classes=n)
    head = fit_head(classifier.head.kind, classifier.head.settings, embeddings, classes, n_classes=n)
    reference = Rows(embeddings, names, lexical=None if lexical is None else classifier.reference.lexical[kept])
    return replace(classifier, head=head, lexical=lexical, reference=reference, heldout_seen=np.zeros(len(names), dtype=bool))
