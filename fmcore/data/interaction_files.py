"""Files of interactions: a data set of the catalogue or a person's own CSV, into Interactions.

Owns the formats: which column is what, how a time is written, what a row that does not fit costs. A file is read in blocks, so what
is in memory is bounded by the rows, never by what stands beside them. How rows are cleaned is interactions.py's part; nothing here
opens a connection.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import hashlib
import io
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from fmcore.data import catalogue, demo_shop, uploads
from fmcore.data.catalogue import BadData
from fmcore.data.interactions import MAX_ITEMS, MAX_USERS, Interactions, build, note

MAX_ROWS = 20_000_000
"""More are refused. Reading costs about 100 bytes of memory a row at its peak and 2 microseconds (ISO times: 7)."""
MAX_FILE_BYTES = 4_000_000_000
MAX_ITEM_BYTES = 200_000_000
BLOCK_BYTES = 8_000_000
"""What is read at once, and so the longest a row may be."""
MOST_WAIT_S = 2.0
"""For a reader to be let go by the thread that read ahead for it."""
USER_NAMES = ("user", "user_id", "userid", "customer", "customer_id", "visitor", "visitor_id", "who")
ITEM_NAMES = ("item", "item_id", "itemid", "movieid", "product", "product_id", "article", "article_id")
TIME_NAMES = ("timestamp", "time", "date", "datetime", "at", "happened_at", "created_at")
RATING_NAMES = ("rating", "stars", "score")
TITLE_NAMES = ("title", "name", "headline")
TEXT_NAMES = ("text", "description", "summary", "body")
_ARTICLE = re.compile(r"^([^(]+), (The|A|An|Les|La|Le|Il|Das|Der|Die|El) \(")
_YEAR = re.compile(r"\((\d{4})\)\s*$")
_GENRES = {"Sci-Fi": "science fiction", "Film-Noir": "film noir", "Children": "children's", "(no genres listed)": ""}


def load(name_or_path: str | Path, *, items_path: str | Path | None = None) -> Interactions:
    """A data set of the catalogue by name, or a CSV file user,item,timestamp[,rating] by path, cleaned.

    items_path: a CSV file item,title,text that says what the items are; items that nobody has met yet may stand in it. Without it a
    file of that kind beside the log is taken, shop-items.csv for shop.csv. Raises the catalogue's errors, and BadData with what is
    wrong with a file and what to do.
    """
    if isinstance(name_or_path, str) and catalogue.is_name(name_or_path):
        entry = catalogue.present(name_or_path)
        if entry.name not in _READERS:
            known = ", ".join(d.name for d in catalogue.datasets(use="recommend"))
            what = catalogue.USES[entry.use]
            raise BadData(f"{entry.title} holds no interactions: {what}.", f"Sets for recommendations: {known}; or a CSV file.")
        return _READERS[entry.name](entry.path)
    path = catalogue.csv_file(name_or_path)
    rows, notes = read_rows(path)
    beside = path.with_name(f"{path.stem}-items{path.suffix}")
    if items_path is None and beside.is_file():
        items_path = beside
        notes.append(f"What the items are is read from {beside.name}.")
    items = None if items_path is None else read_items(catalogue.csv_file(items_path))
    return build(rows, name=own_name(path), items=items, licence="your own", notes=notes)


def own_name(path: Path) -> str:
    """What a file's log is called: its name, and six letters of where it lies, so that two files of one name are two logs."""
    return f"{path.stem[:60] or 'csv'}-{hashlib.blake2b(str(path.resolve()).encode('utf-8', 'replace'), digest_size=3).hexdigest()}"


