"""From embedded rows to a served classifier and its measured figures: the step that every recipe and the ONNX export share.

Order, so that no figure is flattered: (1) fit on train, choose head, lexical part, temperature, threshold and conformal set on validation;
(2) refit on train + validation and measure on test; (3) when the test rows were cut from rows that may be learnt from, ship
a head refitted on them too. The figures reported are always those of (2).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from fmcore.evaluation.metrics import OOS, evaluate_predictions
from fmcore.models.calibration import COVERAGE, fit_conformal, fit_temperature, negative_log_likelihood, softmax
from fmcore.models.classifier import HELDOUT_COLUMNS, Classifier, Rows
from fmcore.models.heads import KERNEL_ROWS, LOGISTIC_C, Head, RidgeSums, blend, fit_head, fit_kernel, fit_logistic, make_projection
from fmcore.models.lexical import Lexical, fit_lexical
from fmcore.models.novelty import IN_SCOPE_SHARE, MISSED_OOS_COST, Threshold, choose_threshold, fit_novelty
from fmcore.nouns import FMError

RIDGE_PENALTIES = (10.0, 30.0, 100.0)
KERNEL_PENALTIES = (0.1, 0.3, 1.0)
"""Tried on validation; the best is flat: 10 to 100 differ by 0.2 points on 8,300 rows of Banking77."""
LEXICAL_SHARES = tuple(i / 20 for i in range(1, 20))
"""How much of the log-probability the lexical part may have, the head the rest; which one is best is flat over a fifth."""


class NotEnoughRows(FMError):
    """Rows that no classifier can be fitted or calibrated on."""


@dataclass(frozen=True, eq=False)
class FitOptions:
    """What can be asked of a fit. head "auto" compares the kinds on validation. test_is_publishers: never learn from test.

    lexical: the rows bring their texts, and lexical scores stand beside the head where validation says that they help.
    logistic_c: penalties of the logistic head to try, as in `fit_logistic`. in_scope_share: of validation rows to accept where there
    are no out-of-scope rows to choose the threshold by. n_near: above 0, about so many rows stand for all in the out-of-scope score.
    """

    head: Literal["auto", "logistic", "ridge", "blend"] = "auto"
    random_features: int = 4000
    seed: int = 0
    resamples: int = 1000
    coverage: float = COVERAGE
    missed_oos_cost: float = MISSED_OOS_COST
    refit: bool = True
    test_is_publishers: bool = True
    lexical: bool = False
    logistic_c: tuple[float, ...] = (LOGISTIC_C,)
    in_scope_share: float = IN_SCOPE_SHARE
    n_near: int = 0


def fit_classifier(
    train: Rows, validation: Rows, test: Rows, *, options: FitOptions, info: Mapping[str, Any], trained: Head | None = None
) -> tuple[Classifier, dict[str, Any]]:
    """(classifier without an encoder, metrics). Train labels are the classes; validation and test may also hold "oos" rows.

    info must give what `Classifier.load` needs: {"max_tokens": int}; the rest is kept as facts. The metrics are
    evaluate_predictions' plus n_train, n_validation, n_test, head, threshold, temperature, refit and seconds.
    trained: a head that was trained together with the encoder, its classes in the order of the sorted labels: it is taken as it is, and
    never refitted.
    """
    started = time.perf_counter()
    labels, inside = _checked(train, validation)
    if trained is None:
        head, tried, sums = _choose_head(train, inside, labels, options)
    else:
        head, tried, sums = trained, [_tried(trained, inside, _classes(inside.labels, labels)).figures()], None
        options = replace(options, refit=False)
    words, lexical_facts = _choose_words(head, train, inside, labels) if options.lexical else (None, None)
    chosen, threshold = _calibrated(head, words, train, validation, inside, labels, options)
    chosen = replace(chosen, heldout=test, info={**info, "threshold_note": threshold.note})

    measured = train
    if options.refit:
        measured = joined(train, inside)
        chosen = _with_head(chosen, _refit(head, sums, measured, inside, labels), measured)
    metrics, table = evaluate(chosen, test, options)
    shipped, extra = replace(chosen, heldout_table=table), _inside(test, labels)
    if options.refit and not options.test_is_publishers and len(extra):
        rows = joined(measured, extra)
        shipped = replace(shipped, heldout_scores=chosen.scale(test.embeddings, lexical=_lexical(chosen.lexical, test)))
        shipped = _with_head(shipped, _refit(head, sums, rows, extra, labels), rows)
        shipped = replace(shipped, heldout_seen=np.arange(len(rows)) >= len(measured))
    shipped = _without_texts(shipped)
    metrics.update(
        n_train=len(train),
        n_validation=len(validation),
        n_test=len(test),
        n_shipped=len(shipped.reference),
        head={"chosen": head.kind, "settings": dict(head.settings), "tried": tried},
        lexical=lexical_facts,
        temperature=round(shipped.temperature, 5),
        threshold={"value": round(threshold.value, 4), "note": threshold.note, **{k: round(v, 4) for k, v in threshold.facts.items()}},
        refit=_refit_words(options, len(train), len(measured), len(shipped.reference)),
        seed=options.seed,
        seconds={"fit": round(time.perf_counter() - started, 2)},
    )
    return shipped, metrics


def evaluate(classifier: Classifier, test: Rows, options: FitOptions) -> tuple[dict[str, Any], pd.DataFrame]:
    """(metrics, held-out table): the classifier's figures on embedded rows, and its answer on each."""
    if not len(test):
        raise NotEnoughRows("There are no test rows.", "A model is shipped with measured figures only.")
    predictions = classifier.decide(test.embeddings, lexical=_lexical(classifier.lexical, test))
    table = pd.DataFrame({
        "text_hash": list(test.hashes) or [""] * len(test), "label": list(test.labels), "predicted": [p.label for p in predictions],
        "score": [p.score for p in predictions], "novelty": [p.novelty for p in predictions],
        "in_scope": [p.in_scope for p in predictions],
    })  # fmt: skip
    return evaluate_predictions(list(test.labels), predictions, resamples=options.resamples, seed=options.seed), table


