"""The Recommend page, for one person: a list that follows every click, says because, and shows whatever an item is called as text."""

import dataclasses
import html
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from streamlit.testing.v1 import AppTest

from fmcore import runtime
from fmcore.config import Settings
from fmcore.data import demo_shop
from fmcore.models.registry import Registry
from fmcore.recommend import stock
from fmcore.recommend.asking import Answer, Because, Recommendation
from fmcore.recommend.service import Event
from fmcore.recommend.versions import Versions
from fmcore.store.store import Store
from fmcore.text import clean
from jobs import JOBS
from pages import recommend_bandit, recommend_cold, recommend_diversity, recommend_list, recommend_live
from tests.recommend import toy_service

SHELL = str(Path(__file__).resolve().parents[2] / "pages" / "shell.py")

HOSTILE = (
    "<script>alert(1)</script>",
    "**bold** _it_ # head",
    "[l](javascript:alert(1))",
    "![i](http://e.com/x.png)",
    "$\\frac{1}{2}$ $$x$$",
    ":red[x] :material/home: :smile:",
    "]} open [{ ~~gone~~ `code`",
    "https://example.com www.example.com a@b.co",
    'it\'s "quoted" 😀',
    "",
)


# ---------------------------------------------------------------- how a list reads


def found(item, score=1.0, because=None, probability=None, title=None):
    return Recommendation(item, title or f"Title {item}", "", score, because, probability)


def answered(*items, **changes):
    facts = {"model": "knn", "version": "v1", "dataset": "toy", "fallback": "", "n_history": 3, "unknown": (), "ms": 4.2}
    return Answer(items=tuple(items), **{**facts, **changes})


def test_what_moved_is_told_by_glyph_and_number():
    moved = recommend_list.moves(["b", "c", "a", "d"], ["a", "b", "c"])
    assert moved == {"b": 1, "c": 1, "a": -2, "d": recommend_list.NEW}
    assert (
        "▲\u00a01" in recommend_list.move_chip(1)
        and "▼\u00a02" in recommend_list.move_chip(-2)
        and "new" in recommend_list.move_chip("new")
    )
    assert recommend_list.move_chip(0) == recommend_list.move_chip(None) == ""
    assert recommend_list.moves(["a"], None) == {}


def test_a_change_is_told_in_a_sentence_without_what_left_by_being_met():
    titles = {"a": "Alpha", "b": "Beta"}
    assert recommend_list.change(["c", "b"], ["a", "b"], titles) == "1 new; gone: Alpha"
    assert recommend_list.change(["c", "b"], ["a", "b"], titles, besides="a") == "1 new"
    assert recommend_list.change(["a", "b"], ["a", "b"], titles) == "the list stays as it was"
    assert recommend_list.change(["b", "a"], ["a", "b"], titles) == "2 moved"
    assert recommend_list.change(["a"], None, titles) == ""


def test_a_bar_is_a_share_of_the_top_score_and_says_so():
    assert recommend_list.shares([4.0, 2.0, -1.0]) == [1.0, 0.5, None]
    assert recommend_list.shares([0.0, -1.0]) == [None, None]
    assert "top score" in recommend_list.bar(1.0, 4.0) and recommend_list.bar(1.0, 4.0).count("━") == recommend_list.BAR
    assert "50\u00a0% of the top" in recommend_list.bar(0.5, 2.0)
    assert "−1.00" in recommend_list.bar(None, -1.0)


@pytest.mark.parametrize(
    ("answer", "item", "sentence", "words"),
    [
        (answered(), found("a", 4.0, Because("x", "Xi", 1.0)), False, "because you met **Xi** :gray[·\u00a0carries\u00a025\u00a0%]"),
        (answered(), found("a", 4.0, Because("x", "Xi", 4.5)), False, "carries\u00a0all\u00a0of\u00a0it"),
        (answered(), found("a", -1.0, Because("x", "Xi", 0.5)), False, "carries\u00a00.50\u00a0points"),
        (answered(), found("a"), False, "no single cause: the score does not fall without any one of your past"),
        (answered(n_history=40), found("a"), False, "no single cause: the score does not fall without any one of the last 12 items"),
        (answered(n_history=0), found("a"), True, "because of your sentence"),
        (answered(n_history=0, fallback="Nothing is known."), found("a"), False, "because many people met it"),
        (answered(model="popularity"), found("a"), False, "because many people met it"),
    ],
)  # fmt: skip
def test_a_reason_is_named_only_where_the_score_falls_without_it(answer, item, sentence, words):
    assert words in recommend_list.because(item, answer, sentence=sentence)


