"""The Pareto board: every version of a task on one machine in one run, accuracy against speed, beside the PyTorch form it all came from.

Accuracy is that of the stored held-out answers, joined by text, so that a head that was refitted on these rows later flatters nobody;
speed is measured, all rows taking turns. Owns the content of a study of kind "board"; never promotes and never touches the store.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from fmcore.data.catalogue import LabelledData
from fmcore.evaluation import metrics
from fmcore.explain import heldout, slices
from fmcore.models.classifier import Classifier
from fmcore.models.encoder import TUNED_WEIGHTS, EncoderError, load_encoder
from fmcore.models.fitting import FitOptions, fit_classifier
from fmcore.models.gate import read_heldout
from fmcore.models.heads import LOGISTIC_C
from fmcore.nouns import FMError, Report
from fmcore.tasks import task as task_of
from fmcore.training import finish
from fmcore.training.finetune import TUNED_C

REFERENCE = "pytorch fp32"
"""The row all others are told against: the reference version's encoder as PyTorch runs it, with a head of its own."""
CUTS = ("length", "label", "domain", "annotators")
MOST_LABELS = 12
"""Labels beyond which a row a label says nothing any more."""
LEAST_ROWS = 10
AT_ONCE = 64
"""Texts that PyTorch reads at once: 16 is no faster on two cores."""
NOT_SERVED = (TUNED_WEIGHTS, "heldout.safetensors", "heldout.parquet", "metrics.json", "MANIFEST.json")
"""What lies in a version's folder and serving never opens."""


class NothingToCompare(FMError):
    """A board without a version."""


@dataclass(frozen=True)
class Variant:
    """A version on the board. folder: verified. title: its recipe in words; form: of its weights; serving: it is the champion."""

    version: str
    recipe: str
    title: str
    folder: Path
    form: str = ""
    serving: bool = False


@dataclass(frozen=True)
class Timing:
    """How speed is measured: texts a round (length-sorted, 64 at once in PyTorch), rounds of which the best counts, and single texts for
    the latencies; threads for everybody."""

    n_texts: int = 256
    n_single: int = 100
    rounds: int = 3
    threads: int = 1


@dataclass
class _Row:
    """One row while it is measured: answers by text_hash with "label" and "predicted", and a model to time."""

    variant: Variant
    answers: pd.DataFrame
    model: Classifier
    mb: float
    times_s: list[float]
    single_ms: np.ndarray