@dataclass(frozen=True, eq=False)
class _Words:
    """The lexical part beside a head: weight times its scores is added to the head's."""

    lexical: Lexical
    weight: float


def _calibrated(
    head: Head, words: _Words | None, train: Rows, validation: Rows, inside: Rows, labels: tuple[str, ...], options: FitOptions
) -> tuple[Classifier, Threshold]:
    """The head with its temperature, conformal set, out-of-scope score and threshold, all from validation rows."""
    scores, classes = _scores(head, words, inside), _classes(inside.labels, labels)
    temperature = fit_temperature(scores, classes)
    least = fit_conformal(softmax(scores, temperature=temperature), classes, coverage=options.coverage)
    novelty = fit_novelty(
        train.embeddings,
        _classes(train.labels, labels),
        validation=inside.embeddings,
        validation_scores=scores / np.float32(temperature),
        n_classes=len(labels),
        n_near=options.n_near,
    )
    everything = _scores(head, words, validation) / np.float32(temperature)
    threshold = choose_threshold(
        novelty.score(validation.embeddings, everything),
        validation.labels == OOS,
        missed_oos_cost=options.missed_oos_cost,
        in_scope_share=options.in_scope_share,
    )
    classifier = Classifier(
        labels=labels,
        head=head,
        temperature=temperature,
        novelty=novelty,
        threshold=threshold.value,
        least_probability=least,
        reference=train,
        heldout=validation,
        heldout_seen=np.zeros(len(train), dtype=bool),
        heldout_table=pd.DataFrame(columns=HELDOUT_COLUMNS),
        coverage=options.coverage,
        lexical=words.lexical if words else None,
        lexical_weight=words.weight if words else 0.0,
    )
    return classifier, threshold


def _with_head(classifier: Classifier, head: Head, reference: Rows) -> Classifier:
    """The same calibration around a head, and a lexical part where there is one, fitted on other rows."""
    novelty = classifier.novelty.with_reference(reference.embeddings)
    lexical = classifier.lexical
    if lexical is not None:
        lexical = fit_lexical(reference.texts, _classes(reference.labels, classifier.labels), n_classes=len(classifier.labels))
    seen = np.zeros(len(reference), dtype=bool)
    return replace(classifier, head=head, lexical=lexical, novelty=novelty, reference=reference, heldout_seen=seen)


def _without_texts(classifier: Classifier) -> Classifier:
    """The classifier with its rows' lexical scores in the place of their texts."""
    rows = {
        name: replace(getattr(classifier, name), texts=None, lexical=_lexical(classifier.lexical, getattr(classifier, name)))
        for name in ("reference", "heldout")
    }
    return replace(classifier, **rows)


def _lexical(lexical: Lexical | None, rows: Rows) -> np.ndarray | None:
    return None if lexical is None else lexical.scores(rows.texts)


def _scores(head: Head, words: _Words | None, rows: Rows) -> np.ndarray:
    scores = head.scores(rows.embeddings)
    return scores if words is None else scores + np.float32(words.weight) * words.lexical.scores(rows.texts)