@pytest.mark.parametrize("title", HOSTILE)
def test_a_hostile_title_is_never_markup(title):
    item = Recommendation("i", title, title, 1.0, Because("x", title, 0.5), None)
    told = recommend_list._told(answered(item), item, "new", False, {"i": title})
    bare = re.sub(r":\w+-badge\[(?::material/\w+: )?((?:\\.|[^\]\\])*)\]", r"\1", told)
    bare = re.sub(r":(?:small|gray)\[", "", bare)
    shown = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(bare)
    assert not re.search(r"<(?!/?(p|strong)>|br)", shown)
    plain = html.unescape(re.sub(r"<[^>]*>", "", shown)).replace("\u2060", "")
    assert " ".join(clean(title)[0].split()) in plain
    assert not re.search(r"(?<!\\):(red|material|smile)", bare)


def test_the_chosen_place_lies_on_the_measured_frontier():
    frame = pd.DataFrame({
        "diversity": [0.0, 0.5, 1.0], "ndcg": [0.3, 0.2, 0.1], "ndcg_low": [0.2, 0.1, 0.0], "ndcg_high": [0.4, 0.3, 0.2],
        "ild": [0.5, 0.6, 0.9], "coverage": [0.1] * 3, "n": [80] * 3,
    })  # fmt: skip
    figure, words = recommend_diversity.frontier(frame, 0.25)
    assert figure.data[-1].x[0] == pytest.approx(0.55) and figure.data[-1].y[0] == pytest.approx(0.25)
    assert "NDCG@10 0.250" in words and "diversity 0.55" in words


def test_beliefs_are_told_in_words_with_their_numbers():
    now = pd.Timestamp("2026-11-24T12:00:00Z")
    frame = pd.DataFrame({
        "arm": [0, 1], "name": ["<b>red</b>", "blue"], "mean": [0.2, 0.5], "low": [0.1, 0.3], "high": [0.4, 0.7], "n_shown": [4, 6],
        "n_liked": [0, 3], "trail": [[(now, 0.3), (now, 0.2)], [(now, 0.4), (now + pd.Timedelta("1s"), 0.5)]],
    })  # fmt: skip
    assert recommend_bandit.moved(frame) == "Last move: ▲ ‘blue’, +10.0 points to 50.0\u00a0%."
    assert recommend_bandit.in_words(frame).startswith("Beliefs, most promising first: blue: 50 % (30 to 70), liked 3 of 6")
    figure = recommend_bandit.intervals(frame)
    assert [note.text for note in figure.layout.annotations] == ["3 of 6", "0 of 4"]
    assert "<b>" not in "".join(figure.layout.yaxis.ticktext)
    assert recommend_bandit.trails(frame).data


def test_the_weight_moves_from_the_sentence_to_the_past():
    ask = SimpleNamespace(sentence="red things", who="g")
    shares = [recommend_cold._weights(ask, answered(n_history=n, model="knn + text"))["your sentence"] for n in (0, 1, 3, 9)]
    assert shares[0] == 1.0 and shares == sorted(shares, reverse=True) and len(set(shares)) == 4
    assert recommend_cold._weights(ask, answered(model="knn")) == {}
    assert recommend_cold._weights(ask, answered(model="popularity", fallback="why")) == {}
    assert recommend_cold._weights(SimpleNamespace(sentence=None), answered(model="text")) == {}


