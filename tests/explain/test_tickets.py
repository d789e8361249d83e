"""The line that questions wait in: its order, its bounds, and what frees a slot. The work is a toy; the threads are real."""

import logging
import threading
import time

import pytest

from fmcore.explain import tickets
from fmcore.explain.tickets import Line, TookTooLong
from fmcore.nouns import FMError
from fmcore.serving.batcher import Overloaded, Stopping

LONG = 20.0


class Desk:
    """Work that goes on, step by step, until it is let go; keeps what was asked in which order."""

    def __init__(self):
        self.go = threading.Event()
        self.began: list[str] = []
        self.stopped: list[str] = []

    def do(self, question, step):
        self.began.append(question)
        try:
            while not self.go.wait(0.005):
                step(0.5, "counting")
        except BaseException:
            self.stopped.append(question)
            raise
        if question == "boom":
            raise ValueError("the text was: marigold")
        if question == "refused":
            raise FMError("It cannot be.", "Ask otherwise.")
        return f"about {question}"


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def opened():
    lines = []

    def make(do, **settings):
        lines.append(Line(do, **settings))
        return lines[-1]

    yield make
    for line in lines:
        line.close()


def until(holds):
    """Wait for what another thread brings about."""
    for _ in range(2000):
        if holds():
            return True
        time.sleep(0.005)
    return False


def asked(line, question, who="ann"):
    return line.join(question, key=question, who=who)


def test_an_answer_comes_with_its_state_and_progress(desk, opened):
    line = opened(desk.do)
    ticket = asked(line, "a")
    assert until(lambda: ticket.progress == 0.5) and ticket.state == "working" and ticket.message == "counting" and ticket.place == 0
    assert ticket.answer is None and not ticket.wait(0.01)
    desk.go.set()
    assert ticket.wait(LONG) and (ticket.state, ticket.answer, ticket.error, ticket.progress) == ("done", "about a", None, 1.0)
    ticket.cancel()
    assert ticket.state == "done", "what is over stays as it ended"


def test_two_people_are_answered_at_once_and_the_third_in_turn(desk, opened):
    line = opened(desk.do, slots=2)
    first, second, third, fourth = (asked(line, q, who=q) for q in "abcd")
    assert until(lambda: len(desk.began) == 2) and [t.state for t in (first, second)] == ["working"] * 2
    assert [t.place for t in (first, second, third, fourth)] == [0, 0, 1, 2] and third.message == "waiting, number 1 in line"
    desk.go.set()
    assert all(t.wait(LONG) for t in (first, second, third, fourth)) and sorted(desk.began[:2]) == ["a", "b"]
    assert fourth.answer == "about d"


def test_the_line_is_bounded_and_nobody_fills_it_alone(desk, opened):
    line = opened(desk.do, slots=1, max_waiting=2)
    asked(line, "at work", who="x")
    assert until(lambda: desk.began)
    asked(line, "b", who="y")
    asked(line, "c", who="z")
    with pytest.raises(Overloaded, match="2 explanations wait"):
        asked(line, "d", who="w")
    roomy = opened(desk.do, slots=1, max_waiting=100)
    for i in range(tickets.MAX_EACH):
        asked(roomy, f"q{i}", who="greedy")
    with pytest.raises(Overloaded, match="for you"):
        asked(roomy, "one more", who="greedy")
    assert asked(roomy, "one more", who="modest").state in ("waiting", "working")


def test_a_cancelled_ticket_frees_its_slot(desk, opened):
    line = opened(desk.do, slots=1)
    first, second, third = (asked(line, q) for q in "abc")
    assert until(lambda: desk.began == ["a"])
    second.cancel()
    assert second.state == "cancelled" and third.place == 1, "one that waits goes at once"
    first.cancel()
    assert first.state == "cancelled" and first.answer is None
    assert until(lambda: desk.began == ["a", "c"]) and desk.stopped == ["a"] and third.state == "working"


