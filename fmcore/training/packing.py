"""Packed rows: a corpus as token rows of one length on disk, and which of their words are hidden at a step.

Document stands after document, each with its [SEP], cut where a row is full, so that no place is wasted on padding. Attention stays within
a document and places are counted from its start (where the base model is a BERT; else attention goes over the whole row, as in RoBERTa's
full sentences, Liu et al. 2019). For an objective about two segments a row is one pair,
[CLS] first [SEP] second [SEP], padded. Memory is bounded: rows are written as they are made, read as a memory map, and no more are made
than a run will see. Hiding is BERT's with whole words: 15 % of the words; of their pieces 80 % become [MASK], 10 % any piece, 10 % stay.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmcore.nouns import FMError
from fmcore.training.mask_filling import MASKED, NO_WORD

NEVER, BEGINS, GOES_ON = 0, 1, 2
"""What a place of a row is to hiding: no word (a sign, punctuation, padding), the first piece of a word, another piece of the same word."""
DOCUMENTS_AT_ONCE = 256
POOL = 1000
"""Segments that a wrong second one is drawn from."""
LEAST_PIECES = 4
"""Tokens of a document that can be cut in two."""
ALIKE = 0.5
"""Share of pairs whose second segment is the true one."""


class NothingToPack(FMError):
    """A corpus that gives no row."""


class NotWritten(FMError):
    """The disk did not take the packed rows."""


@dataclass(frozen=True)
class Packed:
    """Rows on disk. ids (n, tokens) unsigned; words (n, tokens) of NEVER, BEGINS, GOES_ON; relation (n,): 1 for a pair as it stands, 0 for
    one that is not, -1 for no pair. counts (vocabulary,): how often each token stands in them; sha256 is that of the rows."""

    ids: np.ndarray
    words: np.ndarray
    relation: np.ndarray
    counts: np.ndarray
    sha256: str

    @property
    def n_tokens(self) -> int:
        return int(self.counts.sum())

    @classmethod
    def open(cls, folder: Path, name: str) -> Packed:
        """What `pack` wrote under that name."""
        facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        shape = (facts["rows"], facts["tokens"])
        ids = np.memmap(folder / f"{name}-ids.raw", dtype=facts["kind"], mode="r", shape=shape)
        words = np.memmap(folder / f"{name}-words.raw", dtype=np.uint8, mode="r", shape=shape)
        relation = np.fromfile(folder / f"{name}-relation.raw", dtype=np.int8)
        return cls(ids, words, relation, np.array(facts["counts"]), facts["sha256"])


@dataclass(frozen=True)
class Vocabulary:
    """What packing and hiding need to know of a tokenizer. sayable[token]: it has a letter or a digit, so its word may be hidden."""

    size: int
    cls: int
    sep: int
    pad: int
    mask: int
    sayable: np.ndarray
    ordinary: np.ndarray

    @classmethod
    def of(cls, tokenizer: Any, *, size: int) -> Vocabulary:
        """size: rows of the model's word table, which may be more than the tokenizer has."""
        special = set(tokenizer.all_special_ids)
        sayable = np.zeros(size, dtype=bool)
        for piece, token in tokenizer.get_vocab().items():
            sayable[token] = token not in special and any(c.isalnum() for c in piece)
        ordinary = np.array(sorted(set(tokenizer.get_vocab().values()) - special), dtype=np.int64)
        start = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
        end = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
        return cls(size, start, end, tokenizer.pad_token_id or 0, tokenizer.mask_token_id, sayable, ordinary)


Line = tuple[np.ndarray, np.ndarray]
"""(ids, words) of a piece of text."""
Row = tuple[np.ndarray, np.ndarray, int]
"""(ids, words, relation) of one row, not yet padded."""


