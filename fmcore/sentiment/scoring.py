"""From documents to articles: which wait, what the models say of them, which story each belongs to, and all of it stored at once.

Owns the tables articles, stories and score_marks. A batch is one transaction: its articles, its stories and their entries in the
rollup are all there or none, so that a killed run loses nothing and doubles nothing. The earliest article of a story (by published_at,
then id) leads it and gives it its name; a late one may take over, or join two stories. Never decides when to score (jobs/score.py).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from fmcore import clock
from fmcore.evaluation.lexicon import lexicon_scores
from fmcore.nouns import FMError, Prediction
from fmcore.sentiment import rollup
from fmcore.sentiment import stories as similar
from fmcore.store.store import Store, Transaction

if TYPE_CHECKING:
    from fmcore.serving.engine import Engine

BODY_CHARS = 600
UNKNOWN = "unknown"
_LOOK_BACK = dt.timedelta(days=1)
"""How far a clock may have stepped back without a document being missed at once."""
_DOCUMENT = "id, source, url, title, body, tickers, published_at, seen_at, synthetic"


class NoModel(FMError):
    """There is no sentiment model yet, so nothing can be scored."""


class WrongModel(FMError):
    """The model that serves as sentiment does not say negative, neutral, positive."""


@dataclass(frozen=True)
class Backlog:
    """Documents that wait to be scored, how many were scored a minute over the last hour, and since when the oldest has been waiting."""

    n_unscored: int
    per_minute: float
    oldest_at: dt.datetime | None


def scored_text(title: str, body: str) -> str:
    """What the models read: the title, a full stop, and the first 600 characters of the body; they cut it at their own token limit."""
    title, body = title.strip(), body.strip()[:BODY_CHARS]
    if not title or not body:
        return title or body
    return f"{title} {body}" if title[-1] in ".!?:" else f"{title}. {body}"


# --- what waits


def unscored(store: Store, *, limit: int) -> pd.DataFrame:
    """Documents without an article, first published first, at most `limit`: columns id, source, url, title, body, tickers,
    published_at, seen_at (naive UTC), synthetic."""
    sql = f"SELECT {_DOCUMENT} FROM documents d WHERE {{}} ORDER BY published_at, id LIMIT {int(limit)}"
    found = _waiting(store, sql)
    if found.empty and _n_rows(store, "documents") > _n_rows(store, "articles"):  # a clock that stepped far back hid some
        found = store.frame(sql.format("NOT EXISTS (SELECT 1 FROM articles a WHERE a.document_id = d.id)"))
    return found


def backlog(store: Store) -> Backlog:
    """How much waits, and how fast it goes."""
    row = _waiting(store, "SELECT count(*) AS n, min(seen_at) AS oldest_at FROM documents d WHERE {}").iloc[0]
    hour = clock.to_store(clock.now() - dt.timedelta(hours=1))
    n_scored = store.rows("SELECT count(*) AS n FROM articles WHERE scored_at >= ?", hour)[0]["n"]
    oldest = None if row["n"] == 0 else clock.from_store(row["oldest_at"].to_pydatetime())
    return Backlog(int(row["n"]), round(n_scored / 60, 2), oldest)


def mark(store: Store) -> None:
    """Note that nothing waits: the next search starts here, less a day. Called when `unscored` found nothing."""
    [row] = store.rows("SELECT (SELECT max(seen_at) FROM documents) AS seen_at, (SELECT max(scored_to) FROM score_marks) AS done")
    if row["seen_at"] and (row["done"] is None or row["seen_at"] > row["done"] + dt.timedelta(hours=1)):
        with store.write() as tx:
            tx.execute("INSERT INTO score_marks VALUES (?, ?)", [row["seen_at"], clock.to_store(clock.now())])


def _waiting(store: Store, sql: str) -> pd.DataFrame:
    """Run a query on the documents `d` that have no article. An article carries its document's published_at, so that only the stretch of
    both tables that the recent documents lie in is read."""
    since = store.rows("SELECT max(scored_to) AS at FROM score_marks")[0]["at"]
    if since is None:
        return store.frame(sql.format("NOT EXISTS (SELECT 1 FROM articles a WHERE a.document_id = d.id)"))
    since -= _LOOK_BACK
    first = store.rows("SELECT min(published_at) AS at FROM documents WHERE seen_at >= ?", since)[0]["at"]
    if first is None:
        return store.frame(sql.format("false"))
    condition = """d.seen_at >= ? AND d.published_at >= ? AND NOT EXISTS
                   (SELECT 1 FROM articles a WHERE a.published_at >= ? AND a.document_id = d.id)"""
    return store.frame(sql.format(condition), since, first, first)


def _n_rows(store: Store, table: str) -> int:
    return store.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"]


# --- what the models say


def score(engine: Engine, documents: pd.DataFrame) -> pd.DataFrame:
    """The articles of documents, without their stories, and what a list shows of each (url, title, synthetic).

    An article carries the versions that answered; where there is no topic model its topic is "unknown". Raises NoModel, WrongModel, and
    what the engine raises when no version can be loaded.
    """
    if engine.registry.champion("sentiment") is None:
        raise NoModel("No sentiment model serves yet, so nothing can be scored.", "Train one on the Training page: task sentiment.")
    texts = [scored_text(title, body) for title, body in zip(documents["title"], documents["body"], strict=True)]
    frame = pd.DataFrame({"document_id": documents["id"].to_numpy(), "published_at": documents["published_at"].to_numpy()})
    frame["source"], frame["tickers"] = documents["source"].to_numpy(), [sorted(set(t)) for t in documents["tickers"]]
    frame = frame.assign(**_answers(engine, texts))
    frame["lexicon"] = lexicon_scores(texts).astype(np.float32)
    frame["scored_at"] = clock.to_store(clock.now())
    frame["signature"] = similar.signatures(zip(documents["title"], documents["body"], strict=True))
    return frame.assign(**{name: documents[name].to_numpy() for name in _SHOWN})


def _answers(engine: Engine, texts: Sequence[str]) -> dict[str, Any]:
    """The columns that come from the models, each task answered by one version. Equal texts are asked once: syndicated news is mostly
    word for word."""
    single = list(dict.fromkeys(texts))
    place = {text: i for i, text in enumerate(single)}
    row = np.array([place[text] for text in texts], dtype=np.int64)
    said = _asked(engine, "sentiment", single)
    if said and not set(rollup.CLASSES) <= set(said[0].scores):
        raise WrongModel(f"{said[0].version} says {', '.join(said[0].scores)}.", "Promote a model with negative, neutral, positive.")
    probabilities = {name: np.array([p.scores[name] for p in said])[row] for name in rollup.CLASSES}
    found: dict[str, Any] = {f"p_{name}": values.astype(np.float32) for name, values in probabilities.items()}
    found["sentiment"], found["sentiment_version"] = [said[i].label for i in row], [said[i].version for i in row]
    found["net"] = np.rint(10_000 * (probabilities["positive"] - probabilities["negative"])).astype(np.int32)
    if engine.registry.champion("topic") is None:
        return found | {"topic": UNKNOWN, "topic_score": np.float32(0), "topic_version": ""}
    named = _asked(engine, "topic", single)
    found["topic"], found["topic_version"] = [named[i].label for i in row], [named[i].version for i in row]
    return found | {"topic_score": np.array([named[i].score for i in row], np.float32)}


def _asked(engine: Engine, task: str, texts: list[str]) -> Sequence[Prediction]:
    """What the champion says. Its classifier is asked directly: a batch of news is no conversation, it neither waits in the queue of
    messages nor fills their log."""
    with engine.classifier(task) as model:
        return model.predict(texts)


# --- storing


def land(store: Store, scored: pd.DataFrame) -> int:
    """Store scored documents that are not stored yet, with their stories and their entries in the rollup, in one transaction; returns
    how many were new."""
    if scored.empty:
        return 0
    with store.write() as tx:
        new = _unknown(tx, scored).sort_values(["published_at", "document_id"], ignore_index=True)
        if new.empty:
            return 0
        near = _neighbours(tx, new)
        placed, beaten, sizes = _place(tx, near, new)
        tx.insert_frame("articles", placed.drop(columns=_SHOWN))
        coded = _coded(tx, placed)
        entries = coded.assign(n_articles=1, n_stories=placed["leads"].astype(int).to_numpy())
        rollup.add(tx, _entries(pd.concat([entries, beaten.assign(n_articles=0, n_stories=-1)], ignore_index=True)))
        leads = coded.join(placed[["story_id", *_SAID, *_SHOWN]])[placed["leads"].to_numpy()]
        tx.insert_frame("stories", leads.assign(n_articles=[sizes[name] for name in leads["story_id"]]))
    return len(placed)


_STORY = ["story_id", "published_at", "topic", "source", "tickers", "class", "net", "n_articles"]
_SAID = ["p_negative", "p_neutral", "p_positive", "lexicon"]
_SHOWN = ["url", "title", "synthetic"]


def _unknown(tx: Transaction, scored: pd.DataFrame) -> pd.DataFrame:
    """The rows whose document has no article yet."""
    first, last = scored["published_at"].min().to_pydatetime(), scored["published_at"].max().to_pydatetime()
    ids = scored["document_id"].tolist()
    sql = f"SELECT document_id FROM articles WHERE published_at >= ? AND published_at <= ? AND document_id IN ({_marks(ids)})"
    known = {row[0] for row in tx.execute(sql, [first, last, *ids])}
    return scored[~scored["document_id"].isin(known)].drop_duplicates("document_id")


def _place(tx: Transaction, near: pd.DataFrame, new: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """Give each new article its story. Returns the articles with story_id and leads, the rows of `stories` that lost their lead, and how
    many articles each story has, by its name. Stories that change their lead or grow are brought up to date here; those that a new
    article leads have no row yet."""
    groups = _grouped(near, new)
    touched = np.isin(groups[: len(near)], groups[len(near) :])
    old: dict[int, set[str]] = {}
    for group, story in zip(groups[: len(near)][touched], near["story_id"].to_numpy()[touched], strict=True):
        old.setdefault(group, set()).add(story)
    held = _stories(tx, sorted(set().union(*old.values())), since=near["published_at"].min() if len(near) else None)
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups[len(near) :]):
        members.setdefault(group, []).append(row)
    ids, moments, names = new["document_id"].tolist(), new["published_at"].tolist(), new["document_id"].tolist()
    sizes: dict[str, int] = {}
    renamed: dict[str, str] = {}
    for group, rows in members.items():
        before = old.get(group, set())
        lead = min([*((held[s].published_at, s) for s in before), *((moments[row], ids[row]) for row in rows)])[1]
        sizes[lead] = sum(held[s].n_articles for s in before) + len(rows)
        renamed |= {s: lead for s in before if s != lead}
        for row in rows:
            names[row] = lead
    if held:
        grown = {lead: n for lead, n in sizes.items() if lead in held}
        _bring_up(tx, renamed, grown, since=min(story.published_at for story in held.values()))
    beaten = pd.DataFrame([held[s] for s in renamed], columns=_STORY)
    return new.assign(story_id=names, leads=[name == own for name, own in zip(names, ids, strict=True)]), beaten, sizes


def _bring_up(tx: Transaction, renamed: dict[str, str], sizes: dict[str, int], *, since: dt.datetime) -> None:
    """Stories that go on under another lead: their articles take its name, their own rows go. Stories that grew: their new size."""
    if renamed:
        before, after = list(renamed), list(renamed.values())
        tx.execute(
            """UPDATE articles SET story_id = m.after, leads = false FROM (SELECT unnest(?) AS before, unnest(?) AS after) m
               WHERE articles.published_at >= ? AND articles.story_id = m.before""",
            [before, after, since],
        )
        tx.execute(f"DELETE FROM stories WHERE published_at >= ? AND story_id IN ({_marks(before)})", [since, *before])
    if sizes:
        tx.execute(
            """UPDATE stories SET n_articles = m.n FROM (SELECT unnest(?) AS story_id, unnest(?) AS n) m
               WHERE stories.published_at >= ? AND stories.story_id = m.story_id""",
            [list(sizes), list(sizes.values()), since],
        )


def _neighbours(tx: Transaction, new: pd.DataFrame) -> pd.DataFrame:
    """The articles that may be like a new one: published within the window of one of them."""
    reach: list[list[dt.datetime]] = []
    for moment in (stamp.to_pydatetime() for stamp in new["published_at"]):
        start, end = moment - similar.WINDOW, moment + similar.WINDOW
        if reach and start <= reach[-1][1]:
            reach[-1][1] = end
        else:
            reach.append([start, end])
    where = " OR ".join(["(published_at >= ? AND published_at <= ?)"] * len(reach))
    sql = f"""SELECT document_id, published_at, tickers, story_id, signature FROM articles
              WHERE ({where}) AND octet_length(signature) > 0"""
    rows = tx.execute(sql, [moment for pair in reach for moment in pair])
    frame = pd.DataFrame(rows, columns=["document_id", "published_at", "tickers", "story_id", "signature"])
    return frame.assign(published_at=pd.to_datetime(frame["published_at"]))


def _grouped(near: pd.DataFrame, new: pd.DataFrame) -> np.ndarray:
    """int64 (near + new,): equal numbers for articles of one story, once the new ones are among them."""
    blank = bytes(similar.SIGNATURE_BYTES)
    signed = np.frombuffer(b"".join([s or blank for part in (near, new) for s in part["signature"]]), np.uint8)
    published = pd.concat([near["published_at"], new["published_at"]]).to_numpy("datetime64[s]").astype(np.int64)
    known = pd.factorize(near["story_id"])[0]
    groups = np.concatenate([known, np.arange(len(new)) + (known.max() + 1 if len(known) else 0)]).astype(np.int64)
    tickers = [frozenset(t) for part in (near, new) for t in part["tickers"]]
    return similar.merge(signed.reshape(-1, similar.SIGNATURE_BYTES), published, tickers, groups, len(new))


class _Held(NamedTuple):
    """A row of `stories`, without what a list shows."""

    story_id: str
    published_at: dt.datetime
    topic: int
    source: int
    tickers: int
    class_: int
    net: int
    n_articles: int


def _stories(tx: Transaction, ids: list[str], *, since: dt.datetime | None) -> dict[str, _Held]:
    """The rows of stories, by name; their leads may lie before the window, when a story went on for long."""
    found: list[tuple] = []
    for first in (since - 10 * similar.WINDOW, None) if ids and since else ():
        bound, params = (" AND published_at >= ?", [first]) if first else ("", [])
        found = tx.execute(f"SELECT {', '.join(_STORY)} FROM stories WHERE story_id IN ({_marks(ids)}){bound}", [*ids, *params])
        if len(found) == len(ids):
            break
    return {row[0]: _Held(*row) for row in found}


def _coded(tx: Transaction, articles: pd.DataFrame) -> pd.DataFrame:
    """Articles in the rollup's terms: published_at, topic, source, tickers (ids), class, net."""
    sets = [rollup.set_name(t) for t in articles["tickers"]]
    named = {"topic": articles["topic"], "source": articles["source"], "tickers": pd.Series(sets, index=articles.index)}
    frame = pd.DataFrame({"published_at": articles["published_at"], "net": articles["net"]})
    for kind, column in named.items():
        frame[kind] = column.map(rollup.name_ids(tx, kind, column))
    frame["class"] = articles["sentiment"].map({name: code for code, name in enumerate(rollup.CLASSES)})
    return frame


