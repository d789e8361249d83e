"""The catalogue: which data sets FM Desk knows, what they may be used for, where they are, and how they are split.

A set is read from FM_DATA_DIR/<name> in its publisher's own format, else from <home>/data/<name>, where `fetch.py` puts it.
Every split is fixed by the texts themselves, so that two machines train and test on the same rows; texts that differ only in
case or blanks stand in one part only. Nothing here opens a connection.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from fmcore import text
from fmcore.config import settings
from fmcore.data import demo, uploads
from fmcore.nouns import Dataset, FMError

OOS = demo.OOS
"""The label of out-of-scope rows: in validation and test only, never a class that is learnt."""
PARTS = ("train", "validation", "test")
MAX_FILE_BYTES = 200_000_000
MANIFEST = "MANIFEST.json"


class UnknownDataset(FMError):
    """Neither a data set of the catalogue nor a CSV file."""


class DatasetMissing(FMError):
    """A known data set whose files are not on this machine."""


class BadData(FMError):
    """Files that are there and cannot be learnt from."""


@dataclass(frozen=True, eq=False)
class LabelledData:
    """A data set ready to learn from: three frames with the columns text,label, and what must be known about the split.

    labels: the in-scope labels, sorted. split_hash: sha256 over the sorted (part, label, text) rows. test_is_publishers: the
    test rows are the publisher's own; when False they were cut from rows that a final refit may use.
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


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set at its publisher, at a fixed commit and so with a fixed sha256."""

    name: str
    url: str
    sha256: str
    max_bytes: int


@dataclass(frozen=True)
class _Entry:
    """A catalogue line: what `Dataset` shows, plus how the set is found, fetched, checked and read."""

    title: str
    summary: str
    licence: str
    commercial_use: str
    size: str
    columns: str
    source: str
    synthetic: bool
    read: Callable[[Path], LabelledData]
    marker: str
    files: tuple[RemoteFile, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)


def datasets() -> list[Dataset]:
    """Every data set of the catalogue, with whether its files are here."""
    return [dataset(name) for name in ENTRIES]


def dataset(name: str) -> Dataset:
    """One catalogue entry. Raises UnknownDataset."""
    entry = _entry(name)
    state, path = _find(name)
    shown = ("title", "summary", "licence", "commercial_use", "size", "columns", "source", "synthetic")
    return Dataset(name=name, state=state, path=path, **{key: getattr(entry, key) for key in shown})


def load(name_or_path: str | Path) -> LabelledData:
    """A data set of the catalogue by name, or a CSV file by path, split and ready to learn from.

    Raises UnknownDataset, DatasetMissing (known, but not on this machine) or BadData (with what is wrong with the rows).
    """
    if isinstance(name_or_path, str) and (name_or_path in ENTRIES or not _looks_like_path(name_or_path)):
        entry = _entry(name_or_path)
        state, path = _find(name_or_path)
        if state == "missing" or path is None:
            raise DatasetMissing(
                f"The data set {name_or_path} is not on this machine.",
                f"Set FM_DATA_DIR to the folder that holds it, or run: python -m fmcore data fetch {name_or_path}",
            )
        return entry.read(path)
    return _read_csv_file(Path(name_or_path))


def remote_files(name: str) -> tuple[RemoteFile, ...]:
    """The files that make up a data set at its publisher; empty for a built-in one. Raises UnknownDataset."""
    return _entry(name).files


def check_rows(name: str, folder: Path) -> None:
    """Whether freshly downloaded files are the data set that the catalogue describes. Raises BadData with the difference."""
    entry = _entry(name)
    entry.read(folder)
    for file in entry.files:
        found = _row_counts(folder / file.name)
        wrong = {key: n for key, n in found.items() if entry.rows.get(key, n) != n}
        if wrong:
            expected = {key: entry.rows[key] for key in wrong}
            raise BadData(f"{file.name} of {name} has other rows than published: {wrong}, expected {expected}.", "Fetch it again later.")


def folded(message: str) -> str:
    """A text without differences of case and blanks: two texts that fold alike never stand in two parts of a split."""
    return " ".join(message.casefold().split())


def _keys(frame: pd.DataFrame) -> pd.Series:
    return pd.Series([folded(message) for message in frame["text"]], index=frame.index, dtype="str")


def split_hash(frames: Mapping[str, pd.DataFrame]) -> str:
    """sha256 over the sorted (part, label, text) rows of a split: equal exactly when the split is."""
    rows = sorted((part, label, message) for part in PARTS for message, label in frames[part][["text", "label"]].itertuples(index=False))
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _entry(name: str) -> _Entry:
    if not text.is_name(name) or name not in ENTRIES:
        raise UnknownDataset(f"There is no data set {name[:80]!r}.", f"Known: {', '.join(ENTRIES)}; or give the path of a CSV file.")
    return ENTRIES[name]


def _find(name: str) -> tuple[str, Path | None]:
    """(state, folder): FM_DATA_DIR first, then what was downloaded; a download counts once its manifest is written."""
    if name == "demo":
        return "built in", demo.FOLDER
    marker = ENTRIES[name].marker
    given = settings().data_dir
    if given is not None and (given / name / marker).is_file():
        return "local", given / name
    fetched = settings().home / "data" / name
    if (fetched / MANIFEST).is_file() and (fetched / marker).is_file():
        return "downloaded", fetched
    return "missing", None


def _looks_like_path(name: str) -> bool:
    return "/" in name or "\\" in name or name.lower().endswith((".csv", ".tsv"))


def _build(name: str, frames: Mapping[str, pd.DataFrame], *, note: str, labels: tuple[str, ...] = (), **facts) -> LabelledData:
    """LabelledData from three frames: texts cleaned, blank rows gone, and no text of a held-out part left in an earlier one."""
    parts, n_leaks, held_out = {}, 0, set()
    for part in reversed(PARTS):
        frame = frames[part][["text", "label"]].copy()
        frame["text"] = [text.clean(message)[0] for message in frame["text"]]
        keys = _keys(frame)
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


def _cut(frame: pd.DataFrame, shares: Mapping[str, float], *, rest: str) -> pd.Series:
    """The part of each row: per label, a share of its distinct texts in the order of their hash, what is left to `rest`.

    A text that carries more than one label goes to `rest` whole: it can teach, but no score may hang on it.
    """
    keys = _keys(frame)
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


def _read_demo(_folder: Path) -> LabelledData:
    frame = demo.rows().rename(columns={"intent": "label"})
    inside = frame[frame["label"] != OOS]
    return _build(
        "demo",
        {part: frame[frame["split"] == part] for part in PARTS},
        note="Fixed split stored with the data: 33 or 34 train, 7 validation and 15 or 16 test rows an intent.",
        synthetic=True,
        test_is_publishers=True,
        replies=demo.replies(),
        domains=dict(zip(inside["label"], inside["domain"], strict=True)),
    )


def _read_banking77(folder: Path) -> LabelledData:
    train = _read_two_columns(folder / "train.csv", "text", "category")
    labels = tuple(sorted(_read_json(folder / "categories.json"))) if (folder / "categories.json").is_file() else ()
    publishers = (folder / "test.csv").is_file()
    if publishers:
        test = _read_two_columns(folder / "test.csv", "text", "category")
        part = _cut(train, {"validation": 0.1}, rest="train")
        note = "Test is the publisher's test.csv; validation is 10 % of train.csv, per label by a hash of the text."
    else:
        part = _cut(train, {"test": 0.1, "validation": 0.1}, rest="train")
        test = train[part == "test"]
        note = "No test.csv here: test and validation are 10 % of train.csv each, per label by a hash of the text."
    frames = {"train": train[part == "train"], "validation": train[part == "validation"], "test": test}
    return _build("banking77", frames, note=note, labels=labels, synthetic=False, test_is_publishers=publishers)


def _read_clinc150(folder: Path) -> LabelledData:
    raw = _read_json(folder / "data_full.json")
    try:
        rows = {key: pd.DataFrame(raw[key], columns=["text", "label"]) for key in raw if raw[key]}
        train, val, oos_train, oos_val = (rows[key] for key in ("train", "val", "oos_train", "oos_val"))
    except (KeyError, TypeError, ValueError) as error:
        raise BadData(f"{folder / 'data_full.json'} is not in CLINC150's format: {error!r}.", "Compare it with the publisher's.") from error
    publishers = "test" in rows and "oos_test" in rows
    if publishers:
        validation, test = pd.concat([val, oos_val, oos_train]), pd.concat([rows["test"], rows["oos_test"]])
        note = "Test is the publisher's; validation is the publisher's plus the out-of-scope training rows, which nothing is fitted on."
    else:
        part = _cut(val, {"test": 0.5}, rest="validation")
        validation, test = pd.concat([val[part == "validation"], oos_train]), pd.concat([val[part == "test"], oos_val])
        note = "No test rows here: the publisher's validation rows are halved per label by a hash of the text; oos_val goes to test."
    domains = _read_json(folder / "domains.json") if (folder / "domains.json").is_file() else {}
    return _build(
        "clinc150",
        {"train": train, "validation": validation, "test": test},
        note=note,
        synthetic=False,
        test_is_publishers=publishers,
        domains={intent: domain for domain, intents in domains.items() for intent in intents},
    )


def _read_csv_file(path: Path) -> LabelledData:
    """A person's own CSV file, columns text and label under any usual name, split 80/10/10."""
    _plain_file(path)
    frame = uploads.read_messages(path, need_label=True, max_bytes=MAX_FILE_BYTES, max_rows=1_000_000)
    frame["label"] = frame["label"].str.strip()
    blank = (frame["text"].str.strip() == "") | (frame["label"] == "")
    frame = frame[~blank]
    inside, outside = frame[frame["label"].str.casefold() != OOS], frame[frame["label"].str.casefold() == OOS].assign(label=OOS)
    _enough(inside, path)
    part = _cut(inside, {"test": 0.1, "validation": 0.1}, rest="train")
    frames = {key: inside[part == key] for key in PARTS}
    if len(outside):
        half = _cut(outside, {"test": 0.5}, rest="validation")
        frames |= {key: pd.concat([frames[key], outside[half == key]]) for key in ("validation", "test")}
    n_unclear = int((inside.groupby(_keys(inside))["label"].nunique() > 1).sum())
    note = "Cut 80/10/10 from one file, per label by a hash of the text"
    note += f"; {int(blank.sum())} rows without text or label were left out" if blank.any() else ""
    note += f"; {n_unclear} texts with conflicting labels stand in train only" if n_unclear else ""
    name = path.stem if text.is_name(path.stem) and path.stem not in ENTRIES else "csv"
    return _build(name, frames, note=note + ".", synthetic=False, test_is_publishers=False)


