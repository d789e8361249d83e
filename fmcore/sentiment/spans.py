"""Buckets of 5 minutes and spans of them: moments as bucket numbers, spans split into whole days and hours, and said in SQL.

Pure; reads no table.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Mapping, Sequence

from fmcore import clock

BUCKET_S = 300


def bucket_of(moment: dt.datetime) -> int:
    """The number of the 5-minute bucket that an aware moment falls into."""
    return int(moment.timestamp() // BUCKET_S)


def moment_of(bucket: int) -> dt.datetime:
    """The aware start of a 5-minute bucket."""
    return dt.datetime.fromtimestamp(bucket * BUCKET_S, clock.UTC)


def pieces(edges: Sequence[int], widths: Mapping[str, int]) -> dict[str | None, list[tuple[int, int]]]:
    """Split what lies between each two edges into whole grains, widest first, and the 5-minute rests; key None is the rests.

    widths: grain -> buckets it covers, the widest first.
    """
    found: dict[str | None, list[tuple[int, int]]] = {grain: [] for grain in (*widths, None)}

    def split(start: int, end: int, left: Sequence[str]) -> None:
        if start >= end:
            return
        if not left:
            found[None].append((start, end))
            return
        width = widths[left[0]]
        first, last = -(-start // width) * width, end // width * width
        if first >= last:
            split(start, end, left[1:])
            return
        split(start, first, left[1:])
        found[left[0]].append((first, last))
        split(last, end, left[1:])

    for start, end in itertools.pairwise(edges):
        split(start, end, list(widths))
    return {grain: _joined(ranges) for grain, ranges in found.items()}


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Neighbouring ranges as one: fewer comparisons a row."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def within(ranges: Sequence[tuple[int, int]]) -> str:
    """A condition: the bucket lies in one of the ranges."""
    return "(" + " OR ".join(f"(bucket >= {start} AND bucket < {end})" for start, end in ranges) + ")"


def label(step: int | None, edges: Sequence[int]) -> str:
    """An expression: the start of a bucket's stretch of `step` buckets, or without one the number of the span it lies in."""
    if step is not None:
        return f"bucket - bucket % {step}" if step > 1 else "bucket"
    if len(edges) == 2:
        return "0"
    return "CASE " + " ".join(f"WHEN bucket < {edge} THEN {i}" for i, edge in enumerate(edges[1:])) + " END"
