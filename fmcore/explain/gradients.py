"""Integrated gradients: what each word adds to a score, read off the network itself on the way from a text of blanks to the text.

Sundararajan, Taly and Yan 2017 (arXiv:1703.01365), on the PyTorch form of a model's encoder with the classifier's own head, lexical part,
temperature and softmax behind it. The score that is explained is the served model's; what the PyTorch form, the sum over steps
and the quantised served form differ by is the attribution's additivity error, and not hidden in the values.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fmcore.explain.attributions import Attribution, NotExplained, Progress
from fmcore.explain.words import Words
from fmcore.models.classifier import Classifier
from fmcore.models.encoder import TUNED_WEIGHTS, Encoder, EncoderError, load_encoder
from fmcore.models.heads import KERNEL_GAMMA, Head

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 32
INTERVALS = 8
"""Stretches of the path whose rise in score is looked at first; a steep one gets more of the steps (Bhat and Raychowdhury 2023,
arXiv:2302.11107). On 12 short texts of Banking77 it takes the median gap of 32 steps from 0.017 to 0.005."""
BATCH = 16
WITHOUT = ("static", "cascade")
"""Recipes of models that sum word vectors, or that do so for most texts."""
_lock = threading.Lock()
"""Guards the loaded network."""
_torch_lock = threading.Lock()
"""One batch at a time: torch's number of threads is the whole process's, and is put back after each batch."""
_kept: tuple[tuple[str, ...], Encoder] | None = None
"""The network of the last model asked for: about 90 MB for MiniLM."""


@dataclass(frozen=True, eq=False)
class _Path:
    """From the baseline to the text. start, end: input embeddings (tokens, dim); lexical: scores (labels,) at both ends, or None."""

    encoder: Encoder
    classifier: Classifier
    target: Tensor
    start: Tensor
    end: Tensor
    lexical: tuple[Tensor, Tensor] | None


def integrated(
    model_folder: Path,
    classifier: Classifier,
    words: Words,
    *,
    target: np.ndarray,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> Attribution:
    """What each of `words` adds to target @ probabilities, target float (labels,). Words beyond what the model reads add nothing.

    base_value is the score of the baseline: the text's special tokens with [PAD] in the place of every other token, and no lexical
    feature. n_calls: the served model's call, `steps` points of the path forward and back, and INTERVALS + 1 points forward.
    Deterministic. Raises NotExplained where the PyTorch form of this model's encoder is not at hand.
    """
    lexical = classifier.lexical_scores([words.text])
    served = float(classifier.probabilities(classifier.embed([words.text])[0], lexical=lexical)[0] @ target)
    if not len(words):
        return Attribution(np.zeros(0), served, served, 1)
    encoder = _network(Path(model_folder), classifier)
    path, spans = _path(encoder, classifier, words.text, target)
    heights = _heights(path)
    shares, weights = _places(np.abs(np.diff(heights)), max(steps, INTERVALS))
    slopes, lexical_slopes = _slopes(path, shares, weights, progress)
    values = _by_word(words, spans, ((path.end - path.start).numpy() * slopes).sum(axis=1))
    if classifier.lexical is not None:
        spans, added = classifier.lexical.by_token(words.text)  # linear in its features, so that this is their integrated gradient
        values += _by_word(words, spans, added @ lexical_slopes)
    return Attribution(values, float(heights[0]), served, len(shares) + len(heights) + 1)


# --- the network


def _network(folder: Path, classifier: Classifier) -> Encoder:
    """The PyTorch form of the model's encoder: its base, with the folder's own weights where it was tuned."""
    global _kept
    info = classifier.info
    base, recipe, tuned = info.get("base"), info.get("recipe"), (folder / TUNED_WEIGHTS).is_file()
    if recipe in WITHOUT:
        raise NotExplained(f"{folder.name} is no network from end to end, so that there are no gradients.", "The other methods need none.")
    if not base or not (tuned or recipe == "linear"):
        sentence = f"{folder.name} keeps no PyTorch weights of its encoder, so that there are no gradients."
        raise NotExplained(sentence, "Train it again: models trained from now on keep them. The other methods need none.")
    key = (str(base), str(info.get("base_sha256")), str(info["max_tokens"]), str(folder.resolve()) if tuned else "")
    with _lock:
        if _kept is None or _kept[0] != key:
            _kept = None  # before the next one is loaded: two are more than is needed
            _kept = key, _loaded(folder, classifier, tuned=tuned)
        return _kept[1]


def _loaded(folder: Path, classifier: Classifier, *, tuned: bool) -> Encoder:
    base = str(classifier.info["base"])
    try:
        encoder = load_encoder(base, max_tokens=int(classifier.info["max_tokens"]), device="cpu", download=False)
        if tuned:
            encoder.load_weights(folder)
    except EncoderError as problem:
        raise NotExplained(f"There are no gradients of {folder.name}: {problem.message}", problem.hint) from problem
    if not tuned and encoder.sha256 != classifier.info.get("base_sha256"):
        sentence = f"{base} has other weights than {folder.name} was trained on, so that its gradients would be another model's."
        raise NotExplained(sentence, "Train the model again, or choose another method.")
    encoder.model.requires_grad_(False)
    return encoder


def _path(encoder: Encoder, classifier: Classifier, text: str, target: np.ndarray) -> tuple[_Path, list[tuple[int, int]]]:
    """(the path, the span in the text of each of its tokens). A special token adds nothing, since it stands at both ends."""
    import torch

    with _torch_lock:  # a tokenizer keeps its length limit as state
        row = encoder.tokenizer(
            text, truncation=True, max_length=encoder.max_tokens, return_offsets_mapping=True, return_special_tokens_mask=True
        )
    ids, special = torch.tensor(row["input_ids"]), torch.tensor(row["special_tokens_mask"], dtype=torch.bool)
    table = encoder.model.get_input_embeddings().weight.detach()
    start = torch.where(special, ids, torch.full_like(ids, encoder.tokenizer.pad_token_id or 0))
    lexical = None
    if classifier.lexical is not None:
        none, whole = torch.from_numpy(classifier.lexical_scores(["", text]))
        lexical = none, whole
    aim = torch.from_numpy(np.asarray(target, dtype=np.float32))
    return _Path(encoder, classifier, aim, table[start], table[ids], lexical), row["offset_mapping"]


def _by_word(words: Words, spans: Sequence[tuple[int, int]], values: np.ndarray) -> np.ndarray:
    """Values of tokens as values of words, by how many of a token's characters stand in each; one of blanks goes to the word after it."""
    starts, ends = np.array(words.spans).T
    found = np.zeros(len(words))
    for (start, end), value in zip(spans, values, strict=True):
        first, last = int(np.searchsorted(ends, start, side="right")), int(np.searchsorted(starts, end))
        inside = np.minimum(ends[first:last], end) - np.maximum(starts[first:last], start)
        if inside.sum() > 0:
            found[first:last] += value * inside / inside.sum()
        else:
            found[min(first, len(words) - 1)] += value
    return found


