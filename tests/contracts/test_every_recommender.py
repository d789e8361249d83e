"""What holds for every recommender, on pasts whose right answer is known by construction: a new one is tested the moment its line exists.

The town has two clubs, and a member of one never meets an item of the other. The street has one order: after item i comes item i + 1.
"""

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcore.recommend.counting import Blend, Ease, ItemKNN, NextItem, Popularity, Transitions
from fmcore.recommend.factors import Als
from fmcore.recommend.hybrid import Hybrid
from fmcore.recommend.paths import Paths
from fmcore.recommend.recommender import BadRecommender, Items, Recommender

MODELS: dict[str, Callable[[], Recommender]] = {
    "popularity": Popularity,
    "knn": ItemKNN,
    "ease": lambda: Ease(regularisation=20.0),
    "transitions": Transitions,
    "next": NextItem,
    "paths": Paths,
    "blend": lambda: Blend((NextItem(), Ease(regularisation=20.0), Paths())),
    "als": lambda: Als(n_factors=2),
    "hybrid": lambda: Hybrid((Transitions(), Ease(regularisation=20.0))),
}
"""A line makes a model tested; regularisations are set for logs as small as these."""
ELSEWHERE = {"text": "needs an encoder", "sasrec": "needs minutes to learn"}
"""Models of the shelf that cannot be made in a moment out of nothing: their own tests hold them to the contract."""
IN_ORDER = ("transitions", "next", "paths", "blend")
"""Models that know what comes after what; the others only know what goes together."""
CLUB = 8
STREET = 12


@pytest.fixture(params=MODELS.values(), ids=list(MODELS))
def make(request):
    return request.param


@pytest.fixture(params=[make for name, make in MODELS.items() if name != "popularity"], ids=[n for n in MODELS if n != "popularity"])
def personal(request):
    return request.param


@pytest.fixture(params=[MODELS[name] for name in IN_ORDER], ids=IN_ORDER)
def ordered(request):
    return request.param


def past(*items):
    return np.array(items, dtype=np.int32)


def things(n):
    return Items(tuple(f"item {i}" for i in range(n)), tuple(f"Item {i}" for i in range(n)), ("",) * n)


def town(*, members=240, seed=0):
    """Each member meets two to seven of the own club's items in any order: 0..7 are one club's, 8..15 the other's. Item 16 nobody met."""
    rng = np.random.default_rng(seed)
    walks = [(rng.permutation(CLUB)[: rng.integers(2, CLUB)] + CLUB * (member % 2)).astype(np.int32) for member in range(members)]
    return walks, things(2 * CLUB + 1)


def street(*, walkers=48):
    """Everybody walks up the street from some door, four to eight doors far."""
    walks = [np.arange(start, min(start + 4 + walker % 5, STREET), dtype=np.int32) for walker in range(walkers) for start in (walker % 9,)]
    return walks, things(STREET)


def shown(model, history, **options):
    return [each.item for each in model.recommend(history, **options)]


def test_no_model_of_the_shelf_is_forgotten():
    from fmcore.recommend.offers import MODELS as offered

    assert set(offered) == {*MODELS, *ELSEWHERE}
    assert all(offered[name].name == name and offered[name].title and offered[name].summary.endswith(".") for name in offered)


def test_a_club_member_gets_the_own_clubs_items_first(personal):
    walks, items = town()
    model = personal().fit(walks, items)
    for history, club in ((past(0, 1, 2), range(CLUB)), (past(9, 12), range(CLUB, 2 * CLUB)), (past(3), range(CLUB))):
        left = [i for i in club if i not in history]
        assert sorted(shown(model, history, k=len(left))) == left


def test_popularity_is_the_same_for_everybody_by_how_many_met_it():
    walks = [past(3, 1), past(3, 1, 2), past(3)]
    model = Popularity().fit(walks, things(5))
    assert model.scores([past(), past(1, 2)]).tolist() == [[0, 2, 1, 3, 0]] * 2
    assert shown(model, past(), k=3) == [3, 1, 2]
    assert shown(model, past(3), k=2) == [1, 2]


def test_the_next_door_comes_first_where_order_is_known(ordered):
    walks, items = street()
    model = ordered().fit(walks, items)
    for history in (past(0, 1, 2), past(4, 5), past(6, 7, 8, 9)):
        assert shown(model, history, k=1) == [history[-1] + 1]
    behind, ahead = model.scores([past(5)])[0, [4, 6]]
    assert ahead > behind, "nobody walks down the street"


