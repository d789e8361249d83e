"""Untrusted text: bounded, storable, harmless."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcore import text


@given(st.text(alphabet=st.characters(codec=None), max_size=300))
def test_any_text_becomes_storable_and_stays_the_same_when_cleaned_again(raw):
    once, _ = text.clean(raw)
    once.encode("utf-8")
    assert "\x00" not in once
    assert text.clean(once)[0] == once


@pytest.mark.parametrize("nothing", [None, float("nan"), ""])
def test_nothing_is_the_empty_text(nothing):
    assert text.clean(nothing) == ("", False)


def test_a_long_text_is_cut_and_says_so():
    kept, truncated = text.clean("x" * 1_000_000)
    assert truncated
    assert len(kept) == text.MAX_CHARS


def test_a_lone_surrogate_is_replaced_not_raised():
    assert text.clean("a\ud800b")[0] == "a?b"


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "  =1", "\uff1d1", "\u200b=1"])
def test_a_formula_is_disarmed(cell):
    assert text.spreadsheet_safe(cell) == "'" + cell


@pytest.mark.parametrize("cell", [5, -5.5, "-5", "+3.2", "hello = world", "", None])
def test_numbers_and_plain_text_are_left_alone(cell):
    assert text.spreadsheet_safe(cell) == cell


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a\x00b", "%2e%2e", "a..b", "x" * 81, "con\n", "ａ"])
def test_a_hostile_name_is_no_name(name):
    assert not text.is_name(name)


def test_a_plain_name_is_one():
    assert text.is_name("20261123-banking77.full_1")
