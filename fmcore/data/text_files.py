"""Text files of any size as documents, streamed: plain text, CSV, JSON lines or Parquet, also gzipped.

Owns encodings (UTF-8, cp1252 line by line, UTF-16 with its mark), what counts as text, and how much is held in memory at once, which is
a few megabytes whatever the file's size. Every line that is left out is counted in words. What a corpus is made of is corpus.py's part.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from fmcore.data.uploads import TEXT_NAMES
from fmcore.nouns import FMError

MAX_LINE = 1 << 20
"""Bytes of a line that are read at once: what is longer comes in several pieces."""
MAX_BAD = 16 << 20
"""Bytes in a row that are no text, after which the rest of a file is left out: a disk image after a page of text must not be read whole."""
MAX_PARAGRAPH = 200
"""Lines of a document at most: a file without blank lines must not become one document."""
HEAD = 1 << 16
TITLES, BODIES = ("title", "headline", "subject"), (*TEXT_NAMES, "tweet", "body", "content", "description", "summary", "article")
KINDS = (".txt", ".text", ".md", ".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
AS_CP1252 = "lines were not UTF-8 and were read as Windows-1252"
NOT_TEXT = "lines that are no text were left out"
NOT_JSON = "lines that are no JSON with a text were left out"
SHORT_ROWS = "rows without a text were left out"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BROKEN = (EOFError, OSError, zlib.error)


class BadCorpus(FMError):
    """Text that cannot be learnt from: nothing there, too little of it, or no text."""


def kind(path: Path) -> str:
    """The ending that says how a file is read, .gz taken off; "" for one that is not read."""
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    ending = endings[0] if len(endings) == 2 and endings[1] == ".gz" else (endings or [""])[-1]
    return ending if ending in KINDS else ""


def documents(path: Path, dropped: Counter[str]) -> Iterator[tuple[str, ...]]:
    """The documents of a file, each the paragraphs it has: lines up to a blank one (or, in a text file without blank lines, each line),
    or a row's title and text. dropped: sentence -> how often, added to on the way.

    Raises BadCorpus for what is no text from the start, for a table without a column of texts, and for a file that is not there.
    """
    read: dict[str, Callable[[Path, Counter[str]], Iterator[tuple[str, ...]]]] = {
        ".csv": _table, ".tsv": _table, ".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": _parquet,
    }  # fmt: skip
    yield from read.get(kind(path), _paragraphs)(path, dropped)


def lines(path: Path, dropped: Counter[str]) -> Iterator[str]:
    """The lines of a text file, decoded, without their ends. Raises BadCorpus where the file starts as no text."""
    try:
        with _opened(path) as stream:
            head = stream.peek(HEAD)[:HEAD]
            refuse_binary(path, head)
            yield from _utf16(stream, dropped) if head.startswith(_UTF16) else _decoded(stream, dropped)
    except _BROKEN as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise BadCorpus(f"{path.name} cannot be read: {error}.", "Check the path and its permissions.") from error
        dropped[f"file ends in the middle of its compressed data ({path.name}): what came before it was read"] += 1


def refuse_binary(path: Path, head: bytes) -> None:
    """Raises BadCorpus for the first bytes of a file that is no text, and for one without any."""
    if not head:
        raise BadCorpus(f"{path.name} is empty.", "Choose a file with some thousand lines of text.")
    if head.startswith(_UTF16):
        return
    odd = sum(byte < 9 or 13 < byte < 32 for byte in head)
    if b"\x00" in head or odd > len(head) // 20:
        raise BadCorpus(f"{path.name} is not text (a binary file, or UTF-16 without its mark).", "Save it as plain text in UTF-8.")


def _opened(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked where they are gzip, whatever its name says. Raises BadCorpus on an archive that does not open."""
    plain = path.open("rb")
    if plain.peek(2)[:2] != b"\x1f\x8b":
        return plain
    stream = gzip.GzipFile(fileobj=plain)
    try:
        stream.peek(1)
    except _BROKEN as error:
        plain.close()
        raise BadCorpus(f"{path.name} is a damaged gzip file ({error}).", "Unpack it yourself, or fetch it again.") from error
    return stream


