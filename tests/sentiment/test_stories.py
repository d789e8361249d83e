"""Stories: near-duplicates found whatever the order, different texts kept apart, and the lead where it belongs (T5, T6)."""

import datetime as dt
import random

import numpy as np
import pytest

from fmcore.sentiment import scoring, stories
from fmcore.store.store import Store
from tests.toy_articles import START, scored

HEADLINES = (
    "Regulator fines Northwind Bank 40 million euros over money laundering controls",
    "Helios Energy cuts its dividend after a weak third quarter in Europe",
    "Brightwater Foods names a new chief executive from a rival retailer",
    "Court clears the merger of Kestrel Air and Polar Lines despite protests",
    "Marlin Motors recalls 120,000 cars because of faulty brake sensors",
    "Central bank keeps its key rate unchanged and warns of sticky inflation",
    "Oil prices slip as inventories in the United States rise more than expected",
    "Ferrous Steel wins a ten year supply contract for offshore wind towers",
)
SLOTS = (
    "{} shares rise {} percent after earnings beat the estimates of analysts",
    "{} to buy back shares worth {} million euros over the coming year",
    "Analysts at a large broker raise their target for {} to {} euros",
)


def edited(text: str, chance: random.Random) -> str:
    """A copy as syndication makes them: another case, a source behind it, a link, a retweet, a word changed or added."""
    words = text.split()
    kind = chance.randrange(7)
    if kind == 0:
        return text.upper()
    if kind == 1:
        return f"{text} - Daily Wire"
    if kind == 2:
        return f"RT @desk: {text} https://t.co/{chance.randrange(10**6)}"
    if kind == 3:
        words[chance.choice([i for i, w in enumerate(words) if i > 1 and not w[0].isdigit()])] = chance.choice(["sources", "today", "again", "reported"])
        return " ".join(words)
    if kind == 4:
        return f"BREAKING: {text}"
    if kind == 5:
        return f"{text}, sources say"
    return f"&quot;{text}&quot; via @somebody"


def groups_of(texts, *, at_s=None, tickers=None, order=None):
    """story numbers of texts, when they come in the given order, in batches of five."""
    n = len(texts)
    order = list(range(n)) if order is None else order
    signed = np.array([np.frombuffer(s or bytes(128), np.uint8) for s in stories.signatures((t, "") for t in texts)])
    at_s = np.zeros(n, np.int64) if at_s is None else np.asarray(at_s)
    tickers = [frozenset()] * n if tickers is None else tickers
    seen, groups = [], np.zeros(0, np.int64)
    for start in range(0, n, 5):
        batch = order[start : start + 5]
        seen += batch
        groups = np.concatenate([groups, np.arange(len(batch)) + 10**6 + start])
        groups = stories.merge(signed[seen], at_s[seen], [tickers[i] for i in seen], groups, len(batch))
    by_document = dict(zip(seen, groups.tolist(), strict=True))
    return {frozenset(i for i in by_document if by_document[i] == g) for g in set(groups.tolist())}


def test_copies_are_found_and_templates_are_not_taken_for_copies():
    """Precision and recall over pairs of a labelled set: eight stories with six copies each, and 60 sentences of three templates that
    differ only in the company and the figure."""
    chance = random.Random(3)
    texts, label = [], []
    for i, headline in enumerate(HEADLINES):
        texts += [headline, *(edited(headline, chance) for _ in range(6))]
        label += [i] * 7
    for i in range(60):
        company = f"{chance.choice(['Nor', 'Bel', 'Zan', 'Quil'])}{chance.choice(['wick', 'mont', 'tara'])} {chance.choice('ABCDEFGH')}{i}"
        texts.append(SLOTS[i % 3].format(company, chance.randrange(2, 900)))
        label.append(100 + i)
    found = groups_of(texts)
    together = {(a, b) for group in found for a in group for b in group if a < b}
    truth = {(a, b) for a in range(len(label)) for b in range(a + 1, len(label)) if label[a] == label[b]}
    assert len(together & truth) / len(together) >= 0.99
    assert len(together & truth) / len(truth) >= 0.95


def test_any_order_gives_the_same_stories():
    chance = random.Random(5)
    texts = [edited(h, chance) for h in HEADLINES for _ in range(4)]
    at_s = [chance.randrange(0, 6 * 86_400) for _ in texts]
    tickers = [frozenset(chance.sample("AB", chance.randrange(0, 3))) for _ in texts]
    expected = groups_of(texts, at_s=at_s, tickers=tickers)
    for seed in range(6):
        order = random.Random(seed).sample(range(len(texts)), len(texts))
        assert groups_of(texts, at_s=at_s, tickers=tickers, order=order) == expected


def test_a_flood_of_different_texts_stays_apart_and_a_flood_of_copies_is_one_story():
    rng = np.random.default_rng(0)
    different = [" ".join(f"w{w}" for w in row) for row in rng.integers(0, 3_000, (600, 10))]
    assert len(groups_of(different)) == 600
    assert len(groups_of([f"{HEADLINES[0]} {HEADLINES[1]} number {i}" for i in range(600)])) == 1