def test_the_past_and_what_is_left_out_are_never_shown(make):
    walks, items = town()
    model = make().fit(walks, items)
    history = past(2, 5, 7)
    everything = shown(model, history, k=100)
    assert not set(everything) & {2, 5, 7} and len(everything) == len(set(everything)) == len(items) - 3
    assert set(shown(model, history, k=100, without=[0, 1, 16])) == set(everything) - {0, 1, 16}
    assert shown(model, history, k=3) == everything[:3]


def test_nothing_is_left_when_everything_was_seen(make):
    walks, items = town()
    model = make().fit(walks, items)
    assert model.recommend(np.arange(len(items), dtype=np.int32)) == []
    assert model.recommend(past(0), k=0) == []


def test_an_empty_past_is_known_to_popularity_alone(make):
    walks, items = town()
    model = make().fit(walks, items)
    assert model.knows([past(), past(0)]).tolist() == [model.name == "popularity", True]
    assert model.scores([past()]).any() == (model.name == "popularity")
    assert len(model.recommend(past(), k=4)) == 4, "whoever asks gets a list; who answered is the service's to say"


def test_an_item_nobody_met_says_nothing_and_does_no_harm(personal):
    walks, items = town()
    model = personal().fit(walks, items)
    assert model.knows([past(16), past(0, 16)]).tolist() == [False, True]
    assert np.isfinite(model.scores([past(16), past(0, 16)])).all()
    assert set(shown(model, past(0, 16), k=7)) == set(range(1, CLUB))


def test_scores_are_float32_finite_and_one_row_a_past_in_any_company(make):
    walks, items = town()
    model = make().fit(walks, items)
    pasts = [past(), past(0), past(9, 3, 16), *walks[:5]]
    found = model.scores(pasts)
    assert found.dtype == np.float32 and found.shape == (len(pasts), len(items)) and np.isfinite(found).all()
    order = [3, 0, 7, 1, 2]
    assert np.allclose(model.scores([pasts[i] for i in order]), found[order], rtol=1e-5, atol=1e-6)
    assert np.allclose(np.concatenate([model.scores([each]) for each in pasts]), found, rtol=1e-5, atol=1e-6)
    assert model.scores([]).shape == (0, len(items)) and model.knows([]).shape == (0,)
    assert np.array_equal(model.knows(pasts), np.any(found != 0, axis=1))


def test_it_is_the_same_again_and_leaves_the_pasts_as_they_were(make):
    walks, items = town()
    before = [walk.copy() for walk in walks]
    first, second = make().fit(walks, items), make().fit(walks, items)
    assert np.array_equal(first.scores(walks), second.scores(walks))
    assert all(np.array_equal(a, b) for a, b in zip(walks, before, strict=True))


def test_what_was_saved_scores_the_same_to_the_last_bit(make, tmp_path):
    walks, items = town()
    model = make().fit(walks, items, held=np.where(np.arange(len(walks)) < 9, 3, -1))
    model.save(tmp_path / "model")
    again = type(model).load(tmp_path / "model", items)
    assert np.array_equal(again.scores(walks), model.scores(walks)) and np.array_equal(again.knows(walks), model.knows(walks))
    assert not [each.name for each in (tmp_path / "model").rglob("*") if each.is_file() and each.suffix not in (".json", ".safetensors")]