def test_a_hybrid_tells_which_model_says_how_much_at_this_length():
    table = pd.DataFrame({"length": [0, 0, 8, 8], "member": ["text", "ease"] * 2, "weight": [1.0, 0.0, 0.3, 0.7], "n": [0, 0, 40, 40]})
    models = {
        "hybrid": SimpleNamespace(title="Hybrid", weights=lambda: table),
        "ease": SimpleNamespace(title="EASE"),
        "text": SimpleNamespace(title="Text"),
    }
    shelf = SimpleNamespace(models=models)
    assert recommend_cold.members(shelf, answered(model="hybrid + text", n_history=0)) == "Of the past, Hybrid hears Text 100 %."
    told = recommend_cold.members(shelf, answered(model="hybrid", n_history=7))
    assert told == "Of the past, Hybrid hears EASE 70 %, Text 30 % (learnt on 40 people with a past of about 8)."
    assert recommend_cold.members(shelf, answered(model="ease")) == ""


# ---------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A home with a live version, for the whole file; each test has its own copy."""
    folder = tmp_path_factory.mktemp("recommend")
    data = toy_service.shop(name="demo_shop", n_users=60)
    named = list(demo_shop.tastes())[:20]
    titles = tuple(HOSTILE[i] if i < len(HOSTILE) else title for i, title in enumerate(data.titles))
    data = dataclasses.replace(data, users=(*named, *data.users[len(named) :]), titles=titles)
    runtime.stop()
    return toy_service.served(folder / "home", folder, data=data)


@pytest.fixture
def desk(filled, tmp_path):
    """A running desk whose text model needs no encoder."""
    shutil.copytree(filled, tmp_path / "home")
    runtime.stop()
    made = runtime.start(Settings(home=tmp_path / "home"), JOBS)
    made.recommend.versions = Versions(made.registry, load=toy_service.load)
    yield made
    runtime.stop()


@pytest.fixture(autouse=True)
def no_double_clicks(monkeypatch):
    """Tests click faster than people."""
    monkeypatch.setattr(recommend_live, "TWICE_S", 0.0)


@pytest.fixture
def bare(tmp_path):
    """A desk without any version."""
    runtime.stop()
    yield runtime.start(Settings(home=tmp_path / "home"), JOBS)
    runtime.stop()


def opened(**query) -> AppTest:
    at = AppTest.from_file(SHELL, default_timeout=60)
    for name, value in query.items():
        at.query_params[name] = value
    return sound(at.switch_page("recommend.py").run())


def sound(at: AppTest) -> AppTest:
    assert not at.exception
    assert not [e.value for e in at.error if "could not be drawn" in e.value]
    return at


def told(at) -> str:
    return "\n".join(m.value for m in at.markdown)


def plain(at) -> str:
    return told(at).replace("\\", "").replace("\u2060", "").replace("\u00a0", " ")


def listed(at) -> list[str]:
    """Ids of the list's items, in order."""
    n = sum(bool(b.key and b.key.startswith("rec-like-")) for b in at.button)
    order = list(at.session_state["recommend_seen"]["order"]) if n else []
    assert len(order) == n
    return order


def past(at) -> list[str]:
    """Ids of the past's items that are shown, newest first."""
    n = sum(bool(b.key and b.key.startswith("rec-forget-")) for b in at.button)
    who = at.selectbox(key="recommend_who").value
    return [met.item for met in runtime.current().recommend.history(who)[:n]]


def press(at, key) -> AppTest:
    return sound(at.button(key=key).click().run())


def do(at, kind, item) -> AppTest:
    """Press a button of an item of the list."""
    return press(at, f"rec-{kind}-{listed(at).index(item) + 1}")


def to_past(at, kind, item) -> AppTest:
    """Press a button of an item of the past."""
    return press(at, f"rec-{kind}-{past(at).index(item) + 1}")


def stranger(at) -> AppTest:
    return sound(next(b for b in at.button if b.label == "New person").click().run())


def badge(at) -> bool:
    return "Fallback: popularity" in plain(at)


def test_without_a_version_the_page_starts_the_first_run(bare):
    at = opened()
    assert "No recommender yet" in plain(at)
    sound(next(b for b in at.button if b.label == "Start the run").click().run())
    (run,) = bare.runs.active()
    assert (run.job, run.params["dataset"]) == ("recommend", "demo_shop")
    at.run()
    assert "The first recommender is being made" in {h.value for h in at.header}


