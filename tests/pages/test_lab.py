"""The Lab page: methods that teach, masked words side by side, pretraining watched; on an empty, a full and a failing desk."""

import json
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from fmcore import runtime
from fmcore.lab import monitor, studies
from jobs import JOBS
from pages import lab, lab_drawing, lab_fills, lab_methods, lab_playground, lab_pretraining, lab_toys, lessons
from pages.lab_drawing import Curve
from tests.lab import toy_bases
from tests.pages import toy_desk

SHELL = str(Path(__file__).resolve().parents[2] / "pages" / "shell.py")
BAD = "<b>bold</b> $x$ :red[w] [MASK] **s** https://e.com"


@pytest.fixture
def desk():
    yield toy_desk.start(JOBS)
    runtime.stop()


@pytest.fixture
def full(desk, tmp_path):
    """A desk with two bases on its shelf, one from scratch on demo data and one continued."""
    toy_bases.shelve(desk.store.home, tmp_path)
    toy_bases.shelve(desk.store.home, tmp_path, name="onward", start="continue", steps=(0, 80), synthetic=False)
    return desk


def opened(view: str, **query) -> AppTest:
    at = AppTest.from_file(SHELL, default_timeout=60)
    for name, value in {"lab_view": view, **query}.items():
        at.query_params[name] = value
    return sound(at.switch_page("lab.py").run())


def sound(at: AppTest) -> AppTest:
    assert not at.exception
    assert not at.error, [e.value for e in at.error]
    return at


def plain(at) -> str:
    said = "\n".join(m.value for m in [*at.markdown, *at.info, *at.warning])
    return said.replace("\\", "").replace("\u2060", "").replace("\u00a0", " ")


def click(at: AppTest, label: str) -> AppTest:
    return sound(next(b for b in at.button if b.label == label).click().run())


# ---------------------------------------------------------------- learn


def test_every_lesson_says_all_that_a_lesson_says():
    names = set()
    for lesson in lessons.lessons().values():
        parts = (lesson.sentence, lesson.how, lesson.formula, lesson.symbols, lesson.purpose, lesson.costs, lesson.fails, lesson.reference)
        assert all(part.strip() for part in parts), lesson.key
        assert lesson.toy in lab_toys.TOYS
        assert not lesson.studied or lesson.studied[0] in studies.KINDS
        n_words = len(" ".join((lesson.sentence, lesson.how, lesson.purpose, lesson.costs, lesson.fails)).split())
        assert n_words <= 300, f"{lesson.key}: two minutes are about 300 words beside an example"
        names.add(lesson.short)
    assert len(names) == len(lessons.lessons())
    assert set(lab_methods.STUDIES) == set(studies.KINDS)


def test_every_lesson_is_drawn_with_its_formula_and_example(desk):
    at = opened("Learn")
    seen = []
    for lesson in lessons.lessons().values():
        assert at.header[0].value == lesson.title
        assert at.latex[0].value.strip("$\n ") == lesson.latex
        assert "Try it" in plain(at) and "When it fails" in plain(at)
        seen.append(lesson.key)
        at = sound(at.button(key="onward-Next").click().run())
    assert at.header[0].value == lessons.lessons()[seen[0]].title, "after the last comes the first"


def test_a_lesson_is_found_by_a_word_and_nothing_found_says_so(desk):
    at = opened("Learn")
    sound(at.text_input(key="lab_find").set_value("few labels").run())
    assert at.header[0].value == lessons.found("few labels")[0].title
    assert {lesson.key for lesson in lessons.found("LoRA")} >= {"lora"} and lessons.found("lora")[0].key == "lora"
    sound(at.text_input(key="lab_find").set_value("zebra <b>").run())
    assert "No method speaks of that" in plain(at)
    click(at, "Clear the search")
    assert at.latex


def test_the_address_opens_a_lesson_and_an_unknown_one_the_first(desk):
    at = opened("Learn", lab_method="lora")
    assert at.header[0].value == "LoRA: low-rank adaptation"
    sound(at.segmented_control(key="lab_group").set_value("Small and fast").run())
    assert at.header[0].value == lessons.of_group("Small and fast")[0].title
    assert opened("Learn", lab_method="<b>").header[0].value == next(iter(lessons.lessons().values())).title


def test_a_slider_moves_the_example(desk):
    at = opened("Learn", lab_method="lora")
    assert "6,144 weights learn in place of 147,456" in plain(at).replace("**", "")
    sound(at.slider(key="toy-lora").set_value(16).run())
    assert "12,288 weights learn" in plain(at).replace("**", "")
    at = opened("Learn", lab_method="cascade")
    assert "no student could make it more than 10" in plain(at)