def pack(
    documents: Iterable[tuple[str, ...]], tokenizer: Any, folder: Path, name: str, *, tokens: int, most_rows: int, size: int,
    objective: str = "mlm", seed: int = 0, said: Callable[[int], None] = lambda n_rows: None,
) -> Packed:  # fmt: skip
    """Write rows of that many tokens, at most most_rows, and open them. objective "nsp" or "sop" makes pairs. said is told the rows made.

    Raises NothingToPack for documents without words, NotWritten when the disk is full.
    """
    vocabulary = Vocabulary.of(tokenizer, size=size)
    tokenized = _tokenized(documents, tokenizer, vocabulary)
    rows = _pairs(tokenized, vocabulary, tokens, objective, seed) if objective in ("nsp", "sop") else _packed(tokenized, vocabulary, tokens)
    kind = np.uint16 if size <= 2**16 else np.uint32
    counts, digest, relation = np.zeros(size, dtype=np.int64), hashlib.sha256(), []
    try:
        with (folder / f"{name}-ids.raw").open("wb") as ids_file, (folder / f"{name}-words.raw").open("wb") as words_file:
            for ids, words, alike in itertools.islice(rows, most_rows):
                whole, flags = np.full(tokens, vocabulary.pad, dtype=kind), np.zeros(tokens, dtype=np.uint8)
                whole[: len(ids)], flags[: len(words)] = ids, words
                counts += np.bincount(ids, minlength=size)
                relation.append(alike)
                digest.update(whole.tobytes())
                ids_file.write(whole.tobytes())
                words_file.write(flags.tobytes())
                if len(relation) % 1000 == 0:
                    said(len(relation))
        np.array(relation, dtype=np.int8).tofile(folder / f"{name}-relation.raw")
        facts = {"rows": len(relation), "tokens": tokens, "kind": np.dtype(kind).name, "sha256": digest.hexdigest()}
        facts["counts"] = counts.tolist()
        (folder / f"{name}.json").write_text(json.dumps(facts), encoding="utf-8")
    except OSError as error:
        raise NotWritten(f"The packed rows could not be written ({error}).", "Free some disk space, then resume.") from error
    if not relation:
        raise NothingToPack("The corpus gives no row to learn from.", "Choose a corpus with more text.")
    return Packed.open(folder, name)


def hidden(ids: np.ndarray, words: np.ndarray, vocabulary: Vocabulary, *, chance: Any, exam: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(what the model sees, what it is asked) for rows, both int64 (n, tokens); NO_WORD where nothing is asked. At least one word a row.

    chance.random(shape) and chance.choice draw: NumPy's global generator in training, whose state a checkpoint keeps, so that a resumed run
    hides the same words. exam: every hidden piece becomes [MASK].
    """
    ids = ids.astype(np.int64)
    begins = words == BEGINS
    number = np.where(words == NEVER, 0, np.cumsum(begins, axis=1))  # of the word in its row, from 1; the end of a word cut off before is 0
    n_words = begins.sum(axis=1)
    draws = chance.random((len(ids), int(n_words.max(initial=0)) + 1))
    draws[:, 0] = 1.0
    draws[np.arange(draws.shape[1]) > n_words[:, None]] = 1.0
    lucky = np.argmin(draws, axis=1)
    draws[np.arange(len(ids)), lucky] = np.where(n_words > 0, 0.0, 1.0)
    asked = np.take_along_axis(draws, number, axis=1) < MASKED
    targets = np.where(asked, ids, NO_WORD)
    if exam:
        return np.where(asked, vocabulary.mask, ids), targets
    fate = chance.random(ids.shape)
    others = vocabulary.ordinary[(chance.random(ids.shape) * len(vocabulary.ordinary)).astype(np.int64)]
    shown = np.where(asked & (fate < 0.8), vocabulary.mask, ids)
    return np.where(asked & (fate >= 0.8) & (fate < 0.9), others, shown), targets


def documents_of(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """int64 (n, tokens): the number of the document in its row that each place belongs to; a [SEP] ends its own."""
    ends = ids == vocabulary.sep
    return np.cumsum(ends, axis=1) - ends


def _tokenized(documents: Iterable[tuple[str, ...]], tokenizer: Any, vocabulary: Vocabulary) -> Iterator[list[Line]]:
    """A document's sentences as (ids, words), without signs."""
    waiting = iter(documents)
    while batch := list(itertools.islice(waiting, DOCUMENTS_AT_ONCE)):
        flat = [sentence for document in batch for sentence in document]
        encoded = iter(tokenizer.backend_tokenizer.encode_batch(flat, add_special_tokens=False))
        for document in batch:
            yield [_flagged(next(encoded), vocabulary) for _ in document]


def _flagged(encoding: Any, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    ids = np.array(encoding.ids, dtype=np.int64)
    word = np.array([-1 if number is None else number for number in encoding.word_ids], dtype=np.int64)
    first = np.ones(len(ids), dtype=bool)
    first[1:] = word[1:] != word[:-1]
    start = np.maximum.accumulate(np.where(first, np.arange(len(ids)), 0)) if len(ids) else ids
    said = vocabulary.sayable[ids[start]] if len(ids) else first
    return ids, np.where(said, np.where(first, BEGINS, GOES_ON), NEVER).astype(np.uint8)


def _packed(documents: Iterable[Sequence[Line]], vocabulary: Vocabulary, tokens: int) -> Iterator[Row]:
    """Full rows, [CLS] first; a document that does not fit goes on in the next one. What is left at the end is a shorter row."""
    ids, words = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)]
    held = 0
    for document in documents:
        for sentence, flags in document:
            ids.append(sentence)
            words.append(flags)
            held += len(sentence)
        ids.append(np.array([vocabulary.sep]))
        words.append(np.zeros(1, np.uint8))
        held += 1
        if held >= tokens - 1:
            line, flag = np.concatenate(ids), np.concatenate(words)
            while len(line) >= tokens - 1:
                yield _row(line[: tokens - 1], flag[: tokens - 1], vocabulary)
                line, flag = line[tokens - 1 :], flag[tokens - 1 :]
            ids, words, held = [line], [flag], len(line)
    line, flag = np.concatenate(ids), np.concatenate(words)
    if (flag == BEGINS).any():
        yield _row(line, flag, vocabulary)


