"""Why an alert fired: its excess over expectation, split exactly by story, source, ticker, topic and term, and told in one sentence.

Each split is additive: its parts sum to the excess (to 1e-9), so that nothing is left out and nothing counted twice.

Counts (surge, flood), n negative stories where e were expected, excess n - e:
    story    each carries 1 - e/n
    source   its stories less e times its usual share of the negative stories (28 days before); ticker and topic likewise, a story
             about several tickers counted in even parts. Those with no story now but a usual share stand together as OTHERS.
    term     a story's 1 - e/n goes to its distinctive words, by their weight; a story without any goes to OTHERS.
Index (shift), mean net score m of n stories where e was expected: each story carries (net - e)/n, and its source, tickers, topic and
terms carry the same. What the detector's weighting of bursts adds stands as WEIGHTING.

Reads articles and documents; never writes.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fmcore import clock
from fmcore.data import tickers as companies
from fmcore.sentiment.counts import NET_UNIT
from fmcore.store.store import Store

KINDS = ("surge", "shift", "flood")
"""The kinds of alerts that have stories behind them."""
OTHERS, WEIGHTING, NO_COMPANY = "(others)", "(weighting)", "(no company)"
USUAL = dt.timedelta(days=28)
MAX_STORIES = 5_000
"""Stories split one by one; an alert with more shows the rest as OTHERS."""
N_SHOWN = 12
"""Parts shown of a split; the rest stands as OTHERS."""
N_TOP = 8
LED_BEFORE = dt.timedelta(hours=6)
"""A story that began so long before the window and was told again in it may speak for the alert, though it is no part of the excess."""
SHIFTED_BEFORE = dt.timedelta(days=1)
"""A shift is seen late, and the window that shows it best may cut its beginning off: the day before may speak for it too."""
N_BACKGROUND = 1_500
DISTINCT = 2.0
"""A term is distinctive when it is so many times as frequent as in the background."""
MAX_TITLE = 160
_WORD = re.compile(r"[^\W\d_][\w'’&-]{2,}")


@dataclass(frozen=True)
class Story:
    """A leading article in the window of an alert."""

    id: str
    document_id: str
    published_at: dt.datetime
    source: str
    url: str
    title: str
    text: str
    tickers: tuple[str, ...]
    topic: str
    negative: bool
    net: float
    n_articles: int


def why(
    store: Store, *, dimension: str, key: str, kind: str, end: dt.datetime, window_s: int, expected: float, value: float | None = None,
    detector: str = "",
) -> dict[str, Any]:
    """The exact split of an alert's excess in the window_s seconds before end, as JSON-ready values.

    {"unit": "negative stories" or "index", "value", "expected", "excess", "window": [start, end] (ISO 8601), "n_stories", "n_negative",
    "by_story", "by_source", "by_ticker", "by_topic", "by_term": lists of {"name", "label", "part", "n"} that each sum to excess, largest
    first (by_story: name is the document id), "top": the stories that speak for it, each {"document_id", "story_id", "url", "title",
    "source", "published_at", "tickers", "topic", "part", "n_articles"}, "sentence", "detector": the detector's own sentence}.
    value of a count is counted from the store; of an index it is what the detector said (None: the plain mean).
    """
    start = end - dt.timedelta(seconds=window_s)
    of_index = kind == "shift" or (kind == "flood" and value is not None and value < 1)  # a flood of stories has a floor of 1
    all_stories = stories(store, dimension, key, start, end)
    negative = [s for s in all_stories if s.negative]
    counted = all_stories if of_index else negative
    if of_index:
        mean = sum(s.net for s in counted) / len(counted) if counted else expected
        value = mean if value is None else value
        parts = [(s.net - expected) / len(counted) for s in counted]
        rest = {WEIGHTING: value - mean}
    else:
        value = float(len(counted))
        parts = [1 - expected / len(counted)] * len(counted) if counted else []
        rest = {} if counted else {OTHERS: -expected}
    splits = _splits(store, dimension, key, start, counted, parts, expected, rest, of_index)
    weights = _term_weights(store, counted, start)
    splits["by_term"] = _by_term(counted, parts, weights, rest)
    before = start - (SHIFTED_BEFORE if of_index else LED_BEFORE)
    going_on = [s for s in stories(store, dimension, key, before, start, told_until=None if of_index else end) if s.negative]
    top = _top([*going_on, *negative] or counted, splits, weights, kind)
    figures = {"value": value, "expected": expected, "excess": value - expected, "n_stories": len(all_stories), "n_negative": len(negative)}
    by_id = dict(zip((s.document_id for s in counted), parts, strict=True))
    return {
        "unit": "index" if of_index else "negative stories", **figures, "window": [start.isoformat(), end.isoformat()],
        "by_story": _story_rows(counted, parts, rest), **{name: _rows(name, split) for name, split in splits.items()},
        "top": [_top_row(s, by_id.get(s.document_id, 0.0)) for s in top[:N_TOP]],
        "sentence": _sentence(dimension, key, kind, start, end, figures, negative, top, of_index), "detector": detector,
    }


def stories(
    store: Store, dimension: str, key: str, start: dt.datetime, end: dt.datetime, *, told_until: dt.datetime | None = None
) -> list[Story]:
    """The stories of a key whose leading article stands in start <= t < end, oldest first; n_articles are those until end.

    told_until: only stories of which an article stands in end <= t < told_until too; n_articles are then those until told_until.
    """
    where, params = _where(dimension, key)
    span, until = [clock.to_store(start), clock.to_store(end)], clock.to_store(told_until or end)
    rows = store.rows(
        f"""WITH led AS (SELECT a.* FROM articles a WHERE leads AND published_at >= ? AND published_at < ? AND {where}
                ORDER BY published_at, document_id LIMIT {MAX_STORIES}),
            sizes AS (SELECT story_id, count(*) AS n FROM articles WHERE story_id IN (SELECT story_id FROM led) AND published_at >= ?
                AND published_at < ? GROUP BY story_id HAVING max(published_at) >= ?)
        SELECT led.*, d.url, d.title, d.body[:500] AS body, sizes.n FROM led JOIN sizes USING (story_id)
        LEFT JOIN documents d ON d.id = led.document_id AND d.published_at = led.published_at
        ORDER BY led.published_at, led.document_id""",
        *span, *params, span[0], until, span[1] if told_until else span[0],
    )
    return [
        Story(r["story_id"], r["document_id"], clock.from_store(r["published_at"]), r["source"], r["url"] or "", r["title"] or "",
              f"{r['title'] or ''} {r['body'] or ''}", tuple(dict.fromkeys(r["tickers"])), r["topic"], r["sentiment"] == "negative",
              r["net"] / NET_UNIT, r["n"])
        for r in rows
    ]


def label(dimension: str, key: str) -> str:
    """How a person calls what an alert is about: "Halden (HLD)", "Fraud", "the Banks sector"; "" for the whole market."""
    if dimension == "ticker":
        name = companies.name_of(key)
        return f"{name} ({key})" if name else key
    return f"the {key} sector" if dimension == "sector" else key


# ---------------------------------------------------------------- the splits


def _where(dimension: str, key: str) -> tuple[str, list[Any]]:
    """An SQL condition for the articles of a key, and its parameters."""
    if dimension == "topic":
        return "topic = ?", [key]
    if dimension == "ticker":
        return "list_contains(tickers, ?)", [key]
    if dimension == "sector":
        members = sorted(t for t, sector in companies.book().sectors.items() if sector == key)
        return "list_has_any(tickers, ?::VARCHAR[])", [members]
    return "true", []


def _groups(name: str, story: Story) -> list[str]:
    if name == "by_source":
        return [story.source]
    if name == "by_topic":
        return [story.topic]
    return list(story.tickers) or [NO_COMPANY]


def _splits(
    store: Store, dimension: str, key: str, start: dt.datetime, counted: Sequence[Story], parts: Sequence[float], expected: float,
    rest: Mapping[str, float], of_index: bool,
) -> dict[str, dict[str, list[float]]]:
    """By source, ticker and topic: name -> [part of the excess, stories]."""
    splits = {}
    for name in ("by_source", "by_ticker", "by_topic"):
        split: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for story, part in zip(counted, parts, strict=True):
            groups = _groups(name, story)
            for group in groups:
                split[group][0] += (part if of_index else 1.0) / len(groups)
                split[group][1] += 1 / len(groups)
        if not of_index and counted:
            shares = _usual_shares(store, dimension, key, start, name) or {g: n / len(counted) for g, (_, n) in split.items()}
            for group, share in shares.items():
                split[group if group in split else OTHERS][0] -= expected * share
        for group, part in rest.items():
            split[group][0] += part
        splits[name] = dict(split)
    return splits


def _usual_shares(store: Store, dimension: str, key: str, start: dt.datetime, name: str) -> dict[str, float]:
    """The share that each source, ticker or topic had in the key's negative stories of the four weeks before; sums to 1, or is empty."""
    where, params = _where(dimension, key)
    group = {"by_source": "[source]", "by_topic": "[topic]",
             "by_ticker": f"CASE WHEN len(tickers) = 0 THEN ['{NO_COMPANY}'] ELSE list_distinct(tickers) END"}[name]
    rows = store.rows(
        f"""WITH s AS (SELECT {group} AS names FROM articles WHERE leads AND sentiment = 'negative' AND published_at >= ?
                AND published_at < ? AND {where})
        SELECT name, sum(1.0 / len(names)) AS n FROM s, unnest(names) AS u(name) GROUP BY name ORDER BY name""",
        clock.to_store(start - USUAL), clock.to_store(start), *params,
    )
    total = sum(row["n"] for row in rows)
    return {row["name"]: row["n"] / total for row in rows}


def _term_weights(store: Store, counted: Sequence[Story], start: dt.datetime) -> dict[str, float]:
    """Distinctive words of the stories: how many times as frequent as in the last news before, as a logarithm."""
    if not counted:
        return {}
    rows = store.rows(
        f"""SELECT d.title || ' ' || d.body[:500] AS text FROM (SELECT document_id, published_at FROM articles WHERE leads
            AND published_at < ? AND published_at >= ? ORDER BY published_at DESC, document_id LIMIT {N_BACKGROUND}) a
            JOIN documents d ON d.id = a.document_id AND d.published_at = a.published_at""",
        clock.to_store(start), clock.to_store(start - USUAL),
    )
    usual = Counter(term for row in rows for term in _terms(row["text"]))
    here = Counter(term for story in counted for term in _terms(story.text))
    weights = {}
    for term, n in here.items():
        if n >= min(2, len(counted)):
            ratio = ((n + 0.5) / (len(counted) + 1)) / ((usual[term] + 0.5) / (len(rows) + 1))
            if ratio >= DISTINCT:
                weights[term] = math.log(ratio) * n / len(counted)
    return weights


def _terms(text: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(text)}


def _by_term(
    counted: Sequence[Story], parts: Sequence[float], weights: Mapping[str, float], rest: Mapping[str, float]
) -> dict[str, list[float]]:
    split: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for story, part in zip(counted, parts, strict=True):
        has = {term: weights[term] for term in _terms(story.text) if term in weights}
        total = sum(has.values())
        for term, weight in sorted(has.items()):
            split[term][0] += part * weight / total
            split[term][1] += 1
        if not has:
            split[OTHERS][0] += part
            split[OTHERS][1] += 1
    for group, part in rest.items():
        split[group][0] += part
    return dict(split)


# ---------------------------------------------------------------- what speaks for it


def _top(
    candidates: Sequence[Story], splits: Mapping[str, Mapping[str, list[float]]], weights: Mapping[str, float], kind: str
) -> list[Story]:
    """The stories that the excess is made of: about what is in excess, told in its words, copied most; the earliest of equals."""
    best_term = max(weights.values(), default=0.0)

    def lift(name: str, story: Story) -> float:
        """How much of what its group brought is excess, for the best of its groups: near 0 for ordinary news, 1 for new."""
        found = [splits[name].get(group, [0.0, 0.0]) for group in _groups(name, story)]
        return max((max(0.0, min(1.0, abs(part) / n)) if n else 0.0 for part, n in found), default=0.0) * min(1.0, len(found))

    def size(name: str, story: Story) -> float:
        """How much of the whole excess its largest group carries."""
        whole = sum(abs(part) for part, _ in splits[name].values()) or 1.0
        return max((abs(splits[name].get(group, [0.0])[0]) / whole for group in _groups(name, story)), default=0.0)

    def score(story: Story) -> float:
        about = lift("by_topic", story) + size("by_topic", story) + size("by_ticker", story)
        if kind == "flood":  # one source's many wordings: who began it says more than who used which word
            return (about + 2 * size("by_source", story)) * (1 + math.log2(story.n_articles))
        told = max((weights.get(term, 0.0) for term in _terms(story.text)), default=0.0) / best_term if best_term else 0.0
        return (about + told) * (1 + math.log2(story.n_articles))

    return sorted(candidates, key=lambda story: (-round(score(story), 9), story.published_at, story.document_id))


def _sentence(
    dimension: str, key: str, kind: str, start: dt.datetime, end: dt.datetime, figures: Mapping[str, Any], negative: Sequence[Story],
    top: Sequence[Story], of_index: bool,
) -> str:
    about = f" about {label(dimension, key)}" if dimension != "all" else ""
    same_day = start.date() == end.date()
    day = f" on {start:%d %b}"
    span = f"between {start:%H:%M} and {end:%H:%M} UTC{day}" if same_day else f"between {start:%d %b %H:%M} and {end:%d %b %H:%M} UTC"
    n = len(negative)
    if of_index:
        said = (f"The index of the news{about} stood at {figures['value']:+.2f} {span} where {figures['expected']:+.2f} is usual, over "
                f"{figures['n_stories']:,} stories, {n:,} of them negative")
    else:
        stories_ = "1 negative story" if n == 1 else f"{n:,} negative stories"
        said = f"{stories_}{about} {span}, {figures['expected']:.1f} expected"
    return f"{said}{_mostly(dimension, kind, negative)}{_first(top)}."


def _mostly(dimension: str, kind: str, negative: Sequence[Story]) -> str:
    """Whom or what most of the negative stories share, where that says more than the alert's own name."""
    if not negative:
        return ""
    if kind == "flood":
        source, k = Counter(s.source for s in negative).most_common(1)[0]
        return f"; {k:,} of them by one source, {source}"
    if dimension == "ticker":
        topic, k = Counter(s.topic for s in negative).most_common(1)[0]
        return f"; {k:,} of them on {topic}" if topic else ""
    ticker, k = Counter(t for s in negative for t in s.tickers).most_common(1)[0] if any(s.tickers for s in negative) else ("", 0)
    topic, of_topic = Counter(s.topic for s in negative).most_common(1)[0]
    if dimension != "topic" and of_topic > k and topic:
        return f"; {of_topic:,} of them on {topic}"
    return f"; {k:,} of them about {label('ticker', ticker)}" if k > 1 else ""


def _first(top: Sequence[Story]) -> str:
    if not top or not top[0].title:
        return ""
    story = top[0]
    return f", first by {story.source} at {story.published_at:%d %b %H:%M}: ‘{_short(story.title)}’"


# ---------------------------------------------------------------- rows


def _short(title: str) -> str:
    title = " ".join(title.split())
    return title if len(title) <= MAX_TITLE else title[: MAX_TITLE - 1].rstrip() + "…"


def _story_rows(counted: Sequence[Story], parts: Sequence[float], rest: Mapping[str, float]) -> list[dict[str, Any]]:
    ranked = sorted(zip(counted, parts, strict=True), key=lambda pair: (-abs(pair[1]), -pair[0].n_articles, pair[0].published_at))
    rows = [{"name": s.document_id, "label": _short(s.title), "part": part, "n": s.n_articles} for s, part in ranked]
    return _cut(rows + [{"name": name, "label": name, "part": part, "n": 0} for name, part in rest.items()])


def _rows(name: str, split: Mapping[str, list[float]]) -> list[dict[str, Any]]:
    dimension = {"by_ticker": "ticker"}.get(name, "")
    rows = [{"name": group, "label": label(dimension, group) if dimension and not group.startswith("(") else group, "part": part,
             "n": round(n, 6)} for group, (part, n) in split.items()]
    return _cut(sorted(rows, key=lambda row: (row["name"].startswith("("), -abs(row["part"]), row["name"])))


def _cut(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The largest parts; what is cut off is kept as one part, so that the sum stays."""
    named = [row for row in rows if row["name"] != OTHERS]
    shown, cut = named[:N_SHOWN], [*named[N_SHOWN:], *(row for row in rows if row["name"] == OTHERS)]
    if not cut:
        return shown
    return [*shown, {"name": OTHERS, "label": OTHERS, "part": math.fsum(row["part"] for row in cut), "n": sum(row["n"] for row in cut)}]


def _top_row(story: Story, part: float) -> dict[str, Any]:
    return {
        "document_id": story.document_id, "story_id": story.id, "url": story.url, "title": _short(story.title), "source": story.source,
        "published_at": story.published_at.isoformat(), "tickers": list(story.tickers), "topic": story.topic, "part": part,
        "n_articles": story.n_articles,
    }
