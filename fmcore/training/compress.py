"""From a served model to a smaller, faster one of the same task: what every way to compress shares.

Owns the teacher (a verified model folder and the encoder behind it), the dispatch to the method, and the facts that the gate and the board
ask of a compressed version: what it lost against the teacher on the same held-out rows, and how much faster it answers, both measured in
turns in this process. How a method makes its encoder is its own module's question; head, temperature, out-of-scope score and threshold
are fitted on the variant's own embeddings by finish.py.
"""

from __future__ import annotations

import functools
import importlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmcore.data.catalogue import OOS, LabelledData
from fmcore.evaluation.metrics import paired_difference
from fmcore.models import export
from fmcore.models.classifier import Classifier
from fmcore.models.efficiency_gate import ALLOWED
from fmcore.models.encoder import TUNED_WEIGHTS, Encoder, load_encoder
from fmcore.models.fitting import FitOptions
from fmcore.models.gate import read_heldout
from fmcore.models.heads import LOGISTIC_C
from fmcore.models.manifest import MANIFEST, check_manifest, write_manifest
from fmcore.models.novelty import IN_SCOPE_SHARE
from fmcore.nouns import FMError, Report
from fmcore.training.finetune import TUNED_C
from fmcore.training.finish import Finish, finish
from fmcore.training.linear import NAME_WEIGHT, few_shot

METHODS = {
    "onnx": "compress", "int8": "compress", "prune": "prune", "distill": "distill", "static": "static", "cascade": "cascade",
}  # fmt: skip
"""Method -> the module of fmcore.training whose `train` makes it (the first two: `_exported` here, `build` in cascade)."""
TIMED_TEXTS = 256
SINGLE_TEXTS = 64
ROUNDS = 3
"""The forms take turns and the best round counts: a busy moment must not decide."""
TORCH_BATCH = 64


class BadTeacher(FMError):
    """A model that no smaller one can be made from."""


class NothingGained(FMError):
    """A method that leaves the model as it is."""


@dataclass(frozen=True)
class Compression:
    """What can be asked. layers: of the student, or left by pruning (0: the method's usual). keep: share of heads and units that pruning
    leaves. minutes: of training, 0 for the method's usual number of passes. texts: without labels, to learn from the teacher. second: a
    student of the same teacher that answers in a cascade what the static one is unsure of, None for the teacher itself."""

    method: str
    layers: int = 0
    keep: float = 0.5
    minutes: float = 0.0
    seed: int = 0
    texts: tuple[str, ...] = ()
    batch: int = 32
    epochs: int = 0
    threads: int = 1
    random_features: int = 4000
    resamples: int = 1000
    lexical: bool = False
    in_scope_share: float = IN_SCOPE_SHARE
    device: str | None = None
    second: Teacher | None = None

    def identity(self) -> str:
        """What decides the weights beside teacher, data and the loop's settings."""
        return f"{self.method} {self.layers} {self.keep} {len(self.texts)}"