def test_a_lesson_quotes_what_this_desk_measured(desk):
    rows = [{"method": "lora", "title": "LoRA <b>", "shots": shots, "mean": 0.7, "low": 0.65, "high": 0.74} for shots in (4, 16, -1)]
    studies.keep(desk.store, kind="labels", task="intent", dataset="demo", run_id="r1", content={"points": rows})
    said = plain(opened("Learn", lab_method="lora"))
    assert "Measured on this desk." in said and "LoRA <b> with 16 labels a class: 70.0 % right (65.0–74.0 %)" in said
    assert "Measured" not in plain(opened("Learn", lab_method="full"))


# ---------------------------------------------------------------- fill the mask


def test_without_a_checkpoint_a_small_run_is_a_click_away(desk):
    at = opened("Fill the mask")
    assert "Nothing was pretrained yet" in plain(at)
    click(at, "Start a small run")
    run = desk.runs.active()[0]
    assert run.job == lab_pretraining.JOB
    assert monitor.small_run().items() <= run.params.items()
    assert at.query_params["lab_view"] in ("Pretraining", ["Pretraining"])
    assert at.header[0].value.replace("\\", "") == f"Run {run.id}", "and is watched at once"
    next(b for b in at.button if b.label == "Start a small run").click().run()
    assert not at.exception
    assert "waits already" in at.error[0].value, "a second one is refused in words"


def test_words_are_filled_in_by_each_checkpoint_and_the_hidden_word_is_placed(full):
    at = opened("Fill the mask")
    assert at.multiselect(key="lab_sides").value == ["onward@0", "onward@80"]
    at.multiselect(key="lab_sides").set_value(["finance@0", "finance@80"])
    click(at, "Dividend")
    said = plain(at)
    assert "finance, before training" in said and "finance, step 80, the end" in said and "Demo data" in said
    assert "hidden: **dividend**" in said
    assert "**dividend** comes 1st" in said and said.count("Entropy **") == 2
    click(at, "Profit warning")
    assert "hidden: **fell**" in plain(at) and "hidden: **profit**" in plain(at)


def test_any_text_is_shown_as_text_and_stays_in_the_session(full):
    at = opened("Fill the mask")
    sound(at.text_area(key="lab_text").set_value(BAD).run())
    for mark in at.markdown:
        bare = mark.value.replace("\\<", "").replace("\\$", "").replace("\\:", "")
        assert "<b>" not in bare and "$x$" not in bare and ":red[w" not in bare
    assert "bold" not in json.dumps(dict(at.query_params))
    sound(at.segmented_control(key="lab_view").set_value("Learn").run())
    sound(at.segmented_control(key="lab_view").set_value("Fill the mask").run())
    assert at.text_area(key="lab_text").value == BAD, "it is still there after a look at another view"


@pytest.mark.parametrize(("text", "words"), [
    ("no mask here", "There is no mask in the text."),
    ("", "There is no mask in the text."),
    ("[MASK]" * 21, "There are 21 masks in the text."),
    ("card " * 60 + "[MASK]", "beyond the 24 tokens that the model reads"),
    ("[MASK] " + "card " * 60 + "[MASK]", "1 of the 2 masks lie beyond"),
])  # fmt: skip
def test_what_cannot_be_filled_is_said_in_words(full, text, words):
    at = AppTest.from_file(SHELL, default_timeout=60)
    at.query_params["lab_view"] = "Fill the mask"
    at.session_state["lab_text"] = text
    at.switch_page("lab.py").run()
    assert not at.exception
    assert words in plain(at) + "".join(e.value.replace("\\", "") for e in at.error)


def test_of_many_masks_one_is_looked_at_closely(full):
    at = opened("Fill the mask")
    sound(at.text_area(key="lab_text").set_value(" ".join(["[MASK]"] * 20)).run())
    assert [h.value for h in at.header if h.value.startswith("Mask ")] == ["Mask 1"]
    assert lab_playground.CLOSELY < 20


# ---------------------------------------------------------------- pretraining


def test_a_base_shows_its_curves_its_words_and_its_cost(full):
    at = opened("Pretraining", lab_watch="base:finance")
    said = plain(at)
    assert "Base finance" in [h.value for h in at.header] and "Demo data" in said
    assert "MLM from scratch · corpus demo <b>" in said
    assert {m.label: m.value.replace("\u00a0", " ") for m in at.metric}["Masked accuracy"] == "22.0 %"
    assert "card 90 %, the 5 % · at step 0: the 10 %" in said
    sound(at.select_slider[0].set_value(0).run())
    assert "the 10 %, card 45 %" in plain(at)
    cost = at.table[-1].value["Value"]
    assert cost["Tokens seen"] == "80,000" and cost["Time"] == "61 s" and cost["Energy"] == "unknown"


