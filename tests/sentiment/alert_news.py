"""What the tests of alerts share: scored news written straight into the store, a detector that can be foretold, the demo stream as articles."""

import datetime as dt

import pandas as pd

from fmcore import clock
from fmcore.data import news_demo
from fmcore.nouns import Reading, Rule

T0 = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
HOUR, MINUTE = dt.timedelta(hours=1), dt.timedelta(minutes=1)
NET = {"negative": -8000, "neutral": 0, "positive": 8000}


def at(hours: float) -> dt.datetime:
    """So many hours after T0."""
    return T0 + dt.timedelta(hours=hours)


class Threshold:
    """Fires for a key with at least `floor` negative stories in a bucket, where 1 was expected. Knows nothing of other buckets."""

    def __init__(self, settings):
        self.floor, self.bucket_s = settings.floor, settings.bucket_s

    def update(self, bucket_at, counts):
        return {key: self._reading(c.n_negative) for key, c in counts.items()}

    def _reading(self, n):
        fires = n >= self.floor
        return Reading("surge" if fires else "", fires, float(n), 1.0, n - 1.0, 0.0, 0.0, 0.9 if fires else 0.1, f"{n} where 1 is usual",
                       self.bucket_s)


def rule(id="r", *, dimension="topic", **changes):
    """An hourly rule that fires at once and holds for 3 calm hours."""
    values = dict(title="Bad news", keys=(), kinds=("surge",), severity="medium", bucket_s=3600, sensitivity=0.5, floor=5, for_buckets=1,
                  keep_firing_buckets=3) | changes
    return Rule(id=id, dimension=dimension, **values)


def put(store, rows, *, documents=True, articles=True, scored_at=None):
    """Rows of (published_at, {source, topic, tickers, sentiment, story, title, net}) as documents and their articles; returns their ids."""
    ((n,),) = [(r["n"],) for r in store.rows("SELECT count(*) AS n FROM documents")]
    made = []
    for i, (moment, said) in enumerate(rows):
        made.append({"source": "wire-a", "topic": "Fraud", "tickers": (), "sentiment": "negative", "story": "", "title": f"Story {n + i}",
                     "url": f"https://a.example/{n + i}", "body": ""} | said | {"published_at": moment, "id": f"d{n + i:06d}"})
    if not made:
        return []
    write(store, pd.DataFrame(made), documents=documents, articles=articles, scored_at=scored_at)
    return [row["id"] for row in made]


def burst(store, hour, n, *, minute=5, **said):
    """n stories, spread over ten minutes of the hour `hour` after T0, from that minute on."""
    start = at(hour) + minute * MINUTE
    return put(store, [(start + i * dt.timedelta(minutes=10) / max(n, 1), dict(said)) for i in range(n)])


def hum(store, start, end, **said):
    """One neutral story an hour, so that the stream is not silent: from start until before end, in hours after T0."""
    put(store, [(at(h) + MINUTE, {"sentiment": "neutral", "topic": "Macro"} | said) for h in range(start, end)])


def write(store, frame, *, documents=True, articles=True, scored_at=None):
    """A frame with the columns of `put` into documents and articles; an empty story is a story of its own."""
    moments = pd.to_datetime(frame["published_at"], utc=True).dt.tz_convert(None)
    story = frame["story"].where(frame["story"] != "", frame["id"])
    tickers = [list(t) for t in frame["tickers"]]
    net = frame["net"] if "net" in frame else frame["sentiment"].map(NET)
    docs = pd.DataFrame({
        "id": frame["id"], "source": frame["source"], "url": frame["url"], "title": frame["title"], "body": frame["body"], "language": "en",
        "tickers": tickers, "published_at": moments, "seen_at": moments, "truncated": False, "synthetic": True})
    scored = pd.DataFrame({
        "document_id": frame["id"], "published_at": moments, "source": frame["source"], "tickers": tickers, "topic": frame["topic"],
        "topic_score": 1.0, "story_id": story, "leads": ~story.duplicated(), "sentiment": frame["sentiment"], "net": net.astype("int32"),
        "p_negative": 0.1, "p_neutral": 0.8, "p_positive": 0.1, "lexicon": 0.0, "sentiment_version": "v", "topic_version": "v",
        "scored_at": clock.to_store(scored_at) if scored_at else moments, "signature": [b""] * len(frame)})
    with store.write() as tx:
        if documents:
            tx.insert_frame("documents", docs)
        if articles:
            tx.insert_frame("articles", scored)


def demo(store, *, seed, days=60, origin=T0):
    """The demo stream with its true labels and stories as articles; returns its incidents."""
    frame = news_demo.stream(origin, origin + dt.timedelta(days=days), seed=seed, origin=origin)
    write(store, frame.assign(id=[f"d{i:06d}" for i in range(len(frame))]))
    return news_demo.truth(origin, seed=seed)


def outbox(store):
    """What was queued for the channels, in order: (alert_id, transition)."""
    return [(row["alert_id"], row["transition"]) for row in store.rows("SELECT alert_id, transition FROM outbox ORDER BY n")]
