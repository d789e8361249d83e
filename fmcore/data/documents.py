"""Documents: what a source hands over, cleaned, or refused with a reason that is counted; and the one way into the table.

Owns the rows of `documents`: it adds them and never changes one. An item is taken in once, however often it comes. Which articles
tell the same story is sentiment's part; where items come from is the sources' part.
"""

from __future__ import annotations

import datetime as dt
import functools
import html
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from fmcore import clock, text
from fmcore.data import dates, links, tickers
from fmcore.nouns import Document, FMError
from fmcore.store.store import Store, Transaction

MAX_RAW = 200_000
"""Characters of a raw body that are looked at; what lies beyond is cut, and the document says so."""
MAX_TITLE = 500
MAX_TAGS = 5_000
"""HTML with more tags is stripped without being parsed: a parser takes quadratic time for tags nested that deep."""
BATCH = 2_000
"""Items a transaction."""
MAX_TOLD = 100
"""Refused items that an Intake names one by one; the rest are counted."""
LANGUAGES = re.findall(r"\w+", "ar cs da de el en es fi fr he hi hu id it ja ko nl no pl pt ro ru sv th tr uk vi zh")
EMPTY = "no title and no text"

_HIDDEN = re.compile(r"[\u0080-\u009f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_TAGS = "|".join(
    (
        "a|abbr|article|aside|b|big|blockquote|body|br|button|center|cite|code|div|em|embed|figcaption|figure|font|footer|form|h[1-6]",
        "head|header|hr|html|i|iframe|img|input|ins|label|li|link|main|meta|nav|noscript|object|ol|p|pre|q|s|script|section|small|span",
        "strike|strong|style|sub|sup|svg|table|tbody|td|template|textarea|tfoot|th|thead|time|title|tr|tt|u|ul|video|wbr",
    )
)
_TAG = re.compile(rf"</?(?:{_TAGS})(?:\s+[\w:-]+\s*=[^<>]*|\s*/?)>|<!--", re.IGNORECASE)
_BLOCK = re.compile(r"</?(?:p|div|br|li|h[1-6]|tr|td|th|ul|ol|table|section|article|blockquote|hr|figcaption)\b", re.IGNORECASE)
_WHOLE = re.compile(r"<(?:html|head|body)\b", re.IGNORECASE)
_ANY_TAG = re.compile(r"<[^<>]*>")
_UNSEEN = ["script", "style", "noscript", "template", "iframe", "object", "svg", "head", "textarea"]
_LETTERS = re.compile(r"[^\W\d_]")
_NO_WORDS = re.compile(r"https?://\S+|[@$#]\w+|\bRT\b")
_ENGLISH = frozenset(
    re.findall(
        r"\w+",
        "the and with from after its says were would this that you your are for new stock stocks shares market markets today trading "
        "news earnings report reports calls buy sell has have",
    )
)
"""Two of these words make a text English without asking the model, which would agree, thirty times slower."""


@dataclass(frozen=True)
class RawItem:
    """An item as a source has it, nothing checked. published: as written, an aware datetime, or None where the source has none.

    tickers: what the source says it is about. key: the source's own name for the item, which tells items without a link apart.
    outlet: who published it, where that is not the source itself (a replayed file, the demo stream).
    """

    url: str = ""
    title: str = ""
    body: str = ""
    published: str | dt.datetime | None = None
    tickers: Sequence[str] = ()
    key: str = ""
    outlet: str = ""


@dataclass(frozen=True)
class Intake:
    """What became of some items. refusals: count by reason; refused: (position, reason) of the first hundred refused items.

    n_undated items had no date and count from when they were seen; n_truncated were longer than is kept. newest_at: the newest
    date among the items that were not refused; outlets: who published them.
    """

    n_seen: int = 0
    n_new: int = 0
    n_known: int = 0
    n_refused: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    newest_at: dt.datetime | None = None
    n_undated: int = 0
    n_truncated: int = 0
    refused: tuple[tuple[int, str], ...] = ()
    outlets: tuple[str, ...] = ()

    def __add__(self, other: Intake) -> Intake:
        newest = [at for at in (self.newest_at, other.newest_at) if at]
        return Intake(
            **{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__ if name.startswith("n_")},
            refusals=dict(Counter(self.refusals) + Counter(other.refusals)),
            newest_at=max(newest, default=None),
            refused=(self.refused + other.refused)[:MAX_TOLD],
            outlets=tuple(sorted({*self.outlets, *other.outlets})),
        )


