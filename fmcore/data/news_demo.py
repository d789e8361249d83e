"""The built-in demo stream: made-up finance news of made-up companies, with planted incidents and the truth about them.

Synthetic throughout. Every day is drawn from (seed, day), so any window of the stream holds the same rows whoever asks, and
the stream never ends: after 60 days the next cycle begins, with incidents of the same shapes for other companies.

Ordinary days: about 150 stories on a weekday and 85 on a Saturday or Sunday, most between 7 and 17 UTC, 27 % of them negative;
each story has about 0.9 later copies in other sources (wire copies with a prefix, blogs with their name at the end, repeats with
"RT"). A company's volume varies by a quarter from day to day. Incidents of a cycle (`truth`), each begun on a weekday, up to three
days around the one stated:

shape       kind   day   what is added to ordinary news
slow leak   shift  15    one company, six days of bad earnings news: its negative stories triple, at ordinary hours
sudden      surge  31    one company, one event, 9 hours, most at the start: about 8 times its negative stories, at least 20
spam burst  flood  37    one noisy source, 2.5 hours, 42 differently worded attacks on one company; no other source has any of it
shock       surge  47    a macro event, 30 hours, 11 companies: about 6 times the topic's negative stories
sector      surge  53    one event, 10 hours, every company of a sector: 30 negative stories

And two events that are no reason for an alert (`decoys`): on day 26 one bad story is copied 45 times within 5 hours (many articles,
one story), and on day 42 a company's results day brings 30 more stories than usual with the ordinary share of bad ones.
"""

from __future__ import annotations

import datetime as dt
import functools
import html
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fmcore import clock
from fmcore.data import news_phrases
from fmcore.data.news_phrases import Company, Outlet, attacks, fill, lead, patterns, pick

COMPANIES = news_phrases.companies()
TOPICS = news_phrases.topics()
SENTIMENTS = ("negative", "neutral", "positive")
CYCLE_DAYS = 60
COLUMNS = ("published_at", "source", "url", "title", "body", "tickers", "topic", "sentiment", "story", "incident")
STORIES_A_WEEKDAY = 150
WEEKDAYS = (1.0, 1.06, 1.02, 1.04, 0.94, 0.55, 0.55)
"""Stories a day against a mean weekday, Monday first."""
HOURS = np.array([1, 1, 1, 1, 2, 4, 7, 10, 11, 10, 8, 7, 6, 8, 9, 9, 8, 7, 5, 3, 3, 4, 2, 1], dtype=float)
"""Stories an hour of the day in UTC, as weights."""
MIX = {
    "Analyst Update": (0.28, 0.38, 0.34), "Company | Product News": (0.26, 0.38, 0.36), "Dividend": (0.18, 0.50, 0.32),
    "Earnings": (0.30, 0.34, 0.36), "Legal | Regulation": (0.36, 0.42, 0.22), "M&A | Investments": (0.22, 0.46, 0.32),
    "Macro": (0.32, 0.38, 0.30), "Personnel Change": (0.22, 0.54, 0.24),
}  # fmt: skip
"""Topic -> shares of negative, neutral and positive stories."""
TOPIC_WEIGHTS = {
    "Analyst Update": 0.15, "Company | Product News": 0.20, "Dividend": 0.07, "Earnings": 0.19, "Legal | Regulation": 0.11,
    "M&A | Investments": 0.11, "Macro": 0.10, "Personnel Change": 0.07,
}  # fmt: skip
NOISY = "tickertalk"
MAX_COPY_DELAY = dt.timedelta(hours=20)


@dataclass(frozen=True)
class Incident:
    """A planted event. starts_at <= published_at < ends_at for its first reports (copies may follow until 20 h later).

    kind: what a detector should call it ("surge", "shift", "flood"; "" for a decoy). top_story: the story that leads it, as in
    the stream's column `story`. source: the one that made it, "" where all did.
    """

    name: str
    shape: str
    kind: str
    starts_at: dt.datetime
    ends_at: dt.datetime
    topic: str
    tickers: tuple[str, ...]
    top_story: str
    source: str


@dataclass(frozen=True)
class _Plan:
    """How an incident is told: when its stories appear, what about, how often they are copied."""

    incident: Incident
    event: str
    minutes: tuple[float, ...]
    sentiments: tuple[str, ...]
    companies: tuple[Company, ...]
    n_copies: tuple[int, ...]


@dataclass(frozen=True)
class _Story:
    """A story before it is told by its sources."""

    id: str
    at: dt.datetime
    company: Company
    topic: str
    sentiment: str
    title: str
    body: str
    tickers: tuple[str, ...]
    incident: str = ""


