"""How the demo news is worded: patterns with slots from builtin/news, filled with made-up companies, people and figures.

Everything it writes is synthetic. Knows words only: when a story appears, where, and what it means is `news_demo.py`'s business.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fmcore.data import demo

FOLDER = demo.FOLDER / "news"
_SLOT = re.compile(r"\{(\w+)\}")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")


@dataclass(frozen=True)
class Company:
    """A made-up listed company. weight: its share of all stories; aliases: how else it is called, longest first."""

    ticker: str
    name: str
    aliases: tuple[str, ...]
    sector: str
    weight: float


@dataclass(frozen=True)
class Outlet:
    """A made-up source. kind: "wire", "paper", "blog" or "social"; weight: its share of first reports; copies: of later ones."""

    name: str
    kind: str
    host: str
    weight: float
    copies: float


@functools.cache
def companies() -> tuple[Company, ...]:
    """Every company, the most written about first."""
    rows = _read("companies.csv").itertuples(index=False)
    return tuple(Company(r.ticker, r.name, tuple(r.aliases.split("|")), r.sector, float(r.weight)) for r in rows)


@functools.cache
def outlets() -> tuple[Outlet, ...]:
    """Every source."""
    rows = _read("sources.csv").itertuples(index=False)
    return tuple(Outlet(r.source, r.kind, r.host, float(r.weight), float(r.copies)) for r in rows)


@functools.cache
def topics() -> tuple[str, ...]:
    """Every topic, sorted. They carry the names of the same topics in twitter_financial_topic."""
    return tuple(sorted(set(phrases()["topic"]) - {""}))


@functools.cache
def phrases() -> pd.DataFrame:
    """The patterns: use, topic, sentiment, split, text."""
    return _read("phrases.csv")


@functools.cache
def patterns(use: str, topic: str = "", sentiment: str = "", *, split: str = "") -> tuple[str, ...]:
    """The patterns of one use and topic ("" is a topic: what fits any); an empty sentiment or split takes all."""
    rows = phrases()
    rows = rows[(rows["use"] == use) & (rows["topic"] == topic)]
    for column, wanted in (("sentiment", sentiment), ("split", split)):
        rows = rows[(rows[column] == wanted) | (wanted == "")]
    return tuple(rows["text"])


def lead(use: str, topic: str, *, split: str = "") -> tuple[str, ...]:
    """The patterns "first" or "follow" that tell an event of a topic: its own where there are some, else those for any topic."""
    return patterns(use, topic, split=split) or patterns(use, split=split)


def attacks(topic: str, *, split: str = "") -> list[str]:
    """Every three-part attack that a spam burst can make: opener, claim and closer."""
    parts = [patterns(use, topic, split=split) for use in ("opener", "claim", "closer")]
    return [f"{opener}: {claim}, {closer}" for opener, claim, closer in itertools.product(*parts)]


@functools.cache
def slots() -> Mapping[str, Sequence[str]]:
    """Words for the slots, and under "events" what incidents are called, by topic."""
    return json.loads((FOLDER / "slots.json").read_text(encoding="utf-8"))


def fill(pattern: str, company: Company, rng: np.random.Generator, *, event: str = "") -> tuple[str, tuple[str, ...]]:
    """(sentence, tickers it is about): the pattern with its slots filled, first letter in upper case."""
    mentioned = [company.ticker]

    def word(slot: re.Match[str]) -> str:
        name = slot[1]
        if name == "C":
            return company.name if rng.random() < 0.4 else pick(company.aliases, rng)
        if name == "O":
            other = pick([c for c in companies() if c.ticker != company.ticker], rng)
            mentioned.append(other.ticker)
            return other.aliases[-1]
        return event if name == "E" else _figure(name, company, rng)

    written = _SLOT.sub(word, pattern)
    return written[:1].upper() + written[1:], tuple(dict.fromkeys(mentioned))


def pick(items: Sequence, rng: np.random.Generator):
    """One of the items, each as likely."""
    return items[int(rng.integers(len(items)))]


def _figure(name: str, company: Company, rng: np.random.Generator) -> str:
    """A made-up word or figure for a slot."""
    n = int(rng.integers(2, 98))
    lists = {"U": company.sector, "N": "people", "B": "brokers", "X": "places"}
    if name in lists:
        return pick(slots()[lists[name]], rng)
    if name == "Q":
        return pick(("Q1", "Q2", "Q3", "Q4"), rng)
    if name == "D":
        return f"{n % 28 + 1} {pick(_MONTHS, rng)}"
    written = {
        "P": f"{n}" if n % 3 else f"{n}.{n % 9 + 1}", "K": f"{n * 100:,}", "S": f"${n / 40 + 0.05:.2f}", "H": f"{n % 9 + 8}",
        "M3": f"${n} billion", "Y": f"{2027 + n % 6}", "R": f"${n + 4}", "R2": f"${n + 7}",
    }  # fmt: skip
    money = (f"${n} million", f"€{n}m", f"£{n}m", f"${n / 10:.1f} billion", f"${n}.{n % 10}bn")
    return written[name] if name in written else pick(money, rng)


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / name, dtype=str, keep_default_na=False)