class NotTaken(FMError):
    """An item that is refused; `message` is the reason as it is counted."""


def take_in(
    store: Store,
    items: Iterable[RawItem],
    *,
    source: str,
    synthetic: bool = False,
    now: dt.datetime | None = None,
    zone: str | None = None,
    also: Callable[[Transaction, Intake], None] | None = None,
) -> Intake:
    """Clean items and store those that are new, in transactions of BATCH items; taking the same items in again adds nothing.

    now: when they are seen. zone: the zone of dates that name none (an IANA name); without it such dates are refused. also(tx,
    what became of all items) runs in the last transaction, for what must be stored with it or not at all. Raises StoreError.
    """
    seen_at = now or clock.now()
    book = tickers.book()
    total = Intake()
    waiting = iter(items)
    batch = list(itertools.islice(waiting, BATCH))
    while True:
        following = list(itertools.islice(waiting, BATCH))
        documents, part = _cleaned(batch, source=source, synthetic=synthetic, seen_at=seen_at, zone=zone, book=book, first=total.n_seen)
        last = also if not following else None
        if documents or last:
            with store.write() as tx:
                n_new = _add(tx, documents)
                total += replace(part, n_new=n_new, n_known=part.n_seen - part.n_refused - n_new)
                if last:
                    last(tx, total)
        else:
            total += part
        if not following:
            return total
        batch = following


def clean(
    item: RawItem, *, source: str, seen_at: dt.datetime, synthetic: bool = False, zone: str | None = None, book: tickers.Book | None = None
) -> Document:
    """One item as a document: text without markup, canonical link, language, tickers, a date in UTC. Raises NotTaken."""
    outlet = text.clean(item.outlet, limit=80)[0].strip() or source
    try:
        url = links.canonical(item.url.strip()) if item.url and item.url.strip() else ""
        published_at = seen_at if _is_missing(item.published) else dates.place(item.published, seen_at=seen_at, zone=zone)
    except (links.BadLink, dates.BadDate) as error:
        raise NotTaken(error.message) from None
    title, cut_title = plain(item.title, limit=MAX_TITLE)
    body, cut_body = plain(item.body, limit=text.MAX_CHARS, lines=True)
    if not title:
        title = _opening(body)
        body = "" if title == body else body
    if not title:
        raise NotTaken(EMPTY)
    read = f"{title}\n{body}" if body else title
    given = [name for name in map(tickers.normal, item.tickers or ()) if name]
    return Document(
        id=_identity(item, outlet, url, title, body),
        source=outlet,
        url=url,
        title=title,
        body=body,
        language=language(read),
        tickers=tuple(dict.fromkeys([*given, *(book or tickers.book()).find(read)]))[: tickers.MAX_TICKERS],
        published_at=published_at,
        seen_at=seen_at,
        truncated=cut_title or cut_body,
        synthetic=synthetic,
    )


def plain(raw: object, *, limit: int, lines: bool = False) -> tuple[str, bool]:
    """(text, truncated) of text or HTML: no markup, scripts or entities, no invisible characters; line breaks only with lines=True."""
    if not isinstance(raw, str):
        raw, _ = text.clean(raw, limit=MAX_RAW)
    truncated = len(raw) > MAX_RAW
    words = raw[:MAX_RAW]
    for _ in range(2):  # feeds often carry HTML that was escaped once too often
        if "<" in words and _TAG.search(words):
            words = _without_tags(words)
        elif "&" in words:
            words = html.unescape(words)
        else:
            break
    words = _HIDDEN.sub("", words)
    words = "\n".join(line for part in words.splitlines() if (line := " ".join(part.split()))) if lines else " ".join(words.split())
    words, cut = text.clean(words, limit=limit)
    return words.strip(), truncated or cut


def language(words: str) -> str:
    """ISO 639-1 guess of a text's language; "und" for a text of fewer than 20 letters."""
    start = _NO_WORDS.sub("", words[:300])[:120]
    if len(_LETTERS.findall(start)) < 20:
        return "und"
    if len(_ENGLISH.intersection(start.lower().split())) > 1:
        return "en"
    return _identifier().classify(start)[0]


