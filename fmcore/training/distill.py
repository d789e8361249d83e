"""Method `distill`: a student of two or three layers, begun from layers of its teacher, learns to give what the teacher gives.

Its first layers are copies of the teacher's, evenly spaced (Sun et al. 2019, patient distillation; Sanh et al. 2019). The loss is
cross-entropy against the teacher's calibrated probabilities, mixed with the row's own label where it has one (Hinton et al. 2015), plus
NEAR times (1 - cosine) between the two pooled embeddings (Reimers and Gurevych 2020). Also the recovery of a pruned encoder (prune.py).

The probabilities are those of a head fitted on training rows alone: the head that serves may have been refitted on held-out rows.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmcore.config import settings
from fmcore.data.catalogue import OOS, LabelledData
from fmcore.models import shapes
from fmcore.models.calibration import fit_temperature, softmax
from fmcore.models.encoder import EmbeddingCache, Encoder, batches_by_length
from fmcore.models.heads import LOGISTIC_C, Head, fit_logistic
from fmcore.nouns import Report
from fmcore.training import devices, loop
from fmcore.training.finetune import FORWARD_BATCH, layers_of, padded, prepare_network, rows_of, targets_of, training_facts
from fmcore.training.finish import finish

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fmcore.training.compress import Compression, Teacher

LAYERS = 3
EXAMPLES, FEWEST, MOST = 40_000, 4, 12
"""Rows that go through in all, and the bounds of the passes that makes: few rows are seen more often."""
LEARNING_RATE, HEAD_RATE = 3e-4, 1e-3
NEAR = 5.0
OWN_LABEL = 0.5
"""How much of the target is the row's own label, where it has one; the rest is what the teacher says."""
TIMED_EPOCHS, AVERAGING = 100, 8.0
"""With a budget of minutes: more passes than there is time for, and the average of the last weights instead of a falling rate."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a smaller encoder learns from: texts as tokens, with the teacher's embedding float32 (n, dim) and the target probabilities
    float32 (n, classes); and the validation rows it is chosen by. head is the teacher's, calibrated: where the student's begins."""

    tokens: list[dict[str, list[int]]]
    embeddings: np.ndarray
    targets: np.ndarray
    held: list[dict[str, list[int]]]
    truth: np.ndarray
    head: Head
    temperature: float
    accuracy: float
    identity: str


def train(
    teacher: Teacher, data: LabelledData, params: Compression, out: Path, report: Report, *, checkpoint: Path | None = None
) -> dict[str, Any]:
    """Train the student, finish it as the teacher was finished, write the model folder. Returns the metrics."""
    report.progress(0.0, "Loading the teacher")
    encoder = teacher.encoder(params.device)
    lesson = lesson_of(teacher, encoder, data, params, report=report, span=(0.02, 0.15))
    student = smaller(encoder)
    places = spaced(len(layers_of(encoder.model)) - 1, params.layers or LAYERS)
    shapes.keep_layers(student.model, places)
    outcome = learn(student, lesson, plan_of(params, n_rows=len(lesson.tokens)), report=report, checkpoint=checkpoint, span=(0.15, 0.7))
    facts = {"layers_from": places, "training": training_facts(outcome, lesson.accuracy), "n_texts": len(lesson.tokens)}
    return finish(student, data, out, plan=teacher.plan(params, data, **facts), report=report, span=(0.7, 0.94))


def spaced(n: int, k: int) -> list[int]:
    """The places of k layers of n, evenly spaced, the first and the last among them (the last alone for one)."""
    k = min(k, n)
    return [n - 1] if k <= 1 else [round(i * (n - 1) / (k - 1)) for i in range(k)]


def smaller(encoder: Encoder) -> Encoder:
    """A copy of an encoder that may be cut down without touching it."""
    return dataclasses.replace(encoder, model=copy.deepcopy(encoder.model))


def plan_of(params: Compression, *, n_rows: int, learning_rate: float = LEARNING_RATE, examples: int = EXAMPLES) -> loop.Plan:
    """The loop's settings: as many passes as make up `examples` rows, or as long as the minutes last."""
    common: dict[str, Any] = {"batch": params.batch, "learning_rate": learning_rate, "head_learning_rate": HEAD_RATE, "seed": params.seed}
    if params.minutes:
        common |= {"decay": False, "averaging": AVERAGING, "seconds": 60 * params.minutes, "warmup": 0.001}
        return loop.Plan(**common, epochs=TIMED_EPOCHS, patience=TIMED_EPOCHS)
    n = params.epochs or min(MOST, max(FEWEST, round(examples / n_rows)))
    return loop.Plan(**common, epochs=n, patience=n)


