"""Which articles tell the same story: near-duplicates by MinHash. Pure: texts and arrays in, groups out; no table, no model.

Two articles are linked when their estimated Jaccard similarity is at least THRESHOLD, they were published within WINDOW of each other
and, where both name known companies, they share one. A story is a connected component of links, so what came first, late or twice in a
row changes nothing: the same articles give the same stories in any order.

A signature is 128 MinHash values (Broder 1997; datasketch) of which the lowest byte is kept: 128 bytes an article. The estimate is that
of b-bit minwise hashing (Li and Koenig 2010): equal bytes by chance are taken out. Candidates come from 32 bands of 4 bytes, which
find a pair at similarity 0.6 with probability 0.99.
"""

from __future__ import annotations

import datetime as dt
import html
import re
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

THRESHOLD = 0.6
WINDOW = dt.timedelta(hours=72)
SIGNATURE_BYTES = 128
MAX_WORDS = 120
ENOUGH_WORDS = 5
"""A title of so many words says what the story is; a shorter one is compared with the start of the body behind it."""
_BANDS = 32
_PAIRS_AT_ONCE = 200_000
_CHANCE = 1 / 256

_LINKS = re.compile(r"(?:https?://|www\.)\S+|\b(?:t\.co|bit\.ly|ow\.ly|dlvr\.it)/\S+")
_HANDLES = re.compile(r"(?<!\w)@\w+:?")
_PREFIX = re.compile(r"^(?:(?:rt|via|mt|update(?: \d+)?|breaking(?: news)?|exclusive|just in|watch|read)\b[\s:|\-]*)+")
_TAGS = re.compile(r"^(?:\$[a-z.]{1,6}\s+)+|(?:\s+[#$][a-z]\w*)+\s*$")
_SOURCE = re.compile(r"\s[-\u2013\u2014|]\s(?:[\w.&']+\s?){1,4}$")
_BOILERPLATE = re.compile(
    r"\bvia\s*$|"
    r"\b(?:read more|click here|sign up for|subscribe (?:now|to)|all rights reserved|continue reading|full story|follow us on)\b.*$"
)
_WORDS = re.compile(r"\d+(?:[.,]\d+)*%?|\w+(?:'\w+)?")


def normalised(title: str, body: str = "") -> list[str]:
    """The words that are compared: lower-case, without links, handles, tags around the sentence, retweet and news-flash prefixes, a
    source after a dash, and "read more" endings.

    Those of the title alone where it says enough: a retweet or a feed's entry carries the headline without the article, and would be
    like neither the article nor its copies otherwise.
    """
    words = _cleaned(title)
    return (words if len(words) >= ENOUGH_WORDS else [*words, *_cleaned(body)])[:MAX_WORDS]


def _cleaned(text: str) -> list[str]:
    text = unicodedata.normalize("NFKC", html.unescape(text[:4_000])).lower().replace("\u2019", "'")
    text = _HANDLES.sub(" ", _LINKS.sub(" ", text)).strip(" \t\r\n:.\u2026\"'")
    text = _SOURCE.sub("", _BOILERPLATE.sub("", _PREFIX.sub("", _TAGS.sub("", text))))
    return _WORDS.findall(text)


def signatures(texts: Iterable[tuple[str, str]]) -> list[bytes]:
    """128 bytes for each (title, body); b"" for one without words, which is like no other.

    Shingles are pairs of neighbouring words, with a mark before the first and behind the last: a changed word costs two of them, another
    company at the start of a short headline as well. A number stands for two more: the same sentence with another figure is mostly
    other news.
    """
    from datasketch import MinHash

    blank = MinHash(num_perm=SIGNATURE_BYTES, seed=1, hashfunc=zlib.crc32, scheme="affine32")
    found = []
    for title, body in texts:
        words = normalised(title, body)
        if not words:
            found.append(b"")
            continue
        sketch = blank.copy()
        shingles = [f"{a} {b}".encode() for a, b in pairwise(["^", *words, "$"])]
        sketch.update_batch(shingles + [b"%d#%b" % (i, word.encode()) for word in words if word[0].isdigit() for i in (1, 2)])
        found.append((sketch.hashvalues & 0xFF).astype(np.uint8).tobytes())
    return found


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity of rows of signatures (n, 128) uint8; standard error about 0.045 at 0.6."""
    return ((a == b).mean(axis=1, dtype=np.float64) - _CHANCE) / (1 - _CHANCE)


def merge(
    signed: np.ndarray, published_s: np.ndarray, tickers: Sequence[frozenset[str]], groups: np.ndarray, n_new: int
) -> np.ndarray:
    """The groups of articles after the last `n_new` of them came in.

    signed: uint8 (n, 128), rows of zeros for texts without words; published_s: int64 seconds; groups: int64 (n,), equal numbers for
    the articles already in one story, a number of its own for each new one. Returns groups of the same shape, where merged stories
    carry one number. Only pairs with a new article are looked at: the others were linked, or not, when they came.
    """
    groups = groups.copy()
    n = len(groups)
    fresh = np.arange(n - n_new, n)
    bands = np.ascontiguousarray(signed).view("<u4")
    worded = signed.any(axis=1)
    names = _ticker_ids(tickers)
    for band in range(_BANDS):
        for left, right in _equal_keys(bands[:, band], fresh, worded):
            apart = groups[left] != groups[right]
            left, right = left[apart], right[apart]
            near = np.abs(published_s[left] - published_s[right]) <= WINDOW.total_seconds()
            left, right = left[near], right[near]
            alike = similarity(signed[left], signed[right]) >= THRESHOLD
            for i, j in zip(left[alike], right[alike], strict=True):
                if groups[i] != groups[j] and _compatible(names, tickers, i, j):
                    groups[groups == groups[j]] = groups[i]
    return groups


def _equal_keys(keys: np.ndarray, fresh: np.ndarray, worded: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Pairs (new article, other article) with the same key, in pieces of bounded size; each pair of new ones once."""
    fresh = fresh[worded[fresh]]
    order = np.flatnonzero(worded)
    order = order[np.isin(keys[order], keys[fresh])]
    order = order[np.argsort(keys[order], kind="stable")]
    ordered = keys[order]
    first, last = (np.searchsorted(ordered, keys[fresh], side=side) for side in ("left", "right"))
    counts = last - first
    pieces = np.cumsum(counts) // _PAIRS_AT_ONCE
    for piece in np.unique(pieces):
        rows = np.flatnonzero(pieces == piece)
        left = np.repeat(fresh[rows], counts[rows])
        offset = np.arange(counts[rows].sum()) - np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])
        right = order[np.repeat(first[rows], counts[rows]) + offset]
        once = (right < fresh[0]) | (right < left) if len(fresh) else np.zeros(0, dtype=bool)
        yield left[once], right[once]


def _ticker_ids(tickers: Sequence[frozenset[str]]) -> np.ndarray:
    known: dict[frozenset[str], int] = {frozenset(): 0}
    return np.array([known.setdefault(names, len(known)) for names in tickers], dtype=np.int64)


def _compatible(ids: np.ndarray, tickers: Sequence[frozenset[str]], i: int, j: int) -> bool:
    """Whether two articles may be one story by the companies that they name."""
    return ids[i] == ids[j] or not ids[i] or not ids[j] or bool(tickers[i] & tickers[j])