def test_somebody_known_gets_a_list_with_reasons_that_hold(desk):
    at = opened()
    who = at.selectbox(key="recommend_who").value
    asked = desk.recommend.recommend(recommend_live.Ask(who=who))
    assert listed(at) == [one.item for one in asked.items]
    assert len(listed(at)) == 10 and not badge(at)
    assert "because you met **" in plain(at) and "of the top" in plain(at)
    cause = next(one for one in asked.items if one.because)
    shorter = [one.item for one in reversed(desk.recommend.history(who)) if one.item != cause.because.item]
    without = desk.recommend.recommend(recommend_live.Ask(history=tuple(shorter), k=30))
    scores = {one.item: one.score for one in without.items}
    assert scores.get(cause.item, 0.0) < cause.score
    assert re.search(r"answered in [\d.]+ ms by ", plain(at)) and "on 8 items of the past" in plain(at)
    assert "480 interactions of 60 people" in plain(at)
    stated = demo_shop.TOPICS[demo_shop.tastes()[who][0]]
    assert f"{who} does not exist" in plain(at) and stated in plain(at) and "Demo data" in plain(at)


@pytest.mark.slow
def test_what_a_title_holds_is_shown_as_text_everywhere(desk):
    at = opened()
    for who in list(desk.recommend.shelf().users)[:6]:
        sound(at.selectbox(key="recommend_who").set_value(who).run())
        for value in (m.value for m in at.markdown):
            bare = re.sub(r":(color|small|gray|blue)\[|:\w+-badge\[|:material/\w+:", "", value)
            for live in ("<script", ":red[", "](javascript", "$\\frac", "]("):
                assert live not in re.sub(r"\\[<\[$(:]", "", bare)


def test_a_like_joins_the_past_and_moves_the_list_at_once(desk):
    at = opened()
    before = listed(at)
    do(at, "like", before[2])
    assert past(at)[0] == before[2] and before[2] not in listed(at) and listed(at) != before
    assert "After you liked" in plain(at) and ("▲" in told(at) or "new" in told(at))
    assert "liked here · just now" in plain(at)
    row = desk.store.rows("SELECT who, item, kind, source FROM interactions")
    assert row == [{"who": at.selectbox(key="recommend_who").value, "item": before[2], "kind": "like", "source": "page"}]


@pytest.mark.slow
def test_a_skip_keeps_an_item_off_without_joining_the_past(desk):
    at = opened()
    first, met = listed(at)[0], past(at)
    do(at, "skip", first)
    assert first not in listed(at) and past(at) == met
    assert "After you skipped" in plain(at)
    press(at, "recommend_undo")
    assert first in listed(at)


@pytest.mark.slow
def test_half_a_double_click_does_not_mean_what_moved_under_it(desk, monkeypatch):
    monkeypatch.setattr(recommend_live, "TWICE_S", 60.0)
    at = opened()
    first = listed(at)[0]
    do(at, "like", first)
    do(at, "like", listed(at)[0])
    assert desk.store.rows("SELECT item FROM interactions") == [{"item": first}]


def test_removing_from_the_past_can_be_taken_back(desk):
    at = opened()
    before, newest = listed(at), past(at)[0]
    to_past(at, "forget", newest)
    assert newest not in past(at) and newest not in listed(at)
    assert "After you removed" in plain(at) and "rec-keep-1" in [b.key for b in at.button]
    press(at, "recommend_undo")
    assert newest in past(at) and set(listed(at)) == set(before)


def test_what_would_change_is_shown_before_anything_is_stored(desk):
    at = opened()
    ask = recommend_live.Ask(who=at.selectbox(key="recommend_who").value)

    def left(item):
        then = [one.item for one in desk.recommend.without(ask, item).items]
        return [one for one in listed(at) if one not in then]

    item = max(past(at), key=lambda one: len(left(one)))
    gone, then = left(item), [one.item for one in desk.recommend.without(ask, item).items]
    assert gone
    to_past(at, "if", item)
    assert "would leave" in plain(at) and "would enter" in plain(at)
    assert len(re.findall(r"leaves (?:because|although)|too far back", plain(at))) == min(3, len(gone))
    assert "Nothing is changed yet" in plain(at)
    assert desk.store.rows("SELECT count(*) AS n FROM interactions")[0]["n"] == 0
    press(at, "recommend_forget")
    assert item not in past(at)
    assert listed(at) == then


