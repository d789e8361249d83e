"""Method `static`: the teacher's answers become a table of vectors, one a token and one a frequent token pair (models/static.py).

It begins with what the teacher says of each token alone (as model2vec does: main directions, rare tokens more); then it is trained on texts
towards the teacher's calibrated probabilities, mixed with the row's own label where it has one (Hinton et al. 2015), and its embedding.
Beside the training rows and texts without labels it learns from pieces of training rows (Tang et al. 2019, arXiv:1903.12136): what the
teacher says of half a sentence shows which words an answer hangs on, which is all that a sum of words can learn.

The teacher is the classifier as it was before its refits, so that no held-out row speaks through it. A minute or two on one core, most
of it the teacher's reading, which is kept on disk: a run that was killed begins again, and reads nothing twice.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmcore import text
from fmcore.config import settings
from fmcore.data.catalogue import LabelledData
from fmcore.models.classifier import Classifier
from fmcore.models.encoder import EmbeddingCache
from fmcore.models.fitting import FitOptions, fit_classifier
from fmcore.models.heads import Head, fit_head
from fmcore.models.lexical import fit_lexical
from fmcore.models.served_encoder import ServedEncoder
from fmcore.models.static import RESIDUAL, Pieces, StaticEncoder, Tables, flattened, known_pairs, pair_keys
from fmcore.nouns import FMError, Report
from fmcore.training import devices
from fmcore.training.finetune import rows_of, targets_of
from fmcore.training.finish import PARTS, SENTIMENTS, compared, embedded, sentiment_checks, write_folder

if TYPE_CHECKING:
    from torch import Tensor

    from fmcore.training.compress import Compression, Teacher

OWN_LABEL = 0.5
"""How much of the target is the row's own label, where it has one; the rest is what the teacher says."""
ROW_WEIGHT = 3
"""How often a pass meets a training row; a piece or a text without a label once."""
NEAR = 0.2
"""Weight of (1 - cosine) between the teacher's embedding and what a matrix makes of the static one."""
RARE = 1e-3
"""a in the weight a / (a + p) of a token of frequency p at the start (Arora et al. 2017)."""
START_LENGTH = 0.3
SCALE = 10.0
"""The head's scores are multiplied by it: of vectors of length 1, a head that starts from zero would take long to be sure of anything."""
DENSE_RATE = 2e-3
N_NEAR = 512
"""Examples that stand for all in the out-of-scope score."""
SAID_EVERY = 50
START_BATCH = 256
READ_AT_ONCE = 4000
"""Texts between two writes of what was read: a run that is killed loses a minute's reading at most."""


class Diverged(FMError):
    """The loss is no finite number."""


@dataclass(frozen=True)
class Recipe:
    """How a table is learnt. pairs: at most so many, each in least_texts texts or more; pieces: of training rows, at most so many as there
    are of those times pieces_each; dropped: share of tokens and pairs left out of a text each time it is met; rate: of the tables' rows."""

    dim: int = 256
    pairs: int = 60_000
    least_texts: int = 2
    pieces: int = 12_000
    pieces_each: int = 4
    passes: int = 4
    batch: int = 64
    rate: float = 0.03
    dropped: float = 0.1
    seed: int = 0
    minutes: float = 0.0


@dataclass(frozen=True, eq=False)
class Lesson:
    """What there is to learn: texts, the first n_rows of them labelled rows, with the teacher's embedding float32 (n, its dim) and the
    target probabilities float32 (n, classes). before: the teacher without its refits, which answers from embeddings."""

    texts: list[str]
    n_rows: int
    embeddings: np.ndarray
    targets: np.ndarray
    before: Classifier


@dataclass(frozen=True, eq=False)
class Learnt:
    """The tables, the head that was trained with them, and what the training says of itself."""

    tables: Tables
    head: Head
    facts: dict[str, Any]


def train(
    teacher: Teacher, data: LabelledData, params: Compression, out: Path, report: Report, *, checkpoint: Path | None = None
) -> dict[str, Any]:
    """Learn the tables, fit what belongs to a classifier around them, measure, write the model folder. Returns the metrics.

    data: the rows the teacher learnt from. checkpoint is not used. Raises Diverged.
    """
    return made(teacher, data, params, out, report)[0]


