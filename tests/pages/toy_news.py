"""A desk with scored news, written straight into the store: ten days of two topics and three tickers, one bad day, one story with copies."""

import datetime as dt

import numpy as np
import pandas as pd

from fmcore import clock
from fmcore.sentiment import rollup

TOPICS = ("Fraud", "Earnings", "Rates")
TICKERS = ("AAA", "BBB", "CCC")
SOURCES = ("wire", "paper")
HOSTILE = "<img src=x onerror=alert(1)> **b** $\\int$ :red[x] [l](javascript:alert(1)) =1+1 \u202eabc"


def rows(end: dt.datetime, *, days: int = 10, per_hour: int = 3, seed: int = 0, bad: str = "AAA") -> pd.DataFrame:
    """Articles, oldest first: in the last 24 h most of what is said about `bad` is negative fraud news."""
    rng = np.random.default_rng(seed)
    n = days * 24 * per_hour
    at = np.sort(rng.uniform(0, days * 86_400, n))
    moments = [end - dt.timedelta(seconds=float(days * 86_400 - s) + 60) for s in at]
    tickers = rng.choice(TICKERS, n)
    topics = rng.choice(TOPICS, n)
    worse = np.array([m > end - dt.timedelta(hours=24) for m in moments]) & (tickers == bad)
    topics = np.where(worse, "Fraud", topics)
    net = np.where(worse, rng.uniform(-0.95, -0.6, n), rng.uniform(-0.6, 0.9, n))
    frame = pd.DataFrame({"published_at": moments, "topic": topics, "ticker": tickers, "net": net, "source": rng.choice(SOURCES, n)})
    frame["title"] = [f"{t} {topic} story {i}" for i, (t, topic) in enumerate(zip(tickers, topics, strict=True))]
    frame.loc[frame.index[-1], "title"] = HOSTILE
    frame["url"] = [f"https://news.example.com/{i}" for i in range(n)]
    frame.loc[frame.index[-1], "url"] = "javascript:alert(1)"
    frame["story"] = [f"d{i}" for i in range(n)]  # a story has the name of its first article
    return frame


def copies(frame: pd.DataFrame, i: int, n: int) -> pd.DataFrame:
    """n copies of a row, a minute apart, from another source."""
    first = frame.iloc[i]
    more = pd.DataFrame([first.to_dict() | {"published_at": first["published_at"] + dt.timedelta(minutes=k + 1), "source": "blog"} for k in range(n)])
    return pd.concat([frame, more.assign(url=[f"https://blog.example.com/{k}" for k in range(n)])], ignore_index=True)


def write(store, frame: pd.DataFrame, *, synthetic: bool = True, first: int = 0) -> None:
    """The documents and their scored articles, and the kept-up sums over them."""
    at = [clock.to_store(m) for m in frame["published_at"]]
    ids = [f"d{first + i}" for i in range(len(frame))]
    tickers = [[t] for t in frame["ticker"]]
    documents = pd.DataFrame(
        {"id": ids, "source": frame["source"], "url": frame["url"], "title": frame["title"], "body": "", "language": "en", "tickers": tickers,
         "published_at": at, "seen_at": at, "truncated": False, "synthetic": synthetic}
    )
    net = frame["net"].to_numpy()
    label = np.where(net < -0.15, "negative", np.where(net > 0.15, "positive", "neutral"))
    articles = pd.DataFrame(
        {"document_id": ids, "published_at": at, "source": frame["source"], "tickers": tickers, "topic": frame["topic"], "topic_score": 0.9,
         "story_id": frame["story"], "leads": ~frame["story"].duplicated(), "sentiment": label, "net": np.round(net * 10_000).astype(int),
         "p_negative": np.clip(-net, 0, 1), "p_neutral": 1 - np.abs(net), "p_positive": np.clip(net, 0, 1), "lexicon": 0.25,
         "sentiment_version": "sentiment-1", "topic_version": "topic-1", "scored_at": at, "signature": [b""] * len(frame)}
    )
    with store.write() as tx:
        tx.insert_frame("documents", documents)
        tx.insert_frame("articles", articles)
    rollup.rebuild(store)


def fill(store, *, end: dt.datetime | None = None, **made) -> pd.DataFrame:
    """Ten days of news that end at `end` (default: now), one story of them with three copies; returns the articles."""
    end = end or clock.now()
    frame = rows(end, **made)
    frame = copies(frame, len(frame) - 2, 3)
    write(store, frame)
    return frame
