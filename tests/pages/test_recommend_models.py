"""The Models view of the Recommend page: the leaderboard as it was measured, and several models beside each other for one person."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from fmcore import runtime
from fmcore.config import Settings
from fmcore.recommend.service import Ask
from fmcore.recommend.versions import Versions
from jobs import JOBS
from pages import leaderboard, recommend_models
from pages.ranking_figures import MEASURES
from tests.recommend import toy_service

SHELL = str(Path(__file__).resolve().parents[2] / "pages" / "shell.py")
BAD = "<b>bold</b> $x$ :red[w]"


def figure(value, half=0.02, n=610):
    return {"value": value, "low": value - half, "high": value + half, "n": n}


def row(model, ndcg, **more):
    measured = {name: figure(0.1) for name in MEASURES} | {"ndcg": ndcg and figure(ndcg)}
    return {"model": model, "title": leaderboard.title_of(model), "slices": {}, "fit_seconds": 1.5, **measured, **more}


# ---------------------------------------------------------------- the board


def test_popularity_comes_first_and_the_others_by_ndcg():
    rows = [row("knn", 0.1), row("ease", 0.3), row("text", None), row("popularity", 0.02)]
    assert [one["model"] for one in leaderboard.ranked(rows)] == ["popularity", "ease", "knn", "text"]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("hr", figure(0.305), "30.5 % (28.5–32.5 %, n = 610)"),
        ("ndcg", figure(0.178), "0.178 (0.158–0.198, n = 610)"),
        ("popularity_bias", figure(-0.25), "−25 % (−27 to −23 %, n = 610)"),
        ("popularity_bias", figure(1.5), "+150 % (+148 to +152 %, n = 610)"),
        ("novelty", figure(3.25, 0.5), "3.25 bits (2.75–3.75 bits, n = 610)"),
        ("diversity", None, "not measured"),
    ],
)
def test_every_figure_reads_with_its_unit_interval_and_n(name, value, shown):
    assert MEASURES[name].full(value).replace("\u00a0", " ").replace("\u2060", "") == shown


@pytest.mark.parametrize("name", list(MEASURES))
def test_the_chart_shows_each_interval_and_names_are_text(name):
    rows = leaderboard.ranked([row("popularity", 0.02), row("ease", 0.3, title=BAD), {**row("text", 0.1), name: None}])
    fig = leaderboard.forest(rows, MEASURES[name], serving="ease")
    dots = fig.data[-1]
    there = [one for one in rows if one[name]]
    assert list(dots.x) == pytest.approx([MEASURES[name].factor * one[name]["value"] for one in there])
    lines = [trace for trace in fig.data if trace.mode == "lines"]
    assert [tuple(line.x) for line in lines] == [
        pytest.approx([MEASURES[name].factor * one[name][end] for end in ("low", "high")]) for one in there
    ]
    low, high = fig.layout.xaxis.range
    assert all(low <= end <= high for line in lines for end in line.x), "no interval is cut"
    assert "<b>bold" not in "".join(fig.layout.yaxis.ticktext)
    assert "none" in [note.text for note in fig.layout.annotations], "what was not measured is not drawn as a number"


def test_a_slice_without_rows_is_blank_and_the_best_is_told():
    by_slice = {name: {"ndcg": figure(0.2, n=40)} for name in leaderboard.SLICES} | {"item cold": {"ndcg": None}}
    rows = [row("popularity", 0.02, slices=by_slice), row("ease", 0.3, slices={**by_slice, "history cold": {"ndcg": figure(0.5, n=40)}})]
    fig = leaderboard.by_slice(rows, MEASURES["ndcg"], serving="ease")
    _, numbers, items, _ = fig.data
    assert list(numbers.text) == ["0.200"] + ["<b>0.200</b>"] * 2 + ["<b>0.500</b>"] + ["<b>0.200</b>"] * 2
    assert [line[0] for line in items.z] == [None, None], "no people, no number"
    assert "n 40" in fig.layout.xaxis.ticktext[0] and "n 0" in fig.layout.xaxis.ticktext[3]
    said = leaderboard.slices_told(rows, MEASURES["ndcg"])
    assert "Short past (under 10): best EASE" in said and "New item" not in said


def test_the_file_holds_every_figure_with_its_interval_and_slice():
    by_slice = {"history cold": {"hr": figure(0.4, n=12), "ndcg": None}}
    frame = leaderboard.as_frame([row("popularity", 0.02), row("ease", 0.3, slices=by_slice)], serving="ease").set_index("model")
    assert list(frame["serves"]) == [False, True]
    for name in MEASURES:
        assert {name, f"{name}_low", f"{name}_high", f"{name}_n"} <= set(frame.columns)
    assert frame.loc["ease", "history_cold_hr"] == 0.4 and frame.loc["ease", "history_cold_hr_n"] == 12
    assert pd.isna(frame.loc["ease", "history_cold_ndcg"]) and frame.loc["ease", "fit_seconds"] == 1.5


# ---------------------------------------------------------------- side by side


def lists(**items):
    return {name: SimpleNamespace(items=[SimpleNamespace(item=item) for item in found]) for name, found in items.items()}


def test_what_several_lists_share_is_counted_once_a_list():
    assert recommend_models.counts(lists(a="xy", b="yz", c="y")) == {"x": 1, "y": 3, "z": 1}


def test_the_serving_model_popularity_and_the_best_are_put_side_by_side():
    facts = {"serving": "hybrid", "leaderboard": [row("popularity", 0.02), *(row(m, v) for m, v in (("knn", 0.1), ("ease", 0.3), ("hybrid", 0.2)))]}
    assert recommend_models.usual(facts, ["popularity", "knn", "ease", "hybrid", "text"]) == ["hybrid", "popularity", "ease", "knn"]
    assert recommend_models.usual(facts, ["popularity"]) == ["popularity"]


def test_the_lists_most_and_least_alike_are_named():
    names = ["popularity", "knn", "ease"]
    overlap = pd.DataFrame([[1, 0.1, 0.5], [0.1, 1, 0.0], [0.5, 0.0, 1]], index=names, columns=names)
    said = recommend_models.closest(overlap).replace("\u00a0", " ")
    assert said == "Most alike: Popularity and EASE with recency (50 %). Least alike: Item neighbours and EASE with recency (0 %)."
    alike = pd.DataFrame(1.0, index=names, columns=names)
    assert recommend_models.closest(alike).replace("\u00a0", " ") == "Every two of them have 100 % in common."
    cells = recommend_models.overlap_chart(overlap).data[0]
    assert cells.z[0][0] is None and cells.z[0][2] == 50.0, "a list against itself says nothing"


def test_the_hybrids_weights_are_drawn_by_length_the_most_heard_on_top():
    weights = pd.DataFrame({
        "length": [1, 1, 100, 100], "member": ["ease", "text", "ease", "text"], "weight": [0.25, 0.75, 0.5, 0.5], "n": [12, 12, 40, 40],
    })  # fmt: skip
    fig = recommend_models.weights_chart(weights)
    assert list(fig.layout.yaxis.ticktext) == ["Text", "EASE with recency"]
    assert [list(line) for line in fig.data[0].z] == [[75, 50], [25, 50]]
    assert list(fig.layout.xaxis.ticktext) == ["<b>1</b><br>n 12", "<b>100+</b><br>n 40"]
    assert recommend_models.weights_told(weights).replace("\u00a0", " ").startswith("Most heard, with 1 item: Text, 75 %;")


# ---------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A home with a live version, for the whole file; each test has its own copy."""
    folder = tmp_path_factory.mktemp("models")
    runtime.stop()
    return toy_service.served(folder / "home", folder, data=toy_service.shop(n_users=60))