def measure(
    variants: Sequence[Variant], data: LabelledData, *, task: str, reference: str, report: Report, timing: Timing = Timing(),
    max_lost: float = 0.5, resamples: int = 1000, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """The content of a board. variants: of one task and one split of `data`; reference: the version whose encoder in PyTorch is the
    yardstick (a champion, or the teacher of one). max_lost: points of accuracy that the chosen one may lose, by its point estimate.

    {"rows", "reference", "choice", "machine", "sentence", "notes", "n", "slice_n"}; a row: version, variant, title, form, serving,
    accuracy, low, high, macro_f1, lost_points, lost_low, lost_high (points lost against the reference on the same rows, paired),
    texts_per_s, p50_ms, p95_ms, mb, speedup, on_front, slices ({"length: short ...": accuracy}), n.
    Raises NothingToCompare, and BadModel for a folder that does not load.
    """
    if not variants:
        raise NothingToCompare("There is no version to measure.", "Train one first: job finetune.")
    if not any(v.version == reference for v in variants):
        raise NothingToCompare(f"The reference {reference} is not among the versions.", "Name one that is.")
    report.progress(0.0, "Loading the versions")
    rows = [_loaded(v, threads=timing.threads) for v in variants]
    root = next(row for row in rows if row.variant.version == reference)
    yardstick, notes = _pytorch(root, data, task=task, report=report, timing=timing, seed=seed, resamples=resamples)
    rows = [yardstick, *rows] if yardstick is not None else rows
    _time(rows, data, timing, report)
    told, slice_n = _told(rows, yardstick or root, data, resamples=resamples, seed=seed)
    choice = _choice(told, max_lost)
    return {
        "rows": told, "reference": told[0] if yardstick is not None else next(r for r in told if r["version"] == reference),
        "choice": choice, "max_lost": max_lost, "machine": machine(timing.threads), "notes": notes, "n": told[0]["n"],
        "slice_n": slice_n, "n_timed": timing.n_texts, "rounds": timing.rounds, "synthetic": data.synthetic, "split_hash": data.split_hash,
        "sentence": _sentence(told, choice, max_lost),
    }  # fmt: skip


def machine(threads: int) -> dict[str, Any]:
    """What the figures of speed hold for."""
    processor = platform.processor() or platform.machine()
    return {"processor": processor, "cores": os.cpu_count(), "threads": threads, "system": platform.system()}


# --- rows


def _loaded(variant: Variant, *, threads: int) -> _Row:
    model = Classifier.load(variant.folder, version=variant.version, threads=threads)
    return _Row(variant, read_heldout(variant.folder), model, served_mb(variant.folder), [], np.zeros(0))


def served_mb(folder: Path) -> float:
    """MB on disk of what serving reads of a version's folder, its sub-folders included."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name not in NOT_SERVED)
    return sum(file.stat().st_size for file in files) / 1e6


def _pytorch(
    root: _Row, data: LabelledData, *, task: str, report: Report, timing: Timing, seed: int, resamples: int
) -> tuple[_Row | None, list[str]]:
    """(the yardstick's row, what was done in words); no row where the base's weights are not here."""
    import torch

    info = root.model.info
    try:
        encoder = load_encoder(str(info.get("base") or ""), max_tokens=int(info["max_tokens"]), device="cpu", download=False)
        if (root.variant.folder / TUNED_WEIGHTS).is_file():
            encoder.load_weights(root.variant.folder)
    except EncoderError as error:
        return None, [f"PyTorch is not on the board: {error.message} Speed and loss are told against {root.variant.version} as served."]
    torch.set_num_threads(timing.threads)
    batched = SimpleNamespace(encode=functools.partial(encoder.encode, batch=AT_ONCE))
    embedded = finish.embedded(
        batched, data, cache=None, said=lambda done, message: report.progress(0.02 + 0.55 * done, f"PyTorch fp32: {message}")
    )
    asked, tuned = task_of(task), (root.variant.folder / TUNED_WEIGHTS).is_file()
    options = FitOptions(
        seed=seed, resamples=resamples, lexical=asked.lexical, in_scope_share=asked.in_scope_share,
        test_is_publishers=data.test_is_publishers, logistic_c=TUNED_C if tuned else (LOGISTIC_C,),
    )  # fmt: skip
    report.progress(0.58, "Fitting a head on PyTorch's embeddings")
    model, _ = fit_classifier(*(embedded[part] for part in finish.PARTS), options=options, info=dict(info))
    answers = model.heldout_table
    model = model.with_embedder(encoder.embed, version=REFERENCE)
    weights = sum(p.numel() * p.element_size() for p in encoder.model.parameters()) / 1e6
    variant = dataclasses.replace(root.variant, version=REFERENCE, recipe="pytorch", title="PyTorch", form="fp32", serving=False)
    said = f"The yardstick is the encoder of {root.variant.version} in PyTorch fp32, with a head fitted on its own embeddings."
    return _Row(variant, answers, model, weights, [], np.zeros(0)), [said]


# --- speed


def _time(rows: Sequence[_Row], data: LabelledData, timing: Timing, report: Report) -> None:
    """Fill in times_s and single_ms. The rows take turns, so that a busy moment falls on all of them."""
    texts = sorted(data.test["text"], key=len)
    many = texts[:: max(1, len(texts) // timing.n_texts)][: timing.n_texts]
    few = [many[i] for i in np.random.default_rng(0).permutation(len(many))[: timing.n_single]]
    for row in rows:
        row.model.predict(many[:8])  # a first call is never typical
    for turn in range(timing.rounds):
        for place, row in enumerate(rows):
            report.progress(0.6 + 0.3 * (turn + place / len(rows)) / timing.rounds, f"Timing round {turn + 1}: {row.variant.title}")
            started = time.perf_counter()
            row.model.predict(many)
            row.times_s.append((time.perf_counter() - started) / len(many))
    for place, row in enumerate(rows):
        report.progress(0.9 + 0.08 * place / len(rows), f"One text at a time: {row.variant.title}")
        row.single_ms = np.array([_once_ms(row.model, each) for each in few])


def _once_ms(model: Classifier, message: str) -> float:
    started = time.perf_counter()
    model.predict([message])
    return 1000 * (time.perf_counter() - started)


# --- figures


def _told(
    rows: Sequence[_Row], yardstick: _Row, data: LabelledData, *, resamples: int, seed: int
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """(a row a version, how many rows each slice has)."""
    hashes = set(yardstick.answers["text_hash"]).intersection(*(set(row.answers["text_hash"]) for row in rows))
    shared = {id(row): _inside(row.answers, hashes) for row in rows}
    right = {key: (frame["label"] == frame["predicted"]).to_numpy() for key, frame in shared.items()}
    found = shared[id(yardstick)]
    if found.empty:
        raise NothingToCompare("The versions share no held-out row.", "Measure versions of one data set together.")
    cuts = _cuts(found, data)
    told, pace = [], 1 / min(yardstick.times_s)
    for row in rows:
        frame, mine = shared[id(row)], right[id(row)]
        accuracy = metrics.mean(mine.astype(float), resamples=resamples, seed=seed)
        lost = metrics.paired_difference(mine, right[id(yardstick)], resamples=resamples, seed=seed)
        speed = 1 / min(row.times_s)
        told.append({
            "version": row.variant.version, "variant": row.variant.recipe, "title": row.variant.title, "form": row.variant.form,
            "serving": row.variant.serving, "accuracy": _r(accuracy.value, 5), "low": _r(accuracy.low, 5), "high": _r(accuracy.high, 5),
            "macro_f1": _r(metrics.macro_f1(list(frame["label"]), list(frame["predicted"]), resamples=2, seed=seed).value, 5),
            "lost_points": _r(100 * lost.value, 3), "lost_low": _r(100 * lost.low, 3), "lost_high": _r(100 * lost.high, 3),
            "texts_per_s": _r(speed, 1), "speedup": _r(speed / pace, 2), "p50_ms": _r(np.median(row.single_ms), 3),
            "p95_ms": _r(np.percentile(row.single_ms, 95), 3), "mb": _r(row.mb, 2), "n": len(mine),
            "slices": {name: _r(mine[places].mean(), 5) for name, places in cuts.items()},
        })  # fmt: skip
    for row, front in zip(told, front_of(told), strict=True):
        row["on_front"] = front
    return told, {name: int(places.sum()) for name, places in cuts.items()}


def _inside(answers: pd.DataFrame, hashes: set[str]) -> pd.DataFrame:
    """In-scope rows that every version answered, in one order."""
    frame = answers[answers["text_hash"].isin(hashes) & (answers["label"] != metrics.OOS)]
    return frame.drop_duplicates("text_hash").sort_values("text_hash").reset_index(drop=True)


def _cuts(answers: pd.DataFrame, data: LabelledData) -> dict[str, np.ndarray]:
    """The rows of each slice, as a mask along the rows. Texts the data set no longer holds are in none."""
    held = heldout.joined(answers, data)
    place = {hashed: i for i, hashed in enumerate(answers["text_hash"])}
    found = {}
    for by, parts in slices.cuts(held).items():
        if by not in CUTS or (by == "label" and parts.nunique() > MOST_LABELS):
            continue
        for part, rows in parts.dropna().groupby(parts).groups.items():
            if len(rows) >= LEAST_ROWS:
                mask = np.zeros(len(answers), dtype=bool)
                mask[[place[hashed] for hashed in held.rows.loc[rows, "text_hash"]]] = True
                found[f"{by}: {part}"] = mask
    return found


def front_of(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether no other row is at least as accurate and as fast, and better in one of the two (the Pareto front)."""
    at = [(row["accuracy"], row["texts_per_s"]) for row in rows]
    return [not any(a >= mine[0] and s >= mine[1] and (a, s) != mine for a, s in at) for mine in at]


def _choice(rows: Sequence[Mapping[str, Any]], max_lost: float) -> str:
    """The fastest version that loses no more than max_lost points; "" where there is none."""
    fit = [row for row in rows if row["version"] != REFERENCE and row["lost_points"] <= max_lost]
    return max(fit, key=lambda row: row["texts_per_s"])["version"] if fit else ""


def _sentence(rows: Sequence[Mapping[str, Any]], choice: str, max_lost: float) -> str:
    if not choice:
        return f"No version stays within {max_lost:g} points of the reference."
    row = next(row for row in rows if row["version"] == choice)
    times = f"{row['speedup']:.1f} times as fast as the reference ({row['texts_per_s']:,.0f} texts/s)"
    lost = f"{row['lost_points']:.1f} points lost ({row['lost_low']:.1f} to {row['lost_high']:.1f})"
    return f"{row['title']} ({choice}) is {times} with {lost} on {row['n']:,} held-out rows: the fastest within {max_lost:g} points."


def _r(value: float, digits: int) -> float:
    return round(float(value), digits)