def made(teacher: Teacher, data: LabelledData, params: Compression, out: Path, report: Report) -> tuple[dict[str, Any], Lesson]:
    """What `train` does, and the lesson: the teacher without its refits is in it."""
    started = time.perf_counter()
    report.device("cpu")
    recipe = Recipe(seed=params.seed, minutes=params.minutes)
    lesson = lesson_of(teacher, data, params, recipe=recipe, report=report, span=(0.0, 0.5))
    start = start_of(teacher, params, report=report, span=(0.5, 0.6))
    was_read = time.perf_counter()
    learnt = learn(lesson, start, teacher, recipe, report=report, span=(0.6, 0.85))
    seconds = {"read": round(was_read - started, 2), "learn": round(time.perf_counter() - was_read, 2)}
    write_encoder(learnt, teacher, out)
    return finish(learnt, teacher, data, params, out, report=report, seconds=seconds), lesson


# --- what there is to learn


def lesson_of(
    teacher: Teacher, data: LabelledData, params: Compression, *, recipe: Recipe, report: Report, span: tuple[float, float]
) -> Lesson:
    """The training rows, pieces of them, and the texts without labels, as the teacher sees them; what it has read is kept on disk."""
    rows = rows_of(data, with_names=bool(teacher.shots))
    said = list(rows["text"])
    more = pieces(said, min(recipe.pieces, recipe.pieces_each * len(said)), seed=recipe.seed)
    texts = [*said, *more, "", *params.texts]
    embeddings = read(teacher, texts, params, report=report, span=span)
    before = before_refits(teacher, said, list(rows["label"]), embeddings[: len(said)])
    classes = rows["label"].map({label: i for i, label in enumerate(before.labels)}).to_numpy(dtype=np.int64)
    lexical = before.lexical_scores(texts)
    targets = before.probabilities(embeddings, lexical=lexical).astype(np.float32)
    own = targets_of(said, classes, data.tiers)
    own = own if own.ndim == 2 else np.eye(len(before.labels), dtype=np.float32)[own]
    targets[: len(said)] = OWN_LABEL * own + (1 - OWN_LABEL) * targets[: len(said)]
    return Lesson(texts, len(said), embeddings, targets, before)


def read(teacher: Teacher, texts: Sequence[str], params: Compression, *, report: Report, span: tuple[float, float]) -> np.ndarray:
    """float32 (n, dim): the teacher's embeddings, by the form it is served in; kept on disk every READ_AT_ONCE texts."""
    served = ServedEncoder(teacher.folder, max_tokens=int(teacher.info["max_tokens"]), threads=params.threads)
    cache, parts = EmbeddingCache(settings().home / "cache" / "embeddings"), []
    for first in range(0, len(texts), READ_AT_ONCE):
        some = texts[first : first + READ_AT_ONCE]

        def said(done: float, first: int = first, n: int = len(some)) -> None:
            share = (first + done * n) / len(texts)
            report.progress(span[0] + (span[1] - span[0]) * share, f"The teacher reads {len(texts):,} texts: {share:.0%}")

        parts.append(cache.encode(served, some, progress=said))
    return np.concatenate(parts)


def without_refits(model: Teacher, data: LabelledData, params: Compression, *, report: Report, span: tuple[float, float]) -> Classifier:
    """`before_refits` for a model whose embeddings of the training rows were not read yet."""
    rows = rows_of(data, with_names=bool(model.shots))
    texts = list(rows["text"])
    return before_refits(model, texts, list(rows["label"]), read(model, texts, params, report=report, span=span))


def before_refits(teacher: Teacher, texts: Sequence[str], labels: Sequence[str], embeddings: np.ndarray) -> Classifier:
    """The teacher with its kind of head and lexical part fitted on the training rows alone; its temperature was chosen with those."""
    served = teacher.served
    order = {label: i for i, label in enumerate(served.labels)}
    classes = np.array([order[label] for label in labels], dtype=np.int64)
    head = fit_head(served.head.kind, served.head.settings, embeddings, classes, n_classes=len(order))
    lexical = None if served.lexical is None else fit_lexical(list(texts), classes, n_classes=len(order))
    return dataclasses.replace(served, head=head, lexical=lexical, novelty=served.novelty.with_reference(embeddings))


