"""Checkpoints of a training run: safetensors and JSON in a folder, whole at every instant.

Tensor files are written first, under names that are never used for other content; `checkpoint.json`, with their sha256,
goes last and by rename. A kill leaves the old checkpoint or the new one. Nothing in it can run code when it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmcore.nouns import FMError

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "checkpoint.json"


class CheckpointRefused(FMError):
    """A checkpoint is missing, damaged, or belongs to another run's settings."""


class CheckpointNotSaved(FMError):
    """The disk did not take a checkpoint."""


def save(folder: Path, files: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
    """Write the tensor files that are not there yet, then the manifest that names them; older files go last."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        digests = {name: _save_tensors(folder, name, tensors) for name, tensors in files.items()}
        partial = folder / f"{MANIFEST}.partial"
        partial.write_text(json.dumps({**facts, "files": digests}))
        _flush(partial)
        partial.replace(folder / MANIFEST)
    except OSError as error:
        raise CheckpointNotSaved(f"The checkpoint could not be written ({error}).", "Free some disk space, then resume.") from error
    for old in folder.glob("*.safetensors"):
        if old.stem not in digests:
            old.unlink(missing_ok=True)


def _save_tensors(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> str:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = folder / f"{name}.safetensors"
    if not path.exists():
        partial = folder / f"{name}.partial"
        try:
            save_file({key: t.detach().to("cpu", copy=True).contiguous() for key, t in tensors.items()}, partial)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        _flush(partial)
        partial.replace(path)
    return _sha256(path)


def load(folder: Path, *, fingerprint: str) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """(facts, tensors by file name). Raises CheckpointRefused unless every file is as written, for the same settings."""
    from safetensors.torch import load_file

    if not (folder / MANIFEST).exists():
        raise CheckpointRefused("There is no checkpoint.")
    try:
        facts = json.loads((folder / MANIFEST).read_text())
        if facts["fingerprint"] != fingerprint:
            raise CheckpointRefused("The checkpoint belongs to other settings or data.")
        for name, digest in facts["files"].items():
            if _sha256(folder / f"{name}.safetensors") != digest:
                raise CheckpointRefused(f"{name}.safetensors of the checkpoint is damaged.")
        return facts, {name: load_file(folder / f"{name}.safetensors") for name in facts["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointRefused(f"The checkpoint cannot be read ({error}).") from error


def clear(folder: Path) -> None:
    """Remove what an unusable checkpoint left, so that no name is taken."""
    for old in (*folder.glob("*.safetensors"), *folder.glob("*.partial"), folder / MANIFEST):
        old.unlink(missing_ok=True)


def rng_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The states of torch's, NumPy's and Python's generators, as uint8 tensors and JSON."""
    import torch

    kind, key, position, has_gauss, gauss = np.random.get_state()
    tensors = {"rng.torch": torch.get_rng_state(), "rng.numpy": torch.from_numpy(key.view(np.uint8).copy())}
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    version, words, spare = random.getstate()
    return tensors, {"numpy": [kind, int(position), int(has_gauss), float(gauss)], "python": [version, list(words), spare]}


def set_rng_state(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Put the generators back where `rng_state` saw them."""
    import torch

    torch.set_rng_state(tensors["rng.torch"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    kind, position, has_gauss, gauss = facts["numpy"]
    np.random.set_state((kind, tensors["rng.numpy"].numpy().view(np.uint32), position, has_gauss, gauss))
    version, words, spare = facts["python"]
    random.setstate((version, tuple(words), spare))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """To the disk, not just to its cache: the manifest must not outlive the files it names."""
    with contextlib.closing(path.open("rb+")) as stream:
        os.fsync(stream.fileno())
