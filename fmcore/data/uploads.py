"""CSV in and out: messages that a person brings, and the one way tables leave.

Reading is bounded in bytes and rows and ends either in a frame or in an UploadError that says what was found. Writing makes
every cell harmless in a spreadsheet. Nothing here knows about models or pages.
"""

from __future__ import annotations

import csv
import io
import stat
from pathlib import Path

import pandas as pd

from fmcore import text
from fmcore.nouns import FMError

MAX_BYTES = 5_000_000
MAX_ROWS = 100_000
TEXT_NAMES = ("text", "message", "utterance", "sentence", "query")
LABEL_NAMES = ("label", "intent", "category", "class")
SOURCE_NAMES = ("source", "channel", "origin")
_DELIMITERS = (",", ";", "\t")
csv.field_size_limit(2**31 - 1)  # one limit for the whole process; what bounds a cell here is max_bytes
_MAGIC = {
    b"PK\x03\x04": "an Excel workbook or a zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF",
    b"PAR1": "a Parquet file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}


class UploadError(FMError):
    """A file that cannot be read as a table of messages."""


def read_messages(
    source: bytes | Path, *, need_label: bool = False, with_source: bool = False, max_bytes: int = MAX_BYTES, max_rows: int = MAX_ROWS
) -> pd.DataFrame:
    """The messages of a CSV file: columns text and, when the file has one or it is needed, label; every cell a string.

    with_source: also the column source, when the file has one.

    The delimiter (comma, semicolon, tab), the encoding (kept in `frame.attrs["encoding"]`) and the usual column names are
    recognised; other columns are left out. Raises UploadError, and nothing else, on whatever else the bytes may be.
    """
    raw = bytes_of(source, max_bytes)
    content, encoding = decode(raw)
    header, rows = table(content, max_rows)
    named = [name.strip().casefold() for name in header]
    at_text, at_label = column(named, TEXT_NAMES), column(named, LABEL_NAMES)
    found = "the first row is: " + ", ".join(repr(name.strip()[:30]) for name in header[:8])
    if at_text is None:
        raise UploadError(f"There is no column with messages; {found}.", f"Name a column of the first row {names_of(TEXT_NAMES)}.")
    if need_label and at_label is None:
        raise UploadError(f"There is no column with labels; {found}.", f"Name a column of the first row {names_of(LABEL_NAMES)}.")
    wanted = {"text": at_text} | ({"label": at_label} if at_label is not None else {})
    at_source = column(named, SOURCE_NAMES) if with_source else None
    wanted |= {"source": at_source} if at_source is not None else {}
    short = next((n for n, row in enumerate(rows, 1) if len(row) <= max(wanted.values())), None)
    if short:
        raise UploadError(
            f"Data row {short} has {len(rows[short - 1])} cells; the first row promises {len(header)}.",
            "Put quotes around texts that contain the delimiter or line breaks, and fill every row.",
        )
    frame = pd.DataFrame({name: [row[at] for row in rows] for name, at in wanted.items()}, dtype="str")
    frame.attrs["encoding"] = encoding
    return frame


def to_csv(frame: pd.DataFrame, *, spreadsheet_safe: bool = True) -> bytes:
    """A table as UTF-8 CSV: the only export of FM Desk. Cells and headers that a spreadsheet would run get a leading '.

    With spreadsheet_safe=False texts are written as they are, so that `read_messages` gives them back unchanged.
    """
    guard = text.spreadsheet_safe if spreadsheet_safe else lambda cell: cell
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([guard(str(name)) for name in frame.columns])
    for row in frame.itertuples(index=False, name=None):
        cells = ["" if cell is None or cell is pd.NA or cell != cell else guard(cell) for cell in row]
        # A row of one empty cell would be a blank line, which every reader skips.
        out.write('""\r\n') if cells == [""] else writer.writerow(cells)
    return out.getvalue().encode("utf-8", "replace")


def decode(raw: bytes) -> tuple[str, str]:
    """(text, encoding): UTF-8 or UTF-16 by its byte order mark, else UTF-8, else Latin-1. Raises UploadError on what is no text."""
    refuse_other_kinds(raw)
    try:
        if raw.startswith(b"\xef\xbb\xbf"):
            content, encoding = raw.decode("utf-8-sig"), "UTF-8 with a byte order mark"
        elif raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            content, encoding = raw.decode("utf-16"), "UTF-16"
        else:
            content, encoding = _without_mark(raw)
    except UnicodeDecodeError as error:
        what = f"The file says it is {error.encoding} and is not: {error.reason} at byte {error.start}."
        raise UploadError(what, "Save it as UTF-8.") from error
    if "\x00" in content:
        raise UploadError("The file holds NUL bytes: it is a binary file, or UTF-16 without its mark.", "Save the table as CSV (UTF-8).")
    return content, encoding


def refuse_other_kinds(head: bytes) -> None:
    """Raises UploadError where the first bytes of a file are those of a workbook, an archive, a picture or their like."""
    kind = next((what for magic, what in _MAGIC.items() if head.startswith(magic)), None)
    if kind:
        raise UploadError(f"This is {kind}, not a CSV file.", "Save the table as CSV (UTF-8) and choose that file.")


def _without_mark(raw: bytes) -> tuple[str, str]:
    try:
        return raw.decode("utf-8"), "UTF-8"
    except UnicodeDecodeError:
        return raw.decode("latin-1"), "Latin-1"


def bytes_of(source: bytes | Path, max_bytes: int) -> bytes:
    """The file's bytes, never more than max_bytes of them in memory. Raises UploadError."""
    if isinstance(source, Path):
        try:
            if not stat.S_ISREG(source.stat().st_mode):
                raise UploadError(f"{source.name!r} is not a plain file.", "Choose a CSV file.")
            with source.open("rb") as file:
                source = file.read(max_bytes + 1)
        except (OSError, ValueError) as error:
            raise UploadError(f"The file {source.name!r} cannot be read: {error}.", "Check the path and its permissions.") from error
    if len(source) > max_bytes:
        raise UploadError(f"The file is larger than {max_bytes / 1e6:.0f} MB.", "Split it, or use python -m fmcore predict.")
    if not source.strip():
        raise UploadError("The file is empty.", "Choose a CSV file with a header and at least one row.")
    return source


def table(content: str, max_rows: int) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of a CSV text, lines without anything on them left out. Raises UploadError."""
    delimiter = delimiter_of(content)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    try:
        for row in reader:
            if row and not (rows and len(row) < len(rows[0]) and not "".join(row).strip()):
                rows.append(row)
            if len(rows) > max_rows + 1:
                raise UploadError(f"The file has more than {max_rows:,} rows.", "Split it, or use python -m fmcore predict.")
    except csv.Error as error:
        raise UploadError(
            f"The CSV breaks off near line {reader.line_num}: {error}.",
            "Most often a quotation mark is not closed, or not doubled inside a quoted text.",
        ) from error
    if len(rows) < 2:
        raise UploadError("The file has a header and no rows." if rows else "The file has no rows.", "Add at least one message.")
    return rows[0], rows[1:]


def delimiter_of(content: str) -> str:
    """The delimiter that the first line uses most; a header without any has one column, for which a comma does."""
    first = content.lstrip("\r\n")[:10_000].splitlines()[:1]
    return max(_DELIMITERS, key=lambda mark: first[0].count(mark)) if first else ","


def column(named: list[str], accepted: tuple[str, ...]) -> int | None:
    return next((named.index(name) for name in accepted if name in named), None)


def names_of(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
