"""Sentences about explanations: their numbers are those that came in, their words are harmless, and every odd case reads well."""

import dataclasses
import datetime as dt
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcore.explain import telling
from fmcore.nouns import Curve, Edit, Explanation, Flip, Neighbour, Trust


def explained(tokens=("my", "card", "did", "not", "arrive"), values=(0.0, 0.22, 0.01, -0.08, 0.31), **changed):
    at, spans = 0, []
    for token in tokens:
        spans.append((at, at + len(token)))
        at += len(token) + 1
    facts = dict(
        task="intent", version="a1", label="card_arrival", target="card_arrival", score=0.93, base_value=0.47, tokens=tuple(tokens),
        spans=tuple(spans), values=tuple(values), method="fast", budget=40, n_calls=32, additivity_error=0.0, seconds=0.1,
        made_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    )
    return Explanation(**{**facts, **changed})


def judged(verdict="trust", checks=(("faithful", True, "It falls fast: 0.21."), ("right", True, "It is right at 0.90."))):
    curve = Curve((0, 1), (0.9, 0.1), (0.9, 0.1), 0.21, 0.55, 0.4, 0.7)
    return Trust(verdict, checks, 0.6, 0.2, curve, curve, {}, None, 100)


def test_answer_then_words_for_and_against():
    assert telling.sentence(explained()) == (
        "The model reads this as card arrival, 93 % sure. "
        "‘arrive’ and ‘card’ speak for it most (+0.31 and +0.22); ‘not’ speaks against it (−0.08)."
    )


def test_trust_is_the_last_sentence():
    assert telling.sentence(explained(), trust=judged()).endswith(
        " Trust it: all 2 checks pass; as words go the score averages 0.21 with the strongest first, 0.55 in random order."
    )


@pytest.mark.parametrize(
    ("verdict", "checks", "told"),
    [
        ("with care", (("a", True, "Well."), ("b", False, "Seeds agree at 0.41.")), "Take it with care: seeds agree at 0.41."),
        ("do not", (("a", False, "Worse than chance."), ("b", False, "Not alike.")), "Do not trust it: worse than chance. (2 of 2 checks fail.)"),
    ],
)
def test_a_verdict_names_what_failed_first(verdict, checks, told):
    assert telling.verdict(judged(verdict, checks)) == told


def test_a_net_score():
    said = telling.sentence(explained(label="negative", target="net", score=-0.62, values=(0.0, -0.22, 0.01, -0.5, 0.0)))
    assert said.startswith("The model reads this as negative, with a net score (positive less negative) of −0.62. ")
    assert "‘not’ and ‘card’ speak against a higher score (−0.50 and −0.22)." in said


def test_another_label_than_the_answer():
    said = telling.sentence(explained(target="card_linking", score=0.04, values=(0.0, 0.03, 0.0, 0.0, -0.02)))
    assert said == (
        "The model reads this as card arrival; for card linking, which is explained here, it gives 4 %. "
        "‘card’ speaks for card linking most (+0.03); ‘arrive’ speaks against it (−0.02)."
    )


def test_no_words():
    said = telling.sentence(explained(tokens=(), values=(), score=0.12), trust=judged("do not", (("worded", False, "There are no words."),)))
    assert said == (
        "There are no words to explain: the model reads a text without words as card arrival, 12 %. Do not trust it: there are no words."
    )


def test_one_word():
    said = telling.sentence(explained(tokens=("arrive?",), values=(0.46,)))
    assert said == "The model reads this as card arrival, 93 % sure. ‘arrive’ is its only word and adds +0.46 to the 0.47 of a text without words."


def test_values_that_all_round_to_nothing():
    said = telling.sentence(explained(values=(0.001, -0.002, 0.0, 0.004, 0.0), base_value=0.927))
    assert said.endswith("No word moves that by 0.01 or more; without any word it is 0.93.")


def test_what_the_model_does_not_read_is_said():
    assert "93 % sure, without reading the last 1,234 characters." in telling.sentence(explained(n_unread=1234))


def test_a_gap_is_told_where_no_trust_is_asked_for():
    assert telling.sentence(explained(additivity_error=0.083)).endswith("The words' values miss the score by 0.083.")
    assert "miss" not in telling.sentence(explained(additivity_error=0.0009))


def test_runs_of_words_are_shortened():
    run = "I would like to know where the card is that I ordered"
    said = telling.sentence(explained(tokens=(run, "please"), values=(0.4, 0.0)))
    quoted = re.search("‘(.*?)’", said)[1]
    assert len(quoted) <= telling.MAX_WORD and quoted.endswith("…") and run.startswith(quoted[:-1])


def test_a_word_that_is_there_twice_is_numbered():
    said = telling.sentence(explained(tokens=("card", "no", "card"), values=(0.3, 0.0, 0.2)))
    assert "‘card’ (word 1) and ‘card’ (word 3)" in said


@pytest.mark.parametrize(
    ("share", "told"), [(0.0, "0 %"), (0.001, "less than 1 %"), (0.125, "12 %"), (0.713, "71 %"), (0.9951, "more than 99 %"), (1.0, "100 %")]
)
def test_per_cent_is_never_more_certain_than_the_number(share, told):
    assert telling.percent(share) == told


# --- flips, neighbours, two versions


