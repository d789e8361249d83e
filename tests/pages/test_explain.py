"""The Explain page and its component: whatever a text holds is shown as text, waiting can be stopped, and nothing leaves the session."""

import datetime as dt
import html
import json
import re
import shutil
import time
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from streamlit.testing.v1 import AppTest

from fmcore import clock, runtime
from fmcore.config import Settings
from fmcore.explain import reviews
from fmcore.explain.words import split
from fmcore.nouns import Curve, Edit, Explanation, Flip, FMError, Prediction, Trust
from fmcore.serving.engine import Overloaded
from fmcore.text import clean
from pages import explain_changes, explain_charts, explain_text, why
from tests.pages import tiny_model, toy_desk

SHELL = str(Path(__file__).resolve().parents[2] / "pages" / "shell.py")

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "**bold** _it_ # head",
    "[l](javascript:alert(1))",
    "![i](http://e.com/x.png)",
    "$\\frac{1}{2}$ $$x$$",
    ":red[x] :material/home: :smile:",
    ':color[x]{background="red"}',
    "https://example.com www.example.com a@b.co",
    "a \x00 nul \u202e turned",
    "]} open [{ ~~gone~~ `code`",
    "😀 👩‍👩‍👧",
]


def explained(text, values=None, *, target="card", **changes) -> Explanation:
    """An explanation of every word of a text; values fall from the first word to the last where none are given."""
    words = split(clean(text)[0])
    n = len(words)
    values = tuple(values if values is not None else [0.5 * (-1) ** i / (i + 1) for i in range(n)])
    facts = {
        "task": "intent", "version": "v1", "label": "card", "target": target, "base_value": 0.1, "score": 0.1 + sum(values), "tokens": words.tokens,
        "spans": words.spans, "values": values, "method": "fast", "budget": 40, "n_calls": 40, "additivity_error": 0.0, "seconds": 0.12,
        "made_at": clock.now(), **changes,
    }  # fmt: skip
    return Explanation(**facts)


# ---------------------------------------------------------------- words as markdown


def test_sign_and_strength_show_without_colour():
    marked = why.word_marks([("fell", -0.6), ("sharply", -0.3), ("up", 0.61), ("slightly", 0.15), ("the", 0.01)])
    assert "[▼**fell**]" in marked and "[▼sharply]" in marked and "[▲**up**]" in marked
    assert "[slightly]{" in marked, "tinted, too weak for a glyph"
    assert marked.endswith(" the")


@pytest.mark.parametrize("token", HOSTILE)
@pytest.mark.parametrize("value", [0.0, 0.25, -0.5, 1.0])
def test_a_hostile_word_is_never_markup(token, value):
    marked = why.word_marks([(token, value), ("x", 1.0)])
    bare = re.sub(r':color\[(.*?)\]\{background="rgba\([0-9.,]+\)"\}(?=$| )', r"\1", marked)
    shown = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(bare)
    assert not re.search(r"<(?!/?(p|strong)>)", shown)
    plain = html.unescape(re.sub(r"<[^>]*>", "", shown)).replace("\u2060", "").replace("▲", "").replace("▼", "")
    assert " ".join(clean(token)[0].split()) in plain
    assert not re.search(r"(?<!\\):(red|material|smile)", bare)
    assert "$" not in bare.replace("\\$", "")


def test_chinese_words_stand_without_blanks_and_lines_end_where_the_text_ends_them():
    text = "我的信用卡丢了。 Help\nnow"
    made = explained(text)
    marked = why.word_marks(zip(made.tokens, made.values, strict=True), gaps=why.gaps_of(made.spans, text))
    bare = re.sub(r':color\[[▲▼]?(?:\*\*)?(.*?)(?:\*\*)?\]\{background="[^"]*"\}', r"\1", marked)
    assert bare == "我的信用卡丢了。 Help  \nnow"


# ---------------------------------------------------------------- figures


