"""Tickers: which listed companies a text is about, by cashtags, exchange marks and company names; and the sector of each.

Owns the word list (the demo's companies, a built-in list, FM_DATA_DIR/news_stream/StockTable.tsv, and <FM_HOME>/companies.csv, the
last two where they are there) and what counts as a mention. A false friend is not a mention: "$5", "$USD", a lone "$T", a word that
happens to be a ticker, anything inside an address. Never touches the store.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmcore.config import settings
from fmcore.nouns import FMError

LIST = Path(__file__).resolve().parent / "builtin" / "companies.csv"
OWN_LIST = "companies.csv"
MAX_READ = 4000
"""Characters of a text that are searched: who an article is about is said early."""
MAX_TICKERS = 20
UNKNOWN_SECTOR = "Other"

_TICKER = re.compile(r"[A-Z0-9]{1,6}(?:\.[A-Z])?")
_ADDRESS = re.compile(r"(?:https?://|www\.)\S*", re.IGNORECASE)
_CASHTAG = re.compile(r"(?<![\w$])\$([A-Za-z]{1,6}(?:[.\-][A-Za-z])?)(?![\w$])")
_LISTED = re.compile(r"\b(?:NYSE|NASDAQ|Nasdaq|AMEX|LSE|TSX)\s?:\s?([A-Z]{1,5}(?:[.\-][A-Z])?)\b")
_WORD = re.compile(r"[^\W_]+")
_BUSINESS = re.compile(
    r"\b(?:shares?|stocks?|shareholders?|investors?|analysts?|earnings|profits?|revenues?|sales|quarter(?:ly)?|dividends?|guidance|"
    r"(?:up|down)grade[sd]?|CEO|CFO|EPS|IPO|Inc|Corp|plc|Ltd|Nasdaq|NYSE|Q[1-4])\b",
    re.IGNORECASE,
)
_MONEY = frozenset(
    re.findall(
        r"\w+",
        "USD EUR GBP JPY CNY CNH CHF CAD AUD NZD HKD SGD SEK NOK DKK INR BRL MXN ZAR KRW TWD TRY RUB PLN "
        "US HK NZ BTC ETH K M B MM BN MN TN",
    )
)
"""What stands behind a dollar sign without being a ticker: currencies, coins and units. NOK and ETH are meant as money."""
_SLANG = frozenset(
    re.findall(
        r"\w+",
        "ALL ARE CAN CASH CAT COST DAY EAT FAST FUN GAP GO HAS HE HOPE IT KEY LOVE LOW MAN NICE NOW ON ONE OPEN OR OUT PLAY REAL RUN "
        "SEE SHE SO SUN TELL TRUE TWO WELL",
    )
)
"""Tickers that are ordinary words: in lower case ("$now") they are taken for the word."""
_FORMS = re.compile(
    r"[\s,]+(?:Inc|Incorporated|Corp|Corporation|Company|Co|Ltd|Limited|plc|p\.l\.c|PLC|L\.P|N\.V|S\.A|SA|SE|AG|Group|Holdings?|REIT|&)\.?$"
)


class BadList(FMError):
    """A company list that cannot be used."""


@dataclass(frozen=True)
class Company:
    """A line of the list. names: how texts call it, each with whether that needs business words beside it ("Apple", "Target")."""

    ticker: str
    names: tuple[tuple[str, bool], ...]
    sector: str


class Book:
    """The word list, ready for searching. Where two lines share a ticker, the first one says its sector."""

    def __init__(self, companies: Iterable[Company]):
        self.sectors: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self._by_word: dict[str, list[tuple[str, str, bool]]] = {}
        for company in companies:
            self.sectors.setdefault(company.ticker, company.sector)
            if company.names:
                self.names.setdefault(company.ticker, company.names[0][0])
            for name, doubtful in company.names:
                first = _WORD.search(name)
                if first:
                    self._by_word.setdefault(first[0], []).append((name, company.ticker, doubtful))
        for entries in self._by_word.values():
            entries.sort(key=lambda entry: -len(entry[0]))
        self._words = frozenset(self._by_word)

    def find(self, text: str) -> tuple[str, ...]:
        """The tickers that a text mentions, in the order of their first mention by kind: cashtags, exchange marks, names."""
        text = text[:MAX_READ]
        if "://" in text or "www." in text:
            text = _ADDRESS.sub(" ", text)
        tags = [_normal(tag) for tag in _CASHTAG.findall(text)] if "$" in text else []
        listed = [_normal(tag) for tag in _LISTED.findall(text)] if ":" in text else []
        words = self._words.intersection(_WORD.findall(text))
        if not (tags or listed or words):
            return ()
        safe = [tag for tag in tags if self._is_tag(tag)] + listed
        named = list(self._named(text, words, sure=bool(safe))) if words else []
        return tuple(dict.fromkeys([*self._confirmed(tags, safe, named), *listed, *named]))[:MAX_TICKERS]

    def _is_tag(self, tag: str) -> bool:
        """Whether a cashtag stands for a company without more said: written as one, more than a letter, and not money or slang."""
        upper = tag.upper()
        if upper in _MONEY or len(upper) < 2:
            return False
        if tag != upper:
            return len(upper) > 2 and upper in self.sectors and upper not in _SLANG
        return len(upper) <= 5 or "." in upper or upper in self.sectors

    def _confirmed(self, tags: Sequence[str], safe: Sequence[str], named: Sequence[str]) -> Iterator[str]:
        """The cashtags that count: one letter only where it is a known ticker, beside another cashtag or its company's name."""
        sure = set(safe)
        for tag in tags:
            upper = tag.upper()
            if tag in sure or (len(tag) == 1 and tag == upper and upper in self.sectors and (sure or upper in named)):
                yield upper

    def _named(self, text: str, words: Iterable[str], *, sure: bool) -> Iterator[str]:
        """Tickers of the names in a text, in reading order; a doubtful name needs a business word or a cashtag in the same text."""
        plain = text.replace("’", "'")
        found: list[tuple[int, str]] = []
        for word in words:
            at = plain.find(word)
            while at >= 0:
                entry = self._name_at(plain, at, word)
                if entry and (not entry[2] or sure or _BUSINESS.search(plain)):
                    found.append((at, entry[1]))
                    break
                at = plain.find(word, at + 1)
        return (ticker for _, ticker in sorted(found))

    def _name_at(self, text: str, at: int, word: str) -> tuple[str, str, bool] | None:
        if at and (text[at - 1].isalnum() or text[at - 1] in "$@_"):
            return None
        for entry in self._by_word[word]:
            end = at + len(entry[0])
            if text.startswith(entry[0], at) and not text[end : end + 1].isalnum():
                return entry
        return None