def _entries(coded: pd.DataFrame) -> pd.DataFrame:
    """Coded rows with n_articles and n_stories as the rollup's entries."""
    seconds = coded["published_at"].to_numpy("datetime64[s]").astype(np.int64)
    columns = ["topic", "source", "tickers", "class", "net", "n_articles", "n_stories"]
    return coded[columns].astype(np.int32).assign(bucket=(seconds // rollup.BUCKET_S).astype(np.int32))


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values)) or "NULL"


# --- scoring again


def rescore(store: Store, engine: Engine, *, limit: int, without_topic: bool = False) -> int:
    """Score again up to `limit` articles that another version than the present champions answered, newest first; returns how many.
    without_topic: only those that were scored before there was a topic model, once there is one. Stories stay as they are: no model has a
    part in them. One transaction."""
    champions = [engine.registry.champion(task) for task in ("sentiment", "topic")]
    versions = [c.version if c else "" for c in champions]
    if without_topic and (not versions[1] or not store.rows("SELECT 1 AS one FROM articles WHERE topic_version = '' LIMIT 1")):
        return 0
    which = "a.topic_version = ''" if without_topic else "a.sentiment_version != $1 OR ($2 != '' AND a.topic_version != $2)"
    sql = f"""SELECT a.document_id, a.published_at, a.source, a.tickers, a.topic, a.sentiment, a.net, a.leads, d.url, d.title,
              d.body, d.synthetic
              FROM articles a JOIN documents d ON d.id = a.document_id AND d.published_at = a.published_at
              WHERE {which}
              ORDER BY a.published_at DESC, a.document_id LIMIT {int(limit)}"""
    old = store.frame(sql, *([] if without_topic else versions))
    if old.empty or not versions[0]:
        return 0
    new = score(engine, old.rename(columns={"document_id": "id"}))
    said = ["topic", "topic_score", "topic_version", "sentiment", "net", "p_negative", "p_neutral", "p_positive", "sentiment_version",
            "scored_at"]  # fmt: skip
    with store.write() as tx:
        tx.execute("CREATE TEMP TABLE rescored AS SELECT * FROM articles LIMIT 0")
        tx.insert_frame("rescored", new.drop(columns=_SHOWN).assign(story_id="", leads=False))
        span = [old["published_at"].min().to_pydatetime(), old["published_at"].max().to_pydatetime()]
        n = tx.execute(
            f"""UPDATE articles SET {', '.join(f'{c} = r.{c}' for c in said)} FROM rescored r WHERE articles.published_at >= ?
                AND articles.published_at <= ? AND articles.document_id = r.document_id""", span)[0][0]  # fmt: skip
        tx.execute("DROP TABLE rescored")
        before, after = _coded(tx, old), _coded(tx, new)
        leads = old["leads"].astype(int)
        signed = [before.assign(n_articles=-1, n_stories=-leads), after.assign(n_articles=1, n_stories=leads)]
        rollup.add(tx, _entries(pd.concat(signed, ignore_index=True)))
        _renew(tx, after.join(new[_SAID])[old["leads"]].assign(story_id=old.loc[old["leads"], "document_id"]))
    return n


def _renew(tx: Transaction, leads: pd.DataFrame) -> None:
    """Bring the rows of stories up to date whose leading article was scored again."""
    if leads.empty:
        return
    said = ["topic", "class", "net", *_SAID]
    tx.execute("CREATE TEMP TABLE renewed AS SELECT * FROM stories LIMIT 0")
    blank = {"source": 0, "tickers": 0, "n_articles": 0, "url": "", "title": "", "synthetic": False}
    tx.insert_frame("renewed", leads.assign(**blank))
    tx.execute(
        f"""UPDATE stories SET {', '.join(f'{c} = r.{c}' for c in said)} FROM renewed r WHERE stories.published_at >= ?
            AND stories.published_at <= ? AND stories.story_id = r.story_id""",
        [leads["published_at"].min().to_pydatetime(), leads["published_at"].max().to_pydatetime()],
    )
    tx.execute("DROP TABLE renewed")