def _choose_words(head: Head, train: Rows, inside: Rows, labels: tuple[str, ...]) -> tuple[_Words | None, dict[str, Any]]:
    """(the lexical part with the weight of least validation loss, what was measured); None where it does not help.

    It helps when the loss falls by more than one standard error of the paired difference: less is noise, and costs a part.
    """
    truth = _classes(inside.labels, labels)
    lexical = fit_lexical(train.texts, _classes(train.labels, labels), n_classes=len(labels))
    parts = [head.scores(inside.embeddings), lexical.scores(inside.texts)]
    first_t, second_t = (fit_temperature(scores, truth) for scores in parts)

    def losses(weight: float) -> tuple[np.ndarray, np.ndarray]:
        scores = parts[0] + np.float32(weight) * parts[1]
        chances = softmax(scores, temperature=fit_temperature(scores, truth))[np.arange(len(truth)), truth]
        return -np.log(np.maximum(chances, 1e-12)), scores.argmax(axis=1) == truth

    alone, alone_right = losses(0.0)
    weights = {share: share / (1 - share) * first_t / second_t for share in LEXICAL_SHARES}
    share = min(weights, key=lambda s: losses(weights[s])[0].mean())
    both, both_right = losses(weights[share])
    gain = alone - both
    helps = bool(gain.mean() > gain.std() / len(gain) ** 0.5)
    facts = {
        "chosen": helps, "share": share if helps else 0.0, "n_words": len(lexical.words), "n_parts": len(lexical.parts),
        "validation_nll": {"head": round(float(alone.mean()), 5), "both": round(float(both.mean()), 5)},
        "validation_accuracy": {
            "head": round(float(alone_right.mean()), 5), "both": round(float(both_right.mean()), 5),
            "lexical": round(float((parts[1].argmax(axis=1) == truth).mean()), 5),
        },
    }  # fmt: skip
    return (_Words(lexical, weights[share]) if helps else None), facts


def joined(first: Rows, second: Rows) -> Rows:
    """The rows of both, in order."""
    texts = None if first.texts is None or second.texts is None else (*first.texts, *second.texts)
    return Rows(
        np.vstack([first.embeddings, second.embeddings]), np.concatenate([first.labels, second.labels]), (*first.hashes, *second.hashes),
        texts,
    )  # fmt: skip


def _checked(train: Rows, validation: Rows) -> tuple[tuple[str, ...], Rows]:
    """(labels, the in-scope validation rows). Raises NotEnoughRows or, for numbers that are not finite, FMError."""
    labels = tuple(sorted(set(train.labels)))
    if OOS in labels:
        raise NotEnoughRows('Training rows are labelled "oos".', "Out-of-scope rows belong in validation and test only.")
    if len(labels) < 2:
        raise NotEnoughRows(f"There are training rows of {len(labels)} intent.", "At least two intents are needed.")
    inside = _inside(validation, labels)
    if len(inside) < 2:
        raise NotEnoughRows(f"There are {len(inside)} in-scope validation rows.", "At least two are needed to calibrate on.")
    if not (np.isfinite(train.embeddings).all() and np.isfinite(validation.embeddings).all()):
        raise NotEnoughRows("The encoder gave numbers that are not finite.", "The training run diverged; use a smaller learning rate.")
    return labels, inside


def _inside(rows: Rows, labels: tuple[str, ...]) -> Rows:
    """The rows whose label is one of the classes."""
    kept = np.isin(rows.labels.astype(str), labels)
    hashes = tuple(h for h, k in zip(rows.hashes, kept, strict=False) if k)
    texts = None if rows.texts is None else tuple(t for t, k in zip(rows.texts, kept, strict=True) if k)
    return Rows(rows.embeddings[kept], rows.labels[kept], hashes, texts)


def _classes(names: np.ndarray, labels: tuple[str, ...]) -> np.ndarray:
    order = {label: i for i, label in enumerate(labels)}
    return np.array([order[x] for x in names], dtype=np.int64)


