"""Words of a text: whole, in any script, and the text without some of them."""

from hypothesis import given
from hypothesis import strategies as st

from fmcore import text
from fmcore.explain.words import split


def tokens(of):
    return list(split(of).tokens)


def test_words_are_what_stands_between_blanks_punctuation_and_all():
    assert tokens("Where is  my card?\nI'm waiting, still.") == ["Where", "is", "my", "card?", "I'm", "waiting,", "still."]


def test_chinese_is_cut_by_a_dictionary_and_put_back_without_blanks():
    words = split("我的银行卡还没有到。")
    assert "银行卡" in words.tokens and len(words) > 3
    assert "".join(words.tokens) == words.text, "the full stop goes with the word before it"
    without = words.keep([token != "银行卡" for token in words.tokens])
    assert without == "我的还没有到。" and " " not in without


def test_scripts_in_one_stretch_are_told_apart():
    found = tokens("用iPhone支付, ok")
    assert found[-1] == "ok" and any(token.startswith("iPhone") for token in found) and len(found) >= 4


def test_a_text_of_blanks_has_no_words_and_one_word_is_one():
    assert len(split("")) == len(split(" \n\t ")) == 0
    assert tokens("Hilfe!") == ["Hilfe!"]
    assert split("Hilfe!").keep([False]) == ""


def test_edited_deletes_and_swaps_in_place():
    words = split("the market fell again")
    assert words.edited(["the", "", "rose", "again"]) == "the rose again"


def test_runs_join_neighbours_and_lose_no_word():
    words = split(" ".join(f"w{i}" for i in range(10_000)))
    runs = words.runs(28)
    assert len(runs) == 28 and " ".join(runs.tokens) == words.text
    sizes = {len(token.split()) for token in runs.tokens}
    assert max(sizes) - min(sizes) <= 1
    assert words.runs(10_000) is words


@given(st.text(max_size=200))
def test_any_text_is_cut_into_disjoint_spans_that_hold_all_but_blanks(raw):
    cleaned = text.clean(raw)[0]
    words = split(cleaned)
    ends = [0, *(place for span in words.spans for place in span)]
    assert ends == sorted(ends) and all(token.strip() for token in words.tokens)
    assert [c for c in cleaned if not c.isspace()] == [c for token in words.tokens for c in token if not c.isspace()]
    assert words.keep([True] * len(words)).split() == cleaned.split()
    assert words.keep([False] * len(words)) == ""
