"""Which way of adapting a base model to a field's texts helps a task with few labels, against the base itself.

Every arm is the same base adapted without labels for the same time on the same corpus (training/pretrain.py, sentence_adapt.py), then kept
frozen: a logistic head learns from the same drawn examples and answers the same rows, so differences are paired. Continued masked words
can harm the vectors of sentences that contrast made good; that is what is looked at here. Stores nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmcore.data.catalogue import OOS, LabelledData
from fmcore.evaluation.seeds import over_seeds, paired_over_seeds
from fmcore.models import bases
from fmcore.models.encoder import Encoder, load_encoder
from fmcore.models.heads import fit_logistic
from fmcore.models.manifest import MANIFEST
from fmcore.nouns import Estimate, FMError, Report
from fmcore.training.linear import few_shot

BASE = "base"
TITLES = {
    "base": "The base as it is", "mlm": "Continued masked words", "simcse": "SimCSE", "tsdae": "TSDAE", "polarity": "Polarity contrast",
}  # fmt: skip
OBJECTIVES = tuple(name for name in TITLES if name != BASE)
PARTS = ("validation", "test")
ENCODE_BATCH, CHECKPOINTS = 64, 2
"""Looking at an arm on its way takes from its time to learn."""
TRAINING_SHARE = 0.9
"""Of the progress; the rest is measuring."""


class UnknownObjective(FMError):
    """No way of adapting has that name."""


@dataclass(frozen=True)
class Asked:
    """What a study compares. minutes: for all objectives together; shots: examples a class; seeds: how often they are drawn;
    learning_rate: of the objectives for sentences, masked words have their own; layers: the last ones that learn, in every arm."""

    objectives: tuple[str, ...] = OBJECTIVES
    base: str = "minilm"
    shots: int = 16
    seeds: int = 20
    minutes: float = 15.0
    steps: int = 0
    batch: int = 32
    max_tokens: int = 64
    learning_rate: float = 1e-4
    layers: int = 2
    seed: int = 0
    threads: int = 1
    resamples: int = 2000


def objectives_of(said: str) -> tuple[str, ...]:
    """The objectives of "mlm, simcse", each once; of nothing, all. Raises UnknownObjective."""
    named = tuple(dict.fromkeys(said.replace(",", " ").split())) or OBJECTIVES
    for name in named:
        if name not in OBJECTIVES:
            raise UnknownObjective(f"There is no objective {name[:40]!r}.", f"Objectives: {', '.join(OBJECTIVES)}.")
    return named


def run(data: LabelledData, corpus: Any, asked: Asked, folder: Path, report: Report) -> dict[str, Any]:
    """The study's content: rows, sentence, best, notes. folder: what was adapted stays there, a finished arm is not made twice.

    rows: name, title, mean, low, high (accuracy on test rows, 95 % interval over draws and rows), over, over_low, over_high (paired
    difference to the base), apart (whether its interval lies above the base's), n_seeds, n_test, seconds, steps, validation (accuracy), and
    helped ("yes", "no", "not shown"; None for the base). best: the objective that helped most by validation rows, "" where none did.
    Raises TooFewExamples, and what the training raises.
    """
    shots = [few_shot(data, shots=asked.shots, seed=seed).train for seed in range(asked.seeds)]
    arms, figures = {BASE: asked.base}, {BASE: {"seconds": 0.0, "steps": 0}}
    for number, name in enumerate(asked.objectives):
        share = TRAINING_SHARE / len(asked.objectives)
        told = _Share(report, name, number * share, (number + 1) * share)
        figures[name] = adapted(name, corpus, asked, folder, told)
        arms[name] = str(folder / name / bases.ENCODER)
    right = {}
    for number, (name, where) in enumerate(arms.items()):
        share = (1 - TRAINING_SHARE) / len(arms)
        told = _Share(report, name, TRAINING_SHARE + number * share, TRAINING_SHARE + (number + 1) * share)
        right[name] = answered(load_encoder(where, max_tokens=asked.max_tokens), data, shots, told)
        report.metric(number, **{f"{name}_accuracy": float(right[name]["validation"].mean())})
    return content(right, figures, shots=asked.shots, resamples=asked.resamples, notes=[*corpus.notes, _how(data, corpus, asked)])


def adapted(name: str, corpus: Any, asked: Asked, folder: Path, report: Report) -> dict[str, Any]:
    """Adapt the base by one objective into folder/name, unless it was done; its figures."""
    out, kept = folder / name, folder / f"{name}-checkpoint"
    if not (out / MANIFEST).is_file():
        began = time.monotonic()
        minutes = asked.minutes / len(asked.objectives)
        shared = {
            "objective": name, "base": asked.base, "steps": asked.steps, "minutes": minutes, "batch": asked.batch, "seed": asked.seed,
            "max_tokens": asked.max_tokens, "threads": asked.threads, "layers": asked.layers, "checkpoints": CHECKPOINTS,
        }  # fmt: skip
        if name == "mlm":
            from fmcore.training import pretrain

            pretrain.train(corpus, pretrain.Pretraining(start="continue", **shared), out, report, checkpoint=kept)
        else:
            from fmcore.training import sentence_adapt

            chosen = sentence_adapt.Adapting(**shared, learning_rate=asked.learning_rate)
            sentence_adapt.train(corpus, chosen, out, report, checkpoint=kept)
        report.progress(1.0, f"{time.monotonic() - began:.0f} s")
    facts = json.loads((out / bases.FACTS).read_text(encoding="utf-8"))
    return {"seconds": facts["seconds"], "steps": facts["figures"].get("steps", 0)}


def answered(encoder: Encoder, data: LabelledData, shots: Sequence[Any], report: Report) -> dict[str, np.ndarray]:
    """part -> bool (draws, rows): whether a head on the frozen encoder, learnt from each draw of examples, is right. Every draw's head sees
    nothing but its own rows; its settings are the same for every encoder."""
    labels = list(data.labels)
    texts = list(dict.fromkeys(text for frame in shots for text in frame["text"]))
    vectors = dict(zip(texts, encoder.encode(texts, batch=ENCODE_BATCH), strict=True))
    held = {}
    for number, part in enumerate(PARTS):
        frame = getattr(data, part)
        frame = frame[frame["label"] != OOS]
        report.progress(number / len(PARTS), f"embedding {len(frame):,} {part} rows")
        held[part] = (encoder.encode(frame["text"].tolist(), batch=ENCODE_BATCH), frame["label"].map(labels.index).to_numpy())
    found: dict[str, list[np.ndarray]] = {part: [] for part in PARTS}
    for frame in shots:
        learnt = np.stack([vectors[text] for text in frame["text"]])
        head = fit_logistic(learnt, frame["label"].map(labels.index).to_numpy(), n_classes=len(labels))
        for part, (rows, truth) in held.items():
            found[part].append(head.scores(rows).argmax(axis=1) == truth)
    return {part: np.array(answers) for part, answers in found.items()}


def content(
    right: Mapping[str, Mapping[str, np.ndarray]],
    figures: Mapping[str, Mapping[str, Any]],
    *,
    shots: int,
    resamples: int = 2000,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """What `run` returns, from each arm's answers and training figures."""
    plain = right[BASE]["test"]
    usual = over_seeds(plain, resamples=resamples)
    rows: list[dict[str, Any]] = []
    for name, answers in right.items():
        mean = over_seeds(answers["test"], resamples=resamples)
        over = None if name == BASE else paired_over_seeds(plain, answers["test"], resamples=resamples)
        rows.append({
            "name": name, "title": TITLES[name], "mean": mean.value, "low": mean.low, "high": mean.high,
            "over": over and over.value, "over_low": over and over.low, "over_high": over and over.high,
            "apart": None if over is None else mean.low > usual.high, "n_seeds": len(plain), "n_test": plain.shape[1],
            "seconds": figures[name]["seconds"], "steps": figures[name]["steps"],
            "validation": float(answers["validation"].mean()), "helped": None if over is None else helped(over),
        })  # fmt: skip
    good = [row for row in rows if row["helped"] == "yes"]
    best = max(good, key=lambda row: row["validation"])["name"] if good else ""
    return {"rows": rows, "sentence": sentence(rows, shots=shots), "best": best, "notes": list(notes)}


def helped(over: Estimate) -> str:
    """"yes" where the whole interval of the difference lies above 0, "no" where it lies below, else "not shown"."""
    if over.low > 0:
        return "yes"
    return "no" if over.high < 0 else "not shown"


def sentence(rows: Sequence[Mapping[str, Any]], *, shots: int) -> str:
    """Who helped, who harmed and for whom neither is shown, with the figures. Best first."""
    base = next(row for row in rows if row["name"] == BASE)
    parts = [
        f"With {shots} labelled examples a class, over {base['n_seeds']} draws and {base['n_test']:,} test rows, the frozen base is right "
        f"in {_percent(base['mean'])} % ({_percent(base['low'])} to {_percent(base['high'])})."
    ]
    heads = {"yes": "Helped", "no": "Made it worse", "not shown": "Not shown to help"}
    for verdict, said in heads.items():
        found = sorted((row for row in rows if row["helped"] == verdict), key=lambda row: -row["over"])
        if found:
            parts.append(f"{said}: {'; '.join(map(_told, found))}.")
    if not any(row["helped"] == "yes" for row in rows):
        parts.append("No adaptation is shown to be better than the base here.")
    return " ".join(parts)


def _told(row: Mapping[str, Any]) -> str:
    over = f"{100 * row['over']:+.1f} points ({100 * row['over_low']:+.1f} to {100 * row['over_high']:+.1f})"
    apart = ", its interval apart from the base's" if row["apart"] else ""
    return f"{row['title']}, {_percent(row['mean'])} % ({_percent(row['low'])} to {_percent(row['high'])}), {over}{apart}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _how(data: LabelledData, corpus: Any, asked: Asked) -> str:
    time_each = f"{asked.minutes / max(1, len(asked.objectives)):.1f} minutes" if not asked.steps else f"{asked.steps} steps"
    return (
        f"Each objective had {time_each} on {', '.join(corpus.names)}, without labels and without validation or test rows of {data.name}; "
        f"every head saw {asked.shots} rows a class. Polarity contrast reads a built-in English list of words of direction."
    )


class _Share:
    """An arm's own report: its part of the study's progress, its curves under its name."""

    def __init__(self, report: Report, name: str, low: float, high: float):
        self._report, self._name, self._low, self._high = report, name, low, high

    def progress(self, fraction: float, message: str = "") -> None:
        self._report.progress(self._low + (self._high - self._low) * min(1.0, max(0.0, fraction)), f"{TITLES[self._name]}: {message}")

    def metric(self, step: int, **values: float) -> None:
        self._report.metric(step, **{f"{self._name}_{key}": value for key, value in values.items()})

    def device(self, name: str) -> None:
        self._report.device(name)
