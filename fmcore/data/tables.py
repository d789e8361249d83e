"""Tables that a person brings: documents as CSV or JSON lines, into items.

Column names are recognised, never guessed from content; a table that lacks what is needed, or whose rows do not fit its header, is
refused with what was found. What the cells hold is documents.py's part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fmcore.data import uploads
from fmcore.data.documents import RawItem
from fmcore.data.uploads import UploadError

MAX_ROWS = 100_000
NAMES: dict[str, tuple[str, ...]] = {
    "published": ("published_at", "published", "pubdate", "date", "datetime", "timestamp", "time", "created_at"),
    "title": ("title", "headline", "text", "message", "tweet", "sentence"),
    "body": ("body", "content", "description", "summary", "article", "text"),
    "url": ("url", "link", "href", "address"),
    "outlet": ("source", "outlet", "publisher", "provider"),
    "tickers": ("tickers", "ticker", "symbols", "symbol"),
    "key": ("key", "id", "doc_id", "guid"),
}
"""Field of an item -> the column names that mean it, the likeliest first."""
_MANY = re.compile(r"[\s,;|]+")


def read_documents(raw: bytes, *, max_bytes: int = uploads.MAX_BYTES, max_rows: int = MAX_ROWS) -> list[RawItem]:
    """The items of a CSV or JSON lines file, in its order; one of the columns title, text or body is needed.

    A missing date column means that all items count from when they are seen. Raises UploadError, and nothing else.
    """
    header, rows = _rows(uploads.bytes_of(raw, max_bytes), max_rows)
    named = columns_of(header)
    if not {"title", "body"} & set(named):
        found = ", ".join(repr(name.strip()[:30]) for name in header[:8])
        raise UploadError(f"There is no column with texts; the first row is: {found}.", "Name one title, text or body.")
    return items_of(rows, named)


def columns_of(header: Sequence[str]) -> dict[str, int]:
    """Which field of an item stands in which column; no column serves twice."""
    folded = [name.strip().strip("\ufeff").casefold().replace(" ", "_") for name in header]
    named: dict[str, int] = {}
    for field, accepted in NAMES.items():
        at = next((folded.index(name) for name in accepted if name in folded), None)
        if at is not None and at not in named.values():
            named[field] = at
    return named


def items_of(rows: Iterable[Sequence[str]], named: Mapping[str, int]) -> list[RawItem]:
    """Rows as items, by the columns that columns_of found."""
    items = []
    for row in rows:
        cells = {field: row[at] for field, at in named.items()}
        cells["tickers"] = tuple(filter(None, _MANY.split(cells.get("tickers", ""))))
        if "published" in cells:
            cells["published"] = cells["published"] or None
        items.append(RawItem(**cells))
    return items


def _rows(raw: bytes, max_rows: int) -> tuple[list[str], list[list[str]]]:
    """(header, rows), every row as long as the header or longer. Raises UploadError."""
    content, _ = uploads.decode(raw)
    if content.lstrip()[:1] in ("{", "["):
        return _json_rows(content, max_rows)
    header, rows = uploads.table(content, max_rows)
    short = next((n for n, row in enumerate(rows, 1) if len(row) != len(header)), None)
    if short:
        raise UploadError(
            f"Data row {short} has {len(rows[short - 1])} cells; the first row promises {len(header)}.",
            "Put quotes around texts that contain the delimiter or line breaks, and fill every row.",
        )
    return header, rows


def _json_rows(content: str, max_rows: int) -> tuple[list[str], list[list[str]]]:
    """The rows of JSON lines, or of one JSON array of objects."""
    if content.lstrip().startswith("["):
        objects = _loaded(content, "The file")
        lines = list(enumerate(objects, 1)) if isinstance(objects, list) else []
    else:
        lines = [(n, _loaded(line, f"Line {n}")) for n, line in enumerate(content.splitlines(), 1) if line.strip()]
    if len(lines) > max_rows:
        raise UploadError(f"The file has more than {max_rows:,} rows.", "Split it.")
    wrong = next((n for n, row in lines if not isinstance(row, dict)), None)
    if wrong or not lines:
        raise UploadError(
            f"Line {wrong or 1} is not a JSON object.", 'Write one object a line, such as {"title": "...", "published_at": "..."}.'
        )
    header = list(dict.fromkeys(str(name) for _, row in lines for name in row))
    return header, [[_cell(row.get(name)) for name in header] for _, row in lines]


def _loaded(written: str, where: str) -> Any:
    try:
        return json.loads(written, parse_constant=_as_written)
    except (ValueError, RecursionError) as error:
        raise UploadError(f"{where} is not JSON: {str(error)[:120]}.", "Write one object a line.") from error


_as_written: Callable[[str], str] = str
"""NaN and Infinity are not JSON: they stay words, and a date or a number that reads so is refused where it is used."""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(str(part) for part in value)
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, dict) else str(value)
