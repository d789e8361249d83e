"""The classifier as served: an embedding function, a head, lexical scores beside it where they help, a temperature, an out-of-scope
score and a conformal set.

Reads JSON, safetensors, ONNX and tokenizer.json only, and never imports torch. Immutable: teaching and refitting make a new one.
Whether a folder may be trusted (MANIFEST.json) is registry.py's question, asked before `load`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fmcore import text
from fmcore.models.calibration import COVERAGE, conformal_sizes, softmax
from fmcore.models.heads import Head
from fmcore.models.lexical import Lexical
from fmcore.models.novelty import Novelty, combined, strangest_part
from fmcore.models.served_encoder import ServedEncoder
from fmcore.models.static import FILE as STATIC
from fmcore.models.static import StaticEncoder
from fmcore.nouns import FMError, Prediction

Embed = Callable[[list[str]], tuple[np.ndarray, np.ndarray]]
"""texts -> (float32 embeddings of length 1, truncated flags)."""

FORMAT = 1
LEXICAL_FORMAT = 2
"""That of a folder with lexical scores: an FM Desk that does not know them must not read it and leave them out."""
CASCADE = "cascade.json"
"""The file that tells a folder of two models from one of a single model."""
HELDOUT_COLUMNS = ["text_hash", "label", "predicted", "score", "novelty", "in_scope"]


class BadModel(FMError):
    """A model folder that does not hold a classifier this version can read."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Embedded labelled rows. labels may hold "oos" in validation and test; hashes are text_hash of the texts.

    texts are there while fitting only, and never saved; lexical are the lexical scores of the texts, float32 (n, classes).
    """

    embeddings: np.ndarray
    labels: np.ndarray
    hashes: tuple[str, ...] = ()
    texts: tuple[str, ...] | None = None
    lexical: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Classifier:
    """labels are the in-scope labels in the head's order. coverage is the stated coverage of the conformal set.

    reference: every in-scope row the head was fitted on. heldout: the test rows; heldout_seen: the reference rows that are also
    held-out ones (a final refit may use them), as a mask over reference. heldout_table: the predictions on the held-out rows that
    the reported metrics rest on, made before any refit on them; heldout_scores: the calibrated scores behind them, None when there
    was no such refit. lexical, where there is one, adds lexical_weight times its scores to the head's, before the temperature.
    """

    labels: tuple[str, ...]
    head: Head
    temperature: float
    novelty: Novelty
    threshold: float
    least_probability: float
    reference: Rows
    heldout: Rows
    heldout_seen: np.ndarray
    heldout_table: pd.DataFrame
    info: Mapping[str, Any] = field(default_factory=dict)
    coverage: float = COVERAGE
    embedder: Embed | None = None
    version: str = "unsaved"
    heldout_scores: np.ndarray | None = None
    lexical: Lexical | None = None
    lexical_weight: float = 0.0
    reader: Callable[[str], int] | None = None

    def with_embedder(self, embed: Embed, *, version: str | None = None, reader: Callable[[str], int] | None = None) -> Classifier:
        """The same classifier with something to embed texts by; reader says how many characters of a text that looks at."""
        return replace(self, embedder=embed, version=version or self.version, reader=reader)

    def embed(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(embeddings, truncated flags) of texts as they come; unsafe characters are replaced."""
        if self.embedder is None:
            raise BadModel("This classifier has no encoder attached.", "Load it from its folder, or attach one with with_embedder().")
        return self.embedder([text.clean(t)[0] if not isinstance(t, str) else t for t in texts])

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One Prediction a text, in order. Any text is answered: empty, huge, or full of unprintable characters."""
        if not len(texts):
            return []
        embeddings, truncated = self.embed(texts)
        wordless = np.array([not any(c.isalnum() for c in text.clean(t)[0]) for t in texts])
        return self.decide(embeddings, lexical=self.lexical_scores(texts), truncated=truncated, wordless=wordless)

    def probabilities_of(self, texts: Sequence[str]) -> np.ndarray:
        """float64 (n, labels): calibrated, rows sum to 1, of texts as they come."""
        return self.probabilities(self.embed(texts)[0], lexical=self.lexical_scores(texts))

    def read_to(self, cleaned: str) -> int:
        """How many characters of a cleaned text an answer rests on: what the encoder reads, all of it where words stand beside that."""
        return len(cleaned) if self.reader is None or self.lexical is not None else self.reader(cleaned)

    @property
    def share_sent(self) -> float | None:
        """The share of texts that a second model had to answer; None for a classifier that is one model."""
        return None

    def lexical_scores(self, texts: Sequence[str]) -> np.ndarray | None:
        """The lexical scores of texts; None for a classifier without that part."""
        return None if self.lexical is None else self.lexical.scores([text.clean(t)[0] if not isinstance(t, str) else t for t in texts])

    def scale(self, embeddings: np.ndarray, *, lexical: np.ndarray | None = None) -> np.ndarray:
        """Calibrated scores: softmax of them gives the probabilities, their log-sum-exp the energy.

        lexical: the rows' lexical scores, which a classifier with that part must have. A class that was taught later has none.
        """
        scores = self.head.scores(embeddings)
        if self.lexical is not None:
            if lexical is None:
                raise BadModel("This classifier needs the texts' lexical scores beside their embeddings.", "Ask it for texts instead.")
            scores[:, : lexical.shape[1]] += np.float32(self.lexical_weight) * lexical
        return scores / np.float32(self.temperature)

    def probabilities(self, embeddings: np.ndarray, *, lexical: np.ndarray | None = None) -> np.ndarray:
        """float64 (n, labels): calibrated, rows sum to 1."""
        return softmax(self.scale(embeddings, lexical=lexical), temperature=1.0)

    def decide(
        self,
        embeddings: np.ndarray,
        *,
        lexical: np.ndarray | None = None,
        truncated: np.ndarray | None = None,
        wordless: np.ndarray | None = None,
    ) -> list[Prediction]:
        """Predictions from embeddings, and lexical scores where the classifier has that part."""
        if not len(embeddings):
            return []
        scores = self.scale(embeddings, lexical=lexical)
        probabilities = softmax(scores, temperature=1.0)
        parts = self.novelty.parts(embeddings, scores)
        novelty = combined(parts, self.novelty.total)
        none = np.zeros(len(embeddings), dtype=bool)
        order = np.argsort(-probabilities, axis=1, kind="stable")
        ranked = np.take_along_axis(probabilities, order, axis=1)
        sizes = conformal_sizes(ranked, least=self.least_probability)
        columns = (order, ranked, sizes, novelty, none if truncated is None else truncated, none if wordless is None else wordless)
        return [
            self._prediction([self.labels[i] for i in places], chances, n, each, cut=cut, wordless=empty, parts=part)
            for part, (places, chances, n, each, cut, empty) in zip(parts, zip(*(c.tolist() for c in columns), strict=True), strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write model.json, the safetensors files and heldout.parquet into a folder. The encoder's files are export.py's part,
        MANIFEST.json is the registry's."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        order = {label: i for i, label in enumerate(self.labels)}
        reference = {
            "embeddings": self.reference.embeddings, "classes": np.array([order[x] for x in self.reference.labels], dtype=np.int32),
            "heldout": self.heldout_seen.astype(np.uint8),
        }  # fmt: skip
        heldout = {
            "embeddings": self.heldout.embeddings, "classes": np.array([order.get(x, -1) for x in self.heldout.labels], dtype=np.int32)
        }  # fmt: skip
        if self.heldout_scores is not None:
            heldout["scores"] = self.heldout_scores
        if self.lexical is not None:
            self.lexical.save(folder)
            reference["lexical"], heldout["lexical"] = self.reference.lexical, self.heldout.lexical
        files = {"head": dict(self.head.arrays), "novelty": self.novelty.tensors(), "reference": reference, "heldout": heldout}
        for name, tensors in files.items():
            save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / f"{name}.safetensors")
        self.heldout_table[HELDOUT_COLUMNS].to_parquet(folder / "heldout.parquet", index=False)
        facts = {
            "format": FORMAT if self.lexical is None else LEXICAL_FORMAT, "labels": list(self.labels),
            "temperature": self.temperature, "threshold": self.threshold, "least_probability": self.least_probability,
            "coverage": self.coverage, "head": {"kind": self.head.kind, "settings": dict(self.head.settings)}, "info": dict(self.info),
        }  # fmt: skip
        if self.lexical is not None:
            facts["lexical_weight"] = self.lexical_weight
        (folder / "model.json").write_text(json.dumps(facts, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, version: str, threads: int = 0) -> Classifier:
        """The classifier of a model folder, encoder and all: a Cascade where it holds two models. Raises BadModel when it holds none."""
        folder = Path(folder)
        if cls is Classifier and (folder / CASCADE).is_file():
            return _cascade().load(folder, version=version, threads=threads)
        model = cls.load_without_encoder(folder, version=version)
        try:
            form = StaticEncoder if (folder / STATIC).is_file() and not (folder / "encoder.onnx").is_file() else ServedEncoder
            encoder = form(folder, max_tokens=int(model.info["max_tokens"]), threads=threads)
        except Exception as problem:  # ONNX Runtime and tokenizers raise bare Exceptions of their own
            raise _unreadable(folder, problem) from problem
        if encoder.dim != model.reference.embeddings.shape[1]:
            raise _unreadable(folder, f"its encoder gives {encoder.dim} numbers a text, its head was fitted on others")
        return model.with_embedder(encoder.embed, reader=encoder.read_to)

    @classmethod
    def load_without_encoder(cls, folder: Path, *, version: str) -> Classifier:
        """All but the encoder: enough to decide on embeddings, and quick."""
        if cls is Classifier and (Path(folder) / CASCADE).is_file():
            return _cascade().load_without_encoder(folder, version=version)
        try:
            return cls._read(Path(folder), version)
        except BadModel:
            raise
        except Exception as problem:  # a damaged file fails in any of four parsers; each failure means the same here
            raise _unreadable(folder, problem) from problem

    @classmethod
    def _read(cls, folder: Path, version: str) -> Classifier:
        from safetensors.numpy import load_file

        facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        if facts["format"] not in (FORMAT, LEXICAL_FORMAT):
            known = f"{FORMAT} and {LEXICAL_FORMAT}"
            raise BadModel(f"{folder.name} is of model format {facts['format']}, this FM Desk reads {known}.", "Train it again.")
        head, novelty, reference, heldout = (
            load_file(folder / f"{name}.safetensors") for name in ("head", "novelty", "reference", "heldout")
        )
        labels = tuple(facts["labels"])
        names = np.array([*labels, "oos"], dtype=object)
        table = pd.read_parquet(folder / "heldout.parquet", columns=HELDOUT_COLUMNS)
        model = cls(
            labels=labels,
            head=Head(facts["head"]["kind"], head, facts["head"]["settings"]),
            temperature=float(facts["temperature"]),
            novelty=Novelty(reference=reference["embeddings"], **novelty),
            threshold=float(facts["threshold"]),
            least_probability=float(facts["least_probability"]),
            reference=Rows(reference["embeddings"], names[reference["classes"]], lexical=reference.get("lexical")),
            heldout=Rows(heldout["embeddings"], names[heldout["classes"]], tuple(table["text_hash"]), lexical=heldout.get("lexical")),
            heldout_seen=reference["heldout"].astype(bool),
            heldout_table=table,
            info=facts["info"],
            coverage=float(facts["coverage"]),
            version=version,
            heldout_scores=heldout.get("scores"),
            lexical=Lexical.load(folder) if facts["format"] == LEXICAL_FORMAT else None,
            lexical_weight=float(facts.get("lexical_weight", 0.0)),
        )
        model._check()
        return model

    def _check(self) -> None:
        n, dim = len(self.labels), self.reference.embeddings.shape[1]
        self.head.check(dim=dim, n_classes=n)
        if self.novelty.class_means.shape != (n, dim):
            raise BadModel(f"The out-of-scope score does not fit {n} labels and {dim} dimensions.", "Train it again.")
        if self.lexical is not None:
            self.lexical.check(n_classes=n)
        single = np.array([self.temperature, self.threshold, self.least_probability, self.lexical_weight])
        numbers = (self.novelty.class_means, self.novelty.total, single)
        if not all(np.isfinite(a).all() for a in numbers) or self.temperature <= 0:
            raise BadModel("The model holds numbers that are not finite.", "Train it again.")

    def _prediction(
        self, labels: list[str], chances: list[float], n_candidates: int, novelty: float, *, cut: bool, wordless: bool, parts: np.ndarray
    ) -> Prediction:
        """labels and chances: most probable first; the first n_candidates are the conformal set."""
        if wordless:
            novelty = max(novelty, self.threshold + 1.0)
        in_scope = novelty <= self.threshold
        return Prediction(
            label=labels[0], score=chances[0], scores=dict(zip(labels, chances, strict=True)), in_scope=in_scope, novelty=novelty,
            threshold=self.threshold, reason=self._reason(in_scope, novelty, parts, wordless=wordless),
            candidates=tuple(labels[:n_candidates]), coverage=self.coverage, version=self.version, truncated=cut,
        )  # fmt: skip

    def _reason(self, in_scope: bool, novelty: float, parts: np.ndarray, *, wordless: bool) -> str:
        if wordless:
            return "Out of scope: the message has no words."
        numbers = f"novelty {novelty:.1f}, accepted up to {self.threshold:.1f} (0 is a usual message, 1 is one standard deviation stranger)"
        if in_scope:
            return f"In scope: {numbers}."
        return f"Out of scope: {strangest_part(parts)}; {numbers}."


def _cascade() -> type[Classifier]:
    from fmcore.models.cascade import Cascade  # which is a Classifier, so that it cannot be known when this module is read

    return Cascade


def _unreadable(folder: Path, problem: object) -> BadModel:
    return BadModel(f"{Path(folder).name} cannot be loaded: {problem}.", "Train it again, or roll back to another version.")
