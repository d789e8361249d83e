"""The overview of a version: which words speak for each label, what is confused with what and by which words, and where it is weak.

Rests on labelled rows that the model did not learn from (heldout.py): right and wrong on all of them, words on a sample. Computed by
the job "explain". Owns the table overviews, which holds numbers and words that stand in several texts, never a text.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fmcore import clock
from fmcore.data.labelled import OOS
from fmcore.explain import attributions, slices, words
from fmcore.explain.attributions import Attribution, Score
from fmcore.explain.heldout import Held
from fmcore.explain.slices import cuts, measured
from fmcore.explain.words import Words
from fmcore.store.store import Store, to_json

TEXTS, TEXTS_A_LABEL, MOST_TEXTS = 300, 12, 1200
"""How many texts are explained when nobody says: 300, or 12 a label where that is more, but no more than 1,200."""
WRONG_SHARE = 1 / 3
"""Wrongly answered texts explained beside the sample, as a share of it, so that frequent confusions have their words."""
STRETCH = 4
"""A long text may take up to so many times the budget, so that its words stay apart."""
SUPPORT = 5
"""Texts a word must stand in: the range of fewer values is too narrow for a 95 % interval, whatever they are (1 - 2 ** (1 - n))."""
FALSE_DISCOVERIES = 0.05
MATTERS = 0.01
"""What a sure word adds at least, by the end of its interval nearer to 0: less is within what a method on a budget gets wrong."""
RESAMPLES = 2000
WORDS_A_LABEL, WORDS_A_CONFUSION, MOST_CONFUSIONS = 40, 6, 100
WORD_COLUMNS = ("label", "word", "n", "mean", "low", "high", "sure")
CONFUSION_COLUMNS = ("label", "predicted", "n", "n_explained", "words")

Progress = Callable[[float, str], None]
"""Called with the fraction done and a sentence; may raise to stop."""


@dataclass(frozen=True, eq=False)
class Overview:
    """One version as a whole, on n_rows labelled rows of `dataset` that it did not learn from, n_right of them right.

    words (label, word, n texts it stands in, mean of what it adds to the label's probability, 95 % interval low and high, sure): per label
    the sure ones first, then by the end of the interval nearer to 0. confusions (label, predicted, n, n_explained, words as a list
    of (word, mean)): the label "oos" is out of scope. slices: slices.COLUMNS. notes say in sentences what all this rests on.
    """

    task: str
    version: str
    dataset: str
    synthetic: bool
    n_rows: int
    n_right: int
    n_texts: int
    n_calls: int
    method: str
    budget: int
    support: int
    words: pd.DataFrame
    confusions: pd.DataFrame
    slices: pd.DataFrame
    notes: tuple[str, ...]
    made_at: dt.datetime


@dataclass(frozen=True)
class Sampling:
    """How many texts are explained (0: as many as suit the labels), by which method, with how many calls of the model each."""

    n_texts: int = 0
    method: str = "fast"
    budget: int = attributions.BUDGETS["fast"]
    seed: int = 0


def look(
    score: Score,
    labels: Sequence[str],
    held: Held,
    *,
    task: str,
    version: str,
    sampling: Sampling | None = None,
    topics: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Overview:
    """The overview of the model behind `score`, labels in the order of its columns.

    The label that is explained is the one that was answered (rows' "predicted"). topics: a topic a row of `held`, for the slices;
    notes: sentences put before this function's own. Deterministic under the sampling's seed.
    """
    sampling = sampling or Sampling()
    rows = held.rows.assign(right=held.rows["label"] == held.rows["predicted"])
    inside = rows[rows["label"] != OOS]
    drawn, extra = _sample(rows, sampling)
    explained, facts = _explained(score, labels, rows.loc[[*drawn, *extra]], sampling, progress)
    kept = _several(rows["text"])
    by = {name: parts.loc[inside.index] for name, parts in cuts(held, topics=topics).items()}
    table = measured(inside["right"], inside["score"], by)
    found = _word_table([(rows.at[i, "predicted"], explained[i]) for i in drawn], seed=sampling.seed)
    said = [*_on_rows(held, rows, inside), *notes, *_on_words(found, inside, sampling, facts, len(drawn), len(extra)), *_on_slices(table)]
    return Overview(
        task=task, version=version, dataset=held.dataset, synthetic=held.synthetic, n_rows=len(inside), n_right=int(inside["right"].sum()),
        n_texts=len(drawn) + len(extra), n_calls=facts["n_calls"], method=sampling.method, budget=sampling.budget, support=SUPPORT,
        words=found, confusions=_confusions(rows, explained, kept), slices=table, notes=tuple(said), made_at=clock.now(),
    )  # fmt: skip


def latest(store: Store, task: str, version: str) -> Overview | None:
    """The overview of a version that was made last, or None."""
    query = "SELECT content FROM overviews WHERE task = ? AND version = ? ORDER BY noted_at DESC, rowid DESC LIMIT 1"
    found = store.rows(query, task, version)
    return from_json(found[0]["content"]) if found else None


def save(store: Store, overview: Overview, *, run_id: str) -> None:
    """Keep an overview; the same run keeps one only, however often it is asked."""
    content = as_json(overview)
    with store.write() as tx:
        if not tx.execute("SELECT 1 FROM overviews WHERE run_id = ?", [run_id]):
            row = [overview.task, overview.version, run_id, content, clock.to_store(overview.made_at)]
            tx.execute("INSERT INTO overviews (task, version, run_id, content, noted_at) VALUES (?, ?, ?, ?, ?)", row)


_FRAMES = {"words": WORD_COLUMNS, "confusions": CONFUSION_COLUMNS, "slices": slices.COLUMNS}


def as_json(overview: Overview) -> str:
    """The overview as JSON. Raises NotFinite for a number that JSON does not have."""
    facts = {name: getattr(overview, name) for name in overview.__dataclass_fields__}
    facts |= {name: facts[name].to_dict("records") for name in _FRAMES}
    return to_json({**facts, "notes": list(overview.notes), "made_at": overview.made_at.isoformat()})


def from_json(content: str) -> Overview:
    """What as_json wrote."""
    facts = json.loads(content)
    frames = {name: pd.DataFrame(facts[name], columns=list(columns)) for name, columns in _FRAMES.items()}
    frames["confusions"]["words"] = [[(word, mean) for word, mean in found] for found in frames["confusions"]["words"]]
    return Overview(**{**facts, **frames, "notes": tuple(facts["notes"]), "made_at": dt.datetime.fromisoformat(facts["made_at"])})


# --- which texts


def _sample(rows: pd.DataFrame, sampling: Sampling) -> tuple[list, list]:
    """(rows drawn evenly over the labels, wrong rows beside them): in-scope rows in a random order, one a label at a time."""
    order = np.random.default_rng(sampling.seed).permutation(rows.index.to_numpy())
    shuffled = rows.loc[order]
    inside = shuffled[shuffled["label"] != OOS]
    wanted = sampling.n_texts or min(MOST_TEXTS, max(TEXTS, TEXTS_A_LABEL * inside["label"].nunique()))
    turn = inside.groupby("label").cumcount()
    drawn = list(turn.sort_values(kind="stable").index[:wanted])
    wrong = _wrong(shuffled)
    n_of_pair = wrong.groupby(["label", "predicted"])["text"].transform("size")
    left = [i for i in n_of_pair.sort_values(ascending=False, kind="stable").index if i not in set(drawn)]
    return drawn, left[: round(wanted * WRONG_SHARE)]


def _wrong(rows: pd.DataFrame) -> pd.DataFrame:
    """In-scope rows with the wrong label, and rows out of scope that were taken for in scope."""
    return rows[~rows["right"] & ((rows["label"] != OOS) | rows["in_scope"].astype(bool))]


# --- their words


def _explained(
    score: Score, labels: Sequence[str], rows: pd.DataFrame, sampling: Sampling, progress: Progress | None
) -> tuple[dict, dict[str, int]]:
    """({row: {word: what it adds to the answered label's probability}}, {n_calls, n_joined: texts with words too many to tell apart})."""
    found: dict = {}
    facts = {"n_calls": 0, "n_joined": 0}
    targets = dict(zip(labels, np.eye(len(labels)), strict=True))
    for done, (i, text, label) in enumerate(rows[["text", "predicted"]].itertuples()):
        if progress is not None:
            progress(done / len(rows), f"Explaining text {done + 1:,} of {len(rows):,}")
        whole = words.split(text)
        allowed = _budget(sampling, len(whole))
        pieces = attributions.pieces(whole, method=sampling.method, budget=allowed)
        told = attributions.attribute(score, pieces, target=targets[label], method=sampling.method, budget=allowed, seed=sampling.seed)
        found[i] = _by_word(whole, pieces, told)
        facts["n_calls"] += told.n_calls
        facts["n_joined"] += len(pieces) < len(whole)
    return found, facts


def _budget(sampling: Sampling, n: int) -> int:
    """The budget, or as much of STRETCH times it as n words need to be told apart."""
    most = sampling.budget * STRETCH
    enough = (b for b in range(sampling.budget, most) if attributions.most_pieces(sampling.method, b) >= n)
    return next(enough, most)


def _by_word(whole: Words, pieces: Words, told: Attribution) -> dict[str, float]:
    """The values by word as it is counted, summed where one stands in the text again; runs of several words are left out."""
    single, found = set(whole.spans), defaultdict(float)
    for span, token, value in zip(pieces.spans, pieces.tokens, told.values, strict=True):
        word = normalised(token)
        if word and span in single:
            found[word] += float(value)
    return dict(found)


def normalised(token: str) -> str:
    """A word as it is counted: small letters, no punctuation around it; "" for what is punctuation only."""
    places = [i for i, c in enumerate(token) if c.isalnum()]
    return token[places[0] : places[-1] + 1].casefold() if places else ""


def _several(texts: pd.Series) -> set[str]:
    """The words that stand in more than one of the texts: a word of one text alone could be a person's name."""
    n_texts = Counter(word for text in texts for word in {normalised(token) for token in words.split(text).tokens})
    return {word for word, n in n_texts.items() if n > 1}


def _word_table(explained: Sequence[tuple[str, dict[str, float]]], *, seed: int) -> pd.DataFrame:
    """WORD_COLUMNS, by label. sure: the interval leaves out everything below MATTERS, and the t-test passes Benjamini and Hochberg's
    rule over all words of all labels that have the support."""
    values = defaultdict(list)
    for label, found in explained:
        for word, value in found.items():
            values[label, word].append(value)
    rng = np.random.default_rng(seed)
    rows = [(*key, len(v), *_interval(np.array(v), rng), _p(np.array(v))) for key, v in sorted(values.items()) if len(v) >= SUPPORT]
    table = pd.DataFrame(rows, columns=["label", "word", "n", "mean", "low", "high", "p"])
    if table.empty:
        return pd.DataFrame(columns=list(WORD_COLUMNS))
    from scipy.stats import false_discovery_control

    nearer = np.maximum(np.maximum(table["low"], -table["high"]), 0.0)
    table["sure"] = (nearer >= MATTERS) & (false_discovery_control(table["p"]) <= FALSE_DISCOVERIES)
    order = table.assign(nearer=nearer, size=table["mean"].abs())
    order = order.sort_values(["label", "sure", "nearer", "size", "word"], ascending=[True, False, False, False, True])
    return order.groupby("label").head(WORDS_A_LABEL)[list(WORD_COLUMNS)].reset_index(drop=True)


def _interval(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """(mean, low, high): the bootstrap percentile interval over texts, at the wider percentiles that small samples need to hold 95 %
    (Hesterberg 2015, The American Statistician 69, "expanded percentile interval")."""
    from scipy.stats import norm, t

    n = len(values)
    tail = norm.cdf(-t.ppf(0.975, n - 1) * (n / (n - 1)) ** 0.5)
    drawn = values[rng.integers(0, n, (RESAMPLES, n))].mean(axis=1)
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(values.mean()), float(low), float(high)


def _p(values: np.ndarray) -> float:
    """Two-sided p of a mean of 0; equal values are certain, unless they are 0."""
    from scipy.stats import ttest_1samp

    if np.ptp(values) == 0:
        return float(values[0] == 0)
    return float(ttest_1samp(values, 0.0).pvalue)


# --- what is confused


def _confusions(rows: pd.DataFrame, explained: dict, kept: set[str]) -> pd.DataFrame:
    """CONFUSION_COLUMNS, the most frequent first. A word's mean is over all explained texts of the pair, 0 where it is not there, so that
    what they share comes before what one of them says."""
    found = []
    for (label, predicted), places in _wrong(rows).groupby(["label", "predicted"]).groups.items():
        texts = [explained[i] for i in places if i in explained]
        sums = Counter()
        for values in texts:
            sums.update({word: value for word, value in values.items() if word in kept})
        drivers = [(word, value / len(texts)) for word, value in sorted(sums.items(), key=lambda x: (-x[1], x[0])) if value > 0]
        found.append((label, predicted, len(places), len(texts), drivers[:WORDS_A_CONFUSION]))
    table = pd.DataFrame(found, columns=list(CONFUSION_COLUMNS))
    return table.sort_values(["n", "label", "predicted"], ascending=[False, True, True]).head(MOST_CONFUSIONS).reset_index(drop=True)


# --- in words


def _on_rows(held: Held, rows: pd.DataFrame, inside: pd.DataFrame) -> list[str]:
    made_up = ", which are made up" if held.synthetic else ""
    said = [f"Rests on {len(inside):,} labelled rows of {held.dataset} that the model had not learnt from when it answered them{made_up}."]
    if len(outside := rows[rows["label"] == OOS]):
        n = int(outside["in_scope"].astype(bool).sum())
        said.append(f"{n:,} of {len(outside):,} rows out of scope were taken for in scope; they stand among the confusions as {OOS}.")
    if held.n_gone:
        said.append(f"Rows left out, since the data set does not hold them any more: {held.n_gone:,}.")
    return said


def _on_words(
    found: pd.DataFrame, inside: pd.DataFrame, sampling: Sampling, facts: dict[str, int], n_drawn: int, n_extra: int
) -> list[str]:
    said = [
        f"Words: {n_drawn:,} texts drawn evenly over the labels, method {sampling.method}, {sampling.budget} calls of the model a text and "
        f"up to {STRETCH} times that for long ones. A word is listed from {SUPPORT} texts of a label on, and sure where its 95 % interval "
        f"keeps {MATTERS * 100:.0f} point or more from 0; at most {FALSE_DISCOVERIES * 100:.0f} % of such words are expected to be chance."
    ]
    if n_extra:
        said.append(f"Texts answered wrongly that were explained beside those, for the confusions only: {n_extra:,}.")
    if bare := inside["label"].nunique() - found["label"].nunique():
        said.append(f"Labels without a word that stands in {SUPPORT} of their texts: {bare}. Explain more texts to see theirs.")
    if facts["n_joined"]:
        said.append(f"Texts so long that neighbouring words were explained together, which are not counted: {facts['n_joined']:,}.")
    return said


def _on_slices(table: pd.DataFrame) -> list[str]:
    weak = table[table["weak"] & (table["by"] != slices.CONFIDENCE)]
    others = int((table["by"] != slices.CONFIDENCE).sum())
    found = f"{len(weak)} of {others:,} slices of at least {slices.LEAST} rows"
    rule = f"Fisher's exact test, at most {slices.FALSE_DISCOVERIES * 100:.0f} % false discoveries; slices by confidence are judged apart"
    return [f"{found} are weak beyond chance ({rule})."]