def find(text: str) -> tuple[str, ...]:
    """The tickers that a text is about (see Book.find), by the list as it is now."""
    return book().find(text)


def sector_of(ticker: str) -> str:
    """The sector of a ticker by the list; "Other" for one that is not in it."""
    return book().sectors.get(ticker, UNKNOWN_SECTOR)


def name_of(ticker: str) -> str:
    """What the company of a ticker is called by the list; "" for one that is not in it."""
    return book().names.get(ticker, "")


def normal(ticker: object) -> str:
    """A ticker as FM Desk writes it: upper case, without a leading $, share classes behind a dot (BRK.B); "" when it is none."""
    plain = _normal(str(ticker or "").strip().lstrip("$")).upper()
    return plain if _TICKER.fullmatch(plain) else ""


def book() -> Book:
    """The word list, compiled once and again when one of its files changes. Raises BadList when <FM_HOME>/companies.csv is broken."""
    own, table = settings().home / OWN_LIST, (settings().data_dir or Path()) / "news_stream" / "StockTable.tsv"
    return _book(*((path, _changed(path)) for path in (own, table)))


@functools.lru_cache(maxsize=4)
def _book(own: tuple[Path, float], table: tuple[Path, float]) -> Book:
    lines = [*(_read(own[0]) if own[1] else ()), *_demo(), *_read(LIST), *(_read_table(table[0]) if table[1] else ())]
    return Book(lines)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # not there: the list goes without it
        return 0.0


def _demo() -> Iterator[Company]:
    from fmcore.data import news_demo

    for company in news_demo.COMPANIES:
        yield Company(company.ticker, tuple((name, False) for name in (company.name, *company.aliases)), company.sector)


def _read(path: Path) -> list[Company]:
    """Lines ticker,name,aliases,sector; aliases divided by |, one that is also an ordinary word marked with a leading ?."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise BadList(f"{path} cannot be read: {error}.", "It is a CSV file with the columns ticker,name,aliases,sector.") from error
    companies = []
    for n, row in enumerate(rows, 2):
        ticker, name = normal(row.get("ticker") or ""), (row.get("name") or "").strip()
        if not ticker or not name:
            raise BadList(f"Line {n} of {path} has no ticker or no name.", "Its columns are ticker,name,aliases,sector.")
        aliases = [alias.strip() for alias in (row.get("aliases") or "").split("|") if alias.strip()]
        names = ((name, False), *((alias.lstrip("?"), alias.startswith("?")) for alias in aliases))
        companies.append(Company(ticker, names, (row.get("sector") or "").strip() or UNKNOWN_SECTOR))
    return companies


def _read_table(path: Path) -> list[Company]:
    """StockNet's StockTable.tsv: Sector, $Symbol, Company. A name of one short word is left to the built-in list."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))[1:]
    companies = []
    for sector, symbol, full in (row[:3] for row in rows if len(row) >= 3):
        name = full.strip().removeprefix("The ")
        while (shorter := _FORMS.sub("", name).strip()) and shorter != name:
            name = shorter
        names = ((" ".join(name.split()), " " not in name),) if len(name) > 4 else ()
        companies.append(Company(normal(symbol), names, sector.strip().replace("Matierials", "Materials")))
    return companies


def _normal(tag: str) -> str:
    return tag.replace("-", ".")