def pieces(texts: Sequence[str], n: int, *, seed: int) -> list[str]:
    """n pieces of texts, in turn: some words in a row, a text with words left out, the beginning of one and the end of another."""
    rng = np.random.default_rng(seed)
    words = [found for each in texts if len(found := each.split()) > 1]
    made: list[str] = []
    while words and len(made) < n:
        one, other = words[rng.integers(len(words))], words[rng.integers(len(words))]
        first = int(rng.integers(len(one) - 1))
        made.append(" ".join(one[first : first + int(rng.integers(2, len(one) - first + 1))]))
        share = rng.uniform(0.05, 0.4)
        made.append(" ".join(word for word in one if rng.random() > share) or one[0])
        made.append(" ".join([*one[: int(rng.integers(1, len(one) + 1))], *other[int(rng.integers(len(other))) :]]))
    return made[:n]


# --- where the tables begin


def start_of(teacher: Teacher, params: Compression, *, report: Report, span: tuple[float, float]) -> np.ndarray:
    """float32 (vocabulary, teacher's dim): the teacher's embedding of each token alone, between the tokens that open and close a text."""
    served = ServedEncoder(teacher.folder, max_tokens=int(teacher.info["max_tokens"]), threads=params.threads)
    around = served.tokenizer.encode("").ids
    rows = [[*around[:1], number, *around[1:]] for number in range(served.tokenizer.get_vocab_size())]
    parts = []
    for first in range(0, len(rows), START_BATCH):
        report.progress(span[0] + (span[1] - span[0]) * first / len(rows), f"The teacher reads its vocabulary: {first / len(rows):.0%}")
        parts.append(served.side_by_side(rows[first : first + START_BATCH]))
    return np.concatenate(parts)


def _begun(start: np.ndarray, frequency: np.ndarray, dim: int) -> np.ndarray:
    """float32 (vocabulary, dim): the start's main directions, frequent tokens shorter."""
    centred = start - start.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    main = centred @ directions[:, ::-1][:, :dim]
    main = np.pad(main, ((0, 0), (0, dim - main.shape[1]))) * (RARE / (RARE + frequency))[:, None]
    return (main * (START_LENGTH / max(float(np.linalg.norm(main, axis=1).mean()), 1e-12))).astype(np.float32)


# --- learning


def learn(lesson: Lesson, start: np.ndarray, teacher: Teacher, recipe: Recipe, *, report: Report, span: tuple[float, float]) -> Learnt:
    """Train the tables, the layer and the head together. The same lesson, recipe and number of threads give the same numbers, unless there
    is a limit of minutes."""
    devices.seed_everything(recipe.seed)
    cutter = Pieces(teacher.folder / "tokenizer.json", max_tokens=int(teacher.info["max_tokens"]))
    flat, counts = flattened(cutter.tokens([text.clean(each)[0] for each in lesson.texts])[0])
    seen = np.bincount(flat, minlength=len(start))
    keys, n_keys = pair_keys(flat, counts, len(start))
    kept = _frequent(keys, n_keys, recipe)
    at, n_at = known_pairs(keys, n_keys, kept)
    table = np.vstack([_begun(start, seen / max(1, seen.sum()), recipe.dim), np.zeros((len(kept), recipe.dim), np.float32)])
    begun = table[: len(start)].copy()
    network = _Network(table, lesson.embeddings.shape[1], lesson.targets.shape[1])
    steps, loss = _fit(network, _joined(flat, counts, at + len(start), n_at), lesson, recipe, report, span)
    tokens, pairs = table[: len(start)], table[len(start) :]
    tokens = _spread(tokens, begun, seen)
    arrays = {name: value.detach().numpy().copy() for name, value in network.dense.items()}
    head = Head("logistic", {"linear": SCALE * arrays["linear"], "bias": SCALE * arrays["bias"]}, {})
    facts = {
        "steps": steps, "loss": round(loss, 5), "n_texts": len(lesson.texts), "n_rows": lesson.n_rows,
        "n_tokens_seen": int((seen > 0).sum()), "n_pairs": len(kept), "dim": recipe.dim, "recipe": dataclasses.asdict(recipe),
    }  # fmt: skip
    return Learnt(Tables(tokens, pairs, kept, arrays["layer"], arrays["layer_bias"]), head, facts)


