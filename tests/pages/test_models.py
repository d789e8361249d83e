"""The Models page: what it shows of real versions, and that a promotion needs a reason."""

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from fmcore import runtime
from tests.pages import tiny_model, toy_desk

SHELL = str(Path(__file__).resolve().parents[2] / "pages" / "shell.py")
BROKEN = "could not be drawn"


@pytest.fixture
def desk():
    yield toy_desk.start({})
    runtime.stop()


def opened(**query) -> AppTest:
    at = AppTest.from_file(SHELL, default_timeout=60)
    for name, value in query.items():
        at.query_params[name] = value
    at.switch_page("models.py").run()
    return sound(at)


def sound(at: AppTest) -> AppTest:
    assert not at.exception
    assert not [e.value for e in at.error if BROKEN in e.value]
    return at


def headings(at: AppTest) -> str:
    return "\n".join(h.value for h in [*at.title, *at.header])


def words(at: AppTest) -> str:
    return "\n".join(m.value for m in at.markdown)


def test_an_empty_desk_says_what_to_do_first(desk):
    at = opened()
    assert "No models yet" in words(at)
    assert not at.dataframe


def test_without_a_server_the_page_says_so():
    runtime.stop()
    at = AppTest.from_file(SHELL, default_timeout=60).run()
    assert not at.exception
    assert "not running" in at.title[0].value


@pytest.mark.slow
def test_real_versions_are_shown_with_their_figures_and_can_be_promoted(desk, tmp_path):
    live = tiny_model.adopt(desk, tmp_path / "a", seed=0)
    other = tiny_model.adopt(desk, tmp_path / "b", seed=1, promote=False)
    at = opened(model=other.version)
    table = at.dataframe[0].value
    assert set(table["Version"]) == {live.version, other.version}
    assert [list(s) for s in table["Stage"]] == [["Candidate"], ["Live"]]
    assert table["Accuracy, %"].tolist() == [100 * v.metrics["accuracy"]["value"] for v in (other, live)]
    assert "Demo data" in words(at), "a model made from demo data is marked"
    assert desk.registry.get("intent", other.version).verdict["reason"].split()[0] in words(at).replace("\\", "")
    assert len(at.get("plotly_chart")) == 2

    button = next(b for b in at.button if b.label.startswith("Promote"))
    sound(button.click().run())
    assert any("Say why" in e.value for e in at.error), "no promotion without a reason"
    assert desk.registry.champion("intent").version == live.version

    at.text_input(key="promote_reason").set_value("it is *quicker* <b>")
    sound(next(b for b in at.button if b.label.startswith("Promote")).click().run())
    assert desk.registry.champion("intent").version == other.version
    assert desk.registry.promotions("intent")[0].reason == "it is *quicker* <b>"
    assert desk.registry.promotions("intent")[0].by == "local user"

    at.text_input(key="rollback_reason").set_value("it was not")
    sound(next(b for b in at.button if b.label == "Roll back").click().run())
    assert desk.registry.champion("intent").version == live.version


def test_a_version_whose_files_are_gone_is_still_a_page(desk, tmp_path):
    live = toy_desk.version(desk.registry, tmp_path / "first", 0.9)
    toy_desk.version(desk.registry, tmp_path / "second", 0.8)
    desk.registry.promote("intent", live.version, by="a test", reason="the first")
    for file in live.path.iterdir():
        file.unlink()
    at = opened(model=live.version)
    assert "not measured" in words(at) + at.table[0].value.to_string()
    rows = at.dataframe[0].value
    assert live.version in rows["Version"].tolist()


HOSTILE = "<img src=x onerror=alert(1)> **b** $\\int$ :red[x] [l](javascript:1) \u202eabc 😀"


def test_hostile_names_in_stored_facts_stay_text(desk, tmp_path):
    from fmcore.models.manifest import write_manifest

    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps({"labels": [HOSTILE, "b"], "synthetic": True}))
    write_manifest(folder)
    facts = toy_desk.metrics(0.9) | {
        "per_class": [{"label": HOSTILE, "precision": None, "recall": 0.5, "f1": 0.4, "n": 9}],
        "confusions": [{"true": HOSTILE, "predicted": "b", "n": 3}],
        "serving": {"form": "fp32", "forms": [{"form": HOSTILE, "texts_per_s": 10.0, "loss_points": 0.1}], "threads": 1, "n": 5, "max_loss_points": 0.3},
    }
    made = desk.registry.adopt(folder, task="intent", recipe="linear", dataset="/data/**x**<b>.csv", base="m", metrics=facts, run_id="r1")
    desk.registry.promote("intent", made.version, by="x", reason=HOSTILE)
    at = opened()
    for markdown in at.markdown:
        assert "<img" not in markdown.value.replace("\\<", "")
        assert ":red[x]" not in markdown.value
    for chart in at.get("plotly_chart"):
        assert "<img" not in chart.proto.spec
    assert at.dataframe[-1].value["Reason"][0] == HOSTILE, "a table shows text as it is"


def sentiment_version(desk, folder, **figures):
    facts = {**toy_desk.metrics(0.8), **figures}
    made = toy_desk.version(desk.registry, folder, 0.8, dataset="demo_sentiment", figures=facts, task="sentiment")
    desk.registry.promote("sentiment", made.version, by="a test", reason="the first")
    return made


