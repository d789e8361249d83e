"""The Intent page: asking, comparing, files in and out; whatever a person types stays text and stays in the session."""

import json
import shlex
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from fmcore import runtime
from fmcore.config import Settings
from fmcore.data import catalogue
from fmcore.nouns import Prediction
from jobs import JOBS
from pages import answers, intent, intent_teach, ui
from tests.pages import tiny_model, toy_desk

SHELL = str(Path(__file__).resolve().parents[2] / "pages" / "shell.py")
pytestmark = pytest.mark.slow  # real models are fitted for it

HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "**bold** _it_ # head [l](javascript:alert(1)) ![i](http://e.com/x.png)",
    "$\\frac{1}{2}$ $$x$$ :red[x] :material/home: :smile: https://example.com www.example.com a@b.co",
    "\u202ereversed \u0000 nul 😀 👩‍👩‍👧",
    "'; rm -rf / # \" $(whoami) `id`",
    "x" * 1_000_000,
    "   ",
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder with two real versions for the whole file: they cost seconds."""
    home = tmp_path_factory.mktemp("intent")
    runtime.stop()
    made = runtime.start(Settings(home=home / "home"), {})
    tiny_model.adopt(made, home / "a", seed=0)
    tiny_model.adopt(made, home / "b", seed=1, promote=False)
    runtime.stop()
    return home / "home"


@pytest.fixture
def desk(filled):
    yield runtime.start(Settings(home=filled), {})
    runtime.stop()


def test_without_a_model_the_page_says_how_to_get_one():
    toy_desk.start({})
    try:
        assert "No model yet" in words(opened())
    finally:
        runtime.stop()


def test_the_training_of_another_tasks_model_is_not_taken_for_its_own():
    desk = toy_desk.start(JOBS)
    try:
        desk.runs.request("finetune", {"task": "sentiment"})
        assert "No model yet" in words(opened())
        desk.runs.cancel(desk.runs.active()[0].id, by="a test")
        desk.runs.request("finetune", {"task": "intent"})
        assert "The first model is being trained" in [h.value for h in opened().header]
    finally:
        runtime.stop()


def opened(**query) -> AppTest:
    at = AppTest.from_file(SHELL, default_timeout=60)
    for name, value in query.items():
        at.query_params[name] = value
    at.switch_page("intent.py").run()
    return sound(at)


def sound(at: AppTest) -> AppTest:
    assert not at.exception
    assert not [e.value for e in at.error if "could not be drawn" in e.value]
    return at


def ask(at: AppTest, message: str) -> AppTest:
    at.text_input(key="intent_message").set_value(message)
    return sound(at.form_submit_button[0].click().run())


def words(at: AppTest) -> str:
    return "\n".join(m.value for m in at.markdown)


def test_a_message_gets_an_answer_with_its_certainty_and_its_source(desk):
    at = ask(opened(), "my app crashes when I open it")
    expected = desk.engine.predict("intent", ["my app crashes when I open it"])[0]
    text = words(at)
    assert f"**{expected.label.replace('_', ' ')}**" in text
    assert any(word in text for word in ("In scope", "Out of scope", "Close call"))
    assert "90\u00a0% coverage" in text and "measured" in text
    assert "Demo data" in text
    assert any(" ms" in m.value for m in at.markdown)
    assert {h.value for h in at.header} >= {"How sure?", "Best reply"}
    assert desk.registry.champion("intent").version in "".join(h.value for h in at.header).replace("\\", "")


def test_example_chips_come_from_the_models_data_and_are_asked(desk):
    at = opened()
    chips = at.get("pills")[0]
    assert len(chips.options) == 4
    first = catalogue.load("demo").test["text"]
    picked = next(t for t in first if intent.shortened(t) == chips.options[0])
    sound(chips.set_value(picked).run())
    assert at.text_input(key="intent_message").value == picked
    assert "Answer" in words(at) or "Nearest intent" in words(at)


@pytest.mark.parametrize("message", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_messages_are_answered_and_shown_as_text(desk, message):
    at = ask(opened(), message)
    shown = words(at)
    for live in ("<script", "<img", ":red[x]", "](javascript", "$\\frac"):
        assert live not in shown.replace("\\<", "").replace("\\[", "").replace("\\$", "")
    assert not at.query_params or "message" not in json.dumps(dict(at.query_params))


def test_the_curl_call_is_one_shell_word_whatever_was_typed(desk):
    nasty = "it's $(whoami) `id` \"x\" \\ '; rm -rf /"
    at = ask(opened(), nasty)
    call = shlex.split(at.code[0].value.replace("\\\n", " "))
    assert call[:2] == ["curl", "-s"]
    assert json.loads(call[-1])["texts"] == [nasty]


def test_two_versions_side_by_side_say_whether_they_agree(desk):
    at = opened(compare="true")
    ask(at, "my bill is too high")
    a, b = desk.registry.versions("intent")
    answers = {v.version: desk.engine.predict("intent", ["my bill is too high"], version=v.version)[0] for v in (a, b)}
    verdict = "They agree" if len({(p.label, p.in_scope) for p in answers.values()}) == 1 else "They differ"
    assert verdict in words(at)
    charts = [json.loads(c.proto.spec) for c in at.get("plotly_chart")]
    assert len(charts) == 2
    assert charts[0]["layout"]["xaxis"]["range"] == charts[1]["layout"]["xaxis"]["range"] == [0, 100]


def explained(at: AppTest) -> AppTest:
    """The page once every explanation that was asked for is there."""
    for held in at.session_state["why_held"].values():
        assert held.ticket.wait(60) and held.ticket.state == "done"
    return sound(at.run())


def test_why_opens_under_the_answer_and_a_new_message_closes_it(desk):
    message = "my bill is too high"
    at = ask(opened(), message)
    assert "why_held" not in at.session_state, "asked only when somebody asks"
    at = explained(sound(at.button(key="intent-why-0").click().run()))
    (held,) = at.session_state["why_held"].values()
    answer = held.ticket.answer
    assert (held.question.text, held.question.version) == (message, desk.registry.champion("intent").version)
    assert answer.explanation.label == desk.engine.predict("intent", [message])[0].label
    assert ui.esc(answer.sentence) in words(at)
    assert "bill" not in json.dumps(dict(at.query_params))
    assert "Open on Explain" in [b.label for b in at.button]
    assert "Why?" not in {h.value for h in ask(at, "where is my parcel").header}


def test_with_two_versions_each_says_why(desk):
    at = ask(opened(compare="true"), "my bill is too high")
    for i in (0, 1):
        at = sound(at.button(key=f"intent-why-{i}").click().run())
    at = explained(at)
    questions = {held.question.version: held.ticket.answer for held in at.session_state["why_held"].values()}
    assert set(questions) == {v.version for v in desk.registry.versions("intent")}
    for answer in questions.values():
        assert ui.esc(answer.sentence) in words(at)


def test_why_of_a_chosen_row_of_a_file(desk):
    at = opened(view="Many messages")
    at.file_uploader[0].upload("m.csv", b"text\nmy bill is too high\n\nwhere is my parcel\n", "text/csv")
    at = sound(at.run())
    at = sound(next(b for b in at.button if b.label.startswith("Classify")).click().run())
    asked = at.dataframe[0].value[""].tolist()
    at.session_state["intent_row"] = 0
    at = explained(sound(at.run()))
    (held,) = at.session_state["why_held"].values()
    assert held.question.text == "my bill is too high"
    assert asked[0] == "Why?" and asked.count("Why?") == at.dataframe[0].value["label"].notna().sum()
    at.session_state["intent_row"] = 999
    assert "Why?" not in {h.value for h in sound(at.run()).header}, "a row that is not there"


def test_one_visitors_message_is_not_there_for_another(desk):
    ask(opened(), "the secret of visitor one")
    other = opened()
    assert "secret" not in words(other)
    assert not other.text_input(key="intent_message").value


def test_a_file_is_classified_and_comes_back_in_order(desk):
    at = opened(view="Many messages")
    raw = b"message,label\nmy app crashes,app_crashes\n,x\n\"=cmd|' /C calc'!A0, my bill\",bill_too_high\n"
    at.file_uploader[0].upload("in.csv", raw)
    sound(at.run())
    assert "3 rows" in words(at) and "1 empty" in words(at)
    sound(next(b for b in at.button if b.label.startswith("Classify 2")).click().run())
    table = at.dataframe[0].value
    assert table["text"].tolist() == ["my app crashes", "", "=cmd|' /C calc'!A0, my bill"]
    assert table["label"].notna().tolist() == [True, False, True]
    assert [m.value for m in at.metric][0] == "2"
    assert "Against your labels" in {h.value for h in at.header}
    from fmcore.data import uploads

    assert b"\"'=cmd" in uploads.to_csv(table)


@pytest.mark.parametrize(
    ("raw", "said"), [(b"", "empty"), (b"a,b\n1,2\n", "no column with messages"), (b"PK\x03\x04xx", "Excel"), (b'text\n"open\n', "breaks off")]
)
def test_a_file_that_cannot_be_read_says_why(desk, raw, said):
    at = opened(view="Many messages")
    at.file_uploader[0].upload("in.csv", raw)
    sound(at.run())
    assert said in at.error[0].value.replace("\\", "")


def test_an_unknown_version_in_the_address_falls_back_to_the_live_one(desk):
    at = opened(version="../../x", view="<b>")
    assert at.selectbox(key="version").value == intent.FOLLOW


def prediction(**changes) -> Prediction:
    base = {"label": "a", "score": 0.6, "scores": {"a": 0.6, "b": 0.4}, "in_scope": True, "novelty": 0.1, "threshold": 1.0,
            "reason": "", "candidates": ("a",), "coverage": 0.9, "version": "v"}  # fmt: skip
    return Prediction(**{**base, **changes})


@pytest.mark.parametrize(
    ("changes", "word"), [({}, "In scope"), ({"candidates": ("a", "b")}, "Close call"), ({"in_scope": False, "candidates": ("a", "b")}, "Out of scope")]
)
def test_the_verdict_in_one_word(changes, word):
    assert answers.verdict(prediction(**changes))[0] == word




def teach_one(at, name="gift card", examples=intent_teach.EXAMPLES):
    at.text_input(key="teach_name").set_value(name)
    at.text_area(key="teach_examples").set_value(examples)
    return sound(next(b for b in at.button if b.label == "Teach").click().run())


def test_a_taught_intent_answers_in_its_session_only_and_can_be_undone(desk):
    before = desk.engine.predict("intent", ["where can I use the gift card"])[0]
    at = teach_one(opened(view="Teach an intent"))
    text = words(at)
    assert "Session only" in text and "paired" in text
    assert {"Before and after", "Its neighbours", "Where the examples land", "Try it"} <= {h.value for h in at.header}
    landing = next(d.value for d in at.dataframe if "Lands in" in d.value)
    assert landing["Example"].tolist() == intent_teach.EXAMPLES.splitlines()
    sound(at.text_input(key="teach_try").set_value("where can I use the gift card").run())
    assert "gift card" in words(at)
    assert "gift_card" not in before.scores
    assert "gift_card" not in desk.engine.predict("intent", ["where can I use the gift card"])[0].scores
    assert "Before and after" not in {h.value for h in opened(view="Teach an intent").header}, "another visitor sees none of it"
    sound(next(b for b in at.button if b.label == "Undo").click().run())
    assert "Before and after" not in {h.value for h in at.header}


@pytest.mark.parametrize("name, examples", [("", "a b\nc d"), ("app_crashes", "a b\nc d"), ("x", "only one"), ("oos", "a b\nc d"), ("<b>", "\n\n")])
def test_what_cannot_be_taught_is_refused_in_a_sentence(desk, name, examples):
    at = teach_one(opened(view="Teach an intent"), name, examples)
    assert len(at.error) == 1
    assert "Before and after" not in {h.value for h in at.header}


def test_hostile_lessons_stay_text(desk):
    at = teach_one(opened(view="Teach an intent"), "x:red[b] <i>", "\n".join(HOSTILE[:5]))
    for markdown in (m.value for m in at.markdown):
        assert ":red[b]" not in markdown and "<i>" not in markdown.replace("\\<", "")