def _enough(inside: pd.DataFrame, path: Path) -> None:
    """Raises BadData unless there are 2 classes with 3 distinct, unambiguous texts each: one for each part."""
    keys = _keys(inside)
    n_texts = keys[inside.groupby(keys)["label"].transform("nunique") == 1].groupby(inside["label"]).nunique()
    n_texts = n_texts.reindex(inside["label"].unique(), fill_value=0)
    if len(n_texts) < 2:
        raise BadData(f"{path.name} has fewer than 2 classes to learn ({len(n_texts)}).", "Check its label column.")
    small = n_texts[n_texts < 3]
    if len(small):
        named = ", ".join(str(label)[:40] for label in small.index[:5])
        raise BadData(f"{path.name}: fewer than 3 different texts in {len(small)} classes: {named}.", "Add rows, or merge the classes.")


def _plain_file(path: Path) -> None:
    """Raises UnknownDataset or BadData unless path is a readable plain .csv or .tsv file of bounded size (no pipe, no device)."""
    shown = repr(str(path)[:200])
    if path.suffix.lower() not in (".csv", ".tsv"):
        hint = f"Known: {', '.join(ENTRIES)}; a file must end in .csv or .tsv."
        raise UnknownDataset(f"{shown} is neither a known data set nor a CSV file.", hint)
    try:
        info = path.stat()
    except (OSError, ValueError) as error:
        raise UnknownDataset(f"There is no file {shown}.", "Check the path.") from error
    if not stat.S_ISREG(info.st_mode):
        raise BadData(f"{shown} is not a plain file.", "Give the path of a CSV file.")