def test_bars_name_the_side_of_every_word():
    figure = explain_charts.word_bars(explained("<b>one</b> two $x$", [0.5, -0.4, 0.2]))
    assert list(figure.data[0].text) == ["+0.50", "−0.40", "+0.20"]
    assert [said[1].split(" ", 1)[1] for said in figure.data[0].customdata] == ["for card", "against card", "for card"]
    assert "<b>" not in "".join(figure.layout.yaxis.ticktext) and "$" not in "".join(figure.layout.yaxis.ticktext)
    colors = figure.data[0].marker.color
    assert colors[0] == colors[2] != colors[1]
    assert explain_charts.sides("net") == ("towards negative", "towards positive")


def trusted(verdict="trust", *, curves=True) -> Trust:
    deletion = Curve((0.0, 0.5, 1.0), (0.9, 0.2, 0.1), (0.9, 0.6, 0.1), 0.35, 0.55, 0.5, 0.6)
    insertion = Curve((0.0, 0.5, 1.0), (0.1, 0.8, 0.9), (0.1, 0.4, 0.9), 0.65, 0.45, 0.4, 0.5)
    return Trust(
        verdict=verdict, checks=(("Faithful", True, "Deletion falls."), ("Stable", verdict == "trust", "Ranks <b>agree</b> to 0.9.")),
        comprehensiveness=0.6, sufficiency=0.1, deletion=deletion if curves else None, insertion=insertion if curves else None,
        agreement={"lime": 0.8}, stability=0.9, n_calls=60,
    )  # fmt: skip


def test_curves_are_labelled_at_their_ends_with_random_orders_dotted():
    figure = explain_charts.curves(trusted())
    assert [line.line.dash for line in figure.data] == ["dot", "solid", "dot", "solid"]
    told = " ".join(note.text for note in figure.layout.annotations)
    assert "Deletion" in told and "area 0.35" in told and "Insertion" in told and told.count("random order") == 2
    at = sorted(note.y for note in figure.layout.annotations)
    assert all(b - a > 0.05 for a, b in zip(at, at[1:], strict=False)), "no two names lie on one another"


# ---------------------------------------------------------------- the component, on a desk made of the test's own answers


class Ticket:
    """A ticket whose state the test sets."""

    def __init__(self, state, answer=None, error=None):
        self.state, self.answer, self.error = state, answer, error
        self.progress, self.message, self.place, self.n_seen = 0.4, "checking <b>it</b>", 3, 0

    def wait(self, timeout_s):
        return self.state not in ("waiting", "working")

    def seen(self):
        self.n_seen += 1

    def cancel(self):
        if self.state in ("waiting", "working"):
            self.state = "cancelled"


class Desk:
    """What the component asks of a desk; `made` is called for every question."""

    def __init__(self, made):
        self.questions, self._made, self.explain, self.registry = [], made, self, self

    def ask(self, question, *, who):
        self.questions.append(question)
        return self._made(question)

    def get(self, task, version):
        return version

    def facts(self, version):
        return {"synthetic": True}


def predicted(score=0.9) -> Prediction:
    return Prediction(
        label="card", score=score, scores={"card": score, "refund": 1 - score}, in_scope=True, novelty=0.1, threshold=1.0, reason="In scope.",
        candidates=("card",), coverage=0.9, version="v1",
    )  # fmt: skip


def answer_to(question, **changes):
    from fmcore.explain.answering import Answer

    made = explained(question.text, **changes)
    return Answer(explanation=made, prediction=predicted(made.score), sentence="‘one’ speaks for <b>card</b> most.", trust=trusted())


def drawn(desk, text, **how):
    """The component alone on a page, for one visitor."""

    def script(desk, text, how):
        from pages import why

        why.draw(desk, "intent", text, key="w", **how)

    return AppTest.from_function(script, kwargs={"desk": desk, "text": text, "how": how}, default_timeout=30).run()


def told(at) -> str:
    return "\n".join(m.value for m in at.markdown)


