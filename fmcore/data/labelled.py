"""Labelled data ready to learn from: three parts that share no text, and how a publisher's rows are cut into them.

Every split is fixed by the texts themselves, so that two machines train and test on the same rows; texts that differ only in
case or blanks stand in one part only. Knows no data set by name and reads no publisher's file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from fmcore import text
from fmcore.data import demo
from fmcore.nouns import FMError

OOS = demo.OOS
"""The label of out-of-scope rows: in validation and test only, never a class that is learnt."""
PARTS = ("train", "validation", "test")


class BadData(FMError):
    """Files that are there and cannot be learnt from."""


@dataclass(frozen=True, eq=False)
class LabelledData:
    """A data set ready to learn from: three frames with the columns text,label, and what must be known about the split.

    labels: the in-scope labels, sorted. split_hash: sha256 over the sorted (part, label, text) rows. test_is_publishers: the
    test rows are the publisher's own; when False they were cut from rows that a final refit may use. tiers: for a set whose
    annotators did not all agree, text_hash of a row -> the narrowest group it belongs to ("all", "75", "66", "50"); else empty.
    sources: text_hash of a row -> where it comes from, for a file with such a column.
    """

    name: str
    labels: tuple[str, ...]
    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    split_hash: str
    split_note: str
    synthetic: bool
    test_is_publishers: bool
    replies: Mapping[str, str] = field(default_factory=dict)
    domains: Mapping[str, str] = field(default_factory=dict)
    tiers: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the data as Parquet and JSON into a folder (made when it is not there)."""
        folder.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            getattr(self, part).to_parquet(folder / f"{part}.parquet", index=False)
        facts = {key: getattr(self, key) for key in self.__dataclass_fields__ if key not in PARTS}
        (folder / "data.json").write_text(json.dumps(facts, ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> LabelledData:
        """Read what `save` wrote. Raises BadData when a file is missing, torn, or not the rows that were saved."""
        try:
            facts = json.loads((folder / "data.json").read_text(encoding="utf-8"))
            frames = {part: pd.read_parquet(folder / f"{part}.parquet", columns=["text", "label"]) for part in PARTS}
            facts["labels"] = tuple(facts["labels"])
            data = cls(**frames, **facts)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BadData(f"The data in {folder} cannot be read: {error}.", "Start the run again; it writes its data afresh.") from error
        if data.split_hash != split_hash(frames):
            raise BadData(f"The rows in {folder} are not the ones that were saved.", "Start the run again; it writes its data afresh.")
        return data


def folded(message: str) -> str:
    """A text without differences of case and blanks: two texts that fold alike never stand in two parts of a split."""
    return " ".join(message.casefold().split())


Fold = Callable[[str], str]
"""What makes two texts the same one to a split."""


def _keys(frame: pd.DataFrame, fold: Fold) -> pd.Series:
    return pd.Series([fold(message) for message in frame["text"]], index=frame.index, dtype="str")


def split_hash(frames: Mapping[str, pd.DataFrame]) -> str:
    """sha256 over the sorted (part, label, text) rows of a split: equal exactly when the split is."""
    rows = sorted((part, label, message) for part in PARTS for message, label in frames[part][["text", "label"]].itertuples(index=False))
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def build(
    name: str, frames: Mapping[str, pd.DataFrame], *, note: str, labels: tuple[str, ...] = (), fold: Fold = folded, **facts
) -> LabelledData:
    """LabelledData from three frames: texts cleaned, blank rows gone, and no text of a held-out part left in an earlier one.

    fold: what counts as the same text. Raises BadData for labels outside `labels` or fewer than 2 classes.
    """
    parts, n_leaks, held_out = {}, 0, set()
    for part in reversed(PARTS):
        frame = frames[part][["text", "label"]].copy()
        frame["text"] = [text.clean(message)[0] for message in frame["text"]]
        keys = _keys(frame, fold)
        leaks = keys.isin(held_out)
        n_leaks += int(leaks.sum())
        parts[part] = frame[~leaks & (keys != "")].astype("str").reset_index(drop=True)
        held_out |= set(keys)
    if n_leaks:
        note = f"{note.rstrip('.')}; {n_leaks} earlier rows that repeat a held-out text were left out."
    seen = set(parts["train"]["label"])
    labels = labels or tuple(sorted(seen))
    strangers = (seen | set(parts["validation"]["label"]) | set(parts["test"]["label"])) - set(labels) - {OOS}
    if strangers or OOS in seen or len(seen) < 2:
        what = f"labels that are not in its list: {sorted(strangers)[:5]}" if strangers else "fewer than 2 classes to learn"
        raise BadData(f"The data set {name} has {what}.", "Compare its files with the publisher's.")
    ordered = {part: parts[part] for part in PARTS}
    return LabelledData(name=name, labels=tuple(sorted(labels)), split_hash=split_hash(ordered), split_note=note, **ordered, **facts)


def cut(frame: pd.DataFrame, shares: Mapping[str, float], *, rest: str, fold: Fold = folded) -> pd.Series:
    """The part of each row: per label, a share of its distinct texts in the order of their hash, what is left to `rest`.

    A text that carries more than one label goes to `rest` whole: it can teach, but no score may hang on it.
    """
    keys = _keys(frame, fold)
    n_labels = frame.groupby(keys)["label"].nunique()
    unclear = set(n_labels.index[n_labels > 1])
    part_of: dict[str, str] = {}
    for _, texts in keys.groupby(frame["label"]):
        distinct = sorted(set(texts) - unclear, key=lambda key: hashlib.sha256(key.encode()).digest())
        start = 0
        for part, share in shares.items():
            n = max(1, round(share * len(distinct)))
            part_of.update(dict.fromkeys(distinct[start : start + n], part))
            start += n
    return keys.map(lambda key: part_of.get(key, rest))


def n_unclear(frame: pd.DataFrame, *, fold: Fold = folded) -> int:
    """How many texts of a frame text,label carry more than one label."""
    return int((frame.groupby(_keys(frame, fold))["label"].nunique() > 1).sum())


def texts_per_label(frame: pd.DataFrame, *, fold: Fold = folded) -> pd.Series:
    """The number of distinct texts of each label that carry no other label."""
    keys = _keys(frame, fold)
    clear = keys[frame.groupby(keys)["label"].transform("nunique") == 1]
    return clear.groupby(frame["label"]).nunique().reindex(frame["label"].unique(), fill_value=0)
