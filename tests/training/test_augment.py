"""Augmentations: what each does to a text, what survives whatever the text, and who is asked whether the label is still the same."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fmcore.training import augment, wordings

NAMES = list(augment.AUGMENTATIONS)
WORDS = [*wordings.guard_words(), *wordings.synonyms(), *wordings.chinese(), "don't", "can\u2019t", "-3.2", "+5", "\u22127 %", "5 %", "EUR 8.7 mn",
         "to 12 from 10", "rose 4 %", "In 2009 ,", "in 2009", "said that", "How do I", "?", ".", ". The", "不", "下跌5%。", "没有", "的", "Nokia", "the"]  # fmt: skip
SENTENCES = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)


def rng(seed=0):
    return np.random.default_rng(seed)


def made(name, text, *, seeds=40):
    """Everything an augmentation makes of a text."""
    return {augment.augmented(name, text, rng(seed)) for seed in range(seeds)}


# ---------------------------------------------------------------- what survives


@pytest.mark.parametrize("name", NAMES)
@given(text=st.one_of(SENTENCES, st.text(max_size=120)), seed=st.integers(0, 2**32))
@example(text="Sales did not rise 5 % and profit fell to -3 from +2 .", seed=0)
@example(text="公司营收没有上涨5%。", seed=1)
def test_negations_directions_and_signed_numbers_survive_every_augmentation(name, text, seed):
    changed = augment.augmented(name, text, rng(seed))
    assert wordings.guards(changed) == wordings.guards(text)
    assert bool(changed.strip()) == bool(text.strip())
    assert augment.augmented(name, text, rng(seed)) == changed  # pure: text and generator decide


def test_the_guard_list_knows_negations_directions_and_signs():
    assert wordings.guards("Sales did not rise") == wordings.guards("Not a rise in sales") != wordings.guards("Sales did rise")
    assert wordings.guards("isn't") == wordings.guards("is not") == wordings.guards("cannot")
    assert wordings.guards("up 5 %") != wordings.guards("down 5 %") and wordings.guards("-5") != wordings.guards("5")
    assert wordings.guards("profitable") != wordings.guards("unprofitable")
    assert wordings.guards("不能退款") != wordings.guards("能退款") and wordings.guards("上涨") != wordings.guards("下跌")


def test_no_entry_of_the_tables_is_a_guarded_word_or_leads_to_one():
    for word, others in {**wordings.synonyms(), **wordings.chinese()}.items():
        for other in others:
            assert wordings.guards(word) == wordings.guards(other), (word, other)


def test_a_flip_of_a_guarded_word_is_never_let_through():
    flips = {"rose": "fell", "not": "", "-3": "3"}
    for old, new in flips.items():
        text = f"profit {old} again"
        kept, told = augment.checked("flip", lambda t, _, a=old, b=new: t.replace(a, b), [text], ["x"], lambda t, r: ["x"] * len(t), seed=0)
        assert kept == [] and told.n_changed == 0


# ---------------------------------------------------------------- what each does


def test_synonyms_keep_case_and_punctuation():
    assert made("synonym", "The Company signed it.") == {"The Firm signed it.", "The Business signed it."}
    assert made("synonym", "公司没有回应") == {"企业没有回应"}


def test_words_are_left_out_but_never_all_of_them_nor_what_follows_a_negation():
    text = "we did not receive the goods that were ordered by our office"
    for changed in made("token_dropout", text):
        assert "not receive" in changed and len(text.split()) > len(changed.split()) >= 4
    assert made("token_dropout", "my card is lost") == {"my card is lost"}
    assert made("token_dropout", "我的卡丢了", seeds=5) <= {"我卡丢了", "我的卡丢", "我卡丢"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Net sales rose 5 % to EUR 3 mn .", "There was a rise of 5 % in net sales to EUR 3 mn ."),
        ("Orders decreased by 12 percent.", "There was a decrease of 12 percent in orders."),
        ("Nokia acquired the unit .", "The unit was acquired by Nokia ."),
        ("In the survey , Goodyear came third .", "Goodyear came third in the survey ."),
        ("The company paid a dividend in 2005 .", "In 2005, the company paid a dividend ."),
        ("Metso said that demand is flat .", "Demand is flat, Metso said ."),
        ("Profit rose to EUR 13.1 mn from EUR 8.7 mn .", "Profit rose from EUR 8.7 mn to EUR 13.1 mn ."),
        ("How do I change my PIN?", "I would like to change my PIN. How does that work?"),
        ("Can I use any card?", "Is it possible for me to use any card?"),
        ("Why is my card payment pending?", "My card payment is pending. Why?"),
        ("Why is the identity check involved?", "The identity check is involved. Why?"),
        ("Thanks. Please close my account.", "Thanks. Could you close my account, please?"),
        ("营收上涨5%。", "营收出现了5%的上涨。"),
        ("如何修改密码？", "我想修改密码，请问该怎么做？"),
    ],
)
def test_a_sentence_is_rebuilt_by_the_template_that_fits_it(text, expected):
    assert expected in made("back_template", text)


@pytest.mark.parametrize(
    "text",
    [
        "", "Hello", "Sales have not increased 5 %", "EUR 3 mn",
        "Profit was EUR 15 mn compared to EUR 6 mn in 2008 .", "In 2009 , profit was EUR 15 mn compared to EUR 6 mn .",
    ],
)  # fmt: skip
def test_a_text_that_no_template_fits_stays_as_it_is(text):
    assert made("back_template", text) == {text}


def test_an_unknown_augmentation_is_named():
    with pytest.raises(augment.UnknownAugmentation, match="rot13"):
        augment.augmented("rot13", "x", rng())
    with pytest.raises(augment.UnknownAugmentation):
        augment.added(["rot13"], ["x"], ["a"], lambda t, r: ["a"], seed=0)


# ---------------------------------------------------------------- whether the label is kept


def weather(n=40):
    texts = [f"a {'sunny' if i % 2 else 'rainy'} day number {i} at home" for i in range(n)]
    return texts, ["fine" if "sunny" in text else "wet" for text in texts]


def reading(texts, rows):
    """A judge that reads."""
    return ["fine" if "sunny" in text else "wet" for text in texts]


def test_a_planted_augmentation_that_flips_labels_is_caught_and_nothing_of_it_is_kept():
    texts, labels = weather()
    flip = lambda text, _: text.replace("sunny", "rainy")  # noqa: E731
    kept, told = augment.checked("flip", flip, texts, labels, reading, seed=0)
    assert kept == [] and told.kept_share == 0 and told.n == told.n_changed == 20
    assert "kept on 0%" in told.refused and "90% are asked for" in told.refused
    assert all(not each["kept"] and each["label"] == "fine" and each["said"] == "wet" for each in told.examples)


def test_one_that_flips_a_few_is_used_without_those():
    texts, labels = weather(100)
    flip = lambda text, _: text.replace("sunny", "rainy") if "number 1 " in text else text.replace("home", "work")  # noqa: E731
    kept, told = augment.checked("flip", flip, texts, labels, reading, seed=0)
    assert told.refused == "" and told.kept_share == pytest.approx(0.99) and told.low <= 0.99 <= told.high
    assert 1 not in [row for row, _ in kept] and len(kept) == 99
    assert {each["kept"] for each in told.examples} == {True, False}
    assert all(each["before"] != each["after"] for each in told.examples)


def test_the_floor_is_stated_and_can_be_asked_for():
    texts, labels = weather()
    flip = lambda text, _: text.replace("sunny", "rainy") if "number 1" in text else text.replace("home", "work")  # noqa: E731
    for floor, refused in ((0.5, False), (0.99, True)):
        _, told = augment.checked("flip", flip, texts, labels, reading, seed=0, floor=floor)
        assert bool(told.refused) == refused


def test_rows_that_the_judge_misreads_are_neither_counted_nor_used():
    texts, labels = weather()
    labels = ["wet"] * len(labels)
    change = lambda text, _: text.replace("home", "work")  # noqa: E731
    kept, told = augment.checked("change", change, texts, labels, reading, seed=0)
    assert told.n == 20 and told.n_changed == 40 and all("rainy" in text for _, text in kept)


def test_too_few_judged_texts_show_nothing():
    texts, labels = weather(3)
    _, told = augment.checked("change", lambda text, _: f"{text} now", texts, labels, reading, seed=0)
    assert "Only 3" in told.refused
    _, nothing = augment.checked("same", lambda text, _: text, texts, labels, reading, seed=0)
    assert nothing.n == 0 and nothing.kept_share is None and nothing.refused


def test_the_judge_never_learnt_from_the_row_that_it_judges():
    chance = rng(3)
    vectors = np.eye(60, dtype=np.float32)  # nothing in common: whoever learnt from a row knows it, nobody else can
    texts, labels = [f"text {i}" for i in range(60)], chance.choice(["a", "b"], 60).tolist()
    judge = augment.folds_judge(texts, labels, vectors, lambda new: vectors[: len(new)])
    said = judge(texts, list(range(60)))
    assert np.mean([one == other for one, other in zip(said, labels, strict=True)]) < 0.75


def test_the_judge_knows_what_other_rows_teach_and_asks_only_for_vectors_of_new_texts():
    texts, labels = weather()
    vectors = np.array([[1.0, 0.1] if label == "fine" else [0.1, 1.0] for label in labels], dtype=np.float32)
    asked = []

    def embed(new):
        asked.extend(new)
        return np.tile(np.float32([1.0, 0.1]), (len(new), 1))

    judge = augment.folds_judge(texts, labels, vectors, embed)
    assert judge(texts, list(range(len(texts)))) == labels and asked == []
    assert judge(["quite new", texts[1]], [0, 1]) == ["fine", "fine"] and asked == ["quite new"]


def test_the_same_text_twice_is_never_learnt_from_and_judged():
    texts = [f"text {i}" for i in range(20)] * 2
    labels = rng(1).choice(["a", "b"], 20).tolist() * 2
    vectors = np.tile(np.eye(20, dtype=np.float32), (2, 1))
    judge = augment.folds_judge(texts, labels, vectors, lambda new: vectors[: len(new)])
    right = [one == other for one, other in zip(judge(texts, list(range(40))), labels, strict=True)]
    assert np.mean(right) < 0.75


def test_what_is_added_carries_its_row_and_is_the_same_again():
    texts = [f"{'the company' if i % 2 else 'the rain'} was here on day {i}, said the staff" for i in range(30)]
    labels = ["a" if "company" in text else "b" for text in texts]
    judge = lambda made, rows: [labels[row] for row in rows]  # noqa: E731
    first, again = (augment.added(["synonym", "token_dropout"], texts, labels, judge, seed=2) for _ in range(2))
    assert first == again and len(first.texts) == len(first.rows) == 60 and [t.name for t in first.told] == ["synonym", "token_dropout"]
    assert all(new != texts[row] for new, row in zip(first.texts, first.rows, strict=True))
    assert first.identity() != augment.added(["synonym"], texts, labels, judge, seed=2).identity() and augment.Added().identity() == ""