def test_a_run_at_work_is_followed_and_can_be_stopped(desk):
    run = desk.runs.start_now("pretrain", monitor.small_run(), trigger="manual")
    curve = [(step, name, value) for step in (0, 40) for name, value in (
        ("loss", 7.0 - step / 40), ("masked_accuracy", 0.05 + step / 400), ("unigram_accuracy", 0.05), ("probe_accuracy", 0.5), ("tokens_per_s", 900.0)
    )]  # fmt: skip
    desk.runs.note(run.id, progress=0.4, message="Step <40>", device="cpu", metrics=curve)
    folder = desk.runs.folder(run.id) / "checkpoint"
    folder.mkdir(parents=True)
    rows = toy_bases.filled((0, 40)).to_dict("records")
    (folder / "fills.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 80, "sent')
    at = opened("Pretraining")
    said = plain(at)
    assert "Checkpoint at step 40, the newest of 2" in said and "card 50 %" in said
    assert "3.0 times unigram" in " ".join(str(m.proto.delta_description) for m in at.metric)
    click(at, "Cancel")
    assert desk.runs.get(run.id).state == "running" and desk.runs.cancel_asked(run.id)


def test_a_run_that_ended_early_says_why_and_can_be_gone_on_with(desk):
    run = toy_desk.ended(desk, "pretrain", "failed", params=monitor.small_run(), error="The loss was no number <b> at step 40.")
    at = AppTest.from_file(SHELL, default_timeout=60)
    at.query_params["lab_view"] = "Pretraining"
    at.switch_page("lab.py").run()
    assert not at.exception
    assert "no number" in at.error[0].value and "<b>" not in at.error[0].value.replace("\\<", "")
    assert "Keep its last good checkpoint" not in [b.label for b in at.button], "it left none"
    next(b for b in at.button if b.label == "Resume").click().run()
    assert not at.exception
    assert desk.runs.active()[0].retry_of == run.id


def test_a_loss_that_was_no_number_leaves_a_checkpoint_to_keep(desk):
    run = toy_desk.ended(desk, "pretrain", "failed", params=monitor.small_run(), error="no number")
    left = desk.runs.folder(run.id) / "model"
    left.mkdir(parents=True)
    (left / "MANIFEST.json").write_text("{}")
    at = AppTest.from_file(SHELL, default_timeout=60)
    at.query_params["lab_view"] = "Pretraining"
    at.switch_page("lab.py").run()
    next(b for b in at.button if b.label == "Keep its last good checkpoint").click().run()
    assert not at.exception
    assert desk.runs.active()[0].params["keep"] == run.id


def test_scratch_and_continued_stand_in_one_chart(full):
    at = opened("Pretraining")
    assert set(at.multiselect(key="lab_compared").value) == {"base:finance", "base:onward"}
    assert "Across different vocabularies" not in plain(at)
    sound(at.segmented_control(key="lab_figure").set_value("masked_accuracy").run())
    assert "Across different vocabularies" in plain(at)
    sound(at.multiselect(key="lab_compared").set_value([]).run())
    assert "None of those has measured" in plain(at)


def test_each_view_leads_to_its_explanation(full):
    for view in ("Fill the mask", "Pretraining"):
        at = click(opened(view), "How it works: Masked words")
        assert at.header[0].value.startswith("Masked language modelling")


# ---------------------------------------------------------------- failing, and small things


@pytest.mark.parametrize("view", list(lab.VIEWS))
def test_a_store_that_does_not_answer_is_said_in_words(desk, view):
    desk.store.close()
    at = AppTest.from_file(SHELL, default_timeout=60)
    at.query_params["lab_view"] = view
    at.switch_page("lab.py").run()
    assert not at.exception
    assert at.title[0].value == "Lab"
    assert not any("Traceback" in e.value for e in at.error)


def test_names_at_the_ends_of_lines_do_not_lie_on_one_another(desk):
    drawn = [Curve([0, 1], [0, value], f"line {i} <b>") for i, value in enumerate((50.0, 50.1, 50.2, 0.1, 0.0))]
    fig = lab_drawing.curves(drawn, unit="%", zero=True)
    heights = sorted(note.y for note in fig.layout.annotations)
    assert len(heights) == 5 and all(b - a > 2 for a, b in zip(heights, heights[1:], strict=False))
    assert all("<b>" not in note.text.split("</b>", 1)[1] for note in fig.layout.annotations)


def test_the_film_strip_shows_each_sentence_at_each_checkpoint(desk):
    fills = pd.concat([toy_bases.filled(tuple(range(0, 200, 10)))])
    fig, words = lab_fills.strip(fills, sorted(fills["step"].unique().tolist()))
    assert len(fig.data[0].z) == len(toy_bases.SENTENCES) and len(fig.data[0].z[0]) == lab_fills.COLUMNS
    assert fig.layout.xaxis.ticktext[0] == "0" and fig.layout.xaxis.ticktext[-1] == "190"
    assert "sentence 1: the to card" in words
