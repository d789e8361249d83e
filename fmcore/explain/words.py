"""Words: the pieces of a text that an explanation speaks of, and the text that is left when some of them are gone.

Words are whole: what stands between blanks, and for scripts without blanks (Chinese, Japanese) what a dictionary says is a word.
Knows nothing of models; a text comes cleaned (text.clean) and every span is a place in it.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

_CHUNK = re.compile(r"\S+")
_NO_BLANKS = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]+")
"""Kana and Han: written without blanks between words."""

Span = tuple[int, int]


@dataclass(frozen=True)
class Words:
    """A text and the spans of its words, in order, none overlapping."""

    text: str
    spans: tuple[Span, ...]

    def __len__(self) -> int:
        return len(self.spans)

    @functools.cached_property
    def tokens(self) -> tuple[str, ...]:
        """The words as they stand in the text."""
        return tuple(self.text[a:b] for a, b in self.spans)

    def keep(self, kept: Sequence[bool]) -> str:
        """The text with the words of `kept` only: a blank between two of them where there was one anywhere between them."""
        return self.edited([token if stays else "" for token, stays in zip(self.tokens, kept, strict=True)])

    def edited(self, tokens: Sequence[str]) -> str:
        """The text with other words in the places of its own; "" deletes one."""
        parts: list[str] = []
        end = 0
        for (start, stop), token in zip(self.spans, tokens, strict=True):
            if not token:
                continue
            if parts and any(c.isspace() for c in self.text[end:start]):
                parts.append(" ")
            parts.append(token)
            end = stop
        return "".join(parts)

    def runs(self, most: int) -> Words:
        """At most `most` pieces: neighbouring words joined into runs of about equal number. The same when there are no more."""
        n = len(self.spans)
        if n <= most:
            return self
        edges = [round(i * n / most) for i in range(most + 1)]
        joined = tuple((self.spans[a][0], self.spans[b - 1][1]) for a, b in itertools.pairwise(edges))
        return Words(self.text, joined)


def split(text: str) -> Words:
    """The words of a cleaned text; none for a text of blanks."""
    spans: list[Span] = []
    for chunk in _CHUNK.finditer(text):
        spans += _words(text, *chunk.span())
    return Words(text, tuple(spans))


def _words(text: str, start: int, end: int) -> list[Span]:
    """The words of a stretch without blanks: itself, but each run of Han and kana by the dictionary, punctuation with the word before."""
    found: list[Span] = []
    at = start
    for run in _NO_BLANKS.finditer(text, start, end):
        if run.start() > at:
            found = _with_rest(found, text, (at, run.start()))
        for word in _dictionary()(run.group()):
            found.append((run.start() + word[0], run.start() + word[1]))
        at = run.end()
    if at < end:
        found = _with_rest(found, text, (at, end)) if found else [(at, end)]
    return found


def _with_rest(found: list[Span], text: str, rest: Span) -> list[Span]:
    """The words with what stands after them: a word of its own when it has letters or digits, else part of the word before."""
    if found and not any(c.isalnum() for c in text[slice(*rest)]):
        return [*found[:-1], (found[-1][0], rest[1])]
    return [*found, rest]


@functools.cache
def _dictionary():
    """jieba's cutter: text without blanks -> (start, end) of each word. Loaded at the first Chinese text (about a second)."""
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    cutter = jieba.Tokenizer()

    def cut(run: str) -> list[Span]:
        return [(start, end) for _, start, end in cutter.tokenize(run)]

    return cut