def _row(line: np.ndarray, flag: np.ndarray, vocabulary: Vocabulary) -> Row:
    return np.concatenate([[vocabulary.cls], line]), np.concatenate([[np.uint8(NEVER)], flag]), -1


def _pairs(documents: Iterable[Sequence[Line]], vocabulary: Vocabulary, tokens: int, objective: str, seed: int) -> Iterator[Row]:
    """[CLS] first [SEP] second [SEP]: a document cut in two near its middle, between sentences where it has several. In half of the rows
    the second is another document's (nsp, Devlin et al. 2019) or the two are swapped (sop, Lan et al. 2020)."""
    chance, pool = np.random.default_rng(seed), []
    room = (tokens - 3) // 2
    for document in documents:
        two = _halves(document)
        if two is None:
            continue
        first, second = (tuple(part[:room] for part in half) for half in two)
        alike = bool(chance.random() < ALIKE) or (objective == "nsp" and not pool)
        if not alike and objective == "sop":
            first, second = second, first
        elif not alike:
            second = pool[int(chance.integers(len(pool)))]
        if objective == "nsp":
            own = tuple(part[:room] for part in two[1])
            if len(pool) < POOL:
                pool.append(own)
            else:
                pool[int(chance.integers(POOL))] = own
        ids = np.concatenate([[vocabulary.cls], first[0], [vocabulary.sep], second[0], [vocabulary.sep]])
        edge = np.zeros(1, np.uint8)
        yield ids, np.concatenate([edge, first[1], edge, second[1], edge]), int(alike)


def _halves(document: Sequence[Line]) -> tuple[Line, Line] | None:
    ids, words = (np.concatenate([part[n] for part in document]) for n in (0, 1)) if document else ([], [])
    if len(ids) < LEAST_PIECES:
        return None
    ends = np.cumsum([len(part[0]) for part in document])[:-1] if len(document) > 1 else np.flatnonzero(words == BEGINS)
    ends = ends[(ends > 0) & (ends < len(ids))]
    if not len(ends):
        return None
    at = int(ends[np.argmin(np.abs(ends - len(ids) / 2))])
    return (ids[:at], words[:at]), (ids[at:], words[at:])