def test_the_answer_is_drawn_sentence_first_and_asked_once():
    desk = Desk(lambda question: Ticket("done", answer_to(question)))
    at = drawn(desk, "my card is lost")
    assert not at.exception
    assert at.markdown[0].value.startswith("‘one’ speaks for \\<b\\>")
    assert "Trust it" in told(at) and "Fast surrogate" in told(at) and "Demo data" in told(at)
    assert at.dataframe[0].value["word"].tolist() == ["my", "card", "is", "lost"]
    assert {e.label for e in at.expander} == {"Can you trust this?", "Exact numbers"}
    at.run()
    assert len(desk.questions) == 1
    assert not at.query_params


def test_compact_leaves_the_tables_and_charts_out():
    at = drawn(Desk(lambda question: Ticket("done", answer_to(question))), "my card is lost", compact=True)
    assert not at.dataframe and not at.get("plotly_chart") and not at.button
    assert "Trust it" in told(at)


def test_waiting_shows_progress_and_a_cancel_that_frees_the_ticket():
    ticket = Ticket("working")
    at = drawn(Desk(lambda _: ticket), "my card is lost")
    assert not at.exception and ticket.n_seen
    bar = at.get("progress")[0].proto
    assert bar.value == 40 and "\\<b\\>" in bar.text
    next(b for b in at.button if b.label == "Cancel").click().run()
    assert ticket.state == "cancelled"
    assert "Stopped" in told(at)
    assert [b.label for b in at.button] == ["Try again"]


def test_a_finished_ticket_takes_the_place_of_its_progress():
    tickets = []
    desk = Desk(lambda question: tickets.append(Ticket("working", answer_to(question))) or tickets[-1])
    at = drawn(desk, "my card is lost")
    assert at.get("progress")
    tickets[0].state = "done"
    at.run()
    assert not at.get("progress") and "Trust it" in told(at)
    assert len(tickets) == 1


def test_another_text_under_the_same_key_lets_the_former_go():
    tickets = []
    desk = Desk(lambda _: tickets.append(Ticket("working")) or tickets[-1])

    def script(desk):
        import streamlit as st

        from pages import why

        why.draw(desk, "intent", st.text_input("t", "one", key="t"), key="w")

    at = AppTest.from_function(script, kwargs={"desk": desk}, default_timeout=30).run()
    at.text_input(key="t").set_value("two").run()
    assert [ticket.state for ticket in tickets] == ["cancelled", "working"]


def busy(_):
    raise Overloaded("The desk is busy: 16 explanations wait.", "Try again in a few seconds.")


def test_a_full_line_and_a_failure_are_said_in_words_and_can_be_tried_again():
    at = drawn(Desk(busy), "my card is lost")
    assert "16 explanations wait" in at.error[0].value and [b.label for b in at.button] == ["Try again"]
    state = {"fails": True}

    def made(question):
        return Ticket("failed", error=FMError("No <b>PyTorch</b>.", "Ask for fast.")) if state["fails"] else Ticket("done", answer_to(question))

    at = drawn(Desk(made), "my card is lost")
    assert "\\<b\\>PyTorch" in at.error[0].value
    state["fails"] = False
    next(b for b in at.button if b.label == "Try again").click().run()
    assert not at.error and "Trust it" in told(at)


@pytest.mark.parametrize("text", ["", "   ", "one", " ".join(HOSTILE), "\n".join(HOSTILE)])
def test_every_text_is_drawn_as_text(text):
    at = drawn(Desk(lambda question: Ticket("done", answer_to(question))), text)
    assert not at.exception and not at.error
    for value in (m.value for m in at.markdown):
        bare = re.sub(r":color\[|:small\[|:gray\[|:\w+-badge\[|:material/\w+:", "", value)
        for live in ("<script", "<img", ":red[", "](javascript", "$\\frac", "]("):
            assert live not in bare.replace("\\<", "").replace("\\[", "").replace("\\$", "").replace("\\(", "").replace("\\:", "")


