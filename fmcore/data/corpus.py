"""The corpus that a base model is pretrained on: texts without labels, streamed from data sets, news and files, cut in two by hash.

Owns which texts may be learnt from: training rows only, never a text that a set of the catalogue holds back, each text once, and the same
text always on the same side. Never holds the corpus in memory: a reader takes what its budget of tokens needs and stops. How a file is
read is text_files.py's part.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import html
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from fmcore import clock, text
from fmcore.data import catalogue, news_demo, text_files
from fmcore.data.readers import bare_words
from fmcore.data.text_files import BadCorpus
from fmcore.store.store import Store

__all__ = ["DEMO", "FINANCE", "BadCorpus", "Corpus", "export_news", "names_of", "sentences", "usual"]

FINANCE = ("stocknet", "twitter_financial_topic", "financial_phrasebank")
DEMO = ("demo_news", "demo_sentiment", "demo")
"""What is learnt from where no public data is: built in, synthetic."""
NEWS = "news"
LEAST = 20
PEEK = 2_000
"""Documents looked at first: a corpus that ends within them is small, and its held-back part is counted out exactly."""
LEAST_HELD_BACK = 5
SHUFFLED = 5_000
"""Documents among which the next one is drawn: a file in order of time or topic must not be learnt in that order."""
REMEMBERED = 200_000
"""Texts among which a repetition is noticed."""
MAX_CHARS = 20_000
WHOLE_BYTES = 64 << 20
"""A file up to this size is told by all of its bytes, a larger one by its size and PIECES of them."""
PIECES = 64
DEMO_DAYS = 28
_LINK = re.compile(r"https?:\S*|\bt\.co/\S+|\bwww\.\S+", re.IGNORECASE)
_WHO = re.compile(r"(?<![\w.])@\w+:?")
_AGAIN = re.compile(r"^(?:RT|MT)\b[:\s]*", re.IGNORECASE)
_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"')\]]))\s+(?=[\"'(\[]*[A-Z0-9])|(?<=[。！？])")
REPEATED = "texts that came before were left out"
HELD_BACK = "texts that a data set of the catalogue holds back for measuring were left out"
BLANK = "documents without words were left out"


@dataclass(frozen=True)
class _Source:
    """One part of a corpus. identity changes when its content does; n_bytes is about how much there is of it."""

    name: str
    identity: str
    n_bytes: int
    licence: str
    synthetic: bool
    read: Callable[[Counter[str]], Iterator[tuple[str, ...]]]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents to learn from and documents held back. Made by `Corpus.of`; hash changes when a text or the cut does.

    licences: source -> licence; synthetic: every text of it was made up; held_back: share of documents on the other side.
    """

    names: tuple[str, ...]
    hash: str
    licences: Mapping[str, str]
    synthetic: bool
    held_back: float
    seed: int
    _sources: tuple[_Source, ...]
    _forbidden: frozenset[int]
    _dropped: dict[str, Counter[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Sequence[str], *, held_back: float = 0.02, seed: int = 0, news: Path | None = None) -> Corpus:
        """The corpus of some data sets of the catalogue, "stocknet", "news", "demo_news", and paths of files or folders.

        No name at all: the finance sets that are here, else the built-in demo. news: the Parquet that `export_news` wrote. Raises
        BadCorpus where there is nothing to learn from, and what the catalogue raises for a set that is not here.
        """
        chosen = names_of(names) or usual()
        sources = [source for name in chosen for source in _sources_of(name, news)]
        made = cls(
            names=chosen, hash="", licences={source.name: source.licence for source in sources},
            synthetic=all(source.synthetic for source in sources), held_back=held_back, seed=seed,
            _sources=tuple(sources), _forbidden=_held_back_by_the_catalogue(),
        )  # fmt: skip
        share = made._fitting_share()
        told = json.dumps([[source.identity for source in sources], share, seed, len(made._forbidden), sorted(made._forbidden)[:1000]])
        return cls(**{**_fields(made), "held_back": share, "hash": hashlib.sha256(told.encode()).hexdigest()})

    def documents(self, part: Literal["train", "held_back"] = "train") -> Iterator[tuple[str, ...]]:
        """The sentences of one document after the other, in an order that the seed sets; nothing but a small pool is held in memory."""
        pool: list[tuple[str, ...]] = []
        chance = np.random.default_rng((self.seed, part == "train"))
        for document in self._one_side(part):
            if len(pool) < SHUFFLED:
                pool.append(document)
                continue
            at = int(chance.integers(SHUFFLED))
            document, pool[at] = pool[at], document
            yield document
        yield from (pool[i] for i in chance.permutation(len(pool)))

    @property
    def notes(self) -> list[str]:
        """What was left out or read otherwise than it stands, in words, as far as the latest reading came."""
        return [f"{name}: {n:,} {what}." for name, counts in self._dropped.items() for what, n in sorted(counts.items())]

    @property
    def sources(self) -> list[dict[str, Any]]:
        """name, bytes and identity of each part: what a run freezes."""
        return [{"name": source.name, "bytes": source.n_bytes, "identity": source.identity} for source in self._sources]

    def _one_side(self, part: str) -> Iterator[tuple[str, ...]]:
        wanted = part == "held_back"
        return (document for side, document in self._cut() if (side < self.held_back) == wanted)

    def _cut(self) -> Iterator[tuple[float, tuple[str, ...]]]:
        """(where a document falls in [0, 1), the document): by a hash of its first sentence, which copies of a story share."""
        seen: dict[int, None] = {}
        for counts, document in self._mixed():
            spoken = tuple(said for paragraph in document for said in sentences(plain(paragraph)))
            keys = [_key(said) for said in spoken]
            allowed = () if _key(" ".join(spoken)) in self._forbidden else _allowed(spoken, keys, self._forbidden)
            if len(allowed) < len(spoken):
                counts[HELD_BACK] += len(spoken) - len(allowed)
            if not allowed:
                if not spoken:
                    counts[BLANK] += 1
                continue
            whole = _key(" ".join(allowed))
            if whole in seen:
                counts[REPEATED] += 1
                continue
            seen[whole] = None
            if len(seen) > REMEMBERED:
                del seen[next(iter(seen))]
            yield _fraction(_key(allowed[0]), self.seed), allowed

    def _mixed(self) -> Iterator[tuple[Counter[str], tuple[str, ...]]]:
        """Documents of all sources in turn, each as often as the root of its size: a huge file does not keep a small set waiting."""
        self._dropped.clear()
        going = {}
        for number, source in enumerate(self._sources):
            counts = self._dropped.setdefault(source.name, Counter())
            going[number] = (source.read(counts), counts, math.sqrt(max(1, source.n_bytes)))
        given = dict.fromkeys(going, 0)
        while going:
            number = min(going, key=lambda n: ((given[n] + 1) / going[n][2], n))
            document = next(going[number][0], None)
            if document is None:
                del going[number]
                continue
            given[number] += 1
            yield going[number][1], document

    def _fitting_share(self) -> float:
        """The share to hold back: as asked, or in a small corpus the one that gives at least LEAST_HELD_BACK documents.

        Raises BadCorpus for a corpus without texts or with too few to learn from and to measure on.
        """
        sides: list[float] = []
        for side, _ in self._cut():
            sides.append(side)
            if len(sides) >= PEEK:
                return self.held_back
        if len(sides) < LEAST:
            what = {0: "is empty", 1: "holds one text"}.get(len(sides), f"holds {len(sides)} different texts")
            why, named = f" ({' '.join(self.notes)})" if self.notes else "", ", ".join(self.names)[:200]
            raise BadCorpus(f"The corpus {named} {what}{why}.", f"At least {LEAST} are needed, some thousand are good.")
        n = max(LEAST_HELD_BACK, math.ceil(self.held_back * len(sides)))
        return sorted(sides)[n]


def _fields(corpus: Corpus) -> dict[str, Any]:
    return {name: getattr(corpus, name) for name in corpus.__dataclass_fields__}


def names_of(given: Sequence[str] | str) -> tuple[str, ...]:
    """Names and paths from a list or a comma separated text, each once, blanks left out."""
    parts = given.split(",") if isinstance(given, str) else given
    return tuple(dict.fromkeys(name for part in parts if (name := str(part).strip())))


def usual() -> tuple[str, ...]:
    """What is learnt from where nobody says: the finance texts that are on this machine, else what is built in."""
    return tuple(name for name in FINANCE if catalogue.dataset(name).state != "missing") or DEMO


def sentences(said: str) -> list[str]:
    """A text cut after full stops, question and exclamation marks that a capital or a digit follows."""
    return [part.strip() for part in _END.split(said) if any(c.isalnum() for c in part)]


def plain(said: str) -> str:
    """A text without links, user names and the sign of a repost, which teach nothing and name people."""
    cleaned = html.unescape(text.clean(said, limit=MAX_CHARS)[0])
    return " ".join(_AGAIN.sub("", _WHO.sub(" ", _LINK.sub(" ", cleaned)).strip()).split())


def export_news(store: Store, path: Path) -> int:
    """Write the desk's stored documents as Parquet (title, body, synthetic), in portions; returns how many there are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("title", pa.string()), ("body", pa.string()), ("synthetic", pa.bool_())])
    last, total = "", 0
    with pq.ParquetWriter(path, schema) as writer:
        while True:
            rows = store.rows("SELECT id, title, body, synthetic FROM documents WHERE id > ? ORDER BY id LIMIT 5000", last)
            if not rows:
                return total
            writer.write_table(pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema))
            last, total = rows[-1]["id"], total + len(rows)


# --- what it is made of


def _sources_of(name: str, news: Path | None) -> list[_Source]:
    if name == NEWS:
        return [_news(news)]
    if name == "demo_news":
        return [_Source(name, f"demo_news {DEMO_DAYS}", 1_500_000, "Part of FM Desk", True, _demo_news)]
    path = Path(name)
    if name not in catalogue.ENTRIES and (path.exists() or "/" in name):
        return _files(path)
    found = catalogue.present(name)
    if name == "stocknet":
        return [_file(found.path / catalogue.ENTRIES[name].marker, name=name, licence=found.licence)]
    data = catalogue.load(name)
    rows = data.train["text"].tolist()
    identity, n_bytes = f"{name} {data.split_hash}", sum(map(len, rows))
    return [_Source(name, identity, n_bytes, found.licence, data.synthetic, lambda _: ((row,) for row in rows))]


def _files(path: Path) -> list[_Source]:
    if not path.exists():
        raise BadCorpus(f"There is no file or folder {str(path)[:200]!r}.", "Check the path; it is read on the desk's own machine.")
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and text_files.kind(file)]
        if not files:
            raise BadCorpus(f"The folder {path.name} holds no files that are read.", f"Kinds: {', '.join(text_files.KINDS)}; also .gz.")
    else:
        files = [path]
    return [_file(file) for file in files]


def _file(file: Path, *, name: str = "", licence: str = "your own file: its licence is not known here", synthetic: bool = False) -> _Source:
    if not file.is_file():
        raise BadCorpus(f"{file.name} is no plain file.", "Choose a text, CSV or JSON lines file.")
    n_bytes, read = file.stat().st_size, functools.partial(text_files.documents, file)
    return _Source(name or file.name, _identity(file), n_bytes, licence, synthetic, read)


def _news(export: Path | None) -> _Source:
    if export is None or not export.is_file():
        raise BadCorpus("The desk's news was not exported for this run.", "Start it as the job pretrain, which does that.")
    flags = pd.read_parquet(export, columns=["synthetic"])["synthetic"]
    if flags.empty:
        raise BadCorpus("The desk has no news yet.", "Add a source on the Data page, or choose another corpus.")
    return _file(export, name=NEWS, licence="the publishers' of each article", synthetic=bool(flags.all()))


def _demo_news(_counts: Counter[str]) -> Iterator[tuple[str, ...]]:
    """Four weeks of the built-in news stream, each story once."""
    start = dt.datetime(2024, 1, 1, tzinfo=clock.UTC)
    frame = news_demo.stream(start, start + dt.timedelta(days=DEMO_DAYS), origin=start).drop_duplicates("story")
    for row in frame.itertuples():
        yield tuple(part for part in (row.title, row.body) if part)


def _identity(file: Path) -> str:
    """What tells a file's content: its size and sha256, over evenly spread pieces where it is large."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as stream:
        for n in range(PIECES):
            start = n * size // PIECES
            stream.seek(start)
            digest.update(stream.read((n + 1) * size // PIECES - start if size <= WHOLE_BYTES else 1 << 16))
    return f"{file.name} {digest.hexdigest()}"


def _held_back_by_the_catalogue() -> frozenset[int]:
    """Keys of every validation and test text of the labelled sets that are on this machine."""
    keys: set[int] = set()
    for found in catalogue.datasets(use="classify"):
        if found.state != "missing":
            data = catalogue.load(found.name)
            keys.update(_key(plain(said)) for part in (data.validation, data.test) for said in part["text"])
    return frozenset(keys)


def _allowed(spoken: Sequence[str], keys: Sequence[int], forbidden: frozenset[int]) -> tuple[str, ...]:
    return tuple(said for said, key in zip(spoken, keys, strict=True) if key not in forbidden)


def _key(said: str) -> int:
    """64 bits that tell a text, whatever its case, blanks and punctuation."""
    return int.from_bytes(hashlib.blake2b(bare_words(said).encode("utf-8", "replace"), digest_size=8).digest())


def _fraction(key: int, seed: int) -> float:
    return int.from_bytes(hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest()) / 2**64
