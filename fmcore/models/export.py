"""The served form of an encoder: PyTorch to ONNX, quantised, and chosen by measuring on this machine.

Owns which forms there are and which one may serve. A form is refused when, with a head refitted on its own embeddings, it
loses more than MAX_LOSS_POINTS of validation accuracy against fp32 on the same rows, or more than one standard error of that difference
where rows are too few to tell; of the others the fastest is taken.
Which one that is depends on the processor (VNNI or not) and on the weights, so it is never a default.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fmcore.evaluation import metrics
from fmcore.models.encoder import Encoder
from fmcore.models.heads import fit_logistic
from fmcore.models.served_encoder import ServedEncoder
from fmcore.nouns import FMError

OPSET = 17
MAX_LOSS_POINTS = 0.3
MIN_COSINE = 0.9999
ABOUT_AS_FAST = 0.8
"""Share of the fastest form's speed within which accuracy decides: timings on a busy machine differ by as much."""
JUDGED_TEXTS = 3000
"""Rows that decide what a form loses, where there are that many which the encoder was not tuned on."""
TIMED_TEXTS = 256
"""Texts a round of timing; the forms take turns and the best round counts: a busy moment must not decide."""


class ExportFailed(FMError):
    """The exported model does not do what the trained one does."""


@dataclass(frozen=True)
class Form:
    """A way to store and compute the weights: write(source, target) makes its graph from the fp32 one."""

    name: str
    write: Callable[[Path, Path], object]


