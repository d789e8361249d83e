"""An encoder without a network: one vector a token and a frequent token pair, added up, and one small layer. For a firehose of texts.

In the manner of model2vec (Tulkens and van Dongen 2024), whose start it shares: each token's vector is first what the teacher says of that
token alone. Three things are added: vectors of frequent pairs ("not sure", "loss narrowed"), which carry negation and direction; a layer
with a residual connection behind the sum, as in deep averaging networks (Iyyer et al. 2015); and training (training/static.py). The library
itself (0.10.0) is not used: what it distils with asks for transformers below 5.4, this desk has 5.23, and its format has no rows for pairs.

Reads static.safetensors and tokenizer.json; needs numpy, scipy and tokenizers. Owns the format and how a text becomes rows of the tables:
it is cut at blanks, and a piece between blanks always has the same tokens, so that they are remembered. Safe to call from several threads.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmcore import text

FILE = "static.safetensors"
STEP = 512
"""Texts at once: bounds memory, and is enough to make the overhead small."""
REMEMBERED = 100_000
"""Pieces of text whose tokens are remembered; beyond that all are forgotten at once, which costs one slow batch."""
LONGEST_REMEMBERED = 60
"""Characters of a piece that is remembered: an address or a line without blanks comes once."""
RESIDUAL = 4.0
"""Length of the summed vector before the layer."""
_PIECE = re.compile(r"\S+")


@dataclass(frozen=True, eq=False)
class Tables:
    """tokens (vocabulary, dim); pairs (n, dim), with key first * (vocabulary + 2) + second each, ascending int64 (n,); a text begins with
    the token number `vocabulary` and ends with the next, in pairs only. layer (dim, dim) and bias (dim,): see `finished`."""

    tokens: np.ndarray
    pairs: np.ndarray
    keys: np.ndarray
    layer: np.ndarray
    bias: np.ndarray

    @property
    def dim(self) -> int:
        return int(self.tokens.shape[1])

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    def check(self) -> None:
        """Raises ValueError when the arrays do not fit together, or hold numbers that are not finite."""
        dim, arrays = self.dim, (self.tokens, self.pairs, self.layer, self.bias)
        fits = self.pairs.shape == (len(self.keys), dim) and self.layer.shape == (dim, dim) and self.bias.shape == (dim,)
        if not fits or self.keys.dtype != np.int64 or (np.diff(self.keys) <= 0).any() or (len(self.keys) and self.keys[0] < 0):
            raise ValueError(f"{FILE} holds tables that do not fit together")
        if not all(np.isfinite(array).all() for array in arrays):
            raise ValueError(f"{FILE} holds numbers that are not finite")

    def save(self, folder: Path) -> None:
        """Write static.safetensors: the tables in half precision. tokenizer.json is the teacher's."""
        from safetensors.numpy import save_file

        half = {name: np.ascontiguousarray(getattr(self, name), dtype=np.float16) for name in ("tokens", "pairs")}
        full = {name: np.ascontiguousarray(getattr(self, name), dtype=np.float32) for name in ("layer", "bias")}
        save_file({**half, **full, "keys": np.ascontiguousarray(self.keys, dtype=np.int64)}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Tables:
        """What `save` wrote, as float32. Raises whatever its parser raises for a damaged file, and ValueError."""
        from safetensors.numpy import load_file

        found = load_file(folder / FILE)
        made = cls(**{name: array if name == "keys" else array.astype(np.float32) for name, array in found.items()})
        made.check()
        return made


class Pieces:
    """Texts to token numbers, by the pieces between blanks; what a piece's tokens are is remembered."""

    def __init__(self, tokenizer_file: Path, *, max_tokens: int):
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.max_tokens = max_tokens
        self._known: dict[str, tuple[int, ...]] = {}

    def tokens(self, cleaned: Sequence[str]) -> tuple[list[list[int]], np.ndarray]:
        """(the first max_tokens token numbers of each text, whether there were more)."""
        split = [each.split() for each in cleaned]
        tokens_of = self._tokens_of({piece for pieces in split for piece in pieces})
        rows, cut = [], np.zeros(len(split), dtype=bool)
        for i, pieces in enumerate(split):
            row: list[int] = []
            for piece in pieces:
                row += tokens_of[piece]
                if len(row) > self.max_tokens:
                    cut[i] = True
                    break
            rows.append(row[: self.max_tokens])
        return rows, cut

    def read_to(self, cleaned: str) -> int:
        """How many characters of a cleaned text its first max_tokens tokens take up; all where there are no more."""
        n, end = 0, 0
        for place in _PIECE.finditer(cleaned):
            found = self.tokenizer.encode(place.group(), add_special_tokens=False)
            if n + len(found.ids) > self.max_tokens:
                fits = found.offsets[: self.max_tokens - n]
                return place.start() + fits[-1][1] if fits else end
            n, end = n + len(found.ids), place.end()
        return len(cleaned)

    def _tokens_of(self, pieces: set[str]) -> dict[str, tuple[int, ...]]:
        """The tokens of these pieces at least."""
        known = self._known
        new = [piece for piece in pieces if piece not in known]
        if not new:
            return known
        found = self.tokenizer.encode_batch(new, add_special_tokens=False)
        asked = {piece: known[piece] for piece in pieces if piece in known}
        short = {piece: tuple(each.ids) for piece, each in zip(new, found, strict=True) if len(piece) <= LONGEST_REMEMBERED}
        if len(known) + len(short) > REMEMBERED:
            self._known = short
        else:
            known.update(short)
        return {**asked, **{piece: tuple(each.ids) for piece, each in zip(new, found, strict=True)}}


def flattened(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """(the token numbers of all rows in a line, int64; how many each row has)."""
    counts = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    return np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int64, count=int(counts.sum())), counts


def pair_keys(flat: np.ndarray, counts: np.ndarray, n_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """(key of every pair of neighbours in every row, int64; how many a row has). The ends of a row are neighbours too, so that a row has
    one more than it has tokens. flat, counts: as `flattened` gives them."""
    begin, end = n_tokens, n_tokens + 1
    row_of = np.repeat(np.arange(len(counts)), counts)
    line = np.full(len(flat) + 2 * len(counts), end, dtype=np.int64)
    starts = np.cumsum(counts + 2) - (counts + 2)
    line[starts] = begin
    line[np.arange(len(flat)) + 2 * row_of + 1] = flat
    inside = line[:-1] != end  # what ends one row and begins the next are no neighbours
    return (line[:-1] * (n_tokens + 2) + line[1:])[inside], counts + 1


def known_pairs(keys: np.ndarray, counts: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places in `known`, ascending, of those keys that stand there; how many of them each row has)."""
    if not len(known) or not len(keys):
        return np.zeros(0, dtype=np.int64), np.zeros(len(counts), dtype=np.int64)
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    has = known[at] == keys
    return at[has], np.add.reduceat(has.astype(np.int64), np.cumsum(counts) - counts)


class StaticEncoder:
    """embed(texts) for a folder with static.safetensors; the interface of ServedEncoder. threads is taken for that interface's sake: one
    thread embeds more texts a second than the rest of an answer leaves time for."""

    def __init__(self, folder: Path, *, max_tokens: int, threads: int = 0):
        self.path = Path(folder) / FILE
        self.tables = Tables.load(Path(folder))
        self._pieces = Pieces(Path(folder) / "tokenizer.json", max_tokens=max_tokens)
        self.tokenizer = self._pieces.tokenizer
        if self.tokenizer.get_vocab_size() > self.tables.n_tokens:
            raise ValueError(f"{FILE} has {self.tables.n_tokens} tokens, tokenizer.json {self.tokenizer.get_vocab_size()}")
        self.dim, self.max_tokens, self.threads = self.tables.dim, max_tokens, threads or 1

    @functools.cached_property
    def sha256(self) -> str:
        """That of static.safetensors: what a cache of its embeddings goes by."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def embed(self, texts: Sequence[str], *, progress: Callable[[float], None] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(float32 (n, dim), truncated flags): a text is truncated when characters or tokens were cut.

        Each row is its text's alone: the sums are taken row by row, and no number of a row meets another row's. `progress` is called with
        the fraction done after every STEP texts.
        """
        out, cut = np.zeros((len(texts), self.dim), dtype=np.float32), np.zeros(len(texts), dtype=bool)
        for start in range(0, len(texts), STEP):
            cleaned = [text.clean(each) for each in texts[start : start + STEP]]
            rows, longer = self._pieces.tokens([each for each, _ in cleaned])
            here = slice(start, start + len(rows))
            out[here] = finished(summed(rows, self.tables), self.tables.layer, self.tables.bias)
            cut[here] = longer | np.array([was for _, was in cleaned], dtype=bool)
            if progress is not None:
                progress((start + len(rows)) / len(texts))
        return out, cut

    def encode(self, texts: Sequence[str], *, progress: Callable[[float], None] | None = None) -> np.ndarray:
        """The embeddings alone, as Encoder.encode gives them."""
        return self.embed(texts, progress=progress)[0]

    def read_to(self, text: str) -> int:
        """How many characters of a cleaned text the model reads: all, or up to the last token that fits."""
        return self._pieces.read_to(text)


def summed(rows: Sequence[Sequence[int]], tables: Tables) -> np.ndarray:
    """float32 (n, dim): the sum of each row's token vectors and those of its pairs that have one."""
    flat, counts = flattened(rows)
    total = _added(flat, counts, tables.tokens)
    return total + _added(*known_pairs(*pair_keys(flat, counts, tables.n_tokens), tables.keys), tables.pairs)


def _added(places: np.ndarray, counts: np.ndarray, table: np.ndarray) -> np.ndarray:
    """float32 (n, dim): for each row the sum of its places of a table, one after the other."""
    from scipy.sparse import csr_matrix

    ends = np.concatenate([[0], np.cumsum(counts)])
    return csr_matrix((np.ones(len(places), dtype=np.float32), places, ends), shape=(len(counts), len(table))) @ table


def finished(sums: np.ndarray, layer: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """float32 (n, dim) of length 1: x = RESIDUAL * sums / |sums|, then (x + ReLU(x @ layer + bias)) over its length.

    A row of zeros (a text without a known token or pair) that the layer leaves at zero becomes the first unit vector.
    """
    x = sums * (np.float32(RESIDUAL) / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.float32(1e-12)))
    x = x + np.maximum(x @ layer + bias, 0.0)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    x[length[:, 0] == 0, 0] = 1.0
    return (x / np.where(length == 0, np.float32(1.0), length)).astype(np.float32)