def test_why_shows_every_contribution_with_its_check(desk):
    at = opened()
    item = listed(at)[0]
    do(at, "why", item)
    why = desk.recommend.why(recommend_live.Ask(who=at.selectbox(key="recommend_who").value), item)
    table = at.dataframe[0].value
    assert sorted(table["Adds"]) == pytest.approx(sorted(part.value for part in why.contributions))
    assert clean(why.sentence)[0].replace("\\", "") in plain(at)
    assert f"{sum(part.is_cause for part in why.contributions)} of " in plain(at) and "causes hold" in plain(at)


def test_the_fallback_badge_is_there_exactly_when_a_fallback_answered(desk):
    at = stranger(opened())
    assert badge(at) and "Nothing is known of" in plain(at) and "because many people met it" in plain(at)
    do(at, "click", listed(at)[0])
    asked = desk.recommend.recommend(recommend_live.Ask(who=at.selectbox(key="recommend_who").value))
    assert badge(at) == bool(asked.fallback)
    sound(at.selectbox(key="recommend_model").set_value("popularity").run())
    assert not badge(at), "popularity was asked for, so it is no fallback"


@pytest.mark.slow
def test_an_invented_name_is_theirs_and_stays_out_of_the_address(desk):
    ana = "<b>Ana</b> :red[x] 😀"
    desk.recommend.note([Event(ana, "item-3", "view")])
    at = opened()
    known = at.selectbox(key="recommend_who").value
    assert at.query_params["who"] in (known, [known])
    sound(at.selectbox(key="recommend_who").set_value(ana).run())
    assert "who" not in at.query_params and past(at) == ["item-3"]
    do(at, "like", listed(at)[0])
    assert {row["who"] for row in desk.store.rows("SELECT who FROM interactions")} == {ana}
    assert "<b>Ana" not in told(at).replace("\\<", "")


@pytest.mark.parametrize(("asked", "opens"), [("user-30", "user-30"), ("nobody <b>", None), ("", None)])
def test_the_address_opens_catalogue_people_only(desk, asked, opens):
    at = opened(who=asked)
    assert at.selectbox(key="recommend_who").value == (opens or desk.recommend.shelf().users[0])


@pytest.mark.slow
@pytest.mark.parametrize("invented", [True, False])
def test_another_view_and_back_leads_to_the_same_person(desk, invented):
    at = opened()
    if invented:
        stranger(at)
    else:
        sound(at.selectbox(key="recommend_who").set_value("user-30").run())
    who = at.selectbox(key="recommend_who").value
    sound(at.segmented_control(key="recommend_view").set_value("Models").run())
    sound(at.segmented_control(key="recommend_view").set_value("For one person").run())
    assert at.selectbox(key="recommend_who").value == who


def test_a_sentence_begins_a_walk_that_clicks_go_on_with(desk):
    at = stranger(opened())
    at.text_input(key="recommend_sentence").set_value("something painted red")
    sound(next(b for b in at.button if b.label == "Show me").click().run())
    titles = dict(zip(desk.recommend.shelf().items.ids, desk.recommend.shelf().items.texts, strict=True))
    assert not badge(at) and "painted red" in titles[listed(at)[0]]
    assert "because of your sentence" in plain(at) and "on your sentence" in plain(at)
    assert "How the list moved" not in {h.value for h in at.header}
    do(at, "like", listed(at)[0])
    do(at, "like", listed(at)[1])
    assert "How the list moved" in {h.value for h in at.header} and len(at.get("plotly_chart")) >= 2
    assert "on 2 items of the past" in plain(at)
    assert "painted red" not in str(dict(at.query_params)) and "red" not in str(desk.store.rows("SELECT * FROM interactions"))


@pytest.mark.slow
def test_another_persons_sentence_is_not_used(desk):
    at = stranger(opened())
    at.text_input(key="recommend_sentence").set_value("something painted red")
    sound(next(b for b in at.button if b.label == "Show me").click().run())
    assert badge(stranger(at))


