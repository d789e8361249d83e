"""Links made canonical: one address for one article, whoever passed it on and however it was decorated.

Only http and https; host in lower case and punycode, no default port, no tracking parameters, no fragment (but an address a page
reads itself, "#!" or "#/"), parameters in order. Opens no connection.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from fmcore.nouns import FMError

MAX_CHARS = 2048
NOT_WEB, NOT_READ, WITH_USER, TOO_LONG = (
    "link is not http or https",
    "link not understood",
    "link with a user name in it",
    "link too long",
)
_BLANKS = re.compile(r"[\x00-\x20\x7f-\xa0\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
_TRACKERS = re.compile(
    r"(?:utm|mtm|pk|piwik|matomo|hsa|vero|oly|ns|guce)_.*|at_(?:medium|campaign|custom\d|format|link_\w+)|mc_[ce]id|(?:fb|g|d|tw|ttc?|y|li_fat_|ms)clid|"
    r"msclkid|g(?:braid|clsrc)|wbraid|igsh(?:id)?|_(?:ga|gl|hsenc|hsmi)|s_?kwcid|cmp(?:id)?|[nos]?cid_?src|[no]cid|icid|smid|sr_share|ref|ref_?(?:src|url)|"
    r"referrer|guccounter|soc_(?:src|trk)|xtor|spm|trk|feed(?:type|name)|rss",
    re.IGNORECASE,
)
"""Parameters that say how a reader came, never what is read."""
_PLAIN_PATH = re.compile(r"(?:/[\w~-][\w.~-]*)+/?", re.ASCII)
_DEFAULT = {"http": 80, "https": 443}


class BadLink(FMError):
    """A link that is refused; `message` is the reason as it is counted."""


def canonical(url: str) -> str:
    """The canonical form of a link. Raises BadLink."""
    plain = _BLANKS.sub("", url[: 4 * MAX_CHARS]).encode("utf-8", "replace").decode("utf-8")
    try:
        parts = urlsplit(plain)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise BadLink(NOT_READ) from None
    if parts.scheme.lower() not in _DEFAULT:
        raise BadLink(NOT_WEB)
    if not host:
        raise BadLink(NOT_READ)
    if parts.username is not None or parts.password is not None:
        raise BadLink(WITH_USER)
    netloc = _host(host) + (f":{port}" if port and port != _DEFAULT[parts.scheme] else "")
    path, query = _path_and_query(parts)
    fragment = parts.fragment if parts.fragment.startswith(("!", "/")) else ""
    whole = urlunsplit((parts.scheme, netloc, path, query, fragment))
    if len(whole) > MAX_CHARS:
        raise BadLink(TOO_LONG)
    return whole


def identity(link: str) -> str:
    """What makes two canonical links the same article: without scheme, www. and a closing slash."""
    return link.partition("://")[2].removeprefix("www.").rstrip("/")


def _host(host: str) -> str:
    host = host.rstrip(".").lower()
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise BadLink(NOT_READ) from None
    if not host:
        raise BadLink(NOT_READ)
    return f"[{host}]" if ":" in host else host


def _path_and_query(parts: SplitResult) -> tuple[str, str]:
    if not parts.query and _PLAIN_PATH.fullmatch(parts.path):  # nearly every article's
        return parts.path, ""
    from courlan import normalize_url

    given = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=200) if parts.query.count("&") < 200 else []
    kept = sorted((name, value) for name, value in given if not _TRACKERS.fullmatch(name))
    bare = urlsplit(normalize_url(urlunsplit(("https", "h", parts.path or "/", urlencode(kept), ""))))
    return bare.path or "/", bare.query