@dataclass(frozen=True, eq=False)
class Teacher:
    """A version's folder (its manifest is checked when it is opened), its name and its metrics as the registry keeps them."""

    folder: Path
    version: str
    sha256: str
    metrics: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path, *, version: str, sha256: str, metrics: Mapping[str, Any]) -> Teacher:
        """Raises Tampered or BadTeacher when the folder is not the version's own."""
        if check_manifest(folder) != sha256:
            raise BadTeacher(f"The folder of {version} was changed.", "Train it again, or choose another version.")
        return cls(folder, version, sha256, metrics)

    @functools.cached_property
    def served(self) -> Classifier:
        """The teacher as it serves, one text at a time on one thread."""
        return Classifier.load(self.folder, version=self.version, threads=1)

    @functools.cached_property
    def info(self) -> Mapping[str, Any]:
        """What it keeps about itself (model.json)."""
        return Classifier.load_without_encoder(self.folder, version=self.version).info

    @property
    def tuned(self) -> bool:
        """Whether its encoder is no longer the base model's."""
        return (self.folder / TUNED_WEIGHTS).is_file()

    @property
    def split_hash(self) -> str:
        return str(self.info.get("split_hash") or "")

    def encoder(self, device: str | None = None) -> Encoder:
        """Its encoder in PyTorch, a fresh one each time. Raises BadTeacher when the weights are not those it was measured with."""
        info = self.info
        encoder = load_encoder(str(info.get("base") or ""), max_tokens=int(info["max_tokens"]), device=device)
        if encoder.sha256 != info.get("base_sha256"):
            said = f"{encoder.name} has other weights than {self.version} was trained on."
            raise BadTeacher(said, "Train the model again with the base model as it is now.")
        if self.tuned:
            encoder.load_weights(self.folder)
        elif info.get("recipe") != "linear":
            raise BadTeacher(f"{self.version} keeps no PyTorch weights of its encoder.", "Train it again; it keeps them now.")
        return encoder

    def learnt_from(self, data: LabelledData) -> LabelledData:
        """The rows it was trained on: all of the data set's, or its few shots. Raises BadTeacher for another data set or split."""
        if not self.split_hash or data.split_hash != self.split_hash:
            said = f"{data.name} is not split as it was when {self.version} was trained, so that its held-out rows are not held out here."
            raise BadTeacher(said, "Train a model on the data set as it is now, then compress that one.")
        return few_shot(data, shots=self.shots, seed=int(self._asked.get("seed") or 0)) if self.shots else data

    @property
    def shots(self) -> int:
        return int(self.metrics.get("shots") or 0)

    @property
    def _asked(self) -> Mapping[str, Any]:
        return self.metrics.get("params") or {}

    def plan(self, params: Compression, data: LabelledData, *, forms: Sequence[export.Form] | None = None, **facts: Any) -> Finish:
        """How a variant is finished: as its teacher was, on its own embeddings."""
        tuned = self.tuned or params.method in ("prune", "distill")
        options = FitOptions(
            head="logistic" if self.shots else "auto",
            random_features=params.random_features,
            seed=int(self._asked.get("seed") or 0),
            resamples=params.resamples,
            refit=bool(self._asked.get("refit", True)) and not self.shots,
            test_is_publishers=data.test_is_publishers,
            lexical=params.lexical,
            in_scope_share=params.in_scope_share,
            logistic_c=TUNED_C if tuned else (LOGISTIC_C,),
        )
        weight = NAME_WEIGHT if self.shots else 0
        kept = {"shots": self.shots, **facts}
        return Finish(
            recipe=params.method, options=options, threads=params.threads, label_name_weight=weight, forms=forms, tuned=tuned, facts=kept
        )


