"""Groups of items: everything in one, the same every time, and called by what sets them apart."""

import numpy as np
import pytest

from fmcore.recommend.groups import MOST, groups
from fmcore.recommend.recommender import Items

WORDS = {"war": "soldier battle", "love": "romance wedding", "space": "rocket planet", "crime": "detective murder"}


def shop(n_each=30, *, seed=0):
    """Items of four kinds in turn, each kind in a place of its own; "film" stands in all of them."""
    rng = np.random.default_rng(seed)
    kinds = list(WORDS) * n_each
    titles = tuple(f"{WORDS[kind].split()[rng.integers(2)]} number" for kind in kinds)
    texts = tuple(f"A film, {WORDS[kind]}" for kind in kinds)
    places = np.eye(8)[[list(WORDS).index(kind) for kind in kinds]]
    vectors = (places + rng.normal(0, 0.05, places.shape)).astype(np.float32)
    return Items(tuple(map(str, range(len(kinds)))), titles, texts), vectors


def test_items_of_a_kind_stand_together_under_their_own_words():
    items, vectors = shop()
    found = groups(items, vectors, n=4)
    assert found.of.shape == (120,) and found.of.dtype == np.int32 and len(found) == 4
    for kind in range(4):
        assert len(set(found.of[kind::4])) == 1
    named = {found.names[found.of[kind]] for kind in range(4)}
    assert all(any(set(name.split(", ")) == set(words.split()) for name in named) for words in WORDS.values())


def test_the_same_items_give_the_same_groups_and_the_largest_comes_first():
    items, vectors = shop()
    one, other = groups(items, vectors), groups(items, vectors)
    assert np.array_equal(one.of, other.of) and one.names == other.names
    sizes = np.bincount(one.of, minlength=len(one))
    assert sizes.min() > 0 and sizes.tolist() == sorted(sizes, reverse=True)
    assert len(one) <= MOST and len(set(one.names)) == len(one) and all(one.names)


@pytest.mark.parametrize(("n_items", "most"), [(0, 0), (1, 1), (7, 1), (20, 2), (50, 6)])
def test_a_small_catalogue_has_fewer_groups(n_items, most):
    items, vectors = shop(13)
    few = Items(items.ids[:n_items], items.titles[:n_items], items.texts[:n_items])
    found = groups(few, vectors[:n_items])
    assert len(found) <= most and found.of.shape == (n_items,) and set(found.of.tolist()) == set(range(len(found)))


def test_items_without_words_or_all_the_same_still_have_a_named_group():
    blank = Items(tuple(map(str, range(40))), ("",) * 40, ("",) * 40)
    found = groups(blank, np.zeros((40, 4), dtype=np.float32))
    assert set(found.of.tolist()) == {0} and len(found.names) == 1 and found.names[0]
    apart = groups(blank, np.repeat(np.eye(4, dtype=np.float32), 10, axis=0))
    assert len(apart) > 1 and len(set(apart.names)) == len(apart) and all(apart.names)