def stream(start: dt.datetime, end: dt.datetime, *, seed: int = 0, origin: dt.datetime) -> pd.DataFrame:
    """The articles with start <= published_at < end, in order of time, columns COLUMNS.

    published_at: aware UTC; tickers: tuple; topic, sentiment: what the writer meant; story: equal for copies of one story;
    incident: name of the planted event, "" for ordinary news. Nothing stands before the UTC day of `origin`. Raises ValueError on
    naive datetimes.
    """
    first_day, (start, end) = _midnight(origin), (_aware(start), _aware(end))
    rows: list[dict] = []
    for day in range(max(0, (start - MAX_COPY_DELAY - first_day).days), (end - first_day).days + 1 if end > first_day else 0):
        rows.extend(_told(_ordinary(seed, first_day, day), _rng(seed, day, 1)))
    for plan in _plans_between(start - MAX_COPY_DELAY, end, seed=seed, first_day=first_day):
        rows.extend(_planted(plan, seed))
    kept = [row for row in rows if start <= row["published_at"] < end]
    kept.sort(key=lambda row: (row["published_at"], row["url"]))
    frame = pd.DataFrame(kept, columns=list(COLUMNS))
    return frame.assign(published_at=pd.to_datetime(frame["published_at"], utc=True))


def truth(origin: dt.datetime, *, seed: int = 0, cycle: int = 0) -> list[Incident]:
    """The incidents of one 60-day cycle, in order of time; cycle 0 begins with the UTC day of `origin`."""
    return [plan.incident for plan in _plans(seed, _midnight(origin), cycle) if plan.incident.kind]


def decoys(origin: dt.datetime, *, seed: int = 0, cycle: int = 0) -> list[Incident]:
    """The events of one cycle that look like something and are no reason for an alert; their kind is ""."""
    return [plan.incident for plan in _plans(seed, _midnight(origin), cycle) if not plan.incident.kind]


def labelled(task: str) -> pd.DataFrame:
    """About 1,900 made-up headlines, many with a sentence or two, columns split,text,label; task: "sentiment" or "topic".

    The parts share no wording: each pattern belongs to one of them, so a test figure says how a model does on wordings that it
    has not seen. Raises ValueError for another task.
    """
    if task not in ("sentiment", "topic"):
        raise ValueError(f"the demo news has no labels for {task!r}")
    return _labelled()[["split", "text", task]].rename(columns={task: "label"})


# ---------------------------------------------------------------- ordinary days


def _ordinary(seed: int, first_day: dt.datetime, day: int) -> Iterator[_Story]:
    """The stories of one day. A wording is used again only when all of its topic and sentiment were used that day."""
    rng = _rng(seed, day, 0)
    midnight = first_day + dt.timedelta(days=day)
    weights = np.array([c.weight for c in COMPANIES]) * rng.lognormal(0, 0.25, len(COMPANIES))
    n = int(rng.poisson(STORIES_A_WEEKDAY * WEEKDAYS[midnight.weekday()]))
    seconds = np.sort(_hours_of_day(n, rng) * 3600)
    about = rng.choice(len(COMPANIES), n, p=weights / weights.sum())
    topics = rng.choice(len(TOPICS), n, p=[TOPIC_WEIGHTS[t] for t in TOPICS])
    unused: dict[tuple[str, str], list[str]] = {}
    for i in range(n):
        topic = TOPICS[topics[i]]
        sentiment = SENTIMENTS[int(np.searchsorted(np.cumsum(MIX[topic]), rng.random()).clip(0, 2))]
        left = unused.setdefault((topic, sentiment), [])
        if not left:
            left.extend(rng.permutation(patterns("title", topic, sentiment)).tolist())
        at = midnight + dt.timedelta(seconds=int(seconds[i]))
        yield _written(f"d{day:04d}-{i:03d}", at, COMPANIES[about[i]], topic, sentiment, left.pop(), rng)