def read_rows(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """(rows as `interactions.build` takes them, what was left out of them) of a CSV file. Raises BadData."""
    with _named(path):
        encoding = _checked(path)
        names, delimiter, n_above = _header(path, encoding)
        folded = [name.strip().strip("\ufeff").casefold().replace(" ", "_") for name in names]
        places = {key: uploads.column(folded, accepted) for key, accepted in _COLUMNS.items()}
        lacking = [key for key in ("user", "item", "timestamp") if places[key] is None]
        if lacking:
            found = ", ".join(repr(name.strip()[:30]) for name in names[:8])
            raise BadData(f"There is no column {' and no column '.join(lacking)}; the first row is: {found}.", "Name the columns so.")
        wanted = {key: str(at) for key, at in places.items() if at is not None}
        layout = _Layout([str(n) for n in range(len(names))], wanted, delimiter, encoding, n_above + 1)
        return _read(path, layout)


def read_items(path: Path) -> pd.DataFrame:
    """The catalogue of a CSV file, columns item, title, text ("" where there is none). Raises BadData."""
    with _named(path):
        content, _ = uploads.decode(uploads.bytes_of(path, MAX_ITEM_BYTES))
        header, rows = uploads.table(content, MAX_ITEMS)
        folded = [name.strip().casefold().replace(" ", "_") for name in header]
        places = {key: uploads.column(folded, names) for key, names in (("item", ITEM_NAMES), ("title", TITLE_NAMES), ("text", TEXT_NAMES))}
        if places["item"] is None or (places["title"] is None and places["text"] is None):
            found = ", ".join(repr(name.strip()[:30]) for name in header[:8])
            raise BadData(f"The columns item and title (or text) are needed; the first row is: {found}.", "Name the columns so.")
        cells = {key: [row[at] if at is not None and at < len(row) else "" for row in rows] for key, at in places.items()}
        return pd.DataFrame(cells, dtype="str")


# ---------------------------------------------------------------- blocks

_COLUMNS = {"user": USER_NAMES, "item": ITEM_NAMES, "timestamp": TIME_NAMES, "rating": RATING_NAMES}


@dataclass(frozen=True)
class _Layout:
    """How a file is cut: names of all its columns, field -> name of the column that holds it, delimiter, rows above the first one."""

    names: Sequence[str]
    wanted: dict[str, str]
    delimiter: str
    encoding: str
    n_above: int
    quoted: bool = True


@dataclass
class _Held:
    """What was read so far: codes and numbers a block, and the ids that the codes mean."""

    users: dict[str, int] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    n: int = 0
    n_unfit: int = 0
    n_unrated: int = 0


def _read(path: Path, layout: _Layout) -> tuple[pd.DataFrame, list[str]]:
    held = _Held()
    for batch in _batches(path, layout, held):
        at = _seconds(batch.column("timestamp"))
        rating = np.full(len(at), np.nan, np.float32)
        if "rating" in batch.schema.names:
            rating = _ratings(batch.column("rating"))
            held.n_unrated += int(np.isnan(rating).sum())
        held.blocks.append((_coded(batch.column("user"), held.users), _coded(batch.column("item"), held.items), at, rating))
        held.n += len(at)
        for what, n, most in (("rows", held.n, MAX_ROWS), ("users", len(held.users), MAX_USERS), ("items", len(held.items), MAX_ITEMS)):
            if n > most:
                raise BadData(f"It has more than {most:,} {what}.", f"Keep the latest rows, or leave out the rarest {what}.")
    if not held.n:
        what = f"None of its {held.n_unfit:,} rows fits the header." if held.n_unfit else "It has a header and no rows."
        raise BadData(what, "Each row needs a user, an item and a time.")
    columns = [np.concatenate(parts) for parts in zip(*held.blocks, strict=True)]
    held.blocks.clear()
    coded = {key: pd.Categorical.from_codes(codes, list(ids)) for key, codes, ids in (
        ("user", columns[0], held.users), ("item", columns[1], held.items))}  # fmt: skip
    rows = pd.DataFrame({**coded, "at": columns[2]}) if "rating" not in layout.wanted else pd.DataFrame(
        {**coded, "at": columns[2], "rating": columns[3]})  # fmt: skip
    notes = note(held.n_unfit, "with too few or too many cells")
    notes += [f"Ratings that cannot be read: {held.n_unrated:,}; their rows are kept as meetings."] if held.n_unrated else []
    return rows, notes


def _batches(path: Path, layout: _Layout, held: _Held) -> Iterator[pa.RecordBatch]:
    """The wanted columns block by block; ids as dictionaries, so that a repeated id costs its number only."""

    def unfit(_row: pyarrow.csv.InvalidRow) -> str:
        held.n_unfit += 1
        return "skip"

    kinds = {"user": pa.dictionary(pa.int32(), pa.string()), "item": pa.dictionary(pa.int32(), pa.string()),
             "timestamp": pa.string(), "rating": pa.dictionary(pa.int32(), pa.string())}  # fmt: skip
    let_go = threading.Event()
    weakref.finalize(unfit, let_go.set)
    reader = None
    try:
        reader = pyarrow.csv.open_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, block_size=BLOCK_BYTES, column_names=layout.names, skip_rows_after_names=layout.n_above,
                encoding=layout.encoding,
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=layout.delimiter, quote_char='"' if layout.quoted else False, newlines_in_values=layout.quoted,
                invalid_row_handler=unfit,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=list(layout.wanted.values()), strings_can_be_null=False, check_utf8=False,
                column_types={column: kinds[key] for key, column in layout.wanted.items()},
            ),
        )  # fmt: skip
        with reader:
            for batch in reader:
                yield batch.rename_columns(list(layout.wanted))
    finally:
        del reader, unfit
        let_go.wait(MOST_WAIT_S)  # Arrow's own thread holds it a moment longer, and aborts a process that ends meanwhile