def _read_two_columns(path: Path, message: str, label: str) -> pd.DataFrame:
    """Two columns of a publisher's CSV as text,label. Raises BadData."""
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=[message, label], encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadData(f"{path} cannot be read: {error}.", "Compare it with the publisher's.") from error
    return frame.rename(columns={message: "text", label: "label"})


def _read_json(path: Path):
    """A publisher's JSON file. Raises BadData."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError("larger than 200 MB")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadData(f"{path} cannot be read: {error}.", "Compare it with the publisher's.") from error


def _row_counts(path: Path) -> dict[str, int]:
    """Rows in a publisher's file, keyed as in `_Entry.rows`: "train.csv", or "data_full.json:val"."""
    if path.suffix == ".csv":
        return {path.name: len(pd.read_csv(path, dtype=str, keep_default_na=False))}
    raw = _read_json(path)
    return {f"{path.name}:{key}": len(rows) for key, rows in raw.items()} if isinstance(raw, dict) else {path.name: len(raw)}


_BANKING77 = "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/57ec275d8078af65b7731c2a98be812d844a6d6b/banking_data/"
_CLINC150 = "https://raw.githubusercontent.com/clinc/oos-eval/828f8093932c8fe6ca7936c3d2e52903b1c523de/data/"
_SHA256 = {
    _BANKING77 + "train.csv": "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
    _BANKING77 + "test.csv": "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
    _BANKING77 + "categories.json": "53261da888122daf2d120d925458631d9619e15d82e56052e7a42e535ce32b63",
    _CLINC150 + "data_full.json": "36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0",
    _CLINC150 + "domains.json": "b947b579d3b8e74b06f93b01083d8efaff2888b43a3e362533bd88a6e1211b3a",
}
"""The publishers' files at these commits, as checksums that several independent public projects state for them."""