def _hours_of_day(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(24, n, p=HOURS / HOURS.sum()) + rng.random(n)


def _written(
    story: str, at: dt.datetime, company: Company, topic: str, sentiment: str, pattern: str, rng: np.random.Generator,
    *, event: str = "", incident: str = "",
) -> _Story:  # fmt: skip
    """A story with its title and a body of one to three sentences, which often say nothing about good or bad."""
    title, tickers = fill(pattern, company, rng, event=event)
    sentences = list(rng.permutation(patterns("body", topic, sentiment))[: int(rng.integers(1, 3))])
    if rng.random() < 0.5:
        sentences.append(pick(patterns("aside"), rng))
    told = [fill(sentence, company, rng) for sentence in sentences]
    mentioned = dict.fromkeys([*tickers, *(t for _, more in told for t in more)])
    body = " ".join(sentence for sentence, _ in told)
    return _Story(story, at, company, topic, sentiment, title, body, tuple(mentioned), incident)


# ---------------------------------------------------------------- from stories to articles


def _told(stories: Iterator[_Story], rng: np.random.Generator) -> Iterator[dict]:
    """Each story by its first source, then by those that copy it."""
    for story in stories:
        n_copies = int(rng.geometric(0.53)) - 1
        yield from _articles(story, min(n_copies, 6), rng)


def _articles(story: _Story, n_copies: int, rng: np.random.Generator) -> Iterator[dict]:
    outlets = news_phrases.outlets()
    first = outlets[int(rng.choice(len(outlets), p=[o.weight for o in outlets]))]
    yield _article(story, first, story.at, story.title, story.body, 0, rng)
    delay_s, limit_s = 0.0, MAX_COPY_DELAY.total_seconds() - 60
    others = [o for o in outlets if o is not first]
    shares = np.array([o.copies for o in others])
    for i in range(n_copies):
        delay_s = min(limit_s, delay_s + 60 + rng.exponential(3000 if n_copies < 10 else 400))
        outlet = others[int(rng.choice(len(others), p=shares / shares.sum()))]
        title, body = _copied(story, first, outlet, rng)
        yield _article(story, outlet, story.at + dt.timedelta(seconds=int(delay_s)), title, body, i + 1, rng)


def _copied(story: _Story, first: Outlet, outlet: Outlet, rng: np.random.Generator) -> tuple[str, str]:
    """A copy's title and body: nearly the same words, as copies are."""
    if outlet.kind == "social":
        return f"RT @{first.name.replace('-', '')}: {story.title}", ""
    if outlet.kind == "wire":
        return f"UPDATE {int(rng.integers(1, 4))}-{story.title}", story.body
    shortened = story.body.split(". ")[0].rstrip(".") + "." if rng.random() < 0.3 else story.body
    return pick((story.title, f"{story.title} - {outlet.name.replace('-', ' ').title()}"), rng), shortened


def _article(story: _Story, outlet: Outlet, at: dt.datetime, title: str, body: str, n: int, rng: np.random.Generator) -> dict:
    """One row of the stream, with the marks that feeds leave: cashtags, entities, tags, tracking parameters."""
    if outlet.kind == "social" and not title.startswith("RT "):
        title = f"${story.company.ticker} {title}" + pick(("", " #stocks", " #markets", " $$$"), rng)
        body = ""
    elif rng.random() < 0.3 and body:
        body = body.replace(story.company.name, f"{story.company.name} ({story.company.ticker})", 1)
    if rng.random() < 0.12:  # a feed that escapes its text once too often
        title, body = (html.escape(part).replace("£", "&pound;").replace("€", "&euro;") for part in (title, body))
    elif body and rng.random() < 0.15:
        body = f"<p>{html.escape(body, quote=False).replace('. ', '.</p><p>')}</p>"
    link = f"https://{outlet.host}/{at:%Y/%m/%d}/{story.id}-{n}"
    return {
        "published_at": at, "source": outlet.name, "url": link + ("?utm_source=rss" if rng.random() < 0.2 else ""), "title": title,
        "body": body, "tickers": story.tickers, "topic": story.topic, "sentiment": story.sentiment, "story": story.id,
        "incident": story.incident,
    }  # fmt: skip


# ---------------------------------------------------------------- planted incidents


def _plans_between(start: dt.datetime, end: dt.datetime, *, seed: int, first_day: dt.datetime) -> Iterator[_Plan]:
    """The planted events, decoys included, that may have articles in a window."""
    for cycle in range(max(0, (start - first_day).days // CYCLE_DAYS - 1), (end - first_day).days // CYCLE_DAYS + 1):
        for plan in _plans(seed, first_day, cycle):
            if plan.incident.starts_at < end and plan.incident.ends_at >= start:
                yield plan


@functools.lru_cache(maxsize=128)
def _plans(seed: int, first_day: dt.datetime, cycle: int) -> tuple[_Plan, ...]:
    """Every planted event of a cycle, in order of time."""
    rng = _rng(seed, cycle, 2)
    ranked = list(rng.permutation(np.arange(1, 9)))  # companies with neither too much nor too little news, each in one event
    named = [COMPANIES[i] for i in ranked]

    def at(day: int, hours: tuple[int, int]) -> dt.datetime:
        found = first_day + dt.timedelta(days=cycle * CYCLE_DAYS + day + int(rng.integers(-1, 2)), hours=int(rng.integers(*hours)))
        while found.weekday() > 4:
            found += dt.timedelta(days=1)
        return found

    planned = (
        _leak(at(15, (7, 10)), cycle, named[0], rng),
        _echo(at(26, (8, 14)), cycle, named[1], rng),
        _sudden(at(31, (8, 13)), cycle, named[2], rng),
        _spam(at(37, (9, 15)), cycle, named[3], rng),
        _results_day(at(42, (6, 8)), cycle, named[4], rng),
        _shock(at(47, (7, 11)), cycle, rng),
        _sector(at(53, (8, 12)), cycle, rng),
    )
    return tuple(sorted(planned, key=lambda plan: plan.incident.starts_at))


def _leak(at: dt.datetime, cycle: int, company: Company, rng: np.random.Generator) -> _Plan:
    a_day = max(5.0, 2.2 * _negative_a_day(company))
    minutes = []
    for day in range(6):
        weekend = (at + dt.timedelta(days=day)).weekday() > 4
        of_day = _hours_of_day(round(a_day * (0.6 if weekend else 1.0)), rng) * 60  # not drawn: a leak is as large as stated
        minutes += [day * 1440 + (m - at.hour * 60) % 1440 for m in of_day]
    return _plan("slow leak", "shift", at, 6 * 24, "Earnings", (company,), minutes, rng, cycle=cycle, top_copies=6)


def _sudden(at: dt.datetime, cycle: int, company: Company, rng: np.random.Generator) -> _Plan:
    n = max(20, round(8 * _negative_a_day(company) * 0.6))  # 9 hours of a working day hold about 0.6 of its news
    topic = pick(("Legal | Regulation", "Company | Product News"), rng)
    return _plan("sudden", "surge", at, 9, topic, (company,), rng.beta(1, 2.2, n) * 540, rng, cycle=cycle, top_copies=15)


def _spam(at: dt.datetime, cycle: int, company: Company, rng: np.random.Generator) -> _Plan:
    return _plan("spam burst", "flood", at, 2.5, "Legal | Regulation", (company,), rng.random(42) * 150, rng, cycle=cycle, source=NOISY)


def _shock(at: dt.datetime, cycle: int, rng: np.random.Generator) -> _Plan:
    hit = tuple(COMPANIES[i] for i in sorted(rng.choice(len(COMPANIES), 11, replace=False)))
    return _plan("shock", "surge", at, 30, "Macro", hit, rng.beta(1, 2, 75) * 1800, rng, cycle=cycle, top_copies=18)


def _sector(at: dt.datetime, cycle: int, rng: np.random.Generator) -> _Plan:
    sector = pick(("Banks", "Energy", "Technology"), rng)
    hit = tuple(c for c in COMPANIES if c.sector == sector)
    return _plan("sector", "surge", at, 10, "Legal | Regulation", hit, rng.beta(1, 1.8, 30) * 600, rng, cycle=cycle, top_copies=12)


def _echo(at: dt.datetime, cycle: int, company: Company, rng: np.random.Generator) -> _Plan:
    return _plan("echo", "", at, 5, "Company | Product News", (company,), (0.0,), rng, cycle=cycle, top_copies=45)


def _results_day(at: dt.datetime, cycle: int, company: Company, rng: np.random.Generator) -> _Plan:
    mix = rng.permutation(["negative"] * 8 + ["neutral"] * 11 + ["positive"] * 11)
    return _plan("results day", "", at, 11, "Earnings", (company,), rng.random(30) * 660, rng, cycle=cycle, sentiments=tuple(mix))


def _plan(
    shape: str, kind: str, at: dt.datetime, hours: float, topic: str, hit: tuple[Company, ...], minutes, rng: np.random.Generator,
    *, cycle: int, top_copies: int = 0, source: str = "", sentiments: tuple[str, ...] = (),
) -> _Plan:  # fmt: skip
    """The plan of an event: its first story leads it, and is copied most."""
    when = tuple(sorted(float(m) for m in minutes))
    name = f"{shape} {cycle + 1}"
    events = news_phrases.slots()["events"][topic]
    n_copies = (top_copies, *(0 if source or sentiments else int(rng.geometric(0.53)) - 1 for _ in when[1:]))
    about = tuple(hit[i % len(hit)] for i in range(len(when)))  # in turn, so that every company of it is hit
    top = f"{name.replace(' ', '-')}-000"
    ends_at = at + dt.timedelta(hours=hours)
    incident = Incident(name, shape, kind, at, ends_at, topic, tuple(c.ticker for c in hit), "" if sentiments else top, source)
    return _Plan(incident, pick(events, rng), when, sentiments or ("negative",) * len(when), about, n_copies)


def _planted(plan: _Plan, seed: int) -> Iterator[dict]:
    """The articles of a planted event, the same whenever they are asked for."""
    incident = plan.incident
    rng = _rng(seed, int(incident.starts_at.timestamp()) // 3600, 3)
    word = _wordings(plan, rng)
    for i, (minute, sentiment, company) in enumerate(zip(plan.minutes, plan.sentiments, plan.companies, strict=True)):
        story_id, at = f"{incident.name.replace(' ', '-')}-{i:03d}", incident.starts_at + dt.timedelta(seconds=int(60 * minute))
        pattern = word(i, sentiment)
        story = _written(story_id, at, company, incident.topic, sentiment, pattern, rng, event=plan.event, incident=incident.name)
        if incident.source:
            outlet = next(o for o in news_phrases.outlets() if o.name == incident.source)
            yield _article(story, outlet, at, story.title, "", 0, rng)
        else:
            yield from _articles(story, plan.n_copies[i], rng)


def _wordings(plan: _Plan, rng: np.random.Generator) -> Callable[[int, str], str]:
    """Which pattern tells the n-th story of an event; a pattern comes again only when all were used."""
    topic = plan.incident.topic
    if plan.incident.source:
        pools = {"negative": rng.permutation(attacks(topic)).tolist()}
    elif plan.incident.shape == "results day":
        pools = {s: rng.permutation(patterns("title", topic, s)).tolist() for s in SENTIMENTS}
    else:
        pools = {"negative": rng.permutation([*lead("follow", topic), *patterns("title", topic, "negative")]).tolist()}
    first = pick(lead("first", topic), rng) if plan.incident.top_story and not plan.incident.source else ""

    def word(n: int, sentiment: str) -> str:
        return first if first and n == 0 else pools[sentiment][n % len(pools[sentiment])]

    return word


# ---------------------------------------------------------------- labelled rows


@functools.cache
def _labelled() -> pd.DataFrame:
    """Each pattern of a part, filled a few times: columns split, text, sentiment, topic."""
    rng = _rng(0, 0, 4)
    rows = []
    for split, times in (("train", 9), ("validation", 8), ("test", 4)):
        for topic, sentiment in itertools.product(TOPICS, SENTIMENTS):
            for pattern in patterns("title", topic, sentiment, split=split) * times:
                rows.append((split, _message(pattern, topic, sentiment, split, rng), sentiment, topic))
        for topic, events in news_phrases.slots()["events"].items():
            for pattern in (*lead("first", topic, split=split), *lead("follow", topic, split=split)):
                rows.append((split, _message(pattern, topic, "negative", split, rng, event=pick(events, rng)), "negative", topic))
        for pattern in rng.permutation(attacks("Legal | Regulation", split=split))[: 6 * times]:
            rows.append((split, fill(pattern, pick(COMPANIES, rng), rng)[0], "negative", "Legal | Regulation"))
    return pd.DataFrame(rows, columns=["split", "text", "sentiment", "topic"]).drop_duplicates("text", ignore_index=True)


def _message(pattern: str, topic: str, sentiment: str, split: str, rng: np.random.Generator, *, event: str = "") -> str:
    """A title, half the time with a sentence after it, worded from one part's patterns only."""
    company = pick(COMPANIES, rng)
    sentences = [fill(pattern, company, rng, event=event)[0]]
    if rng.random() < 0.35:
        sentences.append(fill(pick(patterns("body", topic, sentiment, split=split), rng), company, rng)[0])
    if rng.random() < 0.2:
        sentences.append(fill(pick(patterns("aside", split=split), rng), company, rng)[0])
    return sentences[0] if len(sentences) == 1 else ". ".join([sentences[0], " ".join(sentences[1:])])


def _negative_a_day(company: Company) -> float:
    """Negative stories of a company on an ordinary weekday."""
    return STORIES_A_WEEKDAY * company.weight * sum(TOPIC_WEIGHTS[t] * MIX[t][0] for t in TOPICS)


def _rng(seed: int, n: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, n, purpose]))


def _aware(moment: dt.datetime) -> dt.datetime:
    return clock.from_store(clock.to_store(moment))


def _midnight(origin: dt.datetime) -> dt.datetime:
    return _aware(origin).replace(hour=0, minute=0, second=0, microsecond=0)