def _coded(column: pa.DictionaryArray, codes: dict[str, int]) -> np.ndarray:
    """int32 codes of a block's ids, which learn the new ones."""
    to = np.array([codes.setdefault(one, len(codes)) for one in column.dictionary.to_pylist()], dtype=np.int32)
    return to[column.indices.to_numpy(zero_copy_only=False)] if len(to) else np.zeros(0, np.int32)


def _ratings(column: pa.DictionaryArray) -> np.ndarray:
    """float32, NaN where there is no finite number."""
    read = pd.to_numeric(pd.Series(column.dictionary.to_pylist(), dtype="str"), errors="coerce").to_numpy(dtype=np.float32)
    read = np.where(np.isfinite(read), read, np.nan).astype(np.float32)
    return read[column.indices.to_numpy(zero_copy_only=False)] if len(read) else np.zeros(0, np.float32)


def _seconds(column: pa.Array) -> np.ndarray:
    """float64 seconds since 1970, NaN where a time cannot be read.

    A number is seconds, or by its size milliseconds (from 1e11, as seconds the year 5138), microseconds (1e14) or nanoseconds (1e17);
    a text is ISO 8601, in UTC where it names no zone.
    """
    try:
        at = column.cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.float64)
    except pa.ArrowInvalid:
        written = column.to_pandas().astype("str").str.strip()
        at = pd.to_numeric(written, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan).copy()
        at[~np.isfinite(at)] = np.nan
        text = np.isnan(at)
        moments = pd.to_datetime(
            written[text].str.replace(r"\s*(?:UTC|GMT)$", "Z", regex=True), utc=True, errors="coerce", format="ISO8601"
        )
        whole = moments.dt.as_unit("us").astype("int64").to_numpy(dtype=np.float64) / 1e6
        at[text] = np.where(moments.isna(), np.nan, whole)
        numeric = ~text
    else:
        numeric = np.ones(len(at), bool)
    size = np.abs(at)
    unit = np.select([size >= 1e17, size >= 1e14, size >= 1e11], [1e9, 1e6, 1e3], 1.0)
    return np.where(numeric, at / unit, at)


# ---------------------------------------------------------------- before the rows


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """What goes wrong with a file becomes BadData that names it."""
    try:
        yield
    except (BadData, uploads.UploadError) as error:
        raise BadData(f"{path.name}: {error.message}", error.hint) from error
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        if "straddl" in str(error):
            hint = "Most often a quotation mark is not closed, or not doubled inside a quoted text."
            raise BadData(f"{path.name}: a row is longer than {BLOCK_BYTES / 1e6:.0f} MB.", hint) from error
        raise BadData(f"{path.name} cannot be read: {str(error)[:200]}.", "Save the table as CSV (UTF-8).") from error