def test_ten_thousand_words_are_bounded_until_somebody_asks_for_all():
    text = " ".join(f"word{i}" for i in range(2_500))
    desk = Desk(lambda question: Ticket("done", answer_to(question)))
    at = drawn(desk, text)
    assert not at.exception
    assert len(max((m.value for m in at.markdown), key=len)) < 8_000
    assert "word2000" not in told(at)
    at.toggle[0].set_value(True).run()
    assert "word2000" in told(at)


def test_a_gap_and_a_stored_answer_are_said():
    changes = {"additivity_error": 0.052, "method": "lime", "stored": True, "made_at": clock.now() - dt.timedelta(minutes=4), "n_unread": 1200}
    at = drawn(Desk(lambda question: Ticket("done", answer_to(question, **changes))), "my card is lost")
    words = told(at).replace("\\", "")
    assert "miss the score by 0.052" in words and "from the store" in words and "made 4 min" in words and "last 1,200 characters" in words


# ---------------------------------------------------------------- flips and edits as text


def test_a_flip_shows_what_went_and_what_came_without_colour():
    flip = Flip((Edit(1, "<b>", ""), Edit(2, "lost", "found*")), "my found*", "refund", 0.7, "card", 0.9)
    marked = explain_changes.marked(explain_changes.changed("my <b> lost card", flip))
    assert marked == "my :gray-background[− ~~\\<b\\>~~] :gray-background[− ~~lost~~] :blue-background[+ **found\\***] card"


def test_the_difference_of_two_texts_keeps_their_order():
    parts = explain_changes.difference("my card is lost", "my new card was lost today")
    assert [kind for kind, _ in parts] == ["same", "new", "same", "gone", "new", "same", "new"]
    assert "".join(word for kind, word in parts if kind != "gone") == "my new card was lost today"
    assert explain_changes.marked(explain_changes.difference(" ".join(["a"] * 900), " ".join(["a"] * 900 + ["end"]))).startswith("…")


# ---------------------------------------------------------------- the page


TEXT = "my card was stolen abroad and <b>I</b> need :red[help] $now$"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder with two real versions for the whole file; each test has its own copy."""
    home = tmp_path_factory.mktemp("explain")
    runtime.stop()
    made = runtime.start(Settings(home=home / "home"), {})
    tiny_model.adopt(made, home / "a", seed=0)
    tiny_model.adopt(made, home / "b", seed=1, promote=False)
    runtime.stop()
    return home / "home"


@pytest.fixture
def desk(filled, tmp_path):
    shutil.copytree(filled, tmp_path / "home")
    yield runtime.start(Settings(home=tmp_path / "home"), {})
    runtime.stop()


def opened(**query) -> AppTest:
    at = AppTest.from_file(SHELL, default_timeout=60)
    for name, value in query.items():
        at.query_params[name] = value
    return sound(at.switch_page("explain.py").run())


def sound(at: AppTest) -> AppTest:
    assert not at.exception
    assert not [e.value for e in at.error if "could not be drawn" in e.value]
    return at


def waited(at: AppTest) -> AppTest:
    """Run the page until nothing on it is being worked on: a fragment's clock does not tick here."""
    for _ in range(200):
        if not at.get("progress"):
            return sound(at)
        time.sleep(0.1)
        at.run()
    raise AssertionError("the answer did not come")


def asked(text: str, **query) -> AppTest:
    at = opened(**query)
    at.text_area(key="explain_text").set_value(text)
    return waited(at.button(key="FormSubmitter:explain_form-Explain").click().run())


def test_without_a_model_the_page_says_how_to_get_one():
    toy_desk.start({})
    try:
        assert "No model for Customer\\-service intent yet" in told(opened())
    finally:
        runtime.stop()