@functools.lru_cache(maxsize=1)
def _identifier() -> Any:
    """The language model, kept to the languages that news comes in: among all it knows, a short English text is often pidgin."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE)
    model.set_languages(LANGUAGES)
    return model


def _without_tags(raw: str) -> str:
    """The text of HTML as a reader sees it; block elements begin a new line."""
    from selectolax.lexbor import LexborHTMLParser

    broken = _BLOCK.sub(lambda tag: "\n" + tag[0], raw)
    if raw.count("<") > MAX_TAGS:
        return html.unescape(_ANY_TAG.sub(" ", broken))
    tree = LexborHTMLParser(broken if _WHOLE.search(broken[:2_000]) else f"<body>{broken}")
    tree.strip_tags(_UNSEEN, recursive=True)
    return tree.root.text() if tree.root else ""


def _opening(body: str) -> str:
    """The start of a text as its title: all of it when short, else to the end of the last sentence or word that fits."""
    first = " ".join(body[: 2 * MAX_TITLE].split())
    if len(first) <= 280:
        return first
    start = first[:200]
    end = max(start.rfind(mark) for mark in (". ", "! ", "? "))
    return start[: end + 1] if end > 40 else start.rsplit(" ", 1)[0] + " …"


def _is_missing(published: object) -> bool:
    return published is None or (isinstance(published, str) and not published.strip())


def _identity(item: RawItem, outlet: str, url: str, title: str, body: str) -> str:
    """The hash that makes two items one document. Without a link: the source's key; without both, what it says and when."""
    if url:
        parts = ("link", outlet, links.identity(url), title)
    elif item.key:
        parts = ("key", outlet, str(item.key))
    else:
        parts = ("text", outlet, title, body, "" if _is_missing(item.published) else str(item.published))
    return text.text_hash("\x1f".join(parts))


def _cleaned(batch: list[RawItem], *, first: int, source: str, **how) -> tuple[list[Document], Intake]:
    """The documents of a batch, and what became of its items but for whether they are new. first: position of its first item."""
    documents, refused, refusals = [], [], Counter()
    n_undated = 0
    for n, item in enumerate(batch, first):
        try:
            documents.append(clean(item, source=source, **how))
        except NotTaken as error:
            refusals[error.message] += 1
            if len(refused) < MAX_TOLD:
                refused.append((n, error.message))
        else:
            n_undated += _is_missing(item.published)
    return documents, Intake(
        n_seen=len(batch),
        n_refused=sum(refusals.values()),
        refusals=dict(refusals),
        newest_at=max((d.published_at for d in documents), default=None),
        n_undated=n_undated,
        n_truncated=sum(d.truncated for d in documents),
        refused=tuple(refused),
        outlets=tuple(sorted({d.source for d in documents})),
    )


def _add(tx: Transaction, documents: list[Document]) -> int:
    """Insert the documents that are not there yet, in their order; returns how many were not."""
    fresh = {d.id: d for d in reversed(documents)}
    if fresh:
        known = tx.execute("SELECT id FROM documents WHERE id IN (SELECT unnest(?))", [list(fresh)])
        for (document_id,) in known:
            fresh.pop(document_id, None)
    kept = _without_twins(tx, [d for d in documents if fresh.get(d.id) is d])
    if kept:
        tx.insert_frame("documents", _frame(kept))
    return len(kept)


def _without_twins(tx: Transaction, documents: list[Document]) -> list[Document]:
    """Leave out what another document says word for word under the same path of the same source: only the query differs."""
    asking = [d for d in documents if "?" in d.url]
    if not asking:
        return documents
    low = min(d.published_at for d in asking) - dt.timedelta(days=3)
    high = max(d.published_at for d in asking) + dt.timedelta(days=3)
    sql = """SELECT source, split_part(url, '?', 1), title, body FROM documents
             WHERE published_at BETWEEN ? AND ? AND title IN (SELECT unnest(?))"""
    seen = set(tx.execute(sql, [clock.to_store(low), clock.to_store(high), list({d.title for d in asking})]))
    kept = []
    for document in documents:
        told = (document.source, document.url.partition("?")[0], document.title, document.body)
        if "?" not in document.url or told not in seen:
            kept.append(document)
            seen.add(told)
    return kept


def _frame(documents: list[Document]) -> pd.DataFrame:
    """Rows for the table: columns as in the schema, times naive UTC, tickers as lists."""
    columns = {name: [getattr(d, name) for d in documents] for name in Document.__dataclass_fields__}
    for name in ("published_at", "seen_at"):
        columns[name] = pd.Series([clock.to_store(at) for at in columns[name]], dtype="datetime64[us]")
    columns["tickers"] = [list(names) for names in columns["tickers"]]
    return pd.DataFrame(columns)