@pytest.fixture
def desk(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "home")
    runtime.stop()
    made = runtime.start(Settings(home=tmp_path / "home"), JOBS)
    made.recommend.versions = Versions(made.registry, load=toy_service.load)
    yield made
    runtime.stop()


def opened(*, person: str = "", **query) -> AppTest:
    at = AppTest.from_file(SHELL, default_timeout=60)
    if person:
        at.session_state["beside_who"] = person
    for name, value in {"recommend_view": "Models", **query}.items():
        at.query_params[name] = value
    return sound(at.switch_page("recommend.py").run())


def sound(at: AppTest) -> AppTest:
    assert not at.exception
    assert not at.error
    return at


def plain(at) -> str:
    return "\n".join(m.value for m in at.markdown).replace("\\", "").replace("\u2060", "").replace("\u00a0", " ")


def test_the_board_shows_what_the_version_stores(desk):
    at = opened()
    facts = desk.recommend.shelf().facts
    table = at.dataframe[0].value
    assert table["Model"][0] == "Popularity"
    assert list(table["ndcg"][1:]) == sorted(table["ndcg"][1:], reverse=True)
    assert set(table["ndcg"]) == {one["ndcg"]["value"] for one in facts["leaderboard"]}
    assert sum("serves" in name for name in table["Model"]) == 1
    said = plain(at)
    assert f"the last item of {facts['n']} people, ranked among all {facts['n_items']} items" in said and "leave one out by time" in said
    assert "chosen on **validation**" in said and "Demo data" in said and "measured just now" in said
    sound(at.segmented_control(key="figure").set_value("coverage").run())
    assert MEASURES["coverage"].words in plain(at) and "Coverage is not measured by slice" in plain(at)


def test_several_models_answer_the_same_person_and_what_they_share_is_marked(desk):
    at = opened()
    names = at.multiselect(key="beside_models").value
    who = at.selectbox(key="beside_who").value
    asked = desk.recommend.side_by_side(Ask(who=who, k=10, reasons=False), names)
    shared = recommend_models.counts(asked.lists)
    said = plain(at)
    for answer in asked.lists.values():
        for one in answer.items:
            assert one.title in said
    assert said.count("only here") == sum(n == 1 for n in shared.values())
    assert said.count(f"in all {len(names)}]") == len(names) * sum(n == len(names) for n in shared.values())
    assert recommend_models.closest(asked.overlap).replace("\u00a0", " ") in said
    sound(at.multiselect(key="beside_models").set_value(["popularity"]).run())
    assert "only here" not in plain(at) and "What they have in common" not in plain(at)
    sound(at.multiselect(key="beside_models").set_value([]).run())
    assert "at least one model" in plain(at)


def test_the_person_of_the_address_is_looked_at_and_another_one_goes_into_it(desk):
    who = desk.recommend.shelf().users[7]
    at = opened(who=who)
    assert at.selectbox(key="beside_who").value == who
    other = desk.recommend.shelf().users[3]
    sound(at.selectbox(key="beside_who").set_value(other).run())
    assert at.query_params["who"] in (other, [other])


def test_a_stranger_is_answered_by_popularity_and_every_list_says_so(desk):
    at = opened(person="nobody <b>", who=desk.recommend.shelf().users[3])
    assert "who" not in at.query_params, "a name that somebody made up stays out of the address"
    names = at.multiselect(key="beside_models").value
    assert plain(at).count("Fallback: popularity") == len([name for name in names if name != "popularity"])
    assert "no past yet" in plain(at)
    assert all("<b>" not in m.value.replace("\\<", "") for m in at.markdown)
