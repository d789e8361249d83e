"""Method `cascade`: a static model in front of the one it was made from, and the margin below which a text goes on to that.

The margin is the smallest at which the full model, by its own calibrated probabilities, expects to lose at most TARGET points on validation
rows to the fast one, and the rows' labels do not speak against it: these alone, on a few hundred rows, are out by more than a point either
way. The full model speaks there as it was before its refits; on the held-out rows its stored answers count. Both models go into the folder
whole, but for the weights that serving never reads.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmcore.data.catalogue import OOS, LabelledData
from fmcore.evaluation.metrics import evaluate_predictions
from fmcore.models.calibration import softmax
from fmcore.models.cascade import FAST, FILE, FORMAT, FULL, goes_on, margins
from fmcore.models.classifier import HELDOUT_COLUMNS, Classifier
from fmcore.models.encoder import TUNED_WEIGHTS
from fmcore.models.fitting import FitOptions
from fmcore.models.manifest import MANIFEST, write_manifest
from fmcore.nouns import FMError, Prediction, Report
from fmcore.training import static
from fmcore.training.finish import SENTIMENTS, compared, sentiment_checks

if TYPE_CHECKING:
    import pandas as pd

    from fmcore.training.compress import Compression, Teacher

TARGET = 0.75
"""Points of validation accuracy that may be lost: less than a cascade is allowed, since the choice flatters itself."""


class NoRowsToChooseBy(FMError):
    """There are no in-scope validation rows."""


@dataclass(frozen=True)
class Choice:
    """A margin, the share of in-scope validation rows that goes on at it, and the points lost there, by labels and as the full model
    expects it; curve: the same for other shares."""

    margin: float
    share: float
    lost: float
    expected: float
    curve: list[dict[str, float]]


def build(
    teacher: Teacher, data: LabelledData, params: Compression, out: Path, report: Report, *, checkpoint: Path | None = None
) -> dict[str, Any]:
    """Make the static model, choose the margin, measure the two together, write the folder. Returns the metrics.

    The full model is the teacher, or params.second. checkpoint is not used. Raises NoRowsToChooseBy, and what static.made raises.
    """
    out.mkdir(parents=True, exist_ok=True)
    full = params.second or teacher
    fast_metrics, lesson = static.made(teacher, data, params, out / FAST, report)
    (out / FAST / MANIFEST).unlink()  # the cascade's own names these files too
    copied(full.folder, out / FULL)
    before = lesson.before if full is teacher else static.without_refits(full, data, params, report=report, span=(0.9, 0.94))
    fast = Classifier.load(out / FAST, version=FAST, threads=params.threads)
    report.progress(0.94, "Choosing which texts go on")
    choice = chosen(fast, before, data.validation, full, params, report=report)
    answers, sent = together(fast, full.served, choice.margin)
    _write(out, choice, full, _table(fast, answers))
    metrics = evaluate_predictions(list(fast.heldout.labels), answers, resamples=params.resamples, seed=params.seed)
    report.progress(0.95, "Measuring the baselines on the same rows")
    options, model = FitOptions(refit=False, seed=params.seed, resamples=params.resamples), Classifier.load(out, version="cascade")
    metrics |= compared(data, model, options)
    if set(model.labels) == set(SENTIMENTS):
        metrics |= sentiment_checks(data, model, options)
    inside = np.asarray(fast.heldout.labels) != OOS
    metrics |= {key: fast_metrics.get(key) for key in KEPT} | {
        "recipe": "cascade", "form": "cascade",
        "cascade": {
            "margin": choice.margin, "share_expected": choice.share, "share_heldout": round(float(sent[inside].mean()), 4),
            "target_points": TARGET, "lost_validation": choice.lost, "lost_expected": choice.expected, "curve": choice.curve,
            "fast_accuracy": fast_metrics["accuracy"], "full": full.version,
        },
    }  # fmt: skip
    (out / "metrics.json").write_text(json.dumps(metrics, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")
    write_manifest(out)
    return metrics


KEPT = (
    "split_hash", "split_note", "synthetic", "base", "base_sha256", "dataset", "device", "n_labels", "shots", "n_train", "n_validation",
    "n_test", "threshold", "training", "seconds",
)  # fmt: skip
"""What the static model's metrics say of the data and its training, which is as true of the two together."""


def chosen(
    fast: Classifier, before: Classifier, validation: pd.DataFrame, full_model: Teacher, params: Compression, *, report: Report
) -> Choice:
    """The margin for TARGET points, from the in-scope validation rows. before: the full model without its refits."""
    rows = validation[validation["label"].isin(before.labels)]
    if rows.empty:
        raise NoRowsToChooseBy("There are no in-scope validation rows to choose a margin by.", "Use a data set with validation rows.")
    texts, order = list(rows["text"]), {label: i for i, label in enumerate(before.labels)}
    truth = rows["label"].map(order).to_numpy(dtype=np.int64)
    embeddings = static.read(full_model, texts, params, report=report, span=(0.94, 0.95))
    full = before.probabilities(embeddings, lexical=before.lexical_scores(texts))
    answers = fast.predict(texts)
    chances = np.array([[answer.scores[label] for label in before.labels] for answer in answers])
    return choose(chances, full, truth, always=np.array([not answer.in_scope for answer in answers]), target=TARGET)