def _frequent(keys: np.ndarray, counts: np.ndarray, recipe: Recipe) -> np.ndarray:
    """The keys of the pairs that stand in the most texts, ascending."""
    row_of = np.repeat(np.arange(len(counts)), counts)
    once = np.unique(np.stack([keys, row_of]), axis=1)[0]
    found, n_texts = np.unique(once, return_counts=True)
    often = np.argsort(-n_texts, kind="stable")[: recipe.pairs]
    return np.sort(found[often[n_texts[often] >= recipe.least_texts]])


def _joined(flat: np.ndarray, counts: np.ndarray, more: np.ndarray, n_more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places in the table of every text, its tokens first and then its pairs, in a line; where each text ends, from 0)."""
    row_of = np.concatenate([np.repeat(np.arange(len(counts)), counts), np.repeat(np.arange(len(counts)), n_more)])
    order = np.argsort(row_of, kind="stable")
    return np.concatenate([flat, more])[order], np.concatenate([[0], np.cumsum(counts + n_more)])


class _Network:
    """table (rows, dim), changed in place; dense: layer, layer_bias, the head's linear and bias, and the matrix towards the teacher's
    embedding. memory: for each row, the sum of its gradients' mean squares."""

    def __init__(self, table: np.ndarray, n_teacher: int, n_classes: int):
        import torch

        dim = table.shape[1]
        self.table, self.memory = torch.from_numpy(table), torch.zeros(len(table))
        layer, towards = torch.empty(dim, dim), torch.empty(dim, n_teacher)
        for matrix in (layer, towards):
            torch.nn.init.normal_(matrix, std=1 / math.sqrt(dim))
        self.dense = {
            "layer": layer, "layer_bias": torch.zeros(dim), "towards": towards, "linear": torch.zeros(dim, n_classes),
            "bias": torch.zeros(n_classes),
        }  # fmt: skip
        for value in self.dense.values():
            value.requires_grad_()

    def embedded(self, sums: Tensor) -> Tensor:
        """What models.static.finished makes of sums."""
        from torch.nn.functional import normalize

        x = RESIDUAL * normalize(sums, dim=1)
        return normalize(x + (x @ self.dense["layer"] + self.dense["layer_bias"]).relu(), dim=1)

    def loss(self, sums: Tensor, targets: Tensor, embeddings: Tensor) -> Tensor:
        from torch.nn.functional import cosine_similarity, cross_entropy

        x = self.embedded(sums)
        scores = SCALE * (x @ self.dense["linear"] + self.dense["bias"])
        apart = (1 - cosine_similarity(x @ self.dense["towards"], embeddings)).mean()
        return cross_entropy(scores, targets) + NEAR * apart