def flipped(*edits):
    return Flip(edits=tuple(edits), text="", label="card_linking", score=0.713, old_label="card_arrival", old_score=0.93)


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        ([Edit(3, "not", "")], "Without ‘not’ it would be"),
        ([Edit(3, "not", ""), Edit(4, "arrive", "")], "Without ‘not’ and ‘arrive’ it would be"),
        ([Edit(4, "arrive", "link")], "With ‘link’ for ‘arrive’ it would be"),
        ([Edit(4, "arrive", "link"), Edit(0, "my", "")], "Without ‘my’ and with ‘link’ for ‘arrive’ it would be"),
        ([Edit(4, "a", "b"), Edit(0, "c", "d"), Edit(1, "e", "")], "Without ‘e’, with ‘b’ for ‘a’ and with ‘d’ for ‘c’ it would be"),
    ],
)
def test_flips(edits, told):
    assert telling.flip(flipped(*edits)) == f"{told} card linking, 71 %; now it is card arrival, 93 %."


def near(label, similarity, supports):
    return Neighbour("some text", label, similarity, supports)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([], "No example that the model learnt from is at hand."),
        ([near("a_b", 0.914, True)], "The nearest known example (likeness 0.91) is a b, which supports the answer."),
        ([near("a", 0.8, True), near("a", 0.914, True)], "Of the 2 nearest known examples all support the answer, the nearest with a likeness of 0.91."),
        ([near("b", 0.8, False), near("c", 0.7, False)], "Of the 2 nearest known examples none supports the answer: the nearest b at 0.80."),
        (
            [near("a", 0.9, True), near("b", 0.84, False), near("c", 0.7, False)],
            "Of the 3 nearest known examples 1 supports the answer, the nearest at 0.90, and 2 contradict it, the nearest b at 0.84.",
        ),
    ],
)
def test_neighbours(found, told):
    assert telling.neighbours(found) == told


def test_two_versions_that_agree_differ_in_words():
    second = explained(version="b2", score=0.97, values=(0.0, 0.02, 0.01, -0.08, 0.55))
    assert telling.compared(explained(), second) == (
        "Both read this as card arrival: 93 % in a1, 97 % in b2. "
        "What changed most is the value of ‘arrive’ (from +0.31 to +0.55) and ‘card’ (from +0.22 to +0.02)."
    )


def test_two_versions_with_nothing_between_them():
    assert telling.compared(explained(), explained(version="b2")).endswith("No word's value differs by 0.01 or more.")


def test_two_versions_that_answer_otherwise():
    second = explained(version="b2", label="card_linking", target="card_linking", score=0.6, values=(0.0, 0.5, 0.0, 0.0, 0.0))
    assert telling.compared(explained(), second) == (
        "a1 reads this as card arrival (93 %), b2 as card linking (60 %). a1 leans most on ‘arrive’ (+0.31), b2 on ‘card’ (+0.50)."
    )


def test_two_versions_on_an_empty_text():
    nothing = explained(tokens=(), values=())
    assert telling.compared(nothing, dataclasses.replace(nothing, version="b2")).endswith("There are no words to compare.")


# --- whatever comes

HOSTILE = ["<script>alert(1)</script>", "**bold**", "$\\frac{1}{2}$", "a\x00b\x07c", "x\u202eevil", "👩‍👩‍👧", "w" * 10_000, "line\nbreak\ttab", "...", "\ud800"]


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_words_come_out_as_one_short_line(token):
    said = telling.sentence(explained(tokens=(token, "card"), values=(0.3, 0.1), label=token, target=token))
    assert len(said) < 400
    assert not [c for c in said if unicodedata.category(c) in ("Cc", "Cs") or c == "\u202e"]


def test_markup_is_left_as_it_is_for_the_page_to_escape():
    assert "‘<b>hi</b>’" in telling.sentence(explained(tokens=("<b>hi</b>", "x"), values=(0.3, 0.0)))
    assert telling.quoted("👩‍👩‍👧") == "‘👩‍👩‍👧’", "a joined emoji stays one"


NUMBERS = st.floats(-1, 1, allow_nan=False)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(st.text(min_size=1, max_size=60), NUMBERS), max_size=8), score=st.floats(0, 1), target=st.sampled_from(["card_arrival", "net", "other"]))
def test_every_number_told_is_one_that_came_in(rows, score, target):
    tokens, values = tuple(f"t{i}" for i in range(len(rows))), tuple(v for _, v in rows)
    said = telling.sentence(explained(tokens=tokens, values=values, score=score, target=target))
    told = re.findall(r"[+−]?\d+\.\d\d", said)
    known = {telling.signed(v) for v in (*values, score)} | {telling.number(0.47), "0.01"}
    assert set(told) <= known
    for token, number in re.findall(r"‘(t\d)’ speaks? (?:for|against)[^(]*\(([^ )]+)\)", said):
        assert number == telling.signed(values[int(token[1:])])
    words = telling.sentence(explained(tokens=tuple(t for t, _ in rows), values=values, target=target, label="x"))
    assert "\n" not in words and not [c for c in words if unicodedata.category(c) in ("Cc", "Cs")]


@given(NUMBERS)
def test_signs_and_digits(value):
    told = telling.signed(value)
    assert abs(float(told.replace("−", "-")) - value) <= 0.005 + 1e-9
    assert (told[0] in "+−") == (told != "0.00")
