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
