"""MANIFEST.json: what makes a folder of files a finished model, and what proves that nothing in it changed since.

Written last, so a folder without one was never finished. Knows file formats only as far as refusing what could run code
or exhaust memory when read; never loads a model.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from fmcore import clock
from fmcore.nouns import FMError

MANIFEST = "MANIFEST.json"
PICKLED = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".ckpt", ".py", ".so"}
"""Endings of formats that can run code when they are read, or that nothing here needs."""
MAX_HEADER_BYTES = 16_000_000
MAX_FILES = 64
_RETRAIN = "Train it again, or promote another version."


class Tampered(FMError):
    """A model folder is not what was saved: the message says which file and how."""


def write_manifest(folder: Path) -> str:
    """Finish a model folder: hash every file, put all of it on disk, then MANIFEST.json by atomic rename. Returns its sha256."""
    folder = Path(folder)
    part = folder / f"{MANIFEST}.part"
    part.unlink(missing_ok=True)  # of an attempt that died here
    files = {}
    for name, path in _files(folder).items():
        if name == MANIFEST:
            continue
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
        files[name] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    if not files:
        raise Tampered(f"{folder} holds no files, so it is no model.", "The recipe has to write its files before the manifest.")
    body = json.dumps({"format": 1, "written_at": clock.now().isoformat(timespec="seconds"), "files": files}, indent=1).encode()
    with part.open("wb") as handle:
        handle.write(body)
        handle.flush()
        os.fsync(handle.fileno())
    part.rename(folder / MANIFEST)
    sync_folder(folder)
    return hashlib.sha256(body).hexdigest()


def check_manifest(folder: Path) -> str:
    """The sha256 of a folder's manifest, once every file has proved to be the one it names. Raises Tampered with a sentence."""
    folder = Path(folder)
    body, listed = _listed(folder)
    found = {name: path for name, path in _files(folder).items() if name != MANIFEST}
    for name in sorted(listed.keys() - found.keys()):
        raise Tampered(f"{folder.name}: the file {name!r} is missing.", _RETRAIN)
    for name in sorted(found.keys() - listed.keys()):
        raise Tampered(f"{folder.name}: the file {name!r} is not in the manifest.", _RETRAIN)
    for name, path in found.items():
        if path.suffix.lower() in PICKLED:
            sentence = f"{folder.name}: {name!r} is of a kind that can run code when it is read."
            raise Tampered(sentence, "A model folder holds JSON, safetensors, ONNX and Parquet only.")
        size = path.stat().st_size
        if size != listed[name]["bytes"]:
            raise Tampered(f"{folder.name}: {name!r} has {size} bytes where {listed[name]['bytes']} were saved.", _RETRAIN)
        if sha256(path) != listed[name]["sha256"]:
            raise Tampered(f"{folder.name}: the content of {name!r} changed after it was saved.", _RETRAIN)
        if path.suffix == ".safetensors":
            _check_safetensors(path, folder.name)
    return hashlib.sha256(body).hexdigest()


def sha256(path: Path) -> str:
    """The hex digest of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Put a folder's own entries (a rename in it) on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _listed(folder: Path) -> tuple[bytes, dict[str, dict[str, Any]]]:
    """The manifest's bytes and its files, its shape checked."""
    path = folder / MANIFEST
    if folder.is_symlink() or not folder.is_dir():
        raise Tampered(f"{folder.name}: there is no such model folder.", _RETRAIN)
    if path.is_symlink() or not path.is_file():
        raise Tampered(f"{folder.name} has no {MANIFEST}: it was never finished.", _RETRAIN)
    try:
        body = path.read_bytes()
        files = json.loads(body)["files"]
        listed = {str(name): {"sha256": str(fact["sha256"]), "bytes": int(fact["bytes"])} for name, fact in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise Tampered(f"{folder.name}: {MANIFEST} cannot be read ({type(error).__name__}).", _RETRAIN) from None
    for name in listed:
        if Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name:
            raise Tampered(f"{folder.name}: {MANIFEST} names {name[:80]!r}, which lies outside the folder.", _RETRAIN)
    return body, listed


def _files(folder: Path) -> dict[str, Path]:
    """Every plain file below a folder by its name within it. Raises Tampered on links, devices and too many files."""
    found: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder, followlinks=False):
        for name in [*folders, *names]:
            path = Path(parent) / name
            mode = path.lstat().st_mode
            inside = path.relative_to(folder).as_posix()
            if stat.S_ISLNK(mode):
                raise Tampered(f"{folder.name}: {inside!r} is a link to somewhere else.", "A model folder holds plain files only.")
            if stat.S_ISREG(mode):
                found[inside] = path
            elif not stat.S_ISDIR(mode):
                raise Tampered(f"{folder.name}: {inside!r} is no plain file.", "A model folder holds plain files only.")
        if len(found) > MAX_FILES:
            raise Tampered(f"{folder.name} holds more than {MAX_FILES} files.", _RETRAIN)
    return found


def _check_safetensors(path: Path, owner: str) -> None:
    """A header that fits into its file and whose tensors do: read without allocating what it claims."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        n_header = int.from_bytes(handle.read(8), "little")
        if size < 8 or n_header > min(MAX_HEADER_BYTES, size - 8):
            raise Tampered(f"{owner}: {path.name!r} claims a header of {n_header} bytes in a file of {size}.", _RETRAIN)
        try:
            header = json.loads(handle.read(n_header))
            ends = [int(fact["data_offsets"][1]) for name, fact in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            raise Tampered(f"{owner}: the header of {path.name!r} is no safetensors header.", _RETRAIN) from None
    if any(end < 0 or end > size - 8 - n_header for end in ends):
        raise Tampered(f"{owner}: {path.name!r} names tensors beyond its own end.", _RETRAIN)