def _decoded(stream: BinaryIO, dropped: Counter[str]) -> Iterator[str]:
    bad = 0
    for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE), b"")):
        if b"\x00" in line:
            dropped[NOT_TEXT] += 1
            bad += len(line)
            if bad > MAX_BAD:
                dropped["file was read only up to where it stops being text"] += 1
                return
            continue
        bad = 0
        try:
            yield line.decode("utf-8-sig" if number == 0 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            dropped[AS_CP1252] += 1
            yield line.decode("cp1252", "replace").rstrip("\r\n")


def _utf16(stream: BinaryIO, dropped: Counter[str]) -> Iterator[str]:
    dropped["file was read as UTF-16"] += 1
    wrapped = io.TextIOWrapper(stream, encoding="utf-16", errors="replace", newline=None)
    for line in iter(lambda: wrapped.readline(MAX_LINE), ""):
        yield line.rstrip("\n")


def _paragraphs(path: Path, dropped: Counter[str]) -> Iterator[tuple[str, ...]]:
    """Runs of lines up to a blank one; each line by itself in a file whose beginning has no blank lines."""
    said = lines(path, dropped)
    first = list(itertools.islice(said, 1000))
    whole = any(not line.strip() for line in first[1:-1])
    held: list[str] = []
    for line in itertools.chain(first, said):
        if line.strip():
            held.append(line)
        if held and (not whole or not line.strip() or len(held) >= MAX_PARAGRAPH):
            yield tuple(held)
            held = []
    if held:
        yield tuple(held)


def _table(path: Path, dropped: Counter[str]) -> Iterator[tuple[str, ...]]:
    fed = 0

    def counted() -> Iterator[str]:
        nonlocal fed
        for line in lines(path, dropped):
            fed += len(line)
            if fed > MAX_LINE:
                raise BadCorpus(f"{path.name} has a row of more than {MAX_LINE:,} characters: a quote is never closed.", "Mend that row.")
            yield line.replace("\r", " ") + "\n"

    source = counted()
    header = next(source, "")
    delimiter = max(",;\t", key=header.count)
    names = next(csv.reader([header], delimiter=delimiter), [])
    places = _places(path, names)
    for row in csv.reader(source, delimiter=delimiter):
        fed = 0
        said = tuple(row[at].strip() for at in places if at < len(row) and row[at].strip())
        if said:
            yield said
        elif row:
            dropped[SHORT_ROWS] += 1


def _places(path: Path, names: Sequence[str]) -> list[int]:
    """Where a table's title and text stand. Raises BadCorpus where there is neither."""
    folded = [name.strip().casefold() for name in names]
    found = [next((folded.index(name) for name in group if name in folded), None) for group in (TITLES, BODIES)]
    places = list(dict.fromkeys(at for at in found if at is not None))
    if not places:
        shown = ", ".join(repr(name.strip()[:30]) for name in names[:8])
        raise BadCorpus(f"{path.name} has no column with texts; the first row is: {shown}.", "Name a column of the first row text.")
    return places


def _json_lines(path: Path, dropped: Counter[str]) -> Iterator[tuple[str, ...]]:
    for line in lines(path, dropped):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        said = _said(value)
        if said:
            yield said
        else:
            dropped[NOT_JSON] += 1


def _said(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value.strip() else ()
    if not isinstance(value, dict):
        return ()
    cells = [next((value[name] for name in group if isinstance(value.get(name), str)), "") for group in (TITLES, BODIES)]
    return tuple(cell for cell in cells if cell.strip())


def _parquet(path: Path, dropped: Counter[str]) -> Iterator[tuple[str, ...]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = [names[at] for at in _places(path, names)]
            for batch in file.iter_batches(batch_size=1000, columns=columns):
                for row in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
                    said = tuple(str(cell) for cell in row if cell is not None and str(cell).strip())
                    if said:
                        yield said
                    else:
                        dropped[SHORT_ROWS] += 1
    except (OSError, pa.ArrowException) as error:
        raise BadCorpus(f"{path.name} cannot be read as Parquet: {error}.", "Save it as CSV or plain text.") from error
