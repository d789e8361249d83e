"""Untrusted text made safe: bounded, storable, hashable, and harmless in a spreadsheet.

Drawing text on a page is `pages/ui.py`'s part (`esc`); nothing here knows about markdown.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
import urllib.parse

MAX_CHARS = 20_000
"""Longest message kept, in characters; the models read far less (see Profile.max_tokens)."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FORMULA = re.compile(r"^[\s\u200b\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r|%]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def clean(text: object, *, limit: int = MAX_CHARS) -> tuple[str, bool]:
    """(text, truncated): NFC, no NUL or other control characters, lone surrogates replaced, at most `limit` characters.

    Never raises: None and NaN become "", anything else its str().
    """
    if text is None or (isinstance(text, float) and math.isnan(text)):
        return "", False
    raw = str(text)
    truncated = len(raw) > limit
    raw = raw[:limit].encode("utf-8", "replace").decode("utf-8")
    return unicodedata.normalize("NFC", _CONTROL.sub(" ", raw)), truncated


def storable(value: object) -> object:
    """A string that can be encoded: JSON may carry half a surrogate pair. Its length and everything else stay as they came."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def text_hash(text: str) -> str:
    """64-bit hex digest of a text's UTF-8 bytes: the key under which results are cached and logged without the text."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def spreadsheet_safe(value: object) -> object:
    """A cell that no spreadsheet runs as a formula. Numbers stay numbers; a string that would start one gets a leading '.

    Source: OWASP, CSV injection. Full-width signs and leading blanks are covered too.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _is_number(value):
        return "'" + value
    return value


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


_IN_A_URL = "%/:?#&=+,;@!~$-._"
"""Characters of an address that stay as they are; brackets, quotes, blanks and backslashes are percent-encoded."""


def web_address(url: object) -> tuple[str, str] | None:
    """(address, host) of a link that a person may be shown; None for anything but http and https, and for what has no host.

    The address holds no character that could end a link in HTML or in markdown; a name before the host ("user@") is refused.
    """
    given = clean(url, limit=2_000)[0].strip()
    try:
        parts = urllib.parse.urlsplit(given)
        host = parts.hostname or ""
    except ValueError:  # "http://[" and its like
        return None
    if parts.scheme.lower() not in ("http", "https") or not host or "@" in parts.netloc:
        return None
    return urllib.parse.quote(given, safe=_IN_A_URL), host


def is_name(text: str) -> bool:
    """Whether a string may be a model version, run or data set name, and so a file name: letters, digits, . _ - only."""
    return isinstance(text, str) and bool(_NAME.fullmatch(text)) and ".." not in text