def test_each_task_has_its_own_versions(desk, tmp_path):
    customers = toy_desk.version(desk.registry, tmp_path / "customers", 0.9)
    made = sentiment_version(desk, tmp_path / "news")
    assert opened().dataframe[0].value["Version"].tolist() == [customers.version]
    at = opened(task="sentiment")
    assert at.dataframe[0].value["Version"].tolist() == [made.version]
    assert "News sentiment" in words(at) + " ".join(c.value for c in at.caption)
    assert "No models yet" in words(opened(task="topic"))


def test_a_sentiment_version_is_shown_beside_the_lexicon_with_what_failed(desk, tmp_path):
    from fmcore.evaluation.robustness import suite_figures

    suite = suite_figures(lambda texts: ["positive"] * len(texts))
    half = {"value": 0.55, "low": 0.5, "high": 0.6, "n": 315}
    sentiment_version(desk, tmp_path / "news", failure_suite=suite, lexicon={"name": "VADER", "accuracy": half}, against_lexicon={"value": 0.25, "low": 0.2, "high": 0.3, "n": 315})
    at = opened(task="sentiment")
    said = words(at)
    assert f"**{suite['n_passed']} of {suite['n']}** passed" in said and f"VADER: {suite['n_lexicon']} of {suite['n']}" in said
    counts = next(d.value for d in at.dataframe if "Passed" in d.value)
    assert counts["Passed"].sum() == suite["n_passed"] and counts["VADER"].sum() == suite["n_lexicon"] and len(counts) == 6
    failed = next(d.value for d in at.dataframe if "Sentence" in d.value)
    assert len(failed) == suite["n"] - suite["n_passed"] and set(failed["Said"]) == {"positive"}
    table = next(t.value for t in at.table if "VADER" in t.value.index)
    assert "+25.0" in table.loc["VADER", "This version is better by"]
    facts = " ".join(t.value.to_string() for t in at.table)
    assert "Failure suite passed" in facts and "Accuracy of VADER on the same rows" in facts


def test_a_version_from_before_the_suite_says_that_it_was_not_run(desk, tmp_path):
    sentiment_version(desk, tmp_path / "news")
    said = words(opened(task="sentiment"))
    assert "It was not run for this version" in said and "Not measured for this version" in said


def test_what_is_being_trained_is_shown_under_its_own_task_only(desk):
    runtime.stop()
    from jobs import JOBS

    made = toy_desk.start(JOBS)
    made.runs.request("finetune", {"task": "topic"})
    assert "A model is being trained" in headings(opened(task="topic")) and "No models yet" in words(opened(task="sentiment"))


def test_versions_of_recommendations_are_compared_judged_promoted_and_rolled_back(desk, tmp_path):
    from tests.recommend import toy_service

    live = toy_service.adopt(desk.registry, tmp_path, run_id="first", names=("popularity", "transitions"))
    toy_service.promote(desk.registry, live)
    other = toy_service.adopt(desk.registry, tmp_path, run_id="second", names=("popularity", "knn"))
    at = opened(task="recommend", model=other.version)
    table = at.dataframe[0].value.set_index("Version")
    assert table.loc[live.version, "Answers"] == "Item transitions" and list(table.loc[live.version, "Stage"]) == ["Live"]
    for version in (live, other):
        assert table.loc[version.version, "NDCG@10"] == version.metrics["ndcg"]["value"]
        assert table.loc[version.version, "People"] == version.metrics["n"]
    quality = next(t.value for t in at.table if "NDCG@10" in t.value.index)
    assert quality.loc["NDCG@10", "Live version"] == f"{live.metrics['ndcg']['value']:.3f}"
    board = next(d.value for d in at.dataframe if "ndcg" in d.value)
    assert board["Model"][0] == "Popularity" and len(board) == 2, "the leaderboard of the version that is looked at"
    said = words(at)
    assert desk.registry.get("recommend", other.version).verdict["reason"].split()[0] in said.replace("\\", "")
    assert "Who answers, and why" in headings(at) and "By label" not in headings(at)
    facts = " ".join(t.value.to_string() for t in at.table)
    assert "HR@10" in facts and "Models on the shelf" in facts and "Macro F1" not in facts

    at.text_input(key="promote_reason").set_value("to look at it")
    sound(next(b for b in at.button if b.label.startswith("Promote")).click().run())
    assert desk.registry.champion("recommend").version == other.version
    at.text_input(key="rollback_reason").set_value("it is worse")
    sound(next(b for b in at.button if b.label == "Roll back").click().run())
    assert desk.registry.champion("recommend").version == live.version


def test_a_version_of_recommendations_without_figures_is_still_a_page(desk, tmp_path):
    made = toy_desk.version(desk.registry, tmp_path / "bare", 0.0, dataset="demo_shop", figures={}, task="recommend")
    desk.registry.promote("recommend", made.version, by="a test", reason="the only one")
    at = opened(task="recommend")
    assert "not measured" in words(at) and "not measured" in " ".join(t.value.to_string() for t in at.table)


def test_recommendations_being_trained_are_shown_under_their_own_task(desk):
    runtime.stop()
    from jobs import JOBS

    made = toy_desk.start(JOBS)
    made.runs.request("recommend", {"dataset": "demo_shop"})
    assert "A model is being trained" in headings(opened(task="recommend")) and "No models yet" in words(opened(task="intent"))