def train(
    teacher: Teacher, data: LabelledData, params: Compression, out: Path, report: Report, *, checkpoint: Path | None = None
) -> dict[str, Any]:
    """Write the model folder of a variant into `out` and return its metrics, "compressed" among them.

    data: the whole data set the teacher was trained on. A checkpoint folder makes the training resumable. Raises BadTeacher,
    NothingGained, and what the method raises.
    """
    import torch

    learnt = teacher.learnt_from(data)
    torch.set_num_threads(params.threads)
    metrics = _made_by(params.method)(teacher, learnt, params, out, report, checkpoint=checkpoint)
    report.progress(0.95, "Timing it against its teacher")
    facts = compressed(teacher, data, params, out)
    metrics = {**metrics, "compressed": facts, "params": dict(teacher.metrics.get("params") or {})}
    (out / MANIFEST).unlink()
    (out / "metrics.json").write_text(json.dumps(metrics, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")
    write_manifest(out)
    report.progress(1.0, f"{facts['lost']['value']:.1f} points lost, {facts['speedup']:.1f} times its teacher's speed")
    return metrics


def compressed(teacher: Teacher, data: LabelledData, params: Compression, out: Path) -> dict[str, Any]:
    """metrics["compressed"]: method, teacher, sha256, lost (points, with a 95 % interval), speedup (against the teacher as served) and what
    it was measured by. What a version says here of its loss is shown; the gate looks for itself."""
    asked = asdict(params)
    speeds = texts_per_second(teacher, Classifier.load(out, version="variant", threads=1), list(data.validation["text"]))
    return {
        "method": params.method,
        "teacher": teacher.version,
        "sha256": teacher.sha256,
        "allowed_points": ALLOWED[params.method],
        "lost": lost(teacher.folder, out, resamples=params.resamples),
        "speedup": round(speeds["variant"] / speeds["teacher"], 3),
        "speedup_pytorch": round(speeds["variant"] / speeds["pytorch"], 3),
        "texts_per_s": {name: round(speed, 1) for name, speed in speeds.items()},
        "timed": f"predict() on {min(TIMED_TEXTS, len(data.validation))} validation texts, in processor time of one thread, best of "
        f"{ROUNDS} rounds in turn; PyTorch in length-sorted batches of {TORCH_BATCH}, and one text at a time",
        "asked": {key: asked[key] for key in ("layers", "keep", "minutes", "seed")} | {"n_texts": len(params.texts)},
    }


def lost(teacher: Path, variant: Path, *, resamples: int) -> dict[str, float]:
    """Points of accuracy that a variant loses against its teacher on the in-scope rows that both folders answer: {value, low, high, n}."""
    both = read_heldout(teacher).merge(read_heldout(variant), on=["text_hash", "label"], suffixes=("_old", "_new"))
    inside = both[both["label"] != OOS]
    if inside.empty:
        raise BadTeacher("The variant and its teacher share no held-out row.", "Compress a model of this very data set.")
    right = [inside[f"predicted_{which}"] == inside["label"] for which in ("new", "old")]
    estimate = paired_difference(*right, resamples=resamples)
    return {k: round(100 * getattr(estimate, k), 3) for k in ("value", "low", "high")} | {"n": estimate.n}


def texts_per_second(teacher: Teacher, variant: Classifier, texts: Sequence[str]) -> dict[str, float]:
    """{variant, teacher, pytorch, pytorch_single}: whole answers a processor second in this process, on one thread, in turns."""
    import torch

    texts = sorted(texts, key=len)
    texts = [texts[i] for i in np.linspace(0, len(texts) - 1, min(TIMED_TEXTS, len(texts))).astype(int)]
    few = texts[:: max(1, len(texts) // SINGLE_TEXTS)]
    plain = teacher.served.with_embedder(functools.partial(teacher.encoder("cpu").embed, batch=TORCH_BATCH))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    timed: dict[str, Callable[[], float]] = {
        "variant": lambda: _pace(variant, texts), "teacher": lambda: _pace(teacher.served, texts), "pytorch": lambda: _pace(plain, texts),
        "pytorch_single": lambda: _pace(plain, few, at_once=1),
    }  # fmt: skip
    try:
        variant.predict(texts[:8])
        rounds = [{name: pace() for name, pace in timed.items()} for _ in range(ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    return {name: max(each[name] for each in rounds) for name in timed}


def _pace(model: Classifier, texts: Sequence[str], *, at_once: int = 0) -> float:
    started = time.process_time()  # everything here runs on one thread: the processor's time says the same on a busy machine
    step = at_once or len(texts)
    for start in range(0, len(texts), step):
        model.predict(texts[start : start + step])
    return len(texts) / max(time.process_time() - started, 1e-9)


def _made_by(method: str) -> Callable[..., dict[str, Any]]:
    if METHODS[method] == "compress":
        return _exported
    module = importlib.import_module(f"fmcore.training.{METHODS[method]}")
    return module.build if method == "cascade" else module.train


def _exported(
    teacher: Teacher, data: LabelledData, params: Compression, out: Path, report: Report, *, checkpoint: Path | None = None
) -> dict[str, Any]:
    """Methods onnx and int8: the teacher's own encoder in that form. Nothing is trained, so that there is nothing to resume."""
    forms = (export.FP32,) if params.method == "onnx" else export.FORMS[1:]
    report.device("cpu")
    metrics = finish(teacher.encoder("cpu"), data, out, plan=teacher.plan(params, data, forms=forms), report=report, span=(0.02, 0.94))
    if params.method == "int8" and metrics["form"] == export.FP32.name:
        raise NothingGained("Every int8 form of this model loses more than it may.", "Distil a student instead (method distill).")
    return metrics
