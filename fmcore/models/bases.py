"""The shelf of pretrained base models: what job `pretrain` made, by name, ready for `load_encoder("base:NAME")`.

Owns <home>/bases/<name>/: encoder/ (a Hugging Face folder), head.safetensors (the words' head, where there is one), fills/<step>/ (the
served form of a kept checkpoint, fill_mask.py), fills.parquet, curve.parquet, facts.json, and MANIFEST.json last. Reads no weights
itself and never needs torch; making a base is training/pretrain.py's part. A base is nobody's version of a task.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fmcore import clock
from fmcore.models.fill_mask import FillMask
from fmcore.models.manifest import MANIFEST, Tampered, check_manifest, sync_folder
from fmcore.nouns import FMError
from fmcore.text import is_name

log = logging.getLogger("fm.models")

PLACE = "bases"
PREFIX = "base:"
"""Before a base's name wherever a base model is named: base:NAME."""
FACTS, ENCODER, FILLS, HEAD = "facts.json", "encoder", "fills", "head.safetensors"
FILLED, CURVE = "fills.parquet", "curve.parquet"
FILLED_COLUMNS = ("step", "sentence", "mask", "rank", "token", "probability")


class UnknownBase(FMError):
    """No pretrained base has that name."""


class BadBase(FMError):
    """A folder or a name that cannot be a base on the shelf."""


@dataclass(frozen=True)
class Base:
    """One pretrained base. facts: name, objective, start, base, corpus, corpus_hash, n_tokens, figures, device, seconds, synthetic,
    parent and what else training/pretrain.py knows; made_at is UTC."""

    name: str
    path: Path
    facts: Mapping[str, Any]
    made_at: dt.datetime

    @property
    def encoder(self) -> Path:
        """The folder that `load_encoder` reads."""
        return self.path / ENCODER

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps of the checkpoints that were kept for filling masks, ascending; empty for an objective without a words' head."""
        if not (self.path / FILLS).is_dir():
            return ()
        return tuple(sorted(int(folder.name) for folder in (self.path / FILLS).iterdir() if folder.name.isdigit()))

    def fill_mask(self, step: int | None = None) -> FillMask:
        """The served form of the checkpoint at a step, the last one without. Raises UnknownBase where there is none."""
        steps = self.steps
        if not steps or (step is not None and step not in steps):
            kept = f"Kept steps: {', '.join(map(str, steps))}." if steps else "Train one with the objective mlm, nsp or sop."
            which = "no checkpoint that fills masks" if step is None else f"no checkpoint at step {step}"
            raise UnknownBase(f"The base {self.name} has {which}.", kept)
        folder = self.path / FILLS / str(steps[-1] if step is None else step)
        return _served(folder, (self.path / MANIFEST).stat().st_mtime_ns)

    def filled(self) -> pd.DataFrame:
        """FILLED_COLUMNS: what each kept checkpoint put behind the masks of fixed sentences; empty where it was none's part."""
        path = self.path / FILLED
        return pd.read_parquet(path) if path.is_file() else pd.DataFrame(columns=list(FILLED_COLUMNS))

    def curve(self) -> pd.DataFrame:
        """A row a checkpoint: step, tokens, loss, and masked_accuracy, unigram_accuracy, probe_accuracy where they were measured."""
        path = self.path / CURVE
        return pd.read_parquet(path) if path.is_file() else pd.DataFrame(columns=["step"])


def listed(home: Path) -> list[Base]:
    """Every base on the shelf, the newest first. One whose facts cannot be read is left out, and the log says so."""
    root = home / PLACE
    found = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if not (folder / MANIFEST).is_file():
            continue  # a landing that is not finished, or never was
        try:
            found.append(_read(folder))
        except BadBase as problem:
            log.warning("%s", problem)
    return sorted(found, key=lambda base: (base.made_at, base.name), reverse=True)


def get(home: Path, name: str) -> Base:
    """The base of that name. Raises UnknownBase with the names there are, and BadBase for one that cannot be read."""
    folder = home / PLACE / name
    if not is_name(name) or not (folder / MANIFEST).is_file():
        names = ", ".join(base.name for base in listed(home)) or "none yet: run the job pretrain"
        raise UnknownBase(f"There is no pretrained base {name[:80]!r}.", f"Bases: {names}.")
    return _read(folder)


def exists(home: Path, name: str) -> bool:
    """Whether the shelf has a finished base of that name; it is not opened."""
    return is_name(name) and (home / PLACE / name / MANIFEST).is_file()


def put_in_place(folder: Path, home: Path, *, name: str) -> Base:
    """Move a finished folder onto the shelf; the same folder a second time, moved already or not, changes nothing.

    Raises Tampered for a folder that is not as it was finished, BadBase for a name that is none or that another base has.
    """
    root, target = home / PLACE, home / PLACE / name
    if not is_name(name):
        raise BadBase(f"{name[:80]!r} cannot be the name of a base.", "Use letters, digits, dots, dashes.")
    if folder.is_dir():
        digest = check_manifest(folder)
        if exists(home, name) and check_manifest(target) != digest:
            raise BadBase(f"The shelf has another base {name!r} already.", "Choose another name.")
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.rmtree(target, ignore_errors=True)  # of a landing that died here
        shutil.move(folder, target)
        sync_folder(root)
    check_manifest(target)
    return _read(target)


def encoder_folder(home: Path, name: str) -> Path:
    """The folder of "base:NAME" (or NAME), every file checked against the manifest. Raises UnknownBase and BadBase."""
    base = get(home, name.removeprefix(PREFIX))
    try:
        check_manifest(base.path)
    except Tampered as damage:
        raise BadBase(f"The base {base.name} is damaged: {damage.message}", "Pretrain it again.") from damage
    return base.encoder


def _read(folder: Path) -> Base:
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        written = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["written_at"]
        return Base(folder.name, folder, facts, dt.datetime.fromisoformat(written).astimezone(clock.UTC))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadBase(f"The base {folder.name} cannot be read ({error}).", "Pretrain it again.") from error


@functools.lru_cache(maxsize=8)
def _served(folder: Path, _written_at: int) -> FillMask:
    return FillMask(folder)
