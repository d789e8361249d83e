"""Feeds: the bytes of an RSS or Atom feed, into items.

Takes bytes only: the parser would open a path or a URL that it was given as text. A document type or an entity declaration is refused
before any parser sees it (XML bombs, files and addresses pulled in), as is what nests too deep or holds too many elements. What the
items hold is as hostile as before: documents.py cleans it. Opens no connection and no file.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin
from xml.parsers import expat

from fmcore.data.documents import RawItem
from fmcore.nouns import FMError

MAX_BYTES = 5_000_000
MAX_ITEMS = 1_000
MAX_DEPTH = 60
MAX_ELEMENTS = 200_000
MAX_BROKEN_BYTES = 200_000
"""A feed that is not well-formed XML goes through a much slower parser: only a small one does."""

_DECLARES = re.compile(rb"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_PAGE = re.compile(
    rb"^\s*(?:<!--(?:(?!-->).)*-->\s*|<\?xml[^>]*\?>\s*)*(?:<!doctype\s+html|<html\b|<head\b|<body\b)", re.IGNORECASE | re.DOTALL
)
_DECLARED = re.compile(r"^\s*<\?xml[^>]*?\?>")
_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_TEXT_ENCODINGS = re.compile(
    r"utf-?8|utf-?16(?:-?[lb]e)?|us-ascii|ascii|latin-?1|iso-?8859-?\d+|(?:windows|cp)-?125\d|koi8-[ru]|gb2312|gbk|gb18030|big5|"
    r"shift[_-]?jis|sjis|euc-(?:jp|kr)|iso-2022-jp",
    re.IGNORECASE,
)
_FEED_ROOTS = {"rss", "feed", "rdf", "channel"}


class BadFeed(FMError):
    """Bytes that are not a feed, or a feed that is not safe to read."""


@dataclass(frozen=True)
class Feed:
    """A feed as read: its own title, its items as it has them (at most MAX_ITEMS), and how many it holds in all."""

    title: str
    items: tuple[RawItem, ...]
    n_items: int
    well_formed: bool


def parse(raw: bytes, *, url: str = "", max_items: int = MAX_ITEMS) -> Feed:
    """The items of a feed in its own order. url: where it came from, for links that are relative to it.

    Raises TypeError unless given bytes, and BadFeed (with what was found) on everything that is not a readable feed.
    """
    if not isinstance(raw, bytes | bytearray):
        raise TypeError(f"a feed is bytes, not {type(raw).__name__}")
    raw = bytes(raw)
    if len(raw) > MAX_BYTES:
        raise BadFeed(f"The feed is larger than {MAX_BYTES / 1e6:.0f} MB.", "Ask its publisher for a shorter one.")
    if not raw.strip(b"\x00 \t\r\n\xef\xbb\xbf\xff\xfe"):
        raise BadFeed("The feed is empty.", "Open its address in a browser: perhaps it has moved.")
    if raw[:2] == b"\x1f\x8b":
        raise BadFeed("The feed is a gzip archive.", "Give the address of the feed itself.")
    if _PAGE.match(raw[:20_000].replace(b"\x00", b"")):
        raise BadFeed("This is a web page, not a feed.", _feed_of_page(raw, url))
    if _DECLARES.search(raw.replace(b"\x00", b"")):
        raise BadFeed("The feed declares a document type or entities and was not read.", "A feed needs neither; such files can do harm.")
    content = _decoded(raw)
    if _DECLARES.search(content.encode("utf-8", "replace")):
        raise BadFeed("The feed declares a document type or entities and was not read.", "A feed needs neither; such files can do harm.")
    wrong = _check(content)
    if wrong and len(raw) > MAX_BROKEN_BYTES:
        raise BadFeed(f"The feed is not well-formed XML ({wrong}) and too large to be repaired.", "Tell its publisher.")
    return _read(content, url=url, max_items=max_items, well_formed=not wrong)


def _decoded(raw: bytes) -> str:
    """The feed as text without an XML declaration, in the one encoding that is then declared to the parser. Raises BadFeed."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        name = "utf-16"
    elif raw[:4] in (b"<\x00?\x00", b"<\x00r\x00", b"<\x00f\x00"):
        name = "utf-16-le"
    elif raw[:4] in (b"\x00<\x00?", b"\x00<\x00r", b"\x00<\x00f"):
        name = "utf-16-be"
    else:
        declared = _ENCODING.match(raw[:200].removeprefix(b"\xef\xbb\xbf"))
        name = declared[1].decode("ascii") if declared else "utf-8"
    if not _TEXT_ENCODINGS.fullmatch(name):
        raise BadFeed(f"The feed says it is written in {name!r}, which is not read.", "Ask its publisher for UTF-8.")
    try:
        content = raw.decode(name, "strict" if name.lower() in ("utf-8", "utf8") else "replace")
    except UnicodeDecodeError:
        content = raw.decode("cp1252", "replace")  # says UTF-8 and is not: most often Windows' Latin
    except LookupError:
        raise BadFeed(f"The feed says it is written in {name!r}, which is not known.", "Ask its publisher for UTF-8.") from None
    return _DECLARED.sub("", content.lstrip("\ufeff"), count=1).strip()