def test_the_same_question_costs_one_computation(desk, opened):
    line = opened(desk.do, slots=2)
    one, two = asked(line, "a", who="ann"), asked(line, "a", who="bob")
    assert until(lambda: desk.began)
    one.cancel()
    time.sleep(0.05)
    assert two.state == "working" and desk.stopped == [], "somebody still waits for it"
    desk.go.set()
    assert two.wait(LONG) and two.answer == "about a" and one.state == "cancelled" and one.answer is None
    assert desk.began == ["a"]
    again = asked(line, "a")
    assert again.wait(LONG) and desk.began == ["a", "a"], "the line keeps no answers"


def test_what_is_being_given_up_is_not_joined(opened):
    """A cancelled work may be past its last look when somebody asks the same: they get work of their own."""
    leaving, resume = threading.Event(), threading.Event()
    n_begun = []

    def do(_question, step):
        n_begun.append(1)
        if len(n_begun) > 1:
            return "second"
        try:
            while True:
                step(0.1, "")
                time.sleep(0.002)
        finally:
            leaving.set()
            resume.wait(LONG)

    line = opened(do, slots=2)
    first = asked(line, "a")
    assert until(lambda: n_begun)
    first.cancel()
    assert leaving.wait(LONG)
    again = asked(line, "a")
    assert again.wait(LONG) and again.answer == "second"
    resume.set()


def test_a_ticket_that_nobody_looks_at_is_cancelled(desk, opened):
    line = opened(desk.do, slots=1, abandoned_s=0.2)
    left = asked(line, "left")
    looked_at = asked(line, "looked at")

    def kept_alive():
        looked_at.seen()
        return desk.began == ["left", "looked at"]

    assert until(kept_alive), "the slot of the abandoned one is free again"
    assert desk.stopped == ["left"] and left.state == "cancelled" and looked_at.state == "working"
    assert not looked_at.wait(0.5) and looked_at.state == "working", "waiting for it is looking at it"


def test_patience_ends(desk, opened):
    line = opened(desk.do, slots=1, patience_s=0.1)
    asked(line, "at work")
    late = asked(line, "late")
    assert late.wait(LONG) and late.state == "failed" and isinstance(late.error, Overloaded)


def test_work_that_takes_too_long_is_ended(desk, opened):
    ticket = asked(opened(desk.do, longest_s=0.1), "a")
    assert ticket.wait(LONG) and ticket.state == "failed" and isinstance(ticket.error, TookTooLong)


def test_failures_come_in_words_and_the_log_quotes_nothing(desk, opened, caplog):
    line = opened(desk.do)
    desk.go.set()
    boom, refused, fine = (asked(line, q) for q in ("boom", "refused", "fine"))
    with caplog.at_level(logging.DEBUG):
        assert all(t.wait(LONG) for t in (boom, refused, fine))
    assert boom.state == "failed" and isinstance(boom.error, FMError) and "ValueError" in boom.error.message and boom.error.hint
    assert refused.error.message == "It cannot be." and fine.answer == "about fine", "the threads go on"
    assert "marigold" not in caplog.text + str(boom.error) and "test_tickets.py:" in caplog.text


def test_closing_ends_everything_and_the_threads(desk, opened):
    line = opened(desk.do, slots=1)
    working, waiting = asked(line, "a"), asked(line, "b")
    assert until(lambda: desk.began)
    mine = [t for t in threading.enumerate() if t.name.startswith("fm-explain")]
    assert mine
    line.close()
    line.close()
    assert [t.state for t in (working, waiting)] == ["failed"] * 2 and all(isinstance(t.error, Stopping) for t in (working, waiting))
    assert not any(t.is_alive() for t in mine)
    with pytest.raises(Stopping):
        asked(line, "c")
    assert asked(opened(desk.do), "other").state in ("waiting", "working")


def test_a_line_without_questions_has_no_threads(opened, desk):
    before = threading.active_count()
    line = opened(desk.do)
    assert threading.active_count() == before
    assert line.over("stored", who="ann").answer == "stored" and threading.active_count() == before