def test_the_window_and_the_companies_bound_a_story():
    same = [HEADLINES[0]] * 2
    edge = int(stories.WINDOW.total_seconds())
    assert len(groups_of(same, at_s=[0, edge])) == 1
    assert len(groups_of(same, at_s=[0, edge + 1])) == 2
    assert len(groups_of([HEADLINES[0]] * 3, at_s=[0, edge, 2 * edge])) == 1  # a chain goes on
    assert len(groups_of(same, tickers=[frozenset("A"), frozenset("B")])) == 2
    assert len(groups_of(same, tickers=[frozenset("A"), frozenset("AB")])) == 1
    assert len(groups_of(same, tickers=[frozenset(), frozenset("B")])) == 1


@pytest.mark.parametrize("text", ["", "   ", "https://t.co/abc", "RT @someone:", "!!! ???"])
def test_texts_without_words_are_like_no_other(text):
    assert stories.signatures([(text, "")]) == [b""]
    assert len(groups_of([text, text, HEADLINES[0]])) == 3


def test_hostile_and_huge_texts_have_a_signature_of_the_stated_size():
    texts = ["\ud800 lone", "x" * 100_000, "word " * 50_000, "\u202egnol", "<b>" * 3_000, "日本銀行は金利を据え置いた"]
    assert {len(s) for s in stories.signatures((t, t) for t in texts)} == {128}


def test_signatures_estimate_jaccard():
    words = [f"w{i}" for i in range(60)]
    a, b = stories.signatures([(" ".join(words), ""), (" ".join(words[:45]) + " " + " ".join(f"v{i}" for i in range(15)), "")])
    shingles = [{*zip(["^", *w], [*w, "$"], strict=True)} for w in (words, words[:45] + [f"v{i}" for i in range(15)])]
    true = len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])
    found = stories.similarity(np.frombuffer(a, np.uint8)[None], np.frombuffer(b, np.uint8)[None])[0]
    assert abs(found - true) < 4 * np.sqrt(true * (1 - true) / 128)


# --- in the store


def state(store):
    return store.rows("SELECT document_id, story_id, leads FROM articles ORDER BY document_id"), store.rows(
        "SELECT story_id, published_at, n_articles, net, title FROM stories ORDER BY story_id"
    )


def test_the_same_article_fifty_times_is_one_story_led_by_the_first(tmp_path):  # T5
    chance = random.Random(1)
    texts = [edited(HEADLINES[0], chance) for _ in range(50)]
    at = [START + dt.timedelta(minutes=chance.randrange(1, 3_000)) for _ in texts]
    at[31] = START
    store = Store(tmp_path)
    scoring.land(store, scored(texts, at=at, source=[f"s{i % 7}" for i in range(50)]))
    [story] = store.rows("SELECT story_id, n_articles FROM stories")
    assert story == {"story_id": "d00031", "n_articles": 50}
    assert [r["document_id"] for r in store.rows("SELECT document_id FROM articles WHERE leads")] == ["d00031"]
    store.close()


def test_shuffled_arrival_leaves_the_same_rows(tmp_path):  # T6
    chance = random.Random(2)
    texts = [edited(h, chance) for h in HEADLINES for _ in range(6)]
    frame = scored(texts, at=[START + dt.timedelta(minutes=chance.randrange(0, 12_000)) for _ in texts],
                   p=np.random.default_rng(0).dirichlet([1, 1, 1], len(texts)))
    found = []
    for seed in range(4):
        store = Store(tmp_path / str(seed))
        order = np.arange(len(frame)) if seed == 0 else np.random.default_rng(seed).permutation(len(frame))
        for start in range(0, len(order), 7):
            scoring.land(store, frame.iloc[order[start : start + 7]])
        found.append(state(store))
        store.close()
    assert all(one == found[0] for one in found[1:])


def test_a_late_article_takes_the_lead_and_joins_two_stories(tmp_path):
    store = Store(tmp_path)
    hours = [dt.timedelta(hours=h) for h in (100, 0, 50, -1)]
    for i, after in enumerate(hours[:2]):  # 100 h apart: two stories
        scoring.land(store, scored([HEADLINES[0]], at=[START + after], ids=[f"x{i}"]))
    assert len(store.rows("SELECT * FROM stories")) == 2
    scoring.land(store, scored([HEADLINES[0]], at=[START + hours[2]], ids=["x2"]))  # within 72 h of both
    assert store.rows("SELECT story_id, n_articles FROM stories") == [{"story_id": "x1", "n_articles": 3}]
    scoring.land(store, scored([HEADLINES[0]], at=[START + hours[3]], ids=["x3"]))
    assert store.rows("SELECT story_id, n_articles FROM stories") == [{"story_id": "x3", "n_articles": 4}]
    assert {r["story_id"] for r in store.rows("SELECT story_id FROM articles")} == {"x3"}
    assert [r["document_id"] for r in store.rows("SELECT document_id FROM articles WHERE leads")] == ["x3"]
    store.close()


def test_of_two_at_the_same_moment_the_smaller_id_leads(tmp_path):
    store = Store(tmp_path)
    for name in ("b", "a", "c"):
        scoring.land(store, scored([HEADLINES[2]], at=[START], ids=[name]))
    assert [r["story_id"] for r in store.rows("SELECT story_id FROM stories")] == ["a"]
    store.close()