# --- the way from the baseline to the text


def _heights(path: _Path) -> np.ndarray:
    """The score at both ends and between the INTERVALS of the path."""
    import torch

    with _one_thread(), torch.no_grad():
        points, lexical = _points(path, np.linspace(0.0, 1.0, INTERVALS + 1))
        return _score(path, points, lexical).numpy().astype(np.float64)


def _places(rises: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(where on the path to take gradients, in [0, 1]; what each stands for): midpoints, at least one in each interval, the others
    by the root of how much the score changes there."""
    roots = np.sqrt(np.maximum(rises, 1e-12))
    wanted = np.cumsum(roots / roots.sum()) * (steps - len(rises))
    counts = 1 + np.diff(np.round(wanted).astype(int), prepend=0)
    shares = np.concatenate([(i + (np.arange(n) + 0.5) / n) / len(rises) for i, n in enumerate(counts)])
    return shares, np.repeat(1.0 / (counts * len(rises)), counts)


def _slopes(path: _Path, shares: np.ndarray, weights: np.ndarray, progress: Progress | None) -> tuple[np.ndarray, np.ndarray | None]:
    """The mean gradient along the path: by input embeddings float64 (tokens, dim), and by lexical scores (labels,)."""
    total, lexical_total = np.zeros(tuple(path.end.shape)), None
    for first in range(0, len(shares), BATCH):
        part = slice(first, first + BATCH)
        with _one_thread():
            points, lexical = _points(path, shares[part])
            _score(path, points.requires_grad_(), None if lexical is None else lexical.requires_grad_()).sum().backward()
        total += np.einsum("s,std->td", weights[part], points.grad.numpy())
        if lexical is not None:
            lexical_total = (0.0 if lexical_total is None else lexical_total) + weights[part] @ lexical.grad.numpy()
        if progress is not None:
            progress(min(1.0, (first + BATCH) / len(shares)))
    return total, lexical_total


def _points(path: _Path, shares: np.ndarray) -> tuple[Tensor, Tensor | None]:
    """Input embeddings (points, tokens, dim) and lexical scores (points, labels) so far along the path."""
    import torch

    at = torch.from_numpy(shares.astype(np.float32))[:, None]
    points = path.start + at[:, :, None] * (path.end - path.start)
    if path.lexical is None:
        return points, None
    none, whole = path.lexical
    return points, none + at * (whole - none)


def _score(path: _Path, points: Tensor, lexical: Tensor | None) -> Tensor:
    """target @ probabilities (points,): what Classifier.probabilities does to the served embeddings, differentiably."""
    import torch

    mask = torch.ones(points.shape[:2], dtype=torch.long)
    scores = _head_scores(path.classifier.head, path.encoder.pooled({"inputs_embeds": points, "attention_mask": mask}))
    if lexical is not None:
        added = torch.nn.functional.pad(lexical, (0, scores.shape[1] - lexical.shape[1]))  # a class taught later has none
        scores = scores + path.classifier.lexical_weight * added
    return torch.softmax(scores / path.classifier.temperature, dim=1) @ path.target


def _head_scores(head: Head, embeddings: Tensor) -> Tensor:
    """Head.scores in torch."""
    import torch

    arrays = {name: torch.from_numpy(array) for name, array in head.arrays.items()}
    scores = torch.zeros(len(embeddings), head.n_classes)
    if "linear" in arrays:
        scores = scores + embeddings @ arrays["linear"] + arrays["bias"]
    if "projection" in arrays:
        scores = scores + torch.relu(embeddings @ arrays["projection"]) @ arrays["weights"]
    if "landmarks" in arrays:
        scores = scores + torch.exp(KERNEL_GAMMA * (embeddings @ arrays["landmarks"].T - 1.0)) @ arrays["weights"]
    return scores


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """One batch on one core, whatever torch uses otherwise."""
    import torch

    with _torch_lock:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