def _remote(base: str, *names: str) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(name, base + name, _SHA256[base + name], 20_000_000) for name in names)


ENTRIES: dict[str, _Entry] = {
    "demo": _Entry(
        title="Demo: customer service",
        summary="35 customer-service intents over 5 domains with out-of-scope messages and a reply for each intent, written for "
        "FM Desk. Synthetic: no real customer wrote any of it.",
        licence="Part of FM Desk",
        commercial_use="yes",
        size="1,958 messages and 190 out of scope",
        columns="split, domain, intent, text",
        source="Built in, fmcore/data/builtin",
        synthetic=True,
        read=_read_demo,
        marker="intents.csv",
    ),
    "banking77": _Entry(
        title="Banking77",
        summary="Real questions to an online bank, one of 77 fine-grained intents each (PolyAI, Casanueva et al. 2020). Some labels "
        "are known to overlap.",
        licence="CC BY 4.0",
        commercial_use="yes",
        size="10,003 training messages, 3,080 test messages, 1.1 MB",
        columns="text, category",
        source="https://github.com/PolyAI-LDN/task-specific-datasets",
        synthetic=False,
        read=_read_banking77,
        marker="train.csv",
        files=_remote(_BANKING77, "train.csv", "test.csv", "categories.json"),
        rows={"train.csv": 10_003, "test.csv": 3_080, "categories.json": 77},
    ),
    "clinc150": _Entry(
        title="CLINC150",
        summary="Questions to an assistant, one of 150 intents in 10 domains each, and out-of-scope questions (Larson et al. 2019).",
        licence="CC BY 3.0",
        commercial_use="yes",
        size="22,500 messages and 1,200 out of scope, 2 MB",
        columns="JSON lists of [text, intent]",
        source="https://github.com/clinc/oos-eval",
        synthetic=False,
        read=_read_clinc150,
        marker="data_full.json",
        files=_remote(_CLINC150, "data_full.json", "domains.json"),
        rows={
            "data_full.json:train": 15_000,
            "data_full.json:val": 3_000,
            "data_full.json:test": 4_500,
            "data_full.json:oos_train": 100,
            "data_full.json:oos_val": 100,
            "data_full.json:oos_test": 1_000,
        },
    ),
}
DOWNLOADABLE = tuple(name for name, entry in ENTRIES.items() if entry.files)
