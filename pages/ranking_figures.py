"""Figures of ranked lists in words: each with its unit, its digits, and what it says to somebody who never heard of it.

Owns how these numbers read, on whichever page they stand; never makes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pages import figures, ui


@dataclass(frozen=True)
class Measure:
    """A figure of a list. factor and digits: as it is shown; unit: after the number; from_zero: whether its axis begins at nothing; short
    and width: head and pixels of its column in a table."""

    name: str
    title: str
    words: str
    unit: str = ""
    factor: float = 1.0
    digits: int = 3
    signed: bool = False
    from_zero: bool = True
    short: str = ""
    width: int = 70

    @property
    def printf(self) -> str:
        """How a table writes the number."""
        return f"%{'+' if self.signed else ''}.{self.digits}f{' %%' if self.unit == '%' else ''}"

    def number(self, value: float) -> str:
        """A value without its unit, with a real minus."""
        shown = value * self.factor
        return ui.signed(shown, self.digits) if self.signed else f"{shown:,.{self.digits}f}".replace("-", "−")

    def value(self, figure: Mapping[str, Any] | None) -> str:
        """A stored figure with its unit."""
        return figures.NONE if not figures.is_figure(figure) else f"{self.number(figure['value'])}{self.after}"

    def span(self, figure: Mapping[str, Any] | None) -> str:
        """Its 95 % interval with the unit; "" where there is none."""
        if not figures.is_figure(figure) or figure.get("low") is None or figure.get("high") is None:
            return ""
        join = " to " if self.signed else figures.DASH
        return f"{self.number(figure['low'])}{join}{self.number(figure['high'])}{self.after}"

    def full(self, figure: Mapping[str, Any] | None) -> str:
        """Value, interval and n: "0.178 (0.171–0.185, n = 6,040)"."""
        n = f"n{figures.NBSP}={figures.NBSP}{figure['n']:,}" if figures.is_figure(figure) and figure.get("n") else ""
        around = ", ".join(part for part in (self.span(figure), n) if part)
        return f"{self.value(figure)} ({around})" if around else self.value(figure)

    @property
    def after(self) -> str:
        return f"{figures.NBSP}{self.unit}" if self.unit else ""


MEASURES = {
    measure.name: measure
    for measure in (
        Measure(
            "ndcg", "NDCG@10", "How high the item that somebody met next stands among the first ten: 1 for the top, 0.29 for place ten, "
            "0 below. The mean over all people."),
        Measure("hr", "HR@10", "How often the item that somebody met next stands among the first ten.", "%", 100, 1, width=64),
        Measure(
            "mrr", "MRR", "One over the place of the item that somebody met next, however far down: 1 for the top, 0.1 for place ten. The "
            "mean over all people.", width=58),
        Measure(
            "coverage", "Coverage", "Items that stand on anybody's list of ten, of all there are. Little: all are shown the same few.",
            "%", 100, 1),
        Measure(
            "novelty", "Novelty", "How rarely people had met the items shown: with each bit more, half as many people had.", "bits", 1, 2,
            from_zero=False, width=64),
        Measure(
            "diversity", "Diversity", "How unlike each other the ten items of a list are: 0 all alike, 1 nothing in common.",
            from_zero=False),
        Measure(
            "popularity_bias", "Popularity bias", "How many more interactions the items shown have than those that people chose "
            "themselves: at 0 the lists are as popular as people's own pasts.", "%", 100, 0, signed=True, short="Pop. bias"),
    )
}  # fmt: skip
"""Name in a leaderboard's row -> how it reads. Each is at the first ten of the list, over the whole catalogue."""

BY_SLICE = ("ndcg", "hr", "mrr")
"""The figures that are measured by slice too."""
