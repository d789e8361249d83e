"""Readers: one function a publisher's format, from a folder of files to LabelledData; and a person's own CSV file.

Each says in its note how the rows were split. Where files lie and what they may be used for is the catalogue's business.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pandas as pd

from fmcore import text
from fmcore.data import demo, labelled, news_demo, uploads
from fmcore.data.labelled import OOS, PARTS, BadData, LabelledData

MAX_FILE_BYTES = 200_000_000
AGREEMENT = {"50": "Sentences_50Agree.txt", "66": "Sentences_66Agree.txt", "75": "Sentences_75Agree.txt", "all": "Sentences_AllAgree.txt"}
"""Financial PhraseBank's files by the share of annotators that agree at least; each is part of the one before."""
_URL = re.compile(r"https?://\S+|\bt\.co/\S+", re.IGNORECASE)
_WORD = re.compile(r"\w+")


def built_in_intents(_folder: Path) -> LabelledData:
    frame = demo.rows().rename(columns={"intent": "label"})
    inside = frame[frame["label"] != OOS]
    return labelled.build(
        "demo",
        {part: frame[frame["split"] == part] for part in PARTS},
        note="Fixed split stored with the data: 33 or 34 train, 7 validation and 15 or 16 test rows an intent.",
        synthetic=True,
        test_is_publishers=True,
        replies=demo.replies(),
        domains=dict(zip(inside["label"], inside["domain"], strict=True)),
    )


def demo_news(task: str) -> LabelledData:
    """The built-in news labelled for a task ("sentiment" or "topic"); its wordings are split, and all teach in the end."""
    frame = news_demo.labelled(task)
    return labelled.build(
        f"demo_{task}",
        {part: frame[frame["split"] == part] for part in PARTS},
        note="Split by wording: no pattern of a sentence stands in two parts. The shipped model learns from all of them.",
        synthetic=True,
        test_is_publishers=False,
    )


def banking77(folder: Path) -> LabelledData:
    train = _two_columns(folder / "train.csv", "text", "category")
    labels = tuple(sorted(read_json(folder / "categories.json"))) if (folder / "categories.json").is_file() else ()
    publishers = (folder / "test.csv").is_file()
    if publishers:
        test = _two_columns(folder / "test.csv", "text", "category")
        part = labelled.cut(train, {"validation": 0.1}, rest="train")
        note = "Test is the publisher's test.csv; validation is 10 % of train.csv, per label by a hash of the text."
    else:
        part = labelled.cut(train, {"test": 0.1, "validation": 0.1}, rest="train")
        test = train[part == "test"]
        note = "No test.csv here: test and validation are 10 % of train.csv each, per label by a hash of the text."
    frames = {"train": train[part == "train"], "validation": train[part == "validation"], "test": test}
    return labelled.build("banking77", frames, note=note, labels=labels, synthetic=False, test_is_publishers=publishers)


def clinc150(folder: Path) -> LabelledData:
    raw = read_json(folder / "data_full.json")
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
        part = labelled.cut(val, {"test": 0.5}, rest="validation")
        validation, test = pd.concat([val[part == "validation"], oos_train]), pd.concat([val[part == "test"], oos_val])
        note = "No test rows here: the publisher's validation rows are halved per label by a hash of the text; oos_val goes to test."
    domains = read_json(folder / "domains.json") if (folder / "domains.json").is_file() else {}
    return labelled.build(
        "clinc150",
        {"train": train, "validation": validation, "test": test},
        note=note,
        synthetic=False,
        test_is_publishers=publishers,
        domains={intent: domain for domain, intents in domains.items() for intent in intents},
    )


def financial_phrasebank(folder: Path) -> LabelledData:
    """Sentences of company news, negative, neutral or positive, with the agreement of their annotators as tiers."""
    rows = _sentences(folder / AGREEMENT["50"])
    tiers = dict.fromkeys((text.text_hash(message) for message in rows["text"]), "50")
    for tier in ("66", "75", "all"):
        if (folder / AGREEMENT[tier]).is_file():
            narrower = _sentences(folder / AGREEMENT[tier])
            tiers |= dict.fromkeys((text.text_hash(message) for message in narrower["text"]), tier)
    part = labelled.cut(rows, {"test": 0.1, "validation": 0.1}, rest="train", fold=bare_words)
    note = "Test and validation are 10 % each, per label by a hash of the text without case, blanks and punctuation"
    n_unclear = labelled.n_unclear(rows, fold=bare_words)
    note += f"; {n_unclear} sentences with two labels stand in train only." if n_unclear else "."
    frames = {key: rows[part == key] for key in PARTS}
    return labelled.build(
        "financial_phrasebank", frames, note=note, labels=("negative", "neutral", "positive"), fold=bare_words,
        synthetic=False, test_is_publishers=False, tiers=tiers,
    )  # fmt: skip


