"""The demo catalogue: written texts, made-up readers, and a process whose traces a model can find."""

import re
from collections import Counter

import numpy as np
import pytest

from fmcore.data import catalogue, demo_shop, interaction_files
from fmcore.data.interactions import leave_one_out
from fmcore.recommend.counting import Popularity, Transitions
from fmcore.recommend.recommender import Items


@pytest.fixture
def log():
    return demo_shop.load()


def hits(scores, split):
    """bool a reader: whether the item that was held back is among the ten best that were not read."""
    scores = np.array(scores, dtype=float)
    for row, past in zip(scores, split.with_validation(), strict=True):
        row[past] = -np.inf
    target = scores[np.arange(len(scores)), split.test]
    return (scores >= target[:, None]).sum(axis=1) <= 10


def test_there_are_enough_items_each_written_for_itself():
    items = demo_shop.items()
    assert len(items) == 240 and set(items["topic"]) == set(demo_shop.TOPICS) and items["topic"].value_counts().tolist() == [20] * 12
    assert items["item"].is_unique and items["title"].is_unique and items["text"].is_unique
    assert items["kind"].nunique() >= 10 and set(items["level"]) == {1, 2, 3}
    n_words = items["text"].str.split().str.len()
    assert n_words.between(11, 45).all() and items["text"].str.endswith(".").all()
    assert items["text"].map(lambda text: len(re.findall(r"[.?!](?:\s|$)", text))).between(1, 3).all()


def test_the_texts_are_no_template():
    starts = Counter(" ".join(text.split()[:3]) for text in demo_shop.items()["text"])
    assert starts.most_common(1)[0][1] <= 3
    words = [set(re.findall(r"\w+", text.lower())) for text in demo_shop.items()["text"]]
    likest = max(len(a & b) / len(a | b) for n, a in enumerate(words) for b in words[:n])
    assert likest < 0.5


def test_every_series_has_its_parts_in_one_topic():
    items = demo_shop.items()
    for _, parts in items[items["series"] != ""].groupby("series"):
        assert sorted(parts["part"]) == list(range(1, len(parts) + 1)) and len(parts) >= 3 and parts["topic"].nunique() == 1
    assert (items.loc[items["series"] == "", "part"] == 0).all()


def test_readers_state_one_to_three_tastes():
    tastes = demo_shop.tastes()
    assert len(tastes) == 400 and {len(stated) for stated in tastes.values()} == {1, 2, 3}
    assert all(len(set(stated)) == len(stated) and set(stated) <= set(demo_shop.TOPICS) for stated in tastes.values())
    assert set(demo_shop.TOPICS) == {stated[0] for stated in tastes.values()}


def test_the_log_is_synthetic_and_says_so_and_is_what_the_catalogue_promises(log):
    entry = catalogue.dataset("demo_shop")
    assert log.synthetic and entry.synthetic and any("Synthetic" in note for note in log.notes)
    assert entry.size == f"{len(log.items)} items, {len(log.users)} readers, {len(log.rows):,} openings"
    assert set(log.users) == set(demo_shop.tastes()) and set(log.items) == set(demo_shop.items()["item"])


def test_the_same_seed_gives_the_same_log_and_another_seed_another(log):
    assert interaction_files.load("demo_shop").split_hash == log.split_hash == demo_shop.load(seed=0).split_hash
    assert demo_shop.load(seed=1).split_hash != log.split_hash


def test_what_came_out_later_was_read_by_nobody(log):
    items = demo_shop.items()
    read = {log.items[item] for item in log.rows["item"]}
    assert set(items["item"]) - read == set(items.loc[items["new"], "item"]) and items["new"].sum() == 12


def test_readers_read_what_they_say_they_like_the_strongest_first(log):
    topic = demo_shop.items().set_index("item")["topic"]
    met = log.rows["item"].map(lambda item: topic[log.items[item]])
    tastes = demo_shop.tastes()
    stated = log.rows["user"].map(lambda user: tastes[log.users[user]])
    place = np.array([wanted.index(found) if found in wanted else 9 for wanted, found in zip(stated, met, strict=True)])
    assert (place < 9).mean() > 0.8
    three = (stated.map(len) == 3).to_numpy()
    assert np.sum(place[three] == 0) > np.sum(place[three] == 1) > np.sum(place[three] == 2) > 0


def test_readers_begin_with_what_is_easy_and_follow_a_series(log):
    items = demo_shop.items().set_index("item").loc[list(log.items)].reset_index()
    level = [items["level"].to_numpy()[past] for past in log.histories() if len(past) >= 12]
    assert np.mean([of[:4].mean() for of in level]) < np.mean([of[-4:].mean() for of in level]) - 0.3
    parts = list(zip(items["series"], items["part"], strict=True))
    following = {at: parts.index((series, part + 1)) for at, (series, part) in enumerate(parts) if (series, part + 1) in parts and series}
    chances = [
        following[int(now)] == after
        for past in log.histories()
        for n, (now, after) in enumerate(zip(past[:-1], past[1:], strict=True))
        if int(now) in following and following[int(now)] not in past[:n]
    ]
    assert len(chances) > 1000 and demo_shop.SERIES - 0.05 < np.mean(chances) < demo_shop.SERIES + 0.1  # chance finds it too


def test_a_sequence_model_and_a_text_model_beat_popularity_on_it(log):
    from sklearn.feature_extraction.text import TfidfVectorizer

    split = leave_one_out(log.histories())
    items = Items(log.items, log.titles, log.texts)
    pasts = split.with_validation()
    popular = hits(Popularity().fit(split.train, items).scores(pasts), split)
    sequence = hits(Transitions().fit(split.train, items).scores(pasts), split)
    words = TfidfVectorizer(stop_words="english", sublinear_tf=True).fit_transform(
        [f"{title}. {text}" for title, text in zip(log.titles, log.texts, strict=True)]
    )
    alike = (words @ words.T).toarray()
    text = hits([(alike[past[::-1]] * np.exp(-np.arange(len(past)) / 3)[:, None]).sum(axis=0) for past in pasts], split)
    assert popular.mean() > 10 / 240  # popular things are read more
    for model in (sequence, text):
        gain = model.astype(float) - popular
        assert gain.mean() - 1.96 * gain.std() / np.sqrt(len(gain)) > 0.05