def _checked(path: Path) -> str:
    """A file's encoding, after a look at every byte of it: plain, bounded, text, and every quotation mark closed. Raises BadData."""
    n_bytes = path.stat().st_size
    if n_bytes > MAX_FILE_BYTES:
        raise BadData(f"It is larger than {MAX_FILE_BYTES / 1e9:.0f} GB.", "Keep the latest rows, or fewer users.")
    with path.open("rb") as file:
        head = file.read(4)
        if not head:
            raise BadData("It is empty.", "Write a header user,item,timestamp and a row for each meeting.")
        file.seek(0)
        encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
        uploads.refuse_other_kinds(head)
        decoder = codecs.getincrementaldecoder(encoding)()
        n_quotes = 0
        for chunk in iter(lambda: file.read(1 << 20), b""):
            n_quotes += chunk.count(b'"') if encoding != "utf-16" else decoder.decode(chunk).count('"')
            if encoding != "utf-16" and b"\x00" in chunk:
                raise BadData("It holds NUL bytes: it is a binary file, or UTF-16 without its mark.", "Save the table as CSV (UTF-8).")
            if encoding == "utf-8":
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError:
                    encoding = "latin-1"
    if n_quotes % 2:
        hint = "Close it, or double a mark inside a quoted text."
        raise BadData("A quotation mark is not closed: there is an odd number of them.", hint)
    return encoding


def _header(path: Path, encoding: str) -> tuple[list[str], str, int]:
    """(names, delimiter, blank lines above them) of the first line with anything on it."""
    with path.open(encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="") as file:
        head = file.read(100_000)
    above = head[: len(head) - len(head.lstrip("\r\n"))]
    head = head[len(above) :]
    delimiter = uploads.delimiter_of(head)
    lines = io.StringIO(head, newline="")
    names = next(csv.reader(lines, delimiter=delimiter), [])
    if not "".join(names).strip():
        raise BadData("It is empty.", "Write a header user,item,timestamp and a row for each meeting.")
    if not lines.read().strip():
        raise BadData("It has a header and no rows.", "Each row needs a user, an item and a time.")
    return names, delimiter, len(above.splitlines())


# ---------------------------------------------------------------- data sets


def _movielens_small(folder: Path) -> Interactions:
    """ml-latest-small. Its tags stay out: only who saw a film tags it, so a tag would tell who it is that a test asks about."""
    rows, notes = read_rows(folder / "ratings.csv")
    films = _films(_cells(folder / "movies.csv"))
    return build(rows, name="movielens", items=films, licence=catalogue.dataset("movielens").licence, notes=notes)


def _movielens_1m(folder: Path) -> Interactions:
    """ml-1m: `::` between the fields, latin-1."""
    layout = _Layout(list("u_i-r~t"), {"user": "u", "item": "i", "timestamp": "t", "rating": "r"}, ":", "latin-1", 0, quoted=False)
    with _named(folder / "ratings.dat"):
        rows, notes = _read(folder / "ratings.dat", layout)
    with _named(folder / "movies.dat"):
        lines = (folder / "movies.dat").read_text(encoding="latin-1").splitlines()
        films = _films([line.split("::") for line in lines if line.strip()])
    return build(rows, name="ml-1m", items=films, licence=catalogue.dataset("ml-1m").licence, notes=notes)


def _cells(path: Path) -> list[list[str]]:
    with _named(path):
        content, _ = uploads.decode(uploads.bytes_of(path, MAX_ITEM_BYTES))
        return uploads.table(content, MAX_ITEMS)[1]


def _films(rows: Sequence[Sequence[str]]) -> pd.DataFrame:
    """MovieLens' id, title, genres as item, title, text: the article in front, the genres and the year as words. Raises BadData."""
    if any(len(row) < 3 for row in rows):
        raise BadData("A film has fewer than 3 fields.", "Compare the file with the publisher's.")
    titles = [_ARTICLE.sub(r"\2 \1 (", title.strip()) for _, title, *_ in rows]
    texts = []
    for title, (_, _, genres, *_) in zip(titles, rows, strict=True):
        words = [word for genre in genres.strip().split("|") if (word := _GENRES.get(genre, genre.lower()))]
        year = _YEAR.search(title)
        texts.append(f"{', '.join(words)} film{f' of {year[1]}' if year else ''}".strip().capitalize())
    return pd.DataFrame({"item": [row[0] for row in rows], "title": titles, "text": texts}, dtype="str")


_READERS: dict[str, Callable[[Path], Interactions]] = {
    "demo_shop": lambda _folder: demo_shop.load(),
    "movielens": _movielens_small,
    "ml-1m": _movielens_1m,
}
