"""What is masked: whole words, about 15 % of them, never punctuation; and which words may be proposed."""

import numpy as np
import pytest

from fmcore.models.encoder import load_encoder
from fmcore.training import mask_filling
from tests.tiny_encoder import save_tiny_encoder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    return load_encoder(save_tiny_encoder(tmp_path_factory.mktemp("base")), max_tokens=32, device="cpu")


def shown_and_asked(encoder, texts, seed=0):
    rows = mask_filling.tokenized(encoder, texts)
    batch = mask_filling.masked(rows, encoder, chance=np.random.default_rng(seed))
    return rows, batch["input_ids"].numpy(), batch["targets"].numpy()


def test_every_text_has_a_word_masked_and_long_ones_about_15_percent(encoder):
    long = "please my the is not i can how do with why still need help today card chip pin refund money"
    rows, _, targets = shown_and_asked(encoder, ["card", long])
    assert [(t != mask_filling.NO_WORD).sum() for t in targets] == [1, 3] and len(rows) == 2


def test_what_is_asked_is_hidden_and_what_is_not_stays(encoder):
    rows, shown, targets = shown_and_asked(encoder, ["please replace my card today", "refund my money"])
    for row, ids, wanted in zip(rows, shown, targets, strict=True):
        for true, seen, asked in zip(row.ids, ids, wanted, strict=False):
            assert (seen, asked) in ((encoder.tokenizer.mask_token_id, true), (true, mask_filling.NO_WORD))


def test_punctuation_and_special_tokens_are_never_masked(encoder):
    for seed in range(20):
        rows, _, targets = shown_and_asked(encoder, ["card ! ! ! ? ? , my"], seed)
        kept = rows[0].words >= 0
        assert kept.sum() == 2 and not (targets[0] != mask_filling.NO_WORD)[~kept].any()


def test_a_text_without_words_is_left_out(encoder):
    assert len(mask_filling.tokenized(encoder, ["???", "", "card"])) == 1


def test_the_pieces_of_a_word_are_masked_together(encoder):
    row = mask_filling._Row([2, 5, 6, 7, 8, 3], np.array([-1, 0, 0, 0, 1, -1]))
    for seed in range(10):
        hidden = mask_filling.masked([row], encoder, chance=np.random.default_rng(seed))["targets"].numpy()[0] != mask_filling.NO_WORD
        assert hidden[1:4].all() or not hidden[1:4].any()


def test_only_whole_words_of_the_texts_may_be_proposed(encoder):
    words = mask_filling.whole_words(encoder, ["Card chip, unheardof word!", "my card"])
    assert sorted(words.values()) == ["card", "chip", "my"]
    assert all(encoder.tokenizer.get_vocab()[word] == token for token, word in words.items())


def test_the_steps_asked_for_bound_the_passes(encoder):
    assert mask_filling.Filling(steps=900, batch=32).plan(n_texts=9000).epochs == 3
    assert mask_filling.Filling(steps=10, batch=32).plan(n_texts=9000).epochs == 1
