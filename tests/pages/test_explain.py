"""The Explain page and its component: whatever a text holds is shown as text, waiting can be stopped, and nothing leaves the session."""

import datetime as dt
import html
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from streamlit.testing.v1 import AppTest

from fmcore import clock
from fmcore.explain.words import split
from fmcore.nouns import Curve, Edit, Explanation, Flip, FMError, Trust
from fmcore.serving.engine import Overloaded
from fmcore.text import clean
from pages import explain_changes, explain_charts, why

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
    figure = explain_charts.curves(trusted(), "card")
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


def answer_to(question, **changes):
    from fmcore.explain.answering import Answer

    made = explained(question.text, **changes)
    return Answer(explanation=made, prediction=None, sentence="‘one’ speaks for <b>card</b> most.", trust=trusted())


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
    assert "miss the score by 0.052" in words and "from the store" in words and "4 min ago" in words and "last 1,200 characters" in words


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