def _sentences(path: Path) -> pd.DataFrame:
    """The rows of one PhraseBank file, `sentence@label`; a sentence may hold an "@" of its own. Raises BadData.

    Published in latin-1; copies that were saved as UTF-8 are read too, since latin-1 with an accent in it is never valid UTF-8 here.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error}.", "Compare it with the publisher's.") from error
    try:
        lines = raw.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        lines = raw.decode("latin-1").split("\n")
    rows = [line.rpartition("@") for line in lines if line.strip()]
    if not all(found for _, found, _ in rows):
        raise BadData(f"{path.name} has lines without an @ and a label.", "Compare it with the publisher's.")
    messages = [text.clean(message.strip())[0] for message, _, _ in rows]
    return pd.DataFrame({"text": messages, "label": [label.strip().lower() for _, _, label in rows]})


def twitter_financial_topic(folder: Path) -> LabelledData:
    """Tweets of news accounts, one of 20 topics each. A tweet that was posted again with another link counts once."""
    names = read_json(folder / "labels.json")
    known = {key.removeprefix("LABEL_"): name for key, name in names.items()} if isinstance(names, dict) else {}
    train = _tweets(folder / "topic_train.csv", known)
    publishers = (folder / "topic_valid.csv").is_file()
    if publishers:
        test = _tweets(folder / "topic_valid.csv", known)
        part = labelled.cut(train, {"validation": 0.1}, rest="train", fold=without_links)
        note = "Test is the publisher's topic_valid.csv; validation is 10 % of topic_train.csv"
    else:
        part = labelled.cut(train, {"test": 0.1, "validation": 0.1}, rest="train", fold=without_links)
        test = train[part == "test"]
        note = "Test and validation are 10 % of topic_train.csv each"
    frames = {"train": train[part == "train"], "validation": train[part == "validation"], "test": test}
    n_rows = sum(len(frame) for frame in frames.values())
    frames = {key: _posted_once(frame) for key, frame in frames.items()}
    n_again = n_rows - sum(len(frame) for frame in frames.values())
    note += f", per label by a hash of the text without its links; {n_again} rows that repeat a tweet but for its link were left out."
    return labelled.build(
        "twitter_financial_topic", frames, note=note, labels=tuple(sorted(known.values())), fold=without_links,
        synthetic=False, test_is_publishers=publishers,
    )  # fmt: skip


def _tweets(path: Path, names: dict[str, str]) -> pd.DataFrame:
    frame = _two_columns(path, "text", "label")
    strangers = sorted(set(frame["label"]) - set(names))
    if strangers:
        raise BadData(f"{path.name} has labels that labels.json does not name: {strangers[:5]}.", "Compare both with the publisher's.")
    return frame.assign(label=frame["label"].map(names))


def _posted_once(frame: pd.DataFrame) -> pd.DataFrame:
    keys = frame["text"].map(without_links)
    return frame[~pd.DataFrame({"key": keys, "label": frame["label"]}).duplicated()]


def bare_words(message: str) -> str:
    """A text as its words and numbers only: two sentences that differ in case, blanks or punctuation are one."""
    return " ".join(_WORD.findall(message.casefold()))


def without_links(message: str) -> str:
    """A tweet without its links and entities, which differ each time the same words are posted."""
    return labelled.folded(html.unescape(_URL.sub(" ", message)))


def own_csv(path: Path, name: str) -> LabelledData:
    """A person's own CSV file, columns text, label and maybe source under any usual name, split 80/10/10. Raises BadData."""
    frame = uploads.read_messages(path, need_label=True, with_source=True, max_bytes=MAX_FILE_BYTES, max_rows=1_000_000)
    frame["label"] = frame["label"].str.strip()
    blank = (frame["text"].str.strip() == "") | (frame["label"] == "")
    frame = frame[~blank]
    inside, outside = frame[frame["label"].str.casefold() != OOS], frame[frame["label"].str.casefold() == OOS].assign(label=OOS)
    _enough(inside, path)
    part = labelled.cut(inside, {"test": 0.1, "validation": 0.1}, rest="train")
    frames = {key: inside[part == key] for key in PARTS}
    if len(outside):
        half = labelled.cut(outside, {"test": 0.5}, rest="validation")
        frames |= {key: pd.concat([frames[key], outside[half == key]]) for key in ("validation", "test")}
    n_unclear = labelled.n_unclear(inside)
    note = "Cut 80/10/10 from one file, per label by a hash of the text"
    note += f"; {int(blank.sum())} rows without text or label were left out" if blank.any() else ""
    note += f"; {n_unclear} texts with conflicting labels stand in train only" if n_unclear else ""
    return labelled.build(name, frames, note=note + ".", synthetic=False, test_is_publishers=False, sources=_sources(frame))


def _sources(frame: pd.DataFrame) -> dict[str, str]:
    """text_hash -> source of the rows that say one."""
    if "source" not in frame:
        return {}
    named = [text.clean(source, limit=80)[0].strip() for source in frame["source"]]
    return {text.text_hash(text.clean(message)[0]): source for message, source in zip(frame["text"], named, strict=True) if source}


def _enough(inside: pd.DataFrame, path: Path) -> None:
    """Raises BadData unless there are 2 classes with 3 distinct, unambiguous texts each: one for each part."""
    n_texts = labelled.texts_per_label(inside)
    if len(n_texts) < 2:
        raise BadData(f"{path.name} has fewer than 2 classes to learn ({len(n_texts)}).", "Check its label column.")
    small = n_texts[n_texts < 3]
    if len(small):
        named = ", ".join(str(label)[:40] for label in small.index[:5])
        raise BadData(f"{path.name}: fewer than 3 different texts in {len(small)} classes: {named}.", "Add rows, or merge the classes.")


def _two_columns(path: Path, message: str, label: str) -> pd.DataFrame:
    """Two columns of a publisher's CSV as text,label. Raises BadData."""
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=[message, label], encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadData(f"{path} cannot be read: {error}.", "Compare it with the publisher's.") from error
    return frame.rename(columns={message: "text", label: "label"})


def read_json(path: Path):
    """A publisher's JSON file. Raises BadData."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError("larger than 200 MB")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadData(f"{path} cannot be read: {error}.", "Compare it with the publisher's.") from error


def row_counts(path: Path) -> dict[str, int]:
    """Rows in a publisher's file, keyed as in the catalogue: "train.csv", or "data_full.json:val"."""
    if path.suffix == ".csv":
        return {path.name: len(pd.read_csv(path, dtype=str, keep_default_na=False))}
    raw = read_json(path)
    return {f"{path.name}:{key}": len(rows) for key, rows in raw.items()} if isinstance(raw, dict) else {path.name: len(raw)}
