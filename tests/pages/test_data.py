"""Data: licence and state of every set, fetching as a run, what is inside, and the check of a person's own file."""

from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from fmcore import runtime
from fmcore.data import catalogue, interaction_files
from jobs import JOBS
from pages import data, shell
from tests.pages import toy_desk


@pytest.fixture
def desk():
    yield toy_desk.start(JOBS)
    runtime.stop()


def visit():
    return AppTest.from_file(str(Path(shell.__file__)), default_timeout=30).switch_page("data.py").run()


def words(at):
    return " ".join(m.value for m in at.main.markdown)


def test_every_set_is_shown_with_state_licence_and_use(desk):
    said = words(visit())
    for entry in catalogue.datasets():
        assert entry.licence.split()[0] in said
        assert data.STATES[entry.state][0] in said
        assert data.COMMERCIAL[entry.commercial_use][0] in said
    assert "Demo data" in said


def test_only_what_is_not_here_can_be_fetched_and_a_fetch_is_a_run(desk):
    at = visit()
    buttons = [b for b in at.main.button if b.label == "Fetch"]
    assert [b.key for b in buttons] == ["fetch-banking77", "fetch-clinc150"]
    buttons[0].click().run()
    run = desk.runs.active()[0]
    assert (run.job, run.params["dataset"]) == ("fetch", "banking77")


def test_a_fetch_at_work_can_be_cancelled_from_the_page(desk):
    run = desk.runs.start_now("fetch", {"dataset": "clinc150"}, trigger="a test")
    desk.runs.note(run.id, progress=0.3, message="data_full.json, 0.6 of 2.0 MB")
    at = visit()
    assert any("0\\.6 of 2\\.0 MB" in p.proto.text for p in at.main.get("progress"))
    assert [b.key for b in at.main.button if b.label == "Fetch"] == ["fetch-banking77"]
    next(b for b in at.main.button if b.label == "Cancel").click().run()
    assert desk.runs.cancel_asked(run.id)


def test_a_fetch_that_failed_says_why_beside_its_set(desk):
    run = desk.runs.start_now("fetch", {"dataset": "banking77"}, trigger="a test")
    desk.runs.finish(run.id, "failed", error="The address did not answer. Check the <network>.")
    at = visit()
    assert "The address did not answer\\. Check the \\<network\\>\\." in at.main.error[0].value


def test_the_demo_set_opens_with_its_split_its_hash_and_its_mark(desk):
    at = visit()
    loaded = catalogue.load("demo")
    assert loaded.split_hash[:16] in words(at)
    split = at.main.dataframe[0].value
    assert list(split["Messages in scope"]) == [int((getattr(loaded, p)["label"] != catalogue.OOS).sum()) for p in catalogue.PARTS]
    assert list(split["Out of scope"])[0] == 0


def test_a_set_that_cannot_be_read_is_a_sentence_not_a_traceback(desk, tmp_path, monkeypatch):
    from fmcore import config

    (tmp_path / "sets" / "banking77").mkdir(parents=True)
    (tmp_path / "sets" / "banking77" / "train.csv").write_text("nothing,useful\n1,2\n")
    monkeypatch.setenv("FM_DATA_DIR", str(tmp_path / "sets"))
    config.settings.cache_clear()
    at = visit()
    at.main.get("button_group")[1].set_value("banking77").run()
    assert not at.exception
    assert "cannot be read" in at.main.error[0].value


def test_a_set_for_recommendations_shows_people_with_their_stated_taste_and_the_split_by_time(desk):
    at = visit()
    at.main.get("button_group")[1].set_value("demo_shop").run()
    assert not at.exception
    log = interaction_files.load("demo_shop")
    assert "Demo data" in words(at) and "never at random" in words(at) and log.split_hash in words(at)
    figures = at.main.dataframe[0].value.set_index("What")["How many"]
    assert figures["People"] == 400 and figures["Items that nobody has met"] == 12 and figures["Interactions"] == len(log.rows)
    people = at.main.dataframe[1].value
    assert people["Stated taste"].str.len().min() > 0 and people["Latest"].str.contains(" ← ").any()


def test_every_set_says_what_it_is_for(desk):
    said = words(visit()).replace("\\", "")
    assert all(use in said for use in catalogue.USES.values())


def test_the_class_chart_names_the_largest_and_the_smallest():
    counts = pd.Series({"<b>big</b>": 40, "middle": 20, "small": 3})
    fig = data.class_chart(counts)
    assert [a.text for a in fig.layout.annotations] == ["most: &lt;b&gt;big&lt;/b&gt; 40", "fewest: small 3"]
    assert data.class_words(counts) == "3 labels; most texts: <b>big</b> with 40; fewest: small with 3."


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [("hello", "a"), ("hey", "a"), ("hi", "a"), ("bye", "b"), ("ciao", "b"), ("later", "b"), ("?", "oos")],
            "A model can learn from this",
        ),
        ([("hello", "a"), ("hi", "a"), ("hey", "a")], "Fewer than 2 labels"),
        ([("hello", "a"), ("hi", "a"), ("hey", "a"), ("bye", "b")], "1 labels with fewer than 3 texts"),
        ([("", "a"), ("hi", "a"), ("hey", "a"), ("x", "b"), ("y", "b"), ("z", "b")], "1 rows without text"),
        ([("q", ""), ("hi", "a"), ("hey", "a"), ("x", "b"), ("y", "b"), ("z", "b")], "1 rows without label"),
    ],
)
def test_the_check_says_whether_a_model_can_learn_from_a_file(rows, expected):
    assert expected in [words for words, _, _ in data.verdict(pd.DataFrame(rows, columns=["text", "label"]))]


def test_an_uploaded_file_is_checked_and_a_bad_one_refused_in_words(desk):
    at = visit()
    at.main.file_uploader[0].set_value(("rows.csv", b"text,label\n" + b"hi,a\nyo,a\nhey,a\nbye,b\nciao,b\nlater,b\n", "text/csv")).run()
    assert "A model can learn from this" in words(at)
    at.main.file_uploader[0].set_value(("rows.csv", b"PK\x03\x04zip", "text/csv")).run()
    assert "Excel workbook" in at.main.error[0].value
    assert not at.exception
