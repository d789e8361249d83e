"""The encoder in its served form: ONNX Runtime and a tokenizer.json, no PyTorch. Texts in, embeddings and truncated flags out.

The graph is export.py's: inputs input_ids and attention_mask (int64, and token_type_ids where it asks for them), output "embedding",
(n, dim) float32, already mean-pooled and of length 1. Safe to call from several threads.

Every text goes through the graph by itself: a quantised graph rounds by the largest number in its batch, so that beside others a text
would get another embedding (cosines of 0.985, scores up to 0.1 apart) than alone. Speed comes from several texts at once, a thread each.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fmcore import text

STEP = 64
"""Texts between two words on the progress."""
FEW = 2
"""Texts that are not worth handing to other threads."""


class ServedEncoder:
    """embed(texts) for a model folder. threads is how many texts it works on at once in a call; 0 is one for each processor."""

    def __init__(self, folder: Path, *, max_tokens: int, threads: int = 0):
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # an idle desk must not burn a core
        self.session = onnxruntime.InferenceSession(str(folder / "encoder.onnx"), options, providers=["CPUExecutionProvider"])
        self.path = folder / "encoder.onnx"
        self.inputs = {i.name for i in self.session.get_inputs()}
        self.dim = int(self.session.get_outputs()[0].shape[-1])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(max_length=max_tokens)
        self.tokenizer.no_padding()
        self.max_tokens, self.threads = max_tokens, threads or os.cpu_count() or 1

    @functools.cached_property
    def sha256(self) -> str:
        """That of encoder.onnx: what a cache of its embeddings goes by."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def embed(self, texts: Sequence[str], *, progress: Callable[[float], None] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(float32 (n, dim), truncated flags): a text is truncated when characters or tokens were cut.

        `progress` is called with the fraction done after every STEP texts.
        """
        cleaned = [text.clean(t) for t in texts]
        encoded = self.tokenizer.encode_batch([c for c, _ in cleaned])
        cut = np.array([was or bool(e.overflowing) for (_, was), e in zip(cleaned, encoded, strict=True)], dtype=bool)
        out = np.zeros((len(encoded), self.dim), dtype=np.float32)
        for start in range(0, len(encoded), STEP):
            ids = [e.ids for e in encoded[start : start + STEP]]
            together = len(ids) > FEW and self.threads > 1
            out[start : start + len(ids)] = list(self._pool.map(self._one, ids) if together else map(self._one, ids))
            if progress is not None:
                progress((start + len(ids)) / len(encoded))
        return out, cut

    def encode(self, texts: Sequence[str], *, progress: Callable[[float], None] | None = None) -> np.ndarray:
        """The embeddings alone, as Encoder.encode gives them."""
        return self.embed(texts, progress=progress)[0]

    def read_to(self, text: str) -> int:
        """How many characters of a cleaned text the model reads: all, or up to the last token that fits."""
        found = self.tokenizer.encode(text)
        return max((end for _, end in found.offsets), default=0) if found.overflowing else len(text)

    @functools.cached_property
    def _pool(self) -> ThreadPoolExecutor:
        """Its threads wait for work without using a processor, and end with the encoder."""
        return ThreadPoolExecutor(self.threads, thread_name_prefix="fm-encoder")

    def _one(self, ids: list[int]) -> np.ndarray:
        """float32 (dim,) of one text's token ids."""
        return self.side_by_side([ids])[0]

    def side_by_side(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """float32 (n, dim) of rows of token ids, all of one length, in one pass: ten times as fast for single words, and by a quantised
        graph only about what each would get alone."""
        tokens = np.array(rows, dtype=np.int64)
        feed = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
        return self.session.run(["embedding"], {name: feed[name] for name in self.inputs})[0]