def _fit(
    network: _Network, places: tuple[np.ndarray, np.ndarray], lesson: Lesson, recipe: Recipe, report: Report, span: tuple[float, float]
) -> tuple[int, float]:
    """(steps, the last steps' mean loss). A row of the table moves by row-wise Adagrad, so that a step costs what its texts hold, not
    what the table does; the dense part by AdamW. Both rates fall to zero."""
    import torch

    rng = np.random.default_rng(recipe.seed)
    targets, embeddings = torch.from_numpy(lesson.targets), torch.from_numpy(lesson.embeddings)
    order = np.concatenate([np.tile(np.arange(lesson.n_rows), ROW_WEIGHT - 1), np.arange(len(lesson.texts))])
    a_pass = max(1, len(order) // recipe.batch)
    dense = torch.optim.AdamW(list(network.dense.values()), lr=DENSE_RATE, weight_decay=0.01)
    limit, started, steps, losses = 60 * recipe.minutes, time.perf_counter(), 0, []
    done = 0.0
    while done < 1.0:
        rng.shuffle(order)
        for batch in np.array_split(order, a_pass):
            done = (time.perf_counter() - started) / limit if limit else steps / (recipe.passes * a_pass)
            if done >= 1.0:
                break
            chosen, offsets = _picked(*places, batch, dropped=recipe.dropped, rng=rng)
            losses.append(_step(network, dense, chosen, offsets, (targets[batch], embeddings[batch]), recipe.rate, 1.0 - done))
            steps += 1
            if steps % SAID_EVERY == 0:
                now = float(np.mean(losses[-SAID_EVERY:]))
                report.progress(span[0] + (span[1] - span[0]) * done, f"Learning, loss {now:.3f}")
                report.metric(steps, loss=now)
            if not math.isfinite(losses[-1]):
                raise Diverged(f"The loss is no finite number after {steps} steps.", "The teacher gives numbers that are not finite.")
    return steps, float(np.mean(losses[-SAID_EVERY:]))


def _picked(
    flat: np.ndarray, ends: np.ndarray, batch: np.ndarray, *, dropped: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(the places of a batch's texts in a line, some left out; where each text begins in it)."""
    counts = ends[batch + 1] - ends[batch]
    starts = np.cumsum(counts) - counts
    row_of = np.repeat(np.arange(len(batch)), counts)
    chosen = flat[np.arange(len(row_of)) + (ends[batch] - starts)[row_of]]
    kept = rng.random(len(chosen)) >= dropped
    left = np.bincount(row_of[kept], minlength=len(batch))
    return chosen[kept], np.cumsum(left) - left


def _step(
    network: _Network, dense: Any, chosen: np.ndarray, offsets: np.ndarray, aims: tuple[Tensor, Tensor], rate: float, left: float
) -> float:
    """One step on one batch; left: the share of the rates that is left. Returns the loss before it."""
    import torch
    from torch.nn.functional import embedding_bag

    found, where = np.unique(chosen, return_inverse=True)
    rows = torch.from_numpy(found)
    local = network.table[rows].requires_grad_()
    loss = network.loss(embedding_bag(torch.from_numpy(where), local, torch.from_numpy(offsets), mode="sum"), *aims)
    dense.param_groups[0]["lr"] = DENSE_RATE * left
    dense.zero_grad()
    loss.backward()
    dense.step()
    network.memory[rows] += local.grad.square().mean(dim=1)
    reach = rate * left / (network.memory[rows].sqrt() + 1e-8)
    network.table[rows] = local.detach() - reach[:, None] * local.grad
    return float(loss.detach())


def _spread(tokens: np.ndarray, begun: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The tokens, those that no text held by the linear map that takes the others best from where they began to where they are."""
    known = seen > 0
    if known.all() or not known.any():
        return tokens
    first, weights = begun[known].astype(np.float64), np.sqrt(seen[known])[:, None]
    system = (first * weights).T @ first
    system[np.diag_indices_from(system)] += 1e-2 * np.trace(system) / len(system) + 1e-12
    moved = begun[~known] @ np.linalg.solve(system, (first * weights).T @ tokens[known])
    spread = tokens.copy()
    spread[~known] = moved
    return spread


# --- the folder


def write_encoder(learnt: Learnt, teacher: Teacher, out: Path) -> None:
    """static.safetensors and the teacher's tokenizer.json."""
    out.mkdir(parents=True, exist_ok=True)
    learnt.tables.save(out)
    shutil.copyfile(teacher.folder / "tokenizer.json", out / "tokenizer.json")


def finish(
    learnt: Learnt, teacher: Teacher, data: LabelledData, params: Compression, out: Path, *, report: Report, seconds: dict[str, float]
) -> dict[str, Any]:
    """The rest of a model folder around its encoder, measured by what will be served. The head stays as it was trained."""
    served = StaticEncoder(out, max_tokens=int(teacher.info["max_tokens"]))
    rows = embedded(served, data, cache=None, said=lambda done, message: report.progress(0.85 + 0.05 * done, message))
    options = FitOptions(
        refit=False, seed=params.seed, resamples=params.resamples, test_is_publishers=data.test_is_publishers,
        in_scope_share=params.in_scope_share, n_near=N_NEAR,
    )  # fmt: skip
    info = {**teacher.info, "recipe": "static", "form": "static"}
    classifier, metrics = fit_classifier(*(rows[part] for part in PARTS), options=options, info=info, trained=learnt.head)
    report.progress(0.92, "Measuring the baselines on the same rows")
    metrics |= compared(data, classifier, options)
    if set(classifier.labels) == set(SENTIMENTS):
        metrics |= sentiment_checks(data, classifier.with_embedder(served.embed), options)
    metrics |= {
        "split_hash": data.split_hash, "split_note": data.split_note, "synthetic": data.synthetic, "base": teacher.info.get("base"),
        "base_sha256": teacher.info.get("base_sha256"), "recipe": "static", "dataset": data.name, "device": "cpu", "form": "static",
        "n_labels": len(classifier.labels), "shots": teacher.shots, "training": learnt.facts,
    }  # fmt: skip
    metrics["seconds"] |= seconds
    write_folder(out, classifier, metrics, data)
    return metrics