@pytest.mark.slow
def test_a_version_without_a_text_model_says_that_it_reads_no_sentence(desk):
    desk.recommend.versions = Versions(desk.registry)
    at = stranger(opened())
    assert "no text model" in plain(at) and not [t for t in at.text_input if t.key == "recommend_sentence"]


def test_the_bandit_chooses_says_with_which_probability_and_learns(desk):
    at = opened()
    sound(at.segmented_control(key="recommend_learner").set_value("Thompson sampling").run())
    shown = desk.store.rows("SELECT count(*) AS n FROM interactions WHERE kind = 'shown'")[0]["n"]
    assert shown == len(listed(at)) == 10 and "listed with" in plain(at) and "it explores" in plain(at)
    do(at, "why", listed(at)[0])
    assert desk.store.rows("SELECT count(*) AS n FROM interactions WHERE kind = 'shown'")[0]["n"] == shown, "looking is not showing"
    do(at, "like", listed(at)[0])
    assert desk.store.rows("SELECT count(*) AS n FROM interactions WHERE kind = 'shown'")[0]["n"] == 2 * shown
    sound(at.segmented_control(key="recommend_learner").set_value("Off").run())
    assert "listed with" not in plain(at)


def test_diversity_changes_the_list_and_is_measured_or_says_that_it_is_not(desk):
    at = opened()
    plainly = listed(at)
    sound(at.slider(key="recommend_diversity").set_value(100).run())
    who = at.selectbox(key="recommend_who").value
    assert listed(at) == [one.item for one in desk.recommend.recommend(recommend_live.Ask(who=who, diversity=1.0)).items] != plainly
    measured = len(desk.recommend.frontier()) > 0
    assert ("The ring is where you are" in plain(at)) == measured


@pytest.mark.slow
def test_a_short_list_says_why_and_an_empty_one_that_nothing_is_left(desk):
    ids = desk.recommend.shelf().items.ids
    desk.recommend.note([Event("Ana", item, "view") for item in ids[:-1]])
    at = sound(opened().selectbox(key="recommend_who").set_value("Ana").run())
    assert listed(at) == [ids[-1]] and "Only 1 item is left to show" in plain(at)
    do(at, "click", ids[-1])
    assert "Nothing left to show" in plain(at) and not listed(at)


@pytest.mark.slow
def test_a_removed_item_is_never_shown_and_a_new_one_can_be_found_in_words(desk):
    first = listed(opened())[0]
    new = stock.ItemChange("new-1", "A <b>purple</b> thing", "painted purple")
    desk.recommend.change_items([stock.ItemChange(first, state="removed"), new])
    at = opened()
    assert first not in listed(at)
    stranger(at).text_input(key="recommend_sentence").set_value("painted purple")
    sound(next(b for b in at.button if b.label == "Show me").click().run())
    assert listed(at)[0] == "new-1" and "\\<b\\>purple" in told(at)


def test_a_refused_event_is_said_and_nothing_breaks(desk):
    at = opened()
    at.session_state["recommend_refused"] = ("Not stored: there is no item ‘<b>’.",)
    sound(at.run())
    assert "Not stored" in at.warning[0].value and "<b>" not in at.warning[0].value.replace("\\<", "")


def test_a_damaged_version_is_refused_in_words(desk):
    version = desk.registry.champion("recommend")
    (version.path / "items.parquet").write_bytes(b"broken")
    at = opened()
    assert at.error and not listed(at)
    assert "No version answers" in plain(at)


@pytest.mark.slow
def test_one_visitors_sentence_is_not_there_for_another(desk, caplog):
    at = stranger(opened())
    at.text_input(key="recommend_sentence").set_value("a secret wish")
    sound(next(b for b in at.button if b.label == "Show me").click().run())
    other = opened()
    assert "secret" not in told(other) and "secret" not in caplog.text


@pytest.mark.slow
def test_a_new_champion_answers_at_the_next_drawing(desk, tmp_path):
    at = opened()
    first = desk.registry.champion("recommend").version
    assert first in plain(at)
    store: Store = desk.store
    second = toy_service.adopt(Registry(store), tmp_path, run_id="second", data=toy_service.shop(name="demo_shop", n_users=50, seed=3))
    toy_service.promote(desk.registry, second)
    sound(at.run())
    assert f"Version {second.version}" in plain(at)
