"""Scored documents made by hand, and what the trends must say of them: counted straight from the articles, in pandas."""

import datetime as dt

import numpy as np
import pandas as pd

from fmcore.sentiment import rollup
from fmcore.sentiment import stories as similar

START = dt.datetime(2026, 10, 1)
CLASSES = ("negative", "neutral", "positive")


def scored(texts, *, at=None, ids=None, source="wire", tickers=(), topic="Fraud", p=(0.7, 0.2, 0.1), version="v1") -> pd.DataFrame:
    """What scoring.score gives, one row a text. at: naive UTC moments (default: a minute apart); the rest one value for all, or a list."""
    n = len(texts)

    def each(value, single):
        return [value] * n if isinstance(value, single) else list(value)

    p = np.array([p] * n if np.ndim(p) == 1 else p, dtype=np.float64).reshape(n, 3)
    return pd.DataFrame({
        "document_id": ids or [f"d{i:05d}" for i in range(n)],
        "published_at": pd.to_datetime(list(at or [START + dt.timedelta(minutes=i) for i in range(n)])),
        "source": each(source, str), "tickers": [list(t) for t in each(tickers, tuple)], "topic": each(topic, str), "topic_score": np.float32(0.9),
        "sentiment": [CLASSES[i] for i in p.argmax(axis=1)] if n else [], "net": np.rint(10_000 * (p[:, 2] - p[:, 0])).astype(np.int32),
        "p_negative": p[:, 0].astype(np.float32), "p_neutral": p[:, 1].astype(np.float32), "p_positive": p[:, 2].astype(np.float32),
        "lexicon": np.float32(0.1), "sentiment_version": version, "topic_version": version, "scored_at": START,
        "signature": similar.signatures((text, "") for text in texts), "url": "https://news.example", "title": list(texts), "synthetic": True,
    })


def several(seed: int, n: int, *, first: int = 0, days: float = 12, n_texts: int = 40) -> pd.DataFrame:
    """Random rows in which texts, and so stories, repeat. first: the number of the first document."""
    rng = np.random.default_rng(seed)
    words = np.random.default_rng(1).integers(0, 500, (n_texts, 9))
    at = [START + dt.timedelta(seconds=int(s)) for s in rng.integers(0, int(days * 86_400), n)]
    tickers = [tuple(sorted(set(rng.choice(list("ABCD"), rng.integers(0, 3)).tolist()))) for _ in range(n)]
    return scored(
        [" ".join(f"w{w}" for w in words[i]) for i in rng.integers(0, n_texts, n)], at=at, ids=[f"d{first + i:05d}" for i in range(n)],
        source=rng.choice(["wire", "blog", "paper"], n).tolist(), tickers=tickers, topic=rng.choice(["Fraud", "Rates", "Oil"], n).tolist(),
        p=rng.dirichlet([1, 1, 1], n),
    )


def documents(store, frame: pd.DataFrame) -> None:
    """The documents behind scored rows."""
    kept = frame[["source", "url", "title", "tickers", "published_at", "synthetic"]]
    made = kept.assign(id=frame["document_id"], body="", language="en", seen_at=frame["published_at"], truncated=False)
    with store.write() as tx:
        tx.insert_frame("documents", made)


def articles_of(store) -> pd.DataFrame:
    """The articles, with the number of their 5-minute bucket."""
    articles = store.frame("SELECT published_at, source, tickers, topic, leads, sentiment, net FROM articles")
    return articles.assign(bucket=articles["published_at"].astype("datetime64[s]").astype("int64") // rollup.BUCKET_S)


def counted(articles: pd.DataFrame, filters, *, step: int | None) -> pd.DataFrame:
    """What rollup.sums must give, from the articles alone."""
    mask = pd.Series(True, index=articles.index)
    for column, wanted in (("topic", filters.topics), ("source", filters.sources)):
        mask &= articles[column].isin(wanted) if wanted else True
    if filters.tickers:
        mask &= articles["tickers"].map(lambda has: bool(set(has) & set(filters.tickers))).astype(bool)
    if filters.start:
        mask &= articles["bucket"] >= filters.start.timestamp() // rollup.BUCKET_S
    if filters.end:
        mask &= articles["bucket"] < -(-filters.end.timestamp() // rollup.BUCKET_S)
    rows = articles[mask].assign(net=lambda f: f["net"].astype("int64"))
    label = rows["bucket"] // step * step if step else rows["bucket"] * 0
    out = pd.DataFrame({"n_articles": rows.groupby(label).size()})
    for what, value in (("n", rows["net"] * 0 + 1), ("sum", rows["net"]), ("sq", rows["net"] ** 2)):
        for name in CLASSES:
            out[f"{what}_{name}"] = value.where(rows["leads"] & rows["sentiment"].eq(name), 0).groupby(label).sum()
    return out.astype("int64")


def kept(store, filters, *, step: int | None) -> pd.DataFrame:
    """rollup.sums as a frame like `counted`; what cancelled to nothing is no news."""
    cells = rollup.sums(store, rollup.scope(store, filters), step=step)
    frame = pd.DataFrame(cells.values, columns=rollup.SUMS, index=cells.labels)
    return frame[frame["n_articles"] != 0]