def quantised(name: str, *, unsigned: bool = False, ops: Sequence[str] = ("MatMul",), **options: bool) -> Form:
    """A form with the weights of the matrix products in 8 bits and activations quantised as they come (ONNX Runtime's dynamic mode).

    ops "Gather" quantises the table of words too.
    """

    def write(source: Path, target: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        kind = QuantType.QUInt8 if unsigned else QuantType.QInt8
        only_weights = {"MatMulConstBOnly": True}  # a product of two activations gains nothing and loses accuracy
        logging.getLogger().addFilter(_no_advice)
        try:
            quantize_dynamic(source, target, op_types_to_quantize=list(ops), weight_type=kind, extra_options=only_weights, **options)
        finally:
            logging.getLogger().removeFilter(_no_advice)

    return Form(name, write)


def _no_advice(record: logging.LogRecord) -> bool:
    """Drops onnxruntime's advice to pre-process the graph, which is not for this mode."""
    return "pre-processing before quantization" not in record.getMessage()


FP32 = Form("fp32", shutil.copyfile)
FORMS = (
    FP32,
    quantised("int8 per-channel", per_channel=True),
    quantised("int8 per-channel, reduced range", per_channel=True, reduce_range=True),
    quantised("int8 per-tensor"),
    quantised("uint8 per-channel", per_channel=True, unsigned=True),
)
FAST_FORMS = FORMS[:3:2]
"""For a first launch: fp32, and the one quantised form that is sound on every processor."""


@dataclass(frozen=True)
class Probe:
    """The rows a form is judged on: a head is fitted on the first and tested on the second."""

    train_texts: Sequence[str]
    train_classes: np.ndarray
    texts: Sequence[str]
    classes: np.ndarray
    n_classes: int

    def sample(self, n_train: int, *, n_test: int = 0) -> Probe:
        """The same with at most about n_train training rows, as even over the classes as the rows allow.

        Training rows that are left over join the test rows, up to n_test of those: a gate of 0.3 points is 3 rows in 1,000.
        """
        if len(self.train_classes) <= n_train:
            return self
        each = max(2, n_train // self.n_classes)
        rank = np.zeros(len(self.train_classes), dtype=int)
        for label in np.unique(self.train_classes):
            where = np.flatnonzero(self.train_classes == label)
            rank[where] = np.arange(len(where))
        kept = np.flatnonzero(rank < each)
        spare = np.flatnonzero(rank >= each)
        n_more = min(len(spare), max(0, n_test - len(self.texts)))
        more = spare[np.linspace(0, len(spare) - 1, n_more).astype(int)] if n_more else spare[:0]  # from every part of the file
        return Probe(
            [self.train_texts[i] for i in kept], self.train_classes[kept], [*self.texts, *(self.train_texts[i] for i in more)],
            np.concatenate([self.classes, self.train_classes[more]]), self.n_classes,
        )  # fmt: skip


@dataclass
class Tried:
    """One form as measured."""

    form: Form
    folder: Path
    served: ServedEncoder
    correct: np.ndarray
    times_s: list[float] = field(default_factory=list)


def save_tokenizer(encoder: Encoder, folder: Path) -> None:
    """Write tokenizer.json as the tokenizers library reads it: no transformers at serving, no padding or cut baked in."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(encoder.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"))


def export_onnx(encoder: Encoder, path: Path) -> None:
    """Write the encoder as one ONNX graph: input_ids and attention_mask in, the pooled embedding of length 1 out."""
    import torch

    class Embedding(torch.nn.Module):
        def __init__(self, model: torch.nn.Module):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(states.dtype)
            return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1).clamp(min=1.0), dim=1)

    model = copy.deepcopy(encoder.model).to("cpu").eval()
    model.set_attn_implementation("eager")  # the fused kernel traces into twice as many nodes
    ids = torch.full((2, 7), 5, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    rows, tokens = "rows", "tokens"
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracing exporter warns that it traces; `choose_form` compares what came of it
        torch.onnx.export(
            Embedding(model),
            (ids, mask),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["embedding"],
            dynamic_axes={"input_ids": {0: rows, 1: tokens}, "attention_mask": {0: rows, 1: tokens}, "embedding": {0: rows}},
            opset_version=OPSET,
            dynamo=False,  # the newer exporter takes ten times as long and names an output twice (torch 2.13)
        )


def choose_form(
    encoder: Encoder,
    folder: Path,
    probe: Probe,
    *,
    fast: bool = False,
    tuned: bool = False,
    threads: int = 1,
    forms: Sequence[Form] | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> dict[str, Any]:
    """Put the fastest form that passes the gate into folder (encoder.onnx, tokenizer.json); what was measured is returned.

    fast is for a first launch: two forms and fewer rows. tuned: the encoder has seen the training rows, so that only validation
    rows can judge a form. Raises ExportFailed when the fp32 graph is not the PyTorch model.
    """
    said = progress or (lambda fraction, message: None)
    forms = forms or (FAST_FORMS if fast else FORMS)
    probe = probe.sample(300) if fast else probe.sample(3000, n_test=0 if tuned else JUDGED_TEXTS)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="forms-", dir=folder) as scratch:
        tried = try_forms(encoder, Path(scratch), probe, forms=forms, threads=threads, progress=said)
        time_forms(tried, probe.texts, rounds=1 if fast else 3)
        rows = [_row(t, tried[0]) for t in tried]
        asked = [row for row, each in zip(rows, tried, strict=True) if each.form in forms and row["passed"]]
        best = pick(asked or rows)  # fp32 is always measured; where it was not asked for, it is taken when no other form will do
        chosen = tried[rows.index(best)]
        for name in ("encoder.onnx", "tokenizer.json"):
            (chosen.folder / name).replace(folder / name)
    return {
        "form": best["form"],
        "texts_per_s": best["texts_per_s"],
        "loss_points": best["loss_points"],
        "max_loss_points": MAX_LOSS_POINTS,
        "n": len(probe.texts),
        "n_head_rows": len(probe.train_texts),
        "threads": threads,
        "runtime": _runtime(),
        "forms": rows,
    }


def pick(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The form to serve: of those that passed and are about as fast as the fastest of them, the most accurate."""
    passed = [row for row in rows if row["passed"]]
    fastest = max(row["texts_per_s"] for row in passed)
    near = [row for row in passed if row["texts_per_s"] >= ABOUT_AS_FAST * fastest]
    return max(near, key=lambda row: (row["accuracy"], row["texts_per_s"]))


def try_forms(
    encoder: Encoder, scratch: Path, probe: Probe, *, forms: Sequence[Form], threads: int, progress: Callable[[float, str], None]
) -> list[Tried]:
    """Every form written below scratch and its answers on the probe; fp32 comes first, as what the others are held against."""
    forms = [FP32, *(form for form in forms if form is not FP32)]
    save_tokenizer(encoder, scratch)
    export_onnx(encoder, scratch / "fp32.onnx")
    tried = []
    for number, form in enumerate(forms):
        progress(number / len(forms), f"Measuring the served form {form.name} ({number + 1} of {len(forms)})")
        folder = scratch / f"form-{number}"
        folder.mkdir()
        shutil.copyfile(scratch / "tokenizer.json", folder / "tokenizer.json")
        form.write(scratch / "fp32.onnx", folder / "encoder.onnx")
        served = ServedEncoder(folder, max_tokens=encoder.max_tokens, threads=threads)
        if form is FP32:
            check_same(encoder, served, probe.texts[:32])
        head = fit_logistic(served.encode(probe.train_texts), probe.train_classes, n_classes=probe.n_classes)
        answers = head.scores(served.encode(probe.texts)).argmax(axis=1)
        tried.append(Tried(form, folder, served, answers == probe.classes))
    return tried


def check_same(encoder: Encoder, served: ServedEncoder, texts: Sequence[str]) -> float:
    """The smallest cosine between the two forms' embeddings, in fp32 on the CPU both. Raises ExportFailed below MIN_COSINE."""
    if encoder.device != "cpu":  # a GPU encodes in bf16, which is no fair judge
        encoder = dataclasses.replace(encoder, model=copy.deepcopy(encoder.model).to("cpu"), device="cpu")
    cosine = float((encoder.encode(texts, batch=16) * served.encode(texts)).sum(axis=1).min())
    if not cosine >= MIN_COSINE:
        raise ExportFailed(
            f"The exported model's embeddings differ from the trained one's (cosine {cosine:.4f}).",
            "This base model cannot be served from ONNX yet; choose another one.",
        )
    return cosine


def time_forms(tried: Sequence[Tried], texts: Sequence[str], *, rounds: int) -> None:
    """Time the forms on the same texts in turn, so that a slow moment of the machine meets all of them."""
    texts = list(texts)[:TIMED_TEXTS]
    for _ in range(rounds):
        for each in tried:
            start = time.perf_counter()
            each.served.encode(texts)
            each.times_s.append((time.perf_counter() - start) / max(1, len(texts)))


def _row(tried: Tried, reference: Tried) -> dict[str, Any]:
    """A form's line in the metrics. loss_points is paired, on the same validation rows, with its 95 % interval."""
    loss = metrics.paired_difference(tried.correct, reference.correct)
    points = 100 * loss.value
    error = 100 * float(np.std(tried.correct.astype(float) - reference.correct)) / max(1, len(tried.correct)) ** 0.5
    allowed = max(MAX_LOSS_POINTS, error)  # on 200 rows a form that is as good differs by two or three: that must not cost a desk its speed
    passed = points <= allowed + 1e-9
    return {
        "form": tried.form.name,
        "texts_per_s": round(1 / min(tried.times_s), 1),
        "accuracy": round(float(tried.correct.mean()), 5),
        "loss_points": round(points, 3),
        "allowed_points": round(allowed, 3),
        "loss_points_interval": [round(100 * loss.low, 3), round(100 * loss.high, 3)],
        "mb": round((tried.folder / "encoder.onnx").stat().st_size / 1e6, 1),
        "passed": bool(passed),
    }


def _runtime() -> str:
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__} on CPU"