def lesson_of(
    teacher: Teacher, encoder: Encoder, data: LabelledData, params: Compression, *, report: Report, span: tuple[float, float]
) -> Lesson:
    """The training rows, and texts without labels, as the teacher sees them. Embeddings are kept on disk: a resumed run has them."""
    rows = rows_of(data, with_names=bool(teacher.shots))
    labels = sorted(set(rows["label"]))
    order = {label: i for i, label in enumerate(labels)}
    classes = rows["label"].map(order).to_numpy(dtype=np.int64)
    inside = data.validation[(data.validation["label"] != OOS) & data.validation["label"].isin(labels)]
    truth = inside["label"].map(order).to_numpy(dtype=np.int64)
    texts = [*rows["text"], *params.texts]
    known = dataclasses.replace(encoder, sha256=teacher.sha256) if teacher.tuned else encoder
    cache = EmbeddingCache(settings().home / "cache" / "embeddings")
    said = f"The teacher reads {len(texts) + len(inside):,} texts"
    both = cache.encode(
        known, [*texts, *inside["text"]], batch=FORWARD_BATCH,
        progress=lambda done: report.progress(span[0] + (span[1] - span[0]) * done, f"{said}: {done:.0%}"),
    )  # fmt: skip
    embeddings, held = both[: len(texts)], both[len(texts) :]
    head = fit_logistic(embeddings[: len(rows)], classes, n_classes=len(labels), c=1.0 if teacher.tuned else LOGISTIC_C)
    scores = head.scores(held)
    temperature = fit_temperature(scores, truth)
    targets = softmax(head.scores(embeddings), temperature=temperature).astype(np.float32)
    own = targets_of(list(rows["text"]), classes, data.tiers)
    own = own if own.ndim == 2 else np.eye(len(labels), dtype=np.float32)[own]
    targets[: len(rows)] = OWN_LABEL * own + (1 - OWN_LABEL) * targets[: len(rows)]
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()
    return Lesson(
        encoder.tokenize(texts)[0], embeddings, targets, encoder.tokenize(list(inside["text"]))[0], truth, head, temperature,
        float((scores.argmax(axis=1) == truth).mean()), f"{teacher.sha256} {data.split_hash} {digest} {params.identity()}",
    )  # fmt: skip


def learn(
    student: Encoder, lesson: Lesson, plan: loop.Plan, *, report: Report, checkpoint: Path | None, span: tuple[float, float]
) -> loop.Outcome:
    """Train a smaller encoder towards the lesson; it is left with the weights that were best on validation."""
    import torch
    from torch import nn
    from torch.nn.functional import cosine_similarity, cross_entropy

    network, layers, _ = prepare_network(student, "full")
    head = head_of(lesson)
    model = nn.ModuleDict({"encoder": network, "head": head})
    device, pad = torch.device(student.device), student.tokenizer.pad_token_id
    model.to(device)
    wanted = torch.from_numpy(lesson.embeddings)

    def collate(group: Any) -> dict[str, Tensor]:
        batch = padded([lesson.tokens[i] for i in group], pad=pad, classes=lesson.targets[group])
        return {**batch, "embeddings": wanted[torch.as_tensor(group)]}

    def pooled(batch: dict[str, Tensor]) -> Tensor:
        return student.pooled({k: batch[k] for k in ("input_ids", "attention_mask")})

    def loss(batch: dict[str, Tensor]) -> Tensor:
        mine = pooled(batch)
        apart = (1 - cosine_similarity(mine.float(), batch["embeddings"])).mean()
        return cross_entropy(head(mine).float(), batch["classes"]) + NEAR * apart

    def accuracy() -> float:
        right = 0
        for group in batches_by_length([len(t["input_ids"]) for t in lesson.held], batch=FORWARD_BATCH):
            batch = devices.to_device(padded([lesson.held[i] for i in group], pad=pad), device)
            right += int((head(pooled(batch)).argmax(1).cpu().numpy() == lesson.truth[group]).sum())
        return right / len(lesson.truth)

    subject = loop.Subject(
        model, loop.layerwise_groups(layers, head, plan), [len(t["input_ids"]) for t in lesson.tokens], collate, loss, accuracy,
        identity=f"{lesson.identity} {shapes.shape_of(network)}", halves=True,
    )  # fmt: skip
    outcome = loop.fit(subject, plan, report=report, checkpoint=checkpoint, device=device, span=span)
    student.model.eval()
    return outcome


def head_of(lesson: Lesson) -> nn.Linear:
    """The teacher's head, so scaled that its softmax is calibrated."""
    import torch
    from torch import nn

    linear = lesson.head.arrays["linear"]
    head = nn.Linear(*linear.shape)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy((linear.T / lesson.temperature).copy()))
        head.bias.copy_(torch.from_numpy((lesson.head.arrays["bias"] / lesson.temperature).copy()))
    return head