def _choose_head(
    train: Rows, inside: Rows, labels: tuple[str, ...], options: FitOptions
) -> tuple[Head, list[dict], RidgeSums | None]:
    """(the best head on validation, every head tried with its figures, the ridge's sums over train where there are any).

    "auto" compares logistic, ridge (or, for few rows, kernel) and the blend of the two.
    """
    classes, truth = _classes(train.labels, labels), _classes(inside.labels, labels)
    trials: list[_Trial] = []
    ridges: list[_Trial] = []
    sums = None
    if options.head != "ridge":
        heads = [fit_logistic(train.embeddings, classes, n_classes=len(labels), c=c) for c in options.logistic_c]
        trials.append(min((_tried(head, inside, truth) for head in heads), key=lambda trial: trial.nll))
    if options.head != "logistic":
        heads, sums = _ridges(train, classes, len(labels), options)
        ridges = [_tried(head, inside, truth) for head in heads]
    if trials and ridges:
        best = max(ridges, key=_Trial.rank)
        ridges.append(_tried(blend(trials[0].head, best.head, trials[0].temperature, best.temperature), inside, truth))
    trials += ridges
    allowed = [t for t in trials if options.head in ("auto", t.head.kind) or (options.head, t.head.kind) == ("ridge", "kernel")]
    return _preferred(allowed, len(inside)).head, [t.figures() for t in trials], sums


def _preferred(trials: list[_Trial], n: int) -> _Trial:
    """Of the heads within one standard error of the best validation accuracy: the blend, or else the one of best likelihood.

    Differences within it are noise; that the mean of two kinds of head is better than either is not (Banking77, five splits: 0.3
    points above ridge, 1.0 above logistic, with logistic's calibration), as long as the ridge holds its own: where it falls behind
    logistic by more than half a standard error, it only drags the mean down (CLINC150: 0.5 points behind, the mean 0.7 below).
    """
    best = max(t.accuracy for t in trials)
    error = (best * (1 - best) / n) ** 0.5
    near = [t for t in trials if t.accuracy >= best - error]
    alone = {kind: max((t.accuracy for t in trials if t.head.kind == kind), default=0.0) for kind in ("logistic", "ridge", "kernel")}
    drags = max(alone["ridge"], alone["kernel"]) < alone["logistic"] - error / 2
    return min(near, key=lambda t: ((t.head.kind != "blend") != drags, t.nll))


def _ridges(train: Rows, classes: np.ndarray, n_classes: int, options: FitOptions) -> tuple[list[Head], RidgeSums | None]:
    """Ridge heads of several penalties: exact where rows are few, on random features where they are many."""
    if len(train) <= KERNEL_ROWS:
        return [fit_kernel(train.embeddings, classes, n_classes=n_classes, penalty=p) for p in KERNEL_PENALTIES], None
    sums = RidgeSums(make_projection(train.embeddings.shape[1], options.random_features, seed=options.seed), n_classes=n_classes)
    sums.add(train.embeddings, classes)
    settings = {"features": options.random_features, "seed": options.seed}
    return [
        fit_head("ridge", {**settings, "penalty": p}, train.embeddings, classes, n_classes=n_classes, sums=sums) for p in RIDGE_PENALTIES
    ], sums


@dataclass(frozen=True, eq=False)
class _Trial:
    """A head as measured on validation."""

    head: Head
    accuracy: float
    nll: float
    temperature: float

    def rank(self) -> tuple[float, float]:
        return self.accuracy, -self.nll

    def figures(self) -> dict[str, Any]:
        measured = {"validation_accuracy": round(self.accuracy, 5), "validation_nll": round(self.nll, 5)}
        return {"kind": self.head.kind, "settings": {k: round(v, 5) for k, v in self.head.settings.items()}, **measured}


def _tried(head: Head, inside: Rows, truth: np.ndarray) -> _Trial:
    scores = head.scores(inside.embeddings)
    temperature = fit_temperature(scores, truth)
    right = float((scores.argmax(axis=1) == truth).mean())
    return _Trial(head, right, negative_log_likelihood(scores, truth, temperature), temperature)


def _refit(head: Head, sums: RidgeSums | None, rows: Rows, new: Rows, labels: tuple[str, ...]) -> Head:
    """The same kind of head with the same settings on more rows: `new` are those of `rows` that the sums lack."""
    if sums is not None and "projection" in head.arrays:
        sums.add(new.embeddings, _classes(new.labels, labels))
    classes = _classes(rows.labels, labels)
    return fit_head(head.kind, head.settings, rows.embeddings, classes, n_classes=len(labels), sums=sums)


def _refit_words(options: FitOptions, n_train: int, n_measured: int, n_shipped: int) -> str:
    if not options.refit:
        return f"none: the head is fitted on the {n_train} training rows"
    if n_shipped == n_measured:
        return f"head refitted on training and validation rows ({n_measured}) after settings and threshold were chosen on validation"
    return (
        f"figures are of a head fitted on training and validation rows ({n_measured}); the shipped head is refitted on the test rows too "
        f"({n_shipped} rows), since they were cut from the training file"
    )
