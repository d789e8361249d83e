"""A WordPiece tokenizer of one's own, learnt from a sample of a corpus (the library tokenizers does it), as pretraining from scratch needs.

The sample is bounded: a vocabulary of some thousand words is settled by a few hundred thousand sentences, however large the corpus.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any

from fmcore.nouns import FMError

SAMPLE = 200_000
"""Sentences that a vocabulary is learnt from at most."""
LEAST_VOCABULARY = 100
ALPHABET = 400
"""Single characters at most: a corpus with a stray Chinese sentence must not spend its vocabulary on it."""
SIGNS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


class BadVocabulary(FMError):
    """A vocabulary too small to write anything with."""


def train(sentences: Iterable[str], *, vocab: int, max_tokens: int) -> Any:
    """A fast Hugging Face tokenizer of at most `vocab` pieces: lower case, without accents, BERT's words (Devlin et al. 2019), [CLS] and
    [SEP] round each text. The same sentences give the same pieces. Raises BadVocabulary.

    The trainer numbers single letters in the order of a hash table, which differs from run to run, and breaks ties by those numbers: given
    as if they were signs, they keep the numbers given here.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab < LEAST_VOCABULARY:
        raise BadVocabulary(f"A vocabulary of {vocab} pieces is too small.", f"At least {LEAST_VOCABULARY}; 4,000 to 16,000 are usual.")
    signs, sample = list(SIGNS.values()), list(itertools.islice(sentences, SAMPLE))
    normalizer = normalizers.BertNormalizer()
    letters = Counter(letter for sentence in sample for letter in normalizer.normalize_str(sentence) if not letter.isspace())
    alphabet = sorted(sorted(letters, key=lambda letter: (-letters[letter], letter))[:ALPHABET])
    learner = Tokenizer(models.WordPiece(unk_token=SIGNS["unk_token"]))
    learner.normalizer, learner.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab, special_tokens=[*signs, *alphabet, *(f"##{letter}" for letter in alphabet)], initial_alphabet=alphabet,
        limit_alphabet=len(alphabet), show_progress=False,
    )  # fmt: skip
    learner.train_from_iterator(sample, trainer)
    tokenizer = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token=SIGNS["unk_token"]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    at = {sign: tokenizer.token_to_id(sign) for sign in signs}
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", at["[SEP]"]), ("[CLS]", at["[CLS]"]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_tokens, **SIGNS)