def test_a_damaged_folder_or_one_of_other_items_is_refused(make, tmp_path):
    walks, items = town()
    model = make().fit(walks, items)
    model.save(tmp_path / "model")
    with pytest.raises(BadRecommender):
        type(model).load(tmp_path / "model", things(len(items) + 1))
    with pytest.raises(BadRecommender):
        type(model).load(tmp_path / "nowhere", items)
    for each in (tmp_path / "model").rglob("*.*"):
        whole = each.read_bytes()
        for damaged in (b"", whole[: len(whole) // 2], json.dumps({"name": "other"}).encode()):
            each.write_bytes(damaged)
            with pytest.raises(BadRecommender):
                type(model).load(tmp_path / "model", items)
        each.write_bytes(whole)


def test_a_cause_is_what_the_score_falls_by_without_it(personal):
    walks, items = town()
    model = personal().fit(walks, items)
    history = past(9, 3, 6, 12)
    offered = [each.item for each in model.recommend(history, k=6)]
    named = [(item, *cause) for item, cause in zip(offered, model.causes(history, offered), strict=True) if cause is not None]
    assert named, "some item has a reason"
    for item, cause, drop in named:
        before, after = model.scores([history, history[history != cause]])[:, item]
        assert drop > 0 and after < before and drop == pytest.approx(before - after, rel=1e-4, abs=1e-6)
        others = [before - model.scores([history[history != other]])[0, item] for other in history.tolist()]
        assert drop == pytest.approx(max(others), rel=1e-4, abs=1e-6)


def test_a_reason_is_of_the_own_club(personal):
    walks, items = town()
    model = personal().fit(walks, items)
    (cause, _), (other, _) = model.causes(past(9, 3), [4, 12])
    assert (cause, other) == (3, 9)


def test_popularity_has_no_reasons_of_anybodys_own(make):
    walks, items = town()
    assert Popularity().fit(walks, items).causes(past(0, 1), [2, 3]) == [None, None]
    assert make().fit(walks, items).causes(past(), [2, 3]) == [None, None] and make().fit(walks, items).causes(past(1), []) == []


def test_contributions_add_up_and_name_the_own_club(personal):
    walks, items = town()
    model = personal().fit(walks, items)
    found = {each.item: each for each in model.explain(past(9, 3), 4)}
    assert set(found) == {9, 3} and found[3].value > found[9].value and found[3].drop > found[9].drop


def test_similar_items_are_of_the_same_club_and_never_the_item(personal):
    walks, items = town()
    model = personal().fit(walks, items)
    near = [each.item for each in model.similar_items(10, k=CLUB - 1)]
    assert sorted(near) == [i for i in range(CLUB, 2 * CLUB) if i != 10]


@pytest.mark.parametrize("walks", [[], [past()], [past(0)], [past(0), past(0), past()]], ids=["nobody", "nothing", "once", "twice"])
def test_the_smallest_logs_are_learnt_from(make, walks):
    for n_items in (1, 2):
        model = make().fit(walks, things(n_items))
        found = model.scores([past(), past(0)])
        assert found.shape == (2, n_items) and np.isfinite(found).all()
        assert len(model.recommend(past(), k=5)) == n_items and len(model.recommend(past(0), k=5)) == n_items - 1


@given(walks=st.lists(st.lists(st.integers(0, 6), unique=True, max_size=7), max_size=12), asked=st.lists(st.integers(0, 6), unique=True))
@settings(deadline=None, max_examples=25)
def test_any_log_gives_a_whole_list_without_the_past(walks, asked):
    for make in MODELS.values():
        model = make().fit([past(*walk) for walk in walks], things(7))
        assert sorted(shown(model, past(*asked), k=7)) == sorted(set(range(7)) - set(asked))


def test_new_events_are_counted_as_if_they_had_been_there():
    walks, items = town()
    grown = [*(np.append(walk, np.setdiff1d(np.arange(CLUB), walk % CLUB)[0] + walk[0] // CLUB * CLUB).astype(np.int32) for walk in walks[:7])]
    pairs = [(walk[:-1], int(walk[-1])) for walk in grown]
    for make in (Popularity, Transitions, lambda: Transitions(lag=2, smoothing=0.0), Paths, lambda: Paths(lag=3)):
        model = make().fit(walks, items)
        before = model.scores(walks)
        folded, again = model.folded(pairs), make().fit([*grown, *walks[7:]], items)
        assert folded.scores(walks) == pytest.approx(again.scores(walks), rel=1e-5, abs=1e-7)
        assert np.array_equal(model.scores(walks), before) and not np.array_equal(before, folded.scores(walks)), "a new model"


def test_the_first_event_of_somebody_new_counts_too():
    walks, items = town()
    pairs = [(past(), 3), (past(3), 4)]
    for make in (Popularity, Transitions, Paths):
        folded, again = make().fit(walks, items).folded(pairs), make().fit([*walks, past(3, 4)], items)
        assert folded.scores(walks) == pytest.approx(again.scores(walks), rel=1e-5, abs=1e-7)


def test_a_blend_folds_what_its_members_can_and_keeps_the_rest():
    walks, items = town()
    model = MODELS["blend"]().fit(walks, items)
    folded = model.folded([(past(0, 1), 9)] * 50)
    assert folded is not model and folded.weights == model.weights and folded.members[:2] == model.members[:2]
    gain = folded.scores([past(0, 1)])[0, 9] - model.scores([past(0, 1)])[0, 9]
    assert gain > 0, "what fifty people did is seen at once"


def test_a_model_that_needs_a_new_fit_says_so_by_staying_itself(personal):
    walks, items = town()
    model = personal().fit(walks, items)
    folded = model.folded([(past(0), 1)])
    assert folded is model or model.name in ("transitions", "paths", "blend", "hybrid")
