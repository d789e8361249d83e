"""Counterfactuals on toy models whose fewest edits are known: minimal, verified, bounded, and possible on any text."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcore.explain import counterfactual
from fmcore.explain.words import split
from fmcore.nouns import Cancelled, Edit

LABELS = ("card", "refund", "other")
WEIGHTS = {"card": (3.0, 0, 0), "plastic": (2.0, 0, 0), "refund": (0, 3.0, 0), "money": (0, 1.5, 0), "hello": (0, 0, 0.4), "卡": (3.0, 0, 0), "退款": (0, 3.0, 0)}
BIAS = np.array([0.0, -0.5, 0.5])


def toy(texts):
    """A linear model on words; the empty text is "other"."""
    scores = np.array([BIAS + sum((np.array(WEIGHTS.get(w.strip("?!.").casefold(), (0, 0, 0))) for w in split(t).tokens), np.zeros(3)) for t in texts])
    exponents = np.exp(scores)
    return exponents / exponents.sum(axis=1, keepdims=True)


def answer(text, score=toy):
    return LABELS[int(score([text])[0].argmax())]


def search(text, *, score=toy, propose=None, **options):
    return counterfactual.flips(score, LABELS, split(text), label=answer(text, score), propose=propose, **options)


def always(*proposals):
    return lambda words, place, k: list(proposals)[:k]


class Counted:
    def __init__(self, score=toy):
        self.score, self.n, self.batches = score, 0, []

    def __call__(self, texts):
        self.n += len(texts)
        self.batches.append(list(texts))
        return self.score(texts)


def test_one_deletion_is_found_where_one_is_enough():
    found = search("please block my card today")
    assert found.flips[0].edits == (Edit(3, "card", ""),)
    assert (found.flips[0].text, found.flips[0].old_label, found.flips[0].label) == ("please block my today", "card", "other")


def test_no_pair_is_returned_or_asked_for_where_one_edit_does_it():
    asked = Counted()
    found = search("please block my card today", score=asked, propose=always("refund"))
    assert {len(flip.edits) for flip in found.flips} == {1}
    assert "pairs" not in found.tried
    assert all(len(split(text)) >= 4 for batch in asked.batches for text in batch)


@pytest.mark.parametrize(("text", "n"), [("the card and plastic here", 2), ("card plastic and another card here", 3)])
def test_the_fewest_edits_are_found_where_one_is_not_enough(text, n):
    found = search(text)
    assert len(found.flips[0].edits) == n and found.flips[0].label == "other"
    for smaller in range(1, n):
        for places in itertools.combinations(range(len(split(text))), smaller):
            assert answer(split(text).keep([i not in places for i in range(len(split(text)))])) == "card"


def test_no_flip_is_made_up_where_three_edits_do_not_do_it():
    found = search("card card card card plastic plastic")
    assert found.flips == () and "None gave the text another label" in found.tried


def test_most_edits_is_kept_to():
    assert search("the card and plastic here", most_edits=1).flips == ()


def test_flips_differ_in_place_or_label_and_the_surest_comes_first():
    found = search("block my card today", propose=always("refund", "money"), k=3)
    assert len({(tuple(e.place for e in flip.edits), flip.label) for flip in found.flips}) == len(found.flips) >= 2
    assert {flip.label for flip in found.flips} == {"refund", "other"}
    assert [flip.score for flip in found.flips] == sorted((flip.score for flip in found.flips), reverse=True)


def test_a_text_of_one_word_is_never_emptied_but_may_be_swapped():
    assert search("card").flips == ()
    found = search("card", propose=always("refund"))
    assert [(flip.text, flip.label) for flip in found.flips] == [("refund", "refund")]


def test_what_was_tried_is_said_with_its_numbers():
    assert search("the card and plastic here").tried.startswith("Tried 5 deletions and 10 pairs of edits on 5 words. Words were deleted only")
    assert search("block my card today", propose=always("refund", "money")).tried == "Tried 4 deletions and 4 swaps on 4 words."
    assert search("card plastic").tried.startswith("Tried 2 deletions on 2 words.")
    assert search("card", propose=always("plastic")).tried.startswith("Tried 1 swap on 1 word. None gave")
    assert search("card").tried.startswith("Nothing to try on 1 word.")


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_a_text_without_words_has_none_and_costs_no_call(text):
    asked = Counted()
    found = counterfactual.flips(asked, LABELS, split(text), label="other")
    assert (found.flips, found.n_calls, asked.n) == ((), 0, 0) and "no words" in found.tried


def test_chinese_words_are_deleted_and_swapped_whole():
    found = search("我的卡在哪里", propose=always("退款"))
    assert {flip.label for flip in found.flips} & {"refund", "other"} and all(flip.text != "" for flip in found.flips)
    assert any(edit.old == "卡" for flip in found.flips for edit in flip.edits)


def test_punctuation_alone_is_not_a_text():
    found = search("card ! ?")
    assert all(any(c.isalnum() for c in flip.text) for flip in found.flips)


def test_the_words_that_matter_are_found_in_a_very_long_text_within_the_budget():
    text = " ".join(["nothing"] * 2000 + ["card"] + ["nothing"] * 1999)
    asked = Counted()
    found = search(text, score=asked, budget=300)
    assert found.flips[0].edits == (Edit(2000, "card", ""),) and found.n_calls <= 300
    assert "4,000 words" in found.tried and "48 at most" in found.tried


def test_the_model_is_asked_no_more_than_the_budget_and_for_no_text_twice_but_to_verify():
    text = "card plastic card plastic and many other words that do nothing at all here today"
    for budget in (1, 5, 20, 60, 200):
        asked = Counted()
        found = counterfactual.flips(asked, LABELS, split(text), label="card", propose=always("money", "hello"), budget=budget)
        assert found.n_calls == asked.n <= budget
        searched = [t for batch in asked.batches if len(batch) > 1 for t in batch]
        assert len(searched) == len(set(searched))


def test_what_only_flips_in_company_is_not_returned():
    """A quantised model's answer depends a little on the batch: only what the text gets by itself counts."""
    def moody(texts):
        return toy(texts) if len(texts) == 1 else toy(["refund"] * len(texts))

    found = search("card card card card plastic plastic", score=moody)
    assert found.flips == ()