def choose(fast: np.ndarray, full: np.ndarray, truth: np.ndarray, *, always: np.ndarray, target: float) -> Choice:
    """The smallest margin from which on, whatever more goes on, the full model expects at most `target` points to be lost, and the loss by
    the labels is not above that by more than its standard error. fast, full: calibrated probabilities (n, labels); truth (n,); always: rows
    that go on at any margin."""
    n, rows = len(truth), np.arange(len(truth))
    apart = np.where(always, -1.0, margins(fast))
    order = np.argsort(apart, kind="stable")
    said, would = fast.argmax(axis=1), full.argmax(axis=1)
    by_labels = ((would == truth).astype(float) - (said == truth))[order]
    by_chances = (full[rows, would] - full[rows, said])[order]
    lost, expected = (100 * _remaining(each) / n for each in (by_labels, by_chances))  # [k]: when the k rows of least margin go on
    squares = _remaining(by_labels**2) / n
    error = 100 * np.sqrt(np.maximum(squares - (lost / 100) ** 2, 0.0) / n)
    beyond = np.flatnonzero((expected > target + 1e-9) | (lost - error > target + 1e-9))
    first = max(int(beyond[-1]) + 1 if len(beyond) else 0, int(always.sum()))
    ordered = apart[order]
    first = int(np.searchsorted(ordered, ordered[first - 1], side="right")) if first else 0  # rows of one margin go together
    margin = 1.0 if first >= n else (max(0.0, ordered[first - 1]) + ordered[first]) / 2 if first else ordered[0] / 2
    k = int((apart < margin).sum())
    curve = [
        {"share": share, "lost": round(float(lost[int(share * n)]), 3), "expected": round(float(expected[int(share * n)]), 3)}
        for share in (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
    ]
    return Choice(float(margin), round(k / n, 4), round(float(lost[k]), 3), round(float(expected[k]), 3), curve)


def _remaining(values: np.ndarray) -> np.ndarray:
    """[k]: the sum of all values but the first k, from 0 to all of them."""
    return values.sum() - np.concatenate([[0.0], np.cumsum(values)])


def together(fast: Classifier, full: Classifier, margin: float) -> tuple[list[Prediction], np.ndarray]:
    """(the cascade's answer to each held-out row as both models were measured on them, whether it went on)."""
    first = fast.decide(fast.heldout.embeddings)
    second = dict(zip(full.heldout.hashes, measured(full), strict=True))
    sent = np.array([goes_on(answer, margin) for answer in first])
    return [second[h] if on else answer for h, on, answer in zip(fast.heldout.hashes, sent, first, strict=True)], sent


def measured(full: Classifier) -> list[Prediction]:
    """A model's answers on its held-out rows before it was refitted on them."""
    if full.heldout_scores is None:
        return full.decide(full.heldout.embeddings, lexical=full.heldout.lexical)
    chances = softmax(full.heldout_scores, temperature=1.0)
    rows = zip(full.heldout_table.itertuples(index=False), chances, strict=True)
    return [
        Prediction(
            label=row.predicted, score=float(row.score), scores={}, in_scope=bool(row.in_scope), novelty=float(row.novelty),
            threshold=full.threshold, reason="", coverage=full.coverage, version=full.version,
            candidates=tuple(np.array(full.labels, dtype=object)[p >= full.least_probability]) or (row.predicted,),
        )
        for row, p in rows
    ]  # fmt: skip


def _table(fast: Classifier, answers: list[Prediction]) -> pd.DataFrame:
    import pandas as pd

    given = [[p.label, p.score, p.novelty, p.in_scope] for p in answers]
    return pd.DataFrame(given, columns=HELDOUT_COLUMNS[2:]).assign(text_hash=list(fast.heldout.hashes), label=list(fast.heldout.labels))


def copied(source: Path, target: Path) -> None:
    """The files of a model folder that serving reads, as hard links where the disk has them."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.name in (MANIFEST, TUNED_WEIGHTS):
            continue
        with contextlib.suppress(OSError):
            os.link(path, target / path.name)
            continue
        shutil.copyfile(path, target / path.name)


def _write(out: Path, choice: Choice, full: Teacher, table: pd.DataFrame) -> None:
    """The cascade's own files beside fast/ and full/, but for its metrics."""
    facts = json.loads((full.folder / "model.json").read_text(encoding="utf-8"))
    facts["info"] = {**facts["info"], "recipe": "cascade", "form": "cascade"}
    cascade = {"format": FORMAT, "threshold": choice.margin, "share_expected": choice.share}
    for name, content in {"model.json": facts, FILE: cascade}.items():
        (out / name).write_text(json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")
    shutil.copyfile(full.folder / "replies.json", out / "replies.json")
    table[HELDOUT_COLUMNS].to_parquet(out / "heldout.parquet", index=False)