def _check(content: str) -> str:
    """Why a feed is not well-formed; "" when it is. Raises BadFeed where it is not a feed, or nests too deep."""
    parser = expat.ParserCreate(encoding="utf-8")
    depth = n_elements = 0
    root = ""

    def opened(name: str, _attributes: Mapping[str, str]) -> None:
        nonlocal depth, n_elements, root
        depth, n_elements, root = depth + 1, n_elements + 1, root or name
        if depth > MAX_DEPTH or n_elements > MAX_ELEMENTS:
            raise BadFeed("The feed nests too deep or holds too many elements and was not read.", "It is broken, or meant to do harm.")

    def closed(_name: str) -> None:
        nonlocal depth
        depth -= 1

    parser.StartElementHandler, parser.EndElementHandler = opened, closed
    try:
        parser.Parse(content.encode("utf-8", "replace"), True)
        wrong = ""
    except expat.ExpatError as error:
        wrong = expat.ErrorString(error.code) + f", line {error.lineno}"
    if root and root.rpartition(":")[2].lower() not in _FEED_ROOTS:
        raise BadFeed(f"This is XML, but not a feed: it begins with <{root[:40]}>.", "Give the address of an RSS or Atom feed.")
    if not root:
        raise BadFeed("This is not a feed: it does not begin as XML does.", "Give the address of an RSS or Atom feed.")
    return wrong


def _read(content: str, *, url: str, max_items: int, well_formed: bool) -> Feed:
    import feedparser

    stream = io.BytesIO(b'<?xml version="1.0" encoding="utf-8"?>\n' + content.encode("utf-8", "replace"))
    try:
        found = feedparser.parse(stream, sanitize_html=False, resolve_relative_uris=False)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, AssertionError, RecursionError, LookupError) as error:
        raise BadFeed(f"The feed cannot be read ({type(error).__name__}).", "It is not well-formed; tell its publisher.") from error
    if not found.get("version") and not found.entries:
        raise BadFeed("This is XML, but no RSS or Atom feed that is known.", "Give the address of an RSS or Atom feed.")
    base = str(found.feed.get("link") or url)
    items = tuple(_item(entry, url or base) for entry in found.entries[:max_items])
    return Feed(title=str(found.feed.get("title") or ""), items=items, n_items=len(found.entries), well_formed=well_formed)


def _item(entry: Mapping[str, Any], base: str) -> RawItem:
    """An entry as it stands: the date as written (the parser would take a time without a zone for UTC), the longest of its texts."""
    texts = [str(part.get("value") or "") for part in entry.get("content") or ()]
    texts.append(str(entry.get("summary") or ""))
    key = str(entry.get("id") or "")
    link = str(entry.get("link") or "")
    if not link and key.startswith(("http://", "https://")):
        link = key
    written = entry.get("published") or entry.get("updated") or entry.get("created")
    return RawItem(
        url=_absolute(link, base),
        title=str(entry.get("title") or ""),
        body=max(texts, key=len),
        published=str(written) if written else None,
        key=key,
    )


def _absolute(link: str, base: str) -> str:
    """A relative link made whole; what cannot be stays as it is, and is judged with the rest."""
    try:
        return urljoin(base, link) if link and base else link
    except ValueError:
        return link


def _feed_of_page(raw: bytes, url: str) -> str:
    """The hint for a web page: the feed that it names, where it names one."""
    from selectolax.lexbor import LexborHTMLParser

    for node in LexborHTMLParser(raw[:200_000].decode("utf-8", "replace")).css("link[rel~=alternate]")[:20]:
        kind, link = (node.attributes.get("type") or "").lower(), node.attributes.get("href") or ""
        if kind in ("application/rss+xml", "application/atom+xml") and link:
            return f"The page names this feed: {_absolute(link.strip(), url)[:300]}"
    return "Give the address of its RSS or Atom feed."