def test_a_close_flip_that_does_not_hold_alone_does_not_end_the_search():
    def moody(texts):
        return np.array([toy(["refund"])[0] if len(texts) > 1 and t == "card plastic" else toy([t])[0] for t in texts])

    found = search("card plastic here", score=moody)
    assert found.flips and all(answer(flip.text, moody) == flip.label for flip in found.flips)


def test_a_wrong_label_is_said_and_not_searched_from():
    found = counterfactual.flips(toy, LABELS, split("my card"), label="refund")
    assert found.flips == () and "card, not refund" in found.tried


def test_a_model_with_one_label_has_no_flips():
    found = counterfactual.flips(lambda texts: np.ones((len(texts), 1)), ("only",), split("a b c"), label="only", propose=always("d"))
    assert found.flips == ()


def test_progress_runs_up_to_one_and_stops_the_search_when_it_raises():
    seen = []
    search("card plastic and another card here", progress=seen.append)
    assert seen == sorted(seen) and 0 < seen[-1] <= 1

    def cancelled(fraction):
        raise Cancelled

    with pytest.raises(Cancelled):
        search("my card", progress=cancelled)


def test_proposals_that_say_nothing_new_are_not_asked_for():
    asked = Counted()
    search("my card", score=asked, propose=always("card", "CARD", "", "?!", "money"))
    texts = {t for batch in asked.batches for t in batch}
    assert texts == {"my card", "my", "card", "my money", "money card", "card card", "CARD card"}


vocabulary = st.sampled_from([*WEIGHTS, "please", "today", "now", "Card?", "🙂", "-"])


@given(words=st.lists(vocabulary, min_size=1, max_size=9), proposed=st.lists(vocabulary, max_size=4), budget=st.integers(1, 150))
def test_every_flip_is_what_it_says(words, proposed, budget):
    text = " ".join(words)
    split_text = split(text)
    found = search(text, propose=always(*proposed), budget=budget)
    assert found.n_calls <= budget
    for flip in found.flips:
        assert answer(flip.text) == flip.label != flip.old_label == answer(text)
        assert flip.score == pytest.approx(toy([flip.text])[0].max()) and flip.old_score == pytest.approx(toy([text])[0].max())
        tokens = list(split_text.tokens)
        for edit in flip.edits:
            assert tokens[edit.place] == edit.old != edit.new
            tokens[edit.place] = edit.new
        assert split_text.edited(tokens) == flip.text and split(flip.text).tokens
        assert 1 <= len(flip.edits) <= 3 and len({edit.place for edit in flip.edits}) == len(flip.edits)
