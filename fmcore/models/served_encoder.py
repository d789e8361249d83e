"""The encoder in its served form: ONNX Runtime and a tokenizer.json, no PyTorch. Texts in, embeddings and truncated flags out.

The graph is export.py's: inputs input_ids and attention_mask (int64, and token_type_ids where it asks for them), output "embedding",
(n, dim) float32, already mean-pooled and of length 1. Safe to call from several threads.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fmcore import text


class ServedEncoder:
    """embed(texts) for a model folder. threads is what ONNX Runtime may use for one call; 0 leaves it to ONNX Runtime."""

    def __init__(self, folder: Path, *, max_tokens: int, threads: int = 0, batch: int = 16):
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # an idle desk must not burn a core
        self.session = onnxruntime.InferenceSession(str(folder / "encoder.onnx"), options, providers=["CPUExecutionProvider"])
        self.path = folder / "encoder.onnx"
        self.inputs = {i.name for i in self.session.get_inputs()}
        self.dim = int(self.session.get_outputs()[0].shape[-1])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(max_length=max_tokens)
        self.tokenizer.no_padding()
        self.max_tokens, self.batch = max_tokens, batch

    @functools.cached_property
    def sha256(self) -> str:
        """That of encoder.onnx: what a cache of its embeddings goes by."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def embed(self, texts: Sequence[str], *, progress: Callable[[float], None] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(float32 (n, dim), truncated flags): a text is truncated when characters or tokens were cut.

        `progress` is called with the fraction done after each batch.
        """
        cleaned = [text.clean(t) for t in texts]
        encoded = self.tokenizer.encode_batch([c for c, _ in cleaned])
        cut = np.array([was or bool(e.overflowing) for (_, was), e in zip(cleaned, encoded, strict=True)], dtype=bool)
        out = np.zeros((len(encoded), self.dim), dtype=np.float32)
        order = np.argsort([len(e.ids) for e in encoded], kind="stable")
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            out[rows] = self.session.run(["embedding"], self._feed([encoded[i].ids for i in rows]))[0]
            if progress is not None:
                progress((start + len(rows)) / len(order))
        return out, cut

    def encode(self, texts: Sequence[str], *, progress: Callable[[float], None] | None = None) -> np.ndarray:
        """The embeddings alone, as Encoder.encode gives them; the batch size is fixed when the encoder is made."""
        return self.embed(texts, progress=progress)[0]

    def read_to(self, text: str) -> int:
        """How many characters of a cleaned text the model reads: all, or up to the last token that fits."""
        found = self.tokenizer.encode(text)
        return max((end for _, end in found.offsets), default=0) if found.overflowing else len(text)

    def _feed(self, ids: list[list[int]]) -> dict[str, np.ndarray]:
        """Padding is id 0 under an attention mask of 0, so which id it is does not matter."""
        longest = max(len(row) for row in ids)
        tokens, mask = np.zeros((len(ids), longest), np.int64), np.zeros((len(ids), longest), np.int64)
        for i, row in enumerate(ids):
            tokens[i, : len(row)], mask[i, : len(row)] = row, 1
        feed = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        return {name: feed[name] for name in self.inputs}