@pytest.mark.slow
def test_one_text_is_explained_with_its_trust_and_shown_as_text(desk):
    at = asked(TEXT)
    assert {h.value for h in at.header} >= {
        "Word by word", "Strongest words", "Can you trust this?", "Deletion and insertion", "What would change the answer?",
        "Edit and compare", "Known examples near it", "I disagree",
    }  # fmt: skip
    assert any(words in told(at) for words, *_ in why.VERDICTS.values())
    table = at.dataframe[0].value
    assert table["word"].tolist() == TEXT.split()
    for value in (m.value for m in at.markdown):
        assert "<b>" not in value.replace("\\<", "") and ":red[help" not in value.replace("\\:", "")
    assert not {"text", "explain_text"} & set(at.query_params)
    assert TEXT not in json.dumps(dict(at.query_params))


@pytest.mark.slow
def test_one_visitors_text_is_not_there_for_another_and_not_in_the_log(desk, caplog):
    asked("the secret of visitor one")
    other = opened()
    assert "secret" not in told(other) and not other.text_area(key="explain_text").value
    assert "secret" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "one", "我的信用卡丢了", "word " * 5_000])
def test_empty_short_chinese_and_long_texts_have_an_answer(desk, text):
    at = asked(text)
    assert not at.error
    assert "Word by word" in {h.value for h in at.header}


@pytest.mark.slow
def test_another_target_is_explained(desk):
    at = asked("my card was stolen")
    labels = at.selectbox(key="explain_target_intent").options
    assert labels[0] == explain_text.OWN and len(labels) == 1 + explain_text.TOP
    second = list(desk.engine.predict("intent", ["my card was stolen"])[0].scores)[1]
    waited(at.selectbox(key="explain_target_intent").set_value(second).run())
    assert f"for {second.replace('_', ' ')}" in told(at).replace("\\", "")


@pytest.mark.slow
def test_flips_are_searched_for_on_request_only(desk):
    at = asked("my card was stolen")
    assert "Search for the fewest edits" in [b.label for b in at.button]
    waited(at.button(key="explain-flips-start").click().run())
    assert "Verified" in told(at) or "No small edit" in told(at)


@pytest.mark.slow
def test_an_edited_text_is_compared_with_the_first(desk):
    at = asked("my card was stolen")
    at.text_area(key="explain_edit").set_value("my bill was too high")
    waited(at.button(key="FormSubmitter:explain_edit_form-Compare").click().run())
    text = told(at)
    assert "**Before**" in text and "**After**" in text and "− ~~card~~" in text and "+ **bill**" in text
    first, second = (desk.engine.predict("intent", [t])[0].label for t in ("my card was stolen", "my bill was too high"))
    assert ("Another answer" in text) == (first != second)


@pytest.mark.slow
def test_a_disagreement_is_stored_with_its_text_only_when_it_is_sent(desk):
    at = asked("my card was stolen")
    assert "Sending stores **the text itself**" in told(at)
    assert not reviews.listed(desk.store)
    at.text_area(key="explain_note").set_value("a <b>note</b>")
    waited(at.button(key="FormSubmitter:explain_disagree-Store and send for review").click().run())
    (sent,) = reviews.listed(desk.store)
    assert (sent.text, sent.note, sent.task) == ("my card was stolen", "a <b>note</b>", "intent")
    assert desk.store.rows("SELECT count(*) AS n FROM audit WHERE what = 'send for review'")[0]["n"] == 1
    assert "Sent for review" in told(at)


@pytest.mark.slow
def test_a_text_brought_from_another_page_is_explained_at_once(desk):
    at = AppTest.from_file(SHELL, default_timeout=60)
    at.session_state["explain_task"] = "intent"
    at.session_state["explain_text"] = at.session_state["explain_asked"] = "my card was stolen"
    waited(sound(at.switch_page("explain.py").run()))
    assert at.text_area(key="explain_text").value == "my card was stolen"
    assert "Can you trust this?" in {h.value for h in at.header}
    assert not at.query_params


def test_names_in_the_address_that_do_not_exist_fall_back():
    toy_desk.start({})
    try:
        at = opened(explain_task="<b>", explain_view="../../x", explain_version="none")
        assert at.selectbox(key="explain_task").value == "intent"
    finally:
        runtime.stop()
