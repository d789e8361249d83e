"""Method `prune`: attention heads, feed-forward units and whole layers that matter least are taken out, then the rest recovers.

How much a head or unit matters is the size of the first-order change of the loss if it were silent: |sum over tokens of activation times
gradient|, summed over training rows (Michel et al. 2019 for heads, Molchanov et al. 2017 for units), scaled to length 1 within its
layer. What goes is physically gone: the matrices are smaller, so that every served form of them is faster. The recovery is distill.py's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmcore.data.catalogue import LabelledData
from fmcore.models import shapes
from fmcore.models.encoder import Encoder
from fmcore.nouns import Report
from fmcore.training import devices, distill
from fmcore.training.distill import Lesson
from fmcore.training.finetune import padded, training_facts
from fmcore.training.finish import finish

if TYPE_CHECKING:
    from fmcore.training.compress import Compression, Teacher

JUDGED_ROWS = 512
JUDGED_BATCH = 16
UNIT_STEP = 32
"""Units go in blocks of as many: matrix kernels work in blocks, and an odd width is no faster than the next full one."""
EXAMPLES, LEARNING_RATE = 30_000, 2e-4


@dataclass(frozen=True, eq=False)
class Importance:
    """One array a layer: heads (n_heads,), units (n_units,), each of length 1; layers (n_layers,) is the sum before that scaling."""

    heads: list[np.ndarray]
    units: list[np.ndarray]
    layers: np.ndarray


def train(
    teacher: Teacher, data: LabelledData, params: Compression, out: Path, report: Report, *, checkpoint: Path | None = None
) -> dict[str, Any]:
    """Prune the teacher's encoder, let it recover, finish it, write the model folder. Returns the metrics."""
    report.progress(0.0, "Loading the teacher")
    encoder = teacher.encoder(params.device)
    lesson = distill.lesson_of(teacher, encoder, data, params, report=report, span=(0.02, 0.15))
    report.progress(0.15, "Measuring what each head and unit does")
    found = importance(encoder, lesson, seed=params.seed)
    pruned = distill.smaller(encoder)
    kept = cut(pruned, found, keep=params.keep, layers=params.layers)
    plan = distill.plan_of(params, n_rows=len(lesson.tokens), learning_rate=LEARNING_RATE, examples=EXAMPLES)
    outcome = distill.learn(pruned, lesson, plan, report=report, checkpoint=checkpoint, span=(0.17, 0.7))
    facts = {"pruned": kept, "training": training_facts(outcome, lesson.accuracy), "n_texts": len(lesson.tokens)}
    return finish(pruned, data, out, plan=teacher.plan(params, data, **facts), report=report, span=(0.7, 0.94))


def importance(encoder: Encoder, lesson: Lesson, *, seed: int) -> Importance:
    """What each head and unit does to the loss on JUDGED_ROWS of the lesson. Raises NotShaped for a network of another build."""
    import torch
    from torch.nn.functional import cross_entropy

    if shapes.shape_of(encoder.model) is None:
        raise shapes.NotShaped(f"Heads and units of {encoder.name} cannot be told apart.", "Distil a student instead (method distill).")
    stack = list(shapes.stack_of(encoder.model))
    head = distill.head_of(lesson).to(encoder.device)
    rows = np.random.default_rng(seed).permutation(len(lesson.targets))[:JUDGED_ROWS]
    rows = rows[np.argsort([len(lesson.tokens[i]["input_ids"]) for i in rows], kind="stable")]
    heads = [np.zeros(layer.attention.self.query.out_features // layer.attention.self.attention_head_size) for layer in stack]
    units = [np.zeros(layer.intermediate.dense.out_features) for layer in stack]
    encoder.model.eval()
    for start in range(0, len(rows), JUDGED_BATCH):
        group = rows[start : start + JUDGED_BATCH]
        batch = padded([lesson.tokens[i] for i in group], pad=encoder.tokenizer.pad_token_id, classes=lesson.targets[group])
        batch = devices.to_device(batch, torch.device(encoder.device))
        with _watched(stack) as seen, torch.enable_grad():
            logits = head(encoder.pooled({k: batch[k] for k in ("input_ids", "attention_mask")})).float()
            loss = cross_entropy(logits, batch["classes"], reduction="sum")
            slopes = torch.autograd.grad(loss, [tensor for pair in seen for tensor in pair])
        for i, (context, inner) in enumerate(seen):
            by_place = (context * slopes[2 * i]).detach().sum(dim=1)  # over tokens: (rows, heads * size)
            heads[i] += by_place.view(len(group), len(heads[i]), -1).sum(dim=2).abs().sum(dim=0).cpu().numpy()
            units[i] += (inner * slopes[2 * i + 1]).detach().sum(dim=1).abs().sum(dim=0).cpu().numpy()
    sums = np.array([h.sum() + u.sum() for h, u in zip(heads, units, strict=True)])
    return Importance([_scaled(h) for h in heads], [_scaled(u) for u in units], sums)


def cut(encoder: Encoder, found: Importance, *, keep: float, layers: int = 0) -> dict[str, list[Any]]:
    """Take out what matters least, in place; what is left of each layer is returned: {"layers", "heads", "units"} (places, counts, counts).

    keep: share of heads and of units, over all layers together, at least one head and UNIT_STEP units in each. layers: how many stay.
    """
    stack = list(shapes.stack_of(encoder.model))
    n = min(layers or len(stack), len(stack))
    stay = sorted(np.argsort(-found.layers, kind="stable")[:n].tolist())
    shapes.keep_layers(encoder.model, stay)
    heads = _best([found.heads[i] for i in stay], keep, step=1)
    units = _best([found.units[i] for i in stay], keep, step=UNIT_STEP)
    for place, mine, inner in zip(stay, heads, units, strict=True):
        shapes.keep_parts(stack[place], heads=mine, units=inner)
    return {"layers": stay, "heads": [len(h) for h in heads], "units": [len(u) for u in units]}


def _best(scores: Sequence[np.ndarray], keep: float, *, step: int) -> list[list[int]]:
    """The places kept in each layer: those above one bar for all layers, in whole steps, at least one step each."""
    everything = np.concatenate(scores)
    n = max(1, round(keep * len(everything)))
    bar = np.sort(everything)[-n]
    kept = []
    for mine in scores:
        blocks = max(1, round(int((mine >= bar).sum()) / step))
        kept.append(sorted(np.argsort(-mine, kind="stable")[: min(len(mine), blocks * step)].tolist()))
    return kept


def _scaled(scores: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(scores))
    return scores / length if length > 0 else scores


@contextlib.contextmanager
def _watched(stack: Sequence[Any]) -> Iterator[list[list[Any]]]:
    """Collects, a layer: what its heads give together (input of the attention's output matrix), and what its units give."""
    seen: list[list[Any]] = [[None, None] for _ in stack]

    def noting(i: int, which: int) -> Any:
        def note(module: Any, inputs: tuple[Any, ...]) -> None:
            seen[i][which] = inputs[0]

        return note

    parts = [
        (i, which, part) for i, layer in enumerate(stack) for which, part in enumerate((layer.attention.output.dense, layer.output.dense))
    ]
    hooks = [part.register_forward_pre_hook(noting(i, which)) for i, which, part in parts]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
