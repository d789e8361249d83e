"""Packed rows and what is hidden in them: whole words, 15 %, 80/10/10, from a generator that a checkpoint keeps."""

import numpy as np
import pytest

from fmcore.training import packing, tokenizer_training
from fmcore.training.mask_filling import NO_WORD
from fmcore.training.packing import BEGINS, GOES_ON, NEVER, NothingToPack, Vocabulary

WORDS = [
    "profit",
    "rose",
    "fell",
    "shares",
    "bank",
    "company",
    "quarter",
    "sales",
    "higher",
    "lower",
    "market",
    "unexpectedly",
    "internationalization",
]
CHANCE = np.random.default_rng(3)
DOCUMENTS = [(" ".join(CHANCE.choice(WORDS, 9)) + ".", f"It was number {i} of many!") for i in range(80)]


@pytest.fixture(scope="session")
def tokenizer():
    return tokenizer_training.train((s for d in DOCUMENTS for s in d), vocab=120, max_tokens=32)


def packed(tokenizer, folder, **options):
    options = {"tokens": 32, "most_rows": 1000, "size": len(tokenizer), **options}
    return packing.pack(DOCUMENTS, tokenizer, folder, "rows", **options), Vocabulary.of(tokenizer, size=len(tokenizer))


def test_packing_loses_no_token_and_wastes_no_place(tokenizer, tmp_path):
    rows, vocabulary = packed(tokenizer, tmp_path)
    told = [t for row in rows.ids for t in row.tolist() if t not in (vocabulary.cls, vocabulary.pad)]
    expected = [t for d in DOCUMENTS for s in d for t in tokenizer(s, add_special_tokens=False)["input_ids"]]
    assert [t for t in told if t != vocabulary.sep] == expected and told.count(vocabulary.sep) == len(DOCUMENTS)
    assert (rows.ids[:-1] != vocabulary.pad).all() and rows.n_tokens == int((rows.ids != vocabulary.pad).sum())


def test_no_more_rows_are_made_than_asked_for(tokenizer, tmp_path):
    def endless():
        while True:
            yield DOCUMENTS[0]

    rows = packing.pack(endless(), tokenizer, tmp_path, "few", tokens=32, most_rows=7, size=len(tokenizer))
    assert rows.ids.shape == (7, 32) and (tmp_path / "few-ids.raw").stat().st_size == 7 * 32 * 2


def test_pieces_of_a_word_stand_together_and_signs_are_never_hidden(tokenizer, tmp_path):
    rows, vocabulary = packed(tokenizer, tmp_path)
    pieces = np.array(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))))[rows.ids]
    goes_on = np.char.startswith(pieces.astype(str), "##")
    assert goes_on.any() and (rows.words[goes_on] == GOES_ON).all() and not (rows.words[~goes_on] == GOES_ON).any()
    assert (rows.words[np.isin(pieces, [".", "!", "[SEP]", "[CLS]", "[PAD]", "[UNK]"])] == NEVER).all()


def test_whole_words_are_hidden_about_15_percent_of_them_and_replaced_80_10_10(tokenizer, tmp_path):
    rows, vocabulary = packed(tokenizer, tmp_path)
    chance = np.random.default_rng(0)
    begun = hidden = pieces = masked = kept = 0
    for _ in range(30):
        shown, asked = packing.hidden(rows.ids, rows.words, vocabulary, chance=chance)
        there = asked != NO_WORD
        assert (asked[there] == rows.ids[there]).all() and (shown[~there] == rows.ids[~there]).all()
        assert not there[rows.words == NEVER].any()
        after = rows.words[:, 1:] == GOES_ON
        whole = (rows.words[:, :-1] != NEVER) & after
        assert (there[:, 1:] == there[:, :-1])[whole].all()
        pieces += int(there.sum())
        begun, hidden = begun + int((rows.words == BEGINS).sum()), hidden + int((there & (rows.words == BEGINS)).sum())
        masked, kept = masked + int((shown[there] == vocabulary.mask).sum()), kept + int((shown[there] == rows.ids[there]).sum())
    shown, asked = packing.hidden(rows.ids, rows.words, vocabulary, chance=chance, exam=True)
    assert (shown[asked != NO_WORD] == vocabulary.mask).all()
    assert 0.13 < hidden / begun < 0.18
    assert 0.78 < masked / pieces < 0.82 and 0.08 < kept / pieces < 0.12


def test_what_is_hidden_differs_from_step_to_step_and_is_the_generators_alone(tokenizer, tmp_path):
    rows, vocabulary = packed(tokenizer, tmp_path)
    drawn = [packing.hidden(rows.ids, rows.words, vocabulary, chance=np.random.default_rng(s))[1] for s in (1, 1, 2)]
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any()


def test_every_row_with_a_word_has_one_hidden(tokenizer, tmp_path):
    rows, vocabulary = packed(tokenizer, tmp_path, tokens=8)
    for seed in range(5):
        asked = packing.hidden(rows.ids, rows.words, vocabulary, chance=np.random.default_rng(seed))[1]
        assert ((asked != NO_WORD).any(axis=1) == (rows.words == BEGINS).any(axis=1)).all()


@pytest.mark.parametrize("objective", ["nsp", "sop"])
def test_half_of_the_pairs_are_true_and_the_others_are_another_documents_or_swapped(tokenizer, tmp_path, objective):
    rows, vocabulary = packed(tokenizer, tmp_path, objective=objective)
    assert 0.3 < rows.relation.mean() < 0.7 and len(rows.relation) == len(DOCUMENTS)
    for ids, alike, document in zip(rows.ids.tolist(), rows.relation, DOCUMENTS, strict=True):
        first, second = " ".join(tokenizer.convert_ids_to_tokens(ids)).split(" [SEP]")[:2]
        halves = [" ".join(tokenizer.tokenize(s)[:14]) for s in document]
        said = [first.removeprefix("[CLS] "), second.strip()]
        assert (said == halves) == bool(alike) or (objective == "nsp" and said[1] in halves)
        assert alike or (said == halves[::-1] if objective == "sop" else said[0] == halves[0])


def test_documents_without_words_give_a_reason(tokenizer, tmp_path):
    with pytest.raises(NothingToPack):
        packing.pack([("...",), ("!",)], tokenizer, tmp_path, "none", tokens=16, most_rows=5, size=len(tokenizer))


def test_a_vocabulary_is_bounded_and_a_tiny_one_refused():
    with pytest.raises(tokenizer_training.BadVocabulary):
        tokenizer_training.train(["a"], vocab=10, max_tokens=8)
    assert len(tokenizer_training.train((s for d in DOCUMENTS for s in d), vocab=110, max_tokens=8)) <= 110
