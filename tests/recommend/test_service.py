"""The service: lists that follow what people do, reasons that hold, fallbacks that are said, versions that swap while it serves."""

import dataclasses
import datetime as dt
import json
import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fmcore import clock
from fmcore.models.registry import Registry, UnknownModel
from fmcore.recommend import events, folding, versions
from fmcore.recommend.recommender import standardised
from fmcore.recommend.service import Ask, BadAsk, Event, ItemChange, Recommend, UnknownItem
from fmcore.recommend.versions import Versions
from fmcore.store.store import Store
from tests.recommend import toy_service
from tests.recommend.toy_shelf import shop


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home in which one version serves; tests work on copies of it."""
    at = tmp_path_factory.mktemp("served")
    return toy_service.served(at / "home", at)


@pytest.fixture
def store(home, tmp_path):
    shutil.copytree(home, tmp_path / "home")
    held = Store(tmp_path / "home")
    yield held
    held.close()


@pytest.fixture
def desk(store):
    return toy_service.over(store)


def ids(answer):
    return [one.item for one in answer.items]


def do(desk, who, *acts, kind="click"):
    noted = desk.note([Event(who, item, kind) for item in acts])
    assert noted.stored == len(acts), noted


def many_do(desk, n, *acts):
    assert desk.note([Event(f"p{person}", item, "click") for person in range(n) for item in acts]).stored == n * len(acts)


# ---------------------------------------------------------------- lists that follow


def test_somebody_known_is_answered_by_the_model_that_serves(desk):
    answer = desk.recommend(Ask(who="user-1", k=5))
    past = desk.history("user-1")
    assert answer.fallback == "" and answer.model == "transitions" and answer.n_history == len(past) == 8
    assert len(set(ids(answer))) == 5 and not set(ids(answer)) & {met.item for met in past}
    assert [one.score for one in answer.items] == sorted((one.score for one in answer.items), reverse=True)
    assert answer.dataset == "toy" and answer.version == desk.shelf().version and answer.ms > 0 and answer.note == ""
    assert answer.items[0].title.startswith("Thing number") and answer.items[0].text.startswith("painted")


def test_a_click_changes_the_next_list_at_once(desk):
    assert desk.recommend(Ask(who="zoë")).fallback
    do(desk, "zoë", "item-4")
    answer = desk.recommend(Ask(who="zoë", k=3))
    assert answer.fallback == "" and answer.n_history == 1 and "item-5" in ids(answer) and "item-4" not in ids(answer)
    do(desk, "zoë", "item-20")
    moved = desk.recommend(Ask(who="zoë", k=3))
    assert "item-21" in ids(moved) and moved.items[0].because.item == "item-20"


def test_a_history_by_hand_is_answered_like_the_same_past(desk):
    do(desk, "zoë", "item-4", "item-9")
    by_hand = desk.recommend(Ask(history=("item-4", "item-9", "item-4"), k=5))
    assert [(one.item, one.score) for one in by_hand.items] == [(one.item, one.score) for one in desk.recommend(Ask(who="zoë", k=5)).items]


def test_what_somebody_skipped_or_forgot_stays_off_their_lists_until_they_take_it_back(desk):
    first = ids(desk.recommend(Ask(who="user-1", k=3)))
    do(desk, "user-1", first[0], kind="skip")
    last = desk.history("user-1")[0].item
    do(desk, "user-1", last, kind="forget")
    found = desk.recommend(Ask(who="user-1", k=30))
    assert first[0] not in ids(found) and last not in ids(found) and found.n_history == 7
    assert first[0] in ids(desk.recommend(Ask(who="user-2", k=30)))
    do(desk, "user-1", first[0], last, kind="keep")
    assert ids(desk.recommend(Ask(who="user-1", k=3))) == first


def test_the_past_is_told_newest_first_with_where_it_comes_from(desk):
    do(desk, "user-1", "item-0", "item-1")
    past = desk.history("user-1")
    new = [met for met in past if met.source == "page"]
    assert past[: len(new)] == new and all(met.happened_at is not None and met.kind == "click" for met in new)
    assert {met.source for met in past[len(new) :]} == {"data"} and past[-1].title.startswith("Thing number")
    assert desk.history("nobody") == []


def test_people_to_pick_are_those_who_came_lately_and_then_those_of_the_data(desk):
    do(desk, "Zoë 🦊", "item-1")
    assert desk.users(limit=3) == ["Zoë 🦊", "user-0", "user-1"]
    assert desk.users("zo") == ["Zoë 🦊"] and desk.users("USER-79") == ["user-79"] and desk.users("nobody") == []


# ---------------------------------------------------------------- reasons


def test_removing_the_named_cause_lowers_the_score_of_its_item(desk):
    checked = unnamed = 0
    for user in ("user-1", "user-5", "user-9"):
        history = tuple(met.item for met in reversed(desk.history(user)))
        for model in ("knn", "transitions", "text", "hybrid"):
            for one in desk.recommend(Ask(history=history, k=30, model=model)).items:
                if one.because is None:
                    unnamed += 1
                    continue
                rest = tuple(item for item in history if item != one.because.item)
                after = {found.item: found.score for found in desk.recommend(Ask(history=rest, k=30, model=model, reasons=False)).items}
                assert one.because.item in history and after[one.item] == pytest.approx(one.score - one.because.drop, abs=1e-5) and one.because.drop > 0
                checked += 1
    assert checked > 60 and unnamed  # where nothing lowers a score, nothing is named


def test_popularity_names_no_cause_and_no_reasons_are_given_unasked(desk):
    assert all(one.because is None for one in desk.recommend(Ask(who="user-1", model="popularity")).items)
    assert all(one.because is None for one in desk.recommend(Ask(who="user-1", reasons=False)).items)
    assert any(one.because for one in desk.recommend(Ask(who="user-1")).items)


def test_why_adds_up_to_the_score_and_says_it_in_a_sentence(desk):
    ask = Ask(who="user-1")
    top = desk.recommend(ask).items[0]
    why = desk.why(ask, top.item)
    assert why.score == pytest.approx(top.score) and why.model == "transitions" and len(why.contributions) == 8
    assert sum(cause.value for cause in why.contributions) == pytest.approx(why.score, abs=1e-5)  # the transitions of an empty past are zero
    named = max((cause for cause in why.contributions if cause.is_cause), key=lambda cause: cause.drop)
    assert named.item == top.because.item and named.drop == pytest.approx(top.because.drop, abs=1e-5)
    assert f"‘{named.title}’" in why.sentence and f"‘{top.title}’" in why.sentence and named.drop > 0
    with pytest.raises(UnknownItem):
        desk.why(ask, "nonesuch")


def test_why_of_a_fallback_says_that_it_is_one_and_names_nobody_as_cause(desk):
    why = desk.why(Ask(who="nobody"), "item-3")
    assert why.contributions == () and why.model == "popularity" and "many people" in why.sentence


def test_without_an_item_is_the_list_that_forgetting_it_gives(desk):
    ask = Ask(who="user-1", k=5)
    item = desk.history("user-1")[0].item
    before, after = desk.recommend(ask), desk.without(ask, item)
    assert after.n_history == 7 and item not in ids(after)
    places = {one.item: (one.before, one.after) for one in after.changes}
    for found in dict.fromkeys(ids(before) + ids(after)):
        old = ids(before).index(found) + 1 if found in ids(before) else None
        new = ids(after).index(found) + 1 if found in ids(after) else None
        assert places.get(found, (old, old)) == (old, new)
    do(desk, "user-1", item, kind="forget")
    assert [(one.item, one.score) for one in desk.recommend(ask).items] == [(one.item, one.score) for one in after.items]
    with pytest.raises(BadAsk):
        desk.without(ask, "item-that-is-not-there")


# ---------------------------------------------------------------- fallbacks and corners


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (Ask(), "Nobody was named"),
        (Ask(who="nobody"), "Nothing is known of ‘nobody’ yet"),
        (Ask(history=()), "Nobody was named"),
        (Ask(history=("nonesuch",)), "The one item of the past is not in this catalogue"),
        (Ask(history=("nonesuch", "other")), "None of the 2 items"),
        (Ask(who="nobody", model="knn"), "Nothing is known"),
    ],
)
def test_popularity_answers_where_nothing_is_known_and_says_why(desk, ask, said):
    answer = desk.recommend(ask)
    assert said in answer.fallback and answer.model == "popularity" and ids(answer) == ids(desk.recommend(Ask(model="popularity")))
    assert answer.unknown == tuple(ask.history or ())


def test_the_fallback_is_empty_exactly_when_the_asked_for_model_answered(desk):
    for model in ("popularity", "knn", "transitions", "text", "hybrid"):
        for ask in (Ask(who="user-3", model=model), Ask(who="nobody", model=model), Ask(history=("item-1",), model=model)):
            answer = desk.recommend(ask)
            assert (answer.fallback == "") == (answer.model == model)


def test_unknown_items_of_a_history_are_named_and_the_rest_answers(desk):
    answer = desk.recommend(Ask(history=("nonesuch", "item-4", 'say "hi" 🦊'), k=3))
    assert answer.unknown == ("nonesuch", 'say "hi" 🦊') and answer.fallback == "" and answer.n_history == 1


def test_everything_seen_is_an_empty_list_with_a_sentence(desk):
    everything = desk.shelf().items.ids
    answer = desk.recommend(Ask(history=everything))
    assert answer.items == () and "Nothing is left" in answer.note and answer.n_history == len(everything)
    nearly = desk.recommend(Ask(history=everything[:-2]))
    assert len(nearly.items) == 2 and "Only 2 items are left" in nearly.note
    assert len(desk.recommend(Ask(history=everything[:-2], diversity=0.5)).items) == 2


def test_removed_items_are_on_no_list_at_once(desk):
    ask = Ask(who="user-1", k=30)
    first = ids(desk.recommend(ask))[0]
    desk.change_items([ItemChange(first, state="removed")])
    for model in ("popularity", "knn", "transitions", "text"):
        for more in (ask, Ask(who="nobody", k=30), Ask(sentence="painted red", k=30), Ask(who="user-1", k=30, diversity=0.8), Ask(who="user-1", k=30, learner="thompson")):
            assert first not in ids(desk.recommend(dataclasses.replace(more, model=model)))
    assert first not in ids(desk.similar("item-3", k=30)) and first not in ids(desk.without(ask, desk.history("user-1")[0].item))
    desk.change_items([ItemChange(first, "Thing again")])
    back = desk.recommend(ask)
    assert first in ids(back) and next(one.title for one in back.items if one.item == first) == "Thing again"


def test_all_items_removed_is_said(desk):
    assert desk.change_items([ItemChange(item, state="removed") for item in desk.shelf().items.ids]).stored == 30
    answer = desk.recommend(Ask(who="user-1"))
    assert answer.items == () and answer.note == "Every item was taken out of the catalogue."
    assert desk.recommend(Ask()).items == () and desk.info()["n_items"] == 0


def test_one_item_in_the_catalogue_is_a_list_of_one(desk):
    desk.change_items([ItemChange(item, state="removed") for item in desk.shelf().items.ids[1:]])
    assert ids(desk.recommend(Ask(who="nobody"))) == ["item-0"] and ids(desk.recommend(Ask(history=("item-5",)))) == ["item-0"]
    assert desk.recommend(Ask(history=("item-0",))).items == ()


@pytest.mark.parametrize("model", ["text", "knn", "transitions", "hybrid"])
def test_new_items_reach_lists_through_their_text(desk, model):
    desk.change_items([ItemChange("new", "Thing number", "painted green"), ItemChange("odd", "Something else", "entirely")])
    history = ("item-1", "item-6", "item-11")  # green ones
    answer = desk.recommend(Ask(history=history, k=32, model=model))
    order = ids(answer)
    assert answer.fallback == "" and order.index("new") < order.index("odd") and order.index("new") <= 3
    assert "new" in ids(desk.recommend(Ask(sentence="painted green", k=10)))
    assert ids(desk.recommend(Ask(model="popularity", k=32)))[-2:] == ["new", "odd"]  # nobody met them


def test_new_items_keep_their_places_as_others_come_and_go(desk, store):
    desk.change_items([ItemChange("item-3", state="removed"), ItemChange("one", "One", "painted red"), ItemChange("two", "Two", "painted blue")])
    do(desk, "zoë", "one", "two")
    desk.change_items([ItemChange("one", state="removed"), ItemChange("three", "Three", "painted green")])
    now = desk.current()
    assert now.items.ids[30:] == ("one", "two", "three") and now.removed == {3, 30} and now.models["text"].items == now.items
    assert [met.title for met in desk.history("zoë")] == ["Two", "One"] and "one" not in ids(desk.recommend(Ask(k=40, model="text", sentence="painted red")))
    for model in ("text", "knn", "hybrid"):
        assert len(now.models[model].scores([np.array([31], dtype=np.int32)])[0]) == 33
    again = toy_service.over(store).current()
    assert again.items == now.items and again.removed == now.removed
    assert (again.models["hybrid"].scores([np.array([31, 4], dtype=np.int32)]) == now.models["hybrid"].scores([np.array([31, 4], dtype=np.int32)])).all()


def test_a_new_item_can_be_met_and_counts_as_a_past(desk):
    desk.change_items([ItemChange('"new" 🦊', "New", "painted blue")])
    do(desk, "zoë", '"new" 🦊')
    answer = desk.recommend(Ask(who="zoë", model="text"))
    assert answer.fallback == "" and answer.unknown == () and answer.items[0].text == "painted blue" and desk.history("zoë")[0].title == "New"
    assert desk.recommend(Ask(who="zoë", model="knn")).fallback  # it knows nothing of it
    assert desk.recommend(Ask(who="zoë", model="hybrid", k=3)).items[0].text == "painted blue"
    assert desk.recommend(Ask(who="zoë", model="text", learner="linucb", seed=1)).items


@pytest.mark.parametrize(
    "ask",
    [
        Ask(k=0), Ask(k=501), Ask(k=True), Ask(k=2.5), Ask(diversity=-0.1), Ask(diversity=1.1), Ask(diversity=float("nan")), Ask(model="nonesuch"),
        Ask(learner="dice"),
    ],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused_in_a_sentence(desk, ask):
    with pytest.raises(BadAsk) as refused:
        desk.recommend(ask)
    assert refused.value.message.endswith(".") and refused.value.hint


def test_an_unknown_version_or_no_version_at_all_is_said(desk, tmp_path):
    with pytest.raises(UnknownModel):
        desk.recommend(Ask(version="nonesuch"))
    empty = Store(tmp_path / "empty")
    bare = Recommend(Registry(empty), empty)
    with pytest.raises(UnknownModel) as refused:
        bare.recommend(Ask())
    assert "No model serves recommend yet" in refused.value.message and bare.info()["version"] is None
    empty.close()


# ---------------------------------------------------------------- sentences, diversity, models side by side


def test_a_sentence_answers_somebody_without_a_past(desk):
    answer = desk.recommend(Ask(sentence="painted white", k=6))
    assert answer.model == "text" and answer.fallback == "" and {one.text for one in answer.items} == {"painted white"}
    assert all(one.because is None for one in answer.items)


def test_clicks_since_are_weighed_with_the_sentence(desk):
    ask = Ask(who="zoë", sentence="painted white", k=6)
    do(desk, "zoë", "item-3")
    answer = desk.recommend(ask)
    assert answer.model == "transitions + text" and "item-4" in ids(answer)[:1]  # what follows, and white too
    do(desk, "zoë", *[f"item-{n}" for n in range(10, 20)])
    later = desk.recommend(ask)
    assert "item-20" in ids(later) and sum(one.text == "painted white" for one in later.items) < 6


def test_a_sentence_and_a_past_are_summed_as_they_say(desk):
    now = desk.current()
    text, model = now.models["text"], now.models["transitions"]
    history = np.array([3, 4], dtype=np.int32)
    fits, read = standardised(text.scores_of(text.embed(["painted white"])[0])[None])[0], standardised(model.scores([history]))[0]
    found = desk.recommend(Ask(history=("item-3", "item-4"), sentence="painted white", k=30))
    for one in found.items:
        number = now.numbers[one.item]
        assert one.score == pytest.approx(3 / 5 * fits[number] + 2 / 5 * read[number], abs=1e-5)


@pytest.mark.parametrize("sentence", ["", "   ", "\x00", "!!! ...", "🦊🦊", None])
def test_a_sentence_that_says_nothing_changes_nothing(desk, sentence):
    answer = desk.recommend(Ask(who="user-1", sentence=sentence))
    assert ids(answer) == ids(desk.recommend(Ask(who="user-1"))) and answer.model == "transitions"
    assert desk.recommend(Ask(sentence=sentence)).fallback


@pytest.mark.parametrize("sentence", ["painted red " * 20_000, "bemalt, rot", "红色的东西", "‮painted red", "<script>alert(1)</script>", "\ud800 red"])
def test_any_sentence_is_answered(desk, sentence):
    assert len(desk.recommend(Ask(sentence=sentence, k=5)).items) == 5


def test_without_a_text_model_a_sentence_is_left_aside_and_that_is_said(store):
    desk = Recommend(Registry(store), store)
    answer = desk.recommend(Ask(who="user-1", sentence="painted red"))
    assert answer.model == "transitions" and answer.fallback == "" and "does not read texts" in answer.note
    assert desk.recommend(Ask(sentence="painted red")).fallback
    assert len(desk.recommend(Ask(who="user-1", diversity=0.9)).items) == 10  # by who met what


def test_diversity_keeps_the_best_and_spreads_the_rest(desk):
    plain, spread = (desk.recommend(Ask(sentence="painted red", k=6, diversity=d)) for d in (0.0, 0.9))
    assert plain.items[0] == spread.items[0] and len({one.text for one in spread.items}) > len({one.text for one in plain.items})


def test_models_stand_side_by_side_with_the_share_they_have_in_common(desk):
    beside = desk.side_by_side(Ask(who="user-1", k=5), ["popularity", "knn", "transitions"])
    assert list(beside.lists) == ["popularity", "knn", "transitions"] and (np.diag(beside.overlap) == 1).all()
    one, other = (set(ids(beside.lists[name])) for name in ("knn", "transitions"))
    assert beside.overlap.loc["knn", "transitions"] == len(one & other) / len(one | other) == beside.overlap.loc["transitions", "knn"]
    assert len({answer.version for answer in beside.lists.values()}) == 1


def test_similar_items_are_what_meets_it(desk):
    answer = desk.similar("item-4", k=3)
    assert answer.items[0].item == "item-5" and "item-4" not in ids(answer)
    with pytest.raises(UnknownItem):
        desk.similar("nonesuch")


def test_the_frontier_is_that_of_the_version(desk):
    frame = desk.frontier()
    assert list(frame.columns)[:2] == ["diversity", "ndcg"]


# ---------------------------------------------------------------- the live learner


@pytest.mark.parametrize("learner", ["thompson", "linucb"])
def test_what_a_learner_shows_is_stored_with_its_probability(desk, store, learner):
    answer = desk.recommend(Ask(who="zoë", k=5, learner=learner, seed=3))
    rows = store.rows("SELECT item, kind, value, source FROM interactions ORDER BY n")
    assert [(r["item"], r["value"]) for r in rows] == [(one.item, one.probability) for one in answer.items] and all(0 < r["value"] <= 1 for r in rows)
    assert {(r["kind"], r["source"]) for r in rows} == {("shown", "bandit")}
    assert desk.history("zoë") == [] and desk.recommend(Ask(who="zoë")).fallback
    assert all(one.probability is None for one in desk.recommend(Ask(who="zoë")).items)


def test_a_click_on_what_was_shown_moves_the_beliefs(desk):
    answer = desk.recommend(Ask(who="zoë", k=3, learner="thompson", seed=3))
    before = desk.beliefs().frame
    do(desk, "zoë", answer.items[0].item)
    after = desk.beliefs().frame
    assert before["n_shown"].sum() == after["n_shown"].sum() == 3 and before["n_liked"].sum() == 0 and after["n_liked"].sum() == 1
    assert after["mean"].max() > before["mean"].max()


def test_what_an_even_draw_would_have_earned_is_estimated_once_there_are_enough_shows(desk):
    assert desk.live_estimate("thompson") is None
    for n in range(30):
        answer = desk.recommend(Ask(who=f"p{n}", k=4, learner="thompson", seed=n))
        do(desk, f"p{n}", answer.items[0].item)
    said = desk.live_estimate("thompson")["sentence"]
    assert said.startswith("Of 120 shown items 25% (95 %: 25% to 25%) were liked") and "drawn evenly" in said


def test_a_seeded_learner_shows_the_same_twice_and_nothing_is_stored_for_nobody(desk, store):
    first, second = (desk.recommend(Ask(history=("item-3",), k=5, learner="thompson", seed=5)) for _ in range(2))
    assert ids(first) == ids(second) and store.rows("SELECT count(*) AS n FROM interactions") == [{"n": 0}]


# ---------------------------------------------------------------- folding in


def test_folded_counts_serve_at_once_and_are_worked_out_anew_by_whoever_starts(desk, store, tmp_path):
    before = desk.recommend(Ask(history=("item-2",), k=3))
    many_do(desk, 40, "item-2", "item-25")
    assert ids(desk.recommend(Ask(history=("item-2",), k=3))) == ids(before)  # what others did waits for the fold
    version = desk.shelf().version
    assert folding.fold(store, version, "toy", trained_up_to=0) == (80, 80)
    after = desk.recommend(Ask(history=("item-2",), k=3))
    assert after.items[0].item == "item-25" and desk.info()["folded_up_to"] == 80 and after.version == before.version
    assert desk.recommend(Ask(history=("item-2",), k=1, model="hybrid")).items[0].item == "item-25"
    again = Recommend(desk.versions.registry, store, versions=Versions(desk.versions.registry, load=toy_service.load))
    assert [(one.item, one.score) for one in again.recommend(Ask(history=("item-2",), k=3)).items] == [(one.item, one.score) for one in after.items]


def test_what_a_version_was_trained_on_is_not_folded_in_again(desk, store, tmp_path):
    toy_service.promote(desk.versions.registry, toy_service.adopt(desk.versions.registry, tmp_path, run_id="later", interactions_up_to=80))
    many_do(desk, 40, "item-2", "item-25")
    before = [(one.item, one.score) for one in desk.recommend(Ask(history=("item-2",))).items]
    assert folding.fold(store, desk.shelf().version, "toy", trained_up_to=80) == (80, 0)
    assert [(one.item, one.score) for one in desk.recommend(Ask(history=("item-2",))).items] == before


# ---------------------------------------------------------------- versions


def test_a_promotion_is_served_by_the_next_call_and_a_pinned_version_stays(desk, tmp_path):
    registry = desk.versions.registry
    old = desk.recommend(Ask(who="user-1")).version
    new = toy_service.adopt(registry, tmp_path, run_id="second", data=toy_service.shop(seed=2))
    toy_service.promote(registry, new)
    assert desk.recommend(Ask(who="user-1")).version == new.version == desk.info()["version"] and desk.info()["warning"] == ""
    assert desk.recommend(Ask(who="user-1", version=old)).version == old
    registry.rollback("recommend", by="test", reason="back")
    assert desk.recommend(Ask(who="user-1")).version == old


def test_a_refused_folder_leaves_the_version_before_serving_and_says_why(desk, tmp_path, monkeypatch):
    registry = desk.versions.registry
    old = desk.recommend(Ask(who="user-1")).version
    new = toy_service.adopt(registry, tmp_path, run_id="second", data=toy_service.shop(seed=2))
    toy_service.promote(registry, new)
    facts = new.path / "model.json"
    whole = facts.read_text()
    facts.write_text(json.dumps({**json.loads(whole), "serving": "nonesuch"}))
    answer = desk.recommend(Ask(who="user-1"))
    assert answer.version == old and new.version in desk.info()["warning"] and f"{old} keeps serving" in desk.info()["warning"]
    facts.write_text(whole)
    assert desk.recommend(Ask(who="user-1")).version == old  # a refused folder is left alone for a while
    monkeypatch.setattr(versions, "RETRY_REFUSED_S", 0.0)
    assert desk.recommend(Ask(who="user-1")).version == new.version and desk.info()["warning"] == ""


def test_any_fault_of_a_folder_is_a_refusal(desk, tmp_path):
    def load(folder, *, version):
        raise toy_service.Broken("The folder is damaged.", "Train it again.")

    broken = Recommend(desk.versions.registry, desk.store, versions=Versions(desk.versions.registry, load=load))
    with pytest.raises(versions.Refused):
        broken.recommend(Ask())
    assert "No earlier version" in broken.info()["warning"]


def test_two_threads_load_a_version_once(desk):
    loads = []

    def load(folder, *, version):
        loads.append(version)
        return toy_service.load(folder, version=version)

    fresh = Recommend(desk.versions.registry, desk.store, versions=Versions(desk.versions.registry, load=load))
    with ThreadPoolExecutor(6) as pool:
        lists = list(pool.map(lambda _: ids(fresh.recommend(Ask(who="user-1"))), range(12)))
    assert len(loads) == 1 and len({tuple(found) for found in lists}) == 1


def test_few_versions_stay_in_memory(desk, tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "MAX_LOADED", 2)
    registry = desk.versions.registry
    serving = desk.recommend(Ask()).version
    for n in range(3):
        desk.recommend(Ask(version=toy_service.adopt(registry, tmp_path, run_id=f"more-{n}", data=toy_service.shop(seed=n + 3, n_users=10)).version))
    assert serving in desk.info()["loaded"] and len(desk.info()["loaded"]) <= 3 and len(desk._held) <= 4


def test_notes_lists_folds_and_swaps_at_once_lose_nothing_and_mix_nothing(desk, store, tmp_path):
    registry = desk.versions.registry
    first = registry.champion("recommend")
    second = toy_service.adopt(registry, tmp_path, run_id="second", data=dataclasses.replace(toy_service.shop(seed=2, n_items=40), name="toy"))
    catalogue = {first.version: set(desk.shelf(first.version).items.ids), second.version: set(desk.shelf(second.version).items.ids)}
    stop = threading.Event()

    def swap():
        chance = random.Random(0)
        while not stop.wait(0.01):
            now = registry.champion("recommend")
            toy_service.promote(registry, second if now.version == first.version else first)
            folding.fold(store, chance.choice([first, second]).version, "toy", trained_up_to=0)
            desk.change_items([ItemChange("item-7", state=chance.choice(["live", "removed"]), title="Seven")])

    def click(worker):
        return sum(desk.note([Event(f"w{worker}", f"item-{n % 30}", "click", id=f"{worker}-{n}"), Event("all", "item-1", "view", id=f"same-{n}")]).stored for n in range(25))

    def ask(worker):
        answers = [desk.recommend(Ask(who=f"w{worker % 3}", k=8, diversity=0.3 * (n % 2), reasons=bool(n % 2))) for n in range(25)]
        return all(set(ids(answer)) <= catalogue[answer.version] and len(set(ids(answer))) == len(answer.items) for answer in answers)

    with ThreadPoolExecutor(7) as pool:
        swapping = pool.submit(swap)
        asked = [pool.submit(ask, worker) for worker in range(3)]
        stored = sum(pool.map(click, range(3)))
        assert all(one.result() for one in asked)
        stop.set()
        swapping.result()
    assert stored == 100 == store.rows("SELECT count(DISTINCT id) AS n FROM interactions")[0]["n"]
    assert {one.item for one in desk.history("w1")} == {f"item-{n}" for n in range(25)}


# ---------------------------------------------------------------- late events


def test_late_events_find_their_place_in_a_past(desk):
    at = clock.now() - dt.timedelta(hours=1)
    desk.note([Event("zoë", "item-9", "click", happened_at=at + dt.timedelta(minutes=9))])
    desk.note([Event("zoë", "item-4", "click", happened_at=at)])
    assert [met.item for met in desk.history("zoë")] == ["item-9", "item-4"]
    assert ids(desk.recommend(Ask(who="zoë", k=5))) == ids(desk.recommend(Ask(history=("item-4", "item-9"), k=5)))


def test_events_about_unknown_items_are_refused_and_the_rest_counts(desk):
    noted = desk.note([Event("zoë", "nonesuch", "click"), Event("zoë", "item-4", "click")])
    assert noted.stored == 1 and "no item" in noted.refused[0][1] and desk.recommend(Ask(who="zoë")).n_history == 1


def test_a_refit_on_what_was_stored_knows_it(desk, store, tmp_path):
    many_do(desk, 30, "item-2", "item-25", "item-7")
    data = events.merged(store, shop())
    assert len(data.users) == 110 and len(data.rows) == 640 + 90
    version = toy_service.adopt(desk.versions.registry, tmp_path, run_id="refit", data=data, interactions_up_to=events.latest(store, "toy"))
    toy_service.promote(desk.versions.registry, version)
    assert set(ids(desk.recommend(Ask(history=("item-2",), k=2)))) == {"item-25", "item-7"}
    assert len(desk.history("p1")) == 3 and {met.source for met in desk.history("p1")} == {"data"}
